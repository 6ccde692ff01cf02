//! People who are to be forgotten (`number-api.md` §4): a row each, until nothing of theirs is left. What others keep beside
//! the store (recordings' files, conversations) is `erasure`'s business.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::database::Database;
use crate::error::{StoreError, failed};
use crate::rows::conversation::Conversation;
use crate::scope::{Scope, within};
use crate::seal::Seal;
use crate::shared::Shared;
use crate::sql::connect::beside_a_node;
use crate::sql::{self, Conn, QueryBuilder, Row};
use crate::tables::{conversations, responses};
use crate::write::Deed;
use model::{AuthId, CallUuid, PhoneNumberId, Timestamp};

/// Handle.
#[derive(Clone, Copy, Debug)]
pub struct Erasures<'a>(pub(crate) &'a Shared);

impl Erasures<'_> {
    /// What webhooks were or are to be told of a conversation, also of one that is not there, and was noted until then
    /// by the steady clock.
    ///
    /// # Errors
    /// The store takes nothing now; some may be gone.
    pub async fn erase_events(
        self,
        conversation: Uuid,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        self.0.delete_events(conversation, until).await
    }

    /// Empties the file of calls that begin, and SQLite's write-ahead log into its file: what was overwritten there is nowhere any
    /// more. `false`: a call began, or somebody read meanwhile, and it is to be tried again.
    ///
    /// # Errors
    /// The store's.
    pub async fn scrub(self) -> Result<bool, StoreError> {
        const WHAT: &str = "empty the store's logs";
        let emptied =
            self.0.queue.empty_start_log().map_err(|e| failed(WHAT)(sqlx::Error::Io(e)))?;
        let Database::File(_) = &self.0.database else { return Ok(emptied) };
        let pool = beside_a_node(&self.0.database, false).await?;
        let done: Result<(i64, i64, i64), _> =
            sql::query_as("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&pool).await;
        pool.close().await;
        let (busy, ..) = done.map_err(failed(WHAT))?;
        Ok(emptied && busy == 0)
    }

    /// Notes that a person is to be forgotten; from then on it will be done.
    ///
    /// # Errors
    /// The store takes nothing now; nothing has changed.
    pub async fn request(self, erasure: Erasure) -> Result<(), StoreError> {
        self.0.queue.run(ErasureWrite::Ask(erasure)).await.map(drop)
    }

    /// Nothing of the person's is left.
    ///
    /// # Errors
    /// The store takes nothing now; nothing has changed.
    pub async fn finish(self, id: Uuid) -> Result<(), StoreError> {
        self.0.queue.run(ErasureWrite::Done(id)).await.map(drop)
    }

    /// Takes the person out of an ended call: its event log and callbacks are gone, its record names nobody. The record comes
    /// last, since by it the call is found again.
    ///
    /// # Errors
    /// The store takes nothing now; some may be gone.
    pub async fn erase_call(self, call: CallUuid, line: Uuid) -> Result<(), StoreError> {
        let family = sql::query_scalar::<String>(FAMILY)
            .bind(call.to_string())
            .fetch_all(&self.0.read)
            .await;
        let family = family.map_err(failed(WHAT))?;
        self.0.delete_calls(&family, call).await?;
        self.0.queue.run(ErasureWrite::Call(call, line, family)).await.map(drop)
    }

    /// What webhooks were or are to be told of a conversation, of these ids.
    ///
    /// # Errors
    /// The store takes nothing now; some may be gone.
    pub async fn erase_events_by_id(
        self,
        conversation: Uuid,
        events: &[Uuid],
    ) -> Result<(), StoreError> {
        for some in events.chunks(AT_ONCE) {
            self.0.queue.run(ErasureWrite::Told(conversation, some.to_vec())).await?;
        }
        Ok(())
    }

    /// What a conversation holds that came until then; itself too, if nothing came later.
    ///
    /// # Errors
    /// The store takes nothing now; some may be gone.
    pub async fn erase_conversation(
        self,
        scope: &Scope,
        conversation: Uuid,
        until: Until,
    ) -> Result<(), StoreError> {
        self.erase_events(conversation, until.steady).await?;
        self.0.delete_messages(conversation, until.wall).await?;
        self.0
            .queue
            .run(ErasureWrite::Conversation(scope.clone(), conversation, until))
            .await
            .map(drop)
    }

    /// Forgets the person's notifications until then, and what they allowed these numbers.
    ///
    /// # Errors
    /// The store takes nothing now; some may be gone.
    pub async fn erase_remaining(
        self,
        erasure: &Erasure,
        until: Until,
        numbers: Vec<PhoneNumberId>,
    ) -> Result<(), StoreError> {
        self.0.queue.run(ErasureWrite::Rest(erasure.clone(), until, Vec::new())).await?;
        for some in numbers.chunks(AT_ONCE) {
            self.0.queue.run(ErasureWrite::Rest(erasure.clone(), until, some.to_vec())).await?;
        }
        Ok(())
    }

    /// Who is to be forgotten, the oldest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(self) -> Result<Vec<Erasure>, StoreError> {
        let select = "SELECT erasure_id, auth_id, main_auth_id, wa_id, known_as, asked_us FROM erasures ORDER BY asked_us LIMIT 1000";
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

    /// All the ids that the person has in conversations, where digits and business-scoped ids stand side by side; kept with the
    /// request, since the conversations go.
    ///
    /// # Errors
    /// The store's.
    pub async fn resolve(self, mut erasure: Erasure) -> Result<Erasure, StoreError> {
        let mut ids: BTreeSet<String> = erasure.ids().into_iter().collect();
        loop {
            let known: Vec<String> = ids.iter().cloned().collect();
            // Each half by an index of its own.
            let mut select = QueryBuilder::new("");
            for (words, column) in [("SELECT", "user_id"), (" UNION SELECT", "bsuid")] {
                select.push(words).push(" user_id, bsuid FROM conversations WHERE ");
                within(&mut select, &erasure.scope());
                one_of(&mut select, column, &known);
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
            self.0.queue.run(ErasureWrite::Known(erasure.id, known_as.clone())).await?;
            erasure.known_as = known_as;
        }
        Ok(erasure)
    }

    /// Some of a person's calls behind that one, of those that began before they asked: those that have ended, or those
    /// that have not.
    ///
    /// # Errors
    /// The store's.
    pub async fn calls(
        self,
        erasure: &Erasure,
        ended: bool,
        after: Option<CallUuid>,
        limit: u32,
    ) -> Result<Vec<CallUuid>, StoreError> {
        let ids = erasure.ids();
        // Each half by an index of its own.
        let mut select = QueryBuilder::new("");
        for (words, column) in [("SELECT", "from_number"), (" UNION SELECT", "to_number")] {
            select.push(words).push(" call_uuid FROM calls WHERE ");
            select.push(if ended { "ended_us IS NOT NULL AND " } else { "ended_us IS NULL AND " });
            within(&mut select, &erasure.scope());
            one_of(&mut select, column, &ids);
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

    /// What there is to hear of a person's ended call.
    ///
    /// # Errors
    /// The store's.
    pub async fn call_recordings(self, scope: &Scope, call: CallUuid) -> Result<Heard, StoreError> {
        let id = call.to_string();
        let mut calls: Vec<String> = sql::query_scalar(FAMILY)
            .bind(&id)
            .fetch_all(&self.0.read)
            .await
            .map_err(failed(WHAT))?;
        calls.push(id.clone());
        let mut up = QueryBuilder::new("SELECT count(*) FROM calls WHERE ended_us IS NULL");
        one_of(&mut up, "call_uuid", &calls);
        let up: i64 =
            up.build_query_scalar().fetch_one(&self.0.read).await.map_err(failed(WHAT))?;
        let mut select = QueryBuilder::new("SELECT recording_id, ended_us FROM recordings WHERE ");
        within(&mut select, scope);
        one_of(&mut select, "call_uuid", &calls);
        let mut found: Vec<(String, Option<i64>)> =
            select.build_query_as().fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
        found.extend(self.room_recordings(scope, &id).await?);
        let is_over = up == 0 && found.iter().all(|(_, ended)| ended.is_some());
        let recordings = found.iter().filter_map(|(id, _)| id.parse().ok()).take(AT_ONCE).collect();
        Ok(Heard { is_over, recordings })
    }

    /// Recordings of rooms that a call was in: of its time, and named in its log.
    async fn room_recordings(
        self,
        scope: &Scope,
        call: &str,
    ) -> Result<Vec<(String, Option<i64>)>, StoreError> {
        let mut select = QueryBuilder::new(
            "SELECT recording_id, conference_name, ended_us FROM recordings WHERE conference_name IS NOT NULL AND ",
        );
        within(&mut select, scope);
        select
            .push(" AND started_us <= (SELECT ended_us FROM calls WHERE call_uuid = ")
            .push_bind(call.to_owned());
        select.push(") + ").push_bind(BESIDE_US);
        select.push(" AND (ended_us IS NULL OR ended_us >= (SELECT started_us FROM calls WHERE call_uuid = ");
        select.push_bind(call.to_owned()).push(") - ").push_bind(BESIDE_US).push(")");
        let rooms: Vec<(String, String, Option<i64>)> =
            select.build_query_as().fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
        let mut was_in = BTreeMap::new();
        for (_, room, _) in &rooms {
            if was_in.contains_key(room) {
                continue;
            }
            let count = "SELECT count(*) FROM call_events WHERE call_uuid = $1 AND line LIKE $2 ESCAPE '\\'";
            let count = sql::query_scalar::<i64>(count).bind(call).bind(names(room));
            was_in.insert(
                room.clone(),
                count.fetch_one(&self.0.read).await.map_err(failed(WHAT))? > 0,
            );
        }
        let found =
            rooms.into_iter().filter(|(_, room, _)| was_in.get(room).copied().unwrap_or_default());
        Ok(found.map(|(id, _, ended)| (id, ended)).collect())
    }

    /// Some of the person's conversations, behind that one.
    ///
    /// # Errors
    /// The store's.
    pub async fn conversations(
        self,
        erasure: &Erasure,
        after: Uuid,
        limit: u32,
    ) -> Result<Vec<Conversation>, StoreError> {
        let narrow = |select: &mut QueryBuilder| one_of(select, "user_id", &erasure.ids());
        conversations::of_scope(&self.0.read, &erasure.scope(), narrow, after, limit).await
    }
}

/// A person who is to be forgotten, and where.
#[derive(Clone, PartialEq, Eq)]
pub struct Erasure {
    pub id: Uuid,
    /// Who asked, and its main account.
    pub account: AuthId,
    pub main_account: AuthId,
    /// Digits, or a business-scoped id.
    pub wa_id: String,
    /// What else they are known as here, found in their conversations.
    pub known_as: Vec<String>,
    /// By the wall clock. What came until then goes; who writes or calls later is somebody new.
    pub asked: Timestamp,
}

/// Until when what tells of a person goes, by each of the clocks that stamp it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Until {
    /// Messages and calls.
    pub wall: Timestamp,
    /// Events and notifications.
    pub steady: Timestamp,
}

/// Without the person (R22).
impl std::fmt::Debug for Erasure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Erasure({})", self.id)
    }
}

