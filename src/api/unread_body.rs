//! Handles the unread rest of a request's body.
//!
//! On HTTP/1, hyper closes a connection without notice if a request was not read completely. A
//! client that keeps connections alive then loses its next request. So a short rest is read and
//! discarded. If it is long or slow, the response has `Connection: close`.
//!
//! On HTTP/2, it resets the stream after the response (RFC 9113 §8.1), which curl reports as an error
//! in place of the response. So the stream stays open until the client ends it, for at most a second.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::limited_body::LimitedBody;

/// Maximum size of a rest that is read, twice the limit of [`body`](super::body). A client that is
/// still sending a refused body then receives the response instead of a broken connection.
const BYTES_MAX: u64 = 512 << 10;
/// Maximum time for a rest to arrive.
const TIME_MAX: Duration = Duration::from_secs(1);

/// A request's body for a handler. When it is dropped, the unread rest goes to [`UnreadBody`].
pub(super) struct LentBody {
    body: Option<LimitedBody>,
    rest: Arc<Mutex<Option<Incoming>>>,
}

/// The part of a request's body that its handler did not read.
pub(super) struct UnreadBody {
    rest: Arc<Mutex<Option<Incoming>>>,
    /// Whether the client waits for `100 Continue` before it sends the body (RFC 9110 §10.1.1).
    expects_continue: bool,
}

/// Lends the body of a request to its handler.
pub(super) fn lend(request: Request<LimitedBody>) -> (Request<LentBody>, UnreadBody) {
    let expects_continue = request.headers().contains_key(header::EXPECT);
    let unread = UnreadBody { rest: Arc::default(), expects_continue };
    (request.map(|body| LentBody { body: Some(body), rest: unread.rest.clone() }), unread)
}

impl UnreadBody {
    /// Reads the rest or announces the end of the connection, before the response is sent over
    /// HTTP/1. Does nothing if the handler still has the body.
    pub(super) async fn discard<B>(self, response: &mut Response<B>) {
        let expects_continue = self.expects_continue;
        let Some(mut body) = self.take() else { return };
        let is_too_long = body.size_hint().lower() > BYTES_MAX;
        let read = tokio::time::timeout(TIME_MAX, read_to_end(&mut body));
        if expects_continue || is_too_long || !read.await.unwrap_or(false) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// Reads the rest while the response is sent over HTTP/2. Does nothing if the handler still has
    /// the body.
    pub(super) fn discard_beside_response(self) {
        let Some(mut body) = self.take() else { return };
        let discarding = async move {
            if !read_to_end(&mut body).await {
                // The window of the stream stops the client, which stops by itself when it has the
                // response.
                std::future::pending().await
            }
        };
        drop(tokio::spawn(tokio::time::timeout(TIME_MAX, discarding)));
    }

    /// The rest. `None` if there is none.
    fn take(self) -> Option<Incoming> {
        let rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner).take();
        rest.filter(|body| !body.is_end_stream())
    }
}

/// Reads a body completely. Returns `false` if it is too long or fails.
async fn read_to_end(body: &mut Incoming) -> bool {
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
}

impl Drop for LentBody {
    fn drop(&mut self) {
        *self.rest.lock().unwrap_or_else(PoisonError::into_inner) =
            self.body.take().map(LimitedBody::into_inner);
    }
}

impl Body for LentBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
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
