//! An incremental WAV reader: accepts bytes in chunks of any size and returns mono 16-bit PCM.
//!
//! The reader is used for files, the HTTP provider and espeak-ng. It accepts files of common
//! writers: lengths of 0 or 0xFFFFFFFF if the length was unknown, chunks in any order before the
//! data, and padding. Lengths in headers are not trusted: only the current chunk header is kept in
//! memory.

/// The reason why a WAV file cannot be played.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WavError {
    #[error("could not read the WAV header: it does not start with RIFF and WAVE")]
    NotWav,
    #[error("could not read the WAV header: the fmt chunk is missing, too short or too long")]
    Format,
    #[error(
        "could not read WAV with coding {coding:#06x} and {bits} bits: use PCM, A-law or µ-law"
    )]
    Coding { coding: u16, bits: u16 },
    #[error("could not read WAV with {0} channels: use mono or stereo")]
    Channels(u16),
    #[error("could not read WAV with a sample rate of {0} Hz: use 8,000 to 48,000 Hz")]
    Rate(u32),
    #[error("could not read the WAV data: {declared} bytes declared, {received} received")]
    Truncated { declared: u64, received: u64 },
    #[error("could not read the WAV data: the file ends before it")]
    NoData,
}

/// Maximum size of a `fmt` chunk in bytes. Other chunks are skipped without being buffered.
const FORMAT_CHUNK_MAX: u32 = 1_024;
/// Minimum length that means "until the end". Streaming writers use 0xFFFFFFFF, 0x7FFFFFFF or
/// slightly less.
const UNKNOWN_LENGTH_FROM: u32 = 0x7fff_0000;

/// Reads a WAV file incrementally.
#[derive(Debug, Default)]
pub(super) struct WavReader {
    state: State,
    /// The bytes of an incomplete header or sample.
    buffered: Vec<u8>,
    format: Option<Format>,
    /// The number of bytes of audio received so far.
    received: u64,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Riff,
    Chunk,
    FormatBody(u32),
    /// The number of bytes to skip.
    Skip(u64),
    /// The declared number of bytes of audio, or `None` if the audio extends to the end of the
    /// input.
    Data(Option<u64>),
    End,
}

#[derive(Clone, Copy, Debug)]
struct Format {
    coding: Coding,
    channels: usize,
    rate: u32,
}

#[derive(Clone, Copy, Debug)]
enum Coding {
    Pcm8,
    Pcm16,
    Pcm24,
    Pcm32,
    Float32,
    ALaw,
    MuLaw,
}

impl WavReader {
    /// Reads bytes and appends their samples to `out`.
    ///
    /// # Errors
    ///
    /// Fails if the file is not a supported WAV file. Samples appended before remain valid.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<i16>) -> Result<(), WavError> {
        let mut bytes = bytes;
        loop {
            match self.state {
                State::Riff => {
                    let Some(head) = self.take(&mut bytes, 12) else { return Ok(()) };
                    if head.get(..4) != Some(b"RIFF") || head.get(8..12) != Some(b"WAVE") {
                        return Err(WavError::NotWav);
                    }
                    self.state = State::Chunk;
                }
                State::Chunk => {
                    let Some(head) = self.take(&mut bytes, 8) else { return Ok(()) };
                    let length = le32(&head, 4);
                    self.state = match head.get(..4) {
                        Some(b"fmt ") if (16..=FORMAT_CHUNK_MAX).contains(&length) => {
                            State::FormatBody(length)
                        }
                        Some(b"fmt ") => return Err(WavError::Format),
                        Some(b"data") if self.format.is_none() => return Err(WavError::Format),
                        Some(b"data") => {
                            let known = length != 0 && length < UNKNOWN_LENGTH_FROM;
                            State::Data(known.then_some(u64::from(length)))
                        }
                        _ => State::Skip(padded(length)),
                    };
                }
                State::FormatBody(length) => {
                    let Some(body) = self
                        .take(&mut bytes, usize::try_from(padded(length)).unwrap_or(usize::MAX))
                    else {
                        return Ok(());
                    };
                    self.format = Some(Format::parse(&body)?);
                    self.state = State::Chunk;
                }
                State::Skip(left) => {
                    let skipped = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    bytes = bytes.get(skipped..).unwrap_or_default();
                    let left = left.saturating_sub(file_length(skipped));
                    self.state = if left == 0 { State::Chunk } else { State::Skip(left) };
                    if bytes.is_empty() {
                        return Ok(());
                    }
                }
                State::Data(declared) => {
                    let left = declared
                        .map_or(u64::MAX, |declared| declared.saturating_sub(self.received));
                    let now =
                        bytes.get(..bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
                    let now = now.unwrap_or_default();
                    self.samples(now, out);
                    self.received += file_length(now.len());
                    if Some(self.received) == declared {
                        self.state = State::End;
                    }
                    return Ok(());
                }
                State::End => return Ok(()),
            }
        }
    }

    /// Returns the sample rate in Hz, or `None` before the header is complete.
    pub(super) fn rate(&self) -> Option<u32> {
        self.format.map(|format| format.rate)
    }

    /// Returns the duration in seconds if the header declares it.
    pub(super) fn seconds(&self) -> Option<u64> {
        let format = self.format?;
        match self.state {
            State::Data(Some(declared)) => {
                Some(declared / file_length(format.frame_bytes()) / u64::from(format.rate))
            }
            _ => None,
        }
    }

