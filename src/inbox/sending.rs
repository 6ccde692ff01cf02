//! The way out to Meta: a message stands in the store as `queued`, then Graph is asked, one after another in each
//! conversation. That it is about to be asked is written first: what was not asked for when its process ended goes out
//! after the next start, and of what was, nobody knows whether Meta has it, so it is not sent again.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::asking::asks;
use super::incoming::{About, opaque_of};
use super::{Inbox, Turn, words};
use engine::admission::permission::Refusal;
use machine::GraphOutcome;
use model::{Direction, MessageStatus, PhoneNumberId, Timestamp, stable_id};
use store::{
    AfterReply, AnsweredMessage, Conversation, EnqueueResult, InterruptedMessage, NewMessage,
    OutgoingMessages, Pair, StoreError,
};

/// How long a user may be written to freely after they wrote or called.
pub const WINDOW: Duration = Duration::from_secs(24 * 3_600);
/// Messages a second of one number: Meta's usual throughput.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(80).expect("not 0");
/// Messages of one conversation, and of all, that wait for Graph.
const LANE_MAX: usize = 64;
const WAITING_MAX: usize = 8_192;
/// Messages of one answer of an agent.
const REPLIES_MAX: usize = 10;
/// Messages looked at at once at the start.
const LEFT_PAGE: u32 = 1_000;
/// How long the same `Idempotency-Key` is the same message, and how often it may have been another before.
const SAME_FOR: Duration = Duration::from_secs(24 * 3_600);
const SAME_MAX: u32 = 1_000;
/// How long until a store that takes nothing is asked again whether a message may go out.
const ASK_AGAIN: Duration = Duration::from_secs(1);

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
    EnqueueResult,
    /// Its number is not there any more.
    NoNumber,
    /// More than a day since the user was heard from: a template is needed.
    WindowClosed,
    /// Too many; seconds to wait.
    TooMany(u64),
    /// It asks for permission to call, and the user was asked as often as may be (L13, L14).
    TooSoon(Refusal),
    /// So it does, and a request to the user is being sent.
    Asking,
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

/// What stands in a lane.
enum Next {
    Post(Posting),
    /// Somebody waits until all before it went out.
    Tell(oneshot::Sender<()>),
}

/// What waits for Graph, by conversation; one that is there has somebody who sends.
pub(super) struct Lanes {
    lanes: Mutex<(HashMap<Uuid, VecDeque<Next>>, usize)>,
    limits: DefaultKeyedRateLimiter<PhoneNumberId>,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            lanes: Mutex::default(),
            limits: DefaultKeyedRateLimiter::keyed(Quota::per_second(PER_SECOND)),
        }
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
        lanes.0.entry(posting.pair.conversation).or_default().push_back(Next::Post(posting));
        fresh
    }

    /// Ends when what stands in a lane now has gone out.
    fn passed(&self, conversation: Uuid) -> Option<oneshot::Receiver<()>> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = lanes.0.get_mut(&conversation)?;
        let (tell, told) = oneshot::channel();
        lane.push_back(Next::Tell(tell));
        Some(told)
    }

    /// The next of a lane; none: the lane is over.
    fn next(&self, conversation: Uuid) -> Option<Posting> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match lanes.0.get_mut(&conversation).and_then(VecDeque::pop_front) {
                Some(Next::Post(posting)) => {
                    lanes.1 = lanes.1.saturating_sub(1);
                    return Some(posting);
                }
                Some(Next::Tell(tell)) => {
                    // Who waited may have gone.
                    let _ = tell.send(());
                }
                None => {
                    lanes.0.remove(&conversation);
                    return None;
                }
            }
        }
    }
}

impl Inbox {
    /// Sends a message for a person or a program; `sender` says who. Stored when this returns; Graph is asked behind it.
    /// `once`: whoever asks for the same by this name within a day gets the message that was sent then.
    ///
    /// # Errors
    /// A rule that forbids it, or the store's.
    pub async fn send(
        &self,
        conversation: &Conversation,
        mut outgoing: Outgoing,
        sender: &str,
        once: Option<&str>,
    ) -> Result<Uuid, NotSent> {
        let now = self.parts().clock.wall();
        let id = match once {
            Some(once) => match self.named(&conversation.pair, once, now).await? {
                Named::Sent(id) => return Ok(id),
                Named::Free(id) => id,
            },
            None => Uuid::new_v4(),
        };
        if outgoing.kind != "template" && !is_open(conversation.heard, now) {
            return Err(NotSent::WindowClosed);
        }
        self.tell_type(&conversation.pair, &mut outgoing).await.map_err(NotSent::Store)?;
        self.go(&conversation.pair, vec![(id, outgoing)], sender, None, None).await?;
        Ok(id)
    }

