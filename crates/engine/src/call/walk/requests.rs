//! HTTP requests of a walk: documents, for which the machine waits, and callbacks, for which it
//! does not.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::Walk;
use super::event::{Event, millis};
use crate::answer::{
    CallbackJob, CallbackOutcome, DocumentBody, FetchJob, Hop, Hops, Sent, Validity,
};
use crate::call::author;
use machine::{CallbackRequest, FetchFailure, FetchId, FetchKind, FetchResponse, Input, Params};
use model::Method;
use xml::ast::{DocUrl, Severity};
use xml::{self, ParseOutcome};

/// A document that the machine requests.
pub(super) struct DocumentRequest {
    pub(super) fetch: FetchId,
    pub(super) kind: FetchKind,
    pub(super) url: DocUrl,
    pub(super) method: Method,
    pub(super) params: Params,
    pub(super) deadline_ms: u64,
}

/// A request that was sent.
struct SentRequest {
    method: Method,
    url: String,
    signed_by: Vec<String>,
}

/// Records outgoing requests.
#[derive(Clone, Default)]
struct RequestRecorder(Arc<Mutex<Vec<SentRequest>>>);

impl RequestRecorder {
    fn hops(&self) -> Hops {
        let seen = self.0.clone();
        Hops::watched(Arc::new(move |sent: &Sent<'_>| {
            let signed_by = sent
                .headers
                .keys()
                .map(|name| name.as_str())
                .filter(|name| name.contains("-signature-"));
            let gone = SentRequest {
                method: sent.method,
                url: sent.url.to_owned(),
                signed_by: signed_by.map(str::to_owned).collect(),
            };
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(gone);
        }))
    }

    /// Returns the recorded requests with their results.
    fn answers(&self, hops: &Hops) -> Vec<Event> {
        let gone = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        gone.into_iter().zip(hops.so_far()).map(|(gone, hop)| answer(gone, &hop)).collect()
    }
}

fn answer(gone: SentRequest, hop: &Hop) -> Event {
    let (status, failure, took) = match hop.ended {
        Some((at, Ok(status))) => (Some(status), None, at.saturating_duration_since(hop.begun)),
        Some((at, Err(failure))) => (None, Some(failure), at.saturating_duration_since(hop.begun)),
        // Aborted by the total deadline.
        None => (None, Some("timeout"), Duration::ZERO),
    };
    let SentRequest { method, url, signed_by } = gone;
    Event::Answer {
        attempt: hop.attempt,
        method,
        url,
        signed_by,
        status,
        failure,
        took_ms: millis(took),
    }
}

impl Walk<'_> {
    /// Fetches a document. The machine receives it at the corresponding simulated time.
    pub(super) async fn fetch(&mut self, wanted: DocumentRequest) {
        let DocumentRequest { fetch, kind, url, method, params, deadline_ms } = wanted;
        if kind == FetchKind::Answer
            && let Some(body) = self.job.document.clone()
        {
            self.tell(Event::File { bytes: body.len() });
            let parsed = xml::parse_with_limit(&body, None, self.job.max_body);
            return self.came(fetch, kind, 0, Ok((body, parsed)));
        }
        self.tell(Event::Request { kind, method, url: url.0.to_string(), params: params.clone() });
        if author::path_of(&url.0).is_some() {
            let text = "an AI agent takes over the call here, and the node writes its documents, so the walk ends";
            self.tell(Event::Remark { text: text.to_owned() });
            self.is_handed_over = true;
            let body = Bytes::from_static(b"<Response><Hangup/></Response>");
            let parsed = xml::parse(&body, None);
            return self.came(fetch, kind, 0, Ok((body, parsed)));
        }
        let recorder = RequestRecorder::default();
        let hops = recorder.hops();
        let max_body = self.job.max_body;
        let job = FetchJob {
            call: self.setup.call,
            main_account: self.setup.parent_account.clone(),
            kind,
            url,
            method,
            params,
            keys: self.job.keys.clone(),
            event_id: self.walker.uuid(),
            deadline: Duration::from_millis(deadline_ms).min(self.left()),
            max_body,
            hops: hops.clone(),
        };
        let read = async |body: DocumentBody| {
            let parsed = xml::parse_with_limit(&body.bytes, body.charset.as_deref(), max_body);
            let validity = if parsed.is_ok() { Validity::Valid } else { Validity::Invalid };
            ((body.bytes, parsed), validity)
        };
        let from = self.walker.clock.now();
        let result = self.walker.fetcher.document(&job, read).await;
        let took_ms = millis(self.walker.clock.now().saturating_duration_since(from));
        recorder.answers(&hops).into_iter().for_each(|answer| self.tell_in(took_ms, answer));
        self.came(fetch, kind, took_ms, result);
    }

    fn came(
        &mut self,
        fetch: FetchId,
        kind: FetchKind,
        took_ms: u64,
        result: Result<(Bytes, ParseOutcome), FetchFailure>,
    ) {
        let result = match result {
            Ok((bytes, parsed)) => {
                self.walked.documents += 1;
                let source = parsed.source.as_deref().map(str::to_owned);
                self.tell_in(
                    took_ms,
                    Event::Document { kind, ok: parsed.is_ok(), bytes: bytes.len(), source },
                );
                if let Some(first) = parsed.findings.iter().find(|f| f.severity == Severity::Error)
                {
                    let (rule, line) = (&first.rule, first.at.line);
                    self.fault(format!(
                        "the {} document is refused: {rule} at line {line}, {}",
                        kind.as_str(),
                        first.message
                    ));
                }
                Ok(FetchResponse::from(parsed))
            }
            Err(failure) => {
                let why = failure.to_string();
                self.fault(format!("the {} URL gave no document: {why}", kind.as_str()));
                self.tell_in(took_ms, Event::NoDocument { kind, why });
                Err(failure)
            }
        };
        self.comes(took_ms, Input::Fetched { fetch, result });
    }

    /// Sends a callback or only displays it.
    pub(super) async fn callback(&mut self, notice: CallbackRequest) {
        let is_nowhere = self.is_nowhere(&notice);
        let (kind, method, url) = (notice.kind, notice.method, notice.url.0.to_string());
        let params = notice.params.clone();
        if is_nowhere || !self.job.callbacks {
            let failure = is_nowhere.then(|| "a file cannot receive callbacks".to_owned());
            let url = if is_nowhere { String::new() } else { url };
            return self.tell(Event::Callback {
                kind,
                method,
                url,
                params,
                sent: false,
                status: None,
                failure,
            });
        }
        let job = CallbackJob {
            call: self.setup.call,
            main_account: self.setup.parent_account.clone(),
            notice,
            keys: self.job.keys.clone(),
            secrets: std::sync::Arc::default(),
            event_id: self.walker.uuid(),
            attempts: 0,
            retries: 0,
            age: Duration::ZERO,
            hops: Hops::new(),
        };
        let delivery = tokio::time::timeout(self.left(), self.walker.notifier.deliver(&job)).await;
        let (status, failure) = match delivery.map(|delivery| delivery.outcome) {
            Ok(CallbackOutcome::Delivered { status }) => (Some(status), None),
            Ok(CallbackOutcome::Retry { why, .. } | CallbackOutcome::Failed { why }) => {
                (None, Some(why))
            }
            Err(_) => (None, Some("no answer within the walk's time".to_owned())),
        };
        if let Some(why) = &failure {
            self.fault(format!("the {} callback was not delivered: {why}", kind.as_str()));
        }
        self.tell(Event::Callback { kind, method, url, params, sent: true, status, failure });
    }
}
