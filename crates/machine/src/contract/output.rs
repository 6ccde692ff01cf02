//! The outputs of a machine.

use serde::{Deserialize, Serialize};

use super::callback::CallbackRequest;
use super::dial::{BLegCommand, BLegEvent, DialOrder};
use super::fetch::{FetchId, FetchKind};
use super::graph::GraphAction;
use super::media::MediaCommand;
use super::param::Params;
use super::recognition::{RecognitionId, SpeechCommand};
use super::room::RoomCommand;
use super::sound::Sound;
use super::stream::StreamCommand;
use super::time::CallTime;
use model::{CallUuid, Direction, HangupCause, Leg, Method, StreamId};
use xml::ast::{DocUrl, Finding};

/// An action that a machine requests.
///
/// An output returns no value. A later [`Input`](super::Input) reports its result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "wish", rename_all = "snake_case")]
pub enum Output {
    /// Sends a request to Graph. Its outcome is reported once, by `Input::Graph` with this action.
    Graph { action: GraphAction },
    /// Requests a customer's URL. Unless the fetch is cancelled, `Input::Fetched` reports the
    /// outcome once, with this id.
    Fetch {
        fetch: FetchId,
        kind: FetchKind,
        url: DocUrl,
        method: Method,
        params: Params,
        /// Time limit of the whole fetch, in milliseconds.
        deadline_ms: u64,
    },
    /// Cancels a fetch. Its outcome is not reported.
    CancelFetch { fetch: FetchId },
    /// Prepares sounds that will be played soon.
    Prepare { sounds: Vec<Sound> },
    /// Sends a command to the media of a leg.
    Media {
        leg: Leg,
        #[serde(rename = "order")]
        command: MediaCommand,
    },
    /// Sends a command to a speech recogniser, which reports by `Input::Speech`.
    Speech {
        recognition: RecognitionId,
        #[serde(rename = "order")]
        command: SpeechCommand,
    },
    /// Calls a B-leg, which reports by `Input::BLeg`, even if it cannot be called.
    Dial { order: Box<DialOrder> },
    /// Sends a command to a B-leg of this call.
    #[serde(rename = "order")]
    BLeg {
        call: CallUuid,
        #[serde(rename = "leg")]
        command: BLegCommand,
    },
    /// Reports an event to the A-leg that dialled this call.
    #[serde(rename = "news")]
    ALeg {
        #[serde(rename = "news")]
        event: BLegEvent,
    },
    /// Sends a command to the room that the call is in or enters. The room reports by
    /// `Input::Room`.
    Room {
        #[serde(rename = "room")]
        command: RoomCommand,
    },
    /// Sends a command to a stream, which reports by `Input::Stream`.
    Stream {
        stream: StreamId,
        #[serde(rename = "order")]
        command: StreamCommand,
    },
    /// Sends a callback.
    #[serde(rename = "notify")]
    Callback {
        #[serde(rename = "notice")]
        callback: CallbackRequest,
    },
    /// Reports that an instruction has begun or ended.
    Instruction { element: String, line: u32, outcome: InstructionOutcome, note: String },
    /// Reports that the state of the call has changed.
    State { state: CallState },
    /// Adds a line to the log and to the record of the call: an event, and the remedy.
    Remark { text: String },
    /// Reports the findings of a document.
    Findings { findings: Vec<Finding> },
    /// Ends the call: in one transaction its record is written and its hangup callback is put into
    /// the outbox. A machine outputs this exactly once.
    Concluded { summary: Box<Summary> },
    /// Releases the slot now. The state of the call at Meta is unknown, so Meta may still hold the
    /// call.
    FreeSlot,
    /// Ends the machine. The slot is released if it is still held. This is the last output, exactly
    /// once, after [`Output::Concluded`].
    Over,
}

/// The outcome of an instruction. Metrics count all of these except `Started`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstructionOutcome {
    Started,
    Done,
    Skipped,
    Failed,
    /// The instruction was interrupted by the end of the call or by another document.
    Cut,
}

/// The state of a call (docs/reference/meta.md#life-of-a-call), in the order in which calls go
/// through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallState {
    /// The request `connect` is in progress.
    Dialing,
    /// Meta has accepted the call. The user's phone does not ring yet.
    Proceeding,
    /// The user's phone rings.
    Ringing,
    /// A user calls. The document is fetched and the media path is set up.
    Preparing,
    /// The request `accept` is in progress.
    Accepting,
    /// The call is answered.
    Live,
    /// The call has ended on this side, and Meta may still hold it.
    Closing,
    /// The call has ended on both sides.
    Over,
}

impl CallState {
    /// Returns the name in the event log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dialing => "dialing",
            Self::Proceeding => "proceeding",
            Self::Ringing => "ringing",
            Self::Preparing => "preparing",
            Self::Accepting => "accepting",
            Self::Live => "live",
            Self::Closing => "closing",
            Self::Over => "over",
        }
    }
}

/// The summary of a call that has ended: the contents of its record, and its hangup callback.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub cause: HangupCause,
    pub direction: Direction,
    /// The time of the answer. `None` if the call was not answered.
    pub answered: Option<CallTime>,
    pub ended: CallTime,
    /// Seconds since the call began, rounded up.
    pub duration_secs: u64,
    /// Seconds since the call was answered, rounded up. 0 if it was not answered.
    pub bill_secs: u64,
    /// The duration in Meta's terminate webhook. `None` if that had not arrived.
    pub meta_duration_secs: Option<u64>,
    /// The last conference that the call was in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conference: Option<uuid::Uuid>,
    /// The callback to the hangup URL.
    pub hangup: CallbackRequest,
}
