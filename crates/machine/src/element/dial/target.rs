//! Determines the destination of a `Dial` target, and applies the rules that may forbid it
//! (docs/reference/xml.md#where-a-target-goes).

use crate::context::CallContext;
use crate::contract::{Destination, DialError};
use model::{CallType, Direction};
use xml::ast::{Dial, DialAddress, DialTarget};
use xml::sip::{PLIVO_HOST, name_and_host};

/// Returns `DialBLegFrom` and `DialBLegTo`.
pub(super) fn parties(dial: &Dial, target: &DialTarget, ctx: &CallContext) -> (String, String) {
    let caller = target.caller_id.as_ref().or(dial.caller_id.as_ref());
    let from = match (caller, dial.whatsapp) {
        (Some(caller), true) => digits(caller),
        (Some(caller), false) => caller.clone(),
        (None, _) => ctx.setup.from.clone(),
    };
    let to = match &target.address {
        DialAddress::Pstn(to) | DialAddress::WhatsappUser(to) | DialAddress::Sip(to) => to.clone(),
    };
    (from, to)
}

/// Returns the destination of a target.
///
/// # Errors
///
/// Fails with the rule that forbids the target.
pub(super) fn destination(
    ctx: &CallContext,
    target: &DialTarget,
    from: &str,
) -> Result<Destination, DialError> {
    // The number that an endpoint has dialled is not the endpoint's own. Its document often dials
    // that same number.
    let has_number = ctx.setup.call_type == CallType::Whatsapp;
    let own = |number: &str| has_number && (number == ctx.setup.from || number == ctx.setup.to);
    match &target.address {
        DialAddress::Pstn(_) => Err(DialError::PstnForwardingNotSupported),
        DialAddress::WhatsappUser(user) => {
            if ctx.setup.call_type == CallType::Whatsapp && !ctx.setup.limits.allow_wa_bridge {
                return Err(DialError::WhatsappToWhatsappNotSupported);
            }
            if own(user) || user == from {
                return Err(DialError::Loop);
            }
            Ok(Destination::Whatsapp { caller: from.to_owned(), user: user.clone() })
        }
        DialAddress::Sip(address) => {
            let (name, host) = name_and_host(address).ok_or(DialError::SipNotSupported)?;
            let ours = &ctx.setup.limits.sip_host;
            if !(host.eq_ignore_ascii_case(PLIVO_HOST) || host.eq_ignore_ascii_case(ours)) {
                return Err(DialError::SipNotSupported);
            }
            let caller = match ctx.setup.direction {
                Direction::Inbound => &ctx.setup.from,
                Direction::Outbound => &ctx.setup.to,
            };
            if name_and_host(caller).is_some_and(|(own, _)| own == name) {
                return Err(DialError::Loop);
            }
            Ok(Destination::Endpoint { caller: from.to_owned(), name: name.to_owned() })
        }
    }
}

/// Returns the digits of a number.
fn digits(number: &str) -> String {
    number.chars().filter(char::is_ascii_digit).collect()
}
