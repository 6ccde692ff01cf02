//! Routing: who answers a number's new conversations and each existing one, and the customers'
//! webhooks. A change takes effect once it is stored.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::incoming::message_event_ids;
use super::{Inbox, WebhookSettings};
use crate::admission::{NumberEntry, Webhook, Webhooks};
use crate::feed::{Audience, FeedChange};
use model::Secret;
use model::{AuthId, Direction, Routing, Timestamp, stable_id};
use store::{
    Agent, Conversation, ConversationChange, ErasureCutoff, NewCallback, Pair, RoutingChange,
    Scope, StoreError, WebhookRow, WebhookWrite,
};
use xml::ast::DocUrl;

/// Maximum time that a change of routing waits for agents' answers that are being sent to Meta.
const AGENT_WAIT: Duration = Duration::from_secs(15);
/// Maximum number of webhooks per account.
const WEBHOOKS_MAX: usize = 100;
/// Maximum number of attempts to change a webhook while other nodes change it concurrently.
const TRIES: usize = 8;
/// Number of recent messages searched for the user's last one.
const READ_PAGE: u32 = 50;

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
type ChangeLock<'a> = tokio::sync::MutexGuard<'a, ()>;

/// The settings of a webhook to create or change.
#[derive(Clone, Debug)]
pub struct WebhookSpec {
    pub name: String,
    pub url: DocUrl,
}

