//! The owners of numbers and their conversations. A number can move to another account: its WABA is
//! assigned to another account, the configuration changes, or another account connects it.
//!
//! The new owner must not read earlier messages nor inherit routing. Therefore a conversation's id
//! contains the account, except for the number's first owner, and the routing set by the previous
//! owner is dropped (`store::tenures`). Checks against the owner hold even before the change is
//! stored.

use std::sync::Arc;

use dashmap::DashMap;
use uuid::Uuid;

use super::Inbox;
use crate::admission::NumberEntry;
use model::{AuthId, PhoneNumberId, Routing, stable_id};
use store::{NumberOwners, NumberTransfer, Scope, StoreError};

/// The owners by number. A number without an entry has never had a message.
#[derive(Debug, Default)]
pub(super) struct Tenures(DashMap<PhoneNumberId, NumberOwners>);

impl Tenures {
    /// Loads the owners from the store.
    pub(super) fn read(&self, rows: Vec<(PhoneNumberId, NumberOwners)>) {
        rows.into_iter().for_each(|(id, tenure)| drop(self.0.insert(id, tenure)));
    }

    /// Returns the owners of a number. Its current account becomes the first owner if none is
    /// known.
    fn of(&self, number: &NumberEntry) -> NumberOwners {
        let id = &number.spec.mail_id;
        if let Some(found) = self.0.get(id) {
            return found.clone();
        }
        let owner = number.account.auth_id.clone();
        self.0
            .entry(id.clone())
            .or_insert_with(|| NumberOwners { first: owner.clone(), owner })
            .clone()
    }
}

/// The id of the conversation between `owner` and a user. `first` is the number's first owner.
pub(super) fn conversation_id(
    number: &PhoneNumberId,
    user: &str,
    owner: &AuthId,
    first: &AuthId,
) -> Uuid {
    match owner == first {
        true => stable_id("conversation", &[number.as_str(), user]),
        false => stable_id("conversation", &[number.as_str(), user, owner.as_str()]),
    }
}

impl Inbox {
    /// The id of the conversation between a number's current owner and a user.
    pub fn conversation_of(&self, number: &NumberEntry, user: &str) -> Uuid {
        let first = self.0.tenures.of(number).first;
        conversation_id(&number.spec.mail_id, user, &number.account.auth_id, &first)
    }

    /// Like [`Inbox::conversation_of`], by the number's id. `None` if the number is not served.
    pub fn conversation_with(&self, number: &PhoneNumberId, user: &str) -> Option<Uuid> {
        let tables = self.parts().directory.tables();
        let number = tables.number(number).or_else(|| tables.by_mail_id(number));
        number.map(|number| self.conversation_of(number, user))
    }

    /// Returns whether the number's settings were made by its current owner.
    pub(super) fn is_current_owner(&self, number: &NumberEntry) -> bool {
        let owner = self.0.tenures.of(number).owner;
        owner == number.account.auth_id || owner.as_str().is_empty()
    }

    /// Returns whether a webhook or agent of `account` may serve a number: it must belong to the
    /// number's account or its main account.
    pub fn may_serve(number: &NumberEntry, account: &AuthId) -> bool {
        *account == number.account.auth_id || *account == number.account.main().auth_id
    }

    /// Records the new owners of numbers that moved. Call it after any change that may move a
    /// number.
    ///
    /// # Errors
    /// Returns an error if the store rejects a write. The previous owner's settings are not used in
    /// the meantime either.
    pub async fn claim(&self) -> Result<(), StoreError> {
        let numbers: Vec<Arc<NumberEntry>> =
            self.parts().directory.tables().numbers().cloned().collect();
        for number in numbers {
            let before = self.0.tenures.of(&number);
            if before.owner != number.account.auth_id {
                self.claim_one(&number, before).await?;
            }
        }
        Ok(())
    }

    /// Runs [`Inbox::claim`] in the background.
    pub fn spawn_claim(&self) {
        let inbox = self.clone();
        self.parts().tasks.spawn(async move {
            if let Err(error) = inbox.claim().await {
                tracing::warn!(%error, "new owner of a number not recorded");
            }
        });
    }

    async fn claim_one(
        &self,
        number: &NumberEntry,
        before: NumberOwners,
    ) -> Result<(), StoreError> {
        let _lock = self.0.changing.lock().await;
        let (id, owner) = (number.spec.mail_id.clone(), number.account.auth_id.clone());
        let _held = self.pause_agents(&id).await;
        if self
            .parts()
            .directory
            .tables()
            .by_number(&number.spec.number)
            .is_none_or(|now| now.account.auth_id != owner)
        {
            // The number has moved again; the later change records that.
            return Ok(());
        }
        let (mail, known) = (self.parts().directory.mail(), !before.owner.as_str().is_empty());
        let kept = self.inherited_routing(number).await?;
        let claim = NumberTransfer {
            phone_number_id: id.clone(),
            owner: owner.clone(),
            before: before.clone(),
            kept,
            routing: kept.unwrap_or(Self::unset_routing(number)),
        };
        let changed = self.parts().store.numbers().transfer(claim).await?;
        if known && changed && kept.is_none() {
            mail.change_routings(|routings| {
                routings.remove(&id);
            });
        } else if known && !changed {
            // Another node recorded it first, and the new owner may have set a routing there.
            let routings = self.parts().store.numbers().routings().await?;
            mail.change_routings(|all| *all = routings.iter().cloned().collect());
        }
        self.0.tenures.0.insert(id, NumberOwners { owner, first: before.first });
        Ok(())
    }

    /// The previous routing, if its webhook or agent may also serve the new owner: those of a main
    /// account serve the numbers of its subaccounts.
    async fn inherited_routing(&self, number: &NumberEntry) -> Result<Option<Routing>, StoreError> {
        let mail = self.parts().directory.mail();
        let set = mail.routing(&number.spec.mail_id);
        let account = match set {
            Some(Routing::Webhook(Some(id))) => {
                mail.webhook(id).map(|webhook| webhook.account.clone())
            }
            Some(Routing::Agent(id)) => {
                let scope = Scope::Main(number.account.main().auth_id.clone());
                self.parts().store.agents().get(&scope, id).await?.map(|agent| agent.account)
            }
            Some(Routing::Webhook(None) | Routing::None) | None => None,
        };
        Ok(set.filter(|_| account.is_some_and(|account| Self::may_serve(number, &account))))
    }
}
