//! The order in which exports are read. An export is a file with all records of an account that
//! match a filter. It is written while the client reads it.

use tokio::sync::{Semaphore, SemaphorePermit};

static TURNS: Semaphore = Semaphore::const_new(1);

/// Number of records that an export reads in a turn.
pub(crate) const RECORDS_PER_TURN: u32 = 250;

/// Waits for the turn of an export to read and format its next records. One export at a time does
/// so in this process, so that long ones leave the store and the processors to other requests. Drop
/// the turn before the records are sent: the client may be slow.
pub(crate) async fn turn() -> Option<SemaphorePermit<'static>> {
    // The semaphore is never closed.
    TURNS.acquire().await.ok()
}
