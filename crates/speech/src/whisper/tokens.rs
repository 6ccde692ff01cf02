//! Converts between tokens and text.

use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;

use serde::Deserialize;

use super::{SETTINGS_FILE, VOCABULARY_FILE, WhisperError};
use crate::turn_estimator::{logit, sigmoid};

/// Size of the vocabulary of the English models. Other models need a language, which is not
/// supported.
pub(super) const ENGLISH: usize = 51_864;
const END: usize = 50_256;
const START: usize = 50_257;
const START_OF_PREVIOUS: usize = 50_360;
const NO_SPEECH: usize = 50_361;
const NO_TIMESTAMPS: usize = 50_362;
/// Tokens after the last word of a sentence, and of one that is not finished.
const SENTENCE_ENDS: &[&[u8]] = &[b".", b"?", b"!"];
const SENTENCE_GOES_ON: &[&[u8]] = &[b"...", b" ...", b",", b":", b";", b"-", b" -", b"--"];
/// Coefficients of a logistic regression on the probabilities of the two, fitted to 100 sentences of the
/// neural voice, each spoken at three speeds with and without noise, and to their first parts.
const ENDS_FACTOR: f32 = 1.3;
const GOES_ON_FACTOR: f32 = -1.4;
const OFFSET: f32 = -7.0;
/// Value that is added to a probability before its logarithm.
const GOES_ON_MIN: f32 = 0.001;
/// Maximum length in bytes of a token that is used for hints.
const BYTES_MAX: usize = 20;

/// The tokens that the model must not produce.
#[derive(Deserialize)]
struct Settings {
    suppress_ids: Vec<usize>,
    suppress_ids_begin: Vec<usize>,
}

/// The vocabulary.
pub(super) struct Tokens {
    /// The bytes of each token.
    bytes: Vec<Vec<u8>>,
    by_bytes: OnceLock<HashMap<Vec<u8>, usize>>,
    settings: Settings,
    sentence_ends: Vec<usize>,
    sentence_goes_on: Vec<usize>,
}

impl Tokens {
    pub(super) fn load(folder: &Path, size: usize) -> Result<Self, WhisperError> {
        let read = |file| {
            std::fs::read(folder.join(file)).map_err(|source| WhisperError::Read { file, source })
        };
        Self::parse(&read(VOCABULARY_FILE)?, &read(SETTINGS_FILE)?, size)
    }

    /// Parses the files of a model for a network with `size` tokens.
    pub(super) fn parse(
        vocabulary: &[u8],
        settings: &[u8],
        size: usize,
    ) -> Result<Self, WhisperError> {
        let settings = serde_json::from_slice(settings)
            .map_err(|e| WhisperError::Invalid { file: SETTINGS_FILE, reason: e.to_string() })?;
        let bytes = self::vocabulary(vocabulary)?;
        if size != ENGLISH {
            let reason = format!("it has {size} tokens, an English model has {ENGLISH}");
            return Err(WhisperError::Invalid { file: VOCABULARY_FILE, reason });
        }
        let all = |of: &[&[u8]]| -> Vec<usize> {
            (0..).zip(&bytes).filter(|(_, b)| of.contains(&b.as_slice())).map(|(n, _)| n).collect()
        };
        Ok(Self {
            sentence_ends: all(SENTENCE_ENDS),
            sentence_goes_on: all(SENTENCE_GOES_ON),
            bytes,
            by_bytes: OnceLock::new(),
            settings,
        })
    }

    pub(super) fn start(&self) -> usize {
        START
    }

    pub(super) fn no_timestamps(&self) -> usize {
        NO_TIMESTAMPS
    }

    pub(super) fn no_speech(&self) -> usize {
        NO_SPEECH
    }

    pub(super) fn is_end(&self, token: usize) -> bool {
        token == END
    }

