//! The retry rules for requests about calls (`docs/reference/meta.md#retries`). Pure: randomness
//! and time are parameters.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::error::{Retryable, TemporaryFailure};
use machine::GraphAction;

/// The reason why an attempt has no final answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No connection was established, so no request was sent.
    Unreachable,
    /// No answer arrived in time. The request may have taken effect.
    Timeout,
    /// The connection broke after the request was sent. The request may have taken effect.
    Broken,
    /// An answer that allows a retry.
    Answered(Retryable),
}

/// The pauses before the retries. Their number is the number of retries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The pauses for `pre_accept` and `accept`.
    pub answering: Vec<Duration>,
    /// The pauses for `terminate` and `reject`.
    pub ending: Vec<Duration>,
    /// The pauses for `connect`.
    pub connecting: Vec<Duration>,
    /// The shortest pause after a rate limit.
    pub rate_floor: Duration,
    /// The largest `Retry-After` that is honoured.
    pub retry_after_max: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        let pauses = |millis: &[u64]| millis.iter().copied().map(Duration::from_millis).collect();
        Self {
            answering: pauses(&[200, 600]),
            ending: pauses(&[200, 1_000, 3_000, 10_000]),
            connecting: pauses(&[500]),
            rate_floor: Duration::from_secs(1),
            retry_after_max: Duration::from_secs(2),
        }
    }
}

impl Policy {
    /// The pause before the next attempt, after `tries` of which the last ended in `fault`. `None`
    /// if no further attempt is allowed. `jitter`, between 0 and 1, varies the pause by ±20 %.
    pub fn pause(
        &self,
        action: GraphAction,
        tries: usize,
        fault: Fault,
        jitter: f64,
    ) -> Option<Duration> {
        let pauses = match action {
            GraphAction::PreAccept | GraphAction::Accept => &self.answering,
            GraphAction::Reject | GraphAction::Terminate => &self.ending,
            GraphAction::Connect if !may_connect_again(fault) => return None,
            GraphAction::Connect => &self.connecting,
        };
        self.pause_of(pauses, tries, fault, jitter)
    }

    /// Like [`Policy::pause`], for a request that is not about a call. A request with a side effect
    /// (`has_effect`) is retried only if it certainly had none.
    pub fn pause_of_request(
        &self,
        has_effect: bool,
        tries: usize,
        fault: Fault,
        jitter: f64,
    ) -> Option<Duration> {
        if has_effect && matches!(fault, Fault::Timeout | Fault::Broken) {
            return None;
        }
        self.pause_of(&self.answering, tries, fault, jitter)
    }

    fn pause_of(
        &self,
        pauses: &[Duration],
        tries: usize,
        fault: Fault,
        jitter: f64,
    ) -> Option<Duration> {
        let pause = pauses.get(tries.checked_sub(1)?)?.mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0));
        let Fault::Answered(again) = fault else { return Some(pause) };
        if again.once && tries > 1 {
            return None;
        }
        let floor = match again.trouble {
            TemporaryFailure::Rate { .. } => self.rate_floor,
            TemporaryFailure::Server { .. } => Duration::ZERO,
        };
        let asked = again.after.unwrap_or_default().min(self.retry_after_max);
        Some(pause.max(asked).max(floor))
    }
}

/// Returns whether a `connect` may be retried. A call that may already exist must not be created a
/// second time.
fn may_connect_again(fault: Fault) -> bool {
    match fault {
        Fault::Unreachable => true,
        Fault::Timeout | Fault::Broken => false,
        Fault::Answered(again) => match again.trouble {
            TemporaryFailure::Rate { .. } => true,
            // Code 138004 is retried once; so is status 503.
            TemporaryFailure::Server { status, .. } => again.once || status == 503,
        },
    }
}

/// Limits the retries of the last ten seconds to a tenth of the requests, but always allows ten.
///
/// Requests and retries count when they are sent, so the limit holds from Graph's point of view. It
/// applies to the whole node, because Graph is one service for all numbers. Repeating the end of a
/// call after all its retries failed counts as a new request.
#[derive(Debug)]
pub struct Budget {
    origin: Instant,
    /// The requests by tenth of a second. Entries older than ten seconds count as empty.
    tenths: [Tenth; WINDOW_TENTHS as usize],
    /// The times of the retries in the last ten seconds. The limit bounds its length.
    retries: VecDeque<Instant>,
}

