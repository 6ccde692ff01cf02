//! The queue of calls that wait for set-up, and the rule that admits calls to it: a burst waits, a
//! standing backlog is refused.
//!
//! The idea is CoDel's (RFC 8289 §3). A queue that becomes short again and again does its work,
//! however long it gets in between. A queue that never becomes short only adds delay. A burst, such
//! as a number's thousand calls at one instant, is admitted whole. A backlog keeps the queue short
//! until no call has been refused for a while.
//!
//! During a backlog, an account that had few of the recent calls has more places in the queue, so that
//! one account's load does not make the node refuse the calls of others.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::strain::Strain;
use model::{AuthId, WaitMeter, WaitToken};

/// Number of calls that may enter while earlier ones wait too long. All calls that a number may
/// have (1,000 by default) may come at one instant.
pub(super) const BURST: usize = 1_024;
/// A wait up to this long is on time. The caller cannot hear it, and several steps of a set-up take
/// as long.
const TARGET: Duration = Duration::from_millis(10);
/// Number of calls that may always wait. They take a moment and keep the processor busy.
const FEW: usize = 16;
/// Number of calls that may wait after a refusal. During an overload the queue always has this
/// length, and each place delays every call by one set-up. The places between this and [`FEW`] are
/// for accounts with a small share of the calls.
const FEWER: usize = 4;
/// An account with at least this share of the recent calls has only the places of [`FEWER`].
const LARGE_SHARE: f64 = 1.0 / 8.0;
/// Number of recent calls among which an account's share is counted.
const LAST: usize = 64;
/// A queue that was late for this long is a backlog, even if it is short. The webhooks of a burst
/// are read faster than that.
const PATIENCE: Duration = Duration::from_millis(500);
/// After a refusal, the queue is kept short until no call has been refused for this long.
const CALM: Duration = Duration::from_secs(1);

/// The queue and its history. Times are nanoseconds since `origin`.
#[derive(Debug)]
pub(super) struct Backlog {
    origin: Instant,
    line: WaitMeter,
    /// Time at which the queue was last on time.
    in_time: AtomicU64,
    /// Time of the last refusal, or 0 if there was none.
    refused: AtomicU64,
    /// Number of calls admitted since the queue was last on time.
    late: AtomicUsize,
    last: LastAccounts,
}

/// The accounts of the last admitted calls.
#[derive(Debug)]
struct LastAccounts {
    /// Hashes of the accounts. Two accounts with the same hash share their places.
    accounts: [AtomicU32; LAST],
    next: AtomicUsize,
}

impl LastAccounts {
    fn new() -> Self {
        Self { accounts: [const { AtomicU32::new(0) }; LAST], next: AtomicUsize::new(0) }
    }

    fn add(&self, account: u32) {
        let place = self.next.fetch_add(1, Ordering::Relaxed) % LAST;
        if let Some(last) = self.accounts.get(place) {
            last.store(account, Ordering::Relaxed);
        }
    }

    /// The share of this account, from 0 to 1.
    fn share(&self, account: u32) -> f64 {
        let is_same = |last: &&AtomicU32| last.load(Ordering::Relaxed) == account;
        self.accounts.iter().filter(is_same).count() as f64 / LAST as f64
    }
}

/// A hash of the account that is never 0, which stands for no call.
fn hashed(account: &AuthId) -> u32 {
    let hash = foldhash::fast::FixedState::with_seed(0).hash_one(account);
    (hash as u32).max(1)
}

/// The state of the queue when a call arrives.
#[derive(Clone, Copy, Debug)]
struct QueueState {
    waiting: usize,
    age: Duration,
    /// Time since the queue was last on time. `late` is the number of calls admitted since then.
    late_for: Duration,
    late: usize,
    /// Time since the last refusal.
    refused: Option<Duration>,
    /// Whether tasks on this node start late for any reason.
    work_is_late: bool,
    /// The share of the call's account in the recent calls. Counted only after a recent refusal.
    share: f64,
}

