//! Converts failures of the node to errors of the number API.

use super::super::auth::AuthError;
use super::super::error::{ApiError, MetaError, NO_SPACE, NextAttempt, RuleViolation};
use engine::admission::permission::{Refusal, RefusalReason};
use engine::admission::{Denied, Reason, RefusalDetail};
use engine::call::consent;
use engine::call::queues::NotPlaced;
use engine::inbox::{self, RoutingError};
use engine::meta::code;
use engine::numbers;
use engine::people::PeopleError;
use machine::GraphOutcome;

pub(super) const NO_CONVERSATION: &str = "no such conversation";
/// The code and the message if a conversation's business number is no longer connected.
const NO_NUMBER: (&str, &str) = (
    "no_number",
    "the conversation's phone number is no longer connected to this node, or belongs to another account now",
);
/// The message for a `from` that does not belong to the account.
pub(super) const NOT_OWN_NUMBER: &str = "from is not a phone number of this account";
/// The response to a change that there is no disk space for.
pub(super) const NO_DISK_SPACE: ApiError =
    ApiError::Unavailable { code: NO_SPACE.0, message: NO_SPACE.1 };
const UNAVAILABLE: ApiError = ApiError::Unavailable {
    code: "draining",
    message: "the node is shutting down: try again in a moment",
};

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::InvalidCredentials => Self::Unauthorized,
            AuthError::RateLimited { message, retry_after } => Self::TooManyRequests {
                code: "too_many_requests",
                message: message.into(),
                field: None,
                retry_after: Some(retry_after),
            },
        }
    }
}

impl From<RoutingError> for ApiError {
    fn from(error: RoutingError) -> Self {
        match error {
            RoutingError::NoWebhook => Self::bad_value("webhook", "no such webhook"),
            RoutingError::WhichWebhook => Self::bad_value(
                "webhook",
                "webhook is required: the number's account has no webhook or several; webhooks are created \
                 in the console",
            ),
            RoutingError::InvalidState(why) => Self::conflict("wrong_state", why),
            RoutingError::TooMany => {
                Self::conflict("too_many", "the account has the maximum number of webhooks")
            }
            RoutingError::NameTaken => {
                Self::conflict("name_taken", "the account has a webhook of this name")
            }
            RoutingError::InFile => Self::conflict(
                "in_file",
                "the webhook is defined in the configuration file: change it there",
            ),
            RoutingError::InUse => Self::conflict(
                "in_use",
                "numbers or conversations use this webhook: subscribe them to another one first, \
                 with applyToExisting",
            ),
            RoutingError::NoAgent => Self::bad_value("agent", "no such agent"),
            RoutingError::AgentInUse(numbers) => Self::conflict(
                "in_use",
                format!(
                    "the agent answers {numbers}: connect another agent there, or add ?force=true"
                ),
            ),
            RoutingError::Store(error) => Self::store("change the routing")(error),
        }
    }
}

impl From<numbers::NumberError> for ApiError {
    fn from(error: numbers::NumberError) -> Self {
        match error {
            numbers::NumberError::Missing(what) => Self::NotFound(what),
            numbers::NumberError::Bad { field, message } => Self::bad_value(field, message),
            numbers::NumberError::State { code, message } => Self::conflict(code, message),
            numbers::NumberError::Rule { code, message, field, meta } => {
                let meta = meta.map(|(code, message)| MetaError { code, message });
                Self::RuleViolation(Box::new(RuleViolation {
                    code,
                    message,
                    field,
                    meta,
                    next: None,
                }))
            }
            numbers::NumberError::Wait { seconds, message } => Self::TooManyRequests {
                code: "too_soon",
                message: message.into(),
                field: None,
                retry_after: Some(seconds),
            },
            numbers::NumberError::Changed => Self::Changed,
            numbers::NumberError::Meta(outcome) => outcome.into(),
            numbers::NumberError::Store(error) => Self::store("change a number")(error),
        }
    }
}

