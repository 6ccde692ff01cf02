//! The start log: calls without a row in the database yet.
//!
//! Rows are written in batches, and a call does not wait for them. So that a kill between the
//! webhook's response and the batch loses no call, each start is first appended to a file. That is
//! one `write` of a few microseconds without a sync: it survives the process, but not a power loss.
//! The id that Meta gives an outbound call is appended too, because no later process could end the
//! call without it. One process at a time holds the file.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use serde::Deserialize;

use machine::CallSetup;
use model::{CallUuid, Timestamp, Wacid};

/// Size from which the file is emptied as soon as everything in it is in the database.
const TIDY_BYTES: u64 = 256 * 1024;

/// Read limit in bytes, enough for the starts of about 100,000 calls.
const READ_MAX: u64 = 128 * 1024 * 1024;

/// The start of a call.
#[derive(Deserialize)]
pub(crate) struct StartEntry {
    pub(crate) node_id: String,
    /// Monotonic time.
    pub(crate) born: Timestamp,
    pub(crate) setup: CallSetup,
}

/// The id that Meta gave an outbound call.
#[derive(Deserialize)]
pub(crate) struct WacidEntry {
    pub(crate) call: CallUuid,
    pub(crate) wacid: Wacid,
    /// Time at which Graph must end the call if it is over.
    pub(crate) farewell: Timestamp,
}

/// The entries that an earlier process left in the file.
#[derive(Default)]
pub(crate) struct StartLogEntries {
    pub(crate) starts: Vec<StartEntry>,
    pub(crate) wacids: Vec<WacidEntry>,
}

impl StartLogEntries {
    pub(crate) fn is_empty(&self) -> bool {
        self.starts.is_empty() && self.wacids.is_empty()
    }

    /// Splits the entries into one each, starts first, because an id refers to a start.
    pub(crate) fn split(self) -> impl Iterator<Item = Self> {
        let starts =
            self.starts.into_iter().map(|one| Self { starts: vec![one], wacids: Vec::new() });
        starts.chain(
            self.wacids.into_iter().map(|one| Self { starts: Vec::new(), wacids: vec![one] }),
        )
    }

    fn read(text: &[u8]) -> Self {
        let mut notes = Self::default();
        for line in text.split(|byte| *byte == b'\n') {
            if let Ok(beginning) = serde_json::from_slice(line) {
                notes.starts.push(beginning);
            } else if let Ok(naming) = serde_json::from_slice(line) {
                notes.wacids.push(naming);
            }
        }
        notes
    }
}

/// The start log, locked by this process.
#[derive(Debug)]
pub(crate) struct StartLog {
    file: File,
    /// Held shared to append and exclusively to empty the file.
    emptying: RwLock<()>,
    /// Number of appended entries that are not yet in the database.
    pending: AtomicUsize,
    bytes: AtomicU64,
}

/// The reason why the start log can't be opened.
#[derive(Debug)]
pub(crate) enum StartLogError {
    /// Another process holds the file.
    InUse,
    Io(io::Error),
}

impl StartLog {
    /// Opens the file and reads the entries of an earlier process. Call [`StartLog::empty`] once
    /// these are in the database.
    pub(crate) fn open(path: &Path) -> Result<(Self, StartLogEntries), StartLogError> {
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
        let file = file.map_err(StartLogError::Io)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => StartLogError::InUse,
            TryLockError::Error(error) => StartLogError::Io(error),
        })?;
        let mut text = Vec::new();
        (&file).take(READ_MAX).read_to_end(&mut text).map_err(StartLogError::Io)?;
        // A line that a kill or a full disk truncated is skipped. It belongs to a webhook that was
        // not answered with 200, or to a call that is in the writer's queue anyway.
        let left = StartLogEntries::read(&text);
        let bytes = AtomicU64::new(count(text.len()));
        Ok((Self { file, emptying: RwLock::new(()), pending: AtomicUsize::new(0), bytes }, left))
    }

    /// Appends the start of a call. `setup` is JSON. Does not wait for the disk.
    pub(crate) fn append(&self, node_id: &str, born: Timestamp, setup: &str) -> io::Result<()> {
        let (node_id, born) = (serde_json::to_string(node_id)?, born.micros());
        self.append_line(&format!("{{\"node_id\":{node_id},\"born\":{born},\"setup\":{setup}}}"))
    }

    /// Appends the id that Meta gave a call. Does not wait for the disk.
    pub(crate) fn append_wacid(
        &self,
        call: CallUuid,
        wacid: &Wacid,
        farewell: Timestamp,
    ) -> io::Result<()> {
        let (call, wacid) = (serde_json::to_string(&call)?, serde_json::to_string(wacid)?);
        let farewell = farewell.micros();
        self.append_line(&format!("{{\"call\":{call},\"wacid\":{wacid},\"farewell\":{farewell}}}"))
    }

    fn append_line(&self, json: &str) -> io::Result<()> {
        // The leading newline separates the entry from a truncated line before it.
        let line = format!("\n{json}\n");
        let _shared = self.emptying.read().unwrap_or_else(PoisonError::into_inner);
        self.pending.fetch_add(1, Ordering::AcqRel);
        self.bytes.fetch_add(count(line.len()), Ordering::AcqRel);
        (&self.file).write_all(line.as_bytes())
    }

    /// Marks a number of entries as done: they are in the database or will never be.
    pub(crate) fn mark_done(&self, notes: usize) -> io::Result<()> {
        let before = self.pending.fetch_sub(notes, Ordering::AcqRel);
        if before > notes || self.bytes.load(Ordering::Acquire) < TIDY_BYTES {
            return Ok(());
        }
        self.empty()
    }

    /// Unlocks the file, so that another process can open it.
    pub(crate) fn release(&self) -> io::Result<()> {
        self.file.unlock()
    }

    /// Empties the file unless an entry in it is not in the database yet.
    pub(crate) fn empty(&self) -> io::Result<()> {
        self.try_empty().map(drop)
    }

    /// Like [`StartLog::empty`]. Returns whether the file is empty.
    pub(crate) fn try_empty(&self) -> io::Result<bool> {
        let _alone = self.emptying.write().unwrap_or_else(PoisonError::into_inner);
        if self.pending.load(Ordering::Acquire) > 0 {
            return Ok(false);
        }
        self.bytes.store(0, Ordering::Release);
        self.file.set_len(0)?;
        Ok(true)
    }
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
