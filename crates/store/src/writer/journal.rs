//! The journal: a file next to the database that takes writes while the database rejects them.
//!
//! This module handles lines and bytes. The content of an entry is defined in `journal_entry`, and
//! `writer` decides when to use the journal. All functions block.
//!
//! Each line is a checksum, a space, an entry and a newline. The first entry is the journal's id,
//! so that the database can record how many entries of this journal it has. A truncated last line
//! was never reported as written and is dropped. A line with a wrong checksum is skipped and
//! counted.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use uuid::Uuid;

use crate::files::naming;
use model::metric;

/// Name of the file in `store.data_dir`.
const NAME: &str = "store.journal";

/// Maximum size in bytes.
const BYTES_MAX: u64 = 64 << 20;

/// Size from which event log lines are dropped. The rest is reserved for records and callbacks.
const LINES_MAX: u64 = BYTES_MAX / 4 * 3;

/// Disk space reserved in advance, so that the journal can be written even if the disk is full.
const RESERVED: u64 = 8 << 20;

/// Number of entries that are copied at once.
const CHUNK: usize = 500;

/// Length of a checksum: 16 hexadecimal digits, 64 bits of a SHA-256.
const CHECKSUM_LEN: usize = 16;

/// An open journal. It is locked against other processes.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    id: Uuid,
    /// Offset of the first entry. `end` is the offset after the last one.
    begin: u64,
    len: u64,
    dirty: bool,
    /// Whether the file could not be emptied. It has to be before the next entry.
    is_stale: bool,
}

/// Entries read from the journal, and the offset of the next one.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    /// The entries. `None` for one with a wrong checksum.
    pub(crate) entries: Vec<Option<String>>,
    pub(crate) next: u64,
}

