//! Web legs (`docs/reference/xml.md#endpoints`): calls that an endpoint's phone makes, calls that
//! ring an endpoint, and a phone's requests about both. They run like other calls, with a phone
//! instead of Meta.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::info;

use super::live_call::LiveCall;
use super::mailbox::Message;
pub use super::mailbox::MuteReason;
use super::phones::{KeySource, Line, Owner, RegistrationId};
use super::registry::{Outgoing, Registry};
use super::shell::{Peer, StartMode};
use crate::admission::WebAdmitted;
use machine::{CallSetup, CallUrls, Input, PhoneStatus, Termination};
use media::sdp::Offer;
use model::{CallType, CallUuid, Digit, Direction, EndpointName, Leg, Timestamp};

/// How long a phone may take to reconnect after its socket was lost. Its calls continue.
pub const BACK_WITHIN: Duration = Duration::from_secs(15);

/// A call that a phone makes, before its start.
pub struct WebCall {
    pub place: RegistrationId,
    pub owner: Owner,
    /// `From`: the endpoint's SIP address.
    pub from: String,
    /// The dialled number or address.
    pub to: String,
    pub caller_name: String,
    pub headers: Vec<(String, String)>,
    /// The URLs of the endpoint's application.
    pub urls: CallUrls,
    pub offer: Offer,
    /// When the phone requested the call. The call's time counts from here.
    pub arrived: Instant,
    pub arrived_wall: Timestamp,
}

/// Why a request of a phone failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhoneCommandError {
    /// The phone has no live call with this id.
    NoCall,
    /// The call no longer rings at this phone, because it was answered elsewhere or has ended.
    NotRinging,
}

impl Registry {
    /// Starts a call that a phone makes, in its own task.
    ///
    /// # Errors
    /// Returns the admission, to be withdrawn, if the node or the store is overloaded.
    pub fn start_web(
        &self,
        admitted: WebAdmitted,
        web: WebCall,
    ) -> Result<CallUuid, Box<WebAdmitted>> {
        let services = self.services();
        let Some(starting) = self.reserve_locally(admitted.account()) else {
            return Err(Box::new(admitted));
        };
        let setup = CallSetup {
            call: services.call_uuid(),
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
        if !self.write_record(&setup) {
            return Err(Box::new(admitted));
        }
        let call = setup.call;
        let line = services.phones.line_from(call, web.place, web.owner.name);
        let peer = Peer::Phone { account: admitted.begin(), line };
        self.begin(
            peer,
            starting,
            setup,
            StartMode::Offered(Box::new(web.offer)),
            [web.arrived, web.arrived],
        );
        Ok(call)
    }

    /// Starts a call to an endpoint, which rings at all of its registrations. `outgoing.setup` must
    /// be that of an outbound web leg with the endpoint's SIP address as `To`.
    ///
    /// # Errors
    /// Returns the admission, to be withdrawn, if the node or the store is overloaded.
    pub fn ring_endpoint(
        &self,
        admitted: WebAdmitted,
        outgoing: Outgoing,
        endpoint: EndpointName,
    ) -> Result<(), Box<WebAdmitted>> {
        let Some(starting) = self.reserve_locally(admitted.account()) else {
            return Err(Box::new(admitted));
        };
        let Outgoing { setup, received, placed } = outgoing;
        if !self.write_record(&setup) {
            return Err(Box::new(admitted));
        }
        let line = self.services().phones.line_to(setup.call, endpoint);
        let peer = Peer::Phone { account: admitted.begin(), line };
        self.begin(peer, starting, setup, StartMode::Rung, [received, placed]);
        Ok(())
    }

    /// Handles the loss of a phone's socket. With `left`, the phone disconnected on purpose, and
    /// its calls end. Otherwise it may reconnect.
    pub fn phone_gone(&self, place: RegistrationId, calls: &[CallUuid], left: bool) {
        for call in calls.iter().filter_map(|call| self.get(*call)) {
            let Some(line) = call.line.clone().filter(|line| line.lost(place)) else { continue };
            if left {
                call.hung_up();
                continue;
            }
            info!(call_uuid = %call.setup.call, "phone socket lost, waiting for reconnect");
            self.await_phone(call, line);
        }
    }

    /// Ends the call if its phone does not reconnect within [`BACK_WITHIN`].
    pub(super) fn await_phone(&self, call: Arc<LiveCall>, line: Arc<Line>) {
        self.services().tasks.spawn(async move {
            let over = call.mailbox.until_closed();
            if tokio::time::timeout(BACK_WITHIN, over).await.is_err() && line.is_away() {
                call.hung_up();
            }
        });
    }

    /// Reconnects a phone to its calls. Returns the reconnected calls.
    pub fn phone_back(&self, place: RegistrationId, calls: &[CallUuid]) -> Vec<CallUuid> {
        let back = |call: &&CallUuid| {
            let found = self.get(**call).filter(|call| !call.is_closing());
            found.is_some_and(|call| call.line.as_ref().is_some_and(|line| line.back(place)))
        };
        calls.iter().filter(back).copied().collect()
    }
}

/// Requests of a phone about a call.
impl LiveCall {
    /// Accepts the ringing call with an SDP offer.
    ///
    /// # Errors
    /// Returns an error if the call no longer rings at this phone.
    pub fn take(&self, place: RegistrationId, offer: Offer) -> Result<(), PhoneCommandError> {
        let line =
            self.line.as_ref().filter(|_| !self.is_closing()).ok_or(PhoneCommandError::NoCall)?;
        if !line.accept(place) {
            return Err(PhoneCommandError::NotRinging);
        }
        if self.mailbox.put(Message::Taken(Box::new(offer))) {
            Ok(())
        } else {
            Err(PhoneCommandError::NoCall)
        }
    }

