//! The media path: few UDP ports, shards that own them, legs as values, sound as frames.
//!
//! A call holds a [`LegHandle`]; its leg lives in one shard thread, which posts [`LegEvent`]s and never calls
//! back. Nothing here knows a call, a document or Meta. `prompt` holds ready Opus frames that calls share.

pub mod dtmf;
pub mod player;
pub mod prompt;
pub mod sdp;

use crate::call::machine::{MediaFact, PlayId};
use crate::model::Digit;

/// What a leg reports, to the [`EventSink`] it was made with.
#[derive(Clone, Debug, PartialEq)]
pub enum LegEvent {
    Fact(MediaFact),
    PlayStarted(PlayId),
    Played(PlayId),
    PlayFailed { play: PlayId, item: u16, reason: String },
    Digit(Digit),
    DigitsSent(PlayId),
}

/// Where a leg's events go. Called on a shard thread: must not block.
pub type EventSink = std::sync::Arc<dyn Fn(LegEvent) + Send + Sync>;
