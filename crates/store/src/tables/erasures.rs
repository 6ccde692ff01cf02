//! Requests to erase a user's data. Each has a row until all data is deleted. Files of recordings
//! are deleted by the `erasure` module of the node.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::database::Database;
use crate::error::{StoreError, failed};
use crate::rows::conversation::Conversation;
use crate::scope::{Scope, push_scope};
use crate::seal::Seal;
use crate::shared::Shared;
use crate::sql::connect::open_beside_node;
use crate::sql::{self, Conn, Dialect, QueryBuilder, Row};
use crate::tables::call_lists::indexed_by;
use crate::tables::{call_logs, conversations, responses};
use crate::write::WriteTask;
use model::{AuthId, CallUuid, Direction, PhoneNumberId, Timestamp};

/// Handle to the erasure requests. See [`Store::erasures`](crate::Store::erasures).
#[derive(Clone, Copy, Debug)]
pub struct Erasures<'a>(pub(crate) &'a Shared);

impl Erasures<'_> {
    /// Deletes webhook events about a conversation that were created up to `until` (monotonic
    /// time), even if the conversation no longer exists.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects a write. Some events may be
    /// deleted then.
    pub async fn erase_events(
        self,
        conversation: Uuid,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        self.0.delete_events(conversation, until).await
    }

    /// Empties the pending log, and checkpoints and truncates SQLite's write-ahead log, so that
    /// deleted data is in no file. Returns `false` if a call started or a reader was active during
    /// that; call it again then.
    ///
    /// # Errors
    /// Fails if a file can't be emptied.
    pub async fn scrub(self) -> Result<bool, StoreError> {
        const WHAT: &str = "empty the store's logs";
        let emptied =
            self.0.queue.empty_pending_log().map_err(|e| failed(WHAT)(sqlx::Error::Io(e)))?;
        let Database::File(_) = &self.0.database else { return Ok(emptied) };
        let pool = open_beside_node(&self.0.database, false).await?;
        let done: Result<(i64, i64, i64), _> =
            sql::query_as("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&pool).await;
        pool.close().await;
        let (busy, ..) = done.map_err(failed(WHAT))?;
        Ok(emptied && busy == 0)
    }

    /// Stores an erasure request and returns it. It will be carried out even after a restart. If the
    /// account has made a request for the same user that is not completed, that one is returned, and
    /// then covers the data up to now.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn request(self, erasure: Erasure) -> Result<Erasure, StoreError> {
        let select = "SELECT erasure_id FROM erasures WHERE auth_id = $1 AND wa_id = $2";
        let select = sql::query_scalar::<String>(select).bind(erasure.account.as_str());
        let waiting = select.bind(&erasure.wa_id).fetch_optional(&self.0.read).await;
        let waiting = waiting.map_err(failed(WHAT))?.and_then(|id| id.parse().ok());
        if let Some(id) = waiting {
            let again = Erasure { id, ..erasure.clone() };
            if self.0.queue.run(ErasureWrite::Renew(again.clone())).await? > 0 {
                return Ok(again);
            }
        }
        self.0.queue.run(ErasureWrite::Request(erasure.clone())).await?;
        Ok(erasure)
    }

    /// Removes a request after all data is deleted. Returns `false` if the request was renewed since, or
    /// if nodes of the fleet, which may not run at the moment, still have files to remove from their
    /// disks.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn finish(self, erasure: &Erasure) -> Result<bool, StoreError> {
        let finish = ErasureWrite::Finish(erasure.id, erasure.asked);
        self.0.queue.run(finish).await.map(|removed| removed > 0)
    }

    /// Removes the user's data from an ended call: deletes its event log and callbacks, and clears
    /// numbers and names in its record. The record is changed last, because a repeated erasure
    /// finds the call by it.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects a write. Some data may be
    /// deleted then.
    pub async fn erase_call(self, call: CallUuid, line: Uuid) -> Result<(), StoreError> {
        let related = sql::query_scalar::<String>(RELATED_CALLS)
            .bind(call.to_string())
            .fetch_all(&self.0.read)
            .await;
        let related = related.map_err(failed(WHAT))?;
        self.0.delete_calls(&related, call).await?;
        self.0.queue.run(ErasureWrite::Call(call, line, related)).await.map(drop)
    }

    /// Deletes webhook events about a conversation by their ids.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects a write. Some events may be
    /// deleted then.
    pub async fn erase_events_by_id(
        self,
        conversation: Uuid,
        events: &[Uuid],
    ) -> Result<(), StoreError> {
        for some in events.chunks(BATCH) {
            self.0.queue.run(ErasureWrite::Events(conversation, some.to_vec())).await?;
        }
        Ok(())
    }

    /// Deletes the content of a conversation up to `until`, and the conversation itself if nothing
    /// is left.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects a write. Some data may be
    /// deleted then.
    pub async fn erase_conversation(
        self,
        scope: &Scope,
        conversation: Uuid,
        until: ErasureCutoff,
    ) -> Result<(), StoreError> {
        self.erase_events(conversation, until.steady).await?;
        self.0.delete_messages(conversation, until.wall).await?;
        self.0
            .queue
            .run(ErasureWrite::Conversation(scope.clone(), conversation, until))
            .await
            .map(drop)
    }

    /// Deletes the notifications about the user up to `until`, saved filters that contain an id of
    /// the user, and the user's permissions for these numbers.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects a write. Some data may be
    /// deleted then.
    pub async fn erase_remaining(
        self,
        erasure: &Erasure,
        until: ErasureCutoff,
        numbers: Vec<PhoneNumberId>,
    ) -> Result<(), StoreError> {
        self.0.queue.run(ErasureWrite::Remaining(erasure.clone(), until, Vec::new())).await?;
        for some in numbers.chunks(BATCH) {
            self.0
                .queue
                .run(ErasureWrite::Remaining(erasure.clone(), until, some.to_vec()))
                .await?;
        }
        Ok(())
    }

    /// Returns the oldest requests of each main account, by turns: the oldest of each, then the next.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn list(self) -> Result<Vec<Erasure>, StoreError> {
        let select = "SELECT erasure_id, auth_id, main_auth_id, wa_id, known_as, asked_us FROM ( \
                SELECT e.*, row_number() OVER (PARTITION BY main_auth_id ORDER BY asked_us) AS turn FROM erasures e \
            ) AS turns WHERE turn <= 100 ORDER BY turn, asked_us LIMIT 1000";
        let rows = sql::query(select).fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
        let erasure = |row: &Row| {
            let text = |column: &str| row.try_get::<String, _>(column).map_err(failed(WHAT));
            let unreadable =
                |e: uuid::Error| StoreError::Unreadable { what: WHAT, detail: e.to_string() };
            Ok(Erasure {
                id: text("erasure_id")?.parse().map_err(unreadable)?,
                account: text("auth_id")?.into(),
                main_account: text("main_auth_id")?.into(),
                wa_id: text("wa_id")?,
                known_as: serde_json::from_str(&text("known_as")?).unwrap_or_default(),
                asked: Timestamp::from_micros(row.try_get("asked_us").map_err(failed(WHAT))?),
            })
        };
        rows.iter().map(erasure).collect()
    }

    /// Finds all ids of the user, because conversations link digits to business-scoped ids. The ids
    /// are stored with the request, since the conversations will be deleted.
    ///
    /// # Errors
    /// Fails if a query fails or if the database rejects the write.
    pub async fn resolve(self, mut erasure: Erasure) -> Result<Erasure, StoreError> {
        let mut ids: BTreeSet<String> = erasure.ids().into_iter().collect();
        loop {
            let known: Vec<String> = ids.iter().cloned().collect();
            // One `SELECT` for each column, since each has its own index.
            let mut select = QueryBuilder::new("");
            for (words, column) in [("SELECT", "user_id"), (" UNION SELECT", "bsuid")] {
                select.push(words).push(" user_id, bsuid FROM conversations c WHERE ");
                conversations::push_list_scope(&mut select, &erasure.scope());
                push_in(&mut select, column, &known);
            }
            let rows: Vec<(String, Option<String>)> =
                select.build_query_as().fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
            let found = rows.into_iter().flat_map(|(user, bsuid)| [Some(user), bsuid]).flatten();
            ids.extend(found.filter(|id| !id.is_empty()));
            if ids.len() == known.len() || ids.len() > IDS_MAX {
                break;
            }
        }
        ids.remove(&erasure.wa_id);
        let known_as: Vec<String> = ids.into_iter().collect();
        if known_as != erasure.known_as {
            self.0.queue.run(ErasureWrite::SetIds(erasure.id, known_as.clone())).await?;
            erasure.known_as = known_as;
        }
        Ok(erasure)
    }

    /// Returns calls of the user that started before the request, with an id greater than `after`:
    /// either those that have ended or those that have not.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn calls(
        self,
        erasure: &Erasure,
        ended: bool,
        after: Option<CallUuid>,
        limit: u32,
    ) -> Result<Vec<CallUuid>, StoreError> {
        let ids = erasure.ids();
        // One `SELECT` for each column, since each has its own index. Open calls are few.
        let mut select = QueryBuilder::new("");
        for (words, column, index) in [
            ("SELECT", "from_number", "calls_list_from"),
            (" UNION SELECT", "to_number", "calls_list_to"),
        ] {
            let (index, which) = if ended { (index, "NOT NULL") } else { ("calls_open", "NULL") };
            let by = indexed_by(self.0.read.dialect(), index);
            select.push(format_args!(
                "{words} call_uuid FROM calls {by} WHERE ended_us IS {which} AND "
            ));
            push_scope(&mut select, &erasure.scope());
            push_in(&mut select, column, &ids);
            select.push(" AND started_us <= ").push_bind(erasure.asked.micros());
            if let Some(after) = after {
                select.push(" AND call_uuid > ").push_bind(after.to_string());
            }
        }
        select.push(" ORDER BY call_uuid LIMIT ").push_bind(limit);
        let ids: Vec<String> =
            select.build_query_scalar().fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
        Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
    }

    /// Returns recordings that contain the user's voice in an ended call.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn call_recordings(
        self,
        scope: &Scope,
        call: CallUuid,
    ) -> Result<CallRecordings, StoreError> {
        let id = call.to_string();
        let mut calls: Vec<String> = sql::query_scalar(RELATED_CALLS)
            .bind(&id)
            .fetch_all(&self.0.read)
            .await
            .map_err(failed(WHAT))?;
        calls.push(id.clone());
        let mut up = QueryBuilder::new("SELECT count(*) FROM calls WHERE ended_us IS NULL");
        push_in(&mut up, "call_uuid", &calls);
        let up: i64 =
            up.build_query_scalar().fetch_one(&self.0.read).await.map_err(failed(WHAT))?;
        let mut select = QueryBuilder::new("SELECT recording_id, ended_us FROM recordings WHERE ");
        push_scope(&mut select, scope);
        push_in(&mut select, "call_uuid", &calls);
        let mut found: Vec<(String, Option<i64>)> =
            select.build_query_as().fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
        found.extend(self.room_recordings(scope, call).await?);
        let is_over = up == 0 && found.iter().all(|(_, ended)| ended.is_some());
        let recordings = found.iter().filter_map(|(id, _)| id.parse().ok()).take(BATCH).collect();
        Ok(CallRecordings { is_over, recordings })
    }

    /// Returns recordings of rooms that a call was in: they overlap with the call, and the call's
    /// event log contains the name of the room.
    async fn room_recordings(
        self,
        scope: &Scope,
        call: CallUuid,
    ) -> Result<Vec<(String, Option<i64>)>, StoreError> {
        let id = call.to_string();
        let mut select = QueryBuilder::new(
            "SELECT recording_id, conference_name, ended_us FROM recordings WHERE conference_name IS NOT NULL AND ",
        );
        push_scope(&mut select, scope);
        select
            .push(" AND started_us <= (SELECT ended_us FROM calls WHERE call_uuid = ")
            .push_bind(&id);
        select.push(") + ").push_bind(TOLERANCE_US);
        select.push(" AND (ended_us IS NULL OR ended_us >= (SELECT started_us FROM calls WHERE call_uuid = ");
        select.push_bind(&id).push(") - ").push_bind(TOLERANCE_US).push(")");
        let rooms: Vec<(String, String, Option<i64>)> =
            select.build_query_as().fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
        let mut was_in = BTreeMap::new();
        for (_, room, _) in &rooms {
            if was_in.contains_key(room) {
                continue;
            }
            let text = entry_text(room);
            was_in.insert(room.clone(), call_logs::contains(&self.0.read, call, &text).await?);
        }
        let found =
            rooms.into_iter().filter(|(_, room, _)| was_in.get(room).copied().unwrap_or_default());
        Ok(found.map(|(id, _, ended)| (id, ended)).collect())
    }

    /// Returns conversations of the user with an id greater than `after`.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn conversations(
        self,
        erasure: &Erasure,
        after: Uuid,
        limit: u32,
    ) -> Result<Vec<Conversation>, StoreError> {
        let narrow = |select: &mut QueryBuilder| push_in(select, "user_id", &erasure.ids());
        conversations::of_scope(&self.0.read, &erasure.scope(), narrow, after, limit).await
    }
}

