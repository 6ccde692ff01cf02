//! A look-ahead limiter: amplifies speech, and lowers the gain briefly before a peak that would
//! otherwise clip.

use std::collections::VecDeque;

/// Look-ahead in samples: 5 ms at 16 kHz.
const LOOK_AHEAD: usize = 80;
/// Maximum output level: 1 dB below full scale.
const CEILING: f32 = 29_200.0;
/// Recovery of the gain per sample. The gain recovers by two thirds in about 60 ms at 16 kHz.
const RELEASE: f32 = 0.001;

/// Limits the samples of one sound.
pub(super) struct Limiter {
    gain: f32,
    /// Amplified samples that have not been returned yet.
    delayed: VecDeque<f32>,
    /// Candidates for the largest sample in the look-ahead window as (position, level), in
    /// decreasing order.
    peaks: VecDeque<(u64, f32)>,
    pushed: u64,
    /// The gain that is allowed by the largest sample ahead, with slow recovery.
    envelope: f32,
    smoothing: VecDeque<f32>,
}

impl Limiter {
    /// Creates a limiter that amplifies by `gain`.
    pub(super) fn new(gain: f32) -> Self {
        let (delayed, peaks, smoothing) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        Self { gain, delayed, peaks, pushed: 0, envelope: 1.0, smoothing }
    }

    /// Processes samples and returns those that are ready.
    pub(super) fn push(&mut self, pcm: &[i16]) -> Vec<i16> {
        pcm.iter().filter_map(|sample| self.next(f32::from(*sample) * self.gain)).collect()
    }

    /// Returns the remaining samples. The total number of returned samples equals the number of
    /// pushed ones.
    pub(super) fn finish(mut self) -> Vec<i16> {
        let count = self.delayed.len();
        (0..LOOK_AHEAD).filter_map(|_| self.next(0.0)).take(count).collect()
    }

    fn next(&mut self, sample: f32) -> Option<i16> {
        self.delayed.push_back(sample);
        let level = sample.abs();
        while self.peaks.back().is_some_and(|(_, peak)| *peak <= level) {
            self.peaks.pop_back();
        }
        self.peaks.push_back((self.pushed, level));
        self.pushed += 1;
        let first = self.pushed.saturating_sub(2 * LOOK_AHEAD as u64);
        while self.peaks.front().is_some_and(|(position, _)| *position < first) {
            self.peaks.pop_front();
        }
        let loudest = self.peaks.front().map_or(0.0, |(_, level)| *level);
        self.envelope =
            (self.envelope + (1.0 - self.envelope) * RELEASE).min(CEILING / loudest.max(CEILING));
        self.smoothing.push_back(self.envelope);
        if self.smoothing.len() > LOOK_AHEAD {
            self.smoothing.pop_front();
        }
        if self.delayed.len() <= LOOK_AHEAD {
            return None;
        }
        let factor = self.smoothing.iter().sum::<f32>() / self.smoothing.len() as f32;
        // `as` saturates.
        self.delayed.pop_front().map(|sample| (sample * factor.min(1.0)).round() as i16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(gain: f32, pcm: &[i16], chunk: usize) -> Vec<i16> {
        let mut limiter = Limiter::new(gain);
        let mut output: Vec<i16> =
            pcm.chunks(chunk).flat_map(|chunk| limiter.push(chunk)).collect();
        output.extend(limiter.finish());
        output
    }

    fn tone(peak: f64, samples: usize) -> Vec<i16> {
        (0..samples).map(|n| ((n as f64 * 0.157).sin() * peak) as i16).collect()
    }

    #[test]
    fn samples_below_the_ceiling_are_unchanged() {
        let soft = tone(10_000.0, 3_000);
        assert_eq!(limited(1.0, &soft, 700), soft);
        let double: Vec<i16> = soft.iter().map(|sample| sample * 2).collect();
        assert_eq!(limited(2.0, &soft, 1), double);
        for few in [0, 1, LOOK_AHEAD, LOOK_AHEAD + 1] {
            assert_eq!(limited(1.0, &soft[..few], 40).len(), few);
        }
    }

    #[test]
    fn peaks_are_attenuated_without_clipping() {
        // Loud in the middle.
        let (soft, loud) = (tone(4_000.0, 16_000), tone(16_000.0, 16_000));
        let pcm = [&soft[..4_000], &loud[4_000..8_000], &soft[8_000..]].concat();
        let output = limited(5.0, &pcm, 320);
        let peak = |pcm: &[i16]| pcm.iter().map(|sample| i32::from(*sample).abs()).max().unwrap();
        assert!((28_000..=29_300).contains(&peak(&output)), "{}", peak(&output));
        // The peaks are not flattened: the largest samples are peaks of the wave.
        let flat = output
            .windows(3)
            .filter(|w| w[0].abs() > 28_000 && w[0] == w[1] && w[1] == w[2])
            .count();
        assert_eq!(flat, 0);
        // Steady while loud, and unchanged before and long after.
        let loud = &output[5_000..7_000];
        assert!(loud.chunks(40).all(|period| peak(period) > 27_000), "it pumps");
        assert_eq!(peak(&output[..3_800]), peak(&pcm[..3_800]) * 5);
        assert!(peak(&output[15_000..]) > 19_000, "{}", peak(&output[15_000..]));
        let step =
            output.windows(2).map(|w| (i32::from(w[1]) - i32::from(w[0])).abs()).max().unwrap();
        // The input itself has a step where it becomes louder and softer.
        assert!(step < 30_000, "{step}");
    }
}
