//! Determines the stable part of interim results: the leading words that are the same as in the
//! previous result.
//!
//! Most recognisers provide no confidence before the end of an utterance, but repeated words can be
//! detected with all of them.

use super::InterimResult;

/// Compares each interim result with the previous one.
#[derive(Debug, Default)]
pub(super) struct StabilityTracker {
    last: Vec<String>,
    /// How many words of `last` are stable.
    stable: usize,
}

impl StabilityTracker {
    /// Returns the interim result for `text`, or `None` if it is empty or all of it was stable
    /// before.
    pub(super) fn next(&mut self, text: &str) -> Option<InterimResult> {
        let words: Vec<String> =
            text.split(' ').filter(|w| !w.is_empty()).map(str::to_owned).collect();
        if words.is_empty() || (words == self.last && self.stable == words.len()) {
            return None;
        }
        let same = words.iter().zip(&self.last).take_while(|(new, old)| new == old).count();
        let (stable, unstable) = words.split_at_checked(same)?;
        let (stable, unstable) = (stable.join(" "), unstable.join(" "));
        let stability = u8::try_from(same * 100 / words.len()).unwrap_or(100);
        self.last = words;
        self.stable = same;
        Some(InterimResult { stable, unstable, stability })
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
