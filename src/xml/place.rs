//! Byte offsets to lines and columns: the one place that knows how lines are counted.
//!
//! Lines end at LF, CRLF or a lone CR; columns count Unicode scalar values; both begin at 1 (`plivo-xml.md` §2).

use std::ops::Range;

use super::ast::Position;

/// Walks a text forwards and tells positions on the way. Asking for offsets in ascending order costs one pass
/// over the text in all.
#[derive(Clone, Debug)]
pub(super) struct Locator<'t> {
    text: &'t str,
    offset: usize,
    at: Position,
}

impl<'t> Locator<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, offset: 0, at: START }
    }

    /// The position of a byte offset (a character boundary). One before the last asked for starts over.
    pub(super) fn locate(&mut self, offset: usize) -> Position {
        if offset < self.offset {
            *self = Self::new(self.text);
        }
        let passed = self.text.get(self.offset..offset).unwrap_or("");
        let mut rest = passed.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            let crlf = byte == b'\r' && after.first().or(self.text.as_bytes().get(offset)) == Some(&b'\n');
            match byte {
                b'\n' => self.at = Position { line: self.at.line + 1, column: 1 },
                b'\r' if !crlf => self.at = Position { line: self.at.line + 1, column: 1 },
                // Continuation bytes of UTF-8 are no characters of their own.
                byte if byte & 0xC0 == 0x80 => {}
                _ => self.at.column += 1,
            }
            rest = after;
        }
        self.offset += passed.len();
        self.at
    }
}

/// Line 1, column 1.
pub(super) const START: Position = Position { line: 1, column: 1 };

/// The bytes of the character at a position, empty at a line's or the text's end. What [`Locator`] does, backwards:
/// for those who draw a caret.
pub fn span(text: &str, at: Position) -> Range<usize> {
    let (mut line, mut column) = (1, 1);
    let mut before = '\0';
    for (offset, c) in text.char_indices() {
        if before == '\n' || (before == '\r' && c != '\n') {
            (line, column) = (line + 1, 1);
        }
        let ends_line = matches!(c, '\n' | '\r');
        if (line, column) >= (at.line, at.column) || line > at.line {
            return offset..if ends_line { offset } else { offset + c.len_utf8() };
        }
        if line == at.line && ends_line {
            return offset..offset;
        }
        column += 1;
        before = c;
    }
    text.len()..text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_three_ways_and_columns_count_characters() {
        let text = "a\nb\r\nc\rdé😀x\r\r\n\ny";
        let cases =
            [('a', 1, 1), ('b', 2, 1), ('c', 3, 1), ('d', 4, 1), ('é', 4, 2), ('😀', 4, 3), ('x', 4, 4), ('y', 7, 1)];
        let mut forwards = Locator::new(text);
        for (c, line, column) in cases {
            let offset = text.find(c).unwrap();
            let at = Position { line, column };
            assert_eq!(forwards.locate(offset), at, "{c}");
            assert_eq!(Locator::new(text).locate(offset), at, "{c}, asked alone");
            assert_eq!(span(text, at), offset..offset + c.len_utf8(), "{c}, backwards");
        }
        assert_eq!(forwards.locate(0), START, "going back starts over");
    }

    #[test]
    fn a_span_past_the_end_is_empty() {
        assert_eq!(span("ab", Position { line: 1, column: 9 }), 2..2);
        assert_eq!(span("ab\ncd", Position { line: 1, column: 9 }), 2..2);
        assert_eq!(span("", START), 0..0);
    }
}
