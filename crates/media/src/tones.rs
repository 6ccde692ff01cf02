//! Sends and receives DTMF as tones (ITU-T Q.23, Q.24), for peers without telephone-event.
//!
//! Audio is processed in frames of 20 ms of PCM at 16 kHz. A leg uses tones only if RFC 4733 was
//! not negotiated, so that no key counts twice. WhatsApp sends no tones, but browsers and other
//! phones may.

use std::f32::consts::TAU;

use super::dtmf::Step;
use super::prompt::Frame;
use crate::opus::{Decoder, Encoder, Rate};
use model::Digit;
use serde::{Deserialize, Serialize};

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
const TONE_SHARE_MIN: f32 = 0.7;
/// Minimum power ratio of a tone to the others of its group, and maximum ratio between the two
/// tones: 8 dB.
const POWER_RATIO: f32 = 6.3;
/// Minimum RMS of a key relative to full scale: 40 dB below.
const LEVEL_MIN: f32 = 0.01;
/// Number of consecutive frames after which a key counts, and without it after which the key has
/// ended.
const DETECTION_FRAMES: u8 = 2;
/// Peak of each tone relative to full scale: about −10 dBm0, like the events.
const PEAK: f32 = 0.2;

/// Recognises digits in the tones of the peer.
#[derive(Debug)]
pub(super) struct ToneReceiver {
    decoder: Decoder,
    pcm: Vec<i16>,
    detector: ToneDetector,
}

impl ToneReceiver {
    pub(super) fn new() -> Self {
        let decoder = Decoder::new(Rate::Hz16000);
        Self { decoder, pcm: Vec::new(), detector: ToneDetector::default() }
    }

    /// Returns the state of the detector for the snapshot of a leg.
    pub(super) fn snapshot(&self) -> ToneDetector {
        self.detector
    }

    /// Creates the receiver of a snapshot. The decoder is new.
    pub(super) fn restore(detector: ToneDetector) -> Self {
        Self { detector, ..Self::new() }
    }

    /// Processes an Opus packet of the peer and appends the keys that it completes to `digits`. An
    /// invalid packet is ignored.
    pub(super) fn push_packet(&mut self, packet: &[u8], digits: &mut Vec<Digit>) {
        self.pcm.clear();
        if self.decoder.decode(Some(packet), false, &mut self.pcm).is_ok() {
            digits.extend(self.pcm.chunks(FRAME).filter_map(|frame| self.detector.push(frame)));
        }
    }
}

/// Sends digits as tones.
#[derive(Debug, Default)]
pub(super) struct ToneSender {
    /// The encoder, which is created on first use.
    encoder: Option<Encoder>,
    /// The number of frames sent for the current key.
    frames_sent: u16,
}

impl ToneSender {
    /// Returns the number of frames sent for the current key, for the snapshot of a leg.
    pub(super) fn frames_sent(&self) -> u16 {
        self.frames_sent
    }

    /// Creates a sender that goes on after this many frames of a key. The encoder is new.
    pub(super) fn after(frames_sent: u16) -> Self {
        Self { encoder: None, frames_sent }
    }

    /// Returns the tone for a tick in which an event would be sent, or `None` for silence.
    pub(super) fn frame(&mut self, step: Step) -> Option<Frame> {
        let Step::Event { payload: [event, flags, ..], marker, .. } = step else { return None };
        if marker {
            self.frames_sent = 0;
        }
        let at = self.frames_sent;
        let is_last = flags & 0x80 != 0;
        // The end packet is repeated, but the tone is not.
        self.frames_sent = if is_last { u16::MAX } else { at.saturating_add(1) };
        let digit = Digit::from_event(event).filter(|_| at != u16::MAX)?;
        let encoder = self.encoder.get_or_insert_with(Encoder::for_prompts);
        Some(encoder.encode(&synthesize(digit, at, is_last)))
    }
}

/// Detects keys in a sequence of frames.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct ToneDetector {
    /// The key in the latest frames, and the number of these frames.
    latest_frames: (Option<Digit>, u8),
    /// The key that is held down and was already reported.
    held: Option<Digit>,
}

impl ToneDetector {
    /// Processes the next 20 ms. Returns a key when it is detected, otherwise `None`.
    fn push(&mut self, pcm: &[i16]) -> Option<Digit> {
        let key = detect_key(pcm);
        let (latest_frames, frames) = &mut self.latest_frames;
        if *latest_frames == key {
            *frames = frames.saturating_add(1);
        } else {
            (*latest_frames, *frames) = (key, 1);
        }
        if *frames != DETECTION_FRAMES || self.held == key {
            return None;
        }
        self.held = key;
        key
    }
}

