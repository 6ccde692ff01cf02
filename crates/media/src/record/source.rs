//! What a recorder hears: a leg's two sides, or all that is said in a room; and a part of either.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::RATE;
use crate::line::Line;
use crate::mixer::RoomSound;

/// Two tracks of sound, 20 ms at a time.
pub trait Source: Send {
    /// The next 20 ms at [`RATE`], [`crate::opus::Rate::frame`] samples each: what is heard of the peer (left) and what
    /// the peer hears (right). `None`: nothing yet, or nothing for now; then nothing is written.
    fn next(&mut self) -> Option<(&[i16], &[i16])>;

    /// Nothing more will come.
    fn is_over(&self) -> bool;
}

const NOTHING: [i16; RATE.frame()] = [0; RATE.frame()];

/// A leg, both sides.
impl Source for Line {
    fn next(&mut self) -> Option<(&[i16], &[i16])> {
        Line::next(self).map(|twenty| (twenty.heard, twenty.sent))
    }

    fn is_over(&self) -> bool {
        Line::is_over(self)
    }
}

/// All of a room, left.
impl Source for RoomSound {
    fn next(&mut self) -> Option<(&[i16], &[i16])> {
        RoomSound::next(self).map(|piece| (piece, NOTHING.as_slice()))
    }

    fn is_over(&self) -> bool {
        RoomSound::is_over(self)
    }
}

/// Whether a recording leaves out what is heard just now; clones are one.
#[derive(Clone, Debug, Default)]
pub struct Pause(Arc<AtomicBool>);

impl Pause {
    /// From now on, or no longer.
    pub fn set(&self, on: bool) {
        self.0.store(on, Ordering::Relaxed);
    }
}

/// A source as far as it is wanted.
pub struct Part<S> {
    source: S,
    pause: Pause,
    /// The left side alone.
    left_only: bool,
}

impl<S: Source> Part<S> {
    /// What comes while `pause` is on is left out.
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
