//! The JSON format of writes in the journal.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::rows::call::{CallEnd, CallStart, Conclusion, Farewell, StartedCall};
use crate::rows::callback::{NewCallback, NumberEvent};
use crate::rows::event_key::{KeyKind, SeenKey};
use crate::rows::message::{StatusUpdate, TimelineEntry};
use crate::rows::permission::{PermissionReply, PermissionRow, PermissionWrite};
use crate::rows::recording::{RecordingConclusion, RecordingEnd, RecordingStart};
use crate::seal::Seal;
use crate::write::{InboxWrite, Write};
use machine::{CallbackKind, CallbackRequest, Param};
use model::{AuthId, CallUuid, Method, Timestamp, Wacid};
use xml::ast::DocUrl;

/// A write in the journal.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "write", rename_all = "snake_case")]
pub(crate) enum Entry {
    #[serde(rename = "born")]
    CallStarted {
        start: CallStart,
        setup: String,
        born: Timestamp,
    },
    #[serde(rename = "bound")]
    SetWacid {
        call: CallUuid,
        wacid: Wacid,
        farewell: Option<Timestamp>,
    },
    #[serde(rename = "answered")]
    CallAnswered {
        call: CallUuid,
        at: Timestamp,
    },
    #[serde(rename = "alive")]
    Heartbeat {
        node_id: String,
        at: Timestamp,
    },
    #[serde(rename = "late")]
    LateLine {
        call: CallUuid,
        line: String,
    },
    #[serde(rename = "line")]
    LogLine {
        call: CallUuid,
        seq: u64,
        line: String,
    },
    #[serde(rename = "concluded")]
    CallEnded {
        start: CallStart,
        end: CallEnd,
        callbacks: Vec<KeptCallback>,
        farewell: Option<Farewell>,
    },
    Callback {
        callback: KeptCallback,
    },
    #[serde(rename = "farewell")]
    SettleFarewell {
        call: CallUuid,
        again: Option<Timestamp>,
    },
    Permission {
        row: PermissionRow,
        reply: Option<PermissionReply>,
    },
    #[serde(rename = "recording_begun")]
    RecordingStarted {
        start: RecordingStart,
    },
    RecordingEnded {
        start: RecordingStart,
        end: RecordingEnd,
        callbacks: Vec<KeptCallback>,
    },
    #[serde(rename = "key")]
    InsertKey {
        key: String,
        tombstone: bool,
        seen: Timestamp,
    },
    #[serde(rename = "message_came")]
    Message {
        came: Box<TimelineEntry>,
    },
    MessageStatus {
        status: Box<StatusUpdate>,
    },
}

/// A callback. Its secret parameters are encrypted as in the database.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct KeptCallback {
    event_id: Uuid,
    call: CallUuid,
    account: AuthId,
    main_account: AuthId,
    node_id: String,
    origin: String,
    created: Timestamp,
    kind: CallbackKind,
    url: String,
    method: Method,
    /// Name, value and whether the value is secret, in order. Only journals of older versions
    /// contain secret values.
    params: Vec<(String, String, bool)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    number_event: Option<NumberEvent>,
    /// Base64 of the encrypted parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed: Option<String>,
}

impl KeptCallback {
    fn of(new: &NewCallback, seal: &Seal) -> Self {
        let shown = |(name, value): (&str, &Param)| match value {
            Param::Plain(value) => Some((name.to_string(), value.to_string(), false)),
            Param::Secret(_) => None,
        };
        Self {
            event_id: new.event_id,
            call: new.call,
            account: new.account.clone(),
            main_account: new.main_account.clone(),
            node_id: new.node_id.clone(),
            origin: new.origin.clone(),
            created: new.created,
            kind: new.notice.kind,
            url: new.notice.url.0.to_string(),
            method: new.notice.method,
            params: new.notice.params.iter().filter_map(shown).collect(),
            number_event: new.number_event.clone(),
            sealed: new.sealed(seal).map(|sealed| BASE64_STANDARD.encode(sealed)),
        }
    }

    fn into_new(self, seal: &Seal) -> NewCallback {
        let param = |(name, value, secret): (String, String, bool)| {
            (name.into(), if secret { Param::Secret(value) } else { Param::Plain(value.into()) })
        };
        let mut new = NewCallback {
            event_id: self.event_id,
            call: self.call,
            account: self.account,
            main_account: self.main_account,
            node_id: self.node_id,
            origin: self.origin,
            created: self.created,
            notice: CallbackRequest {
                kind: self.kind,
                url: DocUrl(self.url.into()),
                method: self.method,
                params: self.params.into_iter().map(param).collect(),
            },
            number_event: self.number_event,
            shut: None,
        };
        if let Some(sealed) = self.sealed {
            // Invalid Base64 becomes an empty value, which fails to decrypt.
            new.unseal(seal, BASE64_STANDARD.decode(sealed).unwrap_or_default());
        }
        new
    }
}

