//! Prompts: shared sequences of Opus frames of 20 ms (48 kHz RTP clock, mono, wideband), complete
//! or still being produced.
//!
//! A prompt is written once by a [`Writer`], such as a synthesiser or a decoder, and read without
//! locks by every leg that plays it. Playing can start with the first frame.

use std::any::Any;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use model::PromptVoice;
use serde::{Deserialize, Serialize};

/// Maximum number of voices that a prompt names.
const VOICES_MAX: usize = 8;
/// Frames per chunk: one second.
const CHUNK: usize = 50;
const LOADING: u8 = 0;
const COMPLETE: u8 = 1;
const FAILED: u8 = 2;

/// An encoded 20 ms frame, shared without copying.
pub type Frame = Arc<[u8]>;

/// The state of the frame at a reader's position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameState {
    /// The frame is available.
    Ready(Frame),
    /// The frame is not written yet. The reader sends silence and tries again at the next tick.
    Pending,
    /// The prompt ended before this position.
    End,
    /// Producing the prompt failed; see [`Prompt::failure`].
    Failed,
}

/// Frames for the seamless transition from a prompt's end to its beginning, when it repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoopJoin {
    /// The number of the prompt's own frames that precede `tail`. If another round follows, `tail`
    /// replaces the rest.
    pub from: usize,
    /// The frames that replace the end of a round, if another round follows.
    pub tail: Vec<Frame>,
    /// The frames that replace the beginning of a round, if another round precedes it. As many of
    /// the prompt's own frames are replaced.
    pub head: Vec<Frame>,
    /// The frames that replace a whole round between two other rounds. Empty if such a round is
    /// played unchanged.
    pub middle: Vec<Frame>,
}

/// A shared sequence of frames.
#[derive(Debug)]
pub struct Prompt {
    first: Arc<Chunk>,
    state: AtomicU8,
    failure: OnceLock<String>,
    /// The transition between two rounds, which is set before the prompt is complete.
    join: OnceLock<LoopJoin>,
    /// The voices that spoke it. Legs do not read them.
    voices: Mutex<Vec<PromptVoice>>,
    /// See [`Prompt::attach`].
    attached: OnceLock<Arc<dyn Any + Send + Sync>>,
}

#[derive(Debug)]
struct Chunk {
    frames: [OnceLock<Frame>; CHUNK],
    next: OnceLock<Arc<Chunk>>,
}

impl Chunk {
    fn new() -> Arc<Self> {
        Arc::new(Self { frames: std::array::from_fn(|_| OnceLock::new()), next: OnceLock::new() })
    }
}

impl Drop for Chunk {
    /// Drops the chunks iteratively. The default implementation would recurse once per chunk.
    fn drop(&mut self) {
        let mut next = self.next.take();
        while let Some(mut chunk) = next.and_then(Arc::into_inner) {
            next = chunk.next.take();
        }
    }
}

/// Writes the frames of a [`Prompt`]. Dropping it before [`Writer::finish`] makes the prompt fail.
#[derive(Debug)]
pub struct Writer {
    prompt: Arc<Prompt>,
    chunk: Arc<Chunk>,
    at: usize,
    finished: bool,
}

/// A reader's position in a prompt. It holds the current chunk, so that the next frame is found
/// directly.
#[derive(Clone, Debug)]
pub struct Cursor {
    prompt: Arc<Prompt>,
    chunk: Arc<Chunk>,
    at: usize,
    position: Position,
}

/// The origin of the next frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Position {
    /// The prompt's own frames, after this many of them.
    Own(usize),
    /// The frames of [`LoopJoin::tail`].
    Tail(usize),
    /// The transition between two repetitions of a looped prompt.
    Joined,
    Head(usize),
    Middle(usize),
}

impl Prompt {
    /// Creates an empty prompt and its writer.
    pub fn new() -> (Arc<Self>, Writer) {
        let first = Chunk::new();
        let prompt = Arc::new(Self {
            first: first.clone(),
            state: AtomicU8::new(LOADING),
            failure: OnceLock::new(),
            join: OnceLock::new(),
            voices: Mutex::default(),
            attached: OnceLock::new(),
        });
        (prompt.clone(), Writer { prompt, chunk: first, at: 0, finished: false })
    }

    /// Creates a complete prompt.
    pub fn from_frames(frames: impl IntoIterator<Item = Frame>) -> Arc<Self> {
        let (prompt, mut writer) = Self::new();
        frames.into_iter().for_each(|f| writer.push(f));
        writer.finish();
        prompt
    }

    /// Keeps a value for as long as the prompt exists. Only the first one is kept.
    pub fn attach(&self, value: Arc<dyn Any + Send + Sync>) {
        let _ = self.attached.set(value);
    }

    /// Returns a cursor at the beginning.
    pub fn cursor(self: &Arc<Self>) -> Cursor {
        Cursor {
            prompt: self.clone(),
            chunk: self.first.clone(),
            at: 0,
            position: Position::Own(0),
        }
    }

