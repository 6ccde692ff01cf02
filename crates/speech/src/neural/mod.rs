//! The neural voice: text to phonemes, phonemes to a spectrum, and the spectrum to a waveform. It
//! runs only in the speech helper.
//!
//! The parts are those of the Python package `hibari-tts` (Apache-2.0), which [`crate::models`]
//! converts at installation: two ONNX networks, and one sorted table with the dictionaries and the
//! weights of the tagger.

mod lexicon;
pub(crate) mod mapped;
mod phonemes;
pub(crate) mod table;
mod tagger;
#[allow(
    clippy::indexing_slicing,
    reason = "indices follow from the lengths that are checked at the beginning"
)]
mod vocoder;

use std::collections::HashMap;
use std::path::Path;

use rten::{Model, ModelOptions, NodeId, OpRegistry, ValueView, op_registry};
use serde::Deserialize;

use mapped::Mapped;
use table::Table;
use vocoder::{BINS, RATE, Spectrum, Vocoder};

/// The files of an installed voice.
pub(crate) const ACOUSTIC_FILE: &str = "voice.onnx";
pub(crate) const GUESSER_FILE: &str = "guesser.onnx";
pub(crate) const GUESSER_LETTERS_FILE: &str = "guesser.json";
pub(crate) const PHONEMES_FILE: &str = "phonemes.json";
pub(crate) const TABLE_FILE: &str = "english.table";

/// Maximum number of phonemes that are spoken at once: about half a minute.
const PHONEMES_MAX: usize = 400;
/// Factors of the pitch and the resonances for a man's voice, which is derived from the woman's
/// voice.
const MALE_PITCH: f32 = 0.62;
const MALE_RESONANCE: f32 = 0.88;

/// Starts the thread that runs the networks, and waits until it is running, because its start needs
/// system calls that are refused later. One thread is enough, because two helpers share the
/// processors with the media threads.
pub(crate) fn start_threads() {
    run_on_threads(|| ());
}

/// Runs a function on the thread that runs the networks.
pub(crate) fn run_on_threads<R: Send>(run: impl FnOnce() -> R + Send) -> R {
    rten::thread_pool().run(run)
}

/// The delivery of a sentence: factors of the normal rate and pitch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    pub(crate) rate: f32,
    pub(crate) pitch: f32,
    pub(crate) male: bool,
}

