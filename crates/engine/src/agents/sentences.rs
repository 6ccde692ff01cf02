//! Text that comes bit by bit, as sentences to be said: the first of them is spoken while the others are still thought of.

/// Shorter ones wait for company: a voice says "Yes. Of course." better in one.
const CHARS_MIN: usize = 12;
/// What has no end by then is said as far as its last space.
const CHARS_MAX: usize = 400;

/// Text whose sentences are taken off as they are complete.
#[derive(Debug, Default)]
pub(super) struct Sentences {
    text: String,
}

impl Sentences {
    /// Adds text, and gives what can be said now.
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

    /// The text is over: what is left.
    pub(super) fn finish(self) -> Option<String> {
        let rest = self.text.split_whitespace().collect::<Vec<_>>().join(" ");
        (!rest.is_empty()).then_some(rest)
    }

    /// Where the first sentence ends, if it does.
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
    fn sentences_come_as_soon_as_they_are_whole() {
        let mut text = Sentences::default();
        assert_eq!(text.push("Yes. Of cour"), Vec::<String>::new());
        assert_eq!(text.push("se."), Vec::<String>::new(), "a point may be within a number");
        assert_eq!(text.push(" It costs 3.50 euros"), ["Yes. Of course."]);
        assert_eq!(text.push("!\n\nAnything  else? "), ["It costs 3.50 euros!", "Anything else?"]);
        text.push("And so");
        assert_eq!(text.finish().as_deref(), Some("And so"));
        assert_eq!(Sentences::default().finish(), None);
        let mut endless = Sentences::default();
        let said = endless.push(&"word ".repeat(200));
        assert!(
            said.len() == 2 && said.iter().all(|s| s.len() <= CHARS_MAX && !s.ends_with(' ')),
            "{said:?}"
        );
        assert_eq!(
            Sentences::default().push("これはとても長い文章です。次"),
            ["これはとても長い文章です。"]
        );
    }
}
