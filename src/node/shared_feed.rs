//! Sends the changes at this node to the other nodes of a fleet, for the consoles that are open
//! there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use engine::cluster::{Cluster, post};
use engine::feed::{Feed, FeedEvent, RelayedEvent};

/// Path at which a node receives events.
pub(super) const FEED: &str = "/feed";

/// Time during which events are collected.
const BATCH_WINDOW: Duration = Duration::from_millis(20);

/// Timeout for sending a batch to a node.
const SEND_TIME: Duration = Duration::from_millis(500);

/// Delay after which nodes that have missed events are notified again.
const RETRY: Duration = Duration::from_secs(1);

/// Maximum number of events in a batch. If there are more, the batch only reports that anything may
/// have changed.
const EVENTS_MAX: usize = 512;

/// A batch of events of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Batch {
    /// Whether earlier events are missing.
    missed: bool,
    events: Vec<RelayedEvent>,
}

/// Publishes the events of another node. Returns `false` if they can't be read.
pub(super) fn receive(feed: &Feed, body: &[u8]) -> bool {
    let Ok(Batch { missed, events }) = serde_json::from_slice::<Batch>(body) else {
        return false;
    };
    if missed || events.len() > EVENTS_MAX {
        feed.relay_unknown();
    }
    events.into_iter().take(EVENTS_MAX).for_each(|event| feed.relay(event));
    true
}

/// Sends the events of this node to the other nodes until `stop`.
pub(super) async fn share(cluster: Arc<Cluster>, feed: Feed, stop: CancellationToken) {
    let mut news = feed.watch();
    // Nodes that have missed events.
    let mut missed = BTreeSet::new();
    let work = async {
        loop {
            let batch = if missed.is_empty() {
                collect(&mut news).await
            } else {
                let collected = tokio::time::timeout(RETRY, collect(&mut news)).await;
                collected.unwrap_or_else(|_| Some(Batch::default()))
            };
            let Some(batch) = batch else { return };
            let members = cluster.others().into_iter().filter(|other| other.state.is_member());
            let sent = members.map(|member| {
                let (run, has_missed) = (member.run, missed.contains(&member.run));
                let (batch, cluster) = (&batch, &cluster);
                async move { (run, tell(cluster, run, batch, has_missed).await) }
            });
            // A member that is gone does not come back.
            let sent = join_all(sent).await;
            missed = sent.into_iter().filter(|(_, sent)| !sent).map(|(run, _)| run).collect();
        }
    };
    stop.run_until_cancelled(work).await;
}

/// Waits for an event of this node, and collects those that follow. `None` if there are no further
/// events.
async fn collect(news: &mut Receiver<Arc<FeedEvent>>) -> Option<Batch> {
    let mut batch = Batch::default();
    loop {
        match news.recv().await {
            Ok(event) if event.is_relayed => continue,
            Ok(event) => batch.events.push(event.relayed()),
            Err(RecvError::Lagged(_)) => batch.missed = true,
            Err(RecvError::Closed) => return None,
        }
        break;
    }
    tokio::time::sleep(BATCH_WINDOW).await;
    loop {
        match news.try_recv() {
            Ok(event) if event.is_relayed => {}
            Ok(event) => {
                let event = event.relayed();
                if batch.events.len() >= EVENTS_MAX {
                    batch.missed = true;
                } else if !batch.events.contains(&event) {
                    batch.events.push(event);
                }
            }
            Err(TryRecvError::Lagged(_)) => batch.missed = true,
            Err(TryRecvError::Empty | TryRecvError::Closed) => return Some(batch),
        }
    }
}

/// Sends the batch to a node. Returns whether the node has received it.
async fn tell(cluster: &Cluster, run: Uuid, batch: &Batch, has_missed: bool) -> bool {
    if batch.events.is_empty() && !batch.missed && !has_missed {
        return true;
    }
    let batch = Batch { missed: batch.missed || has_missed, events: batch.events.clone() };
    let request = post(FEED, Bytes::from(serde_json::to_vec(&batch).unwrap_or_default()));
    let answer = tokio::time::timeout(SEND_TIME, cluster.peers().send(run, request)).await;
    matches!(answer, Ok(Ok(answer)) if answer.status().is_success())
}

#[cfg(test)]
mod tests {
    use engine::feed::{Audience, Feed, FeedChange};
    use model::AuthId;

    use super::{Batch, collect, receive};

    #[tokio::test]
    async fn f34_events_of_one_node_are_published_at_another_and_not_sent_back() {
        let (here, there) = (Feed::new(), Feed::new());
        let account = AuthId::from("MA1");
        let (mut ours, mut theirs) = (here.watch(), there.watch());
        here.publish(Audience::of(&account, &account), FeedChange::People);
        here.publish(Audience::of(&account, &account), FeedChange::People);
        let batch = collect(&mut ours).await.unwrap();
        assert_eq!(batch.events.len(), 1, "equal events are told once");
        assert!(receive(&there, &serde_json::to_vec(&batch).unwrap()));
        let event = theirs.recv().await.unwrap();
        assert!(event.is_for(&account, &account) && event.is_relayed);
        assert_eq!(there.last(&account, &account), 1);
        // The missed events may concern any account.
        let missed = Batch { missed: true, ..Batch::default() };
        assert!(receive(&there, &serde_json::to_vec(&missed).unwrap()));
        let event = theirs.recv().await.unwrap();
        assert!(event.is_for(&AuthId::from("MA2"), &AuthId::from("MA2")));
        there.publish(Audience::of(&account, &account), FeedChange::People);
        let own = collect(&mut theirs).await.unwrap();
        assert_eq!(own.events.len(), 1, "only its own event");
        assert!(!receive(&there, b"{"));
    }
}
