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

use super::calls::{self, CallEnd, CallStart};
use super::{StoreError, failed};
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
/// Longest wait of a reader for what is being written.
const SETTLE: Duration = Duration::from_secs(1);
/// Tries of each batch once the store is being closed.
const LAST_TRIES: u32 = 10;

enum Write {
    Started(Box<CallStart>),
    Line {
        call: CallUuid,
        seq: u64,
        line: String,
    },
    Concluded(Box<(CallStart, CallEnd)>, oneshot::Sender<bool>),
    Forget(Timestamp),
    /// Told when all before it is written.
    Settled(oneshot::Sender<()>),
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

    pub(super) fn call_started(&self, start: CallStart) {
        if self.queue.try_send(Write::Started(Box::new(start))).is_err() {
            metrics::counter!(names::STORE_ERRORS_TOTAL).increment(1);
        }
    }

    pub(super) async fn call_concluded(&self, start: CallStart, end: CallEnd) -> Result<bool, StoreError> {
        let (tell, told) = oneshot::channel();
        let write = Write::Concluded(Box::new((start, end)), tell);
        self.queue.send(write).await.map_err(|_| StoreError::Closed)?;
        told.await.map_err(|_| StoreError::Closed)
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
        let changed = loop {
            match self.transaction(batch).await {
                Ok(changed) => break changed,
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
        let mut changed = changed.into_iter();
        for write in batch.drain(..) {
            match write {
                Write::Concluded(_, tell) => {
                    let _ = tell.send(changed.next().unwrap_or_default());
                }
                Write::Settled(tell) => {
                    let _ = tell.send(());
                }
                Write::Started(_) | Write::Line { .. } | Write::Forget(_) => {}
            }
        }
    }

    /// One transaction; whether each call that ends in it was still open.
    async fn transaction(&self, batch: &[Write]) -> Result<Vec<bool>, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        // Terminal records are synced (R11). It can't be changed inside a transaction; left on after a failure, it
        // does no harm.
        let sync = batch.iter().any(|write| matches!(write, Write::Concluded(..)));
        if sync {
            sqlx::query("PRAGMA synchronous = FULL").execute(&mut *connection).await?;
        }
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let changed = write_all(&mut transaction, batch).await?;
        transaction.commit().await?;
        if sync {
            sqlx::query("PRAGMA synchronous = NORMAL").execute(&mut *connection).await?;
        }
        Ok(changed)
    }
}

async fn write_all(to: &mut SqliteConnection, batch: &[Write]) -> Result<Vec<bool>, sqlx::Error> {
    let mut changed = Vec::new();
    let mut lines = Vec::new();
    for write in batch {
        match write {
            Write::Started(start) => calls::insert(to, start).await?,
            Write::Line { call, seq, line } => lines.push((call, seq, line)),
            Write::Concluded(ended, _) => {
                let (start, end) = &**ended;
                calls::insert(to, start).await?;
                changed.push(calls::close(to, start.call, end).await?);
            }
            Write::Forget(ended_before) => {
                let delete = "DELETE FROM call_events WHERE call_uuid IN \
                    (SELECT call_uuid FROM calls WHERE ended_us < $1)";
                sqlx::query(delete).bind(ended_before.micros()).execute(&mut *to).await?;
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
        insert.build().persistent(false).execute(to).await?;
    }
    Ok(changed)
}
