//! Where findings gather: in the order of checks (`plivo-xml.md` §2.2), and not without end.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::ast::{Finding, Position, Severity};
use super::rules::{self, Rule};

/// Findings kept of one document. As many as a document may have elements; what goes beyond is counted, so that a
/// hostile one stays within its 4 MiB (R18).
pub(super) const MAX_FINDINGS: usize = 2_000;

/// What the first error of a refused document concerns: it decides the hangup cause (`plivo-xml.md` §2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstFault {
    /// E311 on an `action` attribute.
    ActionUrl,
    /// E311 on the body of `Redirect`.
    RedirectUrl,
    /// E312 on a `method` beside an `action`.
    ActionMethod,
    /// E312 on `Redirect`.
    RedirectMethod,
    Other,
}

/// Collects findings.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) kept: Vec<Finding>,
    /// Findings beyond [`MAX_FINDINGS`].
    pub(super) omitted: usize,
    /// Set by the first error.
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
        // The first error is what refuses the document: whoever is told of the refusal is told of it.
        if self.full() && !first_error {
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

    /// Whether anything but a first error would be dropped: no need to find words for it.
    pub(super) fn full(&self) -> bool {
        self.kept.len() >= MAX_FINDINGS
    }
}

/// Text of a document in a message: in quotes, escaped, cut.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", shortened(text))
}

/// Text of a document in a message: escaped, cut to 60 characters.
pub(super) fn shortened(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut chars = text.chars();
    let mut out = String::new();
    for c in chars.by_ref().take(SHOWN) {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    if chars.next().is_some() {
        out.push('…');
    }
    out
}

/// A value's findings before it is known where it stands.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) rule: Rule,
    /// Reads on after the value: `is not a whole number`.
    pub(super) what: Cow<'static, str>,
    pub(super) hint: Cow<'static, str>,
}

impl Note {
    /// Boxed, since hardly any value has one: a value without is handed on cheaply.
    pub(super) fn new(
        rule: Rule,
        what: impl Into<Cow<'static, str>>,
        hint: impl Into<Cow<'static, str>>,
    ) -> Box<Self> {
        Box::new(Self { rule, what: what.into(), hint: hint.into() })
    }

    /// E301.
    pub(super) fn bad(
        what: impl Into<Cow<'static, str>>,
        hint: impl Into<Cow<'static, str>>,
    ) -> Box<Self> {
        Self::new(rules::E301, what, hint)
    }
}
