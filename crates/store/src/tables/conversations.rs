//! Conversations: reading single ones, creating, changing and deleting them.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::error::{RowError, StoreError, failed};
use crate::rows::callback::QueuedCallback;
use crate::rows::conversation::{
    Assignee, Conversation, ConversationChange, Insights, LABELS_MAX, LabelChange, LastMessage,
    Pair, RoutingState,
};
use crate::rows::message::{EventDraft, InboxResult, TimelineEntry};
use crate::scope::{Scope, push_scope};
use crate::shared::Shared;
use crate::sql::{self, Conn, Pool, Query, QueryBuilder, Row};
use crate::tables::numbers::{
    self, CURRENT_GENERATION, NUMBER_JOIN, ROUTING_COLUMNS, routing_state,
};
use crate::tables::readers::{direction, pair, unreadable};
use crate::tables::responses;
use crate::write::InboxWrite;
use model::{ConversationStatus, E164, Routing, Timestamp};

/// Handle to the conversations. See [`Store::conversations`](crate::Store::conversations).
#[derive(Clone, Copy, Debug)]
pub struct Conversations<'a>(pub(crate) &'a Shared);

impl Conversations<'_> {
    /// Changes a conversation, and adds the events in `events` for webhooks to the outbox. Returns
    /// `false` if the scope has no such conversation, or if its status or the number of its labels
    /// does not allow the change.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn change(
        self,
        scope: &Scope,
        conversation: Uuid,
        change: ConversationChange,
        events: Vec<(Uuid, EventDraft)>,
    ) -> Result<(bool, Vec<QueuedCallback>), StoreError> {
        let scope = scope.clone();
        self.0
            .queue
            .inbox(InboxWrite::Change { scope, conversation, change, events })
            .await?
            .into_done()
    }

    /// Deletes a conversation and its messages. Returns `false` if the scope has no such
    /// conversation.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects a write. Some of the messages
    /// may be deleted then.
    pub async fn delete(self, scope: &Scope, conversation: Uuid) -> Result<bool, StoreError> {
        if self.get(scope, conversation).await?.is_none() {
            return Ok(false);
        }
        self.0.delete_conversation_data(conversation).await?;
        let written = self.0.queue.inbox(InboxWrite::Delete { scope: scope.clone(), conversation });
        Ok(written.await?.into_done()?.0)
    }

    /// Creates a conversation with this routing, or sets its routing if it exists.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn open(self, pair: Pair, routing: Routing, at: Timestamp) -> Result<(), StoreError> {
        self.0.queue.inbox(InboxWrite::Open { pair, routing, at }).await?.into_done().map(drop)
    }

    /// Returns a conversation, or `None` if the scope has no such conversation.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn get(self, scope: &Scope, id: Uuid) -> Result<Option<Conversation>, StoreError> {
        get(&self.0.read, scope, id).await
    }

    /// Returns the users' names by conversation. Conversations outside the scope are left out.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn names(
        self,
        scope: &Scope,
        ids: &[Uuid],
    ) -> Result<BTreeMap<Uuid, String>, StoreError> {
        const WHAT: &str = "read names of conversations";
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut select =
            QueryBuilder::new("SELECT conversation_id, name FROM conversations WHERE ");
        push_scope(&mut select, scope);
        select.push(" AND conversation_id").push_in(ids.iter().map(Uuid::to_string));
        let rows: Vec<(String, String)> =
            select.build_query_as().fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
        Ok(rows.into_iter().filter_map(|(id, name)| Some((id.parse().ok()?, name))).collect())
    }

    /// Counts the conversations of the scope with unread messages, up to `limit`.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn count_unread(self, scope: &Scope, limit: u32) -> Result<u64, StoreError> {
        let count: i64 = unread_query("", scope, limit)
            .build_query_scalar()
            .fetch_one(&self.0.read)
            .await
            .map_err(failed("count unread conversations"))?;
        Ok(count.unsigned_abs())
    }

    /// Returns the number of open conversations by business number. Numbers without any are left
    /// out.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn count_open(
        self,
        scope: &Scope,
        numbers: &[E164],
    ) -> Result<BTreeMap<E164, u64>, StoreError> {
        count_open(&self.0.read, scope, numbers).await
    }
}