/// Returns the key that dominates a frame, or `None` if there is none.
fn detect_key(pcm: &[i16]) -> Option<Digit> {
    let energy: f32 = pcm.iter().map(|s| f32::from(*s).powi(2)).sum();
    let samples = f32::from(u16::try_from(pcm.len()).ok()?);
    if energy < samples * (LEVEL_MIN * 32_768.0).powi(2) {
        return None;
    }
    let (row, row_power) = loudest(pcm, &ROWS)?;
    let (column, column_power) = loudest(pcm, &COLUMNS)?;
    let ratio = row_power.max(column_power) / row_power.min(column_power);
    // A sine of amplitude a and n samples has the power (n·a/2)² at its frequency and the energy
    // n·a²/2.
    let share = 2.0 * (row_power + column_power) / (samples * energy);
    if ratio > POWER_RATIO || share < TONE_SHARE_MIN {
        return None;
    }
    KEYS.get(row)?.get(column).copied().and_then(|key| Digit::try_from(key).ok())
}

/// Returns the index of the dominant frequency of a group, and its power. `None` if none dominates.
fn loudest(pcm: &[i16], group: &[f32; 4]) -> Option<(usize, f32)> {
    let powers = group.map(|hz| power(pcm, hz));
    let (at, max_power) = powers.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let dominant = powers
        .iter()
        .enumerate()
        .all(|(other, power)| other == at || power * POWER_RATIO <= max_power);
    (dominant && max_power > 0.0).then_some((at, max_power))
}

/// Returns the power at one frequency (Goertzel).
fn power(pcm: &[i16], hz: f32) -> f32 {
    let coefficient = 2.0 * (TAU * hz / RATE).cos();
    let (last, before) = pcm.iter().fold((0.0_f32, 0.0_f32), |(last, before), sample| {
        (f32::from(*sample) + coefficient * last - before, last)
    });
    last * last + before * before - coefficient * last * before
}

/// Synthesizes 20 ms of a key, `at` frames after its start. The first and last frame are faded to
/// avoid clicks.
fn synthesize(digit: Digit, at: u16, is_last: bool) -> [i16; FRAME] {
    let position = KEYS.iter().enumerate().find_map(|(row, keys)| {
        let column = keys.iter().position(|key| *key == digit.as_char())?;
        Some((ROWS.get(row)?, COLUMNS.get(column)?))
    });
    let (row, column) = position.map_or((0.0, 0.0), |(row, column)| (*row, *column));
    let start = f32::from(at) * FRAME_SAMPLES;
    let mut n = 0.0_f32;
    std::array::from_fn(|_| {
        let seconds = (start + n) / RATE;
        let from_begin = if at == 0 { n / FADE_SAMPLES } else { 1.0 };
        let from_end = if is_last { (FRAME_SAMPLES - 1.0 - n) / FADE_SAMPLES } else { 1.0 };
        n += 1.0;
        let level = PEAK * 32_767.0 * from_begin.min(from_end).min(1.0);
        to_sample(((seconds * row * TAU).sin() + (seconds * column * TAU).sin()) * level)
    })
}

#[allow(clippy::as_conversions, reason = "`as` saturates")]
fn to_sample(sample: f32) -> i16 {
    sample as i16
}

#[cfg(test)]
mod tests {
    use super::{FRAME, ToneDetector, synthesize};
    use crate::opus::{Decoder, Encoder, Rate};
    use model::Digit;

    /// Encodes and decodes with Opus, as a network path does.
    fn coded(frames: &[[i16; FRAME]]) -> Vec<i16> {
        let (mut encoder, mut decoder) = (Encoder::for_prompts(), Decoder::new(Rate::Hz16000));
        let mut pcm = Vec::new();
        for frame in frames {
            decoder.decode(Some(&encoder.encode(frame)), false, &mut pcm).expect("a valid packet");
        }
        pcm
    }

    fn press(key: char, frames: u16) -> Vec<[i16; FRAME]> {
        let digit = Digit::try_from(key).expect("a key");
        (0..frames).map(|n| synthesize(digit, n, n + 1 == frames)).collect()
    }

    fn detected(pcm: &[i16]) -> String {
        let mut tones = ToneDetector::default();
        pcm.chunks(FRAME)
            .filter_map(|frame| tones.push(frame))
            .map(|digit| digit.as_char())
            .collect()
    }

    #[test]
    fn detects_each_key_once_whatever_its_length() {
        let keys = "1234567890*#ABCD";
        for frames in [4, 5, 8, 10, 100] {
            let pause = vec![[0; FRAME]; 4];
            let pressed: Vec<_> =
                keys.chars().flat_map(|key| [press(key, frames), pause.clone()].concat()).collect();
            assert_eq!(detected(&coded(&pressed)), keys, "{frames} frames each");
        }
        let twice = [press('5', 6), vec![[0; FRAME]; 4], press('5', 6)].concat();
        assert_eq!(detected(&coded(&twice)), "55");
    }

    #[test]
    fn ignores_voice_single_tones_and_noise() {
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
        let pcm = |wave: &mut dyn FnMut(usize) -> f32| {
            (0..160_000).map(|n| (wave(n) * 9_000.0) as i16).collect::<Vec<_>>()
        };
        for wave in [&mut { voice } as &mut dyn FnMut(usize) -> f32, &mut { tone }, &mut noise] {
            assert_eq!(detected(&pcm(wave)), "");
        }
        assert_eq!(detected(&[0; 3_200]), "");
    }
}
