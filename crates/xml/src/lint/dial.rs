//! `Dial` with `Number` and `User`.

use crate::ast::{Dial, DialAddress, DialMusic, DialTarget};
use crate::attributes::{self, Table};
use crate::findings::{Findings, quoted};
use crate::names::{Attr, Tag};
use crate::rules;
use crate::sip::{PLIVO_HOST, name_and_host};
use crate::tree::Node;
use crate::value::{self, Kind};

use super::{body, children, no_children, report_text};

const DIAL: Table = &[
    (Attr::CallType, Kind::one_of(&["voice", "whatsapp"])),
    (Attr::CallerId, Kind::Text(50)),
    (Attr::CallerName, Kind::Text(50)),
    (Attr::Action, Kind::Url),
    (Attr::Method, Kind::Method),
    (Attr::Redirect, Kind::Bool),
    (Attr::Timeout, Kind::Int(1, 600)),
    (Attr::TimeLimit, Kind::Int(1, 86_400)),
    (Attr::HangupOnStar, Kind::Bool),
    (Attr::ConfirmSound, Kind::Url),
    (Attr::ConfirmKey, Kind::Key),
    (Attr::ConfirmTimeout, Kind::Int(1, 600)),
    (Attr::DialMusic, Kind::UrlOr(&["real", "none"])),
    (Attr::CallbackUrl, Kind::Url),
    (Attr::CallbackMethod, Kind::Method),
    (Attr::DigitsMatch, Kind::DigitsList),
    (Attr::DigitsMatchBLeg, Kind::DigitsList),
    (Attr::SipHeaders, Kind::Pairs(usize::MAX)),
];

const NUMBER: Table = &[
    (Attr::SendDigits, Kind::SendDigits),
    (Attr::SendOnPreanswer, Kind::Bool),
    (Attr::SendDigitsMode, Kind::one_of(&["rfc2833"])),
    (Attr::SipHeaders, Kind::Pairs(usize::MAX)),
    (Attr::CallerId, Kind::Text(50)),
    (Attr::CallerName, Kind::Text(50)),
];

const USER: Table = &[
    (Attr::SendDigits, Kind::SendDigits),
    (Attr::SendOnPreanswer, Kind::Bool),
    (Attr::SipHeaders, Kind::Pairs(usize::MAX)),
    (Attr::SipAuthUsername, Kind::Any),
    (Attr::SipAuthPassword, Kind::Secret(8, 128)),
    (Attr::CallerId, Kind::Text(50)),
    (Attr::CallerName, Kind::Text(50)),
];

pub(super) const TARGETS: &[Tag] = &[Tag::Number, Tag::User];

/// Maximum number of targets of one `Dial`.
const MAX_TARGETS: usize = 20;

pub(super) fn dial(node: &Node<'_>, findings: &mut Findings) -> Dial {
    let whatsapp = node.raw(Attr::CallType).is_some_and(|v| v.eq_ignore_ascii_case("whatsapp"));
    const WHATSAPP: Table = &[(Attr::CallerId, Kind::Phone)];
    let a = attributes::check(node, DIAL, if whatsapp { WHATSAPP } else { &[] }, findings);
    if whatsapp && !a.has(Attr::CallerId) {
        let hint = "add callerId=\"…\" with a business number that has calling enabled";
        findings.add(rules::E401, node.at, "Dial with callType=\"whatsapp\" needs callerId", hint);
    }
    if !a.has(Attr::ConfirmSound) {
        a.report_no_effect(Attr::ConfirmKey, "without confirmSound", findings);
    }
    if !a.has(Attr::ConfirmKey) {
        a.report_no_effect(Attr::ConfirmTimeout, "without confirmKey", findings);
    }
    match node.elements().filter(|child| child.is_one_of(TARGETS)).count() {
        0 => {
            let hint = if whatsapp {
                "add <User>919412341234</User>"
            } else {
                "add <User>sip:name@host</User>"
            };
            findings.add(rules::E206, node.at, "Dial has no Number or User", hint);
        }
        1..=MAX_TARGETS => {}
        more => {
            let message = format!("Dial has {more} targets");
            findings.add(
                rules::E206,
                node.at,
                message,
                format!("write at most {MAX_TARGETS} Number and User elements"),
            );
        }
    }
    report_text(node, findings);
    let targets =
        children(node, TARGETS, findings, |child, findings| target(child, whatsapp, findings));
    Dial {
        whatsapp,
        caller_id: a.owned(Attr::CallerId),
        caller_name: a.owned(Attr::CallerName),
        action: a.target(Attr::Action, Attr::Method),
        redirect: a.flag(Attr::Redirect, true),
        timeout: a.seconds(Attr::Timeout, 120),
        time_limit: a.seconds(Attr::TimeLimit, 14_400),
        hangup_on_star: a.flag(Attr::HangupOnStar, false),
        confirm_sound: a.url(Attr::ConfirmSound),
        confirm_key: a.keys(Attr::ConfirmKey).and_then(|mut keys| keys.next()),
        confirm_timeout: a.seconds(Attr::ConfirmTimeout, 120),
        dial_music: match a.word(Attr::DialMusic) {
            Some("none") => DialMusic::None,
            Some(_) => DialMusic::RingBack,
            None => a.url(Attr::DialMusic).map_or(DialMusic::RingBack, DialMusic::Document),
        },
        callback: a.target(Attr::CallbackUrl, Attr::CallbackMethod),
        digits_match: a.list(Attr::DigitsMatch),
        digits_match_b_leg: a.list(Attr::DigitsMatchBLeg),
        sip_headers: a.pairs(Attr::SipHeaders),
        targets,
    }
}

