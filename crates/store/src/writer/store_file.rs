//! The store's file as the file system has it: SQLite goes on writing one that was moved away or deleted, and nobody
//! would ever see that again. So it is looked at before each transaction.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::migrate;
use crate::sql::connect::READERS;
use crate::sql::{Conn, Pool};

/// The file, and which one it was when it was opened.
#[derive(Debug)]
pub(crate) struct StoreFile {
    path: PathBuf,
    opened: (u64, u64),
    /// The readers' connections.
    readers: Pool,
    /// One at a time sees to it that they are to the file that is there.
    renewing: Arc<Mutex<()>>,
}

impl StoreFile {
    /// The file that was just opened.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn opened(path: PathBuf, readers: Pool) -> std::io::Result<Self> {
        let opened = Self::at(&path)?;
        Ok(Self { path, opened, readers, renewing: Arc::default() })
    }

    fn at(path: &PathBuf) -> std::io::Result<(u64, u64)> {
        std::fs::metadata(path).map(|file| (file.dev(), file.ino()))
    }

    /// Sees to it that the pool's one connection, `held` or not, is one to the file that is there now. A file that was put
    /// back is brought up to date like any that is opened.
    ///
    /// # Errors
    /// There is none, or it is no store.
    pub(crate) async fn check(
        &mut self,
        pool: &Pool,
        held: &mut Option<Conn>,
    ) -> Result<(), sqlx::Error> {
        let there = Self::at(&self.path).map_err(sqlx::Error::Io)?;
        if there == self.opened {
            return Ok(());
        }
        // It is closed, and the next one is to what is there now.
        let old = match held.take() {
            Some(held) => held,
            None => pool.acquire().await?,
        };
        let _ = old.close().await;
        let migrated = migrate::migrate(&(&self.path).into(), pool).await;
        migrated.map_err(|e| sqlx::Error::Io(std::io::Error::other(e.to_string())))?;
        self.opened = there;
        tokio::spawn(renew(self.readers.clone(), self.renewing.clone()));
        tracing::warn!("the store's file is another one than before; it is used from now on");
        Ok(())
    }
}

/// Closes all of the readers' connections, each as soon as it is free; the next ones are to the file that is there now.
async fn renew(readers: Pool, turn: Arc<Mutex<()>>) {
    let _turn = turn.lock().await;
    // All at once: one that is given back in between would be had twice, and another one never.
    let (mut held, mut wanted) = (Vec::new(), READERS);
    while wanted > 0 {
        match readers.acquire().await {
            Ok(connection) => {
                held.push(connection);
                wanted -= 1;
            }
            // Somebody reads for a long time.
            Err(sqlx::Error::PoolTimedOut) => {}
            // The store is being closed, or there is no file: no connection is left either way.
            Err(_) => break,
        }
    }
    for connection in held {
        let _ = connection.close().await;
    }
}
