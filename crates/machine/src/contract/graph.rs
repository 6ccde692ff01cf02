//! Requests to Graph and their outcomes.

use serde::{Deserialize, Serialize};

/// Actions of `POST /{phone_number_id}/calls`.
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
    /// The word on the wire and in metrics.
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

/// How a Graph request ended for good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum GraphOutcome {
    /// Success as `meta-calling.md` 4.1.6 has it.
    Done,
    /// Code 100 with the call unknown or over.
    Gone,
    /// A 4xx or an error object that is not worth another try.
    Refused { status: u16, code: i64, details: String },
    /// 429 or a rate code to the last try.
    RateLimited { code: i64 },
    /// 5xx to the last try.
    ServerError { status: u16 },
    /// No answer in time, to the last try.
    Timeout,
    /// No connection, to the last try.
    Unreachable,
}

impl GraphOutcome {
    /// Whether Graph has decided, so that asking again can change nothing.
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
