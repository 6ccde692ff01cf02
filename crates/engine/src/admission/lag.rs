//! Detects that tasks start late. Once calls are being refused, late work means that no further
//! call is admitted. If webhooks are late nevertheless, the listener sheds them unread.
//!
//! Lateness is measured by the delay of timer wake-ups, which wait for the processor like all other
//! work. Calls are shed before webhooks: a call costs ten times its rejection, and a webhook that
//! is answered too late is sent again by Meta, which adds to the load.

use std::time::Duration;

/// Distinguishes a standing backlog from a burst. Work is late if *every* wake-up within a period
/// was late: the minimum of the delays counts, not the mean, as in CoDel (RFC 8289 §3.1).
#[derive(Clone, Copy, Debug)]
pub struct Lag {
    /// Wake-ups with a greater delay are late.
    max: Duration,
    /// A queue counts as a backlog once its oldest entry has waited this long.
    backlog: Duration,
    /// Time for which every wake-up has been late.
    late_for: Duration,
    /// Time since the last backlog.
    since: Duration,
}

impl Lag {
    /// Interval between wake-ups while work is late.
    const EVERY: Duration = Duration::from_millis(10);
    /// Interval between wake-ups while work starts in time.
    const EVERY_IN_TIME: Duration = Duration::from_millis(50);
    /// A new backlog within this time after the last one is declared without delay.
    const CALM: Duration = Duration::from_secs(1);
    /// Maximum delay that one wake-up contributes. A machine that was suspended has no backlog.
    const ONE_MAX: Duration = Duration::from_millis(200);
    /// Webhooks per second that are accepted while others are shed. More than the rated 200 per
    /// second.
    const LET_IN_PER_SECOND: u128 = 500;

    fn new(max: Duration, backlog: Duration) -> Self {
        Self { max, backlog, late_for: Duration::ZERO, since: Self::CALM }
    }

    /// The limits for webhooks. They must be answered within 50 ms, and a number's thousand calls
    /// at one instant take less than a second.
    pub fn of_webhooks() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(1))
    }

    /// The limits for calls. A set-up waits for the processor about six times. A thousand calls at
    /// one instant are admitted before this triggers.
    pub fn of_calls() -> Self {
        Self::new(Duration::from_millis(10), Duration::from_millis(400))
    }

    /// Returns the interval until the next wake-up. It is short after a late wake-up and for some
    /// time after a backlog.
    pub fn interval(&self) -> Duration {
        match self.late_for.is_zero() && self.since >= Self::CALM {
            true => Self::EVERY_IN_TIME,
            false => Self::EVERY,
        }
    }

    /// Records a wake-up that was due after `interval` and came after `slept`. Returns whether
    /// there is a backlog.
    pub fn woken(&mut self, interval: Duration, slept: Duration) -> bool {
        // Work was in time at the beginning of a long interval, so only its end counts.
        let slept = slept.saturating_sub(interval.saturating_sub(Self::EVERY));
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

    /// Returns how many webhooks are accepted until the next wake-up while others are shed.
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
    fn r10_a_burst_is_no_backlog_and_one_punctual_wake_up_ends_one() {
        let mut lag = Lag::of_webhooks();
        let mut slept = |ms| {
            let slept = Duration::from_millis(ms);
            lag.woken(Lag::EVERY, slept).then(|| Lag::let_in(slept))
        };
        for ms in [200, 5_000, 61, 1_000, 10, 61, 61, 200, 240, 60] {
            assert_eq!(slept(ms), None, "{ms}");
        }
        for _ in 0..9 {
            assert_eq!(slept(100), None);
        }
        assert_eq!(slept(100), Some(50), "after a second of wake-ups, each 100 ms apart");
        assert_eq!(slept(61), Some(30));
        assert_eq!(slept(60), None, "in time");
        assert_eq!(slept(61), Some(30), "again, without delay");
        for _ in 0..20 {
            assert_eq!(slept(50), None);
        }
        assert_eq!(slept(61), None, "punctual for a second, so a delay is tolerated again");
    }

    #[test]
    fn r10_wake_ups_are_rare_while_they_come_in_time() {
        let mut lag = Lag::of_calls();
        let woken = |lag: &mut Lag, late_ms| {
            let interval = lag.interval();
            lag.woken(interval, interval + Duration::from_millis(late_ms))
        };
        assert!(!woken(&mut lag, 10) && lag.interval() == Lag::EVERY_IN_TIME, "in time");
        for _ in 0..19 {
            assert!(!woken(&mut lag, 11), "a burst");
            assert_eq!(lag.interval(), Lag::EVERY);
        }
        assert!(woken(&mut lag, 11), "the first wake-up counts like the others");
        for _ in 0..99 {
            assert!(!woken(&mut lag, 0));
            assert_eq!(lag.interval(), Lag::EVERY, "a new backlog is to be seen at once");
        }
        assert!(!woken(&mut lag, 0) && lag.interval() == Lag::EVERY_IN_TIME);
    }

    #[test]
    fn r10_calls_are_shed_before_webhooks() {
        let (mut calls, mut webhooks) = (Lag::of_calls(), Lag::of_webhooks());
        let mut slept = |ms| {
            [&mut calls, &mut webhooks].map(|lag| lag.woken(Lag::EVERY, Duration::from_millis(ms)))
        };
        for _ in 0..19 {
            assert_eq!(slept(21), [false, false], "a burst");
        }
        assert_eq!(slept(21), [true, false]);
        assert_eq!(slept(20), [false, false], "in time");
        assert_eq!(slept(21), [true, false], "again, without delay");
    }
}
