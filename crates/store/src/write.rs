//! The writes that are queued for the writer thread.

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::rows::call::{Conclusion, ConclusionResult, ReportedEnd, StartedCall};
use crate::rows::callback::{NewCallback, QueuedCallback, Settlement};
use crate::rows::conversation::{ConversationChange, Pair};
use crate::rows::endpoint::EndpointWrite;
use crate::rows::event_key::SeenKey;
use crate::rows::message::{
    EventDraft, InboxResult, OutgoingMessages, StatusUpdate, TimelineEntry,
};
use crate::rows::number::{NumberTransfer, RoutingChange};
use crate::rows::permission::{PermissionRow, PermissionWrite};
use crate::rows::recording::{CopyWrite, RecordingConclusion, RecordingStart, TranscriptWrite};
use crate::rows::webhook::WebhookWrite;
use crate::scope::Scope;
use crate::seal::Seal;
use crate::sql::Conn;
use model::{CallUuid, PhoneNumberId, Routing, Timestamp, Wacid};

/// A write of a resource that does not belong to a call, such as an agent or a notification. It
/// executes its own statements, so that the queue, the writer and the batch need not know its type.
/// A write that is rolled back with its batch is executed again in a later one, so it must have no
/// effects outside the database.
///
/// The journal does not take these writes: if the database rejects one, nothing has changed.
pub(crate) trait WriteTask: Send + Sync {
    /// Executes the write and returns the number of rows that it changed.
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        seal: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>>;

    /// Returns whether the write must be on disk before it is reported as done. If not, a power
    /// loss may undo it.
    fn is_synced(&self) -> bool {
        true
    }
}

/// A write about messages or conversations.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum InboxWrite {
    Entry(TimelineEntry),
    Status(StatusUpdate),
    Enqueue(OutgoingMessages),
    /// Records that the request to Meta is about to be sent. From then on, Meta may have the
    /// message.
    BeginSending {
        message: Uuid,
        at: Timestamp,
    },
    /// Records the id that Meta returned for a message.
    SetWamid {
        message: Uuid,
        wamid: String,
    },
    /// Changes a conversation. `events` holds the webhooks to notify and their events.
    Change {
        scope: Scope,
        conversation: Uuid,
        change: ConversationChange,
        events: Vec<(Uuid, EventDraft)>,
    },
    Delete {
        scope: Scope,
        conversation: Uuid,
    },
    SetRouting(RoutingChange),
    Transfer(NumberTransfer),
    /// Creates a conversation with this routing unless it exists.
    Open {
        pair: Pair,
        routing: Routing,
        at: Timestamp,
    },
    Webhook(WebhookWrite),
    /// Queues a callback for delivery again, due now.
    Redeliver {
        /// Row id of the callback.
        row: i64,
        /// Who sends it if no process has its queue.
        owner: String,
        now: Timestamp,
    },
    DeleteOlder {
        before: Timestamp,
        limit: u32,
    },
}

impl InboxWrite {
    /// Returns whether only the database can take the write, not the journal.
    fn needs_database(&self) -> bool {
        match self {
            Self::Entry(_) | Self::Status(_) | Self::SetWamid { .. } => false,
            Self::Enqueue(_)
            | Self::BeginSending { .. }
            | Self::Transfer(_)
            | Self::Change { .. }
            | Self::Delete { .. }
            | Self::SetRouting(_)
            | Self::Open { .. }
            | Self::Webhook(_)
            | Self::Redeliver { .. }
            | Self::DeleteOlder { .. } => true,
        }
    }

    /// Returns whether the write must be on disk before it is reported as done. That holds for
    /// everything reported to Meta or a customer.
    pub(crate) fn is_synced(&self) -> bool {
        !matches!(self, Self::SetWamid { .. } | Self::DeleteOlder { .. })
    }
}

