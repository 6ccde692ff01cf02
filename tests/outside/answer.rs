//! Faults of the customer's application: each call ends with a defined cause and one hangup
//! callback, and leaves nothing behind.

use std::time::Duration;

use crate::support::app::{App, ReceivedRequest};
use crate::support::meta::{Graph, connect, silent_offer, terminate};
use crate::support::node::{Node, NodeConfig};

struct World {
    node: Node,
    graph: Graph,
    app: App,
}

impl World {
    /// Starts a node that accepts without waiting for media. Its URLs are `/answer`, `/fallback`
    /// and `/hangup`.
    async fn start(change: impl FnOnce(&mut NodeConfig, &App)) -> Self {
        let app = App::start().await;
        app.xml("/hangup", "");
        let graph = Graph::start().await;
        let mut node_config = NodeConfig::new(&graph.url, &app.url("/answer"));
        node_config.hangup_url = app.url("/hangup");
        node_config.accept_wait_ms = 0;
        change(&mut node_config, &app);
        let node = Node::start(&node_config).await;
        Self { node, graph, app }
    }

    async fn call(&self) -> String {
        connect(&self.node, &silent_offer()).await
    }

    /// Returns the only hangup callback. Also checks that slots are free and nothing is duplicated.
    async fn hangup(&self) -> ReceivedRequest {
        let hangup = self.app.wait("/hangup").await;
        self.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;
        self.node.until_metric("offhook_calls_active", &[], 0.0).await;
        assert_eq!(self.app.count("/hangup"), 1, "one hangup callback");
        hangup
    }
}

