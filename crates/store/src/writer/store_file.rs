//! Detects that the SQLite file was moved, deleted or replaced. SQLite would continue to write to
//! the old file, and that data would be lost. The writer checks this before each transaction.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::files::naming;
use crate::migrate;
use crate::sql::connect::READERS;
use crate::sql::{Conn, Pool};

/// The path of the SQLite file and the identity of the file that is open.
#[derive(Debug)]
pub(crate) struct StoreFile {
    path: PathBuf,
    opened: (u64, u64),
    /// The pool of connections for reading.
    readers: Pool,
    /// Held while the readers' connections are being replaced.
    reopening: Arc<Mutex<()>>,
}

impl StoreFile {
    /// Records the identity of the file that was just opened.
    ///
    /// # Errors
    /// Fails on I/O errors.
    pub(crate) fn new(path: PathBuf, readers: Pool) -> std::io::Result<Self> {
        let opened = Self::identity(&path)?;
        Ok(Self { path, opened, readers, reopening: Arc::default() })
    }

    fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
        std::fs::metadata(path).map(|file| (file.dev(), file.ino()))
    }

    /// Makes sure that the writer's connection, in `held` or in the pool, belongs to the file that
    /// is now at the path. A replacement file is migrated as at the start.
    ///
    /// # Errors
    /// Fails if the file is missing or is not a store.
    pub(crate) async fn check(
        &mut self,
        pool: &Pool,
        held: &mut Option<Conn>,
    ) -> Result<(), sqlx::Error> {
        let there =
            Self::identity(&self.path).map_err(|e| sqlx::Error::Io(unusable(&self.path, e)))?;
        if there == self.opened {
            return Ok(());
        }
        // The pool opens its next connection to the present file.
        let old = match held.take() {
            Some(held) => held,
            None => pool.acquire().await?,
        };
        let _ = old.close().await;
        let migrated = migrate::migrate(&(&self.path).into(), pool).await;
        migrated.map_err(|e| sqlx::Error::Io(std::io::Error::other(e.to_string())))?;
        self.opened = there;
        tokio::spawn(reopen_readers(self.readers.clone(), self.reopening.clone()));
        tracing::warn!("database file was replaced, using the new one");
        Ok(())
    }
}

/// Names the file in the error of a look at it. For a file that is gone, the error has the remedy.
fn unusable(path: &Path, error: std::io::Error) -> std::io::Error {
    if error.kind() != ErrorKind::NotFound {
        return naming(path, error);
    }
    let what = format!(
        "{} was moved or deleted while the node runs: move it back with its -wal and -shm files, or stop the node and \
         restore a backup before its next start (docs/operations.md#when-the-store-cannot-be-written)",
        path.display()
    );
    std::io::Error::new(ErrorKind::NotFound, what)
}

/// Closes the readers' connections, each when it becomes idle. The pool opens new ones to the
/// present file.
async fn reopen_readers(readers: Pool, turn: Arc<Mutex<()>>) {
    let _turn = turn.lock().await;
    // All are held until the end. If one was given back in between, it could be acquired again in
    // place of another one.
    let (mut held, mut wanted) = (Vec::new(), READERS);
    while wanted > 0 {
        match readers.acquire().await {
            Ok(connection) => {
                held.push(connection);
                wanted -= 1;
            }
            // A reader holds its connection for a long time.
            Err(sqlx::Error::PoolTimedOut) => {}
            // The store is closing, or the file is missing. No connection remains in either case.
            Err(_) => break,
        }
    }
    for connection in held {
        let _ = connection.close().await;
    }
}
