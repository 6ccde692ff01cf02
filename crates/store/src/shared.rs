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
    /// Everything is written through this queue.
    pub(crate) queue: Queue,
    pub(crate) seal: Arc<Seal>,
    pub(crate) database: Database,
}
