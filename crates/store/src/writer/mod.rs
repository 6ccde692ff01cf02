//! The thread that writes everything in the queue.
//!
//! A batch has at most 2,000 writes, gathered for up to 50 ms, and runs as one transaction. If a
//! caller waits for a result, the batch starts at once. If a callback is sent with the result, it
//! starts 20 ms after the last one, at once if that is longer ago. No caller waits for event log
//! lines. They are written at least every 500 ms, but not with the batches that callers wait for.
//!
//! A transaction rewrites a page of each index, however few rows it has. So on SQLite, there are
//! two transactions a second for writes without a waiting caller, after a burst of four. The
//! callbacks of a call's end don't wait for theirs, unless events of a conversation are among them:
//! the end goes to the [pending log](crate::pending_log) first, which is synced, and the callbacks
//! are sent. Their result usually arrives before the transaction, which then writes both. Readers
//! make the writer catch up first.
//!
//! While the database rejects writes, they go to the journal, and the database is retried every 200
//! ms. Once it accepts writes again, the journal is replayed in order, each entry once. If the
//! journal fails too, the batch waits, the queue fills up and rejects further writes, and `health`
//! reports it. A batch with the end of a call is synced to disk before any caller gets a result. On
//! SQLite, this thread has the only connection that writes, so it never waits for another one's
//! lock.

pub(crate) mod batch;
mod batches;
mod gathered;
mod inbox;
pub(crate) mod journal;
pub(crate) mod journal_entry;
pub(crate) mod pending;
pub(crate) mod rejects;
pub(crate) mod store_file;

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::error::{StoreError, failed};
use crate::options::{FaultInjector, StorePart};
use crate::pending_log::PendingLog;
use crate::queue::{QUEUE, Queue};
use crate::rows::call::ConclusionResult;
use crate::rows::message::InboxResult;
use crate::seal::Seal;
use crate::sql::errors::{is_data_error, is_deadlock};
use crate::sql::{self, Conn, Dialect, Pool};
use crate::wake::Wake;
use crate::write::{InboxWrite, Write, WriteResult};
use crate::writer::batch::{Written, replay_entries, write_batch};
use crate::writer::batches::Batches;
use crate::writer::gathered::GatheredWrites;
use crate::writer::journal::Journal;
use crate::writer::journal_entry::Entry;
use crate::writer::rejects::reject;
use crate::writer::store_file::StoreFile;
use model::{CallUuid, Clock, Health, Repeats, metric};

/// Maximum number of writes in a transaction. This is reached only if the database is slow, and
/// large batches are cheaper per write.
const BATCH: usize = 2_000;

/// Time to gather writes for a batch if no caller waits. A transaction rewrites a page of each
/// index regardless of how few rows it has, so small batches are expensive. If a caller waits, the
/// writes that arrive during a transaction form the next batch.
const GATHER: Duration = Duration::from_millis(50);

/// Minimum time between two batches that callbacks wait for. Otherwise each callback would cause
/// its own transaction.
const SPACING: Duration = Duration::from_millis(20);

/// Minimum time between two syncs of the pending log.
const REPORT_SPACING: Duration = Duration::from_millis(2);

/// Refill interval of the token bucket that limits transactions without waiters.
const TRANSACTION_EVERY: Duration = Duration::from_millis(500);
/// Maximum number of tokens in that bucket.
const TRANSACTIONS_MAX: u32 = 4;

/// Time to gather event log lines. The lines of a call that are written together touch fewer pages.
const GATHER_LINES: Duration = Duration::from_millis(500);

/// Pause between attempts to write a batch.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Time that a statement waits for another process's lock while the journal is in use, or while the
/// store is closing.
const BUSY_WHILE_FAILING: Duration = Duration::from_millis(100);

/// The same for the lock of another node, on PostgreSQL. After an outage, all nodes replay their
/// journals, and each transaction holds its locks until it is committed.
const LOCKED_WHILE_FAILING: Duration = Duration::from_secs(2);

/// Number of journal entries that are replayed in one transaction. The locks of a larger one would
/// be held so long that other nodes give up waiting for them.
const REPLAY_BATCH: usize = 200;

/// Time limits for connecting while the journal is in use, and while the store is closing.
const CONNECT: Duration = Duration::from_secs(1);

const CONNECT_WHILE_CLOSING: Duration = Duration::from_millis(300);

/// Time limit for a transaction on PostgreSQL, in case that the server hangs. It is twice the lock
/// timeout.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Time limit for writing lost batches again.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(60);

/// Maximum number of retries of a batch after a deadlock with another node. Batches lock most of
/// their rows in one order, so deadlocks are rare.
const DEADLOCKS_MAX: u32 = 5;

