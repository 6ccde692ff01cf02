//! Hindi text to the phonemes of the voice.

mod letters;
mod numbers;
mod text;

/// Returns the phonemes of a sentence as IPA, with spaces between words and with punctuation.
pub(crate) fn phonemes(sentence: &str) -> String {
    let words = text::words(sentence);
    let mut output = String::new();
    let mut word = String::new();
    for c in words.chars().chain([' ']) {
        match c {
            '\u{900}'..='\u{963}' | '\u{970}'..='\u{97f}' => {
                word.push(c);
                continue;
            }
            // Joiners only affect how letters look.
            '\u{200c}' | '\u{200d}' => continue,
            _ => {}
        }
        if !word.is_empty() {
            output.push_str(&letters::sounds(&std::mem::take(&mut word)));
        }
        match c {
            '।' | '॥' => output.push('.'),
            '.' | ',' | ';' | ':' | '!' | '?' | '…' | '—' => output.push(c),
            ')' | ']' => output.push(','),
            _ if output.ends_with(' ') => {}
            _ => output.push(' '),
        }
    }
    output.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::phonemes;

    #[rstest]
    #[case("नमस्ते, आपका स्वागत है।", "nəmˈʌsteː, ˈaːpkaː sʋˈaːɡət hɛː.")]
    #[case("एक (या दो) दबाएँ!", "ˈeːk jaː dˈoː, dəbˈaːe\u{303}ː!")]
    #[case("₹1 का OTP", "ˈeːk ɾˈʊpjaː kaː ˈoː ʈˈi pˈi")]
    #[case("\u{1F600} - abc", "ˈeː bˈi sˈi")]
    #[case("", "")]
    fn sentences_become_phonemes(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(phonemes(text), expected);
    }
}
