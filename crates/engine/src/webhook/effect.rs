//! The result of an item and its metric.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use super::kind::Kind;
use crate::admission::Reason;
use model::metric;

/// The result of an item: the label `result` of `offhook_webhook_events_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Admitted,
    Rejected(Reason),
    Duplicate,
    Stale,
    Ended,
    Late,
    AnswerApplied,
    AnswerBad,
    StatusApplied,
    Parked,
    PermissionUpdated,
    MessageStored,
    AccountNoted,
    SettingsNoted,
    MessageStatusApplied,
    UnknownNumber,
    Ignored,
    Malformed,
    /// The item could not be stored or executed, so the request is answered with 503.
    Busy,
    /// The signature of the whole body was wrong.
    BadSignature,
    BadJson,
    TooLarge,
}

impl Effect {
    /// The label word (`docs/reference/meta.md#results`).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Rejected(_) => "rejected",
            Self::Duplicate => "duplicate",
            Self::Stale => "stale",
            Self::Ended => "ended",
            Self::Late => "late",
            Self::AnswerApplied => "answer_applied",
            Self::AnswerBad => "answer_bad",
            Self::StatusApplied => "status_applied",
            Self::Parked => "parked",
            Self::PermissionUpdated => "permission_updated",
            Self::MessageStored => "message_stored",
            Self::AccountNoted => "account_noted",
            Self::SettingsNoted => "settings_noted",
            Self::MessageStatusApplied => "message_status_applied",
            Self::UnknownNumber => "unknown_number",
            Self::Ignored => "ignored",
            Self::Malformed => "malformed",
            Self::Busy => "busy",
            Self::BadSignature => "bad_signature",
            Self::BadJson => "bad_json",
            Self::TooLarge => "too_large",
        }
    }
}

/// An item and its result.
#[derive(Clone, Debug)]
pub struct ItemResult {
    pub kind: Kind,
    pub id: Option<String>,
    pub effect: Effect,
}

/// The pending count of an item. Counted on drop, after the result of all its writes is known.
pub(super) struct Tally {
    pub(super) kind: &'static str,
    /// The result of the item. It is known only after other nodes were asked, if there are any.
    pub(super) effect: Mutex<Effect>,
    /// Whether a write failed, so that Meta must redeliver the item.
    pub(super) busy: AtomicBool,
}

impl Tally {
    pub(super) fn new(kind: &'static str, effect: Effect) -> Arc<Self> {
        Arc::new(Self { kind, effect: Mutex::new(effect), busy: AtomicBool::new(false) })
    }

    pub(super) fn set(&self, effect: Effect) {
        *self.effect.lock().unwrap_or_else(PoisonError::into_inner) = effect;
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let effect = *self.effect.get_mut().unwrap_or_else(PoisonError::into_inner);
        count(self.kind, if *self.busy.get_mut() { Effect::Busy } else { effect });
    }
}

pub(super) fn count(kind: &'static str, effect: Effect) {
    metrics::counter!(metric::WEBHOOK_EVENTS_TOTAL, "kind" => kind, "result" => effect.as_str())
        .increment(1);
}