    /// Returns a cursor at a position that [`Cursor::position`] has returned.
    pub(super) fn cursor_at(self: &Arc<Self>, position: Position) -> Cursor {
        let mut cursor = self.cursor();
        match position {
            Position::Own(frames) => cursor.seek(frames),
            Position::Tail(_) | Position::Joined | Position::Head(_) | Position::Middle(_) => {
                cursor.position = position;
            }
        }
        cursor
    }

    /// Returns the prompt's own frames that are written.
    pub(super) fn frames(self: &Arc<Self>) -> impl Iterator<Item = Frame> {
        let mut cursor = self.cursor();
        std::iter::from_fn(move || match cursor.next_own() {
            FrameState::Ready(frame) => Some(frame),
            FrameState::Pending | FrameState::End | FrameState::Failed => None,
        })
    }

    /// Returns whether the prompt is complete or has failed, so that no further frame is added.
    pub fn is_finished(&self) -> bool {
        self.state.load(Ordering::Acquire) != LOADING
    }

    /// Returns the transition between two repetitions. `None` before the prompt is complete, or if
    /// it has none.
    pub fn join(&self) -> Option<&LoopJoin> {
        self.join.get()
    }

    /// Adds a voice that speaks a part of the prompt, unless it is named already.
    pub fn add_voice(&self, voice: PromptVoice) {
        let mut voices = self.voices.lock().unwrap_or_else(PoisonError::into_inner);
        if voices.len() < VOICES_MAX && !voices.contains(&voice) {
            voices.push(voice);
        }
    }

    /// Returns the voices that have spoken so far, in order. Empty for other sounds.
    pub fn voices(&self) -> Vec<PromptVoice> {
        self.voices.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the reason why the prompt failed, or `None` if it has not failed.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }
}

impl Writer {
    /// Returns the prompt that is written.
    pub fn prompt(&self) -> &Arc<Prompt> {
        &self.prompt
    }

    /// Appends a frame.
    pub fn push(&mut self, frame: Frame) {
        if self.at == CHUNK {
            let next = Chunk::new();
            let _ = self.chunk.next.set(next.clone());
            self.chunk = next;
            self.at = 0;
        }
        if let Some(slot) = self.chunk.frames.get(self.at) {
            let _ = slot.set(frame);
        }
        self.at += 1;
    }

    /// Completes the prompt.
    pub fn finish(self) {
        self.finish_with(None);
    }

    /// Completes the prompt with a transition for repetitions.
    pub fn finish_with(mut self, join: Option<LoopJoin>) {
        self.finished = true;
        if let Some(join) = join {
            let _ = self.prompt.join.set(join);
        }
        self.prompt.state.store(COMPLETE, Ordering::Release);
    }

    /// Makes the prompt fail. Frames written before can still be played.
    pub fn fail(mut self, why: impl Into<String>) {
        self.set_failed(why.into());
    }

    fn set_failed(&mut self, why: String) {
        self.finished = true;
        let _ = self.prompt.failure.set(why);
        self.prompt.state.store(FAILED, Ordering::Release);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            self.set_failed("the writer was dropped before the prompt was complete".to_owned());
        }
    }
}

impl Cursor {
    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// Returns the slot of the prompt's next own frame. `None` at the end of the chunk.
    pub(super) fn slot(&self) -> Option<&OnceLock<Frame>> {
        self.chunk.frames.get(self.at)
    }

