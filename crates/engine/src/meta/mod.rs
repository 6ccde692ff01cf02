//! Meta's Graph API: payloads as types, its errors as a table, and a client that knows retries and nothing of calls.
//!
//! `error`, `retry` and `asking` decide and are pure; `graph` asks over HTTP within a deadline and gives a call's machine one
//! small fact in return. Signatures of what Meta sends us are the webhook's business, not ours.

mod asking;
mod error;
pub mod graph;
mod messages;
pub mod numbers;
pub mod permissions;
mod question;
mod retry;
mod settings;
mod status_label;
mod types;
mod upload;

pub use asking::{Asking, Next};
pub use error::{Again, Trouble, Verdict, classify, code, is_alarm, is_token_refused};
pub use graph::{About, ActionRequest, Answered, Graph, GraphConfig, SetupError, TokenEar, Try};
pub use retry::{Budget, Fault, Policy};
pub use settings::MetaSettings;
pub use types::{
    Action, CallAnswer, CallId, CallRequest, ErrorBody, ErrorData, ErrorDetail, SdpType, Session,
    call_named, callback_data,
};
pub use upload::Upload;
