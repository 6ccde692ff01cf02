//! A disk cache of spoken prompts, which survives restarts.
//!
//! Each prompt is a file named by a hash of its text and voice. It contains audio and the names of
//! the voices, so no text is stored. The size of the folder is limited with least-recently-used eviction. Files that are
//! damaged, truncated or of another version are ignored. Fetched audio files are not cached here.
//! All methods block.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write as _};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};

use super::config::SpeechConfig;
use super::models::{Manifest, ModelStore};
use machine::Sound;
use media::opus::silence_frame;
use media::prompt::Frame;
use model::{Clock, Disk, PromptVoice, Timestamp};

/// Magic bytes and version at the start of a file. Increase the version when the encoder or a voice
/// changes.
const MAGIC: &[u8; 8] = b"OFHPROM4";
/// Length of the hash at the end of a file.
const HASH_BYTES: usize = 32;
/// Maximum size of an Opus frame in bytes (RFC 6716 §3.2.1). The length 0 stands for a frame of
/// silence.
const FRAME_BYTES_MAX: usize = 1_275;
/// Length of a file name.
const NAME_CHARS: usize = 64;

/// The contents of a cached prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CachedSpeech {
    pub(super) frames: Vec<Frame>,
    pub(super) voices: Vec<PromptVoice>,
}

/// The disk cache.
pub(super) struct DiskCache {
    folder: PathBuf,
    bytes_max: u64,
    /// Space that is left free for the store, if set.
    reserve: Option<u64>,
    /// The engines and voices. They are part of the key, so that a changed configuration does not
    /// reuse old prompts.
    voices: String,
    clock: Clock,
    /// The index of the folder, which is read at the first use.
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
    /// The number of uses so far, which serves as the timestamp of the last use.
    used: u64,
}

impl DiskCache {
    /// Creates a cache below `config.data_dir`, or returns `None` if the configured size is 0.
    pub(super) fn new(config: &SpeechConfig, clock: Clock) -> Option<Self> {
        let bytes_max = u64::from(config.disk_cache_mb) << 20;
        let folder = config.data_dir.join("prompts");
        let (voices, reserve) = (voices_key(config), config.disk_reserve);
        let cache = Self { folder, bytes_max, reserve, voices, clock, index: Mutex::default() };
        (bytes_max > 0).then_some(cache)
    }

    /// Returns the speech of a sound, or `None` if it is not cached.
    pub(super) fn get(&self, sound: &Sound) -> Option<CachedSpeech> {
        let name = self.file_name(sound)?;
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let index = index.get_or_insert_with(|| Index::read(&self.folder));
        index.uses += 1;
        let uses = index.uses;
        index.files.get_mut(&name)?.used = uses;
        let path = self.folder.join(&name);
        let speech = fs::read(&path).ok().and_then(|bytes| decode(&bytes));
        if speech.is_none() {
            tracing::warn!(file = %path.display(), "cached prompt damaged, deleting it");
            index.remove_entry(&name);
            let _ = fs::remove_file(&path);
            return None;
        }
        // The next process orders the files by modification time.
        let now = SystemTime::UNIX_EPOCH
            + Duration::from_micros(u64::try_from(self.clock.wall().micros()).unwrap_or(0));
        let _ = fs::File::open(&path).and_then(|file| file.set_modified(now));
        speech
    }

    /// Stores the speech of a sound and evicts older ones if necessary.
    pub(super) fn insert(&self, sound: &Sound, speech: &CachedSpeech) {
        let Some(name) = self.file_name(sound) else { return };
        let encoded = encode(speech);
        let bytes = encoded.len() as u64;
        // If the file system cannot be read, writing will show whether there is space.
        let data_dir = self.folder.parent().unwrap_or(&self.folder);
        let is_full = Disk::of(data_dir).is_ok_and(|disk| disk.free < disk.reserve(self.reserve));
        if bytes > self.bytes_max / 8 || is_full {
            return;
        }
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let index = index.get_or_insert_with(|| Index::read(&self.folder));
        if let Err(error) = write(&self.folder, &name, &encoded) {
            tracing::warn!(%error, folder = %self.folder.display(), "prompt could not be cached");
            return;
        }
        index.remove_entry(&name);
        index.uses += 1;
        index.bytes += bytes;
        index.files.insert(name, File { bytes, used: index.uses });
        self.evict(index);
    }

