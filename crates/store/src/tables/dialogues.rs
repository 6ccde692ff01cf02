//! Transcripts of open calls between an AI agent and a user. Each line is a row, written
//! immediately, so that the next process has the transcript if this one dies. The rows are deleted
//! once the transcript is stored with the ended call.

use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::error::{StoreError, failed};
use crate::seal::Seal;
use crate::shared::Shared;
use crate::sql::{self, Conn};
use crate::write::WriteTask;
use model::CallUuid;

/// Handle to the transcripts. See [`Store::dialogues`](crate::Store::dialogues).
#[derive(Clone, Copy, Debug)]
pub struct Dialogues<'a>(pub(crate) &'a Shared);

impl Dialogues<'_> {
    /// Stores a line of the transcript, or replaces it if speech recognition has corrected it. The
    /// write is queued when this returns. If the queue is full, the line does not survive a crash.
    pub fn put(self, call: CallUuid, seq: usize, line: CallLine) {
        drop(self.0.queue.try_run(PutLine { call, seq, line }));
    }

    /// Deletes the lines of a call once they are stored elsewhere. The write is queued when this
    /// returns.
    pub fn delete(self, call: CallUuid) {
        drop(self.0.queue.try_run(DeleteLines(Some(call))));
    }

    /// Deletes the lines of all calls that have ended.
    pub fn delete_ended(self) {
        drop(self.0.queue.try_run(DeleteLines(None)));
    }

    /// Returns the transcripts of calls that an earlier process of this node left open, with their
    /// lines in order.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn of_orphans(
        self,
        node_id: &str,
    ) -> Result<BTreeMap<CallUuid, Vec<CallLine>>, StoreError> {
        const WHAT: &str = "read transcripts of open calls";
        let select = "SELECT s.call_uuid, s.role, s.body, s.said_at FROM call_said s JOIN calls c \
            ON c.call_uuid = s.call_uuid WHERE c.node_id = $1 AND c.ended_us IS NULL ORDER BY s.call_uuid, s.seq";
        let rows =
            sql::query(select).bind(node_id).fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
        let mut lines: BTreeMap<CallUuid, Vec<CallLine>> = BTreeMap::new();
        for row in &rows {
            let text = |column: &str| row.try_get::<String, _>(column).map_err(failed(WHAT));
            let call: Uuid = text("call_uuid")?.parse().map_err(|e: uuid::Error| {
                StoreError::Unreadable { what: WHAT, detail: e.to_string() }
            })?;
            let line = CallLine { role: text("role")?, text: text("body")?, at: text("said_at")? };
            lines.entry(CallUuid(call)).or_default().push(line);
        }
        Ok(lines)
    }
}

/// A line of a transcript. `Debug` does not show its text.
#[derive(Clone, PartialEq, Eq)]
pub struct CallLine {
    /// `user` or `assistant`.
    pub role: String,
    pub text: String,
    /// Time in RFC 3339.
    pub at: String,
}

impl std::fmt::Debug for CallLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CallLine({} {})", self.role, self.at)
    }
}

/// Stores or replaces a line of a call's transcript.
struct PutLine {
    call: CallUuid,
    seq: usize,
    line: CallLine,
}

impl WriteTask for PutLine {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        async move {
            let upsert = "INSERT INTO call_said (call_uuid, seq, role, body, said_at) VALUES ($1, $2, $3, $4, $5) \
                ON CONFLICT (call_uuid, seq) DO UPDATE SET role = excluded.role, body = excluded.body, \
                said_at = excluded.said_at";
            let upsert = sql::query(upsert)
                .bind(self.call.to_string())
                .bind(i64::try_from(self.seq).unwrap_or(i64::MAX))
                .bind(&self.line.role)
                .bind(&self.line.text);
            Ok(upsert.bind(&self.line.at).execute(to).await?.rows_affected())
        }
        .boxed()
    }

    /// Returns `false`: a line survives a crash of the process without a sync.
    fn is_synced(&self) -> bool {
        false
    }
}

/// Deletes the lines of a call, or with `None` those of all calls that have ended.
struct DeleteLines(Option<CallUuid>);

impl WriteTask for DeleteLines {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        async move {
            let over = "DELETE FROM call_said WHERE NOT EXISTS \
                (SELECT 1 FROM calls c WHERE c.call_uuid = call_said.call_uuid AND c.ended_us IS NULL)";
            let delete = match self.0 {
                Some(call) => sql::query("DELETE FROM call_said WHERE call_uuid = $1").bind(call.to_string()),
                None => sql::query(over),
            };
            Ok(delete.execute(to).await?.rows_affected())
        }
        .boxed()
    }

    fn is_synced(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::tests::begin;
    use crate::tests::uuid;
    use model::Health;

    fn line(role: &str, text: &str) -> CallLine {
        CallLine {
            role: role.to_owned(),
            text: text.to_owned(),
            at: "2026-11-21T10:00:00.000Z".to_owned(),
        }
    }

    #[tokio::test]
    async fn lines_are_returned_in_order_with_corrections_until_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        begin(&store, 1);
        for (seq, text) in
            [(0, "Welcome. How can I help?"), (10, "Late"), (9, "Not so late"), (0, "Welcome.")]
        {
            store.dialogues().put(uuid(1), seq, line("assistant", text));
        }
        store.dialogues().put(uuid(2), 0, line("user", "nobody's"));
        store.flush().await;
        let lines = store.dialogues().of_orphans("node").await.unwrap();
        let want = ["Welcome.", "Not so late", "Late"].map(|text| line("assistant", text)).to_vec();
        assert_eq!(lines, BTreeMap::from([(uuid(1), want)]));
        assert!(store.dialogues().of_orphans("another").await.unwrap().is_empty());

        store.dialogues().delete_ended();
        store.flush().await;
        let count = async || -> i64 {
            sql::query_scalar("SELECT count(*) FROM call_said")
                .fetch_one(&store.shared.read)
                .await
                .unwrap()
        };
        assert_eq!(count().await, 3, "those of the open call");
        store.dialogues().delete(uuid(1));
        store.flush().await;
        assert_eq!(count().await, 0);
    }
}
