//! Whether work as such begins late: once calls are refused, then no further one is begun; and where that does not help, so
//! that webhooks are answered late whatever is in them, the door sheds.
//!
//! Told from how late a waker comes: it stands in the same line as everything else that the processor is wanted for.
//! Calls give way first: what a call asks for is ten times what its rejection takes, and a reject that waits for longer
//! than Meta does is brought again, which is more work for nothing.

use std::time::Duration;

/// Tells a lasting backlog from a burst: work is late when *every* waking of a while was (the idea of CoDel,
/// RFC 8289 §3.1: the least of the delays, not their mean).
#[derive(Clone, Copy, Debug)]
pub struct Lag {
    /// Later than that is late.
    max: Duration,
    /// Late for that long is a backlog.
    backlog: Duration,
    /// How long every waking has been late.
    late_for: Duration,
    /// How long ago there was a backlog.
    since: Duration,
}

impl Lag {
    /// Between two wakings.
    pub const EVERY: Duration = Duration::from_millis(10);
    /// After a backlog there is no patience with the next one, until there was none for so long.
    const CALM: Duration = Duration::from_secs(1);
    /// What one waking counts for at most: a machine that stood still for a while is no backlog.
    const ONE_MAX: Duration = Duration::from_millis(200);
    /// Webhooks a second that are taken while the others are shed; R5 rates a node at 200.
    const LET_IN_PER_SECOND: u128 = 500;

    fn new(max: Duration, backlog: Duration) -> Self {
        Self { max, backlog, late_for: Duration::ZERO, since: Self::CALM }
    }

    /// Too much for the webhooks: R5 wants them answered within 50 ms, and those of a number's thousand calls at one
    /// instant take less than a second.
    pub fn of_webhooks() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(1))
    }

    /// Too much for a further call: a set-up waits for its turn of the processor half a dozen times. A thousand calls at
    /// one instant are there before it is told.
    pub fn of_calls() -> Self {
        Self::new(Duration::from_millis(10), Duration::from_millis(400))
    }

    /// Notes a waking that came after `slept`; whether there is a backlog.
    pub fn woken(&mut self, slept: Duration) -> bool {
        if slept > Self::EVERY + self.max {
            self.late_for = self.late_for.saturating_add(slept.min(Self::ONE_MAX));
        } else {
            self.late_for = Duration::ZERO;
        }
        let patience = if self.since < Self::CALM { Duration::from_nanos(1) } else { self.backlog };
        let is_backlog = self.late_for >= patience;
        self.since = if is_backlog { Duration::ZERO } else { self.since.saturating_add(slept) };
        is_backlog
    }

    /// How many webhooks are taken until the next waking where the others are shed.
    pub fn let_in(slept: Duration) -> usize {
        let let_in = slept.as_millis() * Self::LET_IN_PER_SECOND / 1_000;
        usize::try_from(let_in).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Lag;

    #[test]
    fn r10_a_burst_is_no_backlog_and_one_waking_in_time_ends_one() {
        let mut lag = Lag::of_webhooks();
        let mut slept = |ms| {
            let slept = Duration::from_millis(ms);
            lag.woken(slept).then(|| Lag::let_in(slept))
        };
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

    #[test]
    fn r10_calls_give_way_before_webhooks_do() {
        let (mut calls, mut webhooks) = (Lag::of_calls(), Lag::of_webhooks());
        let mut slept = |ms| {
            [calls.woken(Duration::from_millis(ms)), webhooks.woken(Duration::from_millis(ms))]
        };
        for _ in 0..19 {
            assert_eq!(slept(21), [false, false], "a burst");
        }
        assert_eq!(slept(21), [true, false]);
        assert_eq!(slept(20), [false, false], "in time");
        assert_eq!(slept(21), [true, false], "again, and at once");
    }
}
