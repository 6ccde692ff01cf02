//! Whether the node as a whole can take another call, or another webhook (R10), whatever the customers' limits say. Past
//! any bound here a call is refused as `overloaded`, so that those that are up, and their sound, go on as if nothing were.
//!
//! What there is too much of is told by how long it waits: set-ups stand in a line (`backlog`) and begin by turns, which
//! `call` gives; what is left of the processor goes to webhooks, and where those come late as well, the door sheds
//! (`lag`). Nothing here measures: `node` feeds it with how late a waker came and how much memory is left, and `now` is
//! an argument; as long as nobody asks there is nothing to be decided, and whoever measures may rest. Lock-free.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::Notify;

use super::backlog::Backlog;
use model::WaitToken;
use model::{Health, metric};

/// What a node has too much of: `why` of `offhook_overloaded_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strain {
    /// Live calls.
    Calls,
    /// Calls that wait to be set up: more than came at any one instant.
    SetUps,
    /// Work: it begins late, or calls wait for too long to be set up.
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
        metrics::counter!(metric::OVERLOADED_TOTAL, "why" => self.as_str()).increment(1);
    }
}

/// Shared by who measures and who asks.
#[derive(Debug)]
pub struct Pressure {
    health: Health,
    backlog: Backlog,
    out_of_memory: AtomicBool,
    late: AtomicBool,
    shedding: AtomicBool,
    /// Webhooks that are let in while the door sheds, until the next word.
    let_in: AtomicUsize,
    /// Somebody has asked since that was looked at.
    asked: AtomicBool,
    /// Who measures rests until somebody asks.
    resting: AtomicBool,
    stirred: Notify,
}

impl Pressure {
    /// No strain yet; `origin` is any instant before the first call.
    pub fn new(health: Health, origin: Instant) -> Arc<Self> {
        Arc::new(Self {
            health,
            backlog: Backlog::new(origin),
            out_of_memory: AtomicBool::new(false),
            late: AtomicBool::new(false),
            shedding: AtomicBool::new(false),
            let_in: AtomicUsize::new(0),
            asked: AtomicBool::new(false),
            resting: AtomicBool::new(false),
            stirred: Notify::new(),
        })
    }

    /// Memory is nearly used up, or not any more.
    pub fn out_of_memory(&self, nearly: bool) {
        self.out_of_memory.store(nearly, Ordering::Relaxed);
    }

    /// Work as such begins late, or not any more: once calls are refused, what is under way goes before any further one.
    pub fn late(&self, late: bool) {
        self.late.store(late, Ordering::Relaxed);
    }

    /// Of the webhooks to come so many are taken and the others shed; none: all are taken.
    pub fn shed(&self, but: Option<usize>) {
        self.let_in.store(but.unwrap_or(0), Ordering::Relaxed);
        self.shedding.store(but.is_some(), Ordering::Relaxed);
    }

    /// Whether anybody has asked for anything since this was asked last.
    pub fn was_asked(&self) -> bool {
        self.asked.swap(false, Ordering::SeqCst)
    }

    /// Waits until somebody asks. For one at a time.
    pub async fn asked(&self) {
        self.resting.store(true, Ordering::SeqCst);
        // Whoever asked before that saw nobody resting.
        if !self.was_asked() {
            self.stirred.notified().await;
        }
        self.resting.store(false, Ordering::SeqCst);
    }

    /// Somebody asks. A look or two at what seldom changes, while webhooks come.
    fn stir(&self) {
        if !self.asked.load(Ordering::SeqCst) {
            self.asked.store(true, Ordering::SeqCst);
            if self.resting.load(Ordering::SeqCst) {
                self.stirred.notify_one();
            }
        }
    }

