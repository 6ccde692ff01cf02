//! Recognisers against local servers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

use super::{
    BoxFuture, Engines, InterimResult, OnPartial, Recogniser, Recognisers, RecognitionError,
    RecognitionOptions, Transcript, UtteranceAudio, encode_wav, normalise,
};
use crate::config::SpeechConfig;

fn options(language: &str) -> RecognitionOptions {
    RecognitionOptions {
        language: language.to_owned(),
        model: "default".to_owned(),
        ..RecognitionOptions::default()
    }
}

fn engines(all: Vec<Arc<dyn Recogniser>>) -> Engines {
    Engines { all, turn_estimator: None }
}

fn config(text: &str) -> SpeechConfig {
    SpeechConfig::from_table(text.parse().unwrap()).unwrap()
}

/// The audio of a complete utterance of this length.
async fn utterance(seconds: usize) -> UtteranceAudio {
    let (to, utterance) = UtteranceAudio::new();
    for _ in 0..seconds * 50 {
        to.send(vec![1_000; 320]).await.unwrap();
    }
    utterance
}

/// A recogniser that returns the number of samples it received.
struct FakeRecogniser {
    language: &'static str,
    release: Option<Arc<tokio::sync::Notify>>,
}

impl Recogniser for FakeRecogniser {
    fn name(&self) -> &'static str {
        "meter"
    }

    fn can_recognise(&self, language: &str) -> bool {
        language.starts_with(self.language)
    }

    fn recognise<'a>(
        &'a self,
        _options: &'a RecognitionOptions,
        utterance: &'a mut UtteranceAudio,
        on_partial: OnPartial<'a>,
    ) -> BoxFuture<'a, Result<Transcript, RecognitionError>> {
        Box::pin(async move {
            for text in ["", "well\n", "well ", "well shit"] {
                on_partial(text);
            }
            let samples = super::collect_samples(utterance).await.len();
            if let Some(release) = &self.release {
                release.notified().await;
            }
            Ok(Transcript { text: format!("  shit \n {samples}\u{7} "), confidence: Some(0.876) })
        })
    }
}

#[tokio::test]
async fn results_are_normalised_masked_and_not_repeated() {
    let all: Vec<Arc<dyn Recogniser>> = vec![
        Arc::new(FakeRecogniser { language: "de", release: None }),
        Arc::new(FakeRecogniser { language: "en", release: None }),
    ];
    let all = Recognisers::with_engines(engines(all), 1, Duration::from_secs(5), "en-US");
    let mut interims = Vec::new();
    let filtered = RecognitionOptions { profanity_filter: true, ..options("en-US") };
    let speech = all
        .recognise(&filtered, &mut utterance(1).await, |interim| interims.push(interim))
        .await
        .unwrap();
    assert_eq!((speech.text.as_str(), speech.confidence), ("s*** 16000", 88));
    let interim = |stable: &str, unstable: &str, stability| InterimResult {
        stable: stable.to_owned(),
        unstable: unstable.to_owned(),
        stability,
    };
    assert_eq!(
        interims,
        [interim("", "well", 0), interim("well", "", 100), interim("well", "s***", 50)]
    );
    let unknown =
        all.recognise(&options("fr-FR"), &mut utterance(1).await, drop).await.unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "could not recognise fr-FR: no recogniser is configured for this language"
    );
    assert_eq!(normalise(&"long ".repeat(2_000), &options("en")).chars().count(), super::TEXT_MAX);
}

#[tokio::test]
async fn concurrent_recognitions_are_limited() {
    let release = Arc::new(tokio::sync::Notify::new());
    let meter: Arc<dyn Recogniser> =
        Arc::new(FakeRecogniser { language: "en", release: Some(release.clone()) });
    let all =
        Recognisers::with_engines(engines(vec![meter]), 1, Duration::from_millis(20), "en-US");
    let (first, options) = (all.clone(), options("en-US"));
    let first_options = options.clone();
    let first = tokio::spawn(async move {
        first.recognise(&first_options, &mut utterance(1).await, drop).await
    });
    tokio::task::yield_now().await;
    let busy = all.recognise(&options, &mut utterance(1).await, drop).await.unwrap_err();
    assert!(matches!(busy, RecognitionError::Busy));
    release.notify_one();
    assert!(first.await.unwrap().is_ok());
    release.notify_one();
    assert!(all.recognise(&options, &mut utterance(1).await, drop).await.is_ok());
}