/// Number of attempts between two syncs of the journal, about one second.
const SYNC_EVERY: u32 = 5;

/// Number of attempts for each batch while the store is closing.
const LAST_TRIES: u32 = 3;

/// The parameters of a writer.
pub(crate) struct WriterOptions {
    pub(crate) pool: Pool,
    /// The database file. `None` on PostgreSQL.
    pub(crate) file: Option<StoreFile>,
    pub(crate) health: Health,
    pub(crate) pending_log: Arc<PendingLog>,
    /// Shared with the queue and the readers.
    pub(crate) wake: Arc<Wake>,
    pub(crate) seal: Arc<Seal>,
    /// Folder of the journal.
    pub(crate) journal: std::path::PathBuf,
    /// Busy timeout that the pool's connections start with.
    pub(crate) busy: Duration,
    pub(crate) fail: Option<FaultInjector>,
    /// The process's run, once it is a member of a fleet.
    pub(crate) run: Arc<OnceLock<Uuid>>,
    /// Reports calls that another node of a fleet has, too.
    pub(crate) withdrawn: mpsc::Sender<CallUuid>,
}

/// The state of the writer thread. See [`run`].
pub(crate) struct Writer {
    options: WriterOptions,
    closing: CancellationToken,
    /// The journal. `None` if it could not be opened.
    journal: Option<Journal>,
    /// Whether the database rejects writes, so that the journal is used.
    failing: bool,
    /// The connection, kept between batches.
    held: Option<Conn>,
    /// The connection's present busy timeout.
    busy_timeout: Duration,
    /// Writes that wait in memory until the database works again, because only this process needs
    /// them. At most one for each callback in delivery.
    deferred: Vec<Write>,
    since_sync: u32,
    batches: Batches,
}

/// Replays the journal of an earlier process, then starts the writer thread.
///
/// SQLite's statements run on this thread and block it. Those of PostgreSQL wake only this thread,
/// not a worker of the shared runtime.
pub(crate) async fn start(options: WriterOptions) -> Result<Queue, StoreError> {
    let (queue, writes) = mpsc::channel(QUEUE);
    let (closing, task) = (CancellationToken::new(), TaskTracker::new());
    let (pending_log, wake) = (options.pending_log.clone(), options.wake.clone());
    let mut writer = Writer::new(options, closing.clone());
    writer.replay_left_journal().await?;
    let runtime = Builder::new_current_thread().enable_all().build().map_err(StoreError::Thread)?;
    let counted = task.token();
    let work = move || {
        runtime.block_on(run(writer, writes));
        drop(runtime);
        drop(counted);
    };
    std::thread::Builder::new().name("store".to_owned()).spawn(work).map_err(StoreError::Thread)?;
    task.close();
    Ok(Queue::new(queue, wake, pending_log, closing, task))
}

/// The limits on how often the writer starts transactions and syncs.
struct Pace {
    /// Ticks when another transaction without waiters is due.
    refill: Interval,
    /// Number of transactions that may start immediately.
    saved: u32,
    /// Ticks when a transaction for callbacks may start.
    spacing: Interval,
    /// Ticks when the pending log may be synced.
    reports: Interval,
}

impl Pace {
    fn new() -> Self {
        let interval = |every| {
            let mut interval = tokio::time::interval(every);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        };
        let mut refill = interval(TRANSACTION_EVERY);
        refill.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let (spacing, reports) = (interval(SPACING), interval(REPORT_SPACING));
        Self { refill, saved: TRANSACTIONS_MAX, spacing, reports }
    }

    /// Returns whether a transaction without waiting callers may start now.
    fn is_due(&mut self) -> bool {
        while self.refill.tick().now_or_never().is_some() {
            self.saved = self.saved.saturating_add(1).min(TRANSACTIONS_MAX);
        }
        self.saved > 0
    }

    fn transaction_done(&mut self) {
        self.saved = self.saved.saturating_sub(1);
        self.spacing.reset();
    }
}

/// The next action of the writer.
enum Step {
    Gather(Write),
    /// Writes the gathered batch. `is_hurried` if a caller waits for it.
    Commit {
        is_hurried: bool,
    },
    End,
}

