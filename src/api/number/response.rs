//! Responses of the number API: objects, pages, ETags.

use axum::body::Body;
use axum::response::Response;
use http::{StatusCode, header};
use serde::Serialize;

use super::super::error::json_response;
use super::super::with_header;
use model::Timestamp;

/// A time on the wire: RFC 3339 in UTC with milliseconds.
pub(super) struct Timestamp3339(pub(super) Timestamp);

impl Serialize for Timestamp3339 {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

/// 200 with an object.
pub(super) fn ok<T: Serialize>(object: &T) -> Response {
    json_response(StatusCode::OK, object)
}

/// 201 with an object.
pub(super) fn created<T: Serialize>(object: &T) -> Response {
    json_response(StatusCode::CREATED, object)
}

/// 202 with an object.
pub(super) fn accepted<T: Serialize>(object: &T) -> Response {
    json_response(StatusCode::ACCEPTED, object)
}

/// 204.
pub(super) fn no_content() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// 200 with an object that people edit, and its ETag.
pub(super) fn ok_with_etag<T: Serialize>(object: &T) -> Response {
    with_etag(ok(object), &etag(object))
}

/// Adds an `ETag`.
pub(super) fn with_etag(response: Response, tag: &str) -> Response {
    with_header(response, header::ETAG, tag)
}

/// The ETag of an object: a digest of its JSON.
pub(super) fn etag<T: Serialize>(object: &T) -> String {
    let text = serde_json::to_vec(object).unwrap_or_default();
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &text);
    format!("\"{}\"", hex::encode(sum.as_ref().get(..12).unwrap_or_default()))
}

/// A page of a list.
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    /// The position of the last item, if more items follow.
    pub(super) next: Option<String>,
}

impl<T> Page<T> {
    /// Makes a page of at most `limit` items. The caller passes one extra item, if it exists, to
    /// show that another page follows.
    pub(super) fn new(mut items: Vec<T>, limit: u32, position: impl FnOnce(&T) -> String) -> Self {
        let limit = limit as usize;
        let has_more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| has_more).map(position);
        Self { items, next }
    }
}
