//! A line: how many wait, and for how long the one at its front has (its sojourn, RFC 8289 §3.1).
//!
//! A bound on how many may wait says little: a thousand are a tenth of a second on one machine and ten on another.
//! Whoever refuses by the time that waiting takes asks here. Lock-free; holds nobody, and lets nobody in or out.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Counts who waits for something that is given out first come, first served.
#[derive(Debug)]
pub struct Line {
    origin: Instant,
    waiting: AtomicUsize,
    /// Whoever waits now came at this time or later; nanoseconds since `origin`.
    front: AtomicU64,
}

/// A place in a line: when it was taken.
#[derive(Clone, Copy, Debug)]
pub struct Place(u64);

impl Line {
    /// An empty line; `origin` is any instant before the first place is taken.
    pub fn new(origin: Instant) -> Self {
        Self { origin, waiting: AtomicUsize::new(0), front: AtomicU64::new(0) }
    }

    /// Takes the place at the end; gives how many are ahead. Ends with one of [`Line::served`] and [`Line::left`].
    pub fn join(&self, now: Instant) -> (Place, usize) {
        let place = Place(self.nanos(now));
        let ahead = self.waiting.fetch_add(1, Ordering::AcqRel);
        if ahead == 0 {
            self.front.fetch_max(place.0, Ordering::AcqRel);
        }
        (place, ahead)
    }

    /// The turn of that place has come: whoever still waits came after it.
    pub fn served(&self, place: Place) {
        self.front.fetch_max(place.0, Ordering::AcqRel);
        self.left();
    }

    /// Somebody, wherever in the line, waits no longer.
    pub fn left(&self) {
        self.waiting.fetch_sub(1, Ordering::AcqRel);
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// For how long the first has waited at most: too much by the time that passed between it and the one before it.
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

    use super::Line;
    use crate::Timestamp;
    use crate::clock::Clock;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Pass(u64),
        Join,
        Serve,
        /// The one at this place, modulo the line's length, gives up.
        Leave(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1..50u64).prop_map(Step::Pass),
            Just(Step::Join),
            Just(Step::Serve),
            any::<usize>().prop_map(Step::Leave)
        ]
    }

    proptest! {
        /// Beside a list of who waits: the count is exact, the age never too small, and too large by no more than the time
        /// since the last one who was served or gave up had come.
        #[test]
        fn r10_a_line_is_as_old_as_its_first(steps in prop::collection::vec(step(), 0..200)) {
            let clock = Clock::stepped(Timestamp::default());
            let line = Line::new(clock.now());
            let mut model = VecDeque::new();
            let mut gone = None;
            for step in steps {
                match step {
                    Step::Pass(ms) => clock.step(Duration::from_millis(ms)),
                    Step::Join => {
                        let (place, ahead) = line.join(clock.now());
                        prop_assert_eq!(ahead, model.len());
                        if model.is_empty() {
                            gone = None;
                        }
                        model.push_back((clock.now(), place));
                    }
                    Step::Serve => {
                        if let Some((came, place)) = model.pop_front() {
                            gone = Some(came);
                            line.served(place);
                        }
                    }
                    Step::Leave(nr) => {
                        if !model.is_empty() {
                            let (came, _) = model.remove(nr % model.len()).expect("one of them");
                            gone = gone.or(Some(came)).map(|g| g.min(came));
                            line.left();
                        }
                    }
                }
                prop_assert_eq!(line.waiting(), model.len());
                let age = line.age(clock.now());
                match model.front() {
                    None => prop_assert_eq!(age, Duration::ZERO),
                    Some((came, _)) => {
                        prop_assert!(age >= clock.now() - *came);
                        let oldest = gone.unwrap_or(*came).min(*came);
                        prop_assert!(age <= clock.now() - oldest, "{age:?}");
                    }
                }
            }
        }
    }
}
