//! Converts English text to the phonemes that the voice was trained with: tokens, parts of speech,
//! the lexicon, and a network for words that the lexicon lacks. The text must be normalised, so
//! that numbers and abbreviations are words.

use super::lexicon::{CONSONANTS, Context, Lexicon, VOWELS, apply_stress, is_stressed, weight};
use super::table::Table;
use super::tagger;

/// Punctuation marks that the voice knows.
const PAUSES: &str = ";:,.!?—…";
/// Signs inside a word that are not spoken.
const JUNK: &str = "',-._’/";
/// Endings that the tagger treats as separate words.
const CLITICS: &[&str] = &["n't", "'ll", "'re", "'ve", "'s", "'d", "'m"];

/// A piece of text.
#[derive(Clone, Debug)]
struct Token {
    text: String,
    tag: String,
    /// The phonemes. `None` until they are known. Empty for text that is not spoken.
    phonemes: Option<String>,
    /// Whether a space follows.
    space: bool,
}

/// Converts sentences to phonemes. `guess` returns the phonemes of a word that is not in the
/// dictionaries.
pub(super) fn phonemes(
    sentence: &str,
    table: &Table,
    guess: &mut dyn FnMut(&str) -> Option<String>,
) -> String {
    let mut tokens = tokenise(sentence);
    tag(&mut tokens, table);
    let lexicon = Lexicon::new(table);
    let mut words = group(tokens);
    let mut context = Context::default();
    for word in words.iter_mut().rev() {
        context = read_word(word, &lexicon, context, guess);
    }
    let mut output = String::new();
    for token in words.iter().flatten() {
        output.push_str(token.phonemes.as_deref().unwrap_or_default());
        if token.space {
            output.push(' ');
        }
    }
    output.trim().replace('ɾ', "T").replace('ʔ', "t")
}

/// Splits a sentence into words, their clitics, and punctuation.
fn tokenise(sentence: &str) -> Vec<Token> {
    let token = |text: &str| Token {
        text: text.to_owned(),
        tag: String::new(),
        phonemes: None,
        space: false,
    };
    let is_mark = |c: char| !c.is_alphanumeric();
    let mut tokens: Vec<Token> = Vec::new();
    for chunk in sentence.split_whitespace() {
        // An apostrophe at the beginning or end belongs to the word: "'em", "drivers'".
        let core = chunk.trim_matches(|c| is_mark(c) && c != '\'');
        let (open, close) = match core {
            "" => (chunk, ""),
            core => chunk.split_once(core).unwrap_or(("", "")),
        };
        tokens.extend(open.chars().map(|c| token(&c.to_string())));
        for (index, part) in core.split('-').enumerate() {
            if index > 0 {
                tokens.push(token("-"));
            }
            let lower = part.to_lowercase();
            let clitic = CLITICS
                .iter()
                .find(|clitic| lower.strip_suffix(**clitic).is_some_and(|stem| !stem.is_empty()));
            let at = part.len() - clitic.map_or(0, |clitic| clitic.len());
            let (stem, clitic) = part.split_at_checked(at).unwrap_or((part, ""));
            tokens.extend([stem, clitic].iter().filter(|t| !t.is_empty()).map(|t| token(t)));
        }
        tokens.extend(close.chars().map(|c| token(&c.to_string())));
        if let Some(last) = tokens.last_mut() {
            last.space = true;
        }
    }
    tokens
}

/// Assigns the parts of speech.
fn tag(tokens: &mut [Token], table: &Table) {
    let words: Vec<&str> = tokens.iter().map(|token| token.text.as_str()).collect();
    let mut tags = tagger::tag(&words, table);
    let is_letter = |word: Option<&&str>| {
        word.is_some_and(|w| w.len() == 1 && w.bytes().all(|b| b.is_ascii_uppercase()))
    };
    // A capital A among letters or before a pause is a letter and not the article.
    for (index, tag) in tags.iter_mut().enumerate() {
        let next = words.get(index + 1);
        let is_last = next.is_none_or(|next| !next.starts_with(char::is_alphabetic));
        if words.get(index) == Some(&"A") && (is_letter(next) || is_last) {
            "NN".clone_into(tag);
        }
    }
    for (token, tag) in tokens.iter_mut().zip(tags) {
        token.tag = tag;
    }
}

