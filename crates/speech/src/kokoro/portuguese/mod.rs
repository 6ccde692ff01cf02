//! Brazilian Portuguese text to the phonemes of the voice.

mod letters;
mod numbers;
mod text;

/// A word and the punctuation after it.
#[derive(Default)]
struct Word {
    sounds: String,
    /// Whether it has no stress of its own if another word follows.
    is_unstressed: bool,
    mark: Option<char>,
}

/// Returns the phonemes of a sentence, with spaces between words and with punctuation.
pub(crate) fn phonemes(sentence: &str) -> String {
    let mut words = split(&text::words(sentence).to_lowercase());
    for at in (0..words.len()).rev() {
        let next = words.get(at + 1).map(|next| next.sounds.clone());
        let Some(word) = words.get_mut(at) else { continue };
        if let (Some(next), None) = (next, word.mark) {
            connect(word, &next);
        }
    }
    let mut output = String::new();
    for word in words {
        if !output.is_empty() {
            output.push(' ');
        }
        output.push_str(&word.sounds);
        output.extend(word.mark);
    }
    output
}

/// Separates text in lower-case letters into words.
fn split(text: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut letters = String::new();
    for c in text.chars().chain([' ']) {
        match c {
            // A hyphen or an apostrophe joins the parts of a word.
            c if c.is_alphabetic() || matches!(c, '-' | '\'') => {
                letters.push(c);
                continue;
            }
            _ => {}
        }
        let word = std::mem::take(&mut letters);
        let sounds: String = word.split(['-', '\'']).map(letters::sounds).collect();
        if !sounds.is_empty() {
            words.push(Word { sounds, is_unstressed: letters::is_unstressed(&word), mark: None });
        }
        let mark = match c {
            '.' | ',' | ';' | ':' | '!' | '?' | '…' | '—' => c,
            '(' | ')' | '[' | ']' => ',',
            _ => continue,
        };
        if let Some(word) = words.last_mut().filter(|word| word.mark.is_none_or(|mark| mark == ','))
        {
            word.mark = Some(mark);
        }
    }
    words
}

/// Changes the end of a word as the next one, which follows without a pause, requires it.
fn connect(word: &mut Word, next: &str) {
    let is_vowel = |c: char| "aeiouyɐæɛɔɪʊAIWY".contains(c);
    let first = next.chars().find(|c| !matches!(c, 'ˈ' | 'ˌ')).unwrap_or_default();
    if word.is_unstressed {
        let syllables = word.sounds.chars().filter(|c| is_vowel(*c)).count();
        let has_one =
            syllables == 1 || (syllables == 2 && word.sounds.ends_with(['ʊ', 'ɪ', '\u{303}']));
        word.sounds = word.sounds.replace('ˈ', if has_one { "" } else { "ˌ" });
    }
    let mut sounds = word.sounds.chars().rev();
    let ending = match (sounds.next(), sounds.next()) {
        (Some('s'), _) if is_vowel(first) || "bdʤɡvzʒmnɲlʎx".contains(first) => 'z',
        (Some('r'), _) if is_vowel(first) => 'ɾ',
        (Some('y'), Some('l')) if is_vowel(first) => 'i',
        (Some('y'), Some('ʧ' | 'ʤ')) if is_vowel(first) => 'j',
        (Some('y'), Some(before)) if is_vowel(first) && !is_vowel(before) => match first {
            'o' | 'ɔ' => return,
            _ if word.is_unstressed => return,
            _ => 'j',
        },
        (Some('ʊ'), Some(before))
            if is_vowel(first) && !is_vowel(before) && !word.is_unstressed =>
        {
            'w'
        }
        _ => return,
    };
    word.sounds.pop();
    word.sounds.push(ending);
}

#[cfg(test)]
mod tests;
