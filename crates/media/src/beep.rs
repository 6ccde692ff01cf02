//! Detection of a voicemail's beep in 20 ms frames of PCM (docs/reference/xml.md#wait).
//!
//! A beep is a steady tone, or a few tones with little between them, followed by silence. A frame
//! counts as tone if nearly all of its power lies around one pitch and the pitch stays constant.
//! The power of a vowel is spread over its harmonics, and its pitch moves.

use xml::ast::Beep;

/// Samples of a frame: 20 ms at 16 kHz.
const FRAME: usize = 320;
const FRAME_MS: u32 = 20;
/// Range of pitches in bins of 50 Hz, a frame's resolution: 350 Hz to 3 kHz.
const LOWEST: usize = 7;
const HIGHEST: usize = 60;
/// Bins on either side of the peak that hold a tone's power in a windowed frame.
const LOBE: usize = 2;
/// Minimum share of the frame's power that lies around the peak.
const SHARE: f32 = 0.85;
/// Maximum pitch difference between two frames of one tone, in bins: 15 Hz.
const WANDERS: f32 = 0.3;
/// Consecutive frames that are neither tone nor silence after which the tone heard so far is
/// discarded. One such frame is normal, because a tone starts and ends within a frame.
const OTHER_MAX: u8 = 2;
/// A longer tone is a dial tone or music on hold.
const TONE_MAX_MS: u32 = 5_000;

/// Detects a beep in a sequence of frames.
#[derive(Clone, Debug)]
pub(super) struct BeepEar {
    how: Beep,
    /// Window function, and the coefficient of each bin's Goertzel filter.
    window: Vec<f32>,
    factors: Vec<f32>,
    powers: Vec<f32>,
    /// Pitch of the last tone frame in bins, and the length of the tone so far.
    pitch: Option<f32>,
    tone_ms: u32,
    silence_ms: u32,
    other: u8,
}

/// Classification of a frame.
enum Sound {
    Silence,
    Tone { pitch: f32 },
    Other,
}

