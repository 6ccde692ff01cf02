//! `digitsMatch` and `digitsMatchBLeg`: sequences of digits that are reported to the customer's
//! server.

use std::collections::VecDeque;

use model::Digit;

/// Maximum length of a pattern (docs/reference/xml.md#attribute-types).
const KEYS_MAX: usize = 16;

/// The patterns, and the latest digits.
pub(super) struct DigitPatterns {
    /// Each pattern, with the number of latest digits that it may use. A pattern uses each digit
    /// once.
    patterns: Vec<(String, usize)>,
    keys: VecDeque<char>,
}

impl DigitPatterns {
    pub(super) fn new(patterns: &[String]) -> Self {
        Self {
            patterns: patterns.iter().map(|pattern| (pattern.clone(), 0)).collect(),
            keys: VecDeque::new(),
        }
    }

    /// Returns the patterns that this digit completes.
    pub(super) fn pressed(&mut self, digit: Digit) -> Vec<String> {
        if self.patterns.is_empty() || digit.is_letter() {
            return Vec::new();
        }
        if self.keys.len() == KEYS_MAX {
            self.keys.pop_front();
        }
        self.keys.push_back(digit.as_char());
        let mut complete = Vec::new();
        for (pattern, free) in &mut self.patterns {
            *free = (*free + 1).min(KEYS_MAX);
            let is_there = pattern.len() <= *free
                && pattern.chars().rev().eq(self.keys.iter().rev().take(pattern.len()).copied());
            if is_there {
                *free = 0;
                complete.push(pattern.clone());
            }
        }
        complete
    }
}

#[cfg(test)]
mod tests {
    use super::DigitPatterns;
    use model::Digit;

    #[test]
    fn each_pattern_uses_a_digit_once() {
        let mut patterns = DigitPatterns::new(&[
            "1".to_owned(),
            "12".to_owned(),
            "**".to_owned(),
            "1234567890123456".to_owned(),
        ]);
        let mut pressed = |key: char| patterns.pressed(Digit::try_from(key).unwrap()).join(",");
        let results: Vec<String> = "112***A*".chars().map(&mut pressed).collect();
        assert_eq!(results, ["1", "1", "12", "", "**", "", "", "**"]);
        let results: Vec<String> = "1234567890123456".chars().map(pressed).collect();
        assert_eq!(results.last().unwrap(), "1234567890123456");
    }
}