/// Converts the failure of a Graph request that has changed nothing.
impl From<GraphOutcome> for ApiError {
    fn from(outcome: GraphOutcome) -> Self {
        match outcome {
            GraphOutcome::Refused { code, details, .. } => Self::BadGateway {
                code: "meta_refused",
                message: format!("Meta refused: {details}").into(),
                meta: Some(MetaError { code, message: details }),
            },
            GraphOutcome::RateLimited { code } => meta_busy(code),
            GraphOutcome::Done
            | GraphOutcome::Gone
            | GraphOutcome::ServerError { .. }
            | GraphOutcome::Timeout
            | GraphOutcome::Unreachable => Self::BadGateway {
                code: "meta_failed",
                message: "the request to Meta failed: nothing has changed here".into(),
                meta: None,
            },
        }
    }
}

fn meta_busy(code: i64) -> ApiError {
    ApiError::BadGateway {
        code: "meta_busy",
        message: "Meta's rate limit is exceeded: try again later".into(),
        meta: Some(MetaError { code, message: "rate limited".to_owned() }),
    }
}

impl From<PeopleError> for ApiError {
    fn from(error: PeopleError) -> Self {
        match error {
            PeopleError::Missing => Self::NotFound("no such resource"),
            PeopleError::Changed => Self::Changed,
            PeopleError::Bad(field, why) => Self::bad_value(field, why),
            PeopleError::Conflict(code, why) => Self::conflict(code, why),
            PeopleError::Busy => Self::TooManyRequests {
                code: "busy",
                message: "too many passwords are being checked: try again in a second".into(),
                field: None,
                retry_after: None,
            },
            PeopleError::Store(error) => Self::store("change people or keys")(error),
        }
    }
}

/// Creates the error for a permission request that WhatsApp's limits do not allow yet.
fn permission_request_too_soon(refusal: &Refusal, meta: Option<GraphOutcome>) -> ApiError {
    let meta = match meta {
        Some(GraphOutcome::Refused { code, details, .. }) => {
            Some(MetaError { code, message: details })
        }
        _ => None,
    };
    ApiError::RuleViolation(Box::new(RuleViolation {
        code: "permission_request_too_soon",
        message: match &meta {
            Some(meta) => format!("{refusal}; Meta refused: {}", meta.message),
            None => refusal.to_string(),
        },
        next: Some(NextAttempt::PermissionRequest(refusal.again)),
        meta,
        ..RuleViolation::default()
    }))
}

fn permission_request_under_way() -> ApiError {
    ApiError::conflict("request_under_way", "a permission request to this user is being sent")
}

impl From<inbox::SendError> for ApiError {
    fn from(error: inbox::SendError) -> Self {
        match error {
            inbox::SendError::NoConversation => Self::NotFound(NO_CONVERSATION),
            inbox::SendError::NoNumber => Self::conflict(NO_NUMBER.0, NO_NUMBER.1),
            inbox::SendError::Stale => {
                Self::conflict("stale", "the conversation is answered by someone else now")
            }
            inbox::SendError::WindowClosed => Self::rule(
                "window_closed",
                "the user has not written or called for 24 hours: only a template can be sent, \
                 {\"type\": \"template\", \"template\": {\"name\", \"language\": {\"code\"}}}",
                None,
            ),
            inbox::SendError::RequestTooSoon(refusal) => {
                permission_request_too_soon(&refusal, None)
            }
            inbox::SendError::RequestInProgress => permission_request_under_way(),
            inbox::SendError::TooMany(seconds) => Self::TooManyRequests {
                code: "too_many_requests",
                message: "too many messages at once".into(),
                field: None,
                retry_after: Some(seconds),
            },
            inbox::SendError::NoSpace(_) => NO_DISK_SPACE,
            inbox::SendError::Store(error) => Self::store("send a message")(error),
        }
    }
}