impl Erasure {
    /// Whose data it is about: the asker's.
    pub fn scope(&self) -> Scope {
        Scope::of(self.account.clone())
    }

    /// All that they are known as.
    pub fn ids(&self) -> Vec<String> {
        std::iter::once(&self.wa_id).chain(&self.known_as).cloned().collect()
    }
}

/// What there is to hear of a person's call: of it, of the call that dialled it, of those that it dialled, and of rooms that it
/// was in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// All of it has ended: what is still being recorded can't be taken away.
    pub is_over: bool,
    /// Some of the recordings.
    pub recordings: Vec<Uuid>,
}

const WHAT: &str = "look for what is to be forgotten";

/// Ids of one person at most.
const IDS_MAX: usize = 100;

/// Recordings looked at together, and numbers.
const AT_ONCE: usize = 100;

/// A room's recording may begin and end that much beside the calls in it.
const BESIDE_US: i64 = 10 * 1_000_000;

enum ErasureWrite {
    Ask(Erasure),
    Known(Uuid, Vec<String>),
    /// With its line in the timeline; and those that it dialled, or was dialled by.
    Call(CallUuid, Uuid, Vec<String>),
    /// What webhooks were told of a conversation, by the events' ids.
    Told(Uuid, Vec<Uuid>),
    /// What is left of a conversation.
    Conversation(Scope, Uuid, Until),
    /// Notifications and permissions.
    Rest(Erasure, Until, Vec<PhoneNumberId>),
    Done(Uuid),
}

