//! Requests for documents and their outcomes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use xml::FirstFault;
use xml::ast::Finding;

/// Names one fetch of a call, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FetchId(pub u32);

/// What a fetch is for: `kind` of `offhook_answer_fetch_seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FetchKind {
    Answer,
    Fallback,
    /// An action whose document runs next.
    Action,
    Redirect,
    Transfer,
    /// A document of sounds: `confirmSound`, `dialMusic`.
    Sound,
}

impl FetchKind {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Fallback => "fallback",
            Self::Action => "action",
            Self::Redirect => "redirect",
            Self::Transfer => "transfer",
            Self::Sound => "sound",
        }
    }
}

/// A fetched answer. The body of one that expects no document is not kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "body", rename_all = "snake_case")]
pub enum Fetched {
    Document {
        document: Arc<xml::Document>,
    },
    /// The body was refused by the validator: nothing of it runs (`plivo-xml.md` §2).
    Refused {
        refusal: Refusal,
    },
    /// 2xx to a request whose answer is not read (`redirect="false"`).
    Ignored,
}

impl From<xml::Parsed> for Fetched {
    /// What the validator made of a body.
    fn from(parsed: xml::Parsed) -> Self {
        match parsed.document {
            Some(document) => Self::Document { document },
            None => {
                let first = parsed.first_fault.unwrap_or(FirstFault::Other);
                Self::Refused { refusal: Refusal { findings: parsed.findings, first } }
            }
        }
    }
}

/// Why a document was refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// All findings, in document order.
    pub findings: Vec<Finding>,
    /// The first error is E311 on an `action` attribute, on a `Redirect` body, or E312 on a method beside one
    /// (`plivo-xml.md` §2.3).
    pub first: FirstFault,
}

/// Why a fetch failed for good, small enough to log and replay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "failure", rename_all = "snake_case")]
pub enum FetchFailure {
    Timeout,
    /// It is connected, and its side of TLS says nothing in time.
    Handshake,
    /// DNS, connect, TLS or reset.
    Unreachable {
        what: String,
    },
    /// An answer other than 2xx.
    Status {
        status: u16,
    },
    /// The address is not one we go to (R17), or http without `allow_insecure`.
    UrlRefused {
        what: String,
    },
    TooLarge,
    /// Too many redirects, an undecodable body, a broken answer.
    Invalid {
        what: String,
    },
}

impl FetchFailure {
    /// `outcome` of `offhook_answer_fetch_seconds` (`interface.md` §4).
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Timeout | Self::Handshake => "timeout",
            Self::Unreachable { .. } => "unreachable",
            Self::Status { .. } => "status",
            Self::UrlRefused { .. } => "refused",
            Self::TooLarge => "too_large",
            Self::Invalid { .. } => "invalid",
        }
    }
}
