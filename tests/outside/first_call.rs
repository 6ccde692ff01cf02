//! The first call through the whole binary with real media: the simulated Meta calls, hears the
//! menu, presses keys, hears the reaction, and hangs up.

use sim::{CallEvent, CallEventKind, CallScript, HangupRule, HangupSource, Sim, caller};

use crate::support::app::App;
use crate::support::node::{
    ACCESS_TOKEN, API_KEY, APP_SECRET, Node, NodeConfig, VERIFY_TOKEN, sim_options,
};

struct World {
    node: Node,
    sim: Sim,
    app: App,
}

async fn world(change: impl FnOnce(&mut NodeConfig)) -> World {
    let app = App::start().await;
    app.xml("/hangup", "");
    let sim = Sim::start(sim_options()).await.expect("the simulated Meta");
    let mut node_config = NodeConfig::new(&sim.graph_url(), &app.url("/answer"));
    node_config.hangup_url = app.url("/hangup");
    change(&mut node_config);
    let node = Node::start(&node_config).await;
    sim.set_node_url(node.public.clone());
    World { node, sim, app }
}

async fn call(world: &World, script: CallScript) -> Vec<CallEvent> {
    world.sim.place_call(script).all().await
}

fn ended(events: &[CallEvent]) -> &sim::CallOutcome {
    match events.last().map(|e| &e.kind) {
        Some(CallEventKind::Ended(ended)) => ended,
        _ => panic!("no end: {events:#?}"),
    }
}

fn at(events: &[CallEvent], test: impl Fn(&CallEventKind) -> bool) -> u64 {
    events.iter().find(|e| test(&e.kind)).unwrap_or_else(|| panic!("not among: {events:#?}")).at_ms
}

const MENU: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<Response>
  <GetInput action="ACTION" numDigits="2" digitEndTimeout="5">
    <Speak>Welcome. Press one two for the opening hours.</Speak>
  </GetInput>
  <Speak>We did not hear you.</Speak>
