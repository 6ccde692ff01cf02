//! Management of business numbers and their WABAs at run time: connecting, registering, changing
//! settings, and keeping them in sync with Meta.
//!
//! The numbers are entries of `admission::book`. Its keeper stores each change and updates the
//! routing tables; `meta::numbers` makes the Graph requests. The parts of [`Numbers`] combine both:
//! `connections` and `sign_up` add numbers, `panel` changes settings, at Meta first where needed,
//! `sync` reads the state of numbers from Meta, `events` handles Meta's webhooks, and
//! `reconciliation` compares both sides regularly. `change` and `diff` are pure: they validate a
//! change of settings, and describe changes for webhooks of customers. The APIs check permissions.

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

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

pub use change::Change;
pub use connections::{Connections, Credentials};
pub use diff::{changes, platform_of, quality_of, rerouted};
pub use errors::NumberError;
pub use events::MetaEvents;
pub use panel::Panel;
pub use reconciliation::Reconciliation;
pub use registrations::Registrations;
pub use routing::{NumberRouting, RoutingLookup, RoutingOf};
pub use sign_up::{SignUp, SignUps};
pub use sync::{MetaSync, SyncReport};
pub use url_checks::{Checked, UrlCheck, UrlChecks, check_url, urls_of};
pub use wabas::WabaAccounts;
pub use webhooks::{MetaEvent, parse_change};

use crate::admission::book::Keeper;
use crate::answer::Fetcher;
use crate::feed::Feed;
use crate::meta::Graph;
use crate::notices::Notices;
use egress::Guard;
use entries::Entries;
use events::{EVENTS_MAX, EventHandler};
use locks::NumberLocks;
use model::Clock;
use subscriptions::Subscriptions;

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
    /// The host of the SIP addresses of the node's endpoints.
    pub sip_host: String,
    pub tasks: TaskTracker,
}

/// A handle to the management of numbers. Clones share their state.
#[derive(Clone)]
pub struct Numbers(Arc<Services>);

struct Services {
    connections: Connections,
    sign_ups: SignUps,
    wabas: WabaAccounts,
    registrations: Arc<Registrations>,
    panel: Panel,
    sync: Arc<MetaSync>,
    url_checks: UrlChecks,
    events: MetaEvents,
    routing: Arc<RoutingLookup>,
    entries: Arc<Entries>,
    tasks: TaskTracker,
}

const NO_NUMBER: &str = "there is no such number";
const NO_WABA: &str = "there is no such WABA";

impl Numbers {
    /// Starts the management, with a task that handles queued events for as long as the process
    /// lives.
    pub fn new(parts: Parts) -> Self {
        let Parts { keeper, graph, clock, feed, notices, guard, fetcher, sip_host, tasks } = parts;
        let entries = Arc::new(Entries { keeper, clock: clock.clone(), feed, notices });
        let locks = Arc::new(NumberLocks::default());
        let routing = Arc::new(RoutingLookup::default());
        let subscriptions =
            Arc::new(Subscriptions { entries: entries.clone(), graph: graph.clone() });
        let sync = Arc::new(MetaSync {
            entries: entries.clone(),
            locks: locks.clone(),
            graph: graph.clone(),
            subscriptions: subscriptions.clone(),
        });
        let (sender, waiting) = mpsc::channel(EVENTS_MAX);
        let handler = EventHandler { entries: entries.clone(), sync: sync.clone() };
        tokio::spawn(handler.run(waiting));
        Self(Arc::new(Services {
            connections: Connections {
                entries: entries.clone(),
                locks: locks.clone(),
                graph: graph.clone(),
                sync: sync.clone(),
                subscriptions: subscriptions.clone(),
            },
            sign_ups: SignUps {
                entries: entries.clone(),
                graph: graph.clone(),
                sync: sync.clone(),
                subscriptions,
            },
            wabas: WabaAccounts { entries: entries.clone() },
            registrations: Arc::new(Registrations {
                entries: entries.clone(),
                graph: graph.clone(),
                sync: sync.clone(),
                tasks: tasks.clone(),
            }),
            panel: Panel {
                entries: entries.clone(),
                locks,
                graph,
                guard,
                routing: routing.clone(),
            },
            sync,
            url_checks: UrlChecks { entries: entries.clone(), fetcher, clock, sip_host },
            events: MetaEvents { sender, entries: entries.clone() },
            routing,
            entries,
            tasks,
        }))
    }

    /// Connects and disconnects numbers.
    pub fn connections(&self) -> &Connections {
        &self.0.connections
    }

    /// Connects the numbers of Meta's embedded sign-up.
    pub fn sign_ups(&self) -> &SignUps {
        &self.0.sign_ups
    }

    /// Assigns WABAs to accounts.
    pub fn wabas(&self) -> &WabaAccounts {
        &self.0.wabas
    }

    /// Registers numbers at Meta.
    pub fn registrations(&self) -> &Arc<Registrations> {
        &self.0.registrations
    }

    /// Changes the settings of numbers.
    pub fn panel(&self) -> &Panel {
        &self.0.panel
    }

    /// Reads the state of numbers from Meta.
    pub fn sync(&self) -> &MetaSync {
        &self.0.sync
    }

    /// Checks the URLs of numbers.
    pub fn url_checks(&self) -> &UrlChecks {
        &self.0.url_checks
    }

    /// Takes events from Meta.
    pub fn events(&self) -> &MetaEvents {
        &self.0.events
    }

    /// Looks up who answers a number.
    pub fn routing(&self) -> &RoutingLookup {
        &self.0.routing
    }

    /// Compares the numbers with Meta for as long as it runs.
    pub fn reconciliation(&self) -> Reconciliation {
        Reconciliation { entries: self.0.entries.clone(), sync: self.0.sync.clone() }
    }

    /// Runs a future to completion even if the caller is cancelled, so that a change at Meta is
    /// also stored here. Returns `None` if it panicked.
    pub async fn run_to_completion<T: Send + 'static>(
        &self,
        operation: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        self.0.tasks.spawn(operation.in_current_span()).await.ok()
    }
}

#[cfg(test)]
mod tests;
