//! Voice activity detection in 20 ms frames of PCM, shared by legs, recorders and speech
//! recognition.
//!
//! It compares the energy with a noise floor that follows the quietest recent frames. Steady hum or
//! hiss counts as silence after some seconds. The detector has no clock.

use serde::{Deserialize, Serialize};

/// Minimum level of voice: 45 dB below full scale.
const VOICE_LEVEL_MIN: f32 = 0.005_6;
/// Minimum level of voice above the noise floor: 10 dB.
const NOISE_RATIO: f32 = 3.2;
/// Rise of the noise floor per frame: a factor of two in 2.5 s. Any pause lowers it again.
const NOISE_RISE: f32 = 1.005_6;
/// Initial and minimum noise floor: 65 dB below full scale.
const NOISE_MIN: f32 = 0.000_56;
/// Minimum number of loud frames within [`WINDOW`] for voice. A click has one or two.
const LOUD_FRAMES_MIN: u32 = 4;
/// Mask of the latest frames that are considered, one bit each.
const WINDOW: u32 = 0xff;

/// Detects voice frame by frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VoiceDetector {
    noise: f32,
    /// One bit for each of the latest frames, set if the frame was loud. The last frame is the
    /// lowest bit.
    loud_frames: u32,
}

impl Default for VoiceDetector {
    fn default() -> Self {
        Self { noise: NOISE_MIN, loud_frames: 0 }
    }
}

impl VoiceDetector {
    /// Processes the next 20 ms, mono 16-bit at any rate. Returns whether the frame contains voice:
    /// it is loud and not an isolated click. Voice is detected 80 ms after its start. An empty
    /// frame is silence.
    pub fn push(&mut self, pcm: &[i16]) -> bool {
        let power: f32 = pcm.iter().map(|s| f32::from(*s) / 32_768.0).map(|s| s * s).sum();
        let samples = u16::try_from(pcm.len()).unwrap_or(u16::MAX).max(1);
        let level = (power / f32::from(samples)).sqrt();
        let is_loud = level > VOICE_LEVEL_MIN.max(self.noise * NOISE_RATIO);
        self.noise = (self.noise * NOISE_RISE).min(level.max(NOISE_MIN));
        self.loud_frames = (self.loud_frames << 1 | u32::from(is_loud)) & WINDOW;
        is_loud && self.loud_frames.count_ones() >= LOUD_FRAMES_MIN
    }

    /// Resets the voice state, so that voice must be detected again. The noise floor is kept.
    pub fn reset(&mut self) {
        self.loud_frames = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::VoiceDetector;

    const FRAME: usize = 320;

    /// For each of `frames` frames, whether it has voice.
    fn detect(
        detector: &mut VoiceDetector,
        frames: usize,
        sound: impl Fn(usize) -> f32,
    ) -> Vec<bool> {
        let frame = |n: usize| {
            (0..FRAME).map(|i| (sound(n * FRAME + i) * 32_767.0) as i16).collect::<Vec<_>>()
        };
        (0..frames).map(|n| detector.push(&frame(n))).collect()
    }

    fn tone(at: usize, hz: f32, level: f32) -> f32 {
        (at as f32 * hz * std::f32::consts::TAU / 16_000.0).sin() * level
    }

    #[test]
    fn detects_voice_from_its_fourth_frame() {
        let mut detector = VoiceDetector::default();
        assert!(detect(&mut detector, 50, |at| tone(at, 50.0, 0.001)).iter().all(|voice| !voice));
        let voice = detect(&mut detector, 10, |at| tone(at, 300.0, 0.1));
        assert_eq!(voice.iter().position(|voice| *voice), Some(3));
        assert!(
            detect(&mut detector, 1, |_| 0.0).iter().all(|voice| !voice),
            "a quiet frame has no voice"
        );
        detector.reset();
        assert!(detect(&mut detector, 3, |at| tone(at, 300.0, 0.1)).iter().all(|voice| !voice));
        assert!(!detector.push(&[]), "an empty frame has no voice");
    }

    #[test]
    fn ignores_clicks_and_steady_hum() {
        let mut detector = VoiceDetector::default();
        let clicks = detect(&mut detector, 100, |at| if at % 8_000 < 40 { 0.5 } else { 0.0 });
        assert!(clicks.iter().all(|voice| !voice));
        let hum = detect(&mut detector, 600, |at| tone(at, 100.0, 0.02));
        assert!(hum.iter().rev().take(100).all(|voice| !voice));
    }
}
