//! Callbacks about calls that are added to a multi-party call: `AddParticipantInitiated` to
//! `AddParticipantFailed` (docs/reference/callbacks.md#multi-party-call).
//!
//! They are sent to the status callback URL of the `MultiPartyCall` in the document that the call
//! runs.

use super::multi_party::MultiPartyElement;
use crate::context::CallContext;
use crate::contract::{CallbackRequest, Output, Param};
use uuid::Uuid;
use xml::Document;
use xml::ast::ElementKind;

/// Reports the progress of a call that was placed for a multi-party call. Does nothing for other
/// calls.
pub(crate) fn report(ctx: &mut CallContext, event: &str) {
    report_placed(ctx, event, None);
}

/// Reports that a call will not enter the multi-party call that it was placed for.
///
/// `status` is the `CallStatus` of the call if the call has ended.
pub(crate) fn report_failed(ctx: &mut CallContext, status: Option<&'static str>) {
    report_placed(ctx, "AddParticipantFailed", status);
}

fn report_placed(ctx: &mut CallContext, event: &str, status: Option<&'static str>) {
    let outbound = ctx
        .setup
        .outbound
        .as_ref()
        .and_then(|outbound| Some((outbound.document.clone()?, outbound.room)));
    if let Some((document, room)) = outbound
        && let Some(callback) = callback(ctx, &document, room, event, status)
    {
        ctx.emit(Output::Callback { callback });
    }
}

/// Reports the progress of an answered call that moves to the multi-party call of `document`.
pub(crate) fn report_for(
    ctx: &mut CallContext,
    document: &Document,
    room: Option<Uuid>,
    event: &str,
) {
    if let Some(callback) = callback(ctx, document, room, event, None) {
        ctx.emit(Output::Callback { callback });
    }
}

/// Returns the callback for an event. `None` if the document does not request it.
///
/// `room` is the id of the multi-party call, if that already exists. `status` is the `CallStatus`
/// of the call, if the call has ended.
pub(crate) fn callback(
    ctx: &CallContext,
    document: &Document,
    room: Option<Uuid>,
    event: &str,
    status: Option<&'static str>,
) -> Option<CallbackRequest> {
    let call = document.elements.iter().find_map(|element| match &element.kind {
        ElementKind::MultiPartyCall(call) => Some(call),
        _ => None,
    });
    let mut callback = MultiPartyElement::read(call?).0.progress_callback(ctx, room, event)?;
    if let Some(status) = status {
        callback.params.insert("CallStatus".into(), Param::Plain(status.into()));
    }
    Some(callback)
}
