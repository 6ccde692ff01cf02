//! The bounded queue in front of the [writer](crate::writer) thread.
//!
//! Queueing never waits for the disk. If the queue is full, a write without waiters is
//! refused and counted, and a caller who needs the result waits until there is space. The start of
//! a call is also appended to the [pending log](crate::pending_log), which survives a kill of the
//! process.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::StoreError;
use crate::pending_log::PendingLog;
use crate::rows::call::{CallStart, StartedCall};
use crate::rows::message::InboxResult;
use crate::wake::Wake;
use crate::write::{InboxWrite, Write, WriteTask};
use machine::CallSetup;
use model::{CallUuid, Clock, Repeats, Timestamp, Wacid, metric};

/// Capacity of the queue, in writes.
pub(crate) const QUEUE: usize = 16_384;
/// Timeout of [`Queue::flush`].
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The sending side of the queue. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    writes: mpsc::Sender<Write>,
    wake: Arc<Wake>,
    pending_log: Arc<PendingLog>,
    /// Counts the entries that the pending log did not take.
    unlogged: Arc<Repeats>,
    closing: CancellationToken,
    /// Completes when the writer thread has ended.
    thread: TaskTracker,
}

impl Queue {
    pub(crate) fn new(
        writes: mpsc::Sender<Write>,
        wake: Arc<Wake>,
        pending_log: Arc<PendingLog>,
        closing: CancellationToken,
        thread: TaskTracker,
    ) -> Self {
        Self { writes, wake, pending_log, unlogged: Arc::default(), closing, thread }
    }

    /// Whether the database rejects writes, so that they go to the journal.
    pub(crate) fn is_journalling(&self) -> bool {
        *self.wake.is_journalling.borrow()
    }

    /// Waits until the database accepts writes and has those of the journal.
    pub(crate) async fn until_database_works(&self) {
        let mut is_journalling = self.wake.is_journalling.subscribe();
        // Fails only without a sender, which `self` has.
        let _ = is_journalling.wait_for(|journalling| !journalling).await;
    }

    /// Queues a write, or returns `false` and counts an error if the queue is full.
    pub(crate) fn post(&self, write: Write) -> bool {
        let queued = self.writes.try_send(write).is_ok();
        if !queued {
            metrics::counter!(metric::STORE_ERRORS_TOTAL).increment(1);
        }
        queued
    }

    /// Queues a write, or returns `false` if the queue is full. The caller counts a lost write if
    /// it matters.
    pub(crate) fn offer(&self, write: Write) -> bool {
        self.writes.try_send(write).is_ok()
    }

    /// Makes the writer start the current batch now, because a caller waits for its result.
    pub(crate) fn wake(&self) {
        self.wake.now.notify_one();
    }

    /// Queues a write before it returns. Wakes the writer to start its next batch soon, for a
    /// caller that sends something when it has the result. The future resolves to the result, or to
    /// [`StoreError::Closed`] if the store was closed first. It waits for space if the queue is
    /// full.
    pub(crate) fn request<T, F>(
        &self,
        write: F,
    ) -> impl Future<Output = Result<T, StoreError>> + Send + 'static + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(oneshot::Sender<T>) -> Write,
    {
        let requested = self.request_lazily(write);
        self.wake.soon.notify_one();
        requested
    }

    /// Like [`Queue::request`], but does not wake the writer, because no caller waits for the
    /// result.
    pub(crate) fn request_lazily<T, F>(
        &self,
        write: F,
    ) -> impl Future<Output = Result<T, StoreError>> + Send + 'static + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(oneshot::Sender<T>) -> Write,
    {
        let (sender, result) = oneshot::channel();
        let queued = self.enqueue(write(sender));
        async move {
            queued.await?;
            result.await.map_err(|_| StoreError::Closed)
        }
    }

