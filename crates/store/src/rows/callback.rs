use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::seal::Seal;
use machine::{CallbackRequest, Param};
use model::{AuthId, CallUuid, PhoneNumberId, Timestamp};

/// A callback to be added to the outbox.
#[derive(Clone, Debug, PartialEq)]
pub struct NewCallback {
    /// The event id, sent as `X-Offhook-Event-Id`.
    pub event_id: Uuid,
    pub call: CallUuid,
    /// The account that signs it with its tokens, and its main account.
    pub account: AuthId,
    pub main_account: AuthId,
    pub node_id: String,
    /// The delivery queue: the main account, and scheme, host and port of the URL.
    pub origin: String,
    pub notice: CallbackRequest,
    /// Data for the number's delivery log. Set if the callback goes to a number's own webhook URL.
    pub number_event: Option<NumberEvent>,
    /// The encrypted secret parameters if this node's key can't decrypt them. Such a callback can't
    /// be sent; its row keeps them for a node with the right key.
    pub shut: Option<Vec<u8>>,
    pub created: Timestamp,
}

/// What a callback to a number's own webhook URL reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberEvent {
    pub number: PhoneNumberId,
    /// The event type, such as `message.received`.
    pub event: String,
}

impl NewCallback {
    /// Identifies the row, which may not be written yet.
    pub(crate) fn pending_row(&self) -> CallbackRow {
        CallbackRow::Pending { call: self.call, event_id: self.event_id }
    }

    /// Encrypts the secret parameters. Returns `None` if there are none.
    pub(crate) fn sealed(&self, seal: &Seal) -> Option<Vec<u8>> {
        let secret: BTreeMap<&str, &str> = self
            .notice
            .params
            .iter()
            .filter(|(_, v)| is_secret(v))
            .map(|(n, v)| (n, v.reveal()))
            .collect();
        let sealed =
            || seal.seal(self.event_id.as_bytes(), serde_json::to_vec(&secret).unwrap_or_default());
        self.shut.clone().or_else(|| (!secret.is_empty()).then(sealed))
    }

    /// Decrypts the secret parameters and adds them to the request.
    pub(crate) fn unseal(&mut self, seal: &Seal, sealed: Vec<u8>) {
        let plain = seal.open(self.event_id.as_bytes(), &sealed);
        match plain
            .and_then(|plain| serde_json::from_slice::<BTreeMap<String, String>>(&plain).ok())
        {
            Some(secret) => self
                .notice
                .params
                .extend(secret.into_iter().map(|(n, v)| (n.into(), Param::Secret(v)))),
            None => self.shut = Some(sealed),
        }
    }
}

pub(crate) fn is_secret(value: &Param) -> bool {
    matches!(value, Param::Secret(_))
}

/// Identifies the row of a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallbackRow {
    Id(i64),
    /// The row may not be written yet. It has this call and event id.
    Pending {
        call: CallUuid,
        event_id: Uuid,
    },
}

/// A callback in the outbox.
#[derive(Clone, Debug, PartialEq)]
pub struct Callback {
    pub row: CallbackRow,
    pub new: NewCallback,
    /// Start of the 24 hours after which delivery is given up.
    pub since: Timestamp,
    /// Number of attempts made.
    pub attempts: u32,
    /// Number of scheduled retries made or begun.
    pub retries: u32,
}

/// A callback that was just added to the outbox, or is about to be.
#[derive(Clone, Debug, PartialEq)]
pub struct QueuedCallback {
    pub callback: Callback,
    /// Whether it can be sent now. If not, an earlier callback of the same call and origin is sent
    /// first.
    pub first: bool,
}

/// The result of attempts to deliver a callback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    pub row: CallbackRow,
    pub attempts: u32,
    pub at: Timestamp,
    pub outcome: DeliveryOutcome,
    /// HTTP status or error, for people.
    pub last: String,
}

impl Settlement {
    /// Returns the time when the callback is due again, or `None` if it is done.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        match self.outcome {
            DeliveryOutcome::Retry { due } => Some(due),
            DeliveryOutcome::Delivered | DeliveryOutcome::Failed => None,
        }
    }

    /// Returns the time when the callback was delivered or given up, or `None` if it is due again.
    pub(crate) fn done(&self) -> Option<Timestamp> {
        self.due().is_none().then_some(self.at)
    }

    pub(crate) fn is_delivered(&self) -> bool {
        self.outcome == DeliveryOutcome::Delivered
    }
}

/// The new state of the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    Delivered,
    /// Retry at this time. It counts as a scheduled retry.
    Retry {
        due: Timestamp,
    },
    Failed,
}

/// The delivery state of a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallbackState {
    Waiting { due: Timestamp },
    Delivered { at: Timestamp },
    Failed { at: Timestamp },
}

impl CallbackState {
    /// The name of the state in the command line's output and its JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Delivered { .. } => "delivered",
            Self::Failed { .. } => "failed",
        }
    }
}

/// A callback for operators, without its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct CallbackView {
    pub id: i64,
    pub event_id: String,
    pub call: String,
    pub account: String,
    pub kind: String,
    pub method: String,
    pub url: String,
    pub created: Timestamp,
    pub attempts: u32,
    pub state: CallbackState,
    pub last: String,
}