/// The requests begun within a tenth of a second.
#[derive(Clone, Copy, Debug, Default)]
struct Tenth {
    number: u128,
    requests: usize,
}

const WINDOW: Duration = Duration::from_secs(10);
const WINDOW_TENTHS: u128 = 100;

impl Budget {
    /// The retries allowed in ten seconds, however few requests there are.
    const FREE: usize = 10;

    /// Creates an empty budget. `origin` is any instant before the first request.
    pub fn new(origin: Instant) -> Self {
        Self {
            origin,
            tenths: [Tenth::default(); WINDOW_TENTHS as usize],
            retries: VecDeque::new(),
        }
    }

    /// Records a first attempt when it is sent.
    pub fn request(&mut self, now: Instant) {
        let number = self.number(now);
        let place = usize::try_from(number % WINDOW_TENTHS).unwrap_or_default();
        if let Some(tenth) = self.tenths.get_mut(place) {
            if tenth.number != number {
                *tenth = Tenth { number, requests: 0 };
            }
            tenth.requests += 1;
        }
    }

    /// Returns whether a retry may be sent at `now`, and records it if so.
    pub fn retry(&mut self, now: Instant) -> bool {
        while self
            .retries
            .front()
            .is_some_and(|made| now.saturating_duration_since(*made) >= WINDOW)
        {
            self.retries.pop_front();
        }
        let allowed = self.has_room(now);
        if allowed {
            self.retries.push_back(now);
        }
        allowed
    }

    /// Returns whether the budget would allow a retry at `then` if no other request were sent until
    /// then.
    pub fn has_room(&self, then: Instant) -> bool {
        let number = self.number(then);
        // Only tenths that lie completely in the window count, so the sum is never too large.
        let recent =
            self.tenths.iter().filter(|tenth| number - tenth.number.min(number) < WINDOW_TENTHS);
        let requests: usize = recent.map(|tenth| tenth.requests).sum();
        let retries = self
            .retries
            .iter()
            .rev()
            .take_while(|made| then.saturating_duration_since(**made) < WINDOW);
        retries.count() < Self::FREE.max(requests / 10)
    }

