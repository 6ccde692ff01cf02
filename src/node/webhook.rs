//! Connects the webhook handler to the call registry.

use std::sync::Arc;

use engine::admission::{Admitted, NumberEntry, Reason, SetUpTicket};
use engine::call::CallEvent;
use engine::call::registry::{self, EventOutcome, Registry, SendOutcome};
use engine::webhook::{
    Busy, CallKey, CallUpdate, Calls, Full, Incoming, TerminateOutcome, UpdateOutcome,
};
use machine::Termination;
use media::Media;
use media::sdp::Offer;
use model::{CallUuid, PhoneNumberId, Wacid};

/// Implements the webhook's [`Calls`] with the registry and the media stack.
pub(super) struct WebhookCalls {
    pub(super) registry: Registry,
    pub(super) media: Arc<Media>,
    /// Accepts offers with loopback addresses, as a simulated Meta sends them.
    pub(super) loopback_offers: bool,
}

impl Calls for WebhookCalls {
    type Offer = Offer;
    type Room = SetUpTicket;

    fn room(&self, number: &PhoneNumberId) -> Option<SetUpTicket> {
        self.registry.room(number)
    }

    fn read_offer(&self, sdp: &str) -> Option<Offer> {
        let offer = match Offer::parse(sdp, self.loopback_offers) {
            Ok(offer) => offer,
            Err(fault) => {
                tracing::info!(%fault, "unusable offer");
                return None;
            }
        };
        if !self.media.can_answer(&offer) {
            tracing::info!(
                "offer has no candidate of an address family of this node; see public.media_ips"
            );
            return None;
        }
        Some(offer)
    }

    fn start(
        &self,
        room: SetUpTicket,
        admitted: Admitted,
        incoming: Incoming<Offer>,
    ) -> Result<(), Busy> {
        let connect = incoming.connect;
        let from = connect.user(&admitted.number().spec.number);
        let call = registry::Incoming {
            key: (connect.key.phone_number_id, connect.key.wacid),
            from,
            caller_name: connect.name,
            cta_payload: connect.cta_payload,
            deeplink_payload: connect.deeplink_payload,
            offer: incoming.offer,
            received: incoming.received,
            arrived: incoming.arrived,
            arrived_wall: incoming.arrived_wall,
        };
        self.registry.start(room, admitted, call).map_err(|admitted| Busy(*admitted))
    }

    fn placed(
        &self,
        key: &CallKey,
        named: Option<CallUuid>,
        said: CallUpdate<Offer>,
    ) -> UpdateOutcome {
        let key = (key.phone_number_id.clone(), key.wacid.clone());
        let event = match said {
            CallUpdate::Answer(answer) => CallEvent::Answer(answer.map(Box::new)),
            CallUpdate::Status(status) => CallEvent::Status(status),
        };
        match self.registry.event(&key, named, event) {
            EventOutcome::Delivered => UpdateOutcome::Delivered,
            EventOutcome::Late => UpdateOutcome::Late,
            EventOutcome::Parked => UpdateOutcome::Parked,
            EventOutcome::Full => UpdateOutcome::Busy,
        }
    }

    fn terminated(
        &self,
        key: &CallKey,
        named: Option<CallUuid>,
        termination: Termination,
    ) -> TerminateOutcome {
        let key = (key.phone_number_id.clone(), key.wacid.clone());
        match self.registry.terminated(&key, named, termination) {
            SendOutcome::Delivered => TerminateOutcome::Ended,
            SendOutcome::Full => TerminateOutcome::Busy,
            SendOutcome::Unknown => TerminateOutcome::Unknown,
        }
    }

    fn reject(&self, number: &Arc<NumberEntry>, wacid: Wacid, reason: Reason) -> Result<(), Full> {
        self.registry.reject(number, wacid, reason).map_err(|_| Full)
    }
}
