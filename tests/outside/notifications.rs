//! Notifications over HTTP: marked as read one at a time or all together.

use serde_json::Value;
use sim::{CallScript, Sim};

use crate::support::app::App;
use crate::support::http;
use crate::support::node::{API_KEY, Node, NodeConfig, sim_options};

async fn ask(node: &Node, method: &str, path: &str) -> (u16, Value) {
    let url = format!("{}/api/v1/notifications/{path}", node.public);
    let answer = http::send(method, &url, &[("x-api-key", API_KEY)], "").await;
    (answer.status, answer.json())
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_25_missed_calls_are_notified_and_marked_as_read() {
    let app = App::start().await;
    app.xml("/answer", "<Response><Hangup reason=\"busy\"/></Response>");
    let sim = Sim::start(sim_options()).await.unwrap();
    let mut node = Node::start(&NodeConfig::new(&sim.graph_url(), &app.url("/answer"))).await;
    sim.set_node_url(node.public.clone());
    for _ in 0..2 {
        sim.place_call(CallScript::default()).all().await;
    }
    node.until_metric("offhook_calls_total", &[("outcome", "busy")], 2.0).await;

    let (status, list) = ask(&node, "GET", "").await;
    assert_eq!(
        (status, list["unread"].as_u64(), list["items"].as_array().unwrap().len()),
        (200, Some(2), 2),
        "{list}"
    );
    let first = &list["items"][0];
    assert_eq!(
        (first["type"].as_str(), first["read"].as_bool()),
        (Some("missed_call"), Some(false)),
        "{first}"
    );
    assert_eq!(first["text"], "Missed call from Asha Verma to +918035737458");
    assert!(
        first["callUuid"].is_string()
            && first["conversation"].is_string()
            && first["createdAt"].is_string()
            && first["readAt"].is_null(),
        "{first}"
    );
    let page = ask(&node, "GET", "?limit=1").await.1;
    let rest =
        ask(&node, "GET", &format!("?limit=1&cursor={}", page["next"].as_str().unwrap())).await.1;
    assert_eq!((&page["items"][0], &rest["items"][0]), (first, &list["items"][1]));
    assert!(rest["next"].is_null());
    assert_eq!(ask(&node, "GET", "?type=escalation").await.1["items"], serde_json::json!([]));
    assert_eq!(ask(&node, "GET", "?type=rumour").await.0, 400);

    let id = first["id"].as_str().unwrap();
    for _ in 0..2 {
        assert_eq!(
            ask(&node, "POST", &format!("{id}/read/")).await,
            (200, serde_json::json!({"unread": 1}))
        );
    }
    assert_eq!(ask(&node, "GET", "?unread=true").await.1["items"].as_array().unwrap().len(), 1);
    assert_eq!(ask(&node, "POST", "00000000-0000-0000-0000-000000000007/read/").await.0, 404);
    node.kill();
    node.start_again().await;
    assert_eq!(ask(&node, "GET", "").await.1["unread"], 1);
    for _ in 0..2 {
        assert_eq!(ask(&node, "POST", "read-all/").await, (200, serde_json::json!({"unread": 0})));
    }
    assert_eq!(ask(&node, "GET", "?unread=true").await.1["items"], serde_json::json!([]));
}