/// Runs the writer until `writes` is closed, or until it is drained after the store began to close.
pub(crate) async fn run(mut writer: Writer, mut writes: mpsc::Receiver<Write>) {
    let wake = writer.options.wake.clone();
    let mut gathered = GatheredWrites::default();
    let mut pace = Pace::new();
    let unreported = Repeats::default();
    let [mut retry, mut lines_due] = [RETRY_PAUSE, GATHER_LINES].map(tokio::time::interval);
    retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    lines_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let has_batch = !gathered.batch.is_empty();
        let step = tokio::select! {
            biased;
            _ = retry.tick(), if writer.failing => {
                writer.recover().await;
                // An attempt may take longer than the pause. This lets new writes go to the journal
                // before the next attempt.
                retry.reset();
                continue;
            }
            _ = lines_due.tick(), if !gathered.lines.is_empty() => {
                writer.write(&mut gathered.lines).await;
                gathered.lines.clear();
                continue;
            }
            () = wake.now.notified(), if has_batch => Step::Commit { is_hurried: true },
            _ = pace.spacing.tick(), if gathered.is_waited_for => Step::Commit { is_hurried: true },
            _ = pace.refill.tick(), if has_batch => Step::Commit { is_hurried: false },
            first = writes.recv() => first.map_or(Step::End, Step::Gather),
            () = writer.closing.cancelled() => {
                writes.close();
                writes.recv().await.map_or(Step::End, Step::Gather)
            }
        };
        let can_report = writer.can_report_early();
        let mut commit = false;
        let mut is_hurried = !can_report;
        match step {
            Step::End => break,
            Step::Commit { is_hurried: hurried } => {
                commit = true;
                is_hurried |= hurried;
            }
            Step::Gather(first) => {
                gathered.push(first, can_report);
                if writes.len() < BATCH {
                    // Sleeps instead of receiving, so that not every write wakes the thread.
                    let spacing = if can_report { &mut pace.reports } else { &mut pace.spacing };
                    let soon = async {
                        wake.soon.notified().await;
                        spacing.tick().await;
                    };
                    tokio::select! {
                        () = wake.now.notified() => (commit, is_hurried) = (true, true),
                        () = soon => {}
                        () = tokio::time::sleep(GATHER) => {}
                        () = writer.closing.cancelled() => {}
                    }
                }
            }
        }
        while gathered.batch.len() < BATCH
            && let Ok(write) = writes.try_recv()
        {
            gathered.push(write, can_report);
        }
        let flushes = gathered.batch.iter().any(|write| matches!(write, Write::Flush(_)));
        let is_full = gathered.batch.len().max(gathered.lines.len()) >= BATCH;
        if gathered.batch.is_empty() && !is_full {
            continue;
        }
        commit |= !can_report
            || is_full
            || pace.is_due()
            || (gathered.is_waited_for && pace.spacing.tick().now_or_never().is_some());
        if !commit {
            match writer.report_early(&mut gathered) {
                Ok(()) => {
                    pace.reports.reset();
                    continue;
                }
                Err(error) => {
                    if let Some(failed) = unreported.count(Clock::default().now()) {
                        tracing::warn!(%error, failed, "ends of calls not appended to the pending log");
                    }
                }
            }
        }
        let with_lines = is_full || flushes || !(is_hurried || gathered.is_waited_for);
        writer.commit(&mut gathered, with_lines).await;
        pace.transaction_done();
        if with_lines {
            lines_due.reset();
        }
    }
    writer.commit(&mut gathered, true).await;
    writer.close().await;
}

impl Writer {
    pub(crate) fn new(options: WriterOptions, closing: CancellationToken) -> Self {
        let busy_timeout = options.busy;
        let batches = Batches::new(options.run.clone());
        Self {
            batches,
            options,
            closing,
            journal: None,
            failing: false,
            held: None,
            busy_timeout,
            deferred: Vec::new(),
            since_sync: 0,
        }
    }

    /// Replays the journal at the start. If the journal can't be opened, the store works without it
    /// and tries again when it is needed.
    pub(crate) async fn replay_left_journal(&mut self) -> Result<(), StoreError> {
        match self.with_journal(|_| Ok(())).await {
            Ok(()) => {
                let replayed = self.replay().await.map_err(failed("replay the journal"))?;
                if replayed > 0 {
                    tracing::warn!(entries = replayed, "journal replayed");
                }
            }
            Err(e) => {
                tracing::warn!(error = %e, "journal not opened; writes will be lost if the database fails")
            }
        }
        Ok(())
    }

    /// Returns whether ends of calls may be reported before they are in the database. On PostgreSQL
    /// they may not: the database may outlive this process's disk, and other nodes end the calls of
    /// a lost node.
    fn can_report_early(&self) -> bool {
        self.options.file.is_some() && !self.failing && !self.closing.is_cancelled()
    }