pub(crate) const COLUMNS: &str = "c.conversation_id, c.auth_id, c.main_auth_id, c.number, c.phone_number_id, c.user_id, c.bsuid, c.name, \
    c.status, c.unread, c.last_text, c.last_direction, c.last_us, c.heard_us, c.sentiment, c.score, c.summary, \
    c.insights_by, c.insights_us, c.created_us, c.labels, c.assignee, \
    (SELECT u.name FROM users u WHERE u.user_id = c.assignee) AS assignee_name, \
    (SELECT u.full_name FROM users u WHERE u.user_id = c.assignee) AS assignee_full_name, \
    (SELECT CASE WHEN m.body = c.last_text THEN m.kind || ' ' || coalesce(m.sender, '') END FROM messages m \
    WHERE m.conversation_id = c.conversation_id AND m.kind <> 'note' \
    ORDER BY m.came_us DESC, m.message_id DESC LIMIT 1) AS last_kind_and_sender";

/// Returns a conversation of the scope.
pub(crate) async fn get(
    pool: &Pool,
    scope: &Scope,
    id: Uuid,
) -> Result<Option<Conversation>, StoreError> {
    const WHAT: &str = "read a conversation";
    let mut select = QueryBuilder::new(format!(
        "SELECT {COLUMNS}, {ROUTING_COLUMNS} FROM conversations c {NUMBER_JOIN} WHERE c."
    ));
    push_scope(&mut select, scope);
    select.push(" AND c.conversation_id = ").push_bind(id.to_string());
    let row = select.build().fetch_optional(pool).await.map_err(failed(WHAT))?;
    row.map(|row| conversation(&row).map_err(unreadable(WHAT))).transpose()
}

/// Returns conversations of all accounts with an id greater than `after`, ordered by id. For the
/// command-line tools.
pub(crate) async fn after(
    pool: &Pool,
    after: Uuid,
    limit: u32,
) -> Result<Vec<Conversation>, StoreError> {
    const WHAT: &str = "read the conversations";
    let mut select = QueryBuilder::new(format!(
        "SELECT {COLUMNS}, {ROUTING_COLUMNS} FROM conversations c {NUMBER_JOIN} WHERE c.conversation_id > "
    ));
    select
        .push_bind(after.to_string())
        .push(" ORDER BY c.conversation_id LIMIT ")
        .push_bind(i64::from(limit));
    let rows = select.build().fetch_all(pool).await.map_err(failed(WHAT))?;
    rows.iter().map(|row| conversation(row).map_err(unreadable(WHAT))).collect()
}

/// Returns conversations of the scope that match the condition added by `narrow`, with an id
/// greater than `after`, ordered by id.
pub(crate) async fn of_scope(
    pool: &Pool,
    scope: &Scope,
    narrow: impl FnOnce(&mut QueryBuilder),
    after: Uuid,
    limit: u32,
) -> Result<Vec<Conversation>, StoreError> {
    const WHAT: &str = "read a user's conversations";
    let mut select = QueryBuilder::new(format!(
        "SELECT {COLUMNS}, {ROUTING_COLUMNS} FROM conversations c {NUMBER_JOIN} WHERE "
    ));
    push_list_scope(&mut select, scope);
    narrow(&mut select);
    select.push(" AND c.conversation_id > ").push_bind(after.to_string());
    select.push(" ORDER BY c.conversation_id LIMIT ").push_bind(i64::from(limit));
    let rows = select.build().fetch_all(pool).await.map_err(failed(WHAT))?;
    rows.iter().map(|row| conversation(row).map_err(unreadable(WHAT))).collect()
}

/// Restricts a query of conversations `c` to the scope. For a subaccount, it adds the condition of
/// the indexes that hold only rows of subaccounts.
pub(crate) fn push_list_scope(query: &mut QueryBuilder, scope: &Scope) {
    query.push("c.");
    push_scope(query, scope);
    if matches!(scope, Scope::Sub(_)) {
        query.push(" AND c.auth_id <> c.main_auth_id");
    }
}

/// Builds the query that counts unread conversations up to `limit`, with `words` in front of it.
pub(crate) fn unread_query(words: &str, scope: &Scope, limit: u32) -> QueryBuilder {
    let mut count = QueryBuilder::new(format!(
        "{words}SELECT count(*) FROM (SELECT 1 AS one FROM conversations c WHERE c.unread > 0 AND "
    ));
    push_list_scope(&mut count, scope);
    // The order selects the index of unread conversations.
    count.push(" ORDER BY c.last_us LIMIT ").push_bind(i64::from(limit)).push(") AS few");
    count
}

