//! Takes in what Meta's webhook says of messages: stored with what reports it before the 200, handed on behind it.

use std::pin::Pin;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::mpsc::error::TrySendError;
use uuid::Uuid;

use super::{Inbox, Turn, words};
use crate::admission::NumberEntry;
use crate::admission::permission::State;
use crate::call::links;
use crate::feed::FeedChange;
use crate::notices::Notice;
use crate::observe;
use model::metric;
use model::{
    AuthId, Direction, E164, MessageStatus, NotificationTopic, PhoneNumberId, Timestamp, stable_id,
};
use store::{
    Came, Draft, DraftForm, InboxFound, NewMessage, Pair, StatusCame, StoreError, UserName,
};
use xml::ast::DocUrl;

/// Ends when something is in the store or the journal: `false` if it can't come there.
pub type Stored = Pin<Box<dyn Future<Output = bool> + Send>>;

/// There is no room for it now: Meta is asked to come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Who a message is from, as Meta tells it.
#[derive(Clone, PartialEq, Eq)]
pub struct Sender {
    /// Digits.
    pub wa_id: Option<String>,
    pub bsuid: Option<String>,
    pub name: String,
}

/// Without the user (R22).
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

/// A user's message as the webhook read it. Its `Debug` shows nothing that was said (R22).
#[derive(Clone)]
pub struct UserMessage {
    pub wamid: String,
    pub sender: Sender,
    /// By Meta's clock, in seconds; none: take the time of arrival.
    pub timestamp: Option<i64>,
    /// Meta's type, `unknown` for one that we do not know.
    pub kind: String,
    /// What the type holds, under its name; `context`, `referral` and `errors` beside it.
    pub content: Value,
}

impl std::fmt::Debug for UserMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UserMessage({} {})", self.wamid, self.kind)
    }
}

/// How far a message of ours is, as the webhook read it.
#[derive(Clone, Debug)]
pub struct StatusTold {
    pub wamid: String,
    pub status: MessageStatus,
    /// Meta's code, and its words.
    pub error: Option<(i64, String)>,
    /// `biz_opaque_callback_data`.
    pub opaque: Option<String>,
    pub timestamp: Option<i64>,
}

/// Our own data in a message: `ohm1.<its id>`.
const OPAQUE: &str = "ohm1.";

/// `biz_opaque_callback_data` of a message.
pub(super) fn opaque_of(message: Uuid) -> String {
    format!("{OPAQUE}{message}")
}

fn named(opaque: &str) -> Option<Uuid> {
    opaque.strip_prefix(OPAQUE)?.parse().ok()
}

/// The ids of what reports something of a number's: of the event, and of the form a webhook of the number's own gets.
/// `of`: what happened, so that a copy of it has the same.
pub(super) fn report_ids(number: &PhoneNumberId, of: &[&str]) -> [Uuid; 2] {
    let of: Vec<&str> = std::iter::once(number.as_str()).chain(of.iter().copied()).collect();
    ["event", "form"].map(|kind| stable_id(kind, &of))
}

/// Those of a user's message.
pub(super) fn came_ids(number: &PhoneNumberId, message: Uuid) -> [Uuid; 2] {
    report_ids(number, &["came", &message.to_string()])
}

/// Whose number something is about.
pub(super) struct About<'a> {
    phone_number_id: &'a PhoneNumberId,
    number: &'a E164,
    account: &'a AuthId,
    main_account: &'a AuthId,
    /// Its webhook URL.
    url: Option<&'a DocUrl>,
}

impl<'a> About<'a> {
    pub(super) fn number(number: &'a NumberEntry) -> Self {
        Self {
            phone_number_id: &number.spec.mail_id,
            number: &number.spec.number,
            account: &number.account.auth_id,
            main_account: &number.account.main().auth_id,
            url: number.spec.messages.as_ref(),
        }
    }

    /// As a conversation has it: the number is not there any more.
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
    /// Takes in a user's message; the 200 waits for what comes back. One that names no user is not kept (`None`).
    ///
    /// # Errors
    /// There is no room for it now.
    pub fn came(
        &self,
        number: &Arc<NumberEntry>,
        said: UserMessage,
    ) -> Result<Option<Stored>, Full> {
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
        let came = Came {
            pair,
            heard: Some(sent),
            counts: message.kind != "reaction",
            routing: self.routing_of(number),
            draft: Some(draft),
            // A reaction is no question, nor is what Meta tells of a user (a new number, another identity).
            turn: (!matches!(message.kind.as_str(), "reaction" | "system") && !number.spec.silent)
                .then(|| self.parts().node_id.clone()),
            message,
        };
        self.take(number, came).map(Some)
    }

