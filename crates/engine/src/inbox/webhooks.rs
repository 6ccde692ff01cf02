//! Webhooks of customers: those of the configuration, and those that people created.
//!
//! A changed configuration may no longer contain a webhook that numbers or conversations still use.
//! Its events would be lost: a reload refuses such a configuration, just as the console refuses
//! to delete such a webhook. A start only logs a warning, and `doctor` reports the problem.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;

use super::events::WebhookEvents;
use super::numbers::ServedNumbers;
use super::routing::RoutingError;
use crate::admission::{Directory, NumberEntry, Webhook, Webhooks};
use crate::feed::{Audience, Feed, FeedChange};
use model::{AuthId, Clock, E164, Secret, stable_id};
use store::{Scope, Store, StoreError, WebhookRow, WebhookWrite};
use xml::ast::DocUrl;

/// Maximum number of webhooks per account.
const WEBHOOKS_MAX: usize = 100;
/// Maximum number of attempts to change a webhook while other nodes change it concurrently.
const TRIES: usize = 8;

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

/// The settings of a webhook to create or change.
#[derive(Clone, Debug)]
pub struct WebhookSpec {
    pub name: String,
    pub url: DocUrl,
}

/// A webhook missing from the new configuration, and its uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MissingWebhook {
    pub name: String,
    /// Numbers whose new conversations go to it.
    pub numbers: BTreeSet<String>,
    /// Numbers with existing conversations that go to it.
    pub conversations: BTreeSet<String>,
}

impl MissingWebhook {
    /// Describes the uses, for error messages.
    pub fn uses(&self) -> String {
        let some = |what: &str, numbers: &BTreeSet<String>| {
            let named: Vec<&str> = numbers.iter().map(String::as_str).take(10).collect();
            let more = if numbers.len() > named.len() { ", …" } else { "" };
            (!named.is_empty()).then(|| format!("{what} {}{more}", named.join(", ")))
        };
        let all = [
            some("new conversations of", &self.numbers),
            some("conversations of", &self.conversations),
        ];
        all.into_iter().flatten().collect::<Vec<_>>().join(" and ")
    }
}

/// The lock that serializes changes of webhooks and of routing to them.
pub(super) type ChangeLock<'a> = tokio::sync::MutexGuard<'a, ()>;

/// The webhooks of all accounts.
pub struct CustomerWebhooks {
    pub(super) store: Store,
    pub(super) directory: Arc<Directory>,
    pub(super) clock: Clock,
    pub(super) feed: Feed,
    pub(super) numbers: Arc<ServedNumbers>,
    pub(super) events: Arc<WebhookEvents>,
    /// See [`ChangeLock`].
    pub(super) changing: tokio::sync::Mutex<()>,
}

