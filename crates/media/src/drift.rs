//! Compensation for a peer whose clock is faster or slower than ours. Consuming 20 ms every 20 ms,
//! the jitter buffer would grow without bound or run dry.
//!
//! Twice a second the fill level is examined. If it never was low, one pitch period is removed from
//! the audio; if it was nearly empty, one is inserted. Each is cross-faded and inaudible. A second
//! of a clock that is 1 % fast costs one such period. This works on PCM. Where packets are not
//! decoded, the jitter buffer drops whole packets instead.

use crate::opus::Rate;

/// Steps between two decisions.
const LOOK: u16 = 25;
/// Latest steps that are not evaluated yet.
const LATEST: usize = 3;
/// Target fill level at the start of a step, in steps, on a perfect network.
const KEPT: usize = 2;
/// Minimum similarity of two adjacent periods (cosine), and the RMS below which audio counts as
/// silence.
const ALIKE: f32 = 0.6;
const SILENT: f32 = 60.0;

/// The correction that is due, in samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owed {
    Nothing,
    /// Remove this many samples.
    TakeOut(usize),
    /// Insert this many samples.
    PutIn(usize),
}

/// Estimates the clock drift from the fill level.
#[derive(Debug)]
pub(super) struct Drift {
    steps: u16,
    /// The lowest fill level since the last decision, without the latest steps: whether a packet is
    /// late or lost is known only when the next one arrives.
    least: usize,
    latest: [usize; LATEST],
    owed: Owed,
}

impl Default for Drift {
    fn default() -> Self {
        Self { steps: 0, least: usize::MAX, latest: [usize::MAX; LATEST], owed: Owed::Nothing }
    }
}

impl Drift {
    /// Records the fill level `waiting` at the start of a step and returns the correction that is
    /// due. `frame` samples are consumed per step; `delay` is that of the jitter buffer in samples.
    pub(super) fn step(&mut self, waiting: usize, frame: usize, patience: usize) -> Owed {
        let [.., before] = &mut self.latest;
        self.least = self.least.min(std::mem::replace(before, waiting));
        self.latest.rotate_right(1);
        self.steps += 1;
        if self.steps == LOOK {
            let kept = patience.max(KEPT * frame);
            let owed = match self.least {
                least if least > kept + frame * 3 / 8 => Owed::TakeOut(least - kept),
                // The next packet that is late by a step would find too little. A remainder of less
                // than a period is not inserted: the level is sufficient then.
                least if least < KEPT * frame => Owed::PutIn(KEPT * frame + frame / 4 - least),
                _ => Owed::Nothing,
            };
            *self = Self { owed, ..Self::default() };
        }
        self.owed
    }

    /// Ignores the levels observed so far, because packets were lost. The level was low until the
    /// loss was concealed, whatever the clock.
    pub(super) fn disturbed(&mut self) {
        *self = Self { owed: self.owed, ..Self::default() };
    }

    /// Subtracts the samples that were removed or inserted, and ignores the levels observed before.
    pub(super) fn done(&mut self, samples: usize) {
        let rest = |owed: usize| owed.saturating_sub(samples);
        let owed = match self.owed {
            Owed::TakeOut(owed) if samples > 0 && rest(owed) > 0 => Owed::TakeOut(rest(owed)),
            Owed::PutIn(owed) if samples > 0 && rest(owed) > 0 => Owed::PutIn(rest(owed)),
            Owed::Nothing | Owed::TakeOut(_) | Owed::PutIn(_) => Owed::Nothing,
        };
        *self = Self { owed, ..Self::default() };
    }
}

/// Shortest and longest period that is removed or inserted (400 and 80 Hz) and length of the
/// cross-fade, in samples. The last two together are less than 20 ms.
fn lengths(rate: Rate) -> (usize, usize, usize) {
    let samples = |tenths: usize| rate.frame() * tenths / 200;
    (samples(25), samples(125), samples(70))
}

/// Maximum number of samples that one correction removes or inserts.
pub(super) fn longest(rate: Rate) -> usize {
    lengths(rate).1
}

/// Removes one pitch period of at most `most` samples from the first 20 ms. Returns its length.
pub(super) fn shorten(pcm: &mut Vec<i16>, rate: Rate, most: usize) -> usize {
    let Some((period, join)) = period(pcm, rate, most) else { return 0 };
    let joined = faded(pcm.get(..join), pcm.get(period..period + join));
    pcm.splice(..period + join, joined);
    period
}

/// Repeats one pitch period of at most `most` samples in the first 20 ms. Returns its length.
pub(super) fn lengthen(pcm: &mut Vec<i16>, rate: Rate, most: usize) -> usize {
    let Some((period, join)) = period(pcm, rate, most) else { return 0 };
    let joined = faded(pcm.get(period..period + join), pcm.get(..join));
    let again: Vec<i16> = pcm.iter().take(period).copied().chain(joined).collect();
    pcm.splice(..join, again);
    period
}

