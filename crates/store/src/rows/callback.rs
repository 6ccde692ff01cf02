use std::collections::BTreeMap;

use uuid::Uuid;

use crate::seal::Seal;
use machine::{CallbackRequest, Param};
use model::{AuthId, CallUuid, Timestamp};

/// A callback as it is put into the outbox.
#[derive(Clone, Debug, PartialEq)]
pub struct NewCallback {
    /// `X-Offhook-Event-Id`.
    pub event_id: Uuid,
    pub call: CallUuid,
    /// Whose tokens sign it, and its main account.
    pub account: AuthId,
    pub main_account: AuthId,
    pub node_id: String,
    /// Scheme, host and port of the URL: whose queue it stands in.
    pub origin: String,
    pub notice: CallbackRequest,
    /// Secret parameters that this node's key does not open; without them it can't be sent. The row keeps them for the
    /// right key.
    pub shut: Option<Vec<u8>>,
    pub created: Timestamp,
}

impl NewCallback {
    /// Its secret parameters, sealed for its event id; `None`: it has none.
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

    /// Puts its sealed parameters back in their place.
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

/// A callback that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Callback {
    pub id: i64,
    pub new: NewCallback,
    /// Since when its 24 hours run.
    pub since: Timestamp,
    /// Attempts made so far.
    pub attempts: u32,
    /// Retries of the schedule begun.
    pub retries: u32,
}

/// A callback that was just put into the outbox.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    pub callback: Callback,
    /// Whether it may go out now; else another one of its call and URL waits before it.
    pub first: bool,
}

/// How attempts at a callback ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    pub id: i64,
    pub attempts: u32,
    pub at: Timestamp,
    pub outcome: Settled,
    /// For people: the status, or what went wrong.
    pub last: String,
}

/// What is to become of the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    Delivered,
    /// Once more then; counts as a retry of the schedule.
    Again {
        due: Timestamp,
    },
    Failed,
}

/// Where a callback stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallbackState {
    Waiting { due: Timestamp },
    Delivered { at: Timestamp },
    Failed { at: Timestamp },
}

impl CallbackState {
    /// The word that people and `--json` get.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Delivered { .. } => "delivered",
            Self::Failed { .. } => "failed",
        }
    }
}

/// A callback as an operator sees it: all but its parameters.
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
