//! Builds the events that webhooks get about numbers and messages, and sends them.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::numbers::ServedNumbers;
use super::words;
use crate::admission::NumberEntry;
use crate::admission::permission::State;
use crate::call::Outbox;
use model::{AuthId, Clock, E164, PhoneNumberId, stable_id};
use store::{
    EventDraft, EventForm, NewCallback, Pair, QueuedCallback, Store, StoreError, UserName,
};
use xml::ast::DocUrl;

/// The ids of an event and of its form-encoded callback to the number's `webhook_url`. They derive
/// from the number and `of`, which identifies the occurrence, so that a duplicate gets the same
/// ids.
pub(super) fn event_ids(number: &PhoneNumberId, of: &[&str]) -> [Uuid; 2] {
    let of: Vec<&str> = std::iter::once(number.as_str()).chain(of.iter().copied()).collect();
    ["event", "form"].map(|kind| stable_id(kind, &of))
}

/// The ids of the callbacks that report a user's message.
pub(super) fn message_event_ids(number: &PhoneNumberId, message: Uuid) -> [Uuid; 2] {
    event_ids(number, &["came", &message.to_string()])
}

/// The number and account that an event is about.
pub(super) struct EventSource<'a> {
    pub(super) phone_number_id: &'a PhoneNumberId,
    pub(super) number: &'a E164,
    account: &'a AuthId,
    main_account: &'a AuthId,
    /// The number's `webhook_url`.
    url: Option<&'a DocUrl>,
}

impl<'a> EventSource<'a> {
    pub(super) fn number(number: &'a NumberEntry) -> Self {
        Self {
            phone_number_id: &number.spec.first_id,
            number: &number.spec.number,
            account: &number.account.auth_id,
            main_account: &number.account.main().auth_id,
            url: number.spec.messages.as_ref(),
        }
    }

    /// Creates the source from a conversation whose number is no longer served.
    pub(super) fn pair(pair: &'a Pair) -> Self {
        Self {
            phone_number_id: &pair.phone_number_id,
            number: &pair.number,
            account: &pair.account,
            main_account: &pair.main_account,
            url: None,
        }
    }
}

/// The events of one node.
pub struct WebhookEvents {
    pub(super) store: Store,
    pub(super) outbox: Outbox,
    pub(super) clock: Clock,
    pub(super) node_id: String,
    pub(super) tasks: TaskTracker,
    pub(super) numbers: Arc<ServedNumbers>,
}

impl WebhookEvents {
    /// Builds the event that reports an occurrence of a number. The store sends it to the target of
    /// the routing. The ids derive from `of`, so that a duplicate gets the same ones.
    pub(super) fn draft(
        &self,
        number: &NumberEntry,
        kind: &str,
        of: &[&str],
        data: Value,
        form: Vec<(String, String)>,
    ) -> EventDraft {
        self.draft_about(&EventSource::number(number), kind, of, data, form)
    }

    /// Like [`Self::draft`], for a number that may no longer be served.
    pub(super) fn draft_about(
        &self,
        about: &EventSource<'_>,
        kind: &str,
        of: &[&str],
        data: Value,
        form: Vec<(String, String)>,
    ) -> EventDraft {
        let [event_id, form_id] = event_ids(about.phone_number_id, of);
        let url = about.url.filter(|_| !form.is_empty());
        EventDraft {
            event_id,
            account: about.account.clone(),
            main_account: about.main_account.clone(),
            node_id: self.node_id.clone(),
            created: self.clock.steady(),
            event: kind.to_owned(),
            body: words::event(
                event_id,
                kind,
                self.clock.wall(),
                about.account,
                Some(about.number),
                data,
            ),
            form: url.map(|url| EventForm {
                event_id: form_id,
                number: Some(about.phone_number_id.clone()),
                url: url.0.to_string(),
                origin: self.outbox.queue(about.main_account, &url.0),
                params: form,
            }),
        }
    }

    /// Builds an event of an account.
    pub(super) fn account_event(
        &self,
        account: &AuthId,
        kind: &str,
        data: Value,
        id: Uuid,
    ) -> EventDraft {
        EventDraft {
            event_id: id,
            account: account.clone(),
            main_account: self.numbers.main_of(account).into_owned(),
            node_id: self.node_id.clone(),
            created: self.clock.steady(),
            event: kind.to_owned(),
            body: words::event(id, kind, self.clock.wall(), account, None, data),
            form: None,
        }
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
        let webhook = self.numbers.webhook_of(number)?;
        Some(self.draft(number, kind, of, data(), Vec::new()).event_for(webhook, order))
    }

    /// Sends an event to a number's webhook, if it has one. Returns before the event is stored.
    pub fn notify_number(self: &Arc<Self>, number: &NumberEntry, kind: &str, data: Value) {
        let order = stable_id("number", &[number.spec.first_id.as_str()]);
        self.notify_in_order(number, kind, data, order);
    }

    /// Like [`WebhookEvents::notify_number`], and delivers the event after earlier ones with the same
    /// `order`, such as the id of a conversation.
    pub fn notify_in_order(
        self: &Arc<Self>,
        number: &NumberEntry,
        kind: &str,
        data: Value,
        order: Uuid,
    ) {
        let once = Uuid::new_v4().to_string();
        if let Some(event) = self.number_event(number, kind, &[kind, &once], || data, order) {
            self.send_event(event);
        }
    }

    /// Reports a changed call permission to the number's webhook.
    pub fn permission_changed(self: &Arc<Self>, number: &NumberEntry, user: &str, state: State) {
        let conversation = self.numbers.conversation_of(number, user);
        let user = UserName { id: user.to_owned(), bsuid: None, name: String::new() }.shown();
        let until = match state {
            State::Temporary { until } => Some(until.to_string()),
            State::None | State::Requested | State::Permanent => None,
        };
        let permission = json!({"status": state.as_str(), "expiresAt": until});
        let data = json!({"conversation": conversation, "user": user, "permission": permission});
        self.notify_in_order(number, "permission.changed", data, conversation);
    }

    /// Stores an event and sends it. Returns before it is stored.
    pub(super) fn send_event(self: &Arc<Self>, event: NewCallback) {
        let events = self.clone();
        let written = self.store.outbox().insert(event);
        self.tasks.spawn(async move {
            match written.await {
                Ok(written) => events.send_callbacks(vec![written]),
                Err(StoreError::Journalled) => {}
                Err(error) => tracing::error!(%error, "event not stored"),
            }
        });
    }

    /// Passes stored callbacks to the outbox.
    pub(super) fn send_callbacks(&self, written: Vec<QueuedCallback>) {
        for callback in written {
            self.outbox.send(callback, None);
        }
    }
}
