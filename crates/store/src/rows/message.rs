//! Messages, what becomes of them, and changes of conversations, as they are handed to the store; and what reports them.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::StoreError;
use crate::rows::callback::{NewCallback, Written};
use crate::rows::conversation::{Pair, Standing, UserName};
use machine::{CallbackKind, CallbackRequest, EVENT_BODY, EVENT_TYPE, Param};
use model::{
    AuthId, CallUuid, Direction, MessageStatus, Method, PhoneNumberId, Routing, Timestamp,
};
use xml::ast::DocUrl;

/// A message of a timeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub message: NewMessage,
    pub conversation: Uuid,
    pub error: Option<(i64, String)>,
    pub changed: Timestamp,
}

/// A message that another process had taken for sending when it ended.
#[derive(Clone, Debug, PartialEq)]
pub struct LeftMessage {
    pub pair: Pair,
    pub message: Message,
    /// Of an agent's.
    pub epoch: Option<u64>,
    /// Meta may have it.
    pub asked: bool,
}

/// What it found.
#[derive(Clone, Debug, PartialEq)]
pub enum InboxFound {
    /// The conversation, and how many of its messages are unread. `None`: it was there before.
    Came(Option<(Standing, u64)>, Vec<Written>),
    /// The conversation and the message; `None`: no such message, or it is further already.
    Status(Option<(Uuid, Uuid)>, Vec<Written>),
    /// Whether anything has changed.
    Done(bool, Vec<Written>),
    Gone(Gone),
    /// Not written yet: the journal has it.
    Journalled,
}

/// A message, or a call's line in the timeline. Its `Debug` shows nothing that was said (R22).
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct NewMessage {
    pub id: Uuid,
    /// Meta's id, once there is one.
    pub wamid: Option<String>,
    pub direction: Direction,
    /// Meta's type; `call` for a call.
    pub kind: String,
    /// What it says, for people.
    pub text: String,
    /// What its type holds, as Meta has it.
    pub content: serde_json::Value,
    pub status: MessageStatus,
    /// Who wrote it, of one that goes out.
    pub sender: Option<String>,
    pub at: Timestamp,
}

impl std::fmt::Debug for NewMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewMessage({} {} {:?})", self.id, self.kind, self.status)
    }
}

/// Something for the timeline that is told to whoever the routing names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Came {
    pub pair: Pair,
    pub message: NewMessage,
    /// The user was heard from: opens the 24 hours.
    pub heard: Option<Timestamp>,
    /// Counts as unread, and opens a conversation that was put away.
    pub counts: bool,
    /// What a new conversation begins with, unless the store has better.
    pub routing: Routing,
    pub draft: Option<Draft>,
    /// An agent answers it, where one is there: the node that does.
    #[serde(default)]
    pub turn: Option<String>,
}

/// How far a message is, by Meta.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusCame {
    pub phone_number_id: PhoneNumberId,
    /// None: it never had one.
    pub wamid: Option<String>,
    /// The message that our own data in it name: it may be told before we know its wamid.
    pub named: Option<Uuid>,
    pub status: MessageStatus,
    pub error: Option<(i64, String)>,
    pub at: Timestamp,
    pub draft: Draft,
}

/// Messages that are to go out, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Going {
    pub conversation: Uuid,
    pub messages: Vec<NewMessage>,
    /// Who sends them.
    pub node_id: String,
    /// An agent's: they are refused where the conversation's epoch is another, or it answers no more; or where the message
    /// that they answer has its answer.
    pub epoch: Option<u64>,
    pub answers: Option<Answers>,
}

/// What became of messages that were to go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// They stand in the store.
    Out,
    /// A message of the first one's id does: the same was asked for before.
    Before,
    Refused,
}

/// What reports something, ready but for whom it goes to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    pub event_id: Uuid,
    pub account: AuthId,
    pub main_account: AuthId,
    pub node_id: String,
    /// By the steady clock.
    pub created: Timestamp,
    /// `message.received`, …
    pub event: String,
    /// The event's JSON.
    pub body: serde_json::Value,
    /// For the number's webhook URL, where it has one.
    pub form: Option<DraftForm>,
}

/// The same in Plivo's shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DraftForm {
    pub event_id: Uuid,
    pub url: String,
    /// Whose queue it stands in.
    pub origin: String,
    pub params: Vec<(String, String)>,
}

/// A webhook as the outbox's rows name it: its URL and secrets are looked up when it is sent.
pub const WEBHOOK: &str = "webhook:";

impl Draft {
    /// The callback for a webhook; those of one conversation go out in order.
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
        self.callback(self.event_id, to, notice, order)
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
        Some(self.callback(form.event_id, form.origin.clone(), notice, order))
    }

    fn callback(
        &self,
        event_id: Uuid,
        origin: String,
        notice: CallbackRequest,
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
            shut: None,
            created: self.created,
        }
    }

    /// Puts in what only the store knows of a status.
    pub(crate) fn fill(&mut self, conversation: &str, message: &str, user: &UserName) {
        if let Some(data) = self.body.get_mut("data").and_then(serde_json::Value::as_object_mut) {
            data.insert("conversation".to_owned(), conversation.into());
            data.insert("user".to_owned(), user.shown());
            if let Some(inner) = data.get_mut("message").and_then(serde_json::Value::as_object_mut)
            {
                inner.insert("id".to_owned(), message.into());
            }
        }
        if let Some(form) = &mut self.form {
            form.params.push(("MessageUUID".to_owned(), message.to_owned()));
            form.params.push(("ConversationID".to_owned(), conversation.to_owned()));
            form.params.push(("To".to_owned(), user.id.clone()));
        }
    }
}

/// What is left to do once a reply is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// A person is wanted.
    Escalate,
    Close,
}

impl Then {
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

/// A reply answers this message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answers {
    pub message: Uuid,
    pub then: Option<Then>,
}

impl InboxFound {
    /// Whether anything has changed, and the callbacks that report it.
    pub(crate) fn into_done(self) -> Result<(bool, Vec<Written>), StoreError> {
        match self {
            Self::Done(done, written) => Ok((done, written)),
            // Said of what Meta tells only.
            Self::Came(..) | Self::Status(..) | Self::Gone(..) | Self::Journalled => {
                Err(StoreError::NotTaken)
            }
        }
    }
}
