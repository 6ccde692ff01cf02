//! Message statuses that arrive before Graph's answer to the request that sent the message, and
//! that lack Offhook's opaque data. Until Graph's answer contains the message id, it is unknown
//! which message they belong to.
//!
//! Such a status does not delay the webhook's 200. It is kept in memory and written again when a
//! message on this node gets the id, and at growing intervals, because another node may have sent
//! the message. If this process ends first, the status is lost together with the pending answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use model::PhoneNumberId;

/// Maximum number of waiting statuses. Further ones are dropped, and so are statuses of messages
/// that another program sent.
const WAITING_MAX: usize = 1_024;

type Key = (PhoneNumberId, String);

/// Statuses that wait for a message id, and their number.
#[derive(Default)]
pub(super) struct EarlyStatuses(Mutex<(Waiters, usize)>);

/// The waiting statuses by message id.
type Waiters = HashMap<Key, Vec<oneshot::Sender<()>>>;

/// A waiting status. Dropping it removes it from [`EarlyStatuses`].
pub(super) struct EarlyStatus {
    all: Arc<EarlyStatuses>,
    key: Key,
    pub(super) named: oneshot::Receiver<()>,
}

impl EarlyStatuses {
    /// Registers a status. It is notified by every later call of [`EarlyStatuses::resolve`] for
    /// `key`. Returns `None` if too many statuses wait.
    pub(super) fn register(self: &Arc<Self>, key: Key) -> Option<EarlyStatus> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.1 >= WAITING_MAX {
            return None;
        }
        all.1 += 1;
        let (sender, named) = oneshot::channel();
        all.0.entry(key.clone()).or_default().push(sender);
        drop(all);
        Some(EarlyStatus { all: self.clone(), key, named })
    }

    /// Returns whether no status waits.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.0.is_empty() && all.1 == 0
    }

    /// Notifies the statuses of a message that got its id.
    pub(super) fn resolve(&self, number: &PhoneNumberId, wamid: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = all.0.remove(&(number.clone(), wamid.to_owned()));
        drop(all);
        for sender in waiting.into_iter().flatten() {
            // The waiting task may have ended.
            let _ = sender.send(());
        }
    }
}

impl Drop for EarlyStatus {
    fn drop(&mut self) {
        self.named.close();
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.1 = all.1.saturating_sub(1);
        if let Some(others) = all.0.get_mut(&self.key) {
            others.retain(|sender| !sender.is_closed());
            if others.is_empty() {
                all.0.remove(&self.key);
            }
        }
    }
}
