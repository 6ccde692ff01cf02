//! The shard's beat: when the next tick is due, and whether it comes late. Pure; the thread does the waiting.
//!
//! Tick n is due at the start plus n × 5 ms, however long the ones before it took, so that a thousandth of lateness
//! never adds up. A late tick is made up for at once; a machine that stood still does not pay back everything.

use std::time::{Duration, Instant};

/// One tick. [`SLOTS`] of them make a leg's 20 ms.
const TICK: Duration = Duration::from_millis(5);
/// Legs are spread over so many ticks: each leg has every fourth.
pub(super) const SLOTS: usize = 4;
/// A tick that begins this much after its time is late.
const LATE: Duration = Duration::from_millis(20);
/// Ten packets a leg at once are enough; what is owed beyond that stays a gap.
const CATCH_UP_MAX: Duration = Duration::from_millis(200);

/// The beat.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    due: Instant,
    slot: usize,
}

/// A tick that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tick {
    pub(super) slot: usize,
    pub(super) late: bool,
}

impl Pace {
    /// The first tick is due at once.
    pub(super) fn starting(now: Instant) -> Self {
        Self { due: now, slot: 0 }
    }

    /// How long until the next tick; none: it is due.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        self.due.checked_duration_since(now).filter(|d| !d.is_zero())
    }

    /// Begins the tick that is due.
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
        // Each wake-up comes 0 to 12 ms after it was asked for, for ten minutes of beats.
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
