//! Whether work as such begins late, so that webhooks are answered late whatever is in them; then the door sheds.
//!
//! Told from how late a waker comes: it stands in the same line as everything else that the processor is wanted for.

use std::time::Duration;

/// Tells a lasting backlog from a burst: work is late when *every* waking of a while was (the idea of CoDel,
/// RFC 8289 §3.1: the least of the delays, not their mean).
#[derive(Clone, Copy, Debug)]
pub struct Lag {
    /// How long every waking has been late.
    late_for: Duration,
    /// How long ago the door shed.
    shed: Duration,
}

impl Default for Lag {
    fn default() -> Self {
        Self { late_for: Duration::ZERO, shed: Self::CALM }
    }
}

impl Lag {
    /// Between two wakings.
    pub const EVERY: Duration = Duration::from_millis(10);
    /// Later than that is late: R5 wants webhooks answered within it.
    const MAX: Duration = Duration::from_millis(50);
    /// Late for that long is a backlog: the webhooks of a number's thousand calls at one instant take less.
    const BACKLOG: Duration = Duration::from_secs(1);
    /// After shedding there is no such patience, until none was needed for so long.
    const CALM: Duration = Duration::from_secs(1);
    /// What one waking counts for at most: a machine that stood still for a while is no backlog.
    const ONE_MAX: Duration = Duration::from_millis(200);
    /// Webhooks a second that are taken all the same; R5 rates a node at 200.
    const LET_IN_PER_SECOND: u128 = 500;

    /// Notes a waking that came after `slept`; how many webhooks to take until the next one, where the others are to be
    /// shed.
    pub fn woken(&mut self, slept: Duration) -> Option<usize> {
        if slept > Self::EVERY + Self::MAX {
            self.late_for = self.late_for.saturating_add(slept.min(Self::ONE_MAX));
        } else {
            self.late_for = Duration::ZERO;
        }
        let patience = if self.shed < Self::CALM { Duration::from_nanos(1) } else { Self::BACKLOG };
        if self.late_for < patience {
            self.shed = self.shed.saturating_add(slept);
            return None;
        }
        self.shed = Duration::ZERO;
        let let_in = slept.as_millis() * Self::LET_IN_PER_SECOND / 1_000;
        Some(usize::try_from(let_in).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Lag;

    #[test]
    fn r10_a_burst_is_no_backlog_and_one_waking_in_time_ends_one() {
        let mut lag = Lag::default();
        let mut slept = |ms| lag.woken(Duration::from_millis(ms));
        for ms in [200, 5_000, 61, 1_000, 10, 61, 61, 200, 240, 60] {
            assert_eq!(slept(ms), None, "{ms}");
        }
        for _ in 0..9 {
            assert_eq!(slept(100), None);
        }
        assert_eq!(slept(100), Some(50), "after a second of wakings, each 100 ms apart");
        assert_eq!(slept(61), Some(30));
        assert_eq!(slept(60), None, "in time");
        assert_eq!(slept(61), Some(30), "again, and at once");
        for _ in 0..20 {
            assert_eq!(slept(50), None);
        }
        assert_eq!(slept(61), None, "a second in time, and there is patience again");
    }
}
