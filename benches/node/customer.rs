//! The customer's application: serves one document for all calls, counts hangup callbacks and
//! records message numbers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use model::Clock;
use tokio::sync::{mpsc, watch};

/// Speaks until the caller hangs up and makes no further request.
const DOCUMENT: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
    <Response><Speak loop=\"0\">This call is one of many. It goes on until the caller hangs up.</Speak></Response>\n";

/// Maximum number of reported messages of a round that have not been counted yet.
const MESSAGES_MAX: usize = 1 << 20;

/// A running application.
pub(crate) struct Customer {
    pub(crate) at: SocketAddr,
    /// Number of hangup callbacks received.
    hangups: watch::Receiver<u64>,
    /// Reported messages: the number in the text (`message-17-…`) and the arrival time.
    pub(crate) messages: mpsc::Receiver<(u64, Instant)>,
}

/// State shared by all connections.
struct SharedState {
    hangups: watch::Sender<u64>,
    messages: mpsc::Sender<(u64, Instant)>,
    clock: Clock,
    /// Number of calls sent to rooms.
    came: AtomicU64,
}

impl Customer {
    pub(crate) async fn start() -> std::io::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let at = listener.local_addr()?;
        let (count, hangups) = watch::channel(0);
        let (sender, messages) = mpsc::channel(MESSAGES_MAX);
        let seen = Arc::new(SharedState {
            hangups: count,
            messages: sender,
            clock: Clock::real(),
            came: AtomicU64::new(0),
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let seen = seen.clone();
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(|request| answer(request, &seen));
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(Self { at, hangups, messages })
    }

    pub(crate) fn hangups(&self) -> u64 {
        *self.hangups.borrow()
    }

    /// Waits until the total of hangup callbacks reaches `count`.
    pub(crate) async fn until_hangups(&mut self, count: u64) {
        let _ = self.hangups.wait_for(|came| *came >= count).await;
    }
}

async fn answer(
    request: Request<Incoming>,
    seen: &SharedState,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    match head.uri.path() {
        // Three consecutive calls share a room.
        "/conference" => {
            let room = seen.came.fetch_add(1, Ordering::Relaxed) / 3;
            Ok(xml(format!("<Response><Conference>room-{room}</Conference></Response>")))
        }
        // Streams to the server named in the URL. `encode` is bidirectional, `stream` only listens.
        "/stream" | "/encode" => {
            let to = head.uri.query().unwrap_or_default();
            let both = head.uri.path() == "/encode";
            Ok(xml(format!(
                "<Response><Stream keepCallAlive=\"true\" bidirectional=\"{both}\" contentType=\"audio/x-l16;rate=16000\">\
                 ws://{to}/</Stream></Response>"
            )))
        }
        "/hangup" => {
            seen.hangups.send_modify(|count| *count += 1);
            Ok(Response::new(Full::default()))
        }
        "/messages" => {
            let text = String::from_utf8_lossy(&body);
            let number =
                text.split("message-").nth(1).and_then(|rest| rest.split('-').next()?.parse().ok());
            if let Some(number) = number {
                let _ = seen.messages.try_send((number, seen.clock.now()));
            }
            Ok(Response::new(Full::default()))
        }
        _ => Ok(xml(DOCUMENT.to_owned())),
    }
}

fn xml(document: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(document));
    let kind = http::HeaderValue::from_static("application/xml; charset=utf-8");
    response.headers_mut().insert("content-type", kind);
    response
}
