//! Requests of a call: to Graph, to the customer's server for documents, and to this node for
//! documents that it writes itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, warn};

use super::super::author::DocumentRequest;
use super::super::call_clock::CallClock;
use super::super::consent::refusal_of;
use super::super::failed::{self, Failed};
use super::super::trace::{EventLogWriter, Request, Trace};
use super::super::waterfall;
use super::context::Context;
use super::phone;
use crate::answer::{DocumentBody, FetchJob, Hops, Validity, beginning};
use crate::meta::{ActionRequest, CallTarget};
use machine::{
    FetchFailure, FetchId, FetchKind, FetchResponse, GraphAction, GraphOutcome, Input, Params,
    Refusal,
};
use model::{Method, Wacid, metric};
use xml::ast::{DocUrl, Finding, Severity};

/// Time that a Graph request waits for the response to the previous one. This keeps a call's
/// requests in order although they use different connections. After that time, the request is sent
/// anyway.
const IN_ORDER: Duration = Duration::from_millis(250);

/// Maximum length of a finding's message in the log, in characters.
const MESSAGE_MAX: usize = 300;

/// The running requests of a call.
#[derive(Default)]
pub(super) struct Requests {
    fetches: BTreeMap<FetchId, AbortHandle>,
    /// The running request to the answer URL, and its start.
    answer: Option<(FetchId, Instant)>,
    /// The latest request to Graph.
    asked: Option<PendingRequest>,
    /// Meta's id of the call.
    pub(super) wacid: Option<Wacid>,
    /// The pending request that ends the call at Meta.
    pub(super) farewell: PendingFarewell,
}

/// The request that ends a call at Meta, until Graph has answered it. Shared by the call's task and
/// the task of the request.
///
/// A call's record is written with its pending request, and the answer settles that record. Both are
/// queued under the lock, because an answer that was queued first would settle nothing, and the
/// request would be sent again.
#[derive(Clone, Default)]
pub(super) struct PendingFarewell(Arc<Mutex<Option<GraphAction>>>);

impl PendingFarewell {
    fn new(action: Option<GraphAction>) -> Self {
        Self(Arc::new(Mutex::new(action)))
    }

    pub(super) fn get(&self) -> Option<GraphAction> {
        self.with(|action| *action)
    }

    /// Calls `act` under the lock.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Option<GraphAction>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A running request to Graph.
struct PendingRequest {
    action: GraphAction,
    answered: JoinHandle<()>,
    /// Cancels further tries.
    overtaken: CancellationToken,
}

impl Requests {
    pub(super) fn new(wacid: Option<Wacid>) -> Self {
        Self { wacid, ..Self::default() }
    }

    /// Creates the requests of a call that another process has handed over.
    pub(super) fn resumed(wacid: Option<Wacid>, farewell: Option<GraphAction>) -> Self {
        Self { farewell: PendingFarewell::new(farewell), ..Self::new(wacid) }
    }

    /// Whether no request is in progress.
    pub(super) fn are_done(&self) -> bool {
        self.fetches.is_empty() && self.asked.is_none()
    }

    /// Removes the latest Graph request if this is its outcome.
    pub(super) fn graph_answered(&mut self, action: GraphAction) {
        self.asked.take_if(|asked| asked.action == action);
    }

    /// Drops the handle of a finished Graph request, which keeps its task's memory alive.
    pub(super) fn forget_finished(&mut self) {
        self.asked.take_if(|asked| asked.answered.is_finished());
    }

    /// Cancels further tries of the latest Graph request if `overtaken` returns true for it.
    pub(super) fn cancel_if(&self, overtaken: impl FnOnce(GraphAction) -> bool) {
        if let Some(asked) = self.asked.as_ref().filter(|asked| overtaken(asked.action)) {
            asked.overtaken.cancel();
        }
    }

    /// Removes a fetch that has ended. Returns the duration of a fetch from the answer URL.
    pub(super) fn fetched(&mut self, fetch: FetchId, at: Instant) -> Option<Duration> {
        self.fetches.remove(&fetch);
        let (_, began) = self.answer.take_if(|(answer, _)| *answer == fetch)?;
        Some(at.saturating_duration_since(began))
    }

