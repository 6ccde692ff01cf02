//! Splits a recording into utterances for the recogniser: at pauses, or after half a minute. This
//! module has no I/O.

use std::collections::VecDeque;

use media::FRAME_MS;
use media::voice::VoiceDetector;

/// Frames before the first voiced frame that belong to the utterance.
const ONSET: usize = 20;
/// Silent frames that end an utterance. A shorter pause ends an utterance of `LONG` frames or more.
const PAUSE: usize = 75;
const PAUSE_OF_LONG: usize = 25;
const LONG: usize = 500;
/// Maximum length of an utterance in frames, as accepted by common models.
const FRAMES_MAX: usize = 1_400;

/// One utterance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Utterance {
    /// Position in the recording.
    pub(super) from_ms: u64,
    /// Mono, 16 kHz.
    pub(super) pcm: Vec<i16>,
}

/// Splits one channel.
#[derive(Default)]
pub(super) struct Cutter {
    judge: VoiceDetector,
    /// Number of frames processed so far.
    at: u64,
    /// The latest frames before the utterance.
    before: VecDeque<Vec<i16>>,
    open: Option<Open>,
}

struct Open {
    from: u64,
    frames: usize,
    /// Silent frames since the last voiced frame.
    quiet: usize,
    pcm: Vec<i16>,
}

impl Cutter {
    /// Processes the next 20 ms. Returns an utterance that is complete.
    pub(super) fn push(&mut self, frame: &[i16]) -> Option<Utterance> {
        let voiced = self.judge.push(frame);
        self.at += 1;
        match &mut self.open {
            None if voiced => {
                let kept = self.before.len();
                let mut pcm: Vec<i16> = self.before.drain(..).flatten().collect();
                pcm.extend_from_slice(frame);
                let from = self.at.saturating_sub(1 + u64::try_from(kept).unwrap_or_default());
                self.open = Some(Open { from, frames: kept + 1, quiet: 0, pcm });
            }
            None => {
                self.before.push_back(frame.to_vec());
                if self.before.len() > ONSET {
                    self.before.pop_front();
                }
            }
            Some(open) => {
                open.pcm.extend_from_slice(frame);
                open.frames += 1;
                open.quiet = if voiced { 0 } else { open.quiet + 1 };
                let pause = if open.frames >= LONG { PAUSE_OF_LONG } else { PAUSE };
                if open.quiet >= pause || open.frames >= FRAMES_MAX {
                    return self.finish();
                }
            }
        }
        None
    }

    /// Returns the incomplete utterance, if there is one.
    pub(super) fn finish(&mut self) -> Option<Utterance> {
        let Open { from, pcm, .. } = self.open.take()?;
        Some(Utterance { from_ms: from * u64::from(FRAME_MS), pcm })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: usize = 320;

    /// Returns the utterances in these stretches of loud or silent frames: their position and
    /// number of frames.
    fn cut(utterances: &[(usize, bool)]) -> Vec<(u64, usize)> {
        let mut cutter = Cutter::default();
        let (mut pieces, mut n) = (Vec::new(), 0);
        for (frames, loud) in utterances {
            for _ in 0..*frames {
                let sample =
                    |i: usize| if *loud { (((n * FRAME + i) % 114) as i16 - 57) * 60 } else { 0 };
                pieces.extend(cutter.push(&std::array::from_fn::<i16, FRAME, _>(sample)));
                n += 1;
            }
        }
        pieces.extend(cutter.finish());
        pieces.iter().map(|piece| (piece.from_ms, piece.pcm.len() / FRAME)).collect()
    }

    #[test]
    fn speech_is_split_at_pauses_with_its_onset() {
        // The voice detector reports a voice in its fourth frame; 20 frames before it are kept.
        assert_eq!(
            cut(&[(100, false), (100, true), (200, false), (50, true), (10, false)]),
            [((103 - 20) * 20, 20 + 97 + 75), ((403 - 20) * 20, 20 + 47 + 10),]
        );
        assert_eq!(cut(&[(100, true), (40, false), (100, true)]).len(), 1, "a breath ends nothing");
        assert_eq!(cut(&[(1_000, false)]), []);
    }

    #[test]
    fn long_speech_is_split_at_shorter_pauses_and_endless_speech_at_the_maximum() {
        assert_eq!(
            cut(&[(600, true), (40, false), (100, true)]).len(),
            2,
            "a breath ends a long piece"
        );
        // The detector adapts to a steady buzz as background noise. Pauses between words prevent
        // this.
        let words: Vec<(usize, bool)> = (0..200).flat_map(|_| [(20, true), (5, false)]).collect();
        let pieces = cut(&words);
        assert!(
            pieces.len() >= 3 && pieces.iter().all(|(_, frames)| *frames <= FRAMES_MAX),
            "{pieces:?}"
        );
    }
}
