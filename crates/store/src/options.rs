use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::sql::connect::BUSY;
use model::Secret;

/// A part of the store in which a test can inject failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorePart {
    Store,
    Journal,
}

/// Called before each attempt to write to the part. Returns `true` if the attempt must fail. For
/// tests.
pub type FaultInjector = Arc<dyn Fn(StorePart) -> bool + Send + Sync>;

/// Options of [`Store::open_with`](crate::Store::open_with).
#[derive(Clone)]
pub struct StoreOptions {
    /// Folder of the journal and the key file (`store.data_dir`).
    pub journal: PathBuf,
    /// Secret from which the encryption key is derived. If `None`, the key file is used.
    pub secret_key: Option<Secret>,
    /// Time that a statement waits for the lock of another process.
    pub busy: Duration,
    pub fail: Option<FaultInjector>,
}

impl StoreOptions {
    /// The default options, with the journal in this folder.
    pub fn with_journal_in(folder: impl Into<PathBuf>) -> Self {
        Self { journal: folder.into(), secret_key: None, busy: BUSY, fail: None }
    }
}
