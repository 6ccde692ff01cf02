//! PCM of any rate to the frames of one prompt.

use super::looped::Loop;
use super::resample::{RATE, Resampler};
use media::opus::{Encoder, Rate, silence_frame};
use media::prompt::{Frame, LoopJoin, Writer};

/// Milliseconds of a frame.
const FRAME_MS: u32 = 20;
/// What is spoken or played is an hour at most (`plivo-xml.md` §5.3).
const FRAMES_MAX: usize = frames(3_600);
/// A `Wait` is 14,400 s at most (§5.4).
const SILENT_FRAMES_MAX: usize = frames(14_400);
/// A frame's place in its prompt.
const PLACE_BYTES: usize = 24;
/// What a frame of its own costs beside that and its bytes: counters and the allocation.
const FRAME_OVERHEAD_BYTES: usize = 32;

const fn frames(seconds: usize) -> usize {
    seconds * 1_000 / FRAME_MS as usize
}

/// Why a prompt's sound was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FramesError {
    #[error("play more than {} s", .0 / frames(1))]
    TooLong(usize),
    #[error("play sound of {0}")]
    Rate(String),
}

/// Encodes into a prompt. Dropped unfinished, it fails the prompt.
pub(super) struct FrameMaker {
    writer: Writer,
    encoder: Encoder,
    resampler: Option<Resampler>,
    /// Samples at 16 kHz that are no whole frame yet.
    waiting: Vec<i16>,
    frames: usize,
    frames_max: usize,
    bytes: usize,
    /// What is needed for a join, while it is made; see [`looped`](super::looped).
    looped: Option<Box<Loop>>,
    join: Option<LoopJoin>,
}

impl FrameMaker {
    pub(super) fn new(writer: Writer) -> Self {
        Self {
            writer,
            encoder: Encoder::for_prompts(),
            resampler: None,
            waiting: Vec::new(),
            frames: 0,
            frames_max: FRAMES_MAX,
            bytes: 0,
            looped: None,
            join: None,
        }
    }

    /// For silence alone, which may be longer.
    pub(super) fn silent(writer: Writer) -> Self {
        Self { frames_max: SILENT_FRAMES_MAX, ..Self::new(writer) }
    }

    /// For what may be played again and again.
    pub(super) fn for_loops(self) -> Self {
        Self { looped: Some(Box::default()), ..self }
    }

    /// All sound is there: makes what it goes over into itself with. Encodes two seconds for that, of a
    /// short sound all of it three times.
    pub(super) fn join(&mut self) {
        let join = self.looped.take().and_then(|looped| looped.join());
        self.share_join(join);
    }

    /// Takes another prompt's.
    pub(super) fn share_join(&mut self, join: Option<LoopJoin>) {
        let frames =
            join.iter().flat_map(|join| join.tail.iter().chain(&join.head).chain(&join.middle));
        self.bytes +=
            frames.map(|frame| PLACE_BYTES + frame.len() + FRAME_OVERHEAD_BYTES).sum::<usize>();
        self.join = join;
    }

    /// Adds sound, `rate` samples a second, mono.
    ///
    /// # Errors
    /// An odd rate, or more than an hour altogether.
    pub(super) fn push(&mut self, rate: u32, pcm: &[i16]) -> Result<(), FramesError> {
        if self.resampler.as_ref().is_none_or(|r| r.from() != rate) {
            self.flush_resampler();
            self.resampler = Some(Resampler::new(rate).map_err(FramesError::Rate)?);
        }
        if let Some(looped) = &mut self.looped {
            looped.push(rate, pcm);
        }
        if let Some(resampler) = &mut self.resampler {
            resampler.push(pcm, &mut self.waiting);
        }
        self.encode()
    }

    /// Adds a pause, to the next whole frame.
    ///
    /// # Errors
    /// More than an hour altogether.
    pub(super) fn silence(&mut self, ms: u32) -> Result<(), FramesError> {
        self.flush()?;
        // The encoder starts the next stretch from silence, as the listener hears it.
        self.encoder.reset();
        let frame = silence_frame();
        for _ in 0..ms.div_ceil(FRAME_MS) {
            self.push_frame(frame.clone(), 0)?;
        }
        Ok(())
    }

    /// Adds a frame of another prompt.
    ///
    /// # Errors
    /// More than an hour altogether.
    pub(super) fn share(&mut self, frame: Frame) -> Result<(), FramesError> {
        let bytes = frame.len();
        self.push_frame(frame, bytes)
    }

    /// `bytes`: what it takes beside its place; a shared one takes none.
    fn push_frame(&mut self, frame: Frame, bytes: usize) -> Result<(), FramesError> {
        if self.frames >= self.frames_max {
            return Err(FramesError::TooLong(self.frames_max));
        }
        self.frames += 1;
        self.bytes += PLACE_BYTES + bytes;
        self.writer.push(frame);
        Ok(())
    }

    /// Frames so far.
    pub(super) fn frames(&self) -> usize {
        self.frames
    }

    /// The prompt is complete; gives the bytes that it holds in memory.
    ///
    /// # Errors
    /// More than an hour altogether.
    pub(super) fn finish(mut self) -> Result<usize, FramesError> {
        if let Err(e) = self.flush() {
            self.fail(e.to_string());
            return Err(e);
        }
        self.writer.finish_with(self.join);
        Ok(self.bytes)
    }

    /// The prompt can't be had: what is ready stays playable.
    pub(super) fn fail(self, why: impl Into<String>) {
        self.writer.fail(why);
    }

    fn flush_resampler(&mut self) {
        if let Some(resampler) = self.resampler.take() {
            resampler.finish(&mut self.waiting);
        }
    }

    /// A sound that says itself how long it is.
    ///
    /// # Errors
    /// That is more than an hour.
    pub(super) fn expect_seconds(&self, seconds: u64) -> Result<(), FramesError> {
        let too_long = usize::try_from(seconds).is_ok_and(|s| frames(s) > self.frames_max);
        if too_long { Err(FramesError::TooLong(self.frames_max)) } else { Ok(()) }
    }

    /// Whole frames of what waits, the last one filled up with silence.
    fn flush(&mut self) -> Result<(), FramesError> {
        self.flush_resampler();
        let frame = Rate::Hz16000.frame();
        self.waiting.resize(self.waiting.len().next_multiple_of(frame), 0);
        self.encode()
    }

    fn encode(&mut self) -> Result<(), FramesError> {
        const { assert!(Rate::Hz16000.hz() == RATE) };
        let waiting = std::mem::take(&mut self.waiting);
        let frames = waiting.chunks_exact(Rate::Hz16000.frame());
        self.waiting.extend_from_slice(frames.remainder());
        for pcm in frames {
            let frame = self.encoder.encode(pcm);
            let bytes = frame.len() + FRAME_OVERHEAD_BYTES;
            self.push_frame(frame, bytes)?;
        }
        Ok(())
    }
}
