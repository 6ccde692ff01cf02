//! The items of a webhook body.

use super::kind::Kind;
use crate::admission::permission::Reply;
use crate::call::binding::CallKey;
use crate::inbox::{ReceivedStatus, UserMessage};
use crate::numbers::MetaEvent;
use machine::{PhoneStatus, Termination};
use model::{CallUuid, Direction, E164, PhoneNumberId};

/// One item of a body.
#[derive(Clone, Debug)]
pub struct Item {
    pub kind: Kind,
    /// The id of the call or message, if it is usable.
    pub id: Option<String>,
    pub content: Content,
}

impl Item {
    pub(super) fn malformed(kind: Kind) -> Self {
        Self { kind, id: None, content: Content::Malformed }
    }

    pub(super) fn ignored(kind: Kind) -> Self {
        Self { kind, id: None, content: Content::Ignored }
    }
}

/// The content of an item.
#[derive(Clone, Debug)]
pub enum Content {
    Connect(Box<Connect>),
    Terminate {
        key: CallKey,
        /// The call of this node in the opaque data.
        named: Option<CallUuid>,
        termination: Termination,
    },
    /// The status of the user's phone in a business-initiated call.
    Status {
        key: CallKey,
        named: Option<CallUuid>,
        status: PhoneStatus,
    },
    Message {
        phone_number_id: PhoneNumberId,
        message: Box<UserMessage>,
    },
    /// A user's reply to a permission request.
    Permission(Box<PermissionReply>),
    MessageStatus {
        phone_number_id: PhoneNumberId,
        status: Box<ReceivedStatus>,
    },
    /// A change of another field. The digest is computed over its members in sorted order
    /// (`docs/reference/meta.md#duplicates`).
    Change {
        digest: [u8; 32],
        /// Account news in the change, if any.
        event: Option<Box<MetaEvent>>,
    },
    /// The item is of an unknown kind, or has no effect.
    Ignored,
    /// The item is of a known kind but unusable.
    Malformed,
}

impl Content {
    /// Whether it belongs to a conversation rather than to a call or an account.
    pub(super) fn is_of_conversation(&self) -> bool {
        matches!(self, Self::Message { .. } | Self::Permission(_) | Self::MessageStatus { .. })
    }
}

/// A `call_permission_reply` (`docs/reference/meta.md#permission-replies`).
#[derive(Clone)]
pub struct PermissionReply {
    pub phone_number_id: PhoneNumberId,
    pub id: String,
    /// The user's digits, or the business-scoped id.
    pub user: String,
    /// Unix time in seconds by Meta's clock. `None` means the time of arrival.
    pub timestamp: Option<i64>,
    pub reply: Reply,
    /// The reply as a message of the conversation.
    pub message: UserMessage,
}

/// Redacts the user's number.
impl std::fmt::Debug for PermissionReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PermissionReply({} {:?})", self.id, self.reply)
    }
}

/// A user-initiated call begins, or a business-initiated call is answered.
#[derive(Clone)]
pub struct Connect {
    pub key: CallKey,
    pub direction: Direction,
    /// Unix time in seconds by Meta's clock. `None` means the time of arrival.
    pub timestamp: Option<i64>,
    /// The user's digits as sent by Meta. Prefer [`Connect::user`].
    pub from: Option<String>,
    pub to: Option<String>,
    /// `wa_id` of the user's contact as digits.
    pub contact: Option<String>,
    /// The user's business-scoped id.
    pub bsuid: Option<String>,
    /// The user's profile name without control characters. May be empty.
    pub name: String,
    pub cta_payload: Option<String>,
    pub deeplink_payload: Option<String>,
    /// The call of this node in the opaque data.
    pub named: Option<CallUuid>,
    pub sdp: Sdp,
}

/// The session description of a connect.
#[derive(Clone, PartialEq, Eq)]
pub enum Sdp {
    /// A session description that is present, of the right type, not empty and within the size
    /// limit.
    Given(String),
    /// A session description that is present but unusable.
    Bad,
}

impl Connect {
    /// Returns the user's id as in callbacks: digits, else the business-scoped id, else `anonymous`
    /// (`docs/reference/meta.md#connect-parties`).
    pub fn user(&self, business: &E164) -> String {
        let (stated, other) = match self.direction {
            Direction::Inbound => (&self.from, &self.to),
            Direction::Outbound => (&self.to, &self.from),
        };
        let user = |digits: &&String| **digits != business.as_str();
        // Only if the body has both numbers swapped.
        let swapped =
            other.as_ref().filter(user).filter(|_| stated.as_deref() == Some(business.as_str()));
        let stated = stated.as_ref().filter(user);
        let user = stated.or(self.contact.as_ref()).or(swapped).or(self.bsuid.as_ref());
        user.cloned().unwrap_or_else(|| "anonymous".to_owned())
    }
}

/// Redacts numbers, names and the SDP.
impl std::fmt::Debug for Connect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connect({:?} {:?} at {:?})", self.direction, self.key, self.timestamp)
    }
}

impl std::fmt::Debug for Sdp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Given(text) => write!(f, "Given({} bytes)", text.len()),
            Self::Bad => f.write_str("Bad"),
        }
    }
}
