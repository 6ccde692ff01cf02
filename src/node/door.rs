//! What the webhook's door asks of the calls, answered by the registry.

use std::sync::Arc;

use crate::admission::{Admitted, NumberEntry, Reason, SetUpTicket};
use crate::call::CallEvent;
use crate::call::registry::{self, EventTold, Registry, Told};
use crate::webhook::{Busy, CallKey, Calls, Full, Heard, Incoming, Known, Said};
use machine::Termination;
use media::Media;
use media::sdp::Offer;
use model::{CallUuid, PhoneNumberId, Wacid};

/// The registry, seen by the webhook's door.
pub(super) struct Doorway {
    pub(super) registry: Registry,
    pub(super) media: Arc<Media>,
    /// Offers at loopback addresses are taken where Graph itself is at one (`meta-calling.md` §5.2).
    pub(super) loopback_offers: bool,
}

impl Calls for Doorway {
    type Offer = Offer;
    type Room = SetUpTicket;

    fn room(&self, number: &PhoneNumberId) -> Option<SetUpTicket> {
        self.registry.room(number)
    }

    fn read_offer(&self, sdp: &str) -> Option<Offer> {
        let offer = match Offer::parse(sdp, self.loopback_offers) {
            Ok(offer) => offer,
            Err(fault) => {
                tracing::info!(%fault, "an offer is unusable");
                return None;
            }
        };
        if !self.media.can_answer(&offer) {
            tracing::info!(
                "an offer names no address of a family that this node has; see public.media_ips"
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

    fn placed(&self, key: &CallKey, named: Option<CallUuid>, said: Said<Offer>) -> Heard {
        let key = (key.phone_number_id.clone(), key.wacid.clone());
        let event = match said {
            Said::Answer(answer) => CallEvent::Answer(answer.map(Box::new)),
            Said::Status(status) => CallEvent::Status(status),
        };
        match self.registry.event(&key, named, event) {
            EventTold::Yes => Heard::Yes,
            EventTold::Late => Heard::Late,
            EventTold::Parked => Heard::Parked,
            EventTold::Full => Heard::Busy,
        }
    }

    fn terminated(
        &self,
        key: &CallKey,
        named: Option<CallUuid>,
        termination: Termination,
    ) -> Known {
        let key = (key.phone_number_id.clone(), key.wacid.clone());
        match self.registry.terminated(&key, named, termination) {
            Told::Yes => Known::Ended,
            Told::Full => Known::Busy,
            Told::Unknown => Known::Unknown,
        }
    }

    fn reject(&self, number: &Arc<NumberEntry>, wacid: Wacid, reason: Reason) -> Result<(), Full> {
        self.registry.reject(number, wacid, reason).map_err(|_| Full)
    }
}
