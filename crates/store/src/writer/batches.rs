//! Numbers the batches of a process of a fleet.
//!
//! Each batch counts up the process's row in `run_batches`, in its own transaction. The row has two
//! uses:
//!
//! - A failover keeps a prefix of the commits. On a new connection, the writer compares the row with
//!   the number of its last batch, and executes the batches again that the database has lost.
//! - Other nodes delete the row of a process that they have declared dead, before they end its
//!   calls. From then on, the process writes nothing, even if it does not know that it is dead.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::seal::Seal;
use crate::sql::errors::is_data_error;
use crate::sql::{self, Conn};
use crate::write::Write;
use crate::writer::batch::write_batch;
use crate::writer::journal_entry::Entry;
use model::{Clock, metric};

/// Time for which executed batches are kept. A failover loses less.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// Maximum size in bytes of the kept batches.
const KEPT_BYTES: usize = 64 << 20;

/// Approximate size in bytes of an entry without its long texts.
const ENTRY_BYTES: usize = 512;

/// The batches of this process. Outside a fleet, they have no numbers and are not kept.
pub(crate) struct Batches {
    run: Arc<OnceLock<Uuid>>,
    clock: Clock,
    /// The number of the last batch that was committed.
    last: i64,
    kept: VecDeque<KeptBatch>,
    /// The batches that the database has lost and that are not written again yet.
    lost: VecDeque<KeptBatch>,
    /// Size of the kept and lost batches.
    bytes: usize,
    is_fenced: bool,
}

/// A committed batch: those of its writes that can be executed again.
struct KeptBatch {
    number: i64,
    at: Instant,
    bytes: usize,
    entries: Vec<Entry>,
}

/// The number of a batch that is being written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NextBatch {
    run: Uuid,
    last: i64,
}

/// The reason why a batch got no number.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BatchRefused {
    #[error("this process was declared dead by another node")]
    Dead,
    #[error("the database has lost the row of this process")]
    NoRow,
    #[error("the database has lost the last batches of this process")]
    Behind,
}

impl From<BatchRefused> for sqlx::Error {
    fn from(refused: BatchRefused) -> Self {
        Self::Io(std::io::Error::other(refused))
    }
}

impl NextBatch {
    /// Counts up the process's row. Returns the number of this batch.
    pub(crate) async fn begin(self, to: &mut Conn) -> Result<i64, sqlx::Error> {
        let next = "UPDATE run_batches SET batch = batch + 1 WHERE run = $1::uuid RETURNING batch";
        let next = sql::query_scalar(next).bind(self.run.to_string());
        match next.fetch_optional(&mut *to).await? {
            Some(number) if number > self.last => Ok(number),
            Some(_) => Err(BatchRefused::Behind.into()),
            None => Err(no_row(to, self.run).await?.into()),
        }
    }
}

/// Returns why a process has no row.
async fn no_row(to: &mut Conn, run: Uuid) -> Result<BatchRefused, sqlx::Error> {
    let state = "SELECT state FROM runs WHERE run = $1::uuid";
    let state: Option<String> =
        sql::query_scalar(state).bind(run.to_string()).fetch_optional(to).await?;
    let state = state.and_then(|state| fleet::RunState::parse(&state));
    Ok(match state.is_some_and(|state| !state.is_member()) {
        true => BatchRefused::Dead,
        false => BatchRefused::NoRow,
    })
}

impl Batches {
    /// `run` is set once the process is a member of a fleet.
    pub(crate) fn new(run: Arc<OnceLock<Uuid>>) -> Self {
        let (clock, kept, lost) = (Clock::real(), VecDeque::new(), VecDeque::new());
        Self { run, clock, last: 0, kept, lost, bytes: 0, is_fenced: false }
    }

    /// Whether other nodes have declared this process dead, so that it writes nothing.
    pub(crate) fn is_fenced(&self) -> bool {
        self.is_fenced
    }

    /// Examines the error of a transaction.
    pub(crate) fn failed(&mut self, error: &sqlx::Error) {
        let sqlx::Error::Io(error) = error else { return };
        let refused = error.get_ref().and_then(|refused| refused.downcast_ref::<BatchRefused>());
        self.is_fenced |= matches!(refused, Some(BatchRefused::Dead));
    }

    /// Returns the number of the next batch. `None` outside a fleet.
    pub(crate) fn next(&self) -> Option<NextBatch> {
        self.run.get().map(|run| NextBatch { run: *run, last: self.last })
    }

