//! Timings of the requests that one fetch or callback makes, with redirects and retries listed
//! separately. For traces of slow calls.
//!
//! Entries are completed as the request proceeds, so that a cancelled request shows how far it got.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use http::HeaderMap;

use egress::Stage;
use model::{Method, SpanId};

/// One request to one URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The value of `X-Offhook-Attempt`. Several hops with the same number are redirects.
    pub attempt: u32,
    /// The span id in its `traceparent`.
    pub span: SpanId,
    pub begun: Instant,
    /// When the name was resolved and the connection established. `None` if an existing connection
    /// was used.
    pub dialled: Option<(Instant, Instant)>,
    /// When a connection was ready, including TLS.
    pub ready: Option<Instant>,
    /// When the head of the response had arrived.
    pub answered: Option<Instant>,
    /// The status, or the `outcome` of `offhook_answer_fetch_seconds`. `None` if the request was
    /// cancelled.
    pub ended: Option<(Instant, Result<u16, &'static str>)>,
}

/// A request that is about to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    pub attempt: u32,
    pub method: Method,
    /// Without the parameters of a GET.
    pub url: &'a str,
    /// Includes the signatures.
    pub headers: &'a HeaderMap,
}

/// Sees the requests themselves. Used for debugging only, never by calls.
pub type Watch = Arc<dyn Fn(&Sent<'_>) + Send + Sync>;

/// The requests so far; clones share them. At most 36: six attempts with five redirects each.
#[derive(Clone, Default)]
pub struct Hops {
    hops: Arc<Mutex<Vec<Hop>>>,
    watch: Option<Watch>,
}

impl fmt::Debug for Hops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hops").field(&self.lock()).finish()
    }
}

impl Hops {
    /// Creates an empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an empty list. `watch` sees each request before it is sent.
    pub fn watched(watch: Watch) -> Self {
        Self { watch: Some(watch), ..Self::default() }
    }

    /// The requests so far, in order.
    pub fn so_far(&self) -> Vec<Hop> {
        self.lock().clone()
    }

    pub(super) fn sent(&self, sent: &Sent<'_>) {
        if let Some(watch) = &self.watch {
            watch(sent);
        }
    }

    pub(super) fn begin(&self, attempt: u32, span: SpanId, begun: Instant) {
        let hop =
            Hop { attempt, span, begun, dialled: None, ready: None, answered: None, ended: None };
        self.lock().push(hop);
    }

    /// Records a stage of the latest request.
    pub(super) fn stage(&self, stage: Stage) {
        if let Some(hop) = self.lock().last_mut() {
            match stage {
                Stage::Connected { resolved, connected } => {
                    hop.dialled = Some((resolved, connected))
                }
                Stage::Ready(at) => hop.ready = Some(at),
                Stage::Responded(at) => hop.answered = Some(at),
            }
        }
    }

    pub(super) fn end(&self, at: Instant, how: Result<u16, &'static str>) {
        if let Some(hop) = self.lock().last_mut() {
            hop.ended = Some((at, how));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Hop>> {
        self.hops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
