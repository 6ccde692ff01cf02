//! Assembly: config to running node to clean stop; the one room that knows everybody.
//!
//! `build` makes the rooms and hands each what it needs, `news` lets them hear of each other; `routes` lays out the public listener; `reload` reads the
//! configuration again; `operator` is what an owner asks and commands; `otel` exports traces; `drain` ends a node;
//! `dev` adds a simulated Meta and a demo application around one. No room below reads the configuration.

mod build;
mod connections;
pub mod dev;
mod door;
mod drain;
#[cfg(test)]
mod fault_tests;
mod ledger;
mod live;
mod news;
mod operator;
#[cfg(feature = "otel")]
mod otel;
mod reload;
mod routes;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use engine::admission::book::OpenError;
use engine::call::{Outbox, Recordings, Registry};
use media::Media;
use store::{NodeLock, Store};

pub use build::call_settings;
pub use drain::{Signals, until_stopped};
pub use reload::Loader;

/// Why a node did not start. The texts read well after "could not …".
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Listen(String),
    #[error("start: {0}")]
    Store(#[from] store::StoreError),
    #[error("open the media ports from {at}: {source}; see listen.media and public.media_ips")]
    Media {
        at: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("set up the client for Graph: {0}")]
    Graph(#[from] engine::meta::SetupError),
    #[error("set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("set up speech: {0}")]
    Speech(String),
    #[error("put the numbers in force: {0}")]
    Directory(#[from] engine::admission::DirectoryError),
    #[error("take signals: {0}")]
    Signals(std::io::Error),
    #[cfg(feature = "otel")]
    #[error("set up the export of traces: {0}")]
    Otel(String),
    #[error("start a thread for rejects: {0}")]
    Rejects(std::io::Error),
    #[error("make the folder and the threads for recordings: {0}; see store.data_dir")]
    Recordings(std::io::Error),
    #[error(transparent)]
    Bucket(#[from] engine::objects::BucketError),
    #[error("set up the metrics: {0}")]
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
    /// Where the public and the admin listener are bound.
    pub public: SocketAddr,
    pub admin: SocketAddr,
    registry: Registry,
    drain: operator::Drain,
    media: Arc<Media>,
    outbox: Outbox,
    store: Store,
    tasks: TaskTracker,
    /// Ends the public listener, then the rest.
    stop_public: CancellationToken,
    stop_all: CancellationToken,
    recordings: Recordings,
    knobs: Arc<reload::Knobs>,
    /// No other process is this node, until all of the above is over.
    hold: NodeLock,
    #[cfg(feature = "otel")]
    otel: Option<otel::Export>,
}

impl Node {
    /// The live calls.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}
