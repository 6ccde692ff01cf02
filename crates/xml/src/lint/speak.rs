//! `Speak` and its SSML (docs/reference/xml.md#speak).

use crate::ast::{Repeat, Speak, Speech, SpeechNode, SsmlTag, Voice};
use crate::attributes::{self, Table};
use crate::findings::Findings;
use crate::grammar::is_space;
use crate::names::{Attr, Tag};
use crate::rules;
use crate::tree::{Content, Node};
use crate::value::{Case, Kind, Words, break_millis};

use super::{children, report_text};

const SPEAK: Table =
    &[(Attr::Voice, Kind::Voice), (Attr::Language, Kind::Lang), (Attr::Loop, Kind::Int(0, 10_000))];

/// Maximum number of characters of text in one `Speak`.
const MAX_TEXT: usize = 3_000;

/// The SSML elements.
pub(super) const SSML: &[Tag] = &[
    Tag::Break,
    Tag::Emphasis,
    Tag::Lang,
    Tag::P,
    Tag::Phoneme,
    Tag::Prosody,
    Tag::S,
    Tag::SayAs,
    Tag::Sub,
    Tag::W,
];

const IN_LANG: &[Tag] = SSML;
const IN_P: &[Tag] = &[
    Tag::Break,
    Tag::Emphasis,
    Tag::Lang,
    Tag::Phoneme,
    Tag::Prosody,
    Tag::SayAs,
    Tag::Sub,
    Tag::S,
    Tag::W,
];
const IN_S: &[Tag] = &[
    Tag::Break,
    Tag::Emphasis,
    Tag::Lang,
    Tag::Phoneme,
    Tag::Prosody,
    Tag::SayAs,
    Tag::Sub,
    Tag::W,
];
const IN_W: &[Tag] = &[Tag::Break, Tag::Emphasis, Tag::Phoneme, Tag::Prosody, Tag::SayAs, Tag::Sub];

const BREAK: Table = &[
    (
        Attr::Strength,
        Kind::case_sensitive(&["none", "x-weak", "weak", "medium", "strong", "x-strong"]),
    ),
    (Attr::Time, Kind::BreakTime),
];
const EMPHASIS: Table = &[(Attr::Level, Kind::case_sensitive(&["strong", "moderate", "reduced"]))];
const LANG: Table = &[(Attr::XmlLang, Kind::Lang)];
const PHONEME: Table =
    &[(Attr::Alphabet, Kind::case_sensitive(&["ipa", "x-sampa"])), (Attr::Ph, Kind::Any)];
const PROSODY: Table =
    &[(Attr::Volume, Kind::Volume), (Attr::Rate, Kind::Rate), (Attr::Pitch, Kind::Pitch)];
const SAY_AS: Table = &[
    (
        Attr::InterpretAs,
        Kind::case_sensitive(&[
            "character",
            "characters",
            "spell-out",
            "cardinal",
            "number",
            "ordinal",
            "digits",
            "fraction",
            "unit",
            "date",
            "time",
            "address",
            "expletive",
            "telephone",
        ]),
    ),
    (
        Attr::Format,
        Kind::case_sensitive(&[
            "mdy", "dmy", "ymd", "md", "dm", "ym", "my", "d", "m", "y", "yyyymmdd",
        ]),
    ),
];
const SUB: Table = &[(Attr::Alias, Kind::Any)];
const W: Table = &[(
    Attr::Role,
    Kind::Enum(Words {
        words: &[
            "amazon:VB",
            "amazon:VBD",
            "amazon:NN",
            "amazon:SENSE_1",
            "ivona:VB",
            "ivona:VBD",
            "ivona:NN",
            "ivona:SENSE_1",
        ],
        undocumented: &[],
        case: Case::Sensitive,
    }),
)];

/// The attributes of an SSML element, the required ones, and the allowed children.
struct TagRules {
    attributes: Table,
    required: &'static [Attr],
    children: &'static [Tag],
}

