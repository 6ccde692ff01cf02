//! `[[webhook]]`: customers' webhooks that are defined in the configuration.

use uuid::Uuid;

use model::{AuthId, Secret, stable_id};
use xml::ast::DocUrl;

/// `[[webhook]]`: a URL that an account's events are posted to.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    pub name: String,
    pub account: AuthId,
    pub url: DocUrl,
    pub secret: Secret,
    /// The previous secret during a rotation. While it is set, events carry a signature with each
    /// secret.
    pub secret_previous: Option<Secret>,
}

impl WebhookSettings {
    /// Returns the webhook's id, which is derived from the account and name, so that it is the same
    /// at each start and on each node.
    pub fn id(&self) -> Uuid {
        stable_id("webhook", &[self.account.as_str(), &self.name])
    }
}
