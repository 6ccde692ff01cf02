//! What users write to numbers and businesses to users: conversations, who gets what, and the way out to Meta.
//!
//! A user's message is stored once, with its conversation and with what reports it, before Meta has its 200 (`incoming`);
//! who it goes to is the conversation's routing (`routing`): a webhook, by the calls' own outbox, or an agent, as a
//! [`Turn`] in a bounded mailbox that `agents` empties and answers by [`Inbox::reply`]. What goes out stands in the store
//! as `queued` before Graph is asked (`sending`), its files are handed to Meta before (`files`). What the JSON looks like is `words`'s, which is pure. Calls are not known
//! here beyond their line in the timeline (`calls`).

mod asking;
mod calls;
mod dropped;
mod early;
mod files;
mod incoming;
mod media;
mod routing;
mod sending;
mod settings;
mod tenure;
mod undelivered;
pub mod words;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use dashmap::DashMap;
use tokio::sync::{RwLock, mpsc};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use engine::admission::permission::Consents;
use engine::admission::{Directory, NumberEntry};
use engine::call::Outbox;
use engine::feed::{Feed, FeedChange};
use engine::meta::Graph;
use engine::notices::Notices;
use model::Clock;
use model::{AuthId, PhoneNumberId, Routing};
use store::{NewMessage, Pair, Store, UserName, Written};

pub use dropped::Dropped;
pub use files::{FILES, FileKind, NotUploaded};
pub use incoming::{Full, Sender, StatusTold, Stored, UserMessage};
pub use media::{MediaFile, Shelf};
pub use routing::{NotRouted, WebhookOrder};
pub use sending::{NotSent, Outgoing, WINDOW};
pub use settings::WebhookSettings;

/// Turns that wait for their agents at most; a further one is owed in the store, and answered later.
const TURNS: usize = 4_096;

/// A user's message that an agent is to answer.
#[derive(Clone, Debug)]
pub struct Turn {
    pub pair: Pair,
    pub agent: Uuid,
    /// The conversation's, as it was when the message came: an answer counts while it is the same.
    pub epoch: u64,
    pub message: NewMessage,
}

/// What the inbox is made of.
pub struct InboxParts {
    pub store: Store,
    pub outbox: Outbox,
    pub directory: Arc<Directory>,
    pub graph: Arc<Graph>,
    /// What people should know of.
    pub notices: Notices,
    pub feed: Feed,
    pub clock: Clock,
    pub node_id: String,
    /// Where the outside reaches this node, without a slash at its end.
    pub base_url: String,
    /// The folder of users' files.
    pub media: PathBuf,
    /// What users allow: a message may ask for it.
    pub consents: Arc<Consents>,
    pub tasks: TaskTracker,
}

/// Hears that a number goes elsewhere: before, and from now on.
pub type RoutingEar = Box<dyn Fn(&Inbox, &NumberEntry, Routing, Routing) + Send + Sync>;

/// The inbox; cheap to clone.
#[derive(Clone)]
pub struct Inbox(Arc<Inner>);

struct Inner {
    parts: InboxParts,
    shelf: Arc<Shelf>,
    turns: mpsc::Sender<Turn>,
    /// Until somebody takes it.
    turns_out: Mutex<Option<mpsc::Receiver<Turn>>>,
    lanes: sending::Lanes,
    early: Arc<early::Early>,
    /// By number: an agent's answer is on its way to Meta (read), the routing changes (write).
    gates: DashMap<PhoneNumberId, Arc<RwLock<()>>>,
    /// Whose conversations numbers have.
    tenures: tenure::Tenures,
    /// One change of webhooks or numbers' routing at a time.
    changing: tokio::sync::Mutex<()>,
    told: OnceLock<RoutingEar>,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inbox")
    }
}

impl Inbox {
    /// An empty one; [`Inbox::open`] reads what the store has.
    pub fn new(parts: InboxParts) -> Self {
        let (turns, turns_out) = mpsc::channel(TURNS);
        let shelf = Arc::new(Shelf::new(parts.media.clone(), parts.store.link_key()));
        let (signs, clock, base_url) = (shelf.clone(), parts.clock.clone(), parts.base_url.clone());
        parts
            .outbox
            .links_by(Box::new(move |message| signs.link(&base_url, message, clock.wall())));
        let (undelivered, notices, clock) =
            (undelivered::Undelivered::default(), parts.notices.clone(), parts.clock.clone());
        parts.outbox.undelivered_to(Box::new(move |given_up| {
            if let Some(notice) = undelivered.notice(given_up, clock.steady()) {
                notices.note(notice);
            }
        }));
        Self(Arc::new(Inner {
            parts,
            shelf,
            turns,
            turns_out: Mutex::new(Some(turns_out)),
            lanes: sending::Lanes::default(),
            early: Arc::default(),
            gates: DashMap::new(),
            tenures: tenure::Tenures::default(),
            changing: tokio::sync::Mutex::default(),
            told: OnceLock::new(),
        }))
    }

    /// From now on, whoever this is hears of each number that is routed anew.
    pub fn tell(&self, told: RoutingEar) {
        let _ = self.0.told.set(told);
    }

    /// Where agents' turns come out; `None`: somebody has it.
    pub fn turns(&self) -> Option<mpsc::Receiver<Turn>> {
        self.0.turns_out.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Who this node is to the store.
    pub fn node_id(&self) -> &str {
        &self.0.parts.node_id
    }

    fn parts(&self) -> &InboxParts {
        &self.0.parts
    }

    /// Whose conversation one with this user is.
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

    /// What new conversations of a number begin with. Where nobody has set it: its webhook URL, if it has one.
    pub fn routing_of(&self, number: &NumberEntry) -> Routing {
        // What another account has set is not this one's.
        let set = self
            .parts()
            .directory
            .mail()
            .routing(&number.spec.mail_id)
            .filter(|_| self.holds(number));
        set.unwrap_or(Self::unset_routing(number))
    }

    /// The same of a number whose routing nobody has set.
    fn unset_routing(number: &NumberEntry) -> Routing {
        if number.spec.messages.is_some() { Routing::Webhook(None) } else { Routing::None }
    }

    fn gate(&self, number: &PhoneNumberId) -> Arc<RwLock<()>> {
        self.0.gates.entry(number.clone()).or_default().clone()
    }

    /// Sends what was just put into the outbox.
    fn hand_on(&self, written: Vec<Written>) {
        for one in written {
            self.parts().outbox.send(one, None);
        }
    }

    /// The number of a conversation; none: it is not there, or another account's by now.
    pub fn number_of(&self, pair: &Pair) -> Option<Arc<NumberEntry>> {
        let found = self.parts().directory.tables().by_number(&pair.number).cloned();
        found.filter(|number| number.account.auth_id == pair.account)
    }

    /// Whether a number's agent answers nobody just now.
    pub fn is_silent(&self, pair: &Pair) -> bool {
        self.number_of(pair).is_some_and(|number| number.spec.silent)
    }

    fn tell_message(&self, main: &AuthId, conversation: Uuid, message: Uuid) {
        self.parts().feed.tell(main, FeedChange::Message { conversation, message });
    }
}
