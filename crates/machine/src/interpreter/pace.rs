//! Limits how fast a call executes documents and their elements (docs/reference/xml.md#loops).
//!
//! Each costs processor time, space in the event log and perhaps requests. Without a limit, a
//! document of elements that end immediately could take them from other calls.

use crate::activity::{Activity, Completion, Env, Progress, StopReason};
use crate::contract::CallTime;
use crate::snapshot::{SnapshotBuilder, text, word};
use crate::timers::DocumentTimer;

/// How fast a call may do something.
struct Rate {
    /// The number that it may do at once.
    burst: u64,
    /// The time that each takes after that, in milliseconds.
    each_ms: u64,
}

/// 200 elements at once, then 20 a second.
const ELEMENTS: Rate = Rate { burst: 200, each_ms: 50 };
/// 200 documents of up to 4 KiB at once, then two a second.
const DOCUMENTS: Rate = Rate { burst: 200, each_ms: 500 };
/// Number of bytes of a document that count as one, because they are read and logged.
const DOCUMENT_BYTES: usize = 4 << 10;

/// What a call has executed recently.
#[derive(Debug, Default)]
pub(super) struct Pace {
    elements: Used,
    documents: Used,
    /// Whether the call has had to wait.
    has_waited: bool,
}

/// The time at which everything so far would have ended at the sustained rate.
#[derive(Clone, Copy, Debug, Default)]
struct Used(CallTime);

impl Used {
    /// Returns this after `count` more.
    fn after(self, now: CallTime, count: u64, rate: &Rate) -> Self {
        let time = count.min(rate.burst) * rate.each_ms;
        Self(CallTime(self.0.max(now).0.saturating_add(time)))
    }

    /// Returns the number of milliseconds after which this is within the rate.
    fn excess_ms(self, now: CallTime, rate: &Rate) -> u64 {
        self.0.0.saturating_sub(now.0.saturating_add(rate.burst * rate.each_ms))
    }
}

impl Pace {
    /// Counts an element that is as expensive as `cost` simple ones. Returns the number of
    /// milliseconds to wait before it must be counted again, or `None` if it may be executed now.
    pub(super) fn wait_for(&mut self, now: CallTime, cost: u64) -> Option<u64> {
        let elements = self.elements.after(now, cost, &ELEMENTS);
        let excess = elements.excess_ms(now, &ELEMENTS);
        let wait_ms = excess.max(self.documents.excess_ms(now, &DOCUMENTS));
        if wait_ms > 0 {
            return Some(wait_ms);
        }
        self.elements = elements;
        None
    }

    /// Counts a document of this many bytes. Its elements wait if there were too many.
    pub(super) fn note_document(&mut self, now: CallTime, bytes: usize) {
        let count = u64::try_from(bytes.div_ceil(DOCUMENT_BYTES)).unwrap_or(u64::MAX);
        self.documents = self.documents.after(now, count, &DOCUMENTS);
    }

    /// Returns `true` the first time.
    pub(super) fn begins_to_wait(&mut self) -> bool {
        !std::mem::replace(&mut self.has_waited, true)
    }
}

/// Waits until the next element may be executed.
pub(super) struct PaceWait;

impl Activity for PaceWait {
    fn timer(&mut self, _: &mut Env<'_>, timer: DocumentTimer) -> Progress {
        match timer {
            DocumentTimer::Pace => Progress::Finished(Completion::done("")),
            _ => Progress::Pending,
        }
    }

    fn stop(&mut self, env: &mut Env<'_>, _: StopReason) {
        env.ctx.timers.clear(DocumentTimer::Pace);
    }

    fn write_snapshot(&self, snapshot: &mut SnapshotBuilder) {
        snapshot.add("waits_for", [word("pace"), text("")]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_burst_twenty_elements_a_second_are_executed() {
        let mut pace = Pace::default();
        let now = CallTime(7_000);
        assert_eq!((0..200).filter_map(|_| pace.wait_for(now, 1)).count(), 0);
        assert_eq!(pace.wait_for(now, 1), Some(50));
        assert_eq!(pace.wait_for(now, 20), Some(1_000));
        let later = CallTime(now.0 + 50);
        assert_eq!((pace.wait_for(later, 1), pace.wait_for(later, 1)), (None, Some(50)));
        // Everything is forgotten after ten seconds.
        let later = CallTime(later.0 + 10_000);
        assert_eq!((0..=200).filter_map(|_| pace.wait_for(later, 1)).count(), 1);
        assert!(pace.begins_to_wait() && !pace.begins_to_wait());
    }

    #[test]
    fn after_a_burst_two_documents_a_second_are_executed() {
        let mut pace = Pace::default();
        let now = CallTime(7_000);
        (0..200).for_each(|_| pace.note_document(now, 4_096));
        assert_eq!(pace.wait_for(now, 1), None);
        pace.note_document(now, 100);
        assert_eq!(pace.wait_for(now, 1), Some(500));
        let later = CallTime(now.0 + 500);
        assert_eq!(pace.wait_for(later, 1), None);
        pace.note_document(later, 100_000);
        assert_eq!(pace.wait_for(later, 1), Some(25 * 500));
    }
}
