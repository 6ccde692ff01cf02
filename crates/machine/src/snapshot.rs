//! The state of a machine in a form for display, as printed by `offhook replay`. It does not affect
//! decisions.
//!
//! A snapshot always has the same fields in the same order. A field may be empty. Each part of the
//! machine adds its own lines. Digits that must stay out of logs appear as `x`.

use std::fmt::{self, Display, Formatter};

use crate::contract::CallTime;

/// A field of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: &'static str,
    pub lines: Vec<Line>,
}

/// A line of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line(pub Vec<Segment>);

/// A part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// A fixed word, which a user interface may translate.
    Word(&'static str),
    /// A name, a number or other variable text.
    Text(String),
    /// A time of the call.
    At(CallTime),
}

impl Display for Segment {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => f.write_str(word),
            Self::Text(text) => f.write_str(text),
            Self::At(at) => write!(f, "{} ms", at.0),
        }
    }
}

impl Display for Line {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (n, segment) in self.0.iter().enumerate() {
            f.write_str(if n > 0 { " " } else { "" })?;
            segment.fmt(f)?;
        }
        Ok(())
    }
}

/// The names of all fields, in order.
pub const SNAPSHOT_FIELDS: [&str; 17] = [
    "state",
    "answered",
    "slot",
    "graph",
    "document",
    "instruction",
    "waits_for",
    "digits",
    "typed_ahead",
    "legs",
    "room",
    "stream",
    "recording",
    "beside",
    "hung_up",
    "ended",
    "timers",
];

/// A snapshot in progress.
pub(crate) struct SnapshotBuilder(Vec<Field>);

impl SnapshotBuilder {
    pub(crate) fn new() -> Self {
        Self(SNAPSHOT_FIELDS.iter().map(|name| Field { name, lines: Vec::new() }).collect())
    }

    /// Returns the fields.
    pub(crate) fn fields(self) -> Vec<Field> {
        self.0
    }

    /// Inserts a line at the beginning of a field.
    pub(crate) fn add_first<const N: usize>(&mut self, name: &'static str, line: [Segment; N]) {
        self.insert(name, false, Line(line.into()));
    }

    /// Appends a line to a field.
    pub(crate) fn add<const N: usize>(&mut self, name: &'static str, line: [Segment; N]) {
        self.insert(name, true, Line(line.into()));
    }

    fn insert(&mut self, name: &str, last: bool, mut line: Line) {
        line.0.retain(|segment| !matches!(segment, Segment::Text(text) if text.is_empty()));
        let field = self.0.iter_mut().find(|field| field.name == name);
        debug_assert!(field.is_some(), "{name} is no field");
        if let Some(field) = field {
            let at = if last { field.lines.len() } else { 0 };
            field.lines.insert(at, line);
        }
    }
}

/// Returns a segment with a fixed word.
pub(crate) fn word(word: &'static str) -> Segment {
    Segment::Word(word)
}

/// Returns a segment with variable text.
pub(crate) fn text(text: impl Display) -> Segment {
    Segment::Text(text.to_string())
}

/// Returns the first eight characters of an id.
pub(crate) fn brief(id: impl Display) -> String {
    id.to_string().chars().take(8).collect()
}