impl From<consent::NotSent> for ApiError {
    fn from(error: consent::NotSent) -> Self {
        match error {
            consent::NotSent::TooSoon(refusal) => permission_request_too_soon(&refusal, None),
            consent::NotSent::RequestLimit(refusal, outcome) => {
                permission_request_too_soon(&refusal, Some(outcome))
            }
            consent::NotSent::UnderWay => permission_request_under_way(),
            consent::NotSent::Graph(GraphOutcome::Refused { code, details, .. }) => {
                let meta = Some(MetaError { code, message: details });
                let rule = |word, message: &str, meta| {
                    Self::RuleViolation(Box::new(RuleViolation {
                        code: word,
                        message: message.to_owned(),
                        meta,
                        ..RuleViolation::default()
                    }))
                };
                match code {
                    code::WINDOW_CLOSED => rule(
                        "window_closed",
                        "the user has not written or called for 24 hours: send a template",
                        meta,
                    ),
                    code::UNDELIVERABLE => {
                        rule("undeliverable", "the user can't be reached on WhatsApp", meta)
                    }
                    _ => Self::BadGateway {
                        code: "meta_refused",
                        message: "Meta refused the request".into(),
                        meta,
                    },
                }
            }
            consent::NotSent::Graph(GraphOutcome::RateLimited { code }) => meta_busy(code),
            consent::NotSent::Graph(
                GraphOutcome::Done
                | GraphOutcome::Gone
                | GraphOutcome::ServerError { .. }
                | GraphOutcome::Timeout
                | GraphOutcome::Unreachable,
            ) => Self::BadGateway {
                code: "meta_failed",
                message: "the request to Meta failed: whether the user was asked is not known"
                    .into(),
                meta: None,
            },
        }
    }
}

impl From<NotPlaced> for ApiError {
    fn from(error: NotPlaced) -> Self {
        match error {
            NotPlaced::Denied { denied, .. } => denied.into(),
            NotPlaced::QueueFull { after } => Self::TooManyRequests {
                code: "cps_exceeded",
                message: "too many calls of the account are queued for its calls per second".into(),
                field: None,
                retry_after: Some(after.as_secs().saturating_add(1)),
            },
            NotPlaced::TooManyRequests { after } => Self::TooManyRequests {
                code: "too_many_requests",
                message:
                    "the account has requested more calls than its calls per second allow, and \
                    cancelled them"
                        .into(),
                field: None,
                retry_after: Some(after.as_secs().saturating_add(1)),
            },
            NotPlaced::Draining => UNAVAILABLE,
            NotPlaced::StoreBroken => Self::Unavailable {
                code: "store_unavailable",
                message: "calls can be neither stored nor journalled: try again later",
            },
        }
    }
}

/// Converts the denial of a call by admission.
impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        let code = denied.reason.as_str();
        let rule = |code, field, next| {
            Self::RuleViolation(Box::new(RuleViolation {
                code,
                message: denied.sentence(),
                field: Some(field),
                meta: None,
                next,
            }))
        };
        let sentence = denied.reason.sentence();
        let full = || Self::TooManyRequests {
            code,
            message: sentence.into(),
            field: Some("from"),
            retry_after: Some(1),
        };
        match denied.reason {
            Reason::NoPermission => {
                let is_daily_limit = matches!(
                    denied.because,
                    RefusalDetail::Permission(refusal) if refusal.why == RefusalReason::DailyLimit
                );
                let code = if is_daily_limit { "daily_limit" } else { code };
                rule(code, "to", Some(NextAttempt::Call(denied.again())))
            }
            Reason::GeoBlocked => rule(code, "from", None),
            Reason::CallingDisabled => Self::conflict(code, sentence),
            Reason::UserBusy => {
                Self::Conflict { code, message: sentence.into(), retry_after: Some(1) }
            }
            Reason::NumberFull | Reason::CpsExceeded => full(),
            Reason::UnknownNumber => Self::bad_value("from", NOT_OWN_NUMBER),
            Reason::Draining | Reason::Overloaded => UNAVAILABLE,
            // Reasons of inbound calls.
            Reason::BadOffer | Reason::Duplicate => Self::Internal,
        }
    }
}

/// The error if a conversation's business number is no longer connected.
pub(super) fn conversation_without_number() -> ApiError {
    ApiError::conflict(NO_NUMBER.0, NO_NUMBER.1)
}
