//! What our answers look like when the answer is no: status, body, and nothing that only we should know.
//!
//! Two shapes: Plivo's (`plivo-call-api.md` §1.9) under `/v1`, ours (`number-api.md` §1) everywhere else.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use model::Timestamp;
use store::StoreError;

/// An answer in our own shape: `{"error":{"code","message","field","requestId","meta"}}`.
pub fn json(status: StatusCode, code: &str, message: &str, field: Option<&str>) -> Response {
    let request_id = Uuid::new_v4();
    tracing::debug!(%request_id, status = status.as_u16(), code, "an API request was answered with an error");
    let error = OurError {
        code,
        message,
        field,
        request_id,
        meta: None,
        next_request_at: None,
        next_call_at: None,
    };
    body(status, &OurBody { error })
}

/// What Meta said, where it was Meta who refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ErrorOfMeta)]
pub(super) struct MetaWord {
    pub(super) code: i64,
    pub(super) message: String,
}

/// An error with more to it than its word and sentence.
pub(super) struct Trouble {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: String,
    /// The field that it is about.
    pub(super) field: Option<&'static str>,
    pub(super) meta: Option<MetaWord>,
    /// When the next permission request is allowed; the inner none: it is not known, or never.
    pub(super) next_request: Option<Option<Timestamp>>,
    /// When a call is allowed again, likewise.
    pub(super) next_call: Option<Option<Timestamp>>,
}

/// [`json`] with all of it.
pub(super) fn trouble(trouble: &Trouble) -> Response {
    let request_id = Uuid::new_v4();
    let Trouble { status, code, message, field, meta, next_request, next_call } = trouble;
    tracing::debug!(%request_id, status = status.as_u16(), code, "an API request was answered with an error");
    let time = |at: Option<Timestamp>| at.map(Timestamp::rfc3339);
    let (next_request_at, next_call_at) = (next_request.map(time), next_call.map(time));
    let error = OurError {
        code,
        message,
        field: *field,
        request_id,
        meta: meta.as_ref(),
        next_request_at,
        next_call_at,
    };
    body(*status, &OurBody { error })
}

/// Seconds after which whoever finds the store away may ask again.
const AGAIN: &str = "5";

/// What is said where the store took nothing of what was set, as a word and a sentence.
pub(super) const NOT_STORED: (&str, &str) =
    ("not_stored", "nothing can be stored now, and nothing has changed: try again in a moment");

/// What is said while the store is away, as a word and a sentence; `None`: the fault is another, and ours.
pub(super) fn away(error: &StoreError) -> Option<(&'static str, &'static str)> {
    match error {
        StoreError::NotTaken => Some(NOT_STORED),
        error if error.is_away() => {
            Some(("store_away", "the store can't be reached now: try again in a moment"))
        }
        _ => None,
    }
}

/// Says of a 503 when to come again.
pub(super) fn in_a_moment(answer: Response) -> Response {
    super::with_header(answer, header::RETRY_AFTER, AGAIN)
}

/// The store's failure in our own shape, whatever was asked: 503 while it is away, and 500 for a fault of ours.
pub(super) fn store(error: &StoreError) -> Response {
    match away(error) {
        Some((code, message)) => {
            in_a_moment(json(StatusCode::SERVICE_UNAVAILABLE, code, message, None))
        }
        None => super::number::internal(),
    }
}

/// An answer in Plivo's shape: `{"api_id","error"}`.
pub fn plivo(status: StatusCode, error: &str) -> Response {
    plivo_body(status, &PlivoError { error })
}

/// A body in Plivo's shape: the object's fields beside `api_id`, which is also in the header (1.5).
pub(super) fn plivo_body<T: Serialize>(status: StatusCode, object: &T) -> Response {
    #[derive(Serialize)]
    struct WithId<'a, T> {
        api_id: Uuid,
        #[serde(flatten)]
        object: &'a T,
    }
    let api_id = Uuid::new_v4();
    let mut response = body(status, &WithId { api_id, object });
    if let Ok(id) = HeaderValue::from_str(&api_id.to_string()) {
        response.headers_mut().insert("x-api-id", id);
    }
    response
}

/// 204 in Plivo's shape: no body, but an id (1.5).
pub(super) fn plivo_no_content() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Ok(id) = HeaderValue::from_str(&Uuid::new_v4().to_string()) {
        response.headers_mut().insert("x-api-id", id);
    }
    response
}

/// A JSON answer that is not cached.
pub(super) fn body<T: Serialize>(status: StatusCode, object: &T) -> Response {
    let Ok(text) = serde_json::to_vec(object) else {
        // Our own types serialise; should one not, there is an answer all the same.
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// An error of the number API.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct OurBody<'a> {
    error: OurError<'a>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ErrorDetail)]
struct OurError<'a> {
    /// A word for programs.
    code: &'a str,
    message: &'a str,
    /// The path of the field that is wrong.
    field: Option<&'a str>,
    #[schema(value_type = String, format = Uuid)]
    request_id: Uuid,
    /// Meta's own code and text, where it was Meta who refused.
    meta: Option<&'a MetaWord>,
    /// When the next permission request is allowed, where that is what the error is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    next_request_at: Option<Option<String>>,
    /// When a call is allowed again, likewise; null: a time can't tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    next_call_at: Option<Option<String>>,
}

/// An error of the Plivo-compatible API: one plain sentence.
#[derive(Serialize, ToSchema)]
pub(super) struct PlivoError<'a> {
    error: &'a str,
}
