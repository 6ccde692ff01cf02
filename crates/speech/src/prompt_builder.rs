//! Encodes PCM of any sample rate as the frames of a prompt.

use std::sync::Arc;

use super::loop_join::LoopJoinBuilder;
use super::memory::PromptBytes;
use super::resample::{RATE, Resampler};
use media::FRAME_MS;
use media::opus::{Encoder, Rate, silence_frame};
use media::prompt::{Frame, LoopJoin, Writer};

/// Maximum length of speech or a file: one hour.
const FRAMES_MAX: usize = frames(3_600);
/// The failure of a prompt that was given up because the calls that needed it have ended.
pub(super) const NOT_NEEDED: &str = "no call needs the prompt any more";
/// Maximum length of a `Wait`: 14,400 s.
const SILENT_FRAMES_MAX: usize = frames(14_400);
/// Frames between two calls of a builder's pace: ten seconds, which take some hundredths of one.
const FRAMES_AT_ONCE: usize = frames(10);
/// Memory of a frame's entry in the prompt, in bytes, without its data.
const ENTRY_BYTES: usize = 24;
/// Memory of a frame in bytes in addition to its entry and data: reference counts and the
/// allocation.
const FRAME_OVERHEAD_BYTES: usize = 32;

const fn frames(seconds: usize) -> usize {
    seconds * 1_000 / FRAME_MS as usize
}

/// The reason why audio cannot be added to a prompt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PromptError {
    #[error("the audio is longer than {} s", .0 / frames(1))]
    TooLong(usize),
    #[error("the sample rate {0} is not supported")]
    Rate(String),
    #[error("the sounds of the account's calls take too much memory: {mib} MiB")]
    Memory { mib: u64 },
    #[error("{NOT_NEEDED}")]
    NotNeeded,
}

/// Called after each [`FRAMES_AT_ONCE`] frames. May block.
pub(super) type Pace = Box<dyn FnMut() -> Result<(), PromptError> + Send>;

/// Builds a prompt from PCM. If it is dropped unfinished, the prompt fails.
pub(super) struct PromptBuilder {
    writer: Writer,
    encoder: Encoder,
    resampler: Option<Resampler>,
    /// Samples at 16 kHz that do not fill a frame yet.
    pending: Vec<i16>,
    frames: usize,
    frames_max: usize,
    bytes: usize,
    /// Collects the audio for the loop join; see [`loop_join`](super::loop_join).
    loop_join: Option<Box<LoopJoinBuilder>>,
    join: Option<LoopJoin>,
    memory: Option<Arc<PromptBytes>>,
    pace: Option<Pace>,
}

impl PromptBuilder {
    pub(super) fn new(writer: Writer) -> Self {
        Self {
            writer,
            encoder: Encoder::for_prompts(),
            resampler: None,
            pending: Vec::new(),
            frames: 0,
            frames_max: FRAMES_MAX,
            bytes: 0,
            loop_join: None,
            join: None,
            memory: None,
            pace: None,
        }
    }

    /// Accounts for the memory of the prompt.
    pub(super) fn with_memory(self, memory: Arc<PromptBytes>) -> Self {
        self.writer.prompt().attach(memory.clone());
        Self { memory: Some(memory), ..self }
    }

    /// Sets or removes what decides whether and when further frames are encoded.
    pub(super) fn set_pace(&mut self, pace: Option<Pace>) {
        self.pace = pace;
    }

    /// Creates a builder for silence, which may be longer than other sounds.
    pub(super) fn for_silence(writer: Writer) -> Self {
        Self { frames_max: SILENT_FRAMES_MAX, ..Self::new(writer) }
    }

    /// Enables a loop join, for sounds that may be repeated.
    pub(super) fn for_loops(self) -> Self {
        Self { loop_join: Some(Box::default()), ..self }
    }

    /// Encodes the loop join after all audio was added. This encodes about two more seconds of
    /// audio, or a short sound three times.
    pub(super) fn encode_join(&mut self) {
        let join = self.loop_join.take().and_then(|loop_join| loop_join.build());
        self.set_join(join);
    }

    /// Uses the loop join of another prompt.
    pub(super) fn set_join(&mut self, join: Option<LoopJoin>) {
        let frames =
            join.iter().flat_map(|join| join.tail.iter().chain(&join.head).chain(&join.middle));
        self.bytes +=
            frames.map(|frame| ENTRY_BYTES + frame.len() + FRAME_OVERHEAD_BYTES).sum::<usize>();
        self.join = join;
    }

