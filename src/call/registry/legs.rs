//! The legs that live calls dial: each is admitted and begun as a call of its own (`plivo-xml.md` §5.7, §6).

use std::sync::{Arc, PoisonError};

use super::{LiveCall, Outgoing, Registry};
use crate::admission::{AccountEntry, Denied, NumberEntry, Reason, RefusalDetail};
use machine::{
    BLegCommand, BLegEvent, CallSetup, CallUrls, Destination, DialError, DialOrder, Input, Outbound,
};
use model::metric;
use model::{CallType, Direction, E164, EndpointName, HangupCause};
use store::Scope;

impl Registry {
    /// Begins a leg that `a_leg` dials.
    ///
    /// # Errors
    /// What its machine is told instead.
    pub(in crate::call) fn dial(
        &self,
        a_leg: &LiveCall,
        order: DialOrder,
    ) -> Result<(), BLegEvent> {
        let call = order.call;
        match order.destination.clone() {
            Destination::Whatsapp { caller, user } => {
                self.dial_user(a_leg, order, &caller, &user)?
            }
            Destination::Endpoint { caller, name } => {
                self.dial_endpoint(a_leg, order, caller, &name)?
            }
        }
        a_leg.legs.lock().unwrap_or_else(PoisonError::into_inner).push(call);
        Ok(())
    }

    /// The same admission as that of a call over the API, but for its queue (L6).
    fn dial_user(
        &self,
        a_leg: &LiveCall,
        order: DialOrder,
        caller: &str,
        user: &str,
    ) -> Result<(), BLegEvent> {
        let (gate, services) = (&self.0.gate, &self.0.services);
        let Some(number) = self.caller(a_leg, caller) else {
            gate.count(Direction::Outbound, Reason::UnknownNumber.as_str());
            return Err(refused(DialError::CallerIdNotEnabled, String::new()));
        };
        let id = number.spec.phone_number_id.clone();
        let (now, wall) = (services.clock.now(), services.clock.wall());
        let let_in = gate
            .admit_business(now, wall, &id, user, services.permissions.consents())
            .map_err(|denied| not_admitted(&denied))?;
        let parties = [number.spec.number.to_string(), user.to_owned()];
        let setup = self.b_leg(a_leg, &number.account, order, parties);
        let setup = CallSetup { phone_number_id: id, ..setup };
        let begun = self.place(let_in, Outgoing { setup, received: now, placed: now });
        self.count_leg(begun.map_err(|admitted| admitted.withdraw()).is_ok())
    }

    /// An endpoint of the call's own account, wherever it is registered: no slot, and one permit (`plivo-xml.md` §6).
    fn dial_endpoint(
        &self,
        a_leg: &LiveCall,
        order: DialOrder,
        caller: String,
        name: &str,
    ) -> Result<(), BLegEvent> {
        let (gate, services) = (&self.0.gate, &self.0.services);
        let nobody = || refused(DialError::EndpointNotRegistered, String::new());
        let name = EndpointName::parse(name).map_err(|_| nobody())?;
        let scope = Scope::of(a_leg.setup.account.clone());
        let owner = services
            .phones
            .owner(&name)
            .filter(|owner| scope.holds(&owner.account, &owner.main_account));
        let owner = owner.ok_or_else(nobody)?;
        let account =
            gate.directory().tables().account(&owner.account).cloned().ok_or_else(nobody)?;
        let now = services.clock.now();
        let denied =
            |reason| not_admitted(&Denied { reason, because: RefusalDetail::Reason, number: None });
        let admitted = gate.admit_web(now, &account, Direction::Outbound).map_err(denied)?;
        let to = name.sip_address(&a_leg.setup.limits.sip_host);
        let setup = self.b_leg(a_leg, &account, order, [caller, to]);
        let setup = CallSetup { call_type: CallType::Web, ..setup };
        let begun =
            self.ring_endpoint(admitted, Outgoing { setup, received: now, placed: now }, name);
        self.count_leg(begun.map_err(|admitted| admitted.withdraw()).is_ok())
    }

