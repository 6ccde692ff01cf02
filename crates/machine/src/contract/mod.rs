//! Types that a call's machine and its driver exchange.
//!
//! They need nothing of the machine: [`Input`]s go in, [`Output`]s come out, everything else is part of these.

mod command;
pub(crate) mod dial;
pub(crate) mod display;
mod fetch;
mod graph;
mod input;
mod media;
mod notice;
mod output;
mod param;
mod recognition;
pub(crate) mod recording;
mod room;
mod setup;
mod sound;
mod stream;
pub(crate) mod time;

pub use command::{Command, Legs};
pub use dial::{
    Confirm, Destination, DialError, DialOrder, DialledBy, LegNews, LegWish, RING_MAX_MS,
    header_name,
};
pub use fetch::{FetchFailure, FetchId, FetchKind, Fetched, FirstFault, Refusal};
pub use graph::{GraphAction, GraphOutcome};
pub use input::{Input, PhoneStatus, Termination};
pub use media::{MediaFact, MediaFault, MediaOrder, PlayId, Voice};
pub use notice::{EVENT_BODY, EVENT_TYPE, MPC_END, Notice, NoticeKind};
pub use output::{CallState, InstructionOutcome, Output, Summary};
pub use param::{Param, Params};
pub use recognition::{Listening, RecognitionId, SpeechFact, SpeechOrder};
pub use recording::{
    RecordEnd, RecordFact, RecordId, RecordOrder, TranscriptOrder, recorded, transcribed,
};
pub use room::{
    MemberId, Role, RoomEntry, RoomKind, RoomNews, RoomOut, RoomWish, Seat, TrackNews, lasted,
};
pub use setup::{CallSetup, CallUrls, MachineLimits, Outbound, RoomMusic, placed_for};
pub use sound::{Aside, AsideKind, Sound, SoundItem};
pub use stream::{StreamFact, StreamFormat, StreamOrder, StreamTrack, StreamWish};
pub use time::CallTime;
