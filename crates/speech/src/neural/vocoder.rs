//! The voice's signal processing: the network predicts a spectrum per frame in three parts. An
//! inverse short-time Fourier transform converts them to a waveform.
//!
//! S = exp(lh) e^(iπ tanh θ) STFT(pulses(f0)) + exp(ln) Z + exp(lr) e^(iφ), with white noise Z.

use std::f32::consts::{PI, TAU};
use std::sync::Arc;

use realfft::num_complex::Complex32;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};

/// Sample rate of the voice in Hz.
pub(super) const RATE: u32 = 24_000;
const SIZE: usize = 1_200;
const HOP: usize = 300;
/// Number of frequencies of a frame.
pub(super) const BINS: usize = SIZE / 2 + 1;
/// Minimum pitch of a voiced frame in Hz.
const VOICED_HZ: f32 = 40.0;
/// Maximum frequency of harmonics in Hz. Higher ones are omitted.
const HARMONIC_HZ_MAX: f32 = 11_000.0;
/// Two limits in bins of 20 Hz. Up to the first one, the level of the harmonics moves with the
/// pitch. From the second one on, it does not move.
const SHIFT_FULL: f32 = 20.0;
const SHIFT_END: f32 = 60.0;
/// Maximum exponent of a magnitude.
const EXPONENT_MAX: f32 = 7.0;

/// The network's output: `BINS` rows of one value per frame each, and the pitch of each frame.
pub(super) struct Spectrum<'a> {
    pub(super) harmonic: &'a [f32],
    pub(super) theta: &'a [f32],
    pub(super) noise: &'a [f32],
    pub(super) rest: &'a [f32],
    pub(super) phi: &'a [f32],
    pub(super) pitch: &'a [f32],
}

/// The transforms and the window, which are computed once.
pub(super) struct Vocoder {
    forward: Arc<dyn RealToComplex<f32>>,
    inverse: Arc<dyn ComplexToReal<f32>>,
    window: Vec<f32>,
}

impl Vocoder {
    pub(super) fn new() -> Self {
        let mut planner = RealFftPlanner::new();
        let window = (0..SIZE).map(|n| 0.5 - 0.5 * (TAU * n as f32 / SIZE as f32).cos()).collect();
        Self {
            forward: planner.plan_fft_forward(SIZE),
            inverse: planner.plan_fft_inverse(SIZE),
            window,
        }
    }

    /// Returns the waveform at [`RATE`], or `None` if the output of the network is malformed.
    /// `pitch` scales the pitch.
    pub(super) fn synthesise(&self, spectrum: &Spectrum<'_>, pitch: f32) -> Option<Vec<f32>> {
        let frames = spectrum.pitch.len();
        let Spectrum { harmonic, theta, noise, rest, phi, pitch: f0 } = *spectrum;
        if frames < 3
            || [harmonic, theta, noise, rest, phi].iter().any(|p| p.len() != frames * BINS)
        {
            return None;
        }
        let source = pulses(f0, pitch);
        let mut random = Noise::new();
        let mut input = self.forward.make_input_vec();
        let mut bins = self.forward.make_output_vec();
        let mut block = self.inverse.make_output_vec();
        let mut sum = vec![0f32; (frames - 1) * HOP + SIZE];
        let mut norm = vec![0f32; sum.len()];
        // A unit cosine has a magnitude of the window's sum over two.
        let gain = 4.0 / SIZE as f32;
        for frame in 0..frames {
            for (n, (sample, window)) in input.iter_mut().zip(&self.window).enumerate() {
                *sample = mirrored(&source, frame * HOP + n) * window * gain;
            }
            self.forward.process(&mut input, &mut bins).ok()?;
            for (bin, value) in bins.iter_mut().enumerate() {
                let at = bin * frames + frame;
                let voiced = shifted(bin, pitch) * frames + frame;
                let turn = Complex32::from_polar(exp(harmonic[voiced]), PI * theta[voiced].tanh());
                let free = Complex32::from_polar(exp(rest[at]), phi[at]);
                *value = *value * turn + random.next() * exp(noise[at]) + free;
            }
            // The lowest and highest frequency are real.
            bins[0].im = 0.0;
            bins[BINS - 1].im = 0.0;
            self.inverse.process(&mut bins, &mut block).ok()?;
            let start = frame * HOP;
            for ((n, window), sample) in self.window.iter().enumerate().zip(&block) {
                sum[start + n] += sample * window / SIZE as f32;
                norm[start + n] += window * window;
            }
        }
        let half = SIZE / 2;
        Some(
            (half..half + frames * HOP)
                .map(|n| if n < sum.len() { sum[n] / norm[n].max(1e-11) } else { 0.0 })
                .collect(),
        )
    }
}

