//! Sources of recordings: the two sides of a leg, or the audio of a room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::RATE;
use crate::line::Line;
use crate::mixer::RoomSound;

/// Two tracks of audio, 20 ms at a time.
pub trait Source: Send {
    /// Returns the next 20 ms at [`RATE`]: audio from the peer (left) and to the peer (right),
    /// [`crate::opus::Rate::frame`] samples each. Returns `None` if nothing is available; nothing
    /// is written then.
    fn next(&mut self) -> Option<(&[i16], &[i16])>;

    /// Returns whether no more audio will come.
    fn is_over(&self) -> bool;
}

const NOTHING: [i16; RATE.frame()] = [0; RATE.frame()];

/// Both sides of a leg.
impl Source for Line {
    fn next(&mut self) -> Option<(&[i16], &[i16])> {
        Line::next(self).map(|twenty| (twenty.heard, twenty.sent))
    }

    fn is_over(&self) -> bool {
        Line::is_over(self)
    }
}

/// The whole room on the left track.
impl Source for RoomSound {
    fn next(&mut self) -> Option<(&[i16], &[i16])> {
        RoomSound::next(self).map(|piece| (piece, NOTHING.as_slice()))
    }

    fn is_over(&self) -> bool {
        RoomSound::is_over(self)
    }
}

/// Pauses a recording. Clones share their state.
#[derive(Clone, Debug, Default)]
pub struct Pause(Arc<AtomicBool>);

impl Pause {
    /// Pauses or resumes.
    pub fn set(&self, on: bool) {
        self.0.store(on, Ordering::Relaxed);
    }
}

/// A source that can be paused and reduced to one track.
pub struct Part<S> {
    source: S,
    pause: Pause,
    /// Whether the right track is silenced.
    left_only: bool,
}

impl<S: Source> Part<S> {
    /// Creates a source that drops what arrives while `pause` is set.
    pub fn new(source: S, pause: Pause, left_only: bool) -> Self {
        Self { source, pause, left_only }
    }
}

impl<S: Source> Source for Part<S> {
    fn next(&mut self) -> Option<(&[i16], &[i16])> {
        let (left, right) = self.source.next()?;
        let right = if self.left_only { &NOTHING } else { right };
        (!self.pause.0.load(Ordering::Relaxed)).then_some((left, right))
    }

    fn is_over(&self) -> bool {
        self.source.is_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Both([i16; 2]);

    impl Source for Both {
        fn next(&mut self) -> Option<(&[i16], &[i16])> {
            self.0[0] += 1;
            Some((&self.0[..1], &self.0[1..]))
        }

        fn is_over(&self) -> bool {
            false
        }
    }

    #[test]
    fn a_pause_leaves_out_what_comes_meanwhile_and_one_side_is_silence() {
        let pause = Pause::default();
        let mut both = Part::new(Both([0, 9]), pause.clone(), false);
        assert_eq!(both.next(), Some(([1].as_slice(), [9].as_slice())));
        pause.set(true);
        assert_eq!(both.next(), None);
        assert_eq!(both.next(), None);
        pause.set(false);
        assert_eq!(both.next().map(|(left, _)| left[0]), Some(4));
        let mut left = Part::new(Both([0, 9]), Pause::default(), true);
        assert!(left.next().is_some_and(|(_, right)| right.iter().all(|sample| *sample == 0)));
    }
}
