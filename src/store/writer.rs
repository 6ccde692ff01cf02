//! The one task that writes: a bounded queue, batches of at most 500 or 20 ms, one transaction each.
//!
//! A batch that fails is tried again, at most five times a second, until it goes in: the queue behind it holds what
//! it can, refuses lines past that and counts them (R10, R11). A batch with a call's end is synced to the disk before
//! anybody is told. SQLite's side of it: one connection, so nobody else holds the write lock.

use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, QueryBuilder, Sqlite, SqlitePool};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::callbacks::{self, NewCallback, Settlement, Written};
use super::calls::{self, Beginnings, CallEnd, CallStart, Farewell};
use super::{StoreError, failed};
use crate::call::machine::CallSetup;
use crate::model::{CallUuid, Timestamp};
use crate::observe::{Health, names};

/// Writes waiting at most.
const QUEUE: usize = 16_384;
/// Writes in one transaction.
const BATCH: usize = 500;
/// How long a write waits for company.
const GATHER: Duration = Duration::from_millis(20);
/// Between two tries of a batch.
const PAUSE: Duration = Duration::from_millis(200);
/// Numbers of late lines begin here: above all that a call's own task writes, which may still be in the queue.
const LATE_SEQ: i64 = 1_000_000;
/// Longest wait of a reader for what is being written.
const SETTLE: Duration = Duration::from_secs(1);
/// Tries of each batch once the store is being closed.
const LAST_TRIES: u32 = 10;

/// The end of a call with all that reports it: one transaction (R3).
#[derive(Clone, Debug, PartialEq)]
pub struct Conclusion {
    pub start: CallStart,
    pub end: CallEnd,
    pub callbacks: Vec<NewCallback>,
    /// What Graph has still to be told.
    pub farewell: Option<Farewell>,
}

/// What became of a [`Conclusion`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Concluded {
    /// `false`: the call had its end before, and nothing was written.
    pub changed: bool,
    pub callbacks: Vec<Written>,
}

/// A call that began: what its row holds from now on.
#[derive(Clone, Debug)]
pub(super) struct Birth {
    start: CallStart,
    /// JSON.
    setup: String,
    born: Timestamp,
}

enum Write {
    Started(Box<CallStart>),
    Born(Box<Birth>),
    Answered(CallUuid, Timestamp),
    Alive(String, Timestamp),
    /// A line behind all that the call's own task writes.
    Late {
        call: CallUuid,
        line: String,
    },
    Line {
        call: CallUuid,
        seq: u64,
        line: String,
    },
    Concluded(Box<Conclusion>, oneshot::Sender<Concluded>),
    Callback(Box<NewCallback>, oneshot::Sender<Written>),
    Settle(Box<Settlement>, oneshot::Sender<bool>),
    Farewell(CallUuid, Option<Timestamp>),
    FarewellsDue(String),
    Forget(Timestamp),
    /// Told when all before it is written.
    Settled(oneshot::Sender<()>),
}

/// What a write found, for those who wait for it.
enum Found {
    Concluded(Concluded),
    Callback(Written),
    Settle(bool),
}

impl Write {
    /// What must be on the disk before anybody hears of it (R11); the rest may be lost with the power.
    fn is_synced(&self) -> bool {
        matches!(self, Self::Concluded(..) | Self::Callback(..))
    }
}

/// Where calls' event logs are written; cheap to clone.
#[derive(Clone, Debug)]
pub struct EventLog {
    queue: mpsc::Sender<Write>,
    closing: CancellationToken,
    task: TaskTracker,
}

impl EventLog {
    pub(super) fn start(pool: SqlitePool, health: Health) -> Self {
        let (queue, writes) = mpsc::channel(QUEUE);
        let (closing, task) = (CancellationToken::new(), TaskTracker::new());
        task.spawn(run(Writer { pool, health, closing: closing.clone() }, writes));
        task.close();
        Self { queue, closing, task }
    }

    /// Adds a line (JSON, without its end) to a call's log. Returns at once; if the queue is full, the line is refused
    /// and counted: `false`.
    pub fn append(&self, call: CallUuid, seq: u64, line: String) -> bool {
        let taken = self.queue.try_send(Write::Line { call, seq, line }).is_ok();
        if !taken {
            metrics::counter!(names::EVENT_LOG_REFUSED_TOTAL).increment(1);
        }
        taken
    }

    /// Adds a line to the log of a call that may be over, behind all that its own task writes. Returns at once; if the
    /// queue is full, the line is refused and counted.
    pub fn append_late(&self, call: CallUuid, line: String) {
        if self.queue.try_send(Write::Late { call, line }).is_err() {
            metrics::counter!(names::EVENT_LOG_REFUSED_TOTAL).increment(1);
        }
    }

