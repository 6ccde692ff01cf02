//! The way to the thread that writes (`writer`): what can be written, and a bounded queue of it.
//!
//! Nobody who queues waits for the disk. What nobody waits for is refused and counted where the queue is full; what
//! somebody waits for waits for room behind it. A call's beginning is noted in its file besides (`births`).

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::StoreError;
use super::births::Births;
use super::callbacks::{NewCallback, Settlement, Written};
use super::calls::{CallEnd, CallStart, Farewell};
use super::deed::Deed;
use super::endpoints::EndpointWrite;
use super::inbox::{Came, InboxFound, InboxWrite};
use super::keys::SeenKey;
use super::permissions::{PermissionReply, PermissionRow};
use super::recordings::{CopyWrite, RecordingConclusion, RecordingStart, TranscriptWrite};
use super::settings::SettingWrite;
use super::writer::{self, Begin, Writer};
use machine::CallSetup;
use model::metric;
use model::{CallUuid, PhoneNumberId, Timestamp, Wacid};

/// Writes waiting at most.
pub(super) const QUEUE: usize = 16_384;
/// Longest wait of a reader for what is being written.
const SETTLE: Duration = Duration::from_secs(1);

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

/// What a user allows, and the reply that it comes from, if one does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermissionWrite {
    pub row: PermissionRow,
    /// With one, somebody waits until it is on the disk.
    pub reply: Option<PermissionReply>,
}

/// A call that began: what its row holds from now on.
#[derive(Clone, Debug)]
pub(super) struct Birth {
    pub(super) start: CallStart,
    /// JSON.
    pub(super) setup: String,
    pub(super) born: Timestamp,
}

/// What is to be written. Who waits for a callback's row is told `None` where the journal has it.
pub(super) enum Write {
    Born(Box<Birth>),
    Bound(CallUuid, Wacid, Timestamp),
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
    Callback(Box<NewCallback>, oneshot::Sender<Option<Written>>),
    Settle(Box<Settlement>, oneshot::Sender<bool>),
    Farewell(CallUuid, Option<Timestamp>),
    FarewellsDue(String),
    Key(SeenKey),
    Unkey(u128),
    Permission(Box<PermissionWrite>, oneshot::Sender<()>),
    /// The journal takes none: where the store doesn't, nothing has changed.
    Settings(Vec<SettingWrite>, Timestamp, oneshot::Sender<()>),
    Inbox(Box<InboxWrite>, oneshot::Sender<InboxFound>),
    ForgetPermission(PhoneNumberId, String, Timestamp),
    /// Whoever waits is told whether anything changed; nothing, where the store does not take it.
    Endpoint(Box<EndpointWrite>, oneshot::Sender<bool>),
    RecordingBegun(Box<RecordingStart>),
    RecordingEnded(Box<RecordingConclusion>, oneshot::Sender<Vec<Written>>),
    /// The journal takes none of these two: they are done once more.
    Copy(Box<CopyWrite>, oneshot::Sender<()>),
    Transcribed(Box<TranscriptWrite>, oneshot::Sender<Vec<Written>>),
    /// The journal takes none: where the store doesn't, nothing has changed.
    ForgetRecordings(Vec<Uuid>, oneshot::Sender<()>),
    /// The journal takes none: where the store doesn't, nothing has changed.
    Deed(Box<dyn Deed>, oneshot::Sender<u64>),
    ForgetKeys(Timestamp),
    /// Told when all before it is written.
    Settled(oneshot::Sender<()>),
}

/// What a write found, for those who wait for it.
pub(super) enum Found {
    Concluded(Concluded),
    Callback(Written),
    Settle(bool),
    Endpoint(bool),
    RecordingEnded(Vec<Written>),
    Deed(u64),
    Inbox(InboxFound),
}

