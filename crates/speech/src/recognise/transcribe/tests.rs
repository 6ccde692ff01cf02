//! The recogniser against a local server.

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

use super::{Transcribe, hints_prompt, parse_response};
use crate::config::SpeechConfig;
use crate::recognise::{
    Recogniser as _, RecognitionError, RecognitionOptions, Transcript, UtteranceAudio,
};

type Requests = Arc<Mutex<Vec<(http::request::Parts, Bytes)>>>;

/// A server that sends the responses in order and repeats the last one.
async fn server(status: u16, responses: &[&str]) -> (String, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let requests = Requests::default();
    let (recorded, responses) =
        (requests.clone(), responses.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (recorded, responses) = (recorded.clone(), responses.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (recorded, responses) = (recorded.clone(), responses.clone());
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let nth = {
                        let mut recorded = recorded.lock().unwrap();
                        recorded.push((parts, body));
                        recorded.len() - 1
                    };
                    let response = responses.get(nth).or(responses.last()).cloned().unwrap();
                    let status = StatusCode::from_u16(status).unwrap();
                    Ok::<_, Infallible>(
                        Response::builder()
                            .status(status)
                            .body(Full::new(Bytes::from(response)))
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
    (url, requests)
}

fn recogniser(url: &str, rest: &str) -> Transcribe {
    let config: SpeechConfig =
        toml::from_str(&format!("[transcribe]\nurl = \"{url}\"\n{rest}")).unwrap();
    Transcribe::new(config.transcribe.unwrap()).unwrap()
}

fn options() -> RecognitionOptions {
    RecognitionOptions {
        language: "en-IN".to_owned(),
        hints: vec!["book a table".to_owned(), "cancel".to_owned()],
        model: "phone_call".to_owned(),
        ..RecognitionOptions::default()
    }
}

async fn recognise(
    recogniser: &Transcribe,
    options: &RecognitionOptions,
) -> Result<Transcript, RecognitionError> {
    let (to, mut utterance) = UtteranceAudio::new();
    for _ in 0..50 {
        to.send(vec![700; 320]).await.unwrap();
    }
    drop(to);
    recogniser.recognise(options, &mut utterance, &mut |_| {}).await
}

#[tokio::test]
async fn the_request_is_a_form_with_the_audio() {
    let (url, requests) = server(200, &[r#"{"text":" Book a table. "}"#]).await;
    let recogniser = recogniser(&url, "api_key = \"canary\"\nmodels = { phone_call = \"m\" }");
    let transcript = recognise(&recogniser, &options()).await.unwrap();
    assert_eq!(transcript, Transcript { text: " Book a table. ".to_owned(), confidence: None });
    let requests = requests.lock().unwrap();
    let (parts, body) = &requests[0];
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
async fn interim_results_are_requested_while_the_caller_speaks() {
    let responses = [r#"{"text":"Book"}"#, r#"{"text":"Book a"}"#, r#"{"text":"Book a table"}"#];
    let (url, requests) = server(200, &responses).await;
    let recogniser = recogniser(&url, "interim_ms = 1\nformat = \"json\"");
    let options = RecognitionOptions { interim: true, ..options() };
    let (to, mut utterance) = UtteranceAudio::new();
    let (sender, mut partials) = tokio::sync::mpsc::channel(1_000);
    let speak = async {
        let mut texts = Vec::new();
        while texts.len() < 2 {
            to.send(vec![700; 320]).await.unwrap();
            if let Ok(text) = tokio::time::timeout(Duration::from_millis(5), partials.recv()).await
            {
                texts.push(text.unwrap());
            }
        }
        drop(to);
        texts
    };
    let mut on_partial = |text: &str| sender.try_send(text.to_owned()).unwrap();
    let (result, texts) =
        tokio::join!(recogniser.recognise(&options, &mut utterance, &mut on_partial), speak);
    assert_eq!(texts, ["Book", "Book a"]);
    assert_eq!(result.unwrap().text, "Book a table");
    assert!(requests.lock().unwrap().len() >= 3);
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
fn confidence_is_derived_from_the_available_fields(
    #[case] body: &str,
    #[case] text: &str,
    #[case] confidence: Option<f32>,
) {
    let read = parse_response(body.as_bytes()).unwrap();
    assert_eq!(read.text, text);
    match (read.confidence, confidence) {
        (Some(read), Some(confidence)) => assert!((read - confidence).abs() < 0.001, "{read}"),
        (read, confidence) => assert_eq!(read, confidence),
    }
}

#[tokio::test]
async fn error_responses_invalid_bodies_and_timeouts_are_reported() {
    let (url, _) = server(401, &["your key canary is wrong"]).await;
    let error = recognise(&recogniser(&url, ""), &options()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "could not get a transcript: the response status was 401 Unauthorized"
    );
    let (url, _) = server(200, &["<html>"]).await;
    assert!(matches!(
        recognise(&recogniser(&url, ""), &options()).await,
        Err(RecognitionError::Response(_))
    ));
    assert!(matches!(
        recognise(&recogniser("http://127.0.0.1:1", ""), &options()).await,
        Err(RecognitionError::Request(_))
    ));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let error = recognise(&recogniser(&url, "timeout_ms = 50"), &options()).await.unwrap_err();
    assert!(
        matches!(error, RecognitionError::Deadline(d) if d == Duration::from_millis(50)),
        "{error}"
    );
}

#[test]
fn the_prompt_has_whole_hints_up_to_the_limit() {
    assert_eq!(hints_prompt(&["a b".to_owned(), "c".to_owned()]), "a b, c");
    let many: Vec<String> = (0..500).map(|n| format!("phrase {n}")).collect();
    let prompt = hints_prompt(&many);
    assert!(prompt.len() <= 600 && prompt.ends_with(|c: char| c.is_ascii_digit()), "{prompt}");
}
