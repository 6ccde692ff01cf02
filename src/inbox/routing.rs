//! Who gets what: a number's routing for conversations to come, a conversation's own, and the webhooks themselves
//! (`number-api.md` §2, seed 004). Written first, then in force.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::incoming::came_ids;
use super::{Inbox, WebhookSettings};
use crate::admission::{NumberEntry, Webhook, Webhooks};
use crate::feed::FeedChange;
use model::Secret;
use model::{AuthId, Direction, Routing, Timestamp, stable_id};
use store::{
    Agent, Conversation, ConversationChange, NewCallback, Pair, Reroute, Scope, StoreError, Until,
    WebhookRow, WebhookWrite,
};
use xml::ast::DocUrl;

/// How long a change of routing waits for an agent's answer that is on its way to Meta.
const GATE: Duration = Duration::from_secs(15);
/// Webhooks of one account.
const WEBHOOKS_MAX: usize = 100;
/// Messages looked at for the user's last one.
const READ_PAGE: u32 = 50;

/// Why routing did not change.
#[derive(Debug)]
pub enum NotRouted {
    /// The scope has no such webhook.
    NoWebhook,
    /// There are several webhooks, or none: one has to be named.
    WhichWebhook,
    /// It is not in a state for it.
    Not(&'static str),
    /// There are as many as there may be.
    TooMany,
    /// It stands in the configuration, and changes only there.
    InFile,
    /// Numbers or conversations go to it: without it nobody would hear of them.
    InUse,
    /// There is no such agent, or none any more.
    NoAgent,
    /// An agent that answers there.
    Answers(String),
    Store(StoreError),
}

/// The turn to change webhooks or routing.
type Changing<'a> = tokio::sync::MutexGuard<'a, ()>;

/// A webhook that is to be, or how it is to be from now on.
#[derive(Clone, Debug)]
pub struct WebhookOrder {
    pub name: String,
    pub url: DocUrl,
}

impl Inbox {
    /// Reads what the store has, beside the configuration's webhooks; ends what an earlier process left.
    ///
    /// # Errors
    /// The store's.
    pub async fn open(&self, file: &[WebhookSettings]) -> Result<(), StoreError> {
        let parts = self.parts();
        self.count_files().await;
        let routings = parts.store.numbers().routings().await?;
        parts.directory.mail().change_routings(|all| *all = routings.iter().cloned().collect());
        self.0.tenures.read(parts.store.numbers().owners().await?);
        let rows: Webhooks = parts
            .store
            .webhooks()
            .list()
            .await?
            .into_iter()
            .map(|row| (row.id, Arc::new(of_row(row))))
            .collect();
        parts.directory.mail().change_webhooks(|all| *all = rows.clone());
        self.reload(file);
        self.warn_of_dropped();
        self.claim().await?;
        self.take_up_what_was_left().await
    }

    /// The configuration's webhooks are these from now on.
    pub fn reload(&self, file: &[WebhookSettings]) {
        let named: Webhooks =
            file.iter().map(of_file).map(|webhook| (webhook.id, Arc::new(webhook))).collect();
        self.parts().directory.mail().change_webhooks(|all| {
            all.retain(|_, webhook| !webhook.in_file);
            all.extend(named.clone());
        });
    }

    /// A scope's webhooks, the newest first.
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

    /// One of a scope's webhooks.
    pub fn webhook(&self, scope: &Scope, id: Uuid) -> Option<Arc<Webhook>> {
        let found = self.parts().directory.mail().webhook(id);
        found.filter(|webhook| scope.holds(&webhook.account, &self.main_of(&webhook.account)))
    }

    /// The webhook that is named, or the only one that the number's account has itself. It serves numbers of its own
    /// account, and a main account's serves its subaccounts' numbers.
    ///
    /// # Errors
    /// There is no such one, or not just one.
    pub fn webhook_or_only(
        &self,
        scope: &Scope,
        number: &NumberEntry,
        named: Option<Uuid>,
    ) -> Result<Arc<Webhook>, NotRouted> {
        match named {
            Some(id) => {
                let found = self
                    .webhook(scope, id)
                    .filter(|webhook| Self::may_serve(number, &webhook.account));
                found.ok_or(NotRouted::NoWebhook)
            }
            None => self.only_webhook(number).ok_or(NotRouted::WhichWebhook),
        }
    }

    /// The webhook of a number's account, where it has just one: not its subaccounts' among them.
    fn only_webhook(&self, number: &NumberEntry) -> Option<Arc<Webhook>> {
        let all = self.parts().directory.mail().webhooks();
        let mut own = all.values().filter(|webhook| webhook.account == number.account.auth_id);
        let only = own.next()?;
        own.next().is_none().then(|| only.clone())
    }