    /// Syncs the pending log, including the ends of calls that need not wait for the database, and
    /// reports these.
    fn report_early(&self, gathered: &mut GatheredWrites) -> std::io::Result<()> {
        if !gathered.needs_sync() {
            return Ok(());
        }
        let entry = |write| Entry::of(write, &self.options.seal);
        let ends: Vec<Entry> = gathered.reportable().filter_map(entry).collect();
        self.options.pending_log.append_ends(&ends)?;
        if !ends.is_empty() {
            self.options.wake.is_behind.send_replace(true);
        }
        gathered.report();
        Ok(())
    }

    /// Writes the batch, and marks its calls as done in the pending log.
    async fn commit(&mut self, gathered: &mut GatheredWrites, with_lines: bool) {
        let mut batch = gathered.take();
        if with_lines {
            batch.append(&mut gathered.lines);
        }
        if batch.is_empty() {
            return;
        }
        let starts = batch
            .iter()
            .filter(|write| matches!(write, Write::CallStarted(_) | Write::SetWacid(..)))
            .count();
        self.write(&mut batch).await;
        self.options.wake.is_behind.send_if_modified(std::mem::take);
        // If writes are left, the batch was abandoned. The next process finds these calls in the
        // pending log.
        if batch.is_empty()
            && let Err(error) = self.options.pending_log.mark_done(starts)
        {
            tracing::warn!(%error, "pending log not emptied");
        }
    }

    /// Writes the batch to the database or the journal. Stops trying only while the store is
    /// closing.
    async fn write(&mut self, batch: &mut Vec<Write>) {
        if !self.failing {
            match self.write_to_database(batch).await {
                Ok(()) => return,
                Err(e) => self.database_failed(e),
            }
        }
        let mut last_tries = LAST_TRIES;
        loop {
            if self.batches.is_fenced() {
                // The other nodes have ended the calls of this process, which ends soon.
                tracing::error!(
                    writes = batch.len(),
                    "declared dead by another node, writing nothing"
                );
                batch.clear();
                return;
            }
            match self.write_to_journal(batch).await {
                Ok(()) => {
                    self.set_broken(false);
                    return;
                }
                Err(e) => {
                    metrics::counter!(metric::STORE_ERRORS_TOTAL).increment(1);
                    if !self.options.health.is_store_broken() {
                        tracing::error!(error = %e, "neither database nor journal accepts writes, refusing new calls");
                    }
                    self.set_broken(true);
                    batch.retain(|write| !write.needs_database());
                }
            }
            if self.closing.is_cancelled() {
                last_tries -= 1;
                if last_tries == 0 {
                    tracing::error!(writes = batch.len(), "store closed with unwritten records");
                    return;
                }
            }
            tokio::time::sleep(RETRY_PAUSE).await;
            if self.recover().await {
                match self.write_to_database(batch).await {
                    Ok(()) => return,
                    Err(e) => self.database_failed(e),
                }
            }
        }
    }

    /// Reports whether neither the database nor the journal accepts writes.
    fn set_broken(&self, is_broken: bool) {
        self.options.health.set_store_broken(is_broken);
        self.options.wake.is_broken.store(is_broken, Ordering::Relaxed);
    }

    /// Writes the batch to the database and completes its waiters.
    ///
    /// If the database rejects the data of a write, that write is found by halving the batch, and
    /// goes to the rejects file. If the database itself fails, `batch` keeps the writes that are
    /// left.
    async fn write_to_database(&mut self, batch: &mut Vec<Write>) -> Result<(), sqlx::Error> {
        let (mut size, mut deadlocks) = (batch.len(), 0);
        while !batch.is_empty() {
            let rest = batch.split_off(size.min(batch.len()));
            match self.transaction(batch).await {
                Ok(written) => {
                    complete(batch, written.results);
                    size = size.saturating_mul(2);
                }
                Err(e) if is_data_error(&e) && batch.len() == 1 => {
                    let entry =
                        batch.first().and_then(|write| Entry::of(write, &self.options.seal));
                    if let Err(e) = self.reject(entry, e).await {
                        batch.extend(rest);
                        return Err(e);
                    }
                    // Callers are answered as for a journaled write. For the kinds that are never
                    // journaled, they get an error.
                    batch.drain(..).for_each(|write| drop(complete_journalled(write)));
                }
                Err(e) if is_data_error(&e) => size = batch.len() / 2,
                // Another node was given the locks. It needs no more than the next transaction.
                Err(e) if is_deadlock(&e) && deadlocks < DEADLOCKS_MAX => {
                    deadlocks += 1;
                    metrics::counter!(metric::STORE_ERRORS_TOTAL).increment(1);
                    tracing::debug!(error = %e, "transaction rolled back, trying again");
                }
                Err(e) => {
                    batch.extend(rest);
                    return Err(e);
                }
            }
            batch.extend(rest);
        }
        Ok(())
    }

