//! The only way out to a URL that a customer chose (R17): refuse private addresses, connect to the checked one.
//!
//! `url` judges the text, `guard` the addresses, `resolve` looks names up, `connect` dials what was checked and
//! nothing else, `client` asks and reads an answer within bounds, `file` fetches a sound, `socket` opens a WebSocket, `certificate` looks at a server's; `tls`
//! and `direct` are also for those who ask servers of the operator's choice. Knows nothing of calls, documents or signatures, follows
//! no redirect by itself (`file` apart) and takes no proxy from the environment.

// Bytes from outside must not make the process panic: where one of these is needed, an `allow` gives the reason.
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
mod file;
mod guard;
mod resolve;
mod socket;
#[cfg(any(test, feature = "test-util"))]
#[doc(hidden)]
pub mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod url;

pub use client::{
    Egress, EgressConfig, EgressRequest, EgressResponse, EgressStream, OnPiece, Stage, Want,
};
pub use direct::{DirectClient, chain, direct_client};
pub use file::{FetchedFile, FileAnswer};
pub use guard::{Guard, Refusal, is_public};
pub use resolve::{Lookup, Resolve, SystemResolver};
pub use socket::{Socket, SocketWire, is_too_large};
pub use tls::{client_tls, prepare};
pub use url::{CustomerUrl, URL_BYTES_MAX};

use std::time::Duration;

/// `User-Agent` of everything we send to customers (`plivo-callbacks.md` §1).
pub const USER_AGENT: &str = concat!("Offhook/", env!("CARGO_PKG_VERSION"), " (Plivo-compatible)");

/// Redirects followed at most (R17).
pub const REDIRECTS_MAX: u32 = 5;

/// Why a request to a customer came to nothing. The texts read well after "could not …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("look up {name}: {what}")]
    Resolve { name: String, what: String },
    #[error("connect to {host}: {what}")]
    Connect { host: String, what: String },
    #[error("connect to {host} within {waited:?}")]
    ConnectTimeout { host: String, waited: Duration },
    #[error(
        "set TLS up with {host} within {waited:?}: it is connected, and the handshake gets no answer"
    )]
    HandshakeTimeout { host: String, waited: Duration },
    #[error("get an answer within {waited:?}")]
    ReadTimeout { waited: Duration },
    #[error("complete the exchange: {what}")]
    Broken { what: String },
    #[error("read an answer of more than {max} bytes")]
    TooLarge { max: usize },
    #[error("read the content coding {0:?}: only gzip and deflate are known")]
    Coding(String),
    #[error("decode the body: {0}")]
    Undecodable(String),
    #[error("get the file: the answer was {0}")]
    Status(u16),
    #[error("open the socket: the answer was {0}")]
    NotUpgraded(u16),
    #[error("follow more than {REDIRECTS_MAX} redirects")]
    Redirects,
}

impl EgressError {
    /// `outcome` of `offhook_answer_fetch_seconds` (`interface.md` §4). An unknown coding counts as unreachable
    /// (`plivo-xml.md` §1 rule 1).
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
