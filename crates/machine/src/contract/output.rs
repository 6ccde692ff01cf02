//! Wishes of a call's machine, which `call::shell` carries out.

use serde::{Deserialize, Serialize};

use super::dial::{DialOrder, LegNews, LegWish};
use super::fetch::{FetchId, FetchKind};
use super::graph::GraphAction;
use super::media::MediaOrder;
use super::notice::Notice;
use super::param::Params;
use super::recognition::{RecognitionId, SpeechOrder};
use super::room::RoomWish;
use super::sound::Sound;
use super::stream::StreamWish;
use super::time::CallTime;
use model::{CallUuid, Direction, HangupCause, Leg, Method, StreamId};
use xml::ast::{DocUrl, Finding};

/// A wish. None asks for an answer by return: what comes of it is a later [`super::Input`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "wish", rename_all = "snake_case")]
pub enum Output {
    /// Send this to Graph. Comes back as `Input::Graph` with the same action, once.
    Graph { action: GraphAction },
    /// Ask a customer's URL. Comes back as `Input::Fetched` with the same id, once, unless cancelled.
    Fetch {
        fetch: FetchId,
        kind: FetchKind,
        url: DocUrl,
        method: Method,
        params: Params,
        /// Milliseconds it may take in all.
        deadline_ms: u64,
    },
    /// A running fetch is not wanted any more; no answer comes.
    CancelFetch { fetch: FetchId },
    /// Have these sounds ready: they will be played soon.
    Prepare { sounds: Vec<Sound> },
    /// Tell a leg's media what to do.
    Media { leg: Leg, order: MediaOrder },
    /// Tell a recogniser of speech what to do. What it hears comes back as `Input::Speech`.
    Speech { recognition: RecognitionId, order: SpeechOrder },
    /// Begin this leg, or say by `Input::Dialled` why not.
    Dial { order: Box<DialOrder> },
    /// Tell a leg that this call dialled; with `LegWish::Join` the two hear each other from now on.
    Order { call: CallUuid, leg: LegWish },
    /// Tell the leg that dialled this one.
    News { news: LegNews },
    /// Something of the room that the call is in, or enters.
    Room { room: RoomWish },
    /// Open a stream, let its sound flow, or close it. What becomes of it is `Input::Stream`.
    Stream {
        stream: StreamId,
        #[serde(rename = "order")]
        wish: StreamWish,
    },
    /// Send a callback that nothing waits for.
    Notify { notice: Notice },
    /// An instruction began or ended: for the log, the metrics and whoever watches.
    Instruction { element: String, line: u32, outcome: InstructionOutcome, note: String },
    /// The call's state changed.
    State { state: CallState },
    /// One plain line for the log and the call's record: what happened and what to do about it.
    Remark { text: String },
    /// A document that came in has these findings.
    Findings { findings: Vec<Finding> },
    /// The call is terminal: write its record and put its hangup notice into the outbox, in one transaction.
    /// Exactly once.
    Concluded { summary: Box<Summary> },
    /// Give the slot back now: the call has ended, and whether Meta holds anything of it is not known.
    FreeSlot,
    /// The machine is over: give the slot back, if it is still held. The last output, exactly once, after `Concluded`.
    Over,
}

/// What became of an instruction; `started` is not a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstructionOutcome {
    Started,
    Done,
    Skipped,
    Failed,
    /// Ended by a hang-up, a barge-in of control or a transfer.
    Cut,
}

/// States of `meta-calling.md` §7, in the order in which a call comes by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallState {
    /// Graph's `connect` is under way.
    Dialing,
    /// Meta has the call; the user's phone does not ring yet.
    Proceeding,
    /// The user's phone rings.
    Ringing,
    Preparing,
    Accepting,
    Live,
    Closing,
    Over,
}

impl CallState {
    /// The word in the event log.
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

/// A call's end: what its record and its hangup callback say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub cause: HangupCause,
    pub direction: Direction,
    /// When it was answered, if ever.
    pub answered: Option<CallTime>,
    pub ended: CallTime,
    /// Seconds from the start, rounded up.
    pub duration_secs: u64,
    /// Seconds from the answer, rounded up; 0 if never answered.
    pub bill_secs: u64,
    /// What Meta's terminate webhook said about the duration, if it came first.
    pub meta_duration_secs: Option<u64>,
    /// The conference that it was in last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conference: Option<uuid::Uuid>,
    /// The callback to the hangup URL.
    pub hangup: Notice,
}
