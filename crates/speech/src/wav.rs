//! WAV as it streams in: the header, then samples of any piece size, as mono 16-bit PCM.
//!
//! For files, for the HTTP provider and for espeak-ng alike. Takes what writers really send: lengths of 0 or
//! "all ones" where they did not know the length, chunks in any order before the data, padding. The header's
//! word is only a claim: what is kept in memory is never more than the chunk being looked at.

/// Why it is no WAV that we can play.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WavError {
    #[error("read the WAV header: it does not begin with RIFF and WAVE")]
    NotWav,
    #[error("read the WAV header: the fmt chunk is missing, too short or too long")]
    Format,
    #[error("read WAV of coding {coding:#06x} with {bits} bits: PCM, A-law and µ-law are read")]
    Coding { coding: u16, bits: u16 },
    #[error("read WAV with {0} channels: mono and stereo are read")]
    Channels(u16),
    #[error("read WAV of {0} samples a second: 8,000 to 48,000 are read")]
    Rate(u32),
    #[error("read the WAV to its end: it says {said} bytes of sound, and {came} came")]
    Truncated { said: u64, came: u64 },
    #[error("read the WAV: it ends before the sound")]
    NoData,
}

/// A chunk we need is smaller than this; others are skipped without being kept.
const FORMAT_CHUNK_MAX: u32 = 1_024;
/// From here on a length means "until the end": streaming writers put 0xFFFFFFFF, 0x7FFFFFFF or a little less.
const UNKNOWN_LENGTH_FROM: u32 = 0x7fff_0000;

/// Reads WAV piece by piece.
#[derive(Debug, Default)]
pub(super) struct WavReader {
    state: State,
    /// Bytes that are not a whole thing yet.
    rest: Vec<u8>,
    format: Option<Format>,
    /// Bytes of sound so far.
    came: u64,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Riff,
    Chunk,
    FormatBody(u32),
    /// Bytes to leave out.
    Skip(u64),
    /// Bytes of sound that the header promised; `None`: until the end.
    Data(Option<u64>),
    Over,
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
    /// Takes bytes and appends the samples in them to `out`.
    ///
    /// # Errors
    /// It is no WAV that is read here; what was appended before stands.
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
                    self.format = Some(Format::of(&body)?);
                    self.state = State::Chunk;
                }
                State::Skip(left) => {
                    let skipped = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    bytes = bytes.get(skipped..).unwrap_or_default();
                    let left = left.saturating_sub(count(skipped));
                    self.state = if left == 0 { State::Chunk } else { State::Skip(left) };
                    if bytes.is_empty() {
                        return Ok(());
                    }
                }
                State::Data(said) => {
                    let left = said.map_or(u64::MAX, |said| said.saturating_sub(self.came));
                    let now =
                        bytes.get(..bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
                    let now = now.unwrap_or_default();
                    self.samples(now, out);
                    self.came += count(now.len());
                    if Some(self.came) == said {
                        self.state = State::Over;
                    }
                    return Ok(());
                }
                State::Over => return Ok(()),
            }
        }
    }

    /// Samples a second, once the header is in.
    pub(super) fn rate(&self) -> Option<u32> {
        self.format.map(|format| format.rate)
    }

    /// Seconds of sound, if the header is in and says so.
    pub(super) fn seconds(&self) -> Option<u64> {
        let format = self.format?;
        match self.state {
            State::Data(Some(said)) => {
                Some(said / count(format.frame_bytes()) / u64::from(format.rate))
            }
            _ => None,
        }
    }

    /// The input is at its end.
    ///
    /// # Errors
    /// It ended before the header or before the length that the header promised.
    pub(super) fn finish(self) -> Result<(), WavError> {
        match self.state {
            State::Over => Ok(()),
            State::Data(None) if self.came > 0 => Ok(()),
            State::Data(Some(said)) if self.came > 0 => {
                Err(WavError::Truncated { said, came: self.came })
            }
            State::Riff => Err(WavError::NotWav),
            _ => Err(WavError::NoData),
        }
    }

    /// Takes `wanted` bytes, from the rest and then from `bytes`; `None`: not all there yet, kept for later.
    fn take(&mut self, bytes: &mut &[u8], wanted: usize) -> Option<Vec<u8>> {
        let missing = wanted.saturating_sub(self.rest.len()).min(bytes.len());
        let (now, later) = bytes.split_at_checked(missing)?;
        self.rest.extend_from_slice(now);
        *bytes = later;
        (self.rest.len() >= wanted).then(|| std::mem::take(&mut self.rest))
    }

    fn samples(&mut self, bytes: &[u8], out: &mut Vec<i16>) {
        let Some(format) = self.format else { return };
        let size = format.frame_bytes();
        let mut bytes = bytes;
        if !self.rest.is_empty() {
            let Some(whole) = self.take(&mut bytes, size) else { return };
            out.push(format.mono(&whole));
        }
        let frames = bytes.chunks_exact(size);
        self.rest.extend_from_slice(frames.remainder());
        out.extend(frames.map(|frame| format.mono(frame)));
    }
}

impl Format {
    fn of(body: &[u8]) -> Result<Self, WavError> {
        let (mut coding, channels, rate, bits) =
            (le16(body, 0), le16(body, 2), le32(body, 4), le16(body, 14));
        // WAVE_FORMAT_EXTENSIBLE: the real one is the first two bytes of the sub-format.
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

    /// One moment's samples, mixed down.
    fn mono(self, frame: &[u8]) -> i16 {
        let mut samples = frame
            .chunks_exact(self.sample_bytes())
            .map(|sample| i32::from(self.coding.sample(sample)));
        let sum: i32 = samples.by_ref().sum();
        // At most two samples: the mean of two i16 is one.
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
                super::cut_to_i16(f32::from_le_bytes([a, b, c, d]) * 32_767.0)
            }
            _ => 0,
        }
    }
}

/// ITU-T G.711.
fn mu_law(byte: u8) -> i16 {
    let byte = !byte;
    let magnitude = (((i16::from(byte & 0x0f) << 3) + 0x84) << ((byte >> 4) & 7)) - 0x84;
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

/// ITU-T G.711.
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

/// Chunks of odd length have a padding byte.
/// A length in memory as one of a file.
fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn padded(length: u32) -> u64 {
    u64::from(length) + u64::from(length & 1)
}

#[cfg(test)]
mod tests;
