//! Turns the tree into the typed document: checks the rules and fills in the defaults.
//!
//! Each element has a function that checks it and returns its typed form. For an invalid element it
//! may return `None` or a placeholder, since a document with an error does not run. The rules about
//! an element and its following siblings are checked in [`check_siblings`].

mod control;
mod dial;
mod media;
mod prompt;
mod speak;

use std::borrow::Cow;

use super::ast::{Element, ElementKind, Prompt};
use super::attributes;
use super::findings::{Findings, quoted, shortened};
use super::grammar::trim;
use super::names::{Attr, Tag, nearest};
use super::rules;
use super::tree::Node;
use super::value;

const PRE_ANSWER: &[Tag] =
    &[Tag::Speak, Tag::Play, Tag::Wait, Tag::GetDigits, Tag::Redirect, Tag::Message, Tag::Dtmf];
const PROMPTS: &[Tag] = &[Tag::Speak, Tag::Play, Tag::Wait];

/// Checks the root element and returns the children of `Response`.
pub(super) fn document(root: &Node<'_>, findings: &mut Findings) -> Vec<Element> {
    if root.tag != Some(Tag::Response) {
        let message = format!("the root element is {}", quoted(root.name));
        findings.add(rules::E201, root.at, message, "write <Response>, in exactly this spelling");
        return Vec::new();
    }
    attributes::check(root, &[], &[], findings);
    report_text(root, findings);
    let mut elements = children(root, Tag::RESPONSE, findings, element);
    // A call keeps the list until its next document.
    elements.shrink_to_fit();
    if root.elements().next().is_none() {
        findings.add(
            rules::W308,
            root.at,
            "Response has no elements: the call is hung up",
            "add elements, or <Hangup/> if the call should end",
        );
    }
    check_siblings(root, Tag::RESPONSE, findings);
    elements
}

fn element(node: &Node<'_>, findings: &mut Findings) -> Option<Element> {
    let kind = match node.tag? {
        Tag::Speak => ElementKind::Speak(speak::speak(node, findings)),
        Tag::Play => ElementKind::Play(prompt::play(node, findings)?),
        Tag::Wait => ElementKind::Wait(prompt::wait(node, findings)),
        Tag::GetInput => ElementKind::GetInput(Box::new(prompt::get_input(node, findings)?)),
        Tag::GetDigits => ElementKind::GetDigits(Box::new(prompt::get_digits(node, findings))),
        Tag::Record => ElementKind::Record(Box::new(media::record(node, findings))),
        Tag::Dial => ElementKind::Dial(Box::new(dial::dial(node, findings))),
        Tag::Conference => ElementKind::Conference(Box::new(media::conference(node, findings))),
        Tag::MultiPartyCall => ElementKind::MultiPartyCall(media::multi_party_call(node, findings)),
        Tag::Stream => ElementKind::Stream(Box::new(media::stream(node, findings)?)),
        Tag::Dtmf => ElementKind::Dtmf(control::dtmf(node, findings)),
        Tag::Redirect => ElementKind::Redirect(control::redirect(node, findings)?),
        Tag::Hangup => ElementKind::Hangup(control::hangup(node, findings)),
        Tag::PreAnswer => ElementKind::PreAnswer(control::pre_answer(node, findings)),
        Tag::Message => ElementKind::Message(Box::new(control::message(node, findings))),
        _ => return None,
    };
    Some(Element { at: node.at, kind })
}

/// Checks the content of `GetInput` or `GetDigits`.
fn prompts(node: &Node<'_>, findings: &mut Findings) -> Vec<Prompt> {
    report_text(node, findings);
    let prompts = children(node, PROMPTS, findings, |child, findings| match child.tag? {
        Tag::Speak => Some(Prompt::Speak(speak::speak(child, findings))),
        Tag::Play => prompt::play(child, findings).map(Prompt::Play),
        Tag::Wait => Some(Prompt::Wait(prompt::wait(child, findings))),
        _ => None,
    });
    check_siblings(node, PROMPTS, findings);
    prompts
}

