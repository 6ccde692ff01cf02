//! A call is handed on: who the phone speaks with hears another endpoint ring. Only a call that a document handed to this
//! phone can be: its A-leg goes on with a document that dials the other endpoint, and the phone's own leg ends with that.

use super::Inner;
use super::message::Trouble;
use super::session::refusal;
use engine::call::Told;
use engine::call::phones::{Owner, PlaceId};
use engine::call::web::NotDone;
use machine::Command;
use model::{CallUuid, EndpointName};
use xml;

/// Hands a call of `place` to the endpoint of that name.
pub(super) fn transfer(
    inner: &Inner,
    (place, owner): (PlaceId, &Owner),
    call: CallUuid,
    to: &str,
) -> Result<(), Trouble> {
    let no = |code, why| Trouble::new(code, why).about(call);
    let live = inner.registry.get(call).ok_or(NotDone::NoCall).map_err(refusal)?;
    live.is_with(place).map_err(|why| refusal(why).about(call))?;
    let outbound = live
        .setup
        .outbound
        .as_ref()
        .filter(|outbound| outbound.b_leg.is_some() && live.is_answered());
    let parent = outbound.and_then(|outbound| inner.registry.get(outbound.parent_call?));
    let a_leg = parent.ok_or(no(
        "not_transferable",
        "only a call that was handed to this phone can be handed on",
    ))?;
    // Its address will do as well.
    let to = to.trim();
    let name = to.strip_prefix("sip:").and_then(|address| address.split('@').next()).unwrap_or(to);
    let there =
        EndpointName::parse(name).ok().and_then(|name| Some((inner.phones.owner(&name)?, name)));
    let ours = there.filter(|(other, _)| other.main_account == owner.main_account);
    let (_, name) = ours.ok_or(no("no_such_endpoint", "no phone of this name is registered"))?;
    if name == owner.name {
        return Err(no("no_such_endpoint", "that is this phone"));
    }
    // A name has letters, digits and little else: nothing in it is markup.
    let address = name.sip_address(&inner.sip_host);
    let source = format!("<Response><Dial><User>{address}</User></Dial></Response>");
    let document = xml::parse(source.as_bytes(), None)
        .document
        .ok_or(no("unavailable", "something is wrong on this server"))?;
    match a_leg.command(Command::Run { document, room: None }) {
        Told::Yes => Ok(()),
        Told::Full => Err(no("busy", "too much is asked of this call at once")),
        Told::Unknown => Err(no("no_call", "the call is over")),
    }
}
