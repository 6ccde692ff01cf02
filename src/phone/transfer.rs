//! Call transfer by a phone to another endpoint. Only a call that a document dialled to this phone
//! can be transferred: its A-leg runs a document that dials the other endpoint, which ends this
//! phone's leg.

use super::Inner;
use super::message::RequestError;
use engine::call::SendOutcome;
use engine::call::phones::{Owner, RegistrationId};
use engine::call::web::PhoneCommandError;
use machine::Command;
use model::{CallUuid, EndpointName};
use store::Scope;
use xml;

/// Transfers a call of `place` to the named endpoint.
pub(super) fn transfer(
    inner: &Inner,
    (place, owner): (RegistrationId, &Owner),
    call: CallUuid,
    to: &str,
) -> Result<(), RequestError> {
    let no = |code, why| RequestError::new(code, why).about(call);
    let live =
        inner.registry.get(call).ok_or(PhoneCommandError::NoCall).map_err(RequestError::from)?;
    live.is_with(place).map_err(|why| RequestError::from(why).about(call))?;
    let outbound = live
        .setup
        .outbound
        .as_ref()
        .filter(|outbound| outbound.b_leg.is_some() && live.is_answered());
    let parent = outbound.and_then(|outbound| inner.registry.get(outbound.parent_call?));
    let a_leg = parent.ok_or(no(
        "not_transferable",
        "only a call that was dialled to this phone can be transferred",
    ))?;
    // Accepts the SIP address as well.
    let to = to.trim();
    let name = to.strip_prefix("sip:").and_then(|address| address.split('@').next()).unwrap_or(to);
    let there = EndpointName::parse(name)
        .ok()
        .and_then(|name| Some((inner.phones.owner(&name, inner.clock.now())?, name)));
    // Those that the call's `Dial` may dial.
    let scope = Scope::of(a_leg.setup.account.clone());
    let ours = there.filter(|(other, _)| scope.holds(&other.account, &other.main_account));
    let (_, name) = ours.ok_or(no("no_such_endpoint", "no phone with this name is registered"))?;
    if name == owner.name {
        return Err(no("no_such_endpoint", "a call cannot be transferred to this phone itself"));
    }
    // An endpoint's name contains no markup characters.
    let address = name.sip_address(&inner.sip_host);
    let source = format!("<Response><Dial><User>{address}</User></Dial></Response>");
    let document =
        xml::parse(source.as_bytes(), None).document.ok_or(no("unavailable", "internal error"))?;
    match a_leg.command(Command::Run { document, room: None }) {
        SendOutcome::Delivered => Ok(()),
        SendOutcome::Full => Err(no("busy", "too many commands for this call; try again")),
        SendOutcome::Unknown => Err(no("no_call", "the call has ended")),
    }
}
