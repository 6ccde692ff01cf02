//! The event log's lines: a header, then a line for each fact with the wishes it led to.
//!
//! Only the format is here. `call::shell` writes lines as they happen, the store keeps them, `replay` reads them.
//! A line is bounded when read ([`LINE_BYTES_MAX`]): a log is a file from outside (R25).

use std::io::{self, BufRead, Read as _};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::machine::{CallTime, Input, Output};
use crate::model::CallUuid;

/// The longest line that is read.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// The first line: which program wrote it, and of which call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the program.
    pub offhook: String,
    pub call: CallUuid,
}

impl Header {
    /// The header that this version writes.
    pub fn of(call: CallUuid) -> Self {
        Self { offhook: env!("CARGO_PKG_VERSION").to_owned(), call }
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

/// A fact's line, with its line break. `input` is what [`super::machine::Machine::loggable`] gave.
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

fn line_of(what: &impl Serialize) -> Result<String, LogError> {
    let mut line = serde_json::to_string(what).map_err(LogError::Write)?;
    line.push('\n');
    Ok(line)
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
        let header = reader.parse_next()?.ok_or(LogError::Empty)?;
        Ok((header, reader))
    }

    /// The next entry; blank lines are passed over.
    ///
    /// # Errors
    /// The line is too long, or no entry.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, LogError> {
        self.parse_next()
    }

    /// The number of the line last read, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    fn parse_next<T: for<'de> Deserialize<'de>>(&mut self) -> Result<Option<T>, LogError> {
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
                let line = self.line;
                return serde_json::from_slice(&bytes).map(Some).map_err(|e| malformed(line, &e));
            }
        }
    }
}

/// JSON's own "line" is of the text it was given, which is one line of ours.
fn malformed(line: u64, error: &serde_json::Error) -> LogError {
    let text = error.to_string();
    let why = text.rsplit_once(" at line ").map_or(text.as_str(), |(why, _)| why).to_owned();
    LogError::Malformed { line, column: error.column(), why }
}

#[cfg(test)]
mod tests {
    use super::{CallUuid, Header, LINE_BYTES_MAX, LogError, Reader, header_line};

    fn header() -> String {
        header_line(&Header::of(CallUuid(uuid::Uuid::from_u128(1)))).expect("JSON")
    }

    #[test]
    fn a_log_is_read_line_by_line() {
        let log = format!("{}\n{{\"at\":5,\"input\":{{\"fact\":\"timer\"}},\"outputs\":[]}}\n", header());
        let (read, mut reader) = Reader::open(log.as_bytes()).expect("a log");
        assert_eq!(read.offhook, env!("CARGO_PKG_VERSION"));
        let entry = reader.next_entry().expect("readable").expect("an entry");
        assert_eq!((entry.at.0, reader.line()), (5, 3), "a blank line counts, but is none");
        assert!(reader.next_entry().expect("readable").is_none());
    }

    #[test]
    fn what_is_no_log_is_told_with_its_line() {
        let long = format!("{}{}\n", header(), " ".repeat(LINE_BYTES_MAX + 1));
        let cut = format!("{}{{\"at\":5,\"inp", header());
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
        assert!(matches!(error(&cut), LogError::Malformed { line: 2, .. }));
        assert!(matches!(error(&no_document), LogError::Malformed { line: 2, .. }));
        let deep = format!("{}{}", header(), "[".repeat(100_000));
        assert!(matches!(error(&deep), LogError::Malformed { line: 2, .. }));
    }
}