impl Write {
    /// What must be on the disk when its batch is done (R11); the rest may be lost with the power.
    pub(super) fn is_synced(&self) -> bool {
        match self {
            // Beginnings, so that the power takes no more of them than a batch's time; nobody waits for it.
            Self::Concluded(..)
            | Self::Callback(..)
            | Self::Settings(..)
            | Self::Endpoint(..)
            | Self::Born(_)
            | Self::RecordingEnded(..)
            // A file may be removed for it.
            | Self::Copy(..)
            | Self::Transcribed(..)
            | Self::ForgetRecordings(..) => true,
            Self::Deed(deed, _) => deed.is_synced(),
            // Meta was told that it came.
            Self::Permission(write, _) => write.reply.is_some(),
            Self::Inbox(write, _) => write.is_synced(),
            Self::Bound(..)
            | Self::Answered(..)
            | Self::Alive(..)
            | Self::Late { .. }
            | Self::Line { .. }
            | Self::Settle(..)
            | Self::Farewell(..)
            | Self::FarewellsDue(_)
            | Self::Key(_)
            | Self::Unkey(_)
            | Self::ForgetPermission(..)
            | Self::RecordingBegun(_)
            | Self::ForgetKeys(_)
            | Self::Settled(_) => false,
        }
    }
}

/// What a batch writes a kind at a time.
impl Write {
    pub(super) fn answered(&self) -> Option<(CallUuid, Timestamp)> {
        if let Self::Answered(call, at) = self { Some((*call, *at)) } else { None }
    }

    pub(super) fn settlement(&self) -> Option<&Settlement> {
        if let Self::Settle(settlement, _) = self { Some(settlement) } else { None }
    }

    pub(super) fn conclusion(&self) -> Option<&Conclusion> {
        if let Self::Concluded(conclusion, _) = self { Some(conclusion) } else { None }
    }