</Response>"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_user_hears_the_menu_presses_digits_and_hears_the_reaction() {
    let world = world(|_| ()).await;
    world.app.xml("/answer", MENU.replace("ACTION", &world.app.url("/menu?lang=en")));
    world.app.xml("/menu", "<Response><Speak>We are open from nine to five.</Speak></Response>");
    let script = CallScript {
        keys: caller::parse_keys("1w2").expect("keys"),
        record: true,
        hangup: HangupRule::Never,
        ..CallScript::default()
    };
    let events = call(&world, script).await;
    let end = ended(&events);
    assert!(end.ok, "{events:#?}");
    assert!(end.heard_ms > 2_000, "both prompts: {} ms", end.heard_ms);
    assert_eq!(end.clipped_packets, 0, "nothing is sent before accept was answered");
    assert_eq!(end.audio_gaps, 0);
    assert_eq!(end.cause, "end_of_instructions");
    assert!(
        at(&events, |e| *e == CallEventKind::MediaUp)
            <= at(&events, |e| *e == CallEventKind::FirstAudio)
    );
    assert!(
        at(&events, |e| *e == CallEventKind::Ringing)
            <= at(&events, |e| *e == CallEventKind::Answered)
    );
    at(&events, |e| *e == CallEventKind::Hangup { by: HangupSource::Business });

    let answer = world.app.wait("/answer").await;
    for (name, value) in [
        ("From", "919412341234"),
        ("To", "918035737458"),
        ("Direction", "inbound"),
        ("CallStatus", "ringing"),
        ("Event", "StartApp"),
        ("CallerName", "Asha Verma"),
        ("CallType", "whatsapp"),
        ("STIRVerification", "Not Applicable"),
    ] {
        assert_eq!(answer.param(name), value, "{name}");
    }
    let menu = world.app.wait("/menu").await;
    assert_eq!((menu.param("Digits"), menu.param("InputType")), ("12", "dtmf"));
    assert_eq!(menu.param("CallStatus"), "in-progress");
    assert_ne!(menu.param("AnswerTime"), "");
    let hangup = world.app.wait("/hangup").await;
    assert_eq!(
        (
            hangup.param("HangupCauseCode"),
            hangup.param("HangupCauseName"),
            hangup.param("HangupSource")
        ),
        ("4010", "End Of XML Instructions", "Plivo")
    );
    assert_eq!(hangup.param("HangupCause"), "NORMAL_CLEARING");
    let uuid = answer.param("CallUUID").to_owned();
    assert!([&menu, &hangup].iter().all(|s| s.param("CallUUID") == uuid), "one UUID throughout");

    let record = world.node.record(&uuid).await;
    assert_eq!(record["call_state"], "ANSWER");
    assert_eq!(record["hangup_cause_code"], 4010);
    assert_eq!(record["from_number"], "919412341234");
    assert_eq!(world.node.api("Call/").await.json()["objects"][0]["call_uuid"], uuid);
    world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;
    assert_eq!(
        world
            .node
            .metric("offhook_calls_total", &[("direction", "inbound"), ("outcome", "completed")])
            .await,
        1.0
    );
    assert_eq!(
        world
            .node
            .metric("offhook_callback_total", &[("kind", "hangup"), ("outcome", "delivered")])
            .await,
        1.0
    );
    assert_eq!(world.node.metric("offhook_setup_seconds_count", &[]).await, 1.0);
    assert!(
        world.node.metric("offhook_media_packets_total", &[("direction", "out")]).await > 100.0
    );
    assert_eq!(world.app.count("/hangup"), 1);
    no_secret_in(&world.node.log());

    // The event log replays to the same decisions.
    let url = format!("{}/api/v1/calls/{uuid}/events", world.node.public);
    let log = crate::support::http::send("GET", &url, &[("x-api-key", API_KEY)], "").await;
    assert_eq!(log.status, 200);
    let file = world.node.dir.path().join("events.jsonl");
    std::fs::write(&file, &log.body).expect("write the log");
    let replay = std::process::Command::new(env!("CARGO_BIN_EXE_offhook"))
        .arg("replay")
        .arg(&file)
        .output()
        .expect("replay");
    assert!(
        replay.status.success(),
        "{}{}",
        String::from_utf8_lossy(&replay.stdout),
        String::from_utf8_lossy(&replay.stderr)
    );
}

