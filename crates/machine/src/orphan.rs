//! Calls whose machine is gone, and calls that never got one.

use super::conclude::summary;
use super::context::CallContext;
use super::element::{self, add_participant};
use super::params;
use crate::contract::{CallSetup, CallTime, CallbackRequest, Params, ParticipantInfo, Summary};
use model::HangupCause;

/// The end of a call whose machine is gone, with the process it ran in or by a fault of ours: what its record and its
/// hangup callback say. Times are from its beginning.
pub fn orphan_summary(
    setup: CallSetup,
    answered: Option<CallTime>,
    ended: CallTime,
    cause: HangupCause,
) -> Summary {
    let mut ctx = CallContext::new(CallTime(0), Box::new(setup));
    ctx.answered = answered;
    ctx.now = ended.max(answered.unwrap_or_default());
    summary(&ctx, cause)
}

/// What is told where a call that was to enter a multi-party call is not placed after all (`plivo-callbacks.md` §3.6).
pub fn add_participant_failed(setup: &CallSetup, cause: HangupCause) -> Option<CallbackRequest> {
    let placed = setup.outbound.as_ref()?;
    let document = placed.document.clone()?;
    let ctx = CallContext::new(CallTime(0), Box::new(setup.clone()));
    let status = params::final_status(&ctx, cause);
    add_participant::callback(&ctx, &document, placed.room, "AddParticipantFailed", Some(status))
}

/// What is told of one who was in a multi-party call when its process died (`plivo-callbacks.md` §3.6): that it is out, and
/// that the call is over, should this one be the last. Times are from its own call's beginning.
pub fn orphan_participant_params(
    setup: &CallSetup,
    answered: Option<CallTime>,
    at: CallTime,
    seat: &ParticipantInfo<'_>,
) -> (Params, Params) {
    let mut ctx = CallContext::new(CallTime(0), Box::new(setup.clone()));
    ctx.answered = answered;
    ctx.document_in = true;
    ctx.now = at;
    element::cut_off(&ctx, seat)
}
