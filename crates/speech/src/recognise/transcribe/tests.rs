//! Against a server in this process.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rstest::rstest;
use tokio::net::TcpListener;

use super::{Transcribe, hints, transcript};
use crate::config::SpeechConfig;
use crate::recognise::{Ask, RecogniseError, Recogniser as _, Sound, Transcript};

type Asked = Arc<Mutex<Vec<(http::request::Parts, Bytes)>>>;

/// A server that answers each question with the next answer, and the last one for good.
async fn server(status: u16, answers: &[&str]) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let asked = Asked::default();
    let (kept, answers) =
        (asked.clone(), answers.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (kept, answers) = (kept.clone(), answers.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (kept, answers) = (kept.clone(), answers.clone());
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let nth = {
                        let mut kept = kept.lock().unwrap();
                        kept.push((parts, body));
                        kept.len() - 1
                    };
                    let answer = answers.get(nth).or(answers.last()).cloned().unwrap();
                    let status = StatusCode::from_u16(status).unwrap();
                    Ok::<_, Infallible>(
                        Response::builder()
                            .status(status)
                            .body(Full::new(Bytes::from(answer)))
                            .unwrap(),
                    )
                }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service),
            );
        }
    });
    (url, asked)
}

fn recogniser(url: &str, rest: &str) -> Transcribe {
    let config: SpeechConfig =
        toml::from_str(&format!("[transcribe]\nurl = \"{url}\"\n{rest}")).unwrap();
    Transcribe::new(config.transcribe.unwrap()).unwrap()
}

fn ask() -> Ask {
    Ask {
        language: "en-IN".to_owned(),
        hints: vec!["book a table".to_owned(), "cancel".to_owned()],
        model: "phone_call".to_owned(),
        ..Ask::default()
    }
}

async fn heard(recogniser: &Transcribe, ask: &Ask) -> Result<Transcript, RecogniseError> {
    let (to, mut sound) = Sound::new();
    for _ in 0..50 {
        to.send(vec![700; 320]).await.unwrap();
    }
    drop(to);
    recogniser.recognise(ask, &mut sound, &mut |_| {}).await
}