impl Inbox {
    /// Loads the store, adds the webhooks of the configuration, and resumes the unfinished work of
    /// the previous process.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub async fn open(&self, file: &[WebhookSettings]) -> Result<(), StoreError> {
        self.count_files().await;
        self.refresh().await?;
        self.reload(file);
        self.warn_of_missing_webhooks();
        self.claim().await?;
        self.resume_interrupted().await
    }

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

    /// Replaces the webhooks of the configuration.
    pub fn reload(&self, file: &[WebhookSettings]) {
        let named: Webhooks =
            file.iter().map(of_file).map(|webhook| (webhook.id, Arc::new(webhook))).collect();
        self.parts().directory.mail().change_webhooks(|all| {
            all.retain(|_, webhook| !webhook.in_file);
            all.extend(named.clone());
        });
    }

    /// A scope's webhooks, newest first.
    pub fn webhooks(&self, scope: &Scope) -> Vec<Arc<Webhook>> {
        let all = self.parts().directory.mail().webhooks();
        let mut found: Vec<_> = all
            .values()
            .filter(|w| scope.holds(&w.account, &self.main_of(&w.account)))
            .cloned()
            .collect();
        found.sort_by_key(|webhook| (std::cmp::Reverse(webhook.created), webhook.id));
        found
    }

    fn main_of<'a>(&self, account: &'a AuthId) -> std::borrow::Cow<'a, AuthId> {
        let tables = self.parts().directory.tables();
        match tables.account(account).and_then(|entry| entry.parent.as_ref()) {
            Some(main) => std::borrow::Cow::Owned(main.auth_id.clone()),
            None => std::borrow::Cow::Borrowed(account),
        }
    }

    fn publish_webhook(&self, account: &AuthId, id: Uuid) {
        let main_account = self.main_of(account);
        let to = Audience::of(account, &main_account);
        self.parts().feed.publish(to, FeedChange::Webhook(id));
    }

    /// One of a scope's webhooks.
    pub fn webhook(&self, scope: &Scope, id: Uuid) -> Option<Arc<Webhook>> {
        let found = self.parts().directory.mail().webhook(id);
        found.filter(|webhook| scope.holds(&webhook.account, &self.main_of(&webhook.account)))
    }

    /// The named webhook, or the only one of the number's own account. A webhook serves the numbers
    /// of its account; a main account's webhook also serves those of its subaccounts.
    ///
    /// # Errors
    /// Fails if the webhook does not exist, or if none is named and the account does not have
    /// exactly one.
    pub fn webhook_or_only(
        &self,
        scope: &Scope,
        number: &NumberEntry,
        named: Option<Uuid>,
    ) -> Result<Arc<Webhook>, RoutingError> {
        match named {
            Some(id) => {
                let found = self
                    .webhook(scope, id)
                    .filter(|webhook| Self::may_serve(number, &webhook.account));
                found.ok_or(RoutingError::NoWebhook)
            }
            None => self.only_webhook(number).ok_or(RoutingError::WhichWebhook),
        }
    }

    /// The webhook of the number's own account, if it has exactly one. Webhooks of subaccounts
    /// don't count.
    fn only_webhook(&self, number: &NumberEntry) -> Option<Arc<Webhook>> {
        let all = self.parts().directory.mail().webhooks();
        let mut own = all.values().filter(|webhook| webhook.account == number.account.auth_id);
        let only = own.next()?;
        own.next().is_none().then(|| only.clone())
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

    async fn apply_routing(
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
    async fn lock_target(&self, routing: Routing) -> Result<ChangeLock<'_>, RoutingError> {
        let lock = self.0.changing.lock().await;
        self.check_target(routing, &lock).await?;
        Ok(lock)
    }

    async fn check_target(
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

    /// The numbers whose messages an agent answers.
    pub fn answered_by(&self, agent: Uuid) -> Vec<Arc<NumberEntry>> {
        let directory = &self.parts().directory;
        let routings = directory.mail().routings();
        let its = |n: &&Arc<NumberEntry>| {
            routings.get(&n.spec.mail_id).and_then(|r| r.agent()) == Some(agent)
        };
        directory.tables().numbers().filter(its).cloned().collect()
    }

    /// Waits for agents' answers that are being sent to Meta.
    pub async fn wait_for_agents(&self, number: &NumberEntry) {
        drop(self.pause_agents(&number.spec.mail_id).await);
    }

    /// Waits for agents' answers that are being sent to Meta, and delays further ones while the
    /// guard is held. `None` if they take longer than [`AGENT_WAIT`].
    pub(super) async fn pause_agents(
        &self,
        number: &model::PhoneNumberId,
    ) -> Option<tokio::sync::OwnedRwLockWriteGuard<()>> {
        tokio::time::timeout(AGENT_WAIT, self.routing_lock(number).write_owned()).await.ok()
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
    async fn reroute_one(
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

    /// Changes a conversation's state or routing. Returns `false` if its state does not allow the
    /// change.
    ///
    /// # Errors
    /// Returns an error if the store rejects the write. Nothing has changed then.
    pub async fn change(
        &self,
        scope: &Scope,
        pair: &Pair,
        change: ConversationChange,
    ) -> Result<bool, StoreError> {
        let silenced = change.ai_enabled == Some(false) || change.routing.is_some();
        let _held = if silenced { self.pause_agents(&pair.phone_number_id).await } else { None };
        let (done, _) = self
            .parts()
            .store
            .conversations()
            .change(scope, pair.conversation, change, Vec::new())
            .await?;
        if done {
            self.publish_conversation(pair.into(), pair.conversation);
        }
        Ok(done)
    }

    /// Marks the user's last message as read at Meta, in the background.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub async fn mark_last_read(
        &self,
        scope: &Scope,
        conversation: &Conversation,
    ) -> Result<(), StoreError> {
        let page = self
            .parts()
            .store
            .messages()
            .list(scope, conversation.pair.conversation, None, READ_PAGE)
            .await?;
        let last = page
            .into_iter()
            .find(|m| m.message.direction == Direction::Inbound && m.message.wamid.is_some());
        let (Some(wamid), Some(number)) =
            (last.and_then(|m| m.message.wamid), self.number_of(&conversation.pair))
        else {
            return Ok(());
        };
        let graph = self.parts().graph.clone();
        self.parts().tasks.spawn(async move {
            let spec = &number.spec;
            let messages = graph.messages(&spec.phone_number_id, spec.access_token.as_ref());
            if let Err(outcome) = messages.mark_read(&wamid).await {
                tracing::debug!(%outcome, "read receipt failed");
            }
        });
        Ok(())
    }

    /// Deletes a conversation with its messages and files. Returns `false` if it does not exist.
    ///
    /// # Errors
    /// Returns an error if the store rejects the write. Some of it may be deleted then.
    pub async fn delete(&self, scope: &Scope, pair: &Pair) -> Result<bool, StoreError> {
        // The files go first: without the rows, their names would be unknown.
        let (files, _) = self.files_of(scope, pair.conversation, Timestamp::MAX).await?;
        self.remove_files(files).await?;
        let done = self.parts().store.conversations().delete(scope, pair.conversation).await?;
        if done {
            self.publish_conversation(pair.into(), pair.conversation);
        }
        Ok(done)
    }

    /// Deletes the content of a conversation until `until`, including its files. Deletes the whole
    /// conversation if it has no newer content.
    ///
    /// # Errors
    /// Returns an error if the store rejects the write. Some of it may be deleted then.
    pub async fn delete_until(
        &self,
        scope: &Scope,
        pair: &Pair,
        until: ErasureCutoff,
    ) -> Result<(), StoreError> {
        let (files, late) = self.files_of(scope, pair.conversation, until.wall).await?;
        self.remove_files(files).await?;
        let told: Vec<Uuid> = late
            .into_iter()
            .flat_map(|message| message_event_ids(&pair.phone_number_id, message))
            .collect();
        self.parts().store.erasures().erase_events_by_id(pair.conversation, &told).await?;
        self.parts().store.erasures().erase_conversation(scope, pair.conversation, until).await?;
        self.publish_conversation(pair.into(), pair.conversation);
        Ok(())
    }

    /// Creates a webhook. The result contains its secret, which is shown only this once.
    ///
    /// # Errors
    /// Fails if the account has too many webhooks or the store fails.
    pub async fn make_webhook(
        &self,
        account: &AuthId,
        spec: WebhookSpec,
    ) -> Result<Arc<Webhook>, RoutingError> {
        let lock = self.0.changing.lock().await;
        let there = self
            .parts()
            .directory
            .mail()
            .webhooks()
            .values()
            .filter(|w| w.account == *account)
            .count();
        if there >= WEBHOOKS_MAX {
            return Err(RoutingError::TooMany);
        }
        let row = WebhookRow {
            id: Uuid::new_v4(),
            account: account.clone(),
            name: spec.name,
            url: spec.url.0.to_string(),
            secrets: vec![fresh_secret()],
            created: self.parts().clock.wall(),
            version: 0,
        };
        self.put_webhook(row, &lock).await?.ok_or(RoutingError::Store(StoreError::Contended))
    }

    /// Changes a webhook's name and URL. A URL of another origin (scheme, host or port) gets a new
    /// secret in place of the old ones, because the server there may belong to someone else. Returns
    /// the webhook, and whether its secret is new.
    ///
    /// # Errors
    /// Fails if the webhook does not exist or is defined in the configuration, or if the store
    /// fails.
    pub async fn change_webhook(
        &self,
        scope: &Scope,
        id: Uuid,
        spec: WebhookSpec,
    ) -> Result<(Arc<Webhook>, bool), RoutingError> {
        let mut is_elsewhere = false;
        let edit = |row: &mut WebhookRow| {
            is_elsewhere = !egress::is_same_origin(&row.url, &spec.url.0);
            if is_elsewhere {
                row.secrets = vec![fresh_secret()];
            }
            row.name.clone_from(&spec.name);
            row.url = spec.url.0.to_string();
        };
        Ok((self.edit_webhook(scope, id, edit).await?, is_elsewhere))
    }

    /// Moves the webhooks of a deleted account to `heir`, so that they remain visible and can be
    /// deleted.
    ///
    /// # Errors
    /// Returns an error if the store rejects a write. Some webhooks may have moved then.
    pub async fn inherit_webhooks(&self, gone: &AuthId, heir: &AuthId) -> Result<(), RoutingError> {
        let all = self.parts().store.webhooks().list().await.map_err(RoutingError::Store)?;
        for row in all.into_iter().filter(|row| row.account == *gone) {
            let edit = |row: &mut WebhookRow| row.account.clone_from(heir);
            self.edit_webhook(&Scope::of(gone.clone()), row.id, edit).await?;
        }
        Ok(())
    }

    /// Gives a webhook a new secret. Events are signed with both secrets until
    /// [`Inbox::end_rotation`].
    ///
    /// # Errors
    /// Fails if the webhook does not exist or is defined in the configuration, or if the store
    /// fails.
    pub async fn rotate_secret(
        &self,
        scope: &Scope,
        id: Uuid,
    ) -> Result<Arc<Webhook>, RoutingError> {
        let edit = |row: &mut WebhookRow| {
            row.secrets.insert(0, fresh_secret());
            row.secrets.truncate(2);
        };
        self.edit_webhook(scope, id, edit).await
    }

    /// Removes the older secret of a webhook.
    ///
    /// # Errors
    /// Fails if the webhook does not exist or is defined in the configuration, or if the store
    /// fails.
    pub async fn end_rotation(
        &self,
        scope: &Scope,
        id: Uuid,
    ) -> Result<Arc<Webhook>, RoutingError> {
        self.edit_webhook(scope, id, |row| row.secrets.truncate(1)).await
    }

    /// Deletes a webhook that is not in use. Its pending deliveries are given up.
    ///
    /// # Errors
    /// Fails if the webhook does not exist, is in use or is defined in the configuration, or if the
    /// store fails.
    pub async fn remove_webhook(&self, scope: &Scope, id: Uuid) -> Result<(), RoutingError> {
        let (row, _lock) = self.changeable(scope, id).await?;
        if !self
            .parts()
            .store
            .webhooks()
            .write(WebhookWrite::Remove(id))
            .await
            .map_err(RoutingError::Store)?
        {
            return Err(RoutingError::InUse);
        }
        self.parts().directory.mail().change_webhooks(|webhooks| drop(webhooks.remove(&id)));
        self.publish_webhook(&row.account, id);
        Ok(())
    }

    /// Sends a `test` event to a webhook.
    ///
    /// # Errors
    /// Fails if the webhook does not exist or the store fails.
    pub async fn test_webhook(&self, scope: &Scope, id: Uuid) -> Result<Uuid, RoutingError> {
        let webhook = self.webhook(scope, id).ok_or(RoutingError::NoWebhook)?;
        let event =
            self.account_event(&webhook.account, "test", json!({"webhook": id}), Uuid::new_v4());
        let event_id = event.event_id;
        let told = self
            .parts()
            .store
            .outbox()
            .add_event(event.event_for(id, id))
            .await
            .map_err(RoutingError::Store)?;
        self.send_callbacks(told.into_iter().collect());
        Ok(event_id)
    }

    /// Takes the lock and returns the row of a webhook.
    async fn changeable(
        &self,
        scope: &Scope,
        id: Uuid,
    ) -> Result<(WebhookRow, ChangeLock<'_>), RoutingError> {
        let lock = self.0.changing.lock().await;
        if self.webhook(scope, id).is_some_and(|webhook| webhook.in_file) {
            return Err(RoutingError::InFile);
        }
        // Another node may have changed the webhook since this one has read it.
        let all = self.parts().store.webhooks().list().await.map_err(RoutingError::Store)?;
        let row = all.into_iter().find(|row| row.id == id);
        let row = row.filter(|row| scope.holds(&row.account, &self.main_of(&row.account)));
        Ok((row.ok_or(RoutingError::NoWebhook)?, lock))
    }

    /// Changes the row of a webhook. `edit` is called again if another node changes the row in
    /// between.
    async fn edit_webhook(
        &self,
        scope: &Scope,
        id: Uuid,
        mut edit: impl FnMut(&mut WebhookRow),
    ) -> Result<Arc<Webhook>, RoutingError> {
        for _ in 0..TRIES {
            let (mut row, lock) = self.changeable(scope, id).await?;
            edit(&mut row);
            if let Some(webhook) = self.put_webhook(row, &lock).await? {
                return Ok(webhook);
            }
        }
        Err(RoutingError::Store(StoreError::Contended))
    }

    /// Stores a webhook. Returns `None` if another node has changed it since the row was read.
    async fn put_webhook(
        &self,
        row: WebhookRow,
        _lock: &ChangeLock<'_>,
    ) -> Result<Option<Arc<Webhook>>, RoutingError> {
        let put = self.parts().store.webhooks().write(WebhookWrite::Put(row.clone())).await;
        if !put.map_err(RoutingError::Store)? {
            return Ok(None);
        }
        let webhook = Arc::new(of_row(row));
        let mail = self.parts().directory.mail();
        mail.change_webhooks(|webhooks| drop(webhooks.insert(webhook.id, webhook.clone())));
        self.publish_webhook(&webhook.account, webhook.id);
        Ok(Some(webhook))
    }

    /// Returns the webhook for events that belong to no conversation: the number's webhook, or the
    /// only one of its account.
    pub fn webhook_of(&self, number: &NumberEntry) -> Option<Uuid> {
        let default = self.routing_of(number).webhook();
        default.or_else(|| self.only_webhook(number).map(|webhook| webhook.id))
    }

    /// Builds an event of a number for its webhook, such as `number.changed`. `None` if it has no
    /// webhook; `data` is not called then. Events with the same `order` are delivered in order.
    pub fn number_event(
        &self,
        number: &NumberEntry,
        kind: &str,
        of: &[&str],
        data: impl FnOnce() -> Value,
        order: Uuid,
    ) -> Option<NewCallback> {
        let webhook = self.webhook_of(number)?;
        Some(self.draft(number, kind, of, data(), Vec::new()).event_for(webhook, order))
    }

    /// Sends an event to a number's webhook, if it has one. Returns before the event is stored.
    pub fn notify_number(&self, number: &NumberEntry, kind: &str, data: Value) {
        let once = Uuid::new_v4().to_string();
        let order = stable_id("number", &[number.spec.mail_id.as_str()]);
        if let Some(event) = self.number_event(number, kind, &[kind, &once], || data, order) {
            self.send_event(event);
        }
    }

    pub(super) fn send_event(&self, event: NewCallback) {
        let inbox = self.clone();
        let written = self.parts().store.outbox().insert(event);
        self.parts().tasks.spawn(async move {
            match written.await {
                Ok(written) => inbox.send_callbacks(vec![written]),
                Err(StoreError::Journalled) => {}
                Err(error) => tracing::error!(%error, "event not stored"),
            }
        });
    }

    fn account_event(
        &self,
        account: &AuthId,
        kind: &str,
        data: Value,
        id: Uuid,
    ) -> store::EventDraft {
        let parts = self.parts();
        store::EventDraft {
            event_id: id,
            account: account.clone(),
            main_account: self.main_of(account).into_owned(),
            node_id: parts.node_id.clone(),
            created: parts.clock.steady(),
            event: kind.to_owned(),
            body: super::words::event(id, kind, parts.clock.wall(), account, None, data),
            form: None,
        }
    }
}

fn fresh_secret() -> Secret {
    Secret::new(format!("whsec_{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()))
}

fn of_row(row: WebhookRow) -> Webhook {
    Webhook {
        id: row.id,
        account: row.account,
        name: row.name,
        url: DocUrl(row.url.as_str().into()),
        secrets: row.secrets.into(),
        created: row.created,
        in_file: false,
    }
}

fn of_file(webhook: &WebhookSettings) -> Webhook {
    let secrets: Vec<Secret> =
        std::iter::once(&webhook.secret).chain(&webhook.secret_previous).cloned().collect();
    Webhook {
        id: webhook.id(),
        account: webhook.account.clone(),
        name: webhook.name.clone(),
        url: webhook.url.clone(),
        secrets: secrets.into(),
        created: model::Timestamp::default(),
        in_file: true,
    }
}
