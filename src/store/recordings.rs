//! Recordings: rows beside files that others keep (`plivo-call-api.md` §5). A row is there from the recording's beginning;
//! its end, and what tells of it, are one transaction.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::callbacks::{self, NewCallback, Written};
use super::calls::within;
use super::seal::Seal;
use super::sql::{self, Conn, Pool, QueryBuilder, Row};
use super::{Compare, Scope, StoreError, failed};
use crate::call::machine::{Notice, RecordEnd};
use crate::model::{AuthId, CallUuid, Timestamp};

/// A recording that begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordingStart {
    pub id: Uuid,
    /// The owner, and its main account.
    pub account: AuthId,
    pub main_account: AuthId,
    pub call: CallUuid,
    /// Of a room's recording.
    pub conference: Option<String>,
    /// `wav` or `mp3`.
    pub format: String,
    pub stereo: bool,
    pub node_id: String,
    pub started: Timestamp,
    /// What is sent when it has ended, with what there is to say of it added. They hold no secret.
    pub notices: Vec<Notice>,
}

/// How a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingEnd {
    pub ended: Timestamp,
    pub duration_ms: u64,
    pub end: RecordEnd,
    /// When it is to be copied to other storage, if it is.
    pub upload: Option<Timestamp>,
}

/// The end of a recording with all that reports it: one transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordingConclusion {
    pub start: RecordingStart,
    pub end: RecordingEnd,
    pub callbacks: Vec<NewCallback>,
}

/// A recording that is complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    pub id: Uuid,
    pub call: CallUuid,
    pub conference: Option<String>,
    pub format: String,
    pub started: Timestamp,
    pub ended: Timestamp,
    pub duration_ms: u64,
    /// What it is called in other storage, if it is there.
    pub object: Option<String>,
}

/// Which recordings are asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecordingFilter {
    pub call: Option<CallUuid>,
    pub conference: Option<String>,
    pub subaccount: Option<AuthId>,
    pub added: Vec<(Compare, Timestamp)>,
}

const COLUMNS: &str = "recording_id, call_uuid, conference_name, format, started_us, ended_us, duration_ms, object";

/// Writes that a recording begins; once.
pub(super) async fn begin(to: &mut Conn, start: &RecordingStart) -> Result<(), sqlx::Error> {
    let insert = "INSERT INTO recordings (recording_id, auth_id, main_auth_id, call_uuid, conference_name, format, stereo, \
        node_id, started_us, notices) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING";
    let insert = sql::query(insert)
        .bind(start.id.to_string())
        .bind(start.account.as_str())
        .bind(start.main_account.as_str())
        .bind(start.call.to_string())
        .bind(&start.conference);
    let insert = insert.bind(&start.format).bind(start.stereo).bind(&start.node_id).bind(start.started.micros());
    insert.bind(sqlx::types::Json(&start.notices)).execute(to).await.map(drop)
}

/// Closes a row, and puts what reports it into the outbox; neither, where it was closed before.
pub(super) async fn conclude(to: &mut Conn, seal: &Seal, c: &RecordingConclusion) -> Result<Vec<Written>, sqlx::Error> {
    begin(to, &c.start).await?;
    let update = "UPDATE recordings SET ended_us = $2, duration_ms = $3, end_reason = $4, upload_us = $5, notices = NULL \
        WHERE recording_id = $1 AND ended_us IS NULL";
    let update = sql::query(update)
        .bind(c.start.id.to_string())
        .bind(c.end.ended.micros())
        .bind(i64::try_from(c.end.duration_ms).unwrap_or(i64::MAX))
        .bind(c.end.end.as_str())
        .bind(c.end.upload.map(Timestamp::micros));
    let mut written = Vec::new();
    if update.execute(&mut *to).await?.rows_affected() > 0 {
        for callback in &c.callbacks {
            written.push(callbacks::insert(to, seal, callback).await?);
        }
    }
    Ok(written)
}

/// Forgets recordings.
pub(super) async fn forget(to: &mut Conn, ids: &[Uuid]) -> Result<(), sqlx::Error> {
    for id in ids {
        let delete = sql::query("DELETE FROM recordings WHERE recording_id = $1");
        delete.bind(id.to_string()).execute(&mut *to).await?;
    }
    Ok(())
}

/// It has been copied to other storage as this object; or is to be, then.
pub(super) async fn uploaded(
    to: &mut Conn,
    id: Uuid,
    object: Option<&str>,
    again: Option<Timestamp>,
) -> Result<(), sqlx::Error> {
    let update = "UPDATE recordings SET object = coalesce($2, object), upload_us = $3 WHERE recording_id = $1";
    let update = sql::query(update).bind(id.to_string()).bind(object);
    update.bind(again.map(Timestamp::micros)).execute(to).await.map(drop)
}

