//! What a user says without the noise around them (`noiseCancellation`, `plivo-xml.md` §5.11): a recurrent network that tells
//! voice from noise, band by band (Valin: "A Hybrid DSP/Deep Learning Approach to Real-Time Full-Band Speech Enhancement",
//! 2018), as the crate `nnnoiseless` has it.
//!
//! The network knows 48 kHz alone, so that a stream of this kind is decoded at 48 kHz and brought to its own rate here. It is
//! late by one of the network's pieces and half of one of the converter's: some 15 ms.

use std::collections::VecDeque;

use nnnoiseless::DenoiseState;
use rubato::audioadapter_buffers::owned::InterleavedOwned;
use rubato::{Fft, FixedSync, Resampler as _};

use crate::ffi::opus::Rate;

/// Samples that the network takes at a time: 10 ms.
const PIECE: usize = DenoiseState::FRAME_SIZE;

/// From 48 kHz to the rate of a stream, 10 ms at a time.
pub(super) struct Down {
    /// None: it is 48 kHz already, or a rate that cannot be made of it.
    converter: Option<Fft<f32>>,
    converted: InterleavedOwned<f32>,
    /// What is no whole piece yet.
    waiting: Vec<f32>,
}

impl Down {
    pub(super) fn new(to: Rate) -> Self {
        let hz = usize::try_from(to.hz()).unwrap_or(48_000);
        let converter = match to {
            Rate::Hz48000 => None,
            Rate::Hz8000 | Rate::Hz16000 | Rate::Hz24000 => Fft::new(48_000, hz, PIECE, 1, FixedSync::Both).ok(),
        };
        let converted = InterleavedOwned::new(0.0, 1, converter.as_ref().map_or(0, |fft| fft.output_frames_max()));
        Self { converter, converted, waiting: Vec::with_capacity(4 * PIECE) }
    }

    /// Appends what becomes of these.
    pub(super) fn push(&mut self, pcm: impl Iterator<Item = f32>, out: &mut Vec<i16>) {
        self.waiting.extend(pcm);
        let waiting = std::mem::take(&mut self.waiting);
        let mut pieces = waiting.chunks_exact(PIECE);
        for piece in &mut pieces {
            self.convert(piece, out);
        }
        let rest = pieces.remainder().len();
        self.waiting = waiting;
        self.waiting.drain(..self.waiting.len() - rest);
    }

    fn convert(&mut self, piece: &[f32], out: &mut Vec<i16>) {
        // `as` saturates: what goes beyond full scale is cut.
        let Some(converter) = &mut self.converter else {
            return out.extend(piece.iter().map(|sample| sample.round() as i16));
        };
        let Ok(input) = InterleavedOwned::new_from(piece.to_vec(), 1, piece.len()) else { return };
        if let Ok((_, made)) = converter.process_into_buffer(&input, &mut self.converted, None) {
            let converted = std::mem::replace(&mut self.converted, InterleavedOwned::new(0.0, 1, 0));
            let data = converted.take_data();
            out.extend(data.iter().take(made).map(|sample| sample.round() as i16));
            let room = data.len();
            if let Ok(back) = InterleavedOwned::new_from(data, 1, room) {
                self.converted = back;
            }
        }
    }
}

/// Takes noise away.
pub(super) struct Hush {
    network: Box<DenoiseState<'static>>,
    /// How much of what is heard is the network's, 0 to 1; the rest is as it came.
    share: f32,
    /// What is no whole piece yet, at 48 kHz.
    waiting: VecDeque<f32>,
    /// The piece before, as it came: what the network gives is that much behind.
    before: [f32; PIECE],
    down: Down,
}

impl Hush {
    /// `level`: 60 to 100, as the attribute has it.
    pub(super) fn new(level: u8, to: Rate) -> Self {
        Self {
            network: DenoiseState::new(),
            share: f32::from(level.min(100)) / 100.0,
            waiting: VecDeque::with_capacity(4 * PIECE),
            before: [0.0; PIECE],
            down: Down::new(to),
        }
    }

    /// Takes sound at 48 kHz and appends what of it is ready, at the stream's rate.
    pub(super) fn push(&mut self, pcm: &[i16], out: &mut Vec<i16>) {
        self.waiting.extend(pcm.iter().map(|sample| f32::from(*sample)));
        while self.waiting.len() >= PIECE {
            let mut piece = [0.0; PIECE];
            piece.iter_mut().zip(self.waiting.drain(..PIECE)).for_each(|(to, sample)| *to = sample);
            let mut clean = [0.0; PIECE];
            self.network.process_frame(&mut clean, &piece);
            let share = self.share;
            let mixed = clean.iter().zip(&self.before).map(|(clean, raw)| clean * share + raw * (1.0 - share));
            self.down.push(mixed, out);
            self.before = piece;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Down, Hush};
    use crate::ffi::opus::Rate;

    /// A rumble as rooms and cars have it (its power falls with the pitch), the same each time.
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
        let (mut hush, mut out) = (Hush::new(level, rate), Vec::new());
        pcm.chunks(piece).for_each(|piece| hush.push(piece, &mut out));
        out
    }

    #[test]
    fn steady_noise_is_taken_away_the_more_the_higher_the_level() {
        let rumble = noise(48_000 * 3, 3_000.0);
        for rate in [Rate::Hz8000, Rate::Hz16000, Rate::Hz24000] {
            let second = usize::try_from(rate.hz()).unwrap();
            let mut down = Vec::new();
            Down::new(rate).push(rumble.iter().map(|s| f32::from(*s)), &mut down);
            let left = [60, 85, 100].map(|level| {
                let out = through(level, rate, &rumble, 960);
                assert_eq!(out.len(), 3 * second, "{rate:?}");
                10.0 * (power(&out[2 * second..]) / power(&down[2 * second..])).log10()
            });
            assert!(left[0] < -6.0 && left[1] < -12.0 && left[2] < -20.0, "{rate:?}: {left:?} dB");
        }
    }

    #[test]
    fn pieces_of_any_length_give_the_same_and_as_much_as_came() {
        let sound = noise(48_000 / 2, 8_000.0);
        let whole = through(85, Rate::Hz16000, &sound, sound.len());
        assert_eq!(whole.len(), 8_000);
        for piece in [1, 479, 481, 960, 2_880] {
            assert_eq!(through(85, Rate::Hz16000, &sound, piece), whole, "{piece}");
        }
    }

    #[test]
    fn what_is_only_brought_down_keeps_its_pitch_and_loudness() {
        let tone: Vec<f32> = (0..48_000).map(|n| (n as f32 / 48.0 * std::f32::consts::TAU).sin() * 10_000.0).collect();
        for rate in [Rate::Hz8000, Rate::Hz16000, Rate::Hz24000, Rate::Hz48000] {
            let mut out = Vec::new();
            let mut down = Down::new(rate);
            tone.chunks(700).for_each(|part| down.push(part.iter().copied(), &mut out));
            let second = usize::try_from(rate.hz()).unwrap();
            assert!(out.len() > second - second / 50 && out.len() <= second, "{rate:?}: {}", out.len());
            let steady = &out[second / 10..];
            let crossings = steady.windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count();
            let hz = crossings as f64 * second as f64 / steady.len() as f64;
            assert!((hz - 1_000.0).abs() < 5.0, "{rate:?}: {hz}");
            assert!((power(steady) / 5e7 - 1.0).abs() < 0.05, "{rate:?}: {}", power(steady));
        }
    }
}
