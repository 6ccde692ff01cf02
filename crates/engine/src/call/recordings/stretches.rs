//! What of a recording is speech, cut into pieces that a recogniser takes: at pauses, or after half a minute. Pure.

use std::collections::VecDeque;

use media::voice::VoiceDetector;

/// Milliseconds of a frame.
const FRAME_MS: u64 = 20;
/// Frames before the first voice that are part of it.
const ONSET: usize = 20;
/// A pause of so many frames ends a piece, and a shorter one a piece that is long.
const PAUSE: usize = 75;
const PAUSE_OF_LONG: usize = 25;
const LONG: usize = 500;
/// The longest piece: what the usual models hear at once.
const FRAMES_MAX: usize = 1_400;

/// Somebody speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// In the recording.
    pub(super) from_ms: u64,
    /// Mono, 16 kHz.
    pub(super) pcm: Vec<i16>,
}

/// Cuts one channel.
#[derive(Default)]
pub(super) struct Cutter {
    judge: VoiceDetector,
    /// Frames heard so far.
    at: u64,
    /// The latest before a voice.
    before: VecDeque<Vec<i16>>,
    open: Option<Open>,
}

struct Open {
    from: u64,
    frames: usize,
    /// Frames since somebody spoke.
    quiet: usize,
    pcm: Vec<i16>,
}

impl Cutter {
    /// Takes in the next 20 ms; gives a piece that is over.
    pub(super) fn push(&mut self, frame: &[i16]) -> Option<Stretch> {
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

    /// The piece that is not over, if there is one.
    pub(super) fn finish(&mut self) -> Option<Stretch> {
        let Open { from, pcm, .. } = self.open.take()?;
        Some(Stretch { from_ms: from * FRAME_MS, pcm })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: usize = 320;

    /// The pieces of these stretches of so many frames, loud or not: when they begin, and how many frames they have.
    fn cut(stretches: &[(usize, bool)]) -> Vec<(u64, usize)> {
        let mut cutter = Cutter::default();
        let (mut pieces, mut n) = (Vec::new(), 0);
        for (frames, loud) in stretches {
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
    fn speech_is_cut_at_its_pauses_with_its_onset() {
        // The judge tells a voice in its fourth frame; of what was before 20 are kept.
        assert_eq!(
            cut(&[(100, false), (100, true), (200, false), (50, true), (10, false)]),
            [((103 - 20) * 20, 20 + 97 + 75), ((403 - 20) * 20, 20 + 47 + 10),]
        );
        assert_eq!(cut(&[(100, true), (40, false), (100, true)]).len(), 1, "a breath ends nothing");
        assert_eq!(cut(&[(1_000, false)]), []);
    }

    #[test]
    fn long_speech_is_cut_sooner_and_endless_speech_all_the_same() {
        assert_eq!(
            cut(&[(600, true), (40, false), (100, true)]).len(),
            2,
            "a breath ends a long piece"
        );
        // A buzz that lasts is taken for a hum in time; words in between keep it a voice.
        let words: Vec<(usize, bool)> = (0..200).flat_map(|_| [(20, true), (5, false)]).collect();
        let pieces = cut(&words);
        assert!(
            pieces.len() >= 3 && pieces.iter().all(|(_, frames)| *frames <= FRAMES_MAX),
            "{pieces:?}"
        );
    }
}