    /// Queues what nobody waits for; a full queue refuses it and counts that: `false`.
    fn note(&self, write: Write) -> bool {
        let taken = self.queue.try_send(write).is_ok();
        if !taken {
            metrics::counter!(names::STORE_ERRORS_TOTAL).increment(1);
        }
        taken
    }

    pub(super) fn call_started(&self, start: CallStart) -> bool {
        self.note(Write::Started(Box::new(start)))
    }

    pub(super) fn call_born(&self, start: CallStart, setup: &CallSetup, born: Timestamp) -> bool {
        // Words and numbers: there is nothing in it that JSON could not say.
        let setup = serde_json::to_string(setup).unwrap_or_default();
        self.note(Write::Born(Box::new(Birth { start, setup, born })))
    }

    pub(super) fn call_answered(&self, call: CallUuid, at: Timestamp) {
        self.note(Write::Answered(call, at));
    }

    pub(super) fn alive(&self, node_id: &str, at: Timestamp) {
        self.note(Write::Alive(node_id.to_owned(), at));
    }

    pub(super) fn farewell(&self, call: CallUuid, again: Option<Timestamp>) {
        self.note(Write::Farewell(call, again));
    }

    pub(super) fn farewells_due(&self, node_id: &str) {
        self.note(Write::FarewellsDue(node_id.to_owned()));
    }

    /// Queues it now, and gives what to wait for: what was found, once it is on the disk.
    fn ask<T: Send + 'static>(
        &self,
        write: Write,
        told: oneshot::Receiver<T>,
    ) -> impl Future<Output = Result<T, StoreError>> + Send + 'static + use<T> {
        // What finds the queue full waits for room behind it.
        let late = match self.queue.try_send(write) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => None,
            Err(mpsc::error::TrySendError::Full(write)) => Some((self.queue.clone(), write)),
        };
        async move {
            if let Some((queue, write)) = late {
                queue.send(write).await.map_err(|_| StoreError::Closed)?;
            }
            told.await.map_err(|_| StoreError::Closed)
        }
    }

    pub(super) fn conclude(
        &self,
        conclusion: Conclusion,
    ) -> impl Future<Output = Result<Concluded, StoreError>> + Send + 'static + use<> {
        let (tell, told) = oneshot::channel();
        self.ask(Write::Concluded(Box::new(conclusion), tell), told)
    }

    pub(super) fn notify(
        &self,
        callback: NewCallback,
    ) -> impl Future<Output = Result<Written, StoreError>> + Send + 'static + use<> {
        let (tell, told) = oneshot::channel();
        self.ask(Write::Callback(Box::new(callback), tell), told)
    }

    pub(super) fn settle(
        &self,
        settlement: Settlement,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send + 'static + use<> {
        let (tell, told) = oneshot::channel();
        self.ask(Write::Settle(Box::new(settlement), tell), told)
    }

    pub(super) async fn settled(&self) {
        let (tell, told) = oneshot::channel();
        let asked = async {
            let _ = self.queue.send(Write::Settled(tell)).await;
            let _ = told.await;
        };
        let _ = tokio::time::timeout(SETTLE, asked).await;
    }

    pub(super) fn forget_events(&self, ended_before: Timestamp) {
        // Full of better things to do: the next day's will do as well.
        let _ = self.queue.try_send(Write::Forget(ended_before));
    }

    pub(super) async fn close(&self) {
        self.closing.cancel();
        self.task.wait().await;
    }
}

struct Writer {
    pool: SqlitePool,
    health: Health,
    closing: CancellationToken,
}

