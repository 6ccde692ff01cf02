//! A broadcast of changes, for the console's live feed, long polls and tests. Events carry ids and
//! no content: subscribers read the data that they may see. In a fleet, the nodes exchange their
//! events, which are published with [`Feed::relay`].
//!
//! Publishing never waits. The last 4,096 events are kept; a slower subscriber is informed how many
//! it missed and has to read everything again.

use std::collections::HashMap;
use std::sync::Arc;

use dashmap::DashMap;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use uuid::Uuid;

use model::{AuthId, CallUuid, E164, EndpointId, Timestamp};
use store::Pair;

/// Number of events kept for slow subscribers.
const KEPT: usize = 4_096;

/// An event of the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedEvent {
    pub main_account: AuthId,
    /// The account that it belongs to. `None` if it concerns all accounts of the main account.
    pub account: Option<AuthId>,
    pub change: FeedChange,
    /// Whether the event comes from another node.
    pub is_relayed: bool,
}

/// An event in the form that the nodes of a fleet exchange.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RelayedEvent {
    pub main_account: AuthId,
    pub account: Option<AuthId>,
    pub change: FeedChange,
}

impl FeedEvent {
    /// Returns the event in the form for other nodes.
    pub fn relayed(&self) -> RelayedEvent {
        let Self { main_account, account, change, .. } = self;
        RelayedEvent {
            main_account: main_account.clone(),
            account: account.clone(),
            change: change.clone(),
        }
    }

    /// Whether users of `account` may see the event. `main_account` is that account's main account
    /// and may be the same.
    pub fn is_for(&self, account: &AuthId, main_account: &AuthId) -> bool {
        if self.change == FeedChange::Unknown {
            return true;
        }
        let is_theirs = || self.account.as_ref().is_none_or(|owner| owner == account);
        self.main_account == *main_account && (account == main_account || is_theirs())
    }
}

/// The owner of a changed object.
#[derive(Clone, Copy, Debug)]
pub struct Audience<'a> {
    pub main_account: &'a AuthId,
    /// The account. `None` for a change that concerns all accounts of the main account.
    pub account: Option<&'a AuthId>,
}

impl<'a> From<&'a Pair> for Audience<'a> {
    fn from(pair: &'a Pair) -> Self {
        Self::of(&pair.account, &pair.main_account)
    }
}

impl<'a> Audience<'a> {
    /// The users of an account and of its main account, which may be the same.
    pub fn of(account: &'a AuthId, main_account: &'a AuthId) -> Self {
        Self { main_account, account: Some(account) }
    }
}

/// The changed or created object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// Events of another node were missed, so anything may have changed, for all accounts.
    Unknown,
}

/// The feed; clones share it.
#[derive(Clone, Debug)]
pub struct Feed(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The first event number of each account.
    first: u64,
    /// By main account.
    counts: DashMap<AuthId, EventCounts>,
    sender: broadcast::Sender<Arc<FeedEvent>>,
}

/// The numbers of a main account's events so far.
#[derive(Debug, Default)]
struct EventCounts {
    all: u64,
    /// Of those that concern all its accounts.
    common: u64,
    /// Of those of one account, by account.
    of: HashMap<AuthId, u64>,
}

impl Feed {
    /// Creates a feed without subscribers. Event numbers start at `now` in microseconds, so that a
    /// number of an earlier process never occurs again; a client that returns with one has to read
    /// everything.
    pub fn since(now: Timestamp) -> Self {
        let first = u64::try_from(now.micros()).unwrap_or(0);
        let (counts, sender) = (DashMap::new(), broadcast::Sender::new(KEPT));
        Self(Arc::new(Inner { first, counts, sender }))
    }

    /// Creates a feed with event numbers from 1.
    pub fn new() -> Self {
        Self::since(Timestamp::from_micros(0))
    }

    /// Publishes an event. This is cheap if there are no subscribers.
    pub fn publish(&self, to: Audience<'_>, change: FeedChange) {
        self.count_and_send(to, change, false);
    }