/// A request to erase the data of a user.
#[derive(Clone, PartialEq, Eq)]
pub struct Erasure {
    pub id: Uuid,
    /// The account that made the request, and its main account.
    pub account: AuthId,
    pub main_account: AuthId,
    /// Digits of the phone number, or a business-scoped user id.
    pub wa_id: String,
    /// Other ids of the user, found in their conversations.
    pub known_as: Vec<String>,
    /// Wall-clock time of the request. Data from before it is deleted, later messages and calls are
    /// not.
    pub asked: Timestamp,
}

/// The time up to which data is deleted, on each of the two clocks that timestamp rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErasureCutoff {
    /// Wall-clock time, for messages and calls.
    pub wall: Timestamp,
    /// Monotonic time, for events and notifications.
    pub steady: Timestamp,
}

/// Omits the user's ids.
impl std::fmt::Debug for Erasure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Erasure({})", self.id)
    }
}

impl Erasure {
    /// The scope of the account that made the request.
    pub fn scope(&self) -> Scope {
        Scope::of(self.account.clone())
    }

    /// Returns all known ids of the user.
    pub fn ids(&self) -> Vec<String> {
        std::iter::once(&self.wa_id).chain(&self.known_as).cloned().collect()
    }
}

/// Recordings of a user's call, of its parent call and its B-legs, and of rooms that it was in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallRecordings {
    /// Whether all recordings have ended. A recording in progress can't be deleted.
    pub is_over: bool,
    /// Some of the recordings.
    pub recordings: Vec<Uuid>,
}

