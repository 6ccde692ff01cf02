//! Whisper, a network that transcribes English speech: log-mel spectrum, encoder, and a decoder
//! that produces one token after the other. It runs only in the speech helper.
//!
//! The model has the format of CTranslate2, which [`crate::models`] converts at installation. The
//! front end and the decoding follow the reference code of OpenAI
//! (<https://github.com/openai/whisper>), with these differences: the encoder processes the length
//! of the speech instead of 30 s, decoding is greedy without timestamps, and repetitions end it.

#[allow(
    clippy::indexing_slicing,
    reason = "indices follow from the lengths that are computed beside them"
)]
mod mel;
mod network;
mod tokens;
pub(crate) mod weights;

use std::path::Path;

pub(crate) use mel::{BANDS, Spectrogram};
use network::Network;
use tokens::Tokens;
use weights::Weights;

/// The files of an installed model.
pub(crate) const WEIGHTS_FILE: &str = "model.safetensors";
pub(crate) const VOCABULARY_FILE: &str = "vocabulary.txt";
pub(crate) const SETTINGS_FILE: &str = "config.json";

/// Sample rate in Hz.
pub(crate) const RATE: usize = 16_000;
/// Maximum length of speech that is processed at once, in seconds.
pub(crate) const SECONDS_MAX: usize = 30;
/// Number of samples per position of the encoder.
const SAMPLES_PER_POSITION: usize = 320;
/// Number of positions of the longest speech. The model was trained with this number.
const POSITIONS_MAX: usize = RATE * SECONDS_MAX / SAMPLES_PER_POSITION;
/// Number of positions of silence after the speech. With fewer, the model repeats the last
/// sentence.
const SILENT_POSITIONS: usize = 200;
/// The result counts as silence if the model's probability of no speech is above [`NO_SPEECH`] and
/// the mean logarithm of its tokens' probabilities below [`UNLIKELY`], as in the reference code.
const NO_SPEECH: f32 = 0.6;
const UNLIKELY: f32 = -1.0;
/// Level of the loudest sample up to which audio counts as silence: 60 dB below full scale. The
/// model would find words in such audio.
const SILENCE_MAX: u16 = 33;
/// Maximum number of tokens per second of speech, followed by the number of additional tokens.
const TOKENS_PER_SECOND: usize = 8;
const TOKENS_BESIDES: usize = 12;
/// Minimum number of tokens that count as doubled if they are found twice: not "no, no".
const DOUBLED_MIN: usize = 3;
/// Maximum number of tokens of hints.
const HINT_TOKENS_MAX: usize = 48;

/// The reason why a model could not be loaded or speech could not be recognised.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WhisperError {
    #[error("could not read {file}: {source}")]
    Read { file: &'static str, source: std::io::Error },
    #[error("could not use {file}: {reason}")]
    Invalid { file: &'static str, reason: String },
    #[error("could not run the network: {0}")]
    Run(String),
}

/// Recognised words.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Words {
    pub(crate) text: String,
    /// The mean probability of the tokens, from 0 to 1.
    pub(crate) confidence: f32,
}

/// A loaded model.
pub(crate) struct Whisper {
    spectrogram: Spectrogram,
    network: Network,
    tokens: Tokens,
}

impl Whisper {
    /// Loads a model from its folder. The weights are memory-mapped.
    pub(crate) fn load(folder: &Path) -> Result<Self, WhisperError> {
        let weights = Weights::open(&folder.join(WEIGHTS_FILE))?;
        let network = Network::new(weights)?;
        let tokens = Tokens::load(folder, network.vocabulary())?;
        Ok(Self { spectrogram: Spectrogram::new(), network, tokens })
    }

    /// Recognises at most [`SECONDS_MAX`] of speech; the rest is ignored.
    pub(crate) fn recognise(&self, pcm: &[i16], hints: &str) -> Result<Words, WhisperError> {
        let pcm = pcm.get(..RATE * SECONDS_MAX).unwrap_or(pcm);
        if pcm.iter().all(|sample| sample.unsigned_abs() <= SILENCE_MAX) {
            return Ok(Words { text: String::new(), confidence: 0.0 });
        }
        let positions = pcm.len().div_ceil(SAMPLES_PER_POSITION) + SILENT_POSITIONS;
        let (words, repeats) = self.decode(pcm, hints, positions.min(POSITIONS_MAX))?;
        if !repeats || positions >= POSITIONS_MAX {
            return Ok(words);
        }
        // The decoder repeats itself, which is rare with the length that it was trained with.
        self.decode(pcm, hints, POSITIONS_MAX).map(|(words, _)| words)
    }

