//! The end of a caller's turn: a network that estimates from the sound of the last seconds whether
//! the speaker has finished. It runs only in the speech helper.
//!
//! The network is Smart Turn v3 (<https://github.com/pipecat-ai/smart-turn>), the encoder of Whisper
//! with another head. Its input is the spectrum of 8 s that end with the pause; shorter speech
//! follows silence. The samples are normalised to a mean of zero and a variance of one.

mod graph;

use std::path::Path;

use rten::{Model, ModelOptions, NodeId, OpRegistry, ValueView, op_registry};

use crate::whisper::{BANDS, RATE, Spectrogram, full_scale};

/// The file of an installed model.
pub(crate) const NETWORK_FILE: &str = "turn.onnx";

/// Length of the audio that the network processes.
const SAMPLES: usize = 8 * RATE;
/// Number of rows of its spectrum, one per 10 ms.
const FRAMES: usize = 800;
/// Number of samples after the end that the last row needs. They are mirrored at the end.
const MARGIN: usize = 200;
/// Value that is added to the variance of the samples before its square root.
const EPSILON: f32 = 1e-7;

/// The reason why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TurnError {
    #[error("could not read {NETWORK_FILE}: {0}")]
    Read(#[from] std::io::Error),
    #[error("could not use {NETWORK_FILE}: {0}")]
    Invalid(String),
    #[error("could not run the network: {0}")]
    Run(String),
}

/// A loaded model.
pub(crate) struct TurnModel {
    network: Model,
    input: NodeId,
    output: NodeId,
    spectrogram: Spectrogram,
}

impl TurnModel {
    /// Loads the model from its folder.
    pub(crate) fn load(folder: &Path) -> Result<Self, TurnError> {
        Self::new(std::fs::read(folder.join(NETWORK_FILE))?)
    }

    fn new(network: Vec<u8>) -> Result<Self, TurnError> {
        let invalid = |reason: &dyn std::fmt::Display| TurnError::Invalid(reason.to_string());
        let network = ModelOptions::with_ops(operators())
            .prepack_weights(true)
            .load(network)
            .map_err(|e| invalid(&e))?;
        let node = |name| network.node_id(name).map_err(|e| invalid(&e));
        let (input, output) = (node("input_features")?, node("logits")?);
        Ok(Self { network, input, output, spectrogram: Spectrogram::new() })
    }

    /// Returns the probability that the speaker has finished, from 0 to 1. The audio ends with the
    /// pause; only its last 8 s count.
    pub(crate) fn estimate(&self, pcm: &[i16]) -> Result<f32, TurnError> {
        let failed = |e: &dyn std::fmt::Display| TurnError::Run(e.to_string());
        let rows = self.spectrogram.log_mel(&normalise(pcm), FRAMES);
        // The network reads one band after the other.
        let input: Vec<f32> =
            (0..BANDS).flat_map(|band| rows.iter().skip(band).step_by(BANDS).copied()).collect();
        let view = ValueView::from_shape([1, BANDS, FRAMES], &input).map_err(|e| failed(&e))?;
        let output = self
            .network
            .run_n(vec![(self.input, view.into())], [self.output], None)
            .map_err(|e| failed(&e))?;
        let [output] = output;
        let (_, output) = output.into_shape_vec::<f32, 2>().map_err(|e| failed(&e))?;
        match output.as_slice() {
            [probability] if (0.0..=1.0).contains(probability) => Ok(*probability),
            _ => Err(TurnError::Run("its output is not a probability".to_owned())),
        }
    }
}

/// Returns the last 8 s, after silence if there is less, with a mean of zero and a variance of one,
/// followed by the mirrored margin.
fn normalise(pcm: &[i16]) -> Vec<f32> {
    let pcm = pcm.get(pcm.len().saturating_sub(SAMPLES)..).unwrap_or_default();
    let mut samples = vec![0.0; SAMPLES - pcm.len()];
    samples.extend(pcm.iter().copied().map(full_scale));
    let count = SAMPLES as f32;
    let mean = samples.iter().sum::<f32>() / count;
    let variance = samples.iter().map(|sample| (sample - mean).powi(2)).sum::<f32>() / count;
    let scale = 1.0 / (variance + EPSILON).sqrt();
    for sample in &mut samples {
        *sample = (*sample - mean) * scale;
    }
    samples.extend_from_within(SAMPLES - 1 - MARGIN..SAMPLES - 1);
    if let Some(margin) = samples.get_mut(SAMPLES..) {
        margin.reverse();
    }
    samples
}

/// Prepares a network for installation, and checks that it runs and returns a probability.
///
/// # Errors
///
/// Fails with the reason if the network is damaged or another one.
pub(crate) fn convert(network: &[u8]) -> Result<Vec<u8>, TurnError> {
    let network =
        graph::remove_quantisation(network).map_err(|e| TurnError::Invalid(e.to_owned()))?;
    TurnModel::new(network.clone())?.estimate(&[])?;
    Ok(network)
}

/// The operators of the network. Others are refused.
fn operators() -> OpRegistry {
    op_registry!(
        Add,
        Concat,
        Conv,
        DequantizeLinear,
        Div,
        Erf,
        Gather,
        Gemm,
        LayerNormalization,
        MatMul,
        Mul,
        ReduceSum,
        Reshape,
        Shape,
        Sigmoid,
        Slice,
        Softmax,
        Tanh,
        Transpose
    )
}

#[cfg(test)]
mod tests;
