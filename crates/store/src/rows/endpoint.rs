use uuid::Uuid;

use crate::rows::user::User;
use crate::scope::Scope;
use model::{AppId, AuthId, EndpointId, EndpointName, Timestamp};

/// An endpoint. `Debug` shows no password, not even the hash.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub id: EndpointId,
    /// The owner and its main account, which may be the same.
    pub account: AuthId,
    pub main_account: AuthId,
    pub name: EndpointName,
    pub alias: String,
    /// A hash made by [`crate::password::Passwords`].
    pub password: String,
    /// The application that handles its calls.
    pub app_id: Option<AppId>,
    /// The user who created it for themselves.
    pub user: Option<Uuid>,
    pub created: Timestamp,
}

impl Endpoint {
    /// Whether this is the user's own endpoint: one that they created for themselves, or one
    /// without a user that has their sign-in name.
    pub fn is_of(&self, user: &User) -> bool {
        match self.user {
            Some(id) => id == user.id,
            None => self.name.as_str() == user.name && self.main_account == user.main_account,
        }
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Changes of an endpoint. `None` leaves a field unchanged.
#[derive(Clone, Default)]
pub struct EndpointChange {
    pub alias: Option<String>,
    /// A hash made by [`crate::password::Passwords`].
    pub password: Option<String>,
    /// `Some(None)` removes the application.
    pub app_id: Option<Option<AppId>>,
    /// The user to whom it is assigned as their own endpoint.
    pub user: Option<Uuid>,
}

/// A write about an endpoint. It changes nothing if the name is taken or the endpoint does not
/// exist.
pub(crate) enum EndpointWrite {
    Create(Endpoint),
    Change(Scope, EndpointId, EndpointChange),
    Delete(Scope, EndpointId),
    /// Gives the endpoints of an application another one, or none.
    Move {
        scope: Scope,
        from: AppId,
        to: Option<AppId>,
    },
    /// Deletes the endpoints of an application.
    DeleteOf(Scope, AppId),
    /// Gives the endpoints of a subaccount to its main account.
    Inherit {
        from: AuthId,
        main_account: AuthId,
    },
    /// Deletes the endpoints of a subaccount.
    DeleteOfAccount(AuthId),
}
