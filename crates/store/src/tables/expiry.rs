//! Deletes rows that are too old, and the oldest ones of accounts that have too many.

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
    /// The columns by which rows are grouped, such as the account. `max` applies to each group.
    pub(crate) group: &'static [&'static str],
    /// Maximum number of rows of each group.
    pub(crate) max: u32,
}

const WHAT: &str = "count old rows";

/// Number of rows deleted in one write, so that the writer is never busy for long.
const BATCH: u32 = 1_000;

impl ExpiringTable {
    /// Deletes the rows from before `before`, and the oldest ones of each group beyond
    /// [`max`](Self::max).
    ///
    /// # Errors
    /// Fails if a query fails or the database rejects a write. Some rows may be deleted then.
    pub(crate) async fn delete(self, shared: &Shared, before: Timestamp) -> Result<(), StoreError> {
        let Self { name, rows, group, max, .. } = self;
        self.delete_batches(shared, Rows::Before(before)).await?;
        // This scan uses a read connection, because the writer must not be slow.
        let columns = group.join(", ");
        let select = format!(
            "SELECT {columns} FROM {name} WHERE {rows} GROUP BY {columns} HAVING count(*) > $1"
        );
        let select = sql::query(select).bind(i64::from(max));
        let full = select.fetch_all(&shared.read).await.map_err(failed(WHAT))?;
        for row in full {
            let values: Result<Vec<String>, _> =
                group.iter().map(|column| row.try_get(*column)).collect();
            self.delete_batches(shared, Rows::Excess(values.map_err(failed(WHAT))?)).await?;
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
    /// Excess rows of the group with these values.
    Excess(Vec<String>),
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
        let ExpiringTable { name, id, time, rows: expiring, group, max } = self.table;
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
            Rows::Excess(values) => {
                let equal: Vec<String> =
                    (3..).zip(group).map(|(nth, column)| format!("{column} = ${nth}")).collect();
                let rows = format!(
                    "{} ORDER BY {time} DESC, {id} LIMIT $1 OFFSET $2",
                    equal.join(" AND ")
                );
                let delete = sql::query(delete(&rows)).bind(i64::from(BATCH)).bind(i64::from(max));
                values.iter().fold(delete, |delete, value| delete.bind(value))
            }
        };
        async move { Ok(delete.execute(to).await?.rows_affected()) }.boxed()
    }
}
