//! Calls that began and whose rows are not in the database yet, for the process after this one (R3).
//!
//! Rows are written in batches, and nothing on a call's way waits for them; so that a kill between the webhook's 200
//! and the batch loses no call, each beginning is first appended to a file: one `write` without a sync, a few
//! microseconds, which outlives the process though not the power. So is Meta's name of a call that we placed, without
//! which nobody could end it there. The file belongs to one process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use serde::Deserialize;

use machine::CallSetup;
use model::{CallUuid, Timestamp, Wacid};

/// Past this, the file is emptied as soon as all in it is in the database.
const TIDY_BYTES: u64 = 256 * 1024;

/// What is read of a file at most, in bytes: the beginnings of some 100,000 calls.
const READ_MAX: u64 = 128 * 1024 * 1024;

/// A call's beginning.
#[derive(Deserialize)]
pub(crate) struct Beginning {
    pub(crate) node_id: String,
    /// On the steady clock.
    pub(crate) born: Timestamp,
    pub(crate) setup: CallSetup,
}

/// Meta's name of a call that we placed.
#[derive(Deserialize)]
pub(crate) struct Naming {
    pub(crate) call: CallUuid,
    pub(crate) wacid: Wacid,
    /// When Graph is to be told, should the call have ended.
    pub(crate) farewell: Timestamp,
}

/// What an earlier process left.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) beginnings: Vec<Beginning>,
    pub(crate) namings: Vec<Naming>,
}

impl Notes {
    pub(crate) fn is_empty(&self) -> bool {
        self.beginnings.is_empty() && self.namings.is_empty()
    }

    /// Each note alone, in order: beginnings before the names of what began.
    pub(crate) fn one_by_one(self) -> impl Iterator<Item = Self> {
        let beginnings = self
            .beginnings
            .into_iter()
            .map(|one| Self { beginnings: vec![one], namings: Vec::new() });
        beginnings.chain(
            self.namings.into_iter().map(|one| Self { beginnings: Vec::new(), namings: vec![one] }),
        )
    }

    fn read(text: &[u8]) -> Self {
        let mut notes = Self::default();
        for line in text.split(|byte| *byte == b'\n') {
            if let Ok(beginning) = serde_json::from_slice(line) {
                notes.beginnings.push(beginning);
            } else if let Ok(naming) = serde_json::from_slice(line) {
                notes.namings.push(naming);
            }
        }
        notes
    }
}

/// The file, held by this process alone.
#[derive(Debug)]
pub(crate) struct Births {
    file: File,
    /// Appending is shared, emptying is not.
    emptying: RwLock<()>,
    /// Appended and not yet in the database.
    waiting: AtomicUsize,
    bytes: AtomicU64,
}

/// Why a journal can't be had.
#[derive(Debug)]
pub(crate) enum Taken {
    /// Another process has it.
    InUse,
    Failed(io::Error),
}

impl Births {
    /// Opens the file and reads what an earlier process left in it. Call [`Births::empty`] once that is in the database.
    pub(crate) fn open(path: &Path) -> Result<(Self, Notes), Taken> {
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
        let left = Notes::read(&text);
        let bytes = AtomicU64::new(count(text.len()));
        Ok((Self { file, emptying: RwLock::new(()), waiting: AtomicUsize::new(0), bytes }, left))
    }

    /// Notes a beginning, `setup` being JSON. Returns at once.
    pub(crate) fn append(&self, node_id: &str, born: Timestamp, setup: &str) -> io::Result<()> {
        let (node_id, born) = (serde_json::to_string(node_id)?, born.micros());
        self.note(&format!("{{\"node_id\":{node_id},\"born\":{born},\"setup\":{setup}}}"))
    }

    /// Notes a call's name. Returns at once.
    pub(crate) fn append_name(
        &self,
        call: CallUuid,
        wacid: &Wacid,
        farewell: Timestamp,
    ) -> io::Result<()> {
        let (call, wacid) = (serde_json::to_string(&call)?, serde_json::to_string(wacid)?);
        let farewell = farewell.micros();
        self.note(&format!("{{\"call\":{call},\"wacid\":{wacid},\"farewell\":{farewell}}}"))
    }

    fn note(&self, json: &str) -> io::Result<()> {
        // A line of its own, whatever was cut short before it.
        let line = format!("\n{json}\n");
        let _shared = self.emptying.read().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_add(1, Ordering::AcqRel);
        self.bytes.fetch_add(count(line.len()), Ordering::AcqRel);
        (&self.file).write_all(line.as_bytes())
    }

    /// So many of those appended are in the database now, or never will be.
    pub(crate) fn done(&self, notes: usize) -> io::Result<()> {
        let before = self.waiting.fetch_sub(notes, Ordering::AcqRel);
        if before > notes || self.bytes.load(Ordering::Acquire) < TIDY_BYTES {
            return Ok(());
        }
        self.empty()
    }

    /// Lets go of the file: another process may have it.
    pub(crate) fn release(&self) -> io::Result<()> {
        self.file.unlock()
    }

    /// Empties the file, unless something in it still waits.
    pub(crate) fn empty(&self) -> io::Result<()> {
        self.emptied().map(drop)
    }

    /// The same; whether it is empty now.
    pub(crate) fn emptied(&self) -> io::Result<bool> {
        let _alone = self.emptying.write().unwrap_or_else(PoisonError::into_inner);
        if self.waiting.load(Ordering::Acquire) > 0 {
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