const WHAT: &str = "erase a user's data";

/// Maximum number of ids of one user.
const IDS_MAX: usize = 100;

/// Maximum number of recordings or business numbers in one query or write.
const BATCH: usize = 100;

/// Tolerance, in microseconds, between the times of a room's recording and those of its calls.
const TOLERANCE_US: i64 = 10 * 1_000_000;

enum ErasureWrite {
    Request(Erasure),
    /// Extends a request to the data up to now.
    Renew(Erasure),
    SetIds(Uuid, Vec<String>),
    /// A call, its timeline entry, and its parent call and B-legs.
    Call(CallUuid, Uuid, Vec<String>),
    /// Webhook events about a conversation, by their ids.
    Events(Uuid, Vec<Uuid>),
    /// The row of the conversation.
    Conversation(Scope, Uuid, ErasureCutoff),
    /// The remaining notifications and permissions.
    Remaining(Erasure, ErasureCutoff, Vec<PhoneNumberId>),
    Finish(Uuid, Timestamp),
}

impl WriteTask for ErasureWrite {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        async move {
            match self {
                Self::Request(erasure) => insert_request(to, erasure).await,
                Self::Renew(erasure) => {
                    let asked = last_data(to, erasure).await?;
                    let update = "UPDATE erasures SET asked_us = CASE WHEN asked_us < $2 THEN $2 ELSE asked_us END \
                        WHERE erasure_id = $1";
                    let update = sql::query(update).bind(erasure.id.to_string()).bind(asked);
                    Ok(update.execute(to).await?.rows_affected())
                }
                Self::SetIds(id, ids) => {
                    let ids = serde_json::to_string(ids).unwrap_or_default();
                    let update =
                        sql::query("UPDATE erasures SET known_as = $2 WHERE erasure_id = $1");
                    Ok(update.bind(id.to_string()).bind(ids).execute(to).await?.rows_affected())
                }
                Self::Call(call, line, related) => clear_call(to, *call, *line, related).await,
                Self::Events(conversation, events) => {
                    delete_events_by_id(to, *conversation, events).await
                }
                Self::Conversation(scope, conversation, until) => {
                    trim_conversation(to, scope, *conversation, *until).await
                }
                Self::Remaining(erasure, until, numbers) => {
                    delete_remaining(to, erasure, *until, numbers).await
                }
                Self::Finish(id, asked) => {
                    let delete = match to.dialect() {
                        Dialect::Sqlite => {
                            "DELETE FROM erasures WHERE erasure_id = $1 AND asked_us <= $2"
                        }
                        Dialect::Postgres => {
                            "DELETE FROM erasures WHERE erasure_id = $1 AND asked_us <= $2 AND NOT EXISTS (SELECT 1 FROM files_to_remove f \
                                JOIN runs r ON r.node_id = f.node_id WHERE r.state <> 'forgotten')"
                        }
                    };
                    let delete = sql::query(delete).bind(id.to_string()).bind(asked.micros());
                    Ok(delete.execute(to).await?.rows_affected())
                }
            }
        }
        .boxed()
    }
}

