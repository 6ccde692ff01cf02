//! What is wrong with a configuration, said so that it can be put right: file, line, column, the line itself with
//! a caret, and what to write instead.
//!
//! The line may hold secrets (R22). So quoted text outside the marked part, comments, and everything after the
//! `=` of a key that sounds like a secret are shown as `…`.

use std::fmt;
use std::ops::Range;

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Bytes of the file.
    Span(Range<usize>),
    /// An environment variable.
    Env(String),
    /// Nowhere: it is missing.
    File,
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) at: Place,
    pub(super) message: String,
    pub(super) hint: String,
    /// The line is no TOML: what is key, value or quoted in it is anybody's guess.
    unparsed: bool,
}

impl Fault {
    pub(super) fn new(at: Place, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { at, message: message.into(), hint: hint.into(), unparsed: false }
    }

    /// A fault of the parser's.
    pub(super) fn unparsed(at: Place, message: impl Into<String>) -> Self {
        Self { unparsed: true, ..Self::new(at, message, "see https://toml.io") }
    }

    /// Where it comes among others: by its place in the file, what has none last.
    pub(super) fn order(&self) -> usize {
        match &self.at {
            Place::Span(span) => span.start,
            Place::Env(_) | Place::File => usize::MAX,
        }
    }
}

/// One thing that is wrong, ready to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// File name, or the environment variable.
    pub source: String,
    /// Line and column from 1, where it stands in the file.
    pub position: Option<(usize, usize)>,
    /// What is wrong.
    pub message: String,
    /// What to write instead; may be empty.
    pub hint: String,
    /// The line, secrets masked, and the columns (from 0) of the marked part in it.
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

/// Longest excerpt, in characters.
const EXCERPT: usize = 140;

/// Line and column of a span, and its line to show with the columns of the mark.
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

fn floor(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The line as it may be shown, and the mark's columns in it.
fn masked(line: &str, mark: Range<usize>, unparsed: bool) -> (String, Range<usize>) {
    let hide_from = hidden_from(line, unparsed);
    let (mut shown, mut count, mut columns) = (String::new(), 0, None);
    let (mut quote, mut escaped, mut comment, mut hiding) = (None, false, false, false);
    for (at, c) in line.char_indices() {
        if count >= EXCERPT && at >= mark.end {
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
        if count < EXCERPT && !(hidden && hiding) {
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

/// From which byte on a line is not shown whatever it is: the value of a key that sounds like a secret, a table
/// (secrets have that form), a URL with somebody's name in it, or a line that is neither a key nor a header, such as
/// one of a text over several lines.
fn hidden_from(line: &str, unparsed: bool) -> usize {
    if unparsed {
        // A slip of the pen can hide that a key is a secret's, or make a key of a secret.
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
    let secretive = ["secret", "token", "password", "key"].iter().any(|word| key.contains(word));
    let said = value.trim_start_matches('=').trim_start();
    let table = said.starts_with('{');
    // An `@`: what stands before it in a URL may be a password.
    if secretive
        || table
        || value.contains('@')
        || value.contains("\"\"\"")
        || value.contains("'''")
    {
        return line.len() - said.len();
    }
    line.len()
}
