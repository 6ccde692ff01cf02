//! The event log's lines: a header, a line for each fact with the wishes it led to, and among these the trace's, which
//! no replay needs (`trace`).
//!
//! Only the format is here. `call::shell` writes lines as they happen, the store keeps them, `replay` reads them.
//! A line is bounded when read ([`LINE_BYTES_MAX`]): a log is a file from outside (R25).

use std::io::{self, BufRead, Read as _};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::contract::{CallTime, Input, Output};
use model::{CallUuid, TraceId};

/// The longest line that is read.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// The first line: which program wrote it, and of which call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the program.
    pub offhook: String,
    pub call: CallUuid,
    /// The trace that requests to the customer's server name in `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<TraceId>,
}

impl Header {
    /// The header that this version writes.
    pub fn of(call: CallUuid) -> Self {
        Self { offhook: env!("CARGO_PKG_VERSION").to_owned(), call, trace_id: Some(call.into()) }
    }
}

/// One fact and what followed, as written: the wishes stay JSON, since that is what a replay is compared with.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Entry {
    pub at: CallTime,
    pub input: Input,
    pub outputs: Vec<Value>,
}

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("read the event log: {0}")]
    Read(io::Error),
    #[error("read line {line}: it is longer than {LINE_BYTES_MAX} bytes")]
    TooLong { line: u64 },
    #[error("read line {line}, column {column}: {why}")]
    Malformed { line: u64, column: usize, why: String },
    /// The last line, which has no line break: who wrote it was killed, or its disk full, or a copy broke off.
    #[error("read line {line}, the last one, to its end: it is cut short")]
    Cut { line: u64 },
    #[error("find the header: the log is empty")]
    Empty,
    #[error("write a line: {0}")]
    Write(serde_json::Error),
}

/// The header's line, with its line break.
///
/// # Errors
/// The header does not serialise; it always does.
pub fn header_line(header: &Header) -> Result<String, LogError> {
    line_of(header)
}

/// A fact's line, with its line break. `input` is what [`machine::Machine::loggable`] gave.
///
/// # Errors
/// The entry does not serialise; it always does.
pub fn entry_line(at: CallTime, input: &Input, outputs: &[Output]) -> Result<String, LogError> {
    #[derive(Serialize)]
    struct Line<'a> {
        at: CallTime,
        input: &'a Input,
        outputs: &'a [Output],
    }
    line_of(&Line { at, input, outputs })
}

/// A line of the trace, with its line break.
///
/// # Errors
/// It does not serialise; it always does.
pub fn trace_line(trace: &impl Serialize) -> Result<String, LogError> {
    line_of(trace)
}

fn line_of(what: &impl Serialize) -> Result<String, LogError> {
    let mut line = serde_json::to_string(what).map_err(LogError::Write)?;
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
    /// Reads the header and stands before the first entry.
    ///
    /// # Errors
    /// No header, an unreadable one, or nothing can be read.
    pub fn open(from: R) -> Result<(Header, Self), LogError> {
        let mut reader = Self { from, line: 0 };
        let bytes = reader.next_bytes()?.ok_or(LogError::Empty)?;
        let header = reader.parse(&bytes)?;
        Ok((header, reader))
    }

    /// The next entry; blank lines and those of the trace are passed over, whatever they tell of.
    ///
    /// # Errors
    /// The line is too long, cut short, or no entry.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, LogError> {
        while let Some(bytes) = self.next_bytes()? {
            if !is_trace(&bytes) {
                return self.parse(&bytes).map(Some);
            }
            let IgnoredAny = self.parse(&bytes)?;
        }
        Ok(None)
    }

    /// The next line of either kind; blank lines are passed over.
    ///
    /// # Errors
    /// The line is too long, cut short, or neither an entry nor of the trace.
    pub fn next_line<T: for<'de> Deserialize<'de>>(&mut self) -> Result<Option<Line<T>>, LogError> {
        let Some(bytes) = self.next_bytes()? else { return Ok(None) };
        Ok(Some(match is_trace(&bytes) {
            true => Line::Trace(self.parse(&bytes)?),
            false => Line::Entry(Box::new(self.parse(&bytes)?)),
        }))
    }

    /// The number of the line last read, from 1.
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

/// Whether a line is one of the trace: an object whose first key says so, as we write it.
fn is_trace(line: &[u8]) -> bool {
    line.trim_ascii_start().starts_with(br#"{"trace":"#)
}

/// JSON's own "line" is of the text it was given, which is one line of ours.
fn malformed(line: u64, error: &serde_json::Error) -> LogError {
    let text = error.to_string();
    let why = text.rsplit_once(" at line ").map_or(text.as_str(), |(why, _)| why).to_owned();
    LogError::Malformed { line, column: error.column(), why }
}

#[cfg(test)]
mod tests {
    use super::{CallUuid, Header, LINE_BYTES_MAX, Line, LogError, Reader, header_line};
    use serde_json::{Value, json};

    fn header() -> String {
        header_line(&Header::of(CallUuid(uuid::Uuid::from_u128(1)))).expect("JSON")
    }

    #[test]
    fn a_log_is_read_line_by_line() {
        let log =
            format!("{}\n{{\"at\":5,\"input\":{{\"fact\":\"timer\"}},\"outputs\":[]}}\n", header());
        let (read, mut reader) = Reader::open(log.as_bytes()).expect("a log");
        assert_eq!(read.offhook, env!("CARGO_PKG_VERSION"));
        let entry = reader.next_entry().expect("readable").expect("an entry");
        assert_eq!((entry.at.0, reader.line()), (5, 3), "a blank line counts, but is none");
        assert!(reader.next_entry().expect("readable").is_none());
    }

    #[test]
    fn the_traces_lines_are_passed_over_or_read() {
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
    fn what_is_no_log_is_told_with_its_line() {
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
                "in the middle it is no end"
            );
        }
        assert!(matches!(error(header().get(..20).unwrap()), LogError::Cut { line: 1 }));
        assert!(matches!(error(&no_document), LogError::Malformed { line: 2, .. }));
        let deep = format!("{}{}", header(), "[".repeat(100_000));
        assert!(matches!(error(&deep), LogError::Malformed { line: 2, .. }));
    }
}
