//! How many connections a node has, by the file descriptors that the system gives it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use crate::api::server::HttpLimits;

/// Descriptors that a node has open before anything comes: its store, its listeners, its logs.
const OWN_DESCRIPTORS: usize = 64;

/// How many connections there may be, where the system gives few descriptors: a third of them is for those that come in, the
/// others are for what goes out, to customers and to Graph, and for media.
pub(super) struct Connections {
    pub(super) http: HttpLimits,
    /// To Graph at once, of one number; none: as many as usual.
    pub(super) graph: Option<usize>,
}

/// File descriptors to ask the system for: connections in and out, media ports and the store.
const DESCRIPTORS: u64 = 32_768;

/// Raises the soft limit of open files towards [`DESCRIPTORS`], as far as the hard limit allows, and returns it.
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
            "few file descriptors: fewer connections are taken; raise the limit (ulimit -n)"
        );
        Self { http: HttpLimits { connections: third, ..usual }, graph: Some(third) }
    }
}
