//! Recording files: WAV (16 bit) and, with the feature `mp3`, MP3; 16 kHz, one or two channels.
//!
//! A file has a temporary name while it is written. It can be played at any time: a WAV header
//! states the current size, and an MP3 contains no length. If the process was killed, [`repair`]
//! only has to truncate the file after its last whole sample or frame.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::RATE;

/// Suffix of a file's name while the file is being written.
const PART_SUFFIX: &str = ".part";
/// Name of the folder in that of the recordings for files that the store does not know.
pub const UNLISTED: &str = "unlisted";
/// Size of our WAV header in bytes.
const HEADER: usize = 44;
/// Number of samples per channel between two writes to the disk: one second. A killed process loses
/// at most this much audio.
const FLUSH_SAMPLES: u64 = 16_000;
/// Bitrate per channel of an MP3 in kbit/s.
#[cfg(feature = "mp3")]
const MP3_KBITS: u32 = 32;
/// Samples per channel of an MP3 frame below 32 kHz (ISO 13818-3).
const MP3_FRAME_SAMPLES: u16 = 576;

/// File format of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    Wav,
    /// MP3, only with the feature `mp3`. [`Format::of`] does not return it otherwise.
    Mp3,
}

impl Format {
    /// Returns the requested format, or WAV if this build cannot write MP3.
    pub fn of(mp3: bool) -> Self {
        if mp3 && cfg!(feature = "mp3") { Self::Mp3 } else { Self::Wav }
    }

    /// Returns the remark for a recording that is WAV although MP3 was requested. `None` if the
    /// requested format is written.
    pub fn substitution_remark(mp3: bool) -> Option<&'static str> {
        let why = "the recording is a WAV file: this program was built without the feature mp3";
        (mp3 && Self::of(mp3) == Self::Wav).then_some(why)
    }

    /// Returns `wav` or `mp3`, for file names and Plivo's API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wav => "wav",
            Self::Mp3 => "mp3",
        }
    }

    /// Parses the result of [`Format::as_str`]. Returns `None` for any other text.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "wav" => Some(Self::Wav),
            "mp3" => Some(Self::Mp3),
            _ => None,
        }
    }

    /// Returns the MIME type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Wav => "audio/wav",
            Self::Mp3 => "audio/mpeg",
        }
    }
}

/// Returns the name of a recording's file.
pub fn file_name(id: Uuid, format: Format) -> String {
    format!("{}.{}", id.as_hyphenated(), format.as_str())
}

/// Parses the result of [`file_name`]. Returns `None` for any other text, such as the name of an
/// unfinished file.
pub fn parse_file_name(name: &str) -> Option<(Uuid, Format)> {
    let (id, format) = name.split_once('.')?;
    Some((id.parse().ok()?, Format::from_name(format)?))
}

fn part_path(folder: &Path, id: Uuid, format: Format) -> PathBuf {
    folder.join(file_name(id, format) + PART_SUFFIX)
}

/// A file that is being written.
pub(super) struct AudioFile {
    file: File,
    part: PathBuf,
    final_path: PathBuf,
    coding: Coding,
    channels: u16,
    /// Interleaved samples of an MP3 frame that is not complete.
    unencoded: Vec<i16>,
    /// Encoded audio that has not been written to the disk yet.
    pending: Vec<u8>,
    /// The number of samples per channel in `pending`.
    pending_samples: u64,
    /// The number of bytes of audio on the disk.
    bytes: u64,
}

/// Where a file continues that another process has begun.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileState {
    /// The number of bytes of audio on the disk.
    bytes: u64,
    unencoded: Vec<i16>,
}

