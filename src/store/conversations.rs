//! Conversations and their messages as they are read: lists by index, timelines, and what an answer to a message needs.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::calls::within;
use super::inbox::{Insights, NewMessage, Pair, Standing, pair, standing};
use super::sql::{self, Pool, QueryBuilder, Row};
use super::{Scope, StoreError, Unread, failed};
use crate::model::{ConversationStatus, Direction, E164, MessageStatus, Timestamp, digits_of};

/// A conversation, with what a list shows of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversation {
    pub pair: Pair,
    pub status: ConversationStatus,
    pub standing: Standing,
    pub unread: u64,
    pub last: Last,
    /// When the user last wrote or called.
    pub heard: Option<Timestamp>,
    pub insights: Option<Insights>,
    pub created: Timestamp,
}

/// The last message. Its `Debug` does not show it (R22).
#[derive(Clone, PartialEq, Eq)]
pub struct Last {
    pub text: String,
    pub direction: Direction,
    pub at: Timestamp,
}

impl std::fmt::Debug for Last {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Last({:?} {})", self.direction, self.at)
    }
}

/// A message of a timeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub message: NewMessage,
    pub conversation: Uuid,
    pub error: Option<(i64, String)>,
    pub changed: Timestamp,
}

/// Which conversations; what is `None` or empty asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConversationFilter {
    pub number: Option<E164>,
    pub status: Option<ConversationStatus>,
    pub unread: Option<bool>,
    pub agent: Option<Uuid>,
    /// In the user's number, name, or the last message.
    pub search: String,
    /// Behind this one.
    pub before: Option<(i64, Uuid)>,
}

const COLUMNS: &str = "conversation_id, auth_id, main_auth_id, number, phone_number_id, user_id, bsuid, name, status, \
    routing, webhook, agent, epoch, ai_enabled, unread, last_text, last_direction, last_us, heard_us, sentiment, score, \
    summary, insights_by, insights_us, created_us";

/// A scope's, the latest first.
pub(super) async fn list(
    pool: &Pool,
    scope: &Scope,
    filter: &ConversationFilter,
    limit: u32,
) -> Result<Vec<Conversation>, StoreError> {
    const WHAT: &str = "list conversations";
    let mut select = listing("", scope, filter, limit);
    let rows = select.build().fetch_all(pool).await.map_err(failed(WHAT))?;
    rows.iter().map(|row| conversation(row).map_err(unreadable(WHAT))).collect()
}

/// The query of a list, behind these words.
fn listing(words: &str, scope: &Scope, filter: &ConversationFilter, limit: u32) -> QueryBuilder {
    let mut select = QueryBuilder::new(format!("{words}SELECT {COLUMNS} FROM conversations WHERE "));
    within(&mut select, scope);
    if let Some(number) = &filter.number {
        select.push(" AND number = ").push_bind(number.as_str());
    }
    match filter.status {
        // Most are open: by the index of all of them. Few are not: by their own.
        Some(ConversationStatus::Open) => {
            select.push(" AND status = 'open'");
        }
        Some(status) => {
            select.push(" AND status <> 'open' AND status = ").push_bind(status.as_str());
        }
        None => {}
    }
    match filter.unread {
        Some(true) => {
            select.push(" AND unread > 0");
        }
        Some(false) => {
            select.push(" AND unread = 0");
        }
        None => {}
    }
    if let Some(agent) = filter.agent {
        select.push(" AND agent IS NOT NULL AND agent = ").push_bind(agent.to_string());
    }
    let search = filter.search.trim();
    let digits = digits_of(search);
    if !search.is_empty() && digits.len() >= 5 && search.chars().all(|c| c.is_ascii_digit() || "+ -()".contains(c)) {
        // A number, or how it begins: by the index of users.
        // A letter is behind all digits, in whatever order a database has its texts.
        let end = format!("{digits}a");
        select.push(" AND user_id >= ").push_bind(digits).push(" AND user_id < ").push_bind(end);
    } else if !search.is_empty() {
        let like = like(search);
        select.push(" AND (lower(name) LIKE ").push_bind(like.clone()).push(" ESCAPE '\\' OR lower(last_text) LIKE ");
        select.push_bind(like.clone()).push(" ESCAPE '\\' OR user_id LIKE ").push_bind(like).push(" ESCAPE '\\')");
    }
    if let Some((at, id)) = filter.before {
        select.push(" AND (last_us, conversation_id) < (").push_bind(at).push(", ");
        select.push_bind(id.to_string()).push(")");
    }
    select.push(" ORDER BY last_us DESC, conversation_id DESC LIMIT ").push_bind(i64::from(limit));
    select
}

