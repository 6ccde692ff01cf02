//! B-legs: each is admitted and started as a call of its own (`docs/reference/xml.md#dial`).

use std::sync::{Arc, PoisonError};

use super::{CallAdmission, Inner, Outgoing, Registry};
use crate::admission::{AccountEntry, Denied, NumberEntry, Reason, RefusalDetail};
use crate::call::handover::IncomingCall;
use crate::call::live_call::LiveCall;
use crate::call::rooms::report_exits;
use machine::{
    BLegCommand, BLegEvent, CallSetup, CallUrls, Destination, DialError, DialOrder, Input, Outbound,
};
use model::metric;
use model::{CallType, CallUuid, Direction, E164, EndpointName, HangupCause};
use store::Scope;

impl Registry {
    /// Starts a B-leg of `a_leg`.
    ///
    /// # Errors
    /// Returns the event that the A-leg's machine receives instead.
    pub(in crate::call) fn dial(
        &self,
        a_leg: &Arc<LiveCall>,
        order: DialOrder,
    ) -> Result<(), BLegEvent> {
        let call = order.call;
        match order.destination.clone() {
            Destination::Whatsapp { caller, user } => {
                if self.0.services.permissions.consents().is_shared() {
                    self.dial_reserved(a_leg.clone(), order, caller, user);
                    return Ok(());
                }
                self.dial_user(a_leg, order, &caller, user)?
            }
            Destination::Endpoint { caller, name } => {
                self.dial_endpoint(a_leg, order, caller, &name)?
            }
        }
        a_leg.legs.lock().unwrap_or_else(PoisonError::into_inner).push(call);
        Ok(())
    }

    /// Dials a WhatsApp user, after the fleet has reserved the user and provided a unit. If the leg
    /// does not begin, the A-leg's machine receives an event.
    fn dial_reserved(&self, a_leg: Arc<LiveCall>, order: DialOrder, caller: String, user: String) {
        let (registry, call) = (self.clone(), order.call);
        a_leg.pending_legs.lock().unwrap_or_else(PoisonError::into_inner).insert(call);
        self.0.services.tasks.spawn(async move {
            let admitted = registry.admit_reserved(&a_leg, &caller, &user).await;
            // Hanging up takes the leg from the list, even if its admission is under way.
            let mut pending = a_leg.pending_legs.lock().unwrap_or_else(PoisonError::into_inner);
            if !pending.remove(&call) {
                if let Ok((admitted, _)) = admitted {
                    admitted.withdraw();
                }
                return;
            }
            let begun = match admitted {
                Ok(admission) => registry.begin_leg(&a_leg, order, admission, user),
                Err(event) => Err(event),
            };
            match begun {
                Ok(()) => a_leg.legs.lock().unwrap_or_else(PoisonError::into_inner).push(call),
                Err(event) => {
                    a_leg.mailbox.tell(Input::BLeg { call, event });
                }
            }
        });
    }

    /// Admits a B-leg to a user in a fleet.
    async fn admit_reserved(
        &self,
        a_leg: &LiveCall,
        caller: &str,
        user: &str,
    ) -> Result<CallAdmission, BLegEvent> {
        let Inner { services, gate, .. } = &*self.0;
        let number = self.enabled_caller(a_leg, caller)?;
        let id = &number.spec.phone_number_id;
        let denied = |denied: Denied| not_admitted(&denied);
        let reservation = services.permissions.reserve(gate, &number, user).await;
        let reservation = reservation.map_err(denied)?;
        let consents = services.permissions.consents();
        let admission = gate.admit_business_shared(&services.clock, id, user, consents).await;
        let mut admission = admission.map_err(denied)?;
        admission.1.hold(reservation);
        Ok(admission)
    }

    /// Dials a WhatsApp user. The admission is that of an API call, but without waiting for calls
    /// per second.
    fn dial_user(
        &self,
        a_leg: &LiveCall,
        order: DialOrder,
        caller: &str,
        user: String,
    ) -> Result<(), BLegEvent> {
        let (gate, services) = (&self.0.gate, &self.0.services);
        let number = self.enabled_caller(a_leg, caller)?;
        let id = &number.spec.phone_number_id;
        let (now, wall) = (services.clock.now(), services.clock.wall());
        let admission = gate
            .admit_business(now, wall, id, &user, services.permissions.consents())
            .map_err(|denied| not_admitted(&denied))?;
        self.begin_leg(a_leg, order, admission, user)
    }

    /// Starts an admitted B-leg to a user.
    fn begin_leg(
        &self,
        a_leg: &LiveCall,
        order: DialOrder,
        admission: CallAdmission,
        user: String,
    ) -> Result<(), BLegEvent> {
        let now = self.0.services.clock.now();
        let number = admission.0.number().clone();
        let setup =
            self.b_leg(a_leg, &number.account, order, [number.spec.number.to_string(), user]);
        let setup = CallSetup { phone_number_id: number.spec.phone_number_id.clone(), ..setup };
        let begun = self.place(admission, Outgoing { setup, received: now, placed: now });
        self.count_leg(begun.map_err(|admitted| admitted.withdraw()).is_ok())
    }

