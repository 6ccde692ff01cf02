//! An incremental parser for server-sent events (WHATWG HTML, section 9.2). It yields the data of
//! each event, is pure, and bounds its memory.

/// The maximum size of an event in bytes.
const EVENT_MAX: usize = 64 * 1024;

/// The state of the parser.
#[derive(Default)]
pub(super) struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
    /// Whether the last byte was a carriage return. A line feed after it belongs to the same line
    /// end.
    returned: bool,
}

impl Events {
    /// Parses the next bytes, and returns the data of each event they complete.
    ///
    /// # Errors
    /// Fails if an event exceeds the size limit.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        let mut events = Vec::new();
        for &byte in bytes {
            let feed_after_return = byte == b'\n' && self.returned;
            self.returned = byte == b'\r';
            match byte {
                _ if feed_after_return => {}
                b'\n' | b'\r' => events.extend(self.end_of_line()),
                _ => self.line.push(byte),
            }
            if self.line.len() + self.data.len() > EVENT_MAX {
                return Err(format!("an event has more than {EVENT_MAX} bytes"));
            }
        }
        Ok(events)
    }

    /// Ends the stream. Returns the last event even if its final blank line is missing.
    pub(super) fn finish(mut self) -> Option<Vec<u8>> {
        let ended = self.end_of_line();
        ended.or_else(|| (!self.data.is_empty()).then_some(self.data))
    }

    fn end_of_line(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return (!self.data.is_empty()).then(|| std::mem::take(&mut self.data));
        }
        if let Some(data) = line.strip_prefix(b"data:") {
            if !self.data.is_empty() {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_events_across_any_chunks() {
        let text = b"\r\n: a comment\r\nevent: x\r\ndata: {\"a\":\r\ndata:1}\r\n\r\ndata: two\n\ndata: last";
        let want: Vec<Vec<u8>> = vec![b"{\"a\":\n1}".to_vec(), b"two".to_vec(), b"last".to_vec()];
        for size in [1, 2, 3, 7, text.len()] {
            let mut events = Events::default();
            let mut got = Vec::new();
            text.chunks(size).for_each(|piece| got.extend(events.push(piece).unwrap()));
            got.extend(events.finish());
            assert_eq!(got, want, "{size}");
        }
        assert_eq!(Events::default().finish(), None);
        assert!(Events::default().push(&vec![b'x'; EVENT_MAX + 1]).is_err());
    }
}
