//! DTMF as tones, sent and received (ITU-T Q.23, Q.24), for peers without telephone-event.
//!
//! It processes 20 ms of PCM at 16 kHz at a time. The leg uses it only if RFC 4733 was not
//! negotiated, so that no key counts twice. WhatsApp sends no tones; this serves browsers and other
//! phones.

use std::f32::consts::TAU;

use super::dtmf::Step;
use super::prompt::Frame;
use crate::opus::{Decoder, Encoder, Rate};
use model::Digit;

/// Frequencies of the rows and columns of a keypad in hertz.
const ROWS: [f32; 4] = [697.0, 770.0, 852.0, 941.0];
const COLUMNS: [f32; 4] = [1_209.0, 1_336.0, 1_477.0, 1_633.0];
const KEYS: [[char; 4]; 4] =
    [['1', '2', '3', 'A'], ['4', '5', '6', 'B'], ['7', '8', '9', 'C'], ['*', '0', '#', 'D']];

const RATE: f32 = 16_000.0;
/// Samples of 20 ms.
const FRAME: usize = Rate::Hz16000.frame();
const FRAME_SAMPLES: f32 = 320.0;
/// Length of a fade: 5 ms.
const FADE_SAMPLES: f32 = 80.0;
/// Minimum share of a frame's energy in the two tones.
const SHARE_MIN: f32 = 0.7;
/// Minimum power ratio of a tone to the others of its group, and maximum ratio between the two
/// tones: 8 dB.
const RATIO: f32 = 6.3;
/// Minimum RMS of a key relative to full scale: 40 dB below.
const LEVEL_MIN: f32 = 0.01;
/// Consecutive frames after which a key counts, and without it after which it has ended.
const FRAMES: u8 = 2;
/// Peak of each tone relative to full scale: about −10 dBm0, like the events.
const PEAK: f32 = 0.2;

/// In-band DTMF of a leg.
#[derive(Debug)]
pub(super) struct InBand {
    decoder: Decoder,
    pcm: Vec<i16>,
    tones: Tones,
    /// Encoder for sent keys, created on first use.
    encoder: Option<Encoder>,
    /// Frames of the current key that were sent.
    sounded: u16,
}

impl InBand {
    pub(super) fn new() -> Self {
        let decoder = Decoder::new(Rate::Hz16000);
        Self { decoder, pcm: Vec::new(), tones: Tones::default(), encoder: None, sounded: 0 }
    }

    /// Processes an Opus packet of the peer and appends the keys that it completes to `digits`. An
    /// invalid packet is ignored.
    pub(super) fn packet(&mut self, packet: &[u8], digits: &mut Vec<Digit>) {
        self.pcm.clear();
        if self.decoder.decode(Some(packet), false, &mut self.pcm).is_ok() {
            digits.extend(self.pcm.chunks(FRAME).filter_map(|frame| self.tones.hear(frame)));
        }
    }

    /// Returns the tone for a tick in which an event would be sent, or `None` for silence.
    pub(super) fn frame(&mut self, step: Step) -> Option<Frame> {
        let Step::Event { payload: [event, flags, ..], marker, .. } = step else { return None };
        if marker {
            self.sounded = 0;
        }
        let at = self.sounded;
        let is_last = flags & 0x80 != 0;
        // The end packet is repeated, the tone is not.
        self.sounded = if is_last { u16::MAX } else { at.saturating_add(1) };
        let digit = Digit::from_event(event).filter(|_| at != u16::MAX)?;
        let encoder = self.encoder.get_or_insert_with(Encoder::for_prompts);
        Some(encoder.encode(&sound(digit, at, is_last)))
    }
}

/// Detects keys in a sequence of frames.
#[derive(Debug, Default)]
struct Tones {
    /// Key in the latest frames, and their number.
    latest: (Option<Digit>, u8),
    /// The key that is held down and was already reported.
    down: Option<Digit>,
}

impl Tones {
    /// Processes the next 20 ms. Returns a key that counts now.
    fn hear(&mut self, pcm: &[i16]) -> Option<Digit> {
        let key = key(pcm);
        let (latest, frames) = &mut self.latest;
        if *latest == key {
            *frames = frames.saturating_add(1);
        } else {
            (*latest, *frames) = (key, 1);
        }
        if *frames != FRAMES || self.down == key {
            return None;
        }
        self.down = key;
        key
    }
}

/// The key that dominates a frame.
fn key(pcm: &[i16]) -> Option<Digit> {
    let energy: f32 = pcm.iter().map(|s| f32::from(*s).powi(2)).sum();
    let samples = f32::from(u16::try_from(pcm.len()).ok()?);
    if energy < samples * (LEVEL_MIN * 32_768.0).powi(2) {
        return None;
    }
    let (row, row_power) = loudest(pcm, &ROWS)?;
    let (column, column_power) = loudest(pcm, &COLUMNS)?;
    let twist = row_power.max(column_power) / row_power.min(column_power);
    // A sine of amplitude a and n samples has the power (n·a/2)² at its frequency and the energy
    // n·a²/2.
    let share = 2.0 * (row_power + column_power) / (samples * energy);
    if twist > RATIO || share < SHARE_MIN {
        return None;
    }
    KEYS.get(row)?.get(column).copied().and_then(|key| Digit::try_from(key).ok())
}

