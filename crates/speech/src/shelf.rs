//! Spoken prompts on the disk: what was said before a restart need not be said again.
//!
//! A file a prompt, named by a hash of what is said and by whom, so that no text lies there to be read. The folder has a
//! bound, and the longest unused goes first; a file that is damaged, cut off or of another version is as if it were not
//! there. Files and fetched sounds are not kept here. Blocks: for worker threads.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};

use super::config::SpeechConfig;
use machine::Sound;
use media::opus::silence_frame;
use media::prompt::Frame;
use model::Clock;

/// How a file begins: its kind and version. Another encoder, another voice: another version.
const MAGIC: &[u8; 8] = b"OFHPROM2";
/// The hash at a file's end.
const HASH_BYTES: usize = 32;
/// The largest Opus frame (RFC 6716 §3.2.1); 0 stands for silence.
const FRAME_BYTES_MAX: usize = 1_275;
/// Characters of a name.
const NAME_CHARS: usize = 64;

/// The folder.
pub(super) struct Shelf {
    folder: PathBuf,
    bytes_max: u64,
    /// Who speaks: prompts of another configuration are other prompts.
    voices: String,
    clock: Clock,
    /// Read when it is wanted first.
    index: Mutex<Option<Index>>,
}

#[derive(Default)]
struct Index {
    files: HashMap<String, File>,
    bytes: u64,
    uses: u64,
}

struct File {
    bytes: u64,
    /// Counts uses; stands in for the time of the last.
    used: u64,
}

impl Shelf {
    /// A shelf below `config.data_dir`; none where it may hold nothing.
    pub(super) fn new(config: &SpeechConfig, clock: Clock) -> Option<Self> {
        let bytes_max = u64::from(config.disk_cache_mb) << 20;
        let folder = config.data_dir.join("prompts");
        let shelf =
            Self { folder, bytes_max, voices: voices(config), clock, index: Mutex::default() };
        (bytes_max > 0).then_some(shelf)
    }

    /// The frames of a sound that was kept.
    pub(super) fn take(&self, sound: &Sound) -> Option<Vec<Frame>> {
        let name = self.name(sound)?;
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let index = index.get_or_insert_with(|| Index::read(&self.folder));
        index.uses += 1;
        let uses = index.uses;
        index.files.get_mut(&name)?.used = uses;
        let path = self.folder.join(&name);
        let frames = fs::read(&path).ok().and_then(|bytes| unpack(&bytes));
        if frames.is_none() {
            tracing::warn!(file = %path.display(), "a kept prompt is damaged: it is made anew");
            index.forget(&name);
            let _ = fs::remove_file(&path);
            return None;
        }
        // The next process goes by the file's time.
        let now = SystemTime::UNIX_EPOCH
            + Duration::from_micros(u64::try_from(self.clock.wall().micros()).unwrap_or(0));
        let _ = fs::File::open(&path).and_then(|file| file.set_modified(now));
        frames
    }

    /// Keeps a sound's frames, in place of those used longest ago.
    pub(super) fn keep(&self, sound: &Sound, frames: &[Frame]) {
        let Some(name) = self.name(sound) else { return };
        let packed = pack(frames);
        let bytes = packed.len() as u64;
        if bytes > self.bytes_max / 8 {
            return;
        }
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let index = index.get_or_insert_with(|| Index::read(&self.folder));
        if let Err(error) = write(&self.folder, &name, &packed) {
            tracing::warn!(%error, folder = %self.folder.display(), "could not keep a prompt on the disk");
            return;
        }
        index.forget(&name);
        index.uses += 1;
        index.bytes += bytes;
        index.files.insert(name, File { bytes, used: index.uses });
        self.shrink(index);
    }

    /// Down to seven eighths once it is too much, so that the search for the oldest is rare.
    fn shrink(&self, index: &mut Index) {
        if index.bytes <= self.bytes_max {
            return;
        }
        let mut by_age: Vec<(u64, String)> =
            index.files.iter().map(|(name, f)| (f.used, name.clone())).collect();
        by_age.sort_unstable();
        for (_, name) in by_age {
            if index.bytes <= self.bytes_max / 8 * 7 {
                break;
            }
            let _ = fs::remove_file(self.folder.join(&name));
            index.forget(&name);
        }
    }

