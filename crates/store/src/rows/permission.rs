use serde::{Deserialize, Serialize};
use uuid::Uuid;

use model::{PhoneNumberId, Timestamp};

/// The calling permission of one user for one business number.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionRow {
    pub number: PhoneNumberId,
    /// Digits of the phone number, or a business-scoped user id.
    pub user: String,
    /// Name of the state, for people.
    pub state: String,
    /// JSON, as `admission::permission` reads it.
    pub pair: String,
    pub updated: Timestamp,
}

/// A user's reply to a permission request.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionReply {
    pub message: String,
    /// JSON of the reply.
    pub reply: String,
    /// Whether the reply changed the row.
    pub applied: bool,
}

/// Omits the user's number.
impl std::fmt::Debug for PermissionRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PermissionRow({} {})", self.number, self.state)
    }
}

/// Omits the content of the reply.
impl std::fmt::Debug for PermissionReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PermissionReply({})", self.message)
    }
}

/// A permission and the reply that changed it, if any.
pub struct PermissionWrite {
    pub row: PermissionRow,
    /// The user's reply. If set, the caller waits until the write is on disk.
    pub reply: Option<PermissionReply>,
    /// Set if several nodes share the database. The change is applied to the row's current content,
    /// and `row` is ignored. The journal does not take this write.
    pub change: Option<PermissionChange>,
}

/// Applies a change to the `pair` of a row. The argument is `None` if there is no row. The result
/// is `None` if nothing changes.
pub type PermissionChange = Box<dyn Fn(Option<&str>) -> Option<ChangedPermission> + Send + Sync>;

/// The result of a [`PermissionChange`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedPermission {
    pub state: String,
    pub pair: String,
    /// Whether the row has changed. An outdated reply does not change it.
    pub applied: bool,
}

/// The record that a user is in a call, or that a call with them is about to be placed.
#[derive(Clone, PartialEq, Eq)]
pub struct Engagement {
    pub id: Uuid,
    pub number: PhoneNumberId,
    pub user: String,
    /// The run that owns the call.
    pub run: Uuid,
}

/// Omits the user's number.
impl std::fmt::Debug for Engagement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engagement({} {})", self.id, self.number)
    }
}
