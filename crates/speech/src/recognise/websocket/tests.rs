//! Streaming recognisers against local servers with the services' protocols, written from their
//! public documentation.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::super::{Recognisers, RecognitionError, RecognitionOptions, UtteranceAudio};
use super::check_servers;
use crate::config::SpeechConfig;

/// What a client sent.
enum Event<'a> {
    Opened,
    /// The audio so far, in bytes.
    Audio(usize),
    /// The `type` of a message.
    Text(&'a str),
}

/// What the server does.
enum Action {
    Say(Value),
    Send(String),
    Close(u16, &'static str),
    Flood,
}

/// The requests and messages that a server received.
#[derive(Default)]
struct Seen {
    /// Path and query.
    urls: Vec<String>,
    texts: Vec<String>,
    audio_bytes: usize,
}

/// Starts a server that accepts one API key.
async fn server(
    authorization: &'static str,
    script: impl Fn(Event<'_>) -> Vec<Action> + Send + Sync + 'static,
) -> (String, Arc<Mutex<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/v1/listen", listener.local_addr().unwrap());
    let (seen, script) = (Arc::new(Mutex::new(Seen::default())), Arc::new(script));
    let shared = seen.clone();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(serve(tcp, authorization, shared.clone(), script.clone()));
        }
    });
    (url, seen)
}

async fn serve(
    tcp: tokio::net::TcpStream,
    authorization: &'static str,
    seen: Arc<Mutex<Seen>>,
    script: Arc<impl Fn(Event<'_>) -> Vec<Action>>,
) {
    #[allow(clippy::result_large_err, reason = "the signature of the library")]
    let check = |request: &Request, response: Response| {
        seen.lock().unwrap().urls.push(request.uri().to_string());
        match request.headers().get("authorization").is_some_and(|key| key == authorization) {
            true => Ok(response),
            false => {
                let mut refused = ErrorResponse::new(Some("the key canary is unknown".to_owned()));
                *refused.status_mut() = http::StatusCode::UNAUTHORIZED;
                Err(refused)
            }
        }
    };
    let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(tcp, check).await else { return };
    let mut actions = script(Event::Opened);
    let mut bytes = 0;
    loop {
        for action in std::mem::take(&mut actions) {
            let sent = match action {
                Action::Say(message) => socket.send(Message::text(message.to_string())).await,
                Action::Send(text) => socket.send(Message::text(text)).await,
                Action::Close(code, reason) => {
                    let frame = CloseFrame { code: code.into(), reason: reason.into() };
                    let _ = socket.close(Some(frame)).await;
                    while socket.next().await.is_some_and(|message| message.is_ok()) {}
                    return;
                }
                Action::Flood => loop {
                    let message = Message::text(json!({"type": "SpeechStarted"}).to_string());
                    if socket.send(message).await.is_err() {
                        return;
                    }
                },
            };
            if sent.is_err() {
                return;
            }
        }
        actions = match socket.next().await {
            Some(Ok(Message::Binary(audio))) => {
                bytes += audio.len();
                seen.lock().unwrap().audio_bytes = bytes;
                script(Event::Audio(bytes))
            }
            Some(Ok(Message::Text(text))) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                let kind = message["type"].as_str().unwrap().to_owned();
                seen.lock().unwrap().texts.push(kind.clone());
                script(Event::Text(&kind))
            }
            Some(Ok(_)) => Vec::new(),
            Some(Err(_)) | None => return,
        };
    }
}

fn results(text: &str, confidence: f64, is_final: bool, from_finalize: bool) -> Action {
    Action::Say(json!({
        "type": "Results", "is_final": is_final, "speech_final": is_final, "from_finalize": from_finalize,
        "channel": {"alternatives": [{"transcript": text, "confidence": confidence, "words": []}]},
    }))
}

