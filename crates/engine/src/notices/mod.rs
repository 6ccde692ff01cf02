//! Notifications: what people at this account should know of (`number-api.md` §4): a message came, an agent gave up, a
//! call was missed, a number's state or rating changed, something was not delivered.
//!
//! Whoever sees such a thing calls [`Notices::note`], which waits for nothing; once the row can be read, the feed is
//! told. Reading and marking as read are the store's; who watches is `api`'s business.

use uuid::Uuid;

use crate::feed::{Feed, What};
use model::Clock;
use model::{AuthId, CallUuid, NotificationTopic};
use store::{NoticeRow, Store};

/// Characters of a notification at most.
const TEXT_MAX: usize = 500;

/// Something worth a notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The owner, and its main account.
    pub account: AuthId,
    pub main_account: AuthId,
    pub topic: NotificationTopic,
    /// A sentence for people.
    pub text: String,
    pub number: Option<String>,
    /// The person it is about, by `wa_id`: so that nothing is left of somebody who is to be forgotten.
    pub user: Option<String>,
    pub conversation: Option<Uuid>,
    pub call: Option<CallUuid>,
}

impl Notice {
    /// One that says no more than its text.
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

/// Takes notifications; cheap to clone.
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

    /// Notes one; gives the id it will have. Where the store has no room for it, it is lost, and that is counted.
    pub fn note(&self, notice: Notice) -> Uuid {
        let id = Uuid::new_v4();
        let Notice { account, main_account, topic, mut text, number, user, conversation, call } =
            notice;
        if let Some((end, _)) = text.char_indices().nth(TEXT_MAX) {
            text.truncate(end);
        }
        let created = self.clock.steady();
        let main = main_account.clone();
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
        if let Some(written) = self.store.notifications().add(row) {
            let feed = self.feed.clone();
            // As many as the store's queue has room for, and each ends with its batch.
            tokio::spawn(async move {
                if written.await.is_ok() {
                    feed.tell(&main, What::Notification(id));
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
    async fn s3_24_a_notice_is_stored_bounded_and_told() {
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
        assert_eq!((news.account.as_str(), &news.what), ("MA1", &What::Notification(id)));
        let rows = store
            .notifications()
            .list(&Scope::of("SA1".into()), &NoticeFilter::default(), 9)
            .await
            .unwrap();
        assert_eq!((rows.len(), rows[0].id, rows[0].text.chars().count()), (1, id, TEXT_MAX));
        store.close().await;
    }
}
