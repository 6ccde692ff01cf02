//! The pending log: starts and ends of calls that are not in the database yet.
//!
//! Rows are written in batches, and neither a call nor the report of its end waits for them. So
//! that a kill loses no call, each start is first appended to a file. That is one `write` of a few
//! microseconds without a sync: it survives the process, but not a power loss. The id that Meta
//! gives an outbound call is appended too, because no later process could end the call without it.
//! The writer appends the ends whose callbacks are sent before their batch, and syncs the file first.
//!
//! Entries go to one of two files. Once the file in use is large, the next entries go to the other
//! one, and the first is emptied as soon as everything in it is in the database. One process at a
//! time holds the files.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::{Deserialize, Serialize};

use crate::files::with_suffix;
use crate::rows::call::StartedCall;
use crate::writer::journal_entry::Entry;
use machine::CallSetup;
use model::{CallUuid, PhoneNumberId, Timestamp, Wacid};

/// Size from which the other file is used, or the file is emptied if nothing in it is pending.
const FULL_BYTES: u64 = 256 * 1024;

/// Read limit in bytes for each file, enough for the starts of about 100,000 calls.
const READ_MAX: u64 = 128 * 1024 * 1024;

/// The start of a call: what another process needs to end the call.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Birth {
    /// The process that owns the call.
    pub node_id: String,
    /// Monotonic time.
    pub born: Timestamp,
    pub setup: CallSetup,
}

/// The id that Meta gave an outbound call.
#[derive(Deserialize)]
pub(crate) struct WacidEntry {
    pub(crate) call: CallUuid,
    pub(crate) wacid: Wacid,
    /// Time from which the request that ends the call at Graph is due, if the call is over by then.
    pub(crate) farewell: Timestamp,
}

/// The entries that an earlier process left in the files.
#[derive(Default)]
pub(crate) struct PendingEntries {
    pub(crate) starts: Vec<Birth>,
    pub(crate) wacids: Vec<WacidEntry>,
    /// Ends of calls.
    pub(crate) ends: Vec<Entry>,
}

impl PendingEntries {
    pub(crate) fn is_empty(&self) -> bool {
        self.starts.is_empty() && self.wacids.is_empty() && self.ends.is_empty()
    }

    /// Returns the calls of the starts that have an id at Meta.
    pub(crate) fn calls_at_meta(&self) -> Vec<(PhoneNumberId, Wacid)> {
        let of = |start: &Birth| {
            let setup = &start.setup;
            Some((setup.phone_number_id.clone(), setup.wacid.clone()?))
        };
        self.starts.iter().filter_map(of).collect()
    }

    /// Splits the log into logs of one entry, starts first, because the other entries
    /// refer to a start.
    pub(crate) fn split(self) -> impl Iterator<Item = Self> {
        let starts =
            self.starts.into_iter().map(|one| Self { starts: vec![one], ..Self::default() });
        let wacids =
            self.wacids.into_iter().map(|one| Self { wacids: vec![one], ..Self::default() });
        let ends = self.ends.into_iter().map(|one| Self { ends: vec![one], ..Self::default() });
        starts.chain(wacids).chain(ends)
    }