impl CustomerWebhooks {
    /// Delays changes of webhooks while the guard is held.
    pub(super) async fn lock(&self) -> ChangeLock<'_> {
        self.changing.lock().await
    }

    /// Loads the stored webhooks. Other nodes may have changed them.
    pub(super) async fn load(&self, _lock: &ChangeLock<'_>) -> Result<(), StoreError> {
        let rows = self.store.webhooks().list().await?;
        let stored: Webhooks =
            rows.into_iter().map(|row| (row.id, Arc::new(of_row(row)))).collect();
        self.directory.message_routes().change_webhooks(|all| {
            all.retain(|_, webhook| webhook.in_file);
            // A webhook of the configuration takes precedence.
            stored.iter().for_each(|(id, webhook)| {
                all.entry(*id).or_insert_with(|| webhook.clone());
            });
        });
        Ok(())
    }

    /// Replaces the webhooks of the configuration.
    pub fn replace_configured(&self, file: &[WebhookSettings]) {
        let named: Webhooks =
            file.iter().map(of_file).map(|webhook| (webhook.id, Arc::new(webhook))).collect();
        self.directory.message_routes().change_webhooks(|all| {
            all.retain(|_, webhook| !webhook.in_file);
            all.extend(named.clone());
        });
    }

    /// A scope's webhooks, newest first.
    pub fn list(&self, scope: &Scope) -> Vec<Arc<Webhook>> {
        let all = self.directory.message_routes().webhooks();
        let mut found: Vec<_> = all
            .values()
            .filter(|w| scope.holds(&w.account, &self.numbers.main_of(&w.account)))
            .cloned()
            .collect();
        found.sort_by_key(|webhook| (std::cmp::Reverse(webhook.created), webhook.id));
        found
    }

    /// One of a scope's webhooks.
    pub fn get(&self, scope: &Scope, id: Uuid) -> Option<Arc<Webhook>> {
        let found = self.directory.message_routes().webhook(id);
        found.filter(|webhook| {
            scope.holds(&webhook.account, &self.numbers.main_of(&webhook.account))
        })
    }

    /// The named webhook, or the only one of the number's account or its main account. A webhook serves the numbers
    /// of its account; a main account's webhook also serves those of its subaccounts.
    ///
    /// # Errors
    /// Fails if the webhook does not exist, or if none is named and the account does not have
    /// exactly one.
    pub fn get_or_only(
        &self,
        scope: &Scope,
        number: &NumberEntry,
        named: Option<Uuid>,
    ) -> Result<Arc<Webhook>, RoutingError> {
        match named {
            Some(id) => {
                let found =
                    self.get(scope, id).filter(|webhook| number.may_be_served_by(&webhook.account));
                found.ok_or(RoutingError::NoWebhook)
            }
            None => self.numbers.only_webhook(number).ok_or(RoutingError::WhichWebhook),
        }
    }

    /// Creates a webhook. The result contains its secret, which is shown only this once.
    ///
    /// # Errors
    /// Fails if the account has too many webhooks or one of this name, or if the store fails.
    pub async fn create(
        &self,
        account: &AuthId,
        spec: WebhookSpec,
    ) -> Result<Arc<Webhook>, RoutingError> {
        let lock = self.lock().await;
        let there = self
            .directory
            .message_routes()
            .webhooks()
            .values()
            .filter(|w| w.account == *account)
            .count();
        if there >= WEBHOOKS_MAX {
            return Err(RoutingError::TooMany);
        }
        let stored = self.store.webhooks().list().await.map_err(RoutingError::Store)?;
        self.check_name(&stored, account, &spec.name)?;
        let row = WebhookRow {
            id: Uuid::new_v4(),
            account: account.clone(),
            name: spec.name,
            url: spec.url.0.to_string(),
            secrets: vec![fresh_secret()],
            created: self.clock.wall(),
            version: 0,
        };
        self.put(row, &lock).await?.ok_or(RoutingError::Store(StoreError::Contended))
    }

    /// Changes a webhook's name and URL. A URL of another origin (scheme, host or port) gets a new
    /// secret in place of the old ones, because the server there may belong to someone else.
    /// Returns the webhook, and whether its secret is new.
    ///
    /// # Errors
    /// Fails if the webhook does not exist or is defined in the configuration, if another one of the
    /// account has the new name, or if the store fails.
    pub async fn change(
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
        Ok((self.edit(scope, id, edit).await?, is_elsewhere))
    }

    /// Moves the webhooks of a deleted account to `heir`, so that they remain visible and can be
    /// deleted.
    ///
    /// # Errors
    /// Returns an error if the store rejects a write. Some webhooks may have moved then.
    pub async fn inherit(&self, gone: &AuthId, heir: &AuthId) -> Result<(), RoutingError> {
        let all = self.store.webhooks().list().await.map_err(RoutingError::Store)?;
        for row in all.into_iter().filter(|row| row.account == *gone) {
            let edit = |row: &mut WebhookRow| row.account.clone_from(heir);
            self.edit(&Scope::of(gone.clone()), row.id, edit).await?;
        }
        Ok(())
    }

    /// Gives a webhook a new secret. Events are signed with both secrets until
    /// [`Self::end_rotation`].
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
            let earlier = row.secrets.pop();
            row.secrets = std::iter::once(fresh_secret()).chain(earlier).collect();
        };
        self.edit(scope, id, edit).await
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
        self.edit(scope, id, |row| row.secrets.truncate(1)).await
    }

    /// Deletes a webhook that is not in use. Its pending deliveries are given up.
    ///
    /// # Errors
    /// Fails if the webhook does not exist, is in use or is defined in the configuration, or if the
    /// store fails.
    pub async fn remove(&self, scope: &Scope, id: Uuid) -> Result<(), RoutingError> {
        let (row, _, _lock) = self.changeable(scope, id).await?;
        if !self
            .store
            .webhooks()
            .write(WebhookWrite::Remove(id))
            .await
            .map_err(RoutingError::Store)?
        {
            return Err(RoutingError::InUse);
        }
        self.directory.message_routes().change_webhooks(|webhooks| drop(webhooks.remove(&id)));
        self.publish(&row.account, id);
        Ok(())
    }

    /// Sends a `test` event to a webhook.
    ///
    /// # Errors
    /// Fails if the webhook does not exist or the store fails.
    pub async fn test(&self, scope: &Scope, id: Uuid) -> Result<Uuid, RoutingError> {
        let webhook = self.get(scope, id).ok_or(RoutingError::NoWebhook)?;
        let event = self.events.account_event(
            &webhook.account,
            "test",
            json!({"webhook": id}),
            Uuid::new_v4(),
        );
        let event_id = event.event_id;
        let callback = self
            .store
            .outbox()
            // In an order of its own, so that it does not wait behind an earlier test that failed.
            .add_event(event.event_for(id, event_id))
            .await
            .map_err(RoutingError::Store)?;
        self.events.send_callbacks(callback.into_iter().collect());
        Ok(event_id)
    }

    /// The webhooks that are in use and that the configuration `file` no longer contains. Numbers
    /// for which `stays` returns `false` are not counted as users.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub async fn missing(
        &self,
        file: &[WebhookSettings],
        stays: impl Fn(&E164) -> bool,
    ) -> Result<Vec<MissingWebhook>, StoreError> {
        let kept: BTreeSet<_> = file.iter().map(WebhookSettings::id).collect();
        let now = self.directory.message_routes().webhooks();
        let goes = now.values().filter(|webhook| webhook.in_file && !kept.contains(&webhook.id));
        let goes: BTreeMap<_, _> = goes.map(|webhook| (webhook.id, webhook.name.clone())).collect();
        if goes.is_empty() {
            return Ok(Vec::new());
        }
        let mut missing: BTreeMap<_, MissingWebhook> = BTreeMap::new();
        for used in self.store.webhooks().uses().await? {
            let number = self.directory.tables().by_first_id(&used.number).cloned();
            let number = number.filter(|number| stays(&number.spec.number));
            let (Some(number), Some(name)) = (number, goes.get(&used.webhook)) else { continue };
            let entry = missing.entry(used.webhook).or_default();
            entry.name.clone_from(name);
            let of = if used.default { &mut entry.numbers } else { &mut entry.conversations };
            of.insert(number.spec.number.to_string());
        }
        Ok(missing.into_values().collect())
    }

    /// Warns at start-up. A start is not refused: the node must take calls even if some events are
    /// lost.
    pub(super) fn warn_of_missing(&self) {
        let routes = self.directory.message_routes();
        for (id, routing) in routes.routings().iter() {
            let gone = routing.webhook().is_some_and(|webhook| routes.webhook(webhook).is_none());
            if gone && let Some(number) = self.directory.tables().by_first_id(id) {
                tracing::warn!(
                    number = %number.spec.number,
                    "number routed to a webhook that is no longer in the configuration; its events are lost until \
                     it is subscribed to another webhook or the webhook is restored"
                );
            }
        }
    }

    /// Refuses a name that another webhook of the account has: files of `offhook numbers export` refer
    /// to webhooks by name. Two nodes may still create two of one name at the same moment.
    fn check_name(
        &self,
        stored: &[WebhookRow],
        account: &AuthId,
        name: &str,
    ) -> Result<(), RoutingError> {
        let configured = self.directory.message_routes().webhooks();
        let is_taken = stored.iter().any(|row| row.account == *account && row.name == name)
            || configured.values().any(|w| w.in_file && w.account == *account && w.name == name);
        if is_taken { Err(RoutingError::NameTaken) } else { Ok(()) }
    }

    /// Takes the lock and returns the row of a webhook, and those of all webhooks.
    async fn changeable(
        &self,
        scope: &Scope,
        id: Uuid,
    ) -> Result<(WebhookRow, Vec<WebhookRow>, ChangeLock<'_>), RoutingError> {
        let lock = self.lock().await;
        if self.get(scope, id).is_some_and(|webhook| webhook.in_file) {
            return Err(RoutingError::InFile);
        }
        // Another node may have changed the webhook since this one has read it.
        let all = self.store.webhooks().list().await.map_err(RoutingError::Store)?;
        let row = all.iter().find(|row| row.id == id);
        let row = row.filter(|row| scope.holds(&row.account, &self.numbers.main_of(&row.account)));
        Ok((row.cloned().ok_or(RoutingError::NoWebhook)?, all, lock))
    }

    /// Changes the row of a webhook. `edit` is called again if another node changes the row in
    /// between.
    async fn edit(
        &self,
        scope: &Scope,
        id: Uuid,
        mut edit: impl FnMut(&mut WebhookRow),
    ) -> Result<Arc<Webhook>, RoutingError> {
        for _ in 0..TRIES {
            let (mut row, all, lock) = self.changeable(scope, id).await?;
            let name = row.name.clone();
            edit(&mut row);
            // Earlier versions allowed two webhooks of one name. Everything else of them can be
            // changed.
            if row.name != name {
                self.check_name(&all, &row.account, &row.name)?;
            }
            if let Some(webhook) = self.put(row, &lock).await? {
                return Ok(webhook);
            }
        }
        Err(RoutingError::Store(StoreError::Contended))
    }

    /// Stores a webhook. Returns `None` if another node has changed it since the row was read.
    async fn put(
        &self,
        row: WebhookRow,
        _lock: &ChangeLock<'_>,
    ) -> Result<Option<Arc<Webhook>>, RoutingError> {
        let put = self.store.webhooks().write(WebhookWrite::Put(row.clone())).await;
        if !put.map_err(RoutingError::Store)? {
            return Ok(None);
        }
        let webhook = Arc::new(of_row(row));
        let routes = self.directory.message_routes();
        routes.change_webhooks(|webhooks| drop(webhooks.insert(webhook.id, webhook.clone())));
        self.publish(&webhook.account, webhook.id);
        Ok(Some(webhook))
    }

    fn publish(&self, account: &AuthId, id: Uuid) {
        let main_account = self.numbers.main_of(account);
        let to = Audience::of(account, &main_account);
        self.feed.publish(to, FeedChange::Webhook(id));
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
