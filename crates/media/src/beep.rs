//! Detection of a voicemail's beep in 20 ms frames of PCM (docs/reference/xml.md#wait).
//!
//! A beep is a steady tone, or a few tones with short gaps, followed by silence. A frame counts as
//! tone if nearly all of its power lies around one pitch and the pitch stays constant. The power of
//! a vowel is spread over its harmonics, and its pitch moves.

use crate::FRAME_MS;
use xml::ast::Beep;

/// Samples of a frame: 20 ms at 16 kHz.
const FRAME: usize = 320;
/// Range of pitches in bins of 50 Hz, a frame's resolution: 350 Hz to 3 kHz.
const LOWEST_BIN: usize = 7;
const HIGHEST_BIN: usize = 60;
/// Bins on either side of the peak that hold a tone's power in a windowed frame.
const LOBE_BINS: usize = 2;
/// Minimum share of the frame's power that lies around the peak.
const TONE_POWER_SHARE: f32 = 0.85;
/// Maximum pitch difference between two frames of one tone, in bins: 15 Hz.
const PITCH_TOLERANCE: f32 = 0.3;
/// Number of consecutive frames that are neither silence nor part of the tone after which the
/// detected tone is discarded. Two such frames are normal: a frame in which the tone ends may seem to
/// have another pitch, and Opus lets the tone ring on in the next frame.
const OTHER_FRAMES_MAX: u8 = 3;
/// Maximum length of a beep. A longer tone is a dial tone or music on hold.
const TONE_MAX_MS: u32 = 5_000;

/// Detects a beep in a sequence of frames.
#[derive(Clone, Debug)]
pub(super) struct BeepDetector {
    settings: Beep,
    /// Window function, and the coefficient of each bin's Goertzel filter.
    window: Vec<f32>,
    coefficients: Vec<f32>,
    powers: Vec<f32>,
    /// The pitch of the last tone frame in bins, and the length of the tone so far.
    pitch: Option<f32>,
    tone_ms: u32,
    /// The pitch of the last frame, if it is another one. With a second frame of it, it is that of
    /// a new tone.
    next_pitch: Option<f32>,
    silence_ms: u32,
    other_frames: u8,
}

/// Classification of a frame.
enum FrameKind {
    Silence,
    Tone { pitch: f32 },
    Other,
}

