//! Live calls and calls per second of the last hour by main account, and the node's exchanges that failed: what the charts of the
//! operations page draw.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::api::{LiveCalls, LiveFilter};
use engine::admission::Gate;
use model::AuthId;
use model::Clock;
use store::Scope;

const EVERY: Duration = Duration::from_secs(10);
/// An hour of them.
pub(super) const KEPT: usize = 360;

/// A moment of an account and its subaccounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    /// Calls that are up.
    pub(super) up: usize,
    /// Calls that began in the second before.
    pub(super) cps: usize,
}

/// What of the node's exchanges with others failed since the sample before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Failed {
    /// Fetches from customers' servers.
    pub(super) fetches: usize,
    /// Requests to Graph.
    pub(super) graph: usize,
}

/// Fetches and Graph requests that failed since the process began.
type Failures = Box<dyn Fn() -> (u64, u64) + Send + Sync>;

/// Samples, oldest first; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Samples(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    accounts: BTreeMap<AuthId, VecDeque<Sample>>,
    failed: VecDeque<Failed>,
    /// As they were at the last one.
    failures: (u64, u64),
}

impl Samples {
    /// Takes one now and then, until cancelled.
    pub async fn run(
        self,
        gate: Arc<Gate>,
        live: Arc<dyn LiveCalls>,
        failures: Failures,
        clock: Clock,
        stop: CancellationToken,
    ) {
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            self.put_failed(failures());
            let tables = gate.directory().tables();
            let mains: Vec<_> =
                tables.accounts().filter(|account| account.parent.is_none()).cloned().collect();
            drop(tables);
            for main in mains {
                let id = main.auth_id.clone();
                let up =
                    live.page(&Scope::of(id.clone()), &LiveFilter::default(), 0, usize::MAX).len();
                let (_, cps) = gate.cps(clock.now(), &main);
                self.put(id, Sample { up, cps });
            }
        }
    }

    fn put(&self, main: AuthId, sample: Sample) {
        push(self.table().accounts.entry(main).or_default(), sample);
    }

    fn put_failed(&self, now: (u64, u64)) {
        let mut table = self.table();
        let more =
            |now: u64, then: u64| usize::try_from(now.saturating_sub(then)).unwrap_or(usize::MAX);
        let then = std::mem::replace(&mut table.failures, now);
        push(
            &mut table.failed,
            Failed { fetches: more(now.0, then.0), graph: more(now.1, then.1) },
        );
    }

    /// The node's.
    pub(super) fn failed(&self) -> Vec<Failed> {
        self.table().failed.iter().copied().collect()
    }

    /// A main account's.
    pub(super) fn of(&self, main: &AuthId) -> Vec<Sample> {
        self.table().accounts.get(main).map(|of| of.iter().copied().collect()).unwrap_or_default()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn push<T>(samples: &mut VecDeque<T>, sample: T) {
    if samples.len() >= KEPT {
        samples.pop_front();
    }
    samples.push_back(sample);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_failed_each_sample_has_what_is_new() {
        let samples = Samples::default();
        for now in [(2, 0), (2, 1), (7, 1)] {
            samples.put_failed(now);
        }
        let of = |fetches, graph| Failed { fetches, graph };
        assert_eq!(samples.failed(), [of(2, 0), of(0, 1), of(5, 0)]);
        (0..KEPT).for_each(|_| samples.put_failed((7, 1)));
        assert_eq!(samples.failed(), vec![of(0, 0); KEPT]);
    }
}
