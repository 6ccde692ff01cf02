//! Packet loss concealment: repeats the last pitch period, fades it out, and cross-fades into the
//! audio that follows.
//!
//! It works on PCM, because the codec's own concealment cannot be used: in `unsafe-libopus` 0.2.0
//! the SILK part saturates every sample of a lost frame (a bound of its 16-bit range has the wrong
//! sign). `opus` therefore never asks the codec to conceal.

/// Shortest and longest pitch period in milliseconds: 400 and 66 Hz.
const PERIOD_MS: (f32, f32) = (2.5, 15.0);
/// Length of the sections that are compared, in milliseconds.
const COMPARE_MS: f32 = 16.0;
/// Length of the cross-fade between concealed and received audio, in milliseconds.
const CROSSFADE_MS: f32 = 4.0;
/// Gain at the end of the first, second … concealed frame. After the last one there is silence.
const GAINS: [f32; 4] = [0.85, 0.55, 0.25, 0.0];

/// Conceals the losses of one stream.
#[derive(Clone, Debug)]
pub struct Concealer {
    /// Samples per millisecond.
    per_ms: f32,
    /// The latest samples, as many as the period search needs.
    history: Vec<f32>,
    /// Consecutive concealed frames.
    concealed: usize,
    /// One pitch period, created when the first frame is lost, followed by the position in it.
    cycle: Vec<f32>,
    position: usize,
    /// Difference between the last received sample and the start of the period. It is faded out.
    offset: f32,
}

impl Concealer {
    /// Creates a concealer for `hz` samples a second (8,000 to 48,000).
    pub fn new(hz: u32) -> Self {
        let per_ms = f32::from(u16::try_from(hz / 1_000).unwrap_or(48));
        Self {
            per_ms,
            history: Vec::new(),
            concealed: 0,
            cycle: Vec::new(),
            position: 0,
            offset: 0.0,
        }
    }

    fn samples(&self, ms: f32) -> usize {
        to_length(self.per_ms * ms)
    }

    /// Adds received audio. If frames before it were concealed, its beginning is cross-faded in
    /// place.
    pub fn push(&mut self, pcm: &mut [i16]) {
        if self.concealed > 0 {
            let fade = self.samples(CROSSFADE_MS).min(pcm.len());
            let gain = self.gain(self.concealed);
            for (n, sample) in pcm.iter_mut().take(fade).enumerate() {
                let weight = fraction(n, fade);
                let concealment = self.next_sample() * gain;
                *sample = to_sample(f32::from(*sample) * weight + concealment * (1.0 - weight));
            }
            self.concealed = 0;
        }
        self.record(pcm);
    }

    /// Appends `samples` concealed samples to `pcm`, usually 20 ms.
    pub fn conceal(&mut self, samples: usize, pcm: &mut Vec<i16>) {
        if self.concealed == 0 {
            self.extract_period();
        }
        let (from, to) = (self.gain(self.concealed), self.gain(self.concealed + 1));
        self.concealed += 1;
        let fade = self.samples(CROSSFADE_MS);
        for n in 0..samples {
            let offset = if self.concealed == 1 && n < fade {
                self.offset * (1.0 - fraction(n, fade))
            } else {
                0.0
            };
            let gain = from + (to - from) * fraction(n, samples);
            let next = self.next_sample();
            pcm.push(to_sample((next + offset) * gain));
        }
    }

    /// Discards the history, so that nothing is concealed from earlier audio.
    pub fn reset(&mut self) {
        self.history.clear();
        self.cycle.clear();
    }

    /// Returns the gain after this many concealed frames.
    fn gain(&self, frames: usize) -> f32 {
        match frames.checked_sub(1) {
            None => 1.0,
            Some(before) => GAINS.get(before).copied().unwrap_or_default(),
        }
    }

    fn next_sample(&mut self) -> f32 {
        let sample = self.cycle.get(self.position).copied().unwrap_or_default();
        self.position = if self.position + 1 < self.cycle.len() { self.position + 1 } else { 0 };
        sample
    }

    fn record(&mut self, pcm: &[i16]) {
        let kept = self.samples(PERIOD_MS.1 + COMPARE_MS) + 1;
        let new = pcm.get(pcm.len().saturating_sub(kept)..).unwrap_or_default();
        self.history.extend(new.iter().map(|sample| f32::from(*sample)));
        let over = self.history.len().saturating_sub(kept);
        self.history.drain(..over);
    }

    /// Copies the last pitch period. Its end is faded into its own beginning.
    fn extract_period(&mut self) {
        self.cycle.clear();
        (self.position, self.offset) = (0, 0.0);
        let Some(period) = self.period() else { return };
        let end = self.history.len();
        let (Some(last), Some(before)) =
            (self.history.get(end - period..), self.history.get(end - 2 * period..end - period))
        else {
            return;
        };
        let fade = period / 4;
        self.cycle.extend(last.iter().zip(before).enumerate().map(|(n, (last, before))| {
            let weight = n.checked_sub(period - fade).map_or(0.0, |n| fraction(n, fade));
            last * (1.0 - weight) + before * weight
        }));
        self.offset =
            self.history.last().zip(before.last()).map_or(0.0, |(last, before)| last - before);
    }

