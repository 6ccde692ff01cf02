//! What is left of a request's body when its answer is ready, on HTTP/1.
//!
//! hyper ends a connection whose request it has not read to the end, and says so nowhere: a client that keeps connections then
//! loses its next request. So a rest that is short is read and thrown away; where it is not, or is slow to come, the answer says
//! `Connection: close`.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// A longer rest is not worth its while. Twice what a handler takes (`body`): somebody who is in the middle of a body that is
/// refused unread hears so, and not of a broken connection.
const BYTES_MAX: u64 = 512 << 10;
/// Nor is one that takes longer; it is on its way, if it comes at all.
const WAIT: Duration = Duration::from_secs(1);

/// A request's body, as its handler has it; what the handler leaves of it comes back when it is dropped.
pub(super) struct Lent {
    body: Option<Incoming>,
    back: Arc<Mutex<Option<Incoming>>>,
}

/// Where it comes back.
pub(super) struct Leftover {
    back: Arc<Mutex<Option<Incoming>>>,
    /// The client waits to be told that its body is wanted (RFC 9110 §10.1.1).
    waits: bool,
}

/// Lends a request's body to its handler.
pub(super) fn lend(request: Request<Incoming>) -> (Request<Lent>, Leftover) {
    let leftover =
        Leftover { back: Arc::default(), waits: request.headers().contains_key(header::EXPECT) };
    (request.map(|body| Lent { body: Some(body), back: leftover.back.clone() }), leftover)
}

impl Leftover {
    /// Before the answer goes out. What the handler still reads is its own business.
    pub(super) async fn clear<B>(self, answer: &mut Response<B>) {
        let left = self.back.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(body) = left.filter(|body| !body.is_end_stream()) else { return };
        if self.waits || body.size_hint().lower() > BYTES_MAX || !is_read(body).await {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// Reads it to its end, if that is near.
async fn is_read(mut body: Incoming) -> bool {
    let reading = async {
        let mut read = 0_u64;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            read = read.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
            if read > BYTES_MAX {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(WAIT, reading).await.unwrap_or(false)
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.back.lock().unwrap_or_else(PoisonError::into_inner) = self.body.take();
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }
    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }
    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}