impl QueueState {
    fn is_in_time(&self) -> bool {
        self.waiting < FEW || self.age <= TARGET
    }

    fn is_calm(&self) -> bool {
        self.refused.is_none_or(|ago| ago >= CALM)
    }

    /// Number of places for calls of this account while the node is not calm.
    fn places(&self) -> usize {
        // Late work in progress goes first, rejections above all: a further call costs ten times its
        // rejection.
        let for_all = if self.work_is_late { 0 } else { FEWER };
        let rest = 1.0 - (self.share / LARGE_SHARE).min(1.0);
        for_all + ((FEW - FEWER) as f64 * rest) as usize
    }

    /// Returns why a further call is refused, or `None` if it is not.
    fn strain(&self) -> Option<Strain> {
        if !self.is_calm() {
            // The age of the first call is no measure: it is young at the moment when far more
            // calls arrive than can be set up.
            return (self.waiting >= self.places()).then_some(Strain::Lag);
        }
        if self.waiting < FEW {
            return None;
        }
        if self.waiting >= BURST || self.late >= BURST && !self.is_in_time() {
            return Some(Strain::SetUps);
        }
        (self.late_for >= PATIENCE && !self.is_in_time()).then_some(Strain::Lag)
    }
}

impl Backlog {
    pub(super) fn new(origin: Instant) -> Self {
        let (in_time, refused, late) = <(AtomicU64, AtomicU64, AtomicUsize)>::default();
        let (line, last) = (WaitMeter::new(origin), LastAccounts::new());
        Self { origin, line, in_time, refused, late, last }
    }

    pub(super) fn line(&self) -> &WaitMeter {
        &self.line
    }

    /// How full the queue is. At 1, further calls are refused.
    pub(super) fn load(&self) -> f64 {
        self.line.waiting() as f64 / BURST as f64
    }

