//! Voice activity detection in 20 ms frames of PCM, shared by legs, recorders and speech
//! recognition.
//!
//! It compares the energy with a noise floor that follows the quietest recent frames. Steady hum or
//! hiss counts as silence after some seconds. It has no clock.

/// Minimum level of voice: 45 dB below full scale.
const VOICE_MIN: f32 = 0.005_6;
/// Minimum distance of voice from the noise floor: 10 dB.
const ABOVE_FLOOR: f32 = 3.2;
/// Rise of the noise floor per frame: a factor of two in 2.5 s. Any pause lowers it again.
const FLOOR_RISE: f32 = 1.005_6;
/// Initial and minimum noise floor: 65 dB below full scale.
const FLOOR_MIN: f32 = 0.000_56;
/// Loud frames within [`WINDOW`] that make voice. A click has one or two.
const FRAMES_MIN: u32 = 4;
/// Mask of the latest frames that are considered, one bit each.
const WINDOW: u32 = 0xff;

/// Detects voice frame by frame.
#[derive(Clone, Debug)]
pub struct Judge {
    floor: f32,
    /// Whether each of the latest frames was loud, the last one in the lowest bit.
    loud: u32,
}

impl Default for Judge {
    fn default() -> Self {
        Self { floor: FLOOR_MIN, loud: 0 }
    }
}

impl Judge {
    /// Processes the next 20 ms, mono 16-bit at any rate. Returns whether the frame contains voice:
    /// it is loud and not an isolated click. Voice is detected 80 ms after its start. An empty
    /// frame is silence.
    pub fn hear(&mut self, pcm: &[i16]) -> bool {
        let power: f32 = pcm.iter().map(|s| f32::from(*s) / 32_768.0).map(|s| s * s).sum();
        let samples = u16::try_from(pcm.len()).unwrap_or(u16::MAX).max(1);
        let level = (power / f32::from(samples)).sqrt();
        let loud = level > VOICE_MIN.max(self.floor * ABOVE_FLOOR);
        self.floor = (self.floor * FLOOR_RISE).min(level.max(FLOOR_MIN));
        self.loud = (self.loud << 1 | u32::from(loud)) & WINDOW;
        loud && self.loud.count_ones() >= FRAMES_MIN
    }

    /// Resets the voice state, so that voice must be detected again. The noise floor is kept.
    pub fn rest(&mut self) {
        self.loud = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::Judge;

    const FRAME: usize = 320;

    /// For each of `frames` frames, whether it has voice.
    fn heard(judge: &mut Judge, frames: usize, sound: impl Fn(usize) -> f32) -> Vec<bool> {
        let frame = |n: usize| {
            (0..FRAME).map(|i| (sound(n * FRAME + i) * 32_767.0) as i16).collect::<Vec<_>>()
        };
        (0..frames).map(|n| judge.hear(&frame(n))).collect()
    }

    fn tone(at: usize, hz: f32, level: f32) -> f32 {
        (at as f32 * hz * std::f32::consts::TAU / 16_000.0).sin() * level
    }

    #[test]
    fn a_voice_is_told_from_its_fourth_frame_on_and_a_quiet_line_never() {
        let mut judge = Judge::default();
        assert!(heard(&mut judge, 50, |at| tone(at, 50.0, 0.001)).iter().all(|voice| !voice));
        let voice = heard(&mut judge, 10, |at| tone(at, 300.0, 0.1));
        assert_eq!(voice.iter().position(|voice| *voice), Some(3));
        assert!(heard(&mut judge, 1, |_| 0.0).iter().all(|voice| !voice), "a quiet frame is none");
        judge.rest();
        assert!(heard(&mut judge, 3, |at| tone(at, 300.0, 0.1)).iter().all(|voice| !voice));
        assert!(!judge.hear(&[]), "no sound is no voice");
    }

    #[test]
    fn a_click_is_no_voice_and_neither_is_a_lasting_hum() {
        let mut judge = Judge::default();
        let clicks = heard(&mut judge, 100, |at| if at % 8_000 < 40 { 0.5 } else { 0.0 });
        assert!(clicks.iter().all(|voice| !voice));
        let hum = heard(&mut judge, 600, |at| tone(at, 100.0, 0.02));
        assert!(hum.iter().rev().take(100).all(|voice| !voice));
    }
}
