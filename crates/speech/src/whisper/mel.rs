//! The spectrogram that is the input of the network: 80 bands per 10 ms, on a logarithmic scale.

use std::f32::consts::TAU;
use std::sync::Arc;

use realfft::{RealFftPlanner, RealToComplex};

/// Number of bands.
pub(crate) const BANDS: usize = 80;
const SIZE: usize = 400;
const HOP: usize = 160;
const BINS: usize = SIZE / 2 + 1;
const BIN_HZ: f32 = super::RATE as f32 / SIZE as f32;
/// Maximum distance of values below the largest one, in powers of ten.
const RANGE: f32 = 8.0;

/// The transform, the window and the bands, which are computed once.
pub(crate) struct Spectrogram {
    transform: Arc<dyn RealToComplex<f32>>,
    window: Vec<f32>,
    /// The first bin and the weights of each band.
    bands: Vec<(usize, Vec<f32>)>,
}

impl Spectrogram {
    pub(crate) fn new() -> Self {
        let window = (0..SIZE).map(|n| 0.5 - 0.5 * (TAU * n as f32 / SIZE as f32).cos()).collect();
        let transform = RealFftPlanner::new().plan_fft_forward(SIZE);
        Self { transform, window, bands: (0..BANDS).map(band).collect() }
    }

    /// Returns `frames` rows of [`BANDS`] values. Silence follows the samples, whose full scale is 1.
    pub(crate) fn log_mel(&self, samples: &[f32], frames: usize) -> Vec<f32> {
        let mut input = self.transform.make_input_vec();
        let mut bins = self.transform.make_output_vec();
        let mut values = Vec::with_capacity(frames * BANDS);
        for frame in 0..frames {
            for (n, (sample, window)) in input.iter_mut().zip(&self.window).enumerate() {
                // Frames are centred. Before the beginning, the samples are mirrored.
                let at = (frame * HOP + n).abs_diff(SIZE / 2);
                *sample = samples.get(at).copied().unwrap_or(0.0) * window;
            }
            // The buffers have the lengths of the plan.
            let _ = self.transform.process(&mut input, &mut bins);
            let power: [f32; BINS] = std::array::from_fn(|bin| bins[bin].norm_sqr());
            values.extend(self.bands.iter().map(|(first, weights)| {
                let sum: f32 = power[*first..].iter().zip(weights).map(|(p, w)| p * w).sum();
                sum.max(1e-10).log10()
            }));
        }
        let floor = values.iter().copied().fold(f32::NEG_INFINITY, f32::max) - RANGE;
        for value in &mut values {
            *value = (value.max(floor) + 4.0) / 4.0;
        }
        values
    }
}

/// Returns a triangular band of unit area on Slaney's mel scale.
fn band(index: usize) -> (usize, Vec<f32>) {
    let top = mel(super::RATE as f32 / 2.0);
    let edge = |n: usize| hertz(top * n as f32 / (BANDS + 1) as f32);
    let (low, middle, high) = (edge(index), edge(index + 1), edge(index + 2));
    let weight = |bin: usize| {
        let hz = bin as f32 * BIN_HZ;
        let rising = (hz - low) / (middle - low);
        let falling = (high - hz) / (high - middle);
        rising.min(falling).max(0.0) * 2.0 / (high - low)
    };
    let first = (0..BINS).find(|bin| weight(*bin) > 0.0).unwrap_or(0);
    (first, (first..BINS).map(weight).take_while(|weight| *weight > 0.0).collect())
}

/// The scale is linear below 1 kHz and logarithmic above.
fn mel(hz: f32) -> f32 {
    if hz < 1_000.0 { hz * 0.015 } else { 15.0 + (hz / 1_000.0).ln() * 27.0 / 6.4f32.ln() }
}

fn hertz(mel: f32) -> f32 {
    if mel < 15.0 { mel / 0.015 } else { 1_000.0 * ((mel - 15.0) * 6.4f32.ln() / 27.0).exp() }
}