    /// The message of a name: its id is made of it, so that the store knows it again after a restart and on another node.
    async fn named(&self, pair: &Pair, once: &str, now: Timestamp) -> Result<Named, NotSent> {
        let conversation = pair.conversation.to_string();
        for n in 0..SAME_MAX {
            let id =
                stable_id("sent", &[pair.account.as_str(), &conversation, once, &n.to_string()]);
            match self.parts().store.messages().get(id).await.map_err(NotSent::Store)? {
                None => return Ok(Named::Free(id)),
                Some((_, found)) if now < found.message.at.plus(SAME_FOR) => {
                    return Ok(Named::Sent(id));
                }
                // A day later it is another.
                Some(_) => {}
            }
        }
        Ok(Named::Free(Uuid::new_v4()))
    }

    /// An agent answers a turn, once; `then` is to be done when the reply is out ([`Inbox::posted`]), also by another process.
    /// Nothing goes out where the conversation has another routing by now, or people took over.
    ///
    /// # Errors
    /// [`NotSent::Stale`] then; or a rule that forbids it, or the store's.
    pub async fn reply(
        &self,
        turn: &Turn,
        replies: Vec<Outgoing>,
        then: Option<AfterReply>,
    ) -> Result<Vec<Uuid>, NotSent> {
        let sender = format!("agent:{}", turn.agent);
        let replies: Vec<_> = replies.into_iter().map(|reply| (Uuid::new_v4(), reply)).collect();
        let ids = replies.iter().map(|(id, _)| *id).take(REPLIES_MAX).collect();
        let answers = AnsweredMessage { message: turn.message.id, then };
        self.go(&turn.pair, replies, &sender, Some(turn.epoch), Some(answers)).await?;
        Ok(ids)
    }

    /// Waits until what goes out in a conversation now has gone, whatever became of it.
    pub async fn posted(&self, conversation: Uuid) {
        if let Some(passed) = self.0.lanes.passed(conversation) {
            let _ = passed.await;
        }
    }

