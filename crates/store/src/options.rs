use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::sql::connect::BUSY;
use model::Secret;

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Store,
    Journal,
}

/// Asked before each try to write; `true`: it fails. For tests.
pub type Fail = Arc<dyn Fn(Part) -> bool + Send + Sync>;

/// How a store is opened.
#[derive(Clone)]
pub struct StoreOptions {
    /// The folder of the journal, and of the key file (`store.data_dir`).
    pub journal: PathBuf,
    /// What the key that seals is made of; `None`: of the key file.
    pub secret_key: Option<Secret>,
    /// How long a statement waits for another process's lock.
    pub busy: Duration,
    pub fail: Option<Fail>,
}

impl StoreOptions {
    /// The usual ones, with the journal in this folder.
    pub fn with_journal_in(folder: impl Into<PathBuf>) -> Self {
        Self { journal: folder.into(), secret_key: None, busy: BUSY, fail: None }
    }
}
