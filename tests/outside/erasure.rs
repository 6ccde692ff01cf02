//! A person is forgotten on request, over HTTP and over a crash.

use std::time::Duration;

use offhook::sim::{CallScript, Sim};
use serde_json::{Value, json};

use crate::support::app::App;
use crate::support::http;
use crate::support::node::{API_KEY, Node, Wanted, sim_options};

const USER: &str = "919412341234";

async fn ask(node: &Node, method: &str, path: &str) -> http::Answer {
    let url = format!("{}/api/v1/{path}", node.public);
    http::send(method, &url, &[("x-api-key", API_KEY)], "").await
}

async fn calls(node: &Node) -> Vec<Value> {
    ask(node, "GET", "calls/").await.json()["items"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_forgotten_also_if_the_node_dies_meanwhile() {
    let app = App::start().await;
    app.xml("/answer", "<Response><Hangup reason=\"busy\"/></Response>");
    let sim = Sim::start(sim_options()).await.unwrap();
    let mut node = Node::start(&Wanted::new(&sim.graph_url(), &app.url("/answer"))).await;
    sim.set_node_url(node.public.clone());
    let other = CallScript { from: "919876543210".into(), ..CallScript::default() };
    for script in [CallScript::default(), other, CallScript::default()] {
        sim.place_call(script).all().await;
    }
    node.until_metric("offhook_calls_total", &[("outcome", "busy")], 3.0).await;
    let before = calls(&node).await;
    assert_eq!(before.iter().filter(|call| call["from"] == USER).count(), 2, "{before:?}");
    assert_eq!(ask(&node, "DELETE", "users/nobody/").await.status, 404);
    let asked = ask(&node, "DELETE", &format!("users/{USER}/")).await;
    assert_eq!((asked.status, &asked.json()["waId"]), (202, &json!(USER)), "{}", asked.text());
    node.kill();
    node.start_again().await;

    let mut every = tokio::time::interval(Duration::from_millis(50));
    let mut left = 1;
    for _ in 0..400 {
        every.tick().await;
        left = calls(&node).await.iter().filter(|call| call["from"] == USER).count();
        if left == 0 {
            break;
        }
    }
    assert_eq!(left, 0, "{}", node.log());
    let after = calls(&node).await;
    assert_eq!(after.len(), 3, "calls keep their records");
    for (then, now) in before.iter().zip(&after) {
        let uuid = now["callUuid"].as_str().unwrap();
        let events = ask(&node, "GET", &format!("calls/{uuid}/events")).await.text();
        if then["from"] == USER {
            assert_eq!(
                (&now["from"], &now["callerName"], &now["callUuid"]),
                (&json!(""), &json!(""), &then["callUuid"])
            );
            assert_eq!(events, "");
        } else {
            assert_eq!(now, then);
            assert!(events.contains("919876543210"));
        }
    }
    let mut every = tokio::time::interval(Duration::from_millis(50));
    for n in 0..400 {
        every.tick().await;
        let notices = ask(&node, "GET", "notifications/").await.json();
        // Two calls of theirs were missed; the third was somebody else's.
        if notices["items"].as_array().unwrap().len() == 1 {
            break;
        }
        assert!(n < 399, "{notices}");
    }
}
