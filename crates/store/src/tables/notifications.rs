//! Notifications to people of an account, in the table `notices`.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::error::{StoreError, failed};
use crate::page::NewestFirst;
use crate::scope::{Scope, push_scope};
use crate::seal::Seal;
use crate::shared::Shared;
use crate::sql::{self, Conn, QueryBuilder, Row};
use crate::tables::expiry::ExpiringTable;
use crate::write::WriteTask;
use model::{AuthId, CallUuid, NotificationTopic, Timestamp};

/// Handle to the notifications. See [`Store::notifications`](crate::Store::notifications).
#[derive(Clone, Copy, Debug)]
pub struct Notifications<'a>(pub(crate) &'a Shared);

impl Notifications<'_> {
    /// Stores a notification. The write is queued when this returns, and the future completes when
    /// it is readable. Returns `None` if the queue is full.
    pub fn insert(
        self,
        row: NoticeRow,
    ) -> Option<impl Future<Output = Result<u64, StoreError>> + Send + 'static + use<>> {
        self.0.queue.try_run(NoticeWrite::Add(row))
    }

    /// Marks one notification as read, or all of the scope if the id is `None`. Returns how many
    /// were unread.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn mark_read(
        self,
        scope: &Scope,
        id: Option<Uuid>,
        at: Timestamp,
    ) -> Result<u64, StoreError> {
        self.0.queue.run(NoticeWrite::MarkRead(scope.clone(), id, at)).await
    }

    /// Deletes notifications from before `before`, and the oldest ones of accounts that have too
    /// many.
    ///
    /// # Errors
    /// Fails if a query fails or the database rejects a write. Some notifications may be deleted
    /// then.
    pub async fn delete_older(self, before: Timestamp) -> Result<(), StoreError> {
        TABLE.delete(self.0, before).await
    }

    /// Returns a notification, or `None` if the scope has no such notification.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn get(self, scope: &Scope, id: Uuid) -> Result<Option<NoticeRow>, StoreError> {
        let mut select = select(scope);
        select.push(" AND notice_id = ").push_bind(id.to_string());
        let row = select.build().fetch_optional(&self.0.read).await.map_err(failed(WHAT))?;
        row.as_ref().map(notice).transpose()
    }

    /// Returns notifications of the scope, newest first.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn list(
        self,
        scope: &Scope,
        filter: &NoticeFilter,
        limit: u32,
    ) -> Result<Vec<NoticeRow>, StoreError> {
        let mut select = select(scope);
        if let Some(topic) = filter.topic {
            select.push(" AND kind = ").push_bind(topic.as_str());
        }
        match filter.read {
            Some(true) => drop(select.push(" AND read_us IS NOT NULL")),
            Some(false) => drop(select.push(" AND read_us IS NULL")),
            None => {}
        }
        ORDER.push(&mut select, filter.before, limit);
        let rows = select.build().fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
        rows.iter().map(notice).collect()
    }

    /// Returns the number of unread notifications of the scope.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn count_unread(self, scope: &Scope) -> Result<u64, StoreError> {
        let mut count =
            QueryBuilder::new("SELECT count(*) FROM notices WHERE read_us IS NULL AND ");
        push_scope(&mut count, scope);
        let count: i64 =
            count.build_query_scalar().fetch_one(&self.0.read).await.map_err(failed(WHAT))?;
        Ok(u64::try_from(count).unwrap_or_default())
    }
}

/// A notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoticeRow {
    pub id: Uuid,
    /// The owner and its main account, which may be the same.
    pub account: AuthId,
    pub main_account: AuthId,
    pub topic: NotificationTopic,
    pub text: String,
    /// The business number, the user's `wa_id`, the conversation and the call that the notification
    /// is about.
    pub number: Option<String>,
    pub user: Option<String>,
    pub conversation: Option<Uuid>,
    pub call: Option<CallUuid>,
    pub created: Timestamp,
    pub read: Option<Timestamp>,
}

