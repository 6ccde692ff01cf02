//! Messages between users and business numbers: conversations, their routing, and sending through
//! Graph.
//!
//! A user's message is stored once, with its conversation and the events that report it, before
//! Meta gets its 200 (`incoming`). The conversation's routing decides who gets it (`routing`): a
//! webhook, through the outbox, or an AI agent, as a [`Turn`] in a bounded channel that `agents`
//! reads and answers with [`Inbox::reply`]. An outgoing message is stored as `queued` before the
//! request to Graph (`sending`); its files are uploaded to Meta before that (`files`). `words`
//! builds the JSON and is pure. Calls appear only as timeline entries and events (`calls`).

mod calls;
mod delivery_notices;
mod early_statuses;
mod files;
mod incoming;
mod media;
mod missing_webhooks;
mod notes;
mod ownership;
mod permission_requests;
mod routing;
mod sending;
mod settings;
mod templates;
pub mod words;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use dashmap::DashMap;
use tokio::sync::{Notify, RwLock, mpsc};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::admission::permission::Consents;
use crate::admission::{Directory, NumberEntry};
use crate::call::Outbox;
use crate::feed::{Audience, Feed, FeedChange};
use crate::links::LinkSigner;
use crate::meta::Graph;
use crate::notices::Notices;
use model::Clock;
use model::{PhoneNumberId, Routing};
use store::{NewMessage, Pair, QueuedCallback, Store, UserName};

pub use files::{FILES, FileKind, UploadError};
pub use incoming::{QueueFull, ReceivedStatus, Sender, StoredFuture, UserMessage};
pub use media::{MediaCache, MediaFile};
pub use missing_webhooks::MissingWebhook;
pub use routing::{RoutingError, WebhookSpec};
pub use sending::{Outgoing, SendError, WINDOW};
pub use settings::WebhookSettings;
pub use templates::TemplatesError;

/// The capacity of the channel of turns. A turn that does not fit stays pending in the store and is
/// answered later.
const TURNS: usize = 4_096;

/// A user's message that an AI agent has to answer.
#[derive(Clone, Debug)]
pub struct Turn {
    pub pair: Pair,
    pub agent: Uuid,
    /// The conversation's epoch when the message arrived. An answer is sent only while the epoch is
    /// the same.
    pub epoch: u64,
    pub message: NewMessage,
}

/// The dependencies of the inbox.
pub struct InboxParts {
    pub store: Store,
    pub outbox: Outbox,
    pub directory: Arc<Directory>,
    pub graph: Arc<Graph>,
    /// Notifications for people.
    pub notices: Notices,
    pub feed: Feed,
    pub clock: Clock,
    pub node_id: String,
    /// The node's public URL without a trailing slash.
    pub base_url: String,
    /// The folder of users' files.
    pub media: PathBuf,
    /// Call permissions, since a message may request one.
    pub consents: Arc<Consents>,
    pub tasks: TaskTracker,
}

/// A listener for changes of a number's routing. Its last two arguments are the old and the new
/// routing.
pub type RoutingListener = Box<dyn Fn(&Inbox, &NumberEntry, Routing, Routing) + Send + Sync>;

/// Notifies another process of the fleet that a turn waits for it in the store. It must not block
/// or wait.
pub type TurnTeller = Box<dyn Fn(Uuid) + Send + Sync>;

/// The inbox. Clones are cheap and share its state.
#[derive(Clone)]
pub struct Inbox(Arc<Inner>);

struct Inner {
    parts: InboxParts,
    media_cache: Arc<MediaCache>,
    turns: mpsc::Sender<Turn>,
    /// The receiving end, until [`Inbox::take_turns`] takes it.
    turns_receiver: Mutex<Option<mpsc::Receiver<Turn>>>,
    /// Notifies other nodes. Set in a fleet, where another node may have to answer a message.
    other_nodes: OnceLock<TurnTeller>,
    /// Wakes the agents when another node has stored a turn for this one.
    turns_elsewhere: Notify,
    lanes: sending::Lanes,
    templates: templates::TemplateCache,
    early_statuses: Arc<early_statuses::EarlyStatuses>,
    /// A lock per number. Sending an agent's answer holds it for reading, changing the routing for
    /// writing.
    routing_locks: DashMap<PhoneNumberId, Arc<RwLock<()>>>,
    /// The owners of numbers.
    tenures: ownership::Tenures,
    /// Serializes changes of webhooks and of numbers' routing.
    changing: tokio::sync::Mutex<()>,
    routing_listener: OnceLock<RoutingListener>,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inbox")
    }
}

