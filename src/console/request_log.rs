//! Stores the counts of outbound requests and of refused calls, so that the figures on the operations
//! page survive a restart.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::observe::tally::is_fetched;
use crate::observe::{Tallies, Tally};
use model::{Clock, metric};
use store::{RequestCount, RequestTarget, Store};

/// Interval at which new requests are stored. Reading them renders all metrics, which is most of the
/// work of an idle node.
const INTERVAL: Duration = Duration::from_secs(60);

/// Returns the counts since the process started.
type ReadTallies = Box<dyn Fn() -> Tallies + Send + Sync>;

/// Stores new requests periodically, and before the page shows them. Cheap to clone.
#[derive(Clone)]
pub struct RequestLog(Arc<Inner>);

struct Inner {
    read: ReadTallies,
    store: Store,
    clock: Clock,
    stored: Mutex<Counted>,
}

/// The request counts in the store, by target, kind and outcome.
type Counted = HashMap<(RequestTarget, String, String), u64>;

impl RequestLog {
    pub fn new(read: ReadTallies, store: Store, clock: Clock) -> Self {
        Self(Arc::new(Inner { read, store, clock, stored: Mutex::default() }))
    }

    /// Stores new requests every minute and when it is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let mut every = tokio::time::interval(INTERVAL);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            self.flush().await;
        }
        self.flush().await;
    }

    /// Stores the requests since the last call.
    pub(super) async fn flush(&self) {
        let Inner { read, store, clock, stored } = &*self.0;
        let mut stored = stored.lock().await;
        let (counted, new) = new_requests(read(), &stored);
        if new.is_empty() {
            return;
        }
        match store.request_counts().add(clock.wall(), new).await {
            Ok(()) => *stored = counted,
            Err(error) => tracing::debug!(%error, "request counts not stored yet"),
        }
    }
}

/// Returns all requests, and those that are not stored yet.
fn new_requests(tallies: Tallies, stored: &Counted) -> (Counted, Vec<RequestCount>) {
    let (mut counted, mut new) = (Counted::new(), Vec::new());
    let kinds = [
        (RequestTarget::Customer, tallies.fetches),
        (RequestTarget::Graph, tallies.graph),
        (RequestTarget::Admission, tallies.refused),
    ];
    for (target, tallies) in kinds {
        for Tally { kind, outcome, count } in tallies {
            let key = (target, kind.clone(), outcome.clone());
            let requests = count.saturating_sub(stored.get(&key).copied().unwrap_or_default());
            counted.insert(key, count);
            if requests > 0 {
                let failed = match target {
                    RequestTarget::Customer => !is_fetched(&outcome),
                    RequestTarget::Graph => !metric::graph::is_granted(&outcome),
                    RequestTarget::Model => false,
                    RequestTarget::Admission => true,
                };
                new.push(RequestCount { target, kind, outcome, failed, requests });
            }
        }
    }
    (counted, new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_each_request_once() {
        let graph = |count| Tallies {
            graph: vec![Tally { kind: "accept".to_owned(), outcome: "500".to_owned(), count }],
            ..Tallies::default()
        };
        let (stored, first) = new_requests(graph(2), &Counted::new());
        assert_eq!((first[0].requests, first[0].failed), (2, true));
        let (stored, again) = new_requests(graph(2), &stored);
        assert!(again.is_empty());
        assert_eq!(new_requests(graph(7), &stored).1[0].requests, 5);
    }
}
