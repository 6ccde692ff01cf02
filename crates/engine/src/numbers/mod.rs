//! Management of business numbers and their WABAs at run time: connecting, registering, changing
//! settings, and keeping them in sync with Meta.
//!
//! The numbers are entries of `admission::book`. Its keeper stores each change and updates the
//! routing tables; `meta::numbers` makes the Graph requests. This module combines both. `change`
//! validates a change of settings (pure) and `panel` makes it, at Meta first where needed;
//! `connections` and `sign_up` add numbers, `sync` reads their state from Meta, `events` handles
//! events from Meta's webhooks, `reconciliation` compares both sides regularly, and `diff` describes
//! changes for webhooks of customers. The APIs check permissions.

mod change;
mod connections;
mod diff;
mod entries;
mod errors;
mod events;
mod locks;
mod panel;
mod reconciliation;
mod registrations;
mod routing;
mod sign_up;
mod subscriptions;
mod sync;
mod url_checks;
mod wabas;
mod webhooks;

use std::sync::{Arc, OnceLock};

use dashmap::DashMap;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

pub use change::Change;
pub use connections::Credentials;
pub use diff::{changes, platform_of, quality_of, rerouted};
pub use errors::NumberError;
pub use routing::{NumberRouting, RoutingOf};
pub use sign_up::SignUp;
pub use sync::SyncReport;
pub use url_checks::{Checked, UrlCheck, check_url, urls_of};
pub use webhooks::{MetaEvent, parse_change};

use crate::admission::book::Keeper;
use crate::answer::Fetcher;
use crate::feed::Feed;
use crate::meta::Graph;
use crate::notices::Notices;
use egress::Guard;
use events::EVENTS_MAX;
use locks::Turn;
use model::Clock;
use model::E164;

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

    /// Runs a future to completion even if the caller is cancelled, so that a change at Meta is
    /// also stored here. Returns `None` if it panicked.
    pub async fn run_to_completion<T: Send + 'static>(
        &self,
        operation: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        self.parts().tasks.spawn(operation.in_current_span()).await.ok()
    }
}

#[cfg(test)]
mod tests;
