//! Recognisers against servers in this process, and the program where it is installed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

use super::{
    Ask, BoxFuture, Interim, Partial, RecogniseError, Recogniser, Recognisers, Sound, Transcript,
    shown, wav,
};
use crate::config::SpeechConfig;

fn ask(language: &str) -> Ask {
    Ask { language: language.to_owned(), model: "default".to_owned(), ..Ask::default() }
}

fn config(text: &str) -> SpeechConfig {
    SpeechConfig::from_table(text.parse().unwrap()).unwrap()
}

/// A sound of so many seconds that has ended.
async fn said(seconds: usize) -> Sound {
    let (to, sound) = Sound::new();
    for _ in 0..seconds * 50 {
        to.send(vec![1_000; 320]).await.unwrap();
    }
    sound
}

/// Says how much it heard.
struct Meter {
    language: &'static str,
    hold: Option<Arc<tokio::sync::Notify>>,
}

impl Recogniser for Meter {
    fn name(&self) -> &'static str {
        "meter"
    }
    fn understands(&self, language: &str) -> bool {
        language.starts_with(self.language)
    }
    fn recognise<'a>(
        &'a self,
        _ask: &'a Ask,
        sound: &'a mut Sound,
        partial: Partial<'a>,
    ) -> BoxFuture<'a, Result<Transcript, RecogniseError>> {
        Box::pin(async move {
            for text in ["", "well\n", "well ", "well shit"] {
                partial(text);
            }
            let samples = super::whole(sound).await.len();
            if let Some(hold) = &self.hold {
                hold.notified().await;
            }
            Ok(Transcript { text: format!("  shit \n {samples}\u{7} "), confidence: Some(0.876) })
        })
    }
}

#[tokio::test]
async fn results_are_told_clean_masked_and_once() {
    let all: Vec<Arc<dyn Recogniser>> = vec![
        Arc::new(Meter { language: "de", hold: None }),
        Arc::new(Meter { language: "en", hold: None }),
    ];
    let all = Recognisers::with(all, 1, Duration::from_secs(5), "en-US");
    let mut interims = Vec::new();
    let filtered = Ask { profanity_filter: true, ..ask("en-US") };
    let understood = all
        .recognise(&filtered, &mut said(1).await, |interim| interims.push(interim))
        .await
        .unwrap();
    assert_eq!((understood.text.as_str(), understood.confidence), ("s*** 16000", 88));
    let told = |stable: &str, unstable: &str, stability| Interim {
        stable: stable.to_owned(),
        unstable: unstable.to_owned(),
        stability,
    };
    assert_eq!(interims, [told("", "well", 0), told("well", "", 100), told("well", "s***", 50)]);
    let unknown = all.recognise(&ask("fr-FR"), &mut said(1).await, drop).await.unwrap_err();
    assert_eq!(unknown.to_string(), "understand fr-FR: no recogniser is configured for it");
    assert_eq!(shown(&"long ".repeat(2_000), &ask("en")).chars().count(), super::TEXT_MAX);
}

#[tokio::test]
async fn only_so_many_are_under_way_at_a_time() {
    let hold = Arc::new(tokio::sync::Notify::new());
    let meter: Arc<dyn Recogniser> = Arc::new(Meter { language: "en", hold: Some(hold.clone()) });
    let all = Recognisers::with(vec![meter], 1, Duration::from_millis(20), "en-US");
    let (first, ask) = (all.clone(), ask("en-US"));
    let first_ask = ask.clone();
    let first =
        tokio::spawn(async move { first.recognise(&first_ask, &mut said(1).await, drop).await });
    tokio::task::yield_now().await;
    let busy = all.recognise(&ask, &mut said(1).await, drop).await.unwrap_err();
    assert!(matches!(busy, RecogniseError::Busy));
    hold.notify_one();
    assert!(first.await.unwrap().is_ok());
    hold.notify_one();
    assert!(all.recognise(&ask, &mut said(1).await, drop).await.is_ok());
}

#[test]
fn an_utterance_is_a_wav_file() {
    let file = wav(&[1, -1, 300]);
    let read = hound::WavReader::new(file.as_slice()).unwrap();
    assert_eq!((read.spec().sample_rate, read.spec().channels), (16_000, 1));
    assert_eq!(read.into_samples::<i16>().map(Result::unwrap).collect::<Vec<_>>(), [1, -1, 300]);
}

