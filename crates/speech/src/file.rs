//! Audio files to sound: WAV, MP3 and Ogg (Vorbis, Opus), recognised by content (`plivo-xml.md` §5.3).
//!
//! Bounded whatever the file says: nothing is sized by a header's word, metadata is skipped unread, and what is
//! decoded goes out a packet at a time.

use std::io::{Cursor, Read as _};

use bytes::Bytes;
use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions, ReadOnlySource};
use symphonia::default::formats::{MpaReader, OggReader};

use super::coming::{Outlet, Peeked};
use super::frames::{FrameMaker, FramesError};
use super::wav::{WavError, WavReader};
use media::opus::{Decoder, Rate};

pub(super) use super::coming::Pieces;

/// WAV is read in stretches of this many bytes, so that playing begins long before its end is encoded.
const STRETCH_BYTES: usize = 16 * 1024;
/// Where the first MP3 frame may begin at the latest: players forgive a little rubbish in front.
const RUBBISH_MAX: usize = 4_096;
/// An MP3 frame and the head of the next one fit into it.
const FRAME_MAX: usize = 2_048;

/// Why a file can't be played.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("play the file: it is empty")]
    Empty,
    #[error("play the file: it is neither WAV, MP3 nor Ogg but {0}")]
    Unknown(&'static str),
    #[error("{0}")]
    Wav(#[from] WavError),
    #[error("read the {kind} file: {reason}")]
    Broken { kind: &'static str, reason: String },
    #[error("{0}")]
    Frames(#[from] FramesError),
    #[error("play the file: there is no sound in it")]
    Silent,
}

/// Decodes `file` into `maker`, start to end. Blocks.
///
/// # Errors
/// What can't be played, and why; sound before the fault is in `maker`.
pub(super) fn decode(file: &Bytes, maker: &mut FrameMaker) -> Result<(), FileError> {
    decode_from(Peeked::new(Box::new(Cursor::new(file.clone()))), maker)
}

/// The same of a file that is still coming: it is played as soon as 200 ms of it are here. Blocks until all of it came.
///
/// # Errors
/// The same.
pub(super) fn decode_pieces(file: Pieces, maker: &mut FrameMaker) -> Result<(), FileError> {
    decode_from(Peeked::new(Box::new(file)), maker)
}

fn decode_from(mut file: Peeked, maker: &mut FrameMaker) -> Result<(), FileError> {
    let before = maker.frames();
    file.pass_over_id3();
    let kind = kind_of(&mut file)?;
    let mut outlet = Outlet::new(maker);
    let read = match kind {
        Kind::Wav => wav(file, &mut outlet),
        Kind::Mp3(at) => {
            file.pass_over(at);
            let reader = MpaReader::try_new(stream(file), FormatOptions::default());
            packets("MP3", reader.map(|r| -> Box<dyn FormatReader> { Box::new(r) }), &mut outlet)
        }
        Kind::Ogg => {
            let reader = OggReader::try_new(stream(file), FormatOptions::default());
            packets("Ogg", reader.map(|r| -> Box<dyn FormatReader> { Box::new(r) }), &mut outlet)
        }
    };
    // What came before a fault is heard.
    outlet.flush()?;
    read?;
    if maker.frames() == before { Err(FileError::Silent) } else { Ok(()) }
}

/// The kind, from as little as tells it: more may not be here yet.
fn kind_of(file: &mut Peeked) -> Result<Kind, FileError> {
    let begins = file.peek(4);
    if !begins.starts_with(b"RIFF")
        && let Some(length) = mp3_frame_length(begins)
        && mp3_start(file.peek(length + 4)) == Some(0)
    {
        return Ok(Kind::Mp3(0));
    }
    match kind(file.peek(4)) {
        Ok(known @ (Kind::Wav | Kind::Ogg)) => Ok(known),
        _ => kind(file.peek(RUBBISH_MAX + FRAME_MAX)),
    }
}

enum Kind {
    Wav,
    /// Where its first frame is.
    Mp3(usize),
    Ogg,
}

fn kind(file: &[u8]) -> Result<Kind, FileError> {
    let begins = |with: &[u8]| file.get(..with.len()).is_some_and(|b| b.eq_ignore_ascii_case(with));
    if file.is_empty() {
        return Err(FileError::Empty);
    }
    if begins(b"RIFF") {
        return Ok(Kind::Wav);
    }
    if begins(b"OggS") {
        return Ok(Kind::Ogg);
    }
    if let Some(at) = mp3_start(file) {
        return Ok(Kind::Mp3(at));
    }
    let text = file
        .iter()
        .position(|b| !b.is_ascii_whitespace())
        .and_then(|at| file.get(at..))
        .unwrap_or_default();
    Err(FileError::Unknown(match text.first() {
        Some(b'<') => "a page or an XML document",
        Some(b'{' | b'[') => "JSON",
        _ if begins(b"fLaC") => "FLAC",
        _ if file.get(4..8) == Some(b"ftyp") => "MP4 or AAC",
        _ if begins(b"\x1a\x45\xdf\xa3") => "WebM or Matroska",
        _ if begins(b"#!AMR") => "AMR",
        _ => "something else",
    }))
}

/// The place of an MPEG audio frame whose successor is where it should be, or which is the last.
fn mp3_start(file: &[u8]) -> Option<usize> {
    (0..file.len().min(RUBBISH_MAX)).find(|&at| {
        let Some(length) = file.get(at..).and_then(mp3_frame_length) else { return false };
        match file.get(at + length..) {
            Some(next) if next.len() >= 4 => mp3_frame_length(next).is_some(),
            // A file of one frame, or cut off in it: only where nothing stands before it.
            _ => at == 0,
        }
    })
}

/// Bytes of the layer III frame that begins here (ISO 11172-3 §2.4.1.3, ISO 13818-3 for the lower rates).
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

fn wav(mut file: Peeked, outlet: &mut Outlet<'_>) -> Result<(), FileError> {
    let mut reader = WavReader::default();
    let mut pcm = Vec::new();
    let mut stretch = vec![0; STRETCH_BYTES];
    loop {
        let read = file.read(&mut stretch).unwrap_or(0);
        let Some(here) = stretch.get(..read).filter(|here| !here.is_empty()) else { break };
        reader.push(here, &mut pcm)?;
        if let Some(seconds) = reader.seconds() {
            outlet.maker.expect_seconds(seconds)?;
        }
        if let Some(rate) = reader.rate() {
            outlet.push(rate, &pcm)?;
        }
        pcm.clear();
    }
    Ok(reader.finish()?)
}

fn stream(file: Peeked) -> MediaSourceStream<'static> {
    MediaSourceStream::new(Box::new(ReadOnlySource::new(file)), MediaSourceStreamOptions::default())
}

/// Everything a reader's audio track holds.
fn packets(
    kind: &'static str,
    reader: Result<Box<dyn FormatReader + '_>, Error>,
    outlet: &mut Outlet<'_>,
) -> Result<(), FileError> {
    let broken = |reason: String| FileError::Broken { kind, reason };
    let mut reader = reader.map_err(|e| broken(e.to_string()))?;
    let track = reader
        .default_track(TrackType::Audio)
        .ok_or_else(|| broken("it has no audio".to_owned()))?;
    let (id, delay) = (track.id, track.delay.unwrap_or(0));
    let Some(CodecParameters::Audio(parameters)) = &track.codec_params else {
        return Err(broken("its coding is unknown".to_owned()));
    };
    let mut decoder = PacketDecoder::new(parameters, delay).map_err(broken)?;
    let mut pcm = Vec::new();
    loop {
        let packet = match reader.next_packet() {
            Ok(Some(packet)) => packet,
            // A new chain of an Ogg stream may be of another kind: the first one is what is played.
            Ok(None) | Err(Error::ResetRequired) => return Ok(()),
            // Files are cut off all the time; what is there is played.
            Err(Error::IoError(e)) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Ok(());
            }
            Err(e) => return Err(broken(e.to_string())),
        };
        if packet.track_id != id {
            continue;
        }
        pcm.clear();
        // A damaged packet is passed over, as the decoder of a broadcast does.
        if let Some(rate) = decoder.decode(&packet, &mut pcm) {
            outlet.push(rate, &pcm)?;
        }
    }
}

enum PacketDecoder {
    Symphonia(Box<dyn AudioDecoder>),
    /// Opus, and the samples still to be left out at the start (RFC 7845 §4.2).
    Opus {
        decoder: Decoder,
        skip: usize,
    },
}

impl PacketDecoder {
    fn new(parameters: &AudioCodecParameters, delay: u32) -> Result<Self, String> {
        if parameters.codec == CODEC_ID_OPUS {
            // The pre-skip counts at 48 kHz, we decode at 16.
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

    /// Appends the packet's sound, mixed down, and gives its rate; `None`: nothing to be had from it.
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
                let mono = |frame: &[f32]| super::cut_to_i16(frame.iter().sum::<f32>() * share);
                pcm.extend(samples.chunks_exact(channels.max(1)).map(mono));
                Some(rate)
            }
        }
    }
}

#[cfg(test)]
mod tests;
