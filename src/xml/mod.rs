//! The customer's document: bytes in, a typed [`Document`] and [`Finding`]s with positions out.
//!
//! One validator for the linter, the API and the call machine (`plivo-xml.md` §2). Pure: no IO, no clock; any
//! bytes at all are parsed or refused in bounded time and memory (R18). What an element *does* is the
//! business of `call::machine`.

pub mod ast;

pub use ast::Document;

use std::sync::Arc;

use ast::Finding;

/// What the validator makes of a body.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The typed document; `None` where a finding is an error.
    pub document: Option<Arc<Document>>,
    /// All findings, in document order.
    pub findings: Vec<Finding>,
}

impl serde::Serialize for Document {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.source)
    }
}

impl<'de> serde::Deserialize<'de> for Document {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let source = String::deserialize(d)?;
        let parsed = parse(source.as_bytes(), None);
        parsed
            .document
            .map(|document| Document::clone(&document))
            .ok_or_else(|| serde::de::Error::custom("the logged document does not parse"))
    }
}

/// Validates a body completely (`plivo-xml.md` §1–§3) and types it. `charset` is the `Content-Type` parameter.
pub fn parse(_body: &[u8], _charset: Option<&str>) -> Parsed {
    todo!("room xml")
}