impl Entry {
    /// Returns the entry for a write, or `None` if it does not go to the journal.
    ///
    /// Results of callback deliveries stay in memory, because the process that delivered them
    /// remembers them. The others are useless later.
    pub(crate) fn of(write: &Write, seal: &Seal) -> Option<Self> {
        Some(match write {
            Write::CallStarted(birth) => {
                Self::CallStarted { start: birth.start.clone(), setup: birth.setup.clone(), born: birth.born }
            }
            Write::SetWacid(call, wacid, farewell) => {
                Self::SetWacid { call: *call, wacid: wacid.clone(), farewell: Some(*farewell) }
            }
            Write::CallAnswered(call, at) => Self::CallAnswered { call: *call, at: *at },
            Write::Heartbeat(node_id, at) => Self::Heartbeat { node_id: node_id.clone(), at: *at },
            Write::LateLine { call, line } => Self::LateLine { call: *call, line: line.clone() },
            Write::LogLine { call, seq, line } => Self::LogLine { call: *call, seq: *seq, line: line.clone() },
            Write::CallEnded(conclusion, _) => Self::of_end(conclusion, seal),
            Write::CallReported(end) => Self::of_end(&end.conclusion, seal),
            Write::Callback(new, _) => Self::Callback { callback: KeptCallback::of(new, seal) },
            Write::SettleFarewell(call, again) => Self::SettleFarewell { call: *call, again: *again },
            Write::InsertKey(key) => Self::InsertKey {
                key: format!("{:032x}", key.key),
                tombstone: key.kind == KeyKind::Tombstone,
                seen: key.seen,
            },
            Write::Permission(write, _) => Self::Permission { row: write.row.clone(), reply: write.reply.clone() },
            Write::RecordingStarted(start) => Self::RecordingStarted { start: (**start).clone() },
            Write::RecordingEnded(c, _) => Self::RecordingEnded {
                start: c.start.clone(),
                end: c.end,
                callbacks: c.callbacks.iter().map(|new| KeptCallback::of(new, seal)).collect(),
            },
            Write::Inbox(write, _) => match &**write {
                InboxWrite::Entry(came) => Self::Message { came: Box::new(came.clone()) },
                InboxWrite::Status(status) => Self::MessageStatus { status: Box::new(status.clone()) },
// The caller gets an error.
InboxWrite::Enqueue(_)
                | InboxWrite::BeginSending { .. }
                | InboxWrite::Transfer(_)
                | InboxWrite::SetWamid { .. }
                | InboxWrite::Change { .. }
                | InboxWrite::Delete { .. }
                | InboxWrite::SetRouting(_)
                | InboxWrite::Open { .. }
                | InboxWrite::Webhook(_)
                | InboxWrite::Redeliver { .. }
                | InboxWrite::DeleteOlder { .. } => return None,
            },
            Write::SettleCallback(..)
            | Write::DeleteRecordings(..)
// These are attempted again later.
| Write::RecordingCopy(..) | Write::Transcription(..) | Write::TakeOverFarewells(_) | Write::RemoveKey(_)
// The caller gets an error.
| Write::Endpoint(..)
            | Write::Task(..)
            | Write::DeletePermission(..)
            | Write::DeleteOldKeys(_)
            | Write::Flush(_) => return None,
        })
    }

    fn of_end(c: &Conclusion, seal: &Seal) -> Self {
        Self::CallEnded {
            start: c.start.clone(),
            end: c.end.clone(),
            callbacks: c.callbacks.iter().map(|new| KeptCallback::of(new, seal)).collect(),
            farewell: c.farewell,
        }
    }

    /// Returns the write. The receivers of its senders are closed.
    pub(crate) fn into_write(self, seal: &Seal) -> Write {
        match self {
            Self::CallStarted { start, setup, born } => {
                Write::CallStarted(Box::new(StartedCall { start, setup, born }))
            }
            Self::SetWacid { call, wacid, farewell } => {
                Write::SetWacid(call, wacid, farewell.unwrap_or(Timestamp::from_secs(0)))
            }
            Self::CallAnswered { call, at } => Write::CallAnswered(call, at),
            Self::Heartbeat { node_id, at } => Write::Heartbeat(node_id, at),
            Self::LateLine { call, line } => Write::LateLine { call, line },
            Self::LogLine { call, seq, line } => Write::LogLine { call, seq, line },
            Self::CallEnded { start, end, callbacks, farewell } => {
                let callbacks = callbacks.into_iter().map(|kept| kept.into_new(seal)).collect();
                Write::CallEnded(
                    Box::new(Conclusion { start, end, callbacks, farewell }),
                    oneshot::channel().0,
                )
            }
            Self::Callback { callback } => {
                Write::Callback(Box::new(callback.into_new(seal)), oneshot::channel().0)
            }
            Self::Permission { row, reply } => {
                let write = PermissionWrite { row, reply, change: None };
                Write::Permission(Box::new(write), oneshot::channel().0)
            }
            Self::RecordingStarted { start } => Write::RecordingStarted(Box::new(start)),
            Self::RecordingEnded { start, end, callbacks } => {
                let callbacks = callbacks.into_iter().map(|kept| kept.into_new(seal)).collect();
                Write::RecordingEnded(
                    Box::new(RecordingConclusion { start, end, callbacks }),
                    oneshot::channel().0,
                )
            }
            Self::SettleFarewell { call, again } => Write::SettleFarewell(call, again),
            Self::Message { came } => {
                Write::Inbox(Box::new(InboxWrite::Entry(*came)), oneshot::channel().0)
            }
            Self::MessageStatus { status } => {
                Write::Inbox(Box::new(InboxWrite::Status(*status)), oneshot::channel().0)
            }
            Self::InsertKey { key, tombstone, seen } => {
                let kind = if tombstone { KeyKind::Tombstone } else { KeyKind::Event };
                Write::InsertKey(SeenKey {
                    kind,
                    key: u128::from_str_radix(&key, 16).unwrap_or_default(),
                    seen,
                })
            }
        }
    }
}