impl FileState {
    /// Returns the number of bytes of audio on the disk.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

enum Coding {
    Wav,
    #[cfg(feature = "mp3")]
    Mp3(Box<shine_rs::Mp3Encoder>),
}

impl Coding {
    fn new(format: Format, channels: u16) -> io::Result<Self> {
        match format {
            Format::Wav => Ok(Self::Wav),
            #[cfg(feature = "mp3")]
            Format::Mp3 => {
                use shine_rs::{Mp3Encoder, Mp3EncoderConfig, StereoMode};
                let (count, mode) =
                    if channels == 1 { (1, StereoMode::Mono) } else { (2, StereoMode::Stereo) };
                let config = Mp3EncoderConfig::new()
                    .sample_rate(RATE.hz())
                    .bitrate(MP3_KBITS * u32::from(count));
                let encoder = Mp3Encoder::new(config.channels(count).stereo_mode(mode))
                    .map_err(io::Error::other)?;
                Ok(Self::Mp3(Box::new(encoder)))
            }
            #[cfg(not(feature = "mp3"))]
            Format::Mp3 => {
                let why = format!("this build cannot write MP3 ({channels} channels)");
                Err(io::Error::new(io::ErrorKind::Unsupported, why))
            }
        }
    }
}

/// Creates the folder of recordings with mode 0700, unless it exists.
pub(super) fn create_folder(folder: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

impl AudioFile {
    /// Creates the file, readable by this user only. The folder is created again if it was removed.
    pub(super) fn create(
        folder: &Path,
        id: Uuid,
        format: Format,
        stereo: bool,
    ) -> io::Result<Self> {
        Self::open(folder, id, format, stereo, FileState::default(), |part, audio_at, channels| {
            let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(part);
            let mut file = match create() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    create_folder(folder)?;
                    create()?
                }
                created => created?,
            };
            if audio_at > 0
                && let Err(error) = append(&mut file, &header(channels, 0))
            {
                let _ = std::fs::remove_file(part);
                return Err(error);
            }
            Ok(file)
        })
    }

    /// Opens the unfinished file of a recording that another process has
    /// [detached](AudioFile::detach). Bytes that are not part of `state` are removed from its end. An
    /// MP3 continues with a new encoder.
    pub(super) fn reopen(
        folder: &Path,
        id: Uuid,
        format: Format,
        stereo: bool,
        state: FileState,
    ) -> io::Result<Self> {
        let bytes = state.bytes;
        let file = Self::open(folder, id, format, stereo, state, |part, audio_at, _| {
            let mut file = OpenOptions::new().write(true).open(part)?;
            let length = audio_at + bytes;
            if file.metadata()?.len() < length {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is too short"));
            }
            file.set_len(length)?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        })?;
        file.write_header()?;
        Ok(file)
    }

    /// Opens a file with `open`, which gets its path, the position of the audio in it and the number
    /// of channels.
    fn open(
        folder: &Path,
        id: Uuid,
        format: Format,
        stereo: bool,
        state: FileState,
        open: impl FnOnce(&Path, u64, u16) -> io::Result<File>,
    ) -> io::Result<Self> {
        let channels = if stereo { 2 } else { 1 };
        let (part, final_path) =
            (part_path(folder, id, format), folder.join(file_name(id, format)));
        let coding = Coding::new(format, channels)?;
        let audio_at = match coding {
            Coding::Wav => u64::try_from(HEADER).unwrap_or_default(),
            #[cfg(feature = "mp3")]
            Coding::Mp3(_) => 0,
        };
        let file = open(&part, audio_at, channels)?;
        let FileState { bytes, unencoded } = state;
        let (pending, pending_samples) = (Vec::new(), 0);
        Ok(Self {
            file,
            part,
            final_path,
            coding,
            channels,
            unencoded,
            pending,
            pending_samples,
            bytes,
        })
    }

    /// Writes all audio to the disk, so that another process can continue the file.
    pub(super) fn detach(&mut self) -> io::Result<FileState> {
        self.write()?;
        Ok(FileState { bytes: self.bytes, unencoded: std::mem::take(&mut self.unencoded) })
    }

