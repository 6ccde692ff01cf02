//! Names that people give to things.

use std::ops::RangeInclusive;

/// Returns whether a text is one line with this number of characters, all of which can be seen. A
/// name with hidden ones looks like another name.
pub fn is_line(text: &str, chars: RangeInclusive<usize>) -> bool {
    chars.contains(&text.chars().count()) && !text.chars().any(is_hidden)
}

/// Control characters, blanks without a width, and what changes the direction of text (UAX #9). Not
/// the joiners U+200C and U+200D, which Indic scripts and emoji need.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}')
        || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
}

#[cfg(test)]
mod tests {
    use super::is_line;

    #[test]
    fn lines_have_no_hidden_characters() {
        for good in ["Asha", "Zoë Smith", "क्‍ष", "👩‍💻", "سارا"] {
            assert!(is_line(good, 1..=9), "{good}");
        }
        for bad in [
            "",
            "a\nb",
            "a\0",
            "asha\u{200b}",
            "\u{202e}ahsa",
            "a\u{2066}b",
            "\u{feff}",
            "ten characters",
        ] {
            assert!(!is_line(bad, 1..=9), "{bad:?}");
        }
    }
}
