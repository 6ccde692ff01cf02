//! Byte offsets to lines and columns: the one place that knows how lines are counted.
//!
//! Lines end at LF, CRLF or a lone CR; columns count Unicode scalar values; both begin at 1 (`plivo-xml.md` §2).

use super::ast::Position;

/// Walks a text forwards and tells positions on the way. Asking for offsets in ascending order costs one pass
/// over the text in all.
#[derive(Clone, Debug)]
pub(super) struct Locator<'t> {
    text: &'t str,
    offset: usize,
    at: Position,
    /// Lines end at LF alone, and a character is a byte: so it is in nearly every document.
    plain: bool,
}

impl<'t> Locator<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let plain = text.is_ascii() && memchr::memchr(b'\r', text.as_bytes()).is_none();
        Self { text, offset: 0, at: START, plain }
    }

    /// The same from where `offset` is known to be `at`; what stands before it is not to be asked for.
    pub(super) fn from(&self, offset: usize, at: Position) -> Self {
        Self { offset, at, ..*self }
    }

    /// The position of a byte offset (a character boundary). One before the last asked for starts over.
    pub(super) fn locate(&mut self, offset: usize) -> Position {
        if offset < self.offset {
            *self = self.from(0, START);
        }
        let passed = self.text.get(self.offset..offset).unwrap_or("");
        self.offset += passed.len();
        let plain = self.plain;
        let count = |text: &str| {
            u32::try_from(if plain { text.len() } else { text.chars().count() }).unwrap_or(0)
        };
        // Whole runs at once; a CR, which hardly any document has, goes byte by byte.
        if plain || memchr::memchr(b'\r', passed.as_bytes()).is_none() {
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

/// Line 1, column 1.
pub(super) const START: Position = Position { line: 1, column: 1 };

/// A line's text, without its end, and the byte in it where a column begins (its end for a column past it). What
/// `Locator` does, backwards: for those who draw a caret.
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
    fn lines_end_three_ways_and_columns_count_characters() {
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
        let mut forwards = Locator::new(text);
        for (c, line, column) in cases {
            let offset = text.find(c).unwrap();
            let at = Position { line, column };
            assert_eq!(forwards.locate(offset), at, "{c}");
            assert_eq!(Locator::new(text).locate(offset), at, "{c}, asked alone");
            let (line, byte) = line_at(text, at).unwrap();
            assert_eq!(line.get(byte..).and_then(|l| l.chars().next()), Some(c), "{c}, backwards");
        }
        assert_eq!(forwards.locate(0), START, "going back starts over");
    }

    #[test]
    fn a_place_past_the_end_is_at_it_or_nowhere() {
        assert_eq!(line_at("ab", Position { line: 1, column: 9 }), Some(("ab", 2)));
        assert_eq!(line_at("ab\r\ncd", Position { line: 1, column: 9 }), Some(("ab", 2)));
        assert_eq!(line_at("ab\n", Position { line: 2, column: 1 }), Some(("", 0)));
        assert_eq!(line_at("ab\n", Position { line: 3, column: 1 }), None);
        assert_eq!(line_at("", START), Some(("", 0)));
    }
}