    /// Whether a webhook is taken, before anything of it is read; if not, Meta is asked to come again.
    pub fn takes_webhook(&self) -> bool {
        self.stir();
        let one_less = |left: usize| left.checked_sub(1);
        !self.shedding.load(Ordering::Relaxed)
            || self.let_in.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    /// A place in the line of set-ups, taken at `now`.
    ///
    /// # Errors
    /// What forbids a further call.
    pub fn begin(self: &Arc<Self>, now: Instant) -> Result<Starting, Strain> {
        self.stir();
        if self.health.is_store_broken() {
            return Err(Strain::Store);
        }
        if self.out_of_memory.load(Ordering::Relaxed) {
            return Err(Strain::Memory);
        }
        let place = Some(self.backlog.join(now, self.late.load(Ordering::Relaxed))?);
        Ok(Starting { place, pressure: self.clone() })
    }
}

/// A call that waits for its turn to be set up; its place is given back on drop.
#[derive(Debug)]
#[must_use]
pub struct Starting {
    place: Option<WaitToken>,
    pressure: Arc<Pressure>,
}

impl Starting {
    /// Its turn has come.
    pub fn begun(mut self) {
        if let Some(place) = self.place.take() {
            self.pressure.backlog.line().serve(place);
        }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if self.place.take().is_some() {
            self.pressure.backlog.line().leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::backlog::BURST;
    use super::{Health, Pressure, Strain};
    use model::Clock;
    use model::Timestamp;

    #[test]
    fn every_strain_has_its_series_from_the_start() {
        assert_eq!(Strain::ALL.map(Strain::as_str).as_slice(), model::metric::STRAINS);
    }

    #[test]
    fn r10_each_strain_refuses_and_lets_go() {
        let health = Health::new();
        let now = Clock::stepped(Timestamp::default()).now();
        let pressure = Pressure::new(health.clone(), now);
        assert!(pressure.begin(now).is_ok());
        pressure.out_of_memory(true);
        assert_eq!(pressure.begin(now).err(), Some(Strain::Memory));
        health.set_store_broken(true);
        assert_eq!(pressure.begin(now).err(), Some(Strain::Store));
        health.set_store_broken(false);
        pressure.out_of_memory(false);
        pressure.late(true);
        assert!(pressure.begin(now).is_ok(), "no call was refused for want of time");
        let mut begun: Vec<_> = (0..BURST).map(|_| pressure.begin(now).expect("room")).collect();
        assert_eq!(pressure.begin(now).err(), Some(Strain::SetUps));
        assert_eq!(pressure.begin(now).err(), Some(Strain::Lag));
        pressure.late(false);
        begun.pop().expect("one").begun();
        assert_eq!(pressure.backlog.line().waiting(), BURST - 1, "a refusal takes no place");
        drop(begun);
        assert_eq!(pressure.backlog.line().waiting(), 0);
        assert!(pressure.begin(now).is_ok());
    }

    #[tokio::test]
    async fn r10_who_measures_rests_until_somebody_asks() {
        let now = Clock::stepped(Timestamp::default()).now();
        let pressure = Pressure::new(Health::new(), now);
        assert!(!pressure.was_asked());
        assert!(pressure.takes_webhook());
        pressure.asked().await;
        assert!(!pressure.was_asked(), "told of it");
        let mut resting = std::pin::pin!(pressure.asked());
        assert!(futures_util::poll!(&mut resting).is_pending());
        assert!(pressure.takes_webhook());
        resting.await;
        assert!(pressure.was_asked());
        let mut resting = std::pin::pin!(pressure.asked());
        assert!(futures_util::poll!(&mut resting).is_pending());
        assert!(pressure.begin(now).is_ok(), "a call that we place");
        resting.await;
    }

    #[test]
    fn r10_a_door_that_sheds_takes_as_many_as_it_was_told() {
        let pressure = Pressure::new(Health::new(), Clock::stepped(Timestamp::default()).now());
        let taken = |of: usize| (0..of).filter(|_| pressure.takes_webhook()).count();
        assert_eq!(taken(1_000), 1_000);
        pressure.shed(Some(7));
        assert_eq!(taken(1_000), 7);
        pressure.shed(Some(0));
        assert_eq!(taken(10), 0);
        pressure.shed(None);
        assert_eq!(taken(10), 10);
    }
}