    /// Keeps a committed batch.
    pub(crate) fn committed(&mut self, number: Option<i64>, writes: &[Write], seal: &Seal) {
        let Some(number) = number else { return };
        self.last = number;
        let entries: Vec<Entry> =
            writes.iter().filter_map(|write| Entry::of(write, seal)).collect();
        let bytes = entries.iter().map(size_of_entry).sum();
        let at = self.clock.now();
        self.kept.push_back(KeptBatch { number, at, bytes, entries });
        self.bytes += bytes;
        let is_old = |batch: &KeptBatch| at.saturating_duration_since(batch.at) > KEPT_FOR;
        while let Some(first) = self.kept.front()
            && (is_old(first) || self.bytes > KEPT_BYTES)
        {
            self.bytes -= first.bytes;
            self.kept.pop_front();
        }
    }

    /// Executes the batches again that the database of a new connection lacks.
    pub(crate) async fn catch_up(&mut self, to: &mut Conn, seal: &Seal) -> Result<(), sqlx::Error> {
        let Some(run) = self.run.get().copied().filter(|_| self.last > 0) else { return Ok(()) };
        let found = "SELECT batch FROM run_batches WHERE run = $1::uuid";
        let found = sql::query_scalar(found).bind(run.to_string());
        let Some(found): Option<i64> = found.fetch_optional(&mut *to).await? else {
            return Err(no_row(to, run).await?.into());
        };
        if found < self.last {
            let mut lost = self.kept.split_off(self.kept.partition_point(|b| b.number <= found));
            let (batches, known) = (self.last - found, lost.len());
            tracing::warn!(batches, known, "the database has lost batches, writing them again");
            lost.append(&mut self.lost);
            (self.lost, self.last) = (lost, found);
        }
        let mut replayed = 0;
        while let Some(batch) = self.lost.front_mut() {
            self.last = batch.execute(to, seal, NextBatch { run, last: self.last }).await?;
            self.kept.extend(self.lost.pop_front());
            replayed += 1;
        }
        metrics::counter!(metric::REPLAYED_TOTAL).increment(replayed);
        Ok(())
    }
}

impl KeptBatch {
    /// Executes the batch again. Returns its new number.
    async fn execute(
        &mut self,
        to: &mut Conn,
        seal: &Seal,
        next: NextBatch,
    ) -> Result<i64, sqlx::Error> {
        let write = |entry: &Entry| entry.clone().into_write(seal);
        let writes: Vec<Write> = self.entries.iter().map(write).collect();
        let mut written = write_batch(to, seal, Some(next), &writes).await;
        if written.as_ref().is_err_and(is_data_error) {
            // The data has changed since. The other writes of the batch are still of use.
            sql::query("ROLLBACK").execute(&mut *to).await?;
            for one in &writes {
                written = write_batch(to, seal, Some(next), std::slice::from_ref(one)).await;
                if let Err(error) = &written
                    && is_data_error(error)
                {
                    metrics::counter!(metric::STORE_ERRORS_TOTAL).increment(1);
                    tracing::error!(%error, "write of a lost batch rejected by the database");
                    sql::query("ROLLBACK").execute(&mut *to).await?;
                    written = write_batch(to, seal, Some(next), &[]).await;
                }
                if written.is_err() {
                    break;
                }
            }
        }
        self.number = written?.number.unwrap_or(self.number);
        Ok(self.number)
    }
}

/// Returns the approximate size of an entry in bytes.
fn size_of_entry(entry: &Entry) -> usize {
    ENTRY_BYTES
        + match entry {
            Entry::CallStarted { setup, .. } => setup.len(),
            Entry::LogLine { line, .. } | Entry::LateLine { line, .. } => line.len(),
            Entry::CallEnded { callbacks, .. } | Entry::RecordingEnded { callbacks, .. } => {
                callbacks.len() * 2 * ENTRY_BYTES
            }
            Entry::Callback { .. } | Entry::Message { .. } | Entry::MessageStatus { .. } => {
                2 * ENTRY_BYTES
            }
            Entry::SetWacid { .. }
            | Entry::CallAnswered { .. }
            | Entry::Heartbeat { .. }
            | Entry::SettleFarewell { .. }
            | Entry::Permission { .. }
            | Entry::RecordingStarted { .. }
            | Entry::InsertKey { .. } => 0,
        }
}