/// What is looked for, anywhere in a text.
fn like(search: &str) -> String {
    let mut like = String::from("%");
    for c in search.to_lowercase().chars() {
        if matches!(c, '%' | '_' | '\\') {
            like.push('\\');
        }
        like.push(c);
    }
    like.push('%');
    like
}

/// One of a scope's.
pub(super) async fn one(pool: &Pool, scope: &Scope, id: Uuid) -> Result<Option<Conversation>, StoreError> {
    const WHAT: &str = "read a conversation";
    let mut select = QueryBuilder::new(format!("SELECT {COLUMNS} FROM conversations WHERE "));
    within(&mut select, scope);
    select.push(" AND conversation_id = ").push_bind(id.to_string());
    let row = select.build().fetch_optional(pool).await.map_err(failed(WHAT))?;
    row.map(|row| conversation(&row).map_err(unreadable(WHAT))).transpose()
}

const MESSAGE: &str = "m.message_id, m.conversation_id, m.wamid, m.direction, m.kind, m.body, m.content, m.status, \
    m.error_code, m.error_text, m.sender, m.came_us, m.changed_us";

/// A conversation's messages behind `before`, the latest first.
pub(super) async fn messages(
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
    within(&mut select, scope);
    select.push(" AND m.conversation_id = ").push_bind(conversation.to_string());
    if let Some((at, id)) = before {
        select.push(" AND (m.came_us, m.message_id) < (").push_bind(at).push(", ");
        select.push_bind(id.to_string()).push(")");
    }
    select.push(" ORDER BY m.came_us DESC, m.message_id DESC LIMIT ").push_bind(i64::from(limit));
    let rows = select.build().fetch_all(pool).await.map_err(failed(WHAT))?;
    rows.iter().map(|row| message(row).map_err(unreadable(WHAT))).collect()
}

/// One message, whosever it is: for what is named by our own signature.
pub(super) async fn message_of(pool: &Pool, id: Uuid) -> Result<Option<(Pair, Message)>, StoreError> {
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

/// Everybody's conversations behind that one, in the order of their ids: for the owner of the machine.
pub(super) async fn after(pool: &Pool, after: Uuid, limit: u32) -> Result<Vec<Conversation>, StoreError> {
    const WHAT: &str = "read the conversations";
    let mut select = QueryBuilder::new(format!("SELECT {COLUMNS} FROM conversations WHERE conversation_id > "));
    select.push_bind(after.to_string()).push(" ORDER BY conversation_id LIMIT ").push_bind(i64::from(limit));
    let rows = select.build().fetch_all(pool).await.map_err(failed(WHAT))?;
    rows.iter().map(|row| conversation(row).map_err(unreadable(WHAT))).collect()
}

/// Some of a scope's behind that one, in the order of their ids.
pub(super) async fn of_scope(
    pool: &Pool,
    scope: &Scope,
    narrow: impl FnOnce(&mut QueryBuilder),
    after: Uuid,
    limit: u32,
) -> Result<Vec<Conversation>, StoreError> {
    const WHAT: &str = "read a person's conversations";
    let mut select = QueryBuilder::new(format!("SELECT {COLUMNS} FROM conversations WHERE "));
    within(&mut select, scope);
    narrow(&mut select);
    select.push(" AND conversation_id > ").push_bind(after.to_string());
    select.push(" ORDER BY conversation_id LIMIT ").push_bind(i64::from(limit));
    let rows = select.build().fetch_all(pool).await.map_err(failed(WHAT))?;
    rows.iter().map(|row| conversation(row).map_err(unreadable(WHAT))).collect()
}

/// Messages that were on their way to Meta when another process ended: ids, with their conversations.
pub(super) async fn under_way(pool: &Pool, limit: u32) -> Result<Vec<Uuid>, StoreError> {
    const WHAT: &str = "look for messages that were on their way";
    let select = "SELECT message_id FROM messages WHERE status = 'queued' AND wamid IS NULL LIMIT $1";
    let rows: Vec<String> =
        sql::query_scalar(select).bind(i64::from(limit)).fetch_all(pool).await.map_err(failed(WHAT))?;
    Ok(rows.iter().filter_map(|id| id.parse().ok()).collect())
}

/// Open conversations of each of these numbers of a scope's; of a number that is not among the answers there are none.
pub(super) async fn open_of(pool: &Pool, scope: &Scope, numbers: &[E164]) -> Result<BTreeMap<E164, u64>, StoreError> {
    const WHAT: &str = "count open conversations";
    let Some((first, rest)) = numbers.split_first() else { return Ok(BTreeMap::new()) };
    let mut select = QueryBuilder::new("SELECT number, count(*) FROM conversations WHERE ");
    within(&mut select, scope);
    // The word stands in the index: few rows are looked at, and none but in it.
    select.push(" AND status = 'open' AND number IN (").push_bind(first.as_str());
    for number in rest {
        select.push(", ").push_bind(number.as_str());
    }
    select.push(") GROUP BY number");
    let rows: Vec<(String, i64)> = select.build_query_as().fetch_all(pool).await.map_err(failed(WHAT))?;
    let counted = rows.into_iter().filter_map(|(number, count)| Some((E164::parse(&number).ok()?, count)));
    Ok(counted.map(|(number, count)| (number, u64::try_from(count).unwrap_or_default())).collect())
}

fn unreadable(what: &'static str) -> impl Fn(Unread) -> StoreError {
    move |e| StoreError::Unreadable { what, detail: e.to_string() }
}

fn direction(word: &str) -> Direction {
    if word == Direction::Inbound.as_str() { Direction::Inbound } else { Direction::Outbound }
}

fn conversation(row: &Row) -> Result<Conversation, Unread> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let time = |column: &str| row.try_get::<i64, _>(column).map(Timestamp::from_micros);
    let id = text("conversation_id")?.parse()?;
    let insights = match row.try_get::<Option<String>, _>("sentiment")? {
        Some(sentiment) => Some(Insights {
            sentiment,
            score: row.try_get::<Option<f64>, _>("score")?.unwrap_or_default(),
            summary: row.try_get::<Option<String>, _>("summary")?.unwrap_or_default(),
            by: row.try_get::<Option<String>, _>("insights_by")?.unwrap_or_default(),
            at: Timestamp::from_micros(row.try_get::<Option<i64>, _>("insights_us")?.unwrap_or_default()),
        }),
        None => None,
    };
    let heard = time("heard_us")?;
    Ok(Conversation {
        pair: pair(id, row)?,
        status: ConversationStatus::parse(&text("status")?).ok_or("a status that nobody knows")?,
        standing: standing(row)?,
        unread: u64::try_from(row.try_get::<i64, _>("unread")?).unwrap_or_default(),
        last: Last { text: text("last_text")?, direction: direction(&text("last_direction")?), at: time("last_us")? },
        heard: (heard.micros() > 0).then_some(heard),
        insights,
        created: time("created_us")?,
    })
}