#[tokio::test]
async fn some_recognitions_are_left_for_other_accounts() {
    let never = Some(Arc::new(tokio::sync::Notify::new()));
    let slow: Arc<dyn Recogniser> = Arc::new(FakeRecogniser { language: "en", release: never });
    let wait = Duration::from_millis(20);
    let all = Recognisers::with_engines(engines(vec![slow]), 4, wait, "en-US");
    let begun = Arc::new(tokio::sync::Notify::new());
    let recognise = |account: &str| {
        let options =
            RecognitionOptions { account: Some(account.into()), interim: true, ..options("en-US") };
        let (all, begun) = (all.clone(), begun.clone());
        async move { all.recognise(&options, &mut utterance(1).await, |_| begun.notify_one()).await }
    };
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..3 {
        running.spawn(recognise("MA1"));
        begun.notified().await;
    }
    assert!(matches!(recognise("MA1").await, Err(RecognitionError::Busy)), "more than its share");
    running.spawn(recognise("MA2"));
    begun.notified().await;
}

#[test]
fn an_utterance_is_encoded_as_wav() {
    let file = encode_wav(&[1, -1, 300]);
    let read = hound::WavReader::new(file.as_slice()).unwrap();
    assert_eq!((read.spec().sample_rate, read.spec().channels), (16_000, 1));
    assert_eq!(read.into_samples::<i16>().map(Result::unwrap).collect::<Vec<_>>(), [1, -1, 300]);
}

#[test]
fn the_configuration_sets_the_order_of_recognisers() {
    let names = |text: &str| {
        let all = Recognisers::new(&config(text)).unwrap();
        all.0.engines.load().all.iter().map(|r| r.name()).collect::<Vec<_>>()
    };
    let both =
        "[transcribe]\nurl = \"http://127.0.0.1:1/v1\"\n[websocket]\nurl = \"ws://127.0.0.1:1\"";
    assert_eq!(
        names(&format!("pocketsphinx = \"/x\"\n{both}")),
        ["transcribe", "websocket", "pocketsphinx"]
    );
    assert_eq!(
        names(&format!("pocketsphinx = \"/x\"\nrecogniser = \"websocket\"\n{both}")),
        ["websocket", "transcribe", "pocketsphinx"]
    );
    assert!(names(&format!("recogniser = \"none\"\n{both}")).is_empty());
    for invalid in ["[transcribe]\nurl = \"ws://x\"", "[websocket]\nurl = \"http://x\""] {
        assert!(Recognisers::new(&config(invalid)).is_err(), "{invalid}");
    }
}

/// A server with Vosk's protocol that returns the same words for any audio. Returns its URL and the
/// messages that it received.
async fn vosk_server() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let messages = Arc::new(Mutex::new(Vec::new()));
    let received = messages.clone();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let mut socket = tokio_tungstenite::accept_async(tcp).await.unwrap();
            let mut bytes = 0;
            while let Some(Ok(message)) = socket.next().await {
                let answer = match &message {
                    Message::Binary(samples) => {
                        bytes += samples.len();
                        match bytes / 3_200 {
                            3 => r#"{"partial":"book a"}"#,
                            5 => {
                                r#"{"text":"book a","result":[{"word":"book","conf":1.0},{"word":"a","conf":0.5}]}"#
                            }
                            _ => r#"{"partial":""}"#,
                        }
                    }
                    Message::Text(text) => {
                        received.lock().unwrap().push(text.to_string());
                        match text.contains("eof") {
                            true => r#"{"text":"table","result":[{"word":"table","conf":0.9}]}"#,
                            false => continue,
                        }
                    }
                    _ => break,
                };
                socket.send(Message::text(answer)).await.unwrap();
                if answer.contains("table") {
                    received.lock().unwrap().push(bytes.to_string());
                    let _ = socket.close(None).await;
                    break;
                }
            }
        }
    });
    (url, messages)
}

#[tokio::test]
async fn a_vosk_server_recognises_while_the_caller_speaks() {
    let (url, messages) = vosk_server().await;
    let all = Recognisers::new(&config(&format!(
        "recogniser = \"websocket\"\n[websocket]\nlanguages = {{ en = \"{url}\" }}\napi_key = \"canary\""
    )))
    .unwrap();
    let hinted = RecognitionOptions { hints: vec!["table".to_owned()], ..options("en-GB") };
    let mut interims = Vec::new();
    let speech = all
        .recognise(&hinted, &mut utterance(1).await, |i| {
            interims.push(format!("{}|{}", i.stable, i.unstable))
        })
        .await;
    let speech = speech.unwrap();
    assert_eq!((speech.text.as_str(), speech.confidence), ("book a table", 80));
    assert_eq!(interims, ["|book a", "book a|", "book a|table"]);
    let messages = messages.lock().unwrap();
    let config: serde_json::Value = serde_json::from_str(&messages[0]).unwrap();
    assert_eq!(
        config["config"],
        serde_json::json!({"sample_rate": 16000, "words": 1, "language": "en-GB", "hints": ["table"], "model": "default"})
    );
    assert_eq!(messages[1..], [r#"{"eof":1}"#.to_owned(), "32000".to_owned()]);
}

#[tokio::test]
async fn an_unreachable_server_or_an_invalid_message_is_an_error() {
    let unreachable = Recognisers::new(&config("[websocket]\nurl = \"ws://127.0.0.1:1\"")).unwrap();
    let error =
        unreachable.recognise(&options("de"), &mut utterance(1).await, drop).await.unwrap_err();
    assert!(matches!(error, RecognitionError::Request(_)), "{error}");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(tcp).await.unwrap();
        socket.send(Message::text("no JSON")).await.unwrap();
        while socket.next().await.is_some_and(|m| m.is_ok()) {}
    });
    let invalid = Recognisers::new(&config(&format!("[websocket]\nurl = \"{url}\""))).unwrap();
    let (_sender, mut utterance) = UtteranceAudio::new();
    let error = invalid.recognise(&options("de"), &mut utterance, drop).await.unwrap_err();
    assert!(matches!(error, RecognitionError::Response(_)), "{error}");
}

