//! Seamless repetition of a file's audio.
//!
//! A prompt consists of 20 ms frames. Its last frame is padded with silence, its encoder started
//! from silence, and the end of the sound is lost in the encoder's look-ahead (6.5 ms). If the
//! prompt were repeated as it is, music would dip at each repetition and click, because the
//! decoder's state would not match the encoder's. The end and the beginning are therefore encoded
//! again as one continuous piece, the join.
//!
//! A repetition must be a whole number of frames. If the sound is not, its last second is stretched
//! or shortened by up to 10 ms (1 %). A short sound is instead encoded as three complete
//! repetitions (first, middle, last) and stretched or shortened as a whole by at most the same
//! amount.

use std::collections::VecDeque;

use super::resample::{RATE, Resampler};
use media::opus::{Encoder, Rate};
use media::prompt::{Frame, LoopJoin};

/// Samples per frame.
const FRAME: usize = Rate::Hz16000.frame();
/// Frames encoded again before (`TAIL`) and after (`HEAD`) the join. After the join the decoder
/// receives the beginning of the sound for half a second before the prompt's own frames continue,
/// so that its state matches them except for coding noise.
const TAIL: usize = 50;
const HEAD: usize = 25;
/// Frames encoded before the tail to bring the encoder into the matching state.
const WARM_UP: usize = 25;
/// Additional frames for the edges of the resampler.
const MARGIN: usize = 2;
/// Length in frames below which a sound is encoded as a whole.
const LONG: usize = WARM_UP + TAIL + HEAD;
/// Number of frames kept from the end of the sound.
const END_FRAMES: usize = LONG + 2 * MARGIN;

/// Collects the beginning and the end of a sound at its own sample rate, and encodes the join.
#[derive(Default)]
pub(super) struct LoopJoinBuilder {
    rate: u32,
    head: Vec<i16>,
    recent: VecDeque<i16>,
    pushed: usize,
    /// Whether the sample rate changed within the sound, so that no loop transition is encoded.
    rate_changed: bool,
}

impl LoopJoinBuilder {
    /// Adds audio that is also added to the prompt.
    pub(super) fn push(&mut self, rate: u32, pcm: &[i16]) {
        self.rate_changed |= self.rate != 0 && self.rate != rate;
        self.rate = rate;
        let missing = self.frames(HEAD + MARGIN).saturating_sub(self.head.len());
        self.head.extend(pcm.iter().take(missing));
        self.pushed += pcm.len();
        self.recent.extend(pcm);
        let excess = self.recent.len().saturating_sub(self.frames(END_FRAMES));
        self.recent.drain(..excess);
    }

    /// Returns the number of samples of `frames` frames at the sound's rate.
    fn frames(&self, frames: usize) -> usize {
        (frames * FRAME * self.rate as usize).div_ceil(RATE as usize)
    }

    /// Encodes the join. Returns `None` if the sound is shorter than a frame or changes its sample
    /// rate.
    pub(super) fn build(self) -> Option<LoopJoin> {
        if self.rate_changed || self.rate == 0 {
            return None;
        }
        let ratio = f64::from(RATE) / f64::from(self.rate);
        // The values below are in samples at 16 kHz.
        let end = self.pushed as f64 * ratio;
        let whole_frames = end as usize / FRAME;
        match whole_frames {
            0 => None,
            1..LONG => self.short(end),
            _ => self.long(end, whole_frames - TAIL),
        }
    }

    fn long(self, end: f64, from: usize) -> Option<LoopJoin> {
        let start = (from * FRAME) as f64;
        let tail = ((end - start) / FRAME as f64).round() as usize;
        let tail_samples = (tail * FRAME) as i64;
        let stretch = (end - start) / tail_samples as f64;
        let (warm_up, after_join) = (self.frames(WARM_UP + MARGIN), self.frames(HEAD + MARGIN));
        let first = from * FRAME * self.rate as usize / RATE as usize;
        let recent_start = self.pushed - self.recent.len();
        let skip = first.checked_sub(warm_up + recent_start)?;
        let sound = self.recent.iter().skip(skip).chain(self.head.iter().take(after_join)).copied();
        let sound = self.resample(sound.collect())?;
        let base = (first as f64 - warm_up as f64) * f64::from(RATE) / f64::from(self.rate);
        // Maps a sample of the join to its position in the sound.
        let position = |n: i64| match n {
            n if n < 0 => start + n as f64,
            n if n < tail_samples => start + n as f64 * stretch,
            n => end + (n - tail_samples) as f64,
        };
        let mut encoder = Encoder::for_prompts();
        let mut encode = |frames: usize, after: i64| -> Vec<Frame> {
            (0..frames)
                .map(|number| {
                    encode_frame(&mut encoder, after + number as i64, |n| {
                        interpolate(&sound, position(n) - base)
                    })
                })
                .collect()
        };
        encode(WARM_UP, -(WARM_UP as i64));
        Some(LoopJoin {
            from,
            tail: encode(tail, 0),
            head: encode(HEAD, tail as i64),
            middle: Vec::new(),
        })
    }

