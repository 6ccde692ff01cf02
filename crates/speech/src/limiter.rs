//! Makes a voice louder without cutting its peaks off: where it would be louder than there is room for, it is made softer for
//! that moment, from a little before it on.

use std::collections::VecDeque;

/// Samples that it looks ahead: 5 ms at 16 kHz.
const AHEAD: usize = 80;
/// The loudest sample: 1 dB below full scale.
const CEILING: f32 = 29_200.0;
/// How much of what was taken back comes again from sample to sample: two thirds in some 60 ms at 16 kHz.
const RELEASE: f32 = 0.001;

/// One sound's.
pub(super) struct Limiter {
    gain: f32,
    /// Samples with the gain on them that are not given yet.
    waiting: VecDeque<f32>,
    /// Places and values of the samples ahead that may yet be the loudest, the loudest first.
    peaks: VecDeque<(u64, f32)>,
    taken: u64,
    /// What the loudest ahead leaves, coming back slowly; and its latest values, of which the mean is what a sample gets.
    held: f32,
    smoothing: VecDeque<f32>,
}

impl Limiter {
    /// For a sound that is to be `gain` times as loud.
    pub(super) fn new(gain: f32) -> Self {
        let (waiting, peaks, smoothing) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        Self { gain, waiting, peaks, taken: 0, held: 1.0, smoothing }
    }

    /// The next stretch; gives what is ready.
    pub(super) fn push(&mut self, pcm: &[i16]) -> Vec<i16> {
        pcm.iter().filter_map(|sample| self.next(f32::from(*sample) * self.gain)).collect()
    }

    /// The end of it: all that was taken has been given.
    pub(super) fn finish(mut self) -> Vec<i16> {
        let left = self.waiting.len();
        (0..AHEAD).filter_map(|_| self.next(0.0)).take(left).collect()
    }

    fn next(&mut self, sample: f32) -> Option<i16> {
        self.waiting.push_back(sample);
        let level = sample.abs();
        while self.peaks.back().is_some_and(|(_, softer)| *softer <= level) {
            self.peaks.pop_back();
        }
        self.peaks.push_back((self.taken, level));
        self.taken += 1;
        let first = self.taken.saturating_sub(2 * AHEAD as u64);
        while self.peaks.front().is_some_and(|(place, _)| *place < first) {
            self.peaks.pop_front();
        }
        let loudest = self.peaks.front().map_or(0.0, |(_, level)| *level);
        self.held = (self.held + (1.0 - self.held) * RELEASE).min(CEILING / loudest.max(CEILING));
        self.smoothing.push_back(self.held);
        if self.smoothing.len() > AHEAD {
            self.smoothing.pop_front();
        }
        if self.waiting.len() <= AHEAD {
            return None;
        }
        let part = self.smoothing.iter().sum::<f32>() / self.smoothing.len() as f32;
        // `as` saturates.
        self.waiting.pop_front().map(|sample| (sample * part.min(1.0)).round() as i16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(gain: f32, pcm: &[i16], piece: usize) -> Vec<i16> {
        let mut limiter = Limiter::new(gain);
        let mut given: Vec<i16> = pcm.chunks(piece).flat_map(|piece| limiter.push(piece)).collect();
        given.extend(limiter.finish());
        given
    }

    fn tone(peak: f64, samples: usize) -> Vec<i16> {
        (0..samples).map(|n| ((n as f64 * 0.157).sin() * peak) as i16).collect()
    }

    #[test]
    fn what_there_is_room_for_passes_as_it_is() {
        let soft = tone(10_000.0, 3_000);
        assert_eq!(limited(1.0, &soft, 700), soft);
        let double: Vec<i16> = soft.iter().map(|sample| sample * 2).collect();
        assert_eq!(limited(2.0, &soft, 1), double);
        for few in [0, 1, AHEAD, AHEAD + 1] {
            assert_eq!(limited(1.0, &soft[..few], 40).len(), few);
        }
    }

    #[test]
    fn what_is_louder_is_softened_and_not_cut() {
        // Loud in its middle.
        let (soft, loud) = (tone(4_000.0, 16_000), tone(16_000.0, 16_000));
        let pcm = [&soft[..4_000], &loud[4_000..8_000], &soft[8_000..]].concat();
        let given = limited(5.0, &pcm, 320);
        let most = |pcm: &[i16]| pcm.iter().map(|sample| i32::from(*sample).abs()).max().unwrap();
        assert!((28_000..=29_300).contains(&most(&given)), "{}", most(&given));
        // No flat tops: the loudest samples are peaks of a wave, some of each period.
        let flat = given
            .windows(3)
            .filter(|w| w[0].abs() > 28_000 && w[0] == w[1] && w[1] == w[2])
            .count();
        assert_eq!(flat, 0);
        // Steady while it is loud, and as it was before and long after.
        let loud = &given[5_000..7_000];
        assert!(loud.chunks(40).all(|period| most(period) > 27_000), "it pumps");
        assert_eq!(most(&given[..3_800]), most(&pcm[..3_800]) * 5);
        assert!(most(&given[15_000..]) > 19_000, "{}", most(&given[15_000..]));
        let step =
            given.windows(2).map(|w| (i32::from(w[1]) - i32::from(w[0])).abs()).max().unwrap();
        // Where it becomes louder and softer the sound has a step itself.
        assert!(step < 30_000, "{step}");
    }
}