impl Deed for ErasureWrite {
    fn carry_out<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        async move {
            match self {
                Self::Ask(erasure) => ask(to, erasure).await,
                Self::Known(id, ids) => {
                    let ids = serde_json::to_string(ids).unwrap_or_default();
                    let update =
                        sql::query("UPDATE erasures SET known_as = $2 WHERE erasure_id = $1");
                    Ok(update.bind(id.to_string()).bind(ids).execute(to).await?.rows_affected())
                }
                Self::Call(call, line, family) => scrub_call(to, *call, *line, family).await,
                Self::Told(conversation, events) => forget_told(to, *conversation, events).await,
                Self::Conversation(scope, conversation, until) => {
                    shrink(to, scope, *conversation, *until).await
                }
                Self::Rest(erasure, until, numbers) => {
                    forget_rest(to, erasure, *until, numbers).await
                }
                Self::Done(id) => {
                    let delete = sql::query("DELETE FROM erasures WHERE erasure_id = $1")
                        .bind(id.to_string());
                    Ok(delete.execute(to).await?.rows_affected())
                }
            }
        }
        .boxed()
    }
}

async fn ask(to: &mut Conn, erasure: &Erasure) -> Result<u64, sqlx::Error> {
    // A wall clock that was set back meanwhile keeps nothing of what is there.
    let mut select = QueryBuilder::new("SELECT max(at_us) FROM (");
    for (words, table, id) in [
        ("SELECT last_us AS at_us", "conversations", "user_id"),
        (" UNION ALL SELECT last_us", "conversations", "bsuid"),
        (" UNION ALL SELECT started_us", "calls", "from_number"),
        (" UNION ALL SELECT started_us", "calls", "to_number"),
    ] {
        select.push(words).push(" FROM ").push(table).push(" WHERE ");
        within(&mut select, &erasure.scope());
        one_of(&mut select, id, &erasure.ids());
    }
    select.push(") AS theirs");
    let last: Option<i64> = select.build_query_scalar().fetch_one(&mut *to).await?;
    let asked = erasure.asked.micros().max(last.unwrap_or_default());
    let insert = "INSERT INTO erasures (erasure_id, auth_id, main_auth_id, wa_id, asked_us) VALUES ($1, $2, $3, $4, $5)";
    let insert = sql::query(insert).bind(erasure.id.to_string()).bind(erasure.account.as_str());
    let insert = insert.bind(erasure.main_account.as_str()).bind(&erasure.wa_id).bind(asked);
    Ok(insert.execute(to).await?.rows_affected())
}

