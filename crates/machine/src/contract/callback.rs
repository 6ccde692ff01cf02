//! Callbacks: requests to a customer's URL that do not affect the call.

use serde::{Deserialize, Serialize};

use super::param::Params;
use model::Method;
use xml::ast::DocUrl;

/// A callback that is to be sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallbackRequest {
    pub kind: CallbackKind,
    pub url: DocUrl,
    pub method: Method,
    pub params: Params,
}

/// The kind of a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallbackKind {
    /// The end of a call.
    Hangup,
    /// The user's phone rings.
    Ring,
    /// The action of an element with `redirect="false"`.
    Action,
    /// An event of a `Dial`.
    Dial,
    /// An interim result of speech recognition. It becomes obsolete when the action of its
    /// `GetInput` is requested.
    Interim,
    Conference,
    #[serde(rename = "mpc")]
    MultiParty,
    Stream,
    /// The end of a recording, to its `callbackUrl`.
    Recording,
    /// The transcript of a recording, to its `transcriptionUrl`.
    Transcription,
    /// A message or its status, to the webhook URL of its number.
    Message,
    /// Any event as JSON, to a customer's webhook.
    Event,
}

impl CallbackKind {
    /// All kinds.
    pub const ALL: [Self; 12] = [
        Self::Hangup,
        Self::Ring,
        Self::Action,
        Self::Dial,
        Self::Interim,
        Self::Conference,
        Self::MultiParty,
        Self::Stream,
        Self::Recording,
        Self::Transcription,
        Self::Message,
        Self::Event,
    ];

    /// Returns the label in metrics. Events are counted as messages, because the list of labels is
    /// closed.
    pub fn metric_label(self) -> &'static str {
        if self == Self::Event { Self::Message.as_str() } else { self.as_str() }
    }

    /// Returns the name in logs and lists.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hangup => "hangup",
            Self::Ring => "ring",
            Self::Action => "action",
            Self::Dial => "dial",
            Self::Interim => "interim",
            Self::Conference => "conference",
            Self::MultiParty => "mpc",
            Self::Stream => "stream",
            Self::Recording => "recording",
            Self::Transcription => "transcription",
            Self::Message => "message",
            Self::Event => "event",
        }
    }
}

/// The parameter of a [`CallbackKind::Event`] that holds its JSON body.
pub const EVENT_BODY: &str = "body";
/// The parameter of a [`CallbackKind::Event`] that holds the type of the event.
pub const EVENT_TYPE: &str = "event";
/// `EventName` of the callback that reports the end of a multi-party call.
pub const MPC_END: &str = "MPCEnd";
