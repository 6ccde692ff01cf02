//! What of an interim result has become steady: the words at its beginning that the result before had, too. Pure.
//!
//! Recognisers say little or nothing about how sure they are of a word before the end; that it stood there twice is
//! something every one of them tells.

use super::Interim;

/// Compares each result with the one before.
#[derive(Debug, Default)]
pub(super) struct Steady {
    last: Vec<String>,
    /// How many of them are steady.
    steady: usize,
}

impl Steady {
    /// What is new in `text`: words, or that they stand there again; none: it is empty, or all of it was steady.
    pub(super) fn next(&mut self, text: &str) -> Option<Interim> {
        let words: Vec<String> =
            text.split(' ').filter(|w| !w.is_empty()).map(str::to_owned).collect();
        if words.is_empty() || (words == self.last && self.steady == words.len()) {
            return None;
        }
        let same = words.iter().zip(&self.last).take_while(|(new, old)| new == old).count();
        let (stable, unstable) = words.split_at_checked(same)?;
        let (stable, unstable) = (stable.join(" "), unstable.join(" "));
        let stability = u8::try_from(same * 100 / words.len()).unwrap_or(100);
        self.last = words;
        self.steady = same;
        Some(Interim { stable, unstable, stability })
    }
}

#[cfg(test)]
mod tests {
    use super::Steady;

    #[test]
    fn words_become_steady_when_they_stand_twice() {
        let mut steady = Steady::default();
        let mut next = |text| steady.next(text).map(|i| (i.stable, i.unstable, i.stability));
        let told = |stable: &str, unstable: &str, stability| {
            Some((stable.to_owned(), unstable.to_owned(), stability))
        };
        assert_eq!(next(""), None);
        assert_eq!(next("book"), told("", "book", 0));
        assert_eq!(next("book a cable"), told("book", "a cable", 33));
        assert_eq!(next("book a cable"), told("book a cable", "", 100));
        assert_eq!(next("book a cable"), None, "nothing new");
        assert_eq!(next("book a table"), told("book a", "table", 66));
        assert_eq!(next("look"), told("", "look", 0));
        assert_eq!(next("look here"), told("look", "here", 50));
        assert_eq!(next("look"), told("look", "", 100));
    }
}
