//! The format of event logs.
//!
//! A log is a text file with a JSON object on each line: a [`Header`], then an [`Entry`] for each
//! input with the outputs that followed. Lines of the trace may appear between entries, and a
//! replay ignores them.
//!
//! Lines are read up to [`LINE_BYTES_MAX`], since a log may come from an untrusted source.

use std::io::{self, BufRead, Read as _};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::contract::{CallTime, Input, Output};
use model::{CallUuid, TraceId};

/// The longest line that is read, in bytes.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// The first line of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the program that wrote the log.
    pub offhook: String,
    pub call: CallUuid,
    /// The trace id, which requests to the customer's server carry in `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<TraceId>,
}

impl Header {
    /// Returns the header that this version writes.
    pub fn of(call: CallUuid) -> Self {
        Self { offhook: env!("CARGO_PKG_VERSION").to_owned(), call, trace_id: Some(call.into()) }
    }
}

/// An input and the outputs that followed.
///
/// The outputs are kept as JSON, because a replay compares them in this form.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Entry {
    pub at: CallTime,
    pub input: Input,
    pub outputs: Vec<Value>,
}

/// The reason why a log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("could not read the event log: {0}")]
    Read(io::Error),
    #[error("could not read line {line}: it is longer than {LINE_BYTES_MAX} bytes")]
    TooLong { line: u64 },
    #[error("could not read line {line}, column {column}: {message}")]
    Malformed { line: u64, column: usize, message: String },
    /// The last line has no line break and is incomplete. The writer was killed, the disk was full,
    /// or the file was copied in part.
    #[error("could not read line {line}: the last line is incomplete")]
    Cut { line: u64 },
    #[error("could not find the header: the log is empty")]
    Empty,
    #[error("could not serialize a line: {0}")]
    Write(serde_json::Error),
}

/// Returns the line of a header, with its line break.
///
/// # Errors
///
/// Fails if the header cannot be serialized, which does not happen.
pub fn header_line(header: &Header) -> Result<String, LogError> {
    line_of(header)
}

/// Returns the line of an entry, with its line break. `input` is the result of
/// [`Machine::loggable`](crate::Machine::loggable).
///
/// # Errors
///
/// Fails if the entry cannot be serialized, which does not happen.
pub fn entry_line(at: CallTime, input: &Input, outputs: &[Output]) -> Result<String, LogError> {
    #[derive(Serialize)]
    struct Line<'a> {
        at: CallTime,
        input: &'a Input,
        outputs: &'a [Output],
    }
    line_of(&Line { at, input, outputs })
}

/// Returns a line of the trace, with its line break.
///
/// # Errors
///
/// Fails if `trace` cannot be serialized.
pub fn trace_line(trace: &impl Serialize) -> Result<String, LogError> {
    line_of(trace)
}

fn line_of(value: &impl Serialize) -> Result<String, LogError> {
    let mut line = serde_json::to_string(value).map_err(LogError::Write)?;
    line.push('\n');
    Ok(line)
}

/// A line after the header.
#[derive(Clone, Debug, PartialEq)]
pub enum Line<T> {
    Entry(Box<Entry>),
    Trace(T),
}

/// Reads a log line by line, in bounded memory.
pub struct Reader<R> {
    from: R,
    line: u64,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    ///
    /// Fails if the log cannot be read or does not begin with a header.
    pub fn open(from: R) -> Result<(Header, Self), LogError> {
        let mut reader = Self { from, line: 0 };
        let bytes = reader.next_bytes()?.ok_or(LogError::Empty)?;
        let header = reader.parse(&bytes)?;
        Ok((header, reader))
    }

    /// Returns the next entry. Skips blank lines and lines of the trace. Returns `None` at the end
    /// of the log.
    ///
    /// # Errors
    ///
    /// Fails if a line cannot be read, is too long or incomplete, or is not an entry.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, LogError> {
        while let Some(bytes) = self.next_bytes()? {
            if !is_trace(&bytes) {
                return self.parse(&bytes).map(Some);
            }
            let IgnoredAny = self.parse(&bytes)?;
        }
        Ok(None)
    }

    /// Returns the next line of either kind. Skips blank lines. Returns `None` at the end of the
    /// log.
    ///
    /// # Errors
    ///
    /// Fails if a line cannot be read, is too long or incomplete, or is neither an entry nor of the
    /// trace.
    pub fn next_line<T: for<'de> Deserialize<'de>>(&mut self) -> Result<Option<Line<T>>, LogError> {
        let Some(bytes) = self.next_bytes()? else { return Ok(None) };
        Ok(Some(match is_trace(&bytes) {
            true => Line::Trace(self.parse(&bytes)?),
            false => Line::Entry(Box::new(self.parse(&bytes)?)),
        }))
    }

    /// The number of the line that was read last, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    fn parse<T: for<'de> Deserialize<'de>>(&self, bytes: &[u8]) -> Result<T, LogError> {
        serde_json::from_slice(bytes).map_err(|e| match bytes.last() {
            Some(b'\n') | None => malformed(self.line, &e),
            Some(_) if e.is_eof() => LogError::Cut { line: self.line },
            Some(_) => malformed(self.line, &e),
        })
    }

    fn next_bytes(&mut self) -> Result<Option<Vec<u8>>, LogError> {
        loop {
            let mut bytes = Vec::new();
            let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
            self.from.by_ref().take(limit).read_until(b'\n', &mut bytes).map_err(LogError::Read)?;
            if bytes.is_empty() {
                return Ok(None);
            }
            self.line += 1;
            if bytes.len() > LINE_BYTES_MAX {
                return Err(LogError::TooLong { line: self.line });
            }
            if !bytes.trim_ascii().is_empty() {
                return Ok(Some(bytes));
            }
        }
    }
}

