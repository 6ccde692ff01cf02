//! Noise suppression for streams (`noiseCancellation`, `docs/reference/xml.md#stream`): a recurrent
//! neural network that separates voice from noise per frequency band (Valin, "A Hybrid DSP/Deep
//! Learning Approach to Real-Time Full-Band Speech Enhancement", 2018), from the crate
//! `nnnoiseless`.
//!
//! The network needs 48 kHz, so the audio of such a stream is decoded at 48 kHz and converted to
//! its own rate here. The delay is one block of the network plus half a block of the converter,
//! about 15 ms.

use nnnoiseless::DenoiseState;
use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler as _};

use media::opus::Rate;

/// Samples per block of the network: 10 ms.
const PIECE: usize = DenoiseState::FRAME_SIZE;

/// Collects samples to whole blocks.
struct Pieces {
    waiting: Vec<f32>,
}

impl Pieces {
    fn new() -> Self {
        Self { waiting: Vec::with_capacity(4 * PIECE) }
    }

    fn push(&mut self, pcm: &[i16], whole: impl FnMut(&[f32])) {
        self.waiting.extend(pcm.iter().map(|sample| f32::from(*sample)));
        let pieces = self.waiting.chunks_exact(PIECE);
        let rest = pieces.remainder().len();
        pieces.for_each(whole);
        self.waiting.drain(..self.waiting.len() - rest);
    }
}

/// Converts blocks from 48 kHz to the stream's rate.
struct Converter {
    /// The converter. `None` if the stream's rate is 48 kHz, or the converter could not be created.
    fft: Option<Fft<f32>>,
    made: Vec<f32>,
}

impl Converter {
    fn new(to: Rate) -> Self {
        let hz = usize::try_from(to.hz()).unwrap_or(48_000);
        let fft = match to {
            Rate::Hz48000 => None,
            Rate::Hz8000 | Rate::Hz16000 | Rate::Hz24000 => {
                Fft::new(48_000, hz, PIECE, 1, FixedSync::Both).ok()
            }
        };
        let made = vec![0.0; fft.as_ref().map_or(0, |fft| fft.output_frames_max())];
        Self { fft, made }
    }

    /// Appends the converted block.
    fn convert(&mut self, piece: &[f32], out: &mut Vec<i16>) {
        let made = match &mut self.fft {
            None => piece,
            Some(fft) => {
                let room = self.made.len();
                let from = InterleavedSlice::new(piece, 1, piece.len());
                let (Ok(from), Ok(mut to)) =
                    (from, InterleavedSlice::new_mut(&mut self.made, 1, room))
                else {
                    return;
                };
                let Ok((_, made)) = fft.process_into_buffer(&from, &mut to, None) else { return };
                self.made.get(..made).unwrap_or_default()
            }
        };
        // `as` saturates, so samples beyond full scale are clipped.
        out.extend(made.iter().map(|sample| sample.round() as i16));
    }
}

/// Converts from 48 kHz without noise suppression.
pub(super) struct Downsampler {
    pieces: Pieces,
    converter: Converter,
}

impl Downsampler {
    pub(super) fn new(to: Rate) -> Self {
        Self { pieces: Pieces::new(), converter: Converter::new(to) }
    }

    /// Processes audio at 48 kHz and appends the output at the stream's rate.
    pub(super) fn push(&mut self, pcm: &[i16], out: &mut Vec<i16>) {
        self.pieces.push(pcm, |piece| self.converter.convert(piece, out));
    }
}

/// Suppresses noise and converts from 48 kHz.
pub(super) struct Denoiser {
    pieces: Pieces,
    network: Box<DenoiseState<'static>>,
    /// The share of the network's output, 0 to 1. The rest is the original audio.
    share: f32,
    /// The previous original block: the network's output lags by one block.
    before: [f32; PIECE],
    converter: Converter,
}

impl Denoiser {
    /// Creates a filter. `level` is the attribute's value, 60 to 100.
    pub(super) fn new(level: u8, to: Rate) -> Self {
        Self {
            pieces: Pieces::new(),
            network: DenoiseState::new(),
            share: f32::from(level.min(100)) / 100.0,
            before: [0.0; PIECE],
            converter: Converter::new(to),
        }
    }