/// Returns the bin of the original spectrum from which the harmonic level of `bin` is taken if the
/// pitch is scaled. The level at the fundamental moves with the pitch: below the voice's own
/// fundamental, the output of the network is not meaningful. From [`SHIFT_END`] on, the resonances
/// stay where they are.
fn shifted(bin: usize, pitch: f32) -> usize {
    let at = bin as f32;
    let offset = SHIFT_FULL / pitch - SHIFT_FULL;
    let position = if at <= SHIFT_FULL {
        at / pitch
    } else if at < SHIFT_END {
        at + offset * (SHIFT_END - at) / (SHIFT_END - SHIFT_FULL)
    } else {
        at
    };
    (position.round() as usize).min(BINS - 1)
}

fn exp(value: f32) -> f32 {
    value.min(EXPONENT_MAX).exp()
}

/// Returns sample `at` of the source after reflect padding by half a frame at both ends.
fn mirrored(source: &[f32], at: usize) -> f32 {
    let half = SIZE / 2;
    let last = source.len() - 1;
    let index = half.abs_diff(at);
    let index = if index > last { (2 * last).saturating_sub(index) } else { index };
    source[index.min(last)]
}

/// Generates a pulse train for the pitch curve: every harmonic below [`HARMONIC_HZ_MAX`] at unit
/// amplitude, Σ cos(ht) = sin((H + ½) t) / (2 sin(t / 2)) − ½.
fn pulses(f0: &[f32], scale: f32) -> Vec<f32> {
    let frame = |at: isize| f0[at.clamp(0, f0.len() as isize - 1) as usize];
    let mut phase = 0f64;
    let mut samples = Vec::with_capacity(f0.len() * HOP);
    for k in 0..f0.len() as isize {
        for n in 0..HOP {
            // The position is between the centres of two frames.
            let position = (n as f32 + 0.5) / HOP as f32 - 0.5;
            let (from, to, share) = if position < 0.0 {
                (frame(k - 1), frame(k), position + 1.0)
            } else {
                (frame(k), frame(k + 1), position)
            };
            let hz = from * (1.0 - share) + to * share;
            let voiced = hz > VOICED_HZ;
            let hz = hz.max(VOICED_HZ) * scale;
            phase = (phase + f64::from(hz) / f64::from(RATE)).fract();
            let t = phase as f32 * TAU;
            let harmonics = (HARMONIC_HZ_MAX / hz).floor() + 0.5;
            let below = 2.0 * (t * 0.5).sin();
            let sum = if below.abs() <= 2e-3 { harmonics } else { (harmonics * t).sin() / below };
            samples.push(if voiced { sum - 0.5 } else { 0.0 });
        }
    }
    samples
}

/// White Gaussian noise, which is the same for every prompt, so that a text always sounds the same.
struct Noise(u64);

impl Noise {
    fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// Returns a uniform number in (0, 1].
    fn uniform(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 40) + 1) as f32 / (1u32 << 24) as f32
    }

    fn next(&mut self) -> Complex32 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        Complex32::from_polar(radius, TAU * self.uniform())
    }
}
