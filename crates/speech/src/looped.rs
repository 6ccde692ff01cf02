//! How a file's sound goes over into itself where it is played again and again.
//!
//! A prompt is frames of 20 ms. Its last one is filled up with silence, its encoder began from silence, and what it looks
//! ahead (6.5 ms) is never heard of its end: played round after round as it is, a tune would dip at each join, and click where
//! a decoder finds itself in another state than the encoder was in. So the end and the beginning are encoded once more, as
//! one stretch. A round is then a whole number of frames: where the sound is not, its last second is made up to 10 ms longer
//! or shorter, 1 %. A short sound is encoded as three rounds, the first, one between two others, and the last; it is made
//! longer or shorter as a whole, by no more.

use std::collections::VecDeque;

use super::resample::{RATE, Resampler};
use media::opus::{Encoder, Rate};
use media::prompt::{Frame, LoopJoin};

/// Samples of a frame.
const FRAME: usize = Rate::Hz16000.frame();
/// Frames that are encoded anew before the join and behind it: behind it a decoder hears the prompt's own from where it has
/// heard the same for half a second, so that it is in the state that they were encoded for but for the coding's noise.
const TAIL: usize = 50;
const HEAD: usize = 25;
/// Frames that an encoder hears before those, for the same reason.
const RUN_UP: usize = 25;
/// Frames more, for the edges of the resampling.
const MARGIN: usize = 2;
/// A sound of fewer is a short one.
const LONG: usize = RUN_UP + TAIL + HEAD;
/// Frames of the end that are kept in the making.
const KEPT: usize = LONG + 2 * MARGIN;

/// What is kept of a sound in the making: its beginning and its end, at its own rate.
#[derive(Default)]
pub(super) struct Loop {
    rate: u32,
    head: Vec<i16>,
    recent: VecDeque<i16>,
    taken: usize,
    /// Its rate changed in its middle: it is joined as it is.
    mixed: bool,
}

impl Loop {
    /// Takes what is encoded.
    pub(super) fn push(&mut self, rate: u32, pcm: &[i16]) {
        self.mixed |= self.rate != 0 && self.rate != rate;
        self.rate = rate;
        let wanted = self.frames(HEAD + MARGIN).saturating_sub(self.head.len());
        self.head.extend(pcm.iter().take(wanted));
        self.taken += pcm.len();
        self.recent.extend(pcm);
        let old = self.recent.len().saturating_sub(self.frames(KEPT));
        self.recent.drain(..old);
    }

    /// Samples of so many frames, at its own rate.
    fn frames(&self, frames: usize) -> usize {
        (frames * FRAME * self.rate as usize).div_ceil(RATE as usize)
    }

    /// The join; none where there is too little sound.
    pub(super) fn join(self) -> Option<LoopJoin> {
        if self.mixed || self.rate == 0 {
            return None;
        }
        let ratio = f64::from(RATE) / f64::from(self.rate);
        // In samples at 16 kHz, as all that follows.
        let end = self.taken as f64 * ratio;
        let whole = end as usize / FRAME;
        match whole {
            0 => None,
            1..LONG => self.short(end),
            _ => self.long(end, whole - TAIL),
        }
    }

    fn long(self, end: f64, from: usize) -> Option<LoopJoin> {
        let start = (from * FRAME) as f64;
        let tail = ((end - start) / FRAME as f64).round() as usize;
        let made = (tail * FRAME) as i64;
        let stretch = (end - start) / made as f64;
        let (run_up, behind) = (self.frames(RUN_UP + MARGIN), self.frames(HEAD + MARGIN));
        let first = from * FRAME * self.rate as usize / RATE as usize;
        let begins = self.taken - self.recent.len();
        let before = first.checked_sub(run_up + begins)?;
        let sound = self.recent.iter().skip(before).chain(self.head.iter().take(behind)).copied();
        let sound = self.at_our_rate(sound.collect())?;
        let base = (first as f64 - run_up as f64) * f64::from(RATE) / f64::from(self.rate);
        // Where in the sound a sample of the new stretch is.
        let place = |n: i64| match n {
            n if n < 0 => start + n as f64,
            n if n < made => start + n as f64 * stretch,
            n => end + (n - made) as f64,
        };
        let mut encoder = Encoder::for_prompts();
        let mut made = |frames: usize, after: i64| -> Vec<Frame> {
            (0..frames)
                .map(|number| {
                    encoded(&mut encoder, after + number as i64, |n| at(&sound, place(n) - base))
                })
                .collect()
        };
        made(RUN_UP, -(RUN_UP as i64));
        Some(LoopJoin {
            from,
            tail: made(tail, 0),
            head: made(HEAD, tail as i64),
            middle: Vec::new(),
        })
    }

