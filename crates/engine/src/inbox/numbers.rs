//! The numbers that this node serves: who owns each, who answers it, and which conversations belong
//! to it.
//!
//! A number can move to another account: its WABA is assigned to another account, the
//! configuration changes, or another account connects it. The new owner must not read earlier
//! messages nor inherit routing. Therefore a conversation's id contains the account, except for the
//! number's first owner. Checks against the owner hold even before the change is stored.

use std::sync::Arc;

use dashmap::DashMap;
use uuid::Uuid;

use crate::admission::{Directory, NumberEntry, Webhook};
use model::{AuthId, PhoneNumberId, Routing, stable_id};
use store::{NumberOwners, Pair, UserName};

/// Looks up served numbers in memory.
pub struct ServedNumbers {
    directory: Arc<Directory>,
    /// The owners by number. A number without an entry has never had a message.
    owners: DashMap<PhoneNumberId, NumberOwners>,
}

impl ServedNumbers {
    pub(super) fn new(directory: Arc<Directory>) -> Self {
        Self { directory, owners: DashMap::new() }
    }

    /// Sets the owners of some numbers, as the store has them.
    pub(super) fn set_owners(&self, rows: impl IntoIterator<Item = (PhoneNumberId, NumberOwners)>) {
        rows.into_iter().for_each(|(id, owners)| drop(self.owners.insert(id, owners)));
    }

    /// Returns the owners of a number. Its current account becomes the first owner if none is
    /// known.
    pub(super) fn owners_of(&self, number: &NumberEntry) -> NumberOwners {
        let id = &number.spec.first_id;
        if let Some(found) = self.owners.get(id) {
            return found.clone();
        }
        let owner = number.account.auth_id.clone();
        self.owners
            .entry(id.clone())
            .or_insert_with(|| NumberOwners { first: owner.clone(), owner })
            .clone()
    }

    /// The pair of a number and a user, with its conversation and accounts.
    pub fn pair(&self, number: &NumberEntry, user: UserName) -> Pair {
        let id = &number.spec.first_id;
        Pair {
            conversation: self.conversation_of(number, &user.id),
            account: number.account.auth_id.clone(),
            main_account: number.account.main().auth_id.clone(),
            number: number.spec.number.clone(),
            phone_number_id: id.clone(),
            user,
        }
    }

    /// The id of the conversation between a number's current owner and a user.
    pub fn conversation_of(&self, number: &NumberEntry, user: &str) -> Uuid {
        let first = self.owners_of(number).first;
        conversation_id(&number.spec.first_id, user, &number.account.auth_id, &first)
    }

    /// Like [`Self::conversation_of`], by the number's id. `None` if the number is not served.
    pub fn conversation_with(&self, number: &PhoneNumberId, user: &str) -> Option<Uuid> {
        let tables = self.directory.tables();
        let number = tables.number(number).or_else(|| tables.by_first_id(number));
        number.map(|number| self.conversation_of(number, user))
    }

    /// The number of a conversation. `None` if it is no longer served or belongs to another account
    /// now.
    pub fn number_of(&self, pair: &Pair) -> Option<Arc<NumberEntry>> {
        let found = self.directory.tables().by_number(&pair.number).cloned();
        found.filter(|number| number.account.auth_id == pair.account)
    }

    /// Returns whether the number's agent is silenced.
    pub fn is_silent(&self, pair: &Pair) -> bool {
        self.number_of(pair).is_some_and(|number| number.spec.silent)
    }

    /// Returns the routing of a number's new conversations. If none is set, it is the number's
    /// `webhook_url`, or none.
    pub fn routing_of(&self, number: &NumberEntry) -> Routing {
        // A routing that the previous owner set does not count.
        let set = self
            .directory
            .message_routes()
            .routing(&number.spec.first_id)
            .filter(|_| self.is_current_owner(number));
        set.unwrap_or(Self::unset_routing(number))
    }

    /// Returns the routing of a number for which none is set.
    pub(super) fn unset_routing(number: &NumberEntry) -> Routing {
        if number.spec.messages.is_some() { Routing::Webhook(None) } else { Routing::None }
    }

    /// The numbers whose messages an agent answers.
    pub fn answered_by(&self, agent: Uuid) -> Vec<Arc<NumberEntry>> {
        let directory = &self.directory;
        let routings = directory.message_routes().routings();
        let its = |n: &&Arc<NumberEntry>| {
            routings.get(&n.spec.first_id).and_then(|r| r.agent()) == Some(agent)
        };
        directory.tables().numbers().filter(its).cloned().collect()
    }

    /// The webhook of the number's own account, if it has exactly one, or that of its main account
    /// if a subaccount has none. Webhooks of other subaccounts don't count.
    pub(super) fn only_webhook(&self, number: &NumberEntry) -> Option<Arc<Webhook>> {
        let all = self.directory.message_routes().webhooks();
        let (own, main) = (&number.account.auth_id, &number.account.main().auth_id);
        let owner = if all.values().any(|webhook| webhook.account == *own) { own } else { main };
        let mut webhooks = all.values().filter(|webhook| webhook.account == *owner);
        let only = webhooks.next()?;
        webhooks.next().is_none().then(|| only.clone())
    }

    /// Returns the webhook for events that belong to no conversation: the number's webhook, or the
    /// only one of its account.
    pub fn webhook_of(&self, number: &NumberEntry) -> Option<Uuid> {
        let default = self.routing_of(number).webhook();
        default.or_else(|| self.only_webhook(number).map(|webhook| webhook.id))
    }

    /// The main account of an account.
    pub(super) fn main_of<'a>(&self, account: &'a AuthId) -> std::borrow::Cow<'a, AuthId> {
        let tables = self.directory.tables();
        match tables.account(account).and_then(|entry| entry.parent.as_ref()) {
            Some(main) => std::borrow::Cow::Owned(main.auth_id.clone()),
            None => std::borrow::Cow::Borrowed(account),
        }
    }

    /// Returns whether the number's settings were made by its current owner.
    pub(super) fn is_current_owner(&self, number: &NumberEntry) -> bool {
        let owner = self.owners_of(number).owner;
        owner == number.account.auth_id || owner.as_str().is_empty()
    }
}

/// The id of the conversation between `owner` and a user. `first` is the number's first owner.
fn conversation_id(number: &PhoneNumberId, user: &str, owner: &AuthId, first: &AuthId) -> Uuid {
    match owner == first {
        true => stable_id("conversation", &[number.as_str(), user]),
        false => stable_id("conversation", &[number.as_str(), user, owner.as_str()]),
    }
}
