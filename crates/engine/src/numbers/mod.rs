//! Business numbers and their WABAs while the node runs: connected, registered, set, kept in step with Meta.
//!
//! The numbers themselves stand in `admission::book`, whose keeper stores each change and puts it into the routing tables;
//! `meta::numbers` asks Graph. Here the two meet: `panel` judges a change of what people set (pure) and writes it at Meta
//! first where it is Meta's too, `connect` takes numbers in, `sync` reads what Meta knows, `register`, `leave` and `check`
//! do what their names say, `news` tells what has changed, `heard` and `reconcile` keep it all fresh. Who may ask is the API's business.

mod check;
mod connect;
mod heard;
mod leave;
mod news;
mod panel;
mod reconcile;
mod register;
mod sync;

use std::sync::{Arc, OnceLock};

use dashmap::DashMap;
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use uuid::Uuid;

pub use check::{Checked, UrlCheck, check_url, urls_of};
pub use connect::{Credentials, SignUp};
pub use heard::{NewsOfMeta, heard_in};
pub use news::{changes, platform_of, quality_of, rerouted};
pub use panel::Change;
pub use sync::Synced;

use crate::admission::book::{Book, Elsewhere, Keeper, NotChanged, Number};
use crate::answer::Fetcher;
use crate::feed::{Feed, What};
use crate::meta::Graph;
use crate::notices::{Notice, Notices};
use egress::Guard;
use machine::GraphOutcome;
use model::Clock;
use model::Secret;
use model::{E164, NotificationTopic, PhoneNumberId, Routing};
use store::{Scope, StoreError};

/// Webhooks about numbers that wait to be looked into; the next reconcile finds what is dropped.
const HEARD_MAX: usize = 1_024;

/// What the room works with.
pub struct Parts {
    pub keeper: Keeper,
    pub graph: Arc<Graph>,
    pub clock: Clock,
    pub feed: Feed,
    pub notices: Notices,
    /// What shuts a customer's URL.
    pub guard: Guard,
    pub fetcher: Fetcher,
    pub tasks: TaskTracker,
}

/// Everything about numbers; clones share it.
#[derive(Clone)]
pub struct Numbers(Arc<Inner>);

struct Inner {
    parts: Parts,
    turns: DashMap<E164, Turn>,
    heard: mpsc::Sender<NewsOfMeta>,
    /// Who answers what comes to a number.
    routing: OnceLock<RoutingOf>,
}

/// What keeps a number's changes apart.
#[derive(Default)]
struct Turn {
    /// One change at a time that is written at Meta too.
    lock: Arc<Mutex<()>>,
    /// Writes at Meta so far: what was read before the last of them says nothing any more.
    written: u64,
}

/// Who answers what comes to a number, as its resource shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routed {
    /// The agent that answers.
    pub agent: Option<Uuid>,
    /// `webhook`, `agent` or `none`; empty: nobody has said.
    pub routing: &'static str,
    pub webhook: Option<Uuid>,
}

impl Routed {
    /// The word of its resource.
    pub fn word(&self) -> &'static str {
        if self.routing.is_empty() { "none" } else { self.routing }
    }
}

impl From<Routing> for Routed {
    fn from(routing: Routing) -> Self {
        Self { agent: routing.agent(), routing: routing.as_str(), webhook: routing.webhook() }
    }
}

/// Tells it of a number, from memory.
pub type RoutingOf = Box<dyn Fn(&E164) -> Routed + Send + Sync>;

/// Why something was not done.
#[derive(Debug)]
pub enum No {
    /// It is not there, or another account's.
    Missing(&'static str),
    /// A value.
    Bad {
        field: &'static str,
        message: String,
    },
    /// Not in the state that it is in.
    State {
        code: &'static str,
        message: String,
    },
    /// A rule of WhatsApp, perhaps in Meta's words.
    Rule {
        code: &'static str,
        message: String,
        field: Option<&'static str>,
        meta: Option<(i64, String)>,
    },
    /// Not so soon again.
    Wait {
        seconds: u64,
        message: String,
    },
    /// Somebody else changed it meanwhile.
    Changed,
    /// Meta refused or failed.
    Meta(GraphOutcome),
    Store(StoreError),
}

impl No {
    fn bad(field: &'static str, message: impl Into<String>) -> Self {
        Self::Bad { field, message: message.into() }
    }