    /// All of it is in `recent`.
    fn short(self, end: f64) -> Option<LoopJoin> {
        let (frames, own) =
            (((end / FRAME as f64).round() as usize).max(1), (end / FRAME as f64).ceil() as usize);
        let stretch = end / (frames * FRAME) as f64;
        // The round before and the one behind it, as far as the edges need them.
        let margin = self.frames(MARGIN);
        let mut sound: Vec<i16> = self.recent.iter().rev().cycle().take(margin).copied().collect();
        sound.reverse();
        sound.extend(&self.recent);
        sound.extend(self.recent.iter().cycle().take(margin));
        let sound = self.at_our_rate(sound)?;
        let base = margin as f64 * f64::from(RATE) / f64::from(self.rate);
        let round = |n: i64| at(&sound, n as f64 * stretch + base);
        let last = |n: i64| if n as f64 >= end { 0 } else { at(&sound, n as f64 + base) };
        let mut encoder = Encoder::for_prompts();
        let [tail, middle] = [(); 2].map(|()| {
            (0..frames as i64).map(|number| encoded(&mut encoder, number, round)).collect()
        });
        let head = (0..own as i64).map(|number| encoded(&mut encoder, number, last)).collect();
        Some(LoopJoin { from: 0, tail, head, middle })
    }

    fn at_our_rate(&self, sound: Vec<i16>) -> Option<Vec<i16>> {
        let mut made = Vec::new();
        let mut resampler = Resampler::new(self.rate).ok()?;
        resampler.push(&sound, &mut made);
        resampler.finish(&mut made);
        Some(made)
    }
}

/// A frame of what `sample` says.
fn encoded(encoder: &mut Encoder, number: i64, sample: impl Fn(i64) -> i16) -> Frame {
    let first = number * FRAME as i64;
    let pcm: [i16; FRAME] = std::array::from_fn(|n| sample(first + n as i64));
    // The first of a round comes after the end of a round, but not always after the one that was encoded before it.
    if number == 0 { encoder.encode_independent(&pcm) } else { encoder.encode(&pcm) }
}

