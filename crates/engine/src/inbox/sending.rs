//! Sends messages through Graph. A message is first stored as `queued` and then sent to Graph, one
//! message at a time in each conversation.
//!
//! The store records that a request is about to be made, once nothing holds it back any more. After
//! a crash or a stop, the next process sends messages without that mark, and in a fleet the node
//! that adopts them. Messages with the mark may have reached Meta; they are not sent again, but
//! reported as failed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::agent_locks::AgentLocks;
use super::events::EventSource;
use super::lanes::{Lanes, QueuedMessage};
use super::numbers::ServedNumbers;
use super::order::MessageTimes;
use super::permission_requests::{PermissionRequests, is_permission_request};
use super::statuses::{DeliveryStatuses, opaque_data};
use super::templates::Templates;
use super::turns::Turn;
use super::uploads::Uploads;
use super::words;
use crate::admission::permission::Refusal;
use crate::disk_space::Content;
use crate::feed::{Feed, FeedChange};
use crate::meta::{Graph, Messages, RequestPlace};
use machine::GraphOutcome;
use model::{Clock, Direction, MessageStatus, Timestamp, stable_id};
use store::{
    AfterReply, AnsweredMessage, Conversation, EnqueueResult, InboxResult, InterruptedMessage,
    NewMessage, OutgoingMessages, Pair, Scope, Store, StoreError, run_of_owner,
};

/// Meta's customer service window: how long free-form messages are allowed after the user's last
/// message or call.
pub const WINDOW: Duration = Duration::from_secs(24 * 3_600);
/// Maximum number of messages in one answer of an agent.
const REPLIES_MAX: usize = 10;
/// Messages per page when interrupted ones are read at start-up.
const PAGE: u32 = 1_000;
/// Size in bytes from which on a message that is no text needs [disk space](crate::disk_space). Texts
/// have at most 4,096 characters.
const LONG: usize = 4_096;
/// How long an `Idempotency-Key` identifies the same message.
const KEY_LIFETIME: Duration = Duration::from_secs(24 * 3_600);
/// Maximum number of earlier messages with the same `Idempotency-Key`.
const KEY_USES_MAX: u32 = 1_000;
/// Pause before a full queue of requests to Graph is tried again.
const PLACE_RETRY: Duration = Duration::from_secs(1);
/// Pause before a failed write to the store is retried.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// Interval at which a node of a fleet looks for messages that it has adopted.
const ADOPTED_INTERVAL: Duration = Duration::from_secs(5);

/// A message to send.
#[derive(Clone, PartialEq)]
pub struct Outgoing {
    /// Meta's message type.
    pub kind: String,
    /// The content under the name of the type, and optionally `context`.
    pub content: Value,
}

impl Outgoing {
    /// A text message.
    pub fn text(text: &str) -> Self {
        Self { kind: "text".to_owned(), content: json!({"text": {"body": text}}) }
    }
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outgoing({})", self.kind)
    }
}