/// Returns the time up to which data is deleted, in microseconds. It covers data that is stamped later
/// than the request because the wall clock was set back.
async fn last_data(to: &mut Conn, erasure: &Erasure) -> Result<i64, sqlx::Error> {
    let mut select = QueryBuilder::new("SELECT max(at_us) FROM (");
    // Ended calls have an index of their numbers. Open calls are few.
    for (words, rows, id) in [
        ("SELECT last_us AS at_us", "conversations c WHERE ", "user_id"),
        (" UNION ALL SELECT last_us", "conversations c WHERE ", "bsuid"),
        (" UNION ALL SELECT started_us", "calls c WHERE ended_us IS NOT NULL AND ", "from_number"),
        (" UNION ALL SELECT started_us", "calls c WHERE ended_us IS NOT NULL AND ", "to_number"),
        (" UNION ALL SELECT started_us", "calls c WHERE ended_us IS NULL AND ", "from_number"),
        (" UNION ALL SELECT started_us", "calls c WHERE ended_us IS NULL AND ", "to_number"),
    ] {
        select.push(words).push(" FROM ").push(rows);
        conversations::push_list_scope(&mut select, &erasure.scope());
        push_in(&mut select, id, &erasure.ids());
    }
    select.push(") AS theirs");
    let last: Option<i64> = select.build_query_scalar().fetch_one(&mut *to).await?;
    Ok(erasure.asked.micros().max(last.unwrap_or_default()))
}

