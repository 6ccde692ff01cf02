//! The words of conversations and messages (`number-api.md` §2, §4), and their ids.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Who gets what users write to a number, or in a conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "to", content = "id", rename_all = "lowercase")]
pub enum Routing {
    /// The webhook with this id, if one is named, and the number's webhook URL, if it has one.
    Webhook(Option<Uuid>),
    Agent(Uuid),
    /// It is kept, and nobody answers.
    #[default]
    None,
}

impl Routing {
    /// The word of the API and of the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Agent(_) => "agent",
            Self::None => "none",
        }
    }

    /// What the store's three columns say; what says nothing usable is nobody.
    pub fn of(word: &str, webhook: Option<Uuid>, agent: Option<Uuid>) -> Self {
        match (word, agent) {
            ("webhook", _) => Self::Webhook(webhook),
            ("agent", Some(agent)) => Self::Agent(agent),
            _ => Self::None,
        }
    }

    /// The webhook that it names.
    pub fn webhook(self) -> Option<Uuid> {
        match self {
            Self::Webhook(webhook) => webhook,
            Self::Agent(_) | Self::None => None,
        }
    }

    /// The agent that answers.
    pub fn agent(self) -> Option<Uuid> {
        match self {
            Self::Agent(agent) => Some(agent),
            Self::Webhook(_) | Self::None => None,
        }
    }
}

/// Where a conversation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConversationStatus {
    Open,
    Closed,
    Archived,
}

impl ConversationStatus {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Open, Self::Closed, Self::Archived];

    /// The word of the API and of the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Archived => "archived",
        }
    }

    /// By its word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// Whether it may become that one: open → closed → archived, and open from both (S3.20).
    pub fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Open, Self::Closed)
                | (Self::Closed, Self::Archived)
                | (Self::Closed | Self::Archived, Self::Open)
        )
    }
}

/// How far a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageStatus {
    /// A user's, or a call's line.
    Received,
    /// On its way to Meta.
    Queued,
    Sent,
    Delivered,
    Read,
    Played,
    Failed,
    Deleted,
}

impl MessageStatus {
    /// All of them.
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

    /// The word of Meta, the API and the store.
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

    /// By its word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// What it may follow upon, as words: statuses only move forward, and `failed` wins over queued and sent only
    /// (`meta-calling.md` §3.5).
    pub fn follows(self) -> &'static [&'static str] {
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

/// Derives an id from the parts that identify a thing, so that every copy of a message gets the same id, and the
/// conversation of a number and a user is known without a look-up. A name-based UUID (version 5, RFC 9562 §5.5).
pub fn stable_id(kind: &str, parts: &[&str]) -> Uuid {
    let mut name = Vec::with_capacity(64);
    for part in std::iter::once(&kind).chain(parts) {
        name.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        name.extend_from_slice(part.as_bytes());
    }
    Uuid::new_v5(&STABLE_IDS, &name)
}

/// The namespace of [`stable_id`].
const STABLE_IDS: Uuid = Uuid::from_u128(0x6f66_6668_6f6f_4b2e_8e75_6d62_6572_7302);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_stable_and_of_their_parts() {
        let id = stable_id("message", &["106", "wamid.1"]);
        assert_eq!(id, stable_id("message", &["106", "wamid.1"]));
        assert_ne!(id, stable_id("message", &["106w", "amid.1"]));
        assert_ne!(id, stable_id("conversation", &["106", "wamid.1"]));
        assert_eq!(id.get_version_num(), 5);
    }

    #[test]
    fn s3_20_states_and_statuses_only_go_where_they_may() {
        use ConversationStatus as C;
        let legal = [
            (C::Open, C::Closed),
            (C::Closed, C::Archived),
            (C::Closed, C::Open),
            (C::Archived, C::Open),
        ];
        for from in C::ALL {
            for to in C::ALL {
                assert_eq!(from.may_become(to), legal.contains(&(from, to)), "{from:?} {to:?}");
            }
        }
        assert!(MessageStatus::Failed.follows().contains(&"sent"));
        assert!(!MessageStatus::Failed.follows().contains(&"delivered"));
        assert!(!MessageStatus::Sent.follows().contains(&"delivered"));
        for status in MessageStatus::ALL {
            assert_eq!(MessageStatus::parse(status.as_str()), Some(status));
        }
    }
}