    async fn go(
        &self,
        pair: &Pair,
        outgoing: Vec<(Uuid, Outgoing)>,
        sender: &str,
        epoch: Option<u64>,
        answers: Option<AnsweredMessage>,
    ) -> Result<(), NotSent> {
        let number = self.number_of(pair).ok_or(NotSent::NoNumber)?;
        if !self.0.lanes.has_room(pair.conversation) {
            return Err(NotSent::TooMany(1));
        }
        let claimed =
            self.claim_requests(&number, pair, outgoing.get(..REPLIES_MAX).unwrap_or(&outgoing))?;
        let mut messages = Vec::new();
        for (id, Outgoing { kind, content }) in outgoing.into_iter().take(REPLIES_MAX) {
            if let Err(until) = self.0.lanes.limits.check_key(&pair.phone_number_id) {
                return Err(NotSent::TooMany(
                    until.wait_time_from(DefaultClock::default().now()).as_secs() + 1,
                ));
            }
            messages.push(NewMessage {
                id,
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
        let node_id = self.parts().node_id.clone();
        let going = OutgoingMessages {
            conversation: pair.conversation,
            messages: messages.clone(),
            node_id,
            epoch,
            answers,
        };
        match self.parts().store.messages().enqueue(going).await.map_err(NotSent::Store)? {
            EnqueueResult::Stored => {}
            // Whoever asked at the same moment sends it.
            EnqueueResult::Duplicate => return Ok(()),
            EnqueueResult::Refused => {
                return Err(if epoch.is_some() { NotSent::Stale } else { NotSent::Gone });
            }
        }
        claimed.keep();
        for message in messages {
            let id = message.id;
            self.line_up(Posting { pair: pair.clone(), message, epoch });
            self.tell_message(&pair.main_account, pair.conversation, id);
        }
        Ok(())
    }

    fn line_up(&self, posting: Posting) {
        let conversation = posting.pair.conversation;
        if self.0.lanes.push(posting) {
            let inbox = self.clone();
            self.parts().tasks.spawn(async move {
                while let Some(posting) = inbox.0.lanes.next(conversation) {
                    inbox.post(posting).await;
                }
            });
        }
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
            return self.unsent(&pair, &message, why).await;
        }
        let Some(number) = self.number_of(&pair) else {
            let why = (
                0,
                "not sent: its number was disconnected, or is another account's now".to_owned(),
            );
            return self.unsent(&pair, &message, why).await;
        };
        if !self.may_ask(message.id).await {
            return;
        }
        // It waited for its store: a day later nobody may be written to with it, and what it answers is long past.
        if message.kind != "template" && parts.clock.wall().since(message.at) > WINDOW {
            let why = (0, "not sent: it waited for more than a day".to_owned());
            return self.unsent(&pair, &message, why).await;
        }
        let body = graph_body(&pair, &message);
        let sent = parts
            .graph
            .send_message(&number.spec.phone_number_id, number.spec.access_token.as_ref(), &body)
            .await;
        let written = match sent {
            Ok(wamid) => {
                let written = parts.store.messages().set_wamid(message.id, wamid.clone()).await;
                self.0.early.named(&pair.phone_number_id, &wamid);
                written.map(drop)
            }
            Err(outcome) => {
                if asks(&message.kind, &message.content) {
                    self.asking_failed(&pair, &outcome);
                }
                return self.failed(&pair, message.id, reason(outcome)).await;
            }
        };
        if let Err(error) = written {
            tracing::error!(%error, message = %message.id, "what became of a message could not be written");
        }
        self.tell_message(&pair.main_account, pair.conversation, message.id);
    }

    /// Notes that Meta is about to be asked; `false`: nobody may ask. A message waits with its store.
    async fn may_ask(&self, message: Uuid) -> bool {
        loop {
            match self
                .parts()
                .store
                .messages()
                .begin_sending(message, self.parts().clock.wall())
                .await
            {
                Ok(may) => return may,
                Err(StoreError::Closed) => return false,
                Err(error) => tracing::warn!(%error, %message, "a message waits for the store"),
            }
            // However long that takes, its window apart (`post`); what a stop finds here goes out after the next start.
            if self.parts().tasks.is_closed() {
                return false;
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// A message does not go out.
    async fn unsent(&self, pair: &Pair, message: &NewMessage, why: (i64, String)) {
        if asks(&message.kind, &message.content) {
            self.asked_for_nothing(pair);
        }
        self.failed(pair, message.id, why).await;
    }

    /// A message did not go out, as far as is known: its webhook hears of it.
    async fn failed(&self, pair: &Pair, message: Uuid, why: (i64, String)) {
        let number = self.number_of(pair);
        let about = number.as_deref().map_or_else(|| About::pair(pair), About::number);
        let status = self.status_of(&about, None, Some(message), MessageStatus::Failed, Some(why));
        match self.parts().store.messages().update_status(status) {
            Some(written) => drop(self.status_written(&pair.main_account, written.await)),
            None => tracing::error!(%message, "what became of a message could not be written"),
        }
    }

    async fn still_answers(&self, pair: &Pair, epoch: u64) -> bool {
        if self.is_silent(pair) {
            return false;
        }
        let scope = store::Scope::Main(pair.main_account.clone());
        let found = self.parts().store.conversations().get(&scope, pair.conversation).await;
        found.is_ok_and(|found| found.is_some_and(|c| c.standing.answers(epoch).is_some()))
    }

    /// Messages that an earlier process had taken: they go out now, but for those that Meta may have.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn take_up_what_was_left(&self) -> Result<(), StoreError> {
        let mut after = (i64::MIN, Uuid::nil());
        loop {
            let left = self
                .parts()
                .store
                .messages()
                .interrupted(&self.parts().node_id, after, LEFT_PAGE)
                .await?;
            let Some(last) = left.last() else { return Ok(()) };
            after = (last.message.message.at.micros(), last.message.message.id);
            for InterruptedMessage { pair, message, epoch, asked } in left {
                if asked {
                    let why =
                        "this node ended while it was sending it: whether Meta has it is not known";
                    self.failed(&pair, message.message.id, (0, why.to_owned())).await;
                } else {
                    self.line_up(Posting { pair, message: message.message, epoch });
                }
            }
        }
    }
}

/// What a name stands for.
enum Named {
    /// This message went out under it.
    Sent(Uuid),
    /// None yet: the next has this id.
    Free(Uuid),
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
                let mut held = held.clone();
                // Meta knows it, and takes no word on it.
                if let (true, Some(file)) = (words::MEDIA.contains(&name), held.as_object_mut()) {
                    file.remove("mime_type");
                }
                members.insert(name.to_owned(), held);
            }
        }
    }
    body
}

/// Meta's code and words, or ours with the code 0.
fn reason(outcome: GraphOutcome) -> (i64, String) {
    match outcome {
        GraphOutcome::Refused { code, details, .. } => (code, details),
        GraphOutcome::RateLimited { code } => {
            (code, "Meta is asked too often; try again later".to_owned())
        }
        GraphOutcome::Timeout | GraphOutcome::ServerError { .. } => (
            0,
            "Meta did not answer as it should: whether it has the message is not known".to_owned(),
        ),
        GraphOutcome::Unreachable => (0, "Meta could not be reached".to_owned()),
        GraphOutcome::Done | GraphOutcome::Gone => {
            (0, "Meta's answer could not be read".to_owned())
        }
    }
}
