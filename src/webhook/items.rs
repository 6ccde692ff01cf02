//! What a webhook's body says, item by item.

use super::kind::Kind;
use crate::admission::permission::Reply;
use crate::inbox::{StatusTold, UserMessage};
use crate::numbers::MetaEvent;
use machine::{PhoneStatus, Termination};
use model::{CallUuid, Direction, E164, PhoneNumberId, Wacid};

/// What tells one call from another: Meta's id, at one number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallKey {
    pub phone_number_id: PhoneNumberId,
    pub wacid: Wacid,
}

/// One thing a body says.
#[derive(Clone, Debug)]
pub struct Item {
    pub kind: Kind,
    /// Call or message id, where there is a usable one.
    pub id: Option<String>,
    pub what: What,
}

impl Item {
    pub(super) fn malformed(kind: Kind) -> Self {
        Self { kind, id: None, what: What::Malformed }
    }
    pub(super) fn ignored(kind: Kind) -> Self {
        Self { kind, id: None, what: What::Ignored }
    }
}

/// What an item wants.
#[derive(Clone, Debug)]
pub enum What {
    Connect(Box<Connect>),
    Terminate {
        key: CallKey,
        /// The call of ours that its opaque data name.
        named: Option<CallUuid>,
        termination: Termination,
    },
    /// How far a business-initiated call is.
    Status {
        key: CallKey,
        named: Option<CallUuid>,
        status: PhoneStatus,
    },
    Message {
        phone_number_id: PhoneNumberId,
        said: Box<UserMessage>,
    },
    /// A user's answer to a permission request.
    Permission(Box<PermissionReply>),
    MessageStatus {
        phone_number_id: PhoneNumberId,
        told: Box<StatusTold>,
    },
    /// A change of another field; the digest is of its members in sorted order (§2.7).
    Change {
        digest: [u8; 32],
        /// What it says of numbers, where it does.
        heard: Option<Box<MetaEvent>>,
    },
    /// Of no kind that we know, or of one that wants nothing.
    Ignored,
    /// Of a kind that we know, and unusable.
    Malformed,
}

/// A `call_permission_reply` (`meta-calling.md` §6.2).
#[derive(Clone)]
pub struct PermissionReply {
    pub phone_number_id: PhoneNumberId,
    pub id: String,
    /// Digits, else the business-scoped id.
    pub user: String,
    /// By Meta's clock, in seconds; none: take the time of arrival.
    pub timestamp: Option<i64>,
    pub reply: Reply,
    /// The reply as a message of the conversation.
    pub said: UserMessage,
}

/// Without the user's number (R22).
impl std::fmt::Debug for PermissionReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PermissionReply({} {:?})", self.id, self.reply)
    }
}

/// A call begins, or is answered if the business began it.
#[derive(Clone)]
pub struct Connect {
    pub key: CallKey,
    pub direction: Direction,
    /// Seconds since the epoch by Meta's clock; none: take the time of arrival.
    pub timestamp: Option<i64>,
    /// Digits, as told: [`Connect::user`] knows better.
    pub from: Option<String>,
    pub to: Option<String>,
    /// `wa_id` of the user's contact, of the first one where none is the user's; digits.
    pub contact: Option<String>,
    /// The user's business-scoped id.
    pub bsuid: Option<String>,
    /// The user's profile name without control characters; may be empty.
    pub name: String,
    pub cta_payload: Option<String>,
    pub deeplink_payload: Option<String>,
    /// The call of ours that its opaque data name.
    pub named: Option<CallUuid>,
    pub sdp: Sdp,
}

/// The session description of a connect.
#[derive(Clone, PartialEq, Eq)]
pub enum Sdp {
    /// There, of the right type, not empty and within its bound.
    Given(String),
    /// There and unusable: `bad_offer`, or `answer_bad`.
    Bad,
}

impl Connect {
    /// The user as callbacks name them: digits, else the business-scoped id, else `anonymous` (§1.2, §3.2.2).
    pub fn user(&self, business: &E164) -> String {
        let (told, other) = match self.direction {
            Direction::Inbound => (&self.from, &self.to),
            Direction::Outbound => (&self.to, &self.from),
        };
        let user = |digits: &&String| **digits != business.as_str();
        // The other one only where the body has the two the wrong way round.
        let swapped =
            other.as_ref().filter(user).filter(|_| told.as_deref() == Some(business.as_str()));
        let told = told.as_ref().filter(user);
        let user = told.or(self.contact.as_ref()).or(swapped).or(self.bsuid.as_ref());
        user.cloned().unwrap_or_else(|| "anonymous".to_owned())
    }
}

/// Shows who and what to a log without numbers, names or SDP (R22).
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
