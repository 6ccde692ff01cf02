//! Request bodies: bounded in bytes, counted while they come, and in time (R10, R14).

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

/// R14, of both APIs.
const BYTES_MAX: usize = 256 << 10;
/// R10.
const TIME_MAX: Duration = Duration::from_secs(15);

/// A body that is not taken: status, word and sentence.
pub(super) type Refused = (StatusCode, &'static str, &'static str);

/// Reads a body whole.
pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Refused> {
    if headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "compressed", "compressed request bodies are not taken"));
    }
    match tokio::time::timeout(TIME_MAX, Limited::new(body, BYTES_MAX).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => {
            Err((StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the request body is larger than 256 KiB"))
        }
        Ok(Err(_)) => Err((StatusCode::BAD_REQUEST, "bad_body", "the request body can't be read")),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "slow", "the request body took longer than 15 s")),
    }
}