async fn insert_request(to: &mut Conn, erasure: &Erasure) -> Result<u64, sqlx::Error> {
    let asked = last_data(to, erasure).await?;
    let insert = "INSERT INTO erasures (erasure_id, auth_id, main_auth_id, wa_id, asked_us) VALUES ($1, $2, $3, $4, $5)";
    let insert = sql::query(insert).bind(erasure.id.to_string()).bind(erasure.account.as_str());
    let insert = insert.bind(erasure.main_account.as_str()).bind(&erasure.wa_id).bind(asked);
    Ok(insert.execute(to).await?.rows_affected())
}

/// The parent call and the B-legs of a call. Their logs, callbacks and remarks contain the numbers
/// of the call's parties.
const RELATED_CALLS: &str = "SELECT call_uuid FROM calls WHERE parent_call_uuid = $1 \
    UNION SELECT parent_call_uuid FROM calls WHERE call_uuid = $1 AND parent_call_uuid IS NOT NULL";

/// Removes the user from an ended call. The record remains for billing. The records of `related`
/// keep their numbers.
async fn clear_call(
    to: &mut Conn,
    call: CallUuid,
    line: Uuid,
    related: &[String],
) -> Result<u64, sqlx::Error> {
    // The message and the notification may be later than the request, although the call is not.
    sql::query("DELETE FROM messages WHERE message_id = $1")
        .bind(line.to_string())
        .execute(&mut *to)
        .await?;
    sql::query("DELETE FROM notices WHERE call_uuid = $1")
        .bind(call.to_string())
        .execute(&mut *to)
        .await?;
    for other in related {
        let scrub = "UPDATE calls SET remarks = '[]', findings = '[]' WHERE call_uuid = $1 AND ended_us IS NOT NULL";
        sql::query(scrub).bind(other).execute(&mut *to).await?;
    }
    // The business number names no person. Only calls through a phone number have its id, and the
    // numbers of others, like those to endpoints, may both be the user's.
    let scrub = "UPDATE calls SET \
        from_number = CASE WHEN phone_number_id <> '' AND direction = $2 THEN from_number ELSE '' END, \
        to_number = CASE WHEN phone_number_id <> '' AND direction = $3 THEN to_number ELSE '' END, \
        caller_name = '', wacid = NULL, remarks = '[]', findings = '[]' \
        WHERE call_uuid = $1 AND ended_us IS NOT NULL";
    let scrub = sql::query(scrub).bind(call.to_string());
    let scrub = scrub.bind(Direction::Outbound.as_str()).bind(Direction::Inbound.as_str());
    Ok(scrub.execute(to).await?.rows_affected())
}

