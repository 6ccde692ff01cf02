//! Errors of operations on numbers.

use crate::admission::book::{ChangeError, ConnectRefusal};
use machine::GraphOutcome;
use store::StoreError;

/// The reason why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum NumberError {
    /// The resource does not exist, or belongs to another account.
    #[error("{0}")]
    Missing(&'static str),
    /// A field has an invalid value.
    #[error("{field}: {message}")]
    Bad { field: &'static str, message: String },
    /// The current state does not allow the operation.
    #[error("{message}")]
    State { code: &'static str, message: String },
    /// A rule of WhatsApp forbids the operation. `meta` has Meta's code and text.
    #[error("{message}")]
    Rule {
        code: &'static str,
        message: String,
        field: Option<&'static str>,
        meta: Option<(i64, String)>,
    },
    /// The operation was tried too recently.
    #[error("{message}")]
    Wait { seconds: u64, message: String },
    /// The resource was changed concurrently.
    #[error("changed concurrently")]
    Changed,
    /// The request to Graph was refused or failed.
    #[error("graph request failed: {0}")]
    Meta(GraphOutcome),
    #[error("store failed: {0}")]
    Store(#[source] StoreError),
}

impl NumberError {
    pub(super) fn bad(field: &'static str, message: impl Into<String>) -> Self {
        Self::Bad { field, message: message.into() }
    }

    pub(super) fn state(code: &'static str, message: impl Into<String>) -> Self {
        Self::State { code, message: message.into() }
    }
}

impl From<ChangeError<NumberError>> for NumberError {
    fn from(why: ChangeError<NumberError>) -> Self {
        match why {
            ChangeError::Refused(no) => no,
            ChangeError::Store(error) => Self::Store(error),
        }
    }
}

impl From<ConnectRefusal> for NumberError {
    fn from(why: ConnectRefusal) -> Self {
        match why {
            ConnectRefusal::Taken => {
                Self::state("taken", "this number or WABA is connected to another account")
            }
            ConnectRefusal::InFile(id) => {
                let message = format!(
                    "the configuration file defines this number with whatsappPhoneNumberId {id}; change it in the file and reload"
                );
                Self::state("in_configuration", message)
            }
            ConnectRefusal::TooMany(max) => {
                Self::state("too_many", format!("an account can have at most {max} numbers"))
            }
        }
    }
}

/// A rule of WhatsApp forbids the value of a field.
pub(super) fn rule(code: &'static str, message: &str, field: &'static str) -> NumberError {
    NumberError::Rule { code, message: message.to_owned(), field: Some(field), meta: None }
}

/// Converts an outcome of Graph to an error. A refusal is an error in the request; any other
/// failure is Meta's.
pub(super) fn refused_or(
    outcome: GraphOutcome,
    code: &'static str,
    message: &str,
    field: &'static str,
) -> NumberError {
    match outcome {
        GraphOutcome::Refused { code: meta, details, .. } => NumberError::Rule {
            code,
            message: message.to_owned(),
            field: Some(field),
            meta: Some((meta, details)),
        },
        other => NumberError::Meta(other),
    }
}

/// Graph does not show a WABA.
pub(super) fn waba_error(outcome: GraphOutcome) -> NumberError {
    let message = "Meta does not show this WABA for this token";
    refused_or(outcome, "no_such_waba", message, "whatsappBusinessAccount")
}
