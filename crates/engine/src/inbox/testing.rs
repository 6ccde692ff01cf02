//! Values for tests.

use model::{Direction, E164, MessageStatus, Timestamp};
use serde_json::Value;
use store::{NewMessage, Pair, UserName};
use uuid::Uuid;

/// Returns a new conversation of a main account.
pub(crate) fn pair(account: &str) -> Pair {
    Pair {
        conversation: Uuid::new_v4(),
        account: account.into(),
        main_account: account.into(),
        number: E164::parse("918035737458").unwrap(),
        phone_number_id: "106".into(),
        user: UserName { id: "91".to_owned(), bsuid: None, name: String::new() },
    }
}

/// Returns a new, empty text message.
pub(crate) fn message(direction: Direction, status: MessageStatus) -> NewMessage {
    NewMessage {
        id: Uuid::new_v4(),
        wamid: None,
        direction,
        kind: "text".to_owned(),
        text: String::new(),
        content: Value::Null,
        status,
        sender: None,
        at: Timestamp::default(),
    }
}