    /// Declines the ringing call. The call ends if it rings nowhere else.
    ///
    /// # Errors
    /// Returns an error if the call no longer rings at this phone.
    pub fn decline(&self, place: RegistrationId) -> Result<(), PhoneCommandError> {
        let line = self.line.as_ref().ok_or(PhoneCommandError::NoCall)?;
        if line.decline(place).ok_or(PhoneCommandError::NotRinging)? {
            self.mailbox.tell(Input::Status { status: PhoneStatus::Rejected });
            self.hung_up();
        }
        Ok(())
    }

    /// Hangs up.
    ///
    /// # Errors
    /// Returns an error if the phone does not have the call.
    pub fn hang_up(&self, place: RegistrationId) -> Result<(), PhoneCommandError> {
        self.had_by(place)?;
        self.hung_up();
        Ok(())
    }

    /// Sends keys in order.
    ///
    /// # Errors
    /// Returns an error if the phone does not have the call.
    pub fn press(
        &self,
        place: RegistrationId,
        digits: impl Iterator<Item = Digit>,
    ) -> Result<(), PhoneCommandError> {
        let line = self.had_by(place)?;
        if line.keys().takes_key(KeySource::Socket) {
            for digit in digits {
                self.mailbox.tell(Input::Digit { leg: Leg::A, digit });
            }
        }
        Ok(())
    }

    /// Mutes or unmutes the phone for a reason.
    ///
    /// # Errors
    /// Returns an error if the phone does not have the call.
    pub fn mute(
        &self,
        place: RegistrationId,
        silence: MuteReason,
        on: bool,
    ) -> Result<(), PhoneCommandError> {
        self.had_by(place)?;
        if self.mailbox.put(Message::MuteReason(silence, on)) {
            Ok(())
        } else {
            Err(PhoneCommandError::NoCall)
        }
    }

    /// Starts captions in a language, or stops them.
    ///
    /// # Errors
    /// Returns an error if the phone does not have the call.
    pub fn caption(
        &self,
        place: RegistrationId,
        language: Option<&str>,
    ) -> Result<(), PhoneCommandError> {
        self.had_by(place)?;
        if self.mailbox.put(Message::Captions(language.map(Box::from))) {
            Ok(())
        } else {
            Err(PhoneCommandError::NoCall)
        }
    }

    /// Checks that the call is connected to this phone.
    ///
    /// # Errors
    /// Returns an error if it does not.
    pub fn is_with(&self, place: RegistrationId) -> Result<(), PhoneCommandError> {
        self.had_by(place).map(drop)
    }

    fn had_by(&self, place: RegistrationId) -> Result<&Arc<Line>, PhoneCommandError> {
        self.line
            .as_ref()
            .filter(|line| !self.is_closing() && line.is_at(place))
            .ok_or(PhoneCommandError::NoCall)
    }

    fn hung_up(&self) {
        self.mailbox.tell(Input::Terminated { termination: Termination::default() });
    }
}