/// Builds the query that counts open conversations by number, with `words` in front of it.
/// `numbers` must not be empty.
pub(crate) fn open_query(words: &str, scope: &Scope, numbers: &[E164]) -> QueryBuilder {
    let mut select =
        QueryBuilder::new(format!("{words}SELECT number, count(*) FROM conversations c WHERE "));
    push_list_scope(&mut select, scope);
    select.push(" AND status = 'open' AND number").push_in(numbers.iter().map(E164::as_str));
    select.push(" GROUP BY number");
    select
}

/// Counts the scope's open conversations by business number. Numbers without any are left out.
pub(crate) async fn count_open(
    pool: &Pool,
    scope: &Scope,
    numbers: &[E164],
) -> Result<BTreeMap<E164, u64>, StoreError> {
    const WHAT: &str = "count open conversations";
    if numbers.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut select = open_query("", scope, numbers);
    let rows: Vec<(String, i64)> =
        select.build_query_as().fetch_all(pool).await.map_err(failed(WHAT))?;
    let counted =
        rows.into_iter().filter_map(|(number, count)| Some((E164::parse(&number).ok()?, count)));
    Ok(counted.map(|(number, count)| (number, u64::try_from(count).unwrap_or_default())).collect())
}

pub(crate) fn conversation(row: &Row) -> Result<Conversation, RowError> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let time = |column: &str| row.try_get::<i64, _>(column).map(Timestamp::from_micros);
    let id = text("conversation_id")?.parse()?;
    let insights = match row.try_get::<Option<String>, _>("sentiment")? {
        Some(sentiment) => Some(Insights {
            sentiment,
            score: row.try_get::<Option<f64>, _>("score")?.unwrap_or_default(),
            summary: row.try_get::<Option<String>, _>("summary")?.unwrap_or_default(),
            by: row.try_get::<Option<String>, _>("insights_by")?.unwrap_or_default(),
            at: Timestamp::from_micros(
                row.try_get::<Option<i64>, _>("insights_us")?.unwrap_or_default(),
            ),
        }),
        None => None,
    };
    let last_inbound = time("heard_us")?;
    // The person may have been deleted by a node of an older version.
    let assignee = match row.try_get::<Option<String>, _>("assignee_name")? {
        Some(name) => Some(Assignee {
            id: text("assignee")?.parse()?,
            name,
            full_name: text("assignee_full_name")?,
        }),
        None => None,
    };
    let last = row.try_get::<Option<String>, _>("last_kind_and_sender")?;
    let (kind, sender) = last.as_deref().and_then(|last| last.split_once(' ')).unzip();
    Ok(Conversation {
        pair: pair(id, row)?,
        status: ConversationStatus::parse(&text("status")?).ok_or("unknown status")?,
        standing: routing_state(row)?,
        unread: u64::try_from(row.try_get::<i64, _>("unread")?).unwrap_or_default(),
        last: LastMessage {
            text: text("last_text")?,
            kind: kind.map(str::to_owned),
            sender: sender.filter(|sender| !sender.is_empty()).map(str::to_owned),
            direction: direction(&text("last_direction")?),
            at: time("last_us")?,
        },
        last_inbound: (last_inbound.micros() > 0).then_some(last_inbound),
        insights,
        assignee,
        labels: text("labels")?.split(' ').filter_map(|id| id.parse().ok()).collect(),
        created: time("created_us")?,
    })
}

/// Binds the first eleven values of an `INSERT` of a conversation: account, number, user and
/// routing.
pub(crate) fn bind_conversation(text: &'static str, pair: &Pair, routing: Routing) -> Query<Row> {
    sql::query(text)
        .bind(pair.conversation.to_string())
        .bind(pair.account.as_str())
        .bind(pair.main_account.as_str())
        .bind(pair.number.as_str())
        .bind(pair.phone_number_id.as_str())
        .bind(&pair.user.id)
        .bind(&pair.user.bsuid)
        .bind(&pair.user.name)
        .bind(routing.as_str())
        .bind(routing.webhook().map(|id| id.to_string()))
        .bind(routing.agent().map(|id| id.to_string()))
}

