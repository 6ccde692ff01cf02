//! Against a server in this process.

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
use crate::script::{Run, Say, Style};
use model::Secret;

/// A server that answers everything alike, in pieces; what it was asked is kept.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<(http::request::Parts, serde_json::Value)>>>,
}

async fn server(status: u16, pieces: Vec<Vec<u8>>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (kept, pieces) = (Arc::clone(&kept), pieces.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (kept, pieces) = (Arc::clone(&kept), pieces.clone());
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    kept.lock().unwrap().push((parts, serde_json::from_slice(&body).unwrap()));
                    let pieces = pieces
                        .into_iter()
                        .map(|p| Ok::<_, Infallible>(Frame::data(Bytes::from(p))));
                    let body = StreamBody::new(stream::iter(pieces));
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
    Server { url, asked }
}

fn provider(url: &str, rest: &str) -> OpenAi {
    let config: SpeechConfig =
        toml::from_str(&format!("[openai]\nurl = \"{url}\"\n{rest}")).unwrap();
    OpenAi::new(config.openai.unwrap()).unwrap()
}

fn say(man: bool, rate: f32) -> Say {
    let speaker = Speaker { language: "hi-IN".to_owned(), man, polly: None };
    Say {
        speaker,
        runs: vec![Run {
            text: "नमस्ते \"<>\"".to_owned(),
            style: Style { rate, ..Style::default() },
        }],
    }
}

async fn spoken(provider: &OpenAi, say: &Say) -> (Vec<i16>, Vec<u32>, Result<(), SpeechError>) {
    let (mut sink, mut pieces) = Sink::new(100);
    let said = provider.synthesise(say, &mut sink).await;
    drop(sink);
    let (mut pcm, mut rates) = (Vec::new(), Vec::new());
    while let Some(piece) = pieces.recv().await {
        pcm.extend(piece.pcm);
        rates.push(piece.rate);
    }
    rates.dedup();
    (pcm, rates, said)
}

fn wav() -> Vec<u8> {
    std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/audio/tone-pcm16.wav"))
        .unwrap()
}

#[tokio::test]
async fn wav_streams_in_and_the_request_is_as_documented() {
    let pieces = wav().chunks(1_001).map(<[u8]>::to_vec).collect();
    let server = server(200, pieces).await;
    let provider = provider(
        &server.url,
        "api_key = \"canary\"\nmodel = \"m\"\nvoices = { \"hi\" = \"asha\", MAN = \"bo\" }",
    );
    let (pcm, rates, said) = spoken(&provider, &say(true, 150.0)).await;
    said.unwrap();
    assert_eq!((pcm.len(), rates), (4_000, vec![8_000]));
    let asked = server.asked.lock().unwrap();
    let (parts, body) = &asked[0];
    assert_eq!(parts.uri.path(), "/v1/audio/speech");
    assert_eq!(parts.headers["authorization"], "Bearer canary");
    let expected = serde_json::json!({
        "model": "m", "input": "नमस्ते \"<>\"", "voice": "asha", "response_format": "wav", "speed": 1.5
    });
    assert_eq!(*body, expected);
}

#[tokio::test]
async fn pcm_is_put_together_over_odd_pieces() {
    let server = server(200, vec![vec![1], vec![0, 2], vec![0, 3, 0, 4], vec![0]]).await;
    let provider = provider(&server.url, "format = \"pcm\"");
    let (pcm, rates, said) = spoken(&provider, &say(false, 100.0)).await;
    said.unwrap();
    assert_eq!((pcm, rates), (vec![1, 2, 3, 4], vec![24_000]));
    let asked = server.asked.lock().unwrap();
    assert_eq!(asked[0].1.get("speed"), None);
    assert!(!asked[0].0.headers.contains_key("authorization"));
}

#[tokio::test]
async fn refusals_and_rubbish_have_names() {
    let refusing = server(401, vec![b"your key canary is wrong".to_vec()]).await;
    let error = spoken(&provider(&refusing.url, ""), &say(false, 100.0)).await.2.unwrap_err();
    assert_eq!(error.to_string(), "get speech from the endpoint: it answered 401 Unauthorized");

    let rubbish = server(200, vec![b"{\"error\": 1}".to_vec()]).await;
    let error = spoken(&provider(&rubbish.url, ""), &say(false, 100.0)).await.2.unwrap_err();
    assert!(matches!(error, SpeechError::Wav(_)), "{error}");

    let (pcm, _, said) = {
        let mut wav = wav();
        wav.truncate(4_000);
        let cut = server(200, vec![wav]).await;
        spoken(&provider(&cut.url, ""), &say(false, 100.0)).await
    };
    assert!(pcm.len() > 1_900 && matches!(said, Err(SpeechError::Wav(_))));

    let nobody = provider("http://127.0.0.1:1", "");
    assert!(matches!(spoken(&nobody, &say(false, 100.0)).await.2, Err(SpeechError::Http(_))));
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let provider =
        provider(&format!("http://{}", listener.local_addr().unwrap()), "timeout_ms = 50");
    let error = spoken(&provider, &say(false, 100.0)).await.2.unwrap_err();
    assert!(matches!(error, SpeechError::Deadline(d) if d == Duration::from_millis(50)), "{error}");
}

#[test]
fn a_key_that_is_no_header_is_named_without_showing_it() {
    let error = super::bearer(&Secret::new("can\nary")).unwrap_err().to_string();
    assert!(!error.contains("can"), "{error}");
}