/// Finds the lag at which the beginning is most similar to itself, the longest of equals. Returns
/// the lag and the length of the cross-fade, or `None` if nothing is similar enough; the correction
/// can wait.
fn period(pcm: &[i16], rate: Rate, most: usize) -> Option<(usize, usize)> {
    let (shortest, longest, join) = lengths(rate);
    let begin = pcm.get(..join)?;
    let power = |pcm: &[i16]| pcm.iter().map(|sample| f32::from(*sample).powi(2)).sum::<f32>();
    let of_begin = power(begin);
    let likeness = |period: usize| {
        let there = pcm.get(period..period + join).unwrap_or_default();
        let product: f32 =
            begin.iter().zip(there).map(|(a, b)| f32::from(*a) * f32::from(*b)).sum();
        product / (of_begin * power(there)).sqrt().max(1.0)
    };
    let longest = longest.min(most).min(pcm.len().checked_sub(join)?);
    let likely = (shortest..=longest).map(|period| (period, likeness(period)));
    let (period, alike) = likely.max_by(|(_, a), (_, b)| a.total_cmp(b))?;
    let is_silent = of_begin < f32::from(u16::try_from(join).unwrap_or(u16::MAX)) * SILENT.powi(2);
    (alike >= ALIKE || is_silent || most >= rate.frame()).then_some((period, join))
}

/// Cross-fades from one sound to another.
fn faded(from: Option<&[i16]>, to: Option<&[i16]>) -> Vec<i16> {
    let (from, to) = (from.unwrap_or_default(), to.unwrap_or_default());
    let share = |n: usize| f32::from(u16::try_from(n).unwrap_or(u16::MAX));
    let whole = share(to.len()).max(1.0);
    let both = from.iter().zip(to).enumerate();
    both.map(|(n, (from, to))| {
        sound(f32::from(*from) + (f32::from(*to) - f32::from(*from)) * share(n) / whole)
    })
    .collect()
}

#[allow(clippy::as_conversions, reason = "it saturates, as sound does")]
fn sound(sample: f32) -> i16 {
    sample as i16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Drift, Owed, lengthen, longest, shorten};
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
    fn a_period_more_or_less_is_not_heard() {
        for hz in [90.0, 131.0, 217.0, 390.0] {
            let whole: Vec<i16> = (0..3 * FRAME).map(|at| voice(at, hz)).collect();
            let bound = largest_step(&whole) * 11 / 10;
            for change in [shorten, lengthen] {
                let mut pcm = whole[FRAME..].to_vec();
                let before = pcm.len();
                let changed = change(&mut pcm, RATE, usize::MAX);
                assert_eq!(pcm.len().abs_diff(before), changed);
                assert!((FRAME / 8..=longest(RATE)).contains(&changed), "{changed}");
                let joined: Vec<i16> = whole[..FRAME].iter().chain(&pcm).copied().collect();
                assert!(
                    largest_step(&joined) <= bound,
                    "{hz}: {} of {bound}",
                    largest_step(&joined)
                );
                assert_eq!(pcm[pcm.len() - FRAME..], whole[2 * FRAME..]);
            }
        }
        let mut silence = vec![0; FRAME];
        assert_eq!(lengthen(&mut silence, RATE, usize::MAX), longest(RATE));
        assert_eq!(shorten(&mut silence, RATE, 10), 0, "less than a period");
        assert_eq!(shorten(&mut vec![0; 9], RATE, usize::MAX), 0, "too little to tell");
    }

    #[test]
    fn what_waits_for_long_is_taken_out_and_what_is_hardly_enough_is_helped() {
        let owed = |waiting: &dyn Fn(usize) -> usize, patience| {
            let mut drift = Drift::default();
            (0..25).map(|n| drift.step(waiting(n), FRAME, patience * FRAME)).last().expect("steps")
        };
        assert_eq!(owed(&|_| 2 * FRAME, 2), Owed::Nothing);
        assert_eq!(owed(&|_| 3 * FRAME, 2), Owed::TakeOut(FRAME));
        assert_eq!(owed(&|_| 3 * FRAME, 3), Owed::Nothing, "a restless network");
        assert_eq!(
            owed(&|n| if n == 7 { 2 * FRAME } else { 8 * FRAME }, 2),
            Owed::Nothing,
            "a burst"
        );
        assert_eq!(
            owed(&|n| if n == 7 { FRAME } else { 2 * FRAME }, 2),
            Owed::PutIn(FRAME * 5 / 4)
        );
        let mut drift = Drift::default();
        (0..25).for_each(|_| _ = drift.step(4 * FRAME, FRAME, 2 * FRAME));
        drift.done(FRAME);
        assert_eq!(drift.step(3 * FRAME, FRAME, 2 * FRAME), Owed::TakeOut(FRAME));
        drift.done(0);
        assert_eq!(drift.step(3 * FRAME, FRAME, 2 * FRAME), Owed::Nothing, "it can't be done");

        // A loss every second leaves the level low for two steps. It says nothing about the clock.
        let mut drift = Drift::default();
        for n in 0..1_000 {
            if n % 50 == 2 {
                drift.disturbed();
            }
            let waiting = if n % 50 < 2 { FRAME } else { 2 * FRAME };
            assert_eq!(drift.step(waiting, FRAME, 2 * FRAME), Owed::Nothing, "{n}");
        }
    }

    proptest! {
        #[test]
        fn any_sound_may_be_changed(
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
