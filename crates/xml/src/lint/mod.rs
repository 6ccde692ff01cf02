//! From the tree to the typed document: every rule of `plivo-xml.md` §2.1 in the order of §2.2, every default of §5.
//!
//! A function an element checks it and gives its typed form; one that has an error may give `None` or a
//! stand-in, for then nothing of the document runs. Elements do not look at their siblings: [`siblings`] does.

mod dial;
mod media;
mod prompt;
mod short;
mod speak;

use std::borrow::Cow;

use super::ast::{Element, ElementKind, Prompt};
use super::attributes;
use super::findings::{Findings, quoted, shortened};
use super::grammar::trim;
use super::rules;
use super::tree::Node;
use super::value;

const RESPONSE: &[&str] = ElementKind::NAMES;
const PRE_ANSWER: &[&str] = &["Speak", "Play", "Wait", "GetDigits", "Redirect", "Message", "DTMF"];
const PROMPTS: &[&str] = &["Speak", "Play", "Wait"];
const NO_CHILDREN: &[&str] = &[];

/// Checks the root element and gives the children of `Response`.
pub(super) fn document(root: &Node<'_>, findings: &mut Findings) -> Vec<Element> {
    if root.name != "Response" {
        let message = format!("the root element is {}", quoted(root.name));
        findings.add(rules::E201, root.at, message, "make it <Response>, in exactly this spelling");
        return Vec::new();
    }
    attributes::check(root, &[], &[], findings);
    stray_text(root, findings);
    let mut elements = children(root, RESPONSE, findings, element);
    // A call keeps it until the next document comes.
    elements.shrink_to_fit();
    if root.elements().next().is_none() {
        findings.add(
            rules::W308,
            root.at,
            "Response has no elements: the call is hung up",
            "write what the caller shall hear, or <Hangup/> if that is what you want",
        );
    }
    siblings(root, RESPONSE, findings);
    elements
}

fn element(node: &Node<'_>, findings: &mut Findings) -> Option<Element> {
    let kind = match node.name {
        "Speak" => ElementKind::Speak(speak::speak(node, findings)),
        "Play" => ElementKind::Play(prompt::play(node, findings)?),
        "Wait" => ElementKind::Wait(prompt::wait(node, findings)),
        "GetInput" => ElementKind::GetInput(prompt::get_input(node, findings)?),
        "GetDigits" => ElementKind::GetDigits(prompt::get_digits(node, findings)),
        "Record" => ElementKind::Record(media::record(node, findings)),
        "Dial" => ElementKind::Dial(dial::dial(node, findings)),
        "Conference" => ElementKind::Conference(media::conference(node, findings)),
        "MultiPartyCall" => ElementKind::MultiPartyCall(media::multi_party_call(node, findings)),
        "Stream" => ElementKind::Stream(media::stream(node, findings)?),
        "DTMF" => ElementKind::Dtmf(short::dtmf(node, findings)),
        "Redirect" => ElementKind::Redirect(short::redirect(node, findings)?),
        "Hangup" => ElementKind::Hangup(short::hangup(node, findings)),
        "PreAnswer" => ElementKind::PreAnswer(short::pre_answer(node, findings)),
        "Message" => ElementKind::Message(short::message(node, findings)),
        _ => return None,
    };
    Some(Element { at: node.at, kind })
}

/// The prompts of `GetInput` and `GetDigits`.
fn prompts(node: &Node<'_>, findings: &mut Findings) -> Vec<Prompt> {
    stray_text(node, findings);
    let prompts = children(node, PROMPTS, findings, |child, findings| match child.name {
        "Speak" => Some(Prompt::Speak(speak::speak(child, findings))),
        "Play" => prompt::play(child, findings).map(Prompt::Play),
        "Wait" => Some(Prompt::Wait(prompt::wait(child, findings))),
        _ => None,
    });
    siblings(node, PROMPTS, findings);
    prompts
}

/// Each child element that is known and in its place, through `each`.
fn children<T>(
    parent: &Node<'_>,
    allowed: &[&str],
    findings: &mut Findings,
    mut each: impl FnMut(&Node<'_>, &mut Findings) -> Option<T>,
) -> Vec<T> {
    let mut out = Vec::with_capacity(parent.elements().count());
    for child in parent.elements() {
        if allowed.contains(&child.name) {
            out.extend(each(&child, findings));
        } else if is_known(child.name) {
            let message = format!("{} cannot stand inside {}", child.name, parent.name);
            findings.add(
                rules::E203,
                child.at,
                message,
                where_it_belongs(child.name, parent.name, allowed),
            );
        } else {
            let message = format!("there is no element {}", quoted(child.name));
            findings.add(rules::E202, child.at, message, what_is_meant(child.name, allowed));
        }
    }
    out
}

/// An element that takes none.
fn no_children(node: &Node<'_>, findings: &mut Findings) {
    children(node, NO_CHILDREN, findings, |_, _| None::<()>);
}

fn is_known(name: &str) -> bool {
    RESPONSE.contains(&name)
        || matches!(name, "Response" | "Number" | "User")
        || speak::is_ssml(name)
}

fn where_it_belongs(name: &str, parent: &str, allowed: &[&str]) -> Cow<'static, str> {
    if speak::is_ssml(name) && !speak::is_ssml(parent) && parent != "Speak" {
        "put it inside <Speak>".into()
    } else if matches!(name, "Number" | "User") {
        "put it inside <Dial>".into()
    } else if allowed.is_empty() {
        format!("{parent} takes no elements: put it behind {parent}").into()
    } else {
        format!("{parent} takes {}", allowed.join(", ")).into()
    }
}

