//! One call, from the offer to the last callback, as a pure state machine.
//!
//! [`Input`]s are facts that have happened; [`Output`]s are wishes, which `call::shell` carries out; `xml`
//! supplies the document walked. No clock, socket, lock or dice here: `call::replay` depends on it.
//!
//! `state` has the call's states, `document` walks a document, `element` has a file an element, `timers` what
//! is waited for, `params` what requests carry (as `param` has it), and `desk` what all of them share.

// Bytes from outside must not make the process panic: where one of these is needed, an `allow` gives the reason.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::as_conversions
    )
)]
#![forbid(unsafe_code)]

mod activity;
mod called_party;
mod conclude;
mod context;
mod contract;
mod digits;
mod element;
mod interpreter;
pub mod log;
mod looped_playlist;
mod machine;
mod orphan;
mod overlays;
mod params;
pub mod replay;
mod room_ringback;
mod snapshot;
mod sounds;
mod stream;
#[cfg(test)]
mod tests;
mod timers;

pub use contract::{
    BLegCommand, BLegEvent, BLegSetup, CallSetup, CallState, CallTime, CallUrls, CallbackKind,
    CallbackRequest, Command, Confirmation, Destination, DialError, DialOrder, EVENT_BODY,
    EVENT_TYPE, FetchFailure, FetchId, FetchKind, FetchResponse, FirstFault, GraphAction,
    GraphOutcome, Input, InstructionOutcome, LeaveReason, Legs, MPC_END, MachineLimits,
    MediaCommand, MediaEvent, MediaFault, MemberId, Outbound, Output, Overlay, OverlayKind, Param,
    Params, ParticipantInfo, PhoneStatus, PlayId, RING_MAX_MS, RecognitionId, RecognitionSettings,
    RecordingEndReason, RecordingEvent, RecordingId, RecordingOrder, Refusal, Role, RoomCommand,
    RoomEntry, RoomEvent, RoomKind, RoomMusic, Sound, SoundItem, SpeechCommand, SpeechEvent,
    StreamCommand, StreamEvent, StreamFormat, StreamOrder, StreamTrack, Summary, Termination,
    TrackCommand, TranscriptOrder, VoiceEvent, recording_params, set_mpc_duration, sip_header_name,
    transcription_callback,
};
pub use machine::Machine;
pub use orphan::{add_participant_failed, orphan_participant_params, orphan_summary};
pub use snapshot::{Field, Line, SNAPSHOT_FIELDS, Segment};
pub use timers::Timer;
