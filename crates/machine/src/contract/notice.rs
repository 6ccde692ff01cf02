//! Callbacks that nothing waits for.

use serde::{Deserialize, Serialize};

use super::param::Params;
use model::Method;
use xml::ast::DocUrl;

/// A callback that nothing waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    pub kind: NoticeKind,
    pub url: DocUrl,
    pub method: Method,
    pub params: Params,
}

/// `kind` of `offhook_callback_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    Hangup,
    Ring,
    /// An action with `redirect="false"`.
    Action,
    Dial,
    /// What a caller's speech sounds like so far: stale the moment that the action is asked for.
    Interim,
    Conference,
    #[serde(rename = "mpc")]
    MultiParty,
    Stream,
    /// `callbackUrl` of a recording.
    Recording,
    /// `transcriptionUrl` of a recording.
    Transcription,
    /// A message or its status, to its number's webhook URL.
    Message,
    /// Anything, as JSON, to a webhook.
    Event,
}

impl NoticeKind {
    /// The metric label.
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

/// The parameter of an event's notice that is its JSON.
pub const EVENT_BODY: &str = "body";

/// And the one that is its type.
pub const EVENT_TYPE: &str = "event";

/// `EventName` of what says that a multi-party call is over: who was in has left by then.
pub const MPC_END: &str = "MPCEnd";
