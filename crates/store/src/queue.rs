//! The way to the thread that writes (`writer`): what can be written, and a bounded queue of it.
//!
//! Nobody who queues waits for the disk. What nobody waits for is refused and counted where the queue is full; what
//! somebody waits for waits for room behind it. A call's beginning is noted in its file besides (`births`).

use crate::error::StoreError;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::rows::call::{Birth, CallStart, Concluded, Conclusion};
use crate::rows::callback::{NewCallback, Settlement, Written};
use crate::rows::endpoint::EndpointWrite;
use crate::rows::event_key::SeenKey;
use crate::rows::message::InboxFound;
use crate::rows::permission::PermissionWrite;
use crate::rows::recording::{CopyWrite, RecordingConclusion, RecordingStart, TranscriptWrite};
use crate::rows::setting::SettingWrite;
use crate::start_log::Births;
use crate::tables::people::PeopleWrite;
use crate::write::{Deed, InboxWrite, Write};
use crate::writer::{self, Begin, Writer};
use machine::CallSetup;
use model::{CallUuid, PhoneNumberId, Timestamp, Wacid, metric};

impl EventLog {
    /// Queues it now, behind room for it, and gives what to wait for.
    pub(crate) fn deed<D: Deed + 'static>(
        &self,
        deed: D,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send + 'static + use<D> {
        let (tell, told) = oneshot::channel();
        let asked = self.ask(Write::Deed(Box::new(deed), tell), told);
        self.in_a_hurry();
        async move { asked.await.map_err(|_| StoreError::NotTaken) }
    }

    /// Queues it now, unless the queue is full: then it is refused and counted (`None`).
    pub(crate) fn deed_if_room<D: Deed + 'static>(
        &self,
        deed: D,
    ) -> Option<impl Future<Output = Result<u64, StoreError>> + Send + 'static + use<D>> {
        let (tell, told) = oneshot::channel();
        let queued = self.note(Write::Deed(Box::new(deed), tell));
        queued.then_some(async move { told.await.map_err(|_| StoreError::NotTaken) })
    }
}

impl EventLog {
    /// Writes it to the disk; whether anything has changed.
    pub(crate) async fn people(&self, write: PeopleWrite) -> Result<bool, StoreError> {
        Ok(self.deed(write).await? > 0)
    }
}

/// Writes waiting at most.
pub(crate) const QUEUE: usize = 16_384;

/// Longest wait of a reader for what is being written.
const SETTLE: Duration = Duration::from_secs(1);

/// Where calls' event logs are written; cheap to clone.
#[derive(Clone, Debug)]
pub struct EventLog {
    queue: mpsc::Sender<Write>,
    /// Told of writes that an answer waits for.
    hurry: Arc<Notify>,
    births: Arc<Births>,
    closing: CancellationToken,
    task: TaskTracker,
}

impl EventLog {
    /// Takes in what an earlier process left in the journal, then starts the thread that writes.
    ///
    /// Each statement goes to SQLite's thread and back. Where the writer is one of many tasks, each way back wakes first who
    /// waits for sockets and then a worker; alone on its thread it is woken once, and nobody else.
    pub(crate) async fn start(begin: Begin) -> Result<Self, StoreError> {
        let (queue, writes) = mpsc::channel(QUEUE);
        let (closing, task) = (CancellationToken::new(), TaskTracker::new());
        let births = begin.births.clone();
        let mut writer = Writer::new(begin, closing.clone());
        writer.take_in_what_was_left().await?;
        let hurry = Arc::new(Notify::new());
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(StoreError::Thread)?;
        let (counted, hurried) = (task.token(), hurry.clone());
        let work = move || {
            runtime.block_on(writer::run(writer, writes, hurried));
            drop(runtime);
            drop(counted);
        };
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(work)
            .map_err(StoreError::Thread)?;
        task.close();
        Ok(Self { queue, hurry, births, closing, task })
    }

    /// Adds a line (JSON, without its end) to a call's log. Returns at once; if the queue is full, the line is refused
    /// and counted: `false`.
    pub fn append(&self, call: CallUuid, seq: u64, line: String) -> bool {
        let taken = self.queue.try_send(Write::Line { call, seq, line }).is_ok();
        if !taken {
            metrics::counter!(metric::EVENT_LOG_REFUSED_TOTAL).increment(1);
        }
        taken
    }

    /// Adds a line to the log of a call that may be over, behind all that its own task writes. Returns at once; if the
    /// queue is full, the line is refused and counted.
    pub fn append_late(&self, call: CallUuid, line: String) {
        if self.queue.try_send(Write::Late { call, line }).is_err() {
            metrics::counter!(metric::EVENT_LOG_REFUSED_TOTAL).increment(1);
        }
    }

