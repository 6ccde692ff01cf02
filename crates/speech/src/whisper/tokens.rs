//! Converts between tokens and text.

use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;

use serde::Deserialize;

use super::{SETTINGS_FILE, VOCABULARY_FILE, WhisperError};

/// Size of the vocabulary of the English models. Other models need a language, which is not
/// supported.
pub(super) const ENGLISH: usize = 51_864;
const END: usize = 50_256;
const START: usize = 50_257;
const START_OF_PREVIOUS: usize = 50_360;
const NO_SPEECH: usize = 50_361;
const NO_TIMESTAMPS: usize = 50_362;
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
        Ok(Self { bytes, by_bytes: OnceLock::new(), settings })
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
