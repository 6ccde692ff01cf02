//! Assembles a node from its configuration, runs it and shuts it down.
//!
//! - `open` opens listeners, media path and store, or takes them over from another process;
//!   `call_parts` builds what calls are made of and `interfaces` what the node is reached through;
//!   `build` connects and starts them; `changes` forwards changes between them.
//! - `routes` has the paths of the public listener.
//! - `reload` applies a changed configuration.
//! - `operator` implements the owner's status and commands.
//! - `otel` exports traces.
//! - `fleet` connects the node to a fleet, and `shared_feed` sends its changes to the other nodes.
//! - `retention` deletes expired data.
//! - `drain` shuts a node down, and `upgrade` replaces its process by another one.
//! - `dev` runs a node, or a fleet, with a simulated Meta and a demo application.
//!
//! Only this module reads the whole configuration; the others get their own settings.

mod build;
mod call_parts;
mod changes;
mod connections;
pub mod dev;
mod drain;
#[cfg(test)]
mod fault_tests;
mod fleet;
mod interfaces;
mod ledger;
mod live;
mod open;
mod operator;
#[cfg(feature = "otel")]
mod otel;
mod peer_requests;
mod reload;
mod retention;
mod routes;
mod settings;
mod shared_counts;
mod shared_feed;
mod shared_queues;
mod upgrade;
mod watch;

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::server::Pause;
use crate::phone::PhoneListener;
use engine::admission::book::OpenError;
use engine::call::seats::host::RoomHosting;
use engine::call::{Outbox, Recordings, Registry};
use media::Media;
use store::Store;

pub use drain::{Signals, until_stopped};
pub use reload::Loader;
pub use settings::call_settings;
pub use upgrade::{
    Predecessor, TakeOverError, UpgradeProgress, UpgradeRequest, notify_ready, request_upgrade,
    until_replaced,
};

/// Reason why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// `key` names the address in the configuration.
    #[error("{why}; see {key}")]
    Listen { why: String, key: &'static str },
    #[error(transparent)]
    TakeOver(#[from] TakeOverError),
    #[error("{0}")]
    Store(#[from] store::StoreError),
    #[error("could not join the fleet: {0}")]
    Cluster(#[from] engine::cluster::JoinError),
    #[error(
        "node {0} of a fleet works on this database; write `[cluster] peer = \"HOST:7900\"` to join the fleet, or use another database"
    )]
    BesideFleet(String),
    #[error(
        "could not open the media ports from {at}: {source}; see listen.media and public.media_ips"
    )]
    Media {
        at: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    PublicAddress(#[from] crate::public_address::NotFoundError),
    #[error("{0}")]
    Turn(String),
    #[error("could not set up the client for Graph: {0}")]
    Graph(#[from] engine::meta::SetupError),
    #[error("could not set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("could not load the certificate: {0}; see [tls]")]
    Certificate(#[from] tls::LoadError),
    #[error("could not set up speech: {0}")]
    Speech(String),
    #[error("could not load the numbers: {0}")]
    Directory(#[from] engine::admission::DirectoryError),
    #[error("could not install signal handlers: {0}")]
    Signals(std::io::Error),
    #[cfg(feature = "otel")]
    #[error("could not set up the export of traces: {0}")]
    Otel(String),
    #[error("could not start the thread for rejects: {0}")]
    Rejects(std::io::Error),
    #[error(
        "could not create the directory or the threads for recordings: {0}; see store.data_dir"
    )]
    Recordings(std::io::Error),
    #[error(transparent)]
    Bucket(#[from] engine::objects::BucketError),
    #[error(transparent)]
    Mail(#[from] engine::alerts::MailError),
    #[error("could not set up the metrics: {0}")]
    Metrics(String),
}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Store(error) => error.into(),
            OpenError::Tables(error) => error.into(),
        }
    }
}

/// A running node.
pub struct Node {
    /// Bound address of the public listener.
    pub public: SocketAddr,
    /// Bound address of the HTTPS listener.
    pub https: Option<SocketAddr>,
    /// Bound address of the admin listener.
    pub admin: SocketAddr,
    registry: Registry,
    phones: PhoneListener,
    drain: operator::Drain,
    hosting: RoomHosting,
    /// The HTTP listeners, while they accept connections.
    listeners: Vec<Weak<TcpListener>>,
    /// Pauses the public listener.
    pause: Pause,
    /// Pauses the admin listener.
    admin_pause: Pause,
    /// The task of the public listener, which ends after the last response.
    serving: Option<JoinHandle<()>>,
    media: Arc<Media>,
    outbox: Outbox,
    store: Store,
    tasks: TaskTracker,
    /// Stops the public listener, and the tasks that must end before the store is closed;
    /// `stop_all` stops the rest.
    stop_public: CancellationToken,
    stop_all: CancellationToken,
    recordings: Recordings,
    tunables: Arc<reload::Tunables>,
    /// The guard that excludes other processes with this node id. Released last.
    place: fleet::Place,
    #[cfg(feature = "otel")]
    otel: Option<otel::Export>,
}

impl Node {
    /// The live calls.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}
