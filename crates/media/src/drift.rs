//! Compensates for the drift between the peer's clock and the local one. Without it, the jitter
//! buffer would grow without bound or run dry.
//!
//! Twice a second the fill level is examined. If the level was never low, one pitch period is
//! removed from the audio. If the buffer was nearly empty, one is inserted. Corrections are
//! cross-faded and inaudible. A clock that is 1 % fast needs one correction per second. This works
//! on PCM. Where packets are not decoded, the jitter buffer drops whole packets instead.

use crate::opus::Rate;

/// Steps between two decisions.
const DECISION_STEPS: u16 = 25;
/// Number of latest steps that are not evaluated yet.
const PENDING_STEPS: usize = 3;
/// Target fill level at the start of a step, in steps, on a perfect network.
const TARGET_STEPS: usize = 2;
/// Minimum similarity of two adjacent periods (cosine), and the RMS below which audio counts as
/// silence.
const SIMILARITY_MIN: f32 = 0.6;
const SILENCE_RMS: f32 = 60.0;

/// The required correction, in samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Correction {
    None,
    /// Remove this many samples.
    Remove(usize),
    /// Insert this many samples.
    Insert(usize),
}

/// Estimates the clock drift from the fill level.
#[derive(Debug)]
pub(super) struct DriftEstimator {
    steps: u16,
    /// The lowest fill level since the last decision, without the latest steps, because it is
    /// unknown whether a packet is late or lost until the next one arrives.
    lowest: usize,
    pending: [usize; PENDING_STEPS],
    correction: Correction,
}

impl Default for DriftEstimator {
    fn default() -> Self {
        Self {
            steps: 0,
            lowest: usize::MAX,
            pending: [usize::MAX; PENDING_STEPS],
            correction: Correction::None,
        }
    }
}

impl DriftEstimator {
    /// Records the fill level `waiting` at the start of a step and returns the required correction.
    /// `frame` samples are consumed per step; `delay` is that of the jitter buffer in samples.
    pub(super) fn observe(&mut self, waiting: usize, frame: usize, delay: usize) -> Correction {
        let [.., before] = &mut self.pending;
        self.lowest = self.lowest.min(std::mem::replace(before, waiting));
        self.pending.rotate_right(1);
        self.steps += 1;
        if self.steps == DECISION_STEPS {
            let target = delay.max(TARGET_STEPS * frame);
            let correction = match self.lowest {
                lowest if lowest > target + frame * 3 / 8 => Correction::Remove(lowest - target),
                // The next packet that is late by a step would leave the buffer empty. A difference
                // of less than a period is not corrected, because the level is then sufficient.
                lowest if lowest < TARGET_STEPS * frame => {
                    Correction::Insert(TARGET_STEPS * frame + frame / 4 - lowest)
                }
                _ => Correction::None,
            };
            *self = Self { correction, ..Self::default() };
        }
        self.correction
    }

    /// Discards the levels observed so far, because packets were lost. The level was low until the
    /// loss was concealed, regardless of the clock.
    pub(super) fn note_loss(&mut self) {
        *self = Self { correction: self.correction, ..Self::default() };
    }

    /// Accounts for the samples that were removed or inserted, and discards the levels observed
    /// before.
    pub(super) fn apply(&mut self, samples: usize) {
        let rest = |correction: usize| correction.saturating_sub(samples);
        let correction = match self.correction {
            Correction::Remove(correction) if samples > 0 && rest(correction) > 0 => {
                Correction::Remove(rest(correction))
            }
            Correction::Insert(correction) if samples > 0 && rest(correction) > 0 => {
                Correction::Insert(rest(correction))
            }
            Correction::None | Correction::Remove(_) | Correction::Insert(_) => Correction::None,
        };
        *self = Self { correction, ..Self::default() };
    }
}

/// Returns the shortest and longest period that is removed or inserted (400 and 80 Hz) and the
/// length of the cross-fade, in samples. The last two together are less than 20 ms.
fn lengths(rate: Rate) -> (usize, usize, usize) {
    let samples = |tenths: usize| rate.frame() * tenths / 200;
    (samples(25), samples(125), samples(70))
}

