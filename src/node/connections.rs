//! Connection limits, derived from the limit of open file descriptors.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use crate::api::server::HttpLimits;

/// File descriptors reserved for the store, the listeners and the logs.
const OWN_DESCRIPTORS: usize = 64;

/// Connection limits of a process with few file descriptors. One third is for inbound connections,
/// the rest for customers' servers, Graph and media.
pub(super) struct Connections {
    pub(super) http: HttpLimits,
    /// Maximum number of concurrent requests to Graph per number. `None` for the default.
    pub(super) graph: Option<usize>,
}

/// Requested soft limit of file descriptors, for connections, media ports and the store.
const DESCRIPTORS: u64 = 32_768;

/// Raises the soft limit of open files to [`DESCRIPTORS`], or to the hard limit if that is lower,
/// and returns the resulting limit.
pub(super) fn raise_descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let (soft, hard) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    let raised = hard.min(DESCRIPTORS);
    let descriptors = match soft < raised {
        true if setrlimit(Resource::Nofile, Rlimit { current: Some(raised), ..limit }).is_ok() => {
            raised
        }
        _ => soft,
    };
    usize::try_from(descriptors).unwrap_or(usize::MAX)
}

impl Connections {
    pub(super) fn of_this_process() -> Self {
        let usual = HttpLimits::default();
        let descriptors = raise_descriptor_limit();
        if descriptors / 2 >= usual.connections {
            return Self { http: usual, graph: None };
        }
        let third = (descriptors.saturating_sub(OWN_DESCRIPTORS) / 3).max(1);
        warn!(
            descriptors,
            "low file descriptor limit: accepting fewer connections; raise it with ulimit -n"
        );
        Self { http: HttpLimits { connections: third, ..usual }, graph: Some(third) }
    }
}
