//! The last phase of a call: the terminate webhook, the wait for the node's last requests and log
//! lines, and the outcome.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;

use super::super::body::{self, TerminateStatus};
use super::super::error::GraphError;
use super::{Call, CallMsg, GraphRequest};
use crate::caller::{CallEvent, CallEventKind, CallOutcome, HangupSource};
use crate::faults::WebhookKind;
use crate::sound;

/// Maximum time to wait for the node to accept the terminate webhook and to finish its event log.
const AFTERMATH_MAX: Duration = Duration::from_secs(3);
/// Length of the permission to call back that a user's call gives, in seconds.
const CALLBACK_PERMISSION_SECS: i64 = 604_800;
/// Hangup causes of a call that went well.
const NORMAL_CAUSES: [&str; 7] = [
    "caller_hangup",
    "business_hangup",
    "xml_hangup",
    "api_hangup",
    "end_of_instructions",
    "scheduled_hangup",
    "time_limit",
];

impl Call {
    pub(super) async fn end(mut self, by: HangupSource, mailbox: &mut mpsc::Receiver<CallMsg>) {
        // A `pre_accept` that its own `reject` has overtaken must still reach the call, because it
        // shows that the call was admitted.
        if by != HangupSource::Rejected {
            self.world.remove_call(&self.info);
        }
        self.emit(CallEventKind::Hangup { by });
        self.follow_unanswered();
        let now = self.world.clock.now();
        let wall = self.world.clock.wall().secs();
        let status = match self.accepted {
            Some(accepted) => {
                let lasted = now.saturating_duration_since(accepted.at).as_secs();
                let duration_secs = i64::try_from(lasted).unwrap_or(i64::MAX);
                TerminateStatus::Completed { start: accepted.wall_secs, end: wall, duration_secs }
            }
            None => TerminateStatus::Failed,
        };
        // Meta takes some time to react to a request of the business.
        let delay = match by {
            HangupSource::Business | HangupSource::Rejected | HangupSource::Declined => {
                Duration::from_millis(self.world.rng.range(50, 450))
            }
            HangupSource::Caller | HangupSource::Meta => Duration::ZERO,
        };
        let terminate = body::terminate(&self.info, wall, status, self.opaque.as_deref());
        self.deliver(WebhookKind::Terminate, terminate, delay);
        let id = &self.info.number.phone_number_id;
        let grants_callback =
            !self.info.business_initiated && self.world.settings.grants_callback(id);
        if self.info.business_initiated {
            self.record_missed(by).await;
        } else {
            let until = grants_callback.then_some(wall + CALLBACK_PERMISSION_SECS);
            self.world.permissions.record_user_call(
                id,
                &self.info.user,
                self.accepted.is_some(),
                until,
            );
        }
        if grants_callback {
            let message_id = format!("wamid.{}", self.world.rng.text(40));
            let reply = body::callback_permission(
                &self.info,
                &message_id,
                wall,
                wall + CALLBACK_PERMISSION_SECS,
            );
            let webhook = self.world.webhooks.sign(
                &self.target,
                "call_permission_reply",
                &self.info.call_id,
                &reply,
                None,
            );
            self.world.webhooks.deliver(&self.target, webhook, delay, |_| {});
        }
        if let Some(leg) = self.leg() {
            self.relay.stop_audio(leg).await;
        }
        if let Some(browser) = self.browser {
            self.relay.close(browser, true).await;
        }
        self.drain_mailbox(mailbox).await;
        self.world.remove_call(&self.info);
        let recording = match self.leg() {
            Some(leg) => self.relay.close(leg, !self.silent_end).await,
            None => None,
        };
        if let Some(pcm) = recording {
            self.emit(CallEventKind::Recording { wav: sound::wav_base64(&pcm) });
        }
        let outcome = self.outcome(by);
        let event = CallEvent::new(self.elapsed(), CallEventKind::Ended(outcome));
        tokio::select! {
            _ = self.events.send(event) => {}
            () = self.world.stop.cancelled() => {}
        }
    }

    /// Handles late messages until the node has accepted the terminate webhook and finished its
    /// log.
    async fn drain_mailbox(&mut self, mailbox: &mut mpsc::Receiver<CallMsg>) {
        let deadline = tokio::time::sleep(AFTERMATH_MAX);
        tokio::pin!(deadline);
        while !(self.terminate_taken && (self.node_done || !self.follows_log)) {
            tokio::select! {
                () = &mut deadline => return,
                () = self.world.stop.cancelled() => return,
                message = mailbox.recv() => match message {
                    Some(CallMsg::Node(event)) => self.on_node_event(event),
                    Some(CallMsg::Delivered { kind, status }) => self.on_delivery(kind, status),
                    Some(CallMsg::Graph(request)) => self.refuse_late_request(request),
                    Some(CallMsg::Hangup | CallMsg::Press(_) | CallMsg::Leg(_)) => {}
                    None => return,
                },
            }
        }
    }

    fn refuse_late_request(&self, request: GraphRequest) {
        let error = GraphError::no_call();
        self.emit(CallEventKind::Refused {
            action: request.action.as_str().into(),
            details: error.details.clone(),
        });
        let _ = request.reply.send(Err(error));
    }

    fn outcome(&self, by: HangupSource) -> CallOutcome {
        let answered = self.accepted.is_some();
        let default_cause = match (by, answered) {
            (HangupSource::Caller, true) => "caller_hangup",
            (HangupSource::Caller, false) => "caller_cancelled",
            (HangupSource::Business, true) => "business_hangup",
            (HangupSource::Business, false) if self.info.business_initiated => "cancelled",
            (HangupSource::Business | HangupSource::Rejected | HangupSource::Declined, _) => {
                "rejected"
            }
            (HangupSource::Meta, _) => "not_answered",
        };
        let cause = self.node_cause.clone().unwrap_or_else(|| default_cause.to_owned());
        CallOutcome {
            ok: answered && self.media_up.is_some() && NORMAL_CAUSES.contains(&cause.as_str()),
            cause,
            heard_ms: self.stats.heard_ms.load(Ordering::Relaxed),
            clipped_packets: self.stats.clipped.load(Ordering::Relaxed),
            audio_gaps: self.stats.gaps.load(Ordering::Relaxed),
            call_uuid: self.call_uuid.clone(),
        }
    }
}