fn assert_cause(hangup: &ReceivedRequest, code: &str, name: &str, source: &str) {
    assert_eq!(
        (
            hangup.param("HangupCauseCode"),
            hangup.param("HangupCauseName"),
            hangup.param("HangupSource")
        ),
        (code, name, source),
        "{:#?}",
        hangup.params
    );
    assert_eq!(hangup.param("Event"), "Hangup");
    assert_eq!(hangup.param("CallStatus"), "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_answer_url_rejects_the_call() {
    let world = World::start(|w, _| w.answer_url = "http://127.0.0.1:1/answer".to_owned()).await;
    let wacid = world.call().await;
    world.graph.wait(&wacid, "reject").await;
    let hangup = world.hangup().await;
    assert_cause(&hangup, "7011", "Error Reaching Answer URL", "Error");
    assert_eq!(hangup.param("BillDuration"), "0");
    assert_eq!(world.graph.actions(&wacid), ["pre_accept", "reject"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_url_times_out_and_the_fallback_runs() {
    let world = World::start(|w, app| {
        w.fallback_url = app.url("/fallback");
        w.answer = "timeout_ms = 500".to_owned();
    })
    .await;
    world.app.xml("/answer", "<Response/>").slow("/answer", Duration::from_secs(3));
    world.app.xml("/fallback", r#"<Response><Hangup reason="busy"/></Response>"#);
    let wacid = world.call().await;
    world.graph.wait(&wacid, "reject").await;
    let fallback = world.app.wait("/fallback").await;
    assert_eq!(fallback.param("Event"), "StartApp");
    assert_cause(&world.hangup().await, "3010", "Busy Line", "Answer XML");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_document_is_refused_as_a_whole() {
    let world = World::start(|_, _| ()).await;
    for (body, status, code) in [
        ("<html><body>Sign in</body></html>", 200, "8011"),
        ("<Response><Speak>never heard</Speak><Speek/></Response>", 200, "8011"),
        (r#"<!DOCTYPE x [<!ENTITY a "a">]><Response/>"#, 200, "8011"),
        ("", 200, "8011"),
        ("<Response/>", 500, "7011"),
        ("<Response/>", 404, "7011"),
    ] {
        let before = world.app.count("/hangup");
        world.app.route("/answer", move |_| (status, body.to_owned()));
        let wacid = world.call().await;
        world.graph.wait(&wacid, "reject").await;
        let hangup = world.app.wait_where("/hangup", |s| s.param("WhatsAppCallID") == wacid).await;
        assert_eq!(hangup.param("HangupCauseCode"), code, "{status} {body}");
        assert_eq!(world.app.count("/hangup"), before + 1);
        assert!(!world.graph.actions(&wacid).contains(&"accept".to_owned()));
    }
    for (outcome, count) in [("invalid", 4.0), ("status", 2.0), ("ok", 0.0)] {
        let counted =
            world.node.metric("offhook_answer_fetch_seconds_count", &[("outcome", outcome)]).await;
        assert_eq!(counted, count, "{outcome}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_above_the_limit_is_not_read_to_its_end() {
    let world = World::start(|_, _| ()).await;
    world.app.route("/answer", |_| {
        (200, format!("<Response><!--{}--></Response>", "x".repeat(3_000_000)))
    });
    let wacid = world.call().await;
    world.graph.wait(&wacid, "reject").await;
    world.hangup().await;
    assert!(
        world.node.metric("offhook_answer_fetch_seconds_count", &[("outcome", "too_large")]).await
            >= 1.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn private_addresses_and_plain_http_are_refused_without_allow_insecure() {
    let world = World::start(|w, _| {
        w.allow_insecure = false;
        w.answer_url = "https://127.0.0.1:8443/answer".to_owned();
        w.hangup_url = String::new();
    })
    .await;
    let wacid = world.call().await;
    world.graph.wait(&wacid, "reject").await;
    world.node.until_metric("offhook_calls_active", &[], 0.0).await;
    assert!(
        world.node.metric("offhook_answer_fetch_seconds_count", &[("outcome", "refused")]).await
            >= 1.0
    );
    assert!(world.app.requests().is_empty(), "nothing was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_hangs_up_while_the_document_is_fetched() {
    let world = World::start(|_, _| ()).await;
    world
        .app
        .xml("/answer", "<Response><Speak>Hello</Speak></Response>")
        .slow("/answer", Duration::from_secs(5));
    let wacid = world.call().await;
    world.graph.wait(&wacid, "pre_accept").await;
    world.app.wait("/answer").await;
    terminate(&world.node, &wacid).await;
    let hangup = world.hangup().await;
    assert_cause(&hangup, "1000", "Canceled", "Caller");
    assert_eq!(
        world.graph.actions(&wacid),
        ["pre_accept"],
        "nothing is sent after the user gave up"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_loop_ends_the_call() {
    let world = World::start(|_, _| ()).await;
    let url = world.app.url("/answer");
    world.app.xml("/answer", format!("<Response><Redirect>{url}</Redirect></Response>"));
    world.call().await;
    assert_cause(&world.hangup().await, "8014", "Invalid Redirect XML", "Error");
    let asked = world.app.count("/answer");
    assert!((100..=102).contains(&asked), "{asked} documents");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_accept_is_followed_by_terminate_never_reject() {
    let world = World::start(|_, _| ()).await;
    world.app.xml("/answer", "<Response><Speak>Hello</Speak></Response>");
    world.graph.script(|asked| {
        (asked["action"] == "accept")
            .then(|| (400, r#"{"error":{"message":"no","code":131009}}"#.to_owned()))
    });
    let wacid = world.call().await;
    world.graph.wait(&wacid, "terminate").await;
    let hangup = world.hangup().await;
    assert_eq!(hangup.param("HangupCauseCode"), "3080");
    assert_eq!(hangup.param("AnswerTime"), "");
    assert!(!world.graph.actions(&wacid).contains(&"reject".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_media_path_that_never_connects_ends_the_call() {
    let world = World::start(|_, _| ()).await;
    world.app.xml("/answer", "<Response><Speak>Hello</Speak></Response>");
    let wacid = world.call().await;
    world.graph.wait(&wacid, "accept").await;
    world.graph.wait(&wacid, "terminate").await;
    assert_cause(&world.hangup().await, "5000", "Network Error", "Plivo");
}