    /// Dials an endpoint of the call's account. It takes a permit but no slot
    /// (`docs/reference/xml.md#endpoints`).
    fn dial_endpoint(
        &self,
        a_leg: &LiveCall,
        order: DialOrder,
        caller: String,
        name: &str,
    ) -> Result<(), BLegEvent> {
        let (gate, services) = (&self.0.gate, &self.0.services);
        let not_registered = || refused(DialError::EndpointNotRegistered, String::new());
        let name = EndpointName::parse(name).map_err(|_| not_registered())?;
        let scope = Scope::of(a_leg.setup.account.clone());
        let owner = services
            .phones
            .owner(&name, services.clock.now())
            .filter(|owner| scope.holds(&owner.account, &owner.main_account));
        let owner = owner.ok_or_else(not_registered)?;
        let account = gate
            .directory()
            .tables()
            .account(&owner.account)
            .cloned()
            .ok_or_else(not_registered)?;
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

    /// Counts whether an admitted leg was started.
    fn count_leg(&self, begun: bool) -> Result<(), BLegEvent> {
        let result = if begun { metric::admission::ADMITTED } else { Reason::Overloaded.as_str() };
        self.0.gate.count(Direction::Outbound, result);
        if begun { Ok(()) } else { Err(refused(DialError::Overloaded, String::new())) }
    }

    /// Like [`Registry::caller`]. A number that does not belong to the call's account is refused.
    fn enabled_caller(
        &self,
        a_leg: &LiveCall,
        caller: &str,
    ) -> Result<Arc<NumberEntry>, BLegEvent> {
        self.caller(a_leg, caller).ok_or_else(|| {
            self.0.gate.count(Direction::Outbound, Reason::UnknownNumber.as_str());
            refused(DialError::CallerIdNotEnabled, String::new())
        })
    }

    /// Returns the caller's business number if it belongs to the call's account.
    fn caller(&self, a_leg: &LiveCall, caller: &str) -> Option<Arc<NumberEntry>> {
        let number = E164::parse(caller).ok()?;
        let tables = self.0.gate.directory().tables();
        let entry = tables.by_number(&number)?;
        let own = &a_leg.setup.account;
        (entry.account.auth_id == *own || entry.account.main().auth_id == *own)
            .then(|| entry.clone())
    }

    /// Builds the setup of a B-leg as a WhatsApp call.
    fn b_leg(
        &self,
        a_leg: &LiveCall,
        account: &AccountEntry,
        order: DialOrder,
        [from, to]: [String; 2],
    ) -> CallSetup {
        let services = &self.0.services;
        // Never requested: a B-leg has no document, and its callbacks are those of its A-leg.
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

    /// Hangs up the B-legs of a call that has ended.
    pub(super) fn leave_legs(&self, a_leg: &LiveCall) {
        a_leg.pending_legs.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let legs = std::mem::take(&mut *a_leg.legs.lock().unwrap_or_else(PoisonError::into_inner));
        self.hang_up_legs(&legs);
    }

    fn hang_up_legs(&self, legs: &[CallUuid]) {
        for leg in legs.iter().filter_map(|call| self.get(*call)) {
            leg.mailbox.tell(Input::ALeg {
                command: BLegCommand::HangUp { cause: HangupCause::DialEnded },
            });
        }
    }

    /// Reports to the A-leg that the task of a B-leg panicked.
    pub(super) fn lost_leg(&self, leg: &LiveCall) {
        self.report_lost(&leg.setup, HangupCause::InternalError);
    }

    /// Ends or informs the other legs of a call of another process that does not go on here.
    pub(super) fn leave_dropped(&self, call: &IncomingCall) {
        self.report_lost(&call.setup, HangupCause::NodeFailure);
        self.hang_up_legs(&call.snapshot.legs);
        let services = self.0.services.clone();
        let setup = call.setup.clone();
        // Its user is free.
        let consents = services.permissions.consents();
        drop(call.snapshot.reservation.and_then(|id| consents.adopted(id)));
        let told = services.rooms.lose(&setup, call.answered());
        let (account, main_account) = (&setup.account, &setup.parent_account);
        let Some(keys) = services.outbox.keys(account, main_account) else { return };
        services.tasks.clone().spawn(async move {
            report_exits(&services, &setup, told.into_iter().flatten(), keys).await;
        });
    }

    fn report_lost(&self, setup: &CallSetup, cause: HangupCause) {
        if let Some(a_leg) = setup.b_leg().and_then(|dialled| self.get(dialled.a_leg)) {
            let event = BLegEvent::Ended { cause };
            a_leg.mailbox.tell(Input::BLeg { call: setup.call, event });
        }
    }
}

fn refused(error: DialError, detail: String) -> BLegEvent {
    BLegEvent::Refused { error, detail }
}

/// Converts a denied admission to the event for the A-leg.
fn not_admitted(denied: &Denied) -> BLegEvent {
    let error = match denied.reason {
        Reason::UnknownNumber | Reason::CallingDisabled => DialError::CallerIdNotEnabled,
        Reason::NoPermission => DialError::NoPermission,
        Reason::GeoBlocked => DialError::GeoBlocked,
        Reason::NumberFull => DialError::NumberFull,
        Reason::CpsExceeded => DialError::CpsExceeded,
        Reason::Draining => DialError::Draining,
        Reason::Overloaded | Reason::BadOffer | Reason::Duplicate => DialError::Overloaded,
        // Equal to Meta's error 138003: the user is busy, which is not an error.
        Reason::UserBusy => return BLegEvent::Ended { cause: HangupCause::UserBusy },
    };
    // Omit a detail that only repeats the reason.
    let detail = match denied.because {
        RefusalDetail::Reason => String::new(),
        RefusalDetail::Country(_) | RefusalDetail::Permission(_) => denied.to_string(),
    };
    refused(error, detail)
}
