//! Reports about calls without a machine: the machine was lost, or the call was never placed.

use super::conclude::summary;
use super::context::CallContext;
use super::element::{self, add_participant};
use super::params;
use crate::contract::{CallSetup, CallTime, CallbackRequest, Params, ParticipantInfo, Summary};
use model::HangupCause;

/// Returns the record and the hangup callback of a call that has lost its machine, because the
/// process died or the call driver failed. Times count from the beginning of the call.
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

/// Returns the callback for a call that could not be placed for a multi-party call
/// (docs/reference/callbacks.md#multi-party-call). `None` if the call was not meant to enter one,
/// or if no callback is set.
pub fn add_participant_failed(setup: &CallSetup, cause: HangupCause) -> Option<CallbackRequest> {
    let outbound = setup.outbound.as_ref()?;
    let document = outbound.document.clone()?;
    let ctx = CallContext::new(CallTime(0), Box::new(setup.clone()));
    let status = params::final_status(&ctx, cause);
    add_participant::callback(&ctx, &document, outbound.room, "AddParticipantFailed", Some(status))
}

/// Returns the parameters of the last callbacks for a participant that was lost with its process
/// (docs/reference/callbacks.md#multi-party-call).
///
/// The first value reports its exit. The second one reports the end of the multi-party call, which
/// applies if it was the last participant. Times count from the beginning of the participant's
/// call.
pub fn orphan_participant_params(
    setup: &CallSetup,
    answered: Option<CallTime>,
    at: CallTime,
    info: &ParticipantInfo<'_>,
) -> (Params, Params) {
    let mut ctx = CallContext::new(CallTime(0), Box::new(setup.clone()));
    ctx.answered = answered;
    ctx.document_received = true;
    ctx.now = at;
    element::lost_participant_params(&ctx, info)
}
