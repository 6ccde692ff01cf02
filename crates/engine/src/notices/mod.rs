//! Notifications for the people of an account: a message arrived, an AI agent failed, a call was
//! missed, the state or rating of a number changed, or an event could not be delivered.
//!
//! [`Notices::note`] never waits. When the row is stored, the notification is published to the
//! feed. The store lists notifications and marks them as read; `api` serves them.

use uuid::Uuid;

use crate::feed::{Audience, Feed, FeedChange};
use model::Clock;
use model::{AuthId, CallUuid, NotificationTopic};
use store::{NoticeRow, Store};

/// Longest text, in characters.
const TEXT_MAX: usize = 500;

/// A notification to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The owner and its main account.
    pub account: AuthId,
    pub main_account: AuthId,
    pub topic: NotificationTopic,
    /// A sentence for people.
    pub text: String,
    pub number: Option<String>,
    /// The `wa_id` of the user that the notification is about. Needed for erasure.
    pub user: Option<String>,
    pub conversation: Option<Uuid>,
    pub call: Option<CallUuid>,
}

impl Notice {
    /// Creates a notification with only a text.
    pub fn new(
        account: AuthId,
        main_account: AuthId,
        topic: NotificationTopic,
        text: impl Into<String>,
    ) -> Self {
        let (number, user, conversation, call) = (None, None, None, None);
        Self { account, main_account, topic, text: text.into(), number, user, conversation, call }
    }
}

/// Accepts notifications; cheap to clone.
#[derive(Clone, Debug)]
pub struct Notices {
    store: Store,
    feed: Feed,
    clock: Clock,
}

impl Notices {
    pub fn new(store: Store, feed: Feed, clock: Clock) -> Self {
        Self { store, feed, clock }
    }

    /// Queues a notification and returns its id. If the store's queue is full, it is dropped and
    /// counted.
    pub fn note(&self, notice: Notice) -> Uuid {
        let id = Uuid::new_v4();
        let Notice { account, main_account, topic, mut text, number, user, conversation, call } =
            notice;
        if let Some((end, _)) = text.char_indices().nth(TEXT_MAX) {
            text.truncate(end);
        }
        let created = self.clock.steady();
        let (owner, main) = (account.clone(), main_account.clone());
        let row = NoticeRow {
            id,
            account,
            main_account,
            topic,
            text,
            number,
            user,
            conversation,
            call,
            created,
            read: None,
        };
        if let Some(written) = self.store.notifications().insert(row) {
            let feed = self.feed.clone();
            // Bounded by the store's queue; each task ends with its batch.
            tokio::spawn(async move {
                if written.await.is_ok() {
                    feed.publish(Audience::of(&owner, &main), FeedChange::Notification(id));
                }
            });
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Health;
    use store::{NoticeFilter, Scope};

    #[tokio::test]
    async fn s3_24_a_notification_is_stored_truncated_and_published() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        let feed = Feed::new();
        let mut watch = feed.watch();
        let notices = Notices::new(store.clone(), feed, Clock::real());
        let id = notices.note(Notice::new(
            "SA1".into(),
            "MA1".into(),
            NotificationTopic::Quality,
            "é".repeat(9_999),
        ));
        let news = watch.recv().await.unwrap();
        assert_eq!(
            (news.main_account.as_str(), &news.change),
            ("MA1", &FeedChange::Notification(id))
        );
        let rows = store
            .notifications()
            .list(&Scope::of("SA1".into()), &NoticeFilter::default(), 9)
            .await
            .unwrap();
        assert_eq!((rows.len(), rows[0].id, rows[0].text.chars().count()), (1, id, TEXT_MAX));
        store.close().await;
    }
}
