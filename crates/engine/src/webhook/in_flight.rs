//! Events that are being written or passed on to another node.
//!
//! A copy of such an event is answered like the event itself. If the copy were answered with 200 at
//! once, and the event failed, Meta would not deliver it again and it would be lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dashmap::{DashMap, Entry};
use tokio::sync::oneshot;

/// The events in flight, by key, with their copies that wait. Bounded by the number of webhooks that
/// are processed at the same time.
#[derive(Default)]
pub(super) struct InFlight(Arc<DashMap<u128, Vec<oneshot::Sender<bool>>>>);

/// An event that arrived.
pub(super) enum Arrival {
    First(Arc<EventInFlight>),
    /// A copy of an event in flight. Receives whether that event succeeded.
    CopyInFlight(oneshot::Receiver<bool>),
    Copy,
}

impl InFlight {
    /// Registers an event unless a copy of it is in flight or was processed. `claim` returns whether
    /// it was not processed, and marks it as such.
    pub(super) fn arrive(&self, key: u128, claim: impl FnOnce() -> bool) -> Arrival {
        match self.0.entry(key) {
            Entry::Occupied(mut copies) => {
                let (sender, receiver) = oneshot::channel();
                copies.get_mut().push(sender);
                Arrival::CopyInFlight(receiver)
            }
            Entry::Vacant(free) if claim() => {
                free.insert(Vec::new());
                let events = Some(self.0.clone());
                Arrival::First(Arc::new(EventInFlight {
                    key,
                    failed: AtomicBool::new(false),
                    events,
                }))
            }
            Entry::Vacant(_) => Arrival::Copy,
        }
    }
}

/// An event in flight. Its copies are answered when it is dropped.
pub(super) struct EventInFlight {
    pub(super) key: u128,
    failed: AtomicBool,
    events: Option<Arc<DashMap<u128, Vec<oneshot::Sender<bool>>>>>,
}

impl EventInFlight {
    /// Creates an event whose copies don't wait, because it is decided at once.
    pub(super) fn without_copies(key: u128) -> Arc<Self> {
        Arc::new(Self { key, failed: AtomicBool::new(false), events: None })
    }

    /// Records that Meta must deliver the event again.
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }
}

impl Drop for EventInFlight {
    fn drop(&mut self) {
        let copies = self.events.as_ref().and_then(|events| events.remove(&self.key));
        for copy in copies.into_iter().flat_map(|(_, copies)| copies) {
            // The sender of a copy may have closed its connection.
            let _ = copy.send(!*self.failed.get_mut());
        }
    }
}
