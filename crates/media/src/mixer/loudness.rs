//! Speech detection for mixing, by the level of each 20 ms frame: only speakers are mixed, and the
//! loudest one has the floor.
//!
//! A loud frame is always speech. A quiet frame is speech only if it exceeds the recent noise of
//! the line, so that steady noise costs nothing. Speech bridges the pauses between words. The floor
//! changes hands only if another member was clearly louder for a while.

use std::collections::BTreeMap;

/// 34 dB below full scale. Louder sound is always speech.
const LOUD: f32 = 0.02;
/// 56 dB below full scale. Quieter sound is never speech.
const QUIET: f32 = 0.001_6;
/// Distance of quiet speech from the noise floor: 10 dB.
const ABOVE_FLOOR: f32 = 3.2;
/// Rise of the noise floor per frame: a factor of two in 2.5 s. Any pause lowers it again.
const FLOOR_RISE: f32 = 1.005_6;
/// Initial and minimum noise floor: 65 dB below full scale.
const FLOOR_MIN: f32 = 0.000_56;
/// Frames for which speech continues after the last loud one: 400 ms.
const PAUSE: u8 = 20;
/// Smoothing of the level per frame: four fifths of a step within 300 ms.
const FOLLOW: f32 = 0.1;
/// How much louder than the holder another member must be to take the floor: 6 dB.
const LOUDER: f32 = 2.0;
/// For how many frames: half a second.
const LOUDER_FOR: u8 = 25;

/// Level and speech state of one member.
#[derive(Clone, Debug)]
pub(super) struct Loudness {
    noise: f32,
    level: f32,
    /// Frames for which it still counts as speaking.
    left: u8,
}

impl Default for Loudness {
    fn default() -> Self {
        Self { noise: FLOOR_MIN, level: 0.0, left: 0 }
    }
}

impl Loudness {
    /// Processes 20 ms, or `None` if nothing was heard. Returns whether the member is speaking.
    pub(super) fn hear(&mut self, pcm: Option<&[i16]>) -> bool {
        let level = pcm.map_or(0.0, level_of);
        let speaks = level >= LOUD || (level >= QUIET && level > self.noise * ABOVE_FLOOR);
        self.noise = (self.noise * FLOOR_RISE).min(level.max(FLOOR_MIN));
        self.level += (level - self.level) * FOLLOW;
        self.left = if speaks { PAUSE } else { self.left.saturating_sub(1) };
        self.left > 0
    }

    /// Returns whether it was speaking in the last frame.
    pub(super) fn speaks(&self) -> bool {
        self.left > 0
    }
}

/// Root mean square relative to full scale.
fn level_of(pcm: &[i16]) -> f32 {
    let power: f32 = pcm.iter().map(|s| f32::from(*s) / 32_768.0).map(|s| s * s).sum();
    let samples = u16::try_from(pcm.len()).unwrap_or(u16::MAX).max(1);
    (power / f32::from(samples)).sqrt()
}

/// Tracks who has the floor.
#[derive(Clone, Debug, Default)]
pub(super) struct Floor {
    holder: Option<u64>,
    /// Who has been louder than the holder, and for how many frames.
    rival: Option<(u64, u8)>,
}

impl Floor {
    /// Processes a frame. If the floor changes, returns the new holder, or `Some(None)` if the
    /// holder has left and no one speaks. A holder that falls silent keeps the floor until another
    /// member speaks.
    pub(super) fn step(&mut self, voices: &BTreeMap<u64, Loudness>) -> Option<Option<u64>> {
        if self.holder.is_some_and(|holder| !voices.contains_key(&holder)) {
            self.holder = None;
            self.rival = None;
            let next = loudest(voices, None).map(|(member, _)| member);
            self.holder = next;
            return Some(next);
        }
        let Some((loudest, level)) = loudest(voices, self.holder) else {
            self.rival = None;
            return None;
        };
        let held =
            self.holder.and_then(|holder| voices.get(&holder)).filter(|voice| voice.speaks());
        let Some(held) = held else {
            self.rival = None;
            self.holder = Some(loudest);
            return Some(self.holder);
        };
        if level < held.level * LOUDER {
            self.rival = None;
            return None;
        }
        let frames =
            self.rival.filter(|(member, _)| *member == loudest).map_or(0, |(_, frames)| frames) + 1;
        self.rival = Some((loudest, frames));
        if frames < LOUDER_FOR {
            return None;
        }
        self.rival = None;
        self.holder = Some(loudest);
        Some(self.holder)
    }
}