impl BeepDetector {
    /// Creates a detector with these settings.
    pub(super) fn new(settings: Beep) -> Self {
        #[allow(
            clippy::as_conversions,
            clippy::cast_precision_loss,
            reason = "numbers below a thousand"
        )]
        let angle = |n: usize| std::f32::consts::TAU * n as f32 / FRAME as f32;
        // Hann window.
        let window = (0..FRAME).map(|n| 0.5 - 0.5 * angle(n).cos()).collect();
        let coefficients: Vec<f32> = (LOWEST_BIN - LOBE_BINS..=HIGHEST_BIN + LOBE_BINS)
            .map(|bin| 2.0 * angle(bin).cos())
            .collect();
        let powers = Vec::with_capacity(coefficients.len());
        Self {
            settings,
            window,
            coefficients,
            powers,
            pitch: None,
            tone_ms: 0,
            next_pitch: None,
            silence_ms: 0,
            other_frames: 0,
        }
    }

    pub(super) fn settings(&self) -> Beep {
        self.settings
    }

    /// Processes the next 20 ms, mono at 16 kHz. An empty frame is silence. Returns `true` once,
    /// when a beep has ended.
    pub(super) fn push(&mut self, pcm: &[i16]) -> bool {
        match self.classify(pcm) {
            FrameKind::Silence => self.silence_ms = self.silence_ms.saturating_add(FRAME_MS),
            FrameKind::Tone { pitch } => {
                let is_near = |other: f32| (other - pitch).abs() <= PITCH_TOLERANCE;
                // After a pause the next tone may have another pitch.
                let continues = self.silence_ms > 0 || self.pitch.is_none_or(is_near);
                if !continues {
                    if !self.next_pitch.is_some_and(is_near) {
                        self.push_other(Some(pitch));
                        return false;
                    }
                    self.tone_ms = FRAME_MS;
                }
                (self.pitch, self.next_pitch) = (Some(pitch), None);
                self.tone_ms = self.tone_ms.saturating_add(FRAME_MS);
                (self.silence_ms, self.other_frames) = (0, 0);
                return false;
            }
            FrameKind::Other => {
                self.push_other(None);
                return false;
            }
        }
        self.other_frames = 0;
        // The first and the last frame contain the tone only in part.
        let long_enough =
            self.tone_ms > 0 && self.tone_ms.saturating_add(FRAME_MS) >= self.settings.duration_ms;
        let silent_enough = self.silence_ms >= self.settings.inter_silence_ms;
        if long_enough && silent_enough {
            let is_beep = self.tone_ms <= TONE_MAX_MS;
            self.reset();
            return is_beep;
        }
        if self.silence_ms > self.settings.intra_silence_ms.max(self.settings.inter_silence_ms) {
            self.reset();
        }
        false
    }

    /// Processes a frame that is neither silence nor part of the tone.
    fn push_other(&mut self, next_pitch: Option<f32>) {
        self.next_pitch = next_pitch;
        self.other_frames = self.other_frames.saturating_add(1);
        if self.other_frames >= OTHER_FRAMES_MAX {
            self.reset();
        }
    }

    fn reset(&mut self) {
        (self.pitch, self.next_pitch) = (None, None);
        (self.tone_ms, self.silence_ms) = (0, 0);
    }

    fn classify(&mut self, pcm: &[i16]) -> FrameKind {
        let samples = u64::try_from(pcm.len()).unwrap_or(u64::MAX).max(1);
        let mean = pcm.iter().map(|sample| u64::from(sample.unsigned_abs())).sum::<u64>() / samples;
        if mean < u64::from(self.settings.threshold) || mean == 0 {
            return FrameKind::Silence;
        }
        let windowed: Vec<f32> = pcm
            .iter()
            .zip(&self.window)
            .map(|(sample, weight)| f32::from(*sample) * weight)
            .collect();
        self.powers.clear();
        for coefficient in &self.coefficients {
            let (mut before, mut last) = (0.0_f32, 0.0_f32);
            for sample in &windowed {
                (before, last) = (last, coefficient * last - before + sample);
            }
            self.powers.push(last * last + before * before - coefficient * last * before);
        }
        let bins = LOBE_BINS..self.powers.len().saturating_sub(LOBE_BINS);
        let Some(peak) = bins.max_by(|a, b| self.power(*a).total_cmp(&self.power(*b))) else {
            return FrameKind::Other;
        };
        let tone: f32 = (peak - LOBE_BINS..=peak + LOBE_BINS).map(|bin| self.power(bin)).sum();
        // Parseval: half of a real signal's power lies in the lower half of the spectrum.
        let all: f32 = windowed.iter().map(|sample| sample * sample).sum::<f32>() * 160.0;
        if tone < TONE_POWER_SHARE * all {
            return FrameKind::Other;
        }
        // Parabolic interpolation between the peak and its two neighbours.
        let [below, at, above] = [peak - 1, peak, peak + 1].map(|bin| self.power(bin).sqrt());
        let curve = below - 2.0 * at + above;
        let offset = if curve.abs() > f32::EPSILON { 0.5 * (below - above) / curve } else { 0.0 };
        #[allow(
            clippy::as_conversions,
            clippy::cast_precision_loss,
            reason = "a number below a hundred"
        )]
        let pitch = peak as f32 + offset;
        FrameKind::Tone { pitch }
    }

    fn power(&self, bin: usize) -> f32 {
        self.powers.get(bin).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds stretches of (milliseconds, waveform) to a detector and returns the times at which it
    /// reports a beep.
    fn beeps(settings: Beep, stretches: &[(usize, &dyn Fn(f32) -> f32)]) -> Vec<usize> {
        let mut pcm = Vec::new();
        for (ms, sound) in stretches {
            let from = pcm.len();
            pcm.extend(
                (from..from + ms * 16).map(|n| (sound(n as f32 / 16_000.0) * 32_767.0) as i16),
            );
        }
        let mut detector = BeepDetector::new(settings);
        pcm.chunks(FRAME)
            .enumerate()
            .filter_map(|(n, frame)| detector.push(frame).then_some((n + 1) * 20))
            .collect()
    }

    fn tone(hz: f32, level: f32) -> impl Fn(f32) -> f32 {
        move |at| (at * hz * std::f32::consts::TAU).sin() * level
    }

    fn quiet(at: f32) -> f32 {
        tone(50.0, 0.001)(at)
    }

    /// A vowel: harmonics of a pitch with vibrato.
    fn vowel(at: f32) -> f32 {
        let hz = 180.0 + 8.0 * (at * 5.0 * std::f32::consts::TAU).sin();
        (1..8).map(|k| tone(hz * k as f32, 0.2 / k as f32)(at)).sum()
    }

    #[test]
    fn detects_a_beep_of_any_pitch_and_level_at_its_end() {
        for hz in [400.0, 440.0, 853.0, 1_000.0, 1_424.0, 2_000.0, 2_700.0] {
            for level in [0.03, 0.5] {
                let beep = tone(hz, level);
                let found =
                    beeps(Beep::default(), &[(1_010, &quiet), (400, &beep), (2_000, &quiet)]);
                assert!(
                    matches!(found.as_slice(), [at] if (1_440..=1_520).contains(at)),
                    "{hz} at {level}: {found:?}"
                );
            }
        }
    }

    #[test]
    fn ignores_voice_hum_and_blips_and_detects_a_beep_after_speech() {
        let (beep, hum) = (tone(1_000.0, 0.3), tone(100.0, 0.3));
        assert!(beeps(Beep::default(), &[(3_000, &vowel), (1_000, &quiet)]).is_empty(), "a voice");
        assert!(beeps(Beep::default(), &[(3_000, &hum), (1_000, &quiet)]).is_empty(), "a hum");
        assert!(beeps(Beep::default(), &[(200, &beep), (1_000, &quiet)]).is_empty(), "a blip");
        assert!(
            beeps(Beep::default(), &[(8_000, &beep), (1_000, &quiet)]).is_empty(),
            "a dial tone"
        );
        let both = |at: f32| beep(at) + tone(1_500.0, 0.3)(at);
        assert!(beeps(Beep::default(), &[(600, &both), (1_000, &quiet)]).is_empty(), "two tones");
        let detected =
            beeps(Beep::default(), &[(3_000, &vowel), (200, &quiet), (500, &beep), (500, &quiet)]);
        assert!(
            matches!(detected.as_slice(), [at] if (3_740..=3_800).contains(at)),
            "{detected:?}"
        );
        let sliding = |at: f32| tone(600.0 + 400.0 * at, 0.3)(at);
        assert!(beeps(Beep::default(), &[(1_000, &sliding), (500, &quiet)]).is_empty(), "a siren");
    }

    #[test]
    fn settings_bound_length_level_and_pauses() {
        let (beep, soft) = (tone(1_000.0, 0.3), tone(1_000.0, 0.01));
        let twice: [(usize, &dyn Fn(f32) -> f32); 4] =
            [(200, &beep), (300, &quiet), (200, &beep), (400, &quiet)];
        assert_eq!(beeps(Beep::default(), &twice).len(), 1, "two parts of one beep");
        assert!(beeps(Beep { intra_silence_ms: 200, ..Beep::default() }, &twice).is_empty());
        assert_eq!(beeps(Beep { duration_ms: 150, ..Beep::default() }, &twice).len(), 2);
        let late = beeps(
            Beep { inter_silence_ms: 400, ..Beep::default() },
            &[(400, &beep), (1_000, &quiet)],
        );
        assert!(matches!(late.as_slice(), [at] if (780..=840).contains(at)), "{late:?}");
        assert!(
            beeps(Beep::default(), &[(400, &soft), (400, &quiet)]).is_empty(),
            "below the threshold"
        );
        assert_eq!(
            beeps(Beep { threshold: 100, ..Beep::default() }, &[(400, &soft), (400, &quiet)]).len(),
            1
        );
    }

    #[test]
    fn accepts_empty_and_odd_frames() {
        let mut detector = BeepDetector::new(Beep {
            duration_ms: 0,
            inter_silence_ms: 0,
            intra_silence_ms: 0,
            threshold: 0,
        });
        for frame in [&[][..], &[i16::MIN; 7], &[i16::MAX; 3_000], &[0; FRAME]] {
            assert!(!detector.push(frame), "{}", frame.len());
        }
    }
}
