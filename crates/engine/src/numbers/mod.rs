//! Management of business numbers and their WABAs at run time: connecting, registering, changing
//! settings, and keeping them in sync with Meta.
//!
//! The numbers are entries of `admission::book`. Its keeper stores each change and updates the
//! routing tables; `meta::numbers` makes the Graph requests. This module combines both. `panel`
//! validates a change of settings and makes it at Meta first where needed, `connect` adds numbers,
//! `sync` reads their state from Meta, `webhooks` processes webhooks, `reconcile` compares both
//! sides regularly, and `diff` describes changes for webhooks of customers. The APIs check
//! permissions.

mod check;
mod connect;
mod diff;
mod disconnect;
mod panel;
mod reconcile;
mod register;
mod sync;
mod webhooks;

use std::sync::{Arc, OnceLock};

use dashmap::DashMap;
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use uuid::Uuid;

pub use check::{Checked, UrlCheck, check_url, urls_of};
pub use connect::{Credentials, SignUp};
pub use diff::{changes, platform_of, quality_of, rerouted};
pub use panel::Change;
pub use sync::SyncReport;
pub use webhooks::{MetaEvent, parse_change};

use crate::admission::book::{Book, ChangeError, ConnectRefusal, Keeper, Number};
use crate::answer::Fetcher;
use crate::feed::{Audience, Feed, FeedChange};
use crate::meta::Graph;
use crate::notices::{Notice, Notices};
use egress::Guard;
use machine::GraphOutcome;
use model::Clock;
use model::Secret;
use model::{E164, NotificationTopic, PhoneNumberId, Routing};
use store::{Scope, StoreError};

/// Capacity of the queue of events about numbers. The next reconciliation makes up for dropped
/// ones.
const EVENTS_MAX: usize = 1_024;

/// The dependencies of [`Numbers`].
pub struct Parts {
    pub keeper: Keeper,
    pub graph: Arc<Graph>,
    pub clock: Clock,
    pub feed: Feed,
    pub notices: Notices,
    /// Decides which customer URLs are allowed.
    pub guard: Guard,
    pub fetcher: Fetcher,
    pub tasks: TaskTracker,
}

/// A handle to the management of numbers. Clones share their state.
#[derive(Clone)]
pub struct Numbers(Arc<Inner>);

struct Inner {
    parts: Parts,
    turns: DashMap<E164, Turn>,
    events: mpsc::Sender<MetaEvent>,
    /// Looks up the routing of a number.
    routing: OnceLock<RoutingOf>,
}

/// Serializes the changes of a number.
#[derive(Default)]
struct Turn {
    /// The lock that is held while a change is made both here and at Meta.
    lock: Arc<Mutex<()>>,
    /// Number of writes at Meta so far. Data that was read before the last write is outdated.
    written: u64,
}

/// Who answers a number, as shown in the number's resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NumberRouting {
    /// The AI agent that answers.
    pub agent: Option<Uuid>,
    /// `webhook`, `agent` or `none`. Empty if not set.
    pub routing: &'static str,
    pub webhook: Option<Uuid>,
}

impl NumberRouting {
    /// The word in the resource.
    pub fn word(&self) -> &'static str {
        if self.routing.is_empty() { "none" } else { self.routing }
    }
}

impl From<Routing> for NumberRouting {
    fn from(routing: Routing) -> Self {
        Self { agent: routing.agent(), routing: routing.as_str(), webhook: routing.webhook() }
    }
}

/// Looks up the routing of a number in memory.
pub type RoutingOf = Box<dyn Fn(&E164) -> NumberRouting + Send + Sync>;

