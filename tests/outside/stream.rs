//! Audio streams through the whole binary with real media: a caller and a customer's WebSocket
//! server hear each other (`docs/stream.md`, `docs/reference/xml.md#stream`).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::answer::{SigningKeys, sign};
use media::opus::{Encoder, Rate};
use model::Method;
use model::Secret;
use serde_json::{Value, json};
use sim::{
    CallEvent, CallEventKind, CallEvents, CallScript, CalleeAction, EventOrder, HangupRule,
    KeysStart, caller,
};
use tokio_tungstenite::tungstenite::Message;

use crate::control::{in_order, level, only, received_sounds};
use crate::outbound::{World, user, world};
use crate::support::bot::BotServer;
use crate::support::http;
use crate::support::node::{API_KEY, AUTH_ID, AUTH_TOKEN};

#[path = "../../examples/voice_bot.rs"]
mod voice_bot;

fn tone(rate: u32, hz: f64, ms: u32) -> Vec<i16> {
    let wave =
        |n: u32| (f64::from(n) * hz * std::f64::consts::TAU / f64::from(rate)).sin() * 8_000.0;
    (0..rate * ms / 1_000).map(|n| wave(n) as i16).collect()
}

/// Returns a tone as a caller's packets.
fn tone_packets(hz: f64, ms: u32) -> Vec<Arc<[u8]>> {
    let mut encoder = Encoder::for_prompts();
    tone(16_000, hz, ms).chunks(Rate::Hz16000.frame()).map(|frame| encoder.encode(frame)).collect()
}

/// Returns the samples of a 16-bit media message.
fn pcm(media: &Value) -> Vec<i16> {
    let bytes =
        STANDARD.decode(media["media"]["payload"].as_str().expect("a payload")).expect("Base64");
    bytes.chunks_exact(2).map(|two| i16::from_le_bytes([two[0], two[1]])).collect()
}

impl World {
    /// Places a call to a user who answers, with this document. Returns the call's events and UUID.
    async fn streamed(&self, script: CallScript, document: String) -> (CallEvents, String) {
        self.app.xml("/answer", document);
        self.app.xml("/stream", "");
        let user = self.sim.expect_call(script);
        let uuid = self.placed(&self.order()).await;
        (user, uuid)
    }

    /// Waits for the next status callback of this event.
    async fn status(&self, event: &str) -> crate::support::app::ReceivedRequest {
        self.app.wait_where("/stream", |seen| seen.param("Event") == event).await
    }

    fn stream(&self, attributes: &str, url: &str) -> String {
        let status = self.app.url("/stream");
        format!("<Stream {attributes} statusCallbackUrl=\"{status}\">{url}</Stream>")
    }
}

fn listens() -> CallScript {
    CallScript { record: true, ..user(CalleeAction::Accept, EventOrder::ConnectFirst) }
}