    /// Writes it down, and hands on what comes of it.
    pub(super) fn take(&self, number: &Arc<NumberEntry>, mut came: Came) -> Result<Stored, Full> {
        // What reports it is the store's alone.
        let draft = came.draft.take();
        let reported = draft.is_some();
        let written =
            self.parts().store.messages().receive(Came { draft, ..came.clone() }).ok_or(Full)?;
        let (inbox, number) = (self.clone(), number.clone());
        if !self.holds(&number) {
            // The store gives it to nobody until then.
            self.claim_soon();
        }
        // Behind the 200, and also where whoever waits for it gave up.
        let handed = self.parts().tasks.spawn(async move {
            let found = written.await;
            let taken = matches!(found, Ok(InboxFound::Came(..) | InboxFound::Journalled));
            if let Ok(InboxFound::Came(Some((standing, unread)), written)) = found {
                inbox.hand_on(written);
                inbox.tell_message(
                    &came.pair.main_account,
                    came.pair.conversation,
                    came.message.id,
                );
                let answers = came.message.direction == Direction::Inbound && reported;
                if answers {
                    inbox.prefetch(&number, &came.message);
                }
                // Once, until somebody has read it.
                if answers && came.counts && unread == 1 {
                    inbox.note(&came);
                }
                let owed = came.turn.is_some() && standing.ai_enabled;
                if let (true, Some(agent)) = (owed, standing.routing.agent()) {
                    inbox.turn(Turn {
                        pair: came.pair,
                        agent,
                        epoch: standing.epoch,
                        message: came.message,
                    });
                }
            }
            taken
        });
        Ok(Box::pin(async move { handed.await.unwrap_or(false) }))
    }

    /// People should know that somebody wrote.
    fn note(&self, came: &Came) {
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

    fn turn(&self, turn: Turn) {
        if let Err(TrySendError::Full(turn) | TrySendError::Closed(turn)) =
            self.0.turns.try_send(turn)
        {
            observe::count_refused(metric::queue::TURNS);
            // It is owed in the store, and found there.
            tracing::debug!(conversation = %turn.pair.conversation, "no room for a message to an agent: it is answered later");
        }
    }

    /// Takes in how far a message is; the 200 waits for what comes back.
    ///
    /// # Errors
    /// There is no room for it now.
    pub fn status(&self, number: &Arc<NumberEntry>, told: StatusTold) -> Result<Stored, Full> {
        let came = self.status_of(
            &About::number(number),
            Some(told.wamid),
            told.opaque.as_deref().and_then(named),
            told.status,
            told.error,
        );
        // Before it is written: what Graph answers meanwhile is heard.
        let waiting = self.wait_for_name(&came);
        let written = self.parts().store.messages().update_status(came.clone()).ok_or(Full)?;
        let (inbox, main) = (self.clone(), number.account.main().auth_id.clone());
        let handed = self.parts().tasks.spawn(async move {
            let found = written.await;
            if let (Ok(InboxFound::Status(None, _)), Some(waiting)) = (&found, waiting) {
                inbox.write_later(main.clone(), came, waiting);
            }
            inbox.status_written(&main, found)
        });
        Ok(Box::pin(async move { handed.await.unwrap_or(false) }))
    }

    pub(super) fn status_written(
        &self,
        main: &AuthId,
        found: Result<InboxFound, StoreError>,
    ) -> bool {
        let taken = matches!(found, Ok(InboxFound::Status(..) | InboxFound::Journalled));
        if let Ok(InboxFound::Status(Some((conversation, message)), written)) = found {
            self.hand_on(written);
            self.tell_message(main, conversation, message);
        }
        taken
    }

    /// A status as the store takes it.
    pub(super) fn status_of(
        &self,
        about: &About<'_>,
        wamid: Option<String>,
        named: Option<Uuid>,
        status: MessageStatus,
        error: Option<(i64, String)>,
    ) -> StatusCame {
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
        // Ours, of a message that Meta never named, and Meta's later word on it are two events.
        let by = if wamid.is_some() { "" } else { " here" };
        let of = ["status", status.as_str(), &format!("{key}{by}")];
        let draft = self.draft_about(about, "message.status", &of, data, form);
        StatusCame {
            phone_number_id: about.phone_number_id.clone(),
            wamid,
            named,
            status,
            error,
            at,
            draft,
        }
    }

    /// What reports something of a number's, ready for whoever the routing names. `of`: what its ids are made of, so that
    /// a copy has the same.
    pub(super) fn draft(
        &self,
        number: &NumberEntry,
        kind: &str,
        of: &[&str],
        data: Value,
        form: Vec<(String, String)>,
    ) -> Draft {
        self.draft_about(&About::number(number), kind, of, data, form)
    }

    /// The same of a number that may not be there any more.
    fn draft_about(
        &self,
        about: &About<'_>,
        kind: &str,
        of: &[&str],
        data: Value,
        form: Vec<(String, String)>,
    ) -> Draft {
        let parts = self.parts();
        let [event_id, form_id] = report_ids(about.phone_number_id, of);
        let url = about.url.filter(|_| !form.is_empty());
        Draft {
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
            form: url.map(|url| DraftForm {
                event_id: form_id,
                url: url.0.to_string(),
                origin: parts.outbox.origin(&url.0),
                params: form,
            }),
        }
    }

    /// A user was asked to allow calls: a message of their conversation too.
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
        let came = Came {
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
        if self.take(number, came).is_err() {
            tracing::warn!("there is no room for a permission request in its conversation");
        }
    }

    /// A user allows a number something else than before.
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
            self.tell_soon(event);
        }
    }

    /// News of a conversation, for those who watch.
    pub(super) fn tell_conversation(&self, main: &AuthId, conversation: Uuid) {
        self.parts().feed.tell(main, FeedChange::Conversation(conversation));
    }
}
