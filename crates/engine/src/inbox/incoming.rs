//! Handles the messages and message statuses of Meta's webhook. Each is stored, together with the
//! events that report it, before Meta gets its 200. All other processing happens afterwards.

use std::pin::Pin;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::mpsc::error::TrySendError;
use uuid::Uuid;

use super::{Inbox, Turn, words};
use crate::admission::NumberEntry;
use crate::admission::permission::State;
use crate::call::links;
use crate::feed::{Audience, FeedChange};
use crate::notices::Notice;
use model::metric;
use model::{
    AuthId, Direction, E164, MessageStatus, NotificationTopic, PhoneNumberId, Timestamp, stable_id,
};
use store::{
    EventDraft, EventForm, InboxResult, NewMessage, Pair, StoreError, TimelineEntry, UserName,
    run_of_owner,
};
use xml::ast::DocUrl;

/// Resolves to `true` once the item is in the store or the journal, and to `false` if it can't be
/// written.
pub type StoredFuture = Pin<Box<dyn Future<Output = bool> + Send>>;

/// The store's queue is full. The webhook answers with an error, and Meta delivers the item again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

/// The sender of a message, as identified in Meta's webhook.
#[derive(Clone, PartialEq, Eq)]
pub struct Sender {
    /// The user's phone number in digits.
    pub wa_id: Option<String>,
    pub bsuid: Option<String>,
    pub name: String,
}

/// Redacts the user.
impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sender(…)")
    }
}

impl Sender {
    fn user(&self) -> Option<UserName> {
        let id = self.wa_id.clone().or_else(|| self.bsuid.clone())?;
        Some(UserName { id, bsuid: self.bsuid.clone(), name: self.name.clone() })
    }
}

/// A user's message, parsed from the webhook. Its `Debug` form contains no content.
#[derive(Clone)]
pub struct UserMessage {
    pub wamid: String,
    pub sender: Sender,
    /// The time of sending by Meta's clock, in Unix seconds. `None` stands for the time of arrival.
    pub timestamp: Option<i64>,
    /// Meta's message type, or `unknown`.
    pub kind: String,
    /// The content, under the name of the type, and optionally `context`, `referral` and `errors`.
    pub content: Value,
}

impl std::fmt::Debug for UserMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UserMessage({} {})", self.wamid, self.kind)
    }
}

/// A delivery status of an outgoing message, parsed from the webhook.
#[derive(Clone, Debug)]
pub struct ReceivedStatus {
    pub wamid: String,
    pub status: MessageStatus,
    /// Meta's error code and text.
    pub error: Option<(i64, String)>,
    /// The `biz_opaque_callback_data` of the message.
    pub opaque: Option<String>,
    pub timestamp: Option<i64>,
}

/// The prefix of Offhook's opaque data. The message's id follows.
const OPAQUE: &str = "ohm1.";

/// The `biz_opaque_callback_data` of a message.
pub(super) fn opaque_data(message: Uuid) -> String {
    format!("{OPAQUE}{message}")
}

fn message_of(opaque: &str) -> Option<Uuid> {
    opaque.strip_prefix(OPAQUE)?.parse().ok()
}

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
    phone_number_id: &'a PhoneNumberId,
    number: &'a E164,
    account: &'a AuthId,
    main_account: &'a AuthId,
    /// The number's `webhook_url`.
    url: Option<&'a DocUrl>,
}