    /// Returns the lag in samples at which the latest audio is most similar to the audio before it.
    /// `None` if there is too little audio.
    fn period(&self) -> Option<usize> {
        let (min, max) = (self.samples(PERIOD_MS.0), self.samples(PERIOD_MS.1));
        let compared = self.samples(COMPARE_MS);
        if self.history.len() < max + compared {
            return None;
        }
        // Coarse search first, at a resolution of 8 kHz.
        let stride = to_length(self.per_ms / 8.0).max(1);
        let similarity = |period: &usize, stride: usize| {
            let end = self.history.len();
            let (latest, earlier) = (
                self.history.get(end - compared..),
                self.history.get(end - compared - period..end - period),
            );
            let pairs =
                latest.unwrap_or_default().iter().zip(earlier.unwrap_or_default()).step_by(stride);
            let (product, power) = pairs.fold((0.0_f32, 1.0_f32), |(product, power), (a, b)| {
                (product + a * b, power + b * b)
            });
            product / power.sqrt()
        };
        let best = |periods: &mut dyn Iterator<Item = usize>, stride| {
            periods.max_by(|a, b| similarity(a, stride).total_cmp(&similarity(b, stride)))
        };
        let coarse = best(&mut (min..=max).step_by(stride), stride)?;
        // Two whole periods must be in the history.
        let fine = coarse.saturating_sub(stride).max(min)..=(coarse + stride).min(max);
        best(&mut fine.filter(|period| 2 * period <= self.history.len()), 1)
    }
}

/// Returns `n / whole`, from 0 to 1.
fn fraction(n: usize, whole: usize) -> f32 {
    let small = |n: usize| f32::from(u16::try_from(n).unwrap_or(u16::MAX));
    small(n) / small(whole).max(1.0)
}

#[allow(clippy::as_conversions, reason = "`as` saturates")]
fn to_sample(sample: f32) -> i16 {
    sample as i16
}

#[allow(clippy::as_conversions, reason = "a small, non-negative length in samples")]
fn to_length(samples: f32) -> usize {
    samples as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Concealer;

    const FRAME: usize = 320;

    fn voice(at: usize) -> f32 {
        let t = at as f32 / 16_000.0 * std::f32::consts::TAU;
        (1..9).map(|k| (t * 130.0 * k as f32).sin() / k as f32).sum::<f32>() * 4_000.0
    }

    /// Runs `frames` frames of a waveform through a concealer; `lost` selects the lost ones.
    fn run(
        waveform: impl Fn(usize) -> f32,
        frames: usize,
        is_lost: impl Fn(usize) -> bool,
    ) -> Vec<i16> {
        let mut concealer = Concealer::new(16_000);
        let mut out = Vec::new();
        for n in 0..frames {
            let mut pcm: Vec<i16> =
                (n * FRAME..(n + 1) * FRAME).map(|at| waveform(at) as i16).collect();
            if is_lost(n) {
                concealer.conceal(FRAME, &mut out);
            } else {
                concealer.push(&mut pcm);
                out.extend(pcm);
            }
        }
        out
    }

    fn largest_step(pcm: &[i16]) -> i32 {
        pcm.windows(2).map(|w| (i32::from(w[1]) - i32::from(w[0])).abs()).max().unwrap_or_default()
    }

    fn level(pcm: &[i16]) -> f32 {
        (pcm.iter().map(|s| f32::from(*s).powi(2)).sum::<f32>() / pcm.len().max(1) as f32).sqrt()
    }

    #[test]
    fn conceals_a_gap_without_a_click_and_fades_out() {
        let whole = run(voice, 60, |_| false);
        let lossy = run(voice, 60, |n| n % 6 == 5);
        assert!(
            largest_step(&lossy) <= largest_step(&whole) * 5 / 4,
            "{} {}",
            largest_step(&lossy),
            largest_step(&whole)
        );
        let gap = &lossy[35 * FRAME..36 * FRAME];
        assert!(level(gap) > level(&whole) * 0.7 && level(gap) < level(&whole) * 1.1);
        let faded = run(voice, 60, |n| n > 30);
        assert!(faded[36 * FRAME..].iter().all(|s| *s == 0));
        assert!(largest_step(&faded) <= largest_step(&whole) * 5 / 4);
    }

    #[test]
    fn conceals_with_silence_without_history() {
        assert!(run(voice, 10, |_| true).iter().all(|s| *s == 0));
        let (mut concealer, mut out) = (Concealer::new(8_000), Vec::new());
        concealer.push(&mut [9_000; 40]);
        concealer.conceal(160, &mut out);
        assert!(out.iter().all(|s| *s == 0), "too short to find a period");
    }

    proptest! {
        #[test]
        fn conceals_the_requested_length_after_any_pcm(
            pcm in prop::collection::vec(any::<i16>(), 0..2_000), hz in prop::sample::select(vec![8_000_u32, 16_000, 24_000, 48_000])
        ) {
            let (mut concealer, mut out) = (Concealer::new(hz), Vec::new());
            concealer.push(&mut pcm.clone());
            (0..6).for_each(|_| concealer.conceal(usize::try_from(hz / 50).unwrap(), &mut out));
            prop_assert_eq!(out.len(), usize::try_from(hz / 50 * 6).unwrap());
        }
    }
}