/// One of a scope's that is complete.
pub(super) async fn one(pool: &Pool, scope: &Scope, id: Uuid) -> Result<Option<Recording>, StoreError> {
    let mut select = select(scope);
    select.push(" AND recording_id = ").push_bind(id.to_string());
    let row = select.build().fetch_optional(pool).await.map_err(failed("read a recording"))?;
    row.as_ref().map(recording).transpose()
}

/// A scope's that are complete, newest first, and how many there are in all.
pub(super) async fn list(
    pool: &Pool,
    scope: &Scope,
    filter: &RecordingFilter,
    limit: u32,
    offset: u64,
) -> Result<(Vec<Recording>, u64), StoreError> {
    let mut count = QueryBuilder::new("SELECT count(*) FROM recordings WHERE ended_us IS NOT NULL AND ");
    within(&mut count, scope);
    filtered(&mut count, filter);
    let total: i64 = count.build_query_scalar().fetch_one(pool).await.map_err(failed("count the recordings"))?;
    let mut select = select(scope);
    filtered(&mut select, filter);
    select.push(" ORDER BY started_us DESC, recording_id LIMIT ").push_bind(limit);
    select.push(" OFFSET ").push_bind(i64::try_from(offset).unwrap_or(i64::MAX));
    let rows = select.build().fetch_all(pool).await.map_err(failed("list the recordings"))?;
    let recordings = rows.iter().map(recording).collect::<Result<_, _>>()?;
    Ok((recordings, u64::try_from(total).unwrap_or_default()))
}

fn select(scope: &Scope) -> QueryBuilder {
    let mut select = QueryBuilder::new(format!("SELECT {COLUMNS} FROM recordings WHERE ended_us IS NOT NULL AND "));
    within(&mut select, scope);
    select
}

fn filtered(query: &mut QueryBuilder, filter: &RecordingFilter) {
    if let Some(call) = filter.call {
        query.push(" AND call_uuid = ").push_bind(call.to_string());
    }
    if let Some(name) = &filter.conference {
        query.push(" AND conference_name = ").push_bind(name.clone());
    }
    if let Some(account) = &filter.subaccount {
        query.push(" AND auth_id = ").push_bind(account.as_str().to_owned());
    }
    for (compare, at) in &filter.added {
        query.push(" AND started_us").push(compare.sql()).push_bind(at.micros());
    }
}

/// A node's that never ended: what a crash left behind.
pub(super) async fn open(pool: &Pool, node_id: &str) -> Result<Vec<RecordingStart>, StoreError> {
    const WHAT: &str = "read the recordings that were left open";
    let select = "SELECT recording_id, auth_id, main_auth_id, call_uuid, conference_name, format, stereo, node_id, \
        started_us, notices FROM recordings WHERE node_id = $1 AND ended_us IS NULL";
    let rows = sql::query(select).bind(node_id).fetch_all(pool).await.map_err(failed(WHAT))?;
    let start = |row: &Row| {
        let text = |column: &str| row.try_get::<String, _>(column).map_err(failed(WHAT));
        let notices: Option<String> = row.try_get("notices").map_err(failed(WHAT))?;
        let notices = notices.map(|json| serde_json::from_str(&json)).transpose();
        Ok(RecordingStart {
            id: id(WHAT, &text("recording_id")?)?,
            account: text("auth_id")?.into(),
            main_account: text("main_auth_id")?.into(),
            call: CallUuid(id(WHAT, &text("call_uuid")?)?),
            conference: row.try_get("conference_name").map_err(failed(WHAT))?,
            format: text("format")?,
            stereo: row.try_get("stereo").map_err(failed(WHAT))?,
            node_id: text("node_id")?,
            started: Timestamp::from_micros(row.try_get("started_us").map_err(failed(WHAT))?),
            notices: notices.map_err(|e| unreadable(WHAT, e))?.unwrap_or_default(),
        })
    };
    rows.iter().map(start).collect()
}

/// Some that began before then, ended ones, the oldest first.
pub(super) async fn older(pool: &Pool, before: Timestamp, limit: u32) -> Result<Vec<Recording>, StoreError> {
    let select = format!(
        "SELECT {COLUMNS} FROM recordings WHERE started_us < $1 AND ended_us IS NOT NULL ORDER BY started_us LIMIT $2"
    );
    let select = sql::query(select).bind(before.micros()).bind(limit);
    let rows = select.fetch_all(pool).await.map_err(failed("read recordings that are kept no longer"))?;
    rows.iter().map(recording).collect()
}

