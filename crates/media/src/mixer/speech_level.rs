//! Speech detection for mixing, by the level of each 20 ms frame: only speaking members are mixed,
//! and the loudest one has the floor.
//!
//! A loud frame is always speech. A quiet frame is speech only if it exceeds the recent noise of
//! the line, so that steady noise costs nothing. Speech bridges the pauses between words. Another
//! member gets the floor only after it was clearly louder for half a second.

use std::collections::BTreeMap;

/// Level above which sound is always speech: 34 dB below full scale.
const SPEECH_LEVEL: f32 = 0.02;
/// Level below which sound is never speech: 56 dB below full scale.
const SPEECH_LEVEL_MIN: f32 = 0.001_6;
/// Minimum level of quiet speech above the noise floor: 10 dB.
const NOISE_RATIO: f32 = 3.2;
/// Rise of the noise floor per frame: a factor of two in 2.5 s. Any pause lowers it again.
const NOISE_RISE: f32 = 1.005_6;
/// Initial and minimum noise floor: 65 dB below full scale.
const NOISE_MIN: f32 = 0.000_56;
/// Number of frames for which speech continues after the last loud one: 400 ms.
const HANGOVER_FRAMES: u8 = 20;
/// Smoothing of the level per frame: four fifths of a step within 300 ms.
const SMOOTHING: f32 = 0.1;
/// Ratio by which another member must be louder than the holder to take the floor: 6 dB.
const TAKEOVER_RATIO: f32 = 2.0;
/// Number of frames for which it must be louder: half a second.
const TAKEOVER_FRAMES: u8 = 25;

/// Level and speech state of one member.
#[derive(Clone, Debug)]
pub(super) struct SpeechLevel {
    noise: f32,
    level: f32,
    /// Number of frames for which the member still counts as speaking.
    hangover: u8,
}

impl Default for SpeechLevel {
    fn default() -> Self {
        Self { noise: NOISE_MIN, level: 0.0, hangover: 0 }
    }
}

impl SpeechLevel {
    /// Processes 20 ms, or `None` if no audio arrived. Returns whether the member is speaking.
    pub(super) fn push(&mut self, pcm: Option<&[i16]>) -> bool {
        let level = pcm.map_or(0.0, level_of);
        let is_loud = level >= SPEECH_LEVEL
            || (level >= SPEECH_LEVEL_MIN && level > self.noise * NOISE_RATIO);
        self.noise = (self.noise * NOISE_RISE).min(level.max(NOISE_MIN));
        self.level += (level - self.level) * SMOOTHING;
        self.hangover = if is_loud { HANGOVER_FRAMES } else { self.hangover.saturating_sub(1) };
        self.hangover > 0
    }

    /// Returns whether the member was speaking in the last frame.
    pub(super) fn is_speaking(&self) -> bool {
        self.hangover > 0
    }
}

/// Returns the root mean square relative to full scale.
fn level_of(pcm: &[i16]) -> f32 {
    let power: f32 = pcm.iter().map(|s| f32::from(*s) / 32_768.0).map(|s| s * s).sum();
    let samples = u16::try_from(pcm.len()).unwrap_or(u16::MAX).max(1);
    (power / f32::from(samples)).sqrt()
}

/// Tracks the holder of the floor.
#[derive(Clone, Debug, Default)]
pub(super) struct Floor {
    holder: Option<u64>,
    /// The member that is louder than the holder, and the number of frames for which it has been.
    rival: Option<(u64, u8)>,
}

impl Floor {
    /// Processes a frame. Returns `None` if the floor does not change. Otherwise returns the new
    /// holder, or `Some(None)` if the holder has left and no member is speaking. A holder that
    /// stops speaking keeps the floor until another member speaks.
    pub(super) fn update(&mut self, members: &BTreeMap<u64, SpeechLevel>) -> Option<Option<u64>> {
        if self.holder.is_some_and(|holder| !members.contains_key(&holder)) {
            self.holder = None;
            self.rival = None;
            let next = loudest(members, None).map(|(member, _)| member);
            self.holder = next;
            return Some(next);
        }
        let Some((loudest, level)) = loudest(members, self.holder) else {
            self.rival = None;
            return None;
        };
        let current = self
            .holder
            .and_then(|holder| members.get(&holder))
            .filter(|speech| speech.is_speaking());
        let Some(current) = current else {
            self.rival = None;
            self.holder = Some(loudest);
            return Some(self.holder);
        };
        if level < current.level * TAKEOVER_RATIO {
            self.rival = None;
            return None;
        }
        let frames =
            self.rival.filter(|(member, _)| *member == loudest).map_or(0, |(_, frames)| frames) + 1;
        self.rival = Some((loudest, frames));
        if frames < TAKEOVER_FRAMES {
            return None;
        }
        self.rival = None;
        self.holder = Some(loudest);
        Some(self.holder)
    }
}