    /// Processes audio at 48 kHz and appends the output at the stream's rate.
    pub(super) fn push(&mut self, pcm: &[i16], out: &mut Vec<i16>) {
        let Self { pieces, network, share, before, converter } = self;
        pieces.push(pcm, |piece| {
            let mut clean = [0.0; PIECE];
            network.process_frame(&mut clean, piece);
            for (clean, raw) in clean.iter_mut().zip(before.iter()) {
                *clean = *clean * *share + raw * (1.0 - *share);
            }
            converter.convert(&clean, out);
            before.copy_from_slice(piece);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{Denoiser, Downsampler};
    use media::opus::Rate;

    /// Deterministic low-frequency noise as in rooms and cars: its power falls with the frequency.
    fn noise(samples: usize, loud: f32) -> Vec<i16> {
        let (mut state, mut level) = (7_u32, 0.0_f32);
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            level = (level + 0.02 * ((state >> 8) as f32 / 8_388_608.0 - 1.0)) / 1.02;
            level * 3.5
        };
        (0..samples).map(|_| (next() * loud) as i16).collect()
    }

    fn power(pcm: &[i16]) -> f64 {
        pcm.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / pcm.len().max(1) as f64
    }

    fn through(level: u8, rate: Rate, pcm: &[i16], piece: usize) -> Vec<i16> {
        let (mut denoise, mut out) = (Denoiser::new(level, rate), Vec::new());
        pcm.chunks(piece).for_each(|piece| denoise.push(piece, &mut out));
        out
    }

    #[test]
    fn higher_levels_suppress_more_steady_noise() {
        let rumble = noise(48_000 * 3, 3_000.0);
        for rate in [Rate::Hz8000, Rate::Hz16000, Rate::Hz24000] {
            let second = usize::try_from(rate.hz()).unwrap();
            let mut down = Vec::new();
            Downsampler::new(rate).push(&rumble, &mut down);
            let left = [60, 85, 100].map(|level| {
                let out = through(level, rate, &rumble, 960);
                assert_eq!(out.len(), 3 * second, "{rate:?}");
                10.0 * (power(&out[2 * second..]) / power(&down[2 * second..])).log10()
            });
            assert!(left[0] < -6.0 && left[1] < -12.0 && left[2] < -20.0, "{rate:?}: {left:?} dB");
        }
    }

    #[test]
    fn output_is_independent_of_the_length_of_pieces() {
        let sound = noise(48_000 / 2, 8_000.0);
        let whole = through(85, Rate::Hz16000, &sound, sound.len());
        assert_eq!(whole.len(), 8_000);
        for piece in [1, 479, 481, 960, 2_880] {
            assert_eq!(through(85, Rate::Hz16000, &sound, piece), whole, "{piece}");
        }
    }

    #[test]
    fn downsampling_keeps_pitch_and_loudness() {
        let tone =
            |n: i32| ((n as f32 / 48.0 * std::f32::consts::TAU).sin() * 10_000.0).round() as i16;
        let tone: Vec<i16> = (0..48_000).map(tone).collect();
        for rate in [Rate::Hz8000, Rate::Hz16000, Rate::Hz24000, Rate::Hz48000] {
            let mut out = Vec::new();
            let mut down = Downsampler::new(rate);
            tone.chunks(700).for_each(|part| down.push(part, &mut out));
            let second = usize::try_from(rate.hz()).unwrap();
            assert!(
                out.len() > second - second / 50 && out.len() <= second,
                "{rate:?}: {}",
                out.len()
            );
            let steady = &out[second / 10..];
            let crossings = steady.windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count();
            let hz = crossings as f64 * second as f64 / steady.len() as f64;
            assert!((hz - 1_000.0).abs() < 5.0, "{rate:?}: {hz}");
            assert!((power(steady) / 5e7 - 1.0).abs() < 0.05, "{rate:?}: {}", power(steady));
        }
    }
}
