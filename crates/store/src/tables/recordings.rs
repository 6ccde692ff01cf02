//! Recordings. Only their metadata is stored here; the files are elsewhere.
//!
//! A recording has a row from its start. Its end and the callbacks that report it are written in
//! one transaction.

use std::collections::HashSet;

use uuid::Uuid;

use crate::error::{StoreError, failed};
use crate::rows::callback::QueuedCallback;
use crate::rows::recording::{
    CopyWrite, Recording, RecordingConclusion, RecordingFilter, RecordingStart, RecordingWork,
    RoomFilter, TranscriptWrite, TranscriptionJob,
};
use crate::scope::{Scope, push_scope};
use crate::seal::Seal;
use crate::shared::Shared;
use crate::sql::{self, Conn, Pool, QueryBuilder, Row};
use crate::tables::bring_forward::BringForward;
use crate::tables::{files_to_remove, outbox};
use crate::write::Write;
use model::{AuthId, CallUuid, Timestamp};

/// Handle to the recordings. See [`Store::recordings`](crate::Store::recordings).
#[derive(Clone, Copy, Debug)]
pub struct Recordings<'a>(pub(crate) &'a Shared);

impl Recordings<'_> {
    /// Records the start of a recording. Does not wait for the write. If it is lost,
    /// [`Recordings::conclude`] restores it.
    pub fn begin(self, start: RecordingStart) {
        self.0.queue.post(Write::RecordingStarted(Box::new(start)));
    }

    /// Records the end of a recording and adds the callbacks that report it to the outbox, in one
    /// synced transaction. If the recording has already ended, nothing is written. If nothing of it
    /// was kept, it has no row afterwards.
    ///
    /// The write is queued when this returns. If it goes to the journal, the result is empty, and
    /// the callbacks are sent once the database has them.
    ///
    /// # Errors
    /// Fails with [`StoreError::Closed`] if the store was closed first.
    pub fn conclude(
        self,
        conclusion: RecordingConclusion,
    ) -> impl Future<Output = Result<Vec<QueuedCallback>, StoreError>> + Send + 'static + use<>
    {
        self.0.queue.request(|sender| Write::RecordingEnded(Box::new(conclusion), sender))
    }

    /// Returns the unfinished recordings of a node that a crash left behind.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn unfinished(self, node_id: &str) -> Result<Vec<RecordingStart>, StoreError> {
        unfinished(&self.0.read, node_id).await
    }

    /// Returns a complete recording, or `None` if the scope has no such recording.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn get(self, scope: &Scope, id: Uuid) -> Result<Option<Recording>, StoreError> {
        get(&self.0.read, scope, id).await
    }

    /// Returns complete recordings of the scope, newest first, and their total number.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn list(
        self,
        scope: &Scope,
        filter: &RecordingFilter,
        limit: u32,
        offset: u64,
    ) -> Result<(Vec<Recording>, u64), StoreError> {
        list(&self.0.read, scope, filter, limit, offset).await
    }

    /// Returns complete recordings of all accounts that started before `before`, oldest first.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn older_than(
        self,
        than: Timestamp,
        limit: u32,
    ) -> Result<Vec<Recording>, StoreError> {
        older_than(&self.0.read, than, limit).await
    }

    /// Returns the name of the object in the bucket for a recording of any account with this id and
    /// format, or `None` if it was not copied there.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn object_name(self, id: Uuid, format: &str) -> Result<Option<String>, StoreError> {
        object_name(&self.0.read, id, format).await
    }

    /// Returns the owner of the file of a recording of any account: a node, or a process of a fleet.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn owner(self, id: Uuid, format: &str) -> Result<Option<String>, StoreError> {
        let select = "SELECT node_id FROM recordings WHERE recording_id = $1 AND format = $2";
        let select = sql::query_scalar(select).bind(id.to_string()).bind(format);
        select.fetch_optional(&self.0.read).await.map_err(failed("find the owner of a recording"))
    }

    /// Returns those of the recordings that have a row, complete or not, of any account and node.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn existing(self, ids: &[Uuid]) -> Result<HashSet<Uuid>, StoreError> {
        self.found("", ids).await
    }

    /// Returns which of these recordings are in progress or were interrupted, of any node.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn unfinished_among(self, ids: &[Uuid]) -> Result<HashSet<Uuid>, StoreError> {
        self.found("ended_us IS NULL AND ", ids).await
    }

    async fn found(
        self,
        condition: &'static str,
        ids: &[Uuid],
    ) -> Result<HashSet<Uuid>, StoreError> {
        const WHAT: &str = "look for recordings";
        if ids.is_empty() {
            return Ok(HashSet::new());
        }
        let mut select = QueryBuilder::new("SELECT recording_id FROM recordings WHERE ");
        select.push(condition).push("recording_id").push_in(ids.iter().map(Uuid::to_string));
        let rows: Vec<String> =
            select.build_query_scalar().fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
        rows.iter().map(|row| id(WHAT, row)).collect()
    }

    /// Returns complete recordings of a node that were not copied to the bucket, with their formats.
    /// They are in the order of their ids, from the first one after `after`. The recordings of all
    /// processes of the node count.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn not_copied(
        self,
        node_id: &str,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<(Uuid, String)>, StoreError> {
        const WHAT: &str = "read recordings without a copy";
        let (node, process, length) = processes(node_id);
        let select = format!(
            "SELECT recording_id, format FROM recordings WHERE recording_id > $1 AND ended_us IS NOT NULL \
             AND object IS NULL AND (node_id = $2 OR substr(node_id, 1, {length}) = $3) \
             ORDER BY recording_id LIMIT $4"
        );
        let rows: Vec<(String, String)> = sql::query_as(select)
            .bind(after.map(|id| id.to_string()).unwrap_or_default())
            .bind(node)
            .bind(process)
            .bind(limit)
            .fetch_all(&self.0.read)
            .await
            .map_err(failed(WHAT))?;
        rows.into_iter().map(|(row, format)| Ok((id(WHAT, &row)?, format))).collect()
    }

    /// Returns the bytes of audio in the complete recordings on a node's disk, by main account.
    /// `with_copied` is whether copied recordings are still on the disk. The recordings of all
    /// processes of the node count.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn used_space(
        self,
        node_id: &str,
        with_copied: bool,
    ) -> Result<Vec<(AuthId, u64)>, StoreError> {
        const WHAT: &str = "read the space of recordings";
        let (node, process, length) = processes(node_id);
        let copied = if with_copied { "" } else { " AND object IS NULL" };
        // Samples have 16 bits at 16 kHz, an MP3 has 32 kbit/s per channel.
        let select = format!(
            "SELECT main_auth_id, CAST(sum(duration_ms * (1 + stereo) * CASE format WHEN 'mp3' THEN 4 ELSE 32 END) AS BIGINT) \
             FROM recordings WHERE ended_us IS NOT NULL AND (node_id = $1 OR substr(node_id, 1, {length}) = $2){copied} \
             GROUP BY main_auth_id"
        );
        let rows: Vec<(String, i64)> = sql::query_as(select)
            .bind(node)
            .bind(process)
            .fetch_all(&self.0.read)
            .await
            .map_err(failed(WHAT))?;
        let used = rows.into_iter();
        Ok(used.map(|(account, bytes)| (account.into(), bytes.try_into().unwrap_or(0))).collect())
    }

    /// Returns the work on complete recordings that is due for a node, at most `limit` items of
    /// each kind.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn work(
        self,
        node_id: &str,
        now: Timestamp,
        limit: u32,
    ) -> Result<RecordingWork, StoreError> {
        work(&self.0.read, node_id, now, limit).await
    }

    /// Makes work of a node due `now` that is due after `latest`, and returns the number of its
    /// items. Its time was set while the system's clock was ahead.
    ///
    /// # Errors
    /// Fails if the database rejects the write or the store was closed first.
    pub async fn bring_forward(
        self,
        node_id: &str,
        latest: Timestamp,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let (of_node, of_no_node) = (BRING_FORWARD, BRING_REMOVALS_FORWARD);
        let node_id = node_id.to_owned();
        self.0.queue.run(BringForward { of_node, of_no_node, node_id, latest, now }).await
    }

    /// Stores the result of an attempt to transcribe a recording. Returns the callback that reports
    /// it, if it is new.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn write_transcript(
        self,
        write: TranscriptWrite,
    ) -> Result<Vec<QueuedCallback>, StoreError> {
        let written = self.0.queue.request(|sender| Write::Transcription(Box::new(write), sender));
        written.await.map_err(|_| StoreError::NotTaken)
    }

    /// Stores the result of a request to the bucket. It is on disk when this returns.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn write_copy(self, write: CopyWrite) -> Result<(), StoreError> {
        let written =
            self.0.queue.request_lazily(|sender| Write::RecordingCopy(Box::new(write), sender));
        written.await.map_err(|_| StoreError::NotTaken)
    }

    /// Deletes the rows of recordings, and schedules the deletion of their objects in the bucket.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn delete(self, ids: Vec<Uuid>) -> Result<(), StoreError> {
        self.0.queue.change(|sender| Write::DeleteRecordings(ids, sender)).await
    }
}

