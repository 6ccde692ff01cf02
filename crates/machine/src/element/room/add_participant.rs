//! Callbacks about calls that are added to a multi-party call: `AddParticipantInitiated` to `AddParticipantFailed`
//! (`plivo-callbacks.md` §3.6).
//!
//! They go to the status callback URL of the `MultiPartyCall` in the document that the call will run.

use super::multi_party::OfMultiParty;
use crate::contract::{Notice, Output, Param};
use crate::desk::Desk;
use uuid::Uuid;
use xml::Document;
use xml::ast::ElementKind;

/// Reports how far a call has come that was placed for a multi-party call. Does nothing for other calls.
pub(crate) fn report(desk: &mut Desk, event: &str) {
    report_placed(desk, event, None);
}

/// Reports that a call will not enter the multi-party call that it was placed for.
///
/// `status`: the `CallStatus` of the call, if it is over.
pub(crate) fn report_failed(desk: &mut Desk, status: Option<&'static str>) {
    report_placed(desk, "AddParticipantFailed", status);
}

fn report_placed(desk: &mut Desk, event: &str, status: Option<&'static str>) {
    let placed = desk
        .setup
        .outbound
        .as_ref()
        .and_then(|placed| Some((placed.document.clone()?, placed.room)));
    if let Some((document, room)) = placed
        && let Some(notice) = callback(desk, &document, room, event, status)
    {
        desk.wish(Output::Notify { notice });
    }
}

/// Reports on a call that is taken into the multi-party call of `document` while it is up.
pub(crate) fn report_for(desk: &mut Desk, document: &Document, room: Option<Uuid>, event: &str) {
    if let Some(notice) = callback(desk, document, room, event, None) {
        desk.wish(Output::Notify { notice });
    }
}

/// Builds the callback. `None` if the document asks for none.
///
/// `room`: the multi-party call, if it exists yet. `status`: the `CallStatus` of the call, if it is over.
pub(crate) fn callback(
    desk: &Desk,
    document: &Document,
    room: Option<Uuid>,
    event: &str,
    status: Option<&'static str>,
) -> Option<Notice> {
    let call = document.elements.iter().find_map(|element| match &element.kind {
        ElementKind::MultiPartyCall(call) => Some(call),
        _ => None,
    });
    let mut notice = OfMultiParty::read(call?).0.added(desk, room, event)?;
    if let Some(status) = status {
        notice.params.insert("CallStatus".into(), Param::Plain(status.into()));
    }
    Some(notice)
}
