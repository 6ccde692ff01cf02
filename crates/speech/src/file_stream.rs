//! Decodes a file while it is still being received: a reader over incoming chunks, a peekable
//! reader, and a buffer for the start of playback.

use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::mpsc::Receiver;

use bytes::Bytes;

use super::prompt_builder::{PromptBuilder, PromptError};

/// Playback starts once 1/5 s of audio is decoded. The rest then usually arrives in time
/// (`docs/reference/xml.md#play`).
const START_FRACTION: u32 = 5;

/// Reads chunks from a channel. Reading blocks until a chunk arrives and ends when the sender is
/// dropped.
pub(super) struct ChunkReader {
    /// The mutex makes the type `Sync`. It is never locked.
    receiver: Mutex<Receiver<Bytes>>,
    chunk: Bytes,
}

impl ChunkReader {
    pub(super) fn new(receiver: Receiver<Bytes>) -> Self {
        Self { receiver: Mutex::new(receiver), chunk: Bytes::new() }
    }

    /// Waits until a chunk is available. Returns `false` at the end of the input.
    pub(super) fn wait_for_chunk(&mut self) -> bool {
        while self.chunk.is_empty() {
            let Ok(receiver) = self.receiver.get_mut() else { return false };
            let Ok(chunk) = receiver.recv() else { return false };
            self.chunk = chunk;
        }
        true
    }
}

impl Read for ChunkReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if !self.wait_for_chunk() {
            return Ok(0);
        }
        let chunk = self.chunk.split_to(into.len().min(self.chunk.len()));
        chunk.as_ref().read(into)
    }
}

/// A reader with a look-ahead buffer that reads no further than requested.
pub(super) struct PeekReader {
    buffer: Vec<u8>,
    /// The number of bytes of `buffer` that have been consumed.
    consumed: usize,
    rest: Box<dyn Read + Send + Sync>,
}

impl PeekReader {
    pub(super) fn new(rest: Box<dyn Read + Send + Sync>) -> Self {
        Self { buffer: Vec::new(), consumed: 0, rest }
    }

    /// Returns the next `count` bytes without consuming them, or fewer at the end of the input.
    pub(super) fn peek(&mut self, count: usize) -> &[u8] {
        let missing = count.saturating_sub(self.buffer.len() - self.consumed);
        let missing = u64::try_from(missing).unwrap_or(u64::MAX);
        // A read error counts as the end of the input: the audio received so far is played.
        let _ = self.rest.by_ref().take(missing).read_to_end(&mut self.buffer);
        let ahead = self.buffer.get(self.consumed..).unwrap_or_default();
        ahead.get(..count).unwrap_or(ahead)
    }

    pub(super) fn skip(&mut self, bytes: usize) {
        let buffered = bytes.min(self.buffer.len() - self.consumed);
        self.consumed += buffered;
        let left = u64::try_from(bytes - buffered).unwrap_or(u64::MAX);
        let _ = io::copy(&mut self.rest.by_ref().take(left), &mut io::sink());
    }

    /// Skips leading ID3v2 tags (<https://id3.org/id3v2.4.0-structure> §3.1), which may contain
    /// pictures of any size.
    pub(super) fn skip_id3(&mut self) {
        while self.peek(3) == b"ID3"
            && let Some([_, _, _, _, _, flags, a, b, c, d]) = self.peek(10).first_chunk::<10>()
        {
            let size = [a, b, c, d]
                .into_iter()
                .fold(0, |size, &byte| (size << 7) | usize::from(byte & 0x7f));
            let footer = if flags & 0x10 == 0 { 0 } else { 10 };
            self.skip(10 + size + footer);
        }
    }
}

impl Read for PeekReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.buffer.get(self.consumed..) {
            Some(mut ahead) if !ahead.is_empty() => {
                let read = ahead.read(into)?;
                self.consumed += read;
                Ok(read)
            }
            _ => self.rest.read(into),
        }
    }
}

/// Passes PCM to the builder. The beginning is held back until there is enough audio to start.
pub(super) struct StartBuffer<'m> {
    pub(super) builder: &'m mut PromptBuilder,
    held: Vec<i16>,
    rate: u32,
    started: bool,
}

impl<'m> StartBuffer<'m> {
    pub(super) fn new(builder: &'m mut PromptBuilder) -> Self {
        Self { builder, held: Vec::new(), rate: 0, started: false }
    }

    pub(super) fn push(&mut self, rate: u32, pcm: &[i16]) -> Result<(), PromptError> {
        if self.started {
            return self.builder.push(rate, pcm);
        }
        if rate != self.rate {
            self.release()?;
            self.rate = rate;
        }
        self.held.extend_from_slice(pcm);
        let start_samples = usize::try_from(rate / START_FRACTION).unwrap_or(usize::MAX);
        match self.held.len() >= start_samples {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Passes on all audio held back and stops buffering.
    pub(super) fn flush(&mut self) -> Result<(), PromptError> {
        self.started = true;
        self.release()
    }

    fn release(&mut self) -> Result<(), PromptError> {
        match self.held.is_empty() {
            true => Ok(()),
            false => self.builder.push(self.rate, &std::mem::take(&mut self.held)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn peeking_consumes_nothing_and_reads_no_further_than_requested() {
        let (sender, chunks) = sync_channel(8);
        for chunk in ["ID3\u{4}\0\0\0\0\0\u{3}", "", "tagso", "und"] {
            sender.send(Bytes::from_static(chunk.as_bytes())).unwrap();
        }
        let mut file = PeekReader::new(Box::new(ChunkReader::new(chunks)));
        // The channel is still open: a reader that asked for more would block.
        assert_eq!(file.peek(3), b"ID3");
        file.skip_id3();
        assert_eq!(file.peek(4), b"soun");
        drop(sender);
        assert_eq!(file.peek(400), b"sound");
        file.skip(1);
        let mut rest = String::new();
        file.read_to_string(&mut rest).unwrap();
        assert_eq!((rest.as_str(), file.peek(1)), ("ound", &[][..]));
    }

    #[test]
    fn an_id3_tag_longer_than_the_file_skips_everything() {
        let mut file = PeekReader::new(Box::new(&b"ID3\x04\0\0\x7f\x7f\x7f\x7fsound"[..]));
        file.skip_id3();
        assert!(file.peek(1).is_empty());
    }
}
