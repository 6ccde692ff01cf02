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

/// Something to be done on behalf of a machine.
///
/// No output returns a value. Its result is reported by a later [`Input`](super::Input).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "wish", rename_all = "snake_case")]
pub enum Output {
    /// Sends a request to Graph. Its outcome is reported once, by `Input::Graph` with this action.
    Graph { action: GraphAction },
    /// Requests a customer's URL. The outcome is reported once, by `Input::Fetched` with this id,
    /// unless the fetch is cancelled.
    Fetch {
        fetch: FetchId,
        kind: FetchKind,
        url: DocUrl,
        method: Method,
        params: Params,
        /// How long it may take in all, in milliseconds.
        deadline_ms: u64,
    },
    /// Cancels a fetch. Its outcome is not reported.
    CancelFetch { fetch: FetchId },
    /// Makes sounds ready that will be played soon.
    Prepare { sounds: Vec<Sound> },
    /// Instructs the media of a leg.
    Media {
        leg: Leg,
        #[serde(rename = "order")]
        command: MediaCommand,
    },
    /// Instructs a speech recogniser, which reports by `Input::Speech`.
    Speech {
        recognition: RecognitionId,
        #[serde(rename = "order")]
        command: SpeechCommand,
    },
    /// Calls a B-leg, which reports by `Input::BLeg`, also if it cannot be called.
    Dial { order: Box<DialOrder> },
    /// Instructs a B-leg of this call.
    #[serde(rename = "order")]
    BLeg {
        call: CallUuid,
        #[serde(rename = "leg")]
        command: BLegCommand,
    },
    /// Reports to the A-leg that dialled this call.
    #[serde(rename = "news")]
    ALeg {
        #[serde(rename = "news")]
        event: BLegEvent,
    },
    /// Instructs the room that the call is in or enters, which reports by `Input::Room`.
    Room {
        #[serde(rename = "room")]
        command: RoomCommand,
    },
    /// Instructs a stream, which reports by `Input::Stream`.
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
    /// One line for the log and for the record of the call: what happened, and the remedy.
    Remark { text: String },
    /// Reports the findings of a document.
    Findings { findings: Vec<Finding> },
    /// The call has ended. In one transaction its record is written and its hangup callback is put
    /// into the outbox. A machine outputs this exactly once.
    Concluded { summary: Box<Summary> },
    /// Releases the slot now, although Meta may still hold the call, since its state is unknown.
    FreeSlot,
    /// The machine has ended. The slot is released if it is still held. This is the last output,
    /// exactly once, after [`Output::Concluded`].
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
    /// Interrupted by the end of the call or by another document.
    Cut,
}

/// The state of a call (docs/reference/meta.md#life-of-a-call), in the order in which calls go
/// through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallState {
    /// The request `connect` is under way.
    Dialing,
    /// Meta has the call. The user's phone does not ring yet.
    Proceeding,
    /// The user's phone rings.
    Ringing,
    /// A user calls. The document is fetched and the media path is set up.
    Preparing,
    /// The request `accept` is under way.
    Accepting,
    /// The call is answered.
    Live,
    /// The call has ended here, and Meta may still hold it.
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

/// The end of a call: the contents of its record, and its hangup callback.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub cause: HangupCause,
    pub direction: Direction,
    /// `None` if the call was not answered.
    pub answered: Option<CallTime>,
    pub ended: CallTime,
    /// Seconds since the call began, rounded up.
    pub duration_secs: u64,
    /// Seconds since the call was answered, rounded up. 0 if it was not.
    pub bill_secs: u64,
    /// The duration in Meta's terminate webhook, if that came before the end.
    pub meta_duration_secs: Option<u64>,
    /// The conference that the call was in last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conference: Option<uuid::Uuid>,
    /// The callback to the hangup URL.
    pub hangup: CallbackRequest,
}
