//! Deletes rows that are too old, and the oldest ones of main accounts that have too many.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::error::{StoreError, failed};
use crate::seal::Seal;
use crate::shared::Shared;
use crate::sql::{self, Conn};
use crate::write::WriteTask;
use model::Timestamp;

/// A table of rows that expire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExpiringTable {
    pub(crate) name: &'static str,
    /// The column of the primary key.
    pub(crate) id: &'static str,
    /// The column with the time of a row, in microseconds.
    pub(crate) time: &'static str,
    /// SQL condition that selects the rows to which the limits apply.
    pub(crate) rows: &'static str,
    /// Maximum number of rows for each main account.
    pub(crate) max: u32,
}

/// Number of rows deleted in one write, so that the writer is never busy for long.
const BATCH: u32 = 1_000;

impl ExpiringTable {
    /// Deletes the rows from before `before`, and the oldest ones of each main account beyond
    /// [`max`](Self::max).
    ///
    /// # Errors
    /// Fails if a query fails or the database rejects a write. Some rows may be deleted then.
    pub(crate) async fn delete(self, shared: &Shared, before: Timestamp) -> Result<(), StoreError> {
        let Self { name, rows, max, .. } = self;
        self.delete_batches(shared, Rows::Before(before)).await?;
        // This scan uses a read connection, because the writer must not be slow.
        let select = format!(
            "SELECT main_auth_id FROM {name} WHERE {rows} GROUP BY main_auth_id HAVING count(*) > $1"
        );
        let select = sql::query_scalar::<String>(select).bind(i64::from(max));
        let accounts = select.fetch_all(&shared.read).await.map_err(failed("count old rows"))?;
        for account in accounts {
            self.delete_batches(shared, Rows::Excess(account)).await?;
        }
        Ok(())
    }

    async fn delete_batches(self, shared: &Shared, rows: Rows) -> Result<(), StoreError> {
        let batch = || DeleteBatch { table: self, rows: rows.clone() };
        while shared.queue.run(batch()).await? >= u64::from(BATCH) {}
        Ok(())
    }
}

#[derive(Clone)]
enum Rows {
    Before(Timestamp),
    /// Excess rows of a main account.
    Excess(String),
}

/// Deletes at most [`BATCH`] rows.
struct DeleteBatch {
    table: ExpiringTable,
    rows: Rows,
}

impl WriteTask for DeleteBatch {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        let ExpiringTable { name, id, time, rows: expiring, max } = self.table;
        let delete = |rows: &str| {
            format!(
                "DELETE FROM {name} WHERE {id} IN (SELECT {id} FROM {name} WHERE {expiring} AND {rows})"
            )
        };
        let delete = match &self.rows {
            Rows::Before(before) => {
                sql::query(delete(&format!("{time} < $1 ORDER BY {time} LIMIT $2")))
                    .bind(before.micros())
                    .bind(i64::from(BATCH))
            }
            Rows::Excess(account) => {
                let rows =
                    format!("main_auth_id = $1 ORDER BY {time} DESC, {id} LIMIT $2 OFFSET $3");
                sql::query(delete(&rows)).bind(account).bind(i64::from(BATCH)).bind(i64::from(max))
            }
        };
        async move { Ok(delete.execute(to).await?.rows_affected()) }.boxed()
    }
}
