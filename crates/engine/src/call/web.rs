//! Web legs (`plivo-xml.md` §6): a call that an endpoint's phone begins, one that rings an endpoint, and what a phone says
//! of either. The path is that of every call; only who is asked and told is another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::info;

use super::phones::{KeyWay, Owner, PlaceId};
use super::registry::{LiveCall, Outgoing, Registry};
use super::shell::{Peer, Way, What};
use crate::admission::WebAdmitted;
use machine::{CallSetup, CallUrls, Input, PhoneStatus, Termination};
use media::sdp::Offer;
use model::{CallType, CallUuid, Digit, Direction, EndpointName, Leg, Timestamp};

/// How long a phone whose socket was lost may take to come back to its calls; their sound goes on meanwhile.
pub const BACK_WITHIN: Duration = Duration::from_secs(15);

/// A call of a phone's own, with all that it begins with.
pub struct WebCall {
    pub place: PlaceId,
    pub owner: Owner,
    /// `From`: the endpoint's SIP address.
    pub from: String,
    /// What was dialled.
    pub to: String,
    pub caller_name: String,
    pub headers: Vec<(String, String)>,
    /// Its application's.
    pub urls: CallUrls,
    pub offer: Offer,
    /// When it was asked for: the zero of its time.
    pub arrived: Instant,
    pub arrived_wall: Timestamp,
}

/// What a phone could not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotDone {
    /// No such call here, or over.
    NoCall,
    /// It does not ring here any more: it was taken elsewhere, or given up.
    NotRinging,
}

impl Registry {
    /// Starts a call of a phone's own; what follows happens behind it.
    ///
    /// # Errors
    /// No room, or a store that takes no more: the admission comes back, to be withdrawn.
    pub fn start_web(
        &self,
        admitted: WebAdmitted,
        web: WebCall,
    ) -> Result<CallUuid, Box<WebAdmitted>> {
        let services = self.services();
        let Some(starting) = self.room_here() else { return Err(Box::new(admitted)) };
        let setup = CallSetup {
            call: CallUuid(services.uuid()),
            direction: Direction::Inbound,
            call_type: CallType::Web,
            wacid: None,
            phone_number_id: "".into(),
            from: web.from,
            to: web.to,
            caller_name: web.caller_name,
            cta_payload: None,
            deeplink_payload: None,
            account: web.owner.account,
            parent_account: web.owner.main_account,
            urls: web.urls,
            started: web.arrived_wall,
            limits: services.settings.load().limits.clone(),
            headers: web.headers,
            outbound: None,
        };
        if !self.born(&setup) {
            return Err(Box::new(admitted));
        }
        let call = setup.call;
        let line = services.phones.line_from(call, web.place, web.owner.name);
        let peer = Peer::Phone { account: admitted.begin(), line };
        self.begin(
            peer,
            starting,
            setup,
            Way::Offered(Box::new(web.offer)),
            [web.arrived, web.arrived],
        );
        Ok(call)
    }

    /// Rings an endpoint wherever it is registered; what follows happens behind it. `outgoing.setup` is a web leg's, its
    /// direction outbound, with `To` the endpoint's SIP address.
    ///
    /// # Errors
    /// No room, or a store that takes no more: the admission comes back, to be withdrawn.
    pub fn ring_endpoint(
        &self,
        admitted: WebAdmitted,
        outgoing: Outgoing,
        endpoint: EndpointName,
    ) -> Result<(), Box<WebAdmitted>> {
        let Some(starting) = self.room_here() else { return Err(Box::new(admitted)) };
        let Outgoing { setup, received, placed } = outgoing;
        if !self.born(&setup) {
            return Err(Box::new(admitted));
        }
        let line = self.services().phones.line_to(setup.call, endpoint);
        let peer = Peer::Phone { account: admitted.begin(), line };
        self.begin(peer, starting, setup, Way::Rung, [received, placed]);
        Ok(())
    }

