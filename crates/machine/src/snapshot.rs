//! What a machine holds at a moment, in words, for people who step through a call: nothing decides by it.
//!
//! Always the same fields in the same order; one that has nothing to say is empty, so that what a step changed can be
//! seen. Each part of the machine draws what only it knows. Keys that must stay out of logs are `x` here, too.

use std::fmt::{self, Display, Formatter};

use crate::contract::CallTime;

/// A field of a machine and what it says: a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: &'static str,
    pub lines: Vec<Line>,
}

/// One thing that a field says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line(pub Vec<Segment>);

/// A part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// One of ours, of which a page may have its own.
    Word(&'static str),
    /// What came from outside, a name of the application's, a number.
    Text(String),
    /// A moment of the call.
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
        for (n, said) in self.0.iter().enumerate() {
            f.write_str(if n > 0 { " " } else { "" })?;
            said.fmt(f)?;
        }
        Ok(())
    }
}

/// The fields, in their order.
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

/// A picture being drawn.
pub(crate) struct SnapshotBuilder(Vec<Field>);

impl SnapshotBuilder {
    pub(crate) fn new() -> Self {
        Self(SNAPSHOT_FIELDS.iter().map(|name| Field { name, lines: Vec::new() }).collect())
    }

    /// The picture as it was drawn.
    pub(crate) fn fields(self) -> Vec<Field> {
        self.0
    }

    /// A line before all others of its field.
    pub(crate) fn say_first<const N: usize>(&mut self, name: &'static str, line: [Segment; N]) {
        self.insert(name, false, Line(line.into()));
    }

    /// One more line of a field.
    pub(crate) fn say<const N: usize>(&mut self, name: &'static str, line: [Segment; N]) {
        self.insert(name, true, Line(line.into()));
    }

    fn insert(&mut self, name: &str, last: bool, mut line: Line) {
        line.0.retain(|said| !matches!(said, Segment::Text(text) if text.is_empty()));
        let field = self.0.iter_mut().find(|field| field.name == name);
        debug_assert!(field.is_some(), "{name} is no field");
        if let Some(field) = field {
            let at = if last { field.lines.len() } else { 0 };
            field.lines.insert(at, line);
        }
    }
}

/// A word of ours.
pub(crate) fn word(word: &'static str) -> Segment {
    Segment::Word(word)
}

/// Anything else.
pub(crate) fn text(text: impl Display) -> Segment {
    Segment::Text(text.to_string())
}

/// The beginning of a long name.
pub(crate) fn brief(id: impl Display) -> String {
    id.to_string().chars().take(8).collect()
}
