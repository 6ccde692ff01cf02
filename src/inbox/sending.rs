//! The way out to Meta: a message stands in the store as `queued`, then Graph is asked, one after another in each
//! conversation. Whether Meta has a message whose process died meanwhile is not known, so it is not sent again.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use serde_json::{Value, json};
use uuid::Uuid;

use super::incoming::opaque_of;
use super::{Inbox, Turn, words};
use crate::call::machine::GraphOutcome;
use crate::model::{Direction, MessageStatus, PhoneNumberId, Timestamp};
use crate::store::{Conversation, Going, NewMessage, Pair, StoreError};

/// How long a user may be written to freely after they wrote or called.
pub const WINDOW: Duration = Duration::from_secs(24 * 3_600);
/// Messages a second of one number: Meta's usual throughput.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(80).expect("not 0");
/// Messages of one conversation, and of all, that wait for Graph.
const LANE_MAX: usize = 64;
const WAITING_MAX: usize = 8_192;
/// Messages of one answer of an agent.
const REPLIES_MAX: usize = 10;
/// Messages looked at once at the start.
const LEFT_MAX: u32 = 10_000;

/// A message that is to go out.
#[derive(Clone, PartialEq)]
pub struct Outgoing {
    /// Meta's type.
    pub kind: String,
    /// What the type holds, under its name; perhaps `context`.
    pub content: Value,
}

impl Outgoing {
    /// A plain text.
    pub fn text(text: &str) -> Self {
        Self { kind: "text".to_owned(), content: json!({"text": {"body": text}}) }
    }
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outgoing({})", self.kind)
    }
}

/// Why a message does not go out.
#[derive(Debug)]
pub enum NotSent {
    /// There is no such conversation.
    Gone,
    /// Its number is not there any more.
    NoNumber,
    /// More than a day since the user was heard from: a template is needed.
    WindowClosed,
    /// Too many; seconds to wait.
    TooMany(u64),
    /// Somebody else answers now, or nobody.
    Stale,
    Store(StoreError),
}

/// A message on its way.
struct Posting {
    pair: Pair,
    message: NewMessage,
    /// An agent's.
    epoch: Option<u64>,
}

/// What waits for Graph, by conversation; one that is there has somebody who sends.
pub(super) struct Lanes {
    lanes: Mutex<(HashMap<Uuid, VecDeque<Posting>>, usize)>,
    limits: DefaultKeyedRateLimiter<PhoneNumberId>,
}

impl Default for Lanes {
    fn default() -> Self {
        Self { lanes: Mutex::default(), limits: DefaultKeyedRateLimiter::keyed(Quota::per_second(PER_SECOND)) }
    }
}

impl Lanes {
    fn has_room(&self, conversation: Uuid) -> bool {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.1 < WAITING_MAX && lanes.0.get(&conversation).is_none_or(|lane| lane.len() < LANE_MAX)
    }

    /// Puts it in line; `true`: somebody has to begin.
    fn push(&self, posting: Posting) -> bool {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.1 += 1;
        let fresh = !lanes.0.contains_key(&posting.pair.conversation);
        lanes.0.entry(posting.pair.conversation).or_default().push_back(posting);
        fresh
    }

    /// The next of a lane; none: the lane is over.
    fn next(&self, conversation: Uuid) -> Option<Posting> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let next = lanes.0.get_mut(&conversation).and_then(VecDeque::pop_front);
        match &next {
            Some(_) => lanes.1 = lanes.1.saturating_sub(1),
            None => {
                lanes.0.remove(&conversation);
            }
        }
        next
    }
}

impl Inbox {
    /// Sends a message for a person or a program; `sender` says who. Stored when this returns; Graph is asked behind it.
    ///
    /// # Errors
    /// A rule that forbids it, or the store's.
    pub async fn send(
        &self,
        conversation: &Conversation,
        outgoing: Outgoing,
        sender: &str,
    ) -> Result<NewMessage, NotSent> {
        let now = self.parts().clock.wall();
        if outgoing.kind != "template" && !is_open(conversation.heard, now) {
            return Err(NotSent::WindowClosed);
        }
        let sent = self.go(&conversation.pair, vec![outgoing], sender, None).await?;
        sent.into_iter().next().ok_or(NotSent::Gone)
    }

    /// An agent answers a turn. Nothing goes out where the conversation has another routing by now, or people took over.
    ///
    /// # Errors
    /// [`NotSent::Stale`] then; or a rule that forbids it, or the store's.
    pub async fn reply(&self, turn: &Turn, replies: Vec<Outgoing>) -> Result<Vec<Uuid>, NotSent> {
        let sender = format!("agent:{}", turn.agent);
        let sent = self.go(&turn.pair, replies, &sender, Some(turn)).await?;
        Ok(sent.into_iter().map(|message| message.id).collect())
    }

