//! Whose conversations a number has. Numbers change hands: a WABA is mapped to another account, a file moves it, it is
//! connected elsewhere. The next owner reads nothing of what was said before, and nothing that was set goes on: a
//! conversation's id has its account in it, except the first owner's, and what the former owner had set of routing is
//! over (`store::tenures`). Also before that is written, nothing of another's is used.

use std::sync::Arc;

use dashmap::DashMap;
use uuid::Uuid;

use super::Inbox;
use crate::admission::NumberEntry;
use model::{AuthId, PhoneNumberId, Routing, stable_id};
use store::{NumberOwners, NumberTransfer, Scope, StoreError};

/// By number; one that is not there was never written to.
#[derive(Debug, Default)]
pub(super) struct Tenures(DashMap<PhoneNumberId, NumberOwners>);

impl Tenures {
    /// What the store has.
    pub(super) fn read(&self, rows: Vec<(PhoneNumberId, NumberOwners)>) {
        rows.into_iter().for_each(|(id, tenure)| drop(self.0.insert(id, tenure)));
    }

    /// A number's; its owner is the first, where there was none.
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

/// The conversation of a number's owner and a user; `first`: whose the number was first.
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
    /// The conversation of a number, as its owner has it, and a user.
    pub fn conversation_of(&self, number: &NumberEntry, user: &str) -> Uuid {
        let first = self.0.tenures.of(number).first;
        conversation_id(&number.spec.mail_id, user, &number.account.auth_id, &first)
    }

    /// The same by the number's id, of a number that is served.
    pub fn conversation_with(&self, number: &PhoneNumberId, user: &str) -> Option<Uuid> {
        let tables = self.parts().directory.tables();
        let number = tables.number(number).or_else(|| tables.by_mail_id(number));
        number.map(|number| self.conversation_of(number, user))
    }

    /// Whether what is set of a number was set by its owner.
    pub(super) fn holds(&self, number: &NumberEntry) -> bool {
        let owner = self.0.tenures.of(number).owner;
        owner == number.account.auth_id || owner.as_str().is_empty()
    }

    /// Whether a webhook or an agent of this account's may serve a number: its owner's, or the owner's main account's.
    pub fn may_serve(number: &NumberEntry, account: &AuthId) -> bool {
        *account == number.account.auth_id || *account == number.account.main().auth_id
    }

    /// Numbers that changed hands begin anew with their owner. To be said after whatever may have moved one.
    ///
    /// # Errors
    /// The store takes nothing now; until it does, nothing of the former owner's is used either.
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

    /// The same behind whoever says it; nothing where nothing has moved.
    pub fn claim_soon(&self) {
        let inbox = self.clone();
        self.parts().tasks.spawn(async move {
            if let Err(error) = inbox.claim().await {
                tracing::warn!(%error, "a number's new owner is not noted yet");
            }
        });
    }

    async fn claim_one(
        &self,
        number: &NumberEntry,
        before: NumberOwners,
    ) -> Result<(), StoreError> {
        let _turn = self.0.changing.lock().await;
        let (id, owner) = (number.spec.mail_id.clone(), number.account.auth_id.clone());
        let _held = self.hold(&id).await;
        if self
            .parts()
            .directory
            .tables()
            .by_number(&number.spec.number)
            .is_none_or(|now| now.account.auth_id != owner)
        {
            // It has changed hands again meanwhile: that is another's to note.
            return Ok(());
        }
        let (mail, known) = (self.parts().directory.mail(), !before.owner.as_str().is_empty());
        let kept = self.kept(number).await?;
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
            // Another node was faster, and the new owner may have set something there.
            let routings = self.parts().store.numbers().routings().await?;
            mail.change_routings(|all| *all = routings.iter().cloned().collect());
        }
        self.0.tenures.0.insert(id, NumberOwners { owner, first: before.first });
        Ok(())
    }

    /// What was set of a number's routing and names what its new owner may have too: a main account's webhook or agent serves
    /// its subaccounts' numbers as well.
    async fn kept(&self, number: &NumberEntry) -> Result<Option<Routing>, StoreError> {
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