    /// Queues a write before it returns. If the queue is full, the future waits for space.
    fn enqueue(
        &self,
        write: Write,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + 'static + use<> {
        let late = match self.writes.try_send(write) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => None,
            Err(mpsc::error::TrySendError::Full(write)) => Some((self.writes.clone(), write)),
        };
        async move {
            if let Some((writes, write)) = late {
                writes.send(write).await.map_err(|_| StoreError::Closed)?;
            }
            Ok(())
        }
    }

    /// Like [`Queue::request`], for a write that a caller waits for and the journal does not take: the
    /// writer starts its batch now, and the future resolves to [`StoreError::NotTaken`] if nothing was
    /// written.
    pub(crate) fn change<T, F>(
        &self,
        write: F,
    ) -> impl Future<Output = Result<T, StoreError>> + Send + 'static + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(oneshot::Sender<T>) -> Write,
    {
        // Otherwise the caller would wait for as long as neither works.
        let is_broken = self.wake.is_broken.load(Ordering::Relaxed);
        let (sender, result) = oneshot::channel();
        let write = write(sender);
        let requested = match is_broken && write.needs_database() {
            true => Err(StoreError::NotTaken),
            false => Ok(self.enqueue(write)),
        };
        self.wake();
        async move {
            requested?.await.map_err(|_| StoreError::NotTaken)?;
            result.await.map_err(|_| StoreError::NotTaken)
        }
    }

    /// Queues a write, or returns `None` and counts an error if the queue is full. The future
    /// resolves to the result, or to [`StoreError::NotTaken`].
    pub(crate) fn try_change<T, F>(
        &self,
        write: F,
    ) -> Option<impl Future<Output = Result<T, StoreError>> + Send + 'static + use<T, F>>
    where
        T: Send + 'static,
        F: FnOnce(oneshot::Sender<T>) -> Write,
    {
        let (sender, result) = oneshot::channel();
        let queued = self.post(write(sender));
        queued.then_some(async move { result.await.map_err(|_| StoreError::NotTaken) })
    }

    /// Queues a task and resolves to the number of rows that it changed. See [`Queue::change`].
    pub(crate) fn run<D: WriteTask + 'static>(
        &self,
        task: D,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send + 'static + use<D> {
        self.change(|sender| Write::Task(Box::new(task), sender))
    }

    /// Queues a task, or returns `None` if the queue is full. See [`Queue::try_change`].
    pub(crate) fn try_run<D: WriteTask + 'static>(
        &self,
        task: D,
    ) -> Option<impl Future<Output = Result<u64, StoreError>> + Send + 'static + use<D>> {
        self.try_change(|sender| Write::Task(Box::new(task), sender))
    }

    /// Queues a write about messages and conversations. See [`Queue::change`].
    pub(crate) fn inbox(
        &self,
        write: InboxWrite,
    ) -> impl Future<Output = Result<InboxResult, StoreError>> + Send + 'static + use<> {
        self.change(|sender| Write::Inbox(Box::new(write), sender))
    }

    /// Queues a write about messages from a webhook of Meta's, or returns `None` if the queue is
    /// full.
    pub(crate) fn try_inbox(
        &self,
        write: InboxWrite,
    ) -> Option<impl Future<Output = Result<InboxResult, StoreError>> + Send + 'static + use<>>
    {
        // A call's timeline entry is not reported to anyone, so no caller waits for it.
        let is_waited_for = !matches!(&write, InboxWrite::Entry(entry) if entry.draft.is_none());
        let queued = self.try_change(|sender| Write::Inbox(Box::new(write), sender))?;
        if is_waited_for {
            self.wake();
        }
        Some(queued)
    }

    /// Queues the start of a call and appends it to the pending log. Returns `false` and counts an
    /// error if the queue is full.
    pub(crate) fn begin_call(&self, start: CallStart, setup: &CallSetup, born: Timestamp) -> bool {
        // A set-up is always representable as JSON.
        let setup = serde_json::to_string(setup).unwrap_or_default();
        let Ok(slot) = self.writes.try_reserve() else {
            metrics::counter!(metric::STORE_ERRORS_TOTAL).increment(1);
            return false;
        };
        let call = StartedCall { start, setup, born };
        let appended = self.pending_log.append_start(call, |call| {
            slot.send(Write::CallStarted(Box::new(call)));
        });
        if let Err(error) = appended {
            metrics::counter!(metric::STORE_ERRORS_TOTAL).increment(1);
            self.warn_unlogged(&error);
        }
        true
    }

    /// Queues Meta's id of a call and appends it to the pending log. Counts an error if the queue is
    /// full.
    pub(crate) fn bind_call(&self, call: CallUuid, wacid: Wacid, farewell: Timestamp) {
        let Ok(slot) = self.writes.try_reserve() else {
            metrics::counter!(metric::STORE_ERRORS_TOTAL).increment(1);
            return;
        };
        let appended = self.pending_log.append_wacid(call, wacid, farewell, |wacid| {
            slot.send(Write::SetWacid(call, wacid, farewell));
        });
        if let Err(error) = appended {
            metrics::counter!(metric::STORE_ERRORS_TOTAL).increment(1);
            self.warn_unlogged(&error);
        }
    }

    /// A full disk fails the entries of all calls.
    fn warn_unlogged(&self, error: &std::io::Error) {
        if let Some(failed) = self.unlogged.count(Clock::default().now()) {
            tracing::warn!(%error, failed, "calls not appended to the pending log");
        }
    }

    /// Empties the pending log unless a call in it is not in the database yet. Returns whether it is
    /// empty.
    pub(crate) fn empty_pending_log(&self) -> std::io::Result<bool> {
        self.pending_log.try_empty()
    }

    /// Waits until everything queued so far is written, for at most a second.
    pub(crate) async fn flush(&self) {
        let (sender, result) = oneshot::channel();
        let flushed = async {
            let _ = self.writes.send(Write::Flush(sender)).await;
            self.wake();
            let _ = result.await;
        };
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, flushed).await;
    }

    /// Ends the writer thread once it has written what is queued.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        self.thread.wait().await;
        // The store may be replaced by a backup before the next start, so an orderly end leaves no
        // calls in the pending log.
        let emptied = self.pending_log.empty().and_then(|()| self.pending_log.release());
        if let Err(error) = emptied {
            tracing::warn!(%error, "pending log not emptied");
        }
    }
}
