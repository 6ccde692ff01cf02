//! Parses and validates call-control XML: [`parse`] turns the bytes of a customer's response into a
//! typed [`Document`] and a list of [`Finding`]s with positions.
//!
//! The linter, the API and the call machine share this validator
//! (docs/reference/xml.md#validation). It performs no I/O, and any input is parsed or refused in
//! bounded time and memory (docs/reference/reliability.md#r18). The `machine` crate runs the
//! elements.
//!
//! A body passes through `decode` (bytes to text), `tree` (well-formed XML, with `grammar` and
//! `names`) and `lint` (typed elements, with `attributes` and `value`), which produces [`ast`].
//! [`mod@write`] is the reverse.

// Input from the network must never cause a panic. Every `allow` of these lints states a reason.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::as_conversions
    )
)]
#![forbid(unsafe_code)]

pub mod ast;
mod attributes;
mod caller_ids;
mod capabilities;
mod decode;
pub mod explain;
mod findings;
mod grammar;
mod lint;
mod names;
mod position;
pub mod rules;
pub mod sip;
#[cfg(test)]
mod tests;
mod tree;
mod value;
pub mod write;

pub use ast::Document;
pub use caller_ids::check_caller_ids;
pub use capabilities::{EngineCapabilities, check_capabilities, unrecognised_language};
pub use findings::FirstFault;
pub use position::line_at;
pub use value::CLASSIC_LANGUAGES;

use std::sync::Arc;

use ast::{Finding, Position};
use findings::{Findings, quoted, shortened};
use rules::Rule;

/// Maximum size of a body, in bytes: the limit of the linter and the default of
/// `answer.max_body_bytes`.
pub const MAX_BODY: usize = 102_400;

/// The result of parsing and validating a body.
#[derive(Clone, Debug)]
pub struct ParseOutcome {
    /// The typed document. `None` if a finding is an error.
    pub document: Option<Arc<Document>>,
    /// Findings in document order; those of one element are in the order of the checks. Limited to
    /// 2,000, plus the first error if it comes later.
    pub findings: Vec<Finding>,
    /// The number of findings that were dropped because of the limit.
    pub omitted: usize,
    /// The decoded text. `None` if the body could not be decoded or is too large (E101, E102).
    pub source: Option<Arc<str>>,
    /// The subject of the first error. `None` if the document is valid.
    pub first_fault: Option<FirstFault>,
}

impl ParseOutcome {
    /// Whether the document has no error and can run.
    pub fn is_ok(&self) -> bool {
        self.document.is_some()
    }

    /// Creates the outcome for a body that exceeds `max_bytes` (E101). The rest of the body is not
    /// needed.
    pub fn too_large(max_bytes: usize) -> Self {
        Self::refused(
            rules::E101,
            position::START,
            format!("the body is larger than {max_bytes} bytes"),
            "send a smaller document; Redirect can continue in another one",
        )
    }

    fn refused(rule: Rule, at: Position, message: String, hint: &'static str) -> Self {
        let mut findings = Findings::default();
        findings.add(rule, at, message, hint);
        Self {
            document: None,
            findings: findings.kept,
            omitted: 0,
            source: None,
            first_fault: findings.first_fault,
        }
    }

    /// Removes W311, for a node that requests URLs without encryption (`answer.allow_insecure`).
    /// The document keeps the finding, because a call filters its findings itself.
    pub fn allow_plain_urls(mut self) -> Self {
        self.findings.retain(|finding| !finding.is_plain_url());
        self
    }

    /// Removes W403 for addresses at a host of the node, which is that of `public.base_url`.
    pub fn allow_sip_host(mut self, own: &str) -> Self {
        if let Some(document) = &self.document {
            document.allow_sip_host(&mut self.findings, own);
        }
        self
    }

    /// Inserts a finding in document order.
    fn insert(&mut self, finding: Finding) {
        let index =
            self.findings.iter().position(|f| f.at > finding.at).unwrap_or(self.findings.len());
        self.findings.insert(index, finding);
    }
}

/// Parses and validates a body. `charset` is the parameter of its `Content-Type`, if any.
pub fn parse(body: &[u8], charset: Option<&str>) -> ParseOutcome {
    parse_with_limit(body, charset, MAX_BODY)
}

/// Like [`parse`], with a size limit other than [`MAX_BODY`].
pub fn parse_with_limit(body: &[u8], charset: Option<&str>, max_bytes: usize) -> ParseOutcome {
    if body.len() > max_bytes {
        return ParseOutcome::too_large(max_bytes);
    }
    match decode::decode(body, charset) {
        Ok(text) => parse_text(text.into()),
        Err(decode::DecodeError { at, message, hint }) => {
            ParseOutcome::refused(rules::E102, at, message, hint)
        }
    }
}

/// Parses decoded text. Ignores the encoding that the XML declaration names.
fn parse_text(text: Arc<str>) -> ParseOutcome {
    let tree = match tree::parse(&text) {
        Ok(tree) => tree,
        Err(tree::SyntaxError { rule, at, message, hint }) => {
            let refused = ParseOutcome::refused(rule, at, message, hint);
            return ParseOutcome { source: Some(text), ..refused };
        }
    };
    let mut findings = Findings::default();
    let elements = tree.root().map(|root| lint::document(&root, &mut findings)).unwrap_or_default();
    drop(tree);
    let Findings { kept, omitted, first_fault } = findings;
    let document = first_fault.is_none().then(|| {
        let warnings = kept.iter().take(Document::MAX_WARNINGS).cloned().collect();
        Arc::new(Document { source: Arc::clone(&text), elements, warnings })
    });
    ParseOutcome { document, findings: kept, omitted, source: Some(text), first_fault }
}

/// Whether any byte satisfies the predicate. Tests all bytes without branching, which vectorizes
/// and is faster than stopping at the first match.
fn any_byte(text: &str, predicate: impl Fn(u8) -> bool) -> bool {
    text.bytes().fold(false, |any, b| any | predicate(b))
}

/// The findings about a document, as printed by `offhook xml check --json` and returned by
/// `POST /api/v1/xml/check`.
#[derive(Clone, Copy, Debug, serde::Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = XmlReport))]
pub struct Report<'p> {
    /// The name of the document, such as a file name or URL.
    pub file: &'p str,
    /// Whether the document has no error.
    pub ok: bool,
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Finding>))]
    pub findings: &'p [Finding],
}

/// Creates the report about a document. `file` is its name.
pub fn report<'p>(file: &'p str, outcome: &'p ParseOutcome) -> Report<'p> {
    Report { file, ok: outcome.is_ok(), findings: &outcome.findings }
}

impl serde::Serialize for Document {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.source)
    }
}

impl<'de> serde::Deserialize<'de> for Document {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        // The source is already decoded, so the size limit and the declared encoding no longer
        // apply.
        let outcome = parse_text(String::deserialize(d)?.into());
        outcome
            .document
            .map(Arc::unwrap_or_clone)
            .ok_or_else(|| serde::de::Error::custom("logged document is not valid"))
    }
}
