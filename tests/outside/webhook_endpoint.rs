//! The webhook endpoint and admission through the whole binary.

use crate::support::app::App;
use crate::support::http;
use crate::support::meta::{
    Graph, connect, connect_body, silent_offer, terminate, terminate_body, wacid,
};
use crate::support::node::{APP_SECRET, AUTH_ID, AUTH_TOKEN, Node, NodeConfig, VERIFY_TOKEN};
use crate::support::{figures, sign};

struct World {
    node: Node,
    graph: Graph,
    app: App,
}

/// Starts a node that answers calls immediately and then waits for media that never arrives.
async fn world(change: impl FnOnce(&mut NodeConfig)) -> World {
    let app = App::start().await;
    app.xml("/answer", r#"<Response><Wait length="60"/><Speak>Hello</Speak></Response>"#);
    app.xml("/hangup", "");
    let graph = Graph::start().await;
    let mut node_config = NodeConfig::new(&graph.url, &app.url("/answer"));
    node_config.hangup_url = app.url("/hangup");
    change(&mut node_config);
    let node = Node::start(&node_config).await;
    World { node, graph, app }
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_echoes_the_challenge_for_the_right_token_only() {
    let world = world(|_| ()).await;
    let door = format!("{}/webhooks/meta", world.node.public);
    let good = http::get(&format!(
        "{door}?hub.mode=subscribe&hub.verify_token={VERIFY_TOKEN}&hub.challenge=a%2Bb"
    ))
    .await;
    assert_eq!((good.status, good.text().as_str()), (200, "a+b"));
    let bad =
        http::get(&format!("{door}?hub.mode=subscribe&hub.verify_token=x&hub.challenge=1")).await;
    assert_eq!(bad.status, 403);
    assert_eq!(http::send("PUT", &door, &[], "").await.status, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn r13_only_a_valid_signature_over_the_raw_bytes_is_accepted() {
    let world = world(|w| w.is_single = true).await;
    let door = format!("{}/webhooks/meta", world.node.public);
    let body = connect_body(&wacid(), &silent_offer()).to_string();
    let right = sign(APP_SECRET, body.as_bytes());
    for wrong in [
        String::new(),
        "sha256=".to_owned(),
        right.to_uppercase(),
        right.replace("sha256", "sha1"),
        sign("other", body.as_bytes()),
    ] {
        let headers: &[(&str, &str)] =
            if wrong.is_empty() { &[] } else { &[("x-hub-signature-256", &wrong)] };
        assert_eq!(http::send("POST", &door, headers, body.clone()).await.status, 401, "{wrong}");
    }
    let twice = [("x-hub-signature-256", right.as_str()), ("x-hub-signature-256", right.as_str())];
    assert_eq!(http::send("POST", &door, &twice, body.clone()).await.status, 401);
    for (bytes, status) in [
        (b"{".to_vec(), 400),
        (Vec::new(), 400),
        (b"[1,2]".to_vec(), 200),
        ("[".repeat(200).into_bytes(), 400),
        (format!("{}1{}", "[".repeat(200), "]".repeat(200)).into_bytes(), 400),
        // A sender that writes its whole body before reading also receives the response.
        (vec![b' '; 3 * 1024 * 1024 + 1], 413),
        (vec![b' '; 12 * 1024 * 1024], 413),
    ] {
        let signature = sign(APP_SECRET, &bytes);
        let size = bytes.len();
        let answer = http::send("POST", &door, &[("x-hub-signature-256", &signature)], bytes).await;
        assert_eq!(answer.status, status, "{size} bytes");
    }
    assert!(world.graph.asked().is_empty(), "nothing happened");
    world
        .node
        .until_metric(
            "offhook_webhook_events_total",
            &[("kind", "body"), ("result", "bad_signature")],
            6.0,
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r05_ten_copies_at_once_make_one_call() {
    let world = world(|_| ()).await;
    let id = wacid();
    let body = connect_body(&id, &silent_offer()).to_string();
    let copies = (0..10).map(|_| world.node.post_webhook(&body));
    let answers = futures_util::future::join_all(copies).await;
    assert!(answers.iter().all(|a| a.status == 200));
    world
        .node
        .until_metric(
            "offhook_webhook_events_total",
            &[("kind", "calls.connect"), ("result", "duplicate")],
            9.0,
        )
        .await;
    world.node.until_metric("offhook_admission_total", &[("result", "admitted")], 1.0).await;
    world.graph.wait(&id, "pre_accept").await;
    terminate(&world.node, &id).await;
    world.app.wait("/hangup").await;
    assert_eq!(world.graph.actions(&id), ["pre_accept"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn graph_receives_pre_accept_first() {
    let world = world(|_| ()).await;
    world.app.xml("/answer", "<Response><Speak>Hello</Speak></Response>");
    let offer = silent_offer();
    let calls = (0..30).map(|_| connect(&world.node, &offer));
    for id in futures_util::future::join_all(calls).await {
        world.graph.wait(&id, "accept").await;
        assert_eq!(world.graph.actions(&id), ["pre_accept", "accept"]);
        terminate(&world.node, &id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r06_accept_is_not_retried_after_the_user_hung_up() {
    let world = world(|_| ()).await;
    world.app.xml("/answer", "<Response><Speak>Hello</Speak></Response>");
    let busy = r#"{"error":{"message":"slow down","code":4}}"#;
    world.graph.script(move |asked| (asked["action"] == "accept").then(|| (429, busy.to_owned())));
    let id = connect(&world.node, &silent_offer()).await;
    world.graph.wait(&id, "accept").await;
    terminate(&world.node, &id).await;
    let hangup = world.app.wait("/hangup").await;
    assert_eq!((hangup.param("HangupCauseCode"), hangup.param("HangupSource")), ("1000", "Caller"));
    assert_eq!(world.graph.actions(&id), ["pre_accept", "accept"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminate_before_its_connect_starts_no_call() {
    let world = world(|w| w.is_single = true).await;
    let id = wacid();
    assert_eq!(world.node.post_webhook(&terminate_body(&id).to_string()).await.status, 200);
    assert_eq!(
        world.node.post_webhook(&connect_body(&id, &silent_offer()).to_string()).await.status,
        200
    );
    world
        .node
        .until_metric(
            "offhook_webhook_events_total",
            &[("kind", "calls.connect"), ("result", "late")],
            1.0,
        )
        .await;
    assert!(world.graph.asked().is_empty());
    assert!(world.app.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slot_limit_rejects_the_next_call_until_one_ends() {
    let world = world(|w| w.limits = "calls_per_number = 2".to_owned()).await;
    let first = connect(&world.node, &silent_offer()).await;
    let _second = connect(&world.node, &silent_offer()).await;
    let third = connect(&world.node, &silent_offer()).await;
    world.graph.wait(&third, "reject").await;
    world.node.until_metric("offhook_number_slots_in_use", &[], 2.0).await;
    world.node.until_metric("offhook_admission_total", &[("result", "number_full")], 1.0).await;
    terminate(&world.node, &first).await;
    world.node.until_metric("offhook_number_slots_in_use", &[], 1.0).await;
    let fourth = connect(&world.node, &silent_offer()).await;
    world.graph.wait(&fourth, "pre_accept").await;
    assert_eq!(world.graph.actions(&third), ["reject"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_per_second_are_exact() {
    let world = world(|w| w.cps = 3).await;
    let bodies: Vec<String> =
        (0..10).map(|_| connect_body(&wacid(), &silent_offer()).to_string()).collect();
    futures_util::future::join_all(bodies.iter().map(|b| world.node.post_webhook(b))).await;
    world.node.until_metric("offhook_admission_total", &[("result", "admitted")], 3.0).await;
    world.node.until_metric("offhook_admission_total", &[("result", "cps_exceeded")], 7.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_offer_is_rejected_and_counted() {
    let world = world(|_| ()).await;
    let long = format!("{}a=x:{}\r\n", silent_offer(), "y".repeat(17 * 1024));
    for sdp in [
        "",
        "v=0",
        include_str!("../../fixtures/meta/sdp/bad_video_only.sdp"),
        include_str!("../../fixtures/meta/sdp/bad_sha1_only.sdp"),
        &long,
    ] {
        let id = connect(&world.node, sdp).await;
        world.graph.wait(&id, "reject").await;
        assert_eq!(world.graph.actions(&id), ["reject"]);
    }
    world.node.until_metric("offhook_admission_total", &[("result", "bad_offer")], 5.0).await;
    world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;
    assert!(world.app.requests().is_empty(), "no request about a call that was not admitted");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_need_the_accounts_credentials() {
    use base64::Engine as _;
    let world = world(|_| ()).await;
    let basic = |user: &str, token: &str| {
        format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(format!("{user}:{token}"))
        )
    };
    let list = format!("{}/v1/Account/{AUTH_ID}/Call/", world.node.public);
    assert_eq!(http::get(&list).await.status, 401);
    assert_eq!(
        http::send("GET", &list, &[("authorization", &basic(AUTH_ID, "wrong"))], "").await.status,
        401
    );
    let good =
        http::send("GET", &list, &[("authorization", &basic(AUTH_ID, AUTH_TOKEN))], "").await;
    assert_eq!(good.status, 200);
    assert_eq!(good.json()["objects"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn r09_a_draining_node_rejects_new_calls_and_keeps_live_ones() {
    let mut world = world(|w| w.is_single = true).await;
    let live = connect(&world.node, &silent_offer()).await;
    world.graph.wait(&live, "pre_accept").await;
    let signalled = model::Clock::real().now();
    world.node.signal("TERM");
    let ready = format!("{}/readyz", world.node.admin);
    let mut every = tokio::time::interval(std::time::Duration::from_millis(10));
    loop {
        every.tick().await;
        if http::get(&ready).await.status == 503 {
            break;
        }
    }
    let bound = if figures() { 100 } else { 1_000 };
    assert!(
        signalled.elapsed().as_millis() < bound,
        "/readyz says no after {:?}",
        signalled.elapsed()
    );
    world.node.until_metric("offhook_draining", &[], 1.0).await;
    assert_eq!(http::get(&format!("{}/livez", world.node.admin)).await.status, 200);
    let late = connect(&world.node, &silent_offer()).await;
    world.graph.wait(&late, "reject").await;
    assert_eq!(world.graph.actions(&live), ["pre_accept"], "the live call is untouched");
    terminate(&world.node, &live).await;
    world.app.wait("/hangup").await;
    assert_eq!(world.node.wait(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn r09_calls_left_after_the_drain_time_end_as_drained() {
    let mut world = world(|w| (w.is_single, w.drain_seconds) = (true, 1)).await;
    let live = connect(&world.node, &silent_offer()).await;
    world.app.wait("/answer").await;
    let signalled = model::Clock::real().now();
    world.node.signal("TERM");
    world.graph.wait(&live, "reject").await;
    let hangup = world.app.wait("/hangup").await;
    assert_eq!((hangup.param("HangupCauseCode"), hangup.param("HangupSource")), ("5010", "Error"));
    assert_eq!(world.node.wait(), Some(0));
    let took = signalled.elapsed();
    assert!((1.0..6.0).contains(&took.as_secs_f64()), "drain_seconds + 5 s at most: {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r09_no_call_ends_before_the_drain_time() {
    let mut world = world(|w| {
        w.drain_seconds = 3;
        w.cps = 1_000;
    })
    .await;
    let offer = silent_offer();
    let live = futures_util::future::join_all((0..100).map(|_| connect(&world.node, &offer))).await;
    for id in &live {
        world.graph.wait(id, "pre_accept").await;
    }
    let first_cut = std::sync::Arc::new(std::sync::OnceLock::new());
    let cut = first_cut.clone();
    world.graph.script(move |asked| {
        if asked["action"] == "reject" || asked["action"] == "terminate" {
            cut.get_or_init(|| model::Clock::real().now());
        }
        None
    });
    let signalled = model::Clock::real().now();
    world.node.signal("TERM");
    assert_eq!(world.node.wait(), Some(0));
    let took = signalled.elapsed().as_secs_f64();
    assert!((3.0..8.0).contains(&took), "drain_seconds + 5 s at most: {took}");
    let first_cut = *first_cut.get().expect("what was left was cut");
    assert!(first_cut.duration_since(signalled).as_secs_f64() >= 2.9, "cut before the time");
    // Every end is recorded, and its callback is delivered or in the outbox.
    assert_eq!(world.node.ended().await, (100, 100));
    assert!(world.app.count("/hangup") > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn r09_a_second_signal_ends_everything_within_two_seconds() {
    let mut world = world(|w| (w.is_single, w.drain_seconds) = (true, 60)).await;
    let live = connect(&world.node, &silent_offer()).await;
    world.app.wait("/answer").await;
    world.node.signal("TERM");
    world.node.until_metric("offhook_calls_active", &[], 1.0).await;
    let signalled = model::Clock::real().now();
    world.node.signal("TERM");
    world.graph.wait(&live, "reject").await;
    assert_eq!(world.node.wait(), Some(0));
    assert!(signalled.elapsed().as_secs_f64() < 2.5, "{:?}", signalled.elapsed());
    assert_eq!(world.app.count("/hangup"), 1);
    assert_eq!(world.node.ended().await, (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn r09_a_second_signal_waits_for_no_application() {
    let mut world = world(|w| (w.is_single, w.cps) = (true, 1_000)).await;
    world.app.slow("/hangup", std::time::Duration::from_secs(30));
    let offer = silent_offer();
    let live = futures_util::future::join_all((0..50).map(|_| connect(&world.node, &offer))).await;
    for id in &live {
        world.graph.wait(id, "pre_accept").await;
    }
    world.graph.script(|asked| (asked["action"] == "reject").then(|| (500, String::new())));
    world.node.signal("TERM");
    world.node.until_metric("offhook_draining", &[], 1.0).await;
    let signalled = model::Clock::real().now();
    world.node.signal("TERM");
    assert_eq!(world.node.wait(), Some(0));
    assert!(signalled.elapsed().as_secs_f64() < 2.5, "{:?}", signalled.elapsed());
    assert_eq!(world.node.ended().await, (50, 50), "terminal, with a callback each");
}