/// The call that dialled this one, and those that it dialled: their logs, callbacks and remarks name who is in it.
const FAMILY: &str = "SELECT call_uuid FROM calls WHERE parent_call_uuid = $1 \
    UNION SELECT parent_call_uuid FROM calls WHERE call_uuid = $1 AND parent_call_uuid IS NOT NULL";

/// An ended call keeps its record, for the bill, and nobody is in it; those that it dialled or was dialled by keep theirs.
async fn scrub_call(
    to: &mut Conn,
    call: CallUuid,
    line: Uuid,
    family: &[String],
) -> Result<u64, sqlx::Error> {
    // They may be of later than the request, which the call is not.
    sql::query("DELETE FROM messages WHERE message_id = $1")
        .bind(line.to_string())
        .execute(&mut *to)
        .await?;
    sql::query("DELETE FROM notices WHERE call_uuid = $1")
        .bind(call.to_string())
        .execute(&mut *to)
        .await?;
    for other in family {
        let scrub = "UPDATE calls SET remarks = '[]', findings = '[]' WHERE call_uuid = $1 AND ended_us IS NOT NULL";
        sql::query(scrub).bind(other).execute(&mut *to).await?;
    }
    let scrub = "UPDATE calls SET from_number = '', to_number = '', caller_name = '', wacid = NULL, remarks = '[]', \
        findings = '[]' WHERE call_uuid = $1 AND ended_us IS NOT NULL";
    Ok(sql::query(scrub).bind(call.to_string()).execute(to).await?.rows_affected())
}

async fn forget_told(
    to: &mut Conn,
    conversation: Uuid,
    events: &[Uuid],
) -> Result<u64, sqlx::Error> {
    let mut delete =
        QueryBuilder::new("DELETE FROM callbacks WHERE event IS NOT NULL AND call_uuid = ");
    delete.push_bind(conversation.to_string());
    one_of(&mut delete, "event_id", &events.iter().map(Uuid::to_string).collect::<Vec<_>>());
    Ok(delete.build().execute(to).await?.rows_affected())
}

