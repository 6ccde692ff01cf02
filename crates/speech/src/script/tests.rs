//! SSML and the scripts that it is converted to.

use rstest::rstest;

use super::{Part, Script};
use crate::language::Speaker;
use xml::ast::{Speech, SpeechNode, SsmlTag};

fn text(text: &str) -> SpeechNode {
    SpeechNode::Text(text.to_owned())
}

fn tag(name: SsmlTag, attributes: &[(&str, &str)], content: Vec<SpeechNode>) -> SpeechNode {
    let attributes = attributes.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    SpeechNode::Tag { name, attributes, content: Speech(content) }
}

fn pause(millis: u32) -> SpeechNode {
    SpeechNode::Break { millis }
}

/// Formats each part: `pause 500`, or `en-US: text {rate/pitch/volume} text`.
fn describe(nodes: Vec<SpeechNode>) -> String {
    let speaker = Speaker { language: "en-US".to_owned(), male: false, polly: None };
    let part = |part: &Part| match part {
        Part::Pause { ms } => format!("pause {ms}"),
        Part::Speech(segment) => {
            let runs = segment.runs.iter().map(|run| {
                let s = run.style;
                match (s.rate.round(), s.pitch.round(), s.volume.round()) {
                    (100.0, 100.0, 100.0) => run.text.clone(),
                    (rate, pitch, volume) => format!("{{{rate}/{pitch}/{volume}}}{}", run.text),
                }
            });
            format!("{}: {}", segment.speaker.language, runs.collect::<String>())
        }
    };
    Script::new(&Speech(nodes), &speaker).0.iter().map(part).collect::<Vec<_>>().join(" | ")
}

#[rstest]
#[case::nothing(vec![], "")]
#[case::blank(vec![text("  ")], "")]
#[case::words(vec![text("Press one")], "en-US: Press one")]
#[case::controls(vec![text("a\0b\tc\u{1b}d")], "en-US: a b c d")]
#[case::typography(vec![text("don’t “stop”")], "en-US: don't \"stop\"")]
#[case::pause(vec![text("a"), pause(500), text("b")], "en-US: a | pause 500 | en-US: b")]
#[case::no_pause(vec![text("a "), pause(0), text("b")], "en-US: a b")]
#[case::only_pause(vec![pause(10_000)], "pause 10000")]
#[case::emphasis(
    vec![text("a "), tag(SsmlTag::Emphasis, &[("level", "strong")], vec![text("b")]), text(" c")],
    "en-US: a {85/100/140}b c"
)]
#[case::emphasis_default(vec![tag(SsmlTag::Emphasis, &[], vec![text("b")])], "en-US: {93/100/120}b")]
#[case::prosody(
    vec![tag(SsmlTag::Prosody, &[("rate", "50%"), ("pitch", "+10%"), ("volume", "-6dB")], vec![text("b")])],
    "en-US: {50/110/50}b"
)]
#[case::prosody_words(
    vec![tag(SsmlTag::Prosody, &[("rate", "x-fast"), ("pitch", "x-low"), ("volume", "loud")], vec![text("b")])],
    "en-US: {180/70/150}b"
)]
#[case::prosody_nested(
    vec![tag(SsmlTag::Prosody, &[("rate", "50%")], vec![tag(SsmlTag::Prosody, &[("rate", "150%")], vec![text("b")])])],
    "en-US: {75/100/100}b"
)]
#[case::prosody_default(
    vec![tag(SsmlTag::Prosody, &[("rate", "medium"), ("pitch", "default"), ("volume", "medium")], vec![text("b")])],
    "en-US: b"
)]
#[case::silent(vec![tag(SsmlTag::Prosody, &[("volume", "silent")], vec![text("b")])], "en-US: {100/100/0}b")]
#[case::nonsense(vec![tag(SsmlTag::Prosody, &[("rate", "NaN%"), ("pitch", "?")], vec![text("b")])], "en-US: b")]
#[case::sub(vec![tag(SsmlTag::Sub, &[("alias", "World Wide Web")], vec![text("WWW")])], "en-US: World Wide Web")]
#[case::say_as(
    vec![text("Code "), tag(SsmlTag::SayAs, &[("interpret-as", "digits")], vec![text("123")]), text(".")],
    "en-US: Code one two three."
)]
#[case::phoneme(
    vec![tag(SsmlTag::Phoneme, &[("alphabet", "ipa"), ("ph", "pɪˈkɑːn")], vec![text("pecan")])],
    "en-US: pecan"
)]
#[case::word(vec![tag(SsmlTag::W, &[("role", "amazon:VB")], vec![text("read")])], "en-US: read")]
#[case::numbers_become_words(vec![text("Pay ₹1,25,000 by 18:05. ")], "en-US: Pay one lakh twenty-five thousand rupees by eighteen oh five. ")]
#[case::language(
    vec![text("In French: "), tag(SsmlTag::Lang, &[("xml:lang", "fr-FR")], vec![text("bonjour")]), text(" so.")],
    "en-US: In French:  | fr-FR: bonjour | en-US:  so."
)]
#[case::sentences(
    vec![tag(SsmlTag::S, &[], vec![text("One")]), tag(SsmlTag::S, &[], vec![text("Two?")])],
    "en-US: One. Two? "
)]
#[case::paragraphs(
    vec![tag(SsmlTag::P, &[], vec![text("One")]), text(" "), tag(SsmlTag::P, &[], vec![text("Two.")])],
    "en-US: One.  | pause 1000 | en-US: Two. "
)]
fn ssml_becomes_a_script(#[case] nodes: Vec<SpeechNode>, #[case] script: &str) {
    assert_eq!(describe(nodes), script);
}

#[test]
fn plain_words_have_no_markup() {
    let nodes = vec![text("a "), tag(SsmlTag::Emphasis, &[], vec![text("<b>")]), text(" & c ")];
    let script = Script::new(
        &Speech(nodes),
        &Speaker { language: "en-US".to_owned(), male: false, polly: None },
    );
    let [Part::Speech(segment)] = script.0.as_slice() else { panic!("{script:?}") };
    assert_eq!(segment.plain(), "a <b> and c");
}
