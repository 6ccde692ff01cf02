//! What each request of a question took, redirects and retries apart: for the trace of a slow call.
//!
//! Filled in as it goes, so that a question that is broken off tells how far it came.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use http::HeaderMap;

use egress::Stage;
use model::{Method, SpanId};

/// One request to one URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// `X-Offhook-Attempt`; several hops of one attempt are redirects.
    pub attempt: u32,
    /// The span of its `traceparent`.
    pub span: SpanId,
    pub begun: Instant,
    /// Addresses found, connected: only where a connection was made for it.
    pub dialled: Option<(Instant, Instant)>,
    /// A connection was at hand, TLS included.
    pub ready: Option<Instant>,
    /// The answer's head had come.
    pub answered: Option<Instant>,
    /// Status, or what went wrong (`outcome` of `offhook_answer_fetch_seconds`); none: it was broken off.
    pub ended: Option<(Instant, Result<u16, &'static str>)>,
}

/// A request as it goes out.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    pub attempt: u32,
    pub method: Method,
    /// Without the parameters of a GET.
    pub url: &'a str,
    /// Signatures among them.
    pub headers: &'a HeaderMap,
}

/// Who looks at the requests themselves: a debugger, never a call.
pub type Watch = Arc<dyn Fn(&Sent<'_>) + Send + Sync>;

/// The requests of one question so far; clones share them. A question makes 36 at most (six attempts, five redirects
/// each).
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
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// None yet; `watch` sees each before it goes out.
    pub fn watched(watch: Watch) -> Self {
        Self { watch: Some(watch), ..Self::default() }
    }

    /// Those so far, in order.
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

    /// Of the hop begun last.
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
