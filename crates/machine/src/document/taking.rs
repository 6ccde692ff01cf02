//! A document comes in, or does not: what was fetched, what takes over, what its failure means (`plivo-xml.md` §2.3, §4).

use std::sync::Arc;

use super::super::element::Running;
use super::super::params::{self, Event};
use super::super::stream;
use super::super::timers::Timer;
use super::{DOCUMENTS_MAX, Desk, Gate, IDLE_DOCUMENTS_MAX, Script, Step};
use crate::contract::display::foreign;
use crate::contract::{
    FetchFailure, FetchId, FetchKind, Fetched, FirstFault, InstructionOutcome, LegNews, MediaOrder,
    Params, RecordEnd,
};
use model::{DocumentKind, HangupCause};
use xml::Document;
use xml::ast::Target;

impl Script {
    pub(super) fn fetched(
        &mut self,
        desk: &mut Desk,
        gate: Gate,
        fetch: FetchId,
        result: Result<Fetched, FetchFailure>,
    ) -> Step {
        let kind = match &mut self.running {
            Running::Fetching { fetch: open, kind } if *open == fetch => *kind,
            Running::Dialing(dialing) => {
                dialing.fetched(desk, gate, fetch, result);
                return Step::Busy;
            }
            Running::Attending(attending) => {
                attending.fetched(desk, gate, fetch, result);
                return Step::Busy;
            }
            Running::Called(callee) => {
                callee.fetched(desk, gate, fetch, result);
                return self.called_on(desk, gate);
            }
            // Of a fetch that was cancelled or timed out here.
            _ => return Step::Busy,
        };
        desk.timers.clear(Timer::Fetch);
        self.running = Running::Nothing;
        self.owed = None;
        match result {
            Ok(Fetched::Document { document }) => {
                self.end_place(desk, InstructionOutcome::Done, "");
                self.load(desk, gate, document)
            }
            Ok(Fetched::Refused { refusal }) => {
                desk.findings(&refusal.findings);
                let first =
                    refusal.findings.iter().find(|f| f.severity == xml::ast::Severity::Error);
                let why = first.map_or_else(
                    || "its document was refused".to_owned(),
                    |f| {
                        format!(
                            "its document was refused: {} at line {}, {}",
                            f.rule,
                            f.at.line,
                            foreign(&f.message)
                        )
                    },
                );
                self.fetch_failed(desk, kind, refused_cause(refusal.first, kind), &why)
            }
            Ok(Fetched::Ignored) => self.fetch_failed(
                desk,
                kind,
                HangupCause::Unreachable(document_kind(kind)),
                "no document came back",
            ),
            Err(failure) => {
                let cause = match failure {
                    // A body past the limit is a refused document: E101 (`plivo-xml.md` §1).
                    FetchFailure::TooLarge => HangupCause::InvalidXml(document_kind(kind)),
                    FetchFailure::Timeout
                    | FetchFailure::Handshake
                    | FetchFailure::Unreachable { .. }
                    | FetchFailure::Status { .. }
                    | FetchFailure::UrlRefused { .. }
                    | FetchFailure::Invalid { .. } => HangupCause::Unreachable(document_kind(kind)),
                };
                self.fetch_failed(desk, kind, cause, &failure.to_string())
            }
        }
    }

    /// The answer URL has a second chance, everything else ends the call (`plivo-callbacks.md` §4.3).
    pub(super) fn fetch_failed(
        &mut self,
        desk: &mut Desk,
        kind: FetchKind,
        cause: HangupCause,
        why: &str,
    ) -> Step {
        self.end_place(desk, InstructionOutcome::Failed, why);
        let left_ms = desk.answer_budget_ms();
        match (kind, desk.setup.urls.fallback.clone()) {
            (FetchKind::Answer, Some((url, method))) if left_ms > 0 => {
                desk.remark(format!("the answer URL failed: {why}; the fallback URL is asked"));
                let deadline_ms = desk.setup.limits.fetch_ms.min(left_ms);
                let params = params::common(desk, Event::StartApp);
                let fetch =
                    desk.fetch(FetchKind::Fallback, Target { url, method }, params, deadline_ms);
                self.running = Running::Fetching { fetch, kind: FetchKind::Fallback };
                Step::Busy
            }
            _ => {
                desk.remark(format!("the {} URL failed: {why}; the call ends", kind.as_str()));
                Step::End(cause)
            }
        }
    }

    pub(super) fn load(&mut self, desk: &mut Desk, gate: Gate, document: Arc<Document>) -> Step {
        self.documents = self.documents.saturating_add(1);
        desk.document_in = true;
        desk.findings(&document.warnings);
        self.document = Some(document);
        self.next = 0;
        self.inner = None;
        self.prepared = 0;
        self.keys.clear();
        self.after_hidden = false;
        self.took_time = false;
        self.left_by = None;
        self.walk(desk, gate)
    }

