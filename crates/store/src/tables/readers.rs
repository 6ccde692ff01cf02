use uuid::Uuid;

use crate::error::{RowError, StoreError};
use crate::rows::conversation::{Pair, UserName};
use crate::rows::message::{Message, NewMessage};
use crate::sql::Row;
use model::{Direction, E164, MessageStatus, Timestamp};

pub(crate) const MESSAGE: &str = "m.message_id, m.conversation_id, m.wamid, m.direction, m.kind, m.body, m.content, m.status, \
    m.error_code, m.error_text, m.sender, m.came_us, m.changed_us";

pub(crate) fn unreadable(what: &'static str) -> impl Fn(RowError) -> StoreError {
    move |e| StoreError::Unreadable { what, detail: e.to_string() }
}

pub(crate) fn direction(word: &str) -> Direction {
    if word == Direction::Inbound.as_str() { Direction::Inbound } else { Direction::Outbound }
}

pub(crate) fn message(row: &Row) -> Result<Message, RowError> {
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
            status: MessageStatus::parse(&text("status")?).ok_or("unknown status")?,
            sender: row.try_get("sender")?,
            at: time("came_us")?,
        },
        conversation: text("conversation_id")?.parse()?,
        error,
        changed: time("changed_us")?,
    })
}

/// Reads the account, number and user of a conversation.
pub(crate) fn pair(conversation: Uuid, row: &Row) -> Result<Pair, sqlx::Error> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let number = E164::parse(&text("number")?).map_err(|why| sqlx::Error::Decode(why.into()))?;
    Ok(Pair {
        conversation,
        account: text("auth_id")?.into(),
        main_account: text("main_auth_id")?.into(),
        number,
        phone_number_id: text("phone_number_id")?.into(),
        user: UserName { id: text("user_id")?, bsuid: row.try_get("bsuid")?, name: text("name")? },
    })
}
