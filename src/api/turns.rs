//! The order in which long lists are read: exports with all records of an account, and lists with
//! long texts.

use tokio::sync::{Semaphore, SemaphorePermit};

static TURNS: Semaphore = Semaphore::const_new(1);

/// Number of records that an export reads in a turn.
pub(crate) const RECORDS_PER_TURN: u32 = 250;

/// Waits for the turn to read and format the next records of a long list. One list at a time has it
/// in this process, so that long lists leave the store and the processors to other requests. Drop
/// it before the records are sent: the client may be slow.
pub(crate) async fn next() -> Option<SemaphorePermit<'static>> {
    // The semaphore is never closed.
    TURNS.acquire().await.ok()
}
