use uuid::Uuid;

use model::{AuthId, Secret, Timestamp};

/// A webhook. `Debug` does not show its secrets.
#[derive(Clone, Debug)]
pub struct WebhookRow {
    pub id: Uuid,
    pub account: AuthId,
    pub name: String,
    pub url: String,
    /// The secrets, newest first. Empty if they were encrypted with another `store.secret_key`: a
    /// change without secrets keeps these.
    pub secrets: Vec<Secret>,
    pub created: Timestamp,
    /// The version that a change is based on. 0 if the webhook is new.
    pub version: i64,
}

/// A change of a webhook.
#[derive(Clone, Debug)]
pub enum WebhookWrite {
    Put(WebhookRow),
    Remove(Uuid),
}

impl PartialEq for WebhookWrite {
    fn eq(&self, other: &Self) -> bool {
        let id = |write: &Self| match write {
            Self::Put(row) => (row.id, row.name.clone(), row.url.clone()),
            Self::Remove(id) => (*id, String::new(), String::new()),
        };
        id(self) == id(other)
    }
}