    /// The file of a spoken sound; others are not kept.
    fn name(&self, sound: &Sound) -> Option<String> {
        let Sound::Speak { .. } = sound else { return None };
        let written = serde_json::to_string(sound).ok()?;
        let what = format!("{}\n{}\n{written}", env!("CARGO_PKG_VERSION"), self.voices);
        Some(hex::encode(digest(&SHA256, what.as_bytes()).as_ref()))
    }
}

impl Index {
    /// What lies in the folder, oldest first; what is none of ours, or was left half-written, is passed over.
    fn read(folder: &Path) -> Self {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let Ok(data) = entry.metadata() else { continue };
            let ours = name.len() == NAME_CHARS && name.bytes().all(|b| b.is_ascii_hexdigit());
            if ours && data.is_file() {
                found.push((data.modified().unwrap_or(SystemTime::UNIX_EPOCH), name, data.len()));
            } else if name.ends_with(".new") {
                let _ = fs::remove_file(entry.path());
            }
        }
        found.sort_unstable();
        let mut index = Self::default();
        for (_, name, bytes) in found {
            index.uses += 1;
            index.bytes += bytes;
            index.files.insert(name, File { bytes, used: index.uses });
        }
        index
    }

    fn forget(&mut self, name: &str) {
        if let Some(file) = self.files.remove(name) {
            self.bytes -= file.bytes;
        }
    }
}

/// What the prompts depend on beside their text: who is asked, and in which voice.
fn voices(config: &SpeechConfig) -> String {
    let openai =
        config.openai.as_ref().map(|o| format!("{} {} {} {:?}", o.url, o.model, o.voice, o.voices));
    let espeak = config.espeak.as_ref().map(|path| path.display().to_string());
    format!("{:?} {openai:?} {espeak:?}", config.provider)
}

/// A file: how it begins, each frame with its length in front, a hash over all of it.
fn pack(frames: &[Frame]) -> Vec<u8> {
    let silence = silence_frame();
    let mut bytes = MAGIC.to_vec();
    for frame in frames {
        let frame = if **frame == *silence { &[][..] } else { frame };
        bytes.extend_from_slice(&u16::try_from(frame.len()).unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(frame);
    }
    let hash = digest(&SHA256, &bytes);
    bytes.extend_from_slice(hash.as_ref());
    bytes
}

/// The frames of a file; none: it is not one of ours, or not whole.
fn unpack(bytes: &[u8]) -> Option<Vec<Frame>> {
    let (content, hash) = bytes.split_at_checked(bytes.len().checked_sub(HASH_BYTES)?)?;
    if digest(&SHA256, content).as_ref() != hash {
        return None;
    }
    let mut rest = content.strip_prefix(MAGIC)?;
    let silence = silence_frame();
    let mut frames = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length));
        if length > FRAME_BYTES_MAX {
            return None;
        }
        let (frame, after) = after.split_at_checked(length)?;
        frames.push(if frame.is_empty() { silence.clone() } else { Frame::from(frame) });
        rest = after;
    }
    (rest.is_empty() && !frames.is_empty()).then_some(frames)
}

