//! Where messages go: webhooks, and each number's routing for conversations to come. In memory, replaced whole; what is
//! stored of it, and who may change it, is `inbox`'s business.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use uuid::Uuid;

use model::Secret;
use model::{AuthId, PhoneNumberId, Routing, Timestamp};
use xml::ast::DocUrl;

/// A URL that an account's events are posted to.
#[derive(Clone, Debug)]
pub struct Webhook {
    pub id: Uuid,
    pub account: AuthId,
    pub name: String,
    pub url: DocUrl,
    /// Newest first: two while one takes the other's place.
    pub secrets: Arc<[Secret]>,
    pub created: Timestamp,
    /// It stands in the configuration, and goes when it goes there.
    pub in_file: bool,
}

/// Webhooks by their ids.
pub type Webhooks = BTreeMap<Uuid, Arc<Webhook>>;

/// Numbers' routing, where it was set.
pub type Routings = HashMap<PhoneNumberId, Routing>;

/// Both, as they stand.
#[derive(Debug, Default)]
pub struct MailRoutes {
    webhooks: ArcSwap<Webhooks>,
    numbers: ArcSwap<Routings>,
}

impl MailRoutes {
    /// A webhook.
    pub fn webhook(&self, id: Uuid) -> Option<Arc<Webhook>> {
        self.webhooks.load().get(&id).cloned()
    }

    /// All webhooks.
    pub fn webhooks(&self) -> Arc<Webhooks> {
        self.webhooks.load_full()
    }

    /// What was set of a number's routing.
    pub fn routing(&self, number: &PhoneNumberId) -> Option<Routing> {
        self.numbers.load().get(number).copied()
    }

    /// Numbers' routing.
    pub fn routings(&self) -> Arc<Routings> {
        self.numbers.load_full()
    }

    /// Puts other webhooks in force; two who do it at the same moment both count.
    pub fn change_webhooks(&self, change: impl Fn(&mut Webhooks)) {
        self.webhooks.rcu(|webhooks| {
            let mut webhooks = Webhooks::clone(webhooks);
            change(&mut webhooks);
            webhooks
        });
    }

    /// Puts other routing in force; two who do it at the same moment both count.
    pub fn change_routings(&self, change: impl Fn(&mut Routings)) {
        self.numbers.rcu(|numbers| {
            let mut numbers = Routings::clone(numbers);
            change(&mut numbers);
            numbers
        });
    }
}