    /// Queues it, if there is room; a full queue refuses it and counts that.
    pub(crate) fn note(&self, write: Write) -> bool {
        let queued = self.queue.try_send(write).is_ok();
        if !queued {
            metrics::counter!(metric::STORE_ERRORS_TOTAL).increment(1);
        }
        queued
    }

    /// Whether nothing is left in the file of calls that begin.
    pub(crate) fn births_emptied(&self) -> std::io::Result<bool> {
        self.births.emptied()
    }

    /// An answer waits for what was queued last.
    pub(crate) fn in_a_hurry(&self) {
        self.hurry.notify_one();
    }

    pub(crate) fn call_born(&self, start: CallStart, setup: &CallSetup, born: Timestamp) -> bool {
        // Words and numbers: there is nothing in it that JSON could not say.
        let setup = serde_json::to_string(setup).unwrap_or_default();
        let Ok(room) = self.queue.try_reserve() else {
            metrics::counter!(metric::STORE_ERRORS_TOTAL).increment(1);
            return false;
        };
        if let Err(error) = self.births.append(&start.node_id, born, &setup) {
            metrics::counter!(metric::STORE_ERRORS_TOTAL).increment(1);
            tracing::warn!(%error, "a call's beginning is not in its file: a kill within a moment would lose it");
        }
        room.send(Write::Born(Box::new(Birth { start, setup, born })));
        true
    }

    /// Returns at once; a key that finds the queue full is lost, and counted.
    pub(crate) fn key(&self, key: SeenKey) {
        self.note(Write::Key(key));
    }

    pub(crate) fn unkey(&self, key: u128) {
        self.note(Write::Unkey(key));
    }