/// The loudest speaking member except `aside`.
fn loudest(voices: &BTreeMap<u64, Loudness>, aside: Option<u64>) -> Option<(u64, f32)> {
    let speaking =
        voices.iter().filter(|(member, voice)| voice.speaks() && Some(**member) != aside);
    speaking.map(|(member, voice)| (*member, voice.level)).max_by(|(_, a), (_, b)| a.total_cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound(level: f32) -> Vec<i16> {
        (0..320)
            .map(
                |n| if n % 2 == 0 { (level * 32_767.0) as i16 } else { (level * -32_767.0) as i16 },
            )
            .collect()
    }

    /// The number of frames in which it counts as speaking.
    fn speaks(voice: &mut Loudness, frames: usize, level: f32) -> usize {
        let pcm = sound(level);
        (0..frames).filter(|_| voice.hear(Some(&pcm))).count()
    }

    #[test]
    fn loud_sound_is_always_somebody_and_a_steady_hiss_is_nobody_after_a_while() {
        let mut voice = Loudness::default();
        assert_eq!(speaks(&mut voice, 1_000, 0.2), 1_000, "from the first frame on");
        assert_eq!(
            speaks(&mut voice, 50, 0.0),
            usize::from(PAUSE) - 1,
            "a pause between words is speech"
        );
        let mut voice = Loudness::default();
        speaks(&mut voice, 500, 0.005);
        assert_eq!(speaks(&mut voice, 500, 0.005), 0, "a hiss");
        assert!(speaks(&mut voice, 10, 0.1) == 10, "and who speaks over it is heard at once");
        assert_eq!(speaks(&mut Loudness::default(), 100, 0.001), 0);
        let mut voice = Loudness::default();
        assert!(!voice.hear(None) && !voice.speaks());
    }

    #[test]
    fn the_floor_is_taken_at_once_kept_in_silence_and_lost_to_who_is_louder_for_a_while() {
        let mut voices = BTreeMap::from([(1, Loudness::default()), (2, Loudness::default())]);
        let mut floor = Floor::default();
        let mut said = Vec::new();
        let mut frame = |levels: [f32; 2], voices: &mut BTreeMap<u64, Loudness>| {
            for (member, level) in [(1, levels[0]), (2, levels[1])] {
                if let Some(voice) = voices.get_mut(&member) {
                    voice.hear(Some(&sound(level)));
                }
            }
            floor.step(voices)
        };
        let mut run = |frames: usize, levels: [f32; 2], voices: &mut BTreeMap<u64, Loudness>| {
            for n in 0..frames {
                said.extend(frame(levels, voices).map(|holder| (n, holder)));
            }
            std::mem::take(&mut said)
        };
        assert!(run(10, [0.0, 0.0], &mut voices).is_empty());
        assert_eq!(run(50, [0.1, 0.0], &mut voices), [(0, Some(1))]);
        assert!(run(100, [0.0, 0.0], &mut voices).is_empty(), "nobody else speaks");
        assert_eq!(run(50, [0.0, 0.1], &mut voices), [(0, Some(2))]);
        assert!(run(100, [0.15, 0.1], &mut voices).is_empty(), "a little louder");
        let taken = run(100, [0.4, 0.1], &mut voices);
        assert!(matches!(taken.as_slice(), [(25..60, Some(1))]), "{taken:?}");
        voices.remove(&1);
        assert_eq!(run(3, [0.0, 0.1], &mut voices), [(0, Some(2))], "who has gone has lost it");
        voices.remove(&2);
        assert_eq!(run(3, [0.0, 0.0], &mut voices), [(0, None)]);
    }
}
