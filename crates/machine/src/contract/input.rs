//! Facts that a call's machine is told.

use serde::{Deserialize, Serialize};

use super::command::Command;
use super::dial::{LegNews, LegWish};
use super::fetch::{FetchFailure, FetchId, Fetched};
use super::graph::{GraphAction, GraphOutcome};
use super::media::{MediaFact, PlayId, Voice};
use super::recognition::{RecognitionId, SpeechFact};
use super::recording::{RecordFact, RecordId};
use super::room::RoomNews;
use super::setup::CallSetup;
use super::stream::StreamFact;
use model::{CallUuid, Digit, HangupCause, Leg, StreamId, Wacid};

/// A fact. The first one a machine is given is [`Input::Offered`] or [`Input::Placed`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Input {
    /// An admitted, user-initiated call: the user's phone rings. Our SDP answer is ready to be sent.
    Offered { setup: Box<CallSetup> },
    /// A business-initiated call that may start: our SDP offer is ready to be sent.
    Placed { setup: Box<CallSetup> },
    /// Meta's id of the call that was placed: from Graph's answer, or from a webhook that came before it and names our
    /// call (`meta-calling.md` §7.3). Comes before every other fact of Meta's about the call; once.
    Bound { wacid: Wacid },
    /// Meta's SDP answer to our offer came by webhook; unusable ones are told too.
    SdpAnswer { usable: bool },
    /// How far the user's phone is, by webhook. In any order.
    Status { status: PhoneStatus },
    /// The Graph request wished for by [`super::Output::Graph`] came to its end, retries included.
    Graph { action: GraphAction, outcome: GraphOutcome },
    /// The fetch wished for by [`super::Output::Fetch`] came to its end.
    Fetched { fetch: FetchId, result: Result<Fetched, FetchFailure> },
    /// Something about a leg's media path.
    Media { leg: Leg, what: MediaFact },
    /// The first packet of a play went out.
    PlayStarted { leg: Leg, play: PlayId },
    /// A playlist has been played to its end (not: was stopped).
    Played { leg: Leg, play: PlayId },
    /// One item of a playlist could not be had and was skipped (`plivo-xml.md` §4 rule 10).
    PlayFailed { leg: Leg, play: PlayId, item: u16, reason: String },
    /// A key counts: at its end packet (`meta-calling.md` §5.4).
    Digit { leg: Leg, digit: Digit },
    /// The peer's voice, told while [`super::MediaOrder::Listen`] or [`super::MediaOrder::Beep`] has somebody listen.
    Voice { leg: Leg, what: Voice },
    /// What the caller says, told while [`super::Output::Speech`] has somebody recognise it.
    Speech { recognition: RecognitionId, what: SpeechFact },
    /// A recording of the A-leg has a name, or has come to its end.
    Recorded { record: RecordId, what: RecordFact },
    /// Digits ordered by [`super::MediaOrder::SendDigits`] have gone out.
    DigitsSent { leg: Leg, play: PlayId },
    /// Meta's terminate webhook.
    Terminated { termination: Termination },
    /// A leg that this call dialled tells something; `call` is that leg's.
    Dialled { call: CallUuid, news: LegNews },
    /// The leg that dialled this one wants something of it.
    Ordered { leg: LegWish },
    /// The room that the call is in tells something.
    Room { news: RoomNews },
    /// Something about a stream that [`super::Output::Stream`] had opened.
    Stream { stream: StreamId, what: StreamFact },
    /// Somebody asked over an API.
    Command { command: Command },
    /// The node ends the call: drained, or a fault of ours.
    Cut { cause: HangupCause },
    /// The moment `Machine::poll_timeout` named has come. Coming early is harmless.
    Timer,
}

/// Statuses of a business-initiated call (`meta-calling.md` §3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhoneStatus {
    Ringing,
    Accepted,
    Rejected,
}

impl PhoneStatus {
    /// The word in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ringing => "ringing",
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
        }
    }
}

/// What Meta's terminate webhook said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Termination {
    /// `completed`, `failed`, or as it came.
    pub status: Option<String>,
    /// Meta's own times and duration, kept beside ours.
    pub start_time: Option<i64>,
    pub end_time: Option<i64>,
    pub duration_secs: Option<u64>,
    /// First of `errors[]`, of the item or of the value.
    pub error_code: Option<i64>,
}
