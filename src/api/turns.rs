//! The order of work that takes milliseconds: to read exports, lists with long texts and counts over
//! many records, to check a document, to evaluate an event log.

use tokio::sync::{Semaphore, SemaphorePermit};

static TURNS: Semaphore = Semaphore::const_new(1);

/// Number of records that an export reads in a turn.
pub(crate) const RECORDS_PER_TURN: u32 = 250;

/// Waits for the turn to do the next part of such work. One request at a time has it in this
/// process, so that the store and the processors are left to other requests. Drop it before anything
/// is sent: the client may be slow.
pub(crate) async fn next() -> Option<SemaphorePermit<'static>> {
    // The semaphore is never closed.
    TURNS.acquire().await.ok()
}
