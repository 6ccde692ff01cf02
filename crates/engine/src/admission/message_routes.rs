//! Message routes in memory: webhooks, and each number's routing for new conversations. `inbox`
//! stores them and checks permissions to change them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use uuid::Uuid;

use model::Secret;
use model::{AuthId, PhoneNumberId, Routing, Timestamp};
use xml::ast::DocUrl;

/// A URL that receives an account's events.
#[derive(Clone, Debug)]
pub struct Webhook {
    pub id: Uuid,
    pub account: AuthId,
    pub name: String,
    pub url: DocUrl,
    /// The secrets that sign events, newest first. There are two during a rotation, and none if they
    /// were encrypted with another `store.secret_key`.
    pub secrets: Arc<[Secret]>,
    pub created: Timestamp,
    /// Whether the configuration file defines the webhook. It is removed with its entry there.
    pub in_file: bool,
}

/// Webhooks by their ids.
pub type Webhooks = BTreeMap<Uuid, Arc<Webhook>>;

/// The routing of the numbers for which it was set.
pub type Routings = HashMap<PhoneNumberId, Routing>;

/// The effective webhooks and routing.
#[derive(Debug, Default)]
pub struct MessageRoutes {
    webhooks: ArcSwap<Webhooks>,
    numbers: ArcSwap<Routings>,
}

impl MessageRoutes {
    pub fn webhook(&self, id: Uuid) -> Option<Arc<Webhook>> {
        self.webhooks.load().get(&id).cloned()
    }

    pub fn webhooks(&self) -> Arc<Webhooks> {
        self.webhooks.load_full()
    }

    /// The routing of a number, or `None` if it was not set.
    pub fn routing(&self, number: &PhoneNumberId) -> Option<Routing> {
        self.numbers.load().get(number).copied()
    }

    pub fn routings(&self) -> Arc<Routings> {
        self.numbers.load_full()
    }

    /// Changes the webhooks. Concurrent changes are all applied.
    pub fn change_webhooks(&self, change: impl Fn(&mut Webhooks)) {
        self.webhooks.rcu(|webhooks| {
            let mut webhooks = Webhooks::clone(webhooks);
            change(&mut webhooks);
            webhooks
        });
    }

    /// Changes the routing. Concurrent changes are all applied.
    pub fn change_routings(&self, change: impl Fn(&mut Routings)) {
        self.numbers.rcu(|numbers| {
            let mut numbers = Routings::clone(numbers);
            change(&mut numbers);
            numbers
        });
    }
}
