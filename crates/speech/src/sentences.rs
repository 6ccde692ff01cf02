//! Splits text into sentences, which are spoken one after the other.

/// Returns the sentences of a text. Titles have no full stop in normalised text, so that every full
/// stop before a space ends a sentence. A sentence of more than `bytes_max` bytes is split at a comma
/// or a space.
pub(crate) fn split(text: &str, bytes_max: usize) -> Vec<&str> {
    let mut sentences = Vec::new();
    let mut rest = text;
    while let Some(end) = sentence_end(rest) {
        let (sentence, tail) = rest.split_at_checked(end).unwrap_or((rest, ""));
        sentences.push(sentence);
        rest = tail;
    }
    sentences.push(rest);
    let split = |sentence| split_long(sentence, bytes_max);
    sentences.into_iter().flat_map(split).filter(|s| !s.trim().is_empty()).collect()
}

fn sentence_end(text: &str) -> Option<usize> {
    let mut ended = false;
    let mut letters = 0;
    for (at, c) in text.char_indices() {
        match c {
            // An initial such as "J." does not end a sentence.
            '.' if letters == 1 => {}
            '.' | '!' | '?' | '…' => ended = true,
            '"' | '\'' | ')' | ']' | '”' => {}
            c if c.is_whitespace() && ended => return Some(at),
            _ => ended = false,
        }
        letters = if c.is_uppercase() && letters == 0 {
            1
        } else if c.is_alphanumeric() {
            2
        } else {
            0
        };
    }
    None
}

fn split_long(sentence: &str, bytes_max: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = sentence;
    while rest.len() > bytes_max {
        let mut limit = bytes_max;
        while !rest.is_char_boundary(limit) {
            limit -= 1;
        }
        let head = rest.get(..limit).unwrap_or(rest);
        let end = head
            .rfind([',', ';', ':'])
            .filter(|at| *at > bytes_max / 4)
            .map(|at| at + 1)
            .or_else(|| head.rfind(' ').filter(|at| *at > 0))
            .unwrap_or(limit);
        let (part, tail) = rest.split_at_checked(end).unwrap_or((rest, ""));
        parts.push(part);
        rest = tail;
    }
    parts.push(rest);
    parts
}

#[cfg(test)]
mod tests {
    use super::split;

    const BYTES_MAX: usize = 400;

    #[test]
    fn sentences_end_before_a_space() {
        assert_eq!(
            split("Hello there. It is J. Smith! \"Really?\" Yes", BYTES_MAX),
            ["Hello there.", " It is J. Smith!", " \"Really?\"", " Yes"]
        );
        assert!(split(" ", BYTES_MAX).is_empty());
    }

    #[test]
    fn long_text_is_split_and_complete() {
        for text in ["word ".repeat(300), "x".repeat(1_000), "é, ".repeat(400)] {
            let parts = split(&text, BYTES_MAX);
            assert!(parts.iter().all(|part| part.len() <= BYTES_MAX), "{parts:?}");
            assert_eq!(parts.concat().trim(), text.trim());
        }
    }
}
