//! The sender that appends to the event logs of calls.

use crate::queue::Queue;
use crate::write::Write;
use model::{CallUuid, metric};

/// Appends lines to the event logs of calls. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EventLog(pub(crate) Queue);

impl EventLog {
    /// Appends a line of JSON, without a newline, as number `seq` of a call's log. Returns at once.
    /// Returns `false` and counts the line if the queue is full.
    pub fn append(&self, call: CallUuid, seq: u64, line: String) -> bool {
        let queued = self.0.offer(Write::LogLine { call, seq, line });
        if !queued {
            metrics::counter!(metric::EVENT_LOG_REFUSED_TOTAL).increment(1);
        }
        queued
    }

    /// Appends a line to the log of a call that may have ended, after every line that the call
    /// itself appends. Returns at once. The line is dropped and counted if the queue is full.
    pub fn append_late(&self, call: CallUuid, line: String) {
        if !self.0.offer(Write::LateLine { call, line }) {
            metrics::counter!(metric::EVENT_LOG_REFUSED_TOTAL).increment(1);
        }
    }
}