const COLUMNS: &str = "recording_id, call_uuid, conference_name, format, started_us, ended_us, duration_ms, object, \
    upload_tries, room_uuid, multi_party";

/// Inserts the row of a recording unless it exists.
/// Returns the id of a node, and the beginning of the ids of its processes in a fleet with its
/// length in characters.
fn processes(node_id: &str) -> (&str, String, usize) {
    let node = node_id.split('/').next().unwrap_or(node_id);
    let process = format!("{node}/");
    let length = process.chars().count();
    (node, process, length)
}

pub(crate) async fn begin(to: &mut Conn, start: &RecordingStart) -> Result<(), sqlx::Error> {
    let insert = "INSERT INTO recordings (recording_id, auth_id, main_auth_id, call_uuid, conference_name, format, stereo, \
        node_id, started_us, notices, transcription, room_uuid, multi_party) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
        ON CONFLICT DO NOTHING";
    let insert = sql::query(insert)
        .bind(start.id.to_string())
        .bind(start.account.as_str())
        .bind(start.main_account.as_str())
        .bind(start.call.to_string())
        .bind(&start.conference);
    let insert = insert
        .bind(&start.format)
        .bind(start.stereo)
        .bind(&start.node_id)
        .bind(start.started.micros());
    let transcript = start.transcript.as_ref().map(sqlx::types::Json);
    let insert = insert.bind(sqlx::types::Json(&start.notices)).bind(transcript);
    let insert = insert.bind(start.room.map(|room| room.to_string())).bind(start.multi_party);
    insert.execute(to).await.map(drop)
}

