//! Computes when a shard's next tick is due and whether it is late. The waiting itself is done by
//! the thread.
//!
//! Tick n is due n × 5 ms after the start, even if earlier ticks took long, so that small delays do
//! not accumulate. Missed ticks of up to 200 ms are run immediately.

use std::time::{Duration, Instant};

/// Interval of ticks. A leg has one tick out of [`SLOTS`], every 20 ms.
pub(super) const TICK: Duration = Duration::from_millis(5);
/// Number of ticks over which the legs are distributed. Each leg has every fourth tick.
pub(super) const SLOTS: usize = 4;
/// Delay above which a tick counts as late.
const LATE: Duration = Duration::from_millis(20);
/// Maximum time for which missed ticks are run later, ten packets per leg. Older ones are skipped.
const CATCH_UP_MAX: Duration = Duration::from_millis(200);

/// The schedule of a shard's ticks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticker {
    due: Instant,
    slot: usize,
}

/// A tick that has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tick {
    pub(super) slot: usize,
    pub(super) late: bool,
}

impl Ticker {
    /// Creates a schedule whose first tick is due at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self { due: now, slot: 0 }
    }

    /// Returns the time until the next tick, or `None` if it is due.
    pub(super) fn time_until_due(&self, now: Instant) -> Option<Duration> {
        self.due.checked_duration_since(now).filter(|d| !d.is_zero())
    }

    /// Skips the next ticks as long as `is_empty` returns true for their slots.
    pub(super) fn skip(&mut self, is_empty: impl Fn(usize) -> bool) {
        for _ in 1..SLOTS {
            if !is_empty(self.slot) {
                return;
            }
            self.due += TICK;
            self.slot = (self.slot + 1) % SLOTS;
        }
    }

    /// Restores the skipped ticks that are not yet due.
    pub(super) fn unskip(&mut self, now: Instant) {
        while let Some(earlier) = self.due.checked_sub(TICK).filter(|earlier| *earlier > now) {
            self.due = earlier;
            self.slot = (self.slot + SLOTS - 1) % SLOTS;
        }
    }

    /// Returns the slot of the first tick that is due at `from` or later.
    pub(super) fn slot_from(&self, from: Instant) -> usize {
        let wait = from.saturating_duration_since(self.due);
        let ticks = wait.as_nanos().div_ceil(TICK.as_nanos());
        (self.slot + usize::try_from(ticks).unwrap_or_default()) % SLOTS
    }

    /// Starts the tick that is due.
    pub(super) fn start_tick(&mut self, now: Instant) -> Tick {
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

    use super::{SLOTS, Ticker};
    use model::Clock;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn delays_do_not_accumulate() {
        let start = Clock::real().now();
        let mut ticker = Ticker::new(start);
        let mut now = start;
        let mut late = 0;
        // Each wake-up is 0 to 12 ms late, for ten minutes.
        for n in 0..120_000u32 {
            if let Some(wait) = ticker.time_until_due(now) {
                now += wait + MS * (n * 7 % 13);
            }
            let tick = ticker.start_tick(now);
            assert_eq!(tick.slot, n as usize % SLOTS);
            late += u32::from(tick.late);
        }
        let (expected, actual) = (MS * 600_000, now - start);
        assert!(actual >= expected - MS * 5 && actual <= expected + MS * 15, "{actual:?}");
        assert_eq!(late, 0);
    }

    #[test]
    fn late_ticks_are_counted_and_made_up_for() {
        let start = Clock::real().now();
        let mut ticker = Ticker::new(start);
        assert!(!ticker.start_tick(start).late);
        let now = start + MS * 55;
        let mut made_up = 0;
        let mut late = 0;
        while ticker.time_until_due(now).is_none() {
            late += u32::from(ticker.start_tick(now).late);
            made_up += 1;
        }
        assert_eq!(made_up, 11, "ticks 5 to 55 ms");
        assert_eq!(late, 6, "ticks due at 5 to 30 ms are more than 20 ms late");
        assert_eq!(ticker.time_until_due(now), Some(MS * 5));
    }

    #[test]
    fn ticks_of_empty_slots_are_skipped_until_they_are_taken_back() {
        let start = Clock::real().now();
        let mut ticker = Ticker::new(start);
        assert_eq!(ticker.start_tick(start).slot, 0);
        // One leg, in slot 0.
        ticker.skip(|slot| slot != 0);
        assert_eq!(ticker.time_until_due(start), Some(MS * 20));
        // A second leg came after 7 ms, in slot 2.
        ticker.unskip(start + MS * 7);
        ticker.skip(|slot| slot % 2 == 1);
        assert_eq!(ticker.time_until_due(start), Some(MS * 10));
        assert_eq!(ticker.start_tick(start + MS * 10).slot, 2);
        // All are empty: the next one stays.
        ticker.skip(|_| true);
        assert_eq!(ticker.time_until_due(start), Some(MS * 30));
        ticker.unskip(start + MS * 40);
        assert_eq!(ticker.time_until_due(start), Some(MS * 30));
    }

    #[test]
    fn finds_the_slot_of_a_time() {
        let start = Clock::real().now();
        let ticker = Ticker::new(start + MS * 5);
        for (ms, slot) in [(0, 0), (5, 0), (6, 1), (10, 1), (11, 2), (20, 3), (21, 0)] {
            assert_eq!(ticker.slot_from(start + MS * ms), slot, "{ms} ms");
        }
    }

    #[test]
    fn catches_up_at_most_200_ms() {
        let start = Clock::real().now();
        let mut ticker = Ticker::new(start);
        let now = start + MS * 10_000;
        let mut made_up = 0;
        while ticker.time_until_due(now).is_none() {
            ticker.start_tick(now);
            made_up += 1;
        }
        assert_eq!(made_up, 41, "ten packets per leg, and the one that is due");
    }
}
