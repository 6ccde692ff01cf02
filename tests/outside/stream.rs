//! Streams through the whole binary with real media: a caller, a customer's WebSocket server, and what the two hear of each
//! other (`plivo-xml.md` §5.11, `plivo-callbacks.md` §3.8, §3.9, `docs/stream.md`).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use offhook::answer::{SigningKeys, sign};
use offhook::config::Secret;
use offhook::ffi::opus::{Encoder, Rate};
use offhook::model::Method;
use offhook::sim::{Answers, CallEvent, CallEvents, CallScript, Happened, KeysStart, Order, caller};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::control::{heard as heard_of, in_order, level, only};
use crate::outbound::{World, user, world};
use crate::support::bot::BotServer;
use crate::support::node::{AUTH_ID, AUTH_TOKEN};

#[path = "../../examples/voice_bot.rs"]
mod voice_bot;

fn tone(rate: u32, hz: f64, ms: u32) -> Vec<i16> {
    let wave = |n: u32| (f64::from(n) * hz * std::f64::consts::TAU / f64::from(rate)).sin() * 8_000.0;
    (0..rate * ms / 1_000).map(|n| wave(n) as i16).collect()
}

/// A tone as a caller says it.
fn said(hz: f64, ms: u32) -> Vec<Arc<[u8]>> {
    let mut encoder = Encoder::for_prompts();
    tone(16_000, hz, ms).chunks(Rate::Hz16000.frame()).map(|frame| encoder.encode(frame)).collect()
}

/// The samples of a media message of 16 bits.
fn pcm(media: &Value) -> Vec<i16> {
    let bytes = STANDARD.decode(media["media"]["payload"].as_str().expect("a payload")).expect("Base64");
    bytes.chunks_exact(2).map(|two| i16::from_le_bytes([two[0], two[1]])).collect()
}

impl World {
    /// A call to a user who picks up, and whose document this is.
    async fn streamed(&self, script: CallScript, document: String) -> (CallEvents, String) {
        self.app.xml("/answer", document);
        self.app.xml("/stream", "");
        let user = self.sim.expect_call(script);
        let uuid = self.placed(&self.order()).await;
        (user, uuid)
    }

    /// The next status callback of this event.
    async fn status(&self, event: &str) -> crate::support::app::Seen {
        self.app.wait_where("/stream", |seen| seen.param("Event") == event).await
    }

    fn stream(&self, attributes: &str, url: &str) -> String {
        let status = self.app.url("/stream");
        format!("<Stream {attributes} statusCallbackUrl=\"{status}\">{url}</Stream>")
    }
}

fn listens() -> CallScript {
    CallScript { record: true, ..user(Answers::Accept, Order::ConnectFirst) }
}

