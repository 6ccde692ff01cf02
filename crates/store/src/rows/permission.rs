use serde::{Deserialize, Serialize};

use model::{PhoneNumberId, Timestamp};

/// A (business number, user), and what is kept of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionRow {
    pub number: PhoneNumberId,
    /// Digits, or a business-scoped id.
    pub user: String,
    /// The state's word, for people.
    pub state: String,
    /// JSON, as `admission::permission` reads it.
    pub pair: String,
    pub updated: Timestamp,
}

/// A user's reply to a request.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionReply {
    pub message: String,
    /// JSON.
    pub reply: String,
    /// Whether it changed the row.
    pub applied: bool,
}

/// Without the user's number (R22).
impl std::fmt::Debug for PermissionRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PermissionRow({} {})", self.number, self.state)
    }
}

/// Without the reply itself (R22).
impl std::fmt::Debug for PermissionReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PermissionReply({})", self.message)
    }
}

/// What a user allows, and the reply that it comes from, if one does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermissionWrite {
    pub row: PermissionRow,
    /// With one, somebody waits until it is on the disk.
    pub reply: Option<PermissionReply>,
}
