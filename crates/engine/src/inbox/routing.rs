//! Routing: who answers a number's new conversations and each existing one. A change is stored first
//! and takes effect then. The routing that the previous owner of a number set is dropped
//! (`store::tenures`).

use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;

use super::Inbox;
use super::webhooks::of_row;
use crate::admission::{NumberEntry, Webhooks};
use crate::feed::{Audience, FeedChange};
use model::Routing;
use store::{
    Agent, Conversation, ConversationChange, NumberOwners, NumberTransfer, Pair, RoutingChange,
    Scope, StoreError,
};

/// The reason why a routing or a webhook was not changed.
#[derive(Debug, thiserror::Error)]
pub enum RoutingError {
    /// The scope has no such webhook.
    #[error("no such webhook")]
    NoWebhook,
    /// No webhook is given, and the account has none or several.
    #[error("no webhook is given, and the account does not have exactly one")]
    WhichWebhook,
    /// The state of the conversation does not allow the change.
    #[error("{0}")]
    InvalidState(&'static str),
    /// The account has the maximum number of webhooks.
    #[error("the account has the maximum number of webhooks")]
    TooMany,
    /// The webhook is defined in the configuration and can only be changed there.
    #[error("the webhook is defined in the configuration file")]
    InFile,
    /// Numbers or conversations still use the webhook.
    #[error("the webhook is in use")]
    InUse,
    /// The agent does not exist.
    #[error("no such agent")]
    NoAgent,
    /// The agent is still in use by this number.
    #[error("the agent is in use: {0}")]
    AgentInUse(String),
    #[error("store failed: {0}")]
    Store(#[source] StoreError),
}

/// The lock that serializes changes of webhooks and routing.
pub(super) type ChangeLock<'a> = tokio::sync::MutexGuard<'a, ()>;

impl Inbox {
    /// Loads the stored webhooks, and the routing and owners of numbers. Other nodes may have changed
    /// them.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let _lock = self.0.changing.lock().await;
        let (store, mail) = (&self.parts().store, self.parts().directory.mail());
        let routings = store.numbers().routings().await?;
        let owners = store.numbers().owners().await?;
        let webhooks = store.webhooks().list().await?;
        mail.change_routings(|all| *all = routings.iter().cloned().collect());
        self.0.tenures.read(owners);
        let stored: Webhooks =
            webhooks.into_iter().map(|row| (row.id, Arc::new(of_row(row)))).collect();
        mail.change_webhooks(|all| {
            all.retain(|_, webhook| webhook.in_file);
            // A webhook of the configuration takes precedence.
            stored.iter().for_each(|(id, webhook)| {
                all.entry(*id).or_insert_with(|| webhook.clone());
            });
        });
        Ok(())
    }

    /// Changes a number's routing and, with `all`, that of its conversations, in one transaction.
    /// No answer of an agent under the old routing is sent after this returns.
    ///
    /// # Errors
    /// Fails if the webhook or agent was removed, or if the store rejects the write. Nothing has
    /// changed then.
    pub async fn route_number(
        &self,
        number: &NumberEntry,
        routing: Routing,
        all: bool,
    ) -> Result<(), RoutingError> {
        // Otherwise recording the new owner would discard it with the previous owner's routing.
        self.claim().await.map_err(RoutingError::Store)?;
        let lock = self.lock_target(routing).await?;
        self.apply_routing(number, routing, all, &lock).await
    }

    pub(super) async fn apply_routing(
        &self,
        number: &NumberEntry,
        routing: Routing,
        all: bool,
        _lock: &ChangeLock<'_>,
    ) -> Result<(), RoutingError> {
        let id = &number.spec.mail_id;
        let _held = self.pause_agents(id).await;
        let (digits, parts) = (number.spec.number.clone(), self.parts());
        let (account, before) = (number.account.auth_id.clone(), self.routing_of(number));
        let reroute = RoutingChange { phone_number_id: id.clone(), account, routing, all };
        parts.store.numbers().set_routing(reroute).await.map_err(RoutingError::Store)?;
        parts.directory.mail().change_routings(|routings| {
            routings.insert(id.clone(), routing);
        });
        let to = Audience::of(&number.account.auth_id, &number.account.main().auth_id);
        parts.feed.publish(to, FeedChange::Number(digits));
        if let Some(listener) = self.0.routing_listener.get() {
            listener(self, number, before, routing);
        }
        Ok(())
    }

    /// Takes the lock and checks that the target exists. The target can't be removed while the lock
    /// is held.
    pub(super) async fn lock_target(
        &self,
        routing: Routing,
    ) -> Result<ChangeLock<'_>, RoutingError> {
        let lock = self.0.changing.lock().await;
        self.check_target(routing, &lock).await?;
        Ok(lock)
    }

    pub(super) async fn check_target(
        &self,
        routing: Routing,
        _lock: &ChangeLock<'_>,
    ) -> Result<(), RoutingError> {
        if routing.webhook().is_some_and(|id| self.parts().directory.mail().webhook(id).is_none()) {
            return Err(RoutingError::NoWebhook);
        }
        if let Some(agent) = routing.agent()
            && !self.parts().store.agents().exists(agent).await.map_err(RoutingError::Store)?
        {
            return Err(RoutingError::NoAgent);
        }
        Ok(())
    }

