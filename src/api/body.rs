//! Request bodies: bounded in bytes, counted while they come, and in time (R10, R14).

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as _;

/// R14, of both APIs.
const BYTES_MAX: usize = 256 << 10;
/// R10.
const TIME_MAX: Duration = Duration::from_secs(15);

/// A body that is not taken: status, word and sentence.
pub(super) type Refused = (StatusCode, &'static str, &'static str);

/// Reads a body whole.
pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Refused> {
    if headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err((
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "compressed",
            "compressed request bodies are not taken",
        ));
    }
    const TOO_LARGE: Refused =
        (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the request body is larger than 256 KiB");
    // Who says so beforehand is told so: nothing of it is read, and no `100 Continue` asks for it (RFC 9110 §10.1.1).
    if body.size_hint().lower() > BYTES_MAX as u64 {
        return Err(TOO_LARGE);
    }
    match tokio::time::timeout(TIME_MAX, Limited::new(body, BYTES_MAX).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => Err(TOO_LARGE),
        Ok(Err(_)) => Err((StatusCode::BAD_REQUEST, "bad_body", "the request body can't be read")),
        Err(_) => {
            Err((StatusCode::REQUEST_TIMEOUT, "slow", "the request body took longer than 15 s"))
        }
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
    use http::{HeaderMap, StatusCode};
    use hyper::body::{Frame, SizeHint};

    use super::{BYTES_MAX, read};

    /// Says how long it is, and never comes.
    struct Claimed(u64);

    impl hyper::body::Body for Claimed {
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
    async fn r14_a_body_that_says_it_is_too_long_is_not_waited_for() {
        let headers = HeaderMap::new();
        let at_once = |length| read(&headers, Body::new(Claimed(length))).now_or_never();
        let refused = at_once(BYTES_MAX as u64 + 1).expect("an answer").unwrap_err();
        assert_eq!(refused.0, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(at_once(BYTES_MAX as u64).is_none(), "it may come");
    }
}
