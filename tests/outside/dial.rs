//! `Dial` through the whole binary with real media: a WhatsApp user calls, another one is called,
//! and the two hear each other. `allow_wa_bridge` is enabled.

use std::sync::Arc;
use std::time::Duration;

use sim::sound::frames_of_wav;
use sim::{
    CallEvent, CallEventKind, CallOutcome, CallScript, CalleeAction, CalleeBehaviour, HangupRule,
    HangupSource, caller,
};

use super::outbound::{World, world};
use crate::support::app::ReceivedRequest;
use crate::support::node::NUMBER;

const CALLER: &str = "919812345678";
const CALLEE: &str = "919412341234";
/// The frequency that the caller plays, far from the 425 Hz of the ring-back tone.
const CALLER_HZ: f64 = 700.0;
const CALLEE_HZ: f64 = 1_100.0;

async fn bridging(dial: &str) -> World {
    let world = world(|node_config, _| {
        node_config.limits = "allow_wa_bridge = true".to_owned();
        node_config.accept_wait_ms = 0;
        node_config.hangup_url = node_config.answer_url.replace("/unused", "/hangup");
    })
    .await;
    for path in ["/events", "/music", "/confirm"] {
        world.app.xml(path, "<Response/>");
    }
    let (action, events) = (world.app.url("/dialled"), world.app.url("/events"));
    world.app.xml(
        "/unused",
        format!(
            "<Response><Dial callType=\"whatsapp\" callerId=\"{NUMBER}\" action=\"{action}\" callbackUrl=\"{events}\" {}</Dial>\
             <Speak>Nobody could be reached.</Speak></Response>",
            dial.replace("APP", &world.app.base)
        ),
    );
    world.app.xml("/dialled", "<Response><Speak>Goodbye.</Speak></Response>");
    world
}

fn wav(samples: impl Iterator<Item = i16>) -> Vec<u8> {
    let data: Vec<u8> = samples.flat_map(i16::to_le_bytes).collect();
    let size = u32::try_from(data.len()).expect("short");
    let mut wav = b"RIFF".to_vec();
    wav.extend((36 + size).to_le_bytes());
    wav.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    wav.extend(16_000_u32.to_le_bytes());
    wav.extend(32_000_u32.to_le_bytes());
    wav.extend(b"\x02\0\x10\0data");
    wav.extend(size.to_le_bytes());
    wav.extend(data);
    wav
}

/// Returns a tone as a phone's outgoing packets.
pub fn tone(hz: f64, seconds: u32) -> Vec<Arc<[u8]>> {
    let step = hz * std::f64::consts::TAU / 16_000.0;
    frames_of_wav(&wav(
        (0..16_000 * seconds).map(|n| ((f64::from(n) * step).sin() * 8_000.0) as i16)
    ))
    .expect("a WAV file")
}

/// Returns for how many milliseconds of a recording this tone dominates.
pub fn heard_ms(events: &[CallEvent], hz: f64) -> u64 {
    dominates_ms(&recorded(events), hz)
}

/// Returns for how many milliseconds this tone dominates.
pub fn dominates_ms(samples: &[f64], hz: f64) -> u64 {
    let step = hz * std::f64::consts::TAU / 16_000.0;
    let is_it = |frame: &&[f64]| {
        let energy: f64 = frame.iter().map(|s| s * s).sum();
        let (mut re, mut im) = (0.0, 0.0);
        for (n, s) in frame.iter().enumerate() {
            let at = step * n as f64;
            (re, im) = (re + s * at.cos(), im + s * at.sin());
        }
        // The energy of a pure tone lies in a single spectral line.
        let line = (re * re + im * im) * 2.0 / frame.len() as f64;
        energy > 1e8 && line > energy * 0.8
    };
    samples.chunks_exact(320).filter(is_it).count() as u64 * 20
}

/// Returns the samples of a recording.
pub fn recorded(events: &[CallEvent]) -> Vec<f64> {
    use base64::Engine as _;
    let wav = events.iter().find_map(|event| match &event.kind {
        CallEventKind::Recording { wav } => Some(wav.clone()),
        _ => None,
    });
    let wav = base64::engine::general_purpose::STANDARD
        .decode(wav.expect("a recording"))
        .expect("Base64");
    wav[44..].chunks_exact(2).map(|s| f64::from(i16::from_le_bytes([s[0], s[1]]))).collect()
}

fn caller(say: Vec<Arc<[u8]>>) -> CallScript {
    CallScript {
        from: CALLER.to_owned(),
        say,
        record: true,
        hangup: HangupRule::Never,
        ..CallScript::default()
    }
}

fn callee(action: CalleeAction, acts_after_ms: u64, hangup: HangupRule) -> CallScript {
    let callee = CalleeBehaviour {
        action,
        rings_after: Duration::from_millis(50),
        acts_after: Duration::from_millis(acts_after_ms),
        ..CalleeBehaviour::default()
    };
    CallScript { callee, hangup, record: true, ..CallScript::default() }
}