/// Selects notifications.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoticeFilter {
    pub topic: Option<NotificationTopic>,
    /// Only read or only unread notifications.
    pub read: Option<bool>,
    /// Only notifications after this one in the list, which are older.
    pub before: Option<(Timestamp, Uuid)>,
}

const ORDER: NewestFirst = NewestFirst { time: "created_us", id: "notice_id" };

const TABLE: ExpiringTable = ExpiringTable {
    name: "notices",
    id: "notice_id",
    time: "created_us",
    rows: "TRUE",
    group: &["main_auth_id"],
    max: 10_000,
};

const COLUMNS: &str = "notice_id, auth_id, main_auth_id, kind, text, number, wa_id, conversation_id, call_uuid, created_us, \
    read_us";

enum NoticeWrite {
    Add(NoticeRow),
    /// Marks one notification as read, or all unread ones.
    MarkRead(Scope, Option<Uuid>, Timestamp),
}

impl WriteTask for NoticeWrite {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        async move {
            match self {
                Self::Add(row) => add(to, row).await,
                Self::MarkRead(scope, id, at) => mark_read(to, scope, *id, *at).await,
            }
        }
        .boxed()
    }
}

async fn add(to: &mut Conn, row: &NoticeRow) -> Result<u64, sqlx::Error> {
    let insert = "INSERT INTO notices (notice_id, auth_id, main_auth_id, kind, text, number, wa_id, conversation_id, \
        call_uuid, created_us) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING";
    let insert = sql::query(insert)
        .bind(row.id.to_string())
        .bind(row.account.as_str())
        .bind(row.main_account.as_str())
        .bind(row.topic.as_str())
        .bind(&row.text)
        .bind(&row.number)
        .bind(&row.user);
    let insert = insert
        .bind(row.conversation.map(|id| id.to_string()))
        .bind(row.call.map(|id| id.to_string()));
    Ok(insert.bind(row.created.micros()).execute(to).await?.rows_affected())
}

async fn mark_read(
    to: &mut Conn,
    scope: &Scope,
    id: Option<Uuid>,
    at: Timestamp,
) -> Result<u64, sqlx::Error> {
    let mut update = QueryBuilder::new("UPDATE notices SET read_us = ");
    update.push_bind(at.micros()).push(" WHERE read_us IS NULL AND ");
    push_scope(&mut update, scope);
    if let Some(id) = id {
        update.push(" AND notice_id = ").push_bind(id.to_string());
    }
    Ok(update.build().execute(to).await?.rows_affected())
}

const WHAT: &str = "read notifications";

fn select(scope: &Scope) -> QueryBuilder {
    let mut select = QueryBuilder::new(format!("SELECT {COLUMNS} FROM notices WHERE "));
    push_scope(&mut select, scope);
    select
}