/// Some of a node's that are to be copied to other storage now.
pub(super) async fn to_upload(
    pool: &Pool,
    node_id: &str,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<Recording>, StoreError> {
    let select = format!(
        "SELECT {COLUMNS} FROM recordings WHERE upload_us <= $1 AND node_id = $2 AND ended_us IS NOT NULL \
         ORDER BY upload_us LIMIT $3"
    );
    let select = sql::query(select).bind(now.micros()).bind(node_id).bind(limit);
    let rows = select.fetch_all(pool).await.map_err(failed("read recordings that are to be copied"))?;
    rows.iter().map(recording).collect()
}

fn recording(row: &Row) -> Result<Recording, StoreError> {
    const WHAT: &str = "read a recording";
    let text = |column: &str| row.try_get::<String, _>(column).map_err(failed(WHAT));
    let number = |column: &str| row.try_get::<i64, _>(column).map_err(failed(WHAT));
    Ok(Recording {
        id: id(WHAT, &text("recording_id")?)?,
        call: CallUuid(id(WHAT, &text("call_uuid")?)?),
        conference: row.try_get("conference_name").map_err(failed(WHAT))?,
        format: text("format")?,
        started: Timestamp::from_micros(number("started_us")?),
        ended: Timestamp::from_micros(number("ended_us")?),
        duration_ms: u64::try_from(number("duration_ms")?).unwrap_or_default(),
        object: row.try_get("object").map_err(failed(WHAT))?,
    })
}

fn id(what: &'static str, text: &str) -> Result<Uuid, StoreError> {
    text.parse().map_err(|e| unreadable(what, e))
}

fn unreadable(what: &'static str, detail: impl std::fmt::Display) -> StoreError {
    StoreError::Unreadable { what, detail: detail.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Health;
    use crate::store::Store;

    fn start(n: u8, account: &str, main: &str) -> RecordingStart {
        RecordingStart {
            id: Uuid::from_u128(u128::from(n)),
            account: account.into(),
            main_account: main.into(),
            call: CallUuid(Uuid::from_u128(1_000)),
            conference: None,
            format: "wav".to_owned(),
            stereo: true,
            node_id: "node".to_owned(),
            started: Timestamp::from_secs(i64::from(n) * 100),
            notices: Vec::new(),
        }
    }

    fn ended(start: RecordingStart) -> RecordingConclusion {
        let ended = start.started.plus(std::time::Duration::from_millis(3_500));
        let end = RecordingEnd { ended, duration_ms: 3_500, end: RecordEnd::Silence, upload: None };
        RecordingConclusion { start, end, callbacks: Vec::new() }
    }

    #[tokio::test]
    async fn r16_recordings_are_listed_found_and_forgotten_within_their_account() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        let [main, sub, other] = ["MA1", "SA1", "MA2"].map(|id| Scope::of(id.into()));
        for start in [start(1, "MA1", "MA1"), start(2, "SA1", "MA1"), start(3, "MA2", "MA2"), start(4, "MA1", "MA1")] {
            store.recording_begun(start);
        }
        store.settled().await;
        assert_eq!(store.recordings_open("node").await.unwrap().len(), 4);
        assert_eq!(store.recordings(&main, &RecordingFilter::default(), 20, 0).await.unwrap(), (vec![], 0));
        for n in 1..=2 {
            store.conclude_recording(ended(start(n, if n == 1 { "MA1" } else { "SA1" }, "MA1"))).await.unwrap();
        }
        // One whose beginning got lost.
        store.conclude_recording(ended(start(9, "MA1", "MA1"))).await.unwrap();
        let ids = async |scope: &Scope, filter: RecordingFilter| {
            let (list, total) = store.recordings(scope, &filter, 20, 0).await.unwrap();
            (list.iter().map(|r| r.id.as_u128()).collect::<Vec<_>>(), total)
        };
        assert_eq!(ids(&main, RecordingFilter::default()).await, (vec![9, 2, 1], 3));
        assert_eq!(ids(&sub, RecordingFilter::default()).await, (vec![2], 1));
        assert_eq!(ids(&other, RecordingFilter::default()).await, (vec![], 0), "it is open still");
        let since = RecordingFilter {
            added: vec![(Compare::GreaterEqual, Timestamp::from_secs(200))],
            ..RecordingFilter::default()
        };
        assert_eq!(ids(&main, since).await.0, [9, 2]);
        let call = RecordingFilter { call: Some(CallUuid(Uuid::nil())), ..RecordingFilter::default() };
        assert_eq!(ids(&main, call).await.0, []);
        let id = Uuid::from_u128(1);
        assert_eq!(store.recording(&main, id).await.unwrap().map(|r| r.duration_ms), Some(3_500));
        assert_eq!(store.recording(&sub, id).await.unwrap(), None);
        let old = store.recordings_older(Timestamp::from_secs(250), 10).await.unwrap();
        assert_eq!(old.iter().map(|r| r.id.as_u128()).collect::<Vec<_>>(), [1, 2]);
        store.forget_recordings(vec![id]).await.unwrap();
        assert_eq!(store.recording(&main, id).await.unwrap(), None);
        let left = store.recordings_open("node").await.unwrap();
        assert_eq!(left.iter().map(|r| r.id.as_u128()).collect::<Vec<_>>(), [3, 4]);
        store.close().await;
    }
}