    fn state(code: &'static str, message: impl Into<String>) -> Self {
        Self::State { code, message: message.into() }
    }
}

impl From<NotChanged<No>> for No {
    fn from(why: NotChanged<No>) -> Self {
        match why {
            NotChanged::Refused(no) => no,
            NotChanged::Store(error) => Self::Store(error),
        }
    }
}

impl From<Elsewhere> for No {
    fn from(why: Elsewhere) -> Self {
        match why {
            Elsewhere::Taken => {
                Self::state("taken", "this number or WABA is connected elsewhere already")
            }
            Elsewhere::InFile(id) => {
                let message = format!(
                    "the configuration file names this number, with whatsappPhoneNumberId {id}: change it in the file and reload"
                );
                Self::state("in_configuration", message)
            }
            Elsewhere::TooMany(max) => {
                Self::state("too_many", format!("an account has {max} numbers at most"))
            }
        }
    }
}

const NO_NUMBER: &str = "there is no such number";
const NO_WABA: &str = "there is no such WABA";

impl Numbers {
    /// Starts the room; what it hears is looked into by a task of its own, as long as the process lives.
    pub fn new(parts: Parts) -> Self {
        let (heard, waiting) = mpsc::channel(HEARD_MAX);
        let this =
            Self(Arc::new(Inner { parts, turns: DashMap::new(), heard, routing: OnceLock::new() }));
        let listening = this.clone();
        tokio::spawn(async move { listening.listen(waiting).await });
        this
    }

    fn parts(&self) -> &Parts {
        &self.0.parts
    }

    /// The book in force.
    pub fn book(&self) -> arc_swap::Guard<Arc<Book>> {
        self.parts().keeper.book()
    }

    /// From now on this tells who answers what comes to a number; the first who says so counts.
    pub fn routing_from(&self, routing: RoutingOf) {
        let _ = self.0.routing.set(routing);
    }

    /// Who answers what comes to a number.
    pub fn routed(&self, number: &E164) -> Routed {
        self.0.routing.get().map(|routing| routing(number)).unwrap_or_default()
    }

    /// Whoever holds this changes the number at Meta.
    async fn turn(&self, number: &E164) -> OwnedMutexGuard<()> {
        let turn = self.0.turns.entry(number.clone()).or_default().lock.clone();
        turn.lock_owned().await
    }

    /// How often a number's settings were written at Meta.
    fn writes(&self, number: &E164) -> u64 {
        self.0.turns.get(number).map_or(0, |turn| turn.written)
    }

    /// They were, or may have been.
    fn wrote(&self, number: &E164) {
        self.0.turns.entry(number.clone()).or_default().written += 1;
    }

    /// Does something to its end, also where who asked for it goes away: what is changed at Meta is kept here too. None: it
    /// broke down.
    pub async fn to_its_end<T: Send + 'static>(
        &self,
        deed: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        self.parts().tasks.spawn(deed.in_current_span()).await.ok()
    }

    /// Tells those who watch that a number is not as it was.
    fn tell(&self, number: &E164) {
        let book = self.book();
        if let Some(entry) = book.any_number(number) {
            self.parts().feed.tell(book.main_of(book.owner(entry)), What::Number(number.clone()));
        }
    }

    /// Has people told of something about a number.
    fn notice(&self, number: &E164, topic: NotificationTopic, text: String) {
        let book = self.book();
        let Some(entry) = book.any_number(number) else { return };
        let owner = book.owner(entry);
        let notice = Notice::new(owner.clone(), book.main_of(owner).clone(), topic, text);
        self.parts().notices.note(Notice { number: Some(number.to_string()), ..notice });
    }

    /// A number of the scope's with what Graph is asked by.
    fn found(&self, scope: &Scope, number: &E164) -> Result<Known, No> {
        let book = self.book();
        let entry = book.number(scope, number).ok_or(No::Missing(NO_NUMBER))?;
        Ok(Known::of(&book, entry))
    }
}

/// A number as Graph is asked about it.
#[derive(Clone)]
struct Known {
    number: E164,
    id: PhoneNumberId,
    token: Option<Secret>,
}

impl Known {
    fn of(book: &Book, entry: &Number) -> Self {
        let token = book.token_of(entry).cloned();
        Self { number: entry.number.clone(), id: entry.phone_number_id.clone(), token }
    }
}

#[cfg(test)]
mod tests;