#[test]
fn who_is_asked_is_chosen_by_the_configuration() {
    let names = |text: &str| {
        let all = Recognisers::new(&config(text)).unwrap();
        all.0.all.iter().map(|r| r.name()).collect::<Vec<_>>()
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
    for wrong in ["[transcribe]\nurl = \"ws://x\"", "[websocket]\nurl = \"http://x\""] {
        assert!(Recognisers::new(&config(wrong)).is_err(), "{wrong}");
    }
}

/// A server as Vosk's: says the same whatever it hears. Gives its address and what it was sent.
async fn vosk() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let sent = Arc::new(Mutex::new(Vec::new()));
    let kept = sent.clone();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let mut socket = tokio_tungstenite::accept_async(tcp).await.unwrap();
            let mut pieces = 0;
            while let Some(Ok(message)) = socket.next().await {
                let answer = match &message {
                    Message::Binary(samples) => {
                        pieces += samples.len();
                        match pieces / 3_200 {
                            3 => r#"{"partial":"book a"}"#,
                            5 => {
                                r#"{"text":"book a","result":[{"word":"book","conf":1.0},{"word":"a","conf":0.5}]}"#
                            }
                            _ => r#"{"partial":""}"#,
                        }
                    }
                    Message::Text(text) => {
                        kept.lock().unwrap().push(text.to_string());
                        match text.contains("eof") {
                            true => r#"{"text":"table","result":[{"word":"table","conf":0.9}]}"#,
                            false => continue,
                        }
                    }
                    _ => break,
                };
                socket.send(Message::text(answer)).await.unwrap();
                if answer.contains("table") {
                    kept.lock().unwrap().push(pieces.to_string());
                    let _ = socket.close(None).await;
                    break;
                }
            }
        }
    });
    (url, sent)
}

#[tokio::test]
async fn a_vosk_server_hears_as_one_speaks() {
    let (url, sent) = vosk().await;
    let all = Recognisers::new(&config(&format!(
        "recogniser = \"websocket\"\n[websocket]\nlanguages = {{ en = \"{url}\" }}\napi_key = \"canary\""
    )))
    .unwrap();
    let hinted = Ask { hints: vec!["table".to_owned()], ..ask("en-GB") };
    let mut interims = Vec::new();
    let understood = all
        .recognise(&hinted, &mut said(1).await, |i| {
            interims.push(format!("{}|{}", i.stable, i.unstable))
        })
        .await;
    let understood = understood.unwrap();
    assert_eq!((understood.text.as_str(), understood.confidence), ("book a table", 80));
    assert_eq!(interims, ["|book a", "book a|", "book a|table"]);
    let sent = sent.lock().unwrap();
    let config: serde_json::Value = serde_json::from_str(&sent[0]).unwrap();
    assert_eq!(
        config["config"],
        serde_json::json!({"sample_rate": 16000, "words": 1, "language": "en-GB", "hints": ["table"], "model": "default"})
    );
    assert_eq!(sent[1..], [r#"{"eof":1}"#.to_owned(), "32000".to_owned()]);
}

#[tokio::test]
async fn a_server_that_is_not_there_or_says_rubbish_is_an_error() {
    let nobody = Recognisers::new(&config("[websocket]\nurl = \"ws://127.0.0.1:1\"")).unwrap();
    let error = nobody.recognise(&ask("en"), &mut said(1).await, drop).await.unwrap_err();
    assert!(matches!(error, RecogniseError::Ask(_)), "{error}");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(tcp).await.unwrap();
        socket.send(Message::text("no JSON")).await.unwrap();
        while socket.next().await.is_some_and(|m| m.is_ok()) {}
    });
    let garbled = Recognisers::new(&config(&format!("[websocket]\nurl = \"{url}\""))).unwrap();
    let (_open, mut sound) = Sound::new();
    let error = garbled.recognise(&ask("en"), &mut sound, drop).await.unwrap_err();
    assert!(matches!(error, RecogniseError::Answer(_)), "{error}");
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(tcp).await.unwrap();
        while socket.next().await.is_some_and(|m| m.is_ok()) {}
    });
    let all = Recognisers::new(&config(&format!("[websocket]\nurl = \"{url}\"\ntimeout_ms = 50")))
        .unwrap();
    let error = all.recognise(&ask("en"), &mut said(1).await, drop).await.unwrap_err();
    assert!(
        matches!(error, RecogniseError::Deadline(d) if d == Duration::from_millis(50)),
        "{error}"
    );
}