/// Closes the row of a recording and adds its callbacks to the outbox. Does neither if it was
/// closed before. The row of a recording of which nothing was kept is deleted: here, so that no
/// failure leaves it.
pub(crate) async fn conclude(
    to: &mut Conn,
    seal: &Seal,
    c: &RecordingConclusion,
) -> Result<Vec<QueuedCallback>, sqlx::Error> {
    begin(to, &c.start).await?;
    let update = "UPDATE recordings SET ended_us = $2, duration_ms = $3, end_reason = $4, upload_us = $5, notices = NULL, \
        transcribe_us = $6 WHERE recording_id = $1 AND ended_us IS NULL";
    let update = sql::query(update)
        .bind(c.start.id.to_string())
        .bind(c.end.ended.micros())
        .bind(i64::try_from(c.end.duration_ms).unwrap_or(i64::MAX))
        .bind(c.end.end.as_str())
        .bind(c.end.upload.map(Timestamp::micros))
        .bind(c.end.transcribe.map(Timestamp::micros));
    let mut written = Vec::new();
    if update.execute(&mut *to).await?.rows_affected() > 0 {
        for callback in &c.callbacks {
            written.push(outbox::insert(to, seal, callback.clone()).await?);
        }
        if c.end.is_empty() {
            delete(to, &[c.start.id]).await?;
        }
    }
    Ok(written)
}

/// Deletes the rows of recordings, and schedules the deletion of their objects.
pub(crate) async fn delete(to: &mut Conn, ids: &[Uuid]) -> Result<(), sqlx::Error> {
    for id in ids {
        let objects = "INSERT INTO objects_to_remove (object, due_us) SELECT object, 0 FROM recordings \
            WHERE recording_id = $1 AND object IS NOT NULL ON CONFLICT DO NOTHING";
        sql::query(objects).bind(id.to_string()).execute(&mut *to).await?;
        files_to_remove::add_recording(to, *id).await?;
        let delete = sql::query("DELETE FROM recordings WHERE recording_id = $1");
        delete.bind(id.to_string()).execute(&mut *to).await?;
    }
    Ok(())
}

/// Stores the result of a request to the bucket. See [`CopyWrite`].
pub(crate) async fn write_copy(to: &mut Conn, write: &CopyWrite) -> Result<(), sqlx::Error> {
    match write {
        CopyWrite::Copied { id, object } => {
            let update = "UPDATE recordings SET object = $2, upload_us = NULL, upload_tries = 0 WHERE recording_id = $1";
            let update =
                sql::query(update).bind(id.to_string()).bind(object).execute(&mut *to).await?;
            if update.rows_affected() == 0 {
                let remove = "INSERT INTO objects_to_remove (object, due_us) VALUES ($1, 0) ON CONFLICT DO NOTHING";
                sql::query(remove).bind(object).execute(to).await?;
            }
        }
        CopyWrite::CopyFailed { id, again } => {
            let update = "UPDATE recordings SET upload_us = $2, upload_tries = upload_tries + 1 WHERE recording_id = $1";
            let update = sql::query(update).bind(id.to_string()).bind(again.map(Timestamp::micros));
            update.execute(to).await?;
        }
        CopyWrite::Removed { object } => {
            let delete = sql::query("DELETE FROM objects_to_remove WHERE object = $1");
            delete.bind(object).execute(to).await?;
        }
        CopyWrite::RemovalFailed { object, again } => {
            let update =
                "UPDATE objects_to_remove SET due_us = $2, tries = tries + 1 WHERE object = $1";
            sql::query(update).bind(object).bind(again.micros()).execute(to).await?;
        }
    }
    Ok(())
}