    /// Reads the entries of a running process, written or not yet. A half-written last line is
    /// skipped.
    pub(crate) fn of_running_process(path: &Path) -> io::Result<Self> {
        let mut found = Self::default();
        for path in files(path) {
            match File::open(path) {
                Ok(file) => {
                    found.read(&read_all(&file)?);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Reads the lines of a file. Returns how many complete ones are damaged and were skipped.
    fn read(&mut self, text: &[u8]) -> usize {
        let mut damaged = 0;
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            if let Ok(start) = serde_json::from_slice(line) {
                self.starts.push(start);
            } else if let Ok(wacid) = serde_json::from_slice(line) {
                self.wacids.push(wacid);
            } else if let Ok(end @ Entry::CallEnded { .. }) = serde_json::from_slice(line) {
                self.ends.push(end);
            } else if line.ends_with(b"\n") && !line.trim_ascii().is_empty() {
                damaged += 1;
            }
        }
        damaged
    }
}

/// Returns whether a process has the pending log at this path open. `None` if that can't be found
/// out, for example for lack of permission.
pub(crate) fn is_open(path: &Path) -> Option<bool> {
    let [first, _] = files(path);
    match File::open(first).map(|file| file.try_lock_shared()) {
        Ok(Ok(())) => Some(false),
        Ok(Err(TryLockError::WouldBlock)) => Some(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(false),
        Ok(Err(TryLockError::Error(_))) | Err(_) => None,
    }
}

/// The pending log, locked by this process.
#[derive(Debug)]
pub(crate) struct PendingLog {
    files: [File; 2],
    /// Held shared to append and to queue the write, so that all entries of a file are queued when
    /// the other file is chosen.
    current: RwLock<Current>,
    /// Number of starts and ids in the current file that are not yet in the database.
    pending: AtomicUsize,
    /// Whether the current file may have ends that are not yet in the database.
    has_ends: AtomicBool,
    /// Size of the current file.
    bytes: AtomicU64,
}

/// The current file, and what is pending in the other one.
#[derive(Debug)]
struct Current {
    /// Index of the file that entries are appended to.
    file: usize,
    /// Number of starts and ids in the other file that are not yet in the database.
    pending_in_other: usize,
}

/// The reason why the pending log can't be opened.
#[derive(Debug)]
pub(crate) enum PendingLogError {
    /// Another process holds the files.
    InUse,
    Io(io::Error),
}

impl PendingLog {
    /// Opens the files and reads the entries of an earlier process. Call [`PendingLog::empty`] once
    /// these are in the database.
    pub(crate) fn open(path: &Path) -> Result<(Self, PendingEntries), PendingLogError> {
        let mut left = PendingEntries::default();
        let mut open = |path: &Path| {
            let file =
                OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
            let file = file.map_err(PendingLogError::Io)?;
            file.try_lock().map_err(|error| match error {
                TryLockError::WouldBlock => PendingLogError::InUse,
                TryLockError::Error(error) => PendingLogError::Io(error),
            })?;
            // A line that a kill or a full disk truncated is skipped. It belongs to a webhook that
            // was not answered with 200, or to a write that is in the queue anyway.
            let damaged = left.read(&read_all(&file).map_err(PendingLogError::Io)?);
            if damaged > 0 {
                let file = path.display();
                tracing::warn!(%file, damaged, "damaged lines of the pending log skipped");
            }
            Ok(file)
        };
        let [first, second] = files(path);
        let files = [open(&first)?, open(&second)?];
        let current = RwLock::new(Current { file: 0, pending_in_other: 0 });
        let (pending, has_ends) = (AtomicUsize::new(0), AtomicBool::new(false));
        Ok((Self { files, current, pending, has_ends, bytes: AtomicU64::new(0) }, left))
    }

    /// Appends the start of a call and passes it to `queue`, which queues its row. Does not wait for
    /// the disk.
    pub(crate) fn append_start(
        &self,
        call: StartedCall,
        queue: impl FnOnce(StartedCall),
    ) -> io::Result<()> {
        let node_id = serde_json::Value::from(call.start.node_id.as_str());
        let (born, setup) = (call.born.micros(), &call.setup);
        let json = format!("{{\"node_id\":{node_id},\"born\":{born},\"setup\":{setup}}}");
        self.append_queued(&json, || queue(call))
    }

    /// Appends the id that Meta gave a call and passes it to `queue`, which queues it for the call's
    /// row. Does not wait for the disk.
    pub(crate) fn append_wacid(
        &self,
        call: CallUuid,
        wacid: Wacid,
        farewell: Timestamp,
        queue: impl FnOnce(Wacid),
    ) -> io::Result<()> {
        let (id, farewell) = (serde_json::Value::from(wacid.as_str()), farewell.micros());
        let json = format!("{{\"call\":\"{call}\",\"wacid\":{id},\"farewell\":{farewell}}}");
        self.append_queued(&json, || queue(wacid))
    }

    fn append_queued(&self, json: &str, queue: impl FnOnce()) -> io::Result<()> {
        let current = self.current();
        self.pending.fetch_add(1, Ordering::AcqRel);
        let appended = self.append(&current, json);
        queue();
        appended
    }

    /// Appends ends of calls and syncs the file, including the starts in it. The ends must be in
    /// the database before the next call of [`PendingLog::mark_done`]. Blocks.
    pub(crate) fn append_ends(&self, ends: &[Entry]) -> io::Result<()> {
        let current = self.current();
        self.has_ends.store(true, Ordering::Release);
        for end in ends {
            self.append(&current, &serde_json::to_string(end)?)?;
        }
        self.file(&current).sync_data()
    }

    fn append(&self, current: &Current, json: &str) -> io::Result<()> {
        // The leading newline separates the entry from a truncated line before it.
        let line = format!("\n{json}\n");
        self.bytes.fetch_add(count(line.len()), Ordering::AcqRel);
        self.file(current).write_all(line.as_bytes())
    }

    /// Marks a number of starts and ids as done: they are in the database, or will never be. All
    /// ends are marked as well.
    pub(crate) fn mark_done(&self, starts: usize) -> io::Result<()> {
        self.has_ends.store(false, Ordering::Release);
        let is_full = self.bytes.load(Ordering::Acquire) >= FULL_BYTES;
        let mut current = if is_full || self.current().pending_in_other > 0 {
            self.current_mut()
        } else {
            self.pending.fetch_sub(starts, Ordering::AcqRel);
            return Ok(());
        };
        // The queue keeps the order of the entries.
        let in_other = starts.min(current.pending_in_other);
        current.pending_in_other -= in_other;
        let pending =
            self.pending.fetch_sub(starts - in_other, Ordering::AcqRel) + in_other - starts;
        if current.pending_in_other > 0 {
            return Ok(());
        }
        if in_other > 0 {
            self.other(&current).set_len(0)?;
        }
        if is_full && pending == 0 {
            self.bytes.store(0, Ordering::Release);
            self.file(&current).set_len(0)?;
        } else if is_full {
            current.file ^= 1;
            current.pending_in_other = self.pending.swap(0, Ordering::AcqRel);
            self.bytes.store(0, Ordering::Release);
        }
        Ok(())
    }

    /// Unlocks the files, so that another process can open them.
    pub(crate) fn release(&self) -> io::Result<()> {
        self.files.iter().try_for_each(File::unlock)
    }

    /// Empties the files unless an entry in them is not in the database yet.
    pub(crate) fn empty(&self) -> io::Result<()> {
        self.try_empty().map(drop)
    }

    /// Like [`PendingLog::empty`]. Returns whether the files are empty.
    pub(crate) fn try_empty(&self) -> io::Result<bool> {
        let current = self.current_mut();
        let has_starts = current.pending_in_other > 0 || self.pending.load(Ordering::Acquire) > 0;
        if has_starts || self.has_ends.load(Ordering::Acquire) {
            return Ok(false);
        }
        self.bytes.store(0, Ordering::Release);
        self.files.iter().try_for_each(|file| file.set_len(0))?;
        Ok(true)
    }

    fn current(&self) -> RwLockReadGuard<'_, Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn current_mut(&self) -> RwLockWriteGuard<'_, Current> {
        self.current.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, current: &Current) -> &File {
        let [first, second] = &self.files;
        if current.file == 0 { first } else { second }
    }

    fn other(&self, current: &Current) -> &File {
        let [first, second] = &self.files;
        if current.file == 0 { second } else { first }
    }
}

/// Returns the paths of both files. The first one is given.
fn files(path: &Path) -> [PathBuf; 2] {
    [path.to_owned(), with_suffix(path, ".2")]
}

fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(READ_MAX).read_to_end(&mut text)?;
    Ok(text)
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::call::CallStart;
    use crate::sample::setup;

    /// Some starts are always pending, so neither file is ever empty of them.
    #[test]
    fn the_files_stay_small_and_keep_what_is_pending() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("offhook.db.births");
        let (log, left) = PendingLog::open(&path).unwrap();
        assert!(left.is_empty());
        let mut queue = std::collections::VecDeque::new();
        for n in 0..3_000 {
            let (start, setup) = (CallStart::of(&setup(n), "node"), setup(n));
            let setup = serde_json::to_string(&setup).unwrap();
            let call = StartedCall { start, setup, born: Timestamp::from_secs(1) };
            log.append_start(call, |call| queue.push_back(call.start.call)).unwrap();
            if n % 7 == 6 {
                let batch = queue.len() - 3;
                queue.drain(..batch);
                log.mark_done(batch).unwrap();
                let sizes = files(&path).map(|file| std::fs::metadata(file).unwrap().len());
                assert!(sizes.iter().all(|size| *size < 2 * FULL_BYTES), "{sizes:?}");
                let found = PendingEntries::of_running_process(&path).unwrap();
                let found: Vec<_> = found.starts.iter().map(|start| start.setup.call).collect();
                assert!(queue.iter().all(|call| found.contains(call)), "{n}");
            }
        }
        assert!(!log.try_empty().unwrap());
        log.mark_done(queue.len()).unwrap();
        assert!(log.try_empty().unwrap());
    }
    #[test]
    fn damaged_lines_are_counted_and_the_others_read() {
        let start = setup(1);
        let json = serde_json::to_string(&start).unwrap();
        let line = format!("{{\"node_id\":\"n\",\"born\":1,\"setup\":{json}}}\n");
        let mut found = PendingEntries::default();
        assert_eq!(
            found.read(format!("\n{line}\u{7f}garbage\n\n{line}{{\"node_id\":").as_bytes()),
            1
        );
        assert_eq!(found.starts.len(), 2, "a truncated last line is not damage");
    }
}