impl Journal {
    /// Opens the journal of a folder, and creates it if it does not exist.
    ///
    /// # Errors
    /// Fails on I/O errors, or if another process has it open.
    pub(crate) fn open(folder: &Path) -> std::io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let path: PathBuf = folder.join(NAME);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)?;
        file.try_lock().map_err(|e| {
            std::io::Error::other(format!("another process has locked the journal: {e}"))
        })?;
        let mut journal =
            Self { file, id: Uuid::nil(), begin: 0, len: 0, dirty: false, is_stale: false };
        let found = journal.scan()?;
        if found.is_none() {
            journal.repair(&path)?;
        }
        Ok(journal)
    }

    /// Returns whether the file was deleted. What is appended to it would be lost with the process.
    pub(crate) fn is_deleted(&self) -> bool {
        self.file.metadata().is_ok_and(|file| file.nlink() == 0)
    }

    /// Writes the entries of a deleted journal to a new one in the folder, which must exist. The
    /// folder is not created again: it may have been moved, and will be moved back.
    ///
    /// # Errors
    /// Fails on I/O errors.
    pub(crate) fn write_again(&mut self, folder: &Path) -> std::io::Result<()> {
        std::fs::metadata(folder).map_err(|e| naming(folder, e))?;
        let mut new = Self::open(folder)?;
        let mut at = self.begin;
        loop {
            let chunk = self.read(at, CHUNK)?;
            if chunk.next == at {
                break;
            }
            new.append(&chunk.entries.into_iter().flatten().collect::<Vec<_>>())?;
            at = chunk.next;
        }
        new.sync()?;
        tracing::error!(
            file = %folder.join(NAME).display(),
            bytes = new.bytes(),
            "journal was deleted, written again"
        );
        *self = new;
        Ok(())
    }

    /// Recreates a journal without a readable id.
    ///
    /// A file without any complete line was never used and is just reset. Otherwise the file is
    /// saved under another name, and its readable entries are kept. Some of them may be in the
    /// database already; executing an entry twice has no effect.
    ///
    /// # Errors
    /// Fails on I/O errors. The journal is unchanged then.
    fn repair(&mut self, path: &Path) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(0))?;
        (&self.file).take(BYTES_MAX + RESERVED).read_to_end(&mut bytes)?;
        if !bytes.contains(&b'\n') {
            return self.clear();
        }
        let aside = path.with_extension(format!("damaged-{}", Uuid::new_v4()));
        let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
        copy.write_all(&bytes)?;
        copy.sync_all()?;
        let lines = || bytes.split_inclusive(|b| *b == b'\n');
        let entries: Vec<String> =
            lines().filter_map(parse_line).filter(|line| Uuid::parse_str(line).is_err()).collect();
        tracing::error!(
            aside = %aside.display(),
            entries = entries.len(),
            unreadable = lines().count() - entries.len(),
            "damaged journal saved under another name, its readable entries kept"
        );
        self.clear()?;
        self.append(&entries)?;
        self.sync()
    }

    /// Reads the id and finds the end of the last complete line. Returns `None` if there is no
    /// valid id.
    fn scan(&mut self) -> std::io::Result<Option<()>> {
        self.file.seek(SeekFrom::Start(0))?;
        let mut lines = BufReader::new(&self.file);
        // Damage may be any bytes, so lines are not text.
        let mut name = Vec::new();
        lines.by_ref().take(200).read_until(b'\n', &mut name)?;
        let Some(id) = parse_line(&name).and_then(|id| id.parse().ok()) else {
            return Ok(None);
        };
        let begin = count(name.len());
        let (mut at, mut line) = (begin, Vec::new());
        loop {
            line.clear();
            let read = lines.read_until(b'\n', &mut line)?;
            if read == 0 || line.last() != Some(&b'\n') {
                break;
            }
            at += count(read);
        }
        (self.id, self.begin, self.len) = (id, begin, at);
        if self.file.metadata()?.len() > at {
            tracing::warn!("truncated last entry of the journal dropped");
            self.file.set_len(at)?;
        }
        Ok(Some(()))
    }

    /// The journal's id.
    pub(crate) fn id(&self) -> Uuid {
        self.id
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len <= self.begin
    }

    /// Size of the entries in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.len.saturating_sub(self.begin)
    }

    /// Returns whether event log lines are still accepted.
    pub(crate) fn has_room_for_lines(&self) -> bool {
        self.len < LINES_MAX
    }

    /// Offset of the first entry.
    pub(crate) fn begin(&self) -> u64 {
        self.begin
    }

    /// Appends entries, either all of them or none.
    ///
    /// # Errors
    /// Fails on I/O errors, or if the journal is full.
    pub(crate) fn append(&mut self, entries: &[String]) -> std::io::Result<()> {
        if self.is_stale {
            self.clear()?;
        }
        let mut bytes =
            Vec::with_capacity(entries.iter().map(|e| e.len() + CHECKSUM_LEN + 2).sum());
        for entry in entries {
            push_line(&mut bytes, entry);
        }
        if self.len + count(bytes.len()) > BYTES_MAX {
            return Err(std::io::Error::other("the journal is full"));
        }
        self.file.seek(SeekFrom::Start(self.len))?;
        if let Err(e) = self.file.write_all(&bytes) {
            // A partial line would corrupt the line after it.
            self.file.set_len(self.len)?;
            return Err(e);
        }
        self.len += count(bytes.len());
        self.dirty = true;
        metrics::gauge!(metric::STORE_JOURNAL_BYTES)
            .set(f64::from(u32::try_from(self.bytes()).unwrap_or(u32::MAX)));
        Ok(())
    }

    /// Syncs appended entries to disk.
    ///
    /// # Errors
    /// Fails on I/O errors.
    pub(crate) fn sync(&mut self) -> std::io::Result<()> {
        if self.dirty {
            self.file.sync_data()?;
            self.dirty = false;
        }
        Ok(())
    }

    /// Reads up to `at_most` entries from an offset on.
    ///
    /// # Errors
    /// Fails on I/O errors.
    pub(crate) fn read(&mut self, from: u64, at_most: usize) -> std::io::Result<Chunk> {
        self.file.seek(SeekFrom::Start(from))?;
        let mut lines = BufReader::new((&self.file).take(self.len.saturating_sub(from)));
        let mut chunk = Chunk { entries: Vec::new(), next: from };
        let mut line = Vec::new();
        while chunk.entries.len() < at_most {
            line.clear();
            let read = lines.read_until(b'\n', &mut line)?;
            if read == 0 {
                break;
            }
            chunk.next += count(read);
            chunk.entries.push(parse_line(&line));
        }
        Ok(chunk)
    }

    /// Empties the journal and gives it a new id. All its entries must be in the database, which stores
    /// the number of replayed entries by the id: later entries would be skipped under the old one.
    ///
    /// # Errors
    /// Fails on I/O errors. The journal is empty then, too, and the next append empties the file.
    pub(crate) fn clear(&mut self) -> std::io::Result<()> {
        let id = Uuid::new_v4();
        let mut name = Vec::new();
        push_line(&mut name, &id.to_string());
        (self.id, self.begin, self.len, self.dirty, self.is_stale) = (id, 0, 0, false, true);
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&name)?;
        self.file.sync_data()?;
        (self.begin, self.len, self.is_stale) = (count(name.len()), count(name.len()), false);
        if let Err(e) = fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, RESERVED) {
            tracing::debug!(error = %e, "disk space for the journal not reserved");
        }
        metrics::gauge!(metric::STORE_JOURNAL_BYTES).set(0.0);
        Ok(())
    }
}