    /// Sets the probability of tokens that are not speech to zero.
    pub(super) fn suppress(&self, logits: &mut [f32], first: bool) {
        let begin = if first { &self.settings.suppress_ids_begin[..] } else { &[] };
        for token in self.settings.suppress_ids.iter().chain(begin).copied().chain(START..ENGLISH) {
            if let Some(logit) = logits.get_mut(token) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    /// Returns whether the token is a word or a part of one.
    pub(super) fn is_word(&self, token: usize) -> bool {
        let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || !byte.is_ascii();
        token < END && self.bytes.get(token).is_some_and(|bytes| bytes.iter().any(is_letter))
    }

    /// Returns the probability that the speaker has finished. `row` has the probabilities of the token
    /// after the last word: the model expects a full stop or a question mark after a finished
    /// sentence, and a word, a comma or an ellipsis after an unfinished one.
    pub(super) fn finished(&self, row: &[f32]) -> f32 {
        let of =
            |tokens: &[usize]| -> f32 { tokens.iter().filter_map(|token| row.get(*token)).sum() };
        let ends = of(&self.sentence_ends) + of(&[END]) / 2.0;
        let goes_on = of(&self.sentence_goes_on);
        sigmoid(ENDS_FACTOR * logit(ends) + GOES_ON_FACTOR * (goes_on + GOES_ON_MIN).ln() + OFFSET)
    }

    /// Converts hints to tokens of a preceding text, because the model continues a text in its
    /// words. Each token is the longest one that fits. They may differ from the tokens in training,
    /// but have the same letters.
    pub(super) fn hints(&self, hints: &str, max: usize) -> Vec<usize> {
        if hints.is_empty() {
            return Vec::new();
        }
        let by_bytes = self.by_bytes.get_or_init(|| {
            (0..).zip(&self.bytes).take(END).map(|(token, bytes)| (bytes.clone(), token)).collect()
        });
        let mut tokens = vec![START_OF_PREVIOUS];
        let mut rest = hints.as_bytes();
        while !rest.is_empty() && tokens.len() < max {
            let longest = (1..=BYTES_MAX.min(rest.len())).rev().find_map(|length| {
                let (head, tail) = rest.split_at_checked(length)?;
                Some((*by_bytes.get(head)?, tail))
            });
            let Some((token, tail)) = longest else { break };
            tokens.push(token);
            rest = tail;
        }
        tokens
    }

    /// Converts tokens to text. Text without a letter or digit is empty: the model finds a full stop
    /// in music.
    pub(super) fn text(&self, tokens: &[usize]) -> String {
        let bytes: Vec<u8> =
            tokens.iter().filter_map(|token| self.bytes.get(*token)).flatten().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        if text.contains(char::is_alphanumeric) { text.trim().to_owned() } else { String::new() }
    }
}

/// Parses the vocabulary: a token per line, with a letter for each byte, as in GPT-2.
fn vocabulary(file: &[u8]) -> Result<Vec<Vec<u8>>, WhisperError> {
    let invalid =
        |reason: &str| WhisperError::Invalid { file: VOCABULARY_FILE, reason: reason.to_owned() };
    let text = std::str::from_utf8(file).map_err(|_| invalid("it is not UTF-8"))?;
    let is_printable = |byte: &u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    // Bytes that are not printable are represented by letters from 256 on.
    let others = (256u32..).zip((0..=255u8).filter(|byte| !is_printable(byte)));
    let letters: HashMap<char, u8> = (0..=255u8)
        .filter(is_printable)
        .map(|byte| (u32::from(byte), byte))
        .chain(others)
        .filter_map(|(letter, byte)| Some((char::from_u32(letter)?, byte)))
        .collect();
    let tokens: Vec<Vec<u8>> = text
        .lines()
        .map(|line| line.chars().filter_map(|c| letters.get(&c).copied()).collect())
        .collect();
    if tokens.len() == ENGLISH {
        Ok(tokens)
    } else {
        Err(invalid("it is not that of an English model"))
    }
}
