//! Limits how fast the elements of a document are executed (docs/reference/xml.md#loops).
//!
//! Each element costs processor time, lines in the event log and perhaps callbacks. Without a
//! limit, a document of elements that end immediately could take them from other calls.

use crate::activity::{Activity, Completion, Env, Progress, StopReason};
use crate::contract::CallTime;
use crate::snapshot::{SnapshotBuilder, text, word};
use crate::timers::Timer;

/// Time that an element takes at the sustained rate, in milliseconds: 20 elements a second.
const ELEMENT_MS: u64 = 50;
/// Number of elements that a call may execute at once.
const BURST: u64 = 200;

/// The elements that a call has executed recently.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The time at which the elements so far would have ended at the sustained rate.
    used_until: CallTime,
    /// Whether the call has had to wait.
    has_waited: bool,
}

impl Pace {
    /// Counts an element that is as expensive as `cost` simple ones. Returns the number of
    /// milliseconds to wait before it must be counted again, or `None` if it may be executed now.
    pub(super) fn wait_for(&mut self, now: CallTime, cost: u64) -> Option<u64> {
        let time = cost.min(BURST) * ELEMENT_MS;
        let until = self.used_until.max(now).0.saturating_add(time);
        let latest = now.0.saturating_add(BURST * ELEMENT_MS);
        if until > latest {
            return Some(until - latest);
        }
        self.used_until = CallTime(until);
        None
    }

    /// Returns `true` the first time.
    pub(super) fn begins_to_wait(&mut self) -> bool {
        !std::mem::replace(&mut self.has_waited, true)
    }
}

/// Waits until the next element may be executed.
pub(super) struct PaceWait;

impl Activity for PaceWait {
    fn timer(&mut self, _: &mut Env<'_>, timer: Timer) -> Progress {
        match timer {
            Timer::Pace => Progress::Finished(Completion::done("")),
            _ => Progress::Pending,
        }
    }

    fn stop(&mut self, env: &mut Env<'_>, _: StopReason) {
        env.ctx.timers.clear(Timer::Pace);
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
        assert_eq!((0..BURST).filter_map(|_| pace.wait_for(now, 1)).count(), 0);
        assert_eq!(pace.wait_for(now, 1), Some(ELEMENT_MS));
        assert_eq!(pace.wait_for(now, 20), Some(20 * ELEMENT_MS));
        let later = CallTime(now.0 + ELEMENT_MS);
        assert_eq!((pace.wait_for(later, 1), pace.wait_for(later, 1)), (None, Some(ELEMENT_MS)));
        // Everything is forgotten after ten seconds.
        let later = CallTime(later.0 + BURST * ELEMENT_MS);
        assert_eq!((0..=BURST).filter_map(|_| pace.wait_for(later, 1)).count(), 1);
        assert!(pace.begins_to_wait() && !pace.begins_to_wait());
    }
}
