//! The declarations of keys and sections, as the reference lists them.

/// The value of a key that the file does not set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fallback {
    /// The key must be set.
    Required,
    /// A default, in TOML.
    Value(String),
    /// No value. The text describes the behaviour without one and may be empty.
    Absent(&'static str),
}

/// A key in the reference.
#[derive(Clone, Debug)]
pub(super) struct KeyReference {
    pub(super) name: &'static str,
    /// The type of the value.
    pub(super) kind: String,
    pub(super) fallback: Fallback,
    pub(super) doc: &'static str,
    /// Whether a change takes effect only with a restart.
    pub(super) restart: bool,
}

impl KeyReference {
    /// Creates a key whose changes a reload applies.
    pub(super) fn new(
        name: &'static str,
        kind: impl Into<String>,
        fallback: Fallback,
        doc: &'static str,
    ) -> Self {
        Self { name, kind: kind.into(), fallback, doc, restart: false }
    }

    /// The word in the column `reload`.
    pub(super) fn reload(&self) -> &'static str {
        if self.restart { "restart" } else { "yes" }
    }
}

/// A table of the file in the reference.
#[derive(Clone, Debug)]
pub(super) struct SectionReference {
    /// The table's name with its brackets: `[listen]`, `[[account]]`.
    pub(super) title: String,
    pub(super) doc: &'static str,
    pub(super) keys: Vec<KeyReference>,
}

impl SectionReference {
    pub(super) fn new(title: String, doc: &'static str) -> Self {
        Self { title, doc, keys: Vec::new() }
    }
}