/// Whether a line belongs to the trace: an object that begins with the key `trace`.
fn is_trace(line: &[u8]) -> bool {
    line.trim_ascii_start().starts_with(br#"{"trace":"#)
}

/// Converts an error of `serde_json` and removes the position from its message, because that
/// position counts lines within this single line.
fn malformed(line: u64, error: &serde_json::Error) -> LogError {
    let text = error.to_string();
    let message =
        text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message).to_owned();
    LogError::Malformed { line, column: error.column(), message }
}

#[cfg(test)]
mod tests {
    use super::{CallUuid, Header, LINE_BYTES_MAX, Line, LogError, Reader, header_line};
    use serde_json::{Value, json};

    fn header() -> String {
        header_line(&Header::of(CallUuid(uuid::Uuid::from_u128(1)))).expect("JSON")
    }

    #[test]
    fn reads_a_log_line_by_line() {
        let log =
            format!("{}\n{{\"at\":5,\"input\":{{\"fact\":\"timer\"}},\"outputs\":[]}}\n", header());
        let (read, mut reader) = Reader::open(log.as_bytes()).expect("a log");
        assert_eq!(read.offhook, env!("CARGO_PKG_VERSION"));
        let entry = reader.next_entry().expect("readable").expect("an entry");
        assert_eq!((entry.at.0, reader.line()), (5, 3), "a blank line counts, but is skipped");
        assert!(reader.next_entry().expect("readable").is_none());
    }

    #[test]
    fn skips_or_returns_trace_lines() {
        let trace = r#"{"trace":"first_sent","at_us":7}"#;
        let entry = r#"{"at":5,"input":{"fact":"timer"},"outputs":[]}"#;
        let log = format!("{}{trace}\n{entry}\n{trace}\n", header());
        let (read, mut reader) = Reader::open(log.as_bytes()).expect("a log");
        assert_eq!(
            read.trace_id.map(|t| t.to_string()).as_deref(),
            Some("00000000000000000000000000000001")
        );
        assert_eq!(reader.next_entry().expect("readable").expect("an entry").at.0, 5);
        assert!(reader.next_entry().expect("readable").is_none());
        let (_, mut reader) = Reader::open(log.as_bytes()).expect("a log");
        let kinds = std::iter::from_fn(|| reader.next_line::<Value>().expect("readable"));
        let kinds: Vec<bool> = kinds
            .map(|line| line == Line::Trace(json!({ "trace": "first_sent", "at_us": 7 })))
            .collect();
        assert_eq!(kinds, [true, false, true]);
    }

    #[test]
    fn reports_the_line_of_an_error() {
        let long = format!("{}{}\n", header(), " ".repeat(LINE_BYTES_MAX + 1));
        let cut = format!("{}{{\"at\":5,\"inp", header());
        let cut_trace = format!("{}{{\"trace\":\"first_s", header());
        let no_document = format!(
            "{}{}",
            header(),
            r#"{"at":5,"input":{"fact":"fetched","fetch":1,"result":{"Ok":{"body":"document","document":"<Html/>"}}},"outputs":[]}"#
        );
        let error = |log: &str| match Reader::open(log.as_bytes()) {
            Err(e) => e,
            Ok((_, mut reader)) => reader.next_entry().expect_err("unreadable"),
        };
        assert!(matches!(error(""), LogError::Empty));
        assert!(matches!(error("{}"), LogError::Malformed { line: 1, .. }));
        assert!(matches!(error(&long), LogError::TooLong { line: 2 }));
        assert!(matches!(error(&cut), LogError::Cut { line: 2 }));
        assert!(matches!(error(&cut_trace), LogError::Cut { line: 2 }));
        for cut in [&cut, &cut_trace] {
            let more =
                format!("{cut}\n{{\"at\":5,\"input\":{{\"fact\":\"timer\"}},\"outputs\":[]}}\n");
            assert!(
                matches!(error(&more), LogError::Malformed { line: 2, .. }),
                "only the last line can be incomplete"
            );
        }
        assert!(matches!(error(header().get(..20).unwrap()), LogError::Cut { line: 1 }));
        assert!(matches!(error(&no_document), LogError::Malformed { line: 2, .. }));
        let deep = format!("{}{}", header(), "[".repeat(100_000));
        assert!(matches!(error(&deep), LogError::Malformed { line: 2, .. }));
    }
}
