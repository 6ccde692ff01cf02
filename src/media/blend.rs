//! Several ready sounds for one peer: decoded, added, and encoded anew.

use crate::ffi::opus::{Decoder, Encoder, Rate};

use super::prompt::Frame;

/// Adds the frames of `N` sounds. Wideband, as prompts are (`media-notes` §6).
#[derive(Debug)]
pub(super) struct Blend<const N: usize> {
    voices: [Voice; N],
    encoder: Encoder,
}

/// A sound that is decoded: from frame to frame it needs the same decoder.
#[derive(Debug, Default)]
struct Voice {
    decoder: Option<Decoder>,
    pcm: Vec<i16>,
}

impl<const N: usize> Default for Blend<N> {
    fn default() -> Self {
        Self { voices: std::array::from_fn(|_| Voice::default()), encoder: Encoder::for_prompts() }
    }
}

impl<const N: usize> Blend<N> {
    /// What they come to, each sound always at its own place.
    pub(super) fn of(&mut self, frames: [Option<&Frame>; N]) -> Frame {
        let mut sum = [0_i32; Rate::Hz16000.frame()];
        for (voice, frame) in self.voices.iter_mut().zip(frames) {
            if let Some(frame) = frame {
                voice.add(frame, &mut sum);
            }
        }
        let clipped = sum.map(|sum| i16::try_from(sum).unwrap_or(if sum < 0 { i16::MIN } else { i16::MAX }));
        self.encoder.encode(&clipped)
    }
}

impl Voice {
    /// A frame that can't be decoded adds nothing.
    fn add(&mut self, frame: &Frame, sum: &mut [i32]) {
        self.pcm.clear();
        let decoder = self.decoder.get_or_insert_with(|| Decoder::new(Rate::Hz16000));
        if decoder.decode(Some(frame), false, &mut self.pcm).is_ok() {
            sum.iter_mut().zip(&self.pcm).for_each(|(sum, sample)| *sum += i32::from(*sample));
        }
    }
}

#[cfg(test)]
pub(super) mod testing {
    use crate::ffi::opus::Encoder;
    use crate::media::prompt::Frame;

    /// A second of a tone.
    pub(in crate::media) fn tone(hz: f64) -> Vec<Frame> {
        let mut encoder = Encoder::for_prompts();
        let wave = |n: usize| ((n as f64 * hz * std::f64::consts::TAU / 16_000.0).sin() * 6_000.0) as i16;
        (0..50).map(|f| encoder.encode(&(0..320).map(|n| wave(f * 320 + n)).collect::<Vec<_>>())).collect()
    }

    /// How strongly a tone is in there (Goertzel), against one of full scale.
    pub(in crate::media) fn strength(pcm: &[i16], hz: f64) -> f64 {
        let (mut re, mut im) = (0.0, 0.0);
        for (n, sample) in pcm.iter().enumerate() {
            let phase = n as f64 * hz * std::f64::consts::TAU / 16_000.0;
            re += f64::from(*sample) * phase.cos();
            im += f64::from(*sample) * phase.sin();
        }
        (re * re + im * im).sqrt() * 2.0 / pcm.len() as f64 / 32_768.0
    }
}