/// Stores the result of an attempt to transcribe. See [`TranscriptWrite`]. The callback is added to
/// the outbox once, and only if the recording still exists.
pub(crate) async fn transcription_callback(
    to: &mut Conn,
    seal: &Seal,
    write: &TranscriptWrite,
) -> Result<Vec<QueuedCallback>, sqlx::Error> {
    match write {
        TranscriptWrite::Done { id, callback } => {
            let update = "UPDATE recordings SET transcribe_us = NULL, transcription = NULL \
                WHERE recording_id = $1 AND transcribe_us IS NOT NULL";
            let update = sql::query(update).bind(id.to_string()).execute(&mut *to).await?;
            match update.rows_affected() {
                0 => Ok(Vec::new()),
                _ => Ok(vec![outbox::insert(to, seal, (**callback).clone()).await?]),
            }
        }
        TranscriptWrite::Retry { id, at } => {
            let update = "UPDATE recordings SET transcribe_us = $2, transcribe_tries = transcribe_tries + 1 \
                WHERE recording_id = $1 AND transcribe_us IS NOT NULL";
            sql::query(update).bind(id.to_string()).bind(at.micros()).execute(to).await?;
            Ok(Vec::new())
        }
    }
}

/// Returns a complete recording of the scope.
pub(crate) async fn get(
    pool: &Pool,
    scope: &Scope,
    id: Uuid,
) -> Result<Option<Recording>, StoreError> {
    let mut select = select(scope);
    select.push(" AND recording_id = ").push_bind(id.to_string());
    let row = select.build().fetch_optional(pool).await.map_err(failed("read a recording"))?;
    row.as_ref().map(recording).transpose()
}

/// Returns complete recordings of the scope, newest first, and their total number.
pub(crate) async fn list(
    pool: &Pool,
    scope: &Scope,
    filter: &RecordingFilter,
    limit: u32,
    offset: u64,
) -> Result<(Vec<Recording>, u64), StoreError> {
    let mut count =
        QueryBuilder::new("SELECT count(*) FROM recordings WHERE ended_us IS NOT NULL AND ");
    push_scope(&mut count, scope);
    push_filter(&mut count, scope, filter);
    let total: i64 =
        count.build_query_scalar().fetch_one(pool).await.map_err(failed("count the recordings"))?;
    let mut select = select(scope);
    push_filter(&mut select, scope, filter);
    select.push(" ORDER BY started_us DESC, recording_id LIMIT ").push_bind(limit);
    select.push(" OFFSET ").push_bind(i64::try_from(offset).unwrap_or(i64::MAX));
    let rows = select.build().fetch_all(pool).await.map_err(failed("list the recordings"))?;
    let recordings = rows.iter().map(recording).collect::<Result<_, _>>()?;
    Ok((recordings, u64::try_from(total).unwrap_or_default()))
}

fn select(scope: &Scope) -> QueryBuilder {
    let mut select = QueryBuilder::new(format!(
        "SELECT {COLUMNS} FROM recordings WHERE ended_us IS NOT NULL AND "
    ));
    push_scope(&mut select, scope);
    select
}

fn push_filter(query: &mut QueryBuilder, scope: &Scope, filter: &RecordingFilter) {
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
        query.push(" AND ended_us").push(compare.sql()).push_bind(at.micros());
    }
    for room in &filter.rooms {
        match room {
            RoomFilter::MultiPartyName(name) => {
                query.push(" AND multi_party = 1 AND conference_name = ").push_bind(name.clone());
            }
            RoomFilter::MultiParty(id) => {
                query.push(" AND multi_party = 1 AND room_uuid = ").push_bind(id.to_string());
            }
            RoomFilter::Conference(id) => {
                query.push(" AND multi_party = 0 AND room_uuid = ").push_bind(id.to_string());
            }
        }
    }
    for (column, number) in [("from_number", &filter.from), ("to_number", &filter.to)] {
        if let Some(number) = number {
            // Ended calls have an index of their numbers. Open calls are few.
            query.push(" AND call_uuid IN (");
            for (words, which) in [("", "NOT NULL"), (" UNION ALL ", "NULL")] {
                query.push(format_args!(
                    "{words}SELECT call_uuid FROM calls WHERE ended_us IS {which} AND "
                ));
                push_scope(query, scope);
                query.push(format_args!(" AND {column} = ")).push_bind(number.clone());
            }
            query.push(")");
        }
    }
}

/// The columns of a [`RecordingStart`].
const START: &str = "recording_id, auth_id, main_auth_id, call_uuid, conference_name, format, stereo, node_id, started_us, \
    notices, transcription, room_uuid, multi_party";

/// Returns the unfinished recordings of a node that a crash left behind.
pub(crate) async fn unfinished(
    pool: &Pool,
    node_id: &str,
) -> Result<Vec<RecordingStart>, StoreError> {
    let select = format!("SELECT {START} FROM recordings WHERE node_id = $1 AND ended_us IS NULL");
    let rows = sql::query(select).bind(node_id).fetch_all(pool).await;
    rows.map_err(failed("read unfinished recordings"))?.iter().map(start).collect()
}