fn what_is_meant(name: &str, allowed: &[&str]) -> Cow<'static, str> {
    let every = RESPONSE
        .iter()
        .chain(&["Number", "User"])
        .copied()
        .chain(speak::SSML_NAMES.iter().copied());
    if let Some(meant) = every.into_iter().find(|known| known.eq_ignore_ascii_case(name)) {
        return format!("write {meant}: letter case counts").into();
    }
    // What other call-control dialects call the same thing.
    let meant = match name {
        "Say" => "Speak",
        "Gather" => "GetInput",
        "Pause" => "Wait",
        "Reject" => "Hangup reason=\"rejected\"",
        "Sms" => "Message",
        "Connect" | "Start" => "Stream",
        _ if allowed.is_empty() => return "remove it".into(),
        _ => return format!("here can stand {}", allowed.join(", ")).into(),
    };
    format!("write <{meant}>").into()
}

/// W304 for text in an element that takes none.
fn stray_text(node: &Node<'_>, findings: &mut Findings) {
    let mut places = node.places();
    for text in node.texts() {
        if let Some(at) = text.offset.map(|offset| places.locate(offset)) {
            let message =
                format!("text inside {}: {} is ignored", node.name, quoted(trim(&text.value)));
            findings.add(rules::W304, at, message, "put what shall be said into <Speak>");
        }
    }
}

/// An element's own text, trimmed.
fn body<'n>(node: &Node<'n>) -> Cow<'n, str> {
    let mut texts = node.texts();
    let Some(first) = texts.next() else { return "".into() };
    let mut whole = Cow::Borrowed(first.value.as_ref());
    for text in texts {
        whole.to_mut().push_str(&text.value);
    }
    match whole {
        Cow::Borrowed(text) => trim(text).into(),
        Cow::Owned(text) => trim(&text).to_owned().into(),
    }
}

/// The body that an element must have; E205 without.
fn required_body<'n>(node: &Node<'n>, what: &str, findings: &mut Findings) -> Option<Cow<'n, str>> {
    let body = body(node);
    if body.is_empty() {
        let message = format!("{} is empty", node.name);
        findings.add(
            rules::E205,
            node.at,
            message,
            format!("write {what} between <{0}> and </{0}>", node.name),
        );
        return None;
    }
    Some(body)
}

/// A body of at most so many characters; E205, E301.
fn text_body(node: &Node<'_>, what: &str, max: usize, findings: &mut Findings) -> String {
    let Some(body) = required_body(node, what, findings) else { return String::new() };
    if body.chars().nth(max).is_some() {
        let message = format!("the text of {} has more than {max} characters", node.name);
        findings.add(rules::E301, node.at, message, format!("at most {max} characters"));
    }
    body.into_owned()
}

/// What an element does to those behind it: W305, W307, W309.
fn siblings(parent: &Node<'_>, allowed: &[&str], findings: &mut Findings) {
    let mut elements = parent.elements().peekable();
    let mut answered_by: Option<&str> = None;
    while let Some(node) = elements.next() {
        if !allowed.contains(&node.name) {
            continue;
        }
        if node.name == "Hangup" && node.raw("schedule").is_some() && elements.peek().is_none() {
            findings.add(
                rules::W305,
                node.at,
                "nothing follows this scheduled Hangup: the call ends at once",
                "write it before what the caller shall hear until then",
            );
        }
        if let (Some(by), "PreAnswer") = (answered_by, node.name) {
            let message = format!("PreAnswer has no effect: {by} before it has answered the call");
            findings.add(rules::W309, node.at, message, "move it to the beginning");
        }
        if ends_document(&node) {
            if let Some(next) = elements.peek() {
                let message = format!(
                    "{} never runs: nothing behind {} is reached",
                    shortened(next.name),
                    node.name
                );
                findings.add(
                    rules::W307,
                    next.at,
                    message,
                    format!("remove it, or move it before {}", node.name),
                );
            }
            return;
        }
        if answers(&node) {
            answered_by = answered_by.or(Some(node.name));
        }
    }
}

fn ends_document(node: &Node<'_>) -> bool {
    match node.name {
        "Redirect" => true,
        "Hangup" => node.raw("schedule").is_none(),
        "Speak" | "Play" => {
            node.raw("loop").is_some_and(|v| value::is_number(v) && v.bytes().all(|b| b == b'0'))
        }
        _ => false,
    }
}

fn answers(node: &Node<'_>) -> bool {
    match node.name {
        "Speak" | "Play" | "GetInput" | "GetDigits" | "Conference" | "MultiPartyCall"
        | "Stream" | "DTMF" => true,
        "Record" => !node.says_true("recordSession") && !node.says_true("startOnDialAnswer"),
        _ => false,
    }
}
