//! Converts PCM of any sample rate to 16 kHz, without gaps between chunks.

use rubato::audioadapter_buffers::owned::InterleavedOwned;
use rubato::{Fft, FixedSync, Resampler as _};

/// Sample rate of prompts in Hz.
pub(super) const RATE: u32 = 16_000;
/// Input samples per conversion step: about 20 to 100 ms, depending on the rate.
const CHUNK: usize = 1_024;

/// Converts one stream of samples.
pub(super) struct Resampler {
    from: u32,
    /// `None` if the input is already at 16 kHz.
    converter: Option<Fft<f32>>,
    pending: Vec<f32>,
    /// The number of output samples to skip because of the converter's delay.
    skip: usize,
    pushed: u64,
    produced: u64,
}

impl Resampler {
    /// Creates a resampler for an input rate of 8,000 to 48,000 Hz.
    ///
    /// # Errors
    ///
    /// Fails if the rate is not supported.
    pub(super) fn new(from: u32) -> Result<Self, String> {
        let converter = match from {
            RATE => None,
            8_000..=48_000 => Some(
                Fft::new(from as usize, RATE as usize, CHUNK, 1, FixedSync::Input)
                    .map_err(|e| e.to_string())?,
            ),
            _ => return Err(format!("{from} Hz")),
        };
        let skip = converter.as_ref().map_or(0, |c| c.output_delay());
        Ok(Self { from, converter, pending: Vec::new(), skip, pushed: 0, produced: 0 })
    }

    /// Returns the input rate in Hz.
    pub(super) fn from(&self) -> u32 {
        self.from
    }

    /// Converts samples and appends the output that is ready.
    pub(super) fn push(&mut self, pcm: &[i16], out: &mut Vec<i16>) {
        self.pushed += pcm.len() as u64;
        if self.converter.is_none() {
            out.extend_from_slice(pcm);
            return;
        }
        self.pending.extend(pcm.iter().map(|&s| f32::from(s)));
        let mut at = 0;
        while let Some(chunk) = self.pending.get(at..at + CHUNK).map(<[f32]>::to_vec) {
            at += CHUNK;
            self.convert(chunk, u64::MAX, out);
        }
        self.pending.drain(..at);
    }

    /// Appends the rest of the output. The total length is exact to the sample.
    pub(super) fn finish(mut self, out: &mut Vec<i16>) {
        if self.converter.is_none() {
            return;
        }
        let limit = (self.pushed * u64::from(RATE)).div_ceil(u64::from(self.from));
        // The converter's blocks are at most one second long (for rates without a common factor).
        for _ in 0..=(self.from as usize / CHUNK) * 3 {
            if self.produced >= limit {
                break;
            }
            let mut chunk = std::mem::take(&mut self.pending);
            chunk.resize(CHUNK, 0.0);
            self.convert(chunk, limit, out);
        }
    }

    /// Converts one chunk, up to sample `limit` of the output.
    fn convert(&mut self, chunk: Vec<f32>, limit: u64, out: &mut Vec<i16>) {
        let Some(converter) = &mut self.converter else { return };
        let Ok(chunk) = InterleavedOwned::new_from(chunk, 1, CHUNK) else { return };
        let Ok(converted) = converter.process(&chunk, None) else { return };
        let converted = converted.take_data();
        let skipped = self.skip.min(converted.len());
        self.skip -= skipped;
        let capacity = usize::try_from(limit.saturating_sub(self.produced)).unwrap_or(usize::MAX);
        let before = out.len();
        // `as` saturates, which clips overshoot at steep edges.
        out.extend(converted.iter().skip(skipped).take(capacity).map(|&s| s.round() as i16));
        self.produced += (out.len() - before) as u64;
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::Resampler;

    fn tone(rate: u32, hz: f64, seconds: f64) -> Vec<i16> {
        let step = std::f64::consts::TAU * hz / f64::from(rate);
        (0..(f64::from(rate) * seconds) as usize)
            .map(|n| ((step * n as f64).sin() * 10_000.0) as i16)
            .collect()
    }

    #[rstest]
    #[case(8_000)]
    #[case(11_025)]
    #[case(16_000)]
    #[case(22_050)]
    #[case(24_000)]
    #[case(32_000)]
    #[case(44_100)]
    #[case(47_999)]
    #[case(48_000)]
    fn length_pitch_and_loudness_are_preserved(#[case] rate: u32) {
        let mut resampler = Resampler::new(rate).unwrap();
        let mut out = Vec::new();
        for chunk in tone(rate, 1_000.0, 1.5).chunks(700) {
            resampler.push(chunk, &mut out);
        }
        resampler.finish(&mut out);
        assert!(out.len().abs_diff(24_000) <= 1, "{} samples", out.len());
        let middle = &out[4_000..20_000];
        let crossings = middle.windows(2).filter(|w| w[0] < 0 && w[1] >= 0).count();
        assert!(crossings.abs_diff(1_000) <= 2, "{crossings} Hz");
        let peak = middle.iter().map(|s| s.abs()).max().unwrap();
        assert!((9_500..10_500).contains(&peak), "{peak}");
        // The delay was removed: the beginning is in place.
        assert!(out[..4].iter().all(|s| s.abs() < 12_000));
        assert!(out[2..6].iter().any(|s| s.abs() > 5_000), "{:?}", &out[..16]);
    }

    #[test]
    fn frequencies_above_half_the_output_rate_are_removed() {
        let mut resampler = Resampler::new(48_000).unwrap();
        let mut out = Vec::new();
        resampler.push(&tone(48_000, 12_000.0, 1.0), &mut out);
        resampler.finish(&mut out);
        assert!(out[2_000..14_000].iter().all(|s| s.abs() < 100));
    }

    #[test]
    fn empty_input_gives_empty_output() {
        let mut out = Vec::new();
        Resampler::new(44_100).unwrap().finish(&mut out);
        assert!(out.is_empty());
        assert!(Resampler::new(7_999).is_err());
        assert!(Resampler::new(0).is_err());
    }
}