fn digits_received(events: &[CallEvent]) -> String {
    let digit = |event: &CallEvent| match event.kind {
        CallEventKind::DigitHeard { digit } => Some(digit),
        _ => None,
    };
    events.iter().filter_map(digit).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voice_bot_talks_with_a_caller() {
    for format in ["audio/x-mulaw;rate=8000", "audio/x-l16;rate=16000", "audio/x-l16;rate=24000"] {
        let world = world(|_, _| ()).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("ws://{}/", listener.local_addr().expect("its address"));
        let bot = tokio::spawn(voice_bot::serve(listener));
        let attributes =
            format!("bidirectional=\"true\" keepCallAlive=\"true\" contentType=\"{format}\"");
        let document = format!(
            "<Response>{}<Speak>Good bye.</Speak></Response>",
            world.stream(&attributes, &url)
        );
        let script = CallScript {
            say: tone_packets(1_000.0, 2_500),
            keys: caller::parse_keys("WW2WWWw#").expect("keys"),
            keys_start: KeysStart::Answered,
            ..listens()
        };
        let (user, uuid) = world.streamed(script, document).await;
        let began = world.status("StartStream").await;
        for (name, value) in [
            ("CallUUID", &*uuid),
            ("ServiceURL", &*url),
            ("CallStatus", "in-progress"),
            ("contentType", format),
            ("bidirectional", "true"),
            ("keepCallAlive", "true"),
            ("audioTrack", "inbound"),
            ("streamTimeout", "86400"),
            ("extraHeaders", ""),
            ("StatusReason", "(absent)"),
        ] {
            assert_eq!(began.param(name), value, "{name}");
        }
        let played = world.status("PlayedStream").await;
        assert_eq!(
            (played.param("Name"), played.param("StreamID")),
            ("greeting", began.param("StreamID"))
        );
        let stopped = world.status("StopStream").await;
        assert_eq!(
            (stopped.param("StatusReason"), stopped.param("StreamID")),
            ("api_request", began.param("StreamID"))
        );
        let hangup = world.app.wait("/hangup").await;
        assert_eq!(hangup.param("HangupCauseCode"), "4010", "the document went on");
        let events = user.all().await;
        let sounds = received_sounds(&events);
        assert!(in_order(&sounds, &[only(440), only(1_000)]), "{format}: {sounds:#?}");
        assert_eq!(digits_received(&events), "42");
        world.node.until_metric("offhook_streams_active", &[], 0.0).await;
        world.node.until_metric("offhook_streams_total", &[("outcome", "ended")], 1.0).await;
        bot.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upgrade_is_signed_and_audio_arrives_every_20_ms() {
    let (world, mut server) = (world(|_, _| ()).await, BotServer::refusing(1).await);
    let attributes = "keepCallAlive=\"true\" audioTrack=\"both\" contentType=\"audio/x-l16;rate=16000\" \
        extraHeaders=\"user=42,lang=hi\"";
    let document = format!("<Response>{}</Response>", world.stream(attributes, &server.url));
    let script = CallScript {
        say: tone_packets(600.0, 20_000),
        keys: caller::parse_keys("WWw5").expect("keys"),
        keys_start: KeysStart::Answered,
        ..listens()
    };
    let (user, uuid) = world.streamed(script, document).await;
    let mut bot = server.accept().await;
    assert_eq!((server.tries(), &*bot.path), (2, "/bot?lang=hi"));
    let header = |name: &str| {
        bot.headers.get(name).map_or("", |value| value.to_str().expect("text")).to_owned()
    };
    let keys = SigningKeys::of_main(&[Secret::new(AUTH_TOKEN)]);
    for (name, value) in
        sign(Method::Get, &server.url, &[], &keys, header("x-plivo-signature-v3-nonce"))
    {
        if !name.as_str().contains("-v2") {
            assert_eq!(header(name.as_str()), value, "{name}");
        }
    }
    let stream_id = header("x-plivo-stream-id");

    let start = bot.receive("start").await;
    let expected = json!({"sequenceNumber": 1, "event": "start", "extra_headers": "user=42,lang=hi", "start": {
        "callId": uuid, "streamId": stream_id, "accountId": AUTH_ID, "tracks": ["inbound", "outbound"],
        "mediaFormat": {"encoding": "audio/x-l16", "sampleRate": 16_000}}});
    assert_eq!(start, expected);
    let dtmf = bot.receive("dtmf").await;
    assert_eq!((&dtmf["dtmf"]["digit"], &dtmf["dtmf"]["track"]), (&json!("5"), &json!("inbound")));

    let (mut last, mut chunks, mut inbound, mut times) = (1, [0, 0], Vec::new(), Vec::new());
    while chunks[0] < 150 || chunks[1] < 150 {
        let media = bot.next_message().await.expect("a message");
        assert_eq!(
            (&media["event"], &media["streamId"]),
            (&json!("media"), &json!(stream_id)),
            "{media}"
        );
        assert_eq!(media["extra_headers"], "user=42,lang=hi");
        let sequence = media["sequenceNumber"].as_u64().expect("a number");
        // The digit has its own sequence number.
        assert!(
            sequence == last + 1 || dtmf["sequenceNumber"] == last + 1,
            "{sequence} after {last}"
        );
        last = sequence;
        let track = usize::from(media["media"]["track"] == "outbound");
        chunks[track] += 1;
        assert_eq!(media["media"]["chunk"], chunks[track]);
        let samples = pcm(&media);
        assert_eq!(samples.len(), 320);
        if track == 0 {
            inbound.extend(samples);
            times.push(
                media["media"]["timestamp"]
                    .as_str()
                    .expect("text")
                    .parse::<i64>()
                    .expect("milliseconds"),
            );
        }
    }
    assert!(level(&inbound[inbound.len() / 2..], 600) > 0.08, "the caller's tone");
    let took = times.last().expect("times") - times[0];
    let expected = 20 * i64::try_from(times.len()).expect("few");
    assert!((took - expected).abs() < 300, "{} pieces in {took} ms", times.len());
    // Unsupported audio and an unknown event.
    bot.play(16_000, &[0; 320]).await;
    let error = bot.receive("error").await;
    assert_eq!(error["code"], "not_bidirectional");
    bot.say(json!({"event": "whatever"})).await;
    bot.send(Message::binary(vec![0; 100])).await;
    bot.send(Message::text("no JSON")).await;
    assert_eq!(bot.receive("error").await["code"], "invalid_message");
    bot.say(json!({"event": "clearAudio"})).await;
    assert_eq!(bot.receive("clearedAudio").await["streamId"], stream_id);

    // The caller hangs up.
    user.control().hangup().await;
    bot.receive("stop").await;
    assert_eq!(bot.closed().await, Some(1_000));
    let stopped = world.status("StopStream").await;
    assert_eq!(stopped.param("StatusReason"), "call_hangup");
    user.all().await;
}

const TWO_WAYS: &str =
    "bidirectional=\"true\" keepCallAlive=\"true\" contentType=\"audio/x-l16;rate=16000\"";

#[tokio::test(flavor = "multi_thread")]
async fn a_servers_audio_is_played_marked_and_cleared() {
    let (world, mut server) = (world(|_, _| ()).await, BotServer::start().await);
    let document =
        format!("<Response>{}<Wait length=\"1\"/></Response>", world.stream(TWO_WAYS, &server.url));
    let (user, uuid) = world.streamed(listens(), document).await;
    let mut bot = server.accept().await;
    bot.receive("start").await;
    let checkpoint = |name: &str| json!({"event": "checkpoint", "name": name});
    bot.say(checkpoint("at once")).await;
    assert_eq!(bot.receive("playedStream").await["name"], "at once");

    // At the stream's sample rate, at the other one, and in pieces with partial frames.
    bot.play(16_000, &tone(16_000, 440.0, 700)).await;
    bot.say(checkpoint("first")).await;
    bot.play(8_000, &tone(8_000, 1_000.0, 700)).await;
    for piece in tone(16_000, 600.0, 700).chunks(333) {
        bot.play(16_000, piece).await;
    }
    bot.say(checkpoint("second")).await;
    assert_eq!(bot.receive("playedStream").await["name"], "first");
    assert_eq!(bot.receive("playedStream").await["name"], "second");

    // Ten seconds of audio that is cleared after its beginning, then new audio.
    bot.play(16_000, &tone(16_000, 1_500.0, 10_000)).await;
    bot.say(checkpoint("never")).await;
    bot.say(json!({"event": "clearAudio"})).await;
    bot.receive("clearedAudio").await;
    bot.play(16_000, &tone(16_000, 300.0, 700)).await;
    bot.say(checkpoint("last")).await;
    assert_eq!(bot.receive("playedStream").await["name"], "last");
    for (media, code) in [
        (json!({"contentType": "audio/wav", "sampleRate": 8_000, "payload": ""}), "invalid_format"),
        (
            json!({"contentType": "audio/x-l16", "sampleRate": 24_000, "payload": ""}),
            "invalid_format",
        ),
        (
            json!({"contentType": "audio/x-l16", "sampleRate": "16000", "payload": "%"}),
            "invalid_payload",
        ),
    ] {
        bot.say(json!({"event": "playAudio", "media": media})).await;
        assert_eq!(bot.receive("error").await["code"], code, "{media}");
    }

    // 40 s fit into the queue.
    let second = vec![0; 16_000];
    for _ in 0..41 {
        bot.play(16_000, &second).await;
    }
    assert_eq!(bot.receive("error").await["code"], "buffer_overflow");
    for event in ["StartStream", "PlayedStream", "ClearedAudio", "DegradedStream"] {
        world.status(event).await;
    }
    let cleared =
        world.app.requests().iter().filter(|seen| seen.param("Event") == "DegradedStream").count();
    assert!((1..=3).contains(&cleared), "{cleared} levels");
    bot.close().await;
    assert_eq!(world.status("StopStream").await.param("StatusReason"), "api_request");
    let events = user.all().await;
    let sounds = received_sounds(&events);
    assert!(in_order(&sounds, &[only(440), only(1_000), only(600), only(300)]), "{sounds:#?}");
    assert!(!sounds.contains(&only(1_500)), "{sounds:#?}");
    // The document plays nothing, so the call's first sound is that of the server.
    let url = format!("{}/api/v1/calls/{uuid}/waterfall/", world.node.public);
    let fall = http::send("GET", &url, &[("x-api-key", API_KEY)], "").await.json();
    let bars = fall["bars"].as_array().unwrap();
    let sounds: Vec<_> = bars.iter().filter(|bar| bar["name"] == "first sound").collect();
    let [sound] = &sounds[..] else { panic!("{fall:#}") };
    assert!(sound["to_us"].as_i64() >= sound["from_us"].as_i64(), "{sound}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_socket_lets_the_document_continue() {
    let world = world(|_, _| ()).await;
    // No server, and a server that refuses three times.
    let mut server = BotServer::refusing(3).await;
    let document = |url: &str| {
        format!("<Response>{}<Wait length=\"1\"/></Response>", world.stream(TWO_WAYS, url))
    };
    let (user, uuid) = world.streamed(listens(), document(&server.url)).await;
    let of = |call: String, event: &'static str| {
        move |seen: &crate::support::app::ReceivedRequest| {
            seen.param("Event") == event && seen.param("CallUUID") == call
        }
    };
    let dropped = world.app.wait_where("/stream", of(uuid.clone(), "DroppedStream")).await;
    assert_eq!((dropped.param("StatusReason"), server.tries()), ("connection_error", 3));
    let hangup = world.app.wait_where("/hangup", |seen| seen.param("CallUUID") == uuid).await;
    assert_eq!(hangup.param("HangupCauseCode"), "4010");
    user.all().await;
    world.node.until_metric("offhook_streams_total", &[("outcome", "failed")], 1.0).await;
    world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;

    // A message longer than 64 KiB.
    let (user, uuid) = world.streamed(listens(), document(&server.url)).await;
    let mut bot = server.accept().await;
    bot.receive("start").await;
    bot.send(Message::text(json!({"event": "x", "more": "x".repeat(65_536)}).to_string())).await;
    assert_eq!(bot.closed().await, Some(1_009));
    world.app.wait_where("/stream", of(uuid, "DroppedStream")).await;
    user.all().await;
    world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;

    // A broken connection.
    let (user, uuid) = world.streamed(listens(), document(&server.url)).await;
    let mut bot = server.accept().await;
    bot.receive("start").await;
    bot.disconnect();
    world.app.wait_where("/stream", of(uuid, "DroppedStream")).await;
    user.all().await;
    world.node.until_metric("offhook_streams_total", &[("outcome", "lost")], 2.0).await;
    world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;

    // streamTimeout.
    let attributes = format!("{TWO_WAYS} streamTimeout=\"1\"");
    let timed = format!(
        "<Response>{}<Wait length=\"1\"/></Response>",
        world.stream(&attributes, &server.url)
    );
    let (user, uuid) = world.streamed(listens(), timed).await;
    let mut bot = server.accept().await;
    bot.receive("stop").await;
    assert_eq!(bot.closed().await, Some(1_000));
    let stopped = world.app.wait_where("/stream", of(uuid, "StopStream")).await;
    assert_eq!(stopped.param("StatusReason"), "stream_timeout");
    user.all().await;
    world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;
    world.node.until_metric("offhook_streams_active", &[], 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_starts_shows_and_stops_a_stream() {
    let (world, mut server) = (world(|_, _| ()).await, BotServer::start().await);
    let document = "<Response><Wait length=\"60\"/><Speak>x</Speak></Response>";
    let (user, uuid) = world.streamed(listens(), document.to_owned()).await;
    let path = format!("Call/{uuid}/Stream/");
    let head = [("content-type", "application/json")];
    let body = json!({"service_url": server.url, "audio_track": "both", "status_callback_url": world.app.url("/stream"),
        "content_type": "audio/x-mulaw;rate=8000", "extra_headers": "a=1"});
    world.app.wait("/answer").await;
    let mut begun = world.rest("POST", &path, &head, body.to_string()).await;
    // The document may not have started the stream yet.
    for _ in 0..100 {
        if begun.status != 404 {
            break;
        }
        begun = world.rest("POST", &path, &head, body.to_string()).await;
    }
    assert_eq!(begun.status, 202, "{}", begun.text());
    let id = begun.json()["stream_id"].as_str().expect("an id").to_owned();
    assert_eq!(world.rest("POST", &path, &head, body.to_string()).await.status, 409);
    let mut bot = server.accept().await;
    let start = bot.receive("start").await;
    assert_eq!((&start["start"]["streamId"], &start["extra_headers"]), (&json!(id), &json!("a=1")));
    assert_eq!(world.status("StartStream").await.param("StreamID"), id);
    let media = bot.receive("media").await;
    let bytes =
        STANDARD.decode(media["media"]["payload"].as_str().expect("a payload")).expect("Base64");
    assert_eq!(bytes.len(), 160);

    let one = world.rest("GET", &format!("{path}{id}/"), &[], String::new()).await.json();
    assert_eq!(
        (&one["status"], &one["audio_track"], &one["end_time"]),
        (&json!("in-progress"), &json!("both"), &json!(null))
    );
    assert_eq!(world.rest("DELETE", &format!("{path}{id}/"), &[], String::new()).await.status, 204);
    bot.receive("stop").await;
    assert_eq!(bot.closed().await, Some(1_000));
    assert_eq!(world.status("StopStream").await.param("StatusReason"), "api_request");
    let list = world.rest("GET", &path, &[], String::new()).await.json();
    assert_eq!(
        (&list["meta"]["count"], &list["objects"][0]["status"]),
        (&json!(1), &json!("stopped")),
        "{list}"
    );
    assert!(list["objects"][0]["end_time"].is_string());

    // A forbidden address is refused immediately.
    let refused = json!({"service_url": "wss://169.254.169.254/"}).to_string();
    assert_eq!(world.rest("POST", &path, &head, refused).await.status, 400);
    user.control().hangup().await;
    user.all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_read_does_not_delay_the_end_of_a_call() {
    let (world, mut server) = (world(|_, _| ()).await, BotServer::start().await);
    let attributes =
        "keepCallAlive=\"true\" audioTrack=\"both\" contentType=\"audio/x-l16;rate=24000\"";
    let document = format!("<Response>{}</Response>", world.stream(attributes, &server.url));
    let (user, uuid) = world.streamed(listens(), document).await;
    let mut bot = server.accept().await;
    bot.receive("start").await;
    let held = bot.stop_reading();
    // The system buffers some megabytes at both ends. The call hangs up before a ping is missed.
    let url = format!("{}/api/v1/calls/{uuid}/events", world.node.public);
    let up = crate::support::http::send(
        "GET",
        &url,
        &[("x-api-key", crate::support::node::API_KEY)],
        "",
    )
    .await;
    assert_eq!(up.status, 200);
    user.control().hangup().await;
    user.all().await;
    assert_eq!(world.status("StopStream").await.param("StatusReason"), "call_hangup");
    world.node.until_metric("offhook_streams_active", &[], 0.0).await;
    drop(held);
}

/// Takes a minute, because pings are sent every 20 s.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_misses_two_pings_is_disconnected() {
    let (world, mut server) =
        (world(|node_config, _| node_config.accept_wait_ms = 0).await, BotServer::start().await);
    world.app.xml("/stream", "");
    let attributes = "keepCallAlive=\"true\" contentType=\"audio/x-mulaw;rate=8000\"";
    world
        .app
        .xml("/unused", format!("<Response>{}</Response>", world.stream(attributes, &server.url)));
    let call = |from: &str| {
        let script = CallScript {
            from: from.to_owned(),
            hangup: HangupRule::Never,
            ..CallScript::default()
        };
        world.sim.place_call(script)
    };
    let stays = call("919812345678");
    let mut answers = server.accept().await;
    let stays_uuid =
        answers.receive("start").await["start"]["callId"].as_str().expect("a UUID").to_owned();
    let goes = call("919412341234");
    let mut bot = server.accept().await;
    let goes_uuid =
        bot.receive("start").await["start"]["callId"].as_str().expect("a UUID").to_owned();
    let deaf = bot.stop_reading();
    answers.receive_ping().await;
    answers.receive_ping().await;
    let dropped =
        |seen: &crate::support::app::ReceivedRequest| seen.param("Event") == "DroppedStream";
    assert!(
        !world.app.requests().iter().any(dropped),
        "one was missed, and the second may still be answered"
    );
    answers.receive_ping().await;
    let lost = world.app.wait_where("/stream", dropped).await;
    assert_eq!(
        (lost.param("CallUUID"), lost.param("StatusReason")),
        (&*goes_uuid, "connection_error")
    );
    drop(deaf);
    goes.all().await;
    world.node.until_metric("offhook_streams_total", &[("outcome", "lost")], 1.0).await;
    world.node.until_metric("offhook_streams_active", &[], 1.0).await;
    assert!(
        answers.next_message().await.is_ok_and(|message| message["event"] == "media"),
        "its sound goes on"
    );
    let of_it = |seen: &&crate::support::app::ReceivedRequest| {
        dropped(seen) && seen.param("CallUUID") == stays_uuid
    };
    assert_eq!(world.app.requests().iter().filter(of_it).count(), 0);
    stays.control().hangup().await;
    stays.all().await;
}

/// With `noiseCancellation` the server receives almost nothing of a constant background noise, in
/// messages of the right length.
#[tokio::test(flavor = "multi_thread")]
async fn noise_cancellation_removes_background_noise() {
    let (world, mut server) = (world(|_, _| ()).await, BotServer::start().await);
    let (mut state, mut level) = (7_u32, 0.0_f64);
    let rumble: Vec<i16> = (0..16_000 * 8)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            level = (level + 0.02 * (f64::from(state >> 8) / 8_388_608.0 - 1.0)) / 1.02;
            (level * 3.5 * 6_000.0) as i16
        })
        .collect();
    let mut encoder = Encoder::for_prompts();
    let say: Vec<Arc<[u8]>> =
        rumble.chunks(Rate::Hz16000.frame()).map(|frame| encoder.encode(frame)).collect();
    let power =
        |pcm: &[i16]| pcm.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / pcm.len() as f64;
    let mut left = Vec::new();
    for attributes in ["", "noiseCancellation=\"true\" noiseCancellationLevel=\"100\""] {
        let attributes =
            format!("keepCallAlive=\"true\" contentType=\"audio/x-l16;rate=16000\" {attributes}");
        let document = format!("<Response>{}</Response>", world.stream(&attributes, &server.url));
        let (user, _) =
            world.streamed(CallScript { say: say.clone(), ..listens() }, document).await;
        let mut bot = server.accept().await;
        bot.receive("start").await;
        let mut received = Vec::new();
        while received.len() < 16_000 * 3 {
            let samples = pcm(&bot.receive("media").await);
            assert_eq!(samples.len(), 320);
            received.extend(samples);
        }
        left.push(power(&received[16_000 * 2..]));
        user.control().hangup().await;
        user.all().await;
        bot.receive("stop").await;
    }
    assert!(left[1] < left[0] / 50.0, "{left:?}");
}