fn target(node: &Node<'_>, whatsapp: bool, findings: &mut Findings) -> Option<DialTarget> {
    let a = attributes::check(
        node,
        if node.tag == Some(Tag::Number) { NUMBER } else { USER },
        &[],
        findings,
    );
    let address = address(node, whatsapp, findings);
    no_children(node, findings);
    Some(DialTarget {
        at: node.at,
        address: address?,
        send_digits: a.owned(Attr::SendDigits),
        send_on_preanswer: a.flag(Attr::SendOnPreanswer, false),
        sip_headers: a.pairs(Attr::SipHeaders),
        caller_id: a.owned(Attr::CallerId),
        caller_name: a.owned(Attr::CallerName),
    })
}

/// Returns the address of a target. Reports E402, W401 and W403. Returns `None` after E402.
fn address(node: &Node<'_>, whatsapp: bool, findings: &mut Findings) -> Option<DialAddress> {
    let body = body(node);
    let mut wrong = |message: String, hint: &'static str| {
        findings.add(rules::E402, node.at, message, hint);
        None
    };
    if body.is_empty() {
        let hint =
            if whatsapp { "write the user's WhatsApp number" } else { "write the address to call" };
        return wrong(format!("{} is empty", node.name), hint);
    }
    let is_number = node.tag == Some(Tag::Number);
    if whatsapp && is_number {
        let hint = "write <User>: the phone network is not reachable with callType=\"whatsapp\"";
        return wrong("Number in a Dial with callType=\"whatsapp\"".to_owned(), hint);
    }
    if whatsapp || is_number {
        let digits = match value::phone(&body) {
            Ok(digits) => digits,
            Err(problem) => {
                let predicate = problem.predicate;
                let hint = "write country code and number, 5 to 15 digits, such as 919412341234; only a \
                            well-formed number that can't be reached goes to `action`";
                return wrong(format!("{} {} {predicate}", node.name, quoted(&body)), hint);
            }
        };
        if whatsapp {
            return Some(DialAddress::WhatsappUser(digits));
        }
        let hint =
            "call WhatsApp users with callType=\"whatsapp\" and <User>, endpoints with <User>sip:…";
        findings.add(
            rules::W401,
            node.at,
            "Number is not called: the phone network is not reachable",
            hint,
        );
        return Some(DialAddress::Pstn(digits));
    }
    if !is_sip_address(&body) {
        let hint =
            "write sip:name@host, or add callType=\"whatsapp\" to Dial for a WhatsApp number";
        return wrong(format!("User {} is not a SIP address", quoted(&body)), hint);
    }
    let is_plivo = |(_, host): (&str, &str)| host.eq_ignore_ascii_case(PLIVO_HOST);
    if !name_and_host(&body).is_some_and(is_plivo) {
        findings.add(
            rules::W403,
            node.at,
            "only endpoints of this platform are reachable by SIP address",
            "write sip:NAME@phone.plivo.com, or ignore this if HOST is the host of your node",
        );
    }
    Some(DialAddress::Sip(body.into_owned()))
}

fn is_sip_address(address: &str) -> bool {
    let Some((scheme, rest)) = address.split_once(':') else { return false };
    let (user, host) = rest.split_once('@').unwrap_or(("-", rest));
    (scheme.eq_ignore_ascii_case("sip") || scheme.eq_ignore_ascii_case("sips"))
        && !user.is_empty()
        && !host.is_empty()
        && !address.contains(|c: char| c.is_whitespace() || c.is_control())
}
