//! Playback buffer of a stream: the server's samples with checkpoints between them.
//!
//! No I/O. The socket adds audio in pieces of any length. The leg's side takes frames of 20 ms and
//! reports how many of them have been played, which determines when checkpoints are reached
//! (`docs/stream.md`).

use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::message::{Fault, Sound};
use super::rate::{Conversion, RateConverter};

/// Capacity in seconds (`docs/reference/limits.md#l12`).
const SECONDS_MAX: usize = 40;
/// Maximum number of pending checkpoints.
const CHECKPOINTS_MAX: usize = 1_000;
/// Fill levels in percent that are reported.
const LEVELS: [u8; 3] = [30, 60, 90];
/// A level is reported again only after the buffer has fallen this far below it.
const BELOW: u8 = 10;

/// The buffer. See the module documentation.
pub(super) struct Queue {
    hz: u32,
    /// Converts audio that has the other sample rate. `None` if none was received.
    rates: Option<RateConverter>,
    samples: VecDeque<i16>,
    /// Number of samples taken so far. Positions are relative to this count.
    given: u64,
    /// End positions of the frames that were taken but not played yet.
    frames: VecDeque<u64>,
    /// Number of played frames, and the end position of the last of them.
    played_frames: u64,
    played: u64,
    checkpoints: VecDeque<(u64, String)>,
    /// The level that was reported last, or 0.
    level: u8,
}

/// The buffer of a stream on its way to another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct QueueState {
    /// The samples, little-endian, in Base64.
    samples: String,
    given: u64,
    frames: VecDeque<u64>,
    #[serde(rename = "heard")]
    played: u64,
    checkpoints: VecDeque<(u64, String)>,
    level: u8,
}

impl Queue {
    /// Continues the buffer of another process, with this number of frames that are still to be
    /// played. They are counted from zero.
    pub(super) fn resume(hz: u32, state: QueueState, waiting: usize) -> Self {
        let QueueState { samples, given, mut frames, mut played, checkpoints, level } = state;
        let count = frames.len().saturating_sub(waiting);
        played = frames.drain(..count).next_back().unwrap_or(played);
        let mut queue = Self { given, frames, played, checkpoints, level, ..Self::new(hz) };
        let bytes = STANDARD.decode(samples).unwrap_or_default();
        let pairs = bytes.as_chunks().0.iter();
        let room = queue.room();
        queue.samples.extend(pairs.map(|pair| i16::from_le_bytes(*pair)).take(room));
        queue
    }

    /// Returns the state for another process. The frames that were played must have been reported.
    pub(super) fn state(&self) -> QueueState {
        let bytes: Vec<u8> = self.samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        QueueState {
            samples: STANDARD.encode(bytes),
            given: self.given,
            frames: self.frames.clone(),
            played: self.played,
            checkpoints: self.checkpoints.clone(),
            level: self.level,
        }
    }

    /// Creates a buffer for a sample rate in Hz.
    pub(super) fn new(hz: u32) -> Self {
        Self {
            hz,
            rates: None,
            samples: VecDeque::new(),
            given: 0,
            frames: VecDeque::new(),
            played_frames: 0,
            played: 0,
            checkpoints: VecDeque::new(),
            level: 0,
        }
    }

    /// Appends audio. Returns the fill level that it reaches, if any.
    ///
    /// # Errors
    /// Returns an error if the buffer is full or the rate is not supported. Nothing is appended
    /// then.
    pub(super) fn push(&mut self, sound: Sound) -> Result<Option<u8>, Fault> {
        let way = match (sound.hz, self.hz) {
            (from, to) if from == to => None,
            (8_000, 16_000) => Some(Conversion::Double),
            (16_000, 8_000) => Some(Conversion::Halve),
            _ => return Err(Fault::InvalidFormat),
        };
        let length = match way {
            None => sound.pcm.len(),
            Some(Conversion::Double) => sound.pcm.len().saturating_mul(2),
            Some(Conversion::Halve) => sound.pcm.len().div_ceil(2),
        };
        if self.samples.len().saturating_add(length) > self.room() {
            return Err(Fault::BufferOverflow);
        }
        match way {
            None => self.samples.extend(sound.pcm),
            Some(way) => {
                let rates = match self.rates.take().filter(|rates| rates.way() == way) {
                    Some(rates) => self.rates.insert(rates),
                    None => self.rates.insert(RateConverter::new(way)),
                };
                let mut pcm = Vec::with_capacity(length);
                rates.push(&sound.pcm, &mut pcm);
                self.samples.extend(pcm);
            }
        }
        let percent = self.percent();
        let reached =
            LEVELS.into_iter().rfind(|level| percent >= *level).filter(|level| *level > self.level);
        self.level = reached.unwrap_or(self.level);
        Ok(reached)
    }

