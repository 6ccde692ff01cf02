//! Adds messages of users, calls and permission requests to the timelines of conversations. A
//! user's message is stored, together with the event that reports it, before Meta gets its 200.
//! All other processing happens afterwards.

use std::pin::Pin;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::events::WebhookEvents;
use super::numbers::ServedNumbers;
use super::order::{Lines, MessageTimes};
use super::routing::Router;
use super::turns::{Turn, Turns};
use super::user_files::UserFiles;
use super::words;
use crate::admission::NumberEntry;
use crate::call::links;
use crate::feed::{Feed, FeedChange};
use crate::notices::{Notice, Notices};
use model::{Direction, MessageStatus, NotificationTopic, Timestamp, stable_id};
use store::{InboxResult, NewMessage, Pair, Store, TimelineEntry, UserName};

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

/// Adds entries to timelines.
pub struct Timeline {
    pub(super) store: Store,
    pub(super) times: Arc<MessageTimes>,
    /// The messages that AI agents answer, in the order in which they arrived.
    pub(super) lines: Arc<Lines>,
    pub(super) node_id: String,
    pub(super) feed: Feed,
    pub(super) notices: Notices,
    pub(super) tasks: TaskTracker,
    pub(super) numbers: Arc<ServedNumbers>,
    pub(super) events: Arc<WebhookEvents>,
    pub(super) router: Arc<Router>,
    pub(super) turns: Arc<Turns>,
    pub(super) files: Arc<UserFiles>,
}

impl Timeline {
    /// Stores a user's message. The webhook's 200 waits for the returned future. A message without
    /// a user is not stored, and the result is `None`.
    ///
    /// # Errors
    /// Fails if the store's queue is full.
    pub fn receive(
        self: &Arc<Self>,
        number: &Arc<NumberEntry>,
        received: UserMessage,
    ) -> Result<Option<StoredFuture>, QueueFull> {
        let Some(user) = received.sender.user() else { return Ok(None) };
        let now = self.times.next();
        let id = stable_id("message", &[number.spec.first_id.as_str(), &received.wamid]);
        let sent = received.timestamp.map_or(now, |secs| Timestamp::from_secs(secs).min(now));
        let pair = self.numbers.pair(number, user);
        let message = NewMessage {
            id,
            wamid: Some(received.wamid),
            direction: Direction::Inbound,
            text: words::short(&received.kind, &received.content),
            kind: received.kind,
            content: received.content,
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
        let draft =
            self.events.draft(number, "message.received", &["came", &id.to_string()], data, form);
        let came = TimelineEntry {
            pair,
            inbound_at: Some(sent),
            counts: message.kind != "reaction",
            routing: self.numbers.routing_of(number),
            draft: Some(draft),
            // An agent answers neither reactions nor system messages, which report a user's new
            // number or identity.
            turn: (!matches!(message.kind.as_str(), "reaction" | "system") && !number.spec.silent)
                .then(|| self.node_id.clone()),
            message,
        };
        self.add(number, came).map(Some)
    }

    /// Stores a message and then distributes it: to webhooks, the AI agent, the console and the
    /// file cache.
    pub(super) fn add(
        self: &Arc<Self>,
        number: &Arc<NumberEntry>,
        mut came: TimelineEntry,
    ) -> Result<StoredFuture, QueueFull> {
        // Only the store needs the draft.
        let draft = came.draft.take();
        let reported = draft.is_some();
        let written = self
            .store
            .messages()
            .receive(TimelineEntry { draft, ..came.clone() })
            .ok_or(QueueFull)?;
        let (timeline, number) = (self.clone(), number.clone());
        if !self.numbers.is_current_owner(&number) {
            // The store does not route the message until the new owner is recorded.
            self.router.spawn_claim();
        }
        let mut place = came.turn.is_some().then(|| self.lines.join(came.pair.conversation));
        let (tell, taken) = oneshot::channel();
        // A separate task: it must also complete if Meta's connection is closed before the 200.
        self.tasks.spawn(async move {
            let found = written.await;
            let _ =
                tell.send(matches!(found, Ok(InboxResult::Entry(..) | InboxResult::Journalled)));
            let mut turn = None;
            if let Ok(InboxResult::Entry(Some((standing, unread)), written)) = found {
                timeline.events.send_callbacks(written);
                let (conversation, message) = (came.pair.conversation, came.message.id);
                let change = FeedChange::Message { conversation, message };
                timeline.feed.publish((&came.pair).into(), change);
                let answers = came.message.direction == Direction::Inbound && reported;
                if answers {
                    timeline.files.prefetch(&number, &came.message);
                }
                let has_turn = came.turn.is_some() && standing.ai_enabled;
                let agent = standing.routing.agent().filter(|_| has_turn);
                // One notification until the conversation is read, unless an agent answers.
                if answers && came.counts && unread == 1 && agent.is_none() {
                    timeline.notify_people(&came);
                }
                turn = agent.map(|agent| Turn {
                    pair: came.pair,
                    agent,
                    epoch: standing.epoch,
                    message: came.message,
                });
            }
            if let Some(place) = &mut place {
                place.reached().await;
            }
            if let Some(turn) = turn {
                timeline.turns.give(turn).await;
            }
            drop(place);
        });
        Ok(Box::pin(async move { taken.await.unwrap_or(false) }))
    }

    /// Creates a notification about a new message.
    fn notify_people(&self, came: &TimelineEntry) {
        let Pair { account, main_account, number, user, conversation, .. } = &came.pair;
        let who = if user.name.is_empty() { &user.id } else { &user.name };
        let text = format!("{who}: {}", came.message.text);
        self.notices.note(Notice {
            number: Some(number.to_string()),
            user: Some(user.id.clone()),
            conversation: Some(*conversation),
            ..Notice::new(account.clone(), main_account.clone(), NotificationTopic::Message, text)
        });
    }

    /// Adds a call permission request to the user's conversation.
    pub fn permission_requested(
        self: &Arc<Self>,
        number: &Arc<NumberEntry>,
        user: &str,
        wamid: &str,
        text: Option<&str>,
    ) {
        let content =
            json!({"interactive": {"type": "call_permission_request", "body": {"text": text}}});
        let user = UserName { id: user.to_owned(), bsuid: None, name: String::new() };
        let came = TimelineEntry {
            pair: self.numbers.pair(number, user),
            message: NewMessage {
                id: stable_id("message", &[number.spec.first_id.as_str(), wamid]),
                wamid: Some(wamid.to_owned()),
                direction: Direction::Outbound,
                kind: "interactive".to_owned(),
                text: words::short("interactive", &content),
                content,
                status: MessageStatus::Queued,
                sender: None,
                at: self.times.next(),
            },
            inbound_at: None,
            counts: false,
            routing: self.numbers.routing_of(number),
            draft: None,
            turn: None,
        };
        if self.add(number, came).is_err() {
            tracing::warn!("store queue full; permission request not added to its conversation");
        }
    }
}
