use serde::{Deserialize, Serialize};
use uuid::Uuid;

use model::{AuthId, ConversationStatus, Direction, E164, PhoneNumberId, Routing, Timestamp};

/// A conversation with the fields shown in lists.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversation {
    pub pair: Pair,
    pub status: ConversationStatus,
    pub standing: RoutingState,
    pub unread: u64,
    pub last: LastMessage,
    /// Time of the user's last message or call.
    pub last_inbound: Option<Timestamp>,
    pub insights: Option<Insights>,
    /// The person to whom it is assigned.
    pub assignee: Option<Assignee>,
    /// Ids of its labels. Some may be of deleted labels.
    pub labels: Vec<Uuid>,
    pub created: Timestamp,
}

/// A person of the console to whom a conversation is assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignee {
    pub id: Uuid,
    /// The sign-in name.
    pub name: String,
    /// The person's full name. May be empty.
    pub full_name: String,
}

/// The last message. `Debug` does not show its text.
#[derive(Clone, PartialEq, Eq)]
pub struct LastMessage {
    pub text: String,
    /// The message type, `call` for a call. `None` if a later message has taken its place.
    pub kind: Option<String>,
    /// Who wrote it, as in [`NewMessage::sender`](crate::NewMessage::sender).
    pub sender: Option<String>,
    pub direction: Direction,
    pub at: Timestamp,
}

impl std::fmt::Debug for LastMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LastMessage({:?} {})", self.direction, self.at)
    }
}

/// Selects conversations. A field that is `None` or empty does not restrict the result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConversationFilter {
    pub number: Option<E164>,
    pub status: Option<ConversationStatus>,
    pub unread: Option<bool>,
    pub agent: Option<Uuid>,
    pub assignee: Option<AssigneeFilter>,
    pub label: Option<Uuid>,
    /// Text to find in the user's number, their name or the last message.
    pub search: String,
    /// Only conversations after this one in the list.
    pub before: Option<(i64, Uuid)>,
}

/// Selects conversations by the person to whom they are assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssigneeFilter {
    Person(Uuid),
    Unassigned,
}

/// A business number and a user, who have one conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    pub conversation: Uuid,
    pub account: AuthId,
    pub main_account: AuthId,
    pub number: E164,
    pub phone_number_id: PhoneNumberId,
    pub user: UserName,
}

/// A user. `Debug` shows none of the fields.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserName {
    /// Digits of the phone number, or the business-scoped user id.
    pub id: String,
    pub bsuid: Option<String>,
    /// WhatsApp profile name. May be empty.
    pub name: String,
}

impl UserName {
    /// Returns the user's JSON in events and API resources: digits and business-scoped id if they
    /// are known, and the name.
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

/// The routing state of a conversation as read in the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutingState {
    pub routing: Routing,
    pub epoch: u64,
    pub ai_enabled: bool,
}

impl RoutingState {
    /// Returns the AI agent that answers the conversation, or `None` if its epoch is no longer
    /// `epoch`.
    pub fn answers(&self, epoch: u64) -> Option<Uuid> {
        self.routing.agent().filter(|_| self.ai_enabled && self.epoch == epoch)
    }
}

/// Changes of a conversation. `None` leaves a field unchanged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConversationChange {
    pub status: Option<ConversationStatus>,
    pub ai_enabled: Option<bool>,
    /// The new routing. Setting it increments the conversation's epoch.
    pub routing: Option<Routing>,
    /// Marks all messages as read.
    pub read: bool,
    pub insights: Option<Insights>,
    /// The person to assign the conversation to. `Some(None)` removes the
    /// assignee.
    pub assignee: Option<Option<Uuid>>,
    pub labels: Option<LabelChange>,
}

/// Maximum number of labels of a conversation.
pub const LABELS_MAX: u8 = 10;

/// A change of a conversation's labels.
#[derive(Clone, Debug, PartialEq)]
pub enum LabelChange {
    /// The labels that the conversation has from now on.
    Set(Vec<Uuid>),
    /// Labels to add and to remove. The others stay, including those that somebody else changes at
    /// the same time.
    Adjust { add: Vec<Uuid>, remove: Vec<Uuid> },
}

/// An analysis of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Insights {
    pub sentiment: String,
    pub score: f64,
    pub summary: String,
    /// Name of the language model, or `local`.
    pub by: String,
    pub at: Timestamp,
}
