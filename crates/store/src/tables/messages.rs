//! Messages of conversations: inbound messages, status updates, and messages to be sent.
//!
//! Each message is stored once, in one transaction with its conversation and the callbacks that
//! report it. The target of these is read from the conversation's row in that transaction, so a
//! concurrent change of the routing can't come in between.

use uuid::Uuid;

use crate::error::{RowError, StoreError, failed, parse_word};
use crate::rows::callback::NewCallback;
use crate::rows::conversation::{Pair, RoutingState, UserName};
use crate::rows::message::{
    EnqueueResult, EventDraft, InboxResult, InterruptedMessage, Message, NewMessage,
    OutgoingMessages, StatusUpdate, TimelineEntry,
};
use crate::scope::{Scope, push_scope};
use crate::seal::Seal;
use crate::shared::Shared;
use crate::sql::{self, Conn, Pool, Query, QueryBuilder, Row};
use crate::tables::conversations::{finish_upsert, upsert_for};
use crate::tables::numbers::{NUMBER_JOIN, ROUTING_COLUMNS, routing, routing_state};
use crate::tables::readers::{MESSAGE, message, pair, unreadable};
use crate::tables::{outbox, turns};
use crate::write::InboxWrite;
use model::{AuthId, Direction, MessageStatus, Routing, Timestamp};

/// Handle to the messages. See [`Store::messages`](crate::Store::messages).
#[derive(Clone, Copy, Debug)]
pub struct Messages<'a>(pub(crate) &'a Shared);

/// Number of messages with the same direction and status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageCount {
    pub direction: Direction,
    pub status: MessageStatus,
    pub messages: usize,
}