    /// Removes the prompts that were last used in one of these periods.
    pub(super) fn remove_used_within(&self, periods: &[RangeInclusive<Timestamp>]) {
        let lock = || self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let names: Vec<String> = {
            let mut index = lock();
            let index = index.get_or_insert_with(|| Index::read(&self.folder));
            index.files.keys().cloned().collect()
        };
        let used = |name: &str| {
            let used =
                fs::metadata(self.folder.join(name)).and_then(|data| data.modified()).ok()?;
            let since = used.duration_since(SystemTime::UNIX_EPOCH).ok()?;
            Some(Timestamp::from_micros(i64::try_from(since.as_micros()).ok()?))
        };
        // The times are read without the lock, for which calls would have to wait.
        let is_within = |name: &String| {
            used(name).is_some_and(|at| periods.iter().any(|period| period.contains(&at)))
        };
        for name in names.into_iter().filter(is_within) {
            let mut index = lock();
            let _ = fs::remove_file(self.folder.join(&name));
            if let Some(index) = &mut *index {
                index.remove_entry(&name);
            }
        }
    }

    /// Evicts down to seven eighths of the limit, so that entries are rarely sorted.
    fn evict(&self, index: &mut Index) {
        if index.bytes <= self.bytes_max {
            return;
        }
        let mut by_use: Vec<(u64, String)> =
            index.files.iter().map(|(name, f)| (f.used, name.clone())).collect();
        by_use.sort_unstable();
        for (_, name) in by_use {
            if index.bytes <= self.bytes_max / 8 * 7 {
                break;
            }
            let _ = fs::remove_file(self.folder.join(&name));
            index.remove_entry(&name);
        }
    }

    /// Returns the file name of a spoken sound, or `None` for other sounds.
    fn file_name(&self, sound: &Sound) -> Option<String> {
        let Sound::Speak { .. } = sound else { return None };
        let serialized = serde_json::to_string(sound).ok()?;
        let key = format!("{}\n{}\n{serialized}", env!("CARGO_PKG_VERSION"), self.voices);
        Some(hex::encode(digest(&SHA256, key.as_bytes()).as_ref()))
    }
}