/// Under another name first: whoever sees the file sees all of it.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let temporary = folder.join(format!("{name}.{}.new", std::process::id()));
    let mut file = fs::File::create(&temporary)?;
    // Not synced: a file that the power took is damaged, and made anew.
    file.write_all(bytes)?;
    fs::rename(&temporary, folder.join(name))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Shelf, pack, silence_frame, unpack};
    use crate::config::SpeechConfig;
    use machine::Sound;
    use media::prompt::Frame;
    use model::Clock;
    use model::Timestamp;
    use xml::ast::{Speech, SpeechNode, Voice};

    fn sound(text: &str) -> Sound {
        let speech = Speech(vec![SpeechNode::Text(text.to_owned())]);
        Sound::Speak { speech, voice: Voice::Woman, language: None }
    }

    fn frames(n: u8, bytes: usize) -> Vec<Frame> {
        vec![Frame::from(vec![n; bytes]), silence_frame(), Frame::from([n])]
    }

    fn shelf(folder: &std::path::Path, bytes_max: u64) -> Shelf {
        let config = SpeechConfig { data_dir: folder.to_owned(), ..SpeechConfig::default() };
        let clock = Clock::stepped(Timestamp::from_micros(1_795_154_591_120_394));
        Shelf { bytes_max, ..Shelf::new(&config, clock).unwrap() }
    }

    #[test]
    fn what_was_said_is_there_after_a_restart_and_other_voices_say_it_anew() {
        let dir = tempfile::tempdir().unwrap();
        shelf(dir.path(), 1 << 20).keep(&sound("Welcome"), &frames(1, 60));
        let after = shelf(dir.path(), 1 << 20);
        let found = after.take(&sound("Welcome")).unwrap();
        assert_eq!(found, frames(1, 60));
        assert!(std::sync::Arc::ptr_eq(&found[1], &silence_frame()) || found[1] == silence_frame());
        assert!(after.take(&sound("Goodbye")).is_none());
        let other = Shelf { voices: "others".to_owned(), ..shelf(dir.path(), 1 << 20) };
        assert!(other.take(&sound("Welcome")).is_none());
        let beep = Sound::Tone { hz: 800, ms: 400 };
        after.keep(&beep, &frames(2, 60));
        assert!(after.take(&beep).is_none());
        let text = fs::read_dir(dir.path().join("prompts"))
            .unwrap()
            .map(|e| fs::read(e.unwrap().path()).unwrap());
        assert!(text.flatten().collect::<Vec<_>>().windows(7).all(|w| w != b"Welcome"));
    }

    #[test]
    fn a_damaged_file_is_as_none_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        for damage in [0, 9, 40] {
            let whole = shelf(dir.path(), 1 << 20);
            whole.keep(&sound("Welcome"), &frames(1, 60));
            let path =
                fs::read_dir(dir.path().join("prompts")).unwrap().next().unwrap().unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            bytes[damage] ^= 1;
            fs::write(&path, if damage == 40 { &bytes[..40] } else { &bytes }).unwrap();
            assert!(shelf(dir.path(), 1 << 20).take(&sound("Welcome")).is_none());
            assert!(!path.exists());
        }
        fs::write(dir.path().join("prompts/notes.txt"), "mine").unwrap();
        fs::write(dir.path().join("prompts/x.7.new"), "half").unwrap();
        assert!(shelf(dir.path(), 1 << 20).take(&sound("Welcome")).is_none());
        assert!(
            dir.path().join("prompts/notes.txt").exists()
                && !dir.path().join("prompts/x.7.new").exists()
        );
    }

    #[test]
    fn the_longest_unused_goes_first_and_the_folder_stays_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let bounded = shelf(dir.path(), 12_000);
        for n in 0..10 {
            bounded.keep(&sound(&n.to_string()), &frames(n, 1_000));
        }
        assert!(bounded.take(&sound("0")).is_some());
        bounded.keep(&sound("10"), &frames(10, 1_000));
        bounded.keep(&sound("11"), &frames(11, 1_000));
        assert!(bounded.take(&sound("0")).is_some(), "used lately");
        assert!(bounded.take(&sound("1")).is_none(), "the oldest");
        let bytes: u64 = fs::read_dir(dir.path().join("prompts"))
            .unwrap()
            .map(|e| e.unwrap().metadata().unwrap().len())
            .sum();
        assert!(bytes <= 12_000, "{bytes}");
        bounded.keep(&sound("giant"), &vec![Frame::from(vec![1; 1_200]); 20]);
        assert!(bounded.take(&sound("giant")).is_none());
    }

    #[test]
    fn any_bytes_are_read_without_harm() {
        assert!(
            unpack(&[]).is_none() && unpack(&[0; 64]).is_none() && unpack(&pack(&[])).is_none()
        );
        let mut long = super::MAGIC.to_vec();
        long.extend_from_slice(&[0xff, 0xff, 1]);
        let hash = super::digest(&super::SHA256, &long);
        long.extend_from_slice(hash.as_ref());
        assert!(unpack(&long).is_none());
    }
}