fn rules_of(tag: Tag) -> Option<TagRules> {
    let (attributes, required, children): (Table, &[Attr], &[Tag]) = match tag {
        Tag::Break => (BREAK, &[], &[]),
        Tag::Emphasis => (EMPHASIS, &[], IN_S),
        Tag::Lang => (LANG, &[Attr::XmlLang], IN_LANG),
        Tag::P => (&[], &[], IN_P),
        Tag::Phoneme => (PHONEME, &[Attr::Alphabet, Attr::Ph], &[]),
        Tag::Prosody => (PROSODY, &[], IN_LANG),
        Tag::S => (&[], &[], IN_S),
        Tag::SayAs => (SAY_AS, &[Attr::InterpretAs], &[]),
        Tag::Sub => (SUB, &[Attr::Alias], &[]),
        Tag::W => (W, &[Attr::Role], IN_W),
        _ => return None,
    };
    Some(TagRules { attributes, required, children })
}

/// The element in the document model. `None` for `break` and elements that are not SSML.
fn ssml_tag(tag: Tag) -> Option<SsmlTag> {
    Some(match tag {
        Tag::Emphasis => SsmlTag::Emphasis,
        Tag::Lang => SsmlTag::Lang,
        Tag::P => SsmlTag::P,
        Tag::Phoneme => SsmlTag::Phoneme,
        Tag::Prosody => SsmlTag::Prosody,
        Tag::S => SsmlTag::S,
        Tag::SayAs => SsmlTag::SayAs,
        Tag::Sub => SsmlTag::Sub,
        Tag::W => SsmlTag::W,
        _ => return None,
    })
}

pub(super) fn speak(node: &Node<'_>, findings: &mut Findings) -> Speak {
    let raw_voice = node.raw(Attr::Voice);
    let classic =
        raw_voice.is_none_or(|v| v.eq_ignore_ascii_case("WOMAN") || v.eq_ignore_ascii_case("MAN"));
    const CLASSIC: Table = &[(Attr::Language, Kind::ClassicLang)];
    let attributes = attributes::check(node, SPEAK, if classic { CLASSIC } else { &[] }, findings);
    let speech = speech(node);
    // Few texts have more bytes than the limit; only these need their characters counted.
    let characters = Some(speech.bytes())
        .filter(|bytes| *bytes <= MAX_TEXT)
        .unwrap_or_else(|| speech.characters());
    if characters > MAX_TEXT {
        let message = format!("the text has {characters} characters");
        findings.add(
            rules::E304,
            node.at,
            message,
            format!(
                "write at most {MAX_TEXT} characters, or split the text into several Speak elements"
            ),
        );
    }
    let has_ssml = node.elements().any(|child| child.is_one_of(SSML));
    if characters == 0 && !has_ssml {
        findings.add(
            rules::W306,
            node.at,
            "Speak has no text and says nothing",
            "write a text, or remove the element",
        );
    }
    if has_ssml && !raw_voice.is_some_and(|v| v.starts_with("Polly.")) {
        findings.add(
            rules::W313,
            node.at,
            "SSML with a voice that is not a Polly voice: Plivo does not accept it",
            "write voice=\"Polly.Joanna\" or another Polly voice",
        );
    }
    children(node, IN_LANG, findings, ssml);
    let voice = match attributes.text(Attr::Voice) {
        Some("MAN") => Voice::Man,
        Some(name) => {
            name.strip_prefix("Polly.").map_or(Voice::Woman, |name| Voice::Polly(name.to_owned()))
        }
        None => Voice::Woman,
    };
    Speak {
        speech,
        voice,
        language: attributes.owned(Attr::Language),
        repeat: repeat(attributes.number(Attr::Loop)),
    }
}

/// Converts the `loop` attribute of `Speak` and `Play`.
pub(super) fn repeat(number: Option<u32>) -> Repeat {
    match number {
        Some(0) => Repeat::Endless,
        Some(n) => Repeat::Times(u16::try_from(n).unwrap_or(u16::MAX)),
        None => Repeat::Times(1),
    }
}

/// Checks an SSML element and its content. Always returns `None`. The recursion is limited by the
/// depth of the tree, 16.
fn ssml(node: &Node<'_>, findings: &mut Findings) -> Option<()> {
    let rules = rules_of(node.tag?)?;
    let attributes = attributes::check(node, rules.attributes, &[], findings);
    for name in rules.required {
        attributes.require(*name, findings);
    }
    if node.tag == Some(Tag::Prosody) && !PROSODY.iter().any(|(name, _)| attributes.has(*name)) {
        findings.add(
            rules::E302,
            node.at,
            "prosody needs volume, rate or pitch",
            "add one of them, such as rate=\"slow\"",
        );
    }
    if attributes.word(Attr::InterpretAs).is_some_and(|kind| kind != "date") {
        attributes.report_no_effect(Attr::Format, "unless interpret-as is date", findings);
    }
    if node.tag == Some(Tag::Break) {
        report_text(node, findings);
    }
    children(node, rules.children, findings, ssml);
    None
}