impl Messages<'_> {
    /// Counts the messages of the scope from `from` to `to` by direction and status, at most the
    /// latest `limit`. Entries of calls are not counted.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn count(
        self,
        scope: &Scope,
        (from, to): (Timestamp, Timestamp),
        limit: u32,
    ) -> Result<Vec<MessageCount>, StoreError> {
        const WHAT: &str = "count messages";
        let mut select = count_query("", scope, (from, to), limit);
        let rows: Vec<(String, String, i64)> =
            select.build_query_as().fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
        let count = |(direction, status, messages): (String, String, i64)| {
            Some(MessageCount {
                direction: parse_word(&direction).ok()?,
                status: parse_word(&status).ok()?,
                messages: usize::try_from(messages).ok()?,
            })
        };
        Ok(rows.into_iter().filter_map(count).collect())
    }

    /// Stores an inbound message or a call's timeline entry, with its conversation and the
    /// callbacks that report it. The write is queued when this returns. Returns `None` if the queue
    /// is full.
    pub fn receive(
        self,
        entry: TimelineEntry,
    ) -> Option<impl Future<Output = Result<InboxResult, StoreError>> + Send + 'static + use<>>
    {
        self.0.queue.try_inbox(InboxWrite::Entry(entry))
    }

    /// Stores a message's new status. The write is queued when this returns. Returns `None` if the
    /// queue is full.
    pub fn update_status(
        self,
        status: StatusUpdate,
    ) -> Option<impl Future<Output = Result<InboxResult, StoreError>> + Send + 'static + use<>>
    {
        self.0.queue.try_inbox(InboxWrite::Status(status))
    }

    /// Stores messages to be sent. They are refused if the conversation does not exist or has
    /// another epoch.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn enqueue(self, going: OutgoingMessages) -> Result<EnqueueResult, StoreError> {
        match self.0.queue.inbox(InboxWrite::Enqueue(going)).await? {
            InboxResult::Enqueued(gone) => Ok(gone),
            InboxResult::Entry(..)
            | InboxResult::Status(..)
            | InboxResult::Done(..)
            | InboxResult::Journalled => Err(StoreError::NotTaken),
        }
    }

    /// Records that a message is about to be sent to Meta, which may have it from then on. Returns
    /// `false` if this was recorded before, or if the message must not be sent any more.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn begin_sending(self, message: Uuid, at: Timestamp) -> Result<bool, StoreError> {
        Ok(self.0.queue.inbox(InboxWrite::BeginSending { message, at }).await?.into_done()?.0)
    }

    /// Stores the id that Meta gave a message. The write is queued when this returns.
    pub fn set_wamid(
        self,
        message: Uuid,
        wamid: String,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send + 'static + use<> {
        let written = self.0.queue.inbox(InboxWrite::SetWamid { message, wamid });
        async move { Ok(written.await?.into_done()?.0) }
    }

    /// Deletes up to `limit` of the oldest messages from before `before`. Returns whether there may
    /// be more.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write.
    pub async fn delete_older(self, before: Timestamp, limit: u32) -> Result<bool, StoreError> {
        Ok(self.0.queue.inbox(InboxWrite::DeleteOlder { before, limit }).await?.into_done()?.0)
    }

    /// Returns the messages and calls of a conversation that are older than `before`, newest first.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn list(
        self,
        scope: &Scope,
        conversation: Uuid,
        before: Option<(i64, Uuid)>,
        limit: u32,
    ) -> Result<Vec<Message>, StoreError> {
        list(&self.0.read, scope, conversation, before, limit).await
    }

    /// Returns a message of any account. Only for ids that Offhook has signed itself.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn get(self, id: Uuid) -> Result<Option<(Pair, Message)>, StoreError> {
        get(&self.0.read, id).await
    }

    /// Returns the main accounts of those of the messages that exist.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn main_accounts(self, ids: &[Uuid]) -> Result<Vec<(Uuid, AuthId)>, StoreError> {
        const WHAT: &str = "read the accounts of messages";
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut select = QueryBuilder::new(
            "SELECT m.message_id, c.main_auth_id FROM messages m \
             JOIN conversations c ON c.conversation_id = m.conversation_id WHERE m.message_id",
        );
        select.push_in(ids.iter().map(Uuid::to_string));
        let rows: Vec<(String, String)> =
            select.build_query_as().fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
        let owner = |(id, account): (String, String)| Some((id.parse().ok()?, account.into()));
        Ok(rows.into_iter().filter_map(owner).collect())
    }

    /// Returns the messages of an owner that Meta has not confirmed, after the position `after`, oldest
    /// first: its own ones, and those that it has adopted.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn interrupted(
        self,
        node: &str,
        after: (i64, Uuid),
        limit: u32,
    ) -> Result<Vec<InterruptedMessage>, StoreError> {
        interrupted(&self.0.read, node, after, limit).await
    }

    /// Returns the number of messages that the user had written in a conversation, up to and
    /// including this one.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn count_until(
        self,
        conversation: Uuid,
        at: Timestamp,
        id: Uuid,
    ) -> Result<u64, StoreError> {
        count_until(&self.0.read, conversation, at, id).await
    }
}

/// Returns the messages of a conversation that are older than `before`, newest first.
pub(crate) async fn list(
    pool: &Pool,
    scope: &Scope,
    conversation: Uuid,
    before: Option<(i64, Uuid)>,
    limit: u32,
) -> Result<Vec<Message>, StoreError> {
    const WHAT: &str = "read a conversation's messages";
    let mut select = QueryBuilder::new(format!(
        "SELECT {MESSAGE} FROM messages m JOIN conversations c ON c.conversation_id = m.conversation_id WHERE c."
    ));
    push_scope(&mut select, scope);
    select.push(" AND m.conversation_id = ").push_bind(conversation.to_string());
    if let Some((at, id)) = before {
        select.push(" AND (m.came_us, m.message_id) < (").push_bind(at).push(", ");
        select.push_bind(id.to_string()).push(")");
    }
    select.push(" ORDER BY m.came_us DESC, m.message_id DESC LIMIT ").push_bind(i64::from(limit));
    let rows = select.build().fetch_all(pool).await.map_err(failed(WHAT))?;
    rows.iter().map(|row| message(row).map_err(unreadable(WHAT))).collect()
}

/// Returns a message of any account. Only for ids that Offhook has signed itself.
pub(crate) async fn get(pool: &Pool, id: Uuid) -> Result<Option<(Pair, Message)>, StoreError> {
    const WHAT: &str = "read a message";
    let select = format!(
        "SELECT {MESSAGE}, c.auth_id, c.main_auth_id, c.number, c.phone_number_id, c.user_id, c.bsuid, c.name \
         FROM messages m JOIN conversations c ON c.conversation_id = m.conversation_id WHERE m.message_id = $1"
    );
    let row = sql::query(select).bind(id.to_string());
    let Some(row) = row.fetch_optional(pool).await.map_err(failed(WHAT))? else { return Ok(None) };
    let message = message(&row).map_err(unreadable(WHAT))?;
    let pair = pair(message.conversation, &row).map_err(failed(WHAT))?;
    Ok(Some((pair, message)))
}

