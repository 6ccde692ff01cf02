use uuid::Uuid;

use model::{AuthId, Secret, Timestamp};

/// A webhook's row. Its secrets' `Debug` shows nothing.
#[derive(Clone, Debug)]
pub struct WebhookRow {
    pub id: Uuid,
    pub account: AuthId,
    pub name: String,
    pub url: String,
    /// Newest first; none: another key sealed them.
    pub secrets: Vec<Secret>,
    pub created: Timestamp,
}

/// What becomes of a webhook.
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
