//! What happened at the simulated Meta, with its time: each Graph request, each webhook delivery. Bounded; the oldest
//! lines go first. Tokens, SDP and whole phone numbers never stand in it.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use model::Clock;

/// Lines kept.
const LINES_MAX: usize = 10_000;

/// One line of the log.
#[derive(Clone, Debug, Serialize)]
pub struct LogLine {
    /// Counts from 1; a gap at the front means that old lines were dropped.
    pub nr: u64,
    /// RFC 3339, UTC.
    pub at: String,
    #[serde(flatten)]
    pub what: Logged,
}

/// What a line tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Logged {
    /// A Graph request and its answer.
    Graph {
        method: String,
        path: String,
        action: String,
        call_id: String,
        status: u16,
        details: String,
    },
    /// One attempt to deliver a webhook; `status` 0 is no answer.
    Webhook { event: String, call_id: String, attempt: u32, status: u16 },
    /// A verification request (M1).
    Verification { passed: bool, details: String },
    /// A STUN request that ICE-lite refused (M5).
    Stun { call_id: String, details: String },
    /// A rule of the fault file was carried out.
    Fault { call_id: String, details: String },
    /// Something about a call's media.
    Media { call_id: String, details: String },
}

/// The log; shared.
#[derive(Debug)]
pub(crate) struct SimLog {
    clock: Clock,
    next: AtomicU64,
    lines: Mutex<VecDeque<LogLine>>,
}

impl SimLog {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, next: AtomicU64::new(1), lines: Mutex::default() }
    }

    pub(crate) fn add(&self, what: Logged) {
        tracing::debug!(?what, "simulated meta");
        let line = LogLine {
            nr: self.next.fetch_add(1, Ordering::Relaxed),
            at: self.clock.wall().rfc3339(),
            what,
        };
        let mut lines = super::locked(&self.lines);
        if lines.len() >= LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// All lines from `nr` on.
    pub(crate) fn since(&self, nr: u64) -> Vec<LogLine> {
        super::locked(&self.lines).iter().filter(|l| l.nr >= nr).cloned().collect()
    }
}
