//! Messages, their states and conversation changes, and the callbacks that report them.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::StoreError;
use crate::rows::callback::{NewCallback, NumberEvent, QueuedCallback};
use crate::rows::conversation::{Pair, RoutingState, UserName};
use machine::{CallbackKind, CallbackRequest, EVENT_BODY, EVENT_TYPE, Param};
use model::{
    AuthId, CallUuid, Direction, MessageStatus, Method, PhoneNumberId, Routing, Timestamp,
};
use xml::ast::DocUrl;

/// The kind of a private note, which is part of the timeline and never sent.
pub const NOTE: &str = "note";

/// A message in a conversation's timeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub message: NewMessage,
    pub conversation: Uuid,
    pub error: Option<(i64, String)>,
    pub changed: Timestamp,
}

/// A message that an ended process had taken for sending.
#[derive(Clone, Debug, PartialEq)]
pub struct InterruptedMessage {
    pub pair: Pair,
    pub message: Message,
    /// The conversation's epoch, if an AI agent wrote the message.
    pub epoch: Option<u64>,
    /// Whether the request to Meta was started. If so, Meta may have the message.
    pub asked: bool,
}

/// The result of a write about messages or conversations.
#[derive(Clone, Debug, PartialEq)]
pub enum InboxResult {
    /// The conversation's state and its number of unread messages, or `None` if the message was
    /// already stored.
    Entry(Option<(RoutingState, u64)>, Vec<QueuedCallback>),
    /// The ids of the conversation and the message, or `None` if the message does not exist or
    /// already has a later status.
    Status(Option<(Uuid, Uuid)>, Vec<QueuedCallback>),
    /// Whether a row has changed.
    Done(bool, Vec<QueuedCallback>),
    Enqueued(EnqueueResult),
    /// The write went to the journal and is not in the database yet.
    Journalled,
}

/// A message, or a call's entry in the timeline. `Debug` shows no content.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct NewMessage {
    pub id: Uuid,
    /// Meta's id, once it is known.
    pub wamid: Option<String>,
    pub direction: Direction,
    /// Meta's message type, `call` for a call, or [`NOTE`].
    pub kind: String,
    /// Readable text of the message.
    pub text: String,
    /// The content of this message type in Meta's format.
    pub content: serde_json::Value,
    pub status: MessageStatus,
    /// Who wrote an outbound message: `user:NAME`, `api-key:ID` or `agent:ID`. Messages that
    /// earlier versions stored may have `api`.
    pub sender: Option<String>,
    pub at: Timestamp,
}

impl NewMessage {
    /// Whether the business and the user have exchanged it: it is no call, no private note, and did
    /// not fail.
    pub fn is_exchanged(&self) -> bool {
        self.kind != "call" && self.kind != NOTE && self.status != MessageStatus::Failed
    }
}

impl std::fmt::Debug for NewMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewMessage({} {} {:?})", self.id, self.kind, self.status)
    }
}

/// A new timeline entry, reported to the target of the conversation's routing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimelineEntry {
    pub pair: Pair,
    pub message: NewMessage,
    /// Time of the user's message or call, which opens the 24-hour window.
    #[serde(rename = "heard")]
    pub inbound_at: Option<Timestamp>,
    /// Whether the entry counts as unread and reopens a closed conversation.
    pub counts: bool,
    /// The routing for a new conversation. It is ignored if the number has another routing in the
    /// store.
    pub routing: Routing,
    pub draft: Option<EventDraft>,
    /// The node that runs the AI agent, if an AI agent must answer.
    #[serde(default)]
    pub turn: Option<String>,
}

/// A status update from Meta for an outbound message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusUpdate {
    pub phone_number_id: PhoneNumberId,
    /// Meta's id of the message. `None` if Meta never assigned one.
    pub wamid: Option<String>,
    /// Id of the message from the update's opaque data. The update may arrive before Meta's id is
    /// known.
    pub named: Option<Uuid>,
    pub status: MessageStatus,
    pub error: Option<(i64, String)>,
    pub at: Timestamp,
    pub draft: EventDraft,
}

/// Messages to be sent, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct OutgoingMessages {
    pub conversation: Uuid,
    pub messages: Vec<NewMessage>,
    /// The node that sends the messages.
    pub node_id: String,
    /// Set if an AI agent wrote the messages. They are refused if the conversation has another
    /// epoch, if the agent no longer answers it, or if the message in `answers` was already
    /// answered.
    pub epoch: Option<u64>,
    pub answers: Option<AnsweredMessage>,
}

/// The result of adding messages to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnqueueResult {
    /// The messages are stored.
    Stored,
    /// An identical request has already stored a message with the id of the first one.
    Duplicate,
    Refused,
}