fn notice(row: &Row) -> Result<NoticeRow, StoreError> {
    let unreadable = |detail: String| StoreError::Unreadable { what: WHAT, detail };
    let text = |column: &str| row.try_get::<String, _>(column).map_err(failed(WHAT));
    let optional = |column: &str| row.try_get::<Option<String>, _>(column).map_err(failed(WHAT));
    let uuid = |text: &str| text.parse::<Uuid>().map_err(|e| unreadable(e.to_string()));
    let word = text("kind")?;
    Ok(NoticeRow {
        id: uuid(&text("notice_id")?)?,
        account: text("auth_id")?.into(),
        main_account: text("main_auth_id")?.into(),
        topic: NotificationTopic::parse(&word)
            .ok_or_else(|| unreadable(format!("kind {word:?}")))?,
        text: text("text")?,
        number: optional("number")?,
        user: optional("wa_id")?,
        conversation: optional("conversation_id")?.as_deref().map(uuid).transpose()?,
        call: optional("call_uuid")?.as_deref().map(uuid).transpose()?.map(CallUuid),
        created: Timestamp::from_micros(row.try_get("created_us").map_err(failed(WHAT))?),
        read: row
            .try_get::<Option<i64>, _>("read_us")
            .map_err(failed(WHAT))?
            .map(Timestamp::from_micros),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use model::Health;

    fn row(n: u8, account: &str, main: &str, topic: NotificationTopic) -> NoticeRow {
        NoticeRow {
            id: Uuid::from_u128(u128::from(n)),
            account: account.into(),
            main_account: main.into(),
            topic,
            text: format!("the {n}th"),
            number: Some("918035737458".to_owned()),
            user: None,
            conversation: Some(Uuid::from_u128(77)),
            call: None,
            created: Timestamp::from_secs(i64::from(n) / 2),
            read: None,
        }
    }

    #[tokio::test]
    async fn r16_s3_25_notices_are_listed_and_read_within_their_account() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        let [main, sub, other] = ["MA1", "SA1", "MA2"].map(|id| Scope::of(id.into()));
        for n in 1..=5 {
            let topic =
                if n == 2 { NotificationTopic::Escalation } else { NotificationTopic::Message };
            let written = store
                .notifications()
                .insert(row(n, if n == 3 { "SA1" } else { "MA1" }, "MA1", topic))
                .unwrap();
            assert_eq!(written.await.unwrap(), 1);
        }
        let ids = async |scope: &Scope, filter: NoticeFilter, limit| {
            let rows = store.notifications().list(scope, &filter, limit).await.unwrap();
            rows.iter().map(|row| row.id.as_u128()).collect::<Vec<_>>()
        };
        // Notifications of the same time (2 and 3, 4 and 5) are ordered by id.
        assert_eq!(ids(&main, NoticeFilter::default(), 9).await, [4, 5, 2, 3, 1]);
        let before =
            |n: u8| Some((Timestamp::from_secs(i64::from(n) / 2), Uuid::from_u128(u128::from(n))));
        assert_eq!(
            ids(&main, NoticeFilter { before: before(4), ..Default::default() }, 2).await,
            [5, 2]
        );
        assert_eq!(
            ids(&main, NoticeFilter { before: before(2), ..Default::default() }, 9).await,
            [3, 1]
        );
        assert_eq!(ids(&sub, NoticeFilter::default(), 9).await, [3]);
        assert_eq!(ids(&other, NoticeFilter::default(), 9).await, []);
        let of_one =
            NoticeFilter { topic: Some(NotificationTopic::Escalation), ..Default::default() };
        assert_eq!(ids(&main, of_one, 9).await, [2]);
        let now = Timestamp::from_secs(100);
        let one = Some(Uuid::from_u128(2));
        assert_eq!(store.notifications().mark_read(&other, one, now).await.unwrap(), 0);
        assert_eq!(store.notifications().mark_read(&main, one, now).await.unwrap(), 1);
        assert_eq!(
            store.notifications().mark_read(&main, one, now).await.unwrap(),
            0,
            "again changes nothing"
        );
        assert_eq!(store.notifications().count_unread(&main).await.unwrap(), 4);
        assert_eq!(
            ids(&main, NoticeFilter { read: Some(true), ..Default::default() }, 9).await,
            [2]
        );
        assert_eq!(store.notifications().mark_read(&sub, None, now).await.unwrap(), 1);
        assert_eq!(store.notifications().mark_read(&main, None, now).await.unwrap(), 3);
        assert_eq!(store.notifications().count_unread(&main).await.unwrap(), 0);
        assert_eq!(
            store.notifications().get(&main, Uuid::from_u128(2)).await.unwrap().unwrap().read,
            Some(now)
        );
        assert_eq!(store.notifications().get(&other, Uuid::from_u128(2)).await.unwrap(), None);
        store.notifications().delete_older(Timestamp::from_secs(2)).await.unwrap();
        store.flush().await;
        assert_eq!(ids(&main, NoticeFilter::default(), 9).await, [4, 5]);
        store.close().await;
    }
}
