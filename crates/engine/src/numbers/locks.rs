//! Serializes the changes of each number, and counts its writes at Meta.

use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::{Mutex, OwnedMutexGuard};

use model::E164;

/// The locks and counts of all numbers.
#[derive(Default)]
pub(super) struct NumberLocks(DashMap<E164, NumberLock>);

/// The lock of a number.
#[derive(Default)]
struct NumberLock {
    /// The lock that is held while a change is made both here and at Meta.
    lock: Arc<Mutex<()>>,
    /// Number of writes at Meta so far. Data that was read before the last write is outdated.
    written: u64,
}

impl NumberLocks {
    /// Waits for the lock on a number's changes at Meta.
    pub(super) async fn lock(&self, number: &E164) -> OwnedMutexGuard<()> {
        let lock = self.0.entry(number.clone()).or_default().lock.clone();
        lock.lock_owned().await
    }

    /// Returns how often this number's settings were written at Meta.
    pub(super) fn writes(&self, number: &E164) -> u64 {
        self.0.get(number).map_or(0, |lock| lock.written)
    }

    /// Records a write, or an attempt that may have succeeded.
    pub(super) fn record_write(&self, number: &E164) {
        self.0.entry(number.clone()).or_default().written += 1;
    }
}