/// Returns the maximum number of samples that one correction removes or inserts.
pub(super) fn correction_max(rate: Rate) -> usize {
    lengths(rate).1
}

/// Removes one pitch period of at most `most` samples from the first 20 ms. Returns its length.
pub(super) fn shorten(pcm: &mut Vec<i16>, rate: Rate, most: usize) -> usize {
    let Some((period, join)) = period(pcm, rate, most) else { return 0 };
    let joint = crossfade(pcm.get(..join), pcm.get(period..period + join));
    pcm.splice(..period + join, joint);
    period
}

/// Repeats one pitch period of at most `most` samples in the first 20 ms. Returns its length.
pub(super) fn lengthen(pcm: &mut Vec<i16>, rate: Rate, most: usize) -> usize {
    let Some((period, join)) = period(pcm, rate, most) else { return 0 };
    let joint = crossfade(pcm.get(period..period + join), pcm.get(..join));
    let again: Vec<i16> = pcm.iter().take(period).copied().chain(joint).collect();
    pcm.splice(..join, again);
    period
}

/// Finds the lag at which the beginning is most similar to the following audio, and the longest one
/// if several are equal. Returns the lag and the length of the cross-fade. Returns `None` if
/// nothing is similar enough, because a correction can wait.
fn period(pcm: &[i16], rate: Rate, most: usize) -> Option<(usize, usize)> {
    let (shortest, longest_period, join) = lengths(rate);
    let begin = pcm.get(..join)?;
    let power = |pcm: &[i16]| pcm.iter().map(|sample| f32::from(*sample).powi(2)).sum::<f32>();
    let begin_power = power(begin);
    let similarity = |period: usize| {
        let candidate = pcm.get(period..period + join).unwrap_or_default();
        let product: f32 =
            begin.iter().zip(candidate).map(|(a, b)| f32::from(*a) * f32::from(*b)).sum();
        product / (begin_power * power(candidate)).sqrt().max(1.0)
    };
    let longest_period = longest_period.min(most).min(pcm.len().checked_sub(join)?);
    let likely = (shortest..=longest_period).map(|period| (period, similarity(period)));
    let (period, best) = likely.max_by(|(_, a), (_, b)| a.total_cmp(b))?;
    let is_silent =
        begin_power < f32::from(u16::try_from(join).unwrap_or(u16::MAX)) * SILENCE_RMS.powi(2);
    (best >= SIMILARITY_MIN || is_silent || most >= rate.frame()).then_some((period, join))
}

/// Cross-fades from one sound to another.
fn crossfade(from: Option<&[i16]>, to: Option<&[i16]>) -> Vec<i16> {
    let (from, to) = (from.unwrap_or_default(), to.unwrap_or_default());
    let fraction = |n: usize| f32::from(u16::try_from(n).unwrap_or(u16::MAX));
    let whole = fraction(to.len()).max(1.0);
    let both = from.iter().zip(to).enumerate();
    both.map(|(n, (from, to))| {
        to_sample(f32::from(*from) + (f32::from(*to) - f32::from(*from)) * fraction(n) / whole)
    })
    .collect()
}

