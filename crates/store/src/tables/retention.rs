//! Deletion of data older than the `[retention]` settings allow. Rows are found on a read
//! connection and deleted in batches, so that no write has to wait.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::error::{StoreError, failed};
use crate::rows::call::{CallFilter, Compare};
use crate::scope::Scope;
use crate::seal::Seal;
use crate::sql::{self, Conn};
use crate::tables::call_lists::{List, main_accounts};
use crate::tables::calls::Calls;
use crate::tables::{call_logs, outbox, permissions};
use crate::write::WriteTask;
use model::Timestamp;

impl Calls<'_> {
    /// Returns a time that the newest ended call and the newest message are not later than, or
    /// `None` if there are none. It is up to a day after the call.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn newest_record(self) -> Result<Option<Timestamp>, StoreError> {
        const DAY_US: i64 = 86_400_000_000;
        let select = "SELECT (SELECT max(day) FROM call_days), (SELECT max(came_us) FROM messages)";
        let row = sql::query_as(select).fetch_one(&self.0.read).await;
        let (day, message): (Option<i64>, Option<i64>) =
            row.map_err(failed("find the newest record"))?;
        let call = day.map(|day| day.saturating_add(1).saturating_mul(DAY_US));
        Ok(call.max(message).map(Timestamp::from_micros))
    }

    /// Deletes event logs of calls that ended before `before`, callbacks finished before it, and
    /// permission replies from before it. Calls that ended before `since` are skipped: their logs
    /// were deleted earlier by this process.
    ///
    /// # Errors
    /// Fails if a query fails or the database rejects a write. Some data may be deleted then.
    pub async fn delete_history(
        self,
        since: Timestamp,
        before: Timestamp,
    ) -> Result<(), StoreError> {
        // Event log lines are written in batches of their own. Those in the queue belong to logs
        // that are deleted here.
        self.0.queue.flush().await;
        for account in main_accounts(&self.0.read).await? {
            self.delete_logs(&account, since, before).await?;
        }
        self.delete_callbacks(before).await?;
        self.0.queue.run(DeleteReplies(before)).await.map(drop)
    }

    /// Deletes the event logs of the calls of a main account that ended from `since` to `before`.
    async fn delete_logs(
        self,
        account: &Scope,
        since: Timestamp,
        before: Timestamp,
    ) -> Result<(), StoreError> {
        const WHAT: &str = "find expired event logs";
        let ended = vec![(Compare::GreaterEqual, since), (Compare::Less, before)];
        let filter = CallFilter { ended, ..CallFilter::default() };
        let list = List { pool: &self.0.read, scope: account, filter: &filter };
        let mut started = list.start_range().await?;
        loop {
            let mut select = list.select("call_uuid, started_us", &started);
            select.push(
                " AND EXISTS (SELECT 1 FROM call_logs e WHERE e.call_uuid = calls.call_uuid) \
                 ORDER BY started_us LIMIT ",
            );
            let found: Vec<(String, i64)> = select
                .push_bind(i64::from(BATCH))
                .build_query_as()
                .fetch_all(&self.0.read)
                .await
                .map_err(failed(WHAT))?;
            let Some((_, last)) = found.last() else { return Ok(()) };
            started.start = *last;
            self.0.queue.run(DeleteLogs(found.into_iter().map(|(call, _)| call).collect())).await?;
        }
    }

    /// Deletes callbacks that were delivered or given up before `before`. Reads rows in the order
    /// of their creation and stops at the first ones created after that time, so no index of
    /// completion times is needed.
    async fn delete_callbacks(self, before: Timestamp) -> Result<(), StoreError> {
        const WHAT: &str = "find expired callbacks";
        let mut last = 0;
        loop {
            let select =
                "SELECT id, created_us, done_us FROM callbacks WHERE id > $1 ORDER BY id LIMIT $2";
            let rows: Vec<(i64, i64, Option<i64>)> = sql::query_as(select)
                .bind(last)
                .bind(i64::from(BATCH))
                .fetch_all(&self.0.read)
                .await
                .map_err(failed(WHAT))?;
            let is_old = |at: i64| at < before.micros();
            let done = rows.iter().filter(|(_, _, done)| done.is_some_and(is_old));
            let done: Vec<i64> = done.map(|(id, ..)| *id).collect();
            if !done.is_empty() {
                self.0.queue.run(DeleteCallbacks(done, before)).await?;
            }
            // An entry of the journal can be older than the rows before it.
            match rows.last() {
                Some((id, ..)) if rows.iter().any(|(_, created, _)| is_old(*created)) => last = *id,
                Some(_) | None => return Ok(()),
            }
        }
    }
}

/// Number of logs or callbacks deleted in one write.
const BATCH: u32 = 500;

/// Deletes the event logs of these calls.
struct DeleteLogs(Vec<String>);

impl WriteTask for DeleteLogs {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        async move { call_logs::delete(to, &self.0).await }.boxed()
    }
}

/// Deletes those of these callbacks that were finished before this time.
struct DeleteCallbacks(Vec<i64>, Timestamp);

impl WriteTask for DeleteCallbacks {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        outbox::delete_finished(to, &self.0, self.1).boxed()
    }
}

/// Deletes replies to permission requests from before this time.
struct DeleteReplies(Timestamp);

impl WriteTask for DeleteReplies {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        permissions::delete_replies(to, self.0).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use model::Health;

    /// A callback that waits for long does not keep the ones after it from being deleted.
    #[tokio::test]
    async fn finished_callbacks_are_deleted_behind_waiting_ones() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("o.db");
        let store = Store::open(&file, Health::new()).await.unwrap();
        let pool = crate::testing::pool(&file).await;
        // Rows are created one second apart. Those up to the second 700 are waiting, and the others
        // were done after three seconds.
        let fill = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) \
            INSERT INTO callbacks (event_id, call_uuid, auth_id, main_auth_id, node_id, kind, origin, url, method, params, \
            created_us, since_us, next_us, done_us) SELECT 'event', 'call', 'MA1', 'MA1', 'node', 'hangup', 'origin', 'url', \
            'POST', '{}', i * 1000000, 0, CASE WHEN i > 700 THEN NULL ELSE 0 END, \
            CASE WHEN i > 700 THEN i * 1000000 + 3000000 END FROM n";
        sql::query(fill).execute(&pool).await.unwrap();
        let before = Timestamp::from_secs(1_503);
        store.calls().delete_history(Timestamp::default(), before).await.unwrap();
        let left = "SELECT count(*), count(done_us), min(done_us) FROM callbacks";
        let left: (i64, i64, i64) = sql::query_as(left).fetch_one(&pool).await.unwrap();
        assert_eq!(left, (1_201, 501, before.micros()));
        pool.close().await;
        store.close().await;
    }
}
