//! Requests over an API.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::recording::RecordOrder;
use super::sound::{Aside, AsideKind};
use super::stream::StreamOrder;
use model::StreamId;
use xml::ast::Target;

/// A request over an API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// `DELETE Call/{uuid}/`.
    Hangup,
    /// Another document takes over on these legs; one that is not named is hung up (`plivo-call-api.md` §2.8).
    Transfer {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        aleg: Option<Target>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bleg: Option<Target>,
    },
    /// This document takes over; what is being carried out stops at once.
    Run {
        document: Arc<xml::Document>,
        /// The multi-party call that it takes this one into, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        room: Option<uuid::Uuid>,
    },
    /// Sounds beside the document's, in place of those that this kind of request had played (§2.10, §2.11).
    Play { legs: Legs, aside: Aside },
    /// No longer.
    StopPlay { what: AsideKind },
    /// Record the call in the background (§2.9). `callback`: told when the file is there.
    Record {
        order: Box<RecordOrder>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        callback: Option<Target>,
    },
    /// No longer.
    StopRecord,
    /// Keys towards these legs, after those that go out already: `0-9 * #`, `w` 0.5 s, `W` 1 s (§2.12).
    SendDigits { legs: Legs, digits: String },
    /// A stream of this call's sound, under this name (§2.13).
    Stream { stream: StreamId, order: Box<StreamOrder> },
    /// No longer; none named: whichever there is.
    StopStream {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stream: Option<StreamId>,
    },
}

/// Which legs a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Legs {
    A,
    B,
    Both,
}

impl Legs {
    /// Whether the first leg is among them.
    pub fn has_a(self) -> bool {
        self != Self::B
    }
    /// Whether a leg that a `Dial` made is among them.
    pub fn has_b(self) -> bool {
        self != Self::A
    }
}
