use serde::{Deserialize, Serialize};
use uuid::Uuid;

use model::{AuthId, ConversationStatus, Direction, E164, PhoneNumberId, Routing, Timestamp};

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

/// Whose conversation: a business number and a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    pub conversation: Uuid,
    pub account: AuthId,
    pub main_account: AuthId,
    pub number: E164,
    pub phone_number_id: PhoneNumberId,
    pub user: UserName,
}

/// A user. Its `Debug` shows nothing of them (R22).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserName {
    /// Digits, or the business-scoped id.
    pub id: String,
    pub bsuid: Option<String>,
    /// The profile name; may be empty.
    pub name: String,
}

impl UserName {
    /// As events and resources show a user: digits and business-scoped id, as far as they are known, and the name.
    pub fn shown(&self) -> serde_json::Value {
        let digits = self.id.bytes().all(|b| b.is_ascii_digit());
        serde_json::json!({
            "waId": digits.then_some(&self.id),
            "userId": self.bsuid.as_ref().or((!digits).then_some(&self.id)),
            "name": self.name,
        })
    }
}

impl std::fmt::Debug for UserName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UserName(…)")
    }
}

/// Where a conversation stands, as the transaction found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub routing: Routing,
    pub epoch: u64,
    pub ai_enabled: bool,
}

impl Standing {
    /// The agent that answers, where nothing has changed since this epoch.
    pub fn answers(&self, epoch: u64) -> Option<Uuid> {
        self.routing.agent().filter(|_| self.ai_enabled && self.epoch == epoch)
    }
}

/// What is to change of a conversation; `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConversationChange {
    pub status: Option<ConversationStatus>,
    pub ai_enabled: Option<bool>,
    /// Raises the epoch too.
    pub routing: Option<Routing>,
    /// All is read.
    pub read: bool,
    pub insights: Option<Insights>,
}

/// What was made of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Insights {
    pub sentiment: String,
    pub score: f64,
    pub summary: String,
    /// The model's name, or `local`.
    pub by: String,
    pub at: Timestamp,
}