/// The dominant frequency of a group, and its power.
fn loudest(pcm: &[i16], group: &[f32; 4]) -> Option<(usize, f32)> {
    let powers = group.map(|hz| power(pcm, hz));
    let (at, most) = powers.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let alone =
        powers.iter().enumerate().all(|(other, power)| other == at || power * RATIO <= most);
    (alone && most > 0.0).then_some((at, most))
}

/// Power at one frequency (Goertzel).
fn power(pcm: &[i16], hz: f32) -> f32 {
    let turn = 2.0 * (TAU * hz / RATE).cos();
    let (last, before) = pcm.iter().fold((0.0_f32, 0.0_f32), |(last, before), sample| {
        (f32::from(*sample) + turn * last - before, last)
    });
    last * last + before * before - turn * last * before
}

/// 20 ms of a key, `at` frames after its start. The first and last frame are faded to avoid clicks.
fn sound(digit: Digit, at: u16, is_last: bool) -> [i16; FRAME] {
    let place = KEYS.iter().enumerate().find_map(|(row, keys)| {
        let column = keys.iter().position(|key| *key == digit.as_char())?;
        Some((ROWS.get(row)?, COLUMNS.get(column)?))
    });
    let (row, column) = place.map_or((0.0, 0.0), |(row, column)| (*row, *column));
    let begin = f32::from(at) * FRAME_SAMPLES;
    let mut n = 0.0_f32;
    std::array::from_fn(|_| {
        let seconds = (begin + n) / RATE;
        let from_begin = if at == 0 { n / FADE_SAMPLES } else { 1.0 };
        let from_end = if is_last { (FRAME_SAMPLES - 1.0 - n) / FADE_SAMPLES } else { 1.0 };
        n += 1.0;
        let level = PEAK * 32_767.0 * from_begin.min(from_end).min(1.0);
        whole(((seconds * row * TAU).sin() + (seconds * column * TAU).sin()) * level)
    })
}

#[allow(clippy::as_conversions, reason = "it saturates, as sound does")]
fn whole(sample: f32) -> i16 {
    sample as i16
}

#[cfg(test)]
mod tests {
    use super::{FRAME, Tones, sound};
    use crate::opus::{Decoder, Encoder, Rate};
    use model::Digit;

    /// Encodes and decodes with Opus, as a network path does.
    fn coded(frames: &[[i16; FRAME]]) -> Vec<i16> {
        let (mut encoder, mut decoder) = (Encoder::for_prompts(), Decoder::new(Rate::Hz16000));
        let mut pcm = Vec::new();
        for frame in frames {
            decoder.decode(Some(&encoder.encode(frame)), false, &mut pcm).expect("its own packet");
        }
        pcm
    }

    fn press(key: char, frames: u16) -> Vec<[i16; FRAME]> {
        let digit = Digit::try_from(key).expect("a key");
        (0..frames).map(|n| sound(digit, n, n + 1 == frames)).collect()
    }

    fn heard(pcm: &[i16]) -> String {
        let mut tones = Tones::default();
        pcm.chunks(FRAME)
            .filter_map(|frame| tones.hear(frame))
            .map(|digit| digit.as_char())
            .collect()
    }

    #[test]
    fn each_key_is_heard_once_however_long_it_is_pressed() {
        let keys = "1234567890*#ABCD";
        for frames in [4, 5, 8, 10, 100] {
            let pause = vec![[0; FRAME]; 4];
            let pressed: Vec<_> =
                keys.chars().flat_map(|key| [press(key, frames), pause.clone()].concat()).collect();
            assert_eq!(heard(&coded(&pressed)), keys, "{frames} frames each");
        }
        let twice = [press('5', 6), vec![[0; FRAME]; 4], press('5', 6)].concat();
        assert_eq!(heard(&coded(&twice)), "55");
    }

    #[test]
    fn a_voice_a_single_tone_and_noise_are_no_keys() {
        let voice = |n: usize| {
            // A glide of harmonics.
            let pitch = 110.0 + 60.0 * (n as f32 / 9_000.0).sin();
            (1..12)
                .map(|k| {
                    (n as f32 * pitch * k as f32 * std::f32::consts::TAU / 16_000.0).sin()
                        / k as f32
                })
                .sum::<f32>()
        };
        let tone = |n: usize| (n as f32 * 770.0 * std::f32::consts::TAU / 16_000.0).sin();
        let mut seed = 7_u32;
        let mut noise = |_: usize| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / 8_388_608.0 - 1.0
        };
        let pcm = |sound: &mut dyn FnMut(usize) -> f32| {
            (0..160_000).map(|n| (sound(n) * 9_000.0) as i16).collect::<Vec<_>>()
        };
        for sound in [&mut { voice } as &mut dyn FnMut(usize) -> f32, &mut { tone }, &mut noise] {
            assert_eq!(heard(&pcm(sound)), "");
        }
        assert_eq!(heard(&[0; 3_200]), "");
    }
}
