//! Requests of the REST API about a live call.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::recording::RecordingOrder;
use super::sound::{Overlay, OverlayKind};
use super::stream::StreamOrder;
use model::StreamId;
use xml::ast::Target;

/// A request of the REST API about a live call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Ends the call.
    Hangup,
    /// Replaces the document of the named legs. A leg that is not named is hung up
    /// (docs/reference/rest.md#transfer).
    Transfer {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        aleg: Option<Target>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bleg: Option<Target>,
    },
    /// Replaces the document of the call by this one. The running instruction stops immediately.
    Run {
        document: Arc<xml::Document>,
        /// The multi-party call that the document enters, if that already exists.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        room: Option<uuid::Uuid>,
    },
    /// Plays sounds in addition to those of the document. They replace earlier sounds of the same
    /// kind of request (docs/reference/rest.md#play).
    Play {
        legs: Legs,
        #[serde(rename = "aside")]
        overlay: Overlay,
    },
    /// Stops the sounds that requests of this kind play.
    StopPlay {
        #[serde(rename = "what")]
        kind: OverlayKind,
    },
    /// Records the call in the background (docs/reference/rest.md#record-a-call).
    Record {
        order: Box<RecordingOrder>,
        /// The URL to which the end of the recording is reported.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        callback: Option<Target>,
    },
    /// Ends the recording of the call.
    StopRecord,
    /// Sends digits to these legs, after those that are being sent: `0-9 * #`, `w` waits 0.5 s,
    /// `W` waits 1 s.
    SendDigits { legs: Legs, digits: String },
    /// Opens a stream of the call's audio with this id (docs/reference/rest.md#streams).
    Stream { stream: StreamId, order: Box<StreamOrder> },
    /// Ends a stream of the call. Without an id, ends any stream that is open.
    StopStream {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stream: Option<StreamId>,
    },
}

/// The legs that a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Legs {
    A,
    B,
    Both,
}

impl Legs {
    /// Whether the A-leg is among them.
    pub fn has_a(self) -> bool {
        self != Self::B
    }

    /// Whether the B-leg is among them.
    pub fn has_b(self) -> bool {
        self != Self::A
    }
}