/// Groups the tokens that are written without spaces between them. Each punctuation mark is a
/// separate group and gets its phonemes.
fn group(tokens: Vec<Token>) -> Vec<Vec<Token>> {
    let mut words: Vec<Vec<Token>> = Vec::new();
    let mut joins = false;
    for mut token in tokens {
        let attached_before = joins;
        joins = !token.space;
        if let Some(phonemes) = punctuation(&token, attached_before) {
            token.phonemes = Some(phonemes);
            words.push(vec![token]);
            joins = false;
        } else {
            let pieces = split_case(token);
            match words.last_mut().filter(|_| attached_before) {
                Some(word) => word.extend(pieces),
                None => words.push(pieces),
            }
        }
    }
    words
}

/// Returns the phonemes of a token that is not part of a word. `None` if the token is spoken as a
/// word.
fn punctuation(token: &Token, attached: bool) -> Option<String> {
    let mut chars = token.text.chars();
    let (Some(c), None) = (chars.next(), chars.next()) else { return None };
    if c.is_alphanumeric() {
        return None;
    }
    Some(match c {
        '(' | '[' | '{' => "(".to_owned(),
        ')' | ']' | '}' => ")".to_owned(),
        '"' if token.space => "”".to_owned(),
        '"' => "“".to_owned(),
        '-' if attached && !token.space => return None,
        '-' | '–' | '—' => "—".to_owned(),
        c if PAUSES.contains(c) => c.to_string(),
        '\'' | '/' | '_' | '%' | '&' | '+' | '@' | '=' | '#' | '*' | '~' | '^' | '|' => {
            return None;
        }
        _ => String::new(),
    })
}