    /// Capacity in samples.
    fn room(&self) -> usize {
        usize::try_from(self.hz).unwrap_or(usize::MAX).saturating_mul(SECONDS_MAX)
    }

    fn percent(&self) -> u8 {
        u8::try_from(self.samples.len() * 100 / self.room().max(1)).unwrap_or(100)
    }

    /// Whether at least this many samples are buffered.
    pub(super) fn has(&self, samples: usize) -> bool {
        self.samples.len() >= samples
    }

    /// Whether no samples are buffered.
    pub(super) fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Takes the next frame, padded with silence. Report its playback with
    /// [`Queue::record_played`].
    pub(super) fn take(&mut self, frame: &mut [i16]) {
        let taken = self.samples.len().min(frame.len());
        for (into, sample) in frame.iter_mut().zip(self.samples.drain(..taken)) {
            *into = sample;
        }
        if let Some(rest) = frame.get_mut(taken..) {
            rest.fill(0);
        }
        self.given += u64::try_from(taken).unwrap_or_default();
        self.frames.push_back(self.given);
        let percent = self.percent();
        while self.level > 0 && percent.saturating_add(BELOW) < self.level {
            self.level = LEVELS.into_iter().rfind(|level| *level < self.level).unwrap_or(0);
        }
    }

    /// Adds a checkpoint, which is reached when all samples before it have been played.
    ///
    /// # Errors
    /// Returns an error if too many checkpoints are pending.
    pub(super) fn checkpoint(&mut self, name: String) -> Result<(), Fault> {
        if self.checkpoints.len() >= CHECKPOINTS_MAX {
            return Err(Fault::InvalidCheckpoint);
        }
        self.checkpoints
            .push_back((self.given + u64::try_from(self.samples.len()).unwrap_or_default(), name));
        Ok(())
    }

    /// Whether a checkpoint is pending.
    pub(super) fn has_checkpoint(&self) -> bool {
        !self.checkpoints.is_empty()
    }

    /// Records that this many frames have been played or discarded since the beginning. Returns the
    /// next checkpoint reached; call this until it returns `None`.
    pub(super) fn record_played(&mut self, frames: u64) -> Option<String> {
        while self.played_frames < frames
            && let Some(end) = self.frames.pop_front()
        {
            self.played_frames += 1;
            self.played = end;
        }
        let (at, _) = self.checkpoints.front()?;
        if *at > self.played {
            return None;
        }
        self.checkpoints.pop_front().map(|(_, name)| name)
    }