/// The upsert of the conversation of a new message.
pub(crate) fn upsert_for(entry: &TimelineEntry) -> Query<Row> {
    // The number's stored routing is read in the same statement, because the routing in memory may
    // be outdated. It counts only for the number's owner.
    let upsert = "INSERT INTO conversations (conversation_id, auth_id, main_auth_id, number, phone_number_id, user_id, \
        bsuid, name, status, routing, webhook, agent, unread, last_text, last_direction, last_us, heard_us, created_us, \
        generation, name_lower, last_lower) \
        SELECT $1, $2, $3, $4, $5, $6, $7, $8, 'open', coalesce(r.routing, $9), \
        CASE WHEN r.routing IS NULL THEN $10 ELSE r.webhook END, CASE WHEN r.routing IS NULL THEN $11 ELSE r.agent END, \
        $12, $13, $14, $15, $16, $15, coalesce(n.generation, 0), $17, $18 \
        FROM (SELECT 1 AS one) o LEFT JOIN number_tenures n ON n.phone_number_id = $5 \
        LEFT JOIN number_routing r ON r.phone_number_id = $5 AND coalesce(n.owner, $2) = $2 WHERE o.one = 1 \
        ON CONFLICT (conversation_id) DO UPDATE SET \
        name = CASE WHEN excluded.name <> '' THEN excluded.name ELSE conversations.name END, \
        name_lower = CASE WHEN excluded.name <> '' THEN excluded.name_lower ELSE conversations.name_lower END, \
        last_lower = excluded.last_lower, unread = conversations.unread + excluded.unread, \
        last_text = excluded.last_text, last_direction = excluded.last_direction, \
        last_us = CASE WHEN excluded.last_us > conversations.last_us THEN excluded.last_us ELSE conversations.last_us END, \
        heard_us = CASE WHEN excluded.heard_us > conversations.heard_us THEN excluded.heard_us ELSE conversations.heard_us END \
        RETURNING routing, webhook, agent, epoch, ai_enabled, unread, generation, main_auth_id, number, bsuid, status, \
        (SELECT t.owner FROM number_tenures t WHERE t.phone_number_id = conversations.phone_number_id) AS held_owner, \
        (SELECT t.generation FROM number_tenures t WHERE t.phone_number_id = conversations.phone_number_id) AS held_generation, \
        (SELECT t.routing FROM number_tenures t WHERE t.phone_number_id = conversations.phone_number_id) AS held_routing, \
        (SELECT t.webhook FROM number_tenures t WHERE t.phone_number_id = conversations.phone_number_id) AS held_webhook, \
        (SELECT t.agent FROM number_tenures t WHERE t.phone_number_id = conversations.phone_number_id) AS held_agent";
    let TimelineEntry { pair, message, inbound_at, counts, routing, .. } = entry;
    bind_conversation(upsert, pair, *routing)
        .bind(i64::from(*counts))
        .bind(&message.text)
        .bind(message.direction.as_str())
        .bind(message.at.micros())
        .bind(inbound_at.map_or(0, Timestamp::micros))
        .bind(pair.user.name.to_lowercase())
        .bind(message.text.to_lowercase())
}

/// Finishes the upsert of a conversation. Returns its routing state and its number of unread
/// messages.
pub(crate) async fn finish_upsert(
    to: &mut Conn,
    entry: &TimelineEntry,
    row: &Row,
) -> Result<(RoutingState, u64), sqlx::Error> {
    update_rare_columns(to, entry, row).await?;
    let pair = &entry.pair;
    let mut standing = routing_state(row)?;
    match numbers::number_row(row)? {
        None => numbers::insert_owner(to, pair).await?,
        Some(held) => {
            standing.epoch += u64::try_from(held.generation).unwrap_or_default();
            if held.generation > row.try_get::<i64, _>("generation")? {
                standing.routing = held.routing;
            }
            if !held.owner.is_empty() && held.owner != pair.account.as_str() {
                standing.routing = Routing::None;
            }
        }
    }
    Ok((standing, u64::try_from(row.try_get::<i64, _>("unread")?).unwrap_or_default()))
}

/// Updates columns of a conversation that rarely change. They are not part of the upsert for each
/// message, because an update writes every index that contains one of its columns, even if the
/// value stays the same.
pub(crate) async fn update_rare_columns(
    to: &mut Conn,
    entry: &TimelineEntry,
    row: &Row,
) -> Result<(), sqlx::Error> {
    let TimelineEntry { pair, counts, .. } = entry;
    let text = |column: &str| row.try_get::<String, _>(column);
    let bsuid: Option<String> = row.try_get("bsuid")?;
    if text("main_auth_id")? == pair.main_account.as_str()
        && text("number")? == pair.number.as_str()
        && (pair.user.bsuid.is_none() || pair.user.bsuid == bsuid)
        && (!counts || text("status")? == ConversationStatus::Open.as_str())
    {
        return Ok(());
    }
    let update = "UPDATE conversations SET main_auth_id = $2, number = $3, bsuid = coalesce($4, bsuid), \
        status = CASE WHEN $5 > 0 THEN 'open' ELSE status END WHERE conversation_id = $1";
    let update =
        sql::query(update).bind(pair.conversation.to_string()).bind(pair.main_account.as_str());
    let update = update.bind(pair.number.as_str()).bind(&pair.user.bsuid).bind(i64::from(*counts));
    update.execute(to).await.map(drop)
}

