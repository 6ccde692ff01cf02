//! Tenant scope of a query.

use crate::sql::QueryBuilder;
use model::AuthId;

/// Restricts a query to the rows of the scope. The table must have the columns `auth_id` and
/// `main_auth_id`.
pub(crate) fn push_scope(query: &mut QueryBuilder, scope: &Scope) {
    query.push(match scope {
        Scope::Main(_) => "main_auth_id = ",
        Scope::Sub(_) => "auth_id = ",
    });
    query.push_bind(scope.auth_id().as_str().to_owned());
}

/// The tenant scope of a query: which accounts' data it may read or change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A main account: its own data and that of its subaccounts.
    Main(AuthId),
    /// A subaccount: its own data only.
    Sub(AuthId),
}

impl Scope {
    /// Returns the scope of an account. Ids of subaccounts start with `SA`.
    pub fn of(auth_id: AuthId) -> Self {
        if auth_id.as_str().starts_with("SA") { Self::Sub(auth_id) } else { Self::Main(auth_id) }
    }

    /// The account itself.
    pub fn auth_id(&self) -> &AuthId {
        match self {
            Self::Main(id) | Self::Sub(id) => id,
        }
    }

    /// Returns whether the scope includes a resource of the account `owner`, which belongs to the
    /// main account `main`.
    pub fn holds(&self, owner: &AuthId, main: &AuthId) -> bool {
        match self {
            Self::Main(id) => id == main,
            Self::Sub(id) => id == owner,
        }
    }
}
