//! A client of Meta's Graph API: payload types, a table of error codes, retries, and requests about
//! calls, messages and numbers.
//!
//! `error`, `retry` and `retry_state` are pure and decide; `graph` sends the requests within their
//! deadlines and reports a [`machine::GraphOutcome`]. Verifying the signatures of Meta's webhooks
//! is the task of the webhook module.

mod date;
mod error;
mod files;
pub mod graph;
mod messages;
pub mod numbers;
pub mod permissions;
mod request;
mod retry;
mod retry_state;
mod settings;
mod status_label;
pub mod templates;
mod types;

pub use error::{Retryable, TemporaryFailure, Verdict, classify, code, is_alarm, is_token_refused};
pub use files::{Files, Upload};
pub use graph::{
    ActionRequest, Answered, CallTarget, Graph, GraphConfig, SetupError, TokenListener, Try,
};
pub use messages::{Messages, RequestPlace};
pub use retry::{Budget, Fault, Policy};
pub use retry_state::{NextStep, RetryState};
pub use settings::MetaSettings;
pub use types::{
    CallAnswer, CallId, CallRequest, ErrorBody, ErrorData, ErrorDetail, SdpType, Session,
    call_named, callback_data, text_or_digits,
};