/// Returns unsent messages of a node, oldest first. Messages of Offhook versions that did not store
/// the node belong to every node.
pub(crate) async fn interrupted(
    pool: &Pool,
    node: &str,
    after: (i64, Uuid),
    limit: u32,
) -> Result<Vec<InterruptedMessage>, StoreError> {
    const WHAT: &str = "find interrupted messages";
    let select = format!(
        "SELECT {MESSAGE}, m.node_id, m.asked_us, m.epoch, c.auth_id, c.main_auth_id, c.number, c.phone_number_id, \
         c.user_id, c.bsuid, c.name \
         FROM messages m JOIN conversations c ON c.conversation_id = m.conversation_id \
         WHERE m.status = 'queued' AND m.wamid IS NULL AND (m.node_id IS NULL OR m.node_id = $1) \
         AND (m.came_us, m.message_id) > ($2, $3) ORDER BY m.came_us, m.message_id LIMIT $4"
    );
    let select = sql::query(select)
        .bind(node)
        .bind(after.0)
        .bind(after.1.to_string())
        .bind(i64::from(limit));
    let rows = select.fetch_all(pool).await.map_err(failed(WHAT))?;
    let read = |row: &Row| -> Result<InterruptedMessage, RowError> {
        let message = message(row)?;
        let noted = row.try_get::<Option<String>, _>("node_id")?.is_some();
        Ok(InterruptedMessage {
            pair: pair(message.conversation, row)?,
            message,
            epoch: row
                .try_get::<Option<i64>, _>("epoch")?
                .and_then(|epoch| u64::try_from(epoch).ok()),
            asked: !noted || row.try_get::<Option<i64>, _>("asked_us")?.is_some(),
        })
    };
    rows.iter().map(|row| read(row).map_err(unreadable(WHAT))).collect()
}

/// Counts a user's messages up to this one.
pub(crate) async fn count_until(
    pool: &Pool,
    conversation: Uuid,
    at: Timestamp,
    id: Uuid,
) -> Result<u64, StoreError> {
    let count = "SELECT count(*) FROM messages WHERE conversation_id = $1 AND direction = 'inbound' \
        AND kind NOT IN ('call', 'reaction') AND (came_us, message_id) <= ($2, $3)";
    let count = sql::query_scalar(count)
        .bind(conversation.to_string())
        .bind(at.micros())
        .bind(id.to_string());
    let count: i64 = count.fetch_one(pool).await.map_err(failed("count a user's messages"))?;
    Ok(u64::try_from(count).unwrap_or_default())
}

pub(crate) async fn insert_entry(
    to: &mut Conn,
    seal: &Seal,
    entry: &TimelineEntry,
) -> Result<InboxResult, sqlx::Error> {
    let Some(Some(new)) = insert_entries(to, &[entry]).await?.pop() else {
        return Ok(InboxResult::Entry(None, Vec::new()));
    };
    let written = outbox::insert_all(to, seal, new.callbacks).await?;
    Ok(InboxResult::Entry(Some(new.found), written))
}

/// A message that was not stored before.
pub(crate) struct NewEntry {
    /// The conversation's routing state and its number of unread messages.
    pub(crate) found: (RoutingState, u64),
    /// The callbacks that report the message. They are not in the outbox yet.
    pub(crate) callbacks: Vec<NewCallback>,
}

