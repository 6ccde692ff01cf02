//! Timings of the requests that one fetch or callback makes, with redirects and retries listed
//! separately. For traces of slow calls.
//!
//! Entries are completed as the request proceeds, so that a cancelled request shows how far it got.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use egress::{EgressResponse, Stage};
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
    /// The time of the end and the status, or the `outcome` of `offhook_answer_fetch_seconds`.
    /// `None` if the request was cancelled.
    pub ended: Option<(Instant, Result<u16, &'static str>)>,
}

/// A request that is about to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    pub attempt: u32,
    pub method: Method,
    /// The URL without the parameters of a GET.
    pub url: &'a str,
    /// The headers, including the signatures.
    pub headers: &'a HeaderMap,
}

/// Observes each request. Used for debugging only, never by calls.
pub type Watch = Arc<dyn Fn(&Sent<'_>) + Send + Sync>;

/// The requests so far. Clones share them. There are at most 36: six attempts with five redirects
/// each.
#[derive(Clone, Default)]
pub struct Hops {
    requests: Arc<Mutex<Requests>>,
    watch: Option<Watch>,
}

#[derive(Debug, Default)]
struct Requests {
    hops: Vec<Hop>,
    /// The beginning of the latest response, if its status is an error and it is text.
    error_body: Option<String>,
}

impl fmt::Debug for Hops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hops").field(&self.lock().hops).finish()
    }
}

impl Hops {
    /// Creates an empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an empty list. `watch` receives each request before it is sent.
    pub fn watched(watch: Watch) -> Self {
        Self { watch: Some(watch), ..Self::default() }
    }

    /// The requests so far, in order.
    pub fn so_far(&self) -> Vec<Hop> {
        self.lock().hops.clone()
    }

    /// The beginning of the latest response, at most 2,000 characters. `None` unless its status is
    /// an error and it is text.
    pub fn error_body(&self) -> Option<String> {
        self.lock().error_body.clone()
    }

    pub(super) fn sent(&self, sent: &Sent<'_>) {
        if let Some(watch) = &self.watch {
            watch(sent);
        }
    }

    pub(super) fn begin(&self, attempt: u32, span: SpanId, begun: Instant) {
        let hop =
            Hop { attempt, span, begun, dialled: None, ready: None, answered: None, ended: None };
        let mut requests = self.lock();
        requests.hops.push(hop);
        requests.error_body = None;
    }

    /// Records a stage of the latest request.
    pub(super) fn stage(&self, stage: Stage) {
        if let Some(hop) = self.lock().hops.last_mut() {
            match stage {
                Stage::Connected { resolved, connected } => {
                    hop.dialled = Some((resolved, connected))
                }
                Stage::Ready(at) => hop.ready = Some(at),
                Stage::Responded(at) => hop.answered = Some(at),
            }
        }
    }

    pub(super) fn end(&self, at: Instant, answer: Result<&EgressResponse, &'static str>) {
        let mut requests = self.lock();
        if let Some(hop) = requests.hops.last_mut() {
            hop.ended = Some((at, answer.map(|answer| answer.status.as_u16())));
        }
        requests.error_body = answer.ok().and_then(error_text);
    }

    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Maximum length of the beginning of an error response, in characters.
const ERROR_BODY_MAX: usize = 2_000;

/// The beginning of an error response as text. `None` if it is compressed, binary or empty.
fn error_text(answer: &EgressResponse) -> Option<String> {
    let is_error = answer.status.is_client_error() || answer.status.is_server_error();
    if !is_error || answer.headers.contains_key(CONTENT_ENCODING) {
        return None;
    }
    beginning(&answer.discarded)
}

/// The beginning of a body as text, at most 2,000 characters. `None` if it is binary or empty.
pub fn beginning(body: &[u8]) -> Option<String> {
    // A character has at most four bytes.
    let body = body.get(..ERROR_BODY_MAX * 4).unwrap_or(body);
    let chunk = body.utf8_chunks().next()?;
    // Only the last character may be incomplete, where the beginning was cut.
    let is_text = chunk.valid().len() + chunk.invalid().len() == body.len();
    let text = chunk.valid();
    if !is_text || (text.is_empty() && !chunk.invalid().is_empty()) {
        return None;
    }
    let is_shown = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
    let text: String = text.trim().chars().filter(is_shown).take(ERROR_BODY_MAX).collect();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, StatusCode};

    use super::*;

    #[test]
    fn the_beginning_of_an_error_response_is_kept_if_it_is_text() {
        let answer = |status: u16, body: &[u8]| EgressResponse {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            discarded: Bytes::copy_from_slice(body),
        };
        let kept = |status, body: &[u8]| error_text(&answer(status, body));
        assert_eq!(
            kept(500, b" Traceback:\r\n\tdb \x07down\n").as_deref(),
            Some("Traceback:\n\tdb down")
        );
        assert_eq!(kept(404, "é".as_bytes()).as_deref(), Some("é"));
        assert_eq!(kept(404, &"aé".as_bytes()[..2]).as_deref(), Some("a"), "cut in a character");
        assert_eq!(kept(500, &"x".repeat(9_999).into_bytes()).map(|text| text.len()), Some(2_000));
        for (status, body) in [(200, &b"fine"[..]), (302, b"moved"), (500, b""), (500, b"\xff\xfe")]
        {
            assert_eq!(kept(status, body), None, "{status} {body:?}");
        }
        let mut packed = answer(500, b"text");
        packed.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert_eq!(error_text(&packed), None);
    }

    #[test]
    fn the_beginning_of_a_refused_document_is_bounded() {
        assert_eq!(beginning(b"<!doctype html>\r\n").as_deref(), Some("<!doctype html>"));
        let long = "ü".repeat(100_000);
        assert_eq!(beginning(long.as_bytes()).map(|text| text.chars().count()), Some(2_000));
        assert_eq!(
            (beginning(b""), beginning(b" \n"), beginning(b"\x89PNG\xff")),
            (None, None, None)
        );
    }
}
