//! Fetches a document and handles failures of the fetch (docs/reference/xml.md#refused-documents,
//! docs/reference/xml.md#how-a-document-runs).

use std::sync::Arc;

use crate::context::CallContext;
use crate::contract::display::foreign;
use crate::contract::{
    CallbackRequest, FetchFailure, FetchId, FetchKind, FetchResponse, FirstFault, Output, Params,
};
use crate::element::record;
use crate::params::{self, Event};
use crate::snapshot::{SnapshotBuilder, text, word};
use model::{DocumentKind, HangupCause};
use xml::Document;
use xml::ast::{Severity, Target};

/// A document that is being fetched.
pub(super) struct DocumentFetch {
    pub(super) fetch: FetchId,
    pub(super) kind: FetchKind,
    /// The action of a `Record`. It is repeated as a callback if the call ends before the document
    /// has been received.
    pub(super) repeat_after_hangup: Option<(Target, Params)>,
}

/// The reason why a call cannot run the fetched document.
pub(super) struct Failure {
    pub(super) cause: HangupCause,
    pub(super) reason: String,
}

impl DocumentFetch {
    /// Requests the document of the answer URL.
    pub(super) fn answer(ctx: &mut CallContext) -> Self {
        let urls = &ctx.setup.urls;
        let target = Target { url: urls.answer.clone(), method: urls.answer_method };
        let deadline_ms = ctx.setup.limits.fetch_ms.min(ctx.answer_budget_ms());
        Self::start_app(ctx, FetchKind::Answer, target, deadline_ms)
    }

    /// Requests the document of the fallback URL after the answer URL has failed. `None` if there
    /// is no fallback URL or no time is left.
    pub(super) fn fallback(&self, ctx: &mut CallContext, reason: &str) -> Option<Self> {
        let left_ms = ctx.answer_budget_ms();
        if self.kind != FetchKind::Answer || left_ms == 0 {
            return None;
        }
        let (url, method) = ctx.setup.urls.fallback.clone()?;
        ctx.remark(format!("the answer URL failed: {reason}; the fallback URL is asked"));
        let deadline_ms = ctx.setup.limits.fetch_ms.min(left_ms);
        Some(Self::start_app(ctx, FetchKind::Fallback, Target { url, method }, deadline_ms))
    }

    fn start_app(ctx: &mut CallContext, kind: FetchKind, target: Target, deadline_ms: u64) -> Self {
        let params = params::common(ctx, Event::StartApp);
        let fetch = ctx.fetch(kind, target, params, deadline_ms);
        Self { fetch, kind, repeat_after_hangup: None }
    }

    /// Returns the fetched document.
    ///
    /// # Errors
    ///
    /// Fails if no document was received, or if it was refused. Outputs the findings of a refused
    /// document.
    pub(super) fn document(
        &self,
        ctx: &mut CallContext,
        result: Result<FetchResponse, FetchFailure>,
    ) -> Result<Arc<Document>, Failure> {
        let kind = document_kind(self.kind);
        match result {
            Ok(FetchResponse::Document { document }) => Ok(document),
            Ok(FetchResponse::Refused { refusal }) => {
                ctx.findings(&refusal.findings);
                let first = refusal.findings.iter().find(|f| f.severity == Severity::Error);
                let reason = first.map_or_else(
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
                Err(Failure { cause: refused_cause(refusal.first, kind), reason })
            }
            Ok(FetchResponse::Ignored) => Err(Failure {
                cause: HangupCause::Unreachable(kind),
                reason: "no document came back".to_owned(),
            }),
            Err(failure) => {
                let cause = match failure {
                    // A body that exceeds the limit counts as a refused document (E101).
                    FetchFailure::TooLarge => HangupCause::InvalidXml(kind),
                    FetchFailure::Timeout
                    | FetchFailure::Handshake
                    | FetchFailure::Unreachable { .. }
                    | FetchFailure::Status { .. }
                    | FetchFailure::UrlRefused { .. }
                    | FetchFailure::Invalid { .. } => HangupCause::Unreachable(kind),
                };
                Err(Failure { cause, reason: failure.to_string() })
            }
        }
    }

    /// Cancels the fetch at the end of the call.
    pub(super) fn abandon(self, ctx: &mut CallContext) {
        ctx.emit(Output::CancelFetch { fetch: self.fetch });
        if let Some((target, extra)) = self.repeat_after_hangup {
            let mut callback: CallbackRequest = record::after_hangup(ctx, &target);
            callback.params.extend(extra);
            ctx.emit(Output::Callback { callback });
        }
    }

    pub(super) fn write_snapshot(&self, snapshot: &mut SnapshotBuilder) {
        snapshot.add("waits_for", [word("fetch"), text(self.fetch.0), text(self.kind.as_str())]);
    }
}

/// Returns the kind of the fetched document, which determines the last digit of the cause's code.
fn document_kind(kind: FetchKind) -> DocumentKind {
    match kind {
        FetchKind::Answer | FetchKind::Fallback => DocumentKind::Answer,
        FetchKind::Action => DocumentKind::Action,
        FetchKind::Redirect => DocumentKind::Redirect,
        FetchKind::Transfer => DocumentKind::Transfer,
        // Documents of this kind do not run.
        FetchKind::Sound => DocumentKind::Answer,
    }
}

/// Returns the cause for a refused document. If its first error is a URL or a method, that
/// determines the cause. Otherwise the kind of document does
/// (docs/reference/xml.md#refused-documents).
fn refused_cause(first: FirstFault, kind: DocumentKind) -> HangupCause {
    match first {
        FirstFault::ActionUrl => HangupCause::InvalidUrl(DocumentKind::Action),
        FirstFault::RedirectUrl => HangupCause::InvalidUrl(DocumentKind::Redirect),
        FirstFault::ActionMethod => HangupCause::InvalidMethod(DocumentKind::Action),
        FirstFault::RedirectMethod => HangupCause::InvalidMethod(DocumentKind::Redirect),
        FirstFault::Other => HangupCause::InvalidXml(kind),
    }
}
