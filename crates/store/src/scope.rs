//! Whose data a query may see (`plivo-call-api.md` 1.1).

use crate::sql::QueryBuilder;
use model::AuthId;

/// Only what the scope may see, in a table that names owner and main account.
pub(crate) fn within(query: &mut QueryBuilder, scope: &Scope) {
    query.push(match scope {
        Scope::Main(_) => "main_auth_id = ",
        Scope::Sub(_) => "auth_id = ",
    });
    query.push_bind(scope.auth_id().as_str().to_owned());
}

/// Whose data a query may see (`plivo-call-api.md` 1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A main account: its own and its subaccounts'.
    Main(AuthId),
    /// A subaccount: its own only.
    Sub(AuthId),
}

impl Scope {
    /// The caller's scope; its id says what it is.
    pub fn of(auth_id: AuthId) -> Self {
        if auth_id.as_str().starts_with("SA") { Self::Sub(auth_id) } else { Self::Main(auth_id) }
    }

    /// The caller itself.
    pub fn auth_id(&self) -> &AuthId {
        match self {
            Self::Main(id) | Self::Sub(id) => id,
        }
    }

    /// Whether something of `owner`, whose main account is `main`, may be seen.
    pub fn holds(&self, owner: &AuthId, main: &AuthId) -> bool {
        match self {
            Self::Main(id) => id == main,
            Self::Sub(id) => id == owner,
        }
    }
}
