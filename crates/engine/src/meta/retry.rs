//! When a request about a call is tried again (`meta-calling.md` §4.7, R6). Pure: the dice and the time come in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::error::{Again, Trouble};
use super::types::Action;

/// Why a try brought no final answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No connection: nothing was sent.
    Unreachable,
    /// No answer in time: the deed may have been done.
    Timeout,
    /// The connection broke after the request: the deed may have been done.
    Broken,
    /// An answer that is worth another try.
    Answered(Again),
}

/// Pauses before each further try; their number is the number of further tries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `pre_accept`, `accept`.
    pub answering: Vec<Duration>,
    /// `terminate`, `reject`.
    pub ending: Vec<Duration>,
    /// `connect`.
    pub connecting: Vec<Duration>,
    /// The least pause after a rate limit.
    pub rate_floor: Duration,
    /// The longest `Retry-After` that is waited for.
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
    /// How long to wait before another try after `tries` that ended in `fault`; none: it stays at that. `roll` in
    /// 0 … 1 spreads the pause by ± 20 %.
    pub fn pause(&self, action: Action, tries: usize, fault: Fault, roll: f64) -> Option<Duration> {
        let pauses = match action {
            Action::PreAccept | Action::Accept => &self.answering,
            Action::Reject | Action::Terminate => &self.ending,
            Action::Connect if !may_connect_again(fault) => return None,
            Action::Connect => &self.connecting,
        };
        self.pause_of(pauses, tries, fault, roll)
    }

    /// The same of a request about no call (§4.7): one that asks is tried again wherever that may help; one that does
    /// something, `deed`, only where it was not done for sure.
    pub fn pause_of_question(
        &self,
        deed: bool,
        tries: usize,
        fault: Fault,
        roll: f64,
    ) -> Option<Duration> {
        if deed && matches!(fault, Fault::Timeout | Fault::Broken) {
            return None;
        }
        self.pause_of(&self.answering, tries, fault, roll)
    }

    fn pause_of(
        &self,
        pauses: &[Duration],
        tries: usize,
        fault: Fault,
        roll: f64,
    ) -> Option<Duration> {
        let pause = pauses.get(tries.checked_sub(1)?)?.mul_f64(0.8 + 0.4 * roll.clamp(0.0, 1.0));
        let Fault::Answered(again) = fault else { return Some(pause) };
        if again.once && tries > 1 {
            return None;
        }
        let floor = match again.trouble {
            Trouble::Rate { .. } => self.rate_floor,
            Trouble::Server { .. } => Duration::ZERO,
        };
        let asked = again.after.unwrap_or_default().min(self.retry_after_max);
        Some(pause.max(asked).max(floor))
    }
}

/// A call that may exist already is not made a second time.
fn may_connect_again(fault: Fault) -> bool {
    match fault {
        Fault::Unreachable => true,
        Fault::Timeout | Fault::Broken => false,
        Fault::Answered(again) => match again.trouble {
            Trouble::Rate { .. } => true,
            // 138004 is tried once more, and so is 503.
            Trouble::Server { status } => again.once || status == 503,
        },
    }
}

/// Retries over the last ten seconds: at most a tenth of the requests, but ten always pass (R6).
///
/// Both count when they go out, so that it holds as Graph sees it, and for the whole node: Graph is one service, and
/// what it is spared is what all numbers together would ask. A call's end that is asked for anew (§4.7's reaper) is a
/// request of its own.
#[derive(Debug)]
pub struct Budget {
    origin: Instant,
    /// By tenth of a second; a place that is not of the last ten seconds counts as empty.
    tenths: [Tenth; WINDOW_TENTHS as usize],
    /// When the retries of the last ten seconds were made: no more than the bound allows.
    retries: VecDeque<Instant>,
}

/// Requests begun in one tenth of a second.
#[derive(Clone, Copy, Debug, Default)]
struct Tenth {
    number: u128,
    requests: usize,
}

const WINDOW: Duration = Duration::from_secs(10);
const WINDOW_TENTHS: u128 = 100;

impl Budget {
    /// Retries that pass in ten seconds whatever the number of requests.
    const FREE: usize = 10;

    /// An empty budget; `origin` is any instant before the first request.
    pub fn new(origin: Instant) -> Self {
        Self {
            origin,
            tenths: [Tenth::default(); WINDOW_TENTHS as usize],
            retries: VecDeque::new(),
        }
    }

