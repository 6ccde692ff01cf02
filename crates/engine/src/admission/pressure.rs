//! Tracks whether the node as a whole can take another call or webhook, apart from customers'
//! limits. Beyond any of its bounds a call is refused as `overloaded`, so that live calls and their
//! media are not affected.
//!
//! The measure of load is waiting time. Set-ups wait in a queue (`backlog`) and start in turn.
//! Webhooks get the remaining processor time; if they are late too, the listener sheds them
//! (`lag`). This module measures nothing: `node` reports the delay of wake-ups and the remaining
//! memory, and `now` is an argument. While no admission is requested, the measuring task may rest.
//! The state is lock-free.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::Notify;

use super::backlog::Backlog;
use super::strain::Strain;
use model::{AuthId, Health, WaitToken};

/// The load of the node, shared by the task that measures it and by the code that admits.
#[derive(Debug)]
pub struct Pressure {
    health: Health,
    backlog: Backlog,
    out_of_memory: AtomicBool,
    scarce: AtomicBool,
    late: AtomicBool,
    shedding: AtomicBool,
    /// Webhooks that are still accepted until the next measurement while others are shed.
    let_in: AtomicUsize,
    /// Whether admission was requested since the last [`Pressure::was_asked`].
    asked: AtomicBool,
    /// Whether the measuring task waits in [`Pressure::asked`].
    resting: AtomicBool,
    requested: Notify,
}

impl Pressure {
    /// Creates a state without load. `origin` is any instant before the first call.
    pub fn new(health: Health, origin: Instant) -> Arc<Self> {
        Arc::new(Self {
            health,
            backlog: Backlog::new(origin),
            out_of_memory: AtomicBool::new(false),
            scarce: AtomicBool::new(false),
            late: AtomicBool::new(false),
            shedding: AtomicBool::new(false),
            let_in: AtomicUsize::new(0),
            asked: AtomicBool::new(false),
            resting: AtomicBool::new(false),
            requested: Notify::new(),
        })
    }

    /// Reports whether memory is almost exhausted.
    pub fn out_of_memory(&self, nearly: bool) {
        self.out_of_memory.store(nearly, Ordering::Relaxed);
    }

    /// Reports whether memory is scarce, but not exhausted.
    pub fn scarce(&self, is_scarce: bool) {
        self.scarce.store(is_scarce, Ordering::Relaxed);
    }

    /// Whether the rest of the memory is for accounts with few calls.
    pub fn is_scarce(&self) -> bool {
        self.scarce.load(Ordering::Relaxed)
    }

    /// Reports whether tasks start late. Once calls are being refused, no further call is admitted
    /// until the work in progress is done.
    pub fn late(&self, late: bool) {
        self.late.store(late, Ordering::Relaxed);
    }

    /// Sets how many of the next webhooks are accepted. `None` accepts all.
    pub fn shed(&self, but: Option<usize>) {
        self.let_in.store(but.unwrap_or(0), Ordering::Relaxed);
        self.shedding.store(but.is_some(), Ordering::Relaxed);
    }

    /// Whether admission was requested since the last call of this method.
    pub fn was_asked(&self) -> bool {
        self.asked.swap(false, Ordering::SeqCst)
    }

    /// Waits until admission is requested. Only one task may wait.
    pub async fn asked(&self) {
        self.resting.store(true, Ordering::SeqCst);
        // A request before that store did not see this task resting.
        if !self.was_asked() {
            self.requested.notified().await;
        }
        self.resting.store(false, Ordering::SeqCst);
    }

    /// Records a request for admission. While webhooks keep coming this costs one or two loads of
    /// rarely written memory.
    fn note_request(&self) {
        if !self.asked.load(Ordering::SeqCst) {
            self.asked.store(true, Ordering::SeqCst);
            if self.resting.load(Ordering::SeqCst) {
                self.requested.notify_one();
            }
        }
    }

