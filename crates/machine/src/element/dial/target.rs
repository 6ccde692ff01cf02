//! Where a target of a `Dial` goes, and the rules that forbid it
//! (docs/reference/xml.md#where-a-target-goes).

use crate::context::CallContext;
use crate::contract::{Destination, DialError};
use model::{CallType, Direction};
use xml::ast::{Dial, DialAddress, DialTarget};

/// The host in the SIP addresses of Plivo's documentation, which is accepted as ours.
const PLIVO_HOST: &str = "phone.plivo.com";

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
    // The number that an endpoint dialled is not its own: often its document dials this very
    // number.
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

/// Returns NAME and HOST of `sip:NAME@HOST`, without port, parameters and headers.
fn name_and_host(address: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = address.split_once(':')?;
    if !scheme.eq_ignore_ascii_case("sip") && !scheme.eq_ignore_ascii_case("sips") {
        return None;
    }
    let (name, host) = rest.split_once('@')?;
    let host = host.split([';', '?']).next().unwrap_or(host);
    let host = match (host.strip_prefix('['), host.rsplit_once(':')) {
        (Some(v6), _) => v6.split(']').next().unwrap_or(v6),
        (None, Some((host, _port))) => host,
        (None, None) => host,
    };
    (!name.is_empty() && !host.is_empty()).then_some((name, host))
}

/// Returns the digits of a number.
fn digits(number: &str) -> String {
    number.chars().filter(char::is_ascii_digit).collect()
}

#[cfg(test)]
mod tests {
    use super::name_and_host;

    #[test]
    fn parses_name_and_host_of_sip_addresses() {
        for (address, expected) in [
            ("sip:asha@calls.example.com", Some(("asha", "calls.example.com"))),
            ("SIPS:asha@calls.example.com:5061;transport=tls", Some(("asha", "calls.example.com"))),
            ("sip:asha@[::1]:5060?subject=x", Some(("asha", "::1"))),
            ("sip:calls.example.com", None),
            ("tel:+919812345678", None),
            ("919812345678", None),
        ] {
            assert_eq!(name_and_host(address), expected, "{address}");
        }
    }
}