#[tokio::test]
async fn the_request_is_a_form_with_the_sound_in_it() {
    let (url, asked) = server(200, &[r#"{"text":" Book a table. "}"#]).await;
    let recogniser = recogniser(&url, "api_key = \"canary\"\nmodels = { phone_call = \"m\" }");
    let transcript = heard(&recogniser, &ask()).await.unwrap();
    assert_eq!(transcript, Transcript { text: " Book a table. ".to_owned(), confidence: None });
    let asked = asked.lock().unwrap();
    let (parts, body) = &asked[0];
    assert_eq!(parts.uri.path(), "/v1/audio/transcriptions");
    assert_eq!(parts.headers["authorization"], "Bearer canary");
    let kind = parts.headers["content-type"].to_str().unwrap();
    let boundary = kind.strip_prefix("multipart/form-data; boundary=").unwrap();
    let text = String::from_utf8_lossy(body);
    let fields: Vec<_> = text
        .split(&format!("--{boundary}"))
        .filter_map(|part| part.split_once("\r\n\r\n"))
        .filter_map(|(head, value)| {
            Some((head.split("name=\"").nth(1)?.split('"').next()?, value.trim_end()))
        })
        .collect();
    for (name, value) in [
        ("model", "m"),
        ("language", "en"),
        ("response_format", "verbose_json"),
        ("temperature", "0"),
        ("prompt", "book a table, cancel"),
    ] {
        assert!(fields.contains(&(name, value)), "{name}: {fields:?}");
    }
    let at = body.windows(4).position(|w| w == b"RIFF").unwrap();
    let wav = hound::WavReader::new(&body[at..]).unwrap();
    assert_eq!((wav.spec().sample_rate, wav.len()), (16_000, 16_000));
    assert!(body.ends_with(format!("\r\n--{boundary}--\r\n").as_bytes()));
}

#[tokio::test]
async fn interim_results_are_asked_for_while_one_speaks() {
    let answers = [r#"{"text":"Book"}"#, r#"{"text":"Book a"}"#, r#"{"text":"Book a table"}"#];
    let (url, asked) = server(200, &answers).await;
    let recogniser = recogniser(&url, "interim_ms = 1\nformat = \"json\"");
    let ask = Ask { interim: true, ..ask() };
    let (to, mut sound) = Sound::new();
    let (told, mut partials) = tokio::sync::mpsc::channel(1_000);
    let speak = async {
        let mut said = Vec::new();
        while said.len() < 2 {
            to.send(vec![700; 320]).await.unwrap();
            if let Ok(text) = tokio::time::timeout(Duration::from_millis(5), partials.recv()).await
            {
                said.push(text.unwrap());
            }
        }
        drop(to);
        said
    };
    let mut tell = |text: &str| told.try_send(text.to_owned()).unwrap();
    let (heard, said) = tokio::join!(recogniser.recognise(&ask, &mut sound, &mut tell), speak);
    assert_eq!(said, ["Book", "Book a"]);
    assert_eq!(heard.unwrap().text, "Book a table");
    assert!(asked.lock().unwrap().len() >= 3);
}

#[rstest]
#[case(
    r#"{"text":"Yes.","segments":[{"text":"Yes.","start":0,"end":1,"avg_logprob":-0.25,"no_speech_prob":0.01}]}"#,
    "Yes.",
    Some(0.7788)
)]
#[case(r#"{"text":"Thank you. Yes.","segments":[{"text":"Thank you.","start":0,"end":1,"avg_logprob":-1.4,"no_speech_prob":0.9},{"text":" Yes.","start":1,"end":2,"avg_logprob":-0.1,"no_speech_prob":0.1}]}"#, " Yes.", Some(0.9048))]
#[case(r#"{"text":"Thank you.","segments":[{"text":"Thank you.","avg_logprob":-1.4,"no_speech_prob":0.9}]}"#, "", None)]
#[case(r#"{"text":"Yes","logprobs":[{"token":"Yes","logprob":-0.5}]}"#, "Yes", Some(0.6065))]
#[case(r#"{"text":"Yes","confidence":0.93,"segments":[]}"#, "Yes", Some(0.93))]
#[case(r#"{"text":""}"#, "", None)]
fn how_sure_it_is_is_read_from_what_there_is(
    #[case] body: &str,
    #[case] text: &str,
    #[case] sure: Option<f32>,
) {
    let read = transcript(body.as_bytes()).unwrap();
    assert_eq!(read.text, text);
    match (read.confidence, sure) {
        (Some(read), Some(sure)) => assert!((read - sure).abs() < 0.001, "{read}"),
        (read, sure) => assert_eq!(read, sure),
    }
}

#[tokio::test]
async fn refusals_rubbish_and_silence_have_names() {
    let (url, _) = server(401, &["your key canary is wrong"]).await;
    let error = heard(&recogniser(&url, ""), &ask()).await.unwrap_err();
    assert_eq!(error.to_string(), "get a transcript: the endpoint answered 401 Unauthorized");
    let (url, _) = server(200, &["<html>"]).await;
    assert!(matches!(heard(&recogniser(&url, ""), &ask()).await, Err(RecogniseError::Answer(_))));
    assert!(matches!(
        heard(&recogniser("http://127.0.0.1:1", ""), &ask()).await,
        Err(RecogniseError::Ask(_))
    ));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let error = heard(&recogniser(&url, "timeout_ms = 50"), &ask()).await.unwrap_err();
    assert!(
        matches!(error, RecogniseError::Deadline(d) if d == Duration::from_millis(50)),
        "{error}"
    );
}

#[test]
fn hints_are_whole_phrases_and_bounded() {
    assert_eq!(hints(&["a b".to_owned(), "c".to_owned()]), "a b, c");
    let many: Vec<String> = (0..500).map(|n| format!("phrase {n}")).collect();
    let prompt = hints(&many);
    assert!(prompt.len() <= 600 && prompt.ends_with(|c: char| c.is_ascii_digit()), "{prompt}");
}
