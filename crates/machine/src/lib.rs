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
mod added;
mod aside;
mod callee;
mod conclude;
mod contract;
mod desk;
mod element;
mod keys;
pub mod log;
mod machine;
mod orphan;
mod params;
mod picture;
pub mod replay;
mod round;
mod script;
mod sounds;
mod stream;
#[cfg(test)]
mod tests;
mod timers;

pub use contract::{
    Aside, AsideKind, CallSetup, CallState, CallTime, CallUrls, Command, Confirm, Destination,
    DialError, DialOrder, DialledBy, EVENT_BODY, EVENT_TYPE, FetchFailure, FetchId, FetchKind,
    Fetched, FirstFault, GraphAction, GraphOutcome, Input, InstructionOutcome, LegNews, LegWish,
    Legs, Listening, MPC_END, MachineLimits, MediaFact, MediaFault, MediaOrder, MemberId, Notice,
    NoticeKind, Outbound, Output, Param, Params, PhoneStatus, PlayId, RING_MAX_MS, RecognitionId,
    RecordEnd, RecordFact, RecordId, RecordOrder, Refusal, Role, RoomEntry, RoomKind, RoomMusic,
    RoomNews, RoomOut, RoomWish, Seat, Sound, SoundItem, SpeechFact, SpeechOrder, StreamFact,
    StreamFormat, StreamOrder, StreamTrack, StreamWish, Summary, Termination, TrackNews,
    TranscriptOrder, Voice, header_name, lasted, placed_for, recorded, transcribed,
};
pub use machine::Machine;
pub use orphan::{abandoned, cut_off, not_added};
pub use picture::{FIELDS, Field, Line, Said};
pub use timers::Timer;
