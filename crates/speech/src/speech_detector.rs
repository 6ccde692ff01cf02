//! Tells speech from other sounds, such as music and street noise, with a network. It runs only in
//! the speech helper.
//!
//! The network is Silero VAD v5 (<https://github.com/snakers4/silero-vad>). For every 32 ms it
//! returns the probability of speech. It remembers what came before in a state, and each window
//! begins with the last samples of the previous one.

use std::path::Path;

use rten::{Model, ModelOptions, NodeId, OpRegistry, ValueView, op_registry};

use crate::whisper::{RATE, full_scale};

/// The file of an installed model.
pub(crate) const NETWORK_FILE: &str = "speech.onnx";

/// Number of samples of a window, and of those before it that the network also needs.
const WINDOW: usize = 512;
const CONTEXT: usize = 64;
/// The size of the network's state.
const STATE: [usize; 3] = [2, 1, 128];
/// Minimum probability of a window that counts as speech.
const PROBABILITY_MIN: f32 = 0.5;
/// Minimum number of such windows: about 100 ms. The shortest words take twice as long.
const WINDOWS_MIN: usize = 3;

/// The reason why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DetectorError {
    #[error("could not read {NETWORK_FILE}: {0}")]
    Read(#[from] std::io::Error),
    #[error("could not use {NETWORK_FILE}: {0}")]
    Invalid(String),
    #[error("could not run the network: {0}")]
    Run(String),
}

/// A loaded model.
pub(crate) struct SpeechDetector {
    network: Model,
    input: NodeId,
    state: NodeId,
    rate: NodeId,
    output: NodeId,
    next_state: NodeId,
}

impl SpeechDetector {
    /// Loads the model from its folder.
    pub(crate) fn load(folder: &Path) -> Result<Self, DetectorError> {
        Self::new(std::fs::read(folder.join(NETWORK_FILE))?)
    }

    fn new(network: Vec<u8>) -> Result<Self, DetectorError> {
        let invalid = |reason: &dyn std::fmt::Display| DetectorError::Invalid(reason.to_string());
        let network = ModelOptions::with_ops(operators()).load(network).map_err(|e| invalid(&e))?;
        let node = |name| network.node_id(name).map_err(|e| invalid(&e));
        let (input, state, rate) = (node("input")?, node("state")?, node("sr")?);
        let (output, next_state) = (node("output")?, node("stateN")?);
        Ok(Self { network, input, state, rate, output, next_state })
    }

    /// Returns whether mono audio at 16 kHz contains speech.
    pub(crate) fn has_speech(&self, pcm: &[i16]) -> Result<bool, DetectorError> {
        let mut windows = 0;
        self.run(pcm, |probability| {
            windows += usize::from(probability >= PROBABILITY_MIN);
            windows < WINDOWS_MIN
        })?;
        Ok(windows >= WINDOWS_MIN)
    }

    /// Calls `on_window` with the probability of speech of each window, until it returns `false`. The
    /// last window is completed with silence.
    fn run(
        &self,
        pcm: &[i16],
        mut on_window: impl FnMut(f32) -> bool,
    ) -> Result<(), DetectorError> {
        let failed = |e: &dyn std::fmt::Display| DetectorError::Run(e.to_string());
        let rate = [RATE as i32];
        let mut state = vec![0.0; STATE.iter().product()];
        let mut samples = vec![0.0; CONTEXT + WINDOW];
        for window in pcm.chunks(WINDOW) {
            let context = samples.split_off(WINDOW);
            samples = context;
            samples.extend(window.iter().copied().map(full_scale));
            samples.resize(CONTEXT + WINDOW, 0.0);
            let input =
                ValueView::from_shape([1, CONTEXT + WINDOW], &samples).map_err(|e| failed(&e))?;
            let before = ValueView::from_shape(STATE, &state).map_err(|e| failed(&e))?;
            let rate = ValueView::from_shape([] as [usize; 0], &rate).map_err(|e| failed(&e))?;
            let inputs = vec![
                (self.input, input.into()),
                (self.state, before.into()),
                (self.rate, rate.into()),
            ];
            let [output, next] = self
                .network
                .run_n(inputs, [self.output, self.next_state], None)
                .map_err(|e| failed(&e))?;
            let (_, output) = output.into_shape_vec::<f32, 2>().map_err(|e| failed(&e))?;
            (_, state) = next.into_shape_vec::<f32, 3>().map_err(|e| failed(&e))?;
            let probability = match output.as_slice() {
                [probability] if (0.0..=1.0).contains(probability) => *probability,
                _ => return Err(DetectorError::Run("its output is not a probability".to_owned())),
            };
            if !on_window(probability) {
                break;
            }
        }
        Ok(())
    }
}

/// Checks before installation that a network runs.
///
/// # Errors
///
/// Fails with the reason if the network is damaged or another one.
pub(crate) fn check(network: &[u8]) -> Result<(), DetectorError> {
    SpeechDetector::new(network.to_vec())?.has_speech(&[0; WINDOW]).map(drop)
}

/// The operators of the network. Others are refused.
fn operators() -> OpRegistry {
    op_registry!(
        Add,
        Cast,
        Concat,
        ConstantOfShape,
        Conv,
        Equal,
        Gather,
        Identity,
        If,
        LSTM,
        Not,
        Pad,
        Pow,
        ReduceMean,
        Relu,
        Reshape,
        Shape,
        Sigmoid,
        Size,
        Slice,
        Sqrt,
        Squeeze,
        Transpose,
        Unsqueeze
    )
}

#[cfg(test)]
mod tests;