#[tokio::test]
async fn an_unresponsive_server_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(tcp).await.unwrap();
        while socket.next().await.is_some_and(|m| m.is_ok()) {}
    });
    let all = Recognisers::new(&config(&format!("[websocket]\nurl = \"{url}\"\ntimeout_ms = 50")))
        .unwrap();
    let error = all.recognise(&options("de"), &mut utterance(1).await, drop).await.unwrap_err();
    assert!(
        matches!(error, RecognitionError::Deadline(d) if d == Duration::from_millis(50)),
        "{error}"
    );
}

/// A recogniser that receives the whole utterance and fails.
struct Unreachable;

impl Recogniser for Unreachable {
    fn name(&self) -> &'static str {
        "unreachable"
    }

    fn can_recognise(&self, _: &str) -> bool {
        true
    }

    fn recognise<'a>(
        &'a self,
        _: &'a RecognitionOptions,
        utterance: &'a mut UtteranceAudio,
        _: OnPartial<'a>,
    ) -> BoxFuture<'a, Result<Transcript, RecognitionError>> {
        Box::pin(async move {
            super::collect_samples(utterance).await;
            Err(RecognitionError::Request("connection refused".to_owned()))
        })
    }
}

#[tokio::test]
async fn in_a_call_the_next_recogniser_gets_the_whole_utterance_of_a_failed_service() {
    let all: Vec<Arc<dyn Recogniser>> =
        vec![Arc::new(Unreachable), Arc::new(FakeRecogniser { language: "en", release: None })];
    let all = Recognisers::with_engines(engines(all), 1, Duration::from_secs(5), "en-US");
    let live = RecognitionOptions { is_live: true, ..options("en-US") };
    let speech = all.recognise(&live, &mut utterance(1).await, drop).await.unwrap();
    assert_eq!((speech.text.as_str(), speech.recogniser), ("shit 16000", "meter"));
    // A transcript of a recording is requested again later.
    let later = all.recognise(&options("en-US"), &mut utterance(1).await, drop).await;
    assert!(matches!(later, Err(RecognitionError::Request(_))), "{later:?}");
}

#[tokio::test]
async fn pocketsphinx_does_not_replace_a_failed_service_without_hints() {
    let all = Recognisers::new(&config(
        "pocketsphinx = \"/nowhere/sphinx\"\n[websocket]\nurl = \"ws://127.0.0.1:1\"",
    ))
    .unwrap();
    let live = RecognitionOptions { is_live: true, ..options("en-US") };
    let error = all.recognise(&live, &mut utterance(1).await, drop).await.unwrap_err();
    assert!(matches!(error, RecognitionError::Request(_)), "{error}");
    let hinted = RecognitionOptions { hints: vec!["yes".to_owned()], ..live };
    let error = all.recognise(&hinted, &mut utterance(1).await, drop).await.unwrap_err();
    assert!(matches!(error, RecognitionError::Program(_)), "{error}");
}

#[tokio::test]
async fn pocketsphinx_is_asked_without_hints_only_if_it_is_chosen() {
    let recognisers = |more: &str| {
        Recognisers::new(&config(&format!("pocketsphinx = \"/nowhere/sphinx\"\n{more}"))).unwrap()
    };
    let found = recognisers("");
    assert!(!found.can_recognise("en-US"));
    assert!(found.can_recognise_with("en-US", &["yes".to_owned()]));
    let error = found.recognise(&options("en-US"), &mut utterance(1).await, drop).await;
    assert!(matches!(error, Err(RecognitionError::Language(_))), "{error:?}");
    assert!(recognisers("recogniser = \"pocketsphinx\"").can_recognise("en-US"));
}
