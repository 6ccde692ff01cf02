//! Routing: who answers a number's new conversations and each existing one. A change takes
//! effect once it is stored. When a number has moved to another account, the routing that the
//! previous owner set is dropped (`store::tenures`).

use std::sync::{Arc, OnceLock};

use futures_util::future::join_all;
use serde_json::json;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::agent_locks::AgentLocks;
use super::events::WebhookEvents;
use super::numbers::ServedNumbers;
use super::webhooks::{ChangeLock, CustomerWebhooks};
use crate::admission::{Directory, NumberEntry};
use crate::feed::{Audience, Feed, FeedChange};
use model::{Clock, Routing};
use store::{
    Agent, Conversation, ConversationChange, NumberOwners, NumberTransfer, Pair, RoutingChange,
    Scope, Store, StoreError,
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
    /// Another webhook of the account has this name.
    #[error("the account has a webhook of this name")]
    NameTaken,
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

/// A listener for changes of a number's routing. Its last two arguments are the old and the new
/// routing.
pub type RoutingListener = Box<dyn Fn(&NumberEntry, Routing, Routing) + Send + Sync>;

/// Changes the routing of numbers and conversations.
pub struct Router {
    pub(super) store: Store,
    pub(super) directory: Arc<Directory>,
    pub(super) clock: Clock,
    pub(super) feed: Feed,
    pub(super) tasks: TaskTracker,
    pub(super) numbers: Arc<ServedNumbers>,
    pub(super) agent_locks: Arc<AgentLocks>,
    pub(super) webhooks: Arc<CustomerWebhooks>,
    pub(super) events: Arc<WebhookEvents>,
    pub(super) listener: OnceLock<RoutingListener>,
}

impl Router {
    /// Sets the listener for changes of routing. Only the first call has an effect.
    pub fn on_change(&self, listener: RoutingListener) {
        let _ = self.listener.set(listener);
    }

    /// Loads the stored webhooks, and the routing and owners of numbers. Other nodes may have
    /// changed them.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let lock = self.webhooks.lock().await;
        let routings = self.store.numbers().routings().await?;
        let owners = self.store.numbers().owners().await?;
        self.webhooks.load(&lock).await?;
        let routes = self.directory.message_routes();
        routes.change_routings(|all| *all = routings.iter().cloned().collect());
        self.numbers.set_owners(owners);
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
        self.apply_routing(number, routing, all, &lock).await?;
        // The lock is released first: changes of other numbers must not wait for this one's agent.
        drop(lock);
        self.agent_locks.wait(&number.spec.first_id).await;
        Ok(())
    }

    async fn apply_routing(
        &self,
        number: &NumberEntry,
        routing: Routing,
        all: bool,
        _lock: &ChangeLock<'_>,
    ) -> Result<(), RoutingError> {
        let id = &number.spec.first_id;
        let digits = number.spec.number.clone();
        let (account, before) = (number.account.auth_id.clone(), self.numbers.routing_of(number));
        let reroute = RoutingChange { phone_number_id: id.clone(), account, routing, all };
        self.store.numbers().set_routing(reroute).await.map_err(RoutingError::Store)?;
        self.directory.message_routes().change_routings(|routings| {
            routings.insert(id.clone(), routing);
        });
        let to = Audience::of(&number.account.auth_id, &number.account.main().auth_id);
        self.feed.publish(to, FeedChange::Number(digits));
        if let Some(listener) = self.listener.get() {
            listener(number, before, routing);
        }
        Ok(())
    }

    /// Takes the lock and checks that the target exists. The target can't be removed while the lock
    /// is held.
    async fn lock_target(&self, routing: Routing) -> Result<ChangeLock<'_>, RoutingError> {
        let lock = self.webhooks.lock().await;
        self.check_target(routing, &lock).await?;
        Ok(lock)
    }

    async fn check_target(
        &self,
        routing: Routing,
        _lock: &ChangeLock<'_>,
    ) -> Result<(), RoutingError> {
        if routing.webhook().is_some_and(|id| self.directory.message_routes().webhook(id).is_none())
        {
            return Err(RoutingError::NoWebhook);
        }
        if let Some(agent) = routing.agent()
            && !self.store.agents().exists(agent).await.map_err(RoutingError::Store)?
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
        let lock = self.webhooks.lock().await;
        let numbers = self.numbers.answered_by(agent.id);
        let store = &self.store;
        if !force {
            let names: Vec<_> = numbers.iter().map(|number| number.spec.number.as_str()).collect();
            if !names.is_empty() {
                return Err(RoutingError::AgentInUse(names.join(", ")));
            }
            if store.agents().is_in_use(agent.id).await.map_err(RoutingError::Store)? {
                return Err(RoutingError::AgentInUse("in conversations".to_owned()));
            }
        }
        for number in &numbers {
            self.apply_routing(number, Routing::None, false, &lock).await?;
        }
        let gone = store.agents().delete(scope, agent.id).await.map_err(RoutingError::Store)?;
        drop(lock);
        join_all(numbers.iter().map(|number| self.agent_locks.wait(&number.spec.first_id))).await;
        if gone {
            let to = Audience::of(&agent.account, &agent.main_account);
            self.feed.publish(to, FeedChange::Agent(agent.id));
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
            let default = self.numbers.routing_of(number);
            Ok(if default == now { Routing::None } else { default })
        })
        .await
    }

    /// Changes the routing of one conversation. `to` computes the new routing from the current one.
    ///
    /// # Errors
    /// Fails if `to` does, if the conversation does not exist, or if the store fails.
    async fn reroute_one(
        &self,
        scope: &Scope,
        conversation: &Conversation,
        to: impl FnOnce(Routing) -> Result<Routing, RoutingError>,
    ) -> Result<(), RoutingError> {
        const GONE: RoutingError = RoutingError::InvalidState("the conversation no longer exists");
        let pair = &conversation.pair;
        let lock = self.webhooks.lock().await;
        // The conversation may have been changed since the caller read it.
        let now = self
            .store
            .conversations()
            .get(scope, pair.conversation)
            .await
            .map_err(RoutingError::Store)?;
        let now = now.ok_or(GONE)?.standing.routing;
        let to = to(now)?;
        self.check_target(to, &lock).await?;
        let (before, after) = (now.webhook(), to.webhook());
        let mut tell = Vec::new();
        if let (true, Some(number)) = (before != after, self.numbers.number_of(pair)) {
            for (webhook, kind) in
                [(before, "subscription.revoked"), (after, "subscription.activated")]
            {
                if let Some(webhook) = webhook {
                    let data = json!({"conversation": pair.conversation, "webhook": webhook, "user": pair.user.shown()});
                    // Each change is a separate event.
                    let once = Uuid::new_v4().to_string();
                    tell.push((
                        webhook,
                        self.events.draft(&number, kind, &[kind, &once], data, Vec::new()),
                    ));
                }
            }
        }
        let change = ConversationChange { routing: Some(to), ..ConversationChange::default() };
        let changed =
            self.store.conversations().change(scope, pair.conversation, change, tell).await;
        let (done, written) = changed.map_err(RoutingError::Store)?;
        if !done {
            return Err(GONE);
        }
        self.events.send_callbacks(written);
        self.feed.publish(pair.into(), FeedChange::Conversation(pair.conversation));
        drop(lock);
        self.agent_locks.wait(&pair.phone_number_id).await;
        Ok(())
    }

    /// Routes the conversation of one user, and creates it if necessary. The sandbox uses it.
    ///
    /// # Errors
    /// Fails if the webhook was removed or the store rejects the write. Nothing has changed then.
    pub async fn route_user(&self, pair: Pair, routing: Routing) -> Result<(), RoutingError> {
        let lock = self.lock_target(routing).await?;
        let opened =
            self.store.conversations().open(pair.clone(), routing, self.clock.wall()).await;
        opened.map_err(RoutingError::Store)?;
        self.feed.publish((&pair).into(), FeedChange::Conversation(pair.conversation));
        drop(lock);
        self.agent_locks.wait(&pair.phone_number_id).await;
        Ok(())
    }

    /// Records the new owners of numbers that moved. Call it after any change that may move a
    /// number.
    ///
    /// # Errors
    /// Returns an error if the store rejects a write. The previous owner's settings are not used in
    /// the meantime either.
    pub async fn claim(&self) -> Result<(), StoreError> {
        let numbers: Vec<Arc<NumberEntry>> = self.directory.tables().numbers().cloned().collect();
        for number in numbers {
            let before = self.numbers.owners_of(&number);
            if before.owner != number.account.auth_id {
                self.claim_one(&number, before).await?;
            }
        }
        Ok(())
    }

    /// Runs [`Self::claim`] in the background.
    pub fn spawn_claim(self: &Arc<Self>) {
        let router = self.clone();
        self.tasks.spawn(async move {
            if let Err(error) = router.claim().await {
                tracing::warn!(%error, "new owner of a number not recorded");
            }
        });
    }

    async fn claim_one(
        &self,
        number: &NumberEntry,
        before: NumberOwners,
    ) -> Result<(), StoreError> {
        let lock = self.webhooks.lock().await;
        let (id, owner) = (number.spec.first_id.clone(), number.account.auth_id.clone());
        if self
            .directory
            .tables()
            .by_number(&number.spec.number)
            .is_none_or(|now| now.account.auth_id != owner)
        {
            // The number has moved again; the later change records that.
            return Ok(());
        }
        let (routes, known) = (self.directory.message_routes(), !before.owner.as_str().is_empty());
        let kept = self.inherited_routing(number).await?;
        let claim = NumberTransfer {
            phone_number_id: id.clone(),
            owner: owner.clone(),
            before: before.clone(),
            kept,
            routing: kept.unwrap_or(ServedNumbers::unset_routing(number)),
        };
        let changed = self.store.numbers().transfer(claim).await?;
        if known && changed && kept.is_none() {
            routes.change_routings(|routings| {
                routings.remove(&id);
            });
        } else if known && !changed {
            // Another node recorded it first, and the new owner may have set a routing there.
            let routings = self.store.numbers().routings().await?;
            routes.change_routings(|all| *all = routings.iter().cloned().collect());
        }
        self.numbers.set_owners([(id.clone(), NumberOwners { owner, first: before.first })]);
        drop(lock);
        self.agent_locks.wait(&id).await;
        Ok(())
    }

    /// The previous routing, if its webhook or agent may also serve the new owner: those of a main
    /// account serve the numbers of its subaccounts.
    async fn inherited_routing(&self, number: &NumberEntry) -> Result<Option<Routing>, StoreError> {
        let routes = self.directory.message_routes();
        let set = routes.routing(&number.spec.first_id);
        let account = match set {
            Some(Routing::Webhook(Some(id))) => {
                routes.webhook(id).map(|webhook| webhook.account.clone())
            }
            Some(Routing::Agent(id)) => {
                let scope = Scope::Main(number.account.main().auth_id.clone());
                self.store.agents().get(&scope, id).await?.map(|agent| agent.account)
            }
            Some(Routing::Webhook(None) | Routing::None) | None => None,
        };
        Ok(set.filter(|_| account.is_some_and(|account| number.may_be_served_by(&account))))
    }
}
