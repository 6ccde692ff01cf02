//! Errors of the Plivo-compatible API, and the response for each: `{"api_id": "…", "error":
//! "ring_timeout must be an integer between 1 and 600"}`.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::auth::AuthError;
use super::super::body::BodyError;
use super::super::error::{CONTENDED, NOT_STORED, store_outage, with_retry_after};
use super::super::live::CommandError;
use super::super::with_header;
use super::response::object;
use engine::admission::book::ChangeError;
use engine::admission::{Denied, Reason};
use engine::call::queues::NotPlaced;
use model::E164;
use store::StoreError;

/// The error for features of Plivo that this server lacks.
pub(super) const NOT_AVAILABLE: PlivoError = PlivoError::NotFound("not available on this server");
pub(super) const CALL_NOT_FOUND: PlivoError = PlivoError::NotFound("call not found");
const SHUTTING_DOWN: PlivoError =
    PlivoError::Unavailable("this server is shutting down: try again in a moment");

/// Why a request of the Plivo-compatible API failed. The text is the `error` of the response.
#[derive(Debug)]
pub(in crate::api) enum PlivoError {
    /// 400: the first wrong field, described in a sentence.
    BadRequest(String),
    /// The body could not be read.
    Body(BodyError),
    /// 401. The response is the same for missing, wrong and unknown credentials.
    Unauthorized,
    /// 403: businesses with a number of this country can't call.
    BarredCountry(String),
    /// 404.
    NotFound(&'static str),
    /// 405, with the value of `Allow`.
    MethodNotAllowed(String),
    /// 409.
    Conflict(String),
    /// 409 with `Retry-After`: a call with the user is in progress.
    UserBusy(String),
    /// 422: a rule of WhatsApp, or the state of the number, forbids it.
    NotAllowed(String),
    /// 429. `retry_after` is in seconds.
    TooManyRequests { message: Cow<'static, str>, retry_after: u64 },
    /// 500. Only the log contains the cause.
    Internal,
    /// 503, with `Retry-After`.
    Unavailable(&'static str),
}

impl PlivoError {
    pub(super) fn too_many_requests(message: &'static str, retry_after: u64) -> Self {
        Self::TooManyRequests { message: message.into(), retry_after }
    }

    /// Logs a change that the store did not accept and creates the error: 503, because nothing
    /// changed.
    pub(super) fn not_stored(error: StoreError) -> Self {
        tracing::warn!(%error, "change could not be stored");
        if matches!(error, StoreError::Contended) {
            return Self::Conflict(CONTENDED.to_owned());
        }
        Self::Unavailable(store_outage(&error).unwrap_or(NOT_STORED).1)
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Body(error) => error.status(),
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::BarredCountry(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict(_) | Self::UserBusy(_) => StatusCode::CONFLICT,
            Self::NotAllowed(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyRequests { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn message(&self) -> &str {
        match self {
            Self::BadRequest(message)
            | Self::BarredCountry(message)
            | Self::Conflict(message)
            | Self::UserBusy(message)
            | Self::NotAllowed(message) => message,
            Self::Body(error) => error.message(),
            Self::Unauthorized => "authentication failed",
            Self::NotFound(message) | Self::Unavailable(message) => message,
            Self::MethodNotAllowed(_) => "method not allowed",
            Self::TooManyRequests { message, .. } => message,
            Self::Internal => "internal error",
        }
    }
}

impl IntoResponse for PlivoError {
    fn into_response(self) -> Response {
        let response = object(self.status(), &PlivoErrorBody { error: self.message() });
        match self {
            Self::Unauthorized => {
                with_header(response, header::WWW_AUTHENTICATE, "Basic realm=\"Offhook\"")
            }
            Self::MethodNotAllowed(allow) => with_header(response, header::ALLOW, &allow),
            Self::TooManyRequests { retry_after, .. } => {
                with_header(response, header::RETRY_AFTER, &retry_after.to_string())
            }
            Self::UserBusy(_) => with_header(response, header::RETRY_AFTER, "1"),
            Self::Unavailable(_) => with_retry_after(response),
            _ => response,
        }
    }
}

/// An error of the Plivo-compatible API.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoError)]
pub(in crate::api) struct PlivoErrorBody<'a> {
    error: &'a str,
}

impl From<AuthError> for PlivoError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::InvalidCredentials => Self::Unauthorized,
            AuthError::RateLimited { message, retry_after } => {
                Self::too_many_requests(message, retry_after)
            }
        }
    }
}

impl From<BodyError> for PlivoError {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

impl From<StoreError> for PlivoError {
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, "store operation failed");
        store_outage(&error).map_or(Self::Internal, |(_, message)| Self::Unavailable(message))
    }
}

impl From<ChangeError<PlivoError>> for PlivoError {
    fn from(error: ChangeError<Self>) -> Self {
        match error {
            ChangeError::Refused(error) => error,
            ChangeError::Store(error) => Self::not_stored(error),
        }
    }
}

impl From<CommandError> for PlivoError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::MailboxFull => {
                Self::too_many_requests("too many commands for this call at once", 1)
            }
            CommandError::NotLive => CALL_NOT_FOUND,
        }
    }
}

impl From<NotPlaced> for PlivoError {
    fn from(error: NotPlaced) -> Self {
        match error {
            NotPlaced::Denied { to, denied } => denied_call(&to, &denied),
            NotPlaced::QueueFull { after } => Self::too_many_requests(
                "too many calls of the account are queued for its calls per second",
                after.as_secs().saturating_add(1),
            ),
            NotPlaced::TooManyRequests { after } => Self::too_many_requests(
                "the account has requested more calls than its calls per second allow, and cancelled them",
                after.as_secs().saturating_add(1),
            ),
            NotPlaced::Draining => SHUTTING_DOWN,
            NotPlaced::StoreBroken => {
                Self::Unavailable("calls can be neither stored nor journalled: try again later")
            }
        }
    }
}

fn denied_call(to: &E164, denied: &Denied) -> PlivoError {
    match denied.reason {
        Reason::GeoBlocked => {
            PlivoError::BarredCountry(format!("from parameter is invalid. {denied}"))
        }
        Reason::UserBusy => {
            PlivoError::UserBusy(format!("a call between this number and {to} is in progress"))
        }
        Reason::NumberFull => PlivoError::too_many_requests(denied.reason.sentence(), 1),
        Reason::Draining => SHUTTING_DOWN,
        _ => PlivoError::NotAllowed(format!("{to} can't be called: {denied}")),
    }
}