    /// A place's socket is gone. With `left` the phone went on purpose and its calls end; else it may come back.
    pub fn phone_gone(&self, place: PlaceId, calls: &[CallUuid], left: bool) {
        for call in calls.iter().filter_map(|call| self.get(*call)) {
            let Some(line) = call.line.clone().filter(|line| line.lost(place)) else { continue };
            if left {
                call.hung_up();
                continue;
            }
            info!(call_uuid = %call.setup.call, "the phone's socket was lost; it may come back");
            self.services().tasks.spawn(async move {
                tokio::time::sleep(BACK_WITHIN).await;
                if line.is_away() {
                    call.hung_up();
                }
            });
        }
    }

    /// A phone is back at another place: gives those of its calls that it has again.
    pub fn phone_back(&self, place: PlaceId, calls: &[CallUuid]) -> Vec<CallUuid> {
        let back = |call: &&CallUuid| {
            let found = self.get(**call).filter(|call| !call.is_closing());
            found.is_some_and(|call| call.line.as_ref().is_some_and(|line| line.back(place)))
        };
        calls.iter().filter(back).copied().collect()
    }
}

/// What a phone says of a call.
impl LiveCall {
    /// It takes the call that rings, by this offer.
    ///
    /// # Errors
    /// It does not ring there any more.
    pub fn take(&self, place: PlaceId, offer: Offer) -> Result<(), NotDone> {
        let line = self.line.as_ref().filter(|_| !self.is_closing()).ok_or(NotDone::NoCall)?;
        if !line.accept(place) {
            return Err(NotDone::NotRinging);
        }
        if self.mailbox.put(What::Taken(Box::new(offer))) { Ok(()) } else { Err(NotDone::NoCall) }
    }

    /// It does not want the call that rings. When no place rings any more, the call is declined.
    ///
    /// # Errors
    /// It does not ring there any more.
    pub fn decline(&self, place: PlaceId) -> Result<(), NotDone> {
        let line = self.line.as_ref().ok_or(NotDone::NoCall)?;
        if line.decline(place).ok_or(NotDone::NotRinging)? {
            self.mailbox.tell(Input::Status { status: PhoneStatus::Rejected });
            self.hung_up();
        }
        Ok(())
    }

    /// It hangs up.
    ///
    /// # Errors
    /// It does not have the call.
    pub fn hang_up(&self, place: PlaceId) -> Result<(), NotDone> {
        self.had_by(place)?;
        self.hung_up();
        Ok(())
    }

    /// It sends keys, one after another.
    ///
    /// # Errors
    /// It does not have the call.
    pub fn press(
        &self,
        place: PlaceId,
        digits: impl Iterator<Item = Digit>,
    ) -> Result<(), NotDone> {
        let line = self.had_by(place)?;
        if line.takes_key(KeyWay::Socket) {
            for digit in digits {
                self.mailbox.tell(Input::Digit { leg: Leg::A, digit });
            }
        }
        Ok(())
    }

    /// It is to be heard, or not.
    ///
    /// # Errors
    /// It does not have the call.
    pub fn mute(&self, place: PlaceId, silence: Silence, on: bool) -> Result<(), NotDone> {
        self.had_by(place)?;
        if self.mailbox.put(What::Silence(silence, on)) { Ok(()) } else { Err(NotDone::NoCall) }
    }

    /// It wants to read what is said in this language, or nothing any more.
    ///
    /// # Errors
    /// It does not have the call.
    pub fn caption(&self, place: PlaceId, language: Option<&str>) -> Result<(), NotDone> {
        self.had_by(place)?;
        if self.mailbox.put(What::Captions(language.map(Box::from))) {
            Ok(())
        } else {
            Err(NotDone::NoCall)
        }
    }

    /// Whether a phone has this call.
    ///
    /// # Errors
    /// It does not.
    pub fn is_with(&self, place: PlaceId) -> Result<(), NotDone> {
        self.had_by(place).map(drop)
    }

    fn had_by(&self, place: PlaceId) -> Result<&Arc<super::phones::Line>, NotDone> {
        self.line
            .as_ref()
            .filter(|line| !self.is_closing() && line.is_at(place))
            .ok_or(NotDone::NoCall)
    }

    fn hung_up(&self) {
        self.mailbox.tell(Input::Terminated { termination: Termination::default() });
    }
}

/// Why a phone is not heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Its microphone is off.
    Mute,
    /// The call is put aside.
    Hold,
}
