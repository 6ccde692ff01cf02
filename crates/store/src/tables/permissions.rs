//! Calling permissions of users and their replies to permission requests. `admission::permission`
//! defines the permission's content.

use crate::error::{StoreError, failed};
use crate::rows::permission::{PermissionReply, PermissionRow, PermissionWrite};
use crate::shared::Shared;
use crate::sql::{self, Conn, Pool};
use crate::write::Write;
use model::{PhoneNumberId, Timestamp};

/// Handle to the permissions. See [`Store::permissions`](crate::Store::permissions).
#[derive(Clone, Copy, Debug)]
pub struct Permissions<'a>(pub(crate) &'a Shared);

impl Permissions<'_> {
    /// Returns permissions of all accounts ordered by number and user, after `after` or from the
    /// first.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn list(
        self,
        after: Option<(&str, &str)>,
        limit: u32,
    ) -> Result<Vec<PermissionRow>, StoreError> {
        page(&self.0.read, after, limit).await
    }

    /// Stores a permission. The write is queued when this returns, and the future completes when it
    /// is on disk. Returns `None` if the queue is full.
    pub fn put(
        self,
        write: PermissionWrite,
    ) -> Option<impl Future<Output = Result<(), StoreError>> + Send + 'static + use<>> {
        let is_waited_for = write.reply.is_some();
        let queued =
            self.0.queue.try_change(|sender| Write::Permission(Box::new(write), sender))?;
        if is_waited_for {
            self.0.queue.wake();
        }
        Some(async move { queued.await.map_err(|_| StoreError::Closed) })
    }

    /// Deletes a permission that has not changed since `before`. Does not wait for the write.
    pub fn delete_unchanged(self, number: &PhoneNumberId, user: &str, before: Timestamp) {
        // If the queue is full, the next sweep deletes it.
        self.0.queue.offer(Write::DeletePermission(number.clone(), user.to_owned(), before));
    }
}

/// Inserts or replaces the permission and inserts the reply. A reply that is already stored is not
/// inserted again.
pub(crate) async fn put(
    to: &mut Conn,
    row: &PermissionRow,
    reply: Option<&PermissionReply>,
) -> Result<(), sqlx::Error> {
    let put = "INSERT INTO permissions (phone_number_id, \"user\", state, pair, updated_us) VALUES ($1, $2, $3, $4, $5) \
        ON CONFLICT (phone_number_id, \"user\") DO UPDATE \
        SET state = excluded.state, pair = excluded.pair, updated_us = excluded.updated_us";
    let put =
        sql::query(put).bind(row.number.as_str()).bind(&row.user).bind(&row.state).bind(&row.pair);
    put.bind(row.updated.micros()).execute(&mut *to).await?;
    let Some(reply) = reply else { return Ok(()) };
    let insert = "INSERT INTO permission_replies (phone_number_id, message_id, \"user\", reply, applied, came_us) \
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (phone_number_id, message_id) DO NOTHING";
    let insert = sql::query(insert)
        .bind(row.number.as_str())
        .bind(&reply.message)
        .bind(&row.user)
        .bind(&reply.reply);
    insert.bind(reply.applied).bind(row.updated.micros()).execute(&mut *to).await.map(drop)
}

/// Deletes a permission that has not changed since `before`.
pub(crate) async fn delete(
    to: &mut Conn,
    number: &PhoneNumberId,
    user: &str,
    before: Timestamp,
) -> Result<(), sqlx::Error> {
    let delete =
        "DELETE FROM permissions WHERE phone_number_id = $1 AND \"user\" = $2 AND updated_us < $3";
    sql::query(delete)
        .bind(number.as_str())
        .bind(user)
        .bind(before.micros())
        .execute(to)
        .await
        .map(drop)
}

/// Deletes replies from before `before`.
pub(crate) async fn delete_replies(to: &mut Conn, before: Timestamp) -> Result<u64, sqlx::Error> {
    let delete =
        sql::query("DELETE FROM permission_replies WHERE came_us < $1").bind(before.micros());
    Ok(delete.execute(to).await?.rows_affected())
}

