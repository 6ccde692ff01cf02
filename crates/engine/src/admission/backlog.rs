//! The line of calls that wait to be set up, and who is let into it: a burst waits its turn, a backlog is refused.
//!
//! The idea is CoDel's (RFC 8289 §3): a line that gets short again and again does its work, however long it was in
//! between; one that never does only makes everybody late. The first is a number's thousand calls at one instant, which
//! are all taken; after the second the line is kept short until nothing had to be refused for a while.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::pressure::Strain;
use model::{WaitMeter, WaitToken};

/// Calls that are let in without a break while those before them wait: all that a number may have (1,000 by default)
/// may come at one instant.
pub(super) const BURST: usize = 1_024;
/// Waiting for that long is in time. A caller does not hear it; several steps of a set-up take as long.
const TARGET: Duration = Duration::from_millis(10);
/// So few may wait at any time: they take the processor for a moment only, and they are what keeps it at work.
const FEW: usize = 16;
/// And after a refusal: in an overload there are always as many, so that each is a set-up's time that every call is late.
const FEWER: usize = 4;
/// A line that was not in time for so long is a backlog, however few made it: the webhooks of a burst are read in less.
const PATIENCE: Duration = Duration::from_millis(500);
/// After a refusal no more than a few may wait, until nothing had to be refused for so long.
const CALM: Duration = Duration::from_secs(1);

/// The line with its memory; times are nanoseconds since `origin`.
#[derive(Debug)]
pub(super) struct Backlog {
    origin: Instant,
    line: WaitMeter,
    /// When the line was last in time.
    in_time: AtomicU64,
    /// When a call was last refused; 0: never.
    refused: AtomicU64,
    /// Calls let in since it was last in time.
    late: AtomicUsize,
}

/// What a further call finds.
#[derive(Clone, Copy, Debug)]
struct Found {
    waiting: usize,
    age: Duration,
    /// For how long the line has not been in time, and how many were let in meanwhile.
    late_for: Duration,
    late: usize,
    /// How long ago a call was refused.
    refused: Option<Duration>,
    /// Whatever is due begins late, whoever made it so.
    work_is_late: bool,
}

impl Found {
    fn is_in_time(&self) -> bool {
        self.waiting < FEW || self.age <= TARGET
    }