    pub(super) fn came(&self) -> Option<&Came> {
        match self {
            Self::Inbox(write, _) => match &**write {
                InboxWrite::Came(came) => Some(came),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether ends of calls, messages that came and callbacks may change places with it: it looks at none of their rows.
    pub(super) fn goes_together(&self) -> bool {
        match self {
            Self::Inbox(..) => self.came().is_some(),
            Self::Born(_)
            | Self::Answered(..)
            | Self::Alive(..)
            | Self::Late { .. }
            | Self::Line { .. }
            | Self::Concluded(..)
            | Self::Callback(..)
            | Self::Settle(..)
            | Self::Key(_)
            | Self::Unkey(_)
            | Self::Permission(..)
            | Self::ForgetPermission(..)
            | Self::ForgetKeys(_)
            | Self::Settled(_) => true,
            // What Graph is to be told of a call depends on whether it has ended; the rest is seldom.
            Self::Bound(..)
            | Self::Farewell(..)
            | Self::FarewellsDue(_)
            | Self::Settings(..)
            | Self::Endpoint(..)
            | Self::RecordingBegun(_)
            | Self::RecordingEnded(..)
            | Self::Copy(..)
            | Self::Transcribed(..)
            | Self::ForgetRecordings(..)
            | Self::Deed(..) => false,
        }
    }
}

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
    pub(super) async fn start(begin: Begin) -> Result<Self, StoreError> {
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
    pub(super) fn note(&self, write: Write) -> bool {
        let queued = self.queue.try_send(write).is_ok();
        if !queued {
            metrics::counter!(metric::STORE_ERRORS_TOTAL).increment(1);
        }
        queued
    }

    /// Whether nothing is left in the file of calls that begin.
    pub(super) fn births_emptied(&self) -> std::io::Result<bool> {
        self.births.emptied()
    }

    /// An answer waits for what was queued last.
    pub(super) fn in_a_hurry(&self) {
        self.hurry.notify_one();
    }

    pub(super) fn call_born(&self, start: CallStart, setup: &CallSetup, born: Timestamp) -> bool {
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
    pub(super) fn key(&self, key: SeenKey) {
        self.note(Write::Key(key));
    }

    pub(super) fn unkey(&self, key: u128) {
        self.note(Write::Unkey(key));
    }

    pub(super) fn permission(
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

    pub(super) fn forget_permission(&self, number: &PhoneNumberId, user: &str, before: Timestamp) {
        // Full of better things to do: the next sweep will do as well.
        let _ =
            self.queue.try_send(Write::ForgetPermission(number.clone(), user.to_owned(), before));
    }

    pub(super) fn forget_keys(&self, seen_before: Timestamp) {
        let _ = self.queue.try_send(Write::ForgetKeys(seen_before));
    }

    pub(super) fn call_bound(&self, call: CallUuid, wacid: Wacid, farewell: Timestamp) {
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
    pub(super) fn ask<T: Send + 'static>(
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
        let asked = self.ask(Write::Callback(Box::new(callback), tell), told);
        async move { asked.await?.ok_or(StoreError::Journalled) }
    }

    pub(super) fn settle(
        &self,
        settlement: Settlement,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send + 'static + use<> {
        let (tell, told) = oneshot::channel();
        self.ask(Write::Settle(Box::new(settlement), tell), told)
    }

    pub(super) fn set(
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
    pub(super) fn inbox_now(
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

    pub(super) fn inbox(
        &self,
        write: InboxWrite,
    ) -> impl Future<Output = Result<InboxFound, StoreError>> + Send + 'static + use<> {
        let (tell, told) = oneshot::channel();
        let asked = self.ask(Write::Inbox(Box::new(write), tell), told);
        self.hurry.notify_one();
        async move { asked.await.map_err(|_| StoreError::NotTaken) }
    }

    pub(super) async fn endpoint(&self, write: EndpointWrite) -> Result<bool, StoreError> {
        let (tell, told) = oneshot::channel();
        let asked = self.ask(Write::Endpoint(Box::new(write), tell), told);
        self.hurry.notify_one();
        asked.await.map_err(|_| StoreError::NotTaken)
    }

    pub(super) fn recording_begun(&self, start: RecordingStart) {
        self.note(Write::RecordingBegun(Box::new(start)));
    }

    pub(super) fn conclude_recording(
        &self,
        conclusion: RecordingConclusion,
    ) -> impl Future<Output = Result<Vec<Written>, StoreError>> + Send + 'static + use<> {
        let (tell, told) = oneshot::channel();
        self.ask(Write::RecordingEnded(Box::new(conclusion), tell), told)
    }

    pub(super) async fn copied(&self, write: CopyWrite) -> Result<(), StoreError> {
        let (tell, told) = oneshot::channel();
        self.ask(Write::Copy(Box::new(write), tell), told).await.map_err(|_| StoreError::NotTaken)
    }

    pub(super) async fn transcribed(
        &self,
        write: TranscriptWrite,
    ) -> Result<Vec<Written>, StoreError> {
        let (tell, told) = oneshot::channel();
        self.ask(Write::Transcribed(Box::new(write), tell), told)
            .await
            .map_err(|_| StoreError::NotTaken)
    }

    pub(super) async fn forget_recordings(&self, ids: Vec<Uuid>) -> Result<(), StoreError> {
        let (tell, told) = oneshot::channel();
        let asked = self.ask(Write::ForgetRecordings(ids, tell), told);
        self.hurry.notify_one();
        asked.await.map_err(|_| StoreError::NotTaken)
    }

    pub(super) async fn settled(&self) {
        let (tell, told) = oneshot::channel();
        let asked = async {
            let _ = self.queue.send(Write::Settled(tell)).await;
            self.hurry.notify_one();
            let _ = told.await;
        };
        let _ = tokio::time::timeout(SETTLE, asked).await;
    }

    pub(super) async fn close(&self) {
        self.closing.cancel();
        self.task.wait().await;
        // After an orderly end nothing is left in it for a store that may be put back from a copy meanwhile.
        let tidied = self.births.empty().and_then(|()| self.births.release());
        if let Err(error) = tidied {
            tracing::warn!(%error, "the file of calls that begin can't be emptied");
        }
    }
}