fn no_secret_in(log: &str) {
    for secret in [
        APP_SECRET,
        VERIFY_TOKEN,
        ACCESS_TOKEN,
        API_KEY,
        crate::support::node::AUTH_TOKEN,
        "919412341234",
        "ice-pwd",
    ] {
        assert!(!log.contains(secret), "{secret} stands in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_hangs_up_in_the_middle_of_a_prompt() {
    let world = world(|_| ()).await;
    world
        .app
        .xml("/answer", r#"<Response><Speak loop="0">This goes on and on.</Speak></Response>"#);
    let script = CallScript {
        hangup: HangupRule::AfterAnswer(std::time::Duration::from_millis(1_500)),
        ..CallScript::default()
    };
    let events = call(&world, script).await;
    assert!(ended(&events).ok, "{events:#?}");
    let hangup = world.app.wait("/hangup").await;
    assert_eq!((hangup.param("HangupCauseCode"), hangup.param("HangupSource")), ("4000", "Caller"));
    assert_eq!(hangup.param("BillDuration"), "2");
    world.node.until_metric("offhook_calls_active", &[], 0.0).await;
    world
        .node
        .until_metric(
            "offhook_instructions_total",
            &[("element", "Speak"), ("outcome", "cut")],
            1.0,
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_during_accept_never_answers_twice() {
    let world = world(|_| ()).await;
    world.app.xml("/answer", "<Response><Speak>Hello there.</Speak></Response>");
    let ringing = HangupRule::WhileRinging(std::time::Duration::ZERO);
    for rule in [HangupRule::BeforeAcceptAnswer, HangupRule::AfterAcceptAnswer, ringing] {
        call(&world, CallScript { hangup: rule, ..CallScript::default() }).await;
        world.node.until_metric("offhook_calls_active", &[], 0.0).await;
        world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;
    }
    // A terminate may overtake its connect. Then no call starts and no callback is sent.
    let admitted = world.node.metric("offhook_admission_total", &[("result", "admitted")]).await;
    world
        .node
        .until_metric(
            "offhook_callback_total",
            &[("kind", "hangup"), ("outcome", "delivered")],
            admitted,
        )
        .await;
    assert!(admitted >= 2.0);
    assert_eq!(world.app.count("/hangup") as f64, admitted, "one hangup callback a call");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_live_calls_may_share_metas_relay_address() {
    let world = world(|_| ()).await;
    world.app.xml("/answer", MENU.replace("ACTION", &world.app.url("/menu")));
    world.app.xml("/menu", "<Response><Speak>Thank you.</Speak></Response>");
    let script = |from: &str, keys: &str| CallScript {
        from: from.to_owned(),
        keys: caller::parse_keys(keys).expect("keys"),
        hangup: HangupRule::Never,
        ..CallScript::default()
    };
    let (one, two) = tokio::join!(
        call(&world, script("919412341234", "12")),
        call(&world, script("919412341235", "34"))
    );
    for events in [&one, &two] {
        assert!(ended(events).ok && ended(events).audio_gaps == 0, "{events:#?}");
    }
    let digits_of = |from: &str| {
        let from = from.to_owned();
        world.app.wait_where("/menu", move |s| s.param("From") == from)
    };
    assert_eq!(digits_of("919412341234").await.param("Digits"), "12");
    assert_eq!(digits_of("919412341235").await.param("Digits"), "34");
}

#[tokio::test(flavor = "multi_thread")]
async fn audio_files_are_played_and_unusable_ones_skipped() {
    let world = world(|_| ()).await;
    let tone = wav(440.0, 1.0);
    // The application serves text only; the audio file has a separate route.
    let files = axum::Router::new()
        .route("/tone.wav", axum::routing::get(move || async move { tone }))
        .route(
            "/lies.wav",
            axum::routing::get(|| async { b"RIFF\xff\xff\xff\x7fWAVEfmt ".to_vec() }),
        );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("its address"));
    tokio::spawn(async move { axum::serve(listener, files).await });
    world.app.xml(
        "/answer",
        format!(
            "<Response><Play>{base}/missing.mp3</Play><Play>{base}/lies.wav</Play><Play loop=\"2\">{base}/tone.wav</Play></Response>"
        ),
    );
    let script = CallScript { record: true, hangup: HangupRule::Never, ..CallScript::default() };
    let events = call(&world, script).await;
    let end = ended(&events);
    assert!(end.ok, "{events:#?}");
    assert!((1_700..=2_400).contains(&end.heard_ms), "two seconds of a tone: {} ms", end.heard_ms);
    assert_eq!(world.app.wait("/hangup").await.param("HangupCauseCode"), "4010");
    world
        .node
        .until_metric(
            "offhook_instructions_total",
            &[("element", "Play"), ("outcome", "failed")],
            2.0,
        )
        .await;
}

/// Returns a tone as a WAV file: 16 kHz, mono, 16 bit.
fn wav(hz: f32, seconds: f32) -> Vec<u8> {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 16_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut bytes, spec).expect("a WAV writer");
    for n in 0..(16_000.0 * seconds) as u32 {
        let value = (n as f32 * hz * std::f32::consts::TAU / 16_000.0).sin();
        writer.write_sample((value * 12_000.0) as i16).expect("a sample");
    }
    writer.finalize().expect("the header");
    bytes.into_inner()
}