/// A write in the queue. The sender of a callback's row receives `None` if the write went to the
/// journal.
pub(crate) enum Write {
    CallStarted(Box<StartedCall>),
    SetWacid(CallUuid, Wacid, Timestamp),
    CallAnswered(CallUuid, Timestamp),
    Heartbeat(String, Timestamp),
    /// A line that follows all lines of the call's own task.
    LateLine {
        call: CallUuid,
        line: String,
    },
    LogLine {
        call: CallUuid,
        seq: u64,
        line: String,
    },
    CallEnded(Box<Conclusion>, oneshot::Sender<ConclusionResult>),
    /// The end of a call whose callbacks are already being sent. The writer creates it from
    /// [`Write::CallEnded`].
    CallReported(Box<ReportedEnd>),
    Callback(Box<NewCallback>, oneshot::Sender<Option<QueuedCallback>>),
    SettleCallback(Box<Settlement>, oneshot::Sender<bool>),
    SettleFarewell(CallUuid, Option<Timestamp>),
    TakeOverFarewells(String),
    InsertKey(SeenKey),
    RemoveKey(u128),
    Permission(Box<PermissionWrite>, oneshot::Sender<()>),
    Inbox(Box<InboxWrite>, oneshot::Sender<InboxResult>),
    DeletePermission(PhoneNumberId, String, Timestamp, Option<String>),
    /// A write of an endpoint. Reports whether a row has changed. The sender is dropped if the
    /// database rejects the write.
    Endpoint(Box<EndpointWrite>, oneshot::Sender<bool>),
    RecordingStarted(Box<RecordingStart>),
    RecordingEnded(Box<RecordingConclusion>, oneshot::Sender<Vec<QueuedCallback>>),
    /// Never journaled: the copy or transcription is attempted again.
    RecordingCopy(Box<CopyWrite>, oneshot::Sender<()>),
    Transcription(Box<TranscriptWrite>, oneshot::Sender<Vec<QueuedCallback>>),
    /// Never journaled: if the database rejects it, nothing has changed.
    DeleteRecordings(Vec<Uuid>, oneshot::Sender<()>),
    /// Never journaled: if the database rejects it, nothing has changed.
    Task(Box<dyn WriteTask>, oneshot::Sender<u64>),
    DeleteOldKeys(Timestamp),
    /// Completed when all writes queued before it are done.
    Flush(oneshot::Sender<()>),
}

/// The result of a write, for the caller that waits for it.
pub(crate) enum WriteResult {
    CallEnded(ConclusionResult),
    Callback(QueuedCallback),
    SettleCallback(bool),
    Endpoint(bool),
    RecordingEnded(Vec<QueuedCallback>),
    Task(u64),
    Inbox(InboxResult),
}

impl Write {
    /// Returns whether the write must be on disk when its batch is done. If not, a power loss may
    /// undo it.
    pub(crate) fn is_synced(&self) -> bool {
        match self {
            // No caller waits for the start of a call, but a power loss must not lose the starts of
            // more than one batch.
            Self::CallEnded(..)
            | Self::CallReported(_)
            | Self::Callback(..)
            | Self::Endpoint(..)
            | Self::CallStarted(_)
            | Self::RecordingEnded(..)
            // The file may be removed once this is written.
            | Self::RecordingCopy(..)
            | Self::Transcription(..)
            | Self::DeleteRecordings(..) => true,
            Self::Task(task, _) => task.is_synced(),
            // The reply was acknowledged to Meta.
            Self::Permission(write, _) => write.reply.is_some(),
            Self::Inbox(write, _) => write.is_synced(),
            Self::SetWacid(..)
            | Self::CallAnswered(..)
            | Self::Heartbeat(..)
            | Self::LateLine { .. }
            | Self::LogLine { .. }
            | Self::SettleCallback(..)
            | Self::SettleFarewell(..)
            | Self::TakeOverFarewells(_)
            | Self::InsertKey(_)
            | Self::RemoveKey(_)
            | Self::DeletePermission(..)
            | Self::RecordingStarted(_)
            | Self::DeleteOldKeys(_)
            | Self::Flush(_) => false,
        }
    }
}