    fn number(&self, now: Instant) -> u128 {
        now.saturating_duration_since(self.origin).as_millis() / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Clock;
    use model::Timestamp;

    fn millis(pauses: &[Option<Duration>]) -> Vec<u128> {
        pauses.iter().map_while(|p| p.map(|p| p.as_millis())).collect()
    }

    fn all(action: GraphAction, fault: Fault, jitter: f64) -> Vec<u128> {
        let policy = Policy::default();
        millis(&(1..10).map(|tries| policy.pause(action, tries, fault, jitter)).collect::<Vec<_>>())
    }

    fn answered(trouble: TemporaryFailure, once: bool, after: Option<u64>) -> Fault {
        Fault::Answered(Retryable { trouble, once, after: after.map(Duration::from_secs) })
    }

    #[test]
    fn r06_tries_and_pauses_of_each_action() {
        let busy = answered(TemporaryFailure::Server { status: 503, code: 0 }, false, None);
        for fault in [Fault::Unreachable, Fault::Timeout, Fault::Broken, busy] {
            assert_eq!(all(GraphAction::Accept, fault, 0.5), [200, 600], "{fault:?}");
            assert_eq!(all(GraphAction::PreAccept, fault, 0.0), [160, 480], "{fault:?}");
            assert_eq!(
                all(GraphAction::Terminate, fault, 0.5),
                [200, 1_000, 3_000, 10_000],
                "{fault:?}"
            );
            assert_eq!(
                all(GraphAction::Reject, fault, 1.0),
                [240, 1_200, 3_600, 12_000],
                "{fault:?}"
            );
        }
        assert_eq!(all(GraphAction::Connect, Fault::Unreachable, 0.5), [500]);
        assert_eq!(all(GraphAction::Connect, busy, 0.5), [500]);
        assert_eq!(
            all(
                GraphAction::Connect,
                answered(TemporaryFailure::Server { status: 500, code: 0 }, true, None),
                0.5
            ),
            [500]
        );
        for never in [
            Fault::Timeout,
            Fault::Broken,
            answered(TemporaryFailure::Server { status: 500, code: 0 }, false, None),
        ] {
            assert_eq!(
                all(GraphAction::Connect, never, 0.5),
                [0; 0],
                "{never:?}: the call may exist"
            );
        }
    }

    #[test]
    fn r06_retries_requests_with_effects_only_if_nothing_was_done() {
        let policy = Policy::default();
        let tries = |has_effect, fault| {
            millis(&[1, 2, 3].map(|tries| policy.pause_of_request(has_effect, tries, fault, 0.5)))
        };
        let busy = answered(TemporaryFailure::Server { status: 503, code: 0 }, false, None);
        let rate = answered(TemporaryFailure::Rate { code: 613 }, false, None);
        for has_effect in [false, true] {
            assert_eq!(tries(has_effect, Fault::Unreachable), [200, 600]);
            assert_eq!(tries(has_effect, busy), [200, 600]);
            assert_eq!(tries(has_effect, rate), [1_000, 1_000]);
        }
        for fault in [Fault::Timeout, Fault::Broken] {
            assert_eq!(tries(false, fault), [200, 600]);
            assert_eq!(tries(true, fault), [0; 0]);
        }
    }

    #[test]
    fn r06_rate_limits_wait_a_second_and_retry_after_up_to_two() {
        let rate = |once, after| answered(TemporaryFailure::Rate { code: 4 }, once, after);
        assert_eq!(all(GraphAction::Accept, rate(false, None), 0.5), [1_000, 1_000]);
        assert_eq!(all(GraphAction::Accept, rate(true, None), 0.5), [1_000], "138005: once");
        assert_eq!(all(GraphAction::Accept, rate(false, Some(2)), 0.5), [2_000, 2_000]);
        assert_eq!(all(GraphAction::Accept, rate(false, Some(3_600)), 0.5), [2_000, 2_000]);
        assert_eq!(
            all(GraphAction::Terminate, rate(false, Some(2)), 0.5),
            [2_000, 2_000, 3_000, 10_000]
        );
        assert_eq!(
            all(
                GraphAction::Accept,
                answered(TemporaryFailure::Server { status: 503, code: 0 }, false, Some(1)),
                0.5
            ),
            [1_000, 1_000]
        );
    }

    #[test]
    fn r06_retries_are_a_tenth_but_ten_always_pass() {
        let clock = Clock::stepped(Timestamp::from_secs(0));
        let mut budget = Budget::new(clock.now());
        let passed = |budget: &mut Budget| (0..1_000).filter(|_| budget.retry(clock.now())).count();
        assert_eq!(passed(&mut budget), 10);
        clock.step(Duration::from_secs(9));
        assert_eq!(passed(&mut budget), 0);
        clock.step(Duration::from_secs(1));
        assert_eq!(passed(&mut budget), 10, "a new window");
        (0..450).for_each(|_| budget.request(clock.now()));
        assert_eq!(passed(&mut budget), 35, "a tenth of 450 less the ten that passed");
        clock.step(Duration::from_secs(1_000));
        assert_eq!(passed(&mut budget), 10, "long after");
    }

    #[test]
    fn r06_limits_retries_in_every_ten_seconds() {
        let clock = Clock::stepped(Timestamp::from_secs(0));
        let mut budget = Budget::new(clock.now());
        let (mut requests, mut retries) = (Vec::new(), Vec::new());
        // Two retries are requested every 70 ms, with busy periods in between.
        for n in 0..1_000u32 {
            clock.step(Duration::from_millis(70));
            let now = clock.now();
            if n % 300 < 120 {
                (0..3).for_each(|_| budget.request(now));
                requests.extend([now; 3]);
            }
            retries.extend((0..2).filter(|_| budget.retry(now)).map(|_| now));
            let within =
                |all: &[Instant]| all.iter().filter(|at| now.duration_since(**at) < WINDOW).count();
            let most = (within(&requests) / 10).max(10);
            let made = within(&retries);
            assert!(made <= most || retries.last() != Some(&now), "{made} of at most {most}");
            assert!(made >= 10 || n < 10, "ten always pass: {made}");
        }
    }
}
