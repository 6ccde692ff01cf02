//! Errors of the number API and of the public listener, and the response for each.
//!
//! The body is `{"error": {"code", "message", "field", "requestId", "meta"}}`, see
//! `docs/reference/rest.md#errors`. Errors of the Plivo-compatible API have another format
//! ([`PlivoError`](super::plivo::error::PlivoError)).

use std::borrow::Cow;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::body::BodyError;
use super::operator::ConfigFinding;
use super::with_header;
use model::Timestamp;
use store::StoreError;

type Text = Cow<'static, str>;

/// Why a request of the number API failed.
#[derive(Debug)]
pub(super) enum ApiError {
    /// 400. `field` is the path of the wrong field.
    BadRequest { code: &'static str, message: Text, field: Option<Text> },
    /// 400 `bad_configuration`: the configuration file that a reload read has errors.
    InvalidConfiguration(Vec<ConfigFinding>),
    /// 401.
    Unauthorized,
    /// 403.
    Forbidden { code: &'static str, message: &'static str },
    /// 404: the resource does not exist, or belongs to another account.
    NotFound(&'static str),
    /// 405, with the value of `Allow`.
    MethodNotAllowed { code: &'static str, allow: Text, message: &'static str },
    /// 408.
    RequestTimeout(&'static str),
    /// 409: the state of the resource does not allow the request. `retry_after`, in seconds, is set
    /// if it may soon be allowed.
    Conflict { code: &'static str, message: Text, retry_after: Option<u64> },
    /// 412: the resource has another version than the one in `If-Match`.
    Changed,
    /// 413.
    PayloadTooLarge(Text),
    /// 415.
    UnsupportedMediaType { code: &'static str, message: &'static str, field: Option<&'static str> },
    /// 422.
    RuleViolation(Box<RuleViolation>),
    /// 429. `retry_after` is in seconds.
    TooManyRequests {
        code: &'static str,
        message: Text,
        field: Option<&'static str>,
        retry_after: Option<u64>,
    },
    /// 500. Only the log contains the cause.
    Internal,
    /// 502: Meta or another server behind this one refused or failed.
    BadGateway { code: &'static str, message: Text, meta: Option<MetaError> },
    /// 503, with `Retry-After`.
    Unavailable { code: &'static str, message: &'static str },
}

/// A violated rule of WhatsApp or Meta.
#[derive(Debug, Default)]
pub(super) struct RuleViolation {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) field: Option<&'static str>,
    pub(super) meta: Option<MetaError>,
    pub(super) next: Option<NextAttempt>,
}

/// When a forbidden request is allowed again. The inner value is `None` if that is unknown, or
/// never.
#[derive(Clone, Copy, Debug)]
pub(super) enum NextAttempt {
    PermissionRequest(Option<Timestamp>),
    Call(Option<Timestamp>),
}

/// Meta's own code and text, if Meta refused the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ErrorOfMeta)]
pub(super) struct MetaError {
    pub(super) code: i64,
    pub(super) message: String,
}

/// Why a request of an account is refused that has too many others in progress.
pub const TOO_MANY_IN_PROGRESS: &str =
    "this account has too many requests in progress; try again when some have ended";

/// Value of `Retry-After` while the store is unavailable, in seconds.
const STORE_RETRY_AFTER: &str = "5";

/// The code and the message for a change that the store did not take.
pub(super) const NOT_STORED: (&str, &str) =
    ("not_stored", "nothing can be stored now, and nothing has changed: try again in a moment");

/// The code and the message for a change that there is no disk space for.
pub(super) const NO_SPACE: (&str, &str) =
    ("not_stored", "there is no disk space for this now: the operator has to make room");

/// The message for a change that conflicts with changes of other nodes.
pub(super) const CONTENDED: &str =
    "the settings were being changed elsewhere, and nothing has changed here: try again";

/// Returns the code and the message for an unavailable store. `None` if it is another error.
pub(super) fn store_outage(error: &StoreError) -> Option<(&'static str, &'static str)> {
    match error {
        StoreError::NotTaken => Some(NOT_STORED),
        error if error.is_away() => {
            Some(("store_away", "the store can't be reached now: try again in a moment"))
        }
        _ => None,
    }
}

/// Adds the `Retry-After` of a 503.
pub(super) fn with_retry_after(response: Response) -> Response {
    with_header(response, header::RETRY_AFTER, STORE_RETRY_AFTER)
}

impl ApiError {
    /// Creates the error for a value that is missing, malformed or out of range.
    pub(super) fn bad_value(field: impl Into<Text>, message: impl Into<Text>) -> Self {
        Self::BadRequest { code: "bad_value", message: message.into(), field: Some(field.into()) }
    }

    /// Creates the error for a body that is wrong as a whole.
    pub(super) fn bad_body(message: impl Into<Text>) -> Self {
        Self::BadRequest { code: "bad_value", message: message.into(), field: None }
    }

    pub(super) fn forbidden(message: &'static str) -> Self {
        Self::Forbidden { code: "forbidden", message }
    }

    pub(super) fn conflict(code: &'static str, message: impl Into<Text>) -> Self {
        Self::Conflict { code, message: message.into(), retry_after: None }
    }

    pub(super) fn rule(
        code: &'static str,
        message: impl Into<String>,
        field: Option<&'static str>,
    ) -> Self {
        let message = message.into();
        Self::RuleViolation(Box::new(RuleViolation {
            code,
            message,
            field,
            ..RuleViolation::default()
        }))
    }

    /// Logs a failure of the store and creates the error: 503 while the store is unavailable,
    /// otherwise 500. The name of the operation continues "could not …".
    pub(super) fn store(operation: &'static str) -> impl Fn(StoreError) -> Self {
        move |error| {
            tracing::warn!(%error, operation, "store operation failed");
            Self::from_store(&error)
        }
    }

    /// Creates the error for a failure of the store: 409 if other nodes kept changing the same
    /// settings, 503 while the store is unavailable, otherwise 500.
    pub(super) fn from_store(error: &StoreError) -> Self {
        if matches!(error, StoreError::Contended) {
            return Self::conflict("contended", CONTENDED);
        }
        match store_outage(error) {
            Some((code, message)) => Self::Unavailable { code, message },
            None => Self::Internal,
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest { .. } | Self::InvalidConfiguration(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden { .. } => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict { .. } => StatusCode::CONFLICT,
            Self::Changed => StatusCode::PRECONDITION_FAILED,
            Self::PayloadTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::RuleViolation(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyRequests { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::BadGateway { .. } => StatusCode::BAD_GATEWAY,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn detail(&self) -> ErrorDetail<'_> {
        let plain = ErrorDetail::new;
        match self {
            Self::BadRequest { code, message, field } => {
                ErrorDetail { field: field.as_deref(), ..plain(code, message) }
            }
            Self::InvalidConfiguration(findings) => {
                let message = "the configuration has errors: nothing has changed";
                ErrorDetail { findings: Some(findings), ..plain("bad_configuration", message) }
            }
            Self::Unauthorized => plain("unauthorized", "missing or invalid API key"),
            Self::Forbidden { code, message } | Self::Unavailable { code, message } => {
                plain(code, message)
            }
            Self::NotFound(message) => plain("not_found", message),
            Self::MethodNotAllowed { code, message, .. } => plain(code, message),
            Self::RequestTimeout(message) => plain("slow", message),
            Self::Conflict { code, message, .. } => plain(code, message),
            Self::Changed => {
                let message = "the resource was changed since it was read: read it again, and send \
                    its new ETag as If-Match";
                plain("changed", message)
            }
            Self::PayloadTooLarge(message) => plain("too_large", message),
            Self::UnsupportedMediaType { code, message, field } => {
                ErrorDetail { field: *field, ..plain(code, message) }
            }
            Self::RuleViolation(violation) => {
                let RuleViolation { code, message, field, meta, next } = &**violation;
                let time = |at: Option<Timestamp>| at.map(Timestamp::rfc3339);
                let (next_request_at, next_call_at) = match *next {
                    None => (None, None),
                    Some(NextAttempt::PermissionRequest(at)) => (Some(time(at)), None),
                    Some(NextAttempt::Call(at)) => (None, Some(time(at))),
                };
                let (field, meta) = (*field, meta.as_ref());
                ErrorDetail { field, meta, next_request_at, next_call_at, ..plain(code, message) }
            }
            Self::TooManyRequests { code, message, field, .. } => {
                ErrorDetail { field: *field, ..plain(code, message) }
            }
            Self::Internal => plain("internal", "internal error"),
            Self::BadGateway { code, message, meta } => {
                ErrorDetail { meta: meta.as_ref(), ..plain(code, message) }
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, error) = (self.status(), self.detail());
        tracing::debug!(
            request_id = %error.request_id,
            status = status.as_u16(),
            code = error.code,
            "API request failed"
        );
        let response = json_response(status, &ErrorBody { error });
        match self {
            Self::MethodNotAllowed { allow, .. } => with_header(response, header::ALLOW, &allow),
            Self::TooManyRequests { retry_after: Some(seconds), .. }
            | Self::Conflict { retry_after: Some(seconds), .. } => {
                with_header(response, header::RETRY_AFTER, &seconds.to_string())
            }
            Self::Unavailable { .. } => with_retry_after(response),
            _ => response,
        }
    }
}

impl ApiError {
    /// Whether the request's body did not arrive completely.
    pub(super) fn is_of_incomplete_body(&self) -> bool {
        matches!(self, Self::BadRequest { code: "bad_body", .. })
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        let message = error.message();
        match error {
            BodyError::Compressed => {
                Self::UnsupportedMediaType { code: "compressed", message, field: None }
            }
            BodyError::TooLarge => Self::PayloadTooLarge(message.into()),
            BodyError::Unreadable => {
                Self::BadRequest { code: "bad_body", message: message.into(), field: None }
            }
        }
    }
}

/// Creates a response in the format of the REST APIs' errors, for the listener, which refuses
/// requests before they reach an API.
pub fn listener_error(status: StatusCode, code: &str, message: &str) -> Response {
    let error = ErrorDetail::new(code, message);
    json_response(status, &ErrorBody { error })
}

/// A JSON response that must not be cached.
pub(super) fn json_response<T: Serialize>(status: StatusCode, object: &T) -> Response {
    // The types of the APIs always serialize; a 500 is better than a panic should one not.
    let Ok(text) = serde_json::to_vec(object) else {
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
pub(super) struct ErrorBody<'a> {
    error: ErrorDetail<'a>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ErrorDetail)]
struct ErrorDetail<'a> {
    /// A word for programs.
    code: &'a str,
    message: &'a str,
    /// The path of the wrong field.
    field: Option<&'a str>,
    #[schema(value_type = String, format = Uuid)]
    request_id: Uuid,
    /// Meta's own code and text, if Meta refused the request.
    meta: Option<&'a MetaError>,
    /// When the next permission request is allowed. Present only in errors about such requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    next_request_at: Option<Option<String>>,
    /// When a call is allowed again. Present only in errors about calls; null if no time is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    next_call_at: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    findings: Option<&'a [ConfigFinding]>,
}

impl<'a> ErrorDetail<'a> {
    fn new(code: &'a str, message: &'a str) -> Self {
        Self {
            code,
            message,
            field: None,
            request_id: Uuid::new_v4(),
            meta: None,
            next_request_at: None,
            next_call_at: None,
            findings: None,
        }
    }
}