/// Returns permissions ordered by number and user, after `after` or from the first.
pub(crate) async fn page(
    pool: &Pool,
    after: Option<(&str, &str)>,
    limit: u32,
) -> Result<Vec<PermissionRow>, StoreError> {
    let select = "SELECT phone_number_id, \"user\", state, pair, updated_us FROM permissions \
        WHERE (phone_number_id, \"user\") > ($1, $2) ORDER BY phone_number_id, \"user\" LIMIT $3";
    let (number, user) = after.unwrap_or(("", ""));
    let rows: Vec<(String, String, String, String, i64)> = sql::query_as(select)
        .bind(number)
        .bind(user)
        .bind(limit)
        .fetch_all(pool)
        .await
        .map_err(failed("read calling permissions"))?;
    let row = |(number, user, state, pair, updated): (String, String, String, String, i64)| {
        PermissionRow {
            number: number.into(),
            user,
            state,
            pair,
            updated: Timestamp::from_micros(updated),
        }
    };
    Ok(rows.into_iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use crate::store::Store;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use super::*;
    use crate::options::FaultInjector;
    use crate::options::StoreOptions;
    use crate::options::StorePart;
    use crate::rows::permission::PermissionWrite;
    use model::Health;

    fn row(number: &str, user: &str, state: &str, at: i64) -> PermissionRow {
        PermissionRow {
            number: number.into(),
            user: user.to_owned(),
            state: state.to_owned(),
            pair: format!("{{\"state\":\"{state}\"}}"),
            updated: Timestamp::from_secs(at),
        }
    }

    async fn put(store: &Store, row: PermissionRow, reply: Option<&str>) {
        let reply = reply.map(|id| PermissionReply {
            message: id.to_owned(),
            reply: "{}".to_owned(),
            applied: true,
        });
        store.permissions().put(PermissionWrite { row, reply }).expect("room").await.unwrap();
    }

    async fn replies(file: &Path) -> i64 {
        let store = crate::testing::pool(file).await;
        sql::query_scalar("SELECT count(*) FROM permission_replies")
            .fetch_one(&store)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn permissions_are_replaced_paged_and_deleted_unless_changed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("o.db");
        let store = Store::open(&file, Health::new()).await.unwrap();
        for (number, user) in [("2", "91"), ("1", "92"), ("1", "91"), ("10", "9")] {
            put(&store, row(number, user, "none", 10), None).await;
        }
        put(&store, row("1", "92", "temporary", 20), Some("wamid.1")).await;
        put(&store, row("1", "92", "temporary", 20), Some("wamid.1")).await;
        let mut seen = Vec::new();
        loop {
            let last: Option<PermissionRow> = seen.last().cloned();
            let after = last.as_ref().map(|row| (row.number.as_str(), row.user.as_str()));
            let page = store.permissions().list(after, 3).await.unwrap();
            if page.is_empty() {
                break;
            }
            seen.extend(page);
        }
        let keys: Vec<_> =
            seen.iter().map(|row| (row.number.as_str(), row.user.as_str())).collect();
        assert_eq!(keys, [("1", "91"), ("1", "92"), ("10", "9"), ("2", "91")]);
        assert_eq!((&seen[1], replies(&file).await), (&row("1", "92", "temporary", 20), 1));
        for user in ["91", "92"] {
            store.permissions().delete_unchanged(&"1".into(), user, Timestamp::from_secs(20));
        }
        store.calls().delete_history(Timestamp::default(), Timestamp::from_secs(21)).await.unwrap();
        let left = store.permissions().list(None, 9).await.unwrap();
        assert_eq!((left.len(), left[0].user.as_str()), (3, "92"), "changed since");
        assert_eq!(replies(&file).await, 0);
        assert!(!format!("{left:?}").contains("92"), "Debug omits the user");
        store.close().await;
    }

    #[tokio::test]
    async fn r11_a_rejected_reply_goes_to_the_journal_and_is_replayed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("o.db");
        let fails = Arc::new(AtomicBool::new(true));
        let switch = fails.clone();
        let fail = move |part| part == StorePart::Store && switch.load(Ordering::SeqCst);
        let journal = folder.path().join("data");
        let (busy, fail) = (Duration::from_millis(50), Some(Arc::new(fail) as FaultInjector));
        let options = StoreOptions { busy, fail, ..StoreOptions::with_journal_in(journal) };
        fails.store(false, Ordering::SeqCst);
        let store = Store::open_with(&file, options, Health::new()).await.unwrap();
        fails.store(true, Ordering::SeqCst);
        put(&store, row("1", "91", "temporary", 10), Some("wamid.1")).await;
        assert!(store.permissions().list(None, 9).await.unwrap().is_empty());
        fails.store(false, Ordering::SeqCst);
        let mut every = tokio::time::interval(Duration::from_millis(20));
        for _ in 0..500 {
            every.tick().await;
            if !store.permissions().list(None, 9).await.unwrap().is_empty() {
                break;
            }
        }
        assert_eq!(
            store.permissions().list(None, 9).await.unwrap(),
            [row("1", "91", "temporary", 10)]
        );
        assert_eq!(replies(&file).await, 1);
        store.close().await;
    }
}
