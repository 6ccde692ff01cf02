//! Calls that began and whose rows are not in the database yet, for the process after this one (R3).
//!
//! Rows are written in batches, and nothing on a call's way waits for them; so that a kill between the webhook's 200
//! and the batch loses no call, each beginning is first appended to a file: one `write` without a sync, a few
//! microseconds, which outlives the process though not the power. The file belongs to one process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use serde::Deserialize;

use crate::call::machine::CallSetup;
use crate::model::Timestamp;

/// Past this, the file is emptied as soon as all in it is in the database.
const TIDY_BYTES: u64 = 256 * 1024;
/// What is read of a file at most, in bytes: the beginnings of some 100,000 calls.
const READ_MAX: u64 = 128 * 1024 * 1024;

/// A call's beginning.
#[derive(Deserialize)]
pub(super) struct Beginning {
    pub(super) node_id: String,
    /// On the steady clock.
    pub(super) born: Timestamp,
    pub(super) setup: CallSetup,
}

/// The file, held by this process alone.
#[derive(Debug)]
pub(super) struct Births {
    file: File,
    /// Appending is shared, emptying is not.
    emptying: RwLock<()>,
    /// Appended and not yet in the database.
    waiting: AtomicUsize,
    bytes: AtomicU64,
}

/// Why a journal can't be had.
#[derive(Debug)]
pub(super) enum Taken {
    /// Another process has it.
    InUse,
    Failed(io::Error),
}

impl Births {
    /// Opens the file and reads what an earlier process left in it. Call [`Births::empty`] once that is in the database.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Beginning>), Taken> {
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
        let file = file.map_err(Taken::Failed)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Taken::InUse,
            TryLockError::Error(error) => Taken::Failed(error),
        })?;
        let mut text = Vec::new();
        (&file).take(READ_MAX).read_to_end(&mut text).map_err(Taken::Failed)?;
        // A line that a kill or a full disk cut short belongs to a webhook that got no 200, or to a call that was noted
        // in the database's queue all the same.
        let left = text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
        let bytes = AtomicU64::new(count(text.len()));
        Ok((Self { file, emptying: RwLock::new(()), waiting: AtomicUsize::new(0), bytes }, left))
    }

    /// Notes a beginning, `setup` being JSON. Returns at once.
    pub(super) fn append(&self, node_id: &str, born: Timestamp, setup: &str) -> io::Result<()> {
        let (node_id, born) = (serde_json::to_string(node_id)?, born.micros());
        // A line of its own, whatever was cut short before it.
        let line = format!("\n{{\"node_id\":{node_id},\"born\":{born},\"setup\":{setup}}}\n");
        let _shared = self.emptying.read().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_add(1, Ordering::AcqRel);
        self.bytes.fetch_add(count(line.len()), Ordering::AcqRel);
        (&self.file).write_all(line.as_bytes())
    }

    /// So many of those appended are in the database now, or never will be.
    pub(super) fn done(&self, beginnings: usize) -> io::Result<()> {
        let before = self.waiting.fetch_sub(beginnings, Ordering::AcqRel);
        if before > beginnings || self.bytes.load(Ordering::Acquire) < TIDY_BYTES {
            return Ok(());
        }
        self.empty()
    }

    /// Lets go of the file: another process may have it.
    pub(super) fn release(&self) -> io::Result<()> {
        self.file.unlock()
    }

    /// Empties the file, unless something in it still waits.
    pub(super) fn empty(&self) -> io::Result<()> {
        let _alone = self.emptying.write().unwrap_or_else(PoisonError::into_inner);
        if self.waiting.load(Ordering::Acquire) > 0 {
            return Ok(());
        }
        self.bytes.store(0, Ordering::Release);
        self.file.set_len(0)
    }
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