    /// Notes a first try, as it goes out.
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

    /// Whether a retry may go out at `now`; notes it if so.
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

    /// Whether a retry could go out at `then`, now or later, as things stand.
    pub fn has_room(&self, then: Instant) -> bool {
        let number = self.number(then);
        // Those that lie in the window whole: never more than there were.
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

    fn all(action: Action, fault: Fault, roll: f64) -> Vec<u128> {
        let policy = Policy::default();
        millis(&(1..10).map(|tries| policy.pause(action, tries, fault, roll)).collect::<Vec<_>>())
    }

    fn answered(trouble: Trouble, once: bool, after: Option<u64>) -> Fault {
        Fault::Answered(Again { trouble, once, after: after.map(Duration::from_secs) })
    }

    #[test]
    fn r06_tries_and_pauses_of_each_action() {
        let busy = answered(Trouble::Server { status: 503 }, false, None);
        for fault in [Fault::Unreachable, Fault::Timeout, Fault::Broken, busy] {
            assert_eq!(all(Action::Accept, fault, 0.5), [200, 600], "{fault:?}");
            assert_eq!(all(Action::PreAccept, fault, 0.0), [160, 480], "{fault:?}");
            assert_eq!(
                all(Action::Terminate, fault, 0.5),
                [200, 1_000, 3_000, 10_000],
                "{fault:?}"
            );
            assert_eq!(all(Action::Reject, fault, 1.0), [240, 1_200, 3_600, 12_000], "{fault:?}");
        }
        assert_eq!(all(Action::Connect, Fault::Unreachable, 0.5), [500]);
        assert_eq!(all(Action::Connect, busy, 0.5), [500]);
        assert_eq!(
            all(Action::Connect, answered(Trouble::Server { status: 500 }, true, None), 0.5),
            [500]
        );
        for never in
            [Fault::Timeout, Fault::Broken, answered(Trouble::Server { status: 500 }, false, None)]
        {
            assert_eq!(all(Action::Connect, never, 0.5), [0; 0], "{never:?}: the call may exist");
        }
    }

    #[test]
    fn r06_questions_are_asked_again_and_deeds_only_where_nothing_was_done() {
        let policy = Policy::default();
        let tries = |deed, fault| {
            millis(&[1, 2, 3].map(|tries| policy.pause_of_question(deed, tries, fault, 0.5)))
        };
        let busy = answered(Trouble::Server { status: 503 }, false, None);
        let rate = answered(Trouble::Rate { code: 613 }, false, None);
        for deed in [false, true] {
            assert_eq!(tries(deed, Fault::Unreachable), [200, 600]);
            assert_eq!(tries(deed, busy), [200, 600]);
            assert_eq!(tries(deed, rate), [1_000, 1_000]);
        }
        for fault in [Fault::Timeout, Fault::Broken] {
            assert_eq!(tries(false, fault), [200, 600]);
            assert_eq!(tries(true, fault), [0; 0]);
        }
    }

    #[test]
    fn r06_rate_limits_wait_a_second_and_retry_after_up_to_two() {
        let rate = |once, after| answered(Trouble::Rate { code: 4 }, once, after);
        assert_eq!(all(Action::Accept, rate(false, None), 0.5), [1_000, 1_000]);
        assert_eq!(all(Action::Accept, rate(true, None), 0.5), [1_000], "138005: once");
        assert_eq!(all(Action::Accept, rate(false, Some(2)), 0.5), [2_000, 2_000]);
        assert_eq!(all(Action::Accept, rate(false, Some(3_600)), 0.5), [2_000, 2_000]);
        assert_eq!(
            all(Action::Terminate, rate(false, Some(2)), 0.5),
            [2_000, 2_000, 3_000, 10_000]
        );
        assert_eq!(
            all(Action::Accept, answered(Trouble::Server { status: 503 }, false, Some(1)), 0.5),
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
    fn r06_in_no_ten_seconds_more_than_ten_or_a_tenth_wherever_they_begin() {
        let clock = Clock::stepped(Timestamp::from_secs(0));
        let mut budget = Budget::new(clock.now());
        let (mut requests, mut retries) = (Vec::new(), Vec::new());
        // Every 70 ms two retries are wished for; in between there are busy times.
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
