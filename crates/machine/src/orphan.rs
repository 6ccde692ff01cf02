//! Calls whose machine is gone, and calls that never got one.

use super::conclude::summary;
use super::desk::Desk;
use super::element::{self, add_participant};
use super::params;
use crate::contract::{CallSetup, CallTime, Notice, Params, Seat, Summary};
use model::HangupCause;

/// The end of a call whose machine is gone, with the process it ran in or by a fault of ours: what its record and its
/// hangup callback say. Times are from its beginning.
pub fn abandoned(
    setup: CallSetup,
    answered: Option<CallTime>,
    ended: CallTime,
    cause: HangupCause,
) -> Summary {
    let mut desk = Desk::new(CallTime(0), Box::new(setup));
    desk.answered = answered;
    desk.now = ended.max(answered.unwrap_or_default());
    summary(&desk, cause)
}

/// What is told where a call that was to enter a multi-party call is not placed after all (`plivo-callbacks.md` §3.6).
pub fn not_added(setup: &CallSetup, cause: HangupCause) -> Option<Notice> {
    let placed = setup.outbound.as_ref()?;
    let document = placed.document.clone()?;
    let desk = Desk::new(CallTime(0), Box::new(setup.clone()));
    let status = params::final_status(&desk, cause);
    add_participant::callback(&desk, &document, placed.room, "AddParticipantFailed", Some(status))
}

/// What is told of one who was in a multi-party call when its process died (`plivo-callbacks.md` §3.6): that it is out, and
/// that the call is over, should this one be the last. Times are from its own call's beginning.
pub fn cut_off(
    setup: &CallSetup,
    answered: Option<CallTime>,
    at: CallTime,
    seat: &Seat<'_>,
) -> (Params, Params) {
    let mut desk = Desk::new(CallTime(0), Box::new(setup.clone()));
    desk.answered = answered;
    desk.document_in = true;
    desk.now = at;
    element::cut_off(&desk, seat)
}
