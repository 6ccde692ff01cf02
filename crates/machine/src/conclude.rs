//! The end of a call: its record, its hangup callback, and the reports that come before them.

use super::context::CallContext;
use super::element::add_participant;
use super::params::{self, Ending};
use super::room_ringback;
use super::stream;
use crate::contract::{BLegEvent, CallbackKind, CallbackRequest, MediaCommand, Output, Summary};
use model::HangupCause;

/// Ends the call: closes its media, stops all activities beside the document, and outputs its
/// record.
///
/// A call that has already ended keeps its first cause and is not reported again.
pub(super) fn conclude(ctx: &mut CallContext, cause: HangupCause) {
    ctx.media(MediaCommand::Close);
    ctx.timers.clear_all();
    room_ringback::stop(ctx);
    // The end of the stream is reported before the end of the call.
    stream::stop(ctx, None, stream::StopReason::CallEnd);
    if !ctx.set_concluded(cause) {
        return;
    }
    if ctx.answered.is_none() {
        let status = params::final_status(ctx, cause);
        add_participant::report_failed(ctx, Some(status));
    }
    ctx.report_to_a_leg(BLegEvent::Ended { cause });
    let summary = Box::new(summary(ctx, cause));
    ctx.emit(Output::Concluded { summary });
}

/// Returns the record and the hangup callback of a call that ends now.
pub(super) fn summary(ctx: &CallContext, cause: HangupCause) -> Summary {
    let duration_secs = ctx.seconds_since(ctx.began());
    let bill_secs = ctx.answered.map(|at| ctx.seconds_since(at)).unwrap_or(0);
    let params = params::hangup(ctx, &Ending { cause, at: ctx.now, duration_secs, bill_secs });
    let (url, method) = ctx.setup.urls.hangup.clone();
    Summary {
        cause,
        direction: ctx.setup.direction,
        answered: ctx.answered,
        ended: ctx.now,
        duration_secs,
        bill_secs,
        meta_duration_secs: ctx.termination.as_ref().and_then(|t| t.duration_secs),
        conference: ctx.conference,
        hangup: CallbackRequest { kind: CallbackKind::Hangup, url, method, params },
    }
}