/// Returns the content of `Speak`. White space is collapsed across tags. Elements that are not SSML
/// are omitted.
fn speech(node: &Node<'_>) -> Speech {
    let mut speech = collect(node, &mut true);
    trim_end(&mut speech);
    speech
}

/// Collects the content of an element. `spaced` is true if the text so far is empty or ends with
/// white space, so that further white space is dropped.
fn collect(node: &Node<'_>, spaced: &mut bool) -> Speech {
    let mut out = Vec::with_capacity(node.content().count());
    for content in node.content() {
        match content {
            Content::Text(text) => collapse(&text.value, spaced, &mut out),
            Content::Element(child) => {
                // Others are reported by `children`; their text is not counted.
                let Some(tag) = child.tag else { continue };
                if let Some(name) = ssml_tag(tag) {
                    let known = rules_of(tag).map_or(&[][..], |rules| rules.attributes);
                    let valid = child
                        .attributes()
                        .iter()
                        .filter(|a| known.iter().any(|(name, _)| a.known == Some(*name)));
                    let attributes = valid
                        .filter_map(|a| Some((a.name.to_owned(), a.text()?.to_owned())))
                        .collect();
                    let content = collect(&child, spaced);
                    out.push(SpeechNode::Tag { name, attributes, content });
                } else if tag == Tag::Break {
                    out.push(SpeechNode::Break { millis: break_length(&child) });
                }
            }
        }
    }
    Speech(out)
}

/// Whether the text contains no white space to collapse, except perhaps a leading space.
fn is_collapsed(text: &str) -> bool {
    let Some((last, before)) = text.as_bytes().split_last() else { return true };
    let pairs = before.iter().zip(text.as_bytes().get(1..).unwrap_or_default());
    // Control characters other than tab, LF and CR are not allowed in XML.
    let any = |any, (a, b): (&u8, &u8)| any | (*a < b' ') | ((*a == b' ') & (*b == b' '));
    *last >= b' ' && !pairs.fold(false, any)
}

fn collapse(text: &str, spaced: &mut bool, out: &mut Vec<SpeechNode>) {
    let collapsed = if is_collapsed(text) {
        let text = if *spaced { text.strip_prefix(' ').unwrap_or(text) } else { text };
        *spaced = if text.is_empty() { *spaced } else { text.ends_with(' ') };
        text.to_owned()
    } else {
        let mut buffer = String::with_capacity(text.len());
        for c in text.chars() {
            if !is_space(c) {
                buffer.push(c);
                *spaced = false;
            } else if !*spaced {
                buffer.push(' ');
                *spaced = true;
            }
        }
        buffer
    };
    if collapsed.is_empty() {
        return;
    }
    match out.last_mut() {
        // An element between the two texts was left out.
        Some(SpeechNode::Text(before)) => before.push_str(&collapsed),
        _ => out.push(SpeechNode::Text(collapsed)),
    }
}

/// Removes a trailing space. Returns whether a text was found.
fn trim_end(speech: &mut Speech) -> bool {
    for at in (0..speech.0.len()).rev() {
        let found = match speech.0.get_mut(at) {
            Some(SpeechNode::Text(text)) => {
                if text.ends_with(' ') {
                    text.pop();
                }
                if text.is_empty() {
                    speech.0.remove(at);
                }
                true
            }
            Some(SpeechNode::Tag { content, .. }) => trim_end(content),
            Some(SpeechNode::Break { .. }) | None => false,
        };
        if found {
            return true;
        }
    }
    false
}

/// Returns the length of a `break` in milliseconds. `time` takes precedence over `strength`. SSML
/// leaves the lengths of the strengths to the implementation.
fn break_length(node: &Node<'_>) -> u32 {
    if let Some(millis) = node.raw(Attr::Time).and_then(break_millis) {
        return millis;
    }
    match node.raw(Attr::Strength) {
        Some("none") => 0,
        Some("x-weak") => 100,
        Some("weak") => 250,
        Some("strong") => 700,
        Some("x-strong") => 1_200,
        _ => 400,
    }
}