/// Converts each allowed child element with `convert`. Reports E202 for unknown and E203 for
/// misplaced ones.
fn children<T>(
    parent: &Node<'_>,
    allowed: &[Tag],
    findings: &mut Findings,
    mut convert: impl FnMut(&Node<'_>, &mut Findings) -> Option<T>,
) -> Vec<T> {
    let mut out = Vec::with_capacity(parent.elements().count());
    for child in parent.elements() {
        match child.tag {
            Some(tag) if allowed.contains(&tag) => {
                if let Some(converted) = convert(&child, findings) {
                    out.push(converted);
                }
            }
            Some(tag) => {
                let message = format!("{tag} is not allowed in {}", parent.name);
                let hint = placement_hint(tag, parent, allowed);
                findings.add(rules::E203, child.at, message, hint);
            }
            None => {
                let message = format!("unknown element {}", quoted(child.name));
                findings.add(rules::E202, child.at, message, spelling_hint(child.name, allowed));
            }
        }
    }
    out
}

/// Reports any child element, for an element that has no children.
fn no_children(node: &Node<'_>, findings: &mut Findings) {
    children(node, &[], findings, |_, _| None::<()>);
}

fn placement_hint(tag: Tag, parent: &Node<'_>, allowed: &[Tag]) -> Cow<'static, str> {
    let in_speech = parent.tag == Some(Tag::Speak) || parent.is_one_of(speak::SSML);
    let parent = parent.name;
    if speak::SSML.contains(&tag) && !in_speech {
        "move it into <Speak>".into()
    } else if dial::TARGETS.contains(&tag) {
        "move it into <Dial>".into()
    } else if allowed.is_empty() {
        format!("{parent} takes no elements: move it after {parent}").into()
    } else {
        format!("{parent} takes {}", joined(allowed)).into()
    }
}

fn joined(tags: &[Tag]) -> String {
    tags.iter().map(|tag| tag.as_str()).collect::<Vec<_>>().join(", ")
}

fn spelling_hint(name: &str, allowed: &[Tag]) -> Cow<'static, str> {
    if name == "speak" && allowed.contains(&Tag::Break) {
        return "remove <speak> and keep its content: Speak is the root of the SSML".into();
    }
    let every = Tag::RESPONSE.iter().chain(dial::TARGETS).chain(speak::SSML);
    if let Some(known) = every.into_iter().find(|known| known.as_str().eq_ignore_ascii_case(name)) {
        return format!("write {known}: names are case-sensitive").into();
    }
    // Names of the same elements in other call-control dialects.
    let equivalent = match name {
        "Say" => "Speak",
        "Gather" => "GetInput",
        "Pause" => "Wait",
        "Reject" => "Hangup reason=\"rejected\"",
        "Sms" => "Message",
        "Connect" | "Start" => "Stream",
        _ if allowed.is_empty() => return "remove it".into(),
        _ => {
            return match nearest(name, allowed.iter().map(|tag| tag.as_str())) {
                Some(known) => format!("did you mean {known}?").into(),
                None => format!("allowed here: {}", joined(allowed)).into(),
            };
        }
    };
    format!("write <{equivalent}>").into()
}

/// Reports W304 for text in an element that has no text.
fn report_text(node: &Node<'_>, findings: &mut Findings) {
    let mut locator = node.locator();
    for text in node.texts() {
        if let Some(at) = text.offset.map(|offset| locator.locate(offset)) {
            let message =
                format!("text in {}: {} is ignored", node.name, quoted(trim(&text.value)));
            findings.add(rules::W304, at, message, "put text to be spoken into <Speak>");
        }
    }
}

/// Returns the trimmed text of an element, without that of its children.
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

/// Returns the body of an element. Reports E205 and returns `None` if it is empty.
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

/// Returns the body of an element. Reports E205 if it is empty, and E301 if it has more than `max`
/// characters.
fn text_body(node: &Node<'_>, what: &str, max: usize, findings: &mut Findings) -> String {
    let Some(body) = required_body(node, what, findings) else { return String::new() };
    if body.chars().nth(max).is_some() {
        let message = format!("the text of {} has more than {max} characters", node.name);
        findings.add(rules::E301, node.at, message, format!("write at most {max} characters"));
    }
    body.into_owned()
}

/// Checks the rules about an element and its following siblings: W305, W307, W309.
fn check_siblings(parent: &Node<'_>, allowed: &[Tag], findings: &mut Findings) {
    let mut elements = parent.elements().peekable();
    let mut answered_by: Option<Tag> = None;
    while let Some(node) = elements.next() {
        let Some(tag) = node.tag.filter(|tag| allowed.contains(tag)) else { continue };
        if tag == Tag::Hangup && node.raw(Attr::Schedule).is_some() && elements.peek().is_none() {
            findings.add(
                rules::W305,
                node.at,
                "nothing follows this scheduled Hangup: the call ends at once",
                "move it before the elements that should run until then",
            );
        }
        if let (Some(by), Tag::PreAnswer) = (answered_by, tag) {
            let message = format!("PreAnswer has no effect: the call is already answered by {by}");
            findings.add(rules::W309, node.at, message, format!("move it before {by}"));
        }
        if ends_document(&node, tag) {
            if let Some(next) = elements.peek() {
                let message = format!(
                    "{} never runs: no element after {tag} is reached",
                    shortened(next.name)
                );
                findings.add(
                    rules::W307,
                    next.at,
                    message,
                    format!("remove it, or move it before {tag}"),
                );
            }
            return;
        }
        if answers(&node, tag) {
            answered_by = answered_by.or(Some(tag));
        }
    }
}

/// Whether no element after this one can run.
fn ends_document(node: &Node<'_>, tag: Tag) -> bool {
    match tag {
        Tag::Redirect => true,
        Tag::Hangup => node.raw(Attr::Schedule).is_none(),
        Tag::Speak | Tag::Play => node
            .raw(Attr::Loop)
            .is_some_and(|v| value::is_number(v) && v.bytes().all(|b| b == b'0')),
        _ => false,
    }
}

/// Whether the element answers the call.
fn answers(node: &Node<'_>, tag: Tag) -> bool {
    match tag {
        Tag::Speak
        | Tag::Play
        | Tag::GetInput
        | Tag::GetDigits
        | Tag::Conference
        | Tag::MultiPartyCall
        | Tag::Stream
        | Tag::Dtmf => true,
        Tag::Record => !node.is_true(Attr::RecordSession) && !node.is_true(Attr::StartOnDialAnswer),
        _ => false,
    }
}