/// The reason why a voice could not be loaded or a sentence could not be spoken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NeuralError {
    #[error("could not read {file}: {source}")]
    Read { file: &'static str, source: std::io::Error },
    #[error("could not parse {file}: {reason}")]
    Parse { file: &'static str, reason: String },
    #[error("could not run the neural network: {0}")]
    Run(String),
    #[error("could not use the output of the neural network: its shape is wrong")]
    Output,
}

/// A loaded voice.
pub(crate) struct Voice {
    acoustic: Model,
    acoustic_inputs: [NodeId; 2],
    acoustic_outputs: [NodeId; 6],
    guesser: Model,
    letters: HashMap<char, i32>,
    letters_max: usize,
    sounds: Vec<char>,
    phonemes: HashMap<char, i32>,
    table: Table,
    vocoder: Vocoder,
}

/// The alphabet of the network that guesses pronunciations.
#[derive(Deserialize)]
struct Alphabet {
    r#in: Vec<String>,
    out: Vec<String>,
    maxlen: usize,
}

impl Voice {
    /// Loads a voice from its folder.
    pub(crate) fn load(folder: &Path) -> Result<Self, NeuralError> {
        let acoustic = network(folder, ACOUSTIC_FILE)?;
        let node = |name: &str| {
            acoustic
                .node_id(name)
                .map_err(|e| NeuralError::Parse { file: ACOUSTIC_FILE, reason: e.to_string() })
        };
        let acoustic_inputs = [node("ids")?, node("speed")?];
        let acoustic_outputs =
            [node("lh")?, node("theta")?, node("ln")?, node("lr")?, node("phi")?, node("f0")?];
        let alphabet: Alphabet = json(folder, GUESSER_LETTERS_FILE)?;
        let letters = (1..).zip(&alphabet.r#in).filter_map(|(n, c)| Some((c.chars().next()?, n)));
        let phonemes: HashMap<char, i32> = json(folder, PHONEMES_FILE)?;
        let table = Mapped::open(&folder.join(TABLE_FILE))
            .map_err(|source| NeuralError::Read { file: TABLE_FILE, source })?;
        Ok(Self {
            acoustic_inputs,
            acoustic_outputs,
            guesser: network(folder, GUESSER_FILE)?,
            letters: letters.collect(),
            letters_max: alphabet.maxlen.min(64),
            sounds: alphabet.out.iter().filter_map(|c| c.chars().next()).collect(),
            phonemes,
            table: Table::new(table),
            vocoder: Vocoder::new(),
            acoustic,
        })
    }

    /// Returns the phonemes of a sentence.
    pub(crate) fn phonemes(&self, sentence: &str) -> String {
        phonemes::phonemes(sentence, &self.table, &mut |word| self.guess(word))
    }

    /// Speaks a sentence. Passes samples and their rate to `deliver`.
    pub(crate) fn speak<E: From<NeuralError>>(
        &self,
        sentence: &str,
        delivery: Delivery,
        mut deliver: impl FnMut(u32, Vec<f32>) -> Result<(), E>,
    ) -> Result<(), E> {
        let ids: Vec<i32> = self
            .phonemes(sentence)
            .chars()
            .filter_map(|c| self.phonemes.get(&c).copied())
            .collect();
        let pause = self.phonemes.get(&' ').copied();
        for part in split_phonemes(&ids, pause) {
            let (rate, samples) = self.speak_phonemes(part, delivery)?;
            deliver(rate, samples)?;
        }
        Ok(())
    }

    fn speak_phonemes(
        &self,
        ids: &[i32],
        delivery: Delivery,
    ) -> Result<(u32, Vec<f32>), NeuralError> {
        // Slower playback lowers every resonance. Faster speech compensates for the time.
        let slowdown = if delivery.male { MALE_RESONANCE } else { 1.0 };
        let pitch = if delivery.male { MALE_PITCH / MALE_RESONANCE } else { 1.0 };
        let speed = [(delivery.rate / slowdown).clamp(0.3, 4.0)];
        let mut input = vec![0];
        input.extend_from_slice(ids);
        input.push(0);
        let view = ValueView::from_shape([1, input.len()], &input).map_err(run_error)?;
        let speed = ValueView::from_shape([1], &speed).map_err(run_error)?;
        let [ids_node, speed_node] = self.acoustic_inputs;
        let outputs = self
            .acoustic
            .run_n(
                vec![(ids_node, view.into()), (speed_node, speed.into())],
                self.acoustic_outputs,
                None,
            )
            .map_err(run_error)?;
        let [lh, theta, ln, lr, phi, f0] = outputs;
        let part = |value: rten::Value| {
            let ([_, bins, _], data) =
                value.into_shape_vec::<f32, 3>().map_err(|_| NeuralError::Output)?;
            if bins == BINS { Ok(data) } else { Err(NeuralError::Output) }
        };
        let (_, pitches) = f0.into_shape_vec::<f32, 2>().map_err(|_| NeuralError::Output)?;
        let (lh, theta, ln, lr, phi) = (part(lh)?, part(theta)?, part(ln)?, part(lr)?, part(phi)?);
        let spectrum = Spectrum {
            harmonic: &lh,
            theta: &theta,
            noise: &ln,
            rest: &lr,
            phi: &phi,
            pitch: &pitches,
        };
        let scale = (pitch * delivery.pitch).clamp(0.3, 3.0);
        let samples = self.vocoder.synthesise(&spectrum, scale).ok_or(NeuralError::Output)?;
        Ok(((RATE as f32 * slowdown) as u32, samples))
    }

    /// Guesses the phonemes of a word that is not in the dictionaries. Returns `None` if the
    /// network fails or supports none of the letters.
    fn guess(&self, word: &str) -> Option<String> {
        let ids: Vec<i32> = word
            .chars()
            .filter_map(|c| self.letters.get(&c).copied())
            .take(self.letters_max)
            .collect();
        if ids.is_empty() {
            return None;
        }
        let view = ValueView::from_shape([1, ids.len()], &ids).ok()?;
        let output = self.guesser.run_one(view.into(), None).ok()?;
        let (_, output) = output.into_shape_vec::<i32, 2>().ok()?;
        // Repeated sounds count once, and 0 means no sound.
        let mut phonemes = String::new();
        let mut last = 0;
        for id in output {
            if id != last && id > 0 {
                let index = usize::try_from(id).ok()?.checked_sub(1)?;
                phonemes.push(*self.sounds.get(index)?);
            }
            last = id;
        }
        Some(phonemes)
    }
}

fn run_error(error: impl ToString) -> NeuralError {
    NeuralError::Run(error.to_string())
}

/// The operators of the voice's networks. Others are not part of the program, and a network that has
/// one is refused.
fn operators() -> OpRegistry {
    op_registry!(
        Add,
        ArgMax,
        Cast,
        Clip,
        Concat,
        Conv,
        CumSum,
        Div,
        DynamicQuantizeLinear,
        Erf,
        Exp,
        Gather,
        GreaterOrEqual,
        LayerNormalization,
        Log,
        MatMul,
        MatMulInteger,
        Mul,
        Pow,
        Range,
        ReduceSum,
        Relu,
        Reshape,
        Round,
        Shape,
        Slice,
        Softmax,
        Split,
        Sub,
        Tile,
        Transpose,
        Unsqueeze
    )
}

fn network(folder: &Path, file: &'static str) -> Result<Model, NeuralError> {
    let bytes =
        std::fs::read(folder.join(file)).map_err(|source| NeuralError::Read { file, source })?;
    ModelOptions::with_ops(operators())
        .prepack_weights(true)
        .load(bytes)
        .map_err(|e| NeuralError::Parse { file, reason: e.to_string() })
}

fn json<T: serde::de::DeserializeOwned>(
    folder: &Path,
    file: &'static str,
) -> Result<T, NeuralError> {
    let bytes =
        std::fs::read(folder.join(file)).map_err(|source| NeuralError::Read { file, source })?;
    serde_json::from_slice(&bytes).map_err(|e| NeuralError::Parse { file, reason: e.to_string() })
}

/// Splits long speech at spaces between words.
fn split_phonemes(ids: &[i32], space: Option<i32>) -> Vec<&[i32]> {
    let mut parts = Vec::new();
    let mut rest = ids;
    while rest.len() > PHONEMES_MAX {
        let head = rest.get(..PHONEMES_MAX).unwrap_or(rest);
        let end = head.iter().rposition(|id| Some(*id) == space).map_or(PHONEMES_MAX, |at| at + 1);
        let (part, tail) = rest.split_at(end);
        parts.push(part);
        rest = tail;
    }
    if !rest.is_empty() {
        parts.push(rest);
    }
    parts
}
