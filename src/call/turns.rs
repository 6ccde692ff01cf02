//! Set-ups begin by turns: a few at a time, first come, first served, each behind all that is ready to run.
//!
//! A set-up is by far the most that a webhook leads to. Were each to begin at once, a thousand of them would stand
//! in the runtime's one line, and webhooks, Graph's answers and the calls that are nearly through behind them. By turns
//! the line stays as short as what a few set-ups lead to, however many wait; whether more may wait is
//! `admission::Pressure`'s to say.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::admission::SetUpTicket;

/// Turns for each thread of the runtime: one set-up is under way, another stands ready.
const EACH: usize = 2;

/// Gives turns; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Turns(Arc<Semaphore>);

/// A turn; over when dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// As many as keep this runtime at work.
    pub(super) fn for_this_machine() -> Self {
        let threads = tokio::runtime::Handle::try_current()
            .map_or(1, |runtime| runtime.metrics().num_workers());
        Self(Arc::new(Semaphore::new(EACH * threads)))
    }

    /// Waits for a turn.
    pub(super) async fn wait(&self, starting: SetUpTicket) -> Turn {
        // Never closed; were it, nobody would wait.
        let permit = self.0.clone().acquire_owned().await.ok();
        // Held meanwhile: that is what bounds how many set-ups are begun while all that is ready runs once.
        behind().await;
        starting.begun();
        Turn { _permit: permit }
    }
}

/// Lets everything run that is ready now: the runtime puts a task that wakes itself at the end of its line. Unlike its
/// `yield_now`, this does not wait for the line to be empty.
async fn behind() {
    let mut woken = false;
    poll_fn(|context| {
        if std::mem::replace(&mut woken, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::Semaphore;

    use super::{EACH, Turns};
    use crate::admission::Pressure;
    use model::Clock;
    use model::Health;

    /// Set-ups that wait begin in the order they came, and between any two that need a turn given back what was ready
    /// before has run.
    #[tokio::test(flavor = "current_thread")]
    async fn r10_set_ups_begin_in_order_and_others_run_between_them() {
        let clock = Clock::real();
        let pressure = Pressure::new(Health::new(), clock.now());
        let turns = Turns(Arc::new(Semaphore::new(EACH)));
        let told = Arc::new(Mutex::new(Vec::new()));
        let mut set_ups = tokio::task::JoinSet::new();
        for nr in 0..6 {
            let starting = pressure.begin(clock.now()).expect("room");
            let (turns, told) = (turns.clone(), told.clone());
            set_ups.spawn(async move {
                let turn = turns.wait(starting).await;
                told.lock().expect("no panic").push(format!("set-up {nr}"));
                // What it leads to.
                let others = told.clone();
                tokio::spawn(
                    async move { others.lock().expect("no panic").push(format!("of {nr}")) },
                );
                drop(turn);
            });
        }
        while set_ups.join_next().await.is_some() {}
        tokio::task::yield_now().await;
        let told = told.lock().expect("no panic").clone();
        let begun: Vec<_> =
            told.iter().filter(|what| what.starts_with("set-up")).cloned().collect();
        assert_eq!(begun, (0..6).map(|nr| format!("set-up {nr}")).collect::<Vec<_>>());
        for nr in 0..6 - EACH {
            let at = |what: String| told.iter().position(|told| *told == what).expect("it ran");
            assert!(at(format!("of {nr}")) < at(format!("set-up {}", nr + EACH)), "{told:?}");
        }
    }
}