    pub(super) fn cancel_fetch(&mut self, fetch: FetchId) {
        if let Some(task) = self.fetches.remove(&fetch) {
            task.abort();
        }
    }

    pub(super) fn cancel_fetches(&self) {
        self.fetches.values().for_each(AbortHandle::abort);
    }

    /// Sends a request about the call to Graph, or to the phone of a web leg. `sdp` is our session
    /// description.
    pub(super) fn ask_graph(
        &mut self,
        context: &Context,
        call_clock: &CallClock,
        sdp: &Arc<str>,
        action: GraphAction,
    ) {
        let Some(number) = context.number.clone() else {
            return phone::execute(context, sdp, action);
        };
        let about = match (action, self.wacid.clone()) {
            (GraphAction::Connect, _) if sdp.is_empty() => {
                context.tell(Input::Graph { action, outcome: GraphOutcome::Unreachable });
                return;
            }
            (GraphAction::Connect, _) => CallTarget::User(context.view.setup.to.clone()),
            (_, Some(wacid)) => CallTarget::Call(wacid),
            (_, None) => return,
        };
        if sdp.is_empty() && matches!(action, GraphAction::PreAccept | GraphAction::Accept) {
            return;
        }
        let request = ActionRequest {
            phone_number_id: number.spec.phone_number_id.clone(),
            token: number.spec.access_token.clone(),
            about,
            action,
            sdp: Some(sdp.clone()),
            opaque: Some(crate::meta::callback_data(context.id, &context.services.node_id)),
            deadline: call_clock.answer_window(action),
            overtaken: CancellationToken::new(),
        };
        let ends = matches!(action, GraphAction::Reject | GraphAction::Terminate);
        if ends {
            self.farewell.with(|pending| *pending = Some(action));
        }
        let farewell = self.farewell.clone();
        let overtaken = request.overtaken.clone();
        let (store, call) = (context.services.store.clone(), context.id);
        let (graph, mailbox, journal) =
            (context.services.graph.clone(), context.mailbox.clone(), context.journal.clone());
        let (clock, arrived, before) =
            (context.services.clock.clone(), call_clock.arrived(), self.asked.take());
        let permissions = context.services.permissions.clone();
        let user = context.view.setup.to.clone();
        let placed = (action == GraphAction::Connect)
            .then(|| (context.registry.clone(), context.view.clone()));
        let from = clock.now();
        let gone = overtaken.clone();
        let ask = async move {
            if let Some(before) = before {
                // If this request is cancelled while it waits, the previous one is cancelled, too.
                let _ =
                    gone.run_until_cancelled(tokio::time::timeout(IN_ORDER, before.answered)).await;
                before.overtaken.cancel();
            }
            if action == GraphAction::Accept {
                let took = clock.now().saturating_duration_since(arrived);
                metrics::histogram!(metric::SETUP_SECONDS).record(took.as_secs_f64());
            }
            let mut tries = Vec::new();
            // Boxed, because tokio copies a task several times when it is spawned and when it ends.
            let asking = graph.call_action_watched(request, |t| tries.push(journal.graph_try(&t)));
            let answered = Box::pin(asking).await;
            let outcome = answered.outcome;
            let (from_us, to_us) = (journal.us(from), journal.us(clock.now()));
            journal.trace(&Trace::Graph { action, from_us, to_us, tries });
            match &outcome {
                GraphOutcome::Done | GraphOutcome::Gone => {
                    debug!(action = action.as_str(), %outcome, "graph request done")
                }
                failed => {
                    warn!(action = action.as_str(), outcome = %failed, "graph request failed")
                }
            }
            // If the record with the pending request is written already, settling it prevents
            // another process from repeating the request.
            if ends && outcome.is_settled() {
                farewell.with(|pending| {
                    *pending = None;
                    store.calls().settle_farewell(call, None);
                });
            }
            if let (GraphAction::Connect, GraphOutcome::Refused { code, details, .. }) =
                (action, &outcome)
                && let Some(event) = refusal_of(*code, details)
            {
                permissions.note(&number, &user, event);
            }
            if let (Some((registry, view)), Some(wacid)) = (placed, answered.made) {
                registry.bind(&view, wacid);
            }
            mailbox.tell(Input::Graph { action, outcome });
        };
        self.asked = Some(PendingRequest {
            action,
            answered: context.services.tasks.spawn(ask.in_current_span()),
            overtaken,
        });
    }

