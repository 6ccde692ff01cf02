//! Messages between users and business numbers: conversations, their routing, and sending through
//! Graph.
//!
//! A user's message is stored once, with its conversation and the events that report it, before
//! Meta gets its 200 (`incoming`). The conversation's routing decides who gets it (`routing`): a
//! webhook, through the outbox, or an AI agent, as a [`Turn`] in a bounded channel that `agents`
//! reads and answers with [`Inbox::reply`]. An outgoing message is stored as `queued` before the
//! request to Graph (`sending`); its files are uploaded to Meta before that (`files`). `words`
//! builds the JSON and is pure. Calls appear only as timeline entries and events (`calls`).

mod agent_locks;
mod calls;
mod conversations;
mod delivery_notices;
mod early_statuses;
mod events;
mod lanes;
mod media_cache;
mod notes;
mod numbers;
mod permission_requests;
mod routing;
mod sending;
mod statuses;
mod templates;
mod timeline;
mod turns;
mod uploads;
mod user_files;
mod webhooks;
pub mod words;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

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
use media_cache::MediaCache;
use model::Clock;
use model::{PhoneNumberId, Routing};
use store::{Store, StoreError};

pub use routing::RoutingError;
pub use sending::{Outgoing, SendError, WINDOW};
pub use statuses::ReceivedStatus;
pub use templates::TemplatesError;
pub use timeline::{QueueFull, Sender, StoredFuture, UserMessage};
pub use turns::{Turn, TurnTeller};
pub use uploads::{FILES, FileKind, UploadError};
pub use user_files::MediaFile;
pub use webhooks::{MissingWebhook, WebhookSettings, WebhookSpec};

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
    lanes: lanes::Lanes,
    templates: templates::TemplateCache,
    early_statuses: Arc<early_statuses::EarlyStatuses>,
    /// A lock per number. Sending an agent's answer holds it for reading, changing the routing for
    /// writing.
    routing_locks: DashMap<PhoneNumberId, Arc<RwLock<()>>>,
    /// The owners of numbers.
    tenures: numbers::Tenures,
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
        let (turns, turns_receiver) = mpsc::channel(turns::TURNS);
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
            lanes: lanes::Lanes::default(),
            templates: templates::TemplateCache::default(),
            early_statuses: Arc::default(),
            routing_locks: DashMap::new(),
            tenures: numbers::Tenures::default(),
            changing: tokio::sync::Mutex::default(),
            routing_listener: OnceLock::new(),
        }))
    }

    /// Sets the listener for changes of routing. Only the first call has an effect.
    pub fn on_routing_change(&self, listener: RoutingListener) {
        let _ = self.0.routing_listener.set(listener);
    }

    /// The id of this node in the store.
    pub fn node_id(&self) -> &str {
        &self.0.parts.node_id
    }

    fn parts(&self) -> &InboxParts {
        &self.0.parts
    }

    /// Loads the store, adds the webhooks of the configuration, and resumes the unfinished work of
    /// the previous process.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub async fn open(&self, file: &[WebhookSettings]) -> Result<(), StoreError> {
        self.count_files().await;
        self.refresh().await?;
        self.reload(file);
        self.warn_of_missing_webhooks();
        self.claim().await?;
        self.resume_interrupted().await
    }

    fn publish_message(&self, to: Audience<'_>, conversation: Uuid, message: Uuid) {
        self.parts().feed.publish(to, FeedChange::Message { conversation, message });
    }
}
