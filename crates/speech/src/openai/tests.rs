//! The provider against a local server.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::OpenAi;
use crate::config::SpeechConfig;
use crate::language::Speaker;
use crate::provider::{Provider, Sink, SpeechError};
use crate::script::{Run, Segment, Style};
use model::Secret;

/// A server that sends the same chunks to every request and records the requests.
struct Server {
    url: String,
    requests: Arc<Mutex<Vec<(http::request::Parts, serde_json::Value)>>>,
}

async fn server(status: u16, chunks: Vec<Vec<u8>>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let recorded = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (recorded, chunks) = (Arc::clone(&recorded), chunks.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (recorded, chunks) = (Arc::clone(&recorded), chunks.clone());
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    recorded.lock().unwrap().push((parts, serde_json::from_slice(&body).unwrap()));
                    let chunks = chunks
                        .into_iter()
                        .map(|p| Ok::<_, Infallible>(Frame::data(Bytes::from(p))));
                    let body = StreamBody::new(stream::iter(chunks));
                    let status = StatusCode::from_u16(status).unwrap();
                    Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
                }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service),
            );
        }
    });
    Server { url, requests }
}

fn provider(url: &str, rest: &str) -> OpenAi {
    let config: SpeechConfig =
        toml::from_str(&format!("[openai]\nurl = \"{url}\"\n{rest}")).unwrap();
    OpenAi::new(config.openai.unwrap()).unwrap()
}

fn segment(male: bool, rate: f32) -> Segment {
    let speaker = Speaker { language: "hi-IN".to_owned(), male, polly: None };
    Segment {
        speaker,
        runs: vec![Run {
            text: "नमस्ते \"<>\"".to_owned(),
            style: Style { rate, ..Style::default() },
        }],
    }
}

async fn synthesise(
    provider: &OpenAi,
    segment: &Segment,
) -> (Vec<i16>, Vec<u32>, Result<(), SpeechError>) {
    let (mut sink, mut chunks) = Sink::new(100);
    let outcome = provider.synthesise(segment, &mut sink).await;
    drop(sink);
    let (mut pcm, mut rates) = (Vec::new(), Vec::new());
    while let Some(chunk) = chunks.recv().await {
        pcm.extend(chunk.pcm);
        rates.push(chunk.rate);
    }
    rates.dedup();
    (pcm, rates, outcome)
}

fn wav() -> Vec<u8> {
    std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/audio/tone-pcm16.wav"))
        .unwrap()
}

#[tokio::test]
async fn wav_is_streamed_and_the_request_has_the_documented_fields() {
    let chunks = wav().chunks(1_001).map(<[u8]>::to_vec).collect();
    let server = server(200, chunks).await;
    let provider = provider(
        &server.url,
        "api_key = \"canary\"\nmodel = \"m\"\nvoices = { \"hi\" = \"asha\", MAN = \"bo\" }",
    );
    let (pcm, rates, outcome) = synthesise(&provider, &segment(true, 150.0)).await;
    outcome.unwrap();
    assert_eq!((pcm.len(), rates), (4_000, vec![8_000]));
    let requests = server.requests.lock().unwrap();
    let (parts, body) = &requests[0];
    assert_eq!(parts.uri.path(), "/v1/audio/speech");
    assert_eq!(parts.headers["authorization"], "Bearer canary");
    let expected = serde_json::json!({
        "model": "m", "input": "नमस्ते \"<>\"", "voice": "asha", "response_format": "wav", "speed": 1.5
    });
    assert_eq!(*body, expected);
}

#[tokio::test]
async fn pcm_samples_may_be_split_across_chunks() {
    let server = server(200, vec![vec![1], vec![0, 2], vec![0, 3, 0, 4], vec![0]]).await;
    let provider = provider(&server.url, "format = \"pcm\"");
    let (pcm, rates, outcome) = synthesise(&provider, &segment(false, 100.0)).await;
    outcome.unwrap();
    assert_eq!((pcm, rates), (vec![1, 2, 3, 4], vec![24_000]));
    let requests = server.requests.lock().unwrap();
    assert_eq!(requests[0].1.get("speed"), None);
    assert!(!requests[0].0.headers.contains_key("authorization"));
}

#[tokio::test]
async fn error_responses_and_invalid_audio_are_reported() {
    let refusing = server(401, vec![b"your key canary is wrong".to_vec()]).await;
    let error =
        synthesise(&provider(&refusing.url, ""), &segment(false, 100.0)).await.2.unwrap_err();
    assert_eq!(
        error.to_string(),
        "could not get speech from the endpoint: the response status was 401 Unauthorized"
    );

    let invalid = server(200, vec![b"{\"error\": 1}".to_vec()]).await;
    let error =
        synthesise(&provider(&invalid.url, ""), &segment(false, 100.0)).await.2.unwrap_err();
    assert!(matches!(error, SpeechError::Wav(_)), "{error}");

    let (pcm, _, outcome) = {
        let mut wav = wav();
        wav.truncate(4_000);
        let cut = server(200, vec![wav]).await;
        synthesise(&provider(&cut.url, ""), &segment(false, 100.0)).await
    };
    assert!(pcm.len() > 1_900 && matches!(outcome, Err(SpeechError::Wav(_))));

    let unreachable = provider("http://127.0.0.1:1", "");
    assert!(matches!(
        synthesise(&unreachable, &segment(false, 100.0)).await.2,
        Err(SpeechError::Http(_))
    ));
}

#[tokio::test]
async fn an_unresponsive_server_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let provider =
        provider(&format!("http://{}", listener.local_addr().unwrap()), "timeout_ms = 50");
    let error = synthesise(&provider, &segment(false, 100.0)).await.2.unwrap_err();
    assert!(matches!(error, SpeechError::Deadline(d) if d == Duration::from_millis(50)), "{error}");
}

#[test]
fn an_invalid_key_is_reported_without_revealing_it() {
    let error = super::bearer(&Secret::new("can\nary")).unwrap_err().to_string();
    assert!(!error.contains("can"), "{error}");
}