async fn delete_events_by_id(
    to: &mut Conn,
    conversation: Uuid,
    events: &[Uuid],
) -> Result<u64, sqlx::Error> {
    let mut delete =
        QueryBuilder::new("DELETE FROM callbacks WHERE event IS NOT NULL AND call_uuid = ");
    delete.push_bind(conversation.to_string());
    push_in(&mut delete, "event_id", &events.iter().map(Uuid::to_string).collect::<Vec<_>>());
    Ok(delete.build().execute(to).await?.rows_affected())
}

/// Updates a conversation after messages of it were deleted, or deletes it if no messages are left.
async fn trim_conversation(
    to: &mut Conn,
    scope: &Scope,
    conversation: Uuid,
    until: ErasureCutoff,
) -> Result<u64, sqlx::Error> {
    let id = conversation.to_string();
    let delete = sql::query("DELETE FROM turns WHERE conversation_id = $1 AND came_us <= $2");
    delete.bind(&id).bind(until.wall.micros()).execute(&mut *to).await?;
    responses::delete_of_conversation(to, conversation, until.wall).await?;
    let newest = "SELECT body, direction, came_us FROM messages WHERE conversation_id = $1 \
        AND kind <> 'note' ORDER BY came_us DESC, message_id DESC LIMIT 1";
    let newest: Option<(String, String, i64)> =
        sql::query_as(newest).bind(&id).fetch_optional(&mut *to).await?;
    let Some((text, direction, last)) = newest else {
        // Notes that were written since the request are about the person as well.
        let notes = sql::query("DELETE FROM messages WHERE conversation_id = $1").bind(&id);
        notes.execute(&mut *to).await?;
        let mut delete = QueryBuilder::new("DELETE FROM conversations WHERE ");
        push_scope(&mut delete, scope);
        delete.push(" AND conversation_id = ").push_bind(id);
        return Ok(delete.build().execute(to).await?.rows_affected());
    };
    let left = "SELECT min(came_us), count(CASE WHEN direction = 'inbound' AND kind <> 'reaction' THEN 1 END) \
        FROM messages WHERE conversation_id = $1 AND kind <> 'note'";
    let (first, inbound): (i64, i64) = sql::query_as(left).bind(&id).fetch_one(&mut *to).await?;
    let mut update = QueryBuilder::new("UPDATE conversations SET last_text = ");
    update.push_bind(text.clone()).push(", last_lower = ").push_bind(text.to_lowercase());
    update.push(", last_direction = ").push_bind(direction).push(", last_us = ").push_bind(last);
    update.push(", created_us = ").push_bind(first);
    update
        .push(", unread = CASE WHEN unread > ")
        .push_bind(inbound)
        .push(" THEN ")
        .push_bind(inbound);
    update.push(" ELSE unread END");
    if inbound == 0 {
        update.push(", heard_us = 0");
    }
    // Insights were derived from the deleted messages.
    for column in ["sentiment", "score", "summary", "insights_by", "insights_us"] {
        update
            .push(format!(", {column} = CASE WHEN insights_us > "))
            .push_bind(until.wall.micros());
        update.push(format!(" THEN {column} END"));
    }
    update.push(" WHERE ");
    push_scope(&mut update, scope);
    update.push(" AND conversation_id = ").push_bind(id);
    Ok(update.build().execute(to).await?.rows_affected())
}