/// Stores inbound messages in order. The result is `None` for a message that was stored before.
pub(crate) async fn insert_entries(
    to: &mut Conn,
    all: &[&TimelineEntry],
) -> Result<Vec<Option<NewEntry>>, sqlx::Error> {
    let inserted = sql::execute_each(
        to,
        all.iter().map(|entry| insert_query(&entry.pair, &entry.message, None)),
    )
    .await?;
    let fresh: Vec<bool> = inserted.iter().map(|done| done.changed > 0).collect();
    let only_fresh =
        all.iter().zip(&fresh).filter(|(_, fresh)| **fresh).map(|(entry, _)| upsert_for(entry));
    let mut rows =
        sql::execute_each(to, only_fresh).await?.into_iter().flat_map(|outcome| outcome.rows);
    let mut entries = Vec::with_capacity(all.len());
    for (entry, fresh) in all.iter().zip(fresh) {
        let row = if fresh { Some(rows.next().ok_or(sqlx::Error::RowNotFound)?) } else { None };
        let Some(row) = row else {
            entries.push(None);
            continue;
        };
        let found = finish_upsert(to, entry, &row).await?;
        turns::insert_pending(to, entry, &found.0).await?;
        let callbacks = match (found.0.routing, &entry.draft) {
            (Routing::Webhook(webhook), Some(draft)) => {
                reports(draft, webhook, entry.pair.conversation)
            }
            _ => Vec::new(),
        };
        entries.push(Some(NewEntry { found, callbacks }));
    }
    Ok(entries)
}

/// Creates the event for the webhook and the Plivo-compatible callback for the number's webhook
/// URL.
fn reports(draft: &EventDraft, webhook: Option<Uuid>, conversation: Uuid) -> Vec<NewCallback> {
    let event = webhook.map(|webhook| draft.event_for(webhook, conversation));
    event.into_iter().chain(draft.form(conversation)).collect()
}

pub(crate) async fn insert(
    to: &mut Conn,
    pair: &Pair,
    message: &NewMessage,
    going: Option<&OutgoingMessages>,
) -> Result<bool, sqlx::Error> {
    Ok(insert_query(pair, message, going).execute(to).await?.rows_affected() > 0)
}

fn insert_query(pair: &Pair, message: &NewMessage, going: Option<&OutgoingMessages>) -> Query<Row> {
    let insert = "INSERT INTO messages (message_id, conversation_id, phone_number_id, wamid, direction, kind, body, \
        content, status, sender, came_us, changed_us, node_id, epoch) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11, $12, $13) ON CONFLICT (message_id) DO NOTHING";
    sql::query(insert)
        .bind(message.id.to_string())
        .bind(pair.conversation.to_string())
        .bind(pair.phone_number_id.as_str())
        .bind(&message.wamid)
        .bind(message.direction.as_str())
        .bind(&message.kind)
        .bind(&message.text)
        .bind(message.content.to_string())
        .bind(message.status.as_str())
        .bind(&message.sender)
        .bind(message.at.micros())
        .bind(going.map(|going| going.node_id.clone()))
        .bind(going.and_then(|going| going.epoch).and_then(|epoch| i64::try_from(epoch).ok()))
}

