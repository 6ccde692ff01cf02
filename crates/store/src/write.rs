//! Writes of resources that come from outside a call (agents, notifications …): each says itself how it is carried out, so
//! that the queue, the writer and the batch need not know it. Whoever waits hears how many rows it touched, once that is
//! on the disk. The journal takes none: where the store doesn't, nothing has changed.

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

/// One write. Carried out within a batch's transaction, perhaps again in a later one: it changes nothing but rows.
pub(crate) trait Deed: Send + Sync {
    /// How many rows it touched.
    fn carry_out<'a>(
        &'a self,
        to: &'a mut Conn,
        seal: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>>;

    /// Whether it must be on the disk when its batch is done; else it may be lost with the power.
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
    /// Meta is about to be asked: from then on it may have the message.
    Asking {
        message: Uuid,
        at: Timestamp,
    },
    /// Meta has it, under this id.
    Posted {
        message: Uuid,
        wamid: String,
    },
    /// With what a webhook is told of it.
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
    /// A conversation is there from now on, with this routing.
    Open {
        pair: Pair,
        routing: Routing,
        at: Timestamp,
    },
    Webhook(WebhookWrite),
    /// Once more, at once.
    Redeliver {
        /// The callback's row.
        row: i64,
        now: Timestamp,
    },
    Forget {
        before: Timestamp,
        limit: u32,
    },
}

impl InboxWrite {
    /// What Meta or a customer was told is kept.
    pub(crate) fn is_synced(&self) -> bool {
        !matches!(self, Self::Posted { .. } | Self::Forget { .. })
    }
}

/// What is to be written. Who waits for a callback's row is told `None` where the journal has it.
pub(crate) enum Write {
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
    /// What must be on the disk when its batch is done (R11); the rest may be lost with the power.
    pub(crate) fn is_synced(&self) -> bool {
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

    /// Whether ends of calls, messages that came and callbacks may change places with it: it looks at none of their rows.
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
