//! Shares the counts of failed sign-ins and of API requests with the other nodes of a fleet, so
//! that limits apply to all nodes together.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::api::Apis;
use crate::api::auth::RateChanges;
use engine::cluster::{Cluster, post};
use engine::limiter::{FailureChanges, Failures};
use model::Clock;

/// Path to which a node sends its counts.
pub(super) const COUNTS: &str = "/counts";

/// Interval between messages.
const INTERVAL: Duration = Duration::from_millis(250);

/// Timeout for sending a message.
const SEND_TIME: Duration = Duration::from_millis(500);

/// The counters that all nodes share.
#[derive(Clone)]
pub(super) struct SharedCounts {
    /// Sign-ins of people.
    pub(super) people: Failures,
    /// Log-ins of phones.
    pub(super) phones: Failures,
    /// Requests to the APIs.
    pub(super) apis: Apis,
    pub(super) clock: Clock,
}

/// Changes of the counts at one node.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Changes {
    people: FailureChanges,
    phones: FailureChanges,
    rates: RateChanges,
}

impl SharedCounts {
    /// Sends the changes at this node to the others, until `stop`. A lost message is not repeated,
    /// because each node still limits its own clients.
    pub(super) async fn share(self, cluster: Arc<Cluster>, stop: CancellationToken) {
        self.people.share();
        self.phones.share();
        self.apis.share_rates();
        let mut every = tokio::time::interval(INTERVAL);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            let (people, phones) = (self.people.take_changes(), self.phones.take_changes());
            let rates = self.apis.take_rate_changes();
            if people.is_empty() && phones.is_empty() && rates.is_empty() {
                continue;
            }
            let changes = Changes { people, phones, rates };
            let body = Bytes::from(serde_json::to_vec(&changes).unwrap_or_default());
            let sent = cluster.peers().sees().into_iter().map(|run| {
                let request = post(COUNTS, body.clone());
                tokio::time::timeout(SEND_TIME, cluster.peers().send(run, request))
            });
            join_all(sent).await;
        }
    }

    /// Adds the changes that another node has sent. Returns `false` if the message can't be parsed.
    pub(super) fn receive(&self, body: &[u8]) -> bool {
        let Ok(changes) = serde_json::from_slice::<Changes>(body) else { return false };
        let now = self.clock.now();
        self.people.merge(changes.people, now);
        self.phones.merge(changes.phones, now);
        self.apis.merge_rates(changes.rates);
        true
    }
}
