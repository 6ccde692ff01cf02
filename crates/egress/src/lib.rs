//! Outbound HTTP requests and WebSockets to URLs that customers set.
//!
//! This crate is the only way to reach such a URL. It refuses private addresses and connects only
//! to an address that it has checked (`docs/reference/reliability.md#r17`). It does not use proxies
//! from the environment, and follows redirects only when it fetches files.
//!
//! - `url` parses and checks the text of a URL, `guard` checks addresses.
//! - `resolve` looks up names, `connect` opens connections to checked addresses.
//! - `client` sends HTTP requests, `file` fetches audio files, the node's own (`own_files`)
//!   included, `socket` opens WebSockets, `certificate` retrieves TLS certificates.
//! - `tls` and `direct` also serve requests to servers that the operator chose.

// Input from outside must not make the process panic. Each exception carries an `allow` with a
// reason.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::as_conversions
    )
)]
#![forbid(unsafe_code)]

mod body;
mod certificate;
mod client;
mod connect;
mod direct;
mod fair_permits;
mod file;
mod guard;
mod open_connections;
mod own_files;
mod read_budget;
mod resolve;
mod socket;
#[cfg(any(test, feature = "test-util"))]
#[doc(hidden)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::as_conversions,
    reason = "tests"
)]
pub mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod url;

pub use client::{
    BodyPolicy, Egress, EgressConfig, EgressRequest, EgressResponse, EgressStream, Stage,
};
pub use direct::{DirectClient, direct_client, direct_client_trusting, error_chain};
pub use fair_permits::{FairPermit, FairPermits};
pub use file::{FetchedFile, FileResponse, FileSink};
pub use guard::{Guard, Refusal, is_public};
pub use own_files::OwnFiles;
pub use read_budget::{ReadBudget, ReadTurn, SocketBudget};
pub use resolve::{Lookup, Resolve, SystemResolver};
pub use socket::{Socket, SocketTransport, is_too_large};
pub use tls::{client_tls, warm_up};
pub use url::{CustomerUrl, URL_BYTES_MAX, is_same_origin};

use std::time::Duration;

/// The `User-Agent` header of every request to a customer.
pub const USER_AGENT: &str = concat!("Offhook/", env!("CARGO_PKG_VERSION"), " (Plivo-compatible)");

/// Maximum number of redirects that are followed.
pub const REDIRECTS_MAX: u32 = 5;

/// The reason why a request to a customer failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("could not look up {name}: {reason}")]
    Resolve { name: String, reason: String },
    #[error("could not connect to {host}: {reason}")]
    Connect { host: String, reason: String },
    #[error("could not connect to {host} within {waited:?}")]
    ConnectTimeout { host: String, waited: Duration },
    #[error(
        "could not complete the TLS handshake with {host} within {waited:?}: it accepted the connection but did not answer the handshake"
    )]
    HandshakeTimeout { host: String, waited: Duration },
    #[error("could not receive a response within {waited:?}")]
    ReadTimeout { waited: Duration },
    #[error("could not complete the request: {reason}")]
    Broken { reason: String },
    #[error("could not read a response of more than {max} bytes")]
    TooLarge { max: usize },
    #[error("could not decode the content coding {0:?}, which is not supported here")]
    Coding(String),
    #[error("could not decode the body: {0}")]
    Undecodable(String),
    #[error("could not fetch the file: the response status was {0}")]
    Status(u16),
    #[error("could not open the WebSocket: the response status was {0}")]
    NotUpgraded(u16),
    #[error("could not follow more than {REDIRECTS_MAX} redirects")]
    Redirects,
}

impl EgressError {
    /// Returns the `outcome` label of `offhook_answer_fetch_seconds`. An unsupported content coding
    /// counts as `unreachable`.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::ConnectTimeout { .. }
            | Self::HandshakeTimeout { .. }
            | Self::ReadTimeout { .. } => "timeout",
            Self::Resolve { .. } | Self::Connect { .. } | Self::Broken { .. } | Self::Coding(_) => {
                "unreachable"
            }
            Self::TooLarge { .. } => "too_large",
            Self::Status(_) | Self::NotUpgraded(_) => "status",
            Self::Undecodable(_) | Self::Redirects => "invalid",
        }
    }
}