fn digits_heard(events: &[CallEvent]) -> String {
    let digit = |event: &CallEvent| match event.what {
        Happened::DigitHeard { digit } => Some(digit),
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
        let attributes = format!("bidirectional=\"true\" keepCallAlive=\"true\" contentType=\"{format}\"");
        let document = format!("<Response>{}<Speak>Good bye.</Speak></Response>", world.stream(&attributes, &url));
        let script = CallScript {
            say: said(1_000.0, 2_500),
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
        assert_eq!((played.param("Name"), played.param("StreamID")), ("greeting", began.param("StreamID")));
        let stopped = world.status("StopStream").await;
        assert_eq!((stopped.param("StatusReason"), stopped.param("StreamID")), ("", began.param("StreamID")));
        let hangup = world.app.wait("/hangup").await;
        assert_eq!(hangup.param("HangupCauseCode"), "4010", "the document went on");
        let events = user.all().await;
        let heard = heard_of(&events);
        assert!(in_order(&heard, &[only(440), only(1_000)]), "{format}: {heard:#?}");
        assert_eq!(digits_heard(&events), "42");
        world.node.until_metric("offhook_streams_active", &[], 0.0).await;
        world.node.until_metric("offhook_streams_total", &[("outcome", "ended")], 1.0).await;
        bot.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upgrade_is_signed_and_sound_comes_every_20_ms() {
    let (world, mut server) = (world(|_, _| ()).await, BotServer::refusing(1).await);
    let attributes = "keepCallAlive=\"true\" audioTrack=\"both\" contentType=\"audio/x-l16;rate=16000\" \
        extraHeaders=\"user=42,lang=hi\"";
    let document = format!("<Response>{}</Response>", world.stream(attributes, &server.url));
    let script = CallScript {
        say: said(600.0, 20_000),
        keys: caller::parse_keys("WWw5").expect("keys"),
        keys_start: KeysStart::Answered,
        ..listens()
    };
    let (user, uuid) = world.streamed(script, document).await;
    let mut bot = server.taken().await;
    assert_eq!((server.tries(), &*bot.path), (2, "/bot?lang=hi"));
    let header = |name: &str| bot.headers.get(name).map_or("", |value| value.to_str().expect("text")).to_owned();
    let keys = SigningKeys::of_main(vec![Secret::new(AUTH_TOKEN)]);
    for (name, value) in sign(Method::Get, &server.url, &[], &keys, header("x-plivo-signature-v3-nonce")) {
        if !name.as_str().contains("-v2") {
            assert_eq!(header(name.as_str()), value, "{name}");
        }
    }
    let stream_id = header("x-plivo-stream-id");

    let start = bot.hear("start").await;
    let wanted = json!({"sequenceNumber": 1, "event": "start", "extra_headers": "user=42,lang=hi", "start": {
        "callId": uuid, "streamId": stream_id, "accountId": AUTH_ID, "tracks": ["inbound", "outbound"],
        "mediaFormat": {"encoding": "audio/x-l16", "sampleRate": 16_000}}});
    assert_eq!(start, wanted);
    let dtmf = bot.hear("dtmf").await;
    assert_eq!((&dtmf["dtmf"]["digit"], &dtmf["dtmf"]["track"]), (&json!("5"), &json!("inbound")));

    let (mut last, mut chunks, mut said, mut times) = (1, [0, 0], Vec::new(), Vec::new());
    while chunks[0] < 150 || chunks[1] < 150 {
        let media = bot.any().await.expect("a message");
        assert_eq!((&media["event"], &media["streamId"]), (&json!("media"), &json!(stream_id)), "{media}");
        assert_eq!(media["extra_headers"], "user=42,lang=hi");
        let sequence = media["sequenceNumber"].as_u64().expect("a number");
        // The key has its own place among them.
        assert!(sequence == last + 1 || dtmf["sequenceNumber"] == last + 1, "{sequence} after {last}");
        last = sequence;
        let track = usize::from(media["media"]["track"] == "outbound");
        chunks[track] += 1;
        assert_eq!(media["media"]["chunk"], chunks[track]);
        let samples = pcm(&media);
        assert_eq!(samples.len(), 320);
        if track == 0 {
            said.extend(samples);
            times.push(media["media"]["timestamp"].as_str().expect("text").parse::<i64>().expect("milliseconds"));
        }
    }
    assert!(level(&said[said.len() / 2..], 600) > 0.08, "the caller's tone");
    let took = times.last().expect("times") - times[0];
    let wanted = 20 * i64::try_from(times.len()).expect("few");
    assert!((took - wanted).abs() < 300, "{} pieces in {took} ms", times.len());
    // Of sound that is not wanted, and of nothing that is known.
    bot.play(16_000, &[0; 320]).await;
    let error = bot.hear("error").await;
    assert_eq!(error["code"], "not_bidirectional");
    bot.say(json!({"event": "whatever"})).await;
    bot.send(Message::binary(vec![0; 100])).await;
    bot.send(Message::text("no JSON")).await;
    assert_eq!(bot.hear("error").await["code"], "invalid_message");
    bot.say(json!({"event": "clearAudio"})).await;
    assert_eq!(bot.hear("clearedAudio").await["streamId"], stream_id);

    // The caller hangs up.
    user.control().hangup().await;
    bot.hear("stop").await;
    assert_eq!(bot.closed().await, Some(1_000));
    let stopped = world.status("StopStream").await;
    assert_eq!(stopped.param("StatusReason"), "call_hangup");
    user.all().await;
}