    async fn reject(&self, entry: Option<Entry>, error: sqlx::Error) -> Result<(), sqlx::Error> {
        let folder = self.options.journal.clone();
        let done = tokio::task::spawn_blocking(move || reject(&folder, entry.as_ref(), &error));
        done.await.map_err(std::io::Error::other).flatten().map_err(sqlx::Error::Io)
    }

    /// Logs a failed transaction and switches to the journal.
    fn database_failed(&mut self, e: sqlx::Error) {
        self.batches.failed(&e);
        let e = failed("write call records")(e);
        if self.failing {
            tracing::debug!(error = %e, "database still rejects writes");
        } else {
            tracing::warn!(error = %e, "database rejects writes, using the journal");
        }
        self.set_failing(true);
    }

    fn set_failing(&mut self, failing: bool) {
        self.failing = failing;
        self.options.wake.is_journalling.send_replace(failing);
    }

    /// Appends the batch to the journal and completes its waiters.
    async fn write_to_journal(&mut self, batch: &mut Vec<Write>) -> std::io::Result<()> {
        if self.options.fail.as_ref().is_some_and(|fail| fail(StorePart::Journal)) {
            return Err(std::io::Error::other("simulated failure"));
        }
        let room_for_lines = self.journal.as_ref().is_none_or(Journal::has_room_for_lines);
        let mut dropped_lines = 0;
        let mut entries = Vec::with_capacity(batch.len());
        for write in batch.iter() {
            if matches!(write, Write::LogLine { .. } | Write::LateLine { .. }) && !room_for_lines {
                dropped_lines += 1;
            } else if let Some(entry) = Entry::of(write, &self.options.seal) {
                // Entries always serialize.
                entries.push(serde_json::to_string(&entry).unwrap_or_default());
            }
        }
        let folder = self.options.journal.clone();
        let append = move |journal: &mut Journal| {
            if journal.is_deleted() {
                journal.write_again(&folder)?;
            }
            journal.append(&entries)
        };
        self.with_journal(append).await?;
        metrics::counter!(metric::EVENT_LOG_REFUSED_TOTAL).increment(dropped_lines);
        for write in batch.drain(..) {
            match write {
                // This is rare. Beyond the limit, a redelivery of that event may be taken for a
                // duplicate.
                Write::RemoveKey(_) if self.deferred.len() >= QUEUE => {}
                Write::CallReported(end) => {
                    let settle =
                        |settled| Write::SettleCallback(Box::new(settled), oneshot::channel().0);
                    self.deferred.extend(end.settled.into_iter().map(settle));
                }
                write => self.deferred.extend(complete_journalled(write)),
            }
        }
        Ok(())
    }

    /// Retries the database with the journal and the deferred writes. Returns whether the database
    /// works again. Also syncs the journal at intervals.
    async fn recover(&mut self) -> bool {
        self.since_sync += 1;
        if self.since_sync >= SYNC_EVERY {
            self.since_sync = 0;
            if let Err(e) = self.with_journal(Journal::sync).await {
                tracing::warn!(error = %e, "journal not synced");
            }
        }
        let recovered = async {
            let replayed = self.replay().await?;
            let mut deferred = std::mem::take(&mut self.deferred);
            if replayed == 0 && deferred.is_empty() {
                // What failed was not journalled. Only a transaction shows that the next one works.
                self.transaction(&[]).await?;
            }
            let stored = self.write_to_database(&mut deferred).await;
            self.deferred = deferred;
            stored.map(|()| replayed)
        };
        match recovered.await {
            Ok(replayed) => {
                self.set_failing(false);
                self.set_broken(false);
                tracing::warn!(
                    entries = replayed,
                    "database accepts writes again, journal replayed"
                );
                true
            }
            Err(e) => {
                self.database_failed(e);
                false
            }
        }
    }

