//! The end of a call at the simulated Meta, whoever brought it: the terminate webhook, the wait for what the node still
//! says, and the verdict. What went before is `life`'s.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;

use super::super::body::{self, Ending};
use super::super::graph::GraphFault;
use super::{CallMsg, GraphAsk, Life};
use crate::caller::{CallEvent, Ended, Happened, HungUpBy};
use crate::faults::Hook;
use crate::sound;

/// How long the end waits for the node to take the webhook and to conclude its log.
const AFTERMATH: Duration = Duration::from_secs(3);
/// How long a user's call allows the business to call back (M17), in seconds.
const CALLBACK_SECS: i64 = 604_800;
/// Causes that are a good end of an answered call.
const NORMAL: [&str; 7] = [
    "caller_hangup",
    "business_hangup",
    "xml_hangup",
    "api_hangup",
    "end_of_instructions",
    "scheduled_hangup",
    "time_limit",
];

impl Life {
    pub(super) async fn end(mut self, by: HungUpBy, mailbox: &mut mpsc::Receiver<CallMsg>) {
        // A pre_accept that its own reject overtook is still to be heard of: it says that the call was admitted.
        if by != HungUpBy::Rejected {
            self.world.drop_call(&self.facts);
        }
        self.tell(Happened::Hangup { by });
        let now = self.world.clock.now();
        let wall = self.world.clock.wall().secs();
        let ending = match self.accepted {
            Some(accepted) => {
                let lasted = now.saturating_duration_since(accepted.at).as_secs();
                let duration_secs = i64::try_from(lasted).unwrap_or(i64::MAX);
                Ending::PickedUp { start: accepted.wall_secs, end: wall, duration_secs }
            }
            None => Ending::NotPickedUp,
        };
        // M11: an answer to what the business did takes Meta its time.
        let delay = match by {
            HungUpBy::Business | HungUpBy::Rejected | HungUpBy::Declined => {
                Duration::from_millis(self.world.dice.between(50, 450))
            }
            HungUpBy::Caller | HungUpBy::Meta => Duration::ZERO,
        };
        let terminate = body::terminate(&self.facts, wall, ending, self.opaque.as_deref());
        self.deliver(Hook::Terminate, terminate, delay);
        let id = &self.facts.number.phone_number_id;
        let calls_back = !self.facts.by_business && self.world.settings.calls_back(id);
        if self.facts.by_business {
            self.missed(by).await;
        } else {
            let until = calls_back.then_some(wall + CALLBACK_SECS);
            self.world.permissions.user_called(
                id,
                &self.facts.user,
                self.accepted.is_some(),
                until,
            );
        }
        if calls_back {
            let message_id = format!("wamid.{}", self.world.dice.text(40));
            let reply =
                body::callback_permission(&self.facts, &message_id, wall, wall + CALLBACK_SECS);
            let parcel = self.world.webhooks.parcel(
                &self.door,
                "call_permission_reply",
                &self.facts.call_id,
                &reply,
                None,
            );
            self.world.webhooks.deliver(&self.door, parcel, delay, |_| {});
        }
        if let Some(leg) = self.leg() {
            self.relay.over(leg).await;
        }
        if let Some(browser) = self.browser {
            self.relay.close(browser, true).await;
        }
        self.aftermath(mailbox).await;
        self.world.drop_call(&self.facts);
        let recording = match self.leg() {
            Some(leg) => self.relay.close(leg, !self.mute_end).await,
            None => None,
        };
        if let Some(pcm) = recording {
            self.tell(Happened::Recording { wav: sound::wav_base64(&pcm) });
        }
        let ended = self.ended(by);
        let event = CallEvent::new(self.at(), Happened::Ended(ended));
        tokio::select! {
            _ = self.events.send(event) => {}
            () = self.world.stop.cancelled() => {}
        }
    }

    /// What the node still says about a call that is over: late Graph requests are answered elsewhere (M8).
    async fn aftermath(&mut self, mailbox: &mut mpsc::Receiver<CallMsg>) {
        let patience = tokio::time::sleep(AFTERMATH);
        tokio::pin!(patience);
        while !(self.terminate_taken && (self.node_done || self.call_uuid.is_none())) {
            tokio::select! {
                () = &mut patience => return,
                () = self.world.stop.cancelled() => return,
                message = mailbox.recv() => match message {
                    Some(CallMsg::Node(told)) => self.node_told(told),
                    Some(CallMsg::Delivered { kind, status }) => self.delivered(kind, status),
                    Some(CallMsg::Graph(ask)) => self.too_late(ask),
                    Some(CallMsg::Hangup | CallMsg::Press(_) | CallMsg::Leg(_)) => {}
                    None => return,
                },
            }
        }
    }

    fn too_late(&self, ask: GraphAsk) {
        let fault = GraphFault::no_call();
        self.tell(Happened::Refused {
            action: ask.action.as_str().into(),
            details: fault.details.clone(),
        });
        let _ = ask.reply.send(Err(fault));
    }

    fn ended(&self, by: HungUpBy) -> Ended {
        let answered = self.accepted.is_some();
        let own = match (by, answered) {
            (HungUpBy::Caller, true) => "caller_hangup",
            (HungUpBy::Caller, false) => "caller_cancelled",
            (HungUpBy::Business, true) => "business_hangup",
            (HungUpBy::Business, false) if self.facts.by_business => "cancelled",
            (HungUpBy::Business | HungUpBy::Rejected | HungUpBy::Declined, _) => "rejected",
            (HungUpBy::Meta, _) => "not_answered",
        };
        let cause = self.node_cause.clone().unwrap_or_else(|| own.to_owned());
        Ended {
            ok: answered && self.media_up.is_some() && NORMAL.contains(&cause.as_str()),
            cause,
            heard_ms: self.stats.heard_ms.load(Ordering::Relaxed),
            clipped_packets: self.stats.clipped.load(Ordering::Relaxed),
            audio_gaps: self.stats.gaps.load(Ordering::Relaxed),
            call_uuid: self.call_uuid.clone(),
        }
    }
}