    /// Encodes a short sound, all of which is in `recent`. Returns `None` if it cannot be
    /// resampled.
    fn short(self, end: f64) -> Option<LoopJoin> {
        let (frames, source_frames) =
            (((end / FRAME as f64).round() as usize).max(1), (end / FRAME as f64).ceil() as usize);
        let stretch = end / (frames * FRAME) as f64;
        // Prepend the previous repetition and append the next one, as far as the resampler needs
        // them.
        let margin = self.frames(MARGIN);
        let mut sound: Vec<i16> = self.recent.iter().rev().cycle().take(margin).copied().collect();
        sound.reverse();
        sound.extend(&self.recent);
        sound.extend(self.recent.iter().cycle().take(margin));
        let sound = self.resample(sound)?;
        let base = margin as f64 * f64::from(RATE) / f64::from(self.rate);
        let repetition = |n: i64| interpolate(&sound, n as f64 * stretch + base);
        let last = |n: i64| if n as f64 >= end { 0 } else { interpolate(&sound, n as f64 + base) };
        let mut encoder = Encoder::for_prompts();
        let [tail, middle] = [(); 2].map(|()| {
            (0..frames as i64)
                .map(|number| encode_frame(&mut encoder, number, repetition))
                .collect()
        });
        let head = (0..source_frames as i64)
            .map(|number| encode_frame(&mut encoder, number, last))
            .collect();
        Some(LoopJoin { from: 0, tail, head, middle })
    }

    fn resample(&self, sound: Vec<i16>) -> Option<Vec<i16>> {
        let mut resampled = Vec::new();
        let mut resampler = Resampler::new(self.rate).ok()?;
        resampler.push(&sound, &mut resampled);
        resampler.finish(&mut resampled);
        Some(resampled)
    }
}

/// Encodes frame `number` of the signal `sample`.
fn encode_frame(encoder: &mut Encoder, number: i64, sample: impl Fn(i64) -> i16) -> Frame {
    let first = number * FRAME as i64;
    let pcm: [i16; FRAME] = std::array::from_fn(|n| sample(first + n as i64));
    // The first frame of a repetition follows the end of the previous repetition, but not
    // necessarily the frame that was encoded before it.
    if number == 0 { encoder.encode_independent(&pcm) } else { encoder.encode(&pcm) }
}