async fn run(writer: Writer, mut writes: mpsc::Receiver<Write>) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let first = tokio::select! {
            biased;
            first = writes.recv() => first,
            () = writer.closing.cancelled() => {
                writes.close();
                writes.recv().await
            }
        };
        let Some(first) = first else { break };
        batch.push(first);
        let gather = async {
            while let Some(room) = BATCH.checked_sub(batch.len()).filter(|room| *room > 0) {
                if writes.recv_many(&mut batch, room).await == 0 {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(GATHER, writer.closing.run_until_cancelled(gather)).await;
        writer.write(&mut batch).await;
        batch.clear();
    }
    writer.pool.close().await;
}

impl Writer {
    /// Writes the batch, whatever it takes; gives up only while the store is being closed.
    async fn write(&self, batch: &mut Vec<Write>) {
        let mut last_tries = LAST_TRIES;
        let found = loop {
            match self.transaction(batch).await {
                Ok(found) => break found,
                Err(e) => {
                    let e = failed("write call records")(e);
                    tracing::warn!(error = %e, writes = batch.len(), "trying again");
                    self.health.store_broken(true);
                }
            }
            if self.closing.is_cancelled() {
                last_tries -= 1;
                if last_tries == 0 {
                    tracing::error!(writes = batch.len(), "the store is closed with records unwritten");
                    return;
                }
            }
            tokio::time::sleep(PAUSE).await;
        };
        self.health.store_broken(false);
        let mut found = found.into_iter();
        for write in batch.drain(..) {
            match write {
                Write::Concluded(_, tell) => {
                    if let Some(Found::Concluded(concluded)) = found.next() {
                        let _ = tell.send(concluded);
                    }
                }
                Write::Callback(_, tell) => {
                    if let Some(Found::Callback(written)) = found.next() {
                        let _ = tell.send(written);
                    }
                }
                Write::Settle(_, tell) => {
                    if let Some(Found::Settle(more)) = found.next() {
                        let _ = tell.send(more);
                    }
                }
                Write::Settled(tell) => {
                    let _ = tell.send(());
                }
                Write::Started(_)
                | Write::Born(_)
                | Write::Answered(..)
                | Write::Alive(..)
                | Write::Line { .. }
                | Write::Late { .. }
                | Write::Farewell(..)
                | Write::FarewellsDue(_)
                | Write::Forget(_) => {}
            }
        }
    }

    /// One transaction; what each write found that somebody waits for, in order.
    async fn transaction(&self, batch: &[Write]) -> Result<Vec<Found>, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        // Terminal records and the outbox are synced (R11). It can't be changed inside a transaction; left on after a failure, it
        // does no harm.
        let sync = batch.iter().any(Write::is_synced);
        if sync {
            sqlx::query("PRAGMA synchronous = FULL").execute(&mut *connection).await?;
        }
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let found = write_all(&mut transaction, batch).await?;
        transaction.commit().await?;
        if sync {
            sqlx::query("PRAGMA synchronous = NORMAL").execute(&mut *connection).await?;
        }
        Ok(found)
    }
}

async fn write_all(to: &mut SqliteConnection, batch: &[Write]) -> Result<Vec<Found>, sqlx::Error> {
    let mut found = Vec::new();
    let (mut lines, mut late) = (Vec::new(), Vec::new());
    for write in batch {
        match write {
            Write::Started(start) => calls::insert(to, start, None).await?,
            Write::Born(birth) => {
                let beginnings = Beginnings { setup: &birth.setup, born: birth.born };
                calls::insert(to, &birth.start, Some(beginnings)).await?;
            }
            Write::Answered(call, at) => calls::answered(to, *call, *at).await?,
            Write::Alive(node_id, at) => calls::alive(to, node_id, *at).await?,
            Write::Line { call, seq, line } => lines.push((call, seq, line)),
            Write::Late { call, line } => late.push((call, line)),
            Write::Concluded(conclusion, _) => found.push(Found::Concluded(conclude(to, conclusion).await?)),
            Write::Callback(new, _) => found.push(Found::Callback(callbacks::insert(to, new).await?)),
            Write::Settle(settlement, _) => found.push(Found::Settle(callbacks::settle(to, settlement).await?)),
            Write::Farewell(call, again) => calls::farewell(to, *call, *again).await?,
            Write::FarewellsDue(node_id) => calls::farewells_due(to, node_id).await?,
            Write::Forget(ended_before) => {
                let delete = "DELETE FROM call_events WHERE call_uuid IN \
                    (SELECT call_uuid FROM calls WHERE ended_us < $1)";
                sqlx::query(delete).bind(ended_before.micros()).execute(&mut *to).await?;
                callbacks::forget(to, *ended_before).await?;
            }
            Write::Settled(_) => {}
        }
    }
    if !lines.is_empty() {
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO call_events (call_uuid, seq, line) ");
        insert.push_values(lines, |mut row, (call, seq, line)| {
            row.push_bind(call.to_string()).push_bind(i64::try_from(*seq).unwrap_or(i64::MAX)).push_bind(line);
        });
        insert.push(" ON CONFLICT (call_uuid, seq) DO NOTHING");
        // As many shapes of it as batches can be long: none is worth keeping.
        insert.build().persistent(false).execute(&mut *to).await?;
    }
    for (call, line) in late {
        // Nothing is added to a log that has been forgotten.
        let insert = "INSERT INTO call_events (call_uuid, seq, line) SELECT $1, max($2, max(seq) + 1), $3 \
            FROM call_events WHERE call_uuid = $1 HAVING count(*) > 0";
        sqlx::query(insert).bind(call.to_string()).bind(LATE_SEQ).bind(line).execute(&mut *to).await?;
    }
    Ok(found)
}

/// Closes the record and puts what reports it into the outbox; neither, where the call had its end before.
async fn conclude(to: &mut SqliteConnection, c: &Conclusion) -> Result<Concluded, sqlx::Error> {
    calls::insert(to, &c.start, None).await?;
    let mut concluded =
        Concluded { changed: calls::close(to, c.start.call, &c.end, c.farewell).await?, ..Default::default() };
    if concluded.changed {
        for callback in &c.callbacks {
            concluded.callbacks.push(callbacks::insert(to, callback).await?);
        }
    }
    Ok(concluded)
}