    /// Changes a number's routing, and with `all` that of its conversations: both or neither, and no answer of an agent is
    /// sent after this.
    ///
    /// # Errors
    /// Its webhook was removed meanwhile; or the store takes nothing now. Nothing has changed.
    pub async fn route_number(
        &self,
        number: &NumberEntry,
        routing: Routing,
        all: bool,
    ) -> Result<(), NotRouted> {
        // Else it would go with what the former owner had set.
        self.claim().await.map_err(NotRouted::Store)?;
        let turn = self.turn_for(routing).await?;
        self.put_routing(number, routing, all, &turn).await
    }

    async fn put_routing(
        &self,
        number: &NumberEntry,
        routing: Routing,
        all: bool,
        _turn: &Changing<'_>,
    ) -> Result<(), NotRouted> {
        let id = &number.spec.mail_id;
        let _held = self.hold(id).await;
        let (digits, parts) = (number.spec.number.clone(), self.parts());
        let (account, before) = (number.account.auth_id.clone(), self.routing_of(number));
        let reroute = Reroute { phone_number_id: id.clone(), account, routing, all };
        parts.store.numbers().set_routing(reroute).await.map_err(NotRouted::Store)?;
        parts.directory.mail().change_routings(|routings| {
            routings.insert(id.clone(), routing);
        });
        parts.feed.tell(&number.account.main().auth_id, FeedChange::Number(digits));
        if let Some(told) = self.0.told.get() {
            told(self, number, before, routing);
        }
        Ok(())
    }

    /// The turn to route something to where it is to go; its webhook or agent stays until the turn is over.
    async fn turn_for(&self, routing: Routing) -> Result<Changing<'_>, NotRouted> {
        let turn = self.0.changing.lock().await;
        self.is_there(routing, &turn).await?;
        Ok(turn)
    }

    async fn is_there(&self, routing: Routing, _turn: &Changing<'_>) -> Result<(), NotRouted> {
        if routing.webhook().is_some_and(|id| self.parts().directory.mail().webhook(id).is_none()) {
            return Err(NotRouted::NoWebhook);
        }
        if let Some(agent) = routing.agent()
            && !self.parts().store.agents().exists(agent).await.map_err(NotRouted::Store)?
        {
            return Err(NotRouted::NoAgent);
        }
        Ok(())
    }

    /// Removes an agent; where it answered nobody does from then on. `false`: there is none of that id any more.
    ///
    /// # Errors
    /// It answers somewhere and `force` is not given; or the store's.
    pub async fn remove_agent(
        &self,
        scope: &Scope,
        agent: &Agent,
        force: bool,
    ) -> Result<bool, NotRouted> {
        // Nothing is routed to it meanwhile.
        let turn = self.0.changing.lock().await;
        let numbers = self.answered_by(agent.id);
        let store = &self.parts().store;
        if !force {
            let names: Vec<_> = numbers.iter().map(|number| number.spec.number.as_str()).collect();
            if !names.is_empty() {
                return Err(NotRouted::Answers(names.join(", ")));
            }
            if store.agents().is_in_use(agent.id).await.map_err(NotRouted::Store)? {
                return Err(NotRouted::Answers("in conversations".to_owned()));
            }
        }
        for number in numbers {
            self.put_routing(&number, Routing::None, false, &turn).await?;
        }
        let gone = store.agents().delete(scope, agent.id).await.map_err(NotRouted::Store)?;
        if gone {
            self.parts().feed.tell(&agent.main_account, FeedChange::Agent(agent.id));
        }
        Ok(gone)
    }

    /// Numbers whose messages an agent answers.
    pub fn answered_by(&self, agent: Uuid) -> Vec<Arc<NumberEntry>> {
        let directory = &self.parts().directory;
        let routings = directory.mail().routings();
        let its = |n: &&Arc<NumberEntry>| {
            routings.get(&n.spec.mail_id).and_then(|r| r.agent()) == Some(agent)
        };
        directory.tables().numbers().filter(its).cloned().collect()
    }

    /// Waits for agents' answers that are on their way to Meta: none that was begun before is sent after this.
    pub async fn quiet(&self, number: &NumberEntry) {
        drop(self.hold(&number.spec.mail_id).await);
    }

    /// Waits for agents' answers that are on their way to Meta, and lets no further one begin.
    pub(super) async fn hold(
        &self,
        number: &model::PhoneNumberId,
    ) -> Option<tokio::sync::OwnedRwLockWriteGuard<()>> {
        tokio::time::timeout(GATE, self.gate(number).write_owned()).await.ok()
    }