fn start(row: &Row) -> Result<RecordingStart, StoreError> {
    const WHAT: &str = "read an unfinished recording";
    let text = |column: &str| row.try_get::<String, _>(column).map_err(failed(WHAT));
    let json = |column: &str| row.try_get::<Option<String>, _>(column).map_err(failed(WHAT));
    let notices = json("notices")?.map(|json| serde_json::from_str(&json)).transpose();
    let transcript = json("transcription")?.map(|json| serde_json::from_str(&json)).transpose();
    Ok(RecordingStart {
        id: id(WHAT, &text("recording_id")?)?,
        account: text("auth_id")?.into(),
        main_account: text("main_auth_id")?.into(),
        call: CallUuid(id(WHAT, &text("call_uuid")?)?),
        conference: row.try_get("conference_name").map_err(failed(WHAT))?,
        room: room(WHAT, row)?,
        multi_party: row.try_get("multi_party").map_err(failed(WHAT))?,
        format: text("format")?,
        stereo: row.try_get("stereo").map_err(failed(WHAT))?,
        node_id: text("node_id")?,
        started: Timestamp::from_micros(row.try_get("started_us").map_err(failed(WHAT))?),
        notices: notices.map_err(|e| unreadable(WHAT, e))?.unwrap_or_default(),
        transcript: transcript.map_err(|e| unreadable(WHAT, e))?,
    })
}

/// Reads the id of a recording's room.
fn room(what: &'static str, row: &Row) -> Result<Option<Uuid>, StoreError> {
    let room: Option<String> = row.try_get("room_uuid").map_err(failed(what))?;
    room.map(|room| id(what, &room)).transpose()
}

/// Returns complete recordings that started before `before`, oldest first.
pub(crate) async fn older_than(
    pool: &Pool,
    before: Timestamp,
    limit: u32,
) -> Result<Vec<Recording>, StoreError> {
    let select = format!(
        "SELECT {COLUMNS} FROM recordings WHERE started_us < $1 AND ended_us IS NOT NULL ORDER BY started_us LIMIT $2"
    );
    let select = sql::query(select).bind(before.micros()).bind(limit);
    let rows = select.fetch_all(pool).await.map_err(failed("read expired recordings"))?;
    rows.iter().map(recording).collect()
}

/// Returns the object of a recording of any account. No scope is needed, because the id itself
/// authorizes the request.
pub(crate) async fn object_name(
    pool: &Pool,
    id: Uuid,
    format: &str,
) -> Result<Option<String>, StoreError> {
    let select = "SELECT object FROM recordings WHERE recording_id = $1 AND format = $2 AND object IS NOT NULL";
    let select = sql::query_scalar(select).bind(id.to_string()).bind(format);
    select.fetch_optional(pool).await.map_err(failed("find a recording's copy"))
}

/// Makes work on recordings of a node due. See [`BringForward`].
const BRING_FORWARD: &[&str] = &[
    "UPDATE recordings SET upload_us = $1 WHERE upload_us > $2 AND node_id = $3",
    "UPDATE recordings SET transcribe_us = $1 WHERE transcribe_us > $2 AND node_id = $3",
];
/// Makes deletions of objects in the bucket due, which belong to no node.
const BRING_REMOVALS_FORWARD: &[&str] =
    &["UPDATE objects_to_remove SET due_us = $1 WHERE due_us > $2"];