    /// Deletes an agent. Its numbers have no routing afterwards. Returns `false` if the agent does
    /// not exist.
    ///
    /// # Errors
    /// Fails if the agent still answers somewhere and `force` is not set, or if the store fails.
    pub async fn remove_agent(
        &self,
        scope: &Scope,
        agent: &Agent,
        force: bool,
    ) -> Result<bool, RoutingError> {
        // Nothing can be routed to the agent while the lock is held.
        let lock = self.0.changing.lock().await;
        let numbers = self.answered_by(agent.id);
        let store = &self.parts().store;
        if !force {
            let names: Vec<_> = numbers.iter().map(|number| number.spec.number.as_str()).collect();
            if !names.is_empty() {
                return Err(RoutingError::AgentInUse(names.join(", ")));
            }
            if store.agents().is_in_use(agent.id).await.map_err(RoutingError::Store)? {
                return Err(RoutingError::AgentInUse("in conversations".to_owned()));
            }
        }
        for number in numbers {
            self.apply_routing(&number, Routing::None, false, &lock).await?;
        }
        let gone = store.agents().delete(scope, agent.id).await.map_err(RoutingError::Store)?;
        if gone {
            let to = Audience::of(&agent.account, &agent.main_account);
            self.parts().feed.publish(to, FeedChange::Agent(agent.id));
        }
        Ok(gone)
    }

    /// Routes a single conversation to a webhook. The webhook and the previous one are notified.
    ///
    /// # Errors
    /// Fails if the conversation does not exist, or if the store fails.
    pub async fn subscribe(
        &self,
        scope: &Scope,
        conversation: &Conversation,
        webhook: Uuid,
    ) -> Result<(), RoutingError> {
        self.reroute_one(scope, conversation, |_| Ok(Routing::Webhook(Some(webhook)))).await
    }

    /// Routes a single conversation to an agent. The previous webhook is notified.
    ///
    /// # Errors
    /// Fails if the conversation or the agent does not exist, or if the store fails.
    pub async fn connect_agent(
        &self,
        scope: &Scope,
        conversation: &Conversation,
        agent: Uuid,
    ) -> Result<(), RoutingError> {
        self.reroute_one(scope, conversation, |_| Ok(Routing::Agent(agent))).await
    }

    /// Routes a single conversation like its number's new ones, but not to its previous webhook.
    ///
    /// # Errors
    /// Fails if the conversation is not subscribed to a webhook, or if the store fails.
    pub async fn unsubscribe(
        &self,
        scope: &Scope,
        number: &NumberEntry,
        conversation: &Conversation,
    ) -> Result<(), RoutingError> {
        self.reroute_one(scope, conversation, |now| {
            if now.webhook().is_none() {
                return Err(RoutingError::InvalidState(
                    "this conversation is not subscribed to a webhook",
                ));
            }
            let default = self.routing_of(number);
            Ok(if default == now { Routing::None } else { default })
        })
        .await
    }

    /// Changes the routing of one conversation. `to` computes the new routing from the current one.
    ///
    /// # Errors
    /// Fails if `to` does, if the conversation does not exist, or if the store fails.
    pub(super) async fn reroute_one(
        &self,
        scope: &Scope,
        conversation: &Conversation,
        to: impl FnOnce(Routing) -> Result<Routing, RoutingError>,
    ) -> Result<(), RoutingError> {
        const GONE: RoutingError = RoutingError::InvalidState("the conversation no longer exists");
        let pair = &conversation.pair;
        let lock = self.0.changing.lock().await;
        // The conversation may have been changed since the caller read it.
        let now = self
            .parts()
            .store
            .conversations()
            .get(scope, pair.conversation)
            .await
            .map_err(RoutingError::Store)?;
        let now = now.ok_or(GONE)?.standing.routing;
        let to = to(now)?;
        self.check_target(to, &lock).await?;
        let (before, after) = (now.webhook(), to.webhook());
        let _held = self.pause_agents(&pair.phone_number_id).await;
        let mut tell = Vec::new();
        if let (true, Some(number)) = (before != after, self.number_of(pair)) {
            for (webhook, kind) in
                [(before, "subscription.revoked"), (after, "subscription.activated")]
            {
                if let Some(webhook) = webhook {
                    let data = json!({"conversation": pair.conversation, "webhook": webhook, "user": pair.user.shown()});
                    // Each change is a separate event.
                    let once = Uuid::new_v4().to_string();
                    tell.push((
                        webhook,
                        self.draft(&number, kind, &[kind, &once], data, Vec::new()),
                    ));
                }
            }
        }
        let change = ConversationChange { routing: Some(to), ..ConversationChange::default() };
        let changed =
            self.parts().store.conversations().change(scope, pair.conversation, change, tell).await;
        let (done, written) = changed.map_err(RoutingError::Store)?;
        if !done {
            return Err(GONE);
        }
        self.send_callbacks(written);
        self.publish_conversation(pair.into(), pair.conversation);
        Ok(())
    }

    /// Routes the conversation of one user, and creates it if necessary. The sandbox uses it.
    ///
    /// # Errors
    /// Fails if the webhook was removed or the store rejects the write. Nothing has changed then.
    pub async fn route_user(&self, pair: Pair, routing: Routing) -> Result<(), RoutingError> {
        let _lock = self.lock_target(routing).await?;
        let _held = self.pause_agents(&pair.phone_number_id).await;
        let opened = self
            .parts()
            .store
            .conversations()
            .open(pair.clone(), routing, self.parts().clock.wall())
            .await;
        opened.map_err(RoutingError::Store)?;
        self.publish_conversation((&pair).into(), pair.conversation);
        Ok(())
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

    pub(super) async fn claim_one(
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
    pub(super) async fn inherited_routing(
        &self,
        number: &NumberEntry,
    ) -> Result<Option<Routing>, StoreError> {
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
