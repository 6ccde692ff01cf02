//! States of conversations and messages, and their ids
//! (docs/reference/rest.md#conversations).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The receiver of the messages that users send to a number or in a conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "to", content = "id", rename_all = "lowercase")]
pub enum Routing {
    /// The webhook with this id, if any, and the webhook URL of the number, if it has one.
    Webhook(Option<Uuid>),
    /// The AI agent with this id.
    Agent(Uuid),
    /// Messages are stored but not forwarded.
    #[default]
    None,
}

impl Routing {
    /// The name of the variant in the API and the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Agent(_) => "agent",
            Self::None => "none",
        }
    }

    /// Builds the routing from the store's three columns. An unknown name, or `agent` without an
    /// id, gives [`Routing::None`].
    pub fn from_columns(word: &str, webhook: Option<Uuid>, agent: Option<Uuid>) -> Self {
        match (word, agent) {
            ("webhook", _) => Self::Webhook(webhook),
            ("agent", Some(agent)) => Self::Agent(agent),
            _ => Self::None,
        }
    }

    /// Returns the id of the webhook, or `None` if this does not route to a webhook with an id.
    pub fn webhook(self) -> Option<Uuid> {
        match self {
            Self::Webhook(webhook) => webhook,
            Self::Agent(_) | Self::None => None,
        }
    }

    /// Returns the id of the AI agent, or `None` if this does not route to one.
    pub fn agent(self) -> Option<Uuid> {
        match self {
            Self::Agent(agent) => Some(agent),
            Self::Webhook(_) | Self::None => None,
        }
    }
}

/// The state of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConversationStatus {
    Open,
    Closed,
    Archived,
}

impl ConversationStatus {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Open, Self::Closed, Self::Archived];

    /// The state's name in the API and the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Archived => "archived",
        }
    }

    /// Returns the state with this name, or `None` if there is none.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// Whether a conversation may change to `next`: open → closed → archived, and from closed or
    /// archived back to open.
    pub fn can_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Open, Self::Closed)
                | (Self::Closed, Self::Archived)
                | (Self::Closed | Self::Archived, Self::Open)
        )
    }
}

/// The delivery state of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageStatus {
    /// Received from a user, or the entry of a call in the conversation.
    Received,
    /// The message was not yet accepted by Meta.
    Queued,
    Sent,
    Delivered,
    Read,
    Played,
    Failed,
    Deleted,
}

impl MessageStatus {
    /// All states.
    pub const ALL: [Self; 8] = [
        Self::Received,
        Self::Queued,
        Self::Sent,
        Self::Delivered,
        Self::Read,
        Self::Played,
        Self::Failed,
        Self::Deleted,
    ];

    /// The state's name in Meta's webhooks, the API and the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Read => "read",
            Self::Played => "played",
            Self::Failed => "failed",
            Self::Deleted => "deleted",
        }
    }

    /// Returns the state with this name, or `None` if there is none.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// The names of the states that this one may replace. Meta's status events can arrive out of
    /// order, so a state only moves forward, and `failed` replaces only `queued` and `sent`.
    pub fn predecessors(self) -> &'static [&'static str] {
        match self {
            Self::Received | Self::Queued => &[],
            Self::Sent => &["queued"],
            Self::Delivered => &["queued", "sent"],
            Self::Read => &["queued", "sent", "delivered"],
            Self::Played => &["queued", "sent", "delivered", "read"],
            Self::Failed => &["queued", "sent"],
            Self::Deleted => &["queued", "sent", "delivered", "read", "played", "received"],
        }
    }
}

/// Derives an id from the parts that identify an object: a name-based UUID (version 5, RFC 9562
/// §5.5). Every redelivery of a message gets the same id, and the id of the conversation between a
/// number and a user needs no look-up.
pub fn stable_id(kind: &str, parts: &[&str]) -> Uuid {
    let mut name = Vec::with_capacity(64);
    for part in std::iter::once(&kind).chain(parts) {
        name.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        name.extend_from_slice(part.as_bytes());
    }
    Uuid::new_v5(&STABLE_IDS, &name)
}

/// Namespace of [`stable_id`].
const STABLE_IDS: Uuid = Uuid::from_u128(0x6f66_6668_6f6f_4b2e_8e75_6d62_6572_7302);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_ids_depend_on_the_kind_and_every_part() {
        let id = stable_id("message", &["106", "wamid.1"]);
        assert_eq!(id, stable_id("message", &["106", "wamid.1"]));
        assert_ne!(id, stable_id("message", &["106w", "amid.1"]));
        assert_ne!(id, stable_id("conversation", &["106", "wamid.1"]));
        assert_eq!(id.get_version_num(), 5);
    }

    #[test]
    fn s3_20_only_legal_transitions_are_allowed() {
        use ConversationStatus as C;
        let legal = [
            (C::Open, C::Closed),
            (C::Closed, C::Archived),
            (C::Closed, C::Open),
            (C::Archived, C::Open),
        ];
        for from in C::ALL {
            for to in C::ALL {
                assert_eq!(from.can_become(to), legal.contains(&(from, to)), "{from:?} {to:?}");
            }
        }
        assert!(MessageStatus::Failed.predecessors().contains(&"sent"));
        assert!(!MessageStatus::Failed.predecessors().contains(&"delivered"));
        assert!(!MessageStatus::Sent.predecessors().contains(&"delivered"));
        for status in MessageStatus::ALL {
            assert_eq!(MessageStatus::parse(status.as_str()), Some(status));
        }
    }
}
