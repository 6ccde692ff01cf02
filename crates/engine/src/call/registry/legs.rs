//! B-legs: each is admitted and started as a call of its own (`docs/reference/xml.md#dial`).

use std::sync::{Arc, PoisonError};

use super::{CallAdmission, Inner, Outgoing, Registry};
use crate::admission::{AccountEntry, Denied, NumberEntry, Reason, RefusalDetail, WebAdmitted};
use crate::call::handover::IncomingCall;
use crate::call::live_call::LiveCall;
use crate::call::rooms::report_exits;
use machine::{
    BLegCommand, BLegEvent, CallSetup, CallUrls, Destination, DialError, DialOrder, Input, Outbound,
};
use model::metric;
use model::{CallType, CallUuid, Direction, E164, EndpointName, HangupCause};
use store::Scope;
use xml::ast::DocUrl;

/// A B-leg that has been admitted and not yet started.
enum AdmittedLeg {
    User {
        admission: CallAdmission,
        user: String,
    },
    /// It has spent a permit but takes no slot.
    Endpoint {
        admission: WebAdmitted,
        caller: String,
        name: EndpointName,
    },
}

impl AdmittedLeg {
    /// Cancels the leg as if it had never been admitted.
    fn withdraw(self) {
        match self {
            Self::User { admission: (admitted, _), .. } => admitted.withdraw(),
            Self::Endpoint { admission, .. } => admission.withdraw(),
        }
    }
}

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
        if self.0.services.permissions.consents().is_shared() {
            self.dial_in_fleet(a_leg.clone(), order);
            return Ok(());
        }
        let Inner { services, gate, .. } = &*self.0;
        let (now, call) = (services.clock.now(), order.call);
        let admitted = match order.destination.clone() {
            // The admission is that of an API call, but without waiting for calls per second.
            Destination::Whatsapp { caller, user } => {
                let number = self.enabled_caller(a_leg, &caller)?;
                let (id, wall) = (&number.spec.phone_number_id, services.clock.wall());
                let consents = services.permissions.consents();
                let admission = gate.admit_business(now, wall, id, &user, consents);
                let admission = admission.map_err(|denied| not_admitted(&denied))?;
                AdmittedLeg::User { admission, user }
            }
            Destination::Endpoint { caller, name } => {
                let (name, account) = self.endpoint(a_leg, &name)?;
                let admission = gate.admit_web(now, &account, Direction::Outbound);
                let admission = admission.map_err(not_admitted_web)?;
                AdmittedLeg::Endpoint { admission, caller, name }
            }
        };
        self.begin_leg(a_leg, order, admitted)?;
        a_leg.legs.lock().unwrap_or_else(PoisonError::into_inner).push(call);
        Ok(())
    }

    /// Starts a B-leg after the fleet has provided what it needs. If the leg does not begin, the
    /// A-leg's machine receives an event.
    fn dial_in_fleet(&self, a_leg: Arc<LiveCall>, order: DialOrder) {
        let (registry, call) = (self.clone(), order.call);
        a_leg.pending_legs.lock().unwrap_or_else(PoisonError::into_inner).insert(call);
        self.0.services.tasks.spawn(async move {
            let admitted = registry.admit_in_fleet(&a_leg, order.destination.clone()).await;
            // Hanging up takes the leg from the list, even if its admission is under way.
            let mut pending = a_leg.pending_legs.lock().unwrap_or_else(PoisonError::into_inner);
            if !pending.remove(&call) {
                if let Ok(admitted) = admitted {
                    admitted.withdraw();
                }
                return;
            }
            let begun = admitted.and_then(|admitted| registry.begin_leg(&a_leg, order, admitted));
            match begun {
                Ok(()) => a_leg.legs.lock().unwrap_or_else(PoisonError::into_inner).push(call),
                Err(event) => {
                    a_leg.mailbox.tell(Input::BLeg { call, event });
                }
            }
        });
    }

    /// Admits a B-leg in a fleet: reserves the user, and waits for units of other nodes.
    async fn admit_in_fleet(
        &self,
        a_leg: &LiveCall,
        destination: Destination,
    ) -> Result<AdmittedLeg, BLegEvent> {
        let Inner { services, gate, .. } = &*self.0;
        let clock = &services.clock;
        match destination {
            Destination::Whatsapp { caller, user } => {
                let number = self.enabled_caller(a_leg, &caller)?;
                let denied = |denied: Denied| not_admitted(&denied);
                let reservation = services.permissions.reserve(gate, &number, &user).await;
                let reservation = reservation.map_err(denied)?;
                let (id, consents) =
                    (&number.spec.phone_number_id, services.permissions.consents());
                let admission = gate.admit_business_shared(clock, id, &user, consents).await;
                let mut admission = admission.map_err(denied)?;
                admission.1.hold(reservation);
                Ok(AdmittedLeg::User { admission, user })
            }
            Destination::Endpoint { caller, name } => {
                let (name, account) = self.endpoint(a_leg, &name)?;
                let admission = gate.admit_web_shared(clock, &account, Direction::Outbound).await;
                let admission = admission.map_err(not_admitted_web)?;
                Ok(AdmittedLeg::Endpoint { admission, caller, name })
            }
        }
    }

    /// Starts an admitted B-leg.
    fn begin_leg(
        &self,
        a_leg: &LiveCall,
        order: DialOrder,
        admitted: AdmittedLeg,
    ) -> Result<(), BLegEvent> {
        let now = self.0.services.clock.now();
        let outgoing = |setup| Outgoing { setup, received: now, placed: now };
        let begun = match admitted {
            AdmittedLeg::User { admission, user } => {
                let number = admission.0.number().clone();
                let (id, from) = (&number.spec.phone_number_id, number.spec.number.to_string());
                let setup = self.b_leg(a_leg, &number.account, order, [from, user]);
                let setup = CallSetup { phone_number_id: id.clone(), ..setup };
                self.place(admission, outgoing(setup)).map_err(|admitted| admitted.withdraw())
            }
            AdmittedLeg::Endpoint { admission, caller, name } => {
                let to = name.sip_address(&a_leg.setup.limits.sip_host);
                let setup = self.b_leg(a_leg, admission.account(), order, [caller, to]);
                let setup = CallSetup { call_type: CallType::Web, ..setup };
                self.ring_endpoint(admission, outgoing(setup), name)
                    .map_err(|admitted| admitted.withdraw())
            }
        };
        self.count_leg(begun.is_ok())
    }

    /// Returns the name and the account of a registered endpoint that belongs to the call's
    /// account (`docs/reference/xml.md#endpoints`).
    fn endpoint(
        &self,
        a_leg: &LiveCall,
        name: &str,
    ) -> Result<(EndpointName, Arc<AccountEntry>), BLegEvent> {
        let (gate, services) = (&self.0.gate, &self.0.services);
        let not_registered = || refused(DialError::EndpointNotRegistered, String::new());
        let name = EndpointName::parse(name).map_err(|_| not_registered())?;
        let scope = Scope::of(a_leg.setup.account.clone());
        let owner = services.phones.owner(&name, services.clock.now());
        let owner = owner.filter(|owner| scope.holds(&owner.account, &owner.main_account));
        let tables = gate.directory().tables();
        let account = owner.and_then(|owner| tables.account(&owner.account).cloned());
        Ok((name, account.ok_or_else(not_registered)?))
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
        // A B-leg has no document, and its callbacks are those of its A-leg. Its end is reported to the
        // hangup URL if a document is transferred to it. The URLs are in its event log, which the
        // account of another endpoint can read.
        let mut urls = CallUrls { fallback: None, ..a_leg.setup.urls.clone() };
        if account.auth_id != a_leg.setup.account {
            (urls.answer, urls.hangup.0) = (DocUrl("".into()), DocUrl("".into()));
        }
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
                is_queued: false,
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
        let callbacks = services.rooms.lose(&setup, call.answered());
        let (account, main_account) = (&setup.account, &setup.parent_account);
        let Some(keys) = services.outbox.keys(account, main_account) else { return };
        services.tasks.clone().spawn(async move {
            report_exits(&services, &setup, callbacks.into_iter().flatten(), keys).await;
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

/// Converts a denied admission of a web leg to the event for the A-leg.
fn not_admitted_web(reason: Reason) -> BLegEvent {
    not_admitted(&Denied { reason, because: RefusalDetail::Reason, number: None })
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