    /// Executes the entries of the journal in order, each once, and empties the journal. Returns
    /// the number of entries.
    async fn replay(&mut self) -> Result<u64, sqlx::Error> {
        let state = self
            .with_journal(|journal| Ok((journal.id(), journal.begin(), journal.is_empty())))
            .await;
        let Ok((id, mut at, false)) = state else { return Ok(0) };
        let done = "SELECT replayed FROM store_journals WHERE journal = $1";
        let connection = self.connection().await?;
        let query = sql::query_scalar(done).bind(id.to_string());
        let done: Option<i64> =
            self.with_connection(connection, async |to| query.fetch_optional(to).await).await?;
        let done = done.and_then(|done| u64::try_from(done).ok()).unwrap_or_default();
        let (mut seen, mut replayed) = (0, 0);
        loop {
            let chunk = self
                .with_journal(move |journal| journal.read(at, REPLAY_BATCH))
                .await
                .map_err(sqlx::Error::Io)?;
            if chunk.entries.is_empty() {
                break;
            }
            at = chunk.next;
            let mut entries = Vec::with_capacity(chunk.entries.len());
            for entry in chunk.entries {
                seen += 1;
                if seen <= done {
                    continue;
                }
                match entry.and_then(|text| serde_json::from_str::<Entry>(&text).ok()) {
                    Some(entry) => entries.push((seen, entry.into_write(&self.options.seal))),
                    None => {
                        metrics::counter!(metric::STORE_ERRORS_TOTAL).increment(1);
                        tracing::error!(entry = seen, "unreadable journal entry skipped");
                    }
                }
            }
            replayed += u64::try_from(entries.len()).unwrap_or_default();
            self.replay_entries(id, entries, seen).await?;
        }
        self.with_journal(Journal::clear).await.map_err(sqlx::Error::Io)?;
        let connection = self.connection().await?;
        // Those of other nodes stay: their journals may be half replayed.
        let delete = sql::query("DELETE FROM store_journals WHERE journal = $1");
        let delete = delete.bind(id.to_string());
        self.with_connection(connection, async |to| delete.execute(to).await.map(drop)).await?;
        Ok(replayed)
    }

    /// Executes entries of the journal. Each comes with its position there, and `seen` is the
    /// position of the last entry read. An entry that the database rejects is found by halving, and
    /// goes to the rejects file.
    async fn replay_entries(
        &mut self,
        journal: Uuid,
        entries: Vec<(u64, Write)>,
        seen: u64,
    ) -> Result<(), sqlx::Error> {
        let (positions, writes): (Vec<u64>, Vec<Write>) = entries.into_iter().unzip();
        let (mut from, mut size) = (0_usize, writes.len());
        loop {
            let to = from.saturating_add(size).min(writes.len());
            let part = writes.get(from..to).unwrap_or_default();
            let up_to = if to == writes.len() {
                seen
            } else {
                positions.get(to - 1).copied().unwrap_or(seen)
            };
            let taken = self.replay_part(journal, part, up_to).await;
            match (taken, part) {
                (Ok(()), _) => (from, size) = (to, size.saturating_mul(2)),
                (Err(e), [_, _, ..]) if is_data_error(&e) => {
                    size = part.len() / 2;
                    continue;
                }
                (Err(e), [write]) if is_data_error(&e) => {
                    self.reject(Entry::of(write, &self.options.seal), e).await?;
                    self.replay_part(journal, &[], up_to).await?;
                    from = to;
                }
                (Err(e), _) => return Err(e),
            }
            if from >= writes.len() {
                return Ok(());
            }
        }
    }

    /// Executes entries of the journal in one transaction.
    async fn replay_part(
        &mut self,
        journal: Uuid,
        part: &[Write],
        up_to: u64,
    ) -> Result<(), sqlx::Error> {
        let connection = self.connection().await?;
        let (seal, next) = (self.options.seal.clone(), self.batches.next());
        let written = self
            .with_connection(connection, async |on| {
                replay_entries(on, &seal, next, journal, part, up_to).await
            })
            .await?;
        self.committed(&written, part);
        Ok(())
    }