    /// Recognises speech with this number of encoder positions. Also returns whether the text repeats
    /// itself. If it ends with repetitions, it was truncated.
    fn decode(
        &self,
        pcm: &[i16],
        hints: &str,
        positions: usize,
    ) -> Result<(Words, bool), WhisperError> {
        let samples: Vec<f32> = pcm.iter().copied().map(full_scale).collect();
        let frames = self.spectrogram.log_mel(&samples, positions * 2);
        let mut decoder = self.network.encode(&frames, positions)?;

        let mut prompt = self.tokens.hints(hints, HINT_TOKENS_MAX);
        prompt.push(self.tokens.start());
        let (last, before) = prompt
            .split_last()
            .ok_or_else(|| WhisperError::Run("the start token is missing".into()))?;
        for token in before {
            decoder.advance(*token)?;
        }
        let mut logits = decoder.next(*last)?;
        let no_speech = probability(&logits, self.tokens.no_speech());
        let mut token = self.tokens.no_timestamps();
        let limit = pcm.len() * TOKENS_PER_SECOND / RATE + TOKENS_BESIDES;
        let (mut text, mut likelihood, mut repeats) = (Vec::new(), 0.0, false);
        let mut count = 0f32;
        while text.len() < limit {
            logits = decoder.next(token)?;
            self.tokens.suppress(&mut logits, text.is_empty());
            token = most_likely(&logits);
            likelihood += probability(&logits, token).max(1e-10).ln();
            count += 1.0;
            if self.tokens.is_end(token) {
                break;
            }
            text.push(token);
            if let Some(end) = repetition(&text) {
                text.truncate(end);
                repeats = true;
                break;
            }
        }
        repeats |= is_doubled(&text);
        let likelihood = likelihood / count.max(1.0);
        if no_speech > NO_SPEECH && likelihood < UNLIKELY {
            text.clear();
        }
        let confidence = likelihood.exp().clamp(0.0, 1.0);
        Ok((Words { text: self.tokens.text(&text), confidence }, repeats))
    }
}

/// Scales a sample so that full scale is 1.
pub(crate) fn full_scale(sample: i16) -> f32 {
    f32::from(sample) / 32_768.0
}

/// Checks the files of a model before installation, so that it can be loaded.
pub(crate) fn check(
    weights: &[u8],
    vocabulary: &[u8],
    settings: &[u8],
) -> Result<(), WhisperError> {
    let weights = Weights::new(weights.to_vec().into())?;
    Tokens::parse(vocabulary, settings, Network::new(weights)?.vocabulary()).map(drop)
}

/// Returns the probability of a token.
fn probability(logits: &[f32], token: usize) -> f32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|logit| (logit - largest).exp()).sum();
    logits.get(token).map_or(0.0, |logit| (logit - largest).exp() / sum)
}

fn most_likely(logits: &[f32]) -> usize {
    let best = |best: (usize, f32), (token, &logit): (usize, &f32)| {
        if logit > best.1 { (token, logit) } else { best }
    };
    logits.iter().enumerate().fold((0, f32::NEG_INFINITY), best).0
}

/// Returns the end of the text if the same tokens are repeated at its end, which is a common fault
/// of the model. Short sequences may be repeated more often: "no, no, no". Returns `None` without
/// such a repetition.
fn repetition(tokens: &[usize]) -> Option<usize> {
    (1..=32).find_map(|length| {
        let times = match length {
            ..3 => 8,
            3..6 => 4,
            6.. => 2,
        };
        let mut sequences = tokens.rchunks_exact(length);
        let last = sequences.next()?;
        let repeated = sequences.take(times - 1).filter(|sequence| *sequence == last).count();
        (repeated == times - 1).then(|| tokens.len() - length * (times - 1))
    })
}

/// Returns whether the text is the same words twice. The model repeats a short sentence if little
/// silence surrounds it, but callers may also say it twice.
fn is_doubled(text: &[usize]) -> bool {
    let (first, second) = text.split_at(text.len() / 2);
    first.len() >= DOUBLED_MIN && first == second
}

#[cfg(test)]
mod tests;
