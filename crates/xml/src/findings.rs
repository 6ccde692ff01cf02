//! Collects findings in the order of the checks, up to a limit.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::ast::{Finding, Position, Severity};
use super::rules::{self, Rule};

/// Maximum number of findings kept for one document, equal to the maximum number of elements.
/// Further findings are only counted, which bounds the memory that a hostile document can use.
pub(super) const MAX_FINDINGS: usize = 2_000;

/// The subject of the first error of a refused document. It determines the hangup cause of the call
/// (docs/reference/xml.md#refused-documents).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstFault {
    /// E311 at an `action` attribute.
    ActionUrl,
    /// E311 at the body of `Redirect`.
    RedirectUrl,
    /// E312 at a `method` attribute next to an `action`.
    ActionMethod,
    /// E312 at the `method` of `Redirect`.
    RedirectMethod,
    /// Any other error.
    Other,
}

/// The findings about one document.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) kept: Vec<Finding>,
    /// The number of findings beyond [`MAX_FINDINGS`].
    pub(super) omitted: usize,
    /// The subject of the first error. `None` before there is one.
    pub(super) first_fault: Option<FirstFault>,
}

impl Findings {
    pub(super) fn add(
        &mut self,
        rule: Rule,
        at: Position,
        message: impl Into<String>,
        hint: impl Into<Cow<'static, str>>,
    ) {
        self.add_fault(rule, at, message, hint, FirstFault::Other);
    }

    pub(super) fn add_fault(
        &mut self,
        rule: Rule,
        at: Position,
        message: impl Into<String>,
        hint: impl Into<Cow<'static, str>>,
        fault: FirstFault,
    ) {
        let severity = rule.severity();
        let first_error = severity == Severity::Error && self.first_fault.is_none();
        if first_error {
            self.first_fault = Some(fault);
        }
        // The first error is always kept, because it is the reason for the refusal.
        if self.is_full() && !first_error {
            self.omitted += 1;
            return;
        }
        let hint = hint.into().into_owned();
        self.kept.push(Finding {
            rule: rule.id.to_owned(),
            severity,
            at,
            message: message.into(),
            hint,
        });
    }

    /// Whether the limit is reached, so that a message for a further warning need not be formatted.
    pub(super) fn is_full(&self) -> bool {
        self.kept.len() >= MAX_FINDINGS
    }
}

/// Formats document text for a message: quoted, escaped and shortened.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", shortened(text))
}

/// Formats document text for a message: escaped, and shortened to 60 characters.
pub(super) fn shortened(text: &str) -> String {
    const MAX_CHARS: usize = 60;
    let mut chars = text.chars();
    let mut out = String::new();
    for c in chars.by_ref().take(MAX_CHARS) {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    if chars.next().is_some() {
        out.push('…');
    }
    out
}

/// A problem with a value. It becomes a finding once its position is known.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) rule: Rule,
    /// Continues a sentence that begins with the value, such as `is not a whole number`.
    pub(super) predicate: Cow<'static, str>,
    pub(super) hint: Cow<'static, str>,
}

impl Problem {
    /// Creates a problem in a box, which keeps the `Result` of values without a problem small.
    pub(super) fn new(
        rule: Rule,
        predicate: impl Into<Cow<'static, str>>,
        hint: impl Into<Cow<'static, str>>,
    ) -> Box<Self> {
        Box::new(Self { rule, predicate: predicate.into(), hint: hint.into() })
    }

    /// Creates a problem of rule E301.
    pub(super) fn invalid(
        predicate: impl Into<Cow<'static, str>>,
        hint: impl Into<Cow<'static, str>>,
    ) -> Box<Self> {
        Self::new(rules::E301, predicate, hint)
    }
}