    /// Ends the input.
    ///
    /// # Errors
    ///
    /// Fails if the input ended before the header or the declared length.
    pub(super) fn finish(self) -> Result<(), WavError> {
        match self.state {
            State::End => Ok(()),
            State::Data(None) if self.received > 0 => Ok(()),
            State::Data(Some(declared)) if self.received > 0 => {
                Err(WavError::Truncated { declared, received: self.received })
            }
            State::Riff => Err(WavError::NotWav),
            _ => Err(WavError::NoData),
        }
    }

    /// Takes `wanted` bytes from the buffer and then from `bytes`. Returns `None` and buffers the
    /// bytes if there are not enough yet.
    fn take(&mut self, bytes: &mut &[u8], wanted: usize) -> Option<Vec<u8>> {
        let missing = wanted.saturating_sub(self.buffered.len()).min(bytes.len());
        let (now, later) = bytes.split_at_checked(missing)?;
        self.buffered.extend_from_slice(now);
        *bytes = later;
        (self.buffered.len() >= wanted).then(|| std::mem::take(&mut self.buffered))
    }

    fn samples(&mut self, bytes: &[u8], out: &mut Vec<i16>) {
        let Some(format) = self.format else { return };
        let size = format.frame_bytes();
        let mut bytes = bytes;
        if !self.buffered.is_empty() {
            let Some(whole) = self.take(&mut bytes, size) else { return };
            out.push(format.mono(&whole));
        }
        let frames = bytes.chunks_exact(size);
        self.buffered.extend_from_slice(frames.remainder());
        out.extend(frames.map(|frame| format.mono(frame)));
    }
}

impl Format {
    fn parse(body: &[u8]) -> Result<Self, WavError> {
        let (mut coding, channels, rate, bits) =
            (le16(body, 0), le16(body, 2), le32(body, 4), le16(body, 14));
        // WAVE_FORMAT_EXTENSIBLE: the actual coding is in the first two bytes of the sub-format.
        if coding == 0xfffe {
            coding = le16(body, 24);
        }
        let coding = match (coding, bits) {
            (1, 8) => Coding::Pcm8,
            (1, 16) => Coding::Pcm16,
            (1, 24) => Coding::Pcm24,
            (1, 32) => Coding::Pcm32,
            (3, 32) => Coding::Float32,
            (6, 8) => Coding::ALaw,
            (7, 8) => Coding::MuLaw,
            (coding, bits) => return Err(WavError::Coding { coding, bits }),
        };
        if !(1..=2).contains(&channels) {
            return Err(WavError::Channels(channels));
        }
        if !(8_000..=48_000).contains(&rate) {
            return Err(WavError::Rate(rate));
        }
        Ok(Self { coding, channels: usize::from(channels), rate })
    }

    fn sample_bytes(self) -> usize {
        match self.coding {
            Coding::Pcm8 | Coding::ALaw | Coding::MuLaw => 1,
            Coding::Pcm16 => 2,
            Coding::Pcm24 => 3,
            Coding::Pcm32 | Coding::Float32 => 4,
        }
    }

    fn frame_bytes(self) -> usize {
        self.sample_bytes() * self.channels
    }

    /// Returns the mean of one sample of each channel.
    fn mono(self, frame: &[u8]) -> i16 {
        let mut samples = frame
            .chunks_exact(self.sample_bytes())
            .map(|sample| i32::from(self.coding.sample(sample)));
        let sum: i32 = samples.by_ref().sum();
        // The mean of two `i16` fits in an `i16`.
        i16::try_from(if self.channels == 2 { sum / 2 } else { sum }).unwrap_or_default()
    }
}

impl Coding {
    fn sample(self, bytes: &[u8]) -> i16 {
        match (self, bytes) {
            (Self::Pcm8, &[a]) => (i16::from(a) - 128) << 8,
            (Self::ALaw, &[a]) => a_law(a),
            (Self::MuLaw, &[a]) => mu_law(a),
            (Self::Pcm16, &[a, b]) | (Self::Pcm24, &[_, a, b]) | (Self::Pcm32, &[_, _, a, b]) => {
                i16::from_le_bytes([a, b])
            }
            (Self::Float32, &[a, b, c, d]) => {
                super::clamp_to_i16(f32::from_le_bytes([a, b, c, d]) * 32_767.0)
            }
            _ => 0,
        }
    }
}

/// Decodes µ-law (ITU-T G.711).
fn mu_law(byte: u8) -> i16 {
    let byte = !byte;
    let magnitude = (((i16::from(byte & 0x0f) << 3) + 0x84) << ((byte >> 4) & 7)) - 0x84;
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

/// Decodes A-law (ITU-T G.711).
fn a_law(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let mantissa = i16::from(byte & 0x0f) << 4;
    let magnitude = match (byte >> 4) & 7 {
        0 => mantissa + 8,
        exponent => (mantissa + 0x108) << (exponent - 1),
    };
    if byte & 0x80 == 0 { -magnitude } else { magnitude }
}

fn le16(bytes: &[u8], at: usize) -> u16 {
    match bytes.get(at..).and_then(|b| b.first_chunk()) {
        Some(two) => u16::from_le_bytes(*two),
        None => 0,
    }
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    match bytes.get(at..).and_then(|b| b.first_chunk()) {
        Some(four) => u32::from_le_bytes(*four),
        None => 0,
    }
}

/// Converts a length in memory to a length in a file.
fn file_length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn padded(length: u32) -> u64 {
    u64::from(length) + u64::from(length & 1)
}

#[cfg(test)]
mod tests;