impl Index {
    /// Lists the folder, oldest file first. Removes incomplete files and ignores unknown ones.
    fn read(folder: &Path) -> Self {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let Ok(data) = entry.metadata() else { continue };
            let is_prompt = name.len() == NAME_CHARS && name.bytes().all(|b| b.is_ascii_hexdigit());
            if is_prompt && data.is_file() {
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

    fn remove_entry(&mut self, name: &str) {
        if let Some(file) = self.files.remove(name) {
            self.bytes -= file.bytes;
        }
    }
}

/// Returns a description of the settings that prompts depend on, in addition to their text.
fn voices_key(config: &SpeechConfig) -> String {
    let openai =
        config.openai.as_ref().map(|o| format!("{} {} {} {:?}", o.url, o.model, o.voice, o.voices));
    let espeak = config.espeak.as_ref().map(|path| path.display().to_string());
    let models = ModelStore::new(&config.data_dir);
    let kokoro = models.multilingual_voice();
    let languages = kokoro.as_ref().map(Manifest::kokoro_languages);
    let neural = [models.english_voice(), kokoro].map(|voice| voice.map(|v| v.sha256));
    format!("{:?} {openai:?} {espeak:?} {neural:?} {languages:?}", config.provider)
}

/// Encodes a file: magic bytes, the voices as JSON, the frames, and a hash of the bytes before it.
/// The JSON and each frame follow their length.
fn encode(speech: &CachedSpeech) -> Vec<u8> {
    let silence = silence_frame();
    let mut bytes = MAGIC.to_vec();
    let voices = serde_json::to_vec(&speech.voices).unwrap_or_default();
    bytes.extend_from_slice(&u16::try_from(voices.len()).unwrap_or(0).to_le_bytes());
    bytes.extend_from_slice(&voices);
    for frame in &speech.frames {
        let frame = if **frame == *silence { &[][..] } else { frame };
        bytes.extend_from_slice(&u16::try_from(frame.len()).unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(frame);
    }
    let hash = digest(&SHA256, &bytes);
    bytes.extend_from_slice(hash.as_ref());
    bytes
}

/// Decodes a file. Returns `None` if it is incomplete or not of this version.
fn decode(bytes: &[u8]) -> Option<CachedSpeech> {
    let (content, hash) = bytes.split_at_checked(bytes.len().checked_sub(HASH_BYTES)?)?;
    if digest(&SHA256, content).as_ref() != hash {
        return None;
    }
    let (length, rest) = content.strip_prefix(MAGIC)?.split_first_chunk::<2>()?;
    let (voices, mut rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    let voices = serde_json::from_slice(voices).ok()?;
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
    (rest.is_empty() && !frames.is_empty()).then_some(CachedSpeech { frames, voices })
}

/// Writes to a temporary file and renames it, so that readers never see a partial file.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let temporary = folder.join(format!("{name}.{}.new", std::process::id()));
    let mut file = fs::File::create(&temporary)?;
    // The file is not synced, because a file that is damaged by a power failure is detected and
    // created again.
    file.write_all(bytes)?;
    fs::rename(&temporary, folder.join(name))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, SystemTime};

    use super::{CachedSpeech, DiskCache, decode, encode, silence_frame};
    use crate::config::SpeechConfig;
    use machine::Sound;
    use media::prompt::Frame;
    use model::{Clock, PromptVoice, Timestamp};
    use xml::ast::{Speech, SpeechNode, Voice};

    const NOW: Timestamp = Timestamp::from_micros(1_795_154_591_120_394);

    fn sound(text: &str) -> Sound {
        let speech = Speech(vec![SpeechNode::Text(text.to_owned())]);
        Sound::Speak { speech, voice: Voice::Woman, language: None }
    }

    fn speech(frames: Vec<Frame>) -> CachedSpeech {
        let voice = PromptVoice {
            engine: "neural".to_owned(),
            voice: "hibari".to_owned(),
            language: "en-US".to_owned(),
        };
        CachedSpeech { frames, voices: vec![voice] }
    }

    fn frames(n: u8, bytes: usize) -> CachedSpeech {
        speech(vec![Frame::from(vec![n; bytes]), silence_frame(), Frame::from([n])])
    }

    fn disk_cache(folder: &std::path::Path, bytes_max: u64) -> DiskCache {
        let config = SpeechConfig { data_dir: folder.to_owned(), ..SpeechConfig::default() };
        let clock = Clock::stepped(NOW);
        DiskCache { bytes_max, ..DiskCache::new(&config, clock).unwrap() }
    }

    #[test]
    fn prompts_survive_a_restart_and_depend_on_the_voices() {
        let dir = tempfile::tempdir().unwrap();
        disk_cache(dir.path(), 1 << 20).insert(&sound("Welcome"), &frames(1, 60));
        let restarted = disk_cache(dir.path(), 1 << 20);
        let found = restarted.get(&sound("Welcome")).unwrap();
        assert_eq!(found, frames(1, 60));
        assert!(std::sync::Arc::ptr_eq(&found.frames[1], &silence_frame()));
        assert!(restarted.get(&sound("Goodbye")).is_none());
        let other = DiskCache { voices: "others".to_owned(), ..disk_cache(dir.path(), 1 << 20) };
        assert!(other.get(&sound("Welcome")).is_none());
        let beep = Sound::Tone { hz: 800, ms: 400 };
        restarted.insert(&beep, &frames(2, 60));
        assert!(restarted.get(&beep).is_none());
        let text = fs::read_dir(dir.path().join("prompts"))
            .unwrap()
            .map(|e| fs::read(e.unwrap().path()).unwrap());
        assert!(text.flatten().collect::<Vec<_>>().windows(7).all(|w| w != b"Welcome"));
    }

    #[test]
    fn the_cache_leaves_a_reserve_of_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let full = DiskCache { reserve: Some(u64::MAX), ..disk_cache(dir.path(), 1 << 20) };
        full.insert(&sound("Welcome"), &frames(1, 60));
        assert!(full.get(&sound("Welcome")).is_none());
    }

    #[test]
    fn prompts_that_were_last_used_in_a_period_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = disk_cache(dir.path(), 1 << 20);
        for text in ["Dear Asha", "Welcome"] {
            cache.insert(&sound(text), &frames(1, 60));
        }
        // The use of a prompt is timed by the clock of the cache.
        assert!(cache.get(&sound("Dear Asha")).is_some());
        let around = |seconds| {
            let time = Duration::from_secs(seconds);
            NOW.plus(time)..=NOW.plus(time * 2)
        };
        fs::File::open(
            dir.path().join("prompts").join(cache.file_name(&sound("Welcome")).unwrap()),
        )
        .and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(9)))
        .unwrap();
        cache.remove_used_within(&[around(5)]);
        assert!(cache.get(&sound("Dear Asha")).is_some());
        cache.remove_used_within(&[around(5), around(0)]);
        assert!(cache.get(&sound("Dear Asha")).is_none());
        assert!(cache.get(&sound("Welcome")).is_some(), "used at another time");
    }

    #[test]
    fn a_damaged_file_is_ignored_and_deleted() {
        let dir = tempfile::tempdir().unwrap();
        for damage in [0, 9, 40] {
            let whole = disk_cache(dir.path(), 1 << 20);
            whole.insert(&sound("Welcome"), &frames(1, 60));
            let path =
                fs::read_dir(dir.path().join("prompts")).unwrap().next().unwrap().unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            bytes[damage] ^= 1;
            fs::write(&path, if damage == 40 { &bytes[..40] } else { &bytes }).unwrap();
            assert!(disk_cache(dir.path(), 1 << 20).get(&sound("Welcome")).is_none());
            assert!(!path.exists());
        }
        fs::write(dir.path().join("prompts/notes.txt"), "mine").unwrap();
        fs::write(dir.path().join("prompts/x.7.new"), "half").unwrap();
        assert!(disk_cache(dir.path(), 1 << 20).get(&sound("Welcome")).is_none());
        assert!(
            dir.path().join("prompts/notes.txt").exists()
                && !dir.path().join("prompts/x.7.new").exists()
        );
    }

    #[test]
    fn the_least_recently_used_prompt_is_evicted_first() {
        let dir = tempfile::tempdir().unwrap();
        let bounded = disk_cache(dir.path(), 12_000);
        for n in 0..10 {
            bounded.insert(&sound(&n.to_string()), &frames(n, 1_000));
        }
        assert!(bounded.get(&sound("0")).is_some());
        bounded.insert(&sound("10"), &frames(10, 1_000));
        bounded.insert(&sound("11"), &frames(11, 1_000));
        assert!(bounded.get(&sound("0")).is_some(), "recently used");
        assert!(bounded.get(&sound("1")).is_none(), "the oldest");
        let bytes: u64 = fs::read_dir(dir.path().join("prompts"))
            .unwrap()
            .map(|e| e.unwrap().metadata().unwrap().len())
            .sum();
        assert!(bytes <= 12_000, "{bytes}");
        bounded.insert(&sound("giant"), &speech(vec![Frame::from(vec![1; 1_200]); 20]));
        assert!(bounded.get(&sound("giant")).is_none());
    }

    #[test]
    fn arbitrary_bytes_are_rejected() {
        assert!(
            decode(&[]).is_none()
                && decode(&[0; 64]).is_none()
                && decode(&encode(&speech(Vec::new()))).is_none()
        );
        for rest in
            [&[0xff, 0xff, 1][..], &[2, 0, b'[', b']', 0xff, 0xff, 1], &[2, 0, b'[', b'{', 1, 0, 1]]
        {
            let mut long = [super::MAGIC, rest].concat();
            let hash = super::digest(&super::SHA256, &long);
            long.extend_from_slice(hash.as_ref());
            assert!(decode(&long).is_none());
        }
    }
}
