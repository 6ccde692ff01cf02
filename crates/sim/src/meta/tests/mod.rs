//! Tests of the simulator against a minimal node. Test names carry the ids of
//! `docs/reference/meta.md#the-simulated-meta`.

mod graph;
mod harness;
mod placed;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use self::harness::{Browser, Business, Node, PeerEvent, PeerFaults, ReceivedWebhook, short_times};
use crate::keys::parse_keys;
use crate::log::LogEvent;
use crate::world::{ACCESS_TOKEN, PHONE_NUMBER_ID};
use crate::{CallEventKind, CallEvents, CallOutcome, CallScript, HangupRule, HangupSource};
use media::opus::{Encoder, Rate};
use model::Clock;

fn never_hangs_up() -> CallScript {
    CallScript { hangup: HangupRule::Never, ..CallScript::default() }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn details(answer: &Value) -> String {
    text(&answer["error"]["error_data"]["details"])
}

/// Places a call and waits for its connect webhook. Returns events, call id and offer.
async fn ringing(node: &mut Node, script: CallScript) -> (CallEvents, String, String) {
    let events = node.sim.place_call(script);
    let hook = node.next_webhook().await;
    assert_eq!(hook.call()["event"], "connect");
    (events, text(&hook.call()["id"]), text(&hook.call()["session"]["sdp"]))
}

/// Places a call, answers it and connects its media.
async fn answered(node: &mut Node, script: CallScript) -> (CallEvents, String, Business) {
    let (events, id, offer) = ringing(node, script).await;
    let mut business = Business::answer(&offer).await;
    let sdp = business.sdp.clone();
    assert_eq!(node.act("pre_accept", &id, Some(&sdp)).await.0, 200);
    business.wait_until_up().await;
    assert_eq!(node.act("accept", &id, Some(&sdp)).await.0, 200);
    (events, id, business)
}

async fn until(
    events: &mut CallEvents,
    expected: impl Fn(&CallEventKind) -> bool,
) -> CallEventKind {
    loop {
        let event = tokio::time::timeout(Duration::from_secs(10), events.next()).await;
        let event = event.expect("the event in time").expect("the event before the end").kind;
        if expected(&event) {
            return event;
        }
    }
}

async fn ended(events: &mut CallEvents) -> CallOutcome {
    match until(events, |e| matches!(e, CallEventKind::Ended(_))).await {
        CallEventKind::Ended(ended) => ended,
        other => panic!("{other:?}"),
    }
}

fn tone(frames: usize) -> Vec<Arc<[u8]>> {
    let mut encoder = Encoder::new(Rate::Hz16000, 5, 24_000);
    (0..frames)
        .map(|f| {
            let pcm: Vec<i16> =
                (0..320).map(|n| (((f * 320 + n) as f64 * 0.17).sin() * 8_000.0) as i16).collect();
            encoder.encode(&pcm)
        })
        .collect()
}

#[tokio::test]
async fn m1_verifies_once_before_the_first_webhook() {
    let mut node = Node::start().await;
    let (first, ..) = ringing(&mut node, never_hangs_up()).await;
    let (second, ..) = ringing(&mut node, never_hangs_up()).await;
    assert_eq!(node.state.verifications.load(Ordering::SeqCst), 1);
    drop((first, second));
}

#[tokio::test]
async fn m1_sends_no_webhooks_if_verification_fails() {
    let node = Node::with(|d| d.verifies = false, |_| {}).await;
    let all = node.sim.place_call(never_hangs_up()).all().await;
    let Some(CallEventKind::Ended(ended)) = all.last().map(|e| &e.kind) else { panic!("{all:?}") };
    assert!(!ended.ok && ended.cause.contains("verify_token"), "{}", ended.cause);
    assert!(!node.sim.log().iter().any(|l| matches!(l.event, LogEvent::Webhook { .. })));
}

#[tokio::test]
async fn m2_webhook_has_metas_format() {
    let mut node = Node::start().await;
    let script =
        CallScript {
            name: "João Sá".into(), cta_payload: Some("a/b".into()), ..never_hangs_up()
        };
    let _events = node.sim.place_call(script);
    let hook: ReceivedWebhook = node.next_webhook().await;
    assert!(hook.raw.is_ascii());
    let value = &hook.body["entry"][0]["changes"][0]["value"];
    assert_eq!(value["contacts"][0]["profile"]["name"], "João Sá");
    assert_eq!(value["metadata"]["phone_number_id"], PHONE_NUMBER_ID);
    assert_eq!(hook.call()["direction"], "USER_INITIATED");
    assert_eq!(hook.call()["cta_payload"], "a/b");
}

#[tokio::test]
async fn m2_slashes_are_escaped_half_of_the_time() {
    let mut node = Node::start().await;
    let mut escaped = 0;
    for _ in 0..20 {
        let events = node.sim.place_call(never_hangs_up());
        let hook = node.next_webhook().await;
        escaped += usize::from(String::from_utf8_lossy(&hook.raw).contains("\\/SAVPF"));
        drop(events);
        assert_eq!(node.next_webhook().await.call()["event"], "terminate");
    }
    assert!((4..=16).contains(&escaped), "{escaped}");
}

#[tokio::test]
async fn m3_repeats_the_same_bytes_until_accepted() {
    let mut node =
        Node::with(|d| *d.failures.get_mut() = 3, |o| o.times.webhook = short_times().webhook)
            .await;
    let _events = node.sim.place_call(never_hangs_up());
    let first = node.next_webhook().await;
    for _ in 0..3 {
        let again = node.next_webhook().await;
        assert_eq!((again.raw, again.signature), (first.raw.clone(), first.signature.clone()));
    }
    let log = node.sim.log();
    let statuses: Vec<_> = log
        .iter()
        .filter_map(|l| match &l.event {
            LogEvent::Webhook { status, attempt, .. } => Some((*attempt, *status)),
            _ => None,
        })
        .collect();
    assert_eq!(statuses.get(..3), Some([(1, 500), (2, 500), (3, 500)].as_slice()));
}

#[tokio::test]
async fn m4_offers_differ_except_for_the_certificate() {
    let mut node = Node::start().await;
    let (_a, first_id, first) = ringing(&mut node, never_hangs_up()).await;
    let (_b, second_id, second) = ringing(&mut node, never_hangs_up()).await;
    assert_ne!(first_id, second_id);
    let line =
        |sdp: &str, name: &str| sdp.lines().find(|l| l.starts_with(name)).expect(name).to_owned();
    for fresh in ["o=", "a=ice-ufrag:", "a=ice-pwd:", "a=ssrc:"] {
        assert_ne!(line(&first, fresh), line(&second, fresh));
    }
    assert_eq!(line(&first, "a=fingerprint:"), line(&second, "a=fingerprint:"));
    assert!(line(&first, "a=candidate:").contains(&node.sim.media_addr().port().to_string()));
}

#[tokio::test]
async fn m5_answers_a_controlled_peer_with_487() {
    let mut node = Node::start().await;
    let (mut events, id, offer) = ringing(&mut node, never_hangs_up()).await;
    let business =
        Business::with(&offer, PeerFaults { controlled: true, ..PeerFaults::default() }).await;
    assert_eq!(node.act("pre_accept", &id, Some(&business.sdp)).await.0, 200);
    // The 487 makes the peer switch roles (RFC 8445 §7.3.1.1), so that it connects.
    until(&mut events, |e| matches!(e, CallEventKind::MediaUp)).await;
    let conflict =
        |l: &LogEvent| matches!(l, LogEvent::Stun { details, .. } if details.contains("487"));
    assert!(node.sim.log().iter().any(|l| conflict(&l.event)));
}

#[tokio::test]
async fn m6_refuses_a_certificate_that_differs_from_the_sdp() {
    let mut node = Node::start().await;
    let (mut events, id, offer) = ringing(&mut node, never_hangs_up()).await;
    let business =
        Business::with(&offer, PeerFaults { wrong_fingerprint: true, ..PeerFaults::default() })
            .await;
    assert_eq!(node.act("pre_accept", &id, Some(&business.sdp)).await.0, 200);
    let end = until(&mut events, |e| {
        matches!(e, CallEventKind::MediaUp | CallEventKind::MediaFailed { .. })
    })
    .await;
    assert!(matches!(end, CallEventKind::MediaFailed { .. }), "{end:?}");
}

#[tokio::test]
async fn m6_meta_can_be_the_dtls_client() {
    let mut node = Node::start().await;
    let script = CallScript { dtls_active: true, ..never_hangs_up() };
    let (mut events, ..) = answered(&mut node, script).await;
    until(&mut events, |e| matches!(e, CallEventKind::MediaUp)).await;
}

#[tokio::test]
async fn m7_refuses_bad_answers_with_code_100_and_the_line() {
    let mut node = Node::start().await;
    let (_events, id, _) = ringing(&mut node, never_hangs_up()).await;
    for (file, line) in [
        ("bad_our_answer_actpass.sdp", "a=setup:actpass"),
        ("bad_our_answer_ice_lite.sdp", "a=ice-lite"),
        ("bad_our_answer_three_fingerprints.sdp", "a=fingerprint"),
    ] {
        let path = format!("{}/../../fixtures/meta/sdp/{file}", env!("CARGO_MANIFEST_DIR"));
        let sdp = std::fs::read_to_string(path).expect("fixture");
        for action in ["pre_accept", "accept"] {
            let (status, answer) = node.act(action, &id, Some(&sdp)).await;
            assert_eq!((status, answer["error"]["code"].as_i64()), (400, Some(100)), "{file}");
            assert!(details(&answer).contains(line), "{file}: {answer}");
        }
    }
    let offer = json!({"sdp_type": "offer", "sdp": "v=0"});
    let body = json!({"messaging_product": "whatsapp", "call_id": id, "action": "accept", "session": offer});
    let (status, answer) = node.graph(body).await;
    assert_eq!(status, 400);
    assert!(details(&answer).contains("sdp_type"), "{answer}");
}

#[tokio::test]
async fn m8_the_sdp_must_not_change_and_accept_can_be_repeated() {
    let mut node = Node::start().await;
    let (_events, id, offer) = ringing(&mut node, never_hangs_up()).await;
    let business = Business::answer(&offer).await;
    assert_eq!(node.act("pre_accept", &id, Some(&business.sdp)).await.0, 200);
    let other = business.sdp.replace("cname:", "cname:x");
    let (status, answer) = node.act("accept", &id, Some(&other)).await;
    assert_eq!((status, answer["error"]["code"].as_i64()), (400, Some(100)));
    for _ in 0..2 {
        let (status, answer) = node.act("accept", &id, Some(&business.sdp)).await;
        assert_eq!((status, &answer["success"]), (200, &json!(true)));
    }
    // `reject` is only for calls that are not accepted.
    assert_eq!(node.act("reject", &id, None).await.0, 400);
    assert_eq!(node.act("terminate", &id, None).await.0, 200);
    for (action, sdp) in
        [("terminate", None), ("reject", None), ("accept", Some(business.sdp.as_str()))]
    {
        let (status, answer) = node.act(action, &id, sdp).await;
        assert_eq!(
            (status, details(&answer).as_str()),
            (400, "Call not found or ended"),
            "{action}"
        );
    }
    assert_eq!(
        details(&node.act("terminate", "wacid.none", None).await.1),
        "Call not found or ended"
    );
}

#[tokio::test]
async fn m9_clips_and_counts_packets_before_accept() {
    let mut node = Node::start().await;
    let (mut events, id, offer) = ringing(&mut node, never_hangs_up()).await;
    let mut business = Business::answer(&offer).await;
    let sdp = business.sdp.clone();
    node.act("pre_accept", &id, Some(&sdp)).await;
    business.wait_until_up().await;
    until(&mut events, |e| matches!(e, CallEventKind::MediaUp)).await;
    let frames = tone(60);
    let (early, late) = frames.split_at(20);
    business.say(early.to_vec()).await;
    let clipped =
        |l: &LogEvent| matches!(l, LogEvent::Media { details, .. } if details.contains("clipped"));
    while !node.sim.log().iter().any(|l| clipped(&l.event)) {
        tokio::task::yield_now().await;
    }
    node.act("accept", &id, Some(&sdp)).await;
    business.say(late.to_vec()).await;
    until(&mut events, |e| matches!(e, CallEventKind::FirstAudio)).await;
    // Meta's audio begins with `accept`.
    loop {
        if matches!(business.next_event().await, PeerEvent::Packet { pt: 111, .. }) {
            break;
        }
    }
    events.control().hangup().await;
    let ended = ended(&mut events).await;
    assert!((1..=20).contains(&ended.clipped_packets), "{ended:?}");
    assert!(
        ended.ok && (100..=1_200 - 20 * ended.clipped_packets).contains(&ended.heard_ms),
        "{ended:?}"
    );
}

#[tokio::test]
async fn m10_ends_a_call_that_is_not_accepted_in_time() {
    let mut node =
        Node::with(|_| {}, |o| o.times.accept_window = short_times().accept_window).await;
    let (mut events, id, _) = ringing(&mut node, never_hangs_up()).await;
    let hook = node.next_webhook().await;
    let call = hook.call();
    assert_eq!(
        (&call["event"], &call["status"], &call["id"]),
        (&json!("terminate"), &json!("FAILED"), &json!(id))
    );
    assert_eq!((call.get("duration"), call.get("start_time")), (None, None));
    let ended = ended(&mut events).await;
    assert_eq!((ended.ok, ended.cause.as_str()), (false, "not_answered"));
}

#[tokio::test]
async fn m11_reject_and_terminate_are_followed_by_the_webhook() {
    let mut node = Node::start().await;
    let (mut events, id, _) = ringing(&mut node, never_hangs_up()).await;
    let clock = Clock::real();
    let before = clock.now();
    assert_eq!(node.act("reject", &id, None).await.0, 200);
    let hook = node.next_webhook().await;
    assert_eq!(hook.call()["status"], "FAILED");
    let took = clock.now() - before;
    // Meta's own 50 to 450 ms, plus delays of a busy machine.
    assert!((50..=5_000).contains(&took.as_millis()), "{took:?}");
    assert_eq!(
        until(&mut events, |e| matches!(e, CallEventKind::Hangup { .. })).await,
        CallEventKind::Hangup { by: HangupSource::Rejected }
    );
    assert_eq!(ended(&mut events).await.cause, "rejected");

    let (mut events, id, _business) = answered(&mut node, never_hangs_up()).await;
    assert_eq!(node.act("terminate", &id, None).await.0, 200);
    let hook = node.next_webhook().await;
    let call = hook.call();
    assert_eq!((&call["status"], call["duration"].as_i64()), (&json!("COMPLETED"), Some(0)));
    assert!(call["start_time"].is_string() && call["end_time"].is_string());
    let ended = ended(&mut events).await;
    assert!(ended.ok && ended.cause == "business_hangup", "{ended:?}");
}

#[tokio::test]
async fn m12_the_user_can_hang_up_at_any_time() {
    let mut node = Node::start().await;
    // While the phone rings.
    let (events, _, _) = ringing(&mut node, never_hangs_up()).await;
    events.control().hangup().await;
    assert_eq!(node.next_webhook().await.call()["status"], "FAILED");
    // When `accept` arrives, before its response.
    let script = CallScript { hangup: HangupRule::BeforeAcceptAnswer, ..never_hangs_up() };
    let (mut events, id, offer) = ringing(&mut node, script).await;
    let business = Business::answer(&offer).await;
    node.act("pre_accept", &id, Some(&business.sdp)).await;
    let (status, answer) = node.act("accept", &id, Some(&business.sdp)).await;
    assert_eq!((status, details(&answer).as_str()), (400, "Call not found or ended"));
    assert_eq!(node.next_webhook().await.call()["status"], "FAILED");
    assert_eq!(ended(&mut events).await.cause, "caller_cancelled");
    // Right after the response.
    let script = CallScript { hangup: HangupRule::AfterAcceptAnswer, ..never_hangs_up() };
    let (_events, id, offer) = ringing(&mut node, script).await;
    let business = Business::answer(&offer).await;
    assert_eq!(node.act("accept", &id, Some(&business.sdp)).await.0, 200);
    assert_eq!(node.next_webhook().await.call()["status"], "COMPLETED");
    // Dropping the events hangs up as well.
    let (events, _, _) = ringing(&mut node, never_hangs_up()).await;
    drop(events);
    assert_eq!(node.next_webhook().await.call()["event"], "terminate");
}

#[tokio::test]
async fn m13_digits_arrive_as_rfc_4733() {
    let mut node = Node::start().await;
    let script = CallScript { keys: parse_keys("1#").expect("keys"), ..never_hangs_up() };
    let (mut events, _, mut business) = answered(&mut node, script).await;
    // The keys wait for the first audio.
    business.say(tone(20)).await;
    let mut packets: Vec<(u8, bool, u16, u32)> = Vec::new();
    let mut markers = 0;
    while packets.iter().filter(|p| p.0 == 11 && p.1).count() < 3 {
        if let PeerEvent::Packet { pt: 126, time, marker, payload } = business.next_event().await {
            let [event, flags, high, low] = payload[..] else { panic!("4 bytes are an event") };
            packets.push((event, flags & 0x80 != 0, u16::from_be_bytes([high, low]), time));
            markers += usize::from(marker);
        }
    }
    assert_eq!((packets.len(), markers), (54, 2));
    for key in [1, 11] {
        let of_key: Vec<_> = packets.iter().filter(|p| p.0 == key).collect();
        assert_eq!(of_key.len(), 27);
        assert!(of_key.iter().all(|p| p.3 == of_key[0].3), "one timestamp a key");
        assert_eq!(of_key.iter().filter(|p| p.1).map(|p| p.2).collect::<Vec<_>>(), [4_000; 3]);
    }
    for digit in ['1', '#'] {
        let sent = until(&mut events, |e| matches!(e, CallEventKind::DigitSent { .. })).await;
        assert_eq!(sent, CallEventKind::DigitSent { digit });
    }
}

#[tokio::test]
async fn m21_checks_token_number_and_action() {
    let mut node = Node::start().await;
    let (_events, id, _) = ringing(&mut node, never_hangs_up()).await;
    let good =
        json!({"messaging_product": "whatsapp", "call_id": id, "action": "terminate"}).to_string();
    let code = |answer: &Value| {
        (answer["error"]["code"].as_i64(), answer["error"]["error_subcode"].as_i64())
    };

    let (status, answer) = node.graph_as("another token", PHONE_NUMBER_ID, &good).await;
    assert_eq!((status, code(&answer)), (401, (Some(190), None)));
    let (status, answer) = node.graph_as(ACCESS_TOKEN, "999", &good).await;
    assert_eq!((status, code(&answer)), (400, (Some(100), Some(33))));
    let unknown = good.replace("terminate", "dance");
    let cut = &good[..good.len() - 1];
    for (body, says) in
        [(unknown.as_str(), "dance"), (cut, "JSON"), ("", "JSON"), ("{}", "messaging_product")]
    {
        let (status, answer) = node.graph_as(ACCESS_TOKEN, PHONE_NUMBER_ID, body).await;
        assert_eq!((status, code(&answer)), (400, (Some(100), None)), "{body}");
        assert!(details(&answer).contains(says), "{answer}");
    }
    let refusals = node
        .sim
        .log()
        .iter()
        .filter(|l| matches!(l.event, LogEvent::Graph { status: 400.., .. }))
        .count();
    assert_eq!(refusals, 6);
}

#[tokio::test]
async fn h13_calls_share_a_relay_or_have_a_port_each() {
    let mut node = Node::start().await;
    let (mut first, _, _one) = answered(&mut node, never_hangs_up()).await;
    let (mut second, _, _two) = answered(&mut node, never_hangs_up()).await;
    until(&mut first, |e| matches!(e, CallEventKind::MediaUp)).await;
    until(&mut second, |e| matches!(e, CallEventKind::MediaUp)).await;

    let mut node = Node::with(|_| {}, |o| o.port_per_call = true).await;
    let (mut events, id, offer) = ringing(&mut node, never_hangs_up()).await;
    assert!(!offer.contains(&format!(" {} ", node.sim.media_addr().port())));
    let business = Business::answer(&offer).await;
    node.act("accept", &id, Some(&business.sdp)).await;
    until(&mut events, |e| matches!(e, CallEventKind::MediaUp)).await;
}

#[tokio::test]
async fn reports_instructions_and_cause_from_the_event_log() {
    let line = json!({"at": 1, "input": {"fact": "timer"}, "outputs": [
        {"wish": "instruction", "element": "Speak", "line": 2, "outcome": "started", "note": ""},
        {"wish": "concluded", "summary": {"cause": "end_of_instructions"}},
    ]});
    let mut node = Node::with(|d| d.events = format!("{line}\n"), |_| {}).await;
    let script = CallScript { record: true, ..never_hangs_up() };
    let (mut events, id, offer) = ringing(&mut node, script).await;
    let mut business = Business::answer(&offer).await;
    let uuid = "7f3c1c1e-5a52-4a0e-9a60-0d6f1f7d2a11";
    let body = json!({"messaging_product": "whatsapp", "call_id": id, "action": "accept",
        "biz_opaque_callback_data": format!("oh1.{uuid}.node-a"),
        "session": {"sdp_type": "answer", "sdp": business.sdp}});
    assert_eq!(node.graph(body).await.0, 200);
    business.wait_until_up().await;
    let instruction = until(&mut events, |e| matches!(e, CallEventKind::Instruction { .. })).await;
    assert!(
        matches!(instruction, CallEventKind::Instruction { element, line: 2, .. } if element == "Speak")
    );
    business.say(tone(10)).await;
    until(&mut events, |e| matches!(e, CallEventKind::FirstAudio)).await;
    node.act("terminate", &id, None).await;
    let hook = node.next_webhook().await;
    assert_eq!(hook.call()["biz_opaque_callback_data"], format!("oh1.{uuid}.node-a"));
    let recording = until(&mut events, |e| matches!(e, CallEventKind::Recording { .. })).await;
    assert!(matches!(recording, CallEventKind::Recording { wav } if wav.len() > 1_000));
    let ended = ended(&mut events).await;
    assert_eq!(
        (ended.ok, ended.cause.as_str(), ended.call_uuid.as_deref()),
        (true, "end_of_instructions", Some(uuid))
    );
}

#[tokio::test]
async fn forwards_audio_and_keys_of_a_browser() {
    let mut node = Node::start().await;
    let mut browser = Browser::call(&node).await;
    let events = format!("{}/_sim/phone/calls/{}/events", node.sim.url(), browser.id);
    let mut events = node.lines(Request::get(events).body(Bytes::new()).expect("request")).await;
    let hook = node.next_webhook().await;
    let (id, offer) = (text(&hook.call()["id"]), text(&hook.call()["session"]["sdp"]));
    let mut business = Business::answer(&offer).await;
    let sdp = business.sdp.clone();
    assert_eq!(node.act("pre_accept", &id, Some(&sdp)).await.0, 200);
    business.wait_until_up().await;
    browser.peer.wait_until_up().await;
    assert_eq!(node.act("accept", &id, Some(&sdp)).await.0, 200);
    let is_audio = |event: &PeerEvent, frame: &[u8]| matches!(event, PeerEvent::Packet { payload, .. } if payload[..] == *frame);
    let frames = tone(3);
    business.say(frames.clone()).await;
    while !is_audio(&browser.peer.next_event().await, &frames[2]) {}
    let other = tone(5);
    browser.peer.say(other.clone()).await;
    while !is_audio(&business.next_event().await, &other[4]) {}
    let keys = format!("/_sim/phone/calls/{}/keys", browser.id);
    assert_eq!(node.post(&keys, &json!({"keys": "7"})).await.0, 204);
    assert_eq!(node.post(&keys, &json!({"keys": "x"})).await.0, 400);
    while !matches!(business.next_event().await, PeerEvent::Packet { pt: 126, payload, .. } if payload[0] == 7)
    {
    }
    assert_eq!(
        node.post(&format!("/_sim/phone/calls/{}/hangup", browser.id), &json!({})).await.0,
        204
    );
    assert_eq!(node.next_webhook().await.call()["status"], "COMPLETED");
    let mut seen = Vec::new();
    while let Some(line) = events.next().await {
        if let Some(data) = line.strip_prefix(b"data: ") {
            let event: Value = serde_json::from_slice(data).expect("JSON");
            seen.push(text(&event["event"]));
        }
    }
    for expected in ["placed", "ringing", "answered", "media_up", "hangup", "ended"] {
        assert!(seen.iter().any(|e| e == expected), "{expected} in {seen:?}");
    }
    assert_eq!(node.post("/_sim/phone/calls", &json!({"sdp": "v=0"})).await.0, 400);
}

#[tokio::test]
async fn places_a_call_over_http_and_streams_its_events() {
    let mut node = Node::start().await;
    let order = json!({"to": "+5511951230001", "phone_number_id": "77", "waba": "88", "dtmf": "1", "stay": true});
    let request = Request::post(format!("{}/_sim/calls", node.sim.url()))
        .body(Bytes::from(order.to_string()));
    let mut lines = node.lines(request.expect("request")).await;
    let hook = node.next_webhook().await;
    assert_eq!(hook.body["entry"][0]["id"], "88");
    assert_eq!(hook.call()["to"], "5511951230001");
    let hangup = json!({"phone_number_id": "77", "call_id": hook.call()["id"]});
    assert_eq!(node.post("/_sim/hangup", &hangup).await.0, 204);
    let mut words = Vec::new();
    while let Some(line) = lines.next().await {
        let event: Value = serde_json::from_slice(&line).expect("JSON");
        words.push(text(&event["event"]));
    }
    assert_eq!(words.last().map(String::as_str), Some("ended"));
    assert!(words.iter().any(|w| w == "placed"));
    assert_eq!(node.post("/_sim/hangup", &hangup).await.0, 404);
    for bad in [
        json!({"dtmf": "x"}),
        json!({"to": "123"}),
        json!({"say": "%%"}),
        json!({"hold_s": -1}),
        json!("x"),
    ] {
        let (status, answer) = node.post("/_sim/calls", &bad).await;
        assert!(status == 400 && answer["error"].is_string(), "{bad}: {answer}");
    }
}

#[tokio::test]
async fn a_wrong_app_secret_of_a_request_is_named_before_the_first_webhook() {
    let node = Node::start().await;
    let call = |secret: &str| json!({"node": node.url, "app_secret": secret, "hold_s": 0});
    let request = Request::post(format!("{}/_sim/calls", node.sim.url()))
        .body(Bytes::from(call("another secret").to_string()));
    let mut lines = node.lines(request.expect("request")).await;
    let only: Value = serde_json::from_slice(&lines.next().await.expect("a line")).expect("JSON");
    assert_eq!((&only["event"], &only["ok"]), (&json!("ended"), &json!(false)));
    assert!(text(&only["cause"]).starts_with("webhook_rejected: "), "{only}");
    assert!(text(&only["cause"]).contains("--app-secret"), "{only}");
    assert_eq!(lines.next().await, None);
    let load = json!({"id": "1", "rate": 1.0, "calls": 1, "call": call("another secret")});
    let (status, answer) = node.post("/_sim/load", &load).await;
    assert!(status == 400 && text(&answer["error"]).contains("--app-secret"), "{answer}");
    assert!(!node.sim.log().iter().any(|l| matches!(l.event, LogEvent::Webhook { .. })));
}

#[tokio::test]
async fn the_phone_page_has_a_strict_content_security_policy() {
    let node = Node::start().await;
    let client = crate::client::client().expect("client");
    for (path, kind) in
        [("phone", "text/html"), ("phone.css", "text/css"), ("phone.js", "text/javascript")]
    {
        let request = Request::get(format!("{}/_sim/{path}", node.sim.url()))
            .body(Bytes::new())
            .expect("request");
        let response = crate::client::send(&client, request).await.expect("an answer");
        let header = |name: &str| response.headers()[name].to_str().expect("text").to_owned();
        assert!(header("content-type").starts_with(kind));
        assert!(
            header("content-security-policy").starts_with("default-src 'none'; script-src 'self'")
        );
    }
    let page = include_str!("../../../phone/phone.html");
    for inline in ["style=", "onclick=", "<style", "<script>"] {
        assert!(!page.contains(inline), "{inline}");
    }
}