#[allow(clippy::as_conversions, reason = "`as` saturates")]
fn to_sample(sample: f32) -> i16 {
    sample as i16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Correction, DriftEstimator, correction_max, lengthen, shorten};
    use crate::opus::Rate;

    const RATE: Rate = Rate::Hz16000;
    const FRAME: usize = RATE.frame();

    fn voice(at: usize, hz: f32) -> i16 {
        let t = at as f32 / 16_000.0 * std::f32::consts::TAU;
        ((1..9).map(|k| (t * hz * k as f32).sin() / k as f32).sum::<f32>() * 4_000.0) as i16
    }

    fn largest_step(pcm: &[i16]) -> i32 {
        pcm.windows(2).map(|w| (i32::from(w[1]) - i32::from(w[0])).abs()).max().unwrap_or_default()
    }

    #[test]
    fn inserting_or_removing_a_period_makes_no_click() {
        for hz in [90.0, 131.0, 217.0, 390.0] {
            let whole: Vec<i16> = (0..3 * FRAME).map(|at| voice(at, hz)).collect();
            let bound = largest_step(&whole) * 11 / 10;
            for change in [shorten, lengthen] {
                let mut pcm = whole[FRAME..].to_vec();
                let before = pcm.len();
                let changed = change(&mut pcm, RATE, usize::MAX);
                assert_eq!(pcm.len().abs_diff(before), changed);
                assert!((FRAME / 8..=correction_max(RATE)).contains(&changed), "{changed}");
                let joint: Vec<i16> = whole[..FRAME].iter().chain(&pcm).copied().collect();
                assert!(largest_step(&joint) <= bound, "{hz}: {} of {bound}", largest_step(&joint));
                assert_eq!(pcm[pcm.len() - FRAME..], whole[2 * FRAME..]);
            }
        }
        let mut silence = vec![0; FRAME];
        assert_eq!(lengthen(&mut silence, RATE, usize::MAX), correction_max(RATE));
        assert_eq!(shorten(&mut silence, RATE, 10), 0, "less than a period");
        assert_eq!(shorten(&mut vec![0; 9], RATE, usize::MAX), 0, "too short to find a period");
    }

    #[test]
    fn corrects_a_level_that_stays_high_or_runs_low() {
        let correction = |waiting: &dyn Fn(usize) -> usize, delay| {
            let mut drift = DriftEstimator::default();
            (0..25).map(|n| drift.observe(waiting(n), FRAME, delay * FRAME)).last().expect("steps")
        };
        assert_eq!(correction(&|_| 2 * FRAME, 2), Correction::None);
        assert_eq!(correction(&|_| 3 * FRAME, 2), Correction::Remove(FRAME));
        assert_eq!(correction(&|_| 3 * FRAME, 3), Correction::None, "jitter");
        assert_eq!(
            correction(&|n| if n == 7 { 2 * FRAME } else { 8 * FRAME }, 2),
            Correction::None,
            "a burst"
        );
        assert_eq!(
            correction(&|n| if n == 7 { FRAME } else { 2 * FRAME }, 2),
            Correction::Insert(FRAME * 5 / 4)
        );
        let mut drift = DriftEstimator::default();
        (0..25).for_each(|_| _ = drift.observe(4 * FRAME, FRAME, 2 * FRAME));
        drift.apply(FRAME);
        assert_eq!(drift.observe(3 * FRAME, FRAME, 2 * FRAME), Correction::Remove(FRAME));
        drift.apply(0);
        assert_eq!(
            drift.observe(3 * FRAME, FRAME, 2 * FRAME),
            Correction::None,
            "no correction is possible"
        );

        // A loss every second leaves the level low for two steps. It says nothing about the clock.
        let mut drift = DriftEstimator::default();
        for n in 0..1_000 {
            if n % 50 == 2 {
                drift.note_loss();
            }
            let waiting = if n % 50 < 2 { FRAME } else { 2 * FRAME };
            assert_eq!(drift.observe(waiting, FRAME, 2 * FRAME), Correction::None, "{n}");
        }
    }

    proptest! {
        #[test]
        fn corrects_any_pcm_within_bounds(
            pcm in prop::collection::vec(any::<i16>(), 0..2_000), most in 0_usize..2_000,
            rate in prop::sample::select(vec![Rate::Hz8000, Rate::Hz16000, Rate::Hz24000, Rate::Hz48000]),
        ) {
            let (mut shorter, mut longer) = (pcm.clone(), pcm.clone());
            let (less, more) = (shorten(&mut shorter, rate, most), lengthen(&mut longer, rate, most));
            prop_assert!(less <= most && more <= most);
            prop_assert_eq!((shorter.len() + less, longer.len() - more), (pcm.len(), pcm.len()));
        }
    }
}