    /// Returns the next frame of a round that is the last one. Advances if the frame is ready.
    #[allow(
        clippy::should_implement_trait,
        reason = "not an iterator: frames may follow `Pending` and `End`"
    )]
    pub fn next(&mut self) -> FrameState {
        self.next_in_round(false)
    }

    /// Returns the next frame of a round. `another` is true if a further round follows.
    pub fn next_in_round(&mut self, another: bool) -> FrameState {
        // Most prompts have no transition, and incrementing the shared reference count is
        // expensive.
        if self.prompt.join.get().is_none() {
            return self.next_own();
        }
        let prompt = self.prompt.clone();
        let Some(join) = prompt.join.get() else { return self.next_own() };
        if self.position == Position::Joined {
            let is_middle = another && !join.middle.is_empty();
            self.position = if is_middle { Position::Middle(0) } else { Position::Head(0) };
        }
        if self.position == Position::Head(join.head.len()) {
            self.seek(join.head.len());
        }
        if another && self.position == Position::Own(join.from) {
            self.position = Position::Tail(0);
        }
        let (frames, n) = match &mut self.position {
            Position::Tail(n) => (&join.tail, n),
            Position::Head(n) => (&join.head, n),
            Position::Middle(n) => (&join.middle, n),
            Position::Own(_) | Position::Joined => return self.next_own(),
        };
        match frames.get(*n) {
            Some(frame) => {
                *n += 1;
                FrameState::Ready(frame.clone())
            }
            None => FrameState::End,
        }
    }

    /// Moves to the position after `frames` own frames, all of which exist.
    fn seek(&mut self, frames: usize) {
        let (mut chunk, mut left) = (self.prompt.first.clone(), frames);
        // The position after a chunk's last frame belongs to that chunk, because there may be no
        // next chunk.
        while left > CHUNK
            && let Some(next) = chunk.next.get().cloned()
        {
            (chunk, left) = (next, left - CHUNK);
        }
        (self.chunk, self.at, self.position) = (chunk, left.min(CHUNK), Position::Own(frames));
    }

    fn next_own(&mut self) -> FrameState {
        // Read the state before the frame: a frame written in between is found next time.
        let state = self.prompt.state.load(Ordering::Acquire);
        if self.at == CHUNK {
            match self.chunk.next.get() {
                Some(next) => {
                    self.chunk = next.clone();
                    self.at = 0;
                }
                None => return Self::end_state(state),
            }
        }
        match self.chunk.frames.get(self.at).and_then(OnceLock::get) {
            Some(frame) => {
                self.at += 1;
                if let Position::Own(n) = &mut self.position {
                    *n += 1;
                }
                FrameState::Ready(frame.clone())
            }
            None => Self::end_state(state),
        }
    }

    /// Returns to the beginning for another round.
    pub fn rewind(&mut self) {
        self.chunk = self.prompt.first.clone();
        self.at = 0;
        let joined = matches!(self.position, Position::Tail(_) | Position::Middle(_));
        self.position = if joined { Position::Joined } else { Position::Own(0) };
    }

    fn end_state(state: u8) -> FrameState {
        match state {
            LOADING => FrameState::Pending,
            COMPLETE => FrameState::End,
            _ => FrameState::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Frame, FrameState, LoopJoin, Prompt};

    fn frame(n: u8) -> Frame {
        Frame::from([n])
    }

    #[test]
    fn returns_frames_in_order_across_chunks_and_after_rewind() {
        let prompt = Prompt::from_frames((0..120).map(frame));
        let mut cursor = prompt.cursor();
        for round in 0..2 {
            for n in 0..120 {
                assert_eq!(cursor.next(), FrameState::Ready(frame(n)), "round {round}");
            }
            assert_eq!(cursor.next(), FrameState::End);
            cursor.rewind();
        }
    }

    #[test]
    fn plays_the_loop_join_between_rounds() {
        let with = |from, tail: &[u8], head: &[u8], middle: &[u8]| {
            let (prompt, mut writer) = Prompt::new();
            (0..5).for_each(|n| writer.push(frame(n)));
            let [tail, head, middle] =
                [tail, head, middle].map(|frames| frames.iter().copied().map(frame).collect());
            writer.finish_with(Some(LoopJoin { from, tail, head, middle }));
            let (mut cursor, mut played) = (prompt.cursor(), Vec::new());
            for round in 0..3 {
                while let FrameState::Ready(frame) = cursor.next_in_round(round < 2) {
                    played.push(frame[0]);
                }
                assert_eq!(cursor.next_in_round(round < 2), FrameState::End);
                cursor.rewind();
            }
            played
        };
        assert_eq!(
            with(3, &[33, 34], &[20, 21], &[]),
            [0, 1, 2, 33, 34, 20, 21, 2, 33, 34, 20, 21, 2, 3, 4],
            "the last round has its own end"
        );
        assert_eq!(with(2, &[33], &[20, 21], &[]), [0, 1, 33, 20, 21, 33, 20, 21, 2, 3, 4]);
        let (prompt, mut writer) = Prompt::new();
        (0..100).for_each(|n| writer.push(frame(n)));
        let head: Vec<Frame> = (100..200).map(frame).collect();
        writer.finish_with(Some(LoopJoin {
            from: 0,
            tail: vec![frame(1)],
            head,
            middle: vec![frame(2)],
        }));
        let mut cursor = prompt.cursor();
        assert_eq!(
            (cursor.next_in_round(true), cursor.next_in_round(true)),
            (FrameState::Ready(frame(1)), FrameState::End)
        );
        cursor.rewind();
        for n in 100..200 {
            assert_eq!(cursor.next(), FrameState::Ready(frame(n)));
        }
        assert_eq!(cursor.next(), FrameState::End, "across chunks");
        // A short prompt: each round has other frames.
        let head: Vec<u8> = (50..55).collect();
        assert_eq!(with(0, &[30, 31], &head, &[40, 41]), [30, 31, 40, 41, 50, 51, 52, 53, 54]);
    }

    #[test]
    fn drops_a_long_prompt_on_a_small_stack() {
        let long = || drop(Prompt::from_frames((0..4 * 3_600 * 50).map(|_| frame(0))));
        std::thread::Builder::new().stack_size(64 * 1024).spawn(long).unwrap().join().unwrap();
    }

    #[test]
    fn a_reader_ahead_of_the_writer_gets_pending() {
        let (prompt, mut writer) = Prompt::new();
        let mut cursor = prompt.cursor();
        assert_eq!(cursor.next(), FrameState::Pending);
        writer.push(frame(1));
        assert_eq!(cursor.next(), FrameState::Ready(frame(1)));
        assert_eq!(cursor.next(), FrameState::Pending);
        drop(writer);
        assert_eq!(cursor.next(), FrameState::Failed);
        assert_eq!(prompt.failure(), Some("the writer was dropped before the prompt was complete"));
    }
}
