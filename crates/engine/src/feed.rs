//! A broadcast of changes on this node, for the console's live feed, long polls and tests. Events
//! carry ids and no content: subscribers read the data that they may see.
//!
//! Publishing never waits. The last 4,096 events are kept; a slower subscriber learns how many it
//! missed and has to read everything again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::broadcast;
use uuid::Uuid;

use model::{AuthId, CallUuid, E164, EndpointId, Timestamp};

/// Events kept for slow subscribers.
const KEPT: usize = 4_096;

/// An event of the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedEvent {
    /// Its position in the sequence of this process's events.
    pub number: u64,
    /// The main account that it belongs to.
    pub account: AuthId,
    pub change: FeedChange,
}

/// The changed or created object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FeedChange {
    /// A call started, was answered or ended.
    Call(CallUuid),
    /// Settings, state or routing of a number.
    Number(E164),
    Conversation(Uuid),
    /// A message arrived, was sent or has a new status.
    Message {
        conversation: Uuid,
        message: Uuid,
    },
    Notification(Uuid),
    Agent(Uuid),
    Webhook(Uuid),
    /// An endpoint was created, changed or deleted, or a phone was registered or unregistered.
    Endpoint(EndpointId),
    /// Users, roles or API keys.
    People,
}

/// The feed; clones share it.
#[derive(Clone, Debug)]
pub struct Feed(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    last: AtomicU64,
    sender: broadcast::Sender<Arc<FeedEvent>>,
}

impl Feed {
    /// Creates a feed without subscribers. Event numbers start at `now` in microseconds, so that a
    /// number of an earlier process never occurs again; a client that returns with one has to read
    /// everything.
    pub fn since(now: Timestamp) -> Self {
        let last = AtomicU64::new(u64::try_from(now.micros()).unwrap_or(0));
        Self(Arc::new(Inner { last, sender: broadcast::Sender::new(KEPT) }))
    }

    /// Creates a feed with event numbers from 1.
    pub fn new() -> Self {
        Self::since(Timestamp::from_micros(0))
    }

    /// Publishes an event. Costs next to nothing without subscribers.
    pub fn tell(&self, account: &AuthId, change: FeedChange) {
        let number = self.0.last.fetch_add(1, Ordering::Relaxed) + 1;
        if self.0.sender.receiver_count() > 0 {
            // Fails if the last subscriber just left.
            let _ = self.0.sender.send(Arc::new(FeedEvent {
                number,
                account: account.clone(),
                change,
            }));
        }
    }

    /// Subscribes to later events.
    pub fn watch(&self) -> broadcast::Receiver<Arc<FeedEvent>> {
        self.0.sender.subscribe()
    }

    /// The number of the latest event.
    pub fn last(&self) -> u64 {
        self.0.last.load(Ordering::Relaxed)
    }
}

impl Default for Feed {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn subscribers_get_events_in_order_and_slow_ones_learn_of_the_gap() {
        let feed = Feed::new();
        let account: AuthId = "MA1".into();
        feed.tell(&account, FeedChange::People);
        let mut watch = feed.watch();
        let number: E164 = E164::parse("918035737458").unwrap();
        feed.tell(&account, FeedChange::Number(number.clone()));
        let news = watch.recv().await.unwrap();
        assert_eq!((news.number, &news.change, feed.last()), (2, &FeedChange::Number(number), 2));
        for _ in 0..=KEPT {
            feed.tell(&account, FeedChange::People);
        }
        assert!(matches!(watch.recv().await, Err(broadcast::error::RecvError::Lagged(1))));
        assert_eq!(watch.recv().await.unwrap().number, 4);
    }
}
