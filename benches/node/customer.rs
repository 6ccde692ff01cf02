//! The customer's application: one document for every call, and a count of hangup callbacks.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;

/// Speaks until the caller hangs up, and asks for nothing.
const DOCUMENT: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
    <Response><Speak loop=\"0\">This call is one of many. It goes on until the caller hangs up.</Speak></Response>\n";

/// A running application.
pub(crate) struct Customer {
    pub(crate) at: SocketAddr,
    /// Hangup callbacks so far.
    hangups: watch::Receiver<u64>,
}

impl Customer {
    pub(crate) async fn start() -> std::io::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let at = listener.local_addr()?;
        let (count, hangups) = watch::channel(0);
        let count = Arc::new(count);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let count = count.clone();
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(|request| answer(request, &count));
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(Self { at, hangups })
    }

    pub(crate) fn hangups(&self) -> u64 {
        *self.hangups.borrow()
    }

    /// Waits until so many hangup callbacks have come in all.
    pub(crate) async fn until_hangups(&mut self, count: u64) {
        let _ = self.hangups.wait_for(|came| *came >= count).await;
    }
}

async fn answer(request: Request<Incoming>, hangups: &watch::Sender<u64>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let _ = body.collect().await;
    if head.uri.path() == "/hangup" {
        hangups.send_modify(|count| *count += 1);
        return Ok(Response::new(Full::default()));
    }
    let mut response = Response::new(Full::from(DOCUMENT));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/xml; charset=utf-8"));
    Ok(response)
}