    /// What forbids a further call.
    fn strain(&self) -> Option<Strain> {
        let in_calm = self.refused.is_none_or(|ago| ago >= CALM);
        if self.work_is_late && !in_calm {
            // What is under way goes first, rejects above all: a further call asks for ten times what its reject does.
            return Some(Strain::Lag);
        }
        if self.waiting < if in_calm { FEW } else { FEWER } {
            return None;
        }
        if !in_calm {
            // Not by the age of the first: it is young for a moment in which many times more come than can be set up.
            return Some(Strain::Lag);
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
        Self { origin, line: WaitMeter::new(origin), in_time, refused, late }
    }

    pub(super) fn line(&self) -> &WaitMeter {
        &self.line
    }

    /// A place at the end of the line. `work_is_late`: whatever is due begins late; in an overload that forbids any call, and
    /// outside of one it is a slow machine's or a neighbour's doing.
    pub(super) fn join(&self, now: Instant, work_is_late: bool) -> Result<WaitToken, Strain> {
        let nanos = u64::try_from(now.saturating_duration_since(self.origin).as_nanos())
            .unwrap_or(u64::MAX)
            .max(1);
        let since = |at: u64| Duration::from_nanos(nanos.saturating_sub(at));
        let refused = self.refused.load(Ordering::Relaxed);
        let found = Found {
            waiting: self.line.waiting(),
            age: self.line.age(now),
            late_for: since(self.in_time.load(Ordering::Relaxed)),
            late: self.late.load(Ordering::Relaxed),
            refused: (refused > 0).then(|| since(refused)),
            work_is_late,
        };
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
        Ok(self.line.enter(now).0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{BURST, Backlog, CALM, FEW, FEWER, Found, PATIENCE, Strain, TARGET};
    use model::Clock;
    use model::{Timestamp, WaitToken};

    #[test]
    fn r10_a_burst_waits_and_a_backlog_is_refused() {
        let ms = Duration::from_millis;
        let idle = Found {
            waiting: 0,
            age: ms(0),
            late_for: ms(0),
            late: 0,
            refused: None,
            work_is_late: false,
        };
        let busy = Found { waiting: FEW, age: TARGET, ..idle };
        let late = Found { age: TARGET + ms(1), ..busy };
        let cases = [
            (idle, None),
            (Found { late_for: ms(86_400_000), ..idle }, None),
            (busy, None),
            (Found { late_for: PATIENCE, late: BURST, ..busy }, None),
            (Found { waiting: FEW - 1, age: ms(5_000), late_for: PATIENCE, ..idle }, None),
            (
                Found {
                    waiting: FEWER - 1,
                    age: ms(5_000),
                    late_for: PATIENCE,
                    refused: Some(ms(0)),
                    ..idle
                },
                None,
            ),
            // In a calm, a line may be late for a while, and by a number's calls.
            (late, None),
            (
                Found { waiting: BURST - 1, late: BURST - 1, late_for: PATIENCE - ms(1), ..late },
                None,
            ),
            (Found { late_for: PATIENCE, ..late }, Some(Strain::Lag)),
            (Found { late: BURST, ..late }, Some(Strain::SetUps)),
            (Found { waiting: BURST, ..idle }, Some(Strain::SetUps)),
            // After a refusal it may not.
            (Found { refused: Some(ms(0)), ..late }, Some(Strain::Lag)),
            (Found { refused: Some(ms(0)), ..busy }, Some(Strain::Lag)),
            (Found { refused: Some(ms(0)), waiting: FEWER, ..late }, Some(Strain::Lag)),
            (Found { refused: Some(ms(0)), waiting: FEWER - 1, ..late }, None),
            (Found { refused: Some(CALM - ms(1)), ..late }, Some(Strain::Lag)),
            (Found { refused: Some(CALM), ..late }, None),
            // Work that is late forbids any then, and none before.
            (Found { work_is_late: true, ..late }, None),
            (Found { work_is_late: true, refused: Some(CALM), ..idle }, None),
            (Found { work_is_late: true, refused: Some(CALM - ms(1)), ..idle }, Some(Strain::Lag)),
        ];
        for (found, expected) in cases {
            assert_eq!(found.strain(), expected, "{found:?}");
        }
    }

    /// Calls at a steady rate for set-ups that take a steady time, one after another.
    struct Served {
        clock: Clock,
        backlog: Backlog,
        line: VecDeque<(Duration, WaitToken)>,
        begun: Duration,
        now: Duration,
        free_at: Duration,
        /// When each call that was taken came, and how long it waited.
        waited: Vec<(Duration, Duration)>,
        refused: Vec<Duration>,
    }

    impl Served {
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
            self.until(at, takes);
            match self.backlog.join(self.clock.now(), false) {
                Ok(place) => self.line.push_back((at, place)),
                Err(_) => self.refused.push(at),
            }
        }

        fn run(&mut self, from: Duration, lasting: Duration, rate: f64, takes: Duration) {
            let calls = (lasting.as_secs_f64() * rate) as u32;
            (0..calls).for_each(|nr| {
                self.comes(from + Duration::from_secs_f64(f64::from(nr) / rate), takes)
            });
        }
    }

    proptest! {
        /// Whatever a set-up takes and however many more come than can be: after the first burst nobody who is taken waits
        /// for long, the processor is never left idle, and two seconds later a thousand at one instant are taken again.
        #[test]
        fn r10_overload_is_refused_and_not_suffered(takes_us in 200..20_000u64, times in 1.2..20.0f64) {
            let takes = Duration::from_micros(takes_us);
            let capacity = 1.0 / takes.as_secs_f64();
            let lasting = Duration::from_secs(20);
            let mut served = Served::new();
            served.run(Duration::ZERO, lasting, capacity * times, takes);
            let first = *served.refused.first().expect("some are refused");
            let bound = takes * (FEW as u32 + 1);
            let burst = takes * (BURST + FEW) as u32 + PATIENCE;
            prop_assert!(first <= burst.mul_f64(6.0), "refused from {first:?} on");
            for (came, waited) in &served.waited {
                prop_assert!(*waited <= burst, "{waited:?}");
                prop_assert!(*came <= first || *waited <= bound || *came <= first + burst, "{waited:?} at {came:?}");
            }
            let taken = served.waited.len() as f64;
            prop_assert!(taken >= 0.95 * capacity * lasting.as_secs_f64() - FEW as f64, "{taken} of {capacity}/s");
            // Over: the line empties, and nothing is remembered.
            let later = lasting + burst + CALM * 2;
            served.until(later, takes);
            let refused = served.refused.len();
            (0..1_000).for_each(|_| served.comes(later, takes));
            prop_assert_eq!(served.refused.len(), refused);
        }

        /// Below capacity nobody is ever refused.
        #[test]
        fn r10_what_can_be_set_up_is_taken(takes_us in 200..20_000u64, load in 0.05..0.95f64) {
            let takes = Duration::from_micros(takes_us);
            let mut served = Served::new();
            served.run(Duration::ZERO, Duration::from_secs(10), load / takes.as_secs_f64(), takes);
            prop_assert!(served.refused.is_empty());
        }
    }
}