/// Splits words such as "iPhone" where the case changes.
fn split_case(token: Token) -> Vec<Token> {
    let mut parts = vec![String::new()];
    let mut was_lower = false;
    for c in token.text.chars() {
        if was_lower && c.is_uppercase() {
            parts.push(String::new());
        }
        was_lower = c.is_lowercase();
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    let last = parts.len().saturating_sub(1);
    let piece = |(index, text): (usize, String)| Token {
        text,
        space: token.space && index == last,
        ..token.clone()
    };
    parts.into_iter().enumerate().map(piece).collect()
}

/// Finds the phonemes of a word, longest known parts first, and returns the context of the word
/// before it.
fn read_word(
    word: &mut [Token],
    lexicon: &Lexicon<'_>,
    mut context: Context,
    guess: &mut dyn FnMut(&str) -> Option<String>,
) -> Context {
    if let [single] = word {
        if single.phonemes.is_none() {
            let found = lexicon.word(&single.text, &single.tag, context);
            single.phonemes = found.or_else(|| Some(fallback(&single.text, guess)));
        }
        return next_context(context, single.phonemes.as_deref(), single);
    }
    let (mut left, mut right) = (0, word.len());
    let mut is_unknown = false;
    while left < right {
        let part = word.get(left..right).unwrap_or_default();
        let whole = merge(part);
        let found = if part.iter().any(|token| token.phonemes.is_some()) {
            None
        } else {
            lexicon.word(&whole.text, &whole.tag, context)
        };
        if let Some(found) = found {
            context = next_context(context, Some(&found), &whole);
            for (index, token) in word.iter_mut().take(right).skip(left).enumerate() {
                token.phonemes = Some(if index == 0 { found.clone() } else { String::new() });
            }
            right = left;
            left = 0;
        } else if left + 1 < right {
            left += 1;
        } else {
            right -= 1;
            left = 0;
            let Some(token) = word.get_mut(right) else { break };
            if token.phonemes.is_none() {
                if token.text.chars().all(|c| JUNK.contains(c)) {
                    token.phonemes = Some(String::new());
                } else {
                    is_unknown = true;
                    break;
                }
            }
        }
    }
    if is_unknown {
        let whole = merge(word);
        let phonemes = fallback(&whole.text, guess);
        context = next_context(context, Some(&phonemes), &whole);
        for (index, token) in word.iter_mut().enumerate() {
            token.phonemes = Some(if index == 0 { phonemes.clone() } else { String::new() });
        }
    } else {
        balance_stress(word);
    }
    context
}

fn merge(tokens: &[Token]) -> Token {
    let weight =
        |token: &Token| token.text.chars().map(|c| if c.is_uppercase() { 2 } else { 1 }).sum();
    let mut tag = "";
    let mut most: usize = 0;
    for token in tokens {
        let weight: usize = weight(token);
        if weight > most {
            (tag, most) = (&token.tag, weight);
        }
    }
    Token {
        text: tokens.iter().map(|token| token.text.as_str()).collect(),
        tag: tag.to_owned(),
        phonemes: None,
        space: tokens.last().is_some_and(|token| token.space),
    }
}

fn next_context(context: Context, phonemes: Option<&str>, token: &Token) -> Context {
    let sound = phonemes
        .unwrap_or_default()
        .chars()
        .find(|c| VOWELS.contains(*c) || CONSONANTS.contains(*c) || PAUSES.contains(*c));
    Context {
        vowel_follows: match sound {
            None => context.vowel_follows,
            Some(c) if PAUSES.contains(c) => None,
            Some(c) => Some(VOWELS.contains(c)),
        },
        to_follows: matches!(token.text.as_str(), "to" | "To")
            || (token.text == "TO" && matches!(token.tag.as_str(), "TO" | "IN")),
    }
}

/// Reduces the stress of the less important parts of a compound.
fn balance_stress(word: &mut [Token]) {
    let has = |f: fn(char) -> bool| word.iter().any(|token| token.text.chars().any(f));
    if has(|c| c == '/') || (has(char::is_alphabetic) && has(|c| c.is_ascii_digit())) {
        let mut first = true;
        for token in word.iter_mut() {
            if let Some(phonemes) = token.phonemes.as_mut().filter(|p| !p.is_empty())
                && !std::mem::take(&mut first)
            {
                phonemes.insert(0, ' ');
            }
        }
        return;
    }
    let mut parts: Vec<(bool, usize, usize)> = word
        .iter()
        .enumerate()
        .filter_map(|(index, token)| {
            let phonemes = token.phonemes.as_deref().filter(|p| !p.is_empty())?;
            Some((is_stressed(phonemes), weight(phonemes), index))
        })
        .collect();
    let short: Vec<usize> = (0..word.len())
        .filter(|at| word.get(*at).is_some_and(|token| token.text.chars().count() == 1))
        .collect();
    let mut weaken = |index: usize| {
        if let Some(token) = word.get_mut(index) {
            token.phonemes =
                token.phonemes.as_deref().map(|phonemes| apply_stress(phonemes, Some(-0.5)));
        }
    };
    if let &[(_, _, first), (_, _, second)] = parts.as_slice()
        && short.contains(&first)
    {
        weaken(second);
        return;
    }
    let stressed = parts.iter().filter(|(stressed, ..)| *stressed).count();
    if parts.len() < 2 || stressed <= parts.len().div_ceil(2) {
        return;
    }
    let half = parts.len() / 2;
    parts.sort_unstable();
    for (_, _, index) in parts.into_iter().take(half) {
        weaken(index);
    }
}

/// Returns phonemes for a token that is not in the dictionaries: letters by the network, signs by
/// name.
fn fallback(text: &str, guess: &mut dyn FnMut(&str) -> Option<String>) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut letters = String::new();
    let mut flush = |letters: &mut String, parts: &mut Vec<String>| {
        let word = std::mem::take(letters);
        let word = word.trim_matches('\'');
        if !word.is_empty() {
            parts.extend(guess(word).filter(|phonemes| !phonemes.is_empty()));
        }
    };
    for c in text.chars() {
        if c.is_alphabetic() || c == '\'' {
            letters.push(c);
            continue;
        }
        flush(&mut letters, &mut parts);
        parts.extend(sign_phonemes(c).map(str::to_owned));
    }
    flush(&mut letters, &mut parts);
    parts.join(" ")
}

fn sign_phonemes(c: char) -> Option<&'static str> {
    Some(match c {
        '/' => "slˈæʃ",
        '=' => "ˈikwᵊlz",
        '+' => "plˈʌs",
        '&' => "ænd",
        '@' => "æt",
        '%' => "pəɹsˈɛnt",
        '#' => "hˈæʃ",
        '*' => "stˈɑɹ",
        '~' => "tˈɪldə",
        '0' => "zˈɪɹO",
        '1' => "wˈʌn",
        '2' => "tˈu",
        '3' => "θɹˈi",
        '4' => "fˈɔɹ",
        '5' => "fˈIv",
        '6' => "sˈɪks",
        '7' => "sˈɛvən",
        '8' => "ˈAt",
        '9' => "nˈIn",
        _ => return None,
    })
}