/// The reason why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum NumberError {
    /// The resource does not exist, or belongs to another account.
    #[error("{0}")]
    Missing(&'static str),
    /// A field has an invalid value.
    #[error("{field}: {message}")]
    Bad { field: &'static str, message: String },
    /// The current state does not allow the operation.
    #[error("{message}")]
    State { code: &'static str, message: String },
    /// A rule of WhatsApp forbids the operation. `meta` has Meta's code and text.
    #[error("{message}")]
    Rule {
        code: &'static str,
        message: String,
        field: Option<&'static str>,
        meta: Option<(i64, String)>,
    },
    /// The operation was tried too recently.
    #[error("{message}")]
    Wait { seconds: u64, message: String },
    /// The resource was changed concurrently.
    #[error("changed concurrently")]
    Changed,
    /// The request to Graph was refused or failed.
    #[error("graph request failed: {0}")]
    Meta(GraphOutcome),
    #[error("store failed: {0}")]
    Store(#[source] StoreError),
}

impl NumberError {
    fn bad(field: &'static str, message: impl Into<String>) -> Self {
        Self::Bad { field, message: message.into() }
    }

    fn state(code: &'static str, message: impl Into<String>) -> Self {
        Self::State { code, message: message.into() }
    }
}

impl From<ChangeError<NumberError>> for NumberError {
    fn from(why: ChangeError<NumberError>) -> Self {
        match why {
            ChangeError::Refused(no) => no,
            ChangeError::Store(error) => Self::Store(error),
        }
    }
}

impl From<ConnectRefusal> for NumberError {
    fn from(why: ConnectRefusal) -> Self {
        match why {
            ConnectRefusal::Taken => {
                Self::state("taken", "this number or WABA is connected to another account")
            }
            ConnectRefusal::InFile(id) => {
                let message = format!(
                    "the configuration file defines this number with whatsappPhoneNumberId {id}; change it in the file and reload"
                );
                Self::state("in_configuration", message)
            }
            ConnectRefusal::TooMany(max) => {
                Self::state("too_many", format!("an account can have at most {max} numbers"))
            }
        }
    }
}

const NO_NUMBER: &str = "there is no such number";
const NO_WABA: &str = "there is no such WABA";

impl Numbers {
    /// Starts the management, with a task that handles queued events for as long as the process
    /// lives.
    pub fn new(parts: Parts) -> Self {
        let (events, waiting) = mpsc::channel(EVENTS_MAX);
        let this = Self(Arc::new(Inner {
            parts,
            turns: DashMap::new(),
            events,
            routing: OnceLock::new(),
        }));
        let listening = this.clone();
        tokio::spawn(async move { listening.listen(waiting).await });
        this
    }

    fn parts(&self) -> &Parts {
        &self.0.parts
    }

    /// The current book.
    pub fn book(&self) -> arc_swap::Guard<Arc<Book>> {
        self.parts().keeper.book()
    }

    /// Sets the look-up of routing. Only the first is kept.
    pub fn routing_from(&self, routing: RoutingOf) {
        let _ = self.0.routing.set(routing);
    }

    /// The routing of a number.
    pub fn routed(&self, number: &E164) -> NumberRouting {
        self.0.routing.get().map(|routing| routing(number)).unwrap_or_default()
    }

    /// Waits for the lock on a number's changes at Meta.
    async fn turn(&self, number: &E164) -> OwnedMutexGuard<()> {
        let turn = self.0.turns.entry(number.clone()).or_default().lock.clone();
        turn.lock_owned().await
    }

    /// Returns how often this number's settings were written at Meta.
    fn writes(&self, number: &E164) -> u64 {
        self.0.turns.get(number).map_or(0, |turn| turn.written)
    }

    /// Records a write, or an attempt that may have succeeded.
    fn record_write(&self, number: &E164) {
        self.0.turns.entry(number.clone()).or_default().written += 1;
    }

    /// Runs a future to completion even if the caller is cancelled, so that a change at Meta is
    /// also stored here. Returns `None` if it panicked.
    pub async fn run_to_completion<T: Send + 'static>(
        &self,
        operation: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        self.parts().tasks.spawn(operation.in_current_span()).await.ok()
    }

    /// Publishes a change of a number to the feed.
    fn publish(&self, number: &E164) {
        let book = self.book();
        if let Some(entry) = book.any_number(number) {
            let owner = book.owner(entry);
            let to = Audience::of(owner, book.main_of(owner));
            self.parts().feed.publish(to, FeedChange::Number(number.clone()));
        }
    }

    /// Sends a notification about a number.
    fn notice(&self, number: &E164, topic: NotificationTopic, text: String) {
        let book = self.book();
        let Some(entry) = book.any_number(number) else { return };
        let owner = book.owner(entry);
        let notice = Notice::new(owner.clone(), book.main_of(owner).clone(), topic, text);
        self.parts().notices.note(Notice { number: Some(number.to_string()), ..notice });
    }

    /// A number in the scope, with its id and token.
    fn found(&self, scope: &Scope, number: &E164) -> Result<GraphTarget, NumberError> {
        let book = self.book();
        let entry = book.number(scope, number).ok_or(NumberError::Missing(NO_NUMBER))?;
        Ok(GraphTarget::of(&book, entry))
    }
}

/// The data for Graph requests about a number.
#[derive(Clone)]
struct GraphTarget {
    number: E164,
    id: PhoneNumberId,
    token: Option<Secret>,
}

impl GraphTarget {
    fn of(book: &Book, entry: &Number) -> Self {
        let token = book.token_of(entry).cloned();
        Self { number: entry.number.clone(), id: entry.phone_number_id.clone(), token }
    }
}

#[cfg(test)]
mod tests;