    /// Appends audio of both sides, which must have equal length. In a mono file the two sides are
    /// added without scaling.
    pub(super) fn push(&mut self, left: &[i16], right: &[i16]) -> io::Result<()> {
        self.pending_samples += u64::try_from(left.len()).unwrap_or_default();
        let both = left.iter().zip(right.iter().chain(std::iter::repeat(&0)));
        let pcm = both.flat_map(|(left, right)| match self.channels {
            1 => [Some(left.saturating_add(*right)), None],
            _ => [Some(*left), Some(*right)],
        });
        let pcm = pcm.flatten();
        match &mut self.coding {
            Coding::Wav => self.pending.extend(pcm.flat_map(i16::to_le_bytes)),
            #[cfg(feature = "mp3")]
            Coding::Mp3(encoder) => {
                self.unencoded.extend(pcm);
                let frame = usize::from(MP3_FRAME_SAMPLES * self.channels);
                let complete = self.unencoded.len() / frame * frame;
                if complete > 0 {
                    let pcm: Vec<i16> = self.unencoded.drain(..complete).collect();
                    let frames = encoder.encode_interleaved(&pcm).map_err(io::Error::other)?;
                    self.pending.extend(frames.into_iter().flatten());
                }
            }
        }
        Ok(())
    }

    /// Writes the pending audio to the disk if there is at least a second of it. Returns the number
    /// of bytes of audio on the disk if it has grown.
    pub(super) fn write_if_due(&mut self) -> io::Result<Option<u64>> {
        if self.pending_samples < FLUSH_SAMPLES {
            return Ok(None);
        }
        self.write()?;
        Ok(Some(self.bytes))
    }

    fn write(&mut self) -> io::Result<()> {
        append(&mut self.file, &self.pending)?;
        self.bytes += u64::try_from(self.pending.len()).unwrap_or_default();
        self.pending.clear();
        self.pending_samples = 0;
        self.write_header()
    }

    fn write_header(&self) -> io::Result<()> {
        match self.coding {
            Coding::Wav => self.file.write_all_at(&header(self.channels, self.bytes), 0),
            #[cfg(feature = "mp3")]
            Coding::Mp3(_) => Ok(()),
        }
    }

    /// Completes and renames the file. If this fails, the file must be [repaired](repair).
    pub(super) fn finish(&mut self) -> io::Result<()> {
        #[cfg(feature = "mp3")]
        if let Coding::Mp3(encoder) = &mut self.coding {
            // The encoder pads an incomplete frame.
            if !self.unencoded.is_empty() {
                let pcm = std::mem::take(&mut self.unencoded);
                encoder.encode_interleaved(&pcm).map_err(io::Error::other)?;
            }
            let last = encoder.finish().map_err(io::Error::other)?;
            self.pending.extend(last);
        }
        self.write()?;
        std::fs::rename(&self.part, &self.final_path)
    }
}

/// Appends bytes to a file.
#[cfg(not(test))]
fn append(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)
}

/// Appends bytes to a file, like the real function, on a simulated disk with limited space. Writes
/// as much as fits.
#[cfg(test)]
fn append(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let space = TEST_DISK_SPACE.get();
    let written = bytes.len().min(space);
    file.write_all(bytes.get(..written).unwrap_or_default())?;
    TEST_DISK_SPACE.set(space - written);
    if written < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}

#[cfg(test)]
thread_local! {
    /// Space on the simulated disk of this thread, in bytes.
    pub(super) static TEST_DISK_SPACE: std::cell::Cell<usize> = const { std::cell::Cell::new(usize::MAX) };
}

/// Creates a WAV header (RIFF with one `fmt ` and one `data` chunk) for this many bytes of audio.
/// If the size exceeds the format (18 hours of two channels, while a recording has at most four),
/// the header states the maximum.
fn header(channels: u16, bytes: u64) -> [u8; HEADER] {
    let data = u32::try_from(bytes).unwrap_or(u32::MAX - 36);
    let (rate, align) = (RATE.hz(), channels * 2);
    let mut header = [0; HEADER];
    let mut at = 0;
    let mut write = |bytes: &[u8]| {
        if let Some(place) = header.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
        at += bytes.len();
    };
    write(b"RIFF");
    write(&data.saturating_add(36).to_le_bytes());
    write(b"WAVEfmt ");
    write(&16_u32.to_le_bytes());
    write(&1_u16.to_le_bytes());
    write(&channels.to_le_bytes());
    write(&rate.to_le_bytes());
    write(&(rate * u32::from(align)).to_le_bytes());
    write(&align.to_le_bytes());
    write(&16_u16.to_le_bytes());
    write(b"data");
    write(&data.to_le_bytes());
    header
}

