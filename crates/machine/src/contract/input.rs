//! The inputs of a call's machine.

use serde::{Deserialize, Serialize};

use super::command::Command;
use super::dial::{BLegCommand, BLegEvent};
use super::fetch::{FetchFailure, FetchId, FetchResponse};
use super::graph::{GraphAction, GraphOutcome};
use super::media::{MediaEvent, PlayId, VoiceEvent};
use super::recognition::{RecognitionId, SpeechEvent};
use super::recording::{RecordingEvent, RecordingId};
use super::room::RoomEvent;
use super::setup::CallSetup;
use super::stream::StreamEvent;
use model::{CallUuid, Digit, HangupCause, Leg, StreamId, Wacid};

/// Something that happened to a call.
///
/// The first input of a machine is [`Input::Offered`] or [`Input::Placed`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Input {
    /// A user calls, and the call is admitted. The SDP answer is ready.
    Offered { setup: Box<CallSetup> },
    /// A business-initiated call is admitted. The SDP offer is ready.
    Placed { setup: Box<CallSetup> },
    /// Meta's id of a business-initiated call is known, from Graph's response or from an earlier
    /// webhook. This input occurs once, before every other event of Meta about the call.
    Bound { wacid: Wacid },
    /// Meta's SDP answer arrived by webhook. `usable` is true if the media path can be set up with
    /// it.
    SdpAnswer { usable: bool },
    /// The status of the user's phone arrived by webhook. Statuses arrive in any order.
    Status { status: PhoneStatus },
    /// The request of [`Output::Graph`](super::Output::Graph) ended, after all retries.
    Graph { action: GraphAction, outcome: GraphOutcome },
    /// The fetch of [`Output::Fetch`](super::Output::Fetch) ended.
    Fetched { fetch: FetchId, result: Result<FetchResponse, FetchFailure> },
    /// The media path of a leg changed.
    Media {
        leg: Leg,
        #[serde(rename = "what")]
        event: MediaEvent,
    },
    /// The first packet of a playlist was sent.
    PlayStarted { leg: Leg, play: PlayId },
    /// A playlist was played to its end, without being stopped.
    Played { leg: Leg, play: PlayId },
    /// An item of a playlist could not be played and was skipped. `item` counts from 0.
    PlayFailed { leg: Leg, play: PlayId, item: u16, reason: String },
    /// A digit was pressed. It is reported when its RFC 4733 event ends.
    Digit { leg: Leg, digit: Digit },
    /// The peer's voice began or ended, or a voicemail beeped. Reported while
    /// [`MediaCommand::DetectVoice`](super::MediaCommand::DetectVoice) or
    /// [`MediaCommand::DetectBeep`](super::MediaCommand::DetectBeep) is on.
    Voice {
        leg: Leg,
        #[serde(rename = "what")]
        event: VoiceEvent,
    },
    /// The recogniser of [`Output::Speech`](super::Output::Speech) reported an event.
    Speech {
        recognition: RecognitionId,
        #[serde(rename = "what")]
        event: SpeechEvent,
    },
    /// A recording of the A-leg has received its id, or has ended.
    #[serde(rename = "recorded")]
    Recording {
        #[serde(rename = "record")]
        recording: RecordingId,
        #[serde(rename = "what")]
        event: RecordingEvent,
    },
    /// The digits of [`MediaCommand::SendDigits`](super::MediaCommand::SendDigits) have been sent.
    DigitsSent { leg: Leg, play: PlayId },
    /// Meta's terminate webhook arrived.
    Terminated { termination: Termination },
    /// A B-leg of this call reported an event.
    #[serde(rename = "dialled")]
    BLeg {
        call: CallUuid,
        #[serde(rename = "news")]
        event: BLegEvent,
    },
    /// The A-leg that dialled this call sent a command.
    #[serde(rename = "ordered")]
    ALeg {
        #[serde(rename = "leg")]
        command: BLegCommand,
    },
    /// The room that the call is in reported an event.
    Room {
        #[serde(rename = "news")]
        event: RoomEvent,
    },
    /// The stream of [`Output::Stream`](super::Output::Stream) reported an event.
    Stream {
        stream: StreamId,
        #[serde(rename = "what")]
        event: StreamEvent,
    },
    /// The REST API sent a command.
    Command { command: Command },
    /// The node ends the call, because it is draining or because of an internal error.
    #[serde(rename = "cut")]
    HangUp { cause: HangupCause },
    /// The time that `Machine::poll_timeout` returned has come. An early input is harmless.
    Timer,
}

/// The status of the user's phone in a business-initiated call (docs/reference/meta.md#call-status).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhoneStatus {
    Ringing,
    Accepted,
    Rejected,
}

impl PhoneStatus {
    /// Returns the status in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ringing => "ringing",
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
        }
    }
}

/// The contents of Meta's terminate webhook.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Termination {
    /// The status: `completed`, `failed` or another word, in Meta's spelling.
    pub status: Option<String>,
    /// The times in Meta's webhook, in seconds since 1970, and its duration. The record contains
    /// them in addition to Offhook's own.
    pub start_time: Option<i64>,
    pub end_time: Option<i64>,
    pub duration_secs: Option<u64>,
    /// The code of the first entry in `errors[]`.
    pub error_code: Option<i64>,
}
