//! Calls that the business places, against the tiny node: permission and limits (M14), orders (M15), who does not pick up
//! (M16), as rules have it.

use std::time::Duration;

use serde_json::{Value, json};

use super::business::{Hook, Node};
use super::text;
use crate::meta::offer::tests::fixture;
use crate::world::{PHONE_NUMBER_ID, USER};
use crate::{Allow, Faults};
use model::Clock;

/// An offer of the business's, to a path that nobody is at.
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

/// Status and `start_call` of `call_permissions`.
async fn standing(node: &Node, user: &str) -> (String, bool) {
    let path = format!("/{PHONE_NUMBER_ID}/call_permissions?user_wa_id={user}");
    let (status, told) = node.ask("GET", &path, &Value::Null).await;
    assert_eq!(status, 200, "{told}");
    (text(&told["permission"]["status"]), told["actions"][1]["can_perform_action"] == true)
}

/// What one webhook tells of.
fn word(hook: &Hook) -> String {
    let value = &hook.body["entry"][0]["changes"][0]["value"];
    let word = value["calls"][0]["event"].as_str().or(value["statuses"][0]["status"].as_str());
    let reply = &value["messages"][0]["interactive"]["call_permission_reply"]["response"];
    word.or(reply.as_str()).unwrap_or_default().to_owned()
}

/// What the next webhooks tell of calls, up to the first that is the last.
async fn told(node: &mut Node, last: &str) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        all.push(word(&node.hook().await));
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
async fn m14_who_did_not_allow_it_is_not_called() {
    const STRANGER: &str = "919400000555";
    let mut node = Node::start().await;
    assert_eq!(standing(&node, STRANGER).await, ("no_permission".to_owned(), false));
    let (status, answer) = connect(&node, STRANGER).await;
    assert_eq!((status, &answer["error"]["code"]), (401, &json!(138_006)), "{answer}");
    assert_eq!(standing(&node, USER).await, ("permanent".to_owned(), true));
    let (status, answer) = connect(&node, USER).await;
    assert_eq!(status, 200, "{answer}");
    let (again, answer) = connect(&node, USER).await;
    assert_eq!((again, &answer["error"]["code"]), (400, &json!(138_003)), "{answer}");
    assert_eq!(told(&mut node, "ACCEPTED").await, ["connect", "RINGING", "ACCEPTED"]);

    // Asked, and allowed.
    let request = json!({"messaging_product": "whatsapp", "to": STRANGER, "type": "interactive", "interactive": {
        "type": "call_permission_request", "action": {"name": "call_permission_request"}, "body": {"text": "May we?"}}});
    assert_eq!(node.ask("POST", &format!("/{PHONE_NUMBER_ID}/messages"), &request).await.0, 200);
    let allowed = json!({"user": STRANGER, "answer": "accept"});
    assert_eq!(node.post("/_sim/permissions/answer", &allowed).await.0, 204);
    assert_eq!(standing(&node, STRANGER).await, ("temporary".to_owned(), true));
    assert_eq!(connect(&node, STRANGER).await.0, 200);

    let free = Node::with(|_| {}, |options| options.users_allow = Allow::Everything).await;
    assert_eq!(
        standing(&free, STRANGER).await,
        ("no_permission".to_owned(), false),
        "so that a node minds it"
    );
    assert_eq!(connect(&free, STRANGER).await.0, 200);
}

