//! Whether the node as a whole can take another call (R10), whatever the customers' limits say. Past any bound here a
//! call is refused as `overloaded`, so that those that are up, and their sound, go on as if nothing were.
//!
//! Nothing here measures: `node` feeds it with how late a waker came and how much memory is left; `call` holds a
//! [`Starting`] while a set-up uses the processor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::observe::{Health, names};

/// Calls whose set-up has not got as far as Graph. Each takes a millisecond or two of processor: all calls that a number
/// may have (1,000 by default) may come at one instant, a backlog of many seconds does not build up.
const STARTING_MAX: usize = 2_048;

/// Set-ups under way that a backlog of work does not forbid: a machine that others keep busy makes every waking late,
/// and a few calls more or less change nothing about that.
const STARTING_FREE: usize = 128;

/// What a node has too much of: `why` of `offhook_overloaded_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strain {
    /// Live calls.
    Calls,
    /// Calls that are being set up.
    SetUps,
    /// Work: what is due begins late.
    Lag,
    Memory,
    /// Calls can be neither stored nor journalled (R11).
    Store,
    /// The media threads are behind with their orders.
    Media,
    /// Requests to Graph of that number.
    Graph,
}

impl Strain {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Calls, Self::SetUps, Self::Lag, Self::Memory, Self::Store, Self::Media, Self::Graph];

    /// The metric's word, and the log's.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::SetUps => "set_ups",
            Self::Lag => "lag",
            Self::Memory => "memory",
            Self::Store => "store",
            Self::Media => "media",
            Self::Graph => "graph",
        }
    }

    /// Counts a call that was refused for it.
    pub fn count(self) {
        metrics::counter!(names::OVERLOADED_TOTAL, "why" => self.as_str()).increment(1);
    }
}

/// Shared by who measures and who asks.
#[derive(Debug)]
pub struct Pressure {
    health: Health,
    starting: AtomicUsize,
    lagging: AtomicBool,
    out_of_memory: AtomicBool,
}

impl Pressure {
    /// No strain yet.
    pub fn new(health: Health) -> Arc<Self> {
        let (starting, lagging, out_of_memory) = <(AtomicUsize, AtomicBool, AtomicBool)>::default();
        Arc::new(Self { health, starting, lagging, out_of_memory })
    }

    /// Work that is due begins late, or in time again.
    pub fn lagging(&self, lagging: bool) {
        self.lagging.store(lagging, Ordering::Relaxed);
    }

    /// Memory is nearly used up, or not any more.
    pub fn out_of_memory(&self, nearly: bool) {
        self.out_of_memory.store(nearly, Ordering::Relaxed);
    }

    /// A place among the set-ups under way.
    ///
    /// # Errors
    /// What forbids a further call.
    pub fn begin(self: &Arc<Self>) -> Result<Starting, Strain> {
        if self.health.is_store_broken() {
            return Err(Strain::Store);
        }
        if self.out_of_memory.load(Ordering::Relaxed) {
            return Err(Strain::Memory);
        }
        let begun = Starting(self.clone());
        match self.starting.fetch_add(1, Ordering::Relaxed) {
            ahead if ahead >= STARTING_MAX => Err(Strain::SetUps),
            ahead if ahead >= STARTING_FREE && self.lagging.load(Ordering::Relaxed) => Err(Strain::Lag),
            _ => Ok(begun),
        }
    }
}

/// A call that is being set up; its place is given back on drop.
#[derive(Debug)]
#[must_use]
pub struct Starting(Arc<Pressure>);

impl Drop for Starting {
    fn drop(&mut self) {
        self.0.starting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tells a lasting backlog from a burst: work is late when *every* waking of a while was (the idea of CoDel,
/// RFC 8289 §3.1: the least of the delays, not their mean).
#[derive(Clone, Copy, Debug, Default)]
pub struct Lag {
    /// How long every waking has been late.
    late_for: Duration,
}

impl Lag {
    /// Between two wakings.
    pub const EVERY: Duration = Duration::from_millis(10);
    /// Later than that is late.
    const MAX: Duration = Duration::from_millis(10);
    /// Late for that long is a backlog: a number's thousand calls at one instant are set up in less.
    const BACKLOG: Duration = Duration::from_secs(2);
    /// What one waking counts for at most: a machine that stood still for a while is no backlog.
    const ONE_MAX: Duration = Duration::from_millis(250);

    /// Notes how late a waking came; whether there is a backlog. One in time ends it.
    pub fn woken(&mut self, late_by: Duration) -> bool {
        self.late_for = if late_by > Self::MAX {
            self.late_for.saturating_add((Self::EVERY + late_by).min(Self::ONE_MAX))
        } else {
            Duration::ZERO
        };
        self.late_for >= Self::BACKLOG
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Health, Lag, Pressure, STARTING_FREE, STARTING_MAX, Strain};

    #[test]
    fn every_strain_has_its_series_from_the_start() {
        assert_eq!(Strain::ALL.map(Strain::as_str).as_slice(), crate::observe::names::STRAINS);
    }

    #[test]
    fn r10_each_strain_refuses_and_lets_go() {
        let health = Health::new();
        let pressure = Pressure::new(health.clone());
        assert!(pressure.begin().is_ok());
        pressure.lagging(true);
        let few: Vec<_> = (0..STARTING_FREE).map(|_| pressure.begin().expect("a few")).collect();
        assert_eq!(pressure.begin().err(), Some(Strain::Lag));
        drop(few);
        assert!(pressure.begin().is_ok());
        pressure.out_of_memory(true);
        assert_eq!(pressure.begin().err(), Some(Strain::Memory));
        health.store_broken(true);
        assert_eq!(pressure.begin().err(), Some(Strain::Store));
        health.store_broken(false);
        pressure.lagging(false);
        pressure.out_of_memory(false);
        let mut begun: Vec<_> = (0..STARTING_MAX).map(|_| pressure.begin().expect("room")).collect();
        assert_eq!(pressure.begin().err(), Some(Strain::SetUps));
        begun.pop();
        assert!(pressure.begin().is_ok(), "a refusal takes no place");
    }

    #[test]
    fn r10_a_burst_is_no_backlog_and_one_waking_in_time_ends_one() {
        let mut lag = Lag::default();
        let ms = Duration::from_millis;
        for late in [200, 5_000, 30, 1_000, 0, 30, 30, 240, 240, 9] {
            assert!(!lag.woken(ms(late)), "{late}");
        }
        let backlog = (0..).take_while(|_| !lag.woken(ms(90))).count();
        assert_eq!(backlog, 19, "two seconds of wakings, each 100 ms apart");
        assert!(lag.woken(ms(11)));
        assert!(!lag.woken(ms(10)));
    }
}