fn end(events: &[CallEvent]) -> &CallOutcome {
    match events.last().map(|e| &e.kind) {
        Some(CallEventKind::Ended(end)) => end,
        other => panic!("no end: {other:?}"),
    }
}

fn by(events: &[CallEvent]) -> Option<HangupSource> {
    events.iter().find_map(|event| match &event.kind {
        CallEventKind::Hangup { by } => Some(*by),
        _ => None,
    })
}

/// Returns the callbacks so far in their order of arrival.
fn callbacks(world: &World) -> Vec<ReceivedRequest> {
    world.app.requests().into_iter().filter(|seen| seen.path == "/events").collect()
}

async fn assert_no_slots(world: &World) {
    world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;
    for direction in ["inbound", "outbound"] {
        world.node.until_metric("offhook_calls_active", &[("direction", direction)], 0.0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_users_hear_each_other_and_the_call_continues_after_dial() {
    let dial = format!("callerName=\"Asha\" sipHeaders=\"Order=42\"><User>+{CALLEE}</User>");
    let world = bridging(&dial).await;
    let mut script =
        callee(CalleeAction::Accept, 1_500, HangupRule::AfterAnswer(Duration::from_secs(5)));
    script.say = tone(CALLEE_HZ, 6);
    let callee = world.sim.expect_call(script);
    let caller = world.sim.place_call(caller(tone(CALLER_HZ, 10)));
    let (there, here) = tokio::join!(callee.all(), caller.all());

    assert!(
        heard_ms(&there, CALLER_HZ) > 3_500,
        "the callee hears the caller: {} ms",
        heard_ms(&there, CALLER_HZ)
    );
    assert!(
        heard_ms(&here, CALLEE_HZ) > 3_500,
        "the caller hears the callee: {} ms",
        heard_ms(&here, CALLEE_HZ)
    );
    assert!(
        heard_ms(&there, CALLEE_HZ) == 0 && heard_ms(&here, CALLER_HZ) == 0,
        "nobody hears himself"
    );
    assert!(heard_ms(&here, 425.0) >= 900, "a ring-back tone before");
    assert_eq!((end(&here).audio_gaps, end(&there).audio_gaps), (0, 0));
    assert_eq!((by(&here), by(&there)), (Some(HangupSource::Business), Some(HangupSource::Caller)));

    let action = world.app.wait("/dialled").await;
    let hangup = world.app.wait("/hangup").await;
    let a_leg = hangup.param("CallUUID").to_owned();
    let b_leg = action.param("DialBLegUUID").to_owned();
    for (name, value) in [
        ("CallUUID", a_leg.as_str()),
        ("DialALegUUID", &a_leg),
        ("DialStatus", "completed"),
        ("DialRingStatus", "true"),
        ("DialHangupCause", "NORMAL_CLEARING"),
        ("DialError", "(absent)"),
        ("CallStatus", "in-progress"),
        ("Event", "Redirect"),
    ] {
        assert_eq!(action.param(name), value, "{name}");
    }
    let events = callbacks(&world);
    let shown: Vec<_> = events
        .iter()
        .map(|e| (e.param("Event"), e.param("DialAction"), e.param("DialBLegStatus")))
        .collect();
    assert_eq!(
        shown,
        [
            ("DialAnswer", "answer", "answer"),
            ("DialConnected", "connected", "connected"),
            ("DialHangup", "hangup", "hangup")
        ]
    );
    for event in &events {
        for (name, value) in [
            ("DialALegUUID", a_leg.as_str()),
            ("DialBLegUUID", &b_leg),
            ("DialBLegFrom", NUMBER),
            ("DialBLegTo", CALLEE),
            ("DialBLegPosition", "1"),
            ("CallUUID", &a_leg),
            ("From", CALLER),
        ] {
            assert_eq!(event.param(name), value, "{name}");
        }
    }
    let last = &events[2];
    assert_eq!(
        (last.param("DialBLegHangupCauseCode"), last.param("DialBLegHangupSource")),
        ("4000", "Callee")
    );
    assert_eq!(world.app.count("/hangup"), 1, "a B-leg has no hangup callback of its own");

    let record = world.node.record(&b_leg).await;
    assert_eq!(record["parent_call_uuid"], a_leg.as_str(), "{record}");
    assert_eq!(
        (&record["call_direction"], &record["call_state"]),
        (&"outbound".into(), &"ANSWER".into())
    );
    assert_eq!((&record["from_number"], &record["to_number"]), (&NUMBER.into(), &CALLEE.into()));
    assert_eq!(world.node.record(&a_leg).await["hangup_cause_code"], 4010);
    assert_no_slots(&world).await;
    assert_eq!(
        world
            .node
            .metric("offhook_answer_fetch_seconds_count", &[("kind", "action"), ("outcome", "ok")])
            .await,
        1.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_to_answer_wins_and_is_confirmed() {
    let dial = format!(
        "confirmSound=\"APP/confirm\" confirmKey=\"1\" confirmTimeout=\"10\" dialMusic=\"APP/music\" hangupOnStar=\"true\" \
         digitsMatch=\"5\"><User>{CALLEE}</User><User>919412341235</User>"
    );
    let world = bridging(&dial).await;
    world.app.xml("/confirm", "<Response><Speak>Press one.</Speak></Response>");
    world.app.xml("/music", "<Response><Wait/></Response>");
    let other = CallScript {
        from: "919412341235".to_owned(),
        ..callee(CalleeAction::Accept, 30_000, HangupRule::Never)
    };
    let late = world.sim.expect_call(other);
    let mut script = callee(CalleeAction::Accept, 300, HangupRule::Never);
    script.keys = caller::parse_keys("1").expect("keys");
    script.say = tone(CALLEE_HZ, 60);
    let early = world.sim.expect_call(script);
    let caller = world.sim.place_call(caller(Vec::new()));
    let connected =
        world.app.wait_where("/events", |seen| seen.param("Event") == "DialConnected").await;
    let control = caller.control();
    control.press(caller::parse_keys("5w*").expect("keys")).await;
    let (late, early, here) = tokio::join!(late.all(), early.all(), caller.all());
    assert_eq!(
        (by(&late), by(&early), by(&here)),
        (Some(HangupSource::Business), Some(HangupSource::Business), Some(HangupSource::Business))
    );
    assert!(heard_ms(&here, CALLEE_HZ) > 300, "{}", heard_ms(&here, CALLEE_HZ));

    let action = world.app.wait("/dialled").await;
    assert_eq!(action.param("DialStatus"), "completed");
    assert_eq!(action.param("DialBLegUUID"), connected.param("DialBLegUUID"));
    let confirm = world.app.wait("/confirm").await;
    assert_eq!(
        (confirm.param("Event"), confirm.param("CallUUID")),
        ("DialConfirm", connected.param("DialBLegUUID"))
    );
    assert_eq!(confirm.param("ALegUUID"), connected.param("CallUUID"));
    assert_eq!(world.app.wait("/music").await.param("Event"), "DialMusic");
    let hangups: Vec<_> =
        callbacks(&world).into_iter().filter(|seen| seen.param("Event") == "DialHangup").collect();
    let codes: Vec<_> = hangups.iter().map(|seen| seen.param("DialBLegHangupCauseCode")).collect();
    assert_eq!(codes, ["9000", "4000"]);
    let digits =
        world.app.wait_where("/events", |seen| seen.param("Event") == "DialDigitsMatch").await;
    assert_eq!(
        (digits.param("DialDigitsMatch"), digits.param("DialDigitsPressedBy")),
        ("5", "ALeg")
    );
    assert_no_slots(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callee_declines_or_the_caller_hangs_up() {
    let world = bridging(&format!("><User>{CALLEE}</User>")).await;
    let declines = world.sim.expect_call(callee(CalleeAction::Reject, 200, HangupRule::Never));
    let caller_ = world.sim.place_call(caller(Vec::new()));
    let (_, here) = tokio::join!(declines.all(), caller_.all());
    assert!(end(&here).ok, "the call goes on: {here:?}");
    let action = world.app.wait("/dialled").await;
    assert_eq!(
        (action.param("DialStatus"), action.param("DialHangupCause")),
        ("busy", "CALL_REJECTED")
    );
    assert_eq!(action.param("DialBLegUUID"), "");
    assert_no_slots(&world).await;

    let rings = world.sim.expect_call(callee(CalleeAction::Ignore, 200, HangupRule::Never));
    let gives_up = CallScript {
        hangup: HangupRule::AfterAnswer(Duration::from_secs(1)),
        ..caller(Vec::new())
    };
    let caller_ = world.sim.place_call(gives_up);
    let (there, here) = tokio::join!(rings.all(), caller_.all());
    assert_eq!(
        (by(&there), by(&here)),
        (Some(HangupSource::Business), Some(HangupSource::Caller)),
        "{there:?}"
    );
    let cancelled = world
        .app
        .wait_where("/events", |seen| seen.param("DialBLegHangupCauseCode") == "1000")
        .await;
    assert_eq!(cancelled.param("DialBLegHangupSource"), "Caller");
    assert_no_slots(&world).await;
    assert_eq!(world.app.count("/dialled"), 1, "no action where the caller hangs up");
}

#[tokio::test(flavor = "multi_thread")]
async fn callees_that_the_rules_forbid_are_not_called() {
    // A caller id that is not one of our numbers.
    let world = bridging(&format!("><User>{CALLEE}</User>")).await;
    let document = "<Response><Dial callType=\"whatsapp\" callerId=\"919999999999\" action=\"ACTION\">\
        <User>919412341234</User></Dial></Response>";
    world.app.xml("/unused", document.replace("ACTION", &world.app.url("/dialled")));
    world.app.xml("/dialled", "<Response><Hangup reason=\"busy\"/></Response>");
    let events = world.sim.place_call(caller(Vec::new())).all().await;
    assert_eq!(by(&events), Some(HangupSource::Rejected), "not answered for it: {events:?}");
    let action = world.app.wait("/dialled").await;
    assert_eq!(
        (action.param("DialStatus"), action.param("DialError")),
        ("failed", "caller_id_not_enabled")
    );
    assert_eq!(action.param("CallStatus"), "ringing");
    assert_no_slots(&world).await;
    assert_eq!(
        world.node.metric("offhook_graph_request_seconds_count", &[("action", "connect")]).await,
        0.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn r03_neither_leg_outlives_a_kill() {
    let mut world = bridging(&format!("><User>{CALLEE}</User>")).await;
    let callee = world.sim.expect_call(callee(CalleeAction::Accept, 200, HangupRule::Never));
    let caller = world.sim.place_call(caller(Vec::new()));
    let connected =
        world.app.wait_where("/events", |seen| seen.param("Event") == "DialConnected").await;
    let (a_leg, b_leg) =
        (connected.param("CallUUID").to_owned(), connected.param("DialBLegUUID").to_owned());
    world.node.kill();
    world.node.start_again().await;
    let (there, here) = tokio::join!(callee.all(), caller.all());
    assert_eq!(
        (by(&there), by(&here)),
        (Some(HangupSource::Business), Some(HangupSource::Business)),
        "both are told"
    );
    for leg in [&a_leg, &b_leg] {
        assert_eq!(world.node.record(leg).await["hangup_cause_code"], 5010);
    }
    let hangup = world.app.wait("/hangup").await;
    assert_eq!(hangup.param("CallUUID"), a_leg);
    assert_no_slots(&world).await;
    assert_eq!(world.app.count("/hangup"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_controls_the_other_leg_and_separates_the_two() {
    let world = bridging(&format!("><User>{CALLEE}</User>")).await;
    world.app.xml("/a", "<Response><Wait length=\"1\"/><Hangup/></Response>");
    world.app.xml(
        "/b",
        "<Response><Speak>You are on your own now, and this is what you hear.</Speak></Response>",
    );
    let callee = world.sim.expect_call(callee(CalleeAction::Accept, 200, HangupRule::Never));
    let caller = world.sim.place_call(caller(Vec::new()));
    let connected =
        world.app.wait_where("/events", |seen| seen.param("Event") == "DialConnected").await;
    let (a_leg, b_leg) =
        (connected.param("CallUUID").to_owned(), connected.param("DialBLegUUID").to_owned());
    let json = [("content-type", "application/json")];
    let spoken = world
        .rest(
            "POST",
            &format!("Call/{a_leg}/Speak/"),
            &json,
            r#"{"text":"Hello","legs":"bleg"}"#.into(),
        )
        .await;
    assert_eq!(spoken.status, 202, "{}", spoken.text());
    let body = serde_json::json!({"legs": "both", "aleg_url": world.app.url("/a"), "bleg_url": world.app.url("/b")});
    let moved = world.rest("POST", &format!("Call/{a_leg}/"), &json, body.to_string()).await;
    assert_eq!(
        (moved.status, moved.json()["call_uuids"].clone()),
        (202, serde_json::json!([a_leg, b_leg]))
    );
    let (there, here) = tokio::join!(callee.all(), caller.all());
    assert_eq!(
        (by(&there), by(&here)),
        (Some(HangupSource::Business), Some(HangupSource::Business))
    );
    assert!(end(&there).heard_ms > 1_000, "its own document outlives the other leg: {there:?}");
    assert_eq!(world.app.wait("/b").await.param("CallUUID"), b_leg);
    assert_eq!(world.app.wait("/a").await.param("CallUUID"), a_leg);
    let hangup = world.app.wait_where("/hangup", |seen| seen.param("CallUUID") == b_leg).await;
    assert_eq!(
        (hangup.param("HangupCauseCode"), hangup.param("ALegUUID")),
        ("4010", a_leg.as_str())
    );
    let gone = world
        .rest(
            "POST",
            &format!("Call/{a_leg}/Speak/"),
            &json,
            r#"{"text":"Hello","legs":"bleg"}"#.into(),
        )
        .await;
    assert_eq!(gone.status, 404);
    assert_no_slots(&world).await;
    assert_eq!(world.app.count("/dialled"), 0, "no action where another document takes over");
}
