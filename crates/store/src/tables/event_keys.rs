//! Keys of Meta's events that were received, so that a duplicate is recognized after a restart.

use crate::error::{StoreError, failed};
use crate::rows::event_key::{KeyKind, SeenKey};
use crate::shared::Shared;
use crate::sql::{self, Conn, Pool, Values};
use crate::write::Write;
use model::Timestamp;

/// Handle to the event keys. See [`Store::event_keys`](crate::Store::event_keys).
#[derive(Clone, Copy, Debug)]
pub struct EventKeys<'a>(pub(crate) &'a Shared);

impl EventKeys<'_> {
    /// Returns keys seen since `from` and before `to`, newest first.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn list(
        self,
        from: Timestamp,
        to: Timestamp,
        limit: u32,
    ) -> Result<Vec<SeenKey>, StoreError> {
        between(&self.0.read, from, to, limit).await
    }

    /// Stores a key. Does not wait for the write. If the queue is full, the key is lost and an
    /// error is counted.
    pub fn insert(self, key: SeenKey) {
        self.0.queue.post(Write::InsertKey(key));
    }

    /// Removes a key. Does not wait for the write.
    pub fn remove(self, key: u128) {
        self.0.queue.post(Write::RemoveKey(key));
    }

    /// Deletes some of the keys that were last seen before `seen_before`, oldest first. Does not
    /// wait for the write.
    pub fn delete_older(self, seen_before: Timestamp) {
        self.0.queue.offer(Write::DeleteOldKeys(seen_before));
    }
}

/// Number of keys deleted in one transaction. More would delay the writes of calls.
const BATCH: u32 = 20_000;

pub(crate) async fn insert(to: &mut Conn, keys: &[SeenKey]) -> Result<(), sqlx::Error> {
    const INSERT: (&str, usize, &str) = (
        "INSERT INTO webhook_keys (key, kind, seen_us) ",
        3,
        " ON CONFLICT (seen_us, key) DO NOTHING",
    );
    let row = |mut row: Values<'_>, key: &SeenKey| {
        let kind = match key.kind {
            KeyKind::Event => 0,
            KeyKind::Tombstone => 1,
        };
        row.push_bind(key.key.to_be_bytes().to_vec()).push_bind(kind).push_bind(key.seen.micros());
    };
    sql::insert_rows(to, INSERT, keys, row).await
}

/// Removes a key. No index finds its row, so the key is marked as removed up to the latest time in
/// the table. It is valid again if it is seen later.
pub(crate) async fn delete(to: &mut Conn, key: u128) -> Result<(), sqlx::Error> {
    let remove = "INSERT INTO webhook_keys_removed (key, until_us) \
        SELECT $1, coalesce(max(seen_us), 0) FROM webhook_keys WHERE true \
        ON CONFLICT (key) DO UPDATE SET until_us = excluded.until_us";
    sql::query(remove).bind(key.to_be_bytes().to_vec()).execute(to).await.map(drop)
}

/// Deletes some of the keys seen before `before`, oldest first.
pub(crate) async fn delete_oldest(to: &mut Conn, before: Timestamp) -> Result<(), sqlx::Error> {
    let delete = "DELETE FROM webhook_keys WHERE (seen_us, key) IN \
        (SELECT seen_us, key FROM webhook_keys WHERE seen_us < $1 ORDER BY seen_us LIMIT $2)";
    sql::query(delete).bind(before.micros()).bind(BATCH).execute(&mut *to).await?;
    let delete = sql::query("DELETE FROM webhook_keys_removed WHERE until_us < $1");
    delete.bind(before.micros()).execute(to).await.map(drop)
}

/// Returns keys seen since `from` and before `to`, newest first.
pub(crate) async fn between(
    pool: &Pool,
    from: Timestamp,
    to: Timestamp,
    limit: u32,
) -> Result<Vec<SeenKey>, StoreError> {
    let select = "SELECT key, kind, seen_us FROM webhook_keys k WHERE seen_us >= $1 AND seen_us < $2 \
        AND NOT EXISTS (SELECT 1 FROM webhook_keys_removed r WHERE r.key = k.key AND r.until_us >= k.seen_us) \
        ORDER BY seen_us DESC LIMIT $3";
    let rows: Vec<(Vec<u8>, i64, i64)> = sql::query_as(select)
        .bind(from.micros())
        .bind(to.micros())
        .bind(limit)
        .fetch_all(pool)
        .await
        .map_err(failed("read the keys of Meta's events"))?;
    let key = |(key, kind, seen): (Vec<u8>, i64, i64)| {
        let key = u128::from_be_bytes(key.try_into().ok()?);
        let kind = if kind == 0 { KeyKind::Event } else { KeyKind::Tombstone };
        Some(SeenKey { kind, key, seen: Timestamp::from_micros(seen) })
    };
    Ok(rows.into_iter().filter_map(key).collect())
}
