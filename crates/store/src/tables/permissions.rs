//! Calling permissions of users and their replies to permission requests. `admission::permission`
//! defines the permission's content.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::error::{StoreError, failed};
use crate::rows::permission::{
    ChangedPermission, Engagement, PermissionReply, PermissionRow, PermissionWrite,
};
use crate::seal::Seal;
use crate::shared::Shared;
use crate::sql::{self, Conn, Dialect, Pool};
use crate::write::{Write, WriteTask};
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

    /// Returns the `pair` of a permission, if it exists.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn pair(
        self,
        number: &PhoneNumberId,
        user: &str,
    ) -> Result<Option<String>, StoreError> {
        let select = "SELECT pair FROM permissions WHERE phone_number_id = $1 AND \"user\" = $2";
        let select = sql::query_scalar(select).bind(number.as_str()).bind(user);
        select.fetch_optional(&self.0.read).await.map_err(failed("read a calling permission"))
    }

    /// Engages a user for a call that is about to be placed, in a fleet on PostgreSQL. `seen` is
    /// the `pair` that permits the call.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn engage(
        self,
        engagement: &Engagement,
        seen: Option<&str>,
    ) -> Result<EngageResult, StoreError> {
        const WHAT: &str = "engage a user";
        let Engagement { id, number, user, run } = engagement;
        // One statement has one snapshot: a call that has ended in it is also counted in the pair.
        // Of two statements at the same time, the index lets one pass.
        let insert = format!(
            "INSERT INTO engagements AS e (engagement, phone_number_id, \"user\", outbound, run) \
             SELECT $1::uuid, $2, $3, TRUE, $4::uuid WHERE (SELECT pair FROM permissions \
             WHERE phone_number_id = $2 AND \"user\" = $3) IS NOT DISTINCT FROM $5 \
             AND NOT EXISTS (SELECT 1 FROM engagements e WHERE phone_number_id = $2 AND \"user\" = $3 AND {LIVE}) \
             ON CONFLICT (phone_number_id, \"user\") WHERE outbound DO UPDATE \
             SET engagement = excluded.engagement, run = excluded.run WHERE NOT ({LIVE})"
        );
        let insert =
            sql::query(insert).bind(id.to_string()).bind(number.as_str()).bind(user.as_str());
        let insert = insert.bind(run.to_string()).bind(seen.map(str::to_owned));
        if insert.execute(&self.0.read).await.map_err(failed(WHAT))?.rows_affected() > 0 {
            return Ok(EngageResult::Engaged);
        }
        let unchanged = self.pair(number, user).await?.as_deref() == seen;
        Ok(if unchanged { EngageResult::Busy } else { EngageResult::Changed })
    }

    /// Replaces the `pair` of a permission when a permission request is about to be sent, in a
    /// fleet on PostgreSQL. Returns `false` if the `pair` in the database is no longer the one that
    /// permitted the request.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn replace(
        self,
        row: &PermissionRow,
        seen: Option<&str>,
    ) -> Result<bool, StoreError> {
        let put = match seen {
            None => {
                "INSERT INTO permissions (phone_number_id, \"user\", state, pair, updated_us) \
                VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING"
            }
            Some(_) => {
                "UPDATE permissions SET state = $3, pair = $4, updated_us = $5 \
                WHERE phone_number_id = $1 AND \"user\" = $2 AND pair = $6"
            }
        };
        let put = sql::query(put).bind(row.number.as_str()).bind(&row.user).bind(&row.state);
        let put = put.bind(&row.pair).bind(row.updated.micros());
        let put = match seen {
            None => put,
            Some(seen) => put.bind(seen),
        };
        let done = put.execute(&self.0.read).await.map_err(failed("count a permission request"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Engages a user for a call from the user, even if the user is in another call. Does not wait
    /// for the write.
    pub fn engage_inbound(self, engagement: Engagement) {
        drop(self.0.queue.run(EngagementWrite::Inbound(engagement)));
    }

    /// Ends an engagement, after all writes queued so far.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write.
    pub fn disengage(
        self,
        engagement: Uuid,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send + 'static + use<> {
        self.0.queue.run(EngagementWrite::End(engagement))
    }

    /// Deletes a permission that has not changed since `before` and, if `pair` is given, still has
    /// this content. Does not wait for the write.
    pub fn delete_unchanged(
        self,
        number: &PhoneNumberId,
        user: &str,
        before: Timestamp,
        pair: Option<String>,
    ) {
        // If the queue is full, the next sweep deletes it.
        let (number, user) = (number.clone(), user.to_owned());
        self.0.queue.offer(Write::DeletePermission(number, user, before, pair));
    }
}

/// The result of [`Permissions::engage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngageResult {
    Engaged,
    /// The user is in another call, or one is about to be placed.
    Busy,
    /// The `pair` has changed since it was read.
    Changed,
}

/// Condition: the run of the engagement `e` may still have calls.
const LIVE: &str =
    "EXISTS (SELECT 1 FROM runs r WHERE r.run = e.run AND r.state IN ('up', 'draining', 'dead'))";

enum EngagementWrite {
    Inbound(Engagement),
    End(Uuid),
}

impl WriteTask for EngagementWrite {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        let query = match self {
            Self::Inbound(Engagement { id, number, user, run }) => {
                let insert = "INSERT INTO engagements (engagement, phone_number_id, \"user\", outbound, run) \
                    VALUES ($1::uuid, $2, $3, FALSE, $4::uuid) ON CONFLICT DO NOTHING";
                let insert = sql::query(insert).bind(id.to_string()).bind(number.as_str());
                insert.bind(user.as_str()).bind(run.to_string())
            }
            Self::End(id) => sql::query("DELETE FROM engagements WHERE engagement = $1::uuid")
                .bind(id.to_string()),
        };
        async move { Ok(query.execute(to).await?.rows_affected()) }.boxed()
    }

    /// Returns `false`: an engagement ends with its run anyway.
    fn is_synced(&self) -> bool {
        false
    }
}