pub(crate) async fn update_status(
    to: &mut Conn,
    seal: &Seal,
    status: &StatusUpdate,
) -> Result<InboxResult, sqlx::Error> {
    let mut update = QueryBuilder::new("UPDATE messages SET status = ");
    update.push_bind(status.status.as_str());
    update.push(", wamid = coalesce(wamid, ").push_bind(status.wamid.clone());
    update.push("), error_code = ").push_bind(status.error.as_ref().map(|(code, _)| *code));
    update.push(", error_text = ").push_bind(status.error.as_ref().map(|(_, text)| text.clone()));
    update.push(", changed_us = ").push_bind(status.at.micros());
    update.push(" WHERE message_id = ");
    match status.named {
        Some(named) => {
            update.push_bind(named.to_string());
        }
        None => {
            update
                .push("(SELECT m.message_id FROM messages m WHERE m.wamid = ")
                .push_bind(status.wamid.clone());
            update.push(" AND m.direction = 'outbound' AND m.phone_number_id = ");
            update.push_bind(status.phone_number_id.as_str()).push(" LIMIT 1)");
        }
    }
    update
        .push(" AND direction = 'outbound' AND phone_number_id = ")
        .push_bind(status.phone_number_id.as_str());
    update.push(" AND (status");
    // A status without a wamid is Offhook's own and means that the result of sending is unknown. It
    // applies only if Meta has reported nothing yet.
    let follows = if status.wamid.is_some() { status.status.predecessors() } else { &["queued"] };
    update.push_in(follows.iter().copied());
    // The message was marked as failed because Meta did not respond. This status from Meta proves
    // that it was sent.
    if status.wamid.is_some() {
        update.push(" OR (status = 'failed' AND wamid IS NULL)");
    }
    update.push(") RETURNING message_id, conversation_id, came_us");
    let Some(row) = update.build().fetch_optional(&mut *to).await? else {
        return Ok(InboxResult::Status(None, Vec::new()));
    };
    let (message, conversation): (String, String) =
        (row.try_get("message_id")?, row.try_get("conversation_id")?);
    let sent = Timestamp::from_micros(row.try_get("came_us")?);
    let ids = conversation.parse::<Uuid>().ok().zip(message.parse::<Uuid>().ok());
    // If the number belongs to another account now, that account's webhooks must not learn of this
    // conversation.
    let select = format!(
        "SELECT {ROUTING_COLUMNS}, c.user_id, c.bsuid, c.name FROM conversations c {NUMBER_JOIN} WHERE c.conversation_id = $1 AND c.auth_id = $2"
    );
    let row = sql::query(select)
        .bind(&conversation)
        .bind(status.draft.account.as_str())
        .fetch_optional(&mut *to)
        .await?;
    let mut written = Vec::new();
    if let (Some(row), Some((id, _))) = (&row, ids)
        && let Routing::Webhook(webhook) = routing(row)?
    {
        let mut draft = status.draft.clone();
        let user = UserName {
            id: row.try_get("user_id")?,
            bsuid: row.try_get("bsuid")?,
            name: row.try_get("name")?,
        };
        draft.fill(&conversation, (&message, sent), &user);
        written = outbox::insert_all(to, seal, reports(&draft, webhook, id)).await?;
    }
    Ok(InboxResult::Status(ids, written))
}

/// Builds the query of [`Messages::count`], with `words` in front of it.
pub(crate) fn count_query(
    words: &str,
    scope: &Scope,
    (from, to): (Timestamp, Timestamp),
    limit: u32,
) -> QueryBuilder {
    // The cross join makes SQLite start with the latest messages.
    let mut select = QueryBuilder::new(format!(
        "{words}SELECT direction, status, count(*) FROM (SELECT m.direction, m.status FROM messages m \
         CROSS JOIN conversations c WHERE c.conversation_id = m.conversation_id AND c."
    ));
    push_scope(&mut select, scope);
    select.push(" AND m.kind NOT IN ('call', 'note') AND m.came_us >= ").push_bind(from.micros());
    select.push(" AND m.came_us < ").push_bind(to.micros());
    select.push(" ORDER BY m.came_us DESC LIMIT ").push_bind(i64::from(limit));
    select.push(") AS latest GROUP BY direction, status");
    select
}

/// Deletes up to `limit` conversations without messages that are from before a time. The query
/// steps through the index from one main account to the next and reads the oldest conversations of
/// each. The time is compared twice: PostgreSQL compares the outer one again after it has waited
/// for a node that was adding a message.
pub(crate) const DELETE_EMPTY: &str = "\
    WITH RECURSIVE walk (account) AS ( \
        SELECT min(main_auth_id) FROM conversations \
        UNION ALL \
        SELECT (SELECT min(c.main_auth_id) FROM conversations c WHERE c.main_auth_id > walk.account) \
        FROM walk WHERE walk.account IS NOT NULL) \
    DELETE FROM conversations WHERE last_us < $1 AND conversation_id IN (SELECT c.conversation_id \
        FROM walk CROSS JOIN conversations c WHERE c.main_auth_id = walk.account AND c.last_us < $1 \
        AND NOT EXISTS (SELECT 1 FROM messages m WHERE m.conversation_id = c.conversation_id) LIMIT $2)";

