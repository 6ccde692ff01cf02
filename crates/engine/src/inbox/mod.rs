//! Messages between users and business numbers: conversations, their routing, and sending through
//! Graph.
//!
//! A user's message is stored once, with its conversation and the events that report it, before
//! Meta gets its 200 (`timeline`). The conversation's routing decides who gets it (`routing`): a
//! webhook, through the outbox, or an AI agent, as a [`Turn`] in a bounded channel that `agents`
//! reads and answers with [`MessageSender::reply`]. An outgoing message is stored as `queued`
//! before the request to Graph (`sending`); its files are uploaded to Meta before that (`uploads`).
//! `words` builds the JSON and is pure. Calls appear only as timeline entries and events (`calls`).
//!
//! The [`Inbox`] owns a part for each of these and connects them. The parts hold the state.

mod agent_locks;
mod calls;
mod conversations;
mod delivery_notices;
mod early_statuses;
mod events;
mod lanes;
mod media_cache;
mod media_links;
mod notes;
mod numbers;
mod order;
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
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Directory;
use crate::admission::permission::Consents;
use crate::call::Outbox;
use crate::disk_space::DiskSpace;
use crate::feed::Feed;
use crate::links::LinkSigner;
use crate::meta::Graph;
use crate::notices::Notices;
use delivery_notices::DeliveryNotices;
use early_statuses::EarlyStatuses;
use lanes::Lanes;
use media_cache::{MediaCache, MediaFolder};
use media_links::MediaLinks;
use model::Clock;
use order::MessageTimes;
use permission_requests::PermissionRequests;
use store::{Store, StoreError};

pub use agent_locks::AgentLocks;
pub use calls::CallReports;
pub use conversations::Conversations;
pub use events::WebhookEvents;
pub use notes::{NoteError, Notes};
pub use numbers::ServedNumbers;
pub use routing::{Router, RoutingError, RoutingListener};
pub use sending::{LostReply, MessageSender, Outgoing, SendError, WINDOW};
pub use statuses::{DeliveryStatuses, ReceivedStatus};
pub use templates::{Templates, TemplatesError};
pub use timeline::{QueueFull, Sender, StoredFuture, Timeline, UserMessage};
pub use turns::{Turn, TurnTeller, Turns};
pub use uploads::{FILES, FileKind, UploadError, Uploads};
pub use user_files::{MediaFile, UserFiles};
pub use webhooks::{CustomerWebhooks, MissingWebhook, WebhookSettings, WebhookSpec};

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
    pub space: Arc<DiskSpace>,
    /// Call permissions, since a message may request one.
    pub consents: Arc<Consents>,
    pub tasks: TaskTracker,
    /// Cancelled when the process stops.
    pub stop: CancellationToken,
}

/// The inbox. Clones are cheap and share its parts.
#[derive(Clone)]
pub struct Inbox(Arc<Parts>);

struct Parts {
    numbers: Arc<ServedNumbers>,
    agent_locks: Arc<AgentLocks>,
    events: Arc<WebhookEvents>,
    webhooks: Arc<CustomerWebhooks>,
    router: Arc<Router>,
    conversations: Conversations,
    notes: Notes,
    timeline: Arc<Timeline>,
    statuses: Arc<DeliveryStatuses>,
    turns: Arc<Turns>,
    sender: Arc<MessageSender>,
    templates: Arc<Templates>,
    uploads: Arc<Uploads>,
    user_files: Arc<UserFiles>,
    calls: Arc<CallReports>,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inbox")
    }
}

