//! Control of a live call over REST: the phone hears what is played, spoken and sent as DTMF, and a
//! transfer runs another document.

use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::http::header;
use axum::routing::get;
use base64::Engine as _;
use serde_json::{Value, json};
use sim::{CallEvent, CallEventKind, CallEvents, CallScript, CalleeAction, EventOrder};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::outbound::{World, user, world};
use crate::support::http;
use crate::support::node::{API_KEY, AUTH_ID, AUTH_TOKEN};
use crate::support::sdk;

/// Starts a server of tones: `/tone/{hertz}/{milliseconds}`. Returns its URL.
pub async fn tones() -> String {
    let tone = |Path((hz, ms)): Path<(f64, u32)>| async move {
        let wave = |n: u32| {
            ((f64::from(n) * hz * std::f64::consts::TAU / 16_000.0).sin() * 8_000.0) as i16
        };
        let pcm: Vec<u8> = (0..ms * 16).flat_map(|n| wave(n).to_le_bytes()).collect();
        let bytes = u32::try_from(pcm.len()).expect("short");
        let mut wav = Vec::from(*b"RIFF");
        wav.extend((bytes + 36).to_le_bytes());
        wav.extend(*b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
        wav.extend([16_000_u32, 32_000].iter().flat_map(|n| n.to_le_bytes()));
        wav.extend(*b"\x02\0\x10\0data");
        wav.extend(bytes.to_le_bytes());
        wav.extend(pcm);
        ([(header::CONTENT_TYPE, "audio/wav")], wav)
    };
    let router = Router::new().route("/tone/{hz}/{ms}", get(tone));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("its address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    base
}

/// The content of a tenth of a second of audio.
#[derive(Clone, Debug, PartialEq)]
pub enum Sound {
    Nothing,
    /// These tones, in hertz.
    Tones(Vec<u32>),
    /// Anything else, usually speech.
    Other,
}

const TONES: [u32; 5] = [300, 440, 600, 1_000, 1_500];

/// Returns the amplitude of a tone, relative to full scale (Goertzel algorithm).
pub fn level(pcm: &[i16], hz: u32) -> f64 {
    let (mut re, mut im) = (0.0, 0.0);
    for (n, sample) in pcm.iter().enumerate() {
        let phase = n as f64 * f64::from(hz) * std::f64::consts::TAU / 16_000.0;
        re += f64::from(*sample) * phase.cos();
        im += f64::from(*sample) * phase.sin();
    }
    (re * re + im * im).sqrt() * 2.0 / pcm.len() as f64 / 32_768.0
}

/// Returns the sequence of sounds that the phone heard, without those shorter than 0.3 seconds.
pub fn received_sounds(events: &[CallEvent]) -> Vec<Sound> {
    let wav = events.iter().find_map(|e| match &e.kind {
        CallEventKind::Recording { wav } => Some(wav),
        _ => None,
    });
    let wav = base64::engine::general_purpose::STANDARD
        .decode(wav.expect("a recording"))
        .expect("Base64");
    let pcm: Vec<i16> =
        wav[44..].chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
    let tenths = pcm.chunks_exact(1_600).map(|tenth| {
        let power: f64 =
            tenth.iter().map(|s| (f64::from(*s) / 32_768.0).powi(2)).sum::<f64>() / 1_600.0;
        let tones: Vec<u32> = TONES.into_iter().filter(|hz| level(tenth, *hz) > 0.08).collect();
        // The power that the tones don't account for.
        let rest = power - tones.iter().map(|hz| level(tenth, *hz).powi(2) / 2.0).sum::<f64>();
        match tones.as_slice() {
            [] if power < 0.000_02 => Sound::Nothing,
            [] => Sound::Other,
            _ if rest > power / 2.0 => Sound::Other,
            _ => Sound::Tones(tones),
        }
    });
    let mut runs: Vec<(Sound, u32)> = Vec::new();
    for tenth in tenths {
        match runs.last_mut() {
            Some((last, count)) if *last == tenth => *count += 1,
            _ => runs.push((tenth, 1)),
        }
    }
    let mut lasting: Vec<Sound> = Vec::new();
    for (what, _) in runs.into_iter().filter(|(_, count)| *count >= 3) {
        if lasting.last() != Some(&what) {
            lasting.push(what);
        }
    }
    lasting
}

/// Returns true if `expected` is a subsequence of `sounds`.
pub fn in_order(sounds: &[Sound], expected: &[Sound]) -> bool {
    let mut rest = sounds.iter();
    expected.iter().all(|want| rest.any(|have| have == want))
}

pub fn only(hz: u32) -> Sound {
    Sound::Tones(vec![hz])
}

fn both(low: u32, high: u32) -> Sound {
    Sound::Tones(vec![low, high])
}

/// Places a call to a user who answers and listens.
fn listener(world: &World) -> CallEvents {
    world.sim.expect_call(CallScript {
        record: true,
        ..user(CalleeAction::Accept, EventOrder::ConnectFirst)
    })
}

impl World {
    async fn ask(&self, uuid: &str, what: &str, body: Value) -> http::Answer {
        let head = [("content-type", "application/json")];
        self.rest("POST", &format!("Call/{uuid}/{what}"), &head, body.to_string()).await
    }

    async fn asked(&self, uuid: &str, what: &str, body: Value) {
        let answer = self.ask(uuid, what, body).await;
        assert_eq!(answer.status, 202, "{what}: {}", answer.text());
    }

    /// Waits until the event log of the call has `count` inputs of this kind.
    async fn until(&self, uuid: &str, kind: &str, count: usize) {
        let url = format!("{}/api/v1/calls/{uuid}/events", self.node.public);
        let needle = format!("\"fact\":\"{kind}\"");
        let mut every = tokio::time::interval(Duration::from_millis(50));
        let mut text = String::new();
        for _ in 0..400 {
            every.tick().await;
            text = http::send("GET", &url, &[("x-api-key", API_KEY)], "").await.text();
            if text.matches(&needle).count() >= count {
                return;
            }
        }
        panic!("no {count} {kind} after 20 s:\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_hears_what_rest_plays_speaks_and_dials() {
    let (world, tones) = (world(|_, _| ()).await, tones().await);
    let tone = |hz: u32, ms: u32| format!("{tones}/tone/{hz}/{ms}");
    world.app.xml(
        "/answer",
        format!("<Response><Play loop=\"0\">{}</Play></Response>", tone(1_000, 5_000)),
    );
    world.app.xml("/other", format!("<Response><Play>{}</Play></Response>", tone(300, 1_000)));
    let user = listener(&world);
    let uuid = world.placed(&world.order()).await;
    world.until(&uuid, "play_started", 1).await;

    // Mixed with the document's music: two files, one after the other.
    let urls = json!([tone(440, 800), tone(1_500, 800)]);
    world.asked(&uuid, "Play/", json!({ "urls": urls })).await;
    world.until(&uuid, "played", 1).await;
    // In place of the document's music.
    world.asked(&uuid, "Play/", json!({"urls": tone(440, 1_000), "mix": false})).await;
    world.until(&uuid, "played", 2).await;
    world
        .asked(
            &uuid,
            "Speak/",
            json!({"text": "One moment please, we are looking for your order.", "mix": false}),
        )
        .await;
    world.until(&uuid, "played", 3).await;
    // In a loop, for two seconds.
    world.asked(&uuid, "Play/", json!({"urls": tone(600, 500), "loop": true, "length": 2})).await;
    world.until(&uuid, "played", 4).await;
    world.asked(&uuid, "DTMF/", json!({"digits": "1w2#"})).await;
    world.asked(&uuid, "DTMF/", json!({"digits": "9"})).await;
    world.until(&uuid, "digits_sent", 2).await;
    // Replaces an earlier playback and is stopped.
    world.asked(&uuid, "Play/", json!({"urls": tone(440, 500), "loop": true, "mix": false})).await;
    world.until(&uuid, "play_started", 6).await;
    world.asked(&uuid, "Play/", json!({"urls": tone(600, 500), "loop": true, "mix": false})).await;
    world.until(&uuid, "play_started", 7).await;
    for _ in 0..2 {
        let stopped = world.rest("DELETE", &format!("Call/{uuid}/Play/"), &[], String::new()).await;
        assert_eq!(stopped.status, 204);
    }

    world.asked(&uuid, "", json!({"aleg_url": world.app.url("/other")})).await;
    let transfer = world.app.wait("/other").await;
    for (name, value) in
        [("Event", "Redirect"), ("CallStatus", "in-progress"), ("CallUUID", &*uuid)]
    {
        assert_eq!(transfer.param(name), value, "{name}");
    }
    let hangup = world.app.wait("/hangup").await;
    assert_eq!((hangup.param("HangupCauseCode"), hangup.param("HangupSource")), ("4010", "Plivo"));
    let events = user.all().await;
    let sounds = received_sounds(&events);
    // The document's tone continues beneath mixed audio, and where the digits pause.
    let expected = [
        both(440, 1_000),
        both(1_000, 1_500),
        only(440),
        Sound::Other,
        both(600, 1_000),
        only(1_000),
        only(300),
    ];
    assert!(in_order(&sounds, &expected), "{sounds:#?}");
    let digits: String = events
        .iter()
        .filter_map(|e| match e.kind {
            CallEventKind::DigitHeard { digit } => Some(digit),
            _ => None,
        })
        .collect();
    assert_eq!(digits, "12#9", "one after the other");
    let over = world.ask(&uuid, "Play/", json!({"urls": tone(600, 500)})).await;
    assert_eq!((over.status, &over.json()["error"]), (404, &json!("call not found")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fetch_of_a_file_ends_when_another_one_is_played() {
    let (world, tones) = (world(|_, _| ()).await, tones().await);
    world.app.xml(
        "/answer",
        format!("<Response><Play loop=\"0\">{tones}/tone/300/1000</Play></Response>"),
    );
    let _user = listener(&world);
    let uuid = world.placed(&world.order()).await;
    world.until(&uuid, "play_started", 1).await;
    // A server that never completes its response.
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/a.wav", server.local_addr().unwrap());
    world.asked(&uuid, "Play/", json!({ "urls": url })).await;
    let (mut fetch, _) = server.accept().await.unwrap();
    let mut request = [0; 4_096];
    assert!(fetch.read(&mut request).await.unwrap() > 0);
    fetch.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5000000\r\n\r\nRIFF").await.unwrap();
    world.asked(&uuid, "Play/", json!({"urls": format!("{tones}/tone/440/1000")})).await;
    let closed = tokio::time::timeout(Duration::from_secs(20), fetch.read(&mut request)).await;
    assert!(matches!(closed.expect("the fetch ends"), Ok(0) | Err(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_fails_ends_the_call_with_its_cause() {
    let world = world(|_, _| ()).await;
    world.app.xml("/answer", "<Response><Wait length=\"60\"/></Response>");
    world.app.xml("/bad", "<Response><Speek/></Response>");
    for (path, code) in [("/nothing", "7013"), ("/bad", "8013")] {
        let user = world.sim.expect_call(user(CalleeAction::Accept, EventOrder::ConnectFirst));
        let uuid = world.placed(&world.order()).await;
        world.app.wait_where("/answer", |seen| seen.param("CallUUID") == uuid).await;
        let incomplete =
            world.ask(&uuid, "", json!({"legs": "both", "aleg_url": world.app.url(path)})).await;
        assert_eq!(incomplete.status, 400, "{}", incomplete.text());
        world
            .asked(&uuid, "", json!({"aleg_url": world.app.url(path), "aleg_method": "GET"}))
            .await;
        let hangup = world.app.wait_where("/hangup", |seen| seen.param("CallUUID") == uuid).await;
        assert_eq!(
            (hangup.param("HangupCauseCode"), hangup.param("HangupSource")),
            (code, "Error"),
            "{path}"
        );
        assert_eq!(world.app.wait(path).await.method, "GET");
        user.all().await;
        world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_python_sdk_controls_a_live_call() {
    let (world, tones) = (world(|_, _| ()).await, tones().await);
    let Some(mut sdk) = sdk::python(&world.node.public, AUTH_ID, AUTH_TOKEN) else { return };
    let tone = |hz: u32| format!("{tones}/tone/{hz}/800");
    world.app.xml("/answer", "<Response><Wait length=\"60\"/></Response>");
    world.app.xml("/other", "<Response><Speak>Good bye.</Speak></Response>");
    let user = listener(&world);
    let uuid = world.placed(&world.order()).await;
    world.app.wait("/answer").await;
    let mut done = |what: &str, argument: Value, message: &str| {
        let answer = sdk.ask(&format!("calls.{what}"), argument);
        let text = &answer["ok"]["message"];
        assert!(
            answer.get("error").is_none() && (message.is_empty() || text == message),
            "{what}: {answer}"
        );
    };
    done(
        "play",
        json!({"call_uuid": uuid, "urls": tone(440), "length": 5, "legs": "aleg", "mix": true}),
        "play started",
    );
    world.until(&uuid, "played", 1).await;
    done(
        "play",
        json!({"call_uuid": uuid, "urls": tone(600), "loop": true, "mix": false}),
        "play started",
    );
    world.until(&uuid, "play_started", 2).await;
    done("stop_playing", json!([uuid]), "");
    done(
        "speak",
        json!({"call_uuid": uuid, "text": "Hello", "voice": "MAN", "language": "en-GB", "type": "text"}),
        "speak started",
    );
    world.until(&uuid, "played", 2).await;
    done("stop_speaking", json!([uuid]), "");
    done("send_digits", json!({"call_uuid": uuid, "digits": "42", "leg": "aleg"}), "digits sent");
    world.until(&uuid, "digits_sent", 1).await;
    let transfer = json!({"call_uuid": uuid, "legs": "aleg", "aleg_url": world.app.url("/other"), "aleg_method": "GET"});
    done("transfer", transfer, "call transfered");
    world.app.wait("/other").await;
    let events = user.all().await;
    assert!(
        in_order(&received_sounds(&events), &[only(440), Sound::Other]),
        "{:#?}",
        received_sounds(&events)
    );
    let digits =
        events.iter().filter(|e| matches!(e.kind, CallEventKind::DigitHeard { .. })).count();
    assert_eq!(digits, 2);
    for what in ["play", "speak", "send_digits", "transfer"] {
        let argument = match what {
            "play" => json!({"call_uuid": uuid, "urls": tone(440)}),
            "speak" => json!({"call_uuid": uuid, "text": "Hello"}),
            "send_digits" => json!({"call_uuid": uuid, "digits": "1"}),
            _ => json!({"call_uuid": uuid, "legs": "aleg", "aleg_url": world.app.url("/other")}),
        };
        sdk.raises("ResourceNotFoundError", &format!("calls.{what}"), argument);
    }
}
