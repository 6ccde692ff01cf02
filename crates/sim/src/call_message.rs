//! The messages in the mailbox of a simulated call.

use tokio::sync::oneshot;

use super::keys::KeyStep;
use super::media::LegEvent;
use super::meta::action::Action;
use super::meta::error::GraphError;

/// A message to a call.
#[derive(Debug)]
pub(crate) enum CallMsg {
    Graph(GraphRequest),
    /// The user hangs up.
    Hangup,
    Press(Vec<KeyStep>),
    Leg(LegEvent),
    Node(NodeEvent),
    /// An attempt to deliver a webhook ended with this status, or with 0 if there was no response.
    Delivered {
        kind: &'static str,
        status: u16,
    },
}

/// A Graph request for a call. `reply` takes the response.
#[derive(Debug)]
pub(crate) struct GraphRequest {
    pub(crate) action: Action,
    pub(crate) sdp: Option<String>,
    pub(crate) opaque: Option<String>,
    pub(crate) reply: oneshot::Sender<Result<(), GraphError>>,
}

/// An event from the node's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NodeEvent {
    /// The node's record of the call was found.
    Found {
        call_uuid: String,
    },
    Instruction {
        element: String,
        line: u32,
        outcome: String,
        note: String,
    },
    /// An error in a document, for which the node refuses it.
    Finding {
        rule: String,
        line: u32,
        message: String,
    },
    /// A sound begins: the text that is spoken, or the URL of a file.
    Sound {
        text: String,
    },
    Concluded {
        cause: String,
    },
    /// The node refused a request for its log or its records with this status.
    LogRefused {
        status: u16,
    },
    /// The log has ended or cannot be read.
    LogEnded,
}