/// The sound between its samples (Catmull and Rom's curve); silence outside.
fn at(sound: &[i16], place: f64) -> i16 {
    let whole = place.floor();
    let part = place - whole;
    let sample = |n: i64| {
        let index = usize::try_from(whole as i64 + n).ok();
        index.and_then(|index| sound.get(index)).map_or(0.0, |sample| f64::from(*sample))
    };
    let [before, here, next, after] = [sample(-1), sample(0), sample(1), sample(2)];
    let bend = [
        here,
        (next - before) / 2.0,
        before - 2.5 * here + 2.0 * next - after / 2.0,
        (after - before) / 2.0 + 1.5 * (here - next),
    ];
    // `as` saturates.
    bend.iter().rev().fold(0.0, |sum, factor| sum * part + factor).round() as i16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::FrameMaker;
    use media::opus::Decoder;
    use media::prompt::{FrameState, Prompt};

    const PEAK: f64 = 8_000.0;

    /// A tone of whole periods: its end goes over into its beginning.
    fn tone(rate: u32, periods: u32, hz: f64) -> Vec<i16> {
        let samples = (f64::from(periods) * f64::from(rate) / hz).round() as usize;
        let step = f64::from(periods) * std::f64::consts::TAU / samples as f64;
        (0..samples).map(|n| ((n as f64 * step).sin() * PEAK).round() as i16).collect()
    }

    /// What is heard of so many rounds of it; joined as it is made for, or just frame after frame.
    fn rounds(rate: u32, pcm: &[i16], rounds: usize, joined: bool) -> (Vec<i16>, usize) {
        let (prompt, writer) = Prompt::new();
        let mut maker = FrameMaker::new(writer).for_loops();
        // As a decoder gives it.
        for piece in pcm.chunks(1_152) {
            maker.push(rate, piece).unwrap();
        }
        maker.join();
        maker.finish().unwrap();
        let (mut cursor, mut decoder, mut heard) =
            (prompt.cursor(), Decoder::new(Rate::Hz16000), Vec::new());
        let mut frames = 0;
        for round in 1..=rounds {
            loop {
                match cursor.next_in_round(joined && round < rounds) {
                    FrameState::Ready(frame) => {
                        decoder.decode(Some(&frame), false, &mut heard).unwrap();
                        frames += 1;
                    }
                    FrameState::End => break,
                    other => panic!("{other:?}"),
                }
            }
            cursor.rewind();
        }
        (heard, frames)
    }

    /// The least and the most loudness of 5 ms, as parts of the tone's own, and the largest step from sample to sample, as a
    /// part of the largest that the tone has; without the first frames and the last ones.
    fn measured(heard: &[i16], hz: f64) -> (f64, f64, f64) {
        let heard = &heard[3 * FRAME..heard.len() - 3 * FRAME];
        let period = (16_000.0 / hz).round() as usize;
        // Whole periods: the same wherever in the tone it is.
        let window = (80 / period).max(1) * period;
        let loudness = |pcm: &[i16]| {
            let sum: f64 = pcm.iter().map(|s| f64::from(*s) * f64::from(*s)).sum();
            (sum / pcm.len() as f64).sqrt() / (PEAK / 2_f64.sqrt())
        };
        let levels: Vec<f64> = heard.windows(window).step_by(8).map(loudness).collect();
        let least = levels.iter().copied().fold(f64::INFINITY, f64::min);
        let most = levels.iter().copied().fold(0.0, f64::max);
        let step = heard
            .windows(2)
            .map(|w| f64::from((i32::from(w[1]) - i32::from(w[0])).abs()))
            .fold(0.0, f64::max);
        (least, most, step / (PEAK * std::f64::consts::TAU * hz / 16_000.0))
    }

    #[test]
    fn a_tone_goes_on_over_the_join() {
        // Some a second or so, some longer; with and without a rest of a frame.
        for (rate, periods, hz) in [
            (16_000, 400, 400.0),
            (16_000, 202, 400.0),
            (8_000, 1_203, 400.0),
            (44_100, 1_001, 500.0),
            (48_000, 77, 500.0),
        ] {
            let pcm = tone(rate, periods, hz);
            let what = format!("{periods} periods at {rate}");
            let (heard, frames) = rounds(rate, &pcm, 4, true);
            let (least, most, step) = measured(&heard, hz);
            assert!(
                (0.8..1.35).contains(&least) && (0.8..1.35).contains(&most),
                "{what}: {least} to {most}"
            );
            assert!(step < 1.3, "{what}: {step}");
            let exact = pcm.len() as f64 * 50.0 / f64::from(rate);
            let off = frames as f64 - 4.0 * exact;
            assert!(
                off.abs() <= 3.0 * 0.5 + 1.0,
                "{what}: {frames} frames for 4 rounds of {exact}"
            );
            let (least, ..) = measured(&rounds(rate, &pcm, 4, false).0, hz);
            assert!(least < 0.78, "{what}: without it the join would be heard: {least}");
        }
    }

    #[test]
    fn one_round_is_as_ever_and_too_little_is_not_joined() {
        let pcm = tone(16_000, 202, 400.0);
        assert_eq!(rounds(16_000, &pcm, 1, true), rounds(16_000, &pcm, 1, false));
        let mut little = Loop::default();
        little.push(16_000, &pcm[..FRAME - 1]);
        assert_eq!(little.join(), None);
        let mut mixed = Loop::default();
        mixed.push(16_000, &pcm);
        mixed.push(8_000, &pcm);
        assert_eq!(mixed.join(), None);
        assert_eq!(Loop::default().join(), None);
    }

    #[test]
    fn between_samples_a_line_is_a_line_and_outside_is_silence() {
        let line: Vec<i16> = (0..10).map(|n| n * 100).collect();
        assert_eq!([1.0, 2.5, 7.25].map(|place| at(&line, place)), [100, 250, 725]);
        assert_eq!([-3.0, 30.0].map(|place| at(&line, place)), [0, 0]);
    }
}
