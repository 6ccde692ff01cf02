//! The writes that the writer has gathered but not written yet. This module also decides which ends
//! of calls can be reported before they are in the database.

use std::collections::{HashMap, HashSet};

use tokio::sync::oneshot;
use uuid::Uuid;

use crate::rows::call::{Conclusion, ConclusionResult, ReportedEnd};
use crate::rows::callback::{Callback, CallbackRow, NewCallback, QueuedCallback};
use crate::write::{InboxWrite, Write};
use machine::CallbackKind;
use model::CallUuid;

/// The writes that wait for a batch.
#[derive(Default)]
pub(crate) struct GatheredWrites {
    /// All writes but event log lines, in order.
    pub(crate) batch: Vec<Write>,
    /// Lines of event logs.
    pub(crate) lines: Vec<Write>,
    /// Whether a caller waits for a write of the batch.
    pub(crate) is_waited_for: bool,
    /// Open calls without a callback so far. A callback of their end need not wait for other ones.
    without_callbacks: HashSet<CallUuid>,
    /// Whether the batch contains starts of calls that are not synced in the pending log.
    has_unsynced_starts: bool,
    /// Positions in the batch of ends that can be reported early.
    reportable: Vec<usize>,
    /// Positions in the batch of ends that are being reported, by the event id of a callback.
    reported: HashMap<Uuid, usize>,
}

impl GatheredWrites {
    /// Adds a write. If `can_report` is `false`, no end of a call can be reported early.
    pub(crate) fn push(&mut self, write: Write, can_report: bool) {
        match &write {
            Write::LogLine { .. } | Write::LateLine { .. } => return self.lines.push(write),
            Write::CallStarted(call) => {
                self.without_callbacks.insert(call.start.call);
                self.has_unsynced_starts = true;
            }
            Write::CallEnded(conclusion, _) => {
                let call = conclusion.start.call;
                let is_without_callbacks = self.without_callbacks.remove(&call);
                // Events follow the earlier ones of their conversation, which the database knows.
                let is_about_call_only =
                    conclusion.callbacks.iter().all(|callback| callback.call == call);
                match is_without_callbacks && is_about_call_only && can_report {
                    true => self.reportable.push(self.batch.len()),
                    false => self.is_waited_for = true,
                }
            }
            Write::SettleCallback(settlement, _) => {
                if let CallbackRow::Pending { event_id, .. } = settlement.row
                    && let Some(at) = self.reported.get(&event_id)
                    && let Some(Write::CallReported(end)) = self.batch.get_mut(*at)
                    && let Write::SettleCallback(settlement, sender) = write
                {
                    let others_wait = end.conclusion.callbacks.len() > 1;
                    end.settled.push(*settlement);
                    let _ = sender.send(others_wait);
                    return;
                }
            }
            Write::Callback(callback, _) => {
                self.without_callbacks.remove(&callback.call);
                self.is_waited_for = true;
            }
            Write::RecordingEnded(conclusion, _) => {
                for callback in &conclusion.callbacks {
                    self.without_callbacks.remove(&callback.call);
                }
                self.is_waited_for = true;
            }
            Write::Inbox(write, _) => {
                let is_event = |write: &InboxWrite| matches!(write, InboxWrite::Entry(entry) if entry.draft.is_none());
                self.is_waited_for |= !is_event(write);
            }
            Write::Permission(..)
            | Write::Endpoint(..)
            | Write::Transcription(..)
            | Write::DeleteRecordings(..)
            | Write::Task(..)
            | Write::Flush(_) => self.is_waited_for = true,
            Write::CallReported(_)
            | Write::SetWacid(..)
            | Write::CallAnswered(..)
            | Write::Heartbeat(..)
            | Write::SettleFarewell(..)
            | Write::TakeOverFarewells(_)
            | Write::InsertKey(_)
            | Write::RemoveKey(_)
            | Write::DeletePermission(..)
            | Write::RecordingStarted(_)
            | Write::RecordingCopy(..)
            | Write::DeleteOldKeys(_) => {}
        }
        self.batch.push(write);
    }

    /// Returns the ends that can be reported early.
    pub(crate) fn reportable(&self) -> impl Iterator<Item = &Write> {
        self.reportable.iter().filter_map(|at| self.batch.get(*at))
    }

    /// Returns whether the pending log must be synced if the batch is not written now.
    pub(crate) fn needs_sync(&self) -> bool {
        self.has_unsynced_starts || !self.reportable.is_empty()
    }

    /// Completes the waiters of the ends that can be reported early, after the pending log was
    /// synced.
    pub(crate) fn report(&mut self) {
        self.has_unsynced_starts = false;
        for at in self.reportable.drain(..) {
            let Some(slot) = self.batch.get_mut(at) else { continue };
            let (nobody, _) = oneshot::channel();
            match std::mem::replace(slot, Write::Flush(nobody)) {
                Write::CallEnded(conclusion, sender) => {
                    let ids = conclusion.callbacks.iter().map(|callback| (callback.event_id, at));
                    self.reported.extend(ids);
                    let _ = sender.send(early_result(&conclusion));
                    let (conclusion, settled) = (*conclusion, Vec::new());
                    *slot = Write::CallReported(Box::new(ReportedEnd { conclusion, settled }));
                }
                other => *slot = other,
            }
        }
    }

    /// Returns the batch, which is about to be written. Call ends in it can no longer be reported
    /// early.
    pub(crate) fn take(&mut self) -> Vec<Write> {
        self.is_waited_for = false;
        self.has_unsynced_starts = false;
        self.reportable.clear();
        self.reported.clear();
        std::mem::take(&mut self.batch)
    }
}

/// Returns the result of a conclusion that is not in the database yet.
fn early_result(conclusion: &Conclusion) -> ConclusionResult {
    let queued = |(n, new): (usize, &NewCallback)| QueuedCallback {
        callback: Callback {
            row: new.pending_row(),
            new: new.clone(),
            since: new.created,
            attempts: 0,
            retries: 0,
        },
        first: !conclusion.callbacks.iter().take(n).any(|earlier| is_before(earlier, new)),
    };
    let callbacks = conclusion.callbacks.iter().enumerate().map(queued).collect();
    ConclusionResult { changed: true, callbacks }
}

/// Returns whether a callback must be delivered before another one of the same call's end. The
/// outbox has the same rule in SQL for all callbacks of a call.
fn is_before(earlier: &NewCallback, callback: &NewCallback) -> bool {
    let is_hangup = callback.notice.kind == CallbackKind::Hangup;
    let is_followed_by_hangup = !matches!(
        earlier.notice.kind,
        CallbackKind::Recording
            | CallbackKind::Transcription
            | CallbackKind::Event
            | CallbackKind::Message
    );
    earlier.call == callback.call
        && (earlier.notice.url == callback.notice.url || (is_hangup && is_followed_by_hangup))
}
