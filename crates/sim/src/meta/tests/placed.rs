//! Tests of business-initiated calls against a minimal node: permission and limits, order of
//! events, unanswered calls.

use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Node, ReceivedWebhook};
use super::text;
use crate::meta::offer::tests::fixture;
use crate::world::{PHONE_NUMBER_ID, USER};
use crate::{Faults, PermissionPolicy};
use model::Clock;

/// A valid offer with a media address that never answers.
fn offer() -> String {
    fixture().replace("a=ice-lite\r\n", "")
}

async fn connect(node: &Node, to: &str) -> (u16, Value) {
    let session = json!({"sdp_type": "offer", "sdp": offer()});
    node.graph(
        json!({"messaging_product": "whatsapp", "to": to, "action": "connect", "session": session}),
    )
    .await
}

/// Permission status and `start_call` of `call_permissions`.
async fn permission_status(node: &Node, user: &str) -> (String, bool) {
    let path = format!("/{PHONE_NUMBER_ID}/call_permissions?user_wa_id={user}");
    let (status, body) = node.ask("GET", &path, &Value::Null).await;
    assert_eq!(status, 200, "{body}");
    (text(&body["permission"]["status"]), body["actions"][1]["can_perform_action"] == true)
}

/// The event, status or response that a webhook reports.
fn webhook_word(hook: &ReceivedWebhook) -> String {
    let value = &hook.body["entry"][0]["changes"][0]["value"];
    let word = value["calls"][0]["event"].as_str().or(value["statuses"][0]["status"].as_str());
    let reply = &value["messages"][0]["interactive"]["call_permission_reply"]["response"];
    word.or(reply.as_str()).unwrap_or_default().to_owned()
}

/// Collects the words of the next webhooks up to `last`.
async fn collect_words(node: &mut Node, last: &str) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        all.push(webhook_word(&node.next_webhook().await));
        if all.last().is_some_and(|word| word == last) {
            return all;
        }
    }
}

fn rules(of_users: &[(&str, &str)]) -> String {
    of_users.iter().map(|(user, what)| format!("[[fault]]\nuser = \"{user}\"\n{what}\n")).collect()
}

async fn with_rules(text: &str) -> Node {
    let faults = Faults::parse(text).expect("rules");
    Node::with(|_| {}, |options| options.faults = faults).await
}

#[tokio::test]
async fn m14_refuses_a_call_without_permission() {
    const STRANGER: &str = "919400000555";
    let mut node = Node::start().await;
    assert_eq!(permission_status(&node, STRANGER).await, ("no_permission".to_owned(), false));
    let (status, answer) = connect(&node, STRANGER).await;
    assert_eq!((status, &answer["error"]["code"]), (401, &json!(138_006)), "{answer}");
    assert_eq!(permission_status(&node, USER).await, ("permanent".to_owned(), true));
    let (status, answer) = connect(&node, USER).await;
    assert_eq!(status, 200, "{answer}");
    let (again, answer) = connect(&node, USER).await;
    assert_eq!((again, &answer["error"]["code"]), (400, &json!(138_003)), "{answer}");
    assert_eq!(collect_words(&mut node, "ACCEPTED").await, ["connect", "RINGING", "ACCEPTED"]);

    // After a request and the user's consent the call is allowed.
    let request = json!({"messaging_product": "whatsapp", "to": STRANGER, "type": "interactive", "interactive": {
        "type": "call_permission_request", "action": {"name": "call_permission_request"}, "body": {"text": "May we?"}}});
    assert_eq!(node.ask("POST", &format!("/{PHONE_NUMBER_ID}/messages"), &request).await.0, 200);
    let allowed = json!({"user": STRANGER, "answer": "accept"});
    assert_eq!(node.post("/_sim/permissions/answer", &allowed).await.0, 204);
    assert_eq!(permission_status(&node, STRANGER).await, ("temporary".to_owned(), true));
    assert_eq!(connect(&node, STRANGER).await.0, 200);

    let unenforced =
        Node::with(|_| {}, |options| options.permission_policy = PermissionPolicy::Unenforced)
            .await;
    assert_eq!(
        permission_status(&unenforced, STRANGER).await,
        ("no_permission".to_owned(), false),
        "the node has to enforce the rules"
    );
    assert_eq!(connect(&unenforced, STRANGER).await.0, 200);
}