    /// Another document takes over by REST: what is being carried out ends at once (§4 rule 4).
    pub(crate) fn transferred(&mut self, desk: &mut Desk, target: Target) -> Step {
        self.dropped(desk);
        self.transfer(desk, FetchKind::Transfer, target, Params::new())
    }

    /// The same, with a document that came with the request.
    pub(crate) fn given(&mut self, desk: &mut Desk, gate: Gate, document: Arc<Document>) -> Step {
        self.dropped(desk);
        self.load(desk, gate, document)
    }

    /// A script whose first document is there already.
    pub(crate) fn with(desk: &mut Desk, gate: Gate, document: Arc<Document>) -> (Self, Step) {
        let mut script = Self::empty();
        let step = script.load(desk, gate, document);
        (script, step)
    }

    /// What is being carried out ends.
    pub(super) fn dropped(&mut self, desk: &mut Desk) {
        match std::mem::replace(&mut self.running, Running::Nothing) {
            Running::Nothing | Running::AtGate => {}
            Running::Fetching { fetch, .. } => {
                desk.cancel_fetch(fetch);
                self.owed = None;
            }
            Running::Playing { play, .. } => desk.media(MediaOrder::Stop { play }),
            // One that keeps the call alive ends with its element (§4 rule 4).
            Running::Streaming { stream } => {
                stream::stop(desk, Some(stream), stream::Stop::Api);
            }
            Running::Waiting { early: None } => desk.timers.clear(Timer::Wait),
            Running::Waiting { early: Some(early) } => early.stop(desk),
            Running::Collecting(mut collection) => {
                self.after_hidden = collection.hides_keys();
                collection.cut(desk);
            }
            // A leg that is not transferred is hung up.
            Running::Dialing(mut dialing) => dialing.transferred(desk),
            Running::Attending(mut attending) => attending.cut(desk),
            Running::Called(mut callee) => {
                callee.cut(desk, false);
                // It goes on as a call of its own.
                desk.news(LegNews::Ended { cause: HangupCause::ApiHangup });
            }
            Running::Recording(mut recording) => recording.cut(desk, RecordEnd::Stopped),
            Running::Naming { .. } => {}
            // In the background they go on.
            Running::SendingDigits { play } if self.tones == Some(play) => {}
            Running::SendingDigits { play } => desk.media(MediaOrder::Stop { play }),
        }
        self.end_place(desk, InstructionOutcome::Cut, "transferred");
    }

    /// Drops this document and asks for the next (§4 rule 4).
    pub(super) fn transfer(
        &mut self,
        desk: &mut Desk,
        kind: FetchKind,
        target: Target,
        extra: Params,
    ) -> Step {
        self.idle_documents =
            if self.took_time { 0 } else { self.idle_documents.saturating_add(1) };
        if self.idle_documents > IDLE_DOCUMENTS_MAX || self.documents >= DOCUMENTS_MAX {
            let what = if self.documents >= DOCUMENTS_MAX {
                format!("{DOCUMENTS_MAX} documents in one call")
            } else {
                format!("{} documents in a row in which nothing took time", self.idle_documents)
            };
            desk.remark(format!("{what}: the documents send the call in a circle, it ends"));
            self.end_place(desk, InstructionOutcome::Failed, "instruction loop");
            return Step::End(HangupCause::InstructionLoop);
        }
        let mut params = params::common(desk, Event::Redirect);
        params.extend(extra);
        let deadline_ms = desk.setup.limits.fetch_ms;
        let fetch = desk.fetch(kind, target, params, deadline_ms);
        self.running = Running::Fetching { fetch, kind };
        Step::Busy
    }
}

/// Which document a fetch is about: it picks the last digit of the cause's code.
fn document_kind(kind: FetchKind) -> DocumentKind {
    match kind {
        FetchKind::Answer | FetchKind::Fallback => DocumentKind::Answer,
        FetchKind::Action => DocumentKind::Action,
        FetchKind::Redirect => DocumentKind::Redirect,
        FetchKind::Transfer => DocumentKind::Transfer,
        // Never a document that runs.
        FetchKind::Sound => DocumentKind::Answer,
    }
}

/// `plivo-xml.md` §2.3: the first error names the code where it is a URL or method, else the document does.
fn refused_cause(first: FirstFault, kind: FetchKind) -> HangupCause {
    match first {
        FirstFault::ActionUrl => HangupCause::InvalidUrl(DocumentKind::Action),
        FirstFault::RedirectUrl => HangupCause::InvalidUrl(DocumentKind::Redirect),
        FirstFault::ActionMethod => HangupCause::InvalidMethod(DocumentKind::Action),
        FirstFault::RedirectMethod => HangupCause::InvalidMethod(DocumentKind::Redirect),
        FirstFault::Other => HangupCause::InvalidXml(document_kind(kind)),
    }
}
