use uuid::Uuid;

use model::{AuthId, Role, Timestamp};

/// A console user. `Debug` shows no password, not even the hash.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    pub id: Uuid,
    /// The owner and its main account, which may be the same.
    pub account: AuthId,
    pub main_account: AuthId,
    /// Sign-in name, unique within the main account.
    pub name: String,
    pub full_name: String,
    pub role: Role,
    /// A hash made by [`crate::password::Passwords`]. `None` for an invited user,
    /// and for one who signs in with a provider only.
    pub password: Option<String>,
    pub wa_id: Option<String>,
    /// Whether the user is listed in the configuration file.
    pub in_file: bool,
    /// Whether the user is linked to a subject of a sign-in provider.
    pub is_linked: bool,
    pub created: Timestamp,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}
