//! Samples for the charts of the operations page: live calls and calls per second of each main
//! account in the last hour, and failed requests of the node.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::api::{LiveCalls, LiveFilter};
use engine::admission::Gate;
use model::AuthId;
use model::Clock;
use store::Scope;

const INTERVAL: Duration = Duration::from_secs(10);
/// Number of samples in an hour.
pub(super) const SAMPLES_MAX: usize = 360;

/// A sample of an account with its subaccounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    /// Live calls.
    pub(super) up: usize,
    /// Calls started in the last second.
    pub(super) cps: usize,
}

/// Failed outbound requests since the previous sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FailureSample {
    /// Fetches from customers' servers.
    pub(super) fetches: usize,
    /// Requests to Graph.
    pub(super) graph: usize,
}

/// Reads the number of failed fetches and Graph requests since the process started.
type Failures = Box<dyn Fn() -> (u64, u64) + Send + Sync>;

/// Samples, oldest first. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Samples(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    accounts: BTreeMap<AuthId, VecDeque<Sample>>,
    failed: VecDeque<FailureSample>,
    /// Counters at the previous sample.
    failures: (u64, u64),
}

impl Samples {
    /// Takes a sample every ten seconds, until cancelled.
    pub async fn run(
        self,
        gate: Arc<Gate>,
        live: Arc<dyn LiveCalls>,
        failures: Failures,
        clock: Clock,
        stop: CancellationToken,
    ) {
        let mut every = tokio::time::interval(INTERVAL);
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
            FailureSample { fetches: more(now.0, then.0), graph: more(now.1, then.1) },
        );
    }

    /// The samples of failed requests.
    pub(super) fn failed(&self) -> Vec<FailureSample> {
        self.table().failed.iter().copied().collect()
    }

    /// The samples of a main account.
    pub(super) fn of(&self, main: &AuthId) -> Vec<Sample> {
        self.table().accounts.get(main).map(|of| of.iter().copied().collect()).unwrap_or_default()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn push<T>(samples: &mut VecDeque<T>, sample: T) {
    if samples.len() >= SAMPLES_MAX {
        samples.pop_front();
    }
    samples.push_back(sample);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_count_new_failures() {
        let samples = Samples::default();
        for now in [(2, 0), (2, 1), (7, 1)] {
            samples.put_failed(now);
        }
        let of = |fetches, graph| FailureSample { fetches, graph };
        assert_eq!(samples.failed(), [of(2, 0), of(0, 1), of(5, 0)]);
        (0..SAMPLES_MAX).for_each(|_| samples.put_failed((7, 1)));
        assert_eq!(samples.failed(), vec![of(0, 0); SAMPLES_MAX]);
    }
}