async fn delete_remaining(
    to: &mut Conn,
    erasure: &Erasure,
    until: ErasureCutoff,
    numbers: &[PhoneNumberId],
) -> Result<u64, sqlx::Error> {
    let mut notices = QueryBuilder::new("DELETE FROM notices WHERE ");
    push_scope(&mut notices, &erasure.scope());
    let ids = erasure.ids();
    push_in(&mut notices, "wa_id", &ids);
    notices.push(" AND created_us <= ").push_bind(until.steady.micros());
    let mut rows = notices.build().execute(&mut *to).await?.rows_affected();
    for id in &ids {
        // Numbers are kept as they were typed: with spaces, hyphens and parentheses.
        let mut filters = QueryBuilder::new(
            "DELETE FROM saved_filters WHERE user_id IN (SELECT user_id FROM users WHERE ",
        );
        push_scope(&mut filters, &erasure.scope());
        filters
            .push(") AND replace(replace(replace(replace(query, '+', ''), '-', ''), '%28', ''), ");
        filters.push("'%29', '') LIKE ").push_bind(format!("%{id}%"));
        rows += filters.build().execute(&mut *to).await?.rows_affected();
    }
    rows += responses::delete_of_users(to, &erasure.main_account, &ids, until.wall).await?;
    for number in numbers {
        for table in ["permissions", "permission_replies"] {
            let mut delete =
                QueryBuilder::new(format!("DELETE FROM {table} WHERE phone_number_id = "));
            delete.push_bind(number.as_str().to_owned());
            push_in(&mut delete, "\"user\"", &ids);
            rows += delete.build().execute(&mut *to).await?.rows_affected();
        }
    }
    Ok(rows)
}

/// Adds the condition that a column has one of these values. `ids` must not be empty.
fn push_in(query: &mut QueryBuilder, column: &str, ids: &[String]) {
    query.push(" AND ").push(column).push_in(ids.iter().cloned());
}

/// Returns the text that identifies this room in lines of event logs (`RoomEntry`).
fn entry_text(name: &str) -> String {
    format!("\"name\":{}", serde_json::Value::from(name))
}