fn message(row: &Row) -> Result<Message, Unread> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let time = |column: &str| row.try_get::<i64, _>(column).map(Timestamp::from_micros);
    let error = match row.try_get::<Option<i64>, _>("error_code")? {
        Some(code) => Some((code, row.try_get::<Option<String>, _>("error_text")?.unwrap_or_default())),
        None => None,
    };
    Ok(Message {
        message: NewMessage {
            id: text("message_id")?.parse()?,
            wamid: row.try_get("wamid")?,
            direction: direction(&text("direction")?),
            kind: text("kind")?,
            text: text("body")?,
            content: serde_json::from_str(&text("content")?).unwrap_or_default(),
            status: MessageStatus::parse(&text("status")?).ok_or("a status that nobody knows")?,
            sender: row.try_get("sender")?,
            at: time("came_us")?,
        },
        conversation: text("conversation_id")?.parse()?,
        error,
        changed: time("changed_us")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Health;
    use crate::store::Store;

    /// An index has the order of every list: however many there are, a page costs what a page holds.
    #[tokio::test]
    async fn no_list_of_conversations_is_sorted() {
        if crate::store::testing::skipped_on_postgres() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        let none = ConversationFilter::default;
        let before = Some((7, Uuid::from_u128(7)));
        let filters = [
            none(),
            ConversationFilter { before, ..none() },
            ConversationFilter { status: Some(ConversationStatus::Open), before, ..none() },
            ConversationFilter { status: Some(ConversationStatus::Archived), before, ..none() },
            ConversationFilter { unread: Some(true), before, ..none() },
            ConversationFilter { number: Some(E164::parse("918035737458").unwrap()), before, ..none() },
            ConversationFilter { agent: Some(Uuid::from_u128(1)), before, ..none() },
            ConversationFilter { search: "a word".to_owned(), ..none() },
        ];
        for scope in ["MA1", "SA1"].map(|id| Scope::of(id.into())) {
            for filter in &filters {
                let mut explain = listing("EXPLAIN QUERY PLAN ", &scope, filter, 50);
                let plan: Vec<String> = explain
                    .build()
                    .fetch_all(&store.read)
                    .await
                    .unwrap()
                    .iter()
                    .map(|row| row.try_get::<String, _>("detail").unwrap())
                    .collect();
                let plan = plan.join("; ");
                assert!(plan.contains("USING INDEX") && !plan.contains("TEMP B-TREE"), "{filter:?}: {plan}");
            }
        }
        store.close().await;
    }

    #[test]
    fn what_is_looked_for_is_no_pattern() {
        assert_eq!(like("50% O_K\\"), "%50\\% o\\_k\\\\%");
    }
}