    /// Whether a webhook is accepted, decided before any of it is read. If not, Meta is asked to
    /// send it again.
    pub fn accepts_webhook(&self) -> bool {
        self.note_request();
        let one_less = |left: usize| left.checked_sub(1);
        !self.shedding.load(Ordering::Relaxed)
            || self.let_in.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    /// Whether the node can neither store nor journal a call.
    pub fn is_store_broken(&self) -> bool {
        self.health.is_store_broken()
    }

    /// How full the queue of set-ups is, from 0 to 1.
    pub fn load(&self) -> f64 {
        self.backlog.load()
    }

    /// Takes a place in the queue of set-ups at `now`, for a call of this main account.
    ///
    /// # Errors
    ///
    /// Returns the reason why no further call can be taken.
    pub fn begin(self: &Arc<Self>, now: Instant, account: &AuthId) -> Result<SetUpTicket, Strain> {
        self.note_request();
        if self.health.is_store_broken() {
            return Err(Strain::Store);
        }
        if self.out_of_memory.load(Ordering::Relaxed) {
            return Err(Strain::Memory);
        }
        let place = self.backlog.join(now, account, self.late.load(Ordering::Relaxed))?;
        Ok(SetUpTicket { place: Some(place), pressure: self.clone() })
    }
}

/// A place in the queue of set-ups. Dropping it leaves the queue.
#[derive(Debug)]
#[must_use]
pub struct SetUpTicket {
    place: Option<WaitToken>,
    pressure: Arc<Pressure>,
}

impl SetUpTicket {
    /// Marks that the set-up has started.
    pub fn begun(mut self) {
        if let Some(place) = self.place.take() {
            self.pressure.backlog.line().serve(place);
        }
    }
}

impl Drop for SetUpTicket {
    fn drop(&mut self) {
        if self.place.take().is_some() {
            self.pressure.backlog.line().leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::backlog::BURST;
    use super::{AuthId, Health, Pressure, Strain};
    use model::Clock;
    use model::Timestamp;

    #[test]
    fn every_strain_has_its_metric_label() {
        assert_eq!(Strain::ALL.map(Strain::as_str).as_slice(), model::metric::STRAINS);
    }

    #[test]
    fn r10_each_strain_refuses_until_it_ends() {
        let health = Health::new();
        let now = Clock::stepped(Timestamp::default()).now();
        let (pressure, account) = (Pressure::new(health.clone(), now), AuthId::from("MA"));
        assert!(pressure.begin(now, &account).is_ok());
        pressure.out_of_memory(true);
        assert_eq!(pressure.begin(now, &account).err(), Some(Strain::Memory));
        health.set_store_broken(true);
        assert_eq!(pressure.begin(now, &account).err(), Some(Strain::Store));
        health.set_store_broken(false);
        pressure.out_of_memory(false);
        pressure.late(true);
        assert!(pressure.begin(now, &account).is_ok(), "late work alone refuses no call");
        let mut begun: Vec<_> =
            (0..BURST).map(|_| pressure.begin(now, &account).expect("room")).collect();
        assert_eq!(pressure.begin(now, &account).err(), Some(Strain::SetUps));
        assert_eq!(pressure.begin(now, &account).err(), Some(Strain::Lag));
        pressure.late(false);
        begun.pop().expect("one").begun();
        assert_eq!(pressure.backlog.line().waiting(), BURST - 1, "a refusal takes no place");
        drop(begun);
        assert_eq!(pressure.backlog.line().waiting(), 0);
        assert!(pressure.begin(now, &account).is_ok());
    }

    #[tokio::test]
    async fn r10_measuring_rests_until_admission_is_requested() {
        let now = Clock::stepped(Timestamp::default()).now();
        let pressure = Pressure::new(Health::new(), now);
        assert!(!pressure.was_asked());
        assert!(pressure.accepts_webhook());
        pressure.asked().await;
        assert!(!pressure.was_asked(), "already reported");
        let mut resting = std::pin::pin!(pressure.asked());
        assert!(futures_util::poll!(&mut resting).is_pending());
        assert!(pressure.accepts_webhook());
        resting.await;
        assert!(pressure.was_asked());
        let mut resting = std::pin::pin!(pressure.asked());
        assert!(futures_util::poll!(&mut resting).is_pending());
        assert!(pressure.begin(now, &AuthId::from("MA")).is_ok(), "an outbound call");
        resting.await;
    }

    #[test]
    fn r10_shedding_accepts_the_given_number_of_webhooks() {
        let pressure = Pressure::new(Health::new(), Clock::stepped(Timestamp::default()).now());
        let taken = |of: usize| (0..of).filter(|_| pressure.accepts_webhook()).count();
        assert_eq!(taken(1_000), 1_000);
        pressure.shed(Some(7));
        assert_eq!(taken(1_000), 7);
        pressure.shed(Some(0));
        assert_eq!(taken(10), 0);
        pressure.shed(None);
        assert_eq!(taken(10), 10);
    }
}
