//! Deletion of data older than the `[retention]` settings allow. Rows are found on a read
//! connection and deleted in batches, so that no write has to wait.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::error::{StoreError, failed};
use crate::seal::Seal;
use crate::sql::{self, Conn, QueryBuilder};
use crate::tables::calls::Calls;
use crate::tables::{outbox, permissions};
use crate::write::WriteTask;
use model::Timestamp;

impl Calls<'_> {
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
        const WHAT: &str = "find expired event logs";
        // Event log lines are written in batches of their own. Those in the queue belong to logs
        // that are deleted here.
        self.0.queue.flush().await;
        let mut since = since.micros();
        loop {
            let select = "SELECT call_uuid, ended_us FROM calls c WHERE ended_us >= $1 AND ended_us < $2 AND EXISTS \
                (SELECT 1 FROM call_events e WHERE e.call_uuid = c.call_uuid) ORDER BY ended_us LIMIT $3";
            let select =
                sql::query_as(select).bind(since).bind(before.micros()).bind(i64::from(BATCH));
            let found: Vec<(String, i64)> =
                select.fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
            let Some((_, last)) = found.last() else { break };
            since = *last;
            self.0.queue.run(DeleteLogs(found.into_iter().map(|(call, _)| call).collect())).await?;
        }
        while self.0.queue.run(DeleteCallbacks(before)).await? >= u64::from(BATCH) {}
        self.0.queue.run(DeleteReplies(before)).await.map(drop)
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
        async move {
            let mut delete = QueryBuilder::new("DELETE FROM call_events WHERE call_uuid IN (");
            let mut calls = delete.list();
            for call in &self.0 {
                calls.push_bind(call.clone());
            }
            delete.push(")");
            Ok(delete.build().execute(to).await?.rows_affected())
        }
        .boxed()
    }
}

/// Deletes callbacks finished before this time.
struct DeleteCallbacks(Timestamp);

impl WriteTask for DeleteCallbacks {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        outbox::delete_finished(to, self.0, BATCH).boxed()
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
