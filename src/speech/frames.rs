//! PCM of any rate to the frames of one prompt.

use super::resample::{RATE, Resampler};
use crate::ffi::opus::{Encoder, Rate, silence_frame};
use crate::media::prompt::Writer;

/// Milliseconds of a frame.
const FRAME_MS: u32 = 20;
/// A prompt is an hour at most (`plivo-xml.md` §5.3).
const FRAMES_MAX: usize = 3_600 * 1_000 / FRAME_MS as usize;
/// What a frame in a prompt costs beside its bytes: its place, its counters, the allocation.
const FRAME_OVERHEAD_BYTES: usize = 56;

/// Why a prompt's sound was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FramesError {
    #[error("play more than an hour")]
    TooLong,
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
    bytes: usize,
}

impl FrameMaker {
    pub(super) fn new(writer: Writer) -> Self {
        let encoder = Encoder::for_prompts();
        Self { writer, encoder, resampler: None, waiting: Vec::new(), frames: 0, bytes: 0 }
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
            self.count(frame.len())?;
            self.writer.push(frame.clone());
        }
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
        self.writer.finish();
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
            self.count(frame.len())?;
            self.writer.push(frame);
        }
        Ok(())
    }

    fn count(&mut self, bytes: usize) -> Result<(), FramesError> {
        if self.frames >= FRAMES_MAX {
            return Err(FramesError::TooLong);
        }
        self.frames += 1;
        self.bytes += bytes + FRAME_OVERHEAD_BYTES;
        Ok(())
    }
}
