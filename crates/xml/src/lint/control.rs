//! `DTMF`, `Redirect`, `Hangup`, `PreAnswer`, `Message`.

use crate::ast::{DocUrl, Dtmf, Hangup, HangupReason, Message, PreAnswer, Redirect, Target};
use crate::attributes::{self, Table};
use crate::findings::{Findings, FirstFault, Problem, quoted};
use crate::names::{Attr, Tag};
use crate::rules;
use crate::tree::Node;
use crate::value::{self, Case, Kind, Value, Words, is_dial_string};

use super::{
    PRE_ANSWER, check_siblings, children, element, no_children, report_text, required_body,
    text_body,
};

const DTMF: Table = &[(Attr::Async, Kind::Bool)];
const REDIRECT: Table = &[(Attr::Method, Kind::Method)];
const HANGUP: Table =
    &[(Attr::Reason, Kind::one_of(&["rejected", "busy"])), (Attr::Schedule, Kind::Int(1, 86_400))];
const MESSAGE: Table = &[
    (Attr::Src, Kind::Phone),
    (Attr::Dst, Kind::Phones),
    (
        Attr::Type,
        Kind::Enum(Words { words: &["sms"], undocumented: &["whatsapp"], case: Case::Warn }),
    ),
    (Attr::CallbackUrl, Kind::Url),
    (Attr::CallbackMethod, Kind::Method),
];

/// Returns the body of an element, which must be a URL. Reports E205, E311 and W311. Returns `None`
/// if it is not valid.
pub(super) fn url_body(node: &Node<'_>, kind: Kind, findings: &mut Findings) -> Option<DocUrl> {
    let body = required_body(node, "an absolute URL", findings)?;
    let mut value = None;
    if let Some(problem) = value::check(&kind, &body, &mut value) {
        let Problem { rule, predicate, hint } = *problem;
        let fault = if node.tag == Some(Tag::Redirect) && rule == rules::E311 {
            FirstFault::RedirectUrl
        } else {
            FirstFault::Other
        };
        // Text before an @ may contain a password.
        let shown = if body.contains('@') { String::new() } else { format!("{} ", quoted(&body)) };
        findings.add_fault(
            rule,
            node.at,
            format!("the URL {shown}in {} {predicate}", node.name),
            hint,
            fault,
        );
    }
    if let Some(Value::Text(url)) = value { Some(DocUrl(url.into())) } else { None }
}

pub(super) fn dtmf(node: &Node<'_>, findings: &mut Findings) -> Dtmf {
    let attributes = attributes::check(node, DTMF, &[], findings);
    let digits = required_body(node, "the digits to send", findings).unwrap_or_default();
    if !digits.is_empty() && !is_dial_string(&digits) {
        let message = format!("DTMF {} cannot be sent as digits", quoted(&digits));
        findings.add(
            rules::E301,
            node.at,
            message,
            "write 1 to 64 of 0-9 * #, w for half a second, W for a second",
        );
    }
    no_children(node, findings);
    Dtmf { digits: digits.into_owned(), asynchronous: attributes.flag(Attr::Async, true) }
}

pub(super) fn redirect(node: &Node<'_>, findings: &mut Findings) -> Option<Redirect> {
    let attributes = attributes::check(node, REDIRECT, &[], findings);
    let url = url_body(node, Kind::Url, findings);
    no_children(node, findings);
    Some(Redirect { target: Target { url: url?, method: attributes.method(Attr::Method) } })
}

pub(super) fn hangup(node: &Node<'_>, findings: &mut Findings) -> Hangup {
    let attributes = attributes::check(node, HANGUP, &[], findings);
    report_text(node, findings);
    no_children(node, findings);
    let reason = match attributes.word(Attr::Reason) {
        Some("rejected") => Some(HangupReason::Rejected),
        Some("busy") => Some(HangupReason::Busy),
        _ => None,
    };
    Hangup { reason, schedule: attributes.maybe_seconds(Attr::Schedule) }
}

pub(super) fn pre_answer(node: &Node<'_>, findings: &mut Findings) -> PreAnswer {
    attributes::check(node, &[], &[], findings);
    report_text(node, findings);
    let elements = children(node, PRE_ANSWER, findings, |child, findings| {
        if matches!(child.tag, Some(Tag::Speak | Tag::Play | Tag::GetDigits | Tag::Dtmf)) {
            let message =
                format!("{} is skipped: WhatsApp carries no audio before the answer", child.name);
            findings.add(rules::W402, child.at, message, "move it after PreAnswer");
        }
        element(child, findings)
    });
    check_siblings(node, PRE_ANSWER, findings);
    PreAnswer { children: elements }
}

pub(super) fn message(node: &Node<'_>, findings: &mut Findings) -> Message {
    let attributes = attributes::check(node, MESSAGE, &[], findings);
    attributes.require(Attr::Src, findings);
    attributes.require(Attr::Dst, findings);
    let text = text_body(node, "the text", 1_600, findings);
    findings.add(
        rules::W404,
        node.at,
        "Message is skipped: Offhook sends no SMS",
        "send a WhatsApp message with Meta's Cloud API instead",
    );
    no_children(node, findings);
    Message {
        text,
        src: attributes.owned(Attr::Src).unwrap_or_default(),
        dst: attributes.list(Attr::Dst),
        kind: attributes.word(Attr::Type).unwrap_or("sms").to_owned(),
        callback: attributes.target(Attr::CallbackUrl, Attr::CallbackMethod),
    }
}
