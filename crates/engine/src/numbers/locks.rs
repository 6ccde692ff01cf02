//! Locks that serialize the changes of a number, and counts of its writes at Meta.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::Numbers;
use model::E164;

/// Serializes the changes of a number.
#[derive(Default)]
pub(super) struct Turn {
    /// The lock that is held while a change is made both here and at Meta.
    pub(super) lock: Arc<Mutex<()>>,
    /// Number of writes at Meta so far. Data that was read before the last write is outdated.
    pub(super) written: u64,
}

impl Numbers {
    /// Waits for the lock on a number's changes at Meta.
    pub(super) async fn turn(&self, number: &E164) -> OwnedMutexGuard<()> {
        let turn = self.0.turns.entry(number.clone()).or_default().lock.clone();
        turn.lock_owned().await
    }

    /// Returns how often this number's settings were written at Meta.
    pub(super) fn writes(&self, number: &E164) -> u64 {
        self.0.turns.get(number).map_or(0, |turn| turn.written)
    }

    /// Records a write, or an attempt that may have succeeded.
    pub(super) fn record_write(&self, number: &E164) {
        self.0.turns.entry(number.clone()).or_default().written += 1;
    }
}
