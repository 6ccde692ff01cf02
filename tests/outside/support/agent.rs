//! A stand-in for the servers of an agent and of a model: keeps the requests and replies as the
//! test specifies.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

/// A received request.
#[derive(Clone, Debug)]
pub struct Turn {
    pub path: String,
    pub headers: HeaderMap,
    pub bytes: Bytes,
    pub body: Value,
}

/// A response to a turn.
pub enum AgentResponse {
    Json(Value),
    Status(u16),
    /// Server-sent events, each when the test sends it. The response ends when the sender is
    /// dropped.
    Events(mpsc::Receiver<String>),
}

type Responder = Arc<dyn Fn(&Turn) -> AgentResponse + Send + Sync>;

struct Inner {
    answer: Responder,
    turns: Mutex<Vec<Turn>>,
    count: watch::Sender<usize>,
}

/// A running server.
#[derive(Clone)]
pub struct AgentServer {
    inner: Arc<Inner>,
    pub url: String,
}

impl AgentServer {
    pub async fn start(answer: impl Fn(&Turn) -> AgentResponse + Send + Sync + 'static) -> Self {
        let inner = Arc::new(Inner {
            answer: Arc::new(answer),
            turns: Mutex::default(),
            count: watch::Sender::new(0),
        });
        let listener =
            tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port for the agent");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let router = Router::new().fallback(handle).with_state(inner.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { inner, url }
    }

    /// Returns the requests received so far.
    pub fn turns(&self) -> Vec<Turn> {
        self.inner.turns.lock().expect("turns").clone()
    }

    /// Waits until `count` requests have been received.
    pub async fn until_requests(&self, count: usize) -> Vec<Turn> {
        let mut counted = self.inner.count.subscribe();
        let waited = counted.wait_for(|so_far| *so_far >= count);
        let waited = tokio::time::timeout(std::time::Duration::from_secs(20), waited).await;
        assert!(waited.is_ok(), "{} turns, not {count}", self.turns().len());
        self.turns()
    }
}

async fn handle(
    State(inner): State<Arc<Inner>>,
    uri: Uri,
    headers: HeaderMap,
    bytes: Bytes,
) -> Response {
    let body = serde_json::from_slice(&bytes).unwrap_or_default();
    let turn = Turn { path: uri.path().to_owned(), headers, bytes, body };
    inner.turns.lock().expect("turns").push(turn.clone());
    inner.count.send_modify(|count| *count += 1);
    match (inner.answer)(&turn) {
        AgentResponse::Json(value) => axum::Json(value).into_response(),
        AgentResponse::Status(status) => {
            StatusCode::from_u16(status).expect("a status").into_response()
        }
        AgentResponse::Events(events) => {
            let stream = futures_util::stream::unfold(events, |mut events| async move {
                let event = events.recv().await?;
                Some((Ok::<_, std::io::Error>(Bytes::from(format!("data: {event}\n\n"))), events))
            });
            ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(stream.boxed()))
                .into_response()
        }
    }
}

/// Returns a reply in the agent protocol.
pub fn reply(text: &str, action: Value) -> AgentResponse {
    AgentResponse::Json(json!({"reply": [{"type": "text", "text": text}], "action": action}))
}

/// Returns a chunk of a model's response.
pub fn chunk(text: &str) -> String {
    json!({"choices": [{"delta": {"content": text}}]}).to_string()
}

/// Returns a model's complete response.
pub fn chunks(texts: &[&str]) -> AgentResponse {
    let (sender, events) = mpsc::channel(64);
    for text in texts {
        sender.try_send(chunk(text)).expect("a receiver");
    }
    sender.try_send("[DONE]".to_owned()).expect("a receiver");
    AgentResponse::Events(events)
}