/// The reason why a message was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The conversation does not exist.
    #[error("no such conversation")]
    NoConversation,
    /// The conversation's number is no longer served.
    #[error("the number is no longer served")]
    NoNumber,
    /// The customer service window is closed, and the message is not a template.
    #[error("the customer service window is closed")]
    WindowClosed,
    /// A rate or queue limit is reached. Contains the seconds to wait.
    #[error("a rate limit is reached; retry after {0} s")]
    TooMany(u64),
    /// The message requests permission to call, and the limit on requests is reached.
    #[error("{0}")]
    RequestTooSoon(Refusal),
    /// The message requests permission to call, and another request is in progress.
    #[error("another permission request is in progress")]
    RequestInProgress,
    /// The routing has changed, or people have taken over, since the agent was asked.
    #[error("the routing has changed")]
    Stale,
    /// There is no disk space for a long message.
    #[error("no space for the message: {0}")]
    NoSpace(&'static str),
    #[error("store failed: {0}")]
    Store(#[source] StoreError),
}

/// Sends messages of people, programs and AI agents.
pub struct MessageSender {
    pub(super) store: Store,
    pub(super) graph: Arc<Graph>,
    pub(super) clock: Clock,
    pub(super) times: Arc<MessageTimes>,
    pub(super) node_id: String,
    pub(super) feed: Feed,
    pub(super) tasks: TaskTracker,
    /// Cancelled when the process stops. The next one sends the messages that wait.
    pub(super) stop: CancellationToken,
    pub(super) numbers: Arc<ServedNumbers>,
    pub(super) agent_locks: Arc<AgentLocks>,
    pub(super) uploads: Arc<Uploads>,
    pub(super) templates: Arc<Templates>,
    pub(super) statuses: Arc<DeliveryStatuses>,
    pub(super) requests: PermissionRequests,
    pub(super) lanes: Lanes,
    /// Messages that the previous reading of the store found with the mark of a request that is not
    /// of this process.
    pub(super) asked_elsewhere: Mutex<HashSet<Uuid>>,
    /// Replies of agents that Meta may or may not have, until [`Self::take_lost_replies`].
    pub(super) lost_replies: std::sync::Mutex<Vec<LostReply>>,
}

/// A reply of an agent that was being sent when the node ended.
#[derive(Clone, Debug)]
pub struct LostReply {
    pub pair: Pair,
    pub agent: Uuid,
}

/// Number of [`LostReply`]s that wait at most.
const LOST_REPLIES_MAX: usize = 1_000;

impl MessageSender {
    /// Queues a message of a person or program, named by `sender`. The message is stored when this
    /// returns and sent to Graph later. With `key`, an idempotency key, a repeated call within a
    /// day returns the id of the first message.
    ///
    /// # Errors
    /// Fails if a rule forbids the message or the store fails.
    pub async fn send(
        self: &Arc<Self>,
        conversation: &Conversation,
        mut outgoing: Outgoing,
        sender: &str,
        key: Option<&str>,
    ) -> Result<Uuid, SendError> {
        let now = self.clock.wall();
        let id = match key {
            Some(key) => match self.look_up_key(&conversation.pair, key, now).await? {
                KeyLookup::Sent(id) => return Ok(id),
                KeyLookup::Free(id) => id,
            },
            None => Uuid::new_v4(),
        };
        if outgoing.kind != "template" && !is_window_open(conversation.last_inbound, now) {
            return Err(SendError::WindowClosed);
        }
        self.uploads
            .add_media_type(&conversation.pair, &mut outgoing)
            .await
            .map_err(SendError::Store)?;
        self.enqueue(&conversation.pair, vec![(id, outgoing)], sender, None, None).await?;
        Ok(id)
    }

    /// Looks up an idempotency key. The message id is derived from the key, so that the message is
    /// found after a restart and by other nodes.
    async fn look_up_key(
        &self,
        pair: &Pair,
        key: &str,
        now: Timestamp,
    ) -> Result<KeyLookup, SendError> {
        let conversation = pair.conversation.to_string();
        for n in 0..KEY_USES_MAX {
            let id =
                stable_id("sent", &[pair.account.as_str(), &conversation, key, &n.to_string()]);
            match self.store.messages().get(id).await.map_err(SendError::Store)? {
                None => return Ok(KeyLookup::Free(id)),
                Some((_, found)) if now < found.message.at.plus(KEY_LIFETIME) => {
                    return Ok(KeyLookup::Sent(id));
                }
                // An older message with this key has expired.
                Some(_) => {}
            }
        }
        Ok(KeyLookup::Free(Uuid::new_v4()))
    }

    /// Sends an agent's answer to a turn, at most once. `then` is stored with the answer, and is
    /// carried out once the messages are sent ([`Self::wait_until_sent`]), by the next process if
    /// necessary.
    ///
    /// # Errors
    /// Returns [`SendError::Stale`] if the conversation has another routing by now, or if people
    /// took over. Also fails if a rule forbids a message or the store fails.
    pub async fn reply(
        self: &Arc<Self>,
        turn: &Turn,
        replies: Vec<Outgoing>,
        then: Option<AfterReply>,
    ) -> Result<Vec<Uuid>, SendError> {
        let sender = format!("agent:{}", turn.agent);
        let replies: Vec<_> = replies.into_iter().map(|reply| (Uuid::new_v4(), reply)).collect();
        let ids = replies.iter().map(|(id, _)| *id).take(REPLIES_MAX).collect();
        let answers = AnsweredMessage { message: turn.message.id, then };
        self.enqueue(&turn.pair, replies, &sender, Some(turn.epoch), Some(answers)).await?;
        Ok(ids)
    }

    /// Waits until the messages that are queued in a conversation now have been sent or have
    /// failed.
    pub async fn wait_until_sent(&self, conversation: Uuid) {
        if let Some(drained) = self.lanes.drained(conversation) {
            let _ = drained.await;
        }
    }

    async fn enqueue(
        self: &Arc<Self>,
        pair: &Pair,
        mut outgoing: Vec<(Uuid, Outgoing)>,
        sender: &str,
        epoch: Option<u64>,
        answers: Option<AnsweredMessage>,
    ) -> Result<(), SendError> {
        let number = self.numbers.number_of(pair).ok_or(SendError::NoNumber)?;
        let count = outgoing.len().min(REPLIES_MAX);
        let shares = self.lanes.take_shares(pair, count).ok_or(SendError::TooMany(1))?;
        let (mut short, mut long) = (0, 0);
        for (_, Outgoing { kind, content }) in &outgoing {
            let bytes = content.to_string().len();
            let sum = if kind != "text" && bytes > LONG { &mut long } else { &mut short };
            *sum += bytes;
        }
        let space = &self.uploads.space;
        space.take_change(&pair.main_account, short).map_err(SendError::NoSpace)?;
        if long > 0 {
            let mut space = space.file(Content::Message, pair.main_account.clone());
            space.grow(u64::try_from(long).unwrap_or(u64::MAX)).map_err(SendError::NoSpace)?;
        }
        let to_count = outgoing.get(..REPLIES_MAX).unwrap_or(&outgoing);
        let counted = self.requests.count(&number, pair, to_count).await?;
        for (_, one) in outgoing.iter_mut().take(REPLIES_MAX) {
            self.templates.add_text(&number, one).await;
        }
        let mut messages = Vec::new();
        for (id, Outgoing { kind, content }) in outgoing.into_iter().take(REPLIES_MAX) {
            if let Err(until) = self.lanes.limits.check_key(&pair.phone_number_id) {
                return Err(SendError::TooMany(
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
                at: self.times.next(),
            });
        }
        let node_id = self.node_id.clone();
        let going = OutgoingMessages {
            conversation: pair.conversation,
            messages: messages.clone(),
            node_id,
            epoch,
            answers,
        };
        match self.store.messages().enqueue(going).await.map_err(SendError::Store)? {
            EnqueueResult::Stored => {}
            // A concurrent request with the same key sends the message.
            EnqueueResult::Duplicate => return Ok(()),
            EnqueueResult::Refused => {
                return Err(if epoch.is_some() {
                    SendError::Stale
                } else {
                    SendError::NoConversation
                });
            }
        }
        counted.keep();
        for (message, share) in messages.into_iter().zip(shares) {
            let id = message.id;
            let share = Some(share);
            self.push_queued(QueuedMessage { pair: pair.clone(), message, epoch, share });
            self.publish(pair, id);
        }
        Ok(())
    }

    fn push_queued(self: &Arc<Self>, queued: QueuedMessage) {
        let conversation = queued.pair.conversation;
        if self.lanes.push(queued) {
            let sender = self.clone();
            self.tasks.spawn(async move {
                while let Some(queued) = sender.lanes.next(conversation) {
                    let id = queued.message.id;
                    sender.send_queued(queued).await;
                    sender.lanes.done(id);
                    // The rest has not been sent, which nothing that waits for it may believe.
                    if sender.stop.is_cancelled() {
                        break;
                    }
                }
            });
        }
    }

    async fn send_queued(&self, queued: QueuedMessage) {
        let QueuedMessage { pair, message, epoch, share } = queued;
        drop(share);
        let _held = match epoch {
            Some(_) => Some(self.agent_locks.answer(&pair.phone_number_id).await),
            None => None,
        };
        if !self.still_answers(&pair, epoch).await {
            return self.fail_rerouted(&pair, &message).await;
        }
        let Some(number) = self.numbers.number_of(&pair) else {
            let why = (
                0,
                "not sent: the number was disconnected or belongs to another account now"
                    .to_owned(),
            );
            return self.fail_unsent(&pair, &message, why).await;
        };
        let (id, token) = (&number.spec.phone_number_id, number.spec.access_token.as_ref());
        let requests = self.graph.messages(id, token);
        let Some(place) = self.wait_for_place(&requests).await else { return };
        // The number may have been disconnected meanwhile.
        if epoch.is_some() && self.numbers.is_silent(&pair) {
            return self.fail_rerouted(&pair, &message).await;
        }
        if !self.begin_sending(message.id).await {
            // A change of routing that could wait no longer was made meanwhile, maybe at another node.
            if !self.stop.is_cancelled() && !self.still_answers(&pair, epoch).await {
                self.fail_rerouted(&pair, &message).await;
            }
            return;
        }
        // The message waited for the store. After a day, the customer service window is closed and
        // the answer is out of date.
        if message.kind != "template" && self.clock.wall().since(message.at) > WINDOW {
            let why = (0, "not sent: the message waited for more than a day".to_owned());
            return self.fail_unsent(&pair, &message, why).await;
        }
        let written = match requests.send(&graph_body(&pair, &message), place).await {
            Ok(wamid) => {
                let written = self.store.messages().set_wamid(message.id, wamid.clone()).await;
                self.statuses.early.resolve(&pair.phone_number_id, &wamid);
                written.map(drop)
            }
            Err(outcome) => {
                if is_permission_request(&message.kind, &message.content) {
                    self.requests.failed(&pair, &outcome);
                }
                self.fail(&pair, message.id, reason(outcome)).await;
                return;
            }
        };
        if let Err(error) = written {
            tracing::error!(%error, message_id = %message.id, "message status not stored");
        }
        self.publish(&pair, message.id);
    }

    /// Waits until the request to Graph can be sent at once. Returns `None` if the process stops.
    async fn wait_for_place<'a>(&self, requests: &'a Messages<'_>) -> Option<RequestPlace<'a>> {
        let place = async {
            loop {
                match requests.place().await {
                    Ok(place) => return place,
                    // Too many requests are waiting.
                    Err(_) => tokio::time::sleep(PLACE_RETRY).await,
                }
            }
        };
        self.stop.run_until_cancelled(place).await
    }

    /// Records that the request to Graph is about to be sent, and waits while the store is
    /// unavailable. Returns `false` if the message must not be sent.
    async fn begin_sending(&self, message: Uuid) -> bool {
        loop {
            match self.store.messages().begin_sending(message, self.clock.wall()).await {
                Ok(may) => return may,
                Err(StoreError::Closed) => return false,
                Err(error) => tracing::warn!(%error, %message, "store unavailable; message waits"),
            }
            // The wait has no time limit here, since `send_queued` checks the window. Messages that
            // remain at shutdown are sent after the next start.
            let pause = tokio::time::sleep(STORE_RETRY);
            if self.stop.run_until_cancelled(pause).await.is_none() {
                return false;
            }
        }
    }

    /// Marks an agent's reply as failed because the agent no longer answers the conversation.
    async fn fail_rerouted(&self, pair: &Pair, message: &NewMessage) {
        let why = (0, "not sent: the routing of the conversation has changed".to_owned());
        self.fail_unsent(pair, message, why).await;
    }

    /// Marks a message that was not sent to Graph as failed.
    async fn fail_unsent(&self, pair: &Pair, message: &NewMessage, why: (i64, String)) {
        if is_permission_request(&message.kind, &message.content) {
            self.requests.withdraw(pair);
        }
        self.fail(pair, message.id, why).await;
    }

    /// Stores that a message failed. This also reports the failure to the webhook. Returns `false` if
    /// that was not stored, or if the message has got another state meanwhile.
    async fn fail(&self, pair: &Pair, message: Uuid, why: (i64, String)) -> bool {
        let number = self.numbers.number_of(pair);
        let about = number.as_deref().map_or_else(|| EventSource::pair(pair), EventSource::number);
        let status =
            self.statuses.update(&about, None, Some(message), MessageStatus::Failed, Some(why));
        let Some(written) = self.store.messages().update_status(status) else {
            tracing::error!(%message, "message status not stored");
            return false;
        };
        let written = written.await;
        let has_failed = matches!(written, Ok(InboxResult::Status(Some(_), _)));
        self.statuses.finish(pair.into(), written);
        has_failed
    }

    fn publish(&self, pair: &Pair, message: Uuid) {
        let change = FeedChange::Message { conversation: pair.conversation, message };
        self.feed.publish(pair.into(), change);
    }

    /// Whether a message may be sent: it is not of an agent, or its agent still answers the
    /// conversation.
    async fn still_answers(&self, pair: &Pair, epoch: Option<u64>) -> bool {
        let Some(epoch) = epoch else { return true };
        if self.numbers.is_silent(pair) {
            return false;
        }
        let scope = Scope::Main(pair.main_account.clone());
        let found = self.store.conversations().get(&scope, pair.conversation).await;
        found.is_ok_and(|found| found.is_some_and(|c| c.standing.answers(epoch).is_some()))
    }

    /// Takes the replies of agents that may be lost. Their agents must tell people about them.
    pub fn take_lost_replies(&self) -> Vec<LostReply> {
        std::mem::take(&mut *self.lost_replies())
    }

    fn lost_replies(&self) -> std::sync::MutexGuard<'_, Vec<LostReply>> {
        self.lost_replies.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Returns `true` if other nodes adopt this node's messages when it ends.
    fn is_of_fleet(&self) -> bool {
        run_of_owner(&self.node_id).is_some()
    }

    /// In a fleet, queues the messages that this node has adopted. Those of a turn are adopted with
    /// it.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub async fn queue_adopted(self: &Arc<Self>) -> Result<(), StoreError> {
        if self.is_of_fleet() { self.resume_interrupted().await } else { Ok(()) }
    }

    /// In a fleet, sends the messages that this node adopts, until the process stops. They are of
    /// nodes that have left, or of earlier processes of this node.
    pub async fn send_adopted(self: Arc<Self>) {
        if !self.is_of_fleet() {
            return;
        }
        let mut interval = tokio::time::interval(ADOPTED_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let polls = async {
            loop {
                interval.tick().await;
                if let Err(error) = self.resume_interrupted().await {
                    tracing::warn!(%error, "reading adopted messages failed; retrying");
                }
            }
        };
        self.stop.run_until_cancelled(polls).await;
    }

    /// Queues the messages that another process left to this one, and fails those that Meta may
    /// have.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub(super) async fn resume_interrupted(self: &Arc<Self>) -> Result<(), StoreError> {
        let mut asked_elsewhere = self.asked_elsewhere.lock().await;
        let (mut after, mut asked_now) = ((i64::MIN, Uuid::nil()), HashSet::new());
        loop {
            let left = self.store.messages().interrupted(&self.node_id, after, PAGE).await?;
            let Some(last) = left.last() else { break };
            after = (last.message.message.at.micros(), last.message.message.id);
            let left =
                left.into_iter().filter(|left| !self.lanes.contains(left.message.message.id));
            let (asked, unasked): (Vec<_>, Vec<_>) = left.partition(|left| left.asked);
            // First, while the reading is fresh: a message that was sent meanwhile is no longer
            // known.
            for InterruptedMessage { pair, message, epoch, .. } in unasked {
                let share = self.lanes.take_share(&pair);
                let message = message.message;
                self.push_queued(QueuedMessage { pair, message, epoch, share });
            }
            for InterruptedMessage { pair, message, .. } in asked {
                let id = message.message.id;
                if self.is_of_fleet() && !asked_elsewhere.contains(&id) {
                    // This process may have sent it since the store was read. Then it is not found
                    // again.
                    asked_now.insert(id);
                    continue;
                }
                let why =
                    "the node ended while sending the message: it is unknown whether Meta has it";
                let has_failed = self.fail(&pair, id, (0, why.to_owned())).await;
                let sender = message.message.sender.as_deref();
                let agent = sender.and_then(|sender| sender.strip_prefix("agent:"));
                if let (true, Some(agent)) = (has_failed, agent.and_then(|id| id.parse().ok())) {
                    let mut lost = self.lost_replies();
                    if lost.len() < LOST_REPLIES_MAX {
                        lost.push(LostReply { pair, agent });
                    }
                }
            }
        }
        *asked_elsewhere = asked_now;
        Ok(())
    }
}

/// The result of looking up an idempotency key.
enum KeyLookup {
    /// This message was sent with the key.
    Sent(Uuid),
    /// The key is unused. The new message gets this id.
    Free(Uuid),
}

/// Returns whether the customer service window is open.
fn is_window_open(last_inbound: Option<Timestamp>, now: Timestamp) -> bool {
    last_inbound.is_some_and(|last_inbound| now < last_inbound.plus(WINDOW))
}

/// The body of a Graph `messages` request.
fn graph_body(pair: &Pair, message: &NewMessage) -> Value {
    let user = &pair.user.id;
    let to = if user.bytes().all(|b| b.is_ascii_digit()) { "to" } else { "recipient" };
    let mut body = json!({
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        to: user,
        "type": message.kind,
        "biz_opaque_callback_data": opaque_data(message.id),
    });
    if let Some(members) = body.as_object_mut() {
        for name in [message.kind.as_str(), "context"] {
            if let Some(held) = message.content.get(name) {
                let mut held = held.clone();
                // Graph rejects this member.
                if let (true, Some(file)) = (words::MEDIA.contains(&name), held.as_object_mut()) {
                    file.remove("mime_type");
                }
                members.insert(name.to_owned(), held);
            }
        }
    }
    body
}

/// Meta's error code and text, or code 0 and a text of Offhook's.
fn reason(outcome: GraphOutcome) -> (i64, String) {
    match outcome {
        GraphOutcome::Refused { code, details, .. } => (code, details),
        GraphOutcome::RateLimited { code } => {
            (code, "rate limit of Meta reached; try again later".to_owned())
        }
        GraphOutcome::ServerError { code, .. } if code != 0 => (
            code,
            "Meta failed on every attempt: it is unknown whether it has the message".to_owned(),
        ),
        GraphOutcome::Timeout | GraphOutcome::ServerError { .. } => {
            (0, "no valid answer from Meta: it is unknown whether Meta has the message".to_owned())
        }
        GraphOutcome::Unreachable => (0, "Meta could not be reached".to_owned()),
        GraphOutcome::Done | GraphOutcome::Gone => (0, "Meta's answer was unreadable".to_owned()),
    }
}
