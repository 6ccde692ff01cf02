//! The writes that are queued for the writer thread.

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::rows::call::{Birth, Concluded, Conclusion};
use crate::rows::callback::{NewCallback, Settlement, Written};
use crate::rows::conversation::{ConversationChange, Pair};
use crate::rows::endpoint::EndpointWrite;
use crate::rows::event_key::SeenKey;
use crate::rows::message::{Came, Draft, Going, InboxFound, StatusCame};
use crate::rows::number::{Claim, Reroute};
use crate::rows::permission::PermissionWrite;
use crate::rows::recording::{CopyWrite, RecordingConclusion, RecordingStart, TranscriptWrite};
use crate::rows::setting::SettingWrite;
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
pub(crate) trait Deed: Send + Sync {
    /// Executes the write and returns the number of rows that it changed.
    fn carry_out<'a>(
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

/// A write about messages and conversations.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum InboxWrite {
    Came(Came),
    Status(StatusCame),
    Going(Going),
    /// Recorded before the request to Meta. Meta may have the message from then on.
    Asking {
        message: Uuid,
        at: Timestamp,
    },
    /// Meta has accepted the message and returned this id.
    Posted {
        message: Uuid,
        wamid: String,
    },
    /// Changes a conversation. `tell` holds the webhooks to notify and their events.
    Change {
        scope: Scope,
        conversation: Uuid,
        change: ConversationChange,
        tell: Vec<(Uuid, Draft)>,
    },
    Delete {
        scope: Scope,
        conversation: Uuid,
    },
    Reroute(Reroute),
    Claim(Claim),
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
        now: Timestamp,
    },
    Forget {
        before: Timestamp,
        limit: u32,
    },
}

impl InboxWrite {
    /// Returns whether the write must be on disk before it is reported as done. That holds for
    /// everything reported to Meta or a customer.
    pub(crate) fn is_synced(&self) -> bool {
        !matches!(self, Self::Posted { .. } | Self::Forget { .. })
    }
}

/// A write in the queue. The sender of a callback's row receives `None` if the write went to the
/// journal.
pub(crate) enum Write {
    Born(Box<Birth>),
    Bound(CallUuid, Wacid, Timestamp),
    Answered(CallUuid, Timestamp),
    Alive(String, Timestamp),
    /// A line that follows all lines of the call's own task.
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
    /// Never journaled: if the database rejects it, nothing has changed.
    Settings(Vec<SettingWrite>, Timestamp, oneshot::Sender<()>),
    Inbox(Box<InboxWrite>, oneshot::Sender<InboxFound>),
    ForgetPermission(PhoneNumberId, String, Timestamp),
    /// Reports whether a row has changed. The sender is dropped if the database rejects the write.
    Endpoint(Box<EndpointWrite>, oneshot::Sender<bool>),
    RecordingBegun(Box<RecordingStart>),
    RecordingEnded(Box<RecordingConclusion>, oneshot::Sender<Vec<Written>>),
    /// Never journaled: the copy or transcription is attempted again.
    Copy(Box<CopyWrite>, oneshot::Sender<()>),
    Transcribed(Box<TranscriptWrite>, oneshot::Sender<Vec<Written>>),
    /// Never journaled: if the database rejects it, nothing has changed.
    ForgetRecordings(Vec<Uuid>, oneshot::Sender<()>),
    /// Never journaled: if the database rejects it, nothing has changed.
    Deed(Box<dyn Deed>, oneshot::Sender<u64>),
    ForgetKeys(Timestamp),
    /// Completed when all writes queued before it are done.
    Settled(oneshot::Sender<()>),
}

/// The result of a write, for the caller that waits for it.
pub(crate) enum Found {
    Concluded(Concluded),
    Callback(Written),
    Settle(bool),
    Endpoint(bool),
    RecordingEnded(Vec<Written>),
    Deed(u64),
    Inbox(InboxFound),
}

impl Write {
    /// Returns whether the write must be on disk when its batch is done. If not, a power loss may
    /// undo it.
    pub(crate) fn is_synced(&self) -> bool {
        match self {
            // No caller waits for the start of a call, but a power loss must not lose the starts of
            // more than one batch.
            Self::Concluded(..)
            | Self::Callback(..)
            | Self::Settings(..)
            | Self::Endpoint(..)
            | Self::Born(_)
            | Self::RecordingEnded(..)
            // The file may be removed once this is written.
            | Self::Copy(..)
            | Self::Transcribed(..)
            | Self::ForgetRecordings(..) => true,
            Self::Deed(deed, _) => deed.is_synced(),
            // The reply was acknowledged to Meta.
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

/// Accessors for the kinds of writes that a batch executes with one statement each.
impl Write {
    pub(crate) fn answered(&self) -> Option<(CallUuid, Timestamp)> {
        if let Self::Answered(call, at) = self { Some((*call, *at)) } else { None }
    }

    pub(crate) fn settlement(&self) -> Option<&Settlement> {
        if let Self::Settle(settlement, _) = self { Some(settlement) } else { None }
    }

    pub(crate) fn conclusion(&self) -> Option<&Conclusion> {
        if let Self::Concluded(conclusion, _) = self { Some(conclusion) } else { None }
    }

    pub(crate) fn came(&self) -> Option<&Came> {
        match self {
            Self::Inbox(write, _) => match &**write {
                InboxWrite::Came(came) => Some(came),
                _ => None,
            },
            _ => None,
        }
    }

    /// Returns whether this write commutes with call ends, inbound messages and callbacks. It
    /// touches none of their rows.
    pub(crate) fn goes_together(&self) -> bool {
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
            // A farewell depends on whether the call has ended. The others are too rare to matter.
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
