//! Requests to Graph about a call, and their outcomes.

use serde::{Deserialize, Serialize};

/// The `action` of a request to `POST /{phone_number_id}/calls` of Graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GraphAction {
    Connect,
    PreAccept,
    Accept,
    Reject,
    Terminate,
}

impl GraphAction {
    /// Returns the word in the request and the metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::PreAccept => "pre_accept",
            Self::Accept => "accept",
            Self::Reject => "reject",
            Self::Terminate => "terminate",
        }
    }
}

/// How a request to Graph ended, after all retries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum GraphOutcome {
    /// Graph confirmed the request (docs/reference/meta.md#graph-success).
    Done,
    /// Graph returned code 100: it does not know the call, or the call has ended.
    Gone,
    /// Graph refused the request. A retry would not help.
    Refused { status: u16, code: i64, details: String },
    /// The last attempt got status 429 or the code of a rate limit.
    RateLimited { code: i64 },
    /// The last attempt got a 5xx status or a code of a temporary failure. `code` is 0 if the
    /// response named none.
    ServerError {
        status: u16,
        #[serde(default, skip_serializing_if = "is_zero")]
        code: i64,
    },
    /// The last attempt got no response in time.
    Timeout,
    /// The last attempt could not connect.
    Unreachable,
}

fn is_zero(code: &i64) -> bool {
    *code == 0
}

impl GraphOutcome {
    /// Whether Graph has decided, so that another request changes nothing.
    pub fn is_settled(&self) -> bool {
        match self {
            Self::Done | Self::Gone | Self::Refused { .. } => true,
            Self::RateLimited { .. }
            | Self::ServerError { .. }
            | Self::Timeout
            | Self::Unreachable => false,
        }
    }
}