/// An event without a recipient.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventDraft {
    pub event_id: Uuid,
    pub account: AuthId,
    pub main_account: AuthId,
    pub node_id: String,
    /// Monotonic time.
    pub created: Timestamp,
    /// The event type, such as `message.received`.
    pub event: String,
    /// JSON of the event.
    pub body: serde_json::Value,
    /// The Plivo-compatible form, if the number has a webhook URL.
    pub form: Option<EventForm>,
}

/// An event in Plivo's format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventForm {
    pub event_id: Uuid,
    /// The number that has the webhook URL. `None` in the journal of an older version.
    #[serde(default)]
    pub number: Option<PhoneNumberId>,
    pub url: String,
    /// Scheme, host and port of the URL, which select the delivery queue.
    pub origin: String,
    pub params: Vec<(String, String)>,
}

/// Prefix of the URL of outbox rows that go to a webhook. The webhook's id follows. Its URL and
/// secrets are looked up when the row is sent.
pub const WEBHOOK: &str = "webhook:";

impl EventDraft {
    /// Makes the callback for a webhook. Callbacks with the same `order` are sent in order.
    pub fn event_for(&self, webhook: Uuid, order: Uuid) -> NewCallback {
        let to = format!("{WEBHOOK}{webhook}");
        let params = [(EVENT_BODY, self.body.to_string()), (EVENT_TYPE, self.event.clone())];
        let params = params
            .into_iter()
            .map(|(name, value)| (name.into(), Param::Plain(value.into())))
            .collect();
        let notice = CallbackRequest {
            kind: CallbackKind::Event,
            url: DocUrl(to.as_str().into()),
            method: Method::Post,
            params,
        };
        self.callback(self.event_id, to, notice, None, order)
    }

    pub(crate) fn form(&self, order: Uuid) -> Option<NewCallback> {
        let form = self.form.as_ref()?;
        let params = form
            .params
            .iter()
            .map(|(name, value)| (name.clone().into(), Param::Plain(value.clone().into())));
        let notice = CallbackRequest {
            kind: CallbackKind::Message,
            url: DocUrl(form.url.as_str().into()),
            method: Method::Post,
            params: params.collect(),
        };
        let event =
            form.number.clone().map(|number| NumberEvent { number, event: self.event.clone() });
        Some(self.callback(form.event_id, form.origin.clone(), notice, event, order))
    }

    fn callback(
        &self,
        event_id: Uuid,
        origin: String,
        notice: CallbackRequest,
        number_event: Option<NumberEvent>,
        order: Uuid,
    ) -> NewCallback {
        NewCallback {
            event_id,
            call: CallUuid(order),
            account: self.account.clone(),
            main_account: self.main_account.clone(),
            node_id: self.node_id.clone(),
            origin,
            notice,
            number_event,
            shut: None,
            created: self.created,
        }
    }

    /// Adds the fields of a status event that are known only to the store. `sent` is the time at
    /// which the message was sent.
    pub(crate) fn fill(
        &mut self,
        conversation: &str,
        (message, sent): (&str, Timestamp),
        user: &UserName,
    ) {
        if let Some(data) = self.body.get_mut("data").and_then(serde_json::Value::as_object_mut) {
            data.insert("conversation".to_owned(), conversation.into());
            data.insert("user".to_owned(), user.shown());
            if let Some(inner) = data.get_mut("message").and_then(serde_json::Value::as_object_mut)
            {
                inner.insert("id".to_owned(), message.into());
            }
        }
        if let Some(form) = &mut self.form {
            // A journal of an older version may have it.
            form.params.retain(|(name, _)| name != "SentTime");
            form.params.push(("SentTime".to_owned(), sent.plivo_secs()));
            form.params.push(("MessageUUID".to_owned(), message.to_owned()));
            form.params.push(("ConversationID".to_owned(), conversation.to_owned()));
            form.params.push(("To".to_owned(), user.id.clone()));
        }
    }
}

/// What happens to the conversation after a reply is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterReply {
    /// Hand the conversation to a person.
    Escalate,
    Close,
}

impl AfterReply {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Escalate => "escalate",
            Self::Close => "close",
        }
    }

    pub(crate) fn parse(word: &str) -> Self {
        if word == Self::Close.as_str() { Self::Close } else { Self::Escalate }
    }
}

/// The message that a reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnsweredMessage {
    pub message: Uuid,
    pub then: Option<AfterReply>,
}

impl InboxResult {
    /// Returns whether a row has changed, and the callbacks that report the change.
    pub(crate) fn into_done(self) -> Result<(bool, Vec<QueuedCallback>), StoreError> {
        match self {
            Self::Done(done, written) => Ok((done, written)),
            // Results of other kinds of writes.
            Self::Entry(..) | Self::Status(..) | Self::Enqueued(..) | Self::Journalled => {
                Err(StoreError::NotTaken)
            }
        }
    }
}
