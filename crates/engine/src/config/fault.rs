//! Faults of a configuration and their display: file, line, column, the line itself with a caret,
//! and a suggested replacement.
//!
//! The line may contain secrets. Therefore quoted text outside the marked part, comments, and
//! everything after the `=` of a key that sounds like a secret are shown as `…`.

use std::fmt;
use std::ops::Range;

/// The place of a key or a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A range of bytes in the file.
    Span(Range<usize>),
    /// An environment variable.
    Env(String),
    /// The whole file, if something is missing in it.
    File,
}

/// One fault, before it is located in the text.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) at: Place,
    pub(super) message: String,
    pub(super) hint: String,
    /// Whether the line could not be parsed as TOML. Keys, values and quotes in it cannot be
    /// distinguished then.
    unparsed: bool,
}

impl Fault {
    pub(super) fn new(at: Place, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { at, message: message.into(), hint: hint.into(), unparsed: false }
    }

    /// Creates a fault that the TOML parser found.
    pub(super) fn unparsed(at: Place, message: impl Into<String>) -> Self {
        Self { unparsed: true, ..Self::new(at, message, "see https://toml.io") }
    }

    /// Returns the sort key of the report: the place in the file. Faults without a place come last.
    pub(super) fn order(&self) -> usize {
        match &self.at {
            Place::Span(span) => span.start,
            Place::Env(_) | Place::File => usize::MAX,
        }
    }
}

/// A fault of a configuration, ready to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The name of the file or the environment variable.
    pub source: String,
    /// Line and column, from 1. `None` if the fault is in the environment or something is
    /// missing.
    pub position: Option<(usize, usize)>,
    pub message: String,
    /// A suggested replacement. May be empty.
    pub hint: String,
    /// The line with its secrets masked, and the columns of the marked part, from 0.
    excerpt: Option<(String, Range<usize>)>,
}

impl Problem {
    pub(super) fn locate(fault: Fault, file: &str, text: &str) -> Self {
        let Fault { at, message, hint, unparsed } = fault;
        let (source, position, excerpt) = match at {
            Place::Env(name) => (name, None, None),
            Place::File => (file.to_owned(), None, None),
            Place::Span(span) => {
                let (line, column, excerpt) = excerpt(text, span, unparsed);
                (file.to_owned(), Some((line, column)), Some(excerpt))
            }
        };
        Self { source, position, message, hint, excerpt }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source)?;
        if let Some((line, column)) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)?;
        match (&self.excerpt, self.position) {
            (Some((text, mark)), Some((line, _))) => {
                let number = line.to_string();
                let gutter = " ".repeat(number.len());
                let (before, carets) = (" ".repeat(mark.start), "^".repeat(mark.len().max(1)));
                write!(f, "\n  {number} | {text}\n  {gutter} | {before}{carets} {}", self.hint)
            }
            _ if self.hint.is_empty() => Ok(()),
            _ => write!(f, " ({})", self.hint),
        }
    }
}

/// Maximum length of an excerpt, in characters.
const EXCERPT_MAX: usize = 140;

/// The line and column of a span, and its masked line with the columns of the mark.
fn excerpt(
    text: &str,
    span: Range<usize>,
    unparsed: bool,
) -> (usize, usize, (String, Range<usize>)) {
    let start = floor(text, span.start);
    let part = |range: Range<usize>| text.get(range).unwrap_or_default();
    let line_start = part(0..start).rfind('\n').map_or(0, |i| i + 1);
    let line_end = part(start..text.len()).find('\n').map_or(text.len(), |i| start + i);
    let end = floor(text, span.end).clamp(start, line_end);
    let number = part(0..line_start).matches('\n').count() + 1;
    let column = part(line_start..start).chars().count() + 1;

    let line = part(line_start..line_end).trim_end_matches('\r');
    let mark = start - line_start..(end - line_start).min(line.len()).max(start - line_start);
    (number, column, masked(line, mark, unparsed))
}

/// Returns the character boundary at or before `at`.
fn floor(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Masks the secrets of a line. Returns the line and the columns of the mark in it.
fn masked(line: &str, mark: Range<usize>, unparsed: bool) -> (String, Range<usize>) {
    let hide_from = hidden_from(line, unparsed);
    let (mut shown, mut count, mut columns) = (String::new(), 0, None);
    let (mut quote, mut escaped, mut comment, mut hiding) = (None, false, false, false);
    for (at, c) in line.char_indices() {
        if count >= EXCERPT_MAX && at >= mark.end {
            break;
        }
        let was_quoted = quote.is_some();
        match quote {
            Some(q) if c == q && !escaped => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(_) | None => {}
        }
        escaped = quote == Some('"') && c == '\\' && !escaped;
        comment |= !was_quoted && c == '#';
        let marked = mark.contains(&at);
        let hidden = at >= hide_from || (!marked && (comment || (was_quoted && quote.is_some())));

        let before = count;
        if count < EXCERPT_MAX && !(hidden && hiding) {
            shown.push(if hidden {
                '…'
            } else if c.is_control() {
                ' '
            } else {
                c
            });
            count += 1;
        }
        hiding = hidden;
        if marked {
            columns = Some(columns.map_or(before, |r: Range<usize>| r.start)..count);
        }
    }
    (shown, columns.unwrap_or(count..count + 1))
}

/// Returns the byte from which a line is masked: the value of a key that sounds like a secret, of a
/// table (secrets may have that form) or of a URL with user and password, and all of a line that is
/// neither a key nor a header, such as a line of a multi-line string.
fn hidden_from(line: &str, unparsed: bool) -> usize {
    if unparsed {
        // A typing error can garble the name of a secret's key, or turn a secret into a key.
        let header = line.trim_start().starts_with('[');
        return match line.find(['=', '"', '\'']) {
            Some(at) if header || line.get(at..).is_some_and(|rest| rest.starts_with('=')) => at,
            None if header => line.len(),
            _ => 0,
        };
    }
    let Some(equals) = line.find('=') else {
        return if line.trim_start().starts_with('[') { line.len() } else { 0 };
    };
    let (key, value) = line.split_at(equals);
    let key = key.to_lowercase();
    let is_secret = ["secret", "token", "password", "key"].iter().any(|word| key.contains(word));
    let text = value.trim_start_matches('=').trim_start();
    let is_table = text.starts_with('{');
    // The part of a URL before an `@` may hold a password.
    if is_secret
        || is_table
        || value.contains('@')
        || value.contains("\"\"\"")
        || value.contains("'''")
    {
        return line.len() - text.len();
    }
    line.len()
}
