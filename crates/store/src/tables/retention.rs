//! What is past its time goes (`[retention]`): found by a reader and removed some at a time, so that no write waits for it.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::error::{StoreError, failed};
use crate::seal::Seal;
use crate::sql::{self, Conn, QueryBuilder};
use crate::tables::calls::Calls;
use crate::tables::{outbox, permissions};
use crate::write::Deed;
use model::Timestamp;

impl Calls<'_> {
    /// Forgets the event logs of calls that ended before then, and callbacks done and permission replies that came before
    /// then (`[retention]`). `since`: of calls that ended earlier nothing is left, as far as this process has seen.
    ///
    /// # Errors
    /// The store's; some may be gone.
    pub async fn delete_history(
        self,
        since: Timestamp,
        before: Timestamp,
    ) -> Result<(), StoreError> {
        const WHAT: &str = "look for event logs past their time";
        // Lines have batches of their own: those that wait belong to the logs that go.
        self.0.queue.flush().await;
        let mut since = since.micros();
        loop {
            let select = "SELECT call_uuid, ended_us FROM calls c WHERE ended_us >= $1 AND ended_us < $2 AND EXISTS \
                (SELECT 1 FROM call_events e WHERE e.call_uuid = c.call_uuid) ORDER BY ended_us LIMIT $3";
            let select =
                sql::query_as(select).bind(since).bind(before.micros()).bind(i64::from(AT_ONCE));
            let found: Vec<(String, i64)> =
                select.fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
            let Some((_, last)) = found.last() else { break };
            since = *last;
            self.0.queue.run(Logs(found.into_iter().map(|(call, _)| call).collect())).await?;
        }
        while self.0.queue.run(Callbacks(before)).await? >= u64::from(AT_ONCE) {}
        self.0.queue.run(Replies(before)).await.map(drop)
    }
}

/// Calls whose logs go in one write, and callbacks that do.
const AT_ONCE: u32 = 500;

/// Event logs of calls that are over.
struct Logs(Vec<String>);

impl Deed for Logs {
    fn carry_out<'a>(
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

/// Callbacks that were done before then.
struct Callbacks(Timestamp);

impl Deed for Callbacks {
    fn carry_out<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        outbox::forget(to, self.0, AT_ONCE).boxed()
    }
}

/// Replies to permission requests that came before then.
struct Replies(Timestamp);

impl Deed for Replies {
    fn carry_out<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        permissions::forget_replies(to, self.0).boxed()
    }
}
