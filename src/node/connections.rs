//! How many connections a node has, by the file descriptors that the system gives it.

use tracing::warn;

use crate::api::server::HttpLimits;
use crate::ffi::process::raise_descriptor_limit;

/// Descriptors that a node has open before anything comes: its store, its listeners, its logs.
const OWN_DESCRIPTORS: usize = 64;

/// How many connections there may be, where the system gives few descriptors: a third of them is for those that come in, the
/// others are for what goes out, to customers and to Graph, and for media.
pub(super) struct Connections {
    pub(super) http: HttpLimits,
    /// To Graph at once, of one number; none: as many as usual.
    pub(super) graph: Option<usize>,
}

impl Connections {
    pub(super) fn of_this_process() -> Self {
        let usual = HttpLimits::default();
        let descriptors = match raise_descriptor_limit() {
            Ok(descriptors) => descriptors,
            Err(e) => {
                warn!(error = %e, "could not see how many file descriptors there may be");
                return Self { http: usual, graph: None };
            }
        };
        if descriptors / 2 >= usual.connections {
            return Self { http: usual, graph: None };
        }
        let third = (descriptors.saturating_sub(OWN_DESCRIPTORS) / 3).max(1);
        warn!(descriptors, "few file descriptors: fewer connections are taken; raise the limit (ulimit -n)");
        Self { http: HttpLimits { connections: third, ..usual }, graph: Some(third) }
    }
}