#[tokio::test]
async fn m15_rules_set_the_order_of_call_events() {
    for (how, expected) in [
        ("connect-first", ["connect", "RINGING", "ACCEPTED"]),
        ("ring-first", ["RINGING", "connect", "ACCEPTED"]),
        ("accepted-first", ["RINGING", "ACCEPTED", "connect"]),
        ("before-reply", ["connect", "RINGING", "ACCEPTED"]),
    ] {
        let user = "919400000018";
        let pick_up = "do = \"pick_up\"\nrings_ms = 50\nafter_ms = 200";
        let order = format!("do = \"order\"\nhow = \"{how}\"");
        let mut node = with_rules(&rules(&[(user, pick_up), (user, &order)])).await;
        let (status, answer) = connect(&node, user).await;
        assert_eq!(status, 200, "users named by a rule can be called: {answer}");
        let mut seen = Vec::new();
        while seen.len() < 3 {
            seen.push(webhook_word(&node.next_webhook().await));
        }
        // In the order `ring-first` two webhooks are sent at the same time.
        let apart = if how == "ring-first" { 1 } else { 3 };
        assert_eq!(seen[..apart], expected[..apart], "{how}");
        assert!(
            expected.iter().all(|word| seen.iter().any(|seen| seen == word)),
            "{how}: {seen:?}"
        );
        if how == "before-reply" {
            let log: Vec<String> =
                node.sim.log().iter().map(|line| format!("{:?}", line.event)).collect();
            let at = |word: &str| log.iter().position(|line| line.contains(word)).expect("logged");
            assert!(at("event: \"connect\"") < at("action: \"connect\""), "{log:#?}");
        }
    }
}

#[tokio::test]
async fn m15_statuses_can_precede_the_response_to_connect() {
    let user = "919400000019";
    let late = "do = \"silence\"\non = \"connect\"\ndone = true\nms = 1000";
    let rings = "do = \"pick_up\"\nrings_ms = 100\nafter_ms = 60000";
    let mut node = with_rules(&rules(&[(user, late), (user, rings)])).await;
    let clock = Clock::real();
    let start = clock.now();
    let response = connect(&node, user).await;
    assert!(response.0 == 200 && clock.now() - start >= Duration::from_secs(1), "{response:?}");
    // Both were delivered before the delayed response: the log keeps the order.
    let log = node.sim.log();
    let at = |word: &str| {
        log.iter().position(|line| format!("{:?}", line.event).contains(word)).expect("logged")
    };
    assert!(at("event: \"ringing\"") < at("action: \"connect\""), "{log:#?}");
    assert_eq!(collect_words(&mut node, "RINGING").await, ["connect", "RINGING"]);
}

#[tokio::test]
async fn m16_four_missed_calls_revoke_the_permission() {
    let (declines, absent) = ("919400000020", "919400000021");
    let mut node = with_rules(&rules(&[
        (declines, "do = \"decline\"\nrings_ms = 50\nafter_ms = 100"),
        (absent, "do = \"unanswered\"\nrings_ms = 50\nms = 200"),
    ]))
    .await;
    for nr in 1..=4 {
        assert_eq!(permission_status(&node, absent).await, ("permanent".to_owned(), true));
        assert_eq!(connect(&node, absent).await.0, 200, "{nr}");
        let last = if nr == 4 { "reject" } else { "terminate" };
        let mut expected = vec!["connect", "RINGING", "terminate"];
        expected.extend((nr == 4).then_some("reject"));
        let mut seen = collect_words(&mut node, last).await;
        // The last two webhooks are sent at the same time.
        if nr == 4 && !seen.contains(&"terminate".to_owned()) {
            let at = seen.len() - 1;
            seen.splice(at..at, collect_words(&mut node, "terminate").await);
        }
        assert_eq!(seen, expected, "{nr}");
        wait_until_removed(&node, absent).await;
    }
    assert_eq!(connect(&node, absent).await.1["error"]["code"], 138_006);
    assert_eq!(connect(&node, declines).await.0, 200);
    assert_eq!(
        collect_words(&mut node, "terminate").await,
        ["connect", "RINGING", "REJECTED", "terminate"]
    );
}

/// Waits until the call with this user has been removed.
async fn wait_until_removed(node: &Node, user: &str) {
    let mut every = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..500 {
        every.tick().await;
        if !node.sim.world.has_call_with(PHONE_NUMBER_ID, user) {
            return;
        }
    }
    panic!("the call goes on");
}
