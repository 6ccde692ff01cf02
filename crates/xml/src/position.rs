//! Converts byte offsets to lines and columns.
//!
//! Lines end at LF, CRLF or a lone CR. Columns count Unicode scalar values. Both start at 1.

use super::ast::Position;

/// Converts byte offsets in a text to positions. Offsets in ascending order take one pass over the
/// text in total.
#[derive(Clone, Debug)]
pub(super) struct Locator<'t> {
    text: &'t str,
    offset: usize,
    at: Position,
    /// Whether the text is ASCII and contains no CR, as in most documents. Each byte is then one
    /// column.
    simple: bool,
}

impl<'t> Locator<'t> {
    /// Creates a locator. `simple` is `true` if the text is known to be ASCII without CR.
    pub(super) fn new(text: &'t str, simple: bool) -> Self {
        Self { text, offset: 0, at: START, simple }
    }

    /// Returns a locator that starts at `offset`, which has position `at`. It must only be used for
    /// offsets from there on.
    pub(super) fn from(&self, offset: usize, at: Position) -> Self {
        Self { offset, at, ..*self }
    }

    /// Returns the position of a byte offset, which must be a character boundary. An offset before
    /// the previous one restarts from the beginning.
    pub(super) fn locate(&mut self, offset: usize) -> Position {
        if offset < self.offset {
            *self = self.from(0, START);
        }
        let passed = self.text.get(self.offset..offset).unwrap_or("");
        self.offset += passed.len();
        let simple = self.simple;
        let count = |text: &str| {
            u32::try_from(if simple { text.len() } else { text.chars().count() }).unwrap_or(0)
        };
        // Without a CR, lines are counted by searching for LF. Otherwise go byte by byte.
        if simple || memchr::memchr(b'\r', passed.as_bytes()).is_none() {
            let mut line = passed;
            for feed in memchr::memchr_iter(b'\n', passed.as_bytes()) {
                self.at = Position { line: self.at.line + 1, column: 1 };
                line = passed.get(feed + 1..).unwrap_or("");
            }
            self.at.column += count(line);
            return self.at;
        }
        let mut rest = passed.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            let crlf =
                byte == b'\r' && after.first().or(self.text.as_bytes().get(offset)) == Some(&b'\n');
            match byte {
                b'\n' => self.at = Position { line: self.at.line + 1, column: 1 },
                b'\r' if !crlf => self.at = Position { line: self.at.line + 1, column: 1 },
                byte if byte & 0xC0 == 0x80 => {}
                _ => self.at.column += 1,
            }
            rest = after;
        }
        self.at
    }
}

/// The first position of a text: line 1, column 1.
pub(super) const START: Position = Position { line: 1, column: 1 };

/// Returns the text of a position's line, without the line end, and the byte offset of its column
/// in that line. A column past the end of the line gives the line's length. `None` if the text has
/// fewer lines.
pub fn line_at(text: &str, at: Position) -> Option<(&str, usize)> {
    let mut rest = text;
    for _ in 1..at.line {
        let end = rest.find(['\n', '\r'])?;
        let ending = if rest.get(end..)?.starts_with("\r\n") { 2 } else { 1 };
        rest = rest.get(end + ending..)?;
    }
    let line = rest.split(['\n', '\r']).next()?;
    let column = usize::try_from(at.column.max(1) - 1).ok()?;
    Some((line, line.char_indices().nth(column).map_or(line.len(), |(byte, _)| byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locates_offsets_with_all_line_endings() {
        let text = "a\nb\r\nc\rdé😀x\r\r\n\ny";
        let cases = [
            ('a', 1, 1),
            ('b', 2, 1),
            ('c', 3, 1),
            ('d', 4, 1),
            ('é', 4, 2),
            ('😀', 4, 3),
            ('x', 4, 4),
            ('y', 7, 1),
        ];
        let mut locator = Locator::new(text, false);
        for (c, line, column) in cases {
            let offset = text.find(c).unwrap();
            let at = Position { line, column };
            assert_eq!(locator.locate(offset), at, "{c}");
            assert_eq!(Locator::new(text, false).locate(offset), at, "{c}, with a new locator");
            let (line, byte) = line_at(text, at).unwrap();
            assert_eq!(
                line.get(byte..).and_then(|l| l.chars().next()),
                Some(c),
                "{c}, with line_at"
            );
        }
        assert_eq!(locator.locate(0), START, "a smaller offset restarts");
    }

    #[test]
    fn line_at_clamps_the_column_but_not_the_line() {
        assert_eq!(line_at("ab", Position { line: 1, column: 9 }), Some(("ab", 2)));
        assert_eq!(line_at("ab\r\ncd", Position { line: 1, column: 9 }), Some(("ab", 2)));
        assert_eq!(line_at("ab\n", Position { line: 2, column: 1 }), Some(("", 0)));
        assert_eq!(line_at("ab\n", Position { line: 3, column: 1 }), None);
        assert_eq!(line_at("", START), Some(("", 0)));
    }
}
