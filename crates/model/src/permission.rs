//! A user's consent to be called by a business number.

use super::Timestamp;

/// Call permission of a user, as Graph's `call_permissions` reports it in `permission.status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PermissionStatus {
    #[default]
    NoPermission,
    Temporary {
        /// When the permission expires. `None` if Graph did not report it.
        until: Option<Timestamp>,
    },
    Permanent,
}
