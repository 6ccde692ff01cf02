//! The sources of recordings: the two sides of a leg, or the audio of a room.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::RATE;
use crate::mixer::RoomAudio;
use crate::tap_reader::TapReader;

/// Two tracks of audio, 20 ms at a time.
pub trait Source: Send {
    /// Returns the next 20 ms at [`RATE`]: audio from the peer (left) and to the peer (right),
    /// [`crate::opus::Rate::frame`] samples each. Returns `None` if nothing is available; nothing
    /// is written then.
    fn next(&mut self) -> Option<(&[i16], &[i16])>;

    /// Discards the audio that is available.
    fn skip(&mut self);

    /// Returns whether the source has ended and all of its audio has been returned.
    fn is_over(&self) -> bool;
}

const SILENCE: [i16; RATE.frame()] = [0; RATE.frame()];

/// Both sides of a leg.
impl Source for TapReader {
    fn next(&mut self) -> Option<(&[i16], &[i16])> {
        TapReader::next(self).map(|frame| (frame.received, frame.sent))
    }

    fn skip(&mut self) {
        TapReader::skip(self);
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

    fn skip(&mut self) {
        while RoomAudio::next(self).is_some() {}
    }

    fn is_over(&self) -> bool {
        RoomAudio::is_over(self)
    }
}

/// Pauses a recording. Clones share their state: a counter that each pause and each resumption
/// increments, so it is odd during a pause. By comparing it, a reader also detects a pause that began
/// and ended between two of its reads.
#[derive(Clone, Debug, Default)]
pub struct Pause(Arc<AtomicU32>);

impl Pause {
    /// Pauses or resumes.
    pub fn set(&self, on: bool) {
        let change = |changes: u32| (is_pause(changes) != on).then(|| changes.wrapping_add(1));
        // Otherwise it is as wanted.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
    }

    /// Whether the recording is paused.
    pub fn is_on(&self) -> bool {
        is_pause(self.changes())
    }

    fn changes(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

fn is_pause(changes: u32) -> bool {
    changes % 2 == 1
}

/// A source that can be paused and reduced to one track.
pub struct PausableSource<S> {
    source: S,
    pause: Pause,
    /// The changes of `pause` for which audio was discarded.
    seen: u32,
    /// Whether the right track is replaced by silence.
    left_only: bool,
}

impl<S: Source> PausableSource<S> {
    /// Creates a source that discards audio while `pause` is set.
    pub fn new(source: S, pause: Pause, left_only: bool) -> Self {
        Self { source, seen: pause.changes(), pause, left_only }
    }
}

impl<S: Source> Source for PausableSource<S> {
    fn next(&mut self) -> Option<(&[i16], &[i16])> {
        let changes = self.pause.changes();
        if is_pause(changes) || changes != self.seen {
            // What waits may be from the pause, also just after its end.
            self.source.skip();
            self.seen = changes;
            return None;
        }
        let (left, right) = self.source.next()?;
        Some((left, if self.left_only { &SILENCE } else { right }))
    }

    fn skip(&mut self) {
        self.source.skip();
    }

    fn is_over(&self) -> bool {
        self.source.is_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::Buffering;
    use crate::jitter_buffer::InboundPacket;
    use crate::opus::Encoder;
    use crate::tap::{TapEnd, TapEntry, TapSides, tap};

    /// Tracks with one sample for each step: its number.
    struct Steps {
        waiting: std::ops::Range<i16>,
        now: [i16; 1],
    }

    impl Source for Steps {
        fn next(&mut self) -> Option<(&[i16], &[i16])> {
            self.now = [self.waiting.next()?];
            Some((&self.now, &[9]))
        }

        fn skip(&mut self) {
            self.waiting.start = self.waiting.end;
        }

        fn is_over(&self) -> bool {
            false
        }
    }

    fn steps(pause: &Pause, left_only: bool) -> PausableSource<Steps> {
        PausableSource::new(Steps { waiting: 0..10, now: [0] }, pause.clone(), left_only)
    }

    fn arrive(source: &mut PausableSource<Steps>, steps: i16) {
        source.source.waiting.end += steps;
    }

    #[test]
    fn drops_all_audio_of_a_pause_and_silences_the_right_track() {
        let pause = Pause::default();
        let mut source = steps(&pause, false);
        assert_eq!(source.next(), Some(([0].as_slice(), [9].as_slice())));
        pause.set(true);
        pause.set(true);
        assert_eq!(source.next(), None);
        // A reader that is slower than the audio.
        arrive(&mut source, 5);
        assert_eq!(source.next(), None);
        arrive(&mut source, 5);
        pause.set(false);
        assert_eq!(source.next(), None, "it arrived before the end of the pause was seen");
        arrive(&mut source, 1);
        assert_eq!(source.next().map(|(left, _)| left[0]), Some(20));
        assert!(
            steps(&pause, true)
                .next()
                .is_some_and(|(_, right)| right.iter().all(|sample| *sample == 0))
        );
    }

    #[test]
    fn a_pause_between_two_turns_is_not_missed() {
        let pause = Pause::default();
        let mut source = steps(&pause, false);
        assert!(source.next().is_some());
        pause.set(true);
        pause.set(false);
        assert_eq!(source.next(), None);
        arrive(&mut source, 1);
        assert_eq!(source.next().map(|(left, _)| left[0]), Some(10));
    }

    /// Sends 20 ms of a loud tone to a leg.
    fn speak(end: &TapEnd, encoder: &mut Encoder, n: u16) {
        let loud: [i16; RATE.frame()] =
            std::array::from_fn(|i| if i % 40 < 20 { 9_000 } else { -9_000 });
        let (sequence, timestamp) = (n.into(), u32::from(n) * 960);
        let payload = encoder.encode(&loud);
        let packet = InboundPacket { ssrc: 7, sequence, timestamp, payload };
        assert!(end.push(&TapEntry::Received(packet)) && end.push(&TapEntry::Tick));
    }

    #[test]
    fn the_backlog_of_a_held_tap_is_not_recorded_after_a_pause() {
        let (end, mut tap) = tap(TapSides::Received);
        let mut encoder = Encoder::for_prompts();
        for n in 0..500 {
            speak(&end, &mut encoder, n);
            tap.hold();
        }
        let pause = Pause::default();
        pause.set(true);
        let mut reader = TapReader::new(tap, RATE, Buffering::Jitter);
        reader.begin_with_silence(50);
        let mut source = PausableSource::new(reader, pause.clone(), false);
        assert!(source.next().is_none());
        pause.set(false);
        assert!(source.next().is_none());
        assert!(end.push(&TapEntry::Tick));
        let frame = source.next().map(|(left, _)| left.to_vec());
        assert!(frame.is_some_and(|left| left.iter().all(|sample| *sample == 0)), "no rest of it");
        assert!(source.next().is_none());
    }
}