    /// Adds mono PCM at `rate` samples per second.
    ///
    /// # Errors
    ///
    /// Fails if the rate is not supported or the prompt becomes too long.
    pub(super) fn push(&mut self, rate: u32, pcm: &[i16]) -> Result<(), PromptError> {
        if self.resampler.as_ref().is_none_or(|r| r.from() != rate) {
            self.flush_resampler();
            self.resampler = Some(Resampler::new(rate).map_err(PromptError::Rate)?);
        }
        if let Some(loop_join) = &mut self.loop_join {
            loop_join.push(rate, pcm);
        }
        if let Some(resampler) = &mut self.resampler {
            resampler.push(pcm, &mut self.pending);
        }
        self.encode()
    }

    /// Adds silence, rounded up to whole frames.
    ///
    /// # Errors
    ///
    /// Fails if the prompt becomes too long.
    pub(super) fn silence(&mut self, ms: u32) -> Result<(), PromptError> {
        self.flush()?;
        // The listener hears silence, so the encoder must start the next audio from silence too.
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
    ///
    /// Fails if the prompt becomes too long.
    pub(super) fn push_shared(&mut self, frame: Frame) -> Result<(), PromptError> {
        let bytes = frame.len();
        self.push_frame(frame, bytes)
    }

    /// Adds a frame. `bytes` is the memory that the frame takes in addition to its entry, or 0 for
    /// a shared frame.
    fn push_frame(&mut self, frame: Frame, bytes: usize) -> Result<(), PromptError> {
        if self.frames >= self.frames_max {
            return Err(PromptError::TooLong(self.frames_max));
        }
        if self.frames.is_multiple_of(FRAMES_AT_ONCE)
            && self.frames > 0
            && let Some(pace) = &mut self.pace
        {
            pace()?;
        }
        self.frames += 1;
        self.bytes += ENTRY_BYTES + bytes;
        self.writer.push(frame);
        if self.frames.is_multiple_of(frames(1))
            && let Some(memory) = &self.memory
        {
            memory.grow(self.bytes)?;
        }
        Ok(())
    }

    /// Returns the number of frames so far.
    pub(super) fn frames(&self) -> usize {
        self.frames
    }

    /// Completes the prompt and returns its size in memory, in bytes.
    ///
    /// # Errors
    ///
    /// Fails if the prompt becomes too long.
    pub(super) fn finish(mut self) -> Result<usize, PromptError> {
        if let Err(e) = self.flush() {
            self.fail(e.to_string());
            return Err(e);
        }
        self.writer.finish_with(self.join);
        Ok(self.bytes)
    }

    /// Fails the prompt. The frames added so far remain playable.
    pub(super) fn fail(self, reason: impl Into<String>) {
        self.writer.fail(reason);
    }

    fn flush_resampler(&mut self) {
        if let Some(resampler) = self.resampler.take() {
            resampler.finish(&mut self.pending);
        }
    }

    /// Checks a sound's declared duration.
    ///
    /// # Errors
    ///
    /// Fails if the sound is too long.
    pub(super) fn check_duration(&self, seconds: u64) -> Result<(), PromptError> {
        let too_long = usize::try_from(seconds).is_ok_and(|s| frames(s) > self.frames_max);
        if too_long { Err(PromptError::TooLong(self.frames_max)) } else { Ok(()) }
    }

    /// Encodes the remaining samples, padding the last frame with silence.
    fn flush(&mut self) -> Result<(), PromptError> {
        self.flush_resampler();
        let frame = Rate::Hz16000.frame();
        self.pending.resize(self.pending.len().next_multiple_of(frame), 0);
        self.encode()
    }

    fn encode(&mut self) -> Result<(), PromptError> {
        const { assert!(Rate::Hz16000.hz() == RATE) };
        let pending = std::mem::take(&mut self.pending);
        let frames = pending.chunks_exact(Rate::Hz16000.frame());
        self.pending.extend_from_slice(frames.remainder());
        for pcm in frames {
            let frame = self.encoder.encode(pcm);
            let bytes = frame.len() + FRAME_OVERHEAD_BYTES;
            self.push_frame(frame, bytes)?;
        }
        Ok(())
    }
}
