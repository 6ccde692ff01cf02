use crate::scope::Scope;
use model::{AppId, AuthId, EndpointId, EndpointName, Timestamp};

/// An endpoint. Its `Debug` has no password in it, not even the hash.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub id: EndpointId,
    /// The owner, and its main account.
    pub account: AuthId,
    pub main_account: AuthId,
    pub name: EndpointName,
    pub alias: String,
    /// A hash of [`crate::password::Passwords`].
    pub password: String,
    /// Its application.
    pub app_id: Option<AppId>,
    pub created: Timestamp,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What is to change of an endpoint; `None` stays as it is.
#[derive(Clone, Default)]
pub struct EndpointChange {
    pub alias: Option<String>,
    /// A hash.
    pub password: Option<String>,
    /// The inner none: no application any more.
    pub app_id: Option<Option<AppId>>,
}

/// A write about an endpoint: done or, where its name is taken or it is not there, not.
pub(crate) enum EndpointWrite {
    Create(Endpoint),
    Change(Scope, EndpointId, EndpointChange),
    Delete(Scope, EndpointId),
}