/// Deepgram's answers to "Book a table. For two.", with a late last result.
fn deepgram(event: Event<'_>) -> Vec<Action> {
    match event {
        Event::Audio(9_600) => vec![results("Book", 0.5, false, false)],
        Event::Audio(16_000) => {
            vec![results("Book a table.", 0.9, true, false), results("For", 0.5, false, false)]
        }
        Event::Text("Finalize") => vec![results("For two.", 0.6, true, true)],
        Event::Text("CloseStream") => {
            vec![Action::Say(json!({"type": "Metadata", "duration": 1.0})), Action::Close(1000, "")]
        }
        Event::Opened | Event::Audio(_) | Event::Text(_) => Vec::new(),
    }
}

fn turn(order: u32, is_end: bool, transcript: &str, words: &[&str]) -> Action {
    let words: Vec<Value> =
        words.iter().map(|text| json!({"text": text, "confidence": 0.8})).collect();
    Action::Say(json!({
        "type": "Turn", "turn_order": order, "turn_is_formatted": is_end, "end_of_turn": is_end,
        "transcript": transcript, "words": words,
    }))
}

/// AssemblyAI's answers to the same, with a formatted turn that replaces the plain one.
fn assemblyai(event: Event<'_>) -> Vec<Action> {
    match event {
        Event::Opened => vec![Action::Say(json!({"type": "Begin", "id": "x", "expires_at": 1}))],
        Event::Audio(9_600) => vec![turn(0, false, "", &["book"])],
        Event::Audio(16_000) => vec![
            turn(0, true, "book a table", &["book", "a", "table"]),
            turn(0, true, "Book a table.", &["Book", "a", "table."]),
            Action::Say(json!({"type": "SpeechStarted"})),
        ],
        Event::Text("ForceEndpoint") => vec![turn(1, true, "For two.", &["For", "two."])],
        Event::Text("Terminate") => {
            vec![Action::Say(json!({"type": "Termination"})), Action::Close(1000, "")]
        }
        Event::Audio(_) | Event::Text(_) => Vec::new(),
    }
}

fn settings(protocol: &str, url: &str, further: &str) -> SpeechConfig {
    let text = format!(
        "recogniser = \"websocket\"\n[websocket]\nprotocol = \"{protocol}\"\nurl = \"{url}\"\napi_key = \"canary\"\n{further}"
    );
    SpeechConfig::from_table(text.parse().unwrap()).unwrap()
}

fn recognisers(protocol: &str, url: &str, further: &str) -> Recognisers {
    Recognisers::new(&settings(protocol, url, further)).unwrap()
}

fn options(language: &str) -> RecognitionOptions {
    RecognitionOptions {
        language: language.to_owned(),
        model: "default".to_owned(),
        hints: vec!["book a table".to_owned(), "Sam & Co?".to_owned()],
        ..RecognitionOptions::default()
    }
}

/// The audio of a complete utterance of this length.
async fn utterance(ms: usize) -> UtteranceAudio {
    let (to, utterance) = UtteranceAudio::new();
    for _ in 0..ms / 20 {
        to.send(vec![1_000; 320]).await.unwrap();
    }
    utterance
}

/// Returns text, confidence and interim results.
async fn recognise(
    all: &Recognisers,
    options: &RecognitionOptions,
    mut utterance: UtteranceAudio,
) -> Result<(String, u8, Vec<String>), RecognitionError> {
    let mut interims = Vec::new();
    let speech = all
        .recognise(options, &mut utterance, |i| {
            interims.push(format!("{}|{}", i.stable, i.unstable));
        })
        .await?;
    Ok((speech.text, speech.confidence, interims))
}