impl Inbox {
    /// Creates an empty inbox. [`Inbox::open`] loads the store.
    pub fn new(parts: InboxParts) -> Self {
        let (turns, turns_receiver) = mpsc::channel(TURNS);
        let media_cache =
            Arc::new(MediaCache::new(parts.media.clone(), LinkSigner::new(parts.store.link_key())));
        let (links, clock, base_url) =
            (media_cache.clone(), parts.clock.clone(), parts.base_url.clone());
        parts
            .outbox
            .set_link_signer(Box::new(move |message| links.link(&base_url, message, clock.wall())));
        let (delivery_notices, notices, clock) = (
            delivery_notices::DeliveryNotices::default(),
            parts.notices.clone(),
            parts.clock.clone(),
        );
        parts.outbox.set_undelivered(Box::new(move |given_up| {
            if let Some(notice) = delivery_notices.notice(given_up, clock.steady()) {
                notices.note(notice);
            }
        }));
        Self(Arc::new(Inner {
            parts,
            media_cache,
            turns,
            turns_receiver: Mutex::new(Some(turns_receiver)),
            other_nodes: OnceLock::new(),
            turns_elsewhere: Notify::new(),
            lanes: sending::Lanes::default(),
            templates: templates::TemplateCache::default(),
            early_statuses: Arc::default(),
            routing_locks: DashMap::new(),
            tenures: ownership::Tenures::default(),
            changing: tokio::sync::Mutex::default(),
            routing_listener: OnceLock::new(),
        }))
    }

    /// Sets the listener for changes of routing. Only the first call has an effect.
    pub fn on_routing_change(&self, listener: RoutingListener) {
        let _ = self.0.routing_listener.set(listener);
    }

    /// Starts to share the turns of conversations with the other nodes of a fleet: a node with
    /// pending turns of a conversation also gets the next ones. Only the first call has an effect.
    pub fn share_turns(&self, teller: TurnTeller) {
        let _ = self.0.other_nodes.set(teller);
    }

    /// Handles the notification that another node has stored a turn for this one.
    pub fn look_for_turns(&self) {
        self.0.turns_elsewhere.notify_one();
    }

    /// Completes after [`Inbox::look_for_turns`].
    pub async fn turns_elsewhere(&self) {
        self.0.turns_elsewhere.notified().await;
    }

    /// Takes the receiving end of the turns. `None` if it is taken already.
    pub fn take_turns(&self) -> Option<mpsc::Receiver<Turn>> {
        self.0.turns_receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The id of this node in the store.
    pub fn node_id(&self) -> &str {
        &self.0.parts.node_id
    }

    fn parts(&self) -> &InboxParts {
        &self.0.parts
    }

    /// The pair of a number and a user, with its conversation and accounts.
    pub fn pair(&self, number: &NumberEntry, user: UserName) -> Pair {
        let id = &number.spec.mail_id;
        Pair {
            conversation: self.conversation_of(number, &user.id),
            account: number.account.auth_id.clone(),
            main_account: number.account.main().auth_id.clone(),
            number: number.spec.number.clone(),
            phone_number_id: id.clone(),
            user,
        }
    }

    /// Returns the routing of a number's new conversations. If none is set, it is the number's
    /// `webhook_url`, or none.
    pub fn routing_of(&self, number: &NumberEntry) -> Routing {
        // A routing that the previous owner set does not count.
        let set = self
            .parts()
            .directory
            .mail()
            .routing(&number.spec.mail_id)
            .filter(|_| self.is_current_owner(number));
        set.unwrap_or(Self::unset_routing(number))
    }

    /// Returns the routing of a number for which none is set.
    fn unset_routing(number: &NumberEntry) -> Routing {
        if number.spec.messages.is_some() { Routing::Webhook(None) } else { Routing::None }
    }

    fn routing_lock(&self, number: &PhoneNumberId) -> Arc<RwLock<()>> {
        self.0.routing_locks.entry(number.clone()).or_default().clone()
    }

    /// Passes stored callbacks to the outbox.
    fn send_callbacks(&self, written: Vec<QueuedCallback>) {
        for callback in written {
            self.parts().outbox.send(callback, None);
        }
    }

    /// The number of a conversation. `None` if it is no longer served or belongs to another account
    /// now.
    pub fn number_of(&self, pair: &Pair) -> Option<Arc<NumberEntry>> {
        let found = self.parts().directory.tables().by_number(&pair.number).cloned();
        found.filter(|number| number.account.auth_id == pair.account)
    }

    /// Returns whether the number's agent is silenced.
    pub fn is_silent(&self, pair: &Pair) -> bool {
        self.number_of(pair).is_some_and(|number| number.spec.silent)
    }

    fn publish_message(&self, to: Audience<'_>, conversation: Uuid, message: Uuid) {
        self.parts().feed.publish(to, FeedChange::Message { conversation, message });
    }
}