/// A conversation of which messages have gone: it goes too, or shows what is left.
async fn shrink(
    to: &mut Conn,
    scope: &Scope,
    conversation: Uuid,
    until: Until,
) -> Result<u64, sqlx::Error> {
    let id = conversation.to_string();
    let delete = sql::query("DELETE FROM turns WHERE conversation_id = $1 AND came_us <= $2");
    delete.bind(&id).bind(until.wall.micros()).execute(&mut *to).await?;
    responses::forget_conversation(to, conversation, until.wall).await?;
    let newest = "SELECT body, direction, came_us FROM messages WHERE conversation_id = $1 \
        ORDER BY came_us DESC, message_id DESC LIMIT 1";
    let newest: Option<(String, String, i64)> =
        sql::query_as(newest).bind(&id).fetch_optional(&mut *to).await?;
    let Some((text, direction, last)) = newest else {
        let mut delete = QueryBuilder::new("DELETE FROM conversations WHERE ");
        within(&mut delete, scope);
        delete.push(" AND conversation_id = ").push_bind(id);
        return Ok(delete.build().execute(to).await?.rows_affected());
    };
    let left = "SELECT min(came_us), count(CASE WHEN direction = 'inbound' AND kind <> 'reaction' THEN 1 END) \
        FROM messages WHERE conversation_id = $1";
    let (first, heard): (i64, i64) = sql::query_as(left).bind(&id).fetch_one(&mut *to).await?;
    let mut update = QueryBuilder::new("UPDATE conversations SET last_text = ");
    update.push_bind(text.clone()).push(", last_lower = ").push_bind(text.to_lowercase());
    update.push(", last_direction = ").push_bind(direction).push(", last_us = ").push_bind(last);
    update.push(", created_us = ").push_bind(first);
    update.push(", unread = CASE WHEN unread > ").push_bind(heard).push(" THEN ").push_bind(heard);
    update.push(" ELSE unread END");
    if heard == 0 {
        update.push(", heard_us = 0");
    }
    // What was made of the messages that are gone tells of them.
    for column in ["sentiment", "score", "summary", "insights_by", "insights_us"] {
        update
            .push(format!(", {column} = CASE WHEN insights_us > "))
            .push_bind(until.wall.micros());
        update.push(format!(" THEN {column} END"));
    }
    update.push(" WHERE ");
    within(&mut update, scope);
    update.push(" AND conversation_id = ").push_bind(id);
    Ok(update.build().execute(to).await?.rows_affected())
}

async fn forget_rest(
    to: &mut Conn,
    erasure: &Erasure,
    until: Until,
    numbers: &[PhoneNumberId],
) -> Result<u64, sqlx::Error> {
    let mut notices = QueryBuilder::new("DELETE FROM notices WHERE ");
    within(&mut notices, &erasure.scope());
    let ids = erasure.ids();
    one_of(&mut notices, "wa_id", &ids);
    notices.push(" AND created_us <= ").push_bind(until.steady.micros());
    let mut rows = notices.build().execute(&mut *to).await?.rows_affected();
    rows += responses::forget_about(to, &erasure.main_account, &ids, until.wall).await?;
    for number in numbers {
        for table in ["permissions", "permission_replies"] {
            let mut delete =
                QueryBuilder::new(format!("DELETE FROM {table} WHERE phone_number_id = "));
            delete.push_bind(number.as_str().to_owned());
            one_of(&mut delete, "\"user\"", &ids);
            rows += delete.build().execute(&mut *to).await?.rows_affected();
        }
    }
    Ok(rows)
}

/// That a column holds one of these; there is one at least.
fn one_of(query: &mut QueryBuilder, column: &str, ids: &[String]) {
    query.push(" AND ").push(column).push(" IN (");
    let mut list = query.list();
    for id in ids {
        list.push_bind(id.clone());
    }
    query.push(")");
}

/// That a line has this name in it: how a room is entered (`RoomEntry`).
fn names(name: &str) -> String {
    let mut like = String::from("%\"name\":");
    for c in serde_json::Value::from(name).to_string().chars() {
        if matches!(c, '%' | '_' | '\\') {
            like.push('\\');
        }
        like.push(c);
    }
    like.push('%');
    like
}
