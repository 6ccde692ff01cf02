//! Voice or none, told of 20 ms frames of PCM: what legs' ears, recorders and recognisers share.
//!
//! Energy against a floor that follows the quietest of late. Not a recogniser: it tells voice from a quiet line, and
//! takes a steady hum or hiss for quiet after some seconds. Pure: what time it is, is its owner's business.

/// Quieter than this is never voice: 45 dB under full scale.
const VOICE_MIN: f32 = 0.005_6;
/// How far voice stands out of the floor: 10 dB.
const ABOVE_FLOOR: f32 = 3.2;
/// By how much the floor rises a frame: twofold in two and a half seconds; any pause takes it down again.
const FLOOR_RISE: f32 = 1.005_6;
/// Where the floor begins and never sinks below: 65 dB under full scale.
const FLOOR_MIN: f32 = 0.000_56;
/// Loud frames within [`WINDOW`] that make voice: a click is one or two.
const FRAMES_MIN: u32 = 4;
/// The latest frames looked at, a bit each.
const WINDOW: u32 = 0xff;

/// Tells voice from a quiet line, frame by frame.
#[derive(Clone, Debug)]
pub struct Judge {
    floor: f32,
    /// Whether each of the latest frames was loud, the last one lowest.
    loud: u32,
}

impl Default for Judge {
    fn default() -> Self {
        Self { floor: FLOOR_MIN, loud: 0 }
    }
}

impl Judge {
    /// Takes in the next 20 ms, mono 16-bit at any rate, and says whether somebody speaks in them: the frame is loud, and
    /// no lone click. So a voice is told 80 ms after it sets in, and an empty frame is a quiet one.
    pub fn hear(&mut self, pcm: &[i16]) -> bool {
        let power: f32 = pcm.iter().map(|s| f32::from(*s) / 32_768.0).map(|s| s * s).sum();
        let samples = u16::try_from(pcm.len()).unwrap_or(u16::MAX).max(1);
        let level = (power / f32::from(samples)).sqrt();
        let loud = level > VOICE_MIN.max(self.floor * ABOVE_FLOOR);
        self.floor = (self.floor * FLOOR_RISE).min(level.max(FLOOR_MIN));
        self.loud = (self.loud << 1 | u32::from(loud)) & WINDOW;
        loud && self.loud.count_ones() >= FRAMES_MIN
    }

    /// A voice has ended: the next one has to stand out anew. How loud the line is, is kept.
    pub fn rest(&mut self) {
        self.loud = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::Judge;

    const FRAME: usize = 320;

    /// Which of so many frames have voice.
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
