//! What Meta says of a user's consent to be called by a business number.

use super::Timestamp;

/// `permission.status` of Graph's answer to `call_permissions` (`meta-calling.md` §4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PermissionStatus {
    #[default]
    NoPermission,
    /// It may come without its end.
    Temporary {
        until: Option<Timestamp>,
    },
    Permanent,
}