    /// This conversation alone goes to a webhook from now on; the webhook is told, and the one before it.
    ///
    /// # Errors
    /// The store's, or there is no such conversation any more.
    pub async fn subscribe(
        &self,
        scope: &Scope,
        conversation: &Conversation,
        webhook: Uuid,
    ) -> Result<(), NotRouted> {
        self.reroute_one(scope, conversation, |_| Ok(Routing::Webhook(Some(webhook)))).await
    }

    /// This conversation alone goes where the number's go from now on, but not to this webhook.
    ///
    /// # Errors
    /// It goes to no webhook; or the store's.
    pub async fn unsubscribe(
        &self,
        scope: &Scope,
        number: &NumberEntry,
        conversation: &Conversation,
    ) -> Result<(), NotRouted> {
        self.reroute_one(scope, conversation, |now| {
            if now.webhook().is_none() {
                return Err(NotRouted::Not("this conversation is not subscribed to a webhook"));
            }
            let default = self.routing_of(number);
            Ok(if default == now { Routing::None } else { default })
        })
        .await
    }

    /// One conversation's routing changes. `to`: to what, by what it is now.
    ///
    /// # Errors
    /// The store's, or there is no such conversation any more.
    async fn reroute_one(
        &self,
        scope: &Scope,
        conversation: &Conversation,
        to: impl FnOnce(Routing) -> Result<Routing, NotRouted>,
    ) -> Result<(), NotRouted> {
        const GONE: NotRouted = NotRouted::Not("there is no such conversation any more");
        let pair = &conversation.pair;
        let turn = self.0.changing.lock().await;
        // Another may have routed it since it was read, and has told so.
        let now = self
            .parts()
            .store
            .conversations()
            .get(scope, pair.conversation)
            .await
            .map_err(NotRouted::Store)?;
        let now = now.ok_or(GONE)?.standing.routing;
        let to = to(now)?;
        self.is_there(to, &turn).await?;
        let (before, after) = (now.webhook(), to.webhook());
        let _held = self.hold(&pair.phone_number_id).await;
        let mut tell = Vec::new();
        if let (true, Some(number)) = (before != after, self.number_of(pair)) {
            for (webhook, kind) in
                [(before, "subscription.revoked"), (after, "subscription.activated")]
            {
                if let Some(webhook) = webhook {
                    let data = json!({"conversation": pair.conversation, "webhook": webhook, "user": pair.user.shown()});
                    // Each is another event.
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
        let (done, written) = changed.map_err(NotRouted::Store)?;
        if !done {
            return Err(GONE);
        }
        self.hand_on(written);
        self.tell_conversation(&pair.main_account, pair.conversation);
        Ok(())
    }

    /// A sandbox's asking user's conversation goes there from now on, also where there is none yet; everybody else's stay.
    ///
    /// # Errors
    /// Its webhook was removed meanwhile; or the store takes nothing now. Nothing has changed.
    pub async fn route_user(&self, pair: Pair, routing: Routing) -> Result<(), NotRouted> {
        let _turn = self.turn_for(routing).await?;
        let _held = self.hold(&pair.phone_number_id).await;
        let (main, conversation) = (pair.main_account.clone(), pair.conversation);
        let opened =
            self.parts().store.conversations().open(pair, routing, self.parts().clock.wall()).await;
        opened.map_err(NotRouted::Store)?;
        self.tell_conversation(&main, conversation);
        Ok(())
    }

    /// Changes a conversation's state, or who answers. `false`: it is not in a state for it.
    ///
    /// # Errors
    /// The store takes nothing now; nothing has changed.
    pub async fn change(
        &self,
        scope: &Scope,
        pair: &Pair,
        change: ConversationChange,
    ) -> Result<bool, StoreError> {
        let silenced = change.ai_enabled == Some(false) || change.routing.is_some();
        let _held = if silenced { self.hold(&pair.phone_number_id).await } else { None };
        let (done, _) = self
            .parts()
            .store
            .conversations()
            .change(scope, pair.conversation, change, Vec::new())
            .await?;
        if done {
            self.tell_conversation(&pair.main_account, pair.conversation);
        }
        Ok(done)
    }

    /// The user sees that their last message was read; returns at once.
    ///
    /// # Errors
    /// The store's.
    pub async fn tell_read(
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
            if let Err(outcome) =
                graph.mark_read(&spec.phone_number_id, spec.access_token.as_ref(), &wamid).await
            {
                tracing::debug!(?outcome, "Meta was not told that a message was read");
            }
        });
        Ok(())
    }

    /// Deletes a conversation, its messages and its files. `false`: there is none of that id.
    ///
    /// # Errors
    /// The store takes nothing now; some of it may be gone.
    pub async fn delete(&self, scope: &Scope, pair: &Pair) -> Result<bool, StoreError> {
        // The files first: once the rows are gone nothing tells which they were.
        let (files, _) = self.files_of(scope, pair.conversation, Timestamp::MAX).await?;
        self.0.shelf.remove(files).await;
        let done = self.parts().store.conversations().delete(scope, pair.conversation).await?;
        if done {
            self.tell_conversation(&pair.main_account, pair.conversation);
        }
        Ok(done)
    }

    /// Deletes what a conversation holds that came until then, with its files; all of it, if nothing came later.
    ///
    /// # Errors
    /// The store takes nothing now; some of it may be gone.
    pub async fn delete_until(
        &self,
        scope: &Scope,
        pair: &Pair,
        until: Until,
    ) -> Result<(), StoreError> {
        let (files, late) = self.files_of(scope, pair.conversation, until.wall).await?;
        self.0.shelf.remove(files).await;
        let told: Vec<Uuid> =
            late.into_iter().flat_map(|message| came_ids(&pair.phone_number_id, message)).collect();
        self.parts().store.erasures().erase_events_by_id(pair.conversation, &told).await?;
        self.parts().store.erasures().erase_conversation(scope, pair.conversation, until).await?;
        self.tell_conversation(&pair.main_account, pair.conversation);
        Ok(())
    }

    /// Makes a webhook; gives it with its secret, which is shown this once.
    ///
    /// # Errors
    /// There are too many, or the store's.
    pub async fn make_webhook(
        &self,
        account: &AuthId,
        order: WebhookOrder,
    ) -> Result<Arc<Webhook>, NotRouted> {
        let turn = self.0.changing.lock().await;
        let there = self
            .parts()
            .directory
            .mail()
            .webhooks()
            .values()
            .filter(|w| w.account == *account)
            .count();
        if there >= WEBHOOKS_MAX {
            return Err(NotRouted::TooMany);
        }
        let row = WebhookRow {
            id: Uuid::new_v4(),
            account: account.clone(),
            name: order.name,
            url: order.url.0.to_string(),
            secrets: vec![fresh_secret()],
            created: self.parts().clock.wall(),
        };
        self.put_webhook(row, &turn).await
    }

    /// Changes a webhook's name and URL.
    ///
    /// # Errors
    /// There is no such one, it stands in the configuration, or the store's.
    pub async fn change_webhook(
        &self,
        scope: &Scope,
        id: Uuid,
        order: WebhookOrder,
    ) -> Result<Arc<Webhook>, NotRouted> {
        let (row, turn) = self.changeable(scope, id).await?;
        self.put_webhook(
            WebhookRow { name: order.name, url: order.url.0.to_string(), ..row },
            &turn,
        )
        .await
    }

    /// An account is gone: its webhooks are its heir's from now on, or nobody could see or remove them.
    ///
    /// # Errors
    /// The store takes nothing now; some may be the heir's already.
    pub async fn inherit_webhooks(&self, gone: &AuthId, heir: &AuthId) -> Result<(), NotRouted> {
        let turn = self.0.changing.lock().await;
        let all = self.parts().directory.mail().webhooks();
        for webhook in all.values().filter(|webhook| webhook.account == *gone && !webhook.in_file) {
            self.put_webhook(WebhookRow { account: heir.clone(), ..row_of(webhook) }, &turn)
                .await?;
        }
        Ok(())
    }

    /// Gives a webhook a fresh secret; the one before it signs too until [`Inbox::end_rotation`].
    ///
    /// # Errors
    /// There is no such one, it stands in the configuration, or the store's.
    pub async fn rotate_secret(&self, scope: &Scope, id: Uuid) -> Result<Arc<Webhook>, NotRouted> {
        let (mut row, turn) = self.changeable(scope, id).await?;
        row.secrets.insert(0, fresh_secret());
        row.secrets.truncate(2);
        self.put_webhook(row, &turn).await
    }

    /// Only the newest secret signs from now on.
    ///
    /// # Errors
    /// There is no such one, it stands in the configuration, or the store's.
    pub async fn end_rotation(&self, scope: &Scope, id: Uuid) -> Result<Arc<Webhook>, NotRouted> {
        let (mut row, turn) = self.changeable(scope, id).await?;
        row.secrets.truncate(1);
        self.put_webhook(row, &turn).await
    }

    /// Takes a webhook away that nothing goes to. What waits for it is given up.
    ///
    /// # Errors
    /// There is no such one, it is in use, it stands in the configuration, or the store's.
    pub async fn remove_webhook(&self, scope: &Scope, id: Uuid) -> Result<(), NotRouted> {
        let (row, _turn) = self.changeable(scope, id).await?;
        if !self
            .parts()
            .store
            .webhooks()
            .write(WebhookWrite::Remove(id))
            .await
            .map_err(NotRouted::Store)?
        {
            return Err(NotRouted::InUse);
        }
        self.parts().directory.mail().change_webhooks(|webhooks| drop(webhooks.remove(&id)));
        self.parts().feed.tell(&self.main_of(&row.account), FeedChange::Webhook(id));
        Ok(())
    }

    /// Sends a webhook a `test` event.
    ///
    /// # Errors
    /// There is no such one, or the store's.
    pub async fn test_webhook(&self, scope: &Scope, id: Uuid) -> Result<Uuid, NotRouted> {
        let webhook = self.webhook(scope, id).ok_or(NotRouted::NoWebhook)?;
        let event =
            self.account_event(&webhook.account, "test", json!({"webhook": id}), Uuid::new_v4());
        let event_id = event.event_id;
        let told = self
            .parts()
            .store
            .outbox()
            .add_event(event.event_for(id, id))
            .await
            .map_err(NotRouted::Store)?;
        self.hand_on(told.into_iter().collect());
        Ok(event_id)
    }

    /// A webhook as it is, and the turn to change it: nobody else does meanwhile.
    async fn changeable(
        &self,
        scope: &Scope,
        id: Uuid,
    ) -> Result<(WebhookRow, Changing<'_>), NotRouted> {
        let turn = self.0.changing.lock().await;
        let webhook = self.webhook(scope, id).ok_or(NotRouted::NoWebhook)?;
        if webhook.in_file {
            return Err(NotRouted::InFile);
        }
        Ok((row_of(&webhook), turn))
    }

    async fn put_webhook(
        &self,
        row: WebhookRow,
        _turn: &Changing<'_>,
    ) -> Result<Arc<Webhook>, NotRouted> {
        self.parts()
            .store
            .webhooks()
            .write(WebhookWrite::Put(row.clone()))
            .await
            .map_err(NotRouted::Store)?;
        let webhook = Arc::new(of_row(row));
        let mail = self.parts().directory.mail();
        mail.change_webhooks(|webhooks| drop(webhooks.insert(webhook.id, webhook.clone())));
        self.parts().feed.tell(&self.main_of(&webhook.account), FeedChange::Webhook(webhook.id));
        Ok(webhook)
    }

    /// Where events go that are no conversation's: the number's webhook, else the account's only one.
    pub fn webhook_of(&self, number: &NumberEntry) -> Option<Uuid> {
        let default = self.routing_of(number).webhook();
        default.or_else(|| self.only_webhook(number).map(|webhook| webhook.id))
    }

    /// An event of a number's, for its webhook, if it has one: `number.changed`, `permission.changed`. `order`: events
    /// with the same one go out in order. Most numbers have none: `data` is put together only where one hears it.
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

    /// Tells a number's webhook, if it has one. Returns at once; in the outbox a moment later.
    pub fn tell_number(&self, number: &NumberEntry, kind: &str, data: Value) {
        let once = Uuid::new_v4().to_string();
        let order = stable_id("number", &[number.spec.mail_id.as_str()]);
        if let Some(event) = self.number_event(number, kind, &[kind, &once], || data, order) {
            self.tell_soon(event);
        }
    }

    pub(super) fn tell_soon(&self, event: NewCallback) {
        let inbox = self.clone();
        let written = self.parts().store.outbox().add(event);
        self.parts().tasks.spawn(async move {
            match written.await {
                Ok(written) => inbox.hand_on(vec![written]),
                Err(StoreError::Journalled) => {}
                Err(error) => tracing::error!(%error, "an event could not be written"),
            }
        });
    }

    fn account_event(&self, account: &AuthId, kind: &str, data: Value, id: Uuid) -> store::Draft {
        let parts = self.parts();
        store::Draft {
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

/// As the store keeps it.
fn row_of(webhook: &Webhook) -> WebhookRow {
    WebhookRow {
        id: webhook.id,
        account: webhook.account.clone(),
        name: webhook.name.clone(),
        url: webhook.url.0.to_string(),
        secrets: webhook.secrets.to_vec(),
        created: webhook.created,
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
