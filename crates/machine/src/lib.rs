//! The state machine of a call: inputs in, outputs out, no I/O.
//!
//! An [`Input`] is something that happened to the call. An [`Output`] is an action that the call
//! driver of the node performs. [`Machine::handle`] takes an input, [`Machine::poll`] returns the
//! outputs, and [`Machine::poll_timeout`] returns the time of the next timer.
//! [`Machine::step`] does all of it for one input.
//!
//! The machine uses no clock, socket, lock or random number generator. It depends on its inputs and
//! their times alone, and therefore an event log can be replayed ([`replay`]).
//!
//! - `contract` defines inputs, outputs and their types.
//! - `machine` has a file for each state of the call.
//! - `interpreter` runs documents, and `element` has a file for each element.
//! - `activity` is the interface between the interpreter and an instruction that waits.
//! - `context` holds the state that all of these share.

// Input from outside must not make the process panic. Each exception carries an `allow` with a
// reason.
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
pub use machine::{Machine, MachineStep};
pub use orphan::{add_participant_failed, orphan_participant_params, orphan_summary};
pub use snapshot::{Field, Line, SNAPSHOT_FIELDS, Segment};
pub use timers::{DocumentTimer, Timer};
