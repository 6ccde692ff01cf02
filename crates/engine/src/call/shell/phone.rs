//! The peer of a web leg: executes Graph outputs on an endpoint's phone.
//!
//! The machine is the same as for other calls. Where Meta would report the outcome of a request
//! later, a phone's socket accepts a message or not, so the outcome is available immediately. What
//! Meta reports by webhook, a phone reports through [`LiveCall`](crate::call::LiveCall).

use std::time::Instant;

use tracing::warn;

use super::{Media, Shell, leg_events};
use crate::call::captions::{CaptionServices, Captions};
use crate::call::phones::{Ended, ToPhone};
use crate::call::web::MuteReason;
use machine::{GraphAction, GraphOutcome, Input, PhoneStatus, Summary, Termination};
use media::sdp::Offer;
use model::{CallType, Direction, HangupCause};

/// Describes a call's end in the words of the phone protocol.
pub(super) fn ended(summary: &Summary) -> Ended {
    let wire = summary.cause.wire(summary.direction);
    Ended {
        code: wire.code,
        name: wire.name,
        source: wire.source.as_str(),
        cause: summary.cause.as_str(),
        bill_secs: summary.bill_secs,
    }
}

impl Shell {
    /// Executes a Graph output on the phone.
    pub(super) fn ask_phone(&mut self, action: GraphAction) {
        let Some(line) = self.line.clone() else { return };
        let call = self.call;
        match action {
            GraphAction::Connect => return self.ring(),
            GraphAction::PreAccept => {
                line.tell(ToPhone::Answer { call, sdp: self.a_leg.sdp.clone() })
            }
            GraphAction::Accept => line.tell(ToPhone::Answered { call }),
            // The phone receives `ended` with the cause when the call is concluded.
            GraphAction::Reject | GraphAction::Terminate => {}
        }
        self.mailbox.tell(Input::Graph { action, outcome: GraphOutcome::Done });
        if action == GraphAction::Terminate {
            // No confirmation from the phone will follow.
            self.mailbox.tell(Input::Terminated { termination: Termination::default() });
        }
    }

    /// Returns the business number and alias of the call that dials this endpoint, and its user's
    /// name if the phone rings in the user's name.
    fn origin(&self) -> ([String; 2], String) {
        let parent = self.view.setup.outbound.as_ref().and_then(|outbound| outbound.parent_call);
        let parent = parent
            .and_then(|call| self.registry.get(call))
            .filter(|a_leg| a_leg.setup.call_type == CallType::Whatsapp);
        let Some(a_leg) = parent else { return Default::default() };
        let setup = &a_leg.setup;
        let (number, user) = match setup.direction {
            Direction::Inbound => (&setup.to, &setup.from),
            Direction::Outbound => (&setup.from, &setup.to),
        };
        let is_theirs = self.view.setup.from == *user && setup.direction == Direction::Inbound;
        let name = if is_theirs { setup.caller_name.clone() } else { String::new() };
        ([number.clone(), self.registry.alias(&setup.phone_number_id)], name)
    }

    /// Rings the endpoint at all of its registrations.
    fn ring(&self) {
        let Some(line) = &self.line else { return };
        let setup = &self.view.setup;
        let (via, name) = self.origin();
        let ring = ToPhone::Ring {
            call: self.call,
            from: setup.from.clone(),
            to: setup.to.clone(),
            caller_name: if setup.caller_name.is_empty() {
                name
            } else {
                setup.caller_name.clone()
            },
            via,
            headers: setup.headers.clone(),
        };
        let outcome = match line.ring(ring) {
            0 => GraphOutcome::Gone,
            _ => GraphOutcome::Done,
        };
        let rings = outcome == GraphOutcome::Done;
        self.mailbox.tell(Input::Graph { action: GraphAction::Connect, outcome });
        if rings {
            self.mailbox.tell(Input::Status { status: PhoneStatus::Ringing });
        }
    }

    /// Adds or removes a reason to mute the phone. The audio is muted while there is a reason.
    pub(super) fn silence(&mut self, silence: MuteReason, on: bool) {
        self.a_leg.mute_reasons.retain(|other| *other != silence);
        if on {
            self.a_leg.mute_reasons.push(silence);
        }
        if let Media::Leg(leg) = &self.a_leg.media {
            leg.mute(!self.a_leg.mute_reasons.is_empty());
        }
    }

    /// Starts captions in a language, or stops them.
    pub(super) fn caption(&mut self, language: Option<&str>) {
        self.a_leg.captions = None;
        if let (Some(language), Media::Leg(leg), Some(phone)) =
            (language, &self.a_leg.media, &self.line)
        {
            let (workers, tasks) = (self.services.media.workers(), &self.services.tasks);
            let maker =
                CaptionServices { workers, recognisers: &self.services.recognisers, tasks, phone };
            self.a_leg.captions = Some(Captions::begin(language, leg, &maker));
        }
    }

    /// Answers the offer of the phone that accepts the call.
    pub(super) fn taken(&mut self, at: Instant, offer: &Offer) {
        if !matches!(self.a_leg.media, Media::Awaited) {
            return;
        }
        let Some(line) = self.line.clone() else { return };
        match self.services.media.answer(offer, leg_events(&self.mailbox, Some(&line))) {
            Ok((leg, sdp)) => {
                self.a_leg.media = Media::Leg(leg);
                self.a_leg.sdp = sdp.into();
                line.tell(ToPhone::Answer { call: self.call, sdp: self.a_leg.sdp.clone() });
                self.step(at, Input::SdpAnswer { usable: true });
                self.step(at, Input::Status { status: PhoneStatus::Accepted });
            }
            Err(error) => {
                warn!(%error, "media set-up failed");
                self.step(at, Input::HangUp { cause: HangupCause::InternalError });
            }
        }
    }
}
