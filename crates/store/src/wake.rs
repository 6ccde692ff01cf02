//! Signals between the writer thread and those who wait for it.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// Maximum time that a reader waits for writes that were reported early.
const READ_TIMEOUT: Duration = Duration::from_secs(1);

/// Makes the writer start a batch while it waits for more writes to fill it.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    /// A caller waits for the result.
    pub(crate) now: Notify,
    /// A caller sends something, such as a callback, as soon as it has the result. More writes may
    /// join the batch before it starts.
    pub(crate) soon: Notify,
    /// Whether writes that were reported early are not in the database yet.
    pub(crate) is_behind: watch::Sender<bool>,
    /// Whether the database rejects writes, so that they go to the journal.
    pub(crate) is_journalling: watch::Sender<bool>,
    /// Whether the journal rejects them, too, so that they wait.
    pub(crate) is_broken: AtomicBool,
}

impl Wake {
    /// Waits until the database has everything that was reported, for a second at most. Readers
    /// call this first, so that a customer who was notified of the end of a call finds it over REST.
    pub(crate) async fn caught_up(&self) {
        if !*self.is_behind.borrow() {
            return;
        }
        let mut is_behind = self.is_behind.subscribe();
        self.now.notify_one();
        let _ = tokio::time::timeout(READ_TIMEOUT, is_behind.wait_for(|behind| !behind)).await;
    }
}