/// Returns the number of writes in the journal of a folder, which another process may have open. 0
/// without a journal.
///
/// # Errors
/// Fails on I/O errors.
pub fn journal_entries(folder: &Path) -> std::io::Result<u64> {
    let file = match File::open(folder.join(NAME)) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(e),
    };
    let (mut lines, mut line) = (BufReader::new(file.take(BYTES_MAX)), Vec::new());
    let mut entries = 0;
    while lines.read_until(b'\n', &mut line)? > 0 {
        // The id is no entry, and a truncated last line was never reported as written.
        let is_entry = line.last() == Some(&b'\n')
            && parse_line(&line).is_none_or(|line| Uuid::parse_str(&line).is_err());
        entries += u64::from(is_entry);
        line.clear();
    }
    Ok(entries)
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn checksum(entry: &[u8]) -> String {
    let mut sum = hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, entry));
    sum.truncate(CHECKSUM_LEN);
    sum
}

fn push_line(to: &mut Vec<u8>, entry: &str) {
    to.extend_from_slice(checksum(entry.as_bytes()).as_bytes());
    to.push(b' ');
    to.extend_from_slice(entry.as_bytes());
    to.push(b'\n');
}

/// Returns the entry of a line if its checksum is right.
fn parse_line(line: &[u8]) -> Option<String> {
    let line = line.strip_suffix(b"\n")?;
    let (claimed, entry) = line.split_at_checked(CHECKSUM_LEN)?;
    let entry = entry.strip_prefix(b" ")?;
    (claimed == checksum(entry).as_bytes()).then(|| String::from_utf8(entry.to_vec()).ok())?
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use crate::writer::journal::BYTES_MAX;
    use crate::writer::journal::Journal;
    use crate::writer::journal::NAME;
    use crate::writer::journal::journal_entries;

    fn texts(n: std::ops::Range<u32>) -> Vec<String> {
        n.map(|n| format!("{{\"n\":{n}}}")).collect()
    }

    fn all(journal: &mut Journal) -> Vec<Option<String>> {
        journal.read(journal.begin(), 1_000_000).unwrap().entries
    }

    #[test]
    fn r11_a_journal_with_a_damaged_id_keeps_its_entries_and_is_saved() {
        let aside = |folder: &std::path::Path| {
            let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
            let aside: Vec<_> =
                files.filter(|path| path.to_string_lossy().contains("damaged-")).collect();
            assert!(aside.len() < 2, "{aside:?}");
            aside.first().map(|path| std::fs::read(path).unwrap())
        };
        // A flipped bit in the id, a missing id line, a file with other content, a partly written
        // id, a byte in the id that is not UTF-8, bytes that are not UTF-8 in an entry, too.
        for (damage, kept) in [(0, 3), (1, 3), (2, 0), (3, 0), (4, 3), (5, 2)] {
            let folder = tempfile::tempdir().unwrap();
            let mut journal = Journal::open(folder.path()).unwrap();
            journal.append(&texts(0..3)).unwrap();
            let name = usize::try_from(journal.begin()).unwrap();
            drop(journal);
            let file = folder.path().join(NAME);
            let mut bytes = std::fs::read(&file).unwrap();
            match damage {
                0 => bytes[3] ^= 1,
                1 => drop(bytes.drain(..name)),
                2 => bytes = b"something\nelse\n".to_vec(),
                3 => bytes.truncate(20),
                4 => bytes[3] = 0xff,
                _ => (bytes[20], *bytes.last_chunk_mut().unwrap()) = (0xff, [0xff, b'\n']),
            }
            std::fs::write(&file, &bytes).unwrap();
            let mut journal = Journal::open(folder.path()).unwrap();
            let wanted: Vec<_> = texts(0..kept).into_iter().map(Some).collect();
            assert_eq!(all(&mut journal), wanted, "{damage}");
            assert_eq!(aside(folder.path()), (damage != 3).then_some(bytes), "{damage}");
            drop(journal);
            assert_eq!(
                all(&mut Journal::open(folder.path()).unwrap()),
                wanted,
                "{damage}: at the next start"
            );
        }
    }

    #[test]
    fn r11_entries_survive_a_restart_in_order_and_a_truncated_one_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        assert!(journal.is_empty());
        assert_eq!(journal_entries(folder.path()).unwrap(), 0);
        assert_eq!(journal_entries(&folder.path().join("nowhere")).unwrap(), 0);
        assert!(Journal::open(folder.path()).is_err(), "locked by the first");
        journal.append(&texts(0..3)).unwrap();
        journal.append(&texts(3..5)).unwrap();
        journal.sync().unwrap();
        assert_eq!(journal_entries(folder.path()).unwrap(), 5, "while it is locked");
        let chunk = journal.read(journal.begin(), 2).unwrap();
        assert_eq!(chunk.entries, texts(0..2).into_iter().map(Some).collect::<Vec<_>>());
        assert_eq!(journal.read(chunk.next, 9).unwrap().entries.len(), 3);
        let id = journal.id();
        drop(journal);

        let file = folder.path().join(NAME);
        let mut text = std::fs::read(&file).unwrap();
        let at = text.windows(7).position(|w| w == b"{\"n\":1}").unwrap();
        text[at + 5] = b'7';
        text.extend_from_slice(b"0123456789abcdef {\"n\":5");
        std::fs::write(&file, text).unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        assert_eq!(journal.id(), id);
        let mut expected: Vec<_> = texts(0..5).into_iter().map(Some).collect();
        expected[1] = None;
        assert_eq!(
            all(&mut journal),
            expected,
            "a changed entry is unreadable, a truncated one is dropped"
        );
        journal.append(&texts(5..6)).unwrap();
        assert_eq!(all(&mut journal).len(), 6);
        journal.clear().unwrap();
        assert!(journal.is_empty() && journal.id() != id && all(&mut journal).is_empty());
    }

    #[test]
    fn r11_a_journal_that_could_not_be_emptied_is_emptied_before_the_next_entry() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        journal.append(&texts(0..3)).unwrap();
        let id = journal.id();
        let read_only = std::fs::File::open(folder.path().join(NAME)).unwrap();
        let file = std::mem::replace(&mut journal.file, read_only);
        journal.clear().unwrap_err();
        assert!(journal.is_empty() && all(&mut journal).is_empty());
        journal.append(&texts(3..4)).unwrap_err();
        journal.file = file;
        journal.append(&texts(4..6)).unwrap();
        journal.sync().unwrap();
        let wanted: Vec<_> = texts(4..6).into_iter().map(Some).collect();
        assert_eq!(all(&mut journal), wanted);
        drop(journal);
        let mut journal = Journal::open(folder.path()).unwrap();
        assert_eq!(all(&mut journal), wanted);
        assert_ne!(journal.id(), id);
    }

    #[test]
    fn r11_the_journal_is_bounded_and_appends_all_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        let big = vec!["x".repeat(1 << 20); 40];
        journal.append(&big).unwrap();
        assert!(journal.has_room_for_lines());
        assert!(journal.append(&big).is_err(), "the limit is 64 MiB");
        assert_eq!(all(&mut journal).len(), 40);
        journal.append(&big[..20]).unwrap();
        assert!(!journal.has_room_for_lines() && journal.bytes() < BYTES_MAX);
        drop(journal);
        assert!(std::fs::metadata(folder.path().join(NAME)).unwrap().len() <= BYTES_MAX);
    }

    #[test]
    fn recreates_a_file_that_is_not_a_journal() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::File::create(folder.path().join(NAME)).unwrap().write_all(&[0; 5_000]).unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        assert!(journal.is_empty());
        journal.append(&texts(0..1)).unwrap();
        assert_eq!(all(&mut journal).len(), 1);
        std::fs::create_dir_all(folder.path().join("taken").join(NAME)).unwrap();
        assert!(Journal::open(&folder.path().join("taken")).is_err());
    }
}
