//! Determines the stable part of interim results: the leading words that are the same as in the
//! previous result.
//!
//! Most recognisers provide no confidence before the end of an utterance, but repeated words can be
//! detected with all of them.

use super::InterimResult;

/// Compares each interim result with the previous one.
#[derive(Debug, Default)]
pub(super) struct StabilityTracker {
    last: String,
    /// Whether all words of `last` are stable.
    all_stable: bool,
}

impl StabilityTracker {
    /// Returns the interim result for `text`, a line of words with single spaces between them.
    /// Returns `None` if it is empty or all of it was stable before.
    pub(super) fn next(&mut self, text: &str) -> Option<InterimResult> {
        if text.is_empty() || (self.all_stable && text == self.last) {
            return None;
        }
        let same = text.split(' ').zip(self.last.split(' ')).take_while(|(new, old)| new == old);
        let (mut words, mut end) = (0, 0);
        for (word, _) in same {
            words += 1;
            end += word.len() + 1;
        }
        let total = text.split(' ').count();
        let stable = text.get(..end.saturating_sub(1)).unwrap_or(text);
        let unstable = text.get(end..).unwrap_or_default();
        let result = InterimResult {
            stable: stable.to_owned(),
            unstable: unstable.to_owned(),
            stability: u8::try_from(words * 100 / total).unwrap_or(100),
        };
        text.clone_into(&mut self.last);
        self.all_stable = words == total;
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    use super::StabilityTracker;

    #[test]
    fn words_are_stable_when_repeated() {
        let mut tracker = StabilityTracker::default();
        let mut next = |text| tracker.next(text).map(|i| (i.stable, i.unstable, i.stability));
        let result = |stable: &str, unstable: &str, stability| {
            Some((stable.to_owned(), unstable.to_owned(), stability))
        };
        assert_eq!(next(""), None);
        assert_eq!(next("book"), result("", "book", 0));
        assert_eq!(next("book a cable"), result("book", "a cable", 33));
        assert_eq!(next("book a cable"), result("book a cable", "", 100));
        assert_eq!(next("book a cable"), None, "nothing new");
        assert_eq!(next("book a table"), result("book a", "table", 66));
        assert_eq!(next("look"), result("", "look", 0));
        assert_eq!(next("look here"), result("look", "here", 50));
        assert_eq!(next("look"), result("look", "", 100));
    }
}
