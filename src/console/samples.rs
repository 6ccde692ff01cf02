//! Failed requests to Meta's Graph API in the last hour, for a chart of the operations page. Other
//! figures come from the store.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

const INTERVAL: Duration = Duration::from_secs(10);
/// Number of samples in an hour.
pub(super) const SAMPLES_MAX: usize = 360;

/// Reads the number of failed Graph requests since the process started.
type Failures = Box<dyn Fn() -> u64 + Send + Sync>;

/// Samples, oldest first. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Samples(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    /// Failures since the previous sample.
    failed: VecDeque<usize>,
    /// The counter at the latest sample.
    failures: u64,
}

impl Samples {
    /// Takes a sample every ten seconds, until cancelled.
    pub async fn run(self, failures: Failures, stop: CancellationToken) {
        let mut every = tokio::time::interval(INTERVAL);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            self.put(failures());
        }
    }

    fn put(&self, failures: u64) {
        let mut table = self.table();
        let then = std::mem::replace(&mut table.failures, failures);
        if table.failed.len() >= SAMPLES_MAX {
            table.failed.pop_front();
        }
        let failed = usize::try_from(failures.saturating_sub(then)).unwrap_or(usize::MAX);
        table.failed.push_back(failed);
    }

    /// The failures in each ten seconds of the last hour.
    pub(super) fn graph_failures(&self) -> Vec<usize> {
        self.table().failed.iter().copied().collect()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_count_new_failures() {
        let samples = Samples::default();
        [2, 2, 7].into_iter().for_each(|failures| samples.put(failures));
        assert_eq!(samples.graph_failures(), [2, 0, 5]);
        (0..SAMPLES_MAX).for_each(|_| samples.put(7));
        assert_eq!(samples.graph_failures(), vec![0; SAMPLES_MAX]);
    }
}
