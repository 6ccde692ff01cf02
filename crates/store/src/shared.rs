//! The parts of an open store that all handles share.

use std::sync::Arc;

use crate::database::Database;
use crate::queue::Queue;
use crate::seal::Seal;
use crate::sql::Pool;

/// The parts of an open store that all handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Connections for reading.
    pub(crate) read: Pool,
    /// The queue of all writes.
    pub(crate) queue: Queue,
    pub(crate) seal: Arc<Seal>,
    pub(crate) database: Database,
}