/// Returns the loudest speaking member except `aside`, and its level. `None` if no other member is
/// speaking.
fn loudest(members: &BTreeMap<u64, SpeechLevel>, aside: Option<u64>) -> Option<(u64, f32)> {
    let speaking =
        members.iter().filter(|(member, speech)| speech.is_speaking() && Some(**member) != aside);
    speaking.map(|(member, speech)| (*member, speech.level)).max_by(|(_, a), (_, b)| a.total_cmp(b))
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
    fn count_speaking(speech: &mut SpeechLevel, frames: usize, level: f32) -> usize {
        let pcm = sound(level);
        (0..frames).filter(|_| speech.push(Some(&pcm))).count()
    }

    #[test]
    fn loud_frames_are_speech_and_steady_noise_is_not() {
        let mut speech = SpeechLevel::default();
        assert_eq!(count_speaking(&mut speech, 1_000, 0.2), 1_000, "from the first frame on");
        assert_eq!(
            count_speaking(&mut speech, 50, 0.0),
            usize::from(HANGOVER_FRAMES) - 1,
            "speech bridges a pause"
        );
        let mut speech = SpeechLevel::default();
        count_speaking(&mut speech, 500, 0.005);
        assert_eq!(count_speaking(&mut speech, 500, 0.005), 0, "a hiss");
        assert!(
            count_speaking(&mut speech, 10, 0.1) == 10,
            "speech over noise is detected immediately"
        );
        assert_eq!(count_speaking(&mut SpeechLevel::default(), 100, 0.001), 0);
        let mut speech = SpeechLevel::default();
        assert!(!speech.push(None) && !speech.is_speaking());
    }

    #[test]
    fn the_floor_is_kept_in_silence_and_lost_to_a_louder_member() {
        let mut members =
            BTreeMap::from([(1, SpeechLevel::default()), (2, SpeechLevel::default())]);
        let mut floor = Floor::default();
        let mut changes = Vec::new();
        let mut frame = |levels: [f32; 2], members: &mut BTreeMap<u64, SpeechLevel>| {
            for (member, level) in [(1, levels[0]), (2, levels[1])] {
                if let Some(speech) = members.get_mut(&member) {
                    speech.push(Some(&sound(level)));
                }
            }
            floor.update(members)
        };
        let mut run =
            |frames: usize, levels: [f32; 2], members: &mut BTreeMap<u64, SpeechLevel>| {
                for n in 0..frames {
                    changes.extend(frame(levels, members).map(|holder| (n, holder)));
                }
                std::mem::take(&mut changes)
            };
        assert!(run(10, [0.0, 0.0], &mut members).is_empty());
        assert_eq!(run(50, [0.1, 0.0], &mut members), [(0, Some(1))]);
        assert!(run(100, [0.0, 0.0], &mut members).is_empty(), "nobody else speaks");
        assert_eq!(run(50, [0.0, 0.1], &mut members), [(0, Some(2))]);
        assert!(run(100, [0.15, 0.1], &mut members).is_empty(), "a little louder");
        let taken = run(100, [0.4, 0.1], &mut members);
        assert!(matches!(taken.as_slice(), [(25..60, Some(1))]), "{taken:?}");
        members.remove(&1);
        assert_eq!(
            run(3, [0.0, 0.1], &mut members),
            [(0, Some(2))],
            "a member that leaves loses the floor"
        );
        members.remove(&2);
        assert_eq!(run(3, [0.0, 0.0], &mut members), [(0, None)]);
    }
}