impl Inbox {
    /// Creates an empty inbox. [`Inbox::open`] loads the store.
    pub fn new(parts: InboxParts) -> Self {
        let links = Arc::new(MediaLinks {
            signer: LinkSigner::new(parts.store.link_key()),
            base_url: parts.base_url.clone(),
            clock: parts.clock.clone(),
        });
        let signed = links.clone();
        parts.outbox.set_link_signer(Box::new(move |message| signed.link(message)));
        let (delivery_notices, notices, clock) =
            (DeliveryNotices::default(), parts.notices.clone(), parts.clock.clone());
        parts.outbox.set_undelivered(Box::new(move |given_up| {
            if let Some(notice) = delivery_notices.notice(given_up, clock.steady()) {
                notices.note(notice);
            }
        }));
        let folder = MediaFolder(parts.media.clone());
        let numbers = Arc::new(ServedNumbers::new(parts.directory.clone()));
        let agent_locks = Arc::new(AgentLocks::default());
        let user_files = Arc::new(UserFiles::new(
            &parts,
            numbers.clone(),
            links,
            MediaCache::new(folder.clone()),
        ));
        let InboxParts {
            store,
            outbox,
            directory,
            graph,
            notices,
            feed,
            clock,
            node_id,
            consents,
            tasks,
            stop,
            space,
            base_url: _,
            media: _,
        } = parts;
        let events = Arc::new(WebhookEvents {
            store: store.clone(),
            outbox,
            clock: clock.clone(),
            node_id: node_id.clone(),
            tasks: tasks.clone(),
            numbers: numbers.clone(),
        });
        let webhooks = Arc::new(CustomerWebhooks {
            store: store.clone(),
            directory: directory.clone(),
            clock: clock.clone(),
            feed: feed.clone(),
            numbers: numbers.clone(),
            events: events.clone(),
            changing: tokio::sync::Mutex::default(),
        });
        let router = Arc::new(Router {
            store: store.clone(),
            directory: directory.clone(),
            clock: clock.clone(),
            feed: feed.clone(),
            tasks: tasks.clone(),
            numbers: numbers.clone(),
            agent_locks: agent_locks.clone(),
            webhooks: webhooks.clone(),
            events: events.clone(),
            listener: OnceLock::new(),
        });
        let conversations = Conversations {
            store: store.clone(),
            graph: graph.clone(),
            feed: feed.clone(),
            tasks: tasks.clone(),
            numbers: numbers.clone(),
            agent_locks: agent_locks.clone(),
            files: user_files.clone(),
        };
        let notes = Notes {
            store: store.clone(),
            clock: clock.clone(),
            feed: feed.clone(),
            space: space.clone(),
        };
        let statuses = Arc::new(DeliveryStatuses {
            store: store.clone(),
            clock: clock.clone(),
            feed: feed.clone(),
            tasks: tasks.clone(),
            events: events.clone(),
            early: Arc::new(EarlyStatuses::default()),
        });
        let turns = Arc::new(Turns::new(store.clone(), node_id.clone()));
        let templates = Arc::new(Templates::new(graph.clone(), clock.clone()));
        let uploads = Arc::new(Uploads {
            store: store.clone(),
            graph: graph.clone(),
            clock: clock.clone(),
            numbers: numbers.clone(),
            folder,
            space,
            shares: Uploads::limits(),
        });
        let times = Arc::new(MessageTimes::new(clock.clone()));
        let timeline = Arc::new(Timeline {
            store: store.clone(),
            times: times.clone(),
            lines: Arc::default(),
            node_id: node_id.clone(),
            feed: feed.clone(),
            notices,
            tasks: tasks.clone(),
            numbers: numbers.clone(),
            events: events.clone(),
            router: router.clone(),
            turns: turns.clone(),
            files: user_files.clone(),
        });
        let calls = Arc::new(CallReports {
            directory,
            numbers: numbers.clone(),
            events: events.clone(),
            timeline: timeline.clone(),
        });
        let requests =
            PermissionRequests { consents, clock: clock.clone(), numbers: numbers.clone() };
        let sender = Arc::new(MessageSender {
            store,
            graph,
            clock,
            times,
            node_id,
            feed,
            tasks,
            stop,
            numbers: numbers.clone(),
            agent_locks: agent_locks.clone(),
            uploads: uploads.clone(),
            templates: templates.clone(),
            statuses: statuses.clone(),
            requests,
            lanes: Lanes::default(),
            asked_elsewhere: tokio::sync::Mutex::default(),
            lost_replies: std::sync::Mutex::default(),
        });
        Self(Arc::new(Parts {
            numbers,
            agent_locks,
            events,
            webhooks,
            router,
            conversations,
            notes,
            timeline,
            statuses,
            turns,
            sender,
            templates,
            uploads,
            user_files,
            calls,
        }))
    }

    /// Loads the store, adds the webhooks of the configuration, and resumes the unfinished work of
    /// the previous process.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub async fn open(&self, file: &[WebhookSettings]) -> Result<(), StoreError> {
        self.user_files().count().await;
        self.router().refresh().await?;
        self.webhooks().replace_configured(file);
        self.webhooks().warn_of_missing();
        self.router().claim().await?;
        self.sender().resume_interrupted().await
    }

    /// Who owns and answers the served numbers.
    pub fn numbers(&self) -> &Arc<ServedNumbers> {
        &self.0.numbers
    }

    /// The owner in the store of what this process sends.
    pub fn owner(&self) -> &str {
        &self.0.sender.node_id
    }

    /// Pauses the answers of AI agents.
    pub fn agent_locks(&self) -> &Arc<AgentLocks> {
        &self.0.agent_locks
    }

    /// Events for webhooks.
    pub fn events(&self) -> &Arc<WebhookEvents> {
        &self.0.events
    }

    /// Webhooks of customers.
    pub fn webhooks(&self) -> &Arc<CustomerWebhooks> {
        &self.0.webhooks
    }

    /// Changes routing.
    pub fn router(&self) -> &Arc<Router> {
        &self.0.router
    }

    /// Changes and deletes conversations.
    pub fn conversations(&self) -> &Conversations {
        &self.0.conversations
    }

    /// Private notes.
    pub fn notes(&self) -> &Notes {
        &self.0.notes
    }

    /// Adds messages, calls and permission requests to conversations.
    pub fn timeline(&self) -> &Arc<Timeline> {
        &self.0.timeline
    }

    /// Receives delivery statuses.
    pub fn statuses(&self) -> &Arc<DeliveryStatuses> {
        &self.0.statuses
    }

    /// Messages that AI agents have to answer.
    pub fn turns(&self) -> &Arc<Turns> {
        &self.0.turns
    }

    /// Sends messages.
    pub fn sender(&self) -> &Arc<MessageSender> {
        &self.0.sender
    }

    /// Templates of WABAs.
    pub fn templates(&self) -> &Arc<Templates> {
        &self.0.templates
    }

    /// Uploads files to Meta.
    pub fn uploads(&self) -> &Arc<Uploads> {
        &self.0.uploads
    }

    /// Files that users sent.
    pub fn user_files(&self) -> &Arc<UserFiles> {
        &self.0.user_files
    }

    /// Reports calls.
    pub fn calls(&self) -> &Arc<CallReports> {
        &self.0.calls
    }
}
