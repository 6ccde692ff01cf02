//! Backup of a SQLite store while a node writes to it.
//!
//! `VACUUM INTO` writes the copy to a temporary file. The copy is checked, synced, and only then
//! renamed to its final name. It is read in one transaction, so it holds exactly the data committed
//! before that. Calls in the pending log, which may have been reported already, are added to it.
//! Writes in the journal are only counted.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::migrate;
use crate::pending_log::PendingEntries;
use crate::seal::Seal;
use crate::sql;
use crate::sql::connect;
use crate::store::pending_log_of;
use crate::writer::journal::journal_entries;
use crate::writer::pending::insert_pending;

/// Summary of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backup {
    pub bytes: u64,
    /// Number of calls in the backup that have ended. `open` is the number without an end.
    pub ended: u64,
    pub open: u64,
    /// Version of the newest migration in the copy.
    pub schema: i64,
    /// Number of writes that waited in the journal because the database rejected them. The copy
    /// lacks them.
    pub missing: u64,
}

/// The reason why a backup failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("there is no store at {}", .0.display())]
    NoStore(PathBuf),
    #[error("could not write {}: the file exists; name another file, or move it away", .0.display())]
    Exists(PathBuf),
    #[error("could not {what} {}: {source}", file.display())]
    File {
        what: &'static str,
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("could not {what} {}: {source}", file.display())]
    Store {
        what: &'static str,
        file: PathBuf,
        #[source]
        source: sqlx::Error,
    },
    #[error("could not verify the copy {}: the integrity check reports {found:?}; check the disk, and the store with sqlite3", file.display())]
    Damaged { file: PathBuf, found: String },
}

/// Copies the store in `file`, whose journal is in `data_dir`, to `out`, which must not exist.
/// Readers and the writer of `file` can continue during the copy.
///
/// # Errors
/// Fails if the store does not exist, if `out` exists, if the disk is full, or if the copy fails
/// its integrity check. No file is left behind then.
pub async fn backup(file: &Path, data_dir: &Path, out: &Path) -> Result<Backup, BackupError> {
    match file.metadata() {
        Ok(about) if about.is_file() => {}
        Err(source) if source.kind() != ErrorKind::NotFound => {
            return Err(BackupError::File { what: "read", file: file.to_owned(), source });
        }
        Ok(_) | Err(_) => return Err(BackupError::NoStore(file.to_owned())),
    }
    if out.exists() {
        return Err(BackupError::Exists(out.to_owned()));
    }
    let part = PartialFile::new(out)?;
    let log = pending_log_of(file);
    // Entries that have left the log are in the store before it is copied.
    let pending = PendingEntries::of_running_process(&log).map_err(|source| {
        let what = "read the calls that are not in the store yet from";
        BackupError::File { what, file: log, source }
    })?;
    // Writes move from the pending log to the journal, and from there to the database. Read in this
    // order, none is missed.
    let missing = journal_entries(data_dir).map_err(|source| BackupError::File {
        what: "read the journal in",
        file: data_dir.to_owned(),
        source,
    })?;
    copy(file, &part.0).await?;
    if !pending.is_empty() {
        add_pending(data_dir, &part.0, &pending).await?;
    }
    let found = check(&part.0).await?;
    let failed = |what| move |source| BackupError::File { what, file: out.to_owned(), source };
    let copied = std::fs::File::open(&part.0).map_err(failed("sync"))?;
    copied.sync_all().map_err(failed("sync"))?;
    std::fs::rename(&part.0, out).map_err(failed("rename the copy to"))?;
    let folder = out.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder).and_then(|f| f.sync_all()).map_err(failed("sync the folder of"))?;
    let bytes = copied.metadata().map_err(failed("read the size of"))?.len();
    Ok(Backup { bytes, missing, ..found })
}

/// The file that the copy is written to. It is removed on drop unless it was renamed.
struct PartialFile(PathBuf);

impl PartialFile {
    /// Creates an empty file with mode 0600 in the folder of `out`. SQLite keeps a file's mode.
    fn new(out: &Path) -> Result<Self, BackupError> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut name = out.file_name().unwrap_or_default().to_owned();
        name.push(format!(".part-{}", std::process::id()));
        let part = out.with_file_name(name);
        match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part) {
            Ok(_) => Ok(Self(part)),
            Err(source) => Err(BackupError::File { what: "write", file: part, source }),
        }
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn copy(file: &Path, part: &Path) -> Result<(), BackupError> {
    let failed = |what| move |source| BackupError::Store { what, file: file.to_owned(), source };
    let from = connect::sqlite(file, true).map_err(failed("open the store"))?;
    // SQL text can't hold a path that is not UTF-8.
    let into = part.to_str().ok_or_else(|| BackupError::File {
        what: "write",
        file: part.to_owned(),
        source: std::io::Error::other("the name is not UTF-8"),
    })?;
    let copied = sql::query("VACUUM INTO $1").bind(into).execute(&from).await;
    from.close().await;
    copied.map(drop).map_err(failed("copy the store"))
}

/// Writes calls of the pending log to the copy, unless it has them.
async fn add_pending(
    data_dir: &Path,
    part: &Path,
    pending: &PendingEntries,
) -> Result<(), BackupError> {
    let what = "add the calls that are not in the store yet to";
    let failed = |source| BackupError::Store { what, file: part.to_owned(), source };
    // Without the node's key, sealed parameters are copied as they are.
    let seal = Seal::read_only(None, data_dir).map_err(|e| failed(sqlx::Error::Io(e)))?;
    let copy = connect::sqlite(part, false).map_err(failed)?;
    let added = insert_pending(&copy, &seal, pending).await;
    copy.close().await;
    added.map_err(failed)
}

/// Checks the integrity of the copy and counts its calls.
async fn check(part: &Path) -> Result<Backup, BackupError> {
    let failed =
        |source| BackupError::Store { what: "check the copy", file: part.to_owned(), source };
    let copy = connect::sqlite_copy(part).map_err(failed)?;
    let found: String =
        sql::query_scalar("PRAGMA integrity_check(1)").fetch_one(&copy).await.map_err(failed)?;
    if found != "ok" {
        return Err(BackupError::Damaged { file: part.to_owned(), found });
    }
    let count = "SELECT count(ended_us), count(*) - count(ended_us) FROM calls";
    let (ended, open): (i64, i64) = sql::query_as(count).fetch_one(&copy).await.map_err(failed)?;
    let schema = sql::query_scalar(migrate::SCHEMA).fetch_one(&copy).await.map_err(failed)?;
    copy.close().await;
    let count = |n| u64::try_from(n).unwrap_or_default();
    Ok(Backup { bytes: 0, missing: 0, ended: count(ended), open: count(open), schema })
}
