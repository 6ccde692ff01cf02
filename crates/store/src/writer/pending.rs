//! Writes the entries of a pending log to the database.

use crate::pending_log::{Birth, PendingEntries, WacidEntry};
use crate::rows::call::CallStart;
use crate::seal::Seal;
use crate::sql::{self, Conn, Pool};
use crate::tables::calls::{self, OpenCall};
use crate::write::Write;
use crate::writer::batch;

/// Writes the contents of an earlier process's pending log that are not in the database yet: starts
/// of calls, ids that Meta gave outbound calls, and ends with their callbacks.
pub(crate) async fn insert_pending(
    pool: &Pool,
    seal: &Seal,
    left: &PendingEntries,
) -> Result<(), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let done = insert_entries(&mut connection, seal, left).await;
    if done.is_err() {
        // Closing the connection rolls its transaction back.
        let _ = connection.close().await;
    }
    done
}

async fn insert_entries(
    transaction: &mut Conn,
    seal: &Seal,
    left: &PendingEntries,
) -> Result<(), sqlx::Error> {
    transaction.begin(true).await?;
    for Birth { node_id, born, setup } in &left.starts {
        let json = serde_json::to_string(setup).unwrap_or_default();
        let open = OpenCall { setup: &json, born: *born };
        calls::insert(transaction, &CallStart::of(setup, node_id), Some(open)).await?;
    }
    for WacidEntry { call, wacid, farewell } in &left.wacids {
        let unnamed = "SELECT 1 FROM calls WHERE call_uuid = $1 AND wacid IS NULL";
        let unnamed: Option<(i64,)> =
            sql::query_as(unnamed).bind(call.to_string()).fetch_optional(&mut *transaction).await?;
        // A call with an id needs nothing: it was written in an earlier batch.
        if unnamed.is_some() {
            calls::record_wacid(transaction, *call, wacid, *farewell).await?;
        }
    }
    for end in &left.ends {
        if let Write::CallEnded(conclusion, _) = end.clone().into_write(seal) {
            batch::conclude(transaction, seal, &conclusion, None).await?;
        }
    }
    transaction.commit().await
}