impl BeepEar {
    /// Creates a detector with these settings.
    pub(super) fn new(how: Beep) -> Self {
        #[allow(
            clippy::as_conversions,
            clippy::cast_precision_loss,
            reason = "numbers below a thousand"
        )]
        let turn = |n: usize| std::f32::consts::TAU * n as f32 / FRAME as f32;
        // Hann window.
        let window = (0..FRAME).map(|n| 0.5 - 0.5 * turn(n).cos()).collect();
        let factors: Vec<f32> =
            (LOWEST - LOBE..=HIGHEST + LOBE).map(|step| 2.0 * turn(step).cos()).collect();
        let powers = Vec::with_capacity(factors.len());
        Self { how, window, factors, powers, pitch: None, tone_ms: 0, silence_ms: 0, other: 0 }
    }

    /// Processes the next 20 ms, mono at 16 kHz. An empty frame is silence. Returns `true` once,
    /// when a beep has ended.
    pub(super) fn hear(&mut self, pcm: &[i16]) -> bool {
        match self.judge(pcm) {
            Sound::Silence => self.silence_ms = self.silence_ms.saturating_add(FRAME_MS),
            Sound::Tone { pitch } => {
                let steady = self.pitch.is_some_and(|held| (held - pitch).abs() <= WANDERS);
                // After a pause the next tone may have another pitch.
                if !steady && self.silence_ms == 0 {
                    self.tone_ms = 0;
                }
                self.pitch = Some(pitch);
                self.tone_ms = self.tone_ms.saturating_add(FRAME_MS);
                (self.silence_ms, self.other) = (0, 0);
                return false;
            }
            Sound::Other => {
                self.other = self.other.saturating_add(1);
                if self.other >= OTHER_MAX {
                    self.forget();
                }
                return false;
            }
        }
        self.other = 0;
        // The first and the last frame contain the tone only in part.
        let long =
            self.tone_ms > 0 && self.tone_ms.saturating_add(FRAME_MS) >= self.how.duration_ms;
        let over = self.silence_ms >= self.how.inter_silence_ms;
        if long && over {
            let is_beep = self.tone_ms <= TONE_MAX_MS;
            self.forget();
            return is_beep;
        }
        if self.silence_ms > self.how.intra_silence_ms.max(self.how.inter_silence_ms) {
            self.forget();
        }
        false
    }

    fn forget(&mut self) {
        (self.pitch, self.tone_ms, self.silence_ms) = (None, 0, 0);
    }

    fn judge(&mut self, pcm: &[i16]) -> Sound {
        let samples = u64::try_from(pcm.len()).unwrap_or(u64::MAX).max(1);
        let mean = pcm.iter().map(|sample| u64::from(sample.unsigned_abs())).sum::<u64>() / samples;
        if mean < u64::from(self.how.threshold) || mean == 0 {
            return Sound::Silence;
        }
        let windowed: Vec<f32> = pcm
            .iter()
            .zip(&self.window)
            .map(|(sample, weight)| f32::from(*sample) * weight)
            .collect();
        self.powers.clear();
        for factor in &self.factors {
            let (mut before, mut last) = (0.0_f32, 0.0_f32);
            for sample in &windowed {
                (before, last) = (last, factor * last - before + sample);
            }
            self.powers.push(last * last + before * before - factor * last * before);
        }
        let within = LOBE..self.powers.len().saturating_sub(LOBE);
        let Some(peak) = within.max_by(|a, b| self.power(*a).total_cmp(&self.power(*b))) else {
            return Sound::Other;
        };
        let tone: f32 = (peak - LOBE..=peak + LOBE).map(|step| self.power(step)).sum();
        // Parseval: half of a real signal's power lies in the lower half of the spectrum.
        let all: f32 = windowed.iter().map(|sample| sample * sample).sum::<f32>() * 160.0;
        if tone < SHARE * all {
            return Sound::Other;
        }
        // Parabolic interpolation between the peak and its two neighbours.
        let [below, at, above] = [peak - 1, peak, peak + 1].map(|step| self.power(step).sqrt());
        let curve = below - 2.0 * at + above;
        let aside = if curve.abs() > f32::EPSILON { 0.5 * (below - above) / curve } else { 0.0 };
        #[allow(
            clippy::as_conversions,
            clippy::cast_precision_loss,
            reason = "a number below a hundred"
        )]
        let pitch = peak as f32 + aside;
        Sound::Tone { pitch }
    }

    fn power(&self, step: usize) -> f32 {
        self.powers.get(step).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds stretches of (milliseconds, waveform) to a detector and returns the times at which it
    /// reports a beep.
    fn told(how: Beep, stretches: &[(usize, &dyn Fn(f32) -> f32)]) -> Vec<usize> {
        let mut pcm = Vec::new();
        for (ms, sound) in stretches {
            let from = pcm.len();
            pcm.extend(
                (from..from + ms * 16).map(|n| (sound(n as f32 / 16_000.0) * 32_767.0) as i16),
            );
        }
        let mut ear = BeepEar::new(how);
        pcm.chunks(FRAME)
            .enumerate()
            .filter_map(|(n, frame)| ear.hear(frame).then_some((n + 1) * 20))
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
    fn a_beep_is_told_once_it_is_over_at_any_pitch_and_level() {
        for hz in [400.0, 440.0, 853.0, 1_000.0, 1_424.0, 2_000.0, 2_700.0] {
            for level in [0.03, 0.5] {
                let beep = tone(hz, level);
                let told = told(Beep::default(), &[(1_010, &quiet), (400, &beep), (2_000, &quiet)]);
                assert!(
                    matches!(told.as_slice(), [at] if (1_440..=1_520).contains(at)),
                    "{hz} at {level}: {told:?}"
                );
            }
        }
    }

    #[test]
    fn a_voice_a_hum_and_a_short_blip_are_none_and_words_before_it_do_not_hide_it() {
        let (beep, hum) = (tone(1_000.0, 0.3), tone(100.0, 0.3));
        assert!(told(Beep::default(), &[(3_000, &vowel), (1_000, &quiet)]).is_empty(), "a voice");
        assert!(told(Beep::default(), &[(3_000, &hum), (1_000, &quiet)]).is_empty(), "a hum");
        assert!(told(Beep::default(), &[(200, &beep), (1_000, &quiet)]).is_empty(), "a blip");
        assert!(
            told(Beep::default(), &[(8_000, &beep), (1_000, &quiet)]).is_empty(),
            "a dial tone"
        );
        let both = |at: f32| beep(at) + tone(1_500.0, 0.3)(at);
        assert!(told(Beep::default(), &[(600, &both), (1_000, &quiet)]).is_empty(), "two at once");
        let said =
            told(Beep::default(), &[(3_000, &vowel), (200, &quiet), (500, &beep), (500, &quiet)]);
        assert!(matches!(said.as_slice(), [at] if (3_740..=3_800).contains(at)), "{said:?}");
        let sliding = |at: f32| tone(600.0 + 400.0 * at, 0.3)(at);
        assert!(told(Beep::default(), &[(1_000, &sliding), (500, &quiet)]).is_empty(), "a siren");
    }

    #[test]
    fn the_numbers_say_how_long_how_loud_and_how_far_apart() {
        let (beep, soft) = (tone(1_000.0, 0.3), tone(1_000.0, 0.01));
        let twice: [(usize, &dyn Fn(f32) -> f32); 4] =
            [(200, &beep), (300, &quiet), (200, &beep), (400, &quiet)];
        assert_eq!(told(Beep::default(), &twice).len(), 1, "two pieces of one");
        assert!(told(Beep { intra_silence_ms: 200, ..Beep::default() }, &twice).is_empty());
        assert_eq!(told(Beep { duration_ms: 150, ..Beep::default() }, &twice).len(), 2);
        let late = told(
            Beep { inter_silence_ms: 400, ..Beep::default() },
            &[(400, &beep), (1_000, &quiet)],
        );
        assert!(matches!(late.as_slice(), [at] if (780..=840).contains(at)), "{late:?}");
        assert!(
            told(Beep::default(), &[(400, &soft), (400, &quiet)]).is_empty(),
            "below the threshold"
        );
        assert_eq!(
            told(Beep { threshold: 100, ..Beep::default() }, &[(400, &soft), (400, &quiet)]).len(),
            1
        );
    }

    #[test]
    fn nothing_and_odd_frames_do_no_harm() {
        let mut ear = BeepEar::new(Beep {
            duration_ms: 0,
            inter_silence_ms: 0,
            intra_silence_ms: 0,
            threshold: 0,
        });
        for frame in [&[][..], &[i16::MIN; 7], &[i16::MAX; 3_000], &[0; FRAME]] {
            assert!(!ear.hear(frame), "{}", frame.len());
        }
    }
}
