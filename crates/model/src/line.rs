//! Names that people give to things.

use std::ops::RangeInclusive;

/// Returns whether a text is one line with this number of characters.
pub fn is_line(text: &str, chars: RangeInclusive<usize>) -> bool {
    chars.contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// Returns whether no character of a text hides: blanks without a width, and what changes the
/// direction of text (UAX #9). With them, a name looks like another one. The joiners U+200C and
/// U+200D are no such characters, because Indic scripts need them.
pub fn is_visible(text: &str) -> bool {
    !text.chars().any(|c| {
        matches!(c, '\u{ad}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}')
            || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
    })
}

#[cfg(test)]
mod tests {
    use super::{is_line, is_visible};

    #[test]
    fn names_are_lines_and_have_no_hidden_characters() {
        for good in ["Asha", "Zoë Smith", "क्‍ष", "👩‍💻", "سارا"] {
            assert!(is_line(good, 1..=9) && is_visible(good), "{good}");
        }
        for bad in ["", "a\nb", "a\0", "ten characters"] {
            assert!(!is_line(bad, 1..=9), "{bad:?}");
        }
        for hidden in ["asha\u{200b}", "\u{202e}ahsa", "a\u{2066}b", "\u{feff}asha"] {
            assert!(!is_visible(hidden), "{hidden:?}");
        }
    }
}