    /// Requests a document from the customer's server.
    pub(super) fn fetch(
        &mut self,
        context: &Context,
        fetch: FetchId,
        kind: FetchKind,
        (url, method): (DocUrl, Method),
        params: Params,
        deadline: Duration,
    ) {
        let hops = Hops::new();
        let max_body = context.services.settings.load().max_body;
        let job = FetchJob {
            call: context.id,
            main_account: context.view.setup.parent_account.clone(),
            kind,
            url,
            method,
            params,
            keys: context.keys(),
            event_id: context.services.uuid(),
            deadline,
            max_body,
            hops: hops.clone(),
        };
        let clock = context.services.clock.clone();
        if kind == FetchKind::Answer {
            self.answer = Some((fetch, clock.now()));
        }
        let mut traced = TracedFetch {
            journal: context.journal.clone(),
            fetch,
            kind,
            from: clock.now(),
            hops,
            parse: None,
            clock: clock.clone(),
        };
        let (fetcher, mailbox) = (context.services.fetcher.clone(), context.mailbox.clone());
        let (view, store) = (context.view.clone(), context.services.store.clone());
        let space = context.services.recordings.space().clone();
        let work = async move {
            let mut refused = None;
            let read = async |body: DocumentBody| {
                let begun = clock.now();
                let parsed = parse(&body, max_body).await;
                traced.parse = Some(clock.now().saturating_duration_since(begun));
                let validity = if parsed.is_ok() {
                    Validity::Valid
                } else {
                    refused = beginning(&body.bytes);
                    Validity::Invalid
                };
                (FetchResponse::from(parsed), validity)
            };
            // Boxed for the same reason as a request to Graph.
            let result = Box::pin(fetcher.document(&job, read)).await;
            let record = |outcome: &str, response: Option<String>| {
                let tries = traced.hops.so_far();
                let failed = Failed {
                    call: job.call,
                    account: &view.setup.account,
                    main_account: &view.setup.parent_account,
                    kind: waterfall::fetch_name(kind),
                    method: job.method.as_str(),
                    url: &job.url.0,
                    outcome,
                    attempts: tries.last().map_or(0, |last| last.attempt),
                    response,
                };
                failed::record(&store, &space, job.event_id, clock.wall(), failed);
            };
            match &result {
                Err(failure) => {
                    record(&failure.to_string(), traced.hops.error_body());
                    warn!(
                        kind = kind.as_str(),
                        outcome = failure.outcome(),
                        %failure,
                        "document fetch failed"
                    );
                }
                Ok(FetchResponse::Refused { refusal }) => {
                    if let Some(first) = first_error(refusal) {
                        let (rule, line, message) =
                            (&*first.rule, first.at.line, shorten_message(&first.message));
                        record(&format!("{rule} at line {line}: {message}"), refused);
                        warn!(kind = kind.as_str(), rule, line, %message, "document refused");
                    }
                }
                Ok(FetchResponse::Document { .. } | FetchResponse::Ignored) => {}
            }
            drop(traced);
            mailbox.tell(Input::Fetched { fetch, result });
        };
        let task = context.services.tasks.spawn(work.in_current_span());
        self.fetches.insert(fetch, task.abort_handle());
    }

