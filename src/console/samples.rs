//! Live calls and calls per second of the last hour, by main account: what the charts of the operations page draw.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::admission::Gate;
use crate::api::{LiveCalls, LiveFilter};
use crate::clock::Clock;
use crate::model::AuthId;
use crate::store::Scope;

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

/// Samples, oldest first; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Samples(Arc<Mutex<BTreeMap<AuthId, VecDeque<Sample>>>>);

impl Samples {
    /// Takes one now and then, until cancelled.
    pub async fn run(self, gate: Arc<Gate>, live: Arc<dyn LiveCalls>, clock: Clock, stop: CancellationToken) {
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            let tables = gate.directory().tables();
            let mains: Vec<_> = tables.accounts().filter(|account| account.parent.is_none()).cloned().collect();
            drop(tables);
            for main in mains {
                let id = main.auth_id.clone();
                let up = live.some(&Scope::of(id.clone()), &LiveFilter::default(), 0, usize::MAX).len();
                let (_, cps) = gate.cps(clock.now(), &main);
                self.put(id, Sample { up, cps });
            }
        }
    }

    fn put(&self, main: AuthId, sample: Sample) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = all.entry(main).or_default();
        if of.len() >= KEPT {
            of.pop_front();
        }
        of.push_back(sample);
    }

    /// A main account's.
    pub(super) fn of(&self, main: &AuthId) -> Vec<Sample> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(main).map(|of| of.iter().copied().collect()).unwrap_or_default()
    }
}
