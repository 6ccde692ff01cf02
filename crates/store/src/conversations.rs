//! Conversations and their messages as they are read: lists by index, timelines, and what an answer to a message needs.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::calls::within;
use super::inbox::{Insights, NewMessage, Pair, Standing, pair};
use super::sql::{self, Pool, QueryBuilder, Row};
use super::tenures::{JOIN, STANDING, standing};
use super::{Scope, StoreError, Unread, failed};
use model::{ConversationStatus, Direction, E164, MessageStatus, Timestamp};

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

pub(super) const COLUMNS: &str = "c.conversation_id, c.auth_id, c.main_auth_id, c.number, c.phone_number_id, c.user_id, c.bsuid, c.name, \
    c.status, c.unread, c.last_text, c.last_direction, c.last_us, c.heard_us, c.sentiment, c.score, c.summary, \
    c.insights_by, c.insights_us, c.created_us";

/// One of a scope's.
pub(super) async fn one(
    pool: &Pool,
    scope: &Scope,
    id: Uuid,
) -> Result<Option<Conversation>, StoreError> {
    const WHAT: &str = "read a conversation";
    let mut select = QueryBuilder::new(format!(
        "SELECT {COLUMNS}, {STANDING} FROM conversations c {JOIN} WHERE c."
    ));
    within(&mut select, scope);
    select.push(" AND c.conversation_id = ").push_bind(id.to_string());
    let row = select.build().fetch_optional(pool).await.map_err(failed(WHAT))?;
    row.map(|row| conversation(&row).map_err(unreadable(WHAT))).transpose()
}

pub(super) const MESSAGE: &str = "m.message_id, m.conversation_id, m.wamid, m.direction, m.kind, m.body, m.content, m.status, \
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
pub(super) async fn message_of(
    pool: &Pool,
    id: Uuid,
) -> Result<Option<(Pair, Message)>, StoreError> {
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
pub(super) async fn after(
    pool: &Pool,
    after: Uuid,
    limit: u32,
) -> Result<Vec<Conversation>, StoreError> {
    const WHAT: &str = "read the conversations";
    let mut select = QueryBuilder::new(format!(
        "SELECT {COLUMNS}, {STANDING} FROM conversations c {JOIN} WHERE c.conversation_id > "
    ));
    select
        .push_bind(after.to_string())
        .push(" ORDER BY c.conversation_id LIMIT ")
        .push_bind(i64::from(limit));
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
    let mut select = QueryBuilder::new(format!(
        "SELECT {COLUMNS}, {STANDING} FROM conversations c {JOIN} WHERE "
    ));
    within(&mut select, scope);
    narrow(&mut select);
    select.push(" AND c.conversation_id > ").push_bind(after.to_string());
    select.push(" ORDER BY c.conversation_id LIMIT ").push_bind(i64::from(limit));
    let rows = select.build().fetch_all(pool).await.map_err(failed(WHAT))?;
    rows.iter().map(|row| conversation(row).map_err(unreadable(WHAT))).collect()
}

/// A message that another process had taken for sending when it ended.
#[derive(Clone, Debug, PartialEq)]
pub struct LeftMessage {
    pub pair: Pair,
    pub message: Message,
    /// Of an agent's.
    pub epoch: Option<u64>,
    /// Meta may have it.
    pub asked: bool,
}

/// A node's, the oldest first; those of an Offhook that noted nothing of them are anybody's.
pub(super) async fn left(
    pool: &Pool,
    node: &str,
    after: (i64, Uuid),
    limit: u32,
) -> Result<Vec<LeftMessage>, StoreError> {
    const WHAT: &str = "look for messages that were on their way";
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
    let read = |row: &Row| -> Result<LeftMessage, Unread> {
        let message = message(row)?;
        let noted = row.try_get::<Option<String>, _>("node_id")?.is_some();
        Ok(LeftMessage {
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

/// A user's messages until this one.
pub(super) async fn until(
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

/// Open conversations of each of these numbers of a scope's; of a number that is not among the answers there are none.
pub(super) async fn open_of(
    pool: &Pool,
    scope: &Scope,
    numbers: &[E164],
) -> Result<BTreeMap<E164, u64>, StoreError> {
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
    let rows: Vec<(String, i64)> =
        select.build_query_as().fetch_all(pool).await.map_err(failed(WHAT))?;
    let counted =
        rows.into_iter().filter_map(|(number, count)| Some((E164::parse(&number).ok()?, count)));
    Ok(counted.map(|(number, count)| (number, u64::try_from(count).unwrap_or_default())).collect())
}

pub(super) fn unreadable(what: &'static str) -> impl Fn(Unread) -> StoreError {
    move |e| StoreError::Unreadable { what, detail: e.to_string() }
}

fn direction(word: &str) -> Direction {
    if word == Direction::Inbound.as_str() { Direction::Inbound } else { Direction::Outbound }
}

pub(super) fn conversation(row: &Row) -> Result<Conversation, Unread> {
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
    let heard = time("heard_us")?;
    Ok(Conversation {
        pair: pair(id, row)?,
        status: ConversationStatus::parse(&text("status")?).ok_or("a status that nobody knows")?,
        standing: standing(row)?,
        unread: u64::try_from(row.try_get::<i64, _>("unread")?).unwrap_or_default(),
        last: Last {
            text: text("last_text")?,
            direction: direction(&text("last_direction")?),
            at: time("last_us")?,
        },
        heard: (heard.micros() > 0).then_some(heard),
        insights,
        created: time("created_us")?,
    })
}

pub(super) fn message(row: &Row) -> Result<Message, Unread> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let time = |column: &str| row.try_get::<i64, _>(column).map(Timestamp::from_micros);
    let error = match row.try_get::<Option<i64>, _>("error_code")? {
        Some(code) => {
            Some((code, row.try_get::<Option<String>, _>("error_text")?.unwrap_or_default()))
        }
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