/// Returns the work on complete recordings that is due for a node, at most `limit` items of each
/// kind. The main accounts take turns: the first item of each, then the second of each, and so on.
pub(crate) async fn work(
    pool: &Pool,
    node_id: &str,
    now: Timestamp,
    limit: u32,
) -> Result<RecordingWork, StoreError> {
    const WHAT: &str = "read pending work on recordings";
    let select = by_turns(
        COLUMNS,
        "upload_us",
        "upload_us <= $1 AND node_id = $2 AND ended_us IS NOT NULL AND transcribe_us IS NULL",
    );
    let select = sql::query(select).bind(now.micros()).bind(node_id).bind(limit);
    let rows = select.fetch_all(pool).await.map_err(failed(WHAT))?;
    let copies = rows.iter().map(recording).collect::<Result<_, _>>()?;
    let select = "SELECT object, tries FROM objects_to_remove WHERE due_us <= $1 ORDER BY due_us, object LIMIT $2";
    let rows: Vec<(String, i64)> = sql::query_as(select)
        .bind(now.micros())
        .bind(limit)
        .fetch_all(pool)
        .await
        .map_err(failed(WHAT))?;
    let objects = rows
        .into_iter()
        .map(|(object, tries)| (object, u32::try_from(tries).unwrap_or(u32::MAX)))
        .collect();
    let columns = format!("{START}, duration_ms, transcribe_tries");
    let select = by_turns(&columns, "transcribe_us", "transcribe_us <= $1 AND node_id = $2");
    let select = sql::query(select).bind(now.micros()).bind(node_id).bind(limit);
    let rows = select.fetch_all(pool).await.map_err(failed(WHAT))?;
    let to_transcribe = |row: &Row| {
        let number = |column: &str| row.try_get::<i64, _>(column).map_err(failed(WHAT));
        let duration_ms = u64::try_from(number("duration_ms")?).unwrap_or_default();
        let tries = u32::try_from(number("transcribe_tries")?).unwrap_or(u32::MAX);
        Ok(TranscriptionJob { start: start(row)?, duration_ms, tries })
    };
    let transcripts = rows.iter().map(to_transcribe).collect::<Result<_, StoreError>>()?;
    let select = "SELECT min(due) FROM (SELECT min(upload_us) AS due FROM recordings WHERE upload_us > $1 \
        AND node_id = $2 UNION ALL SELECT min(transcribe_us) AS due FROM recordings WHERE transcribe_us > $1 \
        AND node_id = $2 UNION ALL SELECT min(due_us) AS due FROM objects_to_remove WHERE due_us > $1) AS dues";
    let next: Option<i64> = sql::query_scalar(select)
        .bind(now.micros())
        .bind(node_id)
        .fetch_one(pool)
        .await
        .map_err(failed(WHAT))?;
    Ok(RecordingWork { copies, objects, transcripts, next: next.map(Timestamp::from_micros) })
}

/// A query for at most `$3` recordings, in which the main accounts take turns. `due` is the column
/// by which those of one account are ordered.
fn by_turns(columns: &str, due: &str, condition: &str) -> String {
    format!(
        "SELECT {columns} FROM recordings JOIN (SELECT recording_id AS ready_id, \
         row_number() OVER (PARTITION BY main_auth_id ORDER BY {due}) AS turn FROM recordings WHERE {condition}) AS ready \
         ON ready_id = recording_id ORDER BY turn, {due} LIMIT $3"
    )
}

