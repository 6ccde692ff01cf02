//! The log of the simulated Meta: Graph requests, webhook deliveries, injected faults. It is
//! bounded and drops its oldest lines. Tokens, SDP and whole phone numbers are never logged.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use model::Clock;

/// Maximum number of lines.
const LINES_MAX: usize = 10_000;

/// A line of the log.
#[derive(Clone, Debug, Serialize)]
pub struct LogLine {
    /// Sequence number, from 1. If the first line has a higher one, older lines were dropped.
    pub nr: u64,
    /// RFC 3339 in UTC.
    pub at: String,
    #[serde(flatten)]
    pub event: LogEvent,
}

/// Content of a log line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LogEvent {
    /// A Graph request and its response.
    Graph {
        method: String,
        path: String,
        action: String,
        call_id: String,
        status: u16,
        details: String,
    },
    /// An attempt to deliver a webhook. `status` is 0 if there was no response.
    Webhook { event: String, call_id: String, attempt: u32, status: u16 },
    /// A request that verified the node's webhook endpoint.
    Verification { passed: bool, details: String },
    /// A STUN request that was refused.
    Stun { call_id: String, details: String },
    /// A fault that was injected.
    Fault { call_id: String, details: String },
    /// A notable event of a call's media.
    Media { call_id: String, details: String },
}

/// The log, shared by all parts of the simulator.
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

    pub(crate) fn add(&self, event: LogEvent) {
        tracing::debug!(?event, "simulated meta event");
        let line = LogLine {
            nr: self.next.fetch_add(1, Ordering::Relaxed),
            at: self.clock.wall().rfc3339(),
            event,
        };
        let mut lines = super::locked(&self.lines);
        if lines.len() >= LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// All lines numbered `nr` or higher.
    pub(crate) fn since(&self, nr: u64) -> Vec<LogLine> {
        super::locked(&self.lines).iter().filter(|l| l.nr >= nr).cloned().collect()
    }
}