    /// An admitted leg has begun, or there was no room for it.
    fn count_leg(&self, begun: bool) -> Result<(), BLegEvent> {
        let result = if begun { metric::admission::ADMITTED } else { Reason::Overloaded.as_str() };
        self.0.gate.count(Direction::Outbound, result);
        if begun { Ok(()) } else { Err(refused(DialError::Overloaded, String::new())) }
    }

    /// The business number of the call's own account that is to call.
    fn caller(&self, a_leg: &LiveCall, caller: &str) -> Option<Arc<NumberEntry>> {
        let number = E164::parse(caller).ok()?;
        let tables = self.0.gate.directory().tables();
        let entry = tables.by_number(&number)?;
        let own = &a_leg.setup.account;
        (entry.account.auth_id == *own || entry.account.main().auth_id == *own)
            .then(|| entry.clone())
    }

    /// A leg from the one to the other, a WhatsApp user's as yet.
    fn b_leg(
        &self,
        a_leg: &LiveCall,
        account: &AccountEntry,
        order: DialOrder,
        [from, to]: [String; 2],
    ) -> CallSetup {
        let services = &self.0.services;
        // Never asked: a B-leg has no document, and its callbacks are its A-leg's.
        let urls = CallUrls { fallback: None, ..a_leg.setup.urls.clone() };
        CallSetup {
            call: order.call,
            direction: Direction::Outbound,
            call_type: CallType::Whatsapp,
            wacid: None,
            phone_number_id: "".into(),
            from,
            to,
            caller_name: order.caller_name,
            cta_payload: None,
            deeplink_payload: None,
            account: account.auth_id.clone(),
            parent_account: account.main().auth_id.clone(),
            urls,
            started: services.clock.wall(),
            limits: services.settings.load().limits.clone(),
            headers: order.headers,
            outbound: Some(Box::new(Outbound {
                ring: None,
                ring_timeout_ms: order.ring_timeout_ms,
                hangup_on_ring_ms: None,
                send_digits: order.send_digits,
                parent_call: Some(a_leg.setup.call),
                b_leg: Some(Box::new(order.b_leg)),
                document: None,
                confirm: None,
                room: None,
                room_music: None,
                needs_company: false,
            })),
        }
    }

    /// A call has left: none of its legs outlives it, whatever way it left.
    pub(super) fn leave_legs(&self, a_leg: &LiveCall) {
        let legs = std::mem::take(&mut *a_leg.legs.lock().unwrap_or_else(PoisonError::into_inner));
        for leg in legs.into_iter().filter_map(|call| self.get(call)) {
            leg.mailbox.tell(Input::ALeg {
                command: BLegCommand::HangUp { cause: HangupCause::DialEnded },
            });
        }
    }

    /// A leg's task is gone by a fault of ours: whoever dialled it is told.
    pub(super) fn lost_leg(&self, leg: &LiveCall) {
        let Some(a_leg) = leg.setup.b_leg().and_then(|dialled| self.get(dialled.a_leg)) else {
            return;
        };
        let news = BLegEvent::Ended { cause: HangupCause::InternalError };
        a_leg.mailbox.tell(Input::BLeg { call: leg.setup.call, event: news });
    }
}

fn refused(error: DialError, detail: String) -> BLegEvent {
    BLegEvent::Refused { error, detail }
}

/// What a denied admission is to whoever dialled.
fn not_admitted(denied: &Denied) -> BLegEvent {
    let error = match denied.reason {
        Reason::UnknownNumber | Reason::CallingDisabled => DialError::CallerIdNotEnabled,
        Reason::NoPermission => DialError::NoPermission,
        Reason::GeoBlocked => DialError::GeoBlocked,
        Reason::NumberFull => DialError::NumberFull,
        Reason::CpsExceeded => DialError::CpsExceeded,
        Reason::Draining => DialError::Draining,
        Reason::Overloaded | Reason::BadOffer | Reason::Duplicate => DialError::Overloaded,
        // As Meta would say it (138003): the line is busy, which is no fault.
        Reason::UserBusy => return BLegEvent::Ended { cause: HangupCause::UserBusy },
    };
    let detail = denied.to_string();
    // The bare word says less than our own advice.
    let detail = if detail == denied.reason.as_str() { String::new() } else { detail };
    refused(error, detail)
}