    pub(crate) fn permission(
        &self,
        write: PermissionWrite,
    ) -> Option<impl Future<Output = Result<(), StoreError>> + Send + 'static + use<>> {
        let (tell, told) = oneshot::channel();
        let waited_for = write.reply.is_some();
        if self.queue.try_send(Write::Permission(Box::new(write), tell)).is_err() {
            metrics::counter!(metric::STORE_ERRORS_TOTAL).increment(1);
            return None;
        }
        if waited_for {
            self.hurry.notify_one();
        }
        Some(async move { told.await.map_err(|_| StoreError::Closed) })
    }

    pub(crate) fn forget_permission(&self, number: &PhoneNumberId, user: &str, before: Timestamp) {
        // Full of better things to do: the next sweep will do as well.
        let _ =
            self.queue.try_send(Write::ForgetPermission(number.clone(), user.to_owned(), before));
    }

    pub(crate) fn forget_keys(&self, seen_before: Timestamp) {
        let _ = self.queue.try_send(Write::ForgetKeys(seen_before));
    }

    pub(crate) fn call_bound(&self, call: CallUuid, wacid: Wacid, farewell: Timestamp) {
        let Ok(room) = self.queue.try_reserve() else {
            metrics::counter!(metric::STORE_ERRORS_TOTAL).increment(1);
            return;
        };
        if let Err(error) = self.births.append_name(call, &wacid, farewell) {
            metrics::counter!(metric::STORE_ERRORS_TOTAL).increment(1);
            tracing::warn!(%error, "a call's name is not in its file: a kill within a moment would lose it");
        }
        room.send(Write::Bound(call, wacid, farewell));
    }

    pub(crate) fn call_answered(&self, call: CallUuid, at: Timestamp) {
        self.note(Write::Answered(call, at));
    }

    pub(crate) fn alive(&self, node_id: &str, at: Timestamp) {
        self.note(Write::Alive(node_id.to_owned(), at));
    }

    pub(crate) fn farewell(&self, call: CallUuid, again: Option<Timestamp>) {
        self.note(Write::Farewell(call, again));
    }

    pub(crate) fn farewells_due(&self, node_id: &str) {
        self.note(Write::FarewellsDue(node_id.to_owned()));
    }

    /// Queues it now, and gives what to wait for: what was found, once it is on the disk.
    pub(crate) fn ask<T: Send + 'static>(
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

    pub(crate) fn conclude(
        &self,
        conclusion: Conclusion,
    ) -> impl Future<Output = Result<Concluded, StoreError>> + Send + 'static + use<> {
        let (tell, told) = oneshot::channel();
        self.ask(Write::Concluded(Box::new(conclusion), tell), told)
    }

    pub(crate) fn notify(
        &self,
        callback: NewCallback,
    ) -> impl Future<Output = Result<Written, StoreError>> + Send + 'static + use<> {
        let (tell, told) = oneshot::channel();
        let asked = self.ask(Write::Callback(Box::new(callback), tell), told);
        async move { asked.await?.ok_or(StoreError::Journalled) }
    }

    pub(crate) fn settle(
        &self,
        settlement: Settlement,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send + 'static + use<> {
        let (tell, told) = oneshot::channel();
        self.ask(Write::Settle(Box::new(settlement), tell), told)
    }

    pub(crate) fn set(
        &self,
        writes: Vec<SettingWrite>,
        at: Timestamp,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + 'static + use<> {
        let (tell, told) = oneshot::channel();
        let asked = self.ask(Write::Settings(writes, at, tell), told);
        // A start waits for it, or a person.
        self.hurry.notify_one();
        async move { asked.await.map_err(|_| StoreError::NotTaken) }
    }

    /// Queues it unless the queue is full (`None`): for what a webhook waits for.
    pub(crate) fn inbox_now(
        &self,
        write: InboxWrite,
    ) -> Option<impl Future<Output = Result<InboxFound, StoreError>> + Send + 'static + use<>> {
        let (tell, told) = oneshot::channel();
        // What is told to nobody is waited for by nobody: a call's line in its conversation.
        let waited_for = !matches!(&write, InboxWrite::Came(came) if came.draft.is_none());
        if self.queue.try_send(Write::Inbox(Box::new(write), tell)).is_err() {
            metrics::counter!(metric::STORE_ERRORS_TOTAL).increment(1);
            return None;
        }
        if waited_for {
            self.hurry.notify_one();
        }
        Some(async move { told.await.map_err(|_| StoreError::NotTaken) })
    }

    pub(crate) fn inbox(
        &self,
        write: InboxWrite,
    ) -> impl Future<Output = Result<InboxFound, StoreError>> + Send + 'static + use<> {
        let (tell, told) = oneshot::channel();
        let asked = self.ask(Write::Inbox(Box::new(write), tell), told);
        self.hurry.notify_one();
        async move { asked.await.map_err(|_| StoreError::NotTaken) }
    }

    pub(crate) async fn endpoint(&self, write: EndpointWrite) -> Result<bool, StoreError> {
        let (tell, told) = oneshot::channel();
        let asked = self.ask(Write::Endpoint(Box::new(write), tell), told);
        self.hurry.notify_one();
        asked.await.map_err(|_| StoreError::NotTaken)
    }

    pub(crate) fn recording_begun(&self, start: RecordingStart) {
        self.note(Write::RecordingBegun(Box::new(start)));
    }

    pub(crate) fn conclude_recording(
        &self,
        conclusion: RecordingConclusion,
    ) -> impl Future<Output = Result<Vec<Written>, StoreError>> + Send + 'static + use<> {
        let (tell, told) = oneshot::channel();
        self.ask(Write::RecordingEnded(Box::new(conclusion), tell), told)
    }

    pub(crate) async fn copied(&self, write: CopyWrite) -> Result<(), StoreError> {
        let (tell, told) = oneshot::channel();
        self.ask(Write::Copy(Box::new(write), tell), told).await.map_err(|_| StoreError::NotTaken)
    }

    pub(crate) async fn transcribed(
        &self,
        write: TranscriptWrite,
    ) -> Result<Vec<Written>, StoreError> {
        let (tell, told) = oneshot::channel();
        self.ask(Write::Transcribed(Box::new(write), tell), told)
            .await
            .map_err(|_| StoreError::NotTaken)
    }

    pub(crate) async fn forget_recordings(&self, ids: Vec<Uuid>) -> Result<(), StoreError> {
        let (tell, told) = oneshot::channel();
        let asked = self.ask(Write::ForgetRecordings(ids, tell), told);
        self.hurry.notify_one();
        asked.await.map_err(|_| StoreError::NotTaken)
    }

    pub(crate) async fn settled(&self) {
        let (tell, told) = oneshot::channel();
        let asked = async {
            let _ = self.queue.send(Write::Settled(tell)).await;
            self.hurry.notify_one();
            let _ = told.await;
        };
        let _ = tokio::time::timeout(SETTLE, asked).await;
    }

    pub(crate) async fn close(&self) {
        self.closing.cancel();
        self.task.wait().await;
        // After an orderly end nothing is left in it for a store that may be put back from a copy meanwhile.
        let tidied = self.births.empty().and_then(|()| self.births.release());
        if let Err(error) = tidied {
            tracing::warn!(%error, "the file of calls that begin can't be emptied");
        }
    }
}
