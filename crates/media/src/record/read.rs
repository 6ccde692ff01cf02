//! Reads complete recordings, 20 ms at a time.

use std::fs::File;
use std::io;
use std::path::Path;

use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::AudioDecoderOptions;
use symphonia::core::errors::Error;
use symphonia::core::formats::{FormatOptions, FormatReader as _, TrackType};
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions};
use symphonia::default::formats::MpaReader;
use uuid::Uuid;

use super::RATE;
use super::file::{Format, file_name};

/// Receives 20 ms at a time: the only or left channel, and the right one if there is one. Returns
/// `false` to stop.
pub type FrameSink<'a> = &'a mut dyn FnMut(&[i16], Option<&[i16]>) -> bool;

/// Reads a recording to its end, or up to the first fault. Blocks.
///
/// # Errors
///
/// Returns an error if the file does not exist or is not a recording.
pub fn read(folder: &Path, id: Uuid, format: Format, sink: FrameSink<'_>) -> io::Result<()> {
    let path = folder.join(file_name(id, format));
    match format {
        Format::Wav => wav(&path, sink),
        Format::Mp3 => mp3(&path, sink),
    }
}

fn wav(path: &Path, sink: FrameSink<'_>) -> io::Result<()> {
    let reader = hound::WavReader::open(path).map_err(invalid)?;
    let mut frames = Frames::new(usize::from(reader.spec().channels));
    // A truncated file yields its existing samples.
    for sample in reader.into_samples::<i16>().map_while(Result::ok) {
        if !frames.push(sample, sink) {
            break;
        }
    }
    Ok(())
}

fn mp3(path: &Path, sink: FrameSink<'_>) -> io::Result<()> {
    let stream =
        MediaSourceStream::new(Box::new(File::open(path)?), MediaSourceStreamOptions::default());
    let mut reader = MpaReader::try_new(stream, FormatOptions::default()).map_err(invalid)?;
    let no_audio = || io::Error::new(io::ErrorKind::InvalidData, "the file contains no audio");
    let track = reader.default_track(TrackType::Audio).ok_or_else(no_audio)?;
    let Some(CodecParameters::Audio(parameters)) = &track.codec_params else {
        return Err(no_audio());
    };
    let codecs = symphonia::default::get_codecs();
    let mut decoder =
        codecs.make_audio_decoder(parameters, &AudioDecoderOptions::default()).map_err(invalid)?;
    let (mut frames, mut samples) = (None, Vec::<f32>::new());
    loop {
        let packet = match reader.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) | Err(Error::ResetRequired | Error::IoError(_)) => return Ok(()),
            Err(error) => return Err(invalid(error)),
        };
        // Damaged packets are skipped.
        let Ok(audio) = decoder.decode(&packet) else { continue };
        let frames = frames.get_or_insert_with(|| Frames::new(audio.spec().channels().count()));
        samples.clear();
        audio.copy_to_vec_interleaved(&mut samples);
        for sample in &samples {
            if !frames.push(to_sample(*sample), sink) {
                return Ok(());
            }
        }
    }
}

/// Converts a floating-point sample with a full scale of ±1.
#[allow(clippy::as_conversions, reason = "`as` saturates, and converts NaN to 0")]
fn to_sample(sample: f32) -> i16 {
    (sample * 32_767.0) as i16
}

fn invalid(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

/// Splits interleaved samples into frames of 20 ms.
struct Frames {
    channels: usize,
    left: Vec<i16>,
    right: Vec<i16>,
    channel: usize,
}

impl Frames {
    fn new(channels: usize) -> Self {
        Self { channels: channels.max(1), left: Vec::new(), right: Vec::new(), channel: 0 }
    }

    /// Adds a sample. Returns `false` if the receiver has stopped. An incomplete frame at the end
    /// is dropped.
    fn push(&mut self, sample: i16, sink: FrameSink<'_>) -> bool {
        match self.channel {
            0 => self.left.push(sample),
            1 => self.right.push(sample),
            _ => {}
        }
        self.channel = (self.channel + 1) % self.channels;
        if self.channel > 0 || self.left.len() < RATE.frame() {
            return true;
        }
        let wants_more = sink(&self.left, (self.channels > 1).then_some(&self.right));
        self.left.clear();
        self.right.clear();
        wants_more
    }
}
