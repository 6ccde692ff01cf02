//! The sources of recordings: the two sides of a leg, or the audio of a room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::RATE;
use crate::mixer::RoomAudio;
use crate::tap_reader::TapReader;

/// Two tracks of audio, 20 ms at a time.
pub trait Source: Send {
    /// Returns the next 20 ms at [`RATE`]: audio from the peer (left) and to the peer (right),
    /// [`crate::opus::Rate::frame`] samples each. Returns `None` if nothing is available; nothing
    /// is written then.
    fn next(&mut self) -> Option<(&[i16], &[i16])>;

    /// Returns whether the source has ended and all of its audio has been returned.
    fn is_over(&self) -> bool;
}

const SILENCE: [i16; RATE.frame()] = [0; RATE.frame()];

/// Both sides of a leg.
impl Source for TapReader {
    fn next(&mut self) -> Option<(&[i16], &[i16])> {
        TapReader::next(self).map(|frame| (frame.received, frame.sent))
    }

    fn is_over(&self) -> bool {
        TapReader::is_over(self)
    }
}

/// The whole room on the left track.
impl Source for RoomAudio {
    fn next(&mut self) -> Option<(&[i16], &[i16])> {
        RoomAudio::next(self).map(|frame| (frame, SILENCE.as_slice()))
    }

    fn is_over(&self) -> bool {
        RoomAudio::is_over(self)
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

    /// Whether the recording is paused.
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A source that can be paused and reduced to one track.
pub struct PausableSource<S> {
    source: S,
    pause: Pause,
    /// Whether the right track is replaced by silence.
    left_only: bool,
}

impl<S: Source> PausableSource<S> {
    /// Creates a source that discards audio while `pause` is set.
    pub fn new(source: S, pause: Pause, left_only: bool) -> Self {
        Self { source, pause, left_only }
    }
}

impl<S: Source> Source for PausableSource<S> {
    fn next(&mut self) -> Option<(&[i16], &[i16])> {
        let (left, right) = self.source.next()?;
        let right = if self.left_only { &SILENCE } else { right };
        (!self.pause.is_on()).then_some((left, right))
    }

    fn is_over(&self) -> bool {
        self.source.is_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct TwoTracks([i16; 2]);

    impl Source for TwoTracks {
        fn next(&mut self) -> Option<(&[i16], &[i16])> {
            self.0[0] += 1;
            Some((&self.0[..1], &self.0[1..]))
        }

        fn is_over(&self) -> bool {
            false
        }
    }

    #[test]
    fn drops_audio_while_paused_and_silences_the_right_track() {
        let pause = Pause::default();
        let mut source = PausableSource::new(TwoTracks([0, 9]), pause.clone(), false);
        assert_eq!(source.next(), Some(([1].as_slice(), [9].as_slice())));
        pause.set(true);
        assert_eq!(source.next(), None);
        assert_eq!(source.next(), None);
        pause.set(false);
        assert_eq!(source.next().map(|(left, _)| left[0]), Some(4));
        let mut left = PausableSource::new(TwoTracks([0, 9]), Pause::default(), true);
        assert!(left.next().is_some_and(|(_, right)| right.iter().all(|sample| *sample == 0)));
    }
}