/// Interpolates between samples with a Catmull-Rom spline. The signal is silent outside.
fn interpolate(sound: &[i16], position: f64) -> i16 {
    let whole = position.floor();
    let fraction = position - whole;
    let sample = |n: i64| {
        let index = usize::try_from(whole as i64 + n).ok();
        index.and_then(|index| sound.get(index)).map_or(0.0, |sample| f64::from(*sample))
    };
    let [before, here, next, after] = [sample(-1), sample(0), sample(1), sample(2)];
    let coefficients = [
        here,
        (next - before) / 2.0,
        before - 2.5 * here + 2.0 * next - after / 2.0,
        (after - before) / 2.0 + 1.5 * (here - next),
    ];
    // `as` saturates.
    coefficients.iter().rev().fold(0.0, |sum, coefficient| sum * fraction + coefficient).round()
        as i16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt_builder::PromptBuilder;
    use media::opus::Decoder;
    use media::prompt::{FrameState, Prompt};

    const PEAK: f64 = 8_000.0;

    /// A tone of whole periods, whose end continues into its beginning.
    fn tone(rate: u32, periods: u32, hz: f64) -> Vec<i16> {
        let samples = (f64::from(periods) * f64::from(rate) / hz).round() as usize;
        let step = f64::from(periods) * std::f64::consts::TAU / samples as f64;
        (0..samples).map(|n| ((n as f64 * step).sin() * PEAK).round() as i16).collect()
    }

    /// Plays a sound several times, with or without its join, and returns the decoded audio with
    /// the number of frames.
    fn play(rate: u32, pcm: &[i16], repetitions: usize, joined: bool) -> (Vec<i16>, usize) {
        let (prompt, writer) = Prompt::new();
        let mut builder = PromptBuilder::new(writer).for_loops();
        // In chunks, like a decoder.
        for chunk in pcm.chunks(1_152) {
            builder.push(rate, chunk).unwrap();
        }
        builder.encode_join();
        builder.finish().unwrap();
        let (mut cursor, mut decoder, mut decoded) =
            (prompt.cursor(), Decoder::new(Rate::Hz16000), Vec::new());
        let mut frames = 0;
        for repetition in 1..=repetitions {
            loop {
                match cursor.next_in_round(joined && repetition < repetitions) {
                    FrameState::Ready(frame) => {
                        decoder.decode(Some(&frame), false, &mut decoded).unwrap();
                        frames += 1;
                    }
                    FrameState::End => break,
                    other => panic!("{other:?}"),
                }
            }
            cursor.rewind();
        }
        (decoded, frames)
    }

    /// Returns the lowest and highest loudness over 5 ms relative to the tone, and the largest step
    /// between samples relative to the tone's largest, ignoring the first and last frames.
    fn measure(decoded: &[i16], hz: f64) -> (f64, f64, f64) {
        let decoded = &decoded[3 * FRAME..decoded.len() - 3 * FRAME];
        let period = (16_000.0 / hz).round() as usize;
        // Whole periods, so that the loudness does not depend on the phase.
        let window = (80 / period).max(1) * period;
        let loudness = |pcm: &[i16]| {
            let sum: f64 = pcm.iter().map(|s| f64::from(*s) * f64::from(*s)).sum();
            (sum / pcm.len() as f64).sqrt() / (PEAK / 2_f64.sqrt())
        };
        let levels: Vec<f64> = decoded.windows(window).step_by(8).map(loudness).collect();
        let least = levels.iter().copied().fold(f64::INFINITY, f64::min);
        let most = levels.iter().copied().fold(0.0, f64::max);
        let step = decoded
            .windows(2)
            .map(|w| f64::from((i32::from(w[1]) - i32::from(w[0])).abs()))
            .fold(0.0, f64::max);
        (least, most, step / (PEAK * std::f64::consts::TAU * hz / 16_000.0))
    }

    #[test]
    fn a_tone_continues_across_the_join() {
        // Short and long sounds, with and without a partial frame at the end.
        for (rate, periods, hz) in [
            (16_000, 400, 400.0),
            (16_000, 202, 400.0),
            (8_000, 1_203, 400.0),
            (44_100, 1_001, 500.0),
            (48_000, 77, 500.0),
        ] {
            let pcm = tone(rate, periods, hz);
            let case = format!("{periods} periods at {rate}");
            let (decoded, frames) = play(rate, &pcm, 4, true);
            let (least, most, step) = measure(&decoded, hz);
            assert!(
                (0.8..1.35).contains(&least) && (0.8..1.35).contains(&most),
                "{case}: {least} to {most}"
            );
            assert!(step < 1.3, "{case}: {step}");
            let exact = pcm.len() as f64 * 50.0 / f64::from(rate);
            let off = frames as f64 - 4.0 * exact;
            assert!(
                off.abs() <= 3.0 * 0.5 + 1.0,
                "{case}: {frames} frames for 4 repetitions of {exact}"
            );
            let (least, ..) = measure(&play(rate, &pcm, 4, false).0, hz);
            assert!(least < 0.78, "{case}: without the join there is a dip: {least}");
        }
    }

    #[test]
    fn a_single_repetition_is_unchanged_and_too_short_a_sound_has_no_join() {
        let pcm = tone(16_000, 202, 400.0);
        assert_eq!(play(16_000, &pcm, 1, true), play(16_000, &pcm, 1, false));
        let mut short = LoopJoinBuilder::default();
        short.push(16_000, &pcm[..FRAME - 1]);
        assert_eq!(short.build(), None);
        let mut rate_changed = LoopJoinBuilder::default();
        rate_changed.push(16_000, &pcm);
        rate_changed.push(8_000, &pcm);
        assert_eq!(rate_changed.build(), None);
        assert_eq!(LoopJoinBuilder::default().build(), None);
    }

    #[test]
    fn interpolation_keeps_lines_and_is_silent_outside() {
        let line: Vec<i16> = (0..10).map(|n| n * 100).collect();
        assert_eq!([1.0, 2.5, 7.25].map(|position| interpolate(&line, position)), [100, 250, 725]);
        assert_eq!([-3.0, 30.0].map(|position| interpolate(&line, position)), [0, 0]);
    }
}
