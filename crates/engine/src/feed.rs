//! What happens on this node, for those who watch: the console's live feed, long polls, tests. News carry ids and no
//! content: who hears of one reads what it may see.
//!
//! Telling never waits. The last 4,096 are kept; a watcher that is slower learns how many it missed, and reads anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::broadcast;
use uuid::Uuid;

use model::{AuthId, CallUuid, E164, Timestamp};

/// News kept for who is slow.
const KEPT: usize = 4_096;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Its place in the order of all news of this process.
    pub number: u64,
    /// Whose it is: a main account.
    pub account: AuthId,
    pub what: What,
}

/// What has changed, or is new.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// A call began, was answered, or ended.
    Call(CallUuid),
    /// A number's settings, state or routing.
    Number(E164),
    Conversation(Uuid),
    /// A message came, was sent, or has a new status.
    Message {
        conversation: Uuid,
        message: Uuid,
    },
    Notification(Uuid),
    Agent(Uuid),
    Webhook(Uuid),
    /// Users, roles, keys.
    People,
}

/// Where news are told; clones share it.
#[derive(Clone, Debug)]
pub struct Feed(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    last: AtomicU64,
    sender: broadcast::Sender<Arc<News>>,
}

impl Feed {
    /// One that nobody watches yet. Its numbers go on from the time, in microseconds, so that one of an earlier process
    /// is none of these: who comes back with such reads anew.
    pub fn since(now: Timestamp) -> Self {
        let last = AtomicU64::new(u64::try_from(now.micros()).unwrap_or(0));
        Self(Arc::new(Inner { last, sender: broadcast::Sender::new(KEPT) }))
    }

    /// One whose first news are number 1.
    pub fn new() -> Self {
        Self::since(Timestamp::from_micros(0))
    }

    /// Tells all who watch. Costs next to nothing where nobody does.
    pub fn tell(&self, account: &AuthId, what: What) {
        let number = self.0.last.fetch_add(1, Ordering::Relaxed) + 1;
        if self.0.sender.receiver_count() > 0 {
            // Err: the last one went away in between.
            let _ = self.0.sender.send(Arc::new(News { number, account: account.clone(), what }));
        }
    }

    /// From now on.
    pub fn watch(&self) -> broadcast::Receiver<Arc<News>> {
        self.0.sender.subscribe()
    }

    /// The number of the latest news.
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
    async fn who_watches_hears_in_order_and_who_is_slow_learns_of_the_gap() {
        let feed = Feed::new();
        let account: AuthId = "MA1".into();
        feed.tell(&account, What::People);
        let mut watch = feed.watch();
        let number: E164 = E164::parse("918035737458").unwrap();
        feed.tell(&account, What::Number(number.clone()));
        let news = watch.recv().await.unwrap();
        assert_eq!((news.number, &news.what, feed.last()), (2, &What::Number(number), 2));
        for _ in 0..=KEPT {
            feed.tell(&account, What::People);
        }
        assert!(matches!(watch.recv().await, Err(broadcast::error::RecvError::Lagged(1))));
        assert_eq!(watch.recv().await.unwrap().number, 4);
    }
}
