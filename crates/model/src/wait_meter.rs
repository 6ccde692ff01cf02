//! Measures a queue: how many entries wait, and how long the first has waited (its sojourn time,
//! RFC 8289 §3.1).
//!
//! The length of a queue alone does not show overload: a thousand entries may take a tenth of a
//! second on one machine and ten seconds on another. Admission therefore limits the waiting time.
//! The meter is lock-free. It only counts: the entries themselves wait elsewhere, such as on a
//! semaphore.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Measures the length and the waiting time of a first-in, first-out queue.
///
/// Every [`WaitMeter::enter`] must be followed by one [`WaitMeter::serve`] or [`WaitMeter::leave`].
#[derive(Debug)]
pub struct WaitMeter {
    origin: Instant,
    waiting: AtomicUsize,
    /// A lower bound of the entry times of all waiting entries, in nanoseconds since `origin`.
    front: AtomicU64,
}

/// The entry time of a waiting entry.
#[derive(Clone, Copy, Debug)]
pub struct WaitToken(u64);

impl WaitMeter {
    /// Creates a meter of an empty queue. `origin` must not be later than the first entry.
    pub fn new(origin: Instant) -> Self {
        Self { origin, waiting: AtomicUsize::new(0), front: AtomicU64::new(0) }
    }

    /// Records an entry at the end of the queue. Returns its token and the number of entries ahead.
    pub fn enter(&self, now: Instant) -> (WaitToken, usize) {
        let token = WaitToken(self.nanos(now));
        let ahead = self.waiting.fetch_add(1, Ordering::AcqRel);
        if ahead == 0 {
            self.front.fetch_max(token.0, Ordering::AcqRel);
        }
        (token, ahead)
    }

    /// Records that an entry was served. All entries still waiting entered after it.
    pub fn serve(&self, token: WaitToken) {
        self.front.fetch_max(token.0, Ordering::AcqRel);
        self.leave();
    }

    /// Records that an entry left the queue without being served, from any position.
    pub fn leave(&self) {
        self.waiting.fetch_sub(1, Ordering::AcqRel);
    }

    /// The number of waiting entries.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// An upper bound of the time that the first entry has waited. Exceeds the true value by at
    /// most the time between the first entry and the one served before it. Zero if the queue is
    /// empty.
    pub fn age(&self, now: Instant) -> Duration {
        if self.waiting() == 0 {
            return Duration::ZERO;
        }
        Duration::from_nanos(self.nanos(now).saturating_sub(self.front.load(Ordering::Acquire)))
    }

    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::WaitMeter;
    use crate::Timestamp;
    use crate::clock::Clock;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// Lets this many milliseconds pass.
        Pass(u64),
        Enter,
        Serve,
        /// The entry at this position, modulo the length of the queue, leaves.
        Leave(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1..50u64).prop_map(Step::Pass),
            Just(Step::Enter),
            Just(Step::Serve),
            any::<usize>().prop_map(Step::Leave)
        ]
    }

    proptest! {
        /// Compares the meter with a list of the waiting entries. The count is exact. The age
        /// is at least the wait of the first entry, and at most the time since a departed entry
        /// entered the queue.
        #[test]
        fn r10_age_bounds_the_wait_of_the_first_entry(steps in prop::collection::vec(step(), 0..200)) {
            let clock = Clock::stepped(Timestamp::default());
            let meter = WaitMeter::new(clock.now());
            let mut model = VecDeque::new();
            let mut gone = None;
            for step in steps {
                match step {
                    Step::Pass(ms) => clock.step(Duration::from_millis(ms)),
                    Step::Enter => {
                        let (token, ahead) = meter.enter(clock.now());
                        prop_assert_eq!(ahead, model.len());
                        if model.is_empty() {
                            gone = None;
                        }
                        model.push_back((clock.now(), token));
                    }
                    Step::Serve => {
                        if let Some((entered, token)) = model.pop_front() {
                            gone = Some(entered);
                            meter.serve(token);
                        }
                    }
                    Step::Leave(nr) => {
                        if !model.is_empty() {
                            let (entered, _) = model.remove(nr % model.len()).expect("in range");
                            gone = gone.or(Some(entered)).map(|g| g.min(entered));
                            meter.leave();
                        }
                    }
                }
                prop_assert_eq!(meter.waiting(), model.len());
                let age = meter.age(clock.now());
                match model.front() {
                    None => prop_assert_eq!(age, Duration::ZERO),
                    Some((entered, _)) => {
                        prop_assert!(age >= clock.now() - *entered);
                        let oldest = gone.unwrap_or(*entered).min(*entered);
                        prop_assert!(age <= clock.now() - oldest, "{age:?}");
                    }
                }
            }
        }
    }
}
