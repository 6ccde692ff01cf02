//! Tests of the Graph API besides calls: numbers, settings, messages.

use serde_json::{Value, json};

use super::harness::Node;
use super::text;
use crate::world::{PHONE_NUMBER_ID, USER, WABA};

#[tokio::test]
async fn m22_lists_numbers_in_pages() {
    let node = Node::start().await;
    for n in 0..3 {
        let number = json!({"number": format!("91803573746{n}"), "phone_number_id": format!("20{n}"), "waba": WABA});
        assert_eq!(node.post("/_sim/numbers", &number).await.0, 204);
    }
    let mut path = format!("/{WABA}/phone_numbers?limit=3");
    let mut sizes = Vec::new();
    loop {
        let (status, page) = node.ask("GET", &path, &Value::Null).await;
        assert_eq!(status, 200, "{page}");
        sizes.push(page["data"].as_array().map_or(0, Vec::len));
        if page["paging"]["next"].is_null() {
            break;
        }
        path = text(&page["paging"]["next"]);
        let expected = format!("{}/{WABA}/phone_numbers?limit=3&after=3", node.sim.graph_url());
        assert_eq!(path, expected);
    }
    assert_eq!(sizes, [3, 1]);
}

#[tokio::test]
async fn m20_invalid_call_hours_change_nothing() {
    let node = Node::start().await;
    let path = format!("/{PHONE_NUMBER_ID}/settings");
    let hours = |zone: &str, open: &str, close: &str| {
        let span = json!({"day_of_week": "MONDAY", "open_time": open, "close_time": close});
        json!({"calling": {"call_hours":
            {"status": "ENABLED", "timezone_id": zone, "weekly_operating_hours": [span]}}})
    };
    let good = hours("Asia/Kolkata", "0900", "1800");
    assert_eq!(node.ask("POST", &path, &good).await, (200, json!({"success": true})));
    for bad in [hours("Asia/Kolkata", "1800", "0900"), hours("Nowhere", "0900", "1800")] {
        let (status, answer) = node.ask("POST", &path, &bad).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!(100)), "{answer}");
    }
    let (_, body) = node.ask("GET", &path, &Value::Null).await;
    assert_eq!(body["calling"]["call_hours"], good["calling"]["call_hours"]);
}

#[tokio::test]
async fn m22_only_templates_pass_outside_the_service_window() {
    let mut node = Node::start().await;
    let path = format!("/{PHONE_NUMBER_ID}/messages");
    let message = |to: &str, kind: &str, content: Value| {
        let mut message = json!({"messaging_product": "whatsapp", "to": to, "type": kind});
        message[kind] = content;
        message
    };
    let text = |to: &str| message(to, "text", json!({"body": "Hello"}));
    let (status, answer) = node.ask("POST", &path, &text(USER)).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!(131_047)), "{answer}");
    let template = message(USER, "template", json!({"name": "hello", "language": {"code": "en"}}));
    assert_eq!(node.ask("POST", &path, &template).await.0, 200);

    assert_eq!(node.post("/_sim/messages", &json!({"message": "Hello?"})).await.0, 200);
    assert_eq!(node.ask("POST", &path, &text(&format!("+{USER}"))).await.0, 200, "they wrote");
    let caller = "919400000033";
    assert_eq!(node.ask("POST", &path, &text(caller)).await.0, 400);
    let script = crate::CallScript { from: caller.to_owned(), ..super::never_hangs_up() };
    let _call = node.sim.place_call(script);
    while node.next_webhook().await.call()["event"] != "connect" {}
    assert_eq!(node.ask("POST", &path, &text(caller)).await.0, 200, "they called");
}