fn recording(row: &Row) -> Result<Recording, StoreError> {
    const WHAT: &str = "read a recording";
    let text = |column: &str| row.try_get::<String, _>(column).map_err(failed(WHAT));
    let number = |column: &str| row.try_get::<i64, _>(column).map_err(failed(WHAT));
    Ok(Recording {
        id: id(WHAT, &text("recording_id")?)?,
        call: CallUuid(id(WHAT, &text("call_uuid")?)?),
        conference: row.try_get("conference_name").map_err(failed(WHAT))?,
        room: room(WHAT, row)?,
        multi_party: row.try_get("multi_party").map_err(failed(WHAT))?,
        format: text("format")?,
        started: Timestamp::from_micros(number("started_us")?),
        ended: Timestamp::from_micros(number("ended_us")?),
        duration_ms: u64::try_from(number("duration_ms")?).unwrap_or_default(),
        object: row.try_get("object").map_err(failed(WHAT))?,
        copy_tries: u32::try_from(number("upload_tries")?).unwrap_or(u32::MAX),
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
    use crate::rows::call::Compare;
    use crate::rows::callback::NewCallback;
    use crate::rows::recording::RecordingEnd;
    use crate::store::Store;
    use machine::{RecordingEndReason, TranscriptOrder};
    use model::Health;

    fn transcript_order() -> TranscriptOrder {
        use model::Method;
        use xml::ast::{DocUrl, Target};
        let to = Target { url: DocUrl("https://a.example.com/said".into()), method: Method::Post };
        TranscriptOrder { to, full: true }
    }

    fn start(n: u8, account: &str, main: &str) -> RecordingStart {
        RecordingStart {
            id: Uuid::from_u128(u128::from(n)),
            account: account.into(),
            main_account: main.into(),
            call: CallUuid(Uuid::from_u128(1_000)),
            conference: None,
            room: None,
            multi_party: false,
            format: "wav".to_owned(),
            stereo: true,
            node_id: "node".to_owned(),
            started: Timestamp::from_secs(i64::from(n) * 100),
            notices: Vec::new(),
            transcript: None,
        }
    }

    fn ended(start: RecordingStart) -> RecordingConclusion {
        let ended = start.started.plus(std::time::Duration::from_millis(3_500));
        let end = RecordingEnd {
            ended,
            duration_ms: 3_500,
            end: RecordingEndReason::Silence,
            upload: None,
            transcribe: None,
        };
        RecordingConclusion { start, end, callbacks: Vec::new() }
    }

    #[tokio::test]
    async fn r16_recordings_are_listed_found_and_deleted_within_their_account() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        let [main, sub, other] = ["MA1", "SA1", "MA2"].map(|id| Scope::of(id.into()));
        for start in [
            start(1, "MA1", "MA1"),
            start(2, "SA1", "MA1"),
            start(3, "MA2", "MA2"),
            start(4, "MA1", "MA1"),
        ] {
            store.recordings().begin(start);
        }
        store.flush().await;
        assert_eq!(store.recordings().unfinished("node").await.unwrap().len(), 4);
        assert_eq!(
            store.recordings().list(&main, &RecordingFilter::default(), 20, 0).await.unwrap(),
            (vec![], 0)
        );
        for n in 1..=2 {
            store
                .recordings()
                .conclude(ended(start(n, if n == 1 { "MA1" } else { "SA1" }, "MA1")))
                .await
                .unwrap();
        }
        // The start of this one was lost.
        store.recordings().conclude(ended(start(9, "MA1", "MA1"))).await.unwrap();
        let ids = async |scope: &Scope, filter: RecordingFilter| {
            let (list, total) = store.recordings().list(scope, &filter, 20, 0).await.unwrap();
            (list.iter().map(|r| r.id.as_u128()).collect::<Vec<_>>(), total)
        };
        assert_eq!(ids(&main, RecordingFilter::default()).await, (vec![9, 2, 1], 3));
        assert_eq!(ids(&sub, RecordingFilter::default()).await, (vec![2], 1));
        assert_eq!(ids(&other, RecordingFilter::default()).await, (vec![], 0), "it is still open");
        let since = RecordingFilter {
            added: vec![(Compare::GreaterEqual, Timestamp::from_secs(200))],
            ..RecordingFilter::default()
        };
        assert_eq!(ids(&main, since).await.0, [9, 2]);
        let call =
            RecordingFilter { call: Some(CallUuid(Uuid::nil())), ..RecordingFilter::default() };
        assert_eq!(ids(&main, call).await.0, []);
        let id = Uuid::from_u128(1);
        assert_eq!(
            store.recordings().get(&main, id).await.unwrap().map(|r| r.duration_ms),
            Some(3_500)
        );
        assert_eq!(store.recordings().get(&sub, id).await.unwrap(), None);
        let used = async |node: &str, with_copied| {
            let mut used = store.recordings().used_space(node, with_copied).await.unwrap();
            used.sort();
            used
        };
        let bytes = 3 * 3_500 * 64;
        assert_eq!(used("node", true).await, [("MA1".into(), bytes)], "with its subaccount's");
        assert_eq!(used("node/3", false).await, [("MA1".into(), bytes)]);
        assert_eq!(used("nod", true).await, []);
        let old = store.recordings().older_than(Timestamp::from_secs(250), 10).await.unwrap();
        assert_eq!(old.iter().map(|r| r.id.as_u128()).collect::<Vec<_>>(), [1, 2]);
        store.recordings().delete(vec![id]).await.unwrap();
        assert_eq!(store.recordings().get(&main, id).await.unwrap(), None);
        let left = store.recordings().unfinished("node").await.unwrap();
        assert_eq!(left.iter().map(|r| r.id.as_u128()).collect::<Vec<_>>(), [3, 4]);
        store.close().await;
    }

    #[tokio::test]
    async fn copies_are_due_at_their_time_and_objects_are_removed_after_their_rows() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        let at = Timestamp::from_secs;
        for n in [1, 2, 3] {
            let mut conclusion = ended(start(n, "MA1", "MA1"));
            conclusion.end.upload = (n != 3).then(|| at(1_000 * i64::from(n)));
            store.recordings().conclude(conclusion).await.unwrap();
        }
        let work = async |now: i64| store.recordings().work("node", at(now), 10).await.unwrap();
        let ids =
            |work: &RecordingWork| work.copies.iter().map(|r| r.id.as_u128()).collect::<Vec<_>>();
        assert_eq!((ids(&work(999).await), work(999).await.next), (vec![], Some(at(1_000))));
        assert_eq!((ids(&work(1_500).await), work(1_500).await.next), (vec![1], Some(at(2_000))));
        assert_eq!(
            store.recordings().work("other", at(9_000), 10).await.unwrap(),
            RecordingWork::default()
        );
        // Nothing of this node is postponed beyond 9,000.
        for (node, latest, changed) in [("node", 9_000, 0), ("other", 0, 0), ("node", 1_999, 1)] {
            let forward = store.recordings().bring_forward(node, at(latest), at(900));
            assert_eq!(forward.await.unwrap(), changed, "{node} {latest}");
        }
        assert_eq!((ids(&work(999).await), work(999).await.next), (vec![2], Some(at(1_000))));

        let [one, two] = [1, 2].map(Uuid::from_u128);
        store
            .recordings()
            .write_copy(CopyWrite::CopyFailed { id: one, again: Some(at(5_000)) })
            .await
            .unwrap();
        store
            .recordings()
            .write_copy(CopyWrite::Copied { id: two, object: "a/2.wav".to_owned() })
            .await
            .unwrap();
        let later = work(5_000).await;
        assert_eq!((ids(&later), later.copies[0].copy_tries, later.next), (vec![1], 1, None));
        assert_eq!(
            store.recordings().object_name(two, "wav").await.unwrap().as_deref(),
            Some("a/2.wav")
        );
        assert_eq!(store.recordings().object_name(two, "mp3").await.unwrap(), None);

        // One is deleted while it is being copied, the other one after that.
        store.recordings().delete(vec![one, two]).await.unwrap();
        store
            .recordings()
            .write_copy(CopyWrite::Copied { id: one, object: "a/1.wav".to_owned() })
            .await
            .unwrap();
        let objects = work(5_000).await.objects;
        assert_eq!(objects, [("a/1.wav".to_owned(), 0), ("a/2.wav".to_owned(), 0)]);
        store
            .recordings()
            .write_copy(CopyWrite::Removed { object: "a/1.wav".to_owned() })
            .await
            .unwrap();
        store
            .recordings()
            .write_copy(CopyWrite::RemovalFailed { object: "a/2.wav".to_owned(), again: at(6_000) })
            .await
            .unwrap();
        assert_eq!(
            work(5_000).await,
            RecordingWork { next: Some(at(6_000)), ..RecordingWork::default() }
        );
        let forward = store.recordings().bring_forward("other", at(5_999), at(5_500));
        assert_eq!(forward.await.unwrap(), 1);
        assert_eq!(work(5_500).await.objects, [("a/2.wav".to_owned(), 1)]);
        assert_eq!(work(6_000).await.objects, [("a/2.wav".to_owned(), 1)]);
        store.close().await;
    }

    #[tokio::test]
    async fn accounts_take_turns_for_transcripts_and_copies() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        let at = Timestamp::from_secs;
        let order = transcript_order();
        let kinds = [("MA1", true), ("MA1", true), ("MA2", true)];
        let kinds = kinds.into_iter().chain([("MA1", false), ("MA1", false), ("MA2", false)]);
        for (n, (account, is_transcript)) in (0..).zip(kinds) {
            let transcript = is_transcript.then(|| order.clone());
            let start = RecordingStart { transcript, ..start(n, account, account) };
            let mut conclusion = ended(start);
            let due = Some(at(500 + i64::from(n)));
            conclusion.end.upload = due;
            conclusion.end.transcribe = due.filter(|_| is_transcript);
            store.recordings().conclude(conclusion).await.unwrap();
        }
        let work = store.recordings().work("node", at(600), 10).await.unwrap();
        let transcripts: Vec<u128> =
            work.transcripts.iter().map(|job| job.start.id.as_u128()).collect();
        let copies: Vec<u128> = work.copies.iter().map(|copy| copy.id.as_u128()).collect();
        assert_eq!((transcripts, copies), (vec![0, 2, 1], vec![3, 5, 4]));
        store.close().await;
    }

    #[tokio::test]
    async fn a_recording_is_transcribed_before_it_is_copied_and_reported_once() {
        use machine::transcription_callback;
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        let at = Timestamp::from_secs;
        let order = transcript_order();
        let start = RecordingStart { transcript: Some(order.clone()), ..start(1, "MA1", "MA1") };
        let mut conclusion = ended(start.clone());
        (conclusion.end.upload, conclusion.end.transcribe) = (Some(at(500)), Some(at(500)));
        store.recordings().conclude(conclusion).await.unwrap();
        let work = async |now: i64| store.recordings().work("node", at(now), 10).await.unwrap();
        let first = work(600).await;
        assert_eq!(
            (first.copies.len(), first.transcripts[0].tries, &first.transcripts[0].start),
            (0, 0, &start)
        );
        store
            .recordings()
            .write_transcript(TranscriptWrite::Retry { id: start.id, at: at(700) })
            .await
            .unwrap();
        assert_eq!(
            work(600).await,
            RecordingWork { next: Some(at(700)), ..RecordingWork::default() }
        );
        assert_eq!(work(700).await.transcripts[0].tries, 1);

        let callback = NewCallback {
            event_id: Uuid::from_u128(7),
            call: start.call,
            account: start.account.clone(),
            main_account: start.main_account.clone(),
            node_id: "node".to_owned(),
            origin: "https://a.example.com".to_owned(),
            notice: transcription_callback(&order, start.call, start.id, 3_500, "hello", ""),
            number_event: None,
            shut: None,
            created: at(700),
        };
        let done = TranscriptWrite::Done { id: start.id, callback: Box::new(callback) };
        assert_eq!(store.recordings().write_transcript(done.clone()).await.unwrap().len(), 1);
        assert_eq!(
            store.recordings().write_transcript(done).await.unwrap().len(),
            0,
            "reported once"
        );
        let last = work(700).await;
        assert_eq!((last.copies.len(), last.transcripts.len()), (1, 0));
        store.close().await;
    }
}
