//! Computes when a shard's next tick is due and whether it is late. The thread does the waiting.
//!
//! Tick n is due n × 5 ms after the start, however long earlier ticks took, so that small delays do
//! not accumulate. Late ticks are made up for immediately, but at most 200 ms of them.

use std::time::{Duration, Instant};

/// Interval of ticks. [`SLOTS`] of them are a leg's 20 ms.
const TICK: Duration = Duration::from_millis(5);
/// Legs are distributed over this many ticks; each leg has every fourth.
pub(super) const SLOTS: usize = 4;
/// A tick that starts more than this after its due time is late.
const LATE: Duration = Duration::from_millis(20);
/// Maximum time that is made up for, ten packets per leg. The rest stays a gap.
const CATCH_UP_MAX: Duration = Duration::from_millis(200);

/// The schedule of a shard's ticks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    due: Instant,
    slot: usize,
}

/// A tick that has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tick {
    pub(super) slot: usize,
    pub(super) late: bool,
}

impl Pace {
    /// Creates a schedule whose first tick is due at `now`.
    pub(super) fn starting(now: Instant) -> Self {
        Self { due: now, slot: 0 }
    }

    /// Returns the time until the next tick, or `None` if it is due.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        self.due.checked_duration_since(now).filter(|d| !d.is_zero())
    }

    /// Starts the tick that is due.
    pub(super) fn begin(&mut self, now: Instant) -> Tick {
        let behind = now.saturating_duration_since(self.due);
        let tick = Tick { slot: self.slot, late: behind > LATE };
        self.due += TICK + behind.saturating_sub(CATCH_UP_MAX);
        self.slot = (self.slot + 1) % SLOTS;
        tick
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Pace, SLOTS};
    use model::Clock;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn lateness_never_adds_up() {
        let start = Clock::real().now();
        let mut pace = Pace::starting(start);
        let mut now = start;
        let mut late = 0;
        // Each wake-up is 0 to 12 ms late, for ten minutes.
        for n in 0..120_000u32 {
            if let Some(wait) = pace.wait(now) {
                now += wait + MS * (n * 7 % 13);
            }
            let tick = pace.begin(now);
            assert_eq!(tick.slot, n as usize % SLOTS);
            late += u32::from(tick.late);
        }
        let (wanted, got) = (MS * 600_000, now - start);
        assert!(got >= wanted - MS * 5 && got <= wanted + MS * 15, "{got:?}");
        assert_eq!(late, 0);
    }

    #[test]
    fn a_late_tick_is_counted_and_made_up_for() {
        let start = Clock::real().now();
        let mut pace = Pace::starting(start);
        assert!(!pace.begin(start).late);
        let now = start + MS * 55;
        let mut made_up = 0;
        let mut late = 0;
        while pace.wait(now).is_none() {
            late += u32::from(pace.begin(now).late);
            made_up += 1;
        }
        assert_eq!(made_up, 11, "ticks 5 to 55 ms");
        assert_eq!(late, 6, "those due 5 to 30 ms: more than 20 ms after their time");
        assert_eq!(pace.wait(now), Some(MS * 5));
    }

    #[test]
    fn a_machine_that_stood_still_pays_back_a_fifth_of_a_second() {
        let start = Clock::real().now();
        let mut pace = Pace::starting(start);
        let now = start + MS * 10_000;
        let mut made_up = 0;
        while pace.wait(now).is_none() {
            pace.begin(now);
            made_up += 1;
        }
        assert_eq!(made_up, 41, "ten packets a leg, and the one that is due");
    }
}