/// Accessors for the kinds of writes that a batch executes with one statement each.
impl Write {
    /// Returns whether only the database can take the write, not the journal. While it does not,
    /// dropping the sender reports that nothing has changed.
    pub(crate) fn needs_database(&self) -> bool {
        match self {
            Self::DeleteRecordings(..)
            | Self::RecordingCopy(..)
            | Self::Transcription(..)
            | Self::Endpoint(..)
            | Self::Task(..) => true,
            Self::Inbox(write, _) => write.needs_database(),
            Self::CallStarted(_)
            | Self::SetWacid(..)
            | Self::CallAnswered(..)
            | Self::CallEnded(..)
            | Self::CallReported(_)
            | Self::Callback(..)
            | Self::SettleCallback(..)
            | Self::SettleFarewell(..)
            | Self::TakeOverFarewells(_)
            | Self::Heartbeat(..)
            | Self::LogLine { .. }
            | Self::LateLine { .. }
            | Self::InsertKey(_)
            | Self::RemoveKey(_)
            | Self::DeleteOldKeys(_)
            | Self::Permission(..)
            | Self::DeletePermission(..)
            | Self::RecordingStarted(_)
            | Self::RecordingEnded(..)
            | Self::Flush(_) => false,
        }
    }

    pub(crate) fn answered(&self) -> Option<(CallUuid, Timestamp)> {
        if let Self::CallAnswered(call, at) = self { Some((*call, *at)) } else { None }
    }

    pub(crate) fn settlement(&self) -> Option<&Settlement> {
        if let Self::SettleCallback(settlement, _) = self { Some(settlement) } else { None }
    }

    pub(crate) fn conclusion(&self) -> Option<&Conclusion> {
        match self {
            Self::CallEnded(conclusion, _) => Some(conclusion),
            Self::CallReported(end) => Some(&end.conclusion),
            _ => None,
        }
    }

    pub(crate) fn entry(&self) -> Option<&TimelineEntry> {
        match self {
            Self::Inbox(write, _) => match &**write {
                InboxWrite::Entry(entry) => Some(entry),
                _ => None,
            },
            _ => None,
        }
    }

    /// Returns the conversation that this write reads or changes.
    pub(crate) fn conversation(&self) -> Option<Uuid> {
        let Self::Inbox(write, _) = self else { return None };
        match &**write {
            InboxWrite::Entry(entry) => Some(entry.pair.conversation),
            InboxWrite::Enqueue(going) => Some(going.conversation),
            InboxWrite::Change { conversation, .. } | InboxWrite::Delete { conversation, .. } => {
                Some(*conversation)
            }
            InboxWrite::Open { pair, .. } => Some(pair.conversation),
            InboxWrite::Status(_)
            | InboxWrite::BeginSending { .. }
            | InboxWrite::SetWamid { .. }
            | InboxWrite::SetRouting(_)
            | InboxWrite::Transfer(_)
            | InboxWrite::Webhook(_)
            | InboxWrite::Redeliver { .. }
            | InboxWrite::DeleteOlder { .. } => None,
        }
    }

    /// Returns the conversation that an agent's answer belongs to.
    pub(crate) fn answered_conversation(&self) -> Option<Uuid> {
        let Self::Inbox(write, _) = self else { return None };
        match &**write {
            InboxWrite::Enqueue(going) => going.epoch.map(|_| going.conversation),
            _ => None,
        }
    }

    /// Returns the permission that this write changes.
    pub(crate) fn permission(&self) -> Option<&PermissionRow> {
        if let Self::Permission(write, _) = self { Some(&write.row) } else { None }
    }

    /// Returns whether this write commutes with call ends, inbound messages and callbacks, because
    /// it touches none of their rows.
    pub(crate) fn commutes(&self) -> bool {
        match self {
            Self::Inbox(..) => self.entry().is_some(),
            Self::CallStarted(_)
            | Self::CallAnswered(..)
            | Self::Heartbeat(..)
            | Self::LateLine { .. }
            | Self::LogLine { .. }
            | Self::CallEnded(..)
            | Self::CallReported(_)
            | Self::Callback(..)
            | Self::SettleCallback(..)
            | Self::InsertKey(_)
            | Self::RemoveKey(_)
            | Self::Permission(..)
            | Self::DeletePermission(..)
            | Self::DeleteOldKeys(_)
            | Self::Flush(_) => true,
            // A farewell depends on whether the call has ended. The others are too rare to matter.
            Self::SetWacid(..)
            | Self::SettleFarewell(..)
            | Self::TakeOverFarewells(_)
            | Self::Endpoint(..)
            | Self::RecordingStarted(_)
            | Self::RecordingEnded(..)
            | Self::RecordingCopy(..)
            | Self::Transcription(..)
            | Self::DeleteRecordings(..)
            | Self::Task(..) => false,
        }
    }
}
