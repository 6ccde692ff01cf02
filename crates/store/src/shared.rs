//! The parts of an open store that all handles share.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use model::{CallUuid, PhoneNumberId, Wacid};
use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;

use crate::database::Database;
use crate::queue::Queue;
use crate::seal::Seal;
use crate::sql::Pool;

/// The parts of an open store that all handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Connections for reading.
    pub(crate) read: Pool,
    /// Permits for lookups of sessions and users for requests that may not be authenticated. They
    /// take only some of the connections, so that a flood of them delays neither calls nor messages.
    pub(crate) unauthenticated: Semaphore,
    /// The queue of all writes.
    pub(crate) queue: Queue,
    pub(crate) seal: Arc<Seal>,
    pub(crate) database: Database,
    /// The folder of the journal.
    pub(crate) folder: PathBuf,
    /// The process's run, once it is a member of a fleet.
    pub(crate) run: Arc<OnceLock<Uuid>>,
    /// The receiver of [`Store::take_withdrawn`](crate::Store::take_withdrawn).
    pub(crate) withdrawn: Mutex<Option<mpsc::Receiver<CallUuid>>>,
    /// See [`Store::take_left_calls`](crate::Store::take_left_calls).
    pub(crate) left_calls: Mutex<Vec<(PhoneNumberId, Wacid)>>,
}
