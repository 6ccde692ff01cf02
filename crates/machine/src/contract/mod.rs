//! Types that a call's machine and its driver exchange.
//!
//! An [`Input`] is something that happened to a call. An [`Output`] is an action that its machine
//! requests. All other types here are parts of these two. The event log of the call contains them
//! in serialized form, which never changes: a renamed field or variant keeps its old name there
//! through `serde(rename)`.

mod callback;
mod command;
pub(crate) mod dial;
pub(crate) mod display;
mod fetch;
mod graph;
mod input;
mod media;
mod output;
mod param;
mod recognition;
pub(crate) mod recording;
mod room;
mod setup;
mod sound;
mod stream;
pub(crate) mod time;

pub use callback::{CallbackKind, CallbackRequest, EVENT_BODY, EVENT_TYPE, MPC_END};
pub use command::{Command, Legs};
pub use dial::{
    BLegCommand, BLegEvent, BLegSetup, Confirmation, Destination, DialError, DialOrder,
    RING_MAX_MS, sip_header_name,
};
pub use fetch::{FetchFailure, FetchId, FetchKind, FetchResponse, FirstFault, Refusal};
pub use graph::{GraphAction, GraphOutcome};
pub use input::{Input, PhoneStatus, Termination};
pub use media::{MediaCommand, MediaEvent, MediaFault, PlayId, VoiceEvent};
pub use output::{CallState, InstructionOutcome, Output, Summary};
pub use param::{Param, Params};
pub use recognition::{RecognitionId, RecognitionSettings, SpeechCommand, SpeechEvent};
pub use recording::{
    RecordingEndReason, RecordingEvent, RecordingId, RecordingOrder, TranscriptOrder,
    recording_params, transcription_callback,
};
pub use room::{
    LeaveReason, MemberId, ParticipantInfo, Role, RoomCommand, RoomEntry, RoomEvent, RoomKind,
    TrackCommand, set_mpc_duration,
};
pub use setup::{CallSetup, CallUrls, MachineLimits, Outbound, RoomMusic};
pub use sound::{Overlay, OverlayKind, Sound, SoundItem};
pub use stream::{StreamCommand, StreamEvent, StreamFormat, StreamOrder, StreamTrack};
pub use time::CallTime;