/// Writes a permission and its reply. On a shared database, the change is applied to the row as it
/// is now, which is locked until the end of the transaction.
pub(crate) async fn write(to: &mut Conn, write: &PermissionWrite) -> Result<(), sqlx::Error> {
    let (Some(change), Dialect::Postgres) = (&write.change, to.dialect()) else {
        return put(to, &write.row, write.reply.as_ref()).await;
    };
    let row = &write.row;
    let mut pair = lock(to, row).await?;
    let mut changed = change(pair.as_deref());
    if pair.is_none() && changed.is_some() {
        // Another node may insert the row now. This waits for it.
        let insert = "INSERT INTO permissions (phone_number_id, \"user\", state, pair, updated_us) \
            VALUES ($1, $2, '', '{}', 0) ON CONFLICT DO NOTHING";
        let insert = sql::query(insert).bind(row.number.as_str()).bind(&row.user);
        insert.execute(&mut *to).await?;
        pair = lock(to, row).await?.filter(|pair| pair != "{}");
        changed = change(pair.as_deref());
    }
    let Some(ChangedPermission { state, pair, applied }) = changed else { return Ok(()) };
    let row = PermissionRow { state, pair, ..row.clone() };
    let reply = write.reply.clone().map(|reply| PermissionReply { applied, ..reply });
    put(to, &row, reply.as_ref()).await
}

/// Locks the row of a permission and returns its `pair`.
async fn lock(to: &mut Conn, row: &PermissionRow) -> Result<Option<String>, sqlx::Error> {
    let select =
        "SELECT pair FROM permissions WHERE phone_number_id = $1 AND \"user\" = $2 FOR UPDATE";
    sql::query_scalar(select).bind(row.number.as_str()).bind(&row.user).fetch_optional(to).await
}

/// Inserts or replaces the permission and inserts the reply. A reply that is already stored is not
/// inserted again.
async fn put(
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

/// Deletes a permission that has not changed since `before` and has this `pair`, if one is given.
pub(crate) async fn delete(
    to: &mut Conn,
    number: &PhoneNumberId,
    user: &str,
    before: Timestamp,
    pair: Option<&str>,
) -> Result<(), sqlx::Error> {
    let delete = "DELETE FROM permissions WHERE phone_number_id = $1 AND \"user\" = $2 AND updated_us < $3 \
        AND pair = coalesce($4, pair)";
    sql::query(delete)
        .bind(number.as_str())
        .bind(user)
        .bind(before.micros())
        .bind(pair)
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
        store
            .permissions()
            .put(PermissionWrite { row, reply, change: None })
            .expect("room")
            .await
            .unwrap();
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
            store.permissions().delete_unchanged(&"1".into(), user, Timestamp::from_secs(20), None);
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
