//! Reads request bodies up to a maximum size. The listener limits their time, and the total size of
//! all bodies (`limited_body`).

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as _;

/// Maximum size of a body that the APIs accept, in bytes (`docs/reference/reliability.md#r14`).
const BYTES_MAX: usize = 256 << 10;

/// Why a request's body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    Compressed,
    TooLarge,
    Unreadable,
}

impl BodyError {
    /// Returns the status of the response to such a request.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Compressed => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unreadable => StatusCode::BAD_REQUEST,
        }
    }

    /// The reason as a sentence for the client.
    pub fn message(self) -> &'static str {
        match self {
            Self::Compressed => "compressed request bodies are not supported",
            Self::TooLarge => "the request body is larger than 256 KiB",
            Self::Unreadable => "the request body can't be read",
        }
    }
}

/// Reads a whole body.
///
/// # Errors
/// Fails if the body is compressed, too large or can't be read.
pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, BodyError> {
    if headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(BodyError::Compressed);
    }
    // A body that is announced as too large is not read, and no `100 Continue` asks for it
    // (RFC 9110 §10.1.1).
    if body.size_hint().lower() > BYTES_MAX as u64 {
        return Err(BodyError::TooLarge);
    }
    match Limited::new(body, BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(e) if e.is::<LengthLimitError>() => Err(BodyError::TooLarge),
        Err(_) => Err(BodyError::Unreadable),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use axum::body::Body;
    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use http::HeaderMap;
    use hyper::body::{Frame, SizeHint};

    use super::{BYTES_MAX, BodyError, read};

    /// A body that announces its length and never arrives.
    struct Announced(u64);

    impl hyper::body::Body for Announced {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.0)
        }
    }

    #[tokio::test]
    async fn r14_refuses_an_announced_body_that_is_too_large_without_waiting() {
        let headers = HeaderMap::new();
        let at_once = |length| read(&headers, Body::new(Announced(length))).now_or_never();
        let refused = at_once(BYTES_MAX as u64 + 1).expect("a result").unwrap_err();
        assert_eq!(refused, BodyError::TooLarge);
        assert!(at_once(BYTES_MAX as u64).is_none(), "waits for a body that fits");
    }
}
