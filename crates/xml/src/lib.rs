//! The customer's document: bytes in, a typed [`Document`] and [`Finding`]s with positions out.
//!
//! One validator for the linter, the API and the call machine (`plivo-xml.md` §2). Pure: no IO, no clock; any
//! bytes at all are parsed or refused in bounded time and memory (R18). What an element *does* is the
//! business of `call::machine`.
//!
//! The way of a body: `decode` (bytes to text) → `tree` (well-formed XML, with `grammar`) → `lint` (elements, with
//! `attributes` and `value`) → [`ast`]. [`mod@write`] goes back.

// Bytes from outside must not make the process panic: where one of these is needed, an `allow` gives the reason.
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

mod abilities;
pub mod ast;
mod attributes;
mod callers;
mod decode;
pub mod explain;
mod findings;
mod grammar;
mod lint;
mod place;
pub mod rules;
#[cfg(test)]
mod tests;
mod tree;
mod value;
pub mod write;

pub use abilities::{Abilities, beyond, unheard};
pub use ast::Document;
pub use callers::own_callers;
pub use findings::FirstFault;
pub use place::line_at;
pub use value::CLASSIC_LANGUAGES;

use std::sync::Arc;

use ast::{Finding, Position};
use findings::{Findings, quoted, shortened};
use rules::Rule;

/// Largest body, in bytes: the linter's limit, and the default of `[answer].max_body_bytes` (L1).
pub const MAX_BODY: usize = 102_400;

/// What the validator makes of a body.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The typed document; `None` where a finding is an error.
    pub document: Option<Arc<Document>>,
    /// All findings, in document order (that is: elements in theirs, within one in the order of checks). At most
    /// 2,000 and the first error; [`Parsed::omitted`] counts the others.
    pub findings: Vec<Finding>,
    /// Findings beyond the 2,000 kept.
    pub omitted: usize,
    /// The decoded text; `None` where it was not decoded (E101, E102).
    pub source: Option<Arc<str>>,
    /// What the first error concerns (`plivo-xml.md` §2.3); `None` without one.
    pub first_fault: Option<FirstFault>,
}

impl Parsed {
    /// No error: the document runs.
    pub fn ok(&self) -> bool {
        self.document.is_some()
    }

    /// What is made of a body that is too large to be read to its end: E101.
    pub fn too_large(max_bytes: usize) -> Self {
        Self::refused(
            rules::E101,
            place::START,
            format!("the body is larger than {max_bytes} bytes"),
            "send less: a document can hand over to a next one (Redirect)",
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
}

/// Validates a body completely (`plivo-xml.md` §1–§3) and types it. `charset` is the `Content-Type` parameter.
pub fn parse(body: &[u8], charset: Option<&str>) -> Parsed {
    parse_with_limit(body, charset, MAX_BODY)
}

/// [`parse`] with another limit on the size than 102,400 bytes (`[answer].max_body_bytes`).
pub fn parse_with_limit(body: &[u8], charset: Option<&str>, max_bytes: usize) -> Parsed {
    if body.len() > max_bytes {
        return Parsed::too_large(max_bytes);
    }
    match decode::decode(body, charset) {
        Ok(text) => parse_text(text.into()),
        Err(decode::Undecodable { at, message, hint }) => {
            Parsed::refused(rules::E102, at, message, hint)
        }
    }
}

/// What follows decoding. The declared encoding plays no part any more.
fn parse_text(text: Arc<str>) -> Parsed {
    let tree = match tree::read(&text) {
        Ok(tree) => tree,
        Err(tree::Fatal { rule, at, message, hint }) => {
            let refused = Parsed::refused(rule, at, message, hint);
            return Parsed { source: Some(text), ..refused };
        }
    };
    let mut findings = Findings::default();
    let elements = tree.root().map(|root| lint::document(&root, &mut findings)).unwrap_or_default();
    drop(tree);
    let Findings { kept, omitted, first_fault } = findings;
    let document = first_fault.is_none().then(|| {
        Arc::new(Document { source: Arc::clone(&text), elements, warnings: kept.clone() })
    });
    Parsed { document, findings: kept, omitted, source: Some(text), first_fault }
}

/// Whether two names are the same: nearly all that are not differ in length or first letter.
fn is_same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.as_bytes().first() == b.as_bytes().first() && a == b
}

/// Whether any byte fits. Looks at every one of them without a branch, which is faster than to stop at the first.
fn any_byte(text: &str, fits: impl Fn(u8) -> bool) -> bool {
    text.bytes().fold(false, |any, b| any | fits(b))
}

/// The object of `xml check --json` and of `POST /api/v1/xml/check` (`interface.md` §1).
#[derive(Clone, Copy, Debug, serde::Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = XmlReport))]
pub struct Report<'p> {
    pub file: &'p str,
    /// No error.
    pub ok: bool,
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Finding>))]
    pub findings: &'p [Finding],
}

/// What is reported of a body; `file` is its name.
pub fn report<'p>(file: &'p str, parsed: &'p Parsed) -> Report<'p> {
    Report { file, ok: parsed.ok(), findings: &parsed.findings }
}

impl serde::Serialize for Document {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.source)
    }
}

impl<'de> serde::Deserialize<'de> for Document {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        // The text has been decoded once: neither its size then nor the encoding it declares matter now.
        let parsed = parse_text(String::deserialize(d)?.into());
        parsed
            .document
            .map(Arc::unwrap_or_clone)
            .ok_or_else(|| serde::de::Error::custom("the logged document does not parse"))
    }
}