    /// Runs `act` on the journal, on the blocking pool, because a failing disk may be slow.
    async fn with_journal<T: Send + 'static>(
        &mut self,
        act: impl FnOnce(&mut Journal) -> std::io::Result<T> + Send + 'static,
    ) -> std::io::Result<T> {
        let (journal, folder) = (self.journal.take(), self.options.journal.clone());
        let acted = tokio::task::spawn_blocking(move || {
            let mut journal = match journal.map_or_else(|| Journal::open(&folder), Ok) {
                Ok(journal) => journal,
                Err(e) => return (None, Err(e)),
            };
            let done = act(&mut journal);
            (Some(journal), done)
        });
        let (journal, done) = acted.await.map_err(std::io::Error::other)?;
        self.journal = journal;
        done
    }

    /// Acquires a connection from the pool. The pool retries an unreachable server until its
    /// timeout, which is too long while the journal is in use.
    async fn connect(&self) -> Result<Conn, sqlx::Error> {
        let within = match (self.closing.is_cancelled(), self.failing) {
            (true, _) => CONNECT_WHILE_CLOSING,
            (false, true) => CONNECT,
            (false, false) => return self.options.pool.acquire().await,
        };
        tokio::time::timeout(within, self.options.pool.acquire())
            .await
            .unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// Returns the connection, with its busy timeout set for the present state.
    async fn connection(&mut self) -> Result<Conn, sqlx::Error> {
        if self.options.fail.as_ref().is_some_and(|fail| fail(StorePart::Store)) {
            return Err(sqlx::Error::Io(std::io::Error::other("simulated failure")));
        }
        if let Some(file) = &mut self.options.file {
            file.check(&self.options.pool, &mut self.held).await?;
        }
        let mut connection = match self.held.take() {
            Some(held) => held,
            None => {
                let connection = self.connect().await?;
                self.catch_up(connection).await?
            }
        };
        let wanted = match connection.dialect() {
            _ if self.closing.is_cancelled() => BUSY_WHILE_FAILING.min(self.options.busy),
            Dialect::Sqlite if self.failing => BUSY_WHILE_FAILING.min(self.options.busy),
            Dialect::Postgres if self.failing => LOCKED_WHILE_FAILING.min(self.options.busy),
            Dialect::Sqlite | Dialect::Postgres => self.options.busy,
        };
        if self.busy_timeout != wanted {
            let set = match connection.dialect() {
                Dialect::Sqlite => format!("PRAGMA busy_timeout = {}", wanted.as_millis()),
                Dialect::Postgres => format!("SET lock_timeout = {}", wanted.as_millis()),
            };
            sql::query(set).persistent(false).execute(&mut connection).await?;
            self.busy_timeout = wanted;
        }
        Ok(connection)
    }

    /// Executes the batches again that the database of a new connection has lost.
    async fn catch_up(&mut self, mut connection: Conn) -> Result<Conn, sqlx::Error> {
        let seal = self.options.seal.clone();
        let caught_up = self.batches.catch_up(&mut connection, &seal);
        let caught_up = tokio::time::timeout(CATCH_UP_TIMEOUT, caught_up).await;
        if let Err(error) = caught_up.unwrap_or_else(late) {
            self.batches.failed(&error);
            let _ = tokio::time::timeout(BUSY_WHILE_FAILING, connection.close()).await;
            return Err(error);
        }
        Ok(connection)
    }

    /// Executes a batch in one transaction.
    async fn transaction(&mut self, batch: &[Write]) -> Result<Written, sqlx::Error> {
        let connection = self.connection().await?;
        let (seal, next) = (self.options.seal.clone(), self.batches.next());
        let written = self
            .with_connection(connection, async |to| write_batch(to, &seal, next, batch).await)
            .await?;
        self.committed(&written, batch);
        Ok(written)
    }

    /// Keeps a committed batch of a fleet, and reports the calls that another node has, too.
    fn committed(&mut self, written: &Written, batch: &[Write]) {
        self.batches.committed(written.number, batch, &self.options.seal);
        for call in &written.withdrawn {
            // If the report is lost, the call ends without a record.
            let _ = self.options.withdrawn.try_send(*call);
        }
    }

    /// Runs `act` on the connection. Keeps the connection for the next batch on success and closes
    /// it on failure. SQLite rolls a transaction back without notice if the disk is full, so the
    /// state of the connection is unknown then. The file may also have been replaced.
    async fn with_connection<T>(
        &mut self,
        mut connection: Conn,
        act: impl AsyncFnOnce(&mut Conn) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let done = match connection.dialect() {
            Dialect::Sqlite => act(&mut connection).await,
            Dialect::Postgres => tokio::time::timeout(TRANSACTION_TIMEOUT, act(&mut connection))
                .await
                .unwrap_or_else(late),
        };
        if done.is_ok() {
            self.held = Some(connection);
        } else {
            // A hanging server does not answer this either.
            let _ = tokio::time::timeout(BUSY_WHILE_FAILING, connection.close()).await;
            self.busy_timeout = self.options.busy;
        }
        done
    }

    /// Makes a last attempt once the queue is drained, and closes the connection.
    async fn close(mut self) {
        if self.failing && !self.recover().await {
            let with_connection =
                self.with_journal(|journal| journal.sync().map(|()| journal.bytes())).await;
            match with_connection {
                Ok(bytes) => {
                    tracing::warn!(
                        bytes,
                        "store closed with entries in the journal, to be replayed at the next start"
                    )
                }
                Err(e) => tracing::error!(error = %e, "journal not synced"),
            }
        }
        self.held = None;
        self.options.pool.close().await;
    }
}

/// The result of an action that has timed out.
fn late<T>(_: tokio::time::error::Elapsed) -> Result<T, sqlx::Error> {
    Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))
}

