//! Decodes audio files: WAV, MP3 and Ogg (Vorbis, Opus), recognised by their content.
//!
//! Memory use is bounded whatever the file claims: no buffer is sized by a header field, metadata
//! is skipped, and audio is passed on packet by packet.

use std::io::{Cursor, Read as _};

use bytes::Bytes;
use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions, ReadOnlySource};
use symphonia::default::formats::{MpaReader, OggReader};

use super::file_stream::{PeekReader, StartBuffer};
use super::prompt_builder::{PromptBuilder, PromptError};
use super::wav::{WavError, WavReader};
use media::opus::{Decoder, Rate};

pub(super) use super::file_stream::ChunkReader;

/// Size of a WAV read. It is small, so that playback starts long before the end is encoded.
const READ_BYTES: usize = 16 * 1024;
/// Maximum offset of the first MP3 frame. Like other players, this one tolerates some invalid bytes
/// before it.
const GARBAGE_MAX: usize = 4_096;
/// Size of a look-ahead that contains an MP3 frame and the header of the next one.
const FRAME_MAX: usize = 2_048;

/// The reason why a file cannot be played.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("could not play the file: it is empty")]
    Empty,
    #[error("could not play the file: it is {0}, not WAV, MP3 or Ogg")]
    Unknown(&'static str),
    #[error("{0}")]
    Wav(#[from] WavError),
    #[error("could not read the {kind} file: {reason}")]
    Broken { kind: &'static str, reason: String },
    #[error("{0}")]
    Prompt(#[from] PromptError),
    #[error("could not play the file: it contains no audio")]
    NoAudio,
}

/// Decodes a whole file into `builder`. Blocks.
///
/// # Errors
///
/// Fails if the file cannot be played. Audio before the fault has been added to `builder`.
pub(super) fn decode(file: &Bytes, builder: &mut PromptBuilder) -> Result<(), FileError> {
    decode_from(PeekReader::new(Box::new(Cursor::new(file.clone()))), builder)
}

/// Decodes a file while it is being received. Playback can start once 200 ms of audio are decoded.
/// Blocks until the whole file has arrived.
///
/// # Errors
///
/// See [`decode`].
pub(super) fn decode_stream(
    file: ChunkReader,
    builder: &mut PromptBuilder,
) -> Result<(), FileError> {
    decode_from(PeekReader::new(Box::new(file)), builder)
}

fn decode_from(mut file: PeekReader, builder: &mut PromptBuilder) -> Result<(), FileError> {
    let before = builder.frames();
    file.skip_id3();
    let format = detect(&mut file)?;
    let mut output = StartBuffer::new(builder);
    let read = match format {
        Format::Wav => wav(file, &mut output),
        Format::Mp3(at) => {
            file.skip(at);
            let reader = MpaReader::try_new(stream(file), FormatOptions::default());
            decode_packets(
                "MP3",
                reader.map(|r| -> Box<dyn FormatReader> { Box::new(r) }),
                &mut output,
            )
        }
        Format::Ogg => {
            let reader = OggReader::try_new(stream(file), FormatOptions::default());
            decode_packets(
                "Ogg",
                reader.map(|r| -> Box<dyn FormatReader> { Box::new(r) }),
                &mut output,
            )
        }
    };
    // Play the audio that was decoded before an error.
    output.flush()?;
    read?;
    if builder.frames() == before { Err(FileError::NoAudio) } else { Ok(()) }
}

/// Detects the format from as few bytes as possible: the rest may not have arrived yet.
fn detect(file: &mut PeekReader) -> Result<Format, FileError> {
    let start = file.peek(4);
    if !start.starts_with(b"RIFF")
        && let Some(length) = mp3_frame_length(start)
        && mp3_start(file.peek(length + 4)) == Some(0)
    {
        return Ok(Format::Mp3(0));
    }
    match detect_start(file.peek(4)) {
        Ok(known @ (Format::Wav | Format::Ogg)) => Ok(known),
        _ => detect_start(file.peek(GARBAGE_MAX + FRAME_MAX)),
    }
}

enum Format {
    Wav,
    /// MP3, with the offset of the first frame.
    Mp3(usize),
    Ogg,
}

fn detect_start(file: &[u8]) -> Result<Format, FileError> {
    let starts_with =
        |prefix: &[u8]| file.get(..prefix.len()).is_some_and(|b| b.eq_ignore_ascii_case(prefix));
    if file.is_empty() {
        return Err(FileError::Empty);
    }
    if starts_with(b"RIFF") {
        return Ok(Format::Wav);
    }
    if starts_with(b"OggS") {
        return Ok(Format::Ogg);
    }
    if let Some(at) = mp3_start(file) {
        return Ok(Format::Mp3(at));
    }
    let text = file
        .iter()
        .position(|b| !b.is_ascii_whitespace())
        .and_then(|at| file.get(at..))
        .unwrap_or_default();
    Err(FileError::Unknown(match text.first() {
        Some(b'<') => "an HTML or XML document",
        Some(b'{' | b'[') => "JSON",
        _ if starts_with(b"fLaC") => "FLAC",
        _ if file.get(4..8) == Some(b"ftyp") => "MP4 or AAC",
        _ if starts_with(b"\x1a\x45\xdf\xa3") => "WebM or Matroska",
        _ if starts_with(b"#!AMR") => "AMR",
        _ => "an unknown format",
    }))
}

/// Returns the offset of the first MPEG audio frame that is followed by another frame or by the end
/// of the file. `None` if there is no such frame.
fn mp3_start(file: &[u8]) -> Option<usize> {
    (0..file.len().min(GARBAGE_MAX)).find(|&at| {
        let Some(length) = file.get(at..).and_then(mp3_frame_length) else { return false };
        match file.get(at + length..) {
            Some(next) if next.len() >= 4 => mp3_frame_length(next).is_some(),
            // Accept a single or truncated frame only at the very start of the file.
            _ => at == 0,
        }
    })
}

/// Returns the length in bytes of the layer III frame that starts here (ISO 11172-3 §2.4.1.3, ISO
/// 13818-3 for the lower rates). `None` if there is no such frame.
fn mp3_frame_length(frame: &[u8]) -> Option<usize> {
    const KBITS: [[usize; 14]; 2] = [
        [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
        [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    ];
    let [0xff, second, third, _] = *frame.first_chunk::<4>()? else { return None };
    if second & 0xe0 != 0xe0 || second & 0x06 != 0x02 {
        return None;
    }
    let (rates, low): (_, usize) = match second & 0x18 {
        0x18 => ([44_100, 48_000, 32_000], 0),
        0x10 => ([22_050, 24_000, 16_000], 1),
        0x00 => ([11_025, 12_000, 8_000], 1),
        _ => return None,
    };
    let rate: usize = *rates.get(usize::from(third >> 2 & 3))?;
    let kbits = *KBITS.get(low)?.get(usize::from(third >> 4).checked_sub(1)?)?;
    let padding = usize::from(third >> 1 & 1);
    Some((144 >> low) * kbits * 1_000 / rate + padding)
}

fn wav(mut file: PeekReader, output: &mut StartBuffer<'_>) -> Result<(), FileError> {
    let mut reader = WavReader::default();
    let mut pcm = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = file.read(&mut buffer).unwrap_or(0);
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        reader.push(bytes, &mut pcm)?;
        if let Some(seconds) = reader.seconds() {
            output.builder.check_duration(seconds)?;
        }
        if let Some(rate) = reader.rate() {
            output.push(rate, &pcm)?;
        }
        pcm.clear();
    }
    Ok(reader.finish()?)
}

fn stream(file: PeekReader) -> MediaSourceStream<'static> {
    MediaSourceStream::new(Box::new(ReadOnlySource::new(file)), MediaSourceStreamOptions::default())
}

/// Decodes all packets of the reader's audio track.
fn decode_packets(
    kind: &'static str,
    reader: Result<Box<dyn FormatReader + '_>, Error>,
    output: &mut StartBuffer<'_>,
) -> Result<(), FileError> {
    let broken = |reason: String| FileError::Broken { kind, reason };
    let mut reader = reader.map_err(|e| broken(e.to_string()))?;
    let track = reader
        .default_track(TrackType::Audio)
        .ok_or_else(|| broken("it has no audio track".to_owned()))?;
    let (id, delay) = (track.id, track.delay.unwrap_or(0));
    let Some(CodecParameters::Audio(parameters)) = &track.codec_params else {
        return Err(broken("its codec is unknown".to_owned()));
    };
    let mut decoder = PacketDecoder::new(parameters, delay).map_err(broken)?;
    let mut pcm = Vec::new();
    loop {
        let packet = match reader.next_packet() {
            Ok(Some(packet)) => packet,
            // A chained Ogg stream may continue in another format; only its first part is played.
            Ok(None) | Err(Error::ResetRequired) => return Ok(()),
            // Truncated files are common. Play the part that exists.
            Err(Error::IoError(e)) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Ok(());
            }
            Err(e) => return Err(broken(e.to_string())),
        };
        if packet.track_id != id {
            continue;
        }
        pcm.clear();
        // Skip damaged packets.
        if let Some(rate) = decoder.decode(&packet, &mut pcm) {
            output.push(rate, &pcm)?;
        }
    }
}

enum PacketDecoder {
    Symphonia(Box<dyn AudioDecoder>),
    /// Opus, with the number of samples that remain to be skipped at the start (RFC 7845 §4.2).
    Opus {
        decoder: Decoder,
        skip: usize,
    },
}

impl PacketDecoder {
    fn new(parameters: &AudioCodecParameters, delay: u32) -> Result<Self, String> {
        if parameters.codec == CODEC_ID_OPUS {
            // The pre-skip counts samples at 48 kHz; the decoder runs at 16 kHz.
            return Ok(Self::Opus {
                decoder: Decoder::new(Rate::Hz16000),
                skip: usize::try_from(delay / 3).unwrap_or_default(),
            });
        }
        let decoder = symphonia::default::get_codecs()
            .make_audio_decoder(parameters, &AudioDecoderOptions::default())
            .map_err(|e| e.to_string())?;
        Ok(Self::Symphonia(decoder))
    }

    /// Appends the packet's audio, mixed down to mono, and returns its sample rate. Returns `None`
    /// if the packet cannot be decoded.
    fn decode(
        &mut self,
        packet: &symphonia::core::packet::Packet,
        pcm: &mut Vec<i16>,
    ) -> Option<u32> {
        match self {
            Self::Opus { decoder, skip } => {
                decoder.decode(Some(&packet.data), false, pcm).ok()?;
                let skipped = (*skip).min(pcm.len());
                pcm.drain(..skipped);
                *skip -= skipped;
                Some(Rate::Hz16000.hz())
            }
            Self::Symphonia(decoder) => {
                let sound = decoder.decode(packet).ok()?;
                let (rate, channels) = (sound.spec().rate(), sound.spec().channels().count());
                let mut samples: Vec<f32> = Vec::new();
                sound.copy_to_vec_interleaved(&mut samples);
                let share =
                    32_767.0 / f32::from(u16::try_from(channels).unwrap_or(u16::MAX).max(1));
                let mono = |frame: &[f32]| super::clamp_to_i16(frame.iter().sum::<f32>() * share);
                pcm.extend(samples.chunks_exact(channels.max(1)).map(mono));
                Some(rate)
            }
        }
    }
}

#[cfg(test)]
mod tests;
