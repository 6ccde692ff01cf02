//! Splits streamed text into sentences, so that the first can be spoken while the rest is still
//! being generated.

/// The minimum length of a sentence in characters. Shorter ones are joined with the next, because
/// they sound better together.
const CHARS_MIN: usize = 12;
/// The maximum length in characters. Longer text is split at its last space.
const CHARS_MAX: usize = 400;

/// Buffers text that has not been returned as sentences yet.
#[derive(Debug, Default)]
pub(super) struct Sentences {
    text: String,
}

impl Sentences {
    /// Adds text, and returns the sentences that are complete.
    pub(super) fn push(&mut self, text: &str) -> Vec<String> {
        self.text.push_str(text);
        let mut ready = Vec::new();
        while let Some(end) = self.end() {
            let rest = self.text.split_off(end);
            let sentence = std::mem::replace(&mut self.text, rest);
            let sentence = sentence.split_whitespace().collect::<Vec<_>>().join(" ");
            if !sentence.is_empty() {
                ready.push(sentence);
            }
        }
        ready
    }

    /// Returns the rest at the end of the text.
    pub(super) fn finish(self) -> Option<String> {
        let rest = self.text.split_whitespace().collect::<Vec<_>>().join(" ");
        (!rest.is_empty()).then_some(rest)
    }

    /// Returns the end of the first sentence if it is complete.
    fn end(&self) -> Option<usize> {
        let mut chars = self.text.char_indices().enumerate().peekable();
        let mut space = None;
        while let Some((count, (at, c))) = chars.next() {
            let after = at + c.len_utf8();
            let next = chars.peek().map(|(_, (_, next))| *next);
            let enough = count + 1 >= CHARS_MIN;
            if c == '\n' || matches!(c, '。' | '！' | '？' | '।') {
                if enough {
                    return Some(after);
                }
            } else if matches!(c, '.' | '!' | '?' | '…' | ':' | ';')
                && enough
                && next.is_some_and(char::is_whitespace)
            {
                return Some(after);
            }
            if c.is_whitespace() {
                space = Some(after);
            }
            if count + 1 >= CHARS_MAX {
                return Some(space.unwrap_or(after));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_sentences_when_complete() {
        let mut text = Sentences::default();
        assert_eq!(text.push("Yes. Of cour"), Vec::<String>::new());
        assert_eq!(text.push("se."), Vec::<String>::new(), "a point may be within a number");
        assert_eq!(text.push(" It costs 3.50 euros"), ["Yes. Of course."]);
        assert_eq!(text.push("!\n\nAnything  else? "), ["It costs 3.50 euros!", "Anything else?"]);
        text.push("And so");
        assert_eq!(text.finish().as_deref(), Some("And so"));
        assert_eq!(Sentences::default().finish(), None);
        let mut endless = Sentences::default();
        let sentences = endless.push(&"word ".repeat(200));
        assert!(
            sentences.len() == 2
                && sentences.iter().all(|s| s.len() <= CHARS_MAX && !s.ends_with(' ')),
            "{sentences:?}"
        );
        assert_eq!(
            Sentences::default().push("これはとても長い文章です。次"),
            ["これはとても長い文章です。"]
        );
    }
}
