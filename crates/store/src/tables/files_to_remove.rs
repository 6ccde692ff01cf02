//! Files on the disks of nodes whose rows another node of the fleet has deleted.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::error::{RowError, StoreError, failed};
use crate::seal::Seal;
use crate::shared::Shared;
use crate::sql::{self, Conn, Dialect, Row};
use crate::write::WriteTask;

/// Handle to the files to remove. See [`Store::files_to_remove`](crate::Store::files_to_remove).
#[derive(Clone, Copy, Debug)]
pub struct FilesToRemove<'a>(pub(crate) &'a Shared);

/// A file that a node must remove from its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileToRemove {
    Recording {
        id: Uuid,
        format: String,
    },
    /// The file of a message.
    Media(Uuid),
}

impl FilesToRemove<'_> {
    /// Queues the files of messages for removal by the other nodes of the fleet. This node,
    /// `node_id`, has already removed them.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write.
    pub async fn add_media(self, node_id: &str, messages: &[Uuid]) -> Result<(), StoreError> {
        if messages.is_empty() || self.0.read.dialect() == Dialect::Sqlite {
            return Ok(());
        }
        let add = AddMedia { node_id: node_id.to_owned(), messages: messages.to_vec() };
        self.0.queue.run(add).await.map(drop)
    }

    /// Returns up to `limit` files that a node must remove, with their row ids.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn of(
        self,
        node_id: &str,
        limit: u32,
    ) -> Result<Vec<(i64, FileToRemove)>, StoreError> {
        const WHAT: &str = "read files to remove";
        if self.0.read.dialect() == Dialect::Sqlite {
            return Ok(Vec::new());
        }
        let select =
            "SELECT id, file, format FROM files_to_remove WHERE node_id = $1 ORDER BY id LIMIT $2";
        let select = sql::query(select).bind(node_id).bind(i64::from(limit));
        let rows = select.fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
        let unreadable = |e: RowError| StoreError::Unreadable { what: WHAT, detail: e.to_string() };
        rows.iter().map(|row| file(row).map_err(unreadable)).collect()
    }

    /// Records that a node has removed its files up to this row.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write.
    pub async fn done(self, node_id: &str, last: i64) -> Result<(), StoreError> {
        self.0.queue.run(Removed { node_id: node_id.to_owned(), last }).await.map(drop)
    }
}

fn file(row: &Row) -> Result<(i64, FileToRemove), RowError> {
    let id: Uuid = row.try_get::<String, _>("file")?.parse()?;
    let format: Option<String> = row.try_get("format")?;
    let file = match format {
        Some(format) => FileToRemove::Recording { id, format },
        None => FileToRemove::Media(id),
    };
    Ok((row.try_get("id")?, file))
}

/// Queues the file of a recording that is about to be deleted for removal by the node that has it.
pub(crate) async fn add_recording(to: &mut Conn, id: Uuid) -> Result<(), sqlx::Error> {
    if to.dialect() == Dialect::Sqlite {
        return Ok(());
    }
    let insert = "INSERT INTO files_to_remove (node_id, file, format) \
        SELECT split_part(node_id, '/', 1), recording_id, format FROM recordings WHERE recording_id = $1";
    sql::query(insert).bind(id.to_string()).execute(to).await.map(drop)
}

struct AddMedia {
    node_id: String,
    messages: Vec<Uuid>,
}

impl WriteTask for AddMedia {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        async move {
            let mut added = 0;
            for message in &self.messages {
                let insert = "INSERT INTO files_to_remove (node_id, file) \
                    SELECT DISTINCT r.node_id, $1 FROM runs r WHERE r.node_id <> split_part($2, '/', 1) \
                    AND r.state <> 'forgotten'";
                let insert = sql::query(insert).bind(message.to_string()).bind(&self.node_id);
                added += insert.execute(&mut *to).await?.rows_affected();
            }
            Ok(added)
        }
        .boxed()
    }
}

struct Removed {
    node_id: String,
    last: i64,
}

impl WriteTask for Removed {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        let delete = sql::query("DELETE FROM files_to_remove WHERE node_id = $1 AND id <= $2");
        let delete = delete.bind(&self.node_id).bind(self.last);
        async move { Ok(delete.execute(to).await?.rows_affected()) }.boxed()
    }
}