impl<'a> EventSource<'a> {
    pub(super) fn number(number: &'a NumberEntry) -> Self {
        Self {
            phone_number_id: &number.spec.mail_id,
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

impl Inbox {
    /// Stores a user's message. The webhook's 200 waits for the returned future. A message without
    /// a user is not stored, and the result is `None`.
    ///
    /// # Errors
    /// Fails if the store's queue is full.
    pub fn receive_message(
        &self,
        number: &Arc<NumberEntry>,
        said: UserMessage,
    ) -> Result<Option<StoredFuture>, QueueFull> {
        let Some(user) = said.sender.user() else { return Ok(None) };
        let now = self.parts().clock.wall();
        let id = stable_id("message", &[number.spec.mail_id.as_str(), &said.wamid]);
        let sent = said.timestamp.map_or(now, |secs| Timestamp::from_secs(secs).min(now));
        let pair = self.pair(number, user);
        let message = NewMessage {
            id,
            wamid: Some(said.wamid),
            direction: Direction::Inbound,
            text: words::short(&said.kind, &said.content),
            kind: said.kind,
            content: said.content,
            status: MessageStatus::Received,
            sender: None,
            at: now,
        };
        let url = words::media(&message.content, &message.kind).map(|_| links::named(id));
        let data = json!({
            "conversation": pair.conversation,
            "message": words::message(&message, url.as_deref()),
            "user": pair.user.shown(),
        });
        let form = words::form(&number.spec.number, &pair.user, &message, url.as_deref());
        let draft = self.draft(number, "message.received", &["came", &id.to_string()], data, form);
        let came = TimelineEntry {
            pair,
            heard: Some(sent),
            counts: message.kind != "reaction",
            routing: self.routing_of(number),
            draft: Some(draft),
            // An agent answers neither reactions nor system messages, which report a user's new
            // number or identity.
            turn: (!matches!(message.kind.as_str(), "reaction" | "system") && !number.spec.silent)
                .then(|| self.parts().node_id.clone()),
            message,
        };
        self.store_message(number, came).map(Some)
    }

    /// Stores a message and then distributes it: to webhooks, the AI agent, the console and the
    /// file cache.
    pub(super) fn store_message(
        &self,
        number: &Arc<NumberEntry>,
        mut came: TimelineEntry,
    ) -> Result<StoredFuture, QueueFull> {
        // Only the store needs the draft.
        let draft = came.draft.take();
        let reported = draft.is_some();
        let written = self
            .parts()
            .store
            .messages()
            .receive(TimelineEntry { draft, ..came.clone() })
            .ok_or(QueueFull)?;
        let (inbox, number) = (self.clone(), number.clone());
        if !self.is_current_owner(&number) {
            // The store does not route the message until the new owner is recorded.
            self.spawn_claim();
        }
        // A separate task: it must also complete if Meta's connection is closed before the 200.
        let handed = self.parts().tasks.spawn(async move {
            let found = written.await;
            let taken = matches!(found, Ok(InboxResult::Entry(..) | InboxResult::Journalled));
            if let Ok(InboxResult::Entry(Some((standing, unread)), written)) = found {
                inbox.send_callbacks(written);
                inbox.publish_message((&came.pair).into(), came.pair.conversation, came.message.id);
                let answers = came.message.direction == Direction::Inbound && reported;
                if answers {
                    inbox.prefetch(&number, &came.message);
                }
                // One notification until the conversation is read.
                if answers && came.counts && unread == 1 {
                    inbox.notify_people(&came);
                }
                let owed = came.turn.is_some() && standing.ai_enabled;
                if let (true, Some(agent)) = (owed, standing.routing.agent()) {
                    let turn = Turn {
                        pair: came.pair,
                        agent,
                        epoch: standing.epoch,
                        message: came.message,
                    };
                    inbox.give_turn(turn).await;
                }
            }
            taken
        });
        Ok(Box::pin(async move { handed.await.unwrap_or(false) }))
    }

    /// Creates a notification about a new message.
    fn notify_people(&self, came: &TimelineEntry) {
        let Pair { account, main_account, number, user, conversation, .. } = &came.pair;
        let who = if user.name.is_empty() { &user.id } else { &user.name };
        let text = format!("{who}: {}", came.message.text);
        self.parts().notices.note(Notice {
            number: Some(number.to_string()),
            user: Some(user.id.clone()),
            conversation: Some(*conversation),
            ..Notice::new(account.clone(), main_account.clone(), NotificationTopic::Message, text)
        });
    }

    /// Queues a stored turn, or notifies the node of the fleet that handles the turns of the
    /// conversation.
    async fn give_turn(&self, turn: Turn) {
        let Some(tell) = self.0.other_nodes.get() else { return self.queue_turn(turn) };
        match self.parts().store.turns().owner(turn.message.id).await {
            Ok(Some(run)) if Some(run) != run_of_owner(&self.parts().node_id) => tell(run),
            Ok(Some(_)) => self.queue_turn(turn),
            // It is answered already.
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "owner of an agent turn not read; turn deferred");
            }
        }
    }

    fn queue_turn(&self, turn: Turn) {
        if let Err(TrySendError::Full(turn) | TrySendError::Closed(turn)) =
            self.0.turns.try_send(turn)
        {
            crate::count_refused(metric::queue::TURNS);
            // The store keeps the turn as pending, and the agents read it from there.
            tracing::debug!(conversation = %turn.pair.conversation, "agent turn queue full; turn deferred");
        }
    }

    /// Stores a delivery status. The webhook's 200 waits for the returned future.
    ///
    /// # Errors
    /// Fails if the store's queue is full.
    pub fn receive_status(
        &self,
        number: &Arc<NumberEntry>,
        told: ReceivedStatus,
    ) -> Result<StoredFuture, QueueFull> {
        let came = self.status_update(
            &EventSource::number(number),
            Some(told.wamid),
            told.opaque.as_deref().and_then(message_of),
            told.status,
            told.error,
        );
        // Register before writing, so that a message id that Graph returns in between is not
        // missed.
        let waiting = self.register_early(&came);
        let written = self.parts().store.messages().update_status(came.clone()).ok_or(QueueFull)?;
        let (inbox, account) = (self.clone(), number.account.auth_id.clone());
        let main = number.account.main().auth_id.clone();
        let handed = self.parts().tasks.spawn(async move {
            let found = written.await;
            if let (Ok(InboxResult::Status(None, _)), Some(waiting)) = (&found, waiting) {
                inbox.retry_status((account.clone(), main.clone()), came, waiting);
            }
            inbox.finish_status(Audience::of(&account, &main), found)
        });
        Ok(Box::pin(async move { handed.await.unwrap_or(false) }))
    }

    pub(super) fn finish_status(
        &self,
        to: Audience<'_>,
        found: Result<InboxResult, StoreError>,
    ) -> bool {
        let taken = matches!(found, Ok(InboxResult::Status(..) | InboxResult::Journalled));
        if let Ok(InboxResult::Status(Some((conversation, message)), written)) = found {
            self.send_callbacks(written);
            self.publish_message(to, conversation, message);
        }
        taken
    }

    /// Builds the status update for the store.
    pub(super) fn status_update(
        &self,
        about: &EventSource<'_>,
        wamid: Option<String>,
        named: Option<Uuid>,
        status: MessageStatus,
        error: Option<(i64, String)>,
    ) -> store::StatusUpdate {
        let at = self.parts().clock.wall();
        let key = named.map_or_else(|| wamid.clone().unwrap_or_default(), |id| id.to_string());
        let data = json!({
            "conversation": null,
            "message": {
                "id": null,
                "wamid": wamid,
                "status": status,
                "at": at.to_string(),
                "error": error.as_ref().map(|(code, text)| json!({"code": code, "message": text})),
            },
        });
        let mut form = vec![
            ("From".to_owned(), about.number.to_string()),
            ("Status".to_owned(), status.as_str().to_owned()),
            ("SentTime".to_owned(), at.plivo_secs()),
        ];
        if matches!(status, MessageStatus::Delivered | MessageStatus::Read) {
            form.push(("DeliveryReportTime".to_owned(), at.plivo_secs()));
        }
        if let Some(wamid) = &wamid {
            form.push(("WhatsappMessageID".to_owned(), wamid.clone()));
        }
        if let Some((code, text)) = &error {
            form.push(("ErrorCode".to_owned(), code.to_string()));
            form.push(("ErrorMessage".to_owned(), text.clone()));
        }
        // A failure that we record before Meta assigned a message id, and Meta's later status, are
        // two events.
        let by = if wamid.is_some() { "" } else { " here" };
        let of = ["status", status.as_str(), &format!("{key}{by}")];
        let draft = self.draft_about(about, "message.status", &of, data, form);
        store::StatusUpdate {
            phone_number_id: about.phone_number_id.clone(),
            wamid,
            named,
            status,
            error,
            at,
            draft,
        }
    }

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

    /// Like [`Inbox::draft`], for a number that may no longer be served.
    fn draft_about(
        &self,
        about: &EventSource<'_>,
        kind: &str,
        of: &[&str],
        data: Value,
        form: Vec<(String, String)>,
    ) -> EventDraft {
        let parts = self.parts();
        let [event_id, form_id] = event_ids(about.phone_number_id, of);
        let url = about.url.filter(|_| !form.is_empty());
        EventDraft {
            event_id,
            account: about.account.clone(),
            main_account: about.main_account.clone(),
            node_id: parts.node_id.clone(),
            created: parts.clock.steady(),
            event: kind.to_owned(),
            body: words::event(
                event_id,
                kind,
                parts.clock.wall(),
                about.account,
                Some(about.number),
                data,
            ),
            form: url.map(|url| EventForm {
                event_id: form_id,
                number: Some(about.phone_number_id.clone()),
                url: url.0.to_string(),
                origin: parts.outbox.origin(&url.0),
                params: form,
            }),
        }
    }

    /// Adds a call permission request to the user's conversation.
    pub fn permission_requested(
        &self,
        number: &Arc<NumberEntry>,
        user: &str,
        wamid: &str,
        text: Option<&str>,
    ) {
        let content =
            json!({"interactive": {"type": "call_permission_request", "body": {"text": text}}});
        let user = UserName { id: user.to_owned(), bsuid: None, name: String::new() };
        let came = TimelineEntry {
            pair: self.pair(number, user),
            message: NewMessage {
                id: stable_id("message", &[number.spec.mail_id.as_str(), wamid]),
                wamid: Some(wamid.to_owned()),
                direction: Direction::Outbound,
                kind: "interactive".to_owned(),
                text: words::short("interactive", &content),
                content,
                status: MessageStatus::Queued,
                sender: None,
                at: self.parts().clock.wall(),
            },
            heard: None,
            counts: false,
            routing: self.routing_of(number),
            draft: None,
            turn: None,
        };
        if self.store_message(number, came).is_err() {
            tracing::warn!("store queue full; permission request not added to its conversation");
        }
    }

    /// Reports a changed call permission to the number's webhook.
    pub fn permission_changed(&self, number: &NumberEntry, user: &str, state: State) {
        let conversation = self.conversation_of(number, user);
        let user = UserName { id: user.to_owned(), bsuid: None, name: String::new() }.shown();
        let until = match state {
            State::Temporary { until } => Some(until.to_string()),
            State::None | State::Requested | State::Permanent => None,
        };
        let permission = json!({"status": state.as_str(), "expiresAt": until});
        let data = json!({"conversation": conversation, "user": user, "permission": permission});
        let once = Uuid::new_v4().to_string();
        let event = self.number_event(
            number,
            "permission.changed",
            &["permission", &once],
            || data,
            conversation,
        );
        if let Some(event) = event {
            self.send_event(event);
        }
    }

    /// Publishes a change of a conversation to the console's feed.
    pub(super) fn publish_conversation(&self, to: Audience<'_>, conversation: Uuid) {
        self.parts().feed.publish(to, FeedChange::Conversation(conversation));
    }
}