    async fn go(
        &self,
        pair: &Pair,
        outgoing: Vec<Outgoing>,
        sender: &str,
        turn: Option<&Turn>,
    ) -> Result<Vec<NewMessage>, NotSent> {
        let epoch = turn.map(|turn| turn.epoch);
        self.number(&pair.number).ok_or(NotSent::NoNumber)?;
        if !self.0.lanes.has_room(pair.conversation) {
            return Err(NotSent::TooMany(1));
        }
        let mut messages = Vec::new();
        for Outgoing { kind, content } in outgoing.into_iter().take(REPLIES_MAX) {
            if let Err(until) = self.0.lanes.limits.check_key(&pair.phone_number_id) {
                return Err(NotSent::TooMany(until.wait_time_from(DefaultClock::default().now()).as_secs() + 1));
            }
            messages.push(NewMessage {
                id: Uuid::new_v4(),
                wamid: None,
                direction: Direction::Outbound,
                text: words::short(&kind, &content),
                kind,
                content,
                status: MessageStatus::Queued,
                sender: Some(sender.to_owned()),
                at: self.parts().clock.wall(),
            });
        }
        let going = Going {
            conversation: pair.conversation,
            messages: messages.clone(),
            epoch,
            turn: turn.map(|turn| turn.message.id),
        };
        if !self.parts().store.message_going(going).await.map_err(NotSent::Store)? {
            return Err(if epoch.is_some() { NotSent::Stale } else { NotSent::Gone });
        }
        for message in &messages {
            let posting = Posting { pair: pair.clone(), message: message.clone(), epoch };
            if self.0.lanes.push(posting) {
                let (inbox, conversation) = (self.clone(), pair.conversation);
                self.parts().tasks.spawn(async move {
                    while let Some(posting) = inbox.0.lanes.next(conversation) {
                        inbox.post(posting).await;
                    }
                });
            }
            self.tell_message(&pair.main_account, pair.conversation, message.id);
        }
        Ok(messages)
    }

    async fn post(&self, Posting { pair, message, epoch }: Posting) {
        let parts = self.parts();
        // While this is held nobody changes the routing: who has been told that it is changed sees no answer after that.
        let gate = self.gate(&pair.phone_number_id);
        let _held = match epoch {
            Some(_) => Some(gate.read_owned().await),
            None => None,
        };
        if let Some(epoch) = epoch
            && !self.still_answers(&pair, epoch).await
        {
            let why = (0, "not sent: somebody else answers in this conversation now".to_owned());
            let _ = parts.store.message_posted(message.id, Err(why), parts.clock.wall()).await;
            return self.tell_message(&pair.main_account, pair.conversation, message.id);
        }
        let Some(number) = self.number(&pair.number) else { return };
        let body = graph_body(&pair, &message);
        let sent =
            parts.graph.send_message(&number.spec.phone_number_id, number.spec.access_token.as_ref(), &body).await;
        let written = match sent {
            Ok(wamid) => parts.store.message_posted(message.id, Ok(wamid), parts.clock.wall()).await.map(drop),
            Err(outcome) => {
                let error = Some(reason(outcome));
                let status = self.status_of(&number, None, Some(message.id), MessageStatus::Failed, error);
                match parts.store.message_status(status) {
                    Some(written) => {
                        self.status_written(&pair.main_account, written.await);
                        Ok(())
                    }
                    None => Err(StoreError::NotTaken),
                }
            }
        };
        if let Err(error) = written {
            tracing::error!(%error, message = %message.id, "what became of a message could not be written");
        }
        self.tell_message(&pair.main_account, pair.conversation, message.id);
    }

    async fn still_answers(&self, pair: &Pair, epoch: u64) -> bool {
        if self.is_silent(&pair.number) {
            return false;
        }
        let scope = crate::store::Scope::Main(pair.main_account.clone());
        let found = self.parts().store.conversation(&scope, pair.conversation).await;
        found.is_ok_and(|found| {
            found.is_some_and(|c| {
                c.standing.epoch == epoch && c.standing.ai_enabled && c.standing.routing.agent().is_some()
            })
        })
    }

    /// Messages that an earlier process was sending when it ended: Meta may have them, and they are not sent again.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn give_up_what_was_left(&self) -> Result<(), StoreError> {
        let left = self.parts().store.messages_under_way(LEFT_MAX).await?;
        for message in left {
            let why = (0, "this node ended while it was sending it: whether Meta has it is not known".to_owned());
            self.parts().store.message_posted(message, Err(why), self.parts().clock.wall()).await?;
        }
        Ok(())
    }
}

/// Whether a user may be written to freely.
fn is_open(heard: Option<Timestamp>, now: Timestamp) -> bool {
    heard.is_some_and(|heard| now < heard.plus(WINDOW))
}

/// The body of Graph's `messages`.
fn graph_body(pair: &Pair, message: &NewMessage) -> Value {
    let user = &pair.user.id;
    let to = if user.bytes().all(|b| b.is_ascii_digit()) { "to" } else { "recipient" };
    let mut body = json!({
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        to: user,
        "type": message.kind,
        "biz_opaque_callback_data": opaque_of(message.id),
    });
    if let Some(members) = body.as_object_mut() {
        for name in [message.kind.as_str(), "context"] {
            if let Some(held) = message.content.get(name) {
                members.insert(name.to_owned(), held.clone());
            }
        }
    }
    body
}

/// Meta's code and words, or ours with the code 0.
fn reason(outcome: GraphOutcome) -> (i64, String) {
    match outcome {
        GraphOutcome::Refused { code, details, .. } => (code, details),
        GraphOutcome::RateLimited { code } => (code, "Meta is asked too often; try again later".to_owned()),
        GraphOutcome::Timeout | GraphOutcome::ServerError { .. } => {
            (0, "Meta did not answer as it should: whether it has the message is not known".to_owned())
        }
        GraphOutcome::Unreachable => (0, "Meta could not be reached".to_owned()),
        GraphOutcome::Done | GraphOutcome::Gone => (0, "Meta's answer could not be read".to_owned()),
    }
}