pub(crate) async fn change(
    to: &mut Conn,
    scope: &Scope,
    conversation: Uuid,
    change: &ConversationChange,
) -> Result<bool, sqlx::Error> {
    let mut update =
        QueryBuilder::new("UPDATE conversations SET conversation_id = conversation_id");
    if let Some(status) = change.status {
        update.push(", status = ").push_bind(status.as_str());
    }
    if let Some(on) = change.ai_enabled {
        update.push(", ai_enabled = ").push_bind(i64::from(on));
    }
    if change.read {
        update.push(", unread = 0");
    }
    if let Some(routing) = change.routing {
        push_routing(&mut update, routing);
    }
    // The new epoch stops an AI agent's reply in progress after a person took over or the agent
    // changed.
    if change.routing.is_some() || change.ai_enabled == Some(false) {
        update.push(", epoch = epoch + 1");
    }
    if let Some(insights) = &change.insights {
        update
            .push(", sentiment = ")
            .push_bind(&insights.sentiment)
            .push(", score = ")
            .push_bind(insights.score);
        update
            .push(", summary = ")
            .push_bind(&insights.summary)
            .push(", insights_by = ")
            .push_bind(&insights.by);
        update.push(", insights_us = ").push_bind(insights.at.micros());
    }
    if let Some(assignee) = change.assignee {
        // Null if the person was deleted at the same time.
        update.push(", assignee = (SELECT user_id FROM users WHERE user_id = ");
        update.push_bind(assignee.map(|id| id.to_string())).push(")");
    }
    if let Some(labels) = &change.labels {
        push_labels(&mut update, labels);
    }
    update.push(" WHERE ");
    push_scope(&mut update, scope);
    update.push(" AND conversation_id = ").push_bind(conversation.to_string());
    // If two people close a conversation at the same time, only one of them succeeds.
    if let Some(next) = change.status {
        let before = ConversationStatus::ALL.into_iter().filter(|from| from.can_become(next));
        update.push(" AND status").push_in(before.map(ConversationStatus::as_str));
    }
    if let Some(LabelChange::Adjust { add, remove }) = &change.labels
        && !add.is_empty()
    {
        push_has_room(&mut update, add, remove);
    }
    Ok(update.build().execute(to).await?.rows_affected() > 0)
}

fn push_labels(update: &mut QueryBuilder, change: &LabelChange) {
    let text = |ids: &[Uuid]| ids.iter().map(Uuid::to_string).collect::<Vec<_>>().join(" ");
    match change {
        LabelChange::Set(labels) => {
            update.push(", labels = ").push_bind(text(labels));
        }
        LabelChange::Adjust { add, remove } => {
            // Labels to be added are removed first, so that none is in the list twice.
            let gone = || remove.iter().chain(add);
            update.push(", labels = trim(").push("replace(".repeat(gone().count()));
            update.push("' ' || labels || ' '");
            for id in gone() {
                update.push(", ").push_bind(format!(" {id} ")).push(", ' ')");
            }
            update.push(" || ").push_bind(text(add)).push(")");
        }
    }
}

/// Adds the condition that a conversation has at most [`LABELS_MAX`] labels after a change. The column
/// may name labels that were deleted, which do not count.
fn push_has_room(update: &mut QueryBuilder, add: &[Uuid], remove: &[Uuid]) {
    update.push(
        " AND (SELECT count(*) FROM presets p WHERE p.kind = 'label' AND p.auth_id = conversations.auth_id \
         AND conversations.labels LIKE '%' || p.preset_id || '%' AND NOT p.preset_id",
    );
    update.push_in(add.iter().chain(remove).map(Uuid::to_string));
    let room = i64::from(LABELS_MAX) - i64::try_from(add.len()).unwrap_or(i64::MAX);
    update.push(") <= ").push_bind(room);
}

pub(crate) fn push_routing(update: &mut QueryBuilder, routing: Routing) {
    update.push(", routing = ").push_bind(routing.as_str());
    update.push(", webhook = ").push_bind(routing.webhook().map(|id| id.to_string()));
    update.push(", agent = ").push_bind(routing.agent().map(|id| id.to_string()));
    update.push(", generation = ").push(CURRENT_GENERATION);
}