fn query(url: &str) -> Vec<(String, String)> {
    let url = url::Url::parse(&format!("ws://x{url}")).unwrap();
    url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

#[tokio::test]
async fn deepgram_recognises_while_the_caller_speaks() {
    let (url, seen) = server("Token canary", deepgram).await;
    let further = "models = { phone_call = \"nova-2-phonecall\" }";
    let all = recognisers("deepgram", &format!("{url}?punctuate=false&numerals=true"), further);
    let (text, confidence, interims) =
        recognise(&all, &options("en-IN"), utterance(1_010).await).await.unwrap();
    // Three words at 0.9 and two at 0.6.
    assert_eq!((text.as_str(), confidence), ("Book a table. For two.", 78));
    let last = "Book a table. For|two.";
    assert_eq!(interims, ["|Book", "Book|a table.", "Book a table.|For", last]);
    let phone = RecognitionOptions { model: "phone_call".to_owned(), ..options("de-DE") };
    recognise(&all, &phone, utterance(1_000).await).await.unwrap();
    let seen = seen.lock().unwrap();
    let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let common = [
        ("encoding", "linear16"),
        ("sample_rate", "16000"),
        ("channels", "1"),
        ("interim_results", "true"),
    ];
    let own = [("punctuate", "false"), ("numerals", "true")];
    let first = [("model", "nova-3"), ("language", "en-IN")];
    let hints = [("keyterm", "book a table"), ("keyterm", "Sam & Co?")];
    assert_eq!(query(&seen.urls[0]), pairs(&[&own[..], &first, &common, &hints].concat()));
    let second = [("model", "nova-2-phonecall"), ("language", "de")];
    let words = ["book", "a", "table", "Sam", "&", "Co?"].map(|word| ("keywords", word));
    assert_eq!(query(&seen.urls[1]), pairs(&[&own[..], &second, &common, &words].concat()));
    assert_eq!(seen.texts[..2], ["Finalize", "CloseStream"]);
}

#[tokio::test]
async fn assemblyai_recognises_while_the_caller_speaks() {
    let (url, seen) = server("canary", assemblyai).await;
    let all = recognisers("assemblyai", &url, "");
    let (text, confidence, interims) =
        recognise(&all, &options("en-US"), utterance(1_010).await).await.unwrap();
    assert_eq!((text.as_str(), confidence), ("Book a table. For two.", 80));
    assert_eq!(interims[..2], ["|book", "book|a table"]);
    assert_eq!(interims.last().unwrap(), "Book a table.|For two.");
    recognise(&all, &options("fr-CA"), utterance(1_000).await).await.unwrap();
    assert!(!all.can_recognise("hi-IN"), "the default model does not know Hindi");
    assert!(recognisers("assemblyai", &url, "model = \"whisper-rt\"").can_recognise("hi-IN"));
    let seen = seen.lock().unwrap();
    let model = |number: usize| query(&seen.urls[number]).swap_remove(0).1;
    assert_eq!(model(0), "universal-streaming-english");
    assert_eq!(model(1), "universal-streaming-multilingual");
    let hints = ("keyterms_prompt".to_owned(), r#"["book a table","Sam & Co?"]"#.to_owned());
    assert_eq!(query(&seen.urls[0]).last(), Some(&hints));
    assert_eq!(seen.texts[..2], ["ForceEndpoint", "Terminate"]);
    // The last message was filled up to 100 ms.
    assert_eq!(seen.audio_bytes % 3_200, 0);
}

/// In a pause, the words so far are requested before the utterance ends, and the connection is kept
/// open.
#[tokio::test]
async fn words_are_requested_in_a_pause() {
    let (url, seen) = server("Token canary", deepgram).await;
    let all = recognisers("deepgram", &url, "");
    let (to, utterance) = UtteranceAudio::new();
    to.send(vec![1; 8_000]).await.unwrap();
    let (done, speech) = (Arc::new(tokio::sync::Notify::new()), options("en-US"));
    let recognised = done.clone();
    let recognition = tokio::spawn(async move {
        let mut utterance = utterance;
        all.recognise(&speech, &mut utterance, |i| {
            if i.unstable.ends_with("two.") || i.stable.ends_with("two.") {
                recognised.notify_one();
            }
        })
        .await
    });
    done.notified().await;
    while !seen.lock().unwrap().texts.contains(&"KeepAlive".to_owned()) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(to);
    assert_eq!(recognition.await.unwrap().unwrap().text, "Book a table. For two.");
}

#[tokio::test]
async fn a_refused_key_is_reported_without_the_key() {
    for (protocol, expected) in [("deepgram", "Token other"), ("assemblyai", "other")] {
        let (url, _) = server(expected, deepgram).await;
        let error =
            recognise(&recognisers(protocol, &url, ""), &options("en"), utterance(500).await)
                .await
                .unwrap_err();
        let is_refusal =
            matches!(&error, RecognitionError::Status(status) if status.as_u16() == 401);
        assert!(is_refusal && !error.to_string().contains("canary"), "{error}");
        let checked = check_servers(&settings(protocol, &format!("{url}?secret=1"), "")).await;
        let [(shown, Err(error))] = &checked[..] else { panic!("{checked:?}") };
        assert_eq!(*shown, url, "without its query");
        assert!(error.to_string().contains("401"), "{error}");
    }
    // AssemblyAI accepts the connection first.
    let refuse = |event: Event<'_>| match event {
        Event::Opened => vec![
            Action::Say(
                json!({"type": "Error", "error_code": 1008, "error": "Unauthorized\nConnection"}),
            ),
            Action::Close(1008, "Unauthorized Connection"),
        ],
        Event::Audio(_) | Event::Text(_) => Vec::new(),
    };
    let (url, _) = server("canary", refuse).await;
    let checked = check_servers(&settings("assemblyai", &url, "")).await;
    let error = checked[0].1.as_ref().unwrap_err().to_string();
    assert!(error.contains("1008 Unauthorized Connection"), "{error}");
}

#[tokio::test]
async fn servers_that_work_pass_the_check() {
    let (url, _) = server("Token canary", deepgram).await;
    assert!(check_servers(&settings("deepgram", &url, "")).await[0].1.is_ok());
    let (url, seen) = server("canary", assemblyai).await;
    let further = format!("languages = {{ de = \"{url}\" }}");
    let checked = check_servers(&settings("assemblyai", &url, &further)).await;
    assert!(checked.len() == 1 && checked[0].1.is_ok(), "{checked:?}");
    assert_eq!(seen.lock().unwrap().urls.len(), 1);
}

#[tokio::test]
async fn servers_that_misbehave_fail_within_limits() {
    let opened = |what: fn() -> Action| {
        move |event: Event<'_>| match event {
            Event::Opened => vec![what()],
            Event::Audio(_) | Event::Text(_) => Vec::new(),
        }
    };
    type Case = (fn() -> Action, &'static str);
    let cases: [Case; 6] = [
        (|| Action::Send("no JSON".to_owned()), "expected"),
        (|| Action::Send("{\"type\":\"Results\",\"channel\":7}".to_owned()), "invalid type"),
        (|| Action::Send("[".repeat(100_000)), "invalid type"),
        (|| Action::Flood, "too many messages"),
        (|| Action::Close(1011, "NET-0001"), "1011 NET-0001"),
        (|| Action::Close(1000, ""), "before the end of the speech"),
    ];
    for (what, reason) in cases {
        let (url, _) = server("Token canary", opened(what)).await;
        let all = recognisers("deepgram", &url, "timeout_ms = 5000");
        // The utterance does not end.
        let (_to, utterance) = UtteranceAudio::new();
        let error = recognise(&all, &options("en"), utterance).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{reason}: {error}");
    }
}

#[tokio::test]
async fn a_server_that_hangs_misses_the_deadline() {
    for protocol in ["deepgram", "assemblyai"] {
        let key = if protocol == "deepgram" { "Token canary" } else { "canary" };
        let (url, _) = server(key, |_| Vec::new()).await;
        let all = recognisers(protocol, &url, "timeout_ms = 50");
        let error = recognise(&all, &options("en"), utterance(500).await).await.unwrap_err();
        assert!(matches!(error, RecognitionError::Deadline(_)), "{error}");
    }
}

#[tokio::test]
async fn words_that_were_not_final_are_kept_if_the_server_closes() {
    let close = |event: Event<'_>| match event {
        Event::Audio(9_600) => vec![results("Book", 0.5, false, false), Action::Close(1000, "")],
        Event::Opened | Event::Audio(_) | Event::Text(_) => Vec::new(),
    };
    let (url, _) = server("Token canary", close).await;
    let all = recognisers("deepgram", &url, "");
    let (text, ..) = recognise(&all, &options("en"), utterance(2_000).await).await.unwrap();
    assert_eq!(text, "Book");
}