    /// Adds a call of this main account to the end of the queue. `work_is_late` means that tasks
    /// start late. During an overload, late work causes the calls of accounts with many calls to be
    /// refused; otherwise it is attributed to a slow machine and ignored.
    pub(super) fn join(
        &self,
        now: Instant,
        account: &AuthId,
        work_is_late: bool,
    ) -> Result<WaitToken, Strain> {
        let account = hashed(account);
        let nanos = u64::try_from(now.saturating_duration_since(self.origin).as_nanos())
            .unwrap_or(u64::MAX)
            .max(1);
        let since = |at: u64| Duration::from_nanos(nanos.saturating_sub(at));
        let refused = self.refused.load(Ordering::Relaxed);
        let mut found = QueueState {
            waiting: self.line.waiting(),
            age: self.line.age(now),
            late_for: since(self.in_time.load(Ordering::Relaxed)),
            late: self.late.load(Ordering::Relaxed),
            refused: (refused > 0).then(|| since(refused)),
            work_is_late,
            share: 0.0,
        };
        if !found.is_calm() {
            found.share = self.last.share(account);
        }
        if let Some(strain) = found.strain() {
            self.refused.fetch_max(nanos, Ordering::Relaxed);
            return Err(strain);
        }
        if found.is_in_time() {
            self.in_time.fetch_max(nanos, Ordering::Relaxed);
            self.late.store(0, Ordering::Relaxed);
        } else {
            self.late.fetch_add(1, Ordering::Relaxed);
        }
        self.last.add(account);
        Ok(self.line.enter(now).0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{
        BURST, Backlog, CALM, FEW, FEWER, LARGE_SHARE, PATIENCE, QueueState, Strain, TARGET,
    };
    use model::Clock;
    use model::{AuthId, Timestamp, WaitToken};

    #[test]
    fn r10_a_burst_waits_and_a_backlog_is_refused() {
        let ms = Duration::from_millis;
        let idle = QueueState {
            waiting: 0,
            age: ms(0),
            late_for: ms(0),
            late: 0,
            refused: None,
            work_is_late: false,
            share: 1.0,
        };
        let busy = QueueState { waiting: FEW, age: TARGET, ..idle };
        let late = QueueState { age: TARGET + ms(1), ..busy };
        let cases = [
            (idle, None),
            (QueueState { late_for: ms(86_400_000), ..idle }, None),
            (busy, None),
            (QueueState { late_for: PATIENCE, late: BURST, ..busy }, None),
            (QueueState { waiting: FEW - 1, age: ms(5_000), late_for: PATIENCE, ..idle }, None),
            (
                QueueState {
                    waiting: FEWER - 1,
                    age: ms(5_000),
                    late_for: PATIENCE,
                    refused: Some(ms(0)),
                    ..idle
                },
                None,
            ),
            // Without a recent refusal the queue may be late for a while, by up to a burst.
            (late, None),
            (
                QueueState {
                    waiting: BURST - 1,
                    late: BURST - 1,
                    late_for: PATIENCE - ms(1),
                    ..late
                },
                None,
            ),
            (QueueState { late_for: PATIENCE, ..late }, Some(Strain::Lag)),
            (QueueState { late: BURST, ..late }, Some(Strain::SetUps)),
            (QueueState { waiting: BURST, ..idle }, Some(Strain::SetUps)),
            // After a refusal it may not.
            (QueueState { refused: Some(ms(0)), ..late }, Some(Strain::Lag)),
            (QueueState { refused: Some(ms(0)), ..busy }, Some(Strain::Lag)),
            (QueueState { refused: Some(ms(0)), waiting: FEWER, ..late }, Some(Strain::Lag)),
            (QueueState { refused: Some(ms(0)), waiting: FEWER - 1, ..late }, None),
            (QueueState { refused: Some(CALM - ms(1)), ..late }, Some(Strain::Lag)),
            (QueueState { refused: Some(CALM), ..late }, None),
            // Late work refuses calls only after a refusal.
            (QueueState { work_is_late: true, ..late }, None),
            (QueueState { work_is_late: true, refused: Some(CALM), ..idle }, None),
            (
                QueueState { work_is_late: true, refused: Some(CALM - ms(1)), ..idle },
                Some(Strain::Lag),
            ),
            // An account with a small share has more places, also while work is late.
            (QueueState { refused: Some(ms(0)), share: LARGE_SHARE, ..late }, Some(Strain::Lag)),
            (QueueState { refused: Some(ms(0)), share: 0.0, ..late }, Some(Strain::Lag)),
            (QueueState { refused: Some(ms(0)), waiting: FEW - 1, share: 0.0, ..late }, None),
            (
                QueueState {
                    refused: Some(ms(0)),
                    waiting: FEW - FEWER - 1,
                    work_is_late: true,
                    share: 0.0,
                    ..late
                },
                None,
            ),
        ];
        for (found, expected) in cases {
            assert_eq!(found.strain(), expected, "{found:?}");
        }
    }

    /// Simulates calls at a steady rate. Their set-ups run one after another and take equally long.
    struct Simulation {
        clock: Clock,
        backlog: Backlog,
        line: VecDeque<(Duration, WaitToken)>,
        begun: Duration,
        now: Duration,
        free_at: Duration,
        /// Arrival and waiting time of each admitted call.
        waited: Vec<(Duration, Duration)>,
        refused: Vec<Duration>,
    }

    impl Simulation {
        fn new() -> Self {
            let clock = Clock::stepped(Timestamp::default());
            Self {
                backlog: Backlog::new(clock.now()),
                clock,
                line: VecDeque::new(),
                begun: Duration::ZERO,
                now: Duration::ZERO,
                free_at: Duration::ZERO,
                waited: Vec::new(),
                refused: Vec::new(),
            }
        }

        fn until(&mut self, at: Duration, takes: Duration) {
            while let Some((came, place)) =
                self.line.front().copied().filter(|(came, _)| self.free_at.max(*came) <= at)
            {
                self.begun = self.free_at.max(came);
                self.go_to(self.begun);
                self.line.pop_front();
                self.backlog.line().serve(place);
                self.waited.push((came, self.begun - came));
                self.free_at = self.begun + takes;
            }
            self.go_to(at);
        }

        fn go_to(&mut self, at: Duration) {
            self.clock.step(at.saturating_sub(self.now));
            self.now = self.now.max(at);
        }

        fn comes(&mut self, at: Duration, takes: Duration) {
            if !self.is_admitted("heavy", at, takes) {
                self.refused.push(at);
            }
        }

        fn is_admitted(&mut self, account: &str, at: Duration, takes: Duration) -> bool {
            self.until(at, takes);
            let place = self.backlog.join(self.clock.now(), &AuthId::from(account), false);
            place.map(|place| self.line.push_back((at, place))).is_ok()
        }

        fn run(&mut self, from: Duration, lasting: Duration, rate: f64, takes: Duration) {
            let calls = (lasting.as_secs_f64() * rate) as u32;
            (0..calls).for_each(|nr| {
                self.comes(from + Duration::from_secs_f64(f64::from(nr) / rate), takes)
            });
        }
    }

    proptest! {
        /// For any set-up time and any overload: after the first burst no admitted call waits long,
        /// the processor is never idle, and two seconds after the overload a thousand calls at one
        /// instant are admitted again.
        #[test]
        fn r10_overload_is_refused(takes_us in 200..20_000u64, times in 1.2..20.0f64) {
            let takes = Duration::from_micros(takes_us);
            let capacity = 1.0 / takes.as_secs_f64();
            let lasting = Duration::from_secs(20);
            let mut sim = Simulation::new();
            sim.run(Duration::ZERO, lasting, capacity * times, takes);
            let first = *sim.refused.first().expect("some are refused");
            let bound = takes * (FEW as u32 + 1);
            let burst = takes * (BURST + FEW) as u32 + PATIENCE;
            prop_assert!(first <= burst.mul_f64(6.0), "refused from {first:?} on");
            for (came, waited) in &sim.waited {
                prop_assert!(*waited <= burst, "{waited:?}");
                prop_assert!(*came <= first || *waited <= bound || *came <= first + burst, "{waited:?} at {came:?}");
            }
            let taken = sim.waited.len() as f64;
            prop_assert!(taken >= 0.95 * capacity * lasting.as_secs_f64() - FEW as f64, "{taken} of {capacity}/s");
            // The overload is over. The queue drains, and the history is forgotten.
            let later = lasting + burst + CALM * 2;
            sim.until(later, takes);
            let refused = sim.refused.len();
            (0..1_000).for_each(|_| sim.comes(later, takes));
            prop_assert_eq!(sim.refused.len(), refused);
        }

        /// While one account overloads the node, the calls of others are admitted.
        #[test]
        fn r10_overload_of_one_account_refuses_only_its_calls(takes_us in 200..20_000u64, times in 2.0..20.0f64) {
            let takes = Duration::from_micros(takes_us);
            let (mut sim, mut refused) = (Simulation::new(), Vec::new());
            let between = takes.div_f64(times);
            for nr in 0..u32::try_from(BURST * 40).unwrap() {
                sim.comes(between * nr, takes);
                // One of fifty calls that the node can take is of another account.
                if f64::from(nr) % (50.0 * times) < 1.0 && !sim.is_admitted("light", between * nr, takes) {
                    refused.push(between * nr);
                }
            }
            let first = *sim.refused.first().expect("some are refused");
            let drained = first + takes * (BURST + FEW) as u32;
            refused.retain(|at| *at > drained);
            prop_assert!(refused.is_empty(), "refused at {refused:?}, the queue was short from {drained:?} on");
        }

        /// Below capacity no call is refused.
        #[test]
        fn r10_load_below_capacity_is_admitted(takes_us in 200..20_000u64, load in 0.05..0.95f64) {
            let takes = Duration::from_micros(takes_us);
            let mut sim = Simulation::new();
            sim.run(Duration::ZERO, Duration::from_secs(10), load / takes.as_secs_f64(), takes);
            prop_assert!(sim.refused.is_empty());
        }
    }
}