pub(crate) async fn open(
    to: &mut Conn,
    pair: &Pair,
    routing: Routing,
    at: Timestamp,
) -> Result<InboxResult, sqlx::Error> {
    numbers::insert_owner(to, pair).await?;
    let put = "INSERT INTO conversations (conversation_id, auth_id, main_auth_id, number, phone_number_id, user_id, bsuid, \
        name, status, routing, webhook, agent, last_text, last_direction, last_us, created_us, generation) \
        SELECT $1, $2, $3, $4, $5, $6, $7, $8, 'open', $9, $10, $11, '', 'inbound', $12, $12, generation \
        FROM number_tenures WHERE phone_number_id = $5 \
        ON CONFLICT (conversation_id) DO UPDATE SET routing = excluded.routing, webhook = excluded.webhook, \
        agent = excluded.agent, generation = excluded.generation, epoch = conversations.epoch + 1";
    bind_conversation(put, pair, routing).bind(at.micros()).execute(to).await?;
    Ok(InboxResult::Done(true, Vec::new()))
}

pub(crate) async fn delete(
    to: &mut Conn,
    scope: &Scope,
    conversation: Uuid,
) -> Result<InboxResult, sqlx::Error> {
    let mut delete = QueryBuilder::new("DELETE FROM conversations WHERE ");
    push_scope(&mut delete, scope);
    delete.push(" AND conversation_id = ").push_bind(conversation.to_string());
    let done = delete.build().execute(&mut *to).await?.rows_affected() > 0;
    if done {
        let messages = sql::query("DELETE FROM messages WHERE conversation_id = $1")
            .bind(conversation.to_string());
        messages.execute(&mut *to).await?;
        // They quote messages.
        let mut notices = QueryBuilder::new("DELETE FROM notices WHERE ");
        push_scope(&mut notices, scope);
        notices.push(" AND conversation_id = ").push_bind(conversation.to_string());
        notices.build().execute(&mut *to).await?;
        let turns = sql::query("DELETE FROM turns WHERE conversation_id = $1")
            .bind(conversation.to_string());
        turns.execute(&mut *to).await?;
        responses::delete_of_conversation(to, conversation, Timestamp::MAX).await?;
        // Undelivered events about a deleted conversation are not sent.
        let callbacks =
            sql::query("DELETE FROM callbacks WHERE call_uuid = $1 AND event IS NOT NULL");
        callbacks.bind(conversation.to_string()).execute(to).await?;
    }
    Ok(InboxResult::Done(done, Vec::new()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::tables::presets::{Preset, PresetKind};
    use crate::tests::MAIN;
    use crate::writer::batch::tests::came;
    use model::Health;

    #[tokio::test]
    async fn labels_that_two_people_add_at_once_stay_within_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        store.messages().receive(came(1, 1)).unwrap().await.unwrap();
        let (scope, id) = (Scope::of(MAIN.into()), Uuid::from_u128(1_001));
        for n in 1..=12 {
            let preset = Preset {
                id: Uuid::from_u128(n),
                account: MAIN.into(),
                main_account: MAIN.into(),
                kind: PresetKind::Label,
                name: format!("label {n}"),
                content: "red".to_owned(),
            };
            assert!(store.presets().create(preset).await.unwrap());
        }
        let ids = |range: std::ops::RangeInclusive<u128>| range.map(Uuid::from_u128).collect();
        let adjust = async |add: Vec<Uuid>, remove: Vec<Uuid>| {
            let labels = Some(LabelChange::Adjust { add, remove });
            let change = ConversationChange { labels, ..ConversationChange::default() };
            store.conversations().change(&scope, id, change, Vec::new()).await.unwrap().0
        };
        assert!(adjust(ids(1..=6), vec![]).await);
        assert!(!adjust(ids(7..=11), vec![]).await, "eleven");
        assert!(adjust(ids(6..=10), vec![]).await, "one of them it has");
        assert!(adjust(ids(11..=11), ids(1..=1)).await, "instead of another one");
        assert!(!adjust(ids(12..=12), vec![]).await);
        assert!(store.presets().delete(Uuid::from_u128(2)).await.unwrap());
        assert!(adjust(ids(12..=12), vec![]).await, "a deleted label does not count");
        assert!(adjust(vec![], ids(3..=4)).await);
        let found = store.conversations().get(&scope, id).await.unwrap().unwrap();
        assert_eq!(found.labels.len(), 9, "with the deleted one: {:?}", found.labels);
        store.close().await;
    }
}
