//! Limits concurrent call set-ups: a few at a time, first come, first served, and each behind all
//! tasks that are ready to run.
//!
//! A set-up is the largest amount of work that a webhook causes. If all of them started
//! immediately, a thousand would fill the run queue of the runtime, and webhooks, Graph responses
//! and calls that are almost set up would be delayed. With a limit the run queue stays short
//! however many set-ups wait. `admission::Pressure` decides whether more of them may wait.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::admission::SetUpTicket;

/// Concurrent set-ups per runtime thread: one runs, another is ready.
const EACH: usize = 2;

/// Grants turns. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Turns(Arc<Semaphore>);

/// The permission to run a set-up. Released on drop.
#[derive(Debug)]
#[must_use]
pub(super) struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// Creates as many turns as keep this runtime busy.
    pub(super) fn for_this_machine() -> Self {
        let threads = tokio::runtime::Handle::try_current()
            .map_or(1, |runtime| runtime.metrics().num_workers());
        Self(Arc::new(Semaphore::new(EACH * threads)))
    }

    /// Waits for a turn.
    pub(super) async fn wait(&self, starting: SetUpTicket) -> Turn {
        // The semaphore is never closed.
        let permit = self.0.clone().acquire_owned().await.ok();
        // The permit is held here, which limits how many set-ups start before all ready tasks have
        // run once.
        behind().await;
        starting.begun();
        Turn { _permit: permit }
    }
}

/// Lets all tasks run that are ready now: the runtime puts a task that wakes itself at the end of
/// its run queue. Unlike tokio's `yield_now`, this does not wait until the queue is empty.
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

    /// Set-ups start in the order of their arrival. When a turn is released, tasks that were ready
    /// before run before the next set-up.
    #[tokio::test(flavor = "current_thread")]
    async fn r10_set_ups_start_in_order_with_other_tasks_between_them() {
        let clock = Clock::real();
        let pressure = Pressure::new(Health::new(), clock.now());
        let turns = Turns(Arc::new(Semaphore::new(EACH)));
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut set_ups = tokio::task::JoinSet::new();
        for nr in 0..6 {
            let starting = pressure.begin(clock.now(), &"MA".into()).expect("room");
            let (turns, order) = (turns.clone(), order.clone());
            set_ups.spawn(async move {
                let turn = turns.wait(starting).await;
                order.lock().expect("no panic").push(format!("set-up {nr}"));
                // A task that the set-up spawns.
                let others = order.clone();
                tokio::spawn(
                    async move { others.lock().expect("no panic").push(format!("of {nr}")) },
                );
                drop(turn);
            });
        }
        while set_ups.join_next().await.is_some() {}
        tokio::task::yield_now().await;
        let order = order.lock().expect("no panic").clone();
        let begun: Vec<_> =
            order.iter().filter(|what| what.starts_with("set-up")).cloned().collect();
        assert_eq!(begun, (0..6).map(|nr| format!("set-up {nr}")).collect::<Vec<_>>());
        for nr in 0..6 - EACH {
            let at = |what: String| order.iter().position(|entry| *entry == what).expect("it ran");
            assert!(at(format!("of {nr}")) < at(format!("set-up {}", nr + EACH)), "{order:?}");
        }
    }
}
