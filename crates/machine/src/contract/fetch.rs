//! Requests for documents, and their outcomes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use xml::FirstFault;
use xml::ast::Finding;

/// Identifies a fetch of a call. The first one is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FetchId(pub u32);

/// The purpose of a fetch. It is the label `kind` of the metric `offhook_answer_fetch_seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FetchKind {
    /// The first document of a call.
    Answer,
    /// The document in place of the first one, which could not be fetched.
    Fallback,
    /// The action of an element. Its document runs next.
    Action,
    Redirect,
    /// The document of a transfer over the REST API.
    Transfer,
    /// A document that is used only for its sounds, such as that of `confirmSound` or `dialMusic`.
    Sound,
}

impl FetchKind {
    /// All kinds.
    pub const ALL: [Self; 6] =
        [Self::Answer, Self::Fallback, Self::Action, Self::Redirect, Self::Transfer, Self::Sound];

    /// Returns the metric label.
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

/// The response to a fetch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "body", rename_all = "snake_case")]
pub enum FetchResponse {
    /// A valid document.
    Document { document: Arc<xml::Document> },
    /// A body that the validator has refused. No part of it is executed.
    Refused { refusal: Refusal },
    /// A response with a 2xx status that is not used (`redirect="false"`). Its body was not read.
    Ignored,
}

impl From<xml::ParseOutcome> for FetchResponse {
    fn from(parsed: xml::ParseOutcome) -> Self {
        match parsed.document {
            Some(document) => Self::Document { document },
            None => {
                let first = parsed.first_fault.unwrap_or(FirstFault::Other);
                Self::Refused { refusal: Refusal { findings: parsed.findings, first } }
            }
        }
    }
}

/// The errors for which a document was refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// All findings, in document order.
    pub findings: Vec<Finding>,
    /// The kind of the first error, which determines the hangup cause of the call
    /// (docs/reference/xml.md#refused-documents).
    pub first: FirstFault,
}

/// The reason why a fetch failed after all retries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "failure", rename_all = "snake_case")]
pub enum FetchFailure {
    /// The response was not complete in time.
    Timeout,
    /// The server accepted the connection but did not complete the TLS handshake in time.
    Handshake,
    /// The name could not be resolved, or the TCP or TLS connection failed.
    Unreachable {
        #[serde(rename = "what")]
        detail: String,
    },
    /// The status was not 2xx.
    Status { status: u16 },
    /// The URL is `http` without `allow_insecure`, or its address is not public
    /// (docs/reference/reliability.md#r17).
    UrlRefused {
        #[serde(rename = "what")]
        detail: String,
    },
    /// The body was larger than the maximum size of a document.
    TooLarge,
    /// There were too many redirects, or the response could not be decoded.
    Invalid {
        #[serde(rename = "what")]
        detail: String,
    },
}

impl FetchFailure {
    /// Returns the label `outcome` of the metric `offhook_answer_fetch_seconds`.
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