/// Deletes up to `limit` of the oldest messages from before `before`, and conversations without
/// messages.
pub(crate) async fn delete_older(
    to: &mut Conn,
    before: Timestamp,
    limit: u32,
) -> Result<InboxResult, sqlx::Error> {
    let delete = "DELETE FROM messages WHERE message_id IN \
        (SELECT message_id FROM messages WHERE came_us < $1 ORDER BY came_us LIMIT $2)";
    let gone = sql::query(delete)
        .bind(before.micros())
        .bind(i64::from(limit))
        .execute(&mut *to)
        .await?
        .rows_affected();
    if gone < u64::from(limit) {
        let delete = sql::query(DELETE_EMPTY).bind(before.micros()).bind(i64::from(limit));
        delete.execute(&mut *to).await?;
        // Deletes pending replies to deleted messages, including those of nodes that no longer
        // exist.
        sql::query("DELETE FROM turns WHERE came_us < $1")
            .bind(before.micros())
            .execute(to)
            .await?;
    }
    Ok(InboxResult::Done(gone >= u64::from(limit), Vec::new()))
}

pub(crate) async fn enqueue(
    to: &mut Conn,
    going: &OutgoingMessages,
) -> Result<EnqueueResult, sqlx::Error> {
    let select = format!(
        "SELECT c.auth_id, c.main_auth_id, c.number, c.phone_number_id, c.user_id, c.bsuid, c.name, {ROUTING_COLUMNS} \
         FROM conversations c {NUMBER_JOIN} WHERE c.conversation_id = $1"
    );
    let conversation = going.conversation.to_string();
    let Some(row) = sql::query(select).bind(&conversation).fetch_optional(&mut *to).await? else {
        return Ok(EnqueueResult::Refused);
    };
    if let Some(epoch) = going.epoch
        && routing_state(&row)?.answers(epoch).is_none()
    {
        return Ok(EnqueueResult::Refused);
    }
    if let Some(answers) = &going.answers
        && !turns::record_reply(to, answers).await?
    {
        return Ok(EnqueueResult::Refused);
    }
    let pair = pair(going.conversation, &row)?;
    for message in &going.messages {
        if !insert(to, &pair, message, Some(going)).await? {
            return Ok(EnqueueResult::Duplicate);
        }
    }
    let Some(last) = going.messages.last() else { return Ok(EnqueueResult::Stored) };
    let update = "UPDATE conversations SET last_text = $2, last_lower = $4, last_direction = 'outbound', \
        last_us = CASE WHEN $3 > last_us THEN $3 ELSE last_us END WHERE conversation_id = $1";
    sql::query(update)
        .bind(&conversation)
        .bind(&last.text)
        .bind(last.at.micros())
        .bind(last.text.to_lowercase())
        .execute(to)
        .await?;
    Ok(EnqueueResult::Stored)
}

/// Records that a message is about to be sent. Meta may have it from then on. Returns `Done(false)` if
/// the message must not be sent: it was sent already or has failed, or it is the reply of an agent that
/// no longer answers the conversation.
pub(crate) async fn begin_sending(
    to: &mut Conn,
    message: Uuid,
    at: Timestamp,
) -> Result<InboxResult, sqlx::Error> {
    let select = format!(
        "SELECT m.epoch AS of_reply, {ROUTING_COLUMNS} FROM messages m \
         JOIN conversations c ON c.conversation_id = m.conversation_id {NUMBER_JOIN} \
         WHERE m.message_id = $1 AND m.epoch IS NOT NULL"
    );
    let select = sql::query(select).bind(message.to_string());
    if let Some(row) = select.fetch_optional(&mut *to).await? {
        let epoch = u64::try_from(row.try_get::<i64, _>("of_reply")?).unwrap_or_default();
        if routing_state(&row)?.answers(epoch).is_none() {
            return Ok(InboxResult::Done(false, Vec::new()));
        }
    }
    let update = "UPDATE messages SET asked_us = $2 WHERE message_id = $1 AND status = 'queued' AND asked_us IS NULL";
    let update = sql::query(update).bind(message.to_string()).bind(at.micros());
    Ok(InboxResult::Done(update.execute(to).await?.rows_affected() > 0, Vec::new()))
}

/// Stores the id that Meta gave a message.
pub(crate) async fn set_wamid(
    to: &mut Conn,
    message: Uuid,
    wamid: &str,
) -> Result<InboxResult, sqlx::Error> {
    let update = sql::query("UPDATE messages SET wamid = $2 WHERE message_id = $1")
        .bind(message.to_string());
    Ok(InboxResult::Done(update.bind(wamid).execute(to).await?.rows_affected() > 0, Vec::new()))
}