/// Completes the waiters of a write that went to the journal. Returns the write if it must be
/// deferred. Its waiter is completed later.
fn complete_journalled(write: Write) -> Option<Write> {
    match write {
        Write::CallEnded(_, sender) => {
            // Its callbacks are sent once their rows are in the database.
            let _ = sender.send(ConclusionResult { changed: true, callbacks: Vec::new() });
        }
        Write::Callback(_, sender) => {
            let _ = sender.send(None);
        }
        Write::Flush(sender) | Write::Permission(_, sender) => {
            let _ = sender.send(());
        }
        Write::RecordingEnded(_, sender) => {
            let _ = sender.send(Vec::new());
        }
        Write::Inbox(write, sender) => match *write {
            InboxWrite::Entry(_) | InboxWrite::Status(_) => {
                let _ = sender.send(InboxResult::Journalled);
            }
            // If the result of sending got lost, the message would be sent twice.
            write @ InboxWrite::SetWamid { .. } => {
                return Some(Write::Inbox(Box::new(write), sender));
            }
            InboxWrite::Enqueue(_)
            | InboxWrite::BeginSending { .. }
            | InboxWrite::Transfer(_)
            | InboxWrite::Change { .. }
            | InboxWrite::Delete { .. }
            | InboxWrite::SetRouting(_)
            | InboxWrite::Open { .. }
            | InboxWrite::Webhook(_)
            | InboxWrite::Redeliver { .. }
            | InboxWrite::DeleteOlder { .. } => {}
        },
        // Dropping the sender reports that nothing has changed.
        Write::DeleteRecordings(..)
        | Write::RecordingCopy(..)
        | Write::Transcription(..)
        | Write::Endpoint(..)
        | Write::Task(..) => {}
        Write::SettleCallback(..) | Write::TakeOverFarewells(_) | Write::RemoveKey(_) => {
            return Some(write);
        }
        Write::CallStarted(_)
        | Write::CallReported(_)
        | Write::SetWacid(..)
        | Write::CallAnswered(..)
        | Write::Heartbeat(..)
        | Write::LogLine { .. }
        | Write::LateLine { .. }
        | Write::SettleFarewell(..)
        | Write::InsertKey(_)
        | Write::DeletePermission(..)
        | Write::RecordingStarted(_)
        | Write::DeleteOldKeys(_) => {}
    }
    None
}

/// Completes the waiters of a batch with their results.
fn complete(batch: &mut Vec<Write>, found: Vec<WriteResult>) {
    let mut found = found.into_iter();
    for write in batch.drain(..) {
        match write {
            Write::CallEnded(_, sender) => {
                if let Some(WriteResult::CallEnded(concluded)) = found.next() {
                    let _ = sender.send(concluded);
                }
            }
            // Its callbacks were sent before.
            Write::CallReported(_) => drop(found.next()),
            Write::Callback(_, sender) => {
                if let Some(WriteResult::Callback(written)) = found.next() {
                    let _ = sender.send(Some(written));
                }
            }
            Write::SettleCallback(_, sender) => {
                if let Some(WriteResult::SettleCallback(more)) = found.next() {
                    let _ = sender.send(more);
                }
            }
            Write::Endpoint(_, sender) => {
                if let Some(WriteResult::Endpoint(changed)) = found.next() {
                    let _ = sender.send(changed);
                }
            }
            Write::Inbox(_, sender) => {
                if let Some(WriteResult::Inbox(found)) = found.next() {
                    let _ = sender.send(found);
                }
            }
            Write::RecordingEnded(_, sender) | Write::Transcription(_, sender) => {
                if let Some(WriteResult::RecordingEnded(written)) = found.next() {
                    let _ = sender.send(written);
                }
            }
            Write::Task(_, sender) => {
                if let Some(WriteResult::Task(rows)) = found.next() {
                    let _ = sender.send(rows);
                }
            }
            Write::Flush(sender)
            | Write::Permission(_, sender)
            | Write::RecordingCopy(_, sender)
            | Write::DeleteRecordings(_, sender) => {
                let _ = sender.send(());
            }
            Write::CallStarted(_)
            | Write::SetWacid(..)
            | Write::CallAnswered(..)
            | Write::Heartbeat(..)
            | Write::LogLine { .. }
            | Write::LateLine { .. }
            | Write::SettleFarewell(..)
            | Write::TakeOverFarewells(_)
            | Write::InsertKey(_)
            | Write::RemoveKey(_)
            | Write::DeletePermission(..)
            | Write::RecordingStarted(_)
            | Write::DeleteOldKeys(_) => {}
        }
    }
}