    /// Publishes an event of another node.
    pub fn relay(&self, event: RelayedEvent) {
        let RelayedEvent { main_account, account, change } = event;
        let to = Audience { main_account: &main_account, account: account.as_ref() };
        self.count_and_send(to, change, true);
    }

    /// Publishes that events of another node were missed.
    pub fn relay_unknown(&self) {
        let nobody = AuthId::from("");
        let to = Audience { main_account: &nobody, account: None };
        self.send(to, FeedChange::Unknown, true);
    }

    fn count_and_send(&self, to: Audience<'_>, change: FeedChange, is_relayed: bool) {
        let mut counts = self.0.counts.entry(to.main_account.clone()).or_default();
        counts.all += 1;
        match to.account {
            Some(account) => match counts.of.get_mut(account) {
                Some(count) => *count += 1,
                None => drop(counts.of.insert(account.clone(), 1)),
            },
            None => counts.common += 1,
        }
        // Before the counts are released, so that an event which is counted was sent.
        self.send(to, change, is_relayed);
    }

    fn send(&self, to: Audience<'_>, change: FeedChange, is_relayed: bool) {
        if self.0.sender.receiver_count() > 0 {
            // Fails if the last subscriber just left.
            let _ = self.0.sender.send(Arc::new(FeedEvent {
                main_account: to.main_account.clone(),
                account: to.account.cloned(),
                change,
                is_relayed,
            }));
        }
    }

    /// Subscribes to later events.
    pub fn watch(&self) -> broadcast::Receiver<Arc<FeedEvent>> {
        self.0.sender.subscribe()
    }

    /// Returns the number of the latest event that users of `account` may see (see
    /// [`FeedEvent::is_for`]). All events up to that number have been sent to the subscribers.
    pub fn last(&self, account: &AuthId, main_account: &AuthId) -> u64 {
        let counts = self.0.counts.get(main_account);
        let count = counts.map_or(0, |counts| match account == main_account {
            true => counts.all,
            false => counts.common + counts.of.get(account).copied().unwrap_or_default(),
        });
        self.0.first + count
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
        let to = Audience::of(&account, &account);
        feed.publish(to, FeedChange::People);
        let mut watch = feed.watch();
        let number: E164 = E164::parse("918035737458").unwrap();
        feed.publish(to, FeedChange::Number(number.clone()));
        let news = watch.recv().await.unwrap();
        assert_eq!(news.change, FeedChange::Number(number));
        assert_eq!(feed.last(&account, &account), 2);
        for _ in 0..=KEPT {
            feed.publish(to, FeedChange::People);
        }
        assert!(matches!(watch.recv().await, Err(broadcast::error::RecvError::Lagged(1))));
        assert_eq!(watch.recv().await.unwrap().change, FeedChange::People);
    }

    #[tokio::test]
    async fn accounts_learn_nothing_of_the_events_of_others() {
        let feed = Feed::new();
        let [main, other, sub, sister]: [AuthId; 4] = ["MA1", "MA2", "SA1", "SA2"].map(Into::into);
        let mut watch = feed.watch();
        let all = Audience { main_account: &main, account: None };
        for to in [Audience::of(&main, &main), Audience::of(&sub, &main), all] {
            feed.publish(to, FeedChange::People);
        }
        let numbers = [(&main, &main), (&sub, &main), (&sister, &main), (&other, &other)];
        let numbers = numbers.map(|(account, main)| feed.last(account, main));
        assert_eq!(numbers, [3, 2, 1, 0], "the events that each may see");
        let mut seen = Vec::new();
        for _ in 0..3 {
            let event = watch.recv().await.unwrap();
            let watchers = [(&main, &main), (&sub, &main), (&sister, &main), (&other, &other)];
            seen.push(watchers.map(|(account, main)| event.is_for(account, main)));
        }
        assert_eq!(
            seen,
            [[true, false, false, false], [true, true, false, false], [true, true, true, false]]
        );
    }
}
