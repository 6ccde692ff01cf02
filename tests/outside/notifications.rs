//! Notifications over HTTP, marked as read one at a time or all together, and the live feed.

use std::time::Duration;

use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use sim::{CallScript, Sim};

use super::number_agents::NOWHERE;
use crate::support::app::App;
use crate::support::chat::{Chat, USER, crm};
use crate::support::http;
use crate::support::node::{API_KEY, AUTH_ID, Node, NodeConfig, sim_options};

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

#[tokio::test(flavor = "multi_thread")]
async fn s3_26_a_notification_names_its_conversation() {
    let chat = Chat::start().await;
    let agent = chat.agent(NOWHERE).await;
    chat.connect(&agent).await;
    chat.send_text(USER, "Is anybody there?").await;
    let id = chat.id_of(USER).await;
    let mut every = tokio::time::interval(Duration::from_millis(50));
    for n in 0..400 {
        every.tick().await;
        let found = chat.get("notifications/?type=escalation").await["items"][0].clone();
        if !found.is_null() {
            assert_eq!(found["conversation"], json!(id), "{found}");
            assert_eq!(chat.get(&format!("conversations/{id}/")).await["id"], json!(id));
            return;
        }
        assert!(n < 399, "an agent that is not there escalates; log:\n{}", chat.node.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_27_a_message_reaches_its_accounts_live_feed_within_a_second() {
    let chat = Chat::start_with(
        |app| {
            let user = |name: &str, account: &str| {
                let all = format!(
                    "name = \"{name}\"\npassword = \"correct horse\"\naccount = \"{account}\"\nrole = \"agent\"\n"
                );
                format!("[[user]]\n{all}")
            };
            let other = "[[account]]\nauth_id = \"MAOTHEROFFHOOK000001\"\nauth_token = \"test-token-of-an-account\"\n";
            format!("{}{other}{}{}", crm(app), user("asha", AUTH_ID), user("eve", "MAOTHEROFFHOOK000001"))
        },
        |_| {},
    )
    .await;
    let feed = async |name: &str| {
        let body = format!("name={name}&password=correct+horse");
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let answer =
            http::send("POST", &format!("{}/console/sign-in", chat.node.public), &form, body).await;
        let cookie =
            answer.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        let client =
            hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
                .build_http::<http_body_util::Empty<bytes::Bytes>>();
        let request = ::http::Request::builder()
            .uri(format!("{}/console/events", chat.node.public))
            .header("cookie", cookie)
            .body(http_body_util::Empty::new())
            .unwrap();
        let mut stream = client.request(request).await.unwrap().into_body();
        let hello = stream.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(hello.starts_with(b"event: hello"), "{hello:?}");
        stream
    };
    let (mut ours, mut theirs) = (feed("asha").await, feed("eve").await);
    chat.send_text(USER, "Hello?").await;
    // The limit of one second applies on an idle machine.
    let limit = Duration::from_secs(if crate::support::figures() { 1 } else { 10 });
    let frame = tokio::time::timeout(limit, async {
        loop {
            let frame = ours
                .frame()
                .await
                .expect("the feed goes on")
                .expect("a frame")
                .into_data()
                .expect("data");
            let event = String::from_utf8_lossy(&frame).into_owned();
            // The sync at start-up may report a change of the number first.
            if event.contains("conversation") {
                return event;
            }
        }
    });
    let frame = frame.await.expect("in time");
    assert!(frame.contains("event: change"), "{frame}");
    let silent = tokio::time::timeout(Duration::from_millis(500), theirs.frame()).await;
    assert!(silent.is_err(), "{silent:?}");
}