#[tokio::test]
async fn m15_rules_have_the_order_in_which_a_call_is_told_of() {
    for (how, wanted) in [
        ("connect-first", ["connect", "RINGING", "ACCEPTED"]),
        ("ring-first", ["RINGING", "connect", "ACCEPTED"]),
        ("accepted-first", ["RINGING", "ACCEPTED", "connect"]),
        ("before-reply", ["connect", "RINGING", "ACCEPTED"]),
    ] {
        let user = "919400000018";
        let quick = "do = \"pick_up\"\nrings_ms = 50\nafter_ms = 200";
        let order = format!("do = \"order\"\nhow = \"{how}\"");
        let mut node = with_rules(&rules(&[(user, quick), (user, &order)])).await;
        let (status, answer) = connect(&node, user).await;
        assert_eq!(status, 200, "who a rule is about may be called: {answer}");
        let mut seen = Vec::new();
        while seen.len() < 3 {
            seen.push(word(&node.hook().await));
        }
        // Of ring-first, two go out at one moment.
        let apart = if how == "ring-first" { 1 } else { 3 };
        assert_eq!(seen[..apart], wanted[..apart], "{how}");
        assert!(wanted.iter().all(|word| seen.iter().any(|seen| seen == word)), "{how}: {seen:?}");
        if how == "before-reply" {
            let log: Vec<String> =
                node.sim.log().iter().map(|line| format!("{:?}", line.what)).collect();
            let at = |word: &str| log.iter().position(|line| line.contains(word)).expect("logged");
            assert!(at("event: \"connect\"") < at("action: \"connect\""), "{log:#?}");
        }
    }
}

#[tokio::test]
async fn m15_statuses_too_come_before_the_posts_own_answer() {
    let user = "919400000019";
    let late = "do = \"silence\"\non = \"connect\"\ndone = true\nms = 1000";
    let rings = "do = \"pick_up\"\nrings_ms = 100\nafter_ms = 60000";
    let mut node = with_rules(&rules(&[(user, late), (user, rings)])).await;
    let clock = Clock::real();
    let begun = clock.now();
    let asked = connect(&node, user).await;
    assert!(asked.0 == 200 && clock.now() - begun >= Duration::from_secs(1), "{asked:?}");
    // Both were delivered while the answer was held back: the log has them in their order.
    let log = node.sim.log();
    let at = |word: &str| {
        log.iter().position(|line| format!("{:?}", line.what).contains(word)).expect("logged")
    };
    assert!(at("event: \"ringing\"") < at("action: \"connect\""), "{log:#?}");
    assert_eq!(told(&mut node, "RINGING").await, ["connect", "RINGING"]);
}

#[tokio::test]
async fn m16_who_declines_or_does_not_pick_up_four_times_is_not_called_again() {
    let (declines, absent) = ("919400000020", "919400000021");
    let mut node = with_rules(&rules(&[
        (declines, "do = \"decline\"\nrings_ms = 50\nafter_ms = 100"),
        (absent, "do = \"unanswered\"\nrings_ms = 50\nms = 200"),
    ]))
    .await;
    for nr in 1..=4 {
        assert_eq!(standing(&node, absent).await, ("permanent".to_owned(), true));
        assert_eq!(connect(&node, absent).await.0, 200, "{nr}");
        let last = if nr == 4 { "reject" } else { "terminate" };
        let mut wanted = vec!["connect", "RINGING", "terminate"];
        wanted.extend((nr == 4).then_some("reject"));
        let mut seen = told(&mut node, last).await;
        // Both of the last two are sent at once.
        if nr == 4 && !seen.contains(&"terminate".to_owned()) {
            let at = seen.len() - 1;
            seen.splice(at..at, told(&mut node, "terminate").await);
        }
        assert_eq!(seen, wanted, "{nr}");
        gone(&node, absent).await;
    }
    assert_eq!(connect(&node, absent).await.1["error"]["code"], 138_006);
    assert_eq!(connect(&node, declines).await.0, 200);
    assert_eq!(told(&mut node, "terminate").await, ["connect", "RINGING", "REJECTED", "terminate"]);
}

/// Until no call with this user is up: its end was told, and is then tidied up.
async fn gone(node: &Node, user: &str) {
    let mut every = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..500 {
        every.tick().await;
        if !node.sim.world.is_engaged(PHONE_NUMBER_ID, user) {
            return;
        }
    }
    panic!("the call goes on");
}