/// The result of [`repair`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepairOutcome {
    /// The file is complete and playable.
    Repaired { duration_ms: u64 },
    /// The file contains no audio.
    Nothing,
}

/// Completes the file of a recording that was interrupted by a killed process or a full disk. A
/// complete file is not changed. No disk space is needed.
///
/// # Errors
///
/// Returns an error if the file cannot be read, truncated or renamed.
pub fn repair(folder: &Path, id: Uuid, format: Format, stereo: bool) -> io::Result<RepairOutcome> {
    let (part, final_path) = (part_path(folder, id, format), folder.join(file_name(id, format)));
    let is_complete = final_path.try_exists()?;
    let path = if is_complete { &final_path } else { &part };
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(RepairOutcome::Nothing),
        Err(error) => return Err(error),
    };
    let channels: u16 = if stereo { 2 } else { 1 };
    let len = file.metadata()?.len();
    let (bytes, duration_ms) = match format {
        Format::Wav => {
            let (head, align) =
                (u64::try_from(HEADER).unwrap_or_default(), u64::from(channels) * 2);
            let bytes = len.saturating_sub(head) / align * align;
            if bytes > 0 {
                file.set_len(head + bytes)?;
                file.write_all_at(&header(channels, bytes), 0)?;
            }
            (bytes, bytes / align * 1_000 / u64::from(RATE.hz()))
        }
        Format::Mp3 => {
            let (bytes, frames) = complete_frames(&file)?;
            file.set_len(bytes)?;
            (bytes, frames * u64::from(MP3_FRAME_SAMPLES) * 1_000 / u64::from(RATE.hz()))
        }
    };
    if bytes == 0 {
        std::fs::remove_file(path)?;
        return Ok(RepairOutcome::Nothing);
    }
    if !is_complete {
        std::fs::rename(&part, &final_path)?;
    }
    Ok(RepairOutcome::Repaired { duration_ms })
}

/// Returns the size in bytes and the number of an MP3's frames up to the last complete one (ISO
/// 13818-3: 16 kHz, layer III).
fn complete_frames(mut file: &File) -> io::Result<(u64, u64)> {
    const KBITS: [u64; 16] = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0];
    file.seek(SeekFrom::Start(0))?;
    let mut data = Vec::new();
    // Four hours of two channels take 115 MB.
    file.take(256 << 20).read_to_end(&mut data)?;
    let (mut at, mut frames) = (0, 0);
    while let Some(&[first, second, third, _]) = data.get(at..at + 4) {
        if first != 0xff || second & 0xfe != 0xf2 {
            break;
        }
        let kbits = KBITS.get(usize::from(third >> 4)).copied().unwrap_or_default();
        let padding = u64::from(third >> 1 & 1);
        let length =
            usize::try_from(72_000 * kbits / u64::from(RATE.hz()) + padding).unwrap_or_default();
        if kbits == 0 || at + length > data.len() {
            break;
        }
        at += length;
        frames += 1;
    }
    Ok((u64::try_from(at).unwrap_or_default(), frames))
}

/// Lists the recordings in a folder that were being written when their process died.
///
/// # Errors
///
/// Returns an error if the folder cannot be read. A missing folder is empty.
pub fn list_unfinished(folder: &Path) -> io::Result<Vec<(Uuid, Format)>> {
    let mut unfinished = Vec::new();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(unfinished),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry_name = entry?.file_name();
        let name = entry_name.to_str().and_then(|name| name.strip_suffix(PART_SUFFIX));
        unfinished.extend(name.and_then(parse_file_name));
    }
    Ok(unfinished)
}

/// Removes a recording's file, complete or not, listed or [not](UNLISTED). A missing file is not an
/// error.
///
/// # Errors
///
/// Returns an error if an existing file cannot be removed.
pub fn remove(folder: &Path, id: Uuid, format: Format) -> io::Result<()> {
    let name = file_name(id, format);
    let unlisted = folder.join(UNLISTED).join(&name);
    for path in [folder.join(name), part_path(folder, id, format), unlisted] {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}