    /// Discards the buffered samples and pending checkpoints.
    pub(super) fn clear(&mut self) {
        self.samples.clear();
        self.checkpoints.clear();
        self.rates = None;
        self.level = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound(hz: u32, samples: usize) -> Sound {
        Sound { hz, pcm: (0..samples).map(|n| n as i16).collect() }
    }

    fn take(queue: &mut Queue) -> Vec<i16> {
        let mut frame = [7; 160];
        queue.take(&mut frame);
        frame.to_vec()
    }

    #[test]
    fn another_process_continues_with_the_rest() {
        let mut old = Queue::new(8_000);
        old.push(sound(8_000, 400)).unwrap();
        old.checkpoint("end".to_owned()).unwrap();
        let _played = [take(&mut old), take(&mut old)];
        assert_eq!(old.record_played(1), None);
        let json = serde_json::to_string(&old.state()).unwrap();
        // The second frame waits at the leg, or was played in between.
        for waiting in [1, 0] {
            let mut new = Queue::resume(8_000, serde_json::from_str(&json).unwrap(), waiting);
            let last = take(&mut new);
            assert_eq!((last[0], last[79], last[80], new.is_empty()), (320, 399, 0, true));
            let frames = u64::try_from(waiting).unwrap();
            assert_eq!(new.record_played(frames), None);
            assert_eq!(new.record_played(frames + 1).as_deref(), Some("end"));
        }
    }

    #[test]
    fn audio_is_taken_in_frames_in_order() {
        let mut queue = Queue::new(8_000);
        for samples in [1, 99, 130] {
            assert_eq!(queue.push(sound(8_000, samples)), Ok(None));
        }
        assert!(queue.has(160) && !queue.has(231));
        let first = take(&mut queue);
        assert_eq!((first[0], first[1], first[99], first[100], first[159]), (0, 0, 98, 0, 59));
        let rest = take(&mut queue);
        assert_eq!((rest[0], rest[69], rest[70], rest[159]), (60, 129, 0, 0), "silence at the end");
        assert!(queue.is_empty());
    }

    #[test]
    fn a_checkpoint_is_reached_after_the_audio_before_it_was_played() {
        let mut queue = Queue::new(8_000);
        queue.checkpoint("at once".to_owned()).unwrap();
        assert_eq!(queue.record_played(0).as_deref(), Some("at once"));
        queue.push(sound(8_000, 200)).unwrap();
        queue.checkpoint("first".to_owned()).unwrap();
        queue.checkpoint("again".to_owned()).unwrap();
        queue.push(sound(8_000, 280)).unwrap();
        queue.checkpoint("second".to_owned()).unwrap();
        assert_eq!(queue.record_played(0), None);
        for _ in 0..3 {
            take(&mut queue);
        }
        assert_eq!(queue.record_played(1), None, "40 samples of it are in the second frame");
        assert_eq!(queue.record_played(2).as_deref(), Some("first"));
        assert_eq!(queue.record_played(2).as_deref(), Some("again"));
        assert_eq!(queue.record_played(2), None);
        assert_eq!(queue.record_played(3).as_deref(), Some("second"));
        assert_eq!(queue.record_played(3), None);
    }

    #[test]
    fn cleared_audio_and_checkpoints_are_discarded() {
        let mut queue = Queue::new(8_000);
        queue.push(sound(8_000, 1_600)).unwrap();
        queue.checkpoint("lost".to_owned()).unwrap();
        take(&mut queue);
        queue.clear();
        assert!(queue.is_empty());
        assert_eq!(queue.record_played(1), None);
        queue.checkpoint("nothing before".to_owned()).unwrap();
        assert_eq!(queue.record_played(1).as_deref(), Some("nothing before"));
        queue.push(sound(8_000, 160)).unwrap();
        queue.checkpoint("after".to_owned()).unwrap();
        take(&mut queue);
        assert_eq!(queue.record_played(1), None);
        assert_eq!(queue.record_played(2).as_deref(), Some("after"));
    }

    #[test]
    fn holds_forty_seconds_and_reports_each_level_once() {
        let mut queue = Queue::new(16_000);
        let mut levels = Vec::new();
        for second in 1..=40 {
            levels.extend(queue.push(sound(16_000, 16_000)).unwrap().map(|level| (second, level)));
        }
        assert_eq!(levels, [(12, 30), (24, 60), (36, 90)]);
        assert_eq!(queue.push(sound(16_000, 1)), Err(Fault::BufferOverflow));
        let mut frame = vec![0; 320];
        let mut seconds =
            |queue: &mut Queue, n: usize| (0..n * 50).for_each(|_| queue.take(&mut frame));
        seconds(&mut queue, 5);
        assert_eq!(
            queue.push(sound(16_000, 16_000 * 2)),
            Ok(None),
            "hovering about it says nothing"
        );
        seconds(&mut queue, 10);
        assert_eq!(queue.push(sound(16_000, 16_000 * 10)), Ok(Some(90)));
        queue.clear();
        assert_eq!(queue.push(sound(16_000, 16_000 * 25)), Ok(Some(60)));
    }

    #[test]
    fn converts_between_8_and_16_khz_and_refuses_other_rates() {
        let mut queue = Queue::new(16_000);
        assert_eq!(queue.push(sound(8_000, 160)), Ok(None));
        assert!(queue.has(320) && !queue.has(321));
        assert_eq!(queue.push(sound(24_000, 160)), Err(Fault::InvalidFormat));
        let mut queue = Queue::new(8_000);
        assert_eq!(queue.push(sound(16_000, 320)), Ok(None));
        assert!(queue.has(160) && !queue.has(161));
        assert_eq!(Queue::new(24_000).push(sound(16_000, 320)), Err(Fault::InvalidFormat));
        assert_eq!(Queue::new(24_000).push(sound(24_000, 480)), Ok(None));
    }

    #[test]
    fn checkpoints_have_a_bound() {
        let mut queue = Queue::new(8_000);
        queue.push(sound(8_000, 160)).unwrap();
        for _ in 0..CHECKPOINTS_MAX {
            queue.checkpoint("x".to_owned()).unwrap();
        }
        assert_eq!(queue.checkpoint("x".to_owned()), Err(Fault::InvalidCheckpoint));
    }
}
