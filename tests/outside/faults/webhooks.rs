//! Faults of webhooks: duplicated, delayed, lost, badly signed, batched, dated in the future, out
//! of order, with unusual ids.

use std::time::Duration;

use sim::{CallEvent, CallEventKind, CallScript, HangupRule, SimNumber};

use super::{World, rules, short_timeouts, user, without_media};
use crate::support::app::App;
use crate::support::http;
use crate::support::node::{ACCESS_TOKEN, NodeConfig};

/// A user who hangs up while the phone rings.
fn hangs_up_early(nr: u32, after_ms: u64) -> CallScript {
    CallScript {
        hangup: HangupRule::WhileRinging(Duration::from_millis(after_ms)),
        ..without_media(nr)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h01_r05_ten_copies_make_one_call_even_if_they_arrive_late() {
    let rules = rules(&[
        (1, "do = \"duplicate\"\ncopies = 9"),
        (2, "do = \"duplicate\"\ncopies = 1\nafter_ms = 1500"),
    ]);
    let world = World::start(&rules, |config, _| config.is_single = true).await;
    for call in world.calls([without_media(1), without_media(2)]).await {
        assert_eq!(world.graph_requests(&call.wacid), ["pre_accept 200", "accept 200"]);
        assert_eq!(world.hangup(&call.wacid).await.param("HangupCauseCode"), "4000");
    }
    world.until_webhooks("calls.connect", "duplicate", 10).await;
    world.until_webhooks("calls.terminate", "duplicate", 10).await;
    assert_eq!(
        (world.admission("admitted").await, world.admission("duplicate").await),
        (2.0, 10.0)
    );
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h02_h03_r05_delayed_reordered_and_lost_webhooks_make_at_most_one_call() {
    let late: Vec<(u32, &str)> =
        (1..=12).map(|nr| (nr, "do = \"delay\"\nms = 0\nmost_ms = 1500")).collect();
    let lost = [(20, "do = \"swap\""), (21, "do = \"lose\"\non = \"connect\"")];
    let rules = rules(&[&late[..], &lost].concat());
    let world = World::start(&rules, |config, _| config.is_single = true).await;
    let hangup = HangupRule::AfterPlaced(Duration::from_millis(600));
    let scripts = (1..=12).map(|nr| CallScript { hangup, ..without_media(nr) });
    let calls = world.calls(scripts.chain([hangs_up_early(20, 0), hangs_up_early(21, 300)])).await;
    // A terminate may arrive first; then no call started and Graph received no request. If the
    // connect arrives after the end, Graph no longer knows the call.
    world.until_webhook_sum("calls.connect", &["admitted", "late"], 13).await;
    world.until_webhook_sum("calls.terminate", &["ended", "late"], 14).await;
    let (swapped, lost) = (&calls[12].wacid, &calls[13].wacid);
    assert!(world.graph_requests(swapped).is_empty() && world.graph_requests(lost).is_empty());
    let reported: Vec<String> =
        world.hangups().iter().map(|s| s.param("WhatsAppCallID").to_owned()).collect();
    assert!(!reported.contains(swapped) && !reported.contains(lost), "there was no call");
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h07_r13_webhooks_without_a_valid_signature_have_no_effect() {
    let ways = ["missing", "wrong", "upper", "twice", "sha1"]
        .map(|how| format!("do = \"sign\"\nhow = \"{how}\""));
    let mut user_rules: Vec<(u32, &str)> = (1..).zip(ways.iter().map(String::as_str)).collect();
    user_rules.push((6, "do = \"sign\"\nsecret = \"never ours\""));
    user_rules.push((7, "do = \"sign\"\nsecret = \"the app secret before it\""));
    let world =
        World::start_with(&rules(&user_rules), short_timeouts(Duration::from_secs(45)), |w, _| {
            w.meta = "app_secret_previous = \"the app secret before it\"".to_owned();
        })
        .await;
    let calls = world.calls((1..=6).map(|nr| hangs_up_early(nr, 300))).await;
    assert!(calls.iter().all(|call| world.graph_requests(&call.wacid).is_empty()));
    assert_eq!(world.admission("admitted").await, 0.0);
    let refused = [("kind", "body"), ("result", "bad_signature")];
    assert!(
        world.node.metric("offhook_webhook_events_total", &refused).await >= 12.0,
        "both of each, and again"
    );
    let previous = world.call(without_media(7)).await;
    assert_eq!(
        world.graph_requests(&previous.wacid),
        ["pre_accept 200", "accept 200"],
        "the secret before still holds"
    );
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h08_h09_r05_batches_and_unknown_fields_lose_no_call() {
    let ways = ["future", "no_contacts", "bsuid", "numbers", "no_direction", "case"]
        .map(|how| format!("do = \"reshape\"\nhow = \"{how}\""));
    let mut user_rules: Vec<(u32, &str)> = (1..).zip(ways.iter().map(String::as_str)).collect();
    user_rules.push((7, "do = \"batch\"\nitems = 1000\nmalformed = true"));
    user_rules.push((8, "do = \"batch\"\nitems = 3\nmalformed = true"));
    user_rules.push((9, "do = \"batch\"\nitems = 1"));
    let world = World::start(&rules(&user_rules), |_, _| ()).await;
    let calls = world.calls((1..=9).map(without_media)).await;
    for (nr, call) in (1..).zip(&calls) {
        assert_eq!(
            world.graph_requests(&call.wacid),
            ["pre_accept 200", "accept 200"],
            "user {nr}"
        );
        let hangup = world.hangup(&call.wacid).await;
        assert_eq!(
            hangup.param("HangupCauseCode"),
            "4000",
            "user {nr}: its terminate was understood"
        );
        let from = if nr == 3 { "IN.21300411725500934".to_owned() } else { user(nr) };
        assert_eq!((hangup.param("From"), hangup.param("To")), (from.as_str(), "918035737458"));
    }
    world.until_webhooks("calls.connect", "malformed", 4).await;
    let unknown =
        world.node.metric("offhook_webhook_events_total", &[("result", "unknown_number")]).await;
    assert!(unknown > 300.0, "{unknown}: a sixth of each batch was another's");
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h10_r05_an_outdated_connect_is_recorded_and_never_accepted() {
    let user_rules: Vec<(u32, String)> = [(1, -61), (2, -120), (3, -40), (4, 120), (5, 400)]
        .map(|(nr, s)| (nr, format!("do = \"skew\"\nseconds = {s}")))
        .to_vec();
    let user_rules: Vec<(u32, &str)> =
        user_rules.iter().map(|(nr, rule)| (*nr, rule.as_str())).collect();
    let world = World::start(&rules(&user_rules), |_, _| ()).await;
    let scripts = [
        hangs_up_early(1, 300),
        hangs_up_early(2, 300),
        without_media(3),
        without_media(4),
        hangs_up_early(5, 300),
    ];
    let calls = world.calls(scripts).await;
    world.until_webhooks("calls.connect", "stale", 3).await;
    for call in [&calls[0], &calls[1], &calls[4]] {
        assert!(
            world.graph_requests(&call.wacid).is_empty(),
            "{:?}",
            world.graph_requests(&call.wacid)
        );
    }
    for call in &calls[2..4] {
        assert_eq!(world.graph_requests(&call.wacid), ["pre_accept 200", "accept 200"]);
        // Durations come from the node's clock, regardless of Meta's timestamps.
        let hangup = world.hangup(&call.wacid).await;
        let seconds: u32 = hangup.param("BillDuration").parse().expect("seconds");
        assert!((1..30).contains(&seconds), "{seconds}");
    }
    world.assert_clean().await;
}

/// A second number of the same WABA.
fn second_number(node_config: &mut NodeConfig, app: &App) {
    node_config.extra = format!(
        "[[number]]\nnumber = \"918035737459\"\nphone_number_id = \"106540352242923\"\nwaba = \"1029384756\"\n\
         calling_enabled = true\nanswer_url = \"{}\"\nhangup_url = \"{}\"\n",
        app.url("/answer"),
        app.url("/hangup")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn h12_r05_ids_are_opaque_case_sensitive_and_of_their_number() {
    let user_rules = [
        (1, "do = \"call_id\"\nid = \"wacid.AbCdEf==\""),
        (2, "do = \"call_id\"\nid = \"wacid.aBcDeF==\""),
        (3, "do = \"call_id\"\nbytes = 512"),
        (4, "do = \"call_id\"\nid = \"wacid.Twice\""),
        (5, "do = \"call_id\"\nid = \"wacid.Twice\""),
    ];
    let world = World::start(&rules(&user_rules), second_number).await;
    let number = "918035737459".to_owned();
    let second =
        SimNumber { number, phone_number_id: "106540352242923".to_owned(), ..SimNumber::default() };
    let scripts = (1..=4).map(without_media).chain([CallScript { to: second, ..without_media(5) }]);
    let calls = world.calls(scripts).await;
    assert!(calls.iter().all(super::Call::was_answered), "each was answered");
    for (nr, call) in (1..).zip(&calls) {
        let from = user(nr);
        let hangup = world.app.wait_where("/hangup", |s| s.param("From") == from).await;
        assert_eq!(
            (hangup.param("WhatsAppCallID"), hangup.param("HangupCauseCode")),
            (call.wacid.as_str(), "4000")
        );
        assert_eq!(hangup.param("To"), if nr == 5 { "918035737459" } else { "918035737458" });
    }
    assert_eq!(calls[2].wacid.len(), 512);
    assert_eq!(world.admission("admitted").await, 5.0);
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m17_m20_settings_are_stored_reported_and_applied() {
    let world = World::start("", |_, _| ()).await;
    let url = format!("{}/106540352242922/settings", world.sim.graph_url());
    let bearer = format!("Bearer {ACCESS_TOKEN}");
    let set = async |calling: serde_json::Value| {
        let body = serde_json::json!({ "calling": calling }).to_string();
        http::send("POST", &url, &[("authorization", &bearer)], body).await.status
    };
    assert_eq!(http::get(&url).await.status, 401);
    assert_eq!(set(serde_json::json!({"status": "PERHAPS"})).await, 400);
    assert_eq!(set(serde_json::json!({"status": "DISABLED"})).await, 200);
    let refused = world.sim.place_call(without_media(1)).all().await;
    let cannot = |e: &CallEvent| matches!(&e.kind, CallEventKind::Ended(end) if end.cause.starts_with("calling_disabled"));
    assert!(refused.iter().any(cannot), "{refused:#?}");
    let changed = serde_json::json!({"status": "ENABLED", "callback_permission_status": "ENABLED"});
    assert_eq!((set(changed.clone()).await, set(changed).await), (200, 200));
    let settings = http::send("GET", &url, &[("authorization", &bearer)], "").await.json();
    assert_eq!(settings["calling"]["srtp_key_exchange_protocol"], "DTLS", "{settings}");
    world.until_webhooks("account_settings_update", "settings_noted", 2).await;
    world.call(without_media(1)).await;
    world.until_webhooks("messages.call_permission_reply", "permission_updated", 1).await;
    assert_eq!(world.admission("admitted").await, 1.0);
}

/// Meta resends a webhook that was not answered in time, although the node may have processed it.
#[tokio::test(flavor = "multi_thread")]
async fn m03_r05_a_redelivered_webhook_counts_once() {
    let mut times = short_timeouts(Duration::from_secs(45));
    times.webhook.answer = Duration::from_millis(300);
    let world = World::start_with("", times, |_, _| ()).await;
    world.call(without_media(1)).await;
    world.node.signal("STOP");
    let hangup = HangupRule::AfterAnswer(Duration::from_millis(800));
    let mut events = world.sim.place_call(CallScript { hangup, ..without_media(2) });
    let (mut seen, mut unanswered) = (Vec::new(), 0);
    while let Some(event) = events.next().await {
        unanswered += usize::from(matches!(&event.kind, CallEventKind::Webhook { status: 0, .. }));
        seen.push(event);
        if unanswered == 2 {
            world.node.signal("CONT");
        }
    }
    let call = super::Call::of(seen);
    assert!(call.was_answered() && unanswered >= 2, "{:#?}", call.events);
    assert_eq!(world.graph_requests(&call.wacid), ["pre_accept 200", "accept 200"]);
    // Some of the truncated copies are still read. The first one to arrive starts the call.
    let admitted = [("kind", "calls.connect"), ("result", "admitted")];
    assert_eq!(
        world.node.metric("offhook_webhook_events_total", &admitted).await,
        2.0,
        "each call once"
    );
    world.assert_clean().await;
}