    /// Requests a document from the node's own [`Author`](author::Author).
    pub(super) fn have_written(
        &mut self,
        context: &Context,
        fetch: FetchId,
        path: &str,
        params: Params,
        within: Duration,
    ) {
        let setup = &context.view.setup;
        let (account, main_account) = (setup.account.clone(), setup.parent_account.clone());
        let request = DocumentRequest {
            call: context.id,
            account,
            main_account,
            path: path.to_owned(),
            params,
            within,
        };
        let written = context.services.author.document(request);
        let (mailbox, max_body) =
            (context.mailbox.clone(), context.services.settings.load().max_body);
        let work = async move {
            let late = |_| Err(FetchFailure::Timeout);
            let written = tokio::time::timeout(within, written).await.unwrap_or_else(late);
            let result =
                written.map(|xml| xml::parse_with_limit(xml.as_bytes(), None, max_body).into());
            mailbox.tell(Input::Fetched { fetch, result });
        };
        let task = context.services.tasks.spawn(work.in_current_span());
        self.fetches.insert(fetch, task.abort_handle());
    }
}

/// Returns the error for which a document was refused.
fn first_error(refusal: &Refusal) -> Option<&Finding> {
    refusal.findings.iter().find(|finding| finding.severity == Severity::Error)
}

/// Shortens a finding's message for the log. URLs are cut to their scheme, since they can contain
/// keys and names.
fn shorten_message(message: &str) -> String {
    let word = |word: &str| match word.split_once("://") {
        Some((before, _)) => format!("{before}://…"),
        None => word.to_owned(),
    };
    let words: Vec<String> = message.split_whitespace().map(word).collect();
    words.join(" ").chars().take(MESSAGE_MAX).collect()
}

/// Trace line of a fetch. Written on drop, so that an aborted fetch leaves a line as well.
struct TracedFetch {
    journal: EventLogWriter,
    clock: model::Clock,
    fetch: FetchId,
    kind: FetchKind,
    from: Instant,
    hops: Hops,
    parse: Option<Duration>,
}

impl Drop for TracedFetch {
    fn drop(&mut self) {
        let (journal, now) = (&self.journal, self.clock.now());
        journal.trace(&Trace::Fetch {
            fetch: self.fetch,
            kind: self.kind,
            from_us: journal.us(self.from),
            to_us: journal.us(now),
            tries: self
                .hops
                .so_far()
                .iter()
                .map(|hop| Request::of(hop, journal.zero(), now))
                .collect(),
            parse_us: self.parse.and_then(|took| i64::try_from(took.as_micros()).ok()),
        });
    }
}

/// Size in bytes above which parsing a document takes much longer than asking another thread to do
/// it.
const LARGE_DOCUMENT: usize = 16 << 10;

/// The right to parse a large document. One is parsed at a time.
static LARGE_DOCUMENTS: Semaphore = Semaphore::const_new(1);

/// Parses a document, and a large one on another thread, so that webhooks don't wait for it.
async fn parse(body: &DocumentBody, max_bytes: usize) -> xml::ParseOutcome {
    let parse = move |body: &DocumentBody| {
        xml::parse_with_limit(&body.bytes, body.charset.as_deref(), max_bytes)
    };
    if body.bytes.len() <= LARGE_DOCUMENT {
        return parse(body);
    }
    let _turn = LARGE_DOCUMENTS.acquire().await;
    let copy = body.clone();
    // It fails only if the runtime is shut down.
    tokio::task::spawn_blocking(move || parse(&copy)).await.unwrap_or_else(|_| parse(body))
}

#[cfg(test)]
mod tests {
    use super::{FetchResponse, MESSAGE_MAX, first_error, shorten_message};

    #[test]
    fn a_refused_document_has_a_first_error_for_the_log() {
        for (body, charset) in [
            (&b""[..], None),
            (b"<!DOCTYPE html><html><body>Not found</body></html>", None),
            (b"<Response>\n<Hangup></Response>", None),
            (b"<Response><Speak>\xff</Speak></Response>", Some("utf-8")),
            (b"<Response>\n<Spek>a</Spek></Response>", None),
        ] {
            let FetchResponse::Refused { refusal } =
                xml::parse_with_limit(body, charset, 10_000).into()
            else {
                panic!("it was taken: {body:?}");
            };
            let first = first_error(&refusal).expect("an error");
            assert!(
                first.rule.starts_with('E') && !shorten_message(&first.message).is_empty(),
                "{first:?}"
            );
        }
    }

    #[test]
    fn logged_findings_redact_urls_and_are_bounded() {
        let message = "action=\"ftp://me:secret@app.example.com/?key=1\" is\nnot a URL";
        assert_eq!(shorten_message(message), "action=\"ftp://… is not a URL");
        assert_eq!(shorten_message(&"é".repeat(10_000)).chars().count(), MESSAGE_MAX);
    }
}
