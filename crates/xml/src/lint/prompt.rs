//! `Play`, `Wait`, `GetInput`, `GetDigits`.

use std::time::Duration;

use crate::ast::{Beep, GetDigits, GetInput, InputType, Play, Wait};
use crate::attributes::{self, Attributes, Table};
use crate::findings::Findings;
use crate::tree::Node;
use crate::value::Kind;
use model::Digit;

use super::control::url_body;
use super::speak::repeat;
use super::{no_children, prompts, report_text};

const PLAY: Table = &[("loop", Kind::Int(0, 10_000))];

const WAIT: Table = &[
    ("length", Kind::Int(1, 14_400)),
    ("silence", Kind::Bool),
    ("minSilence", Kind::Int(1, 60_000)),
    ("beep", Kind::Beep),
];

const GET_INPUT: Table = &[
    ("action", Kind::Url),
    ("method", Kind::Method),
    ("inputType", Kind::Input),
    ("executionTimeout", Kind::Int(5, 60)),
    ("digitEndTimeout", Kind::IntOr(2, 10, "auto", 3)),
    ("speechEndTimeout", Kind::IntOr(2, 10, "auto", 1)),
    ("startInputTimeout", Kind::Int(1, 60)),
    ("finishOnKey", Kind::KeyOrNone),
    ("numDigits", Kind::Int(1, 32)),
    ("retries", Kind::Int(1, 10)),
    ("speechModel", Kind::OpenEnum(&["default", "command_and_search", "phone_call"])),
    ("hints", Kind::Hints),
    ("language", Kind::Lang),
    ("interimSpeechResultsCallback", Kind::Url),
    ("interimSpeechResultsCallbackMethod", Kind::Method),
    ("profanityFilter", Kind::Bool),
    ("log", Kind::Bool),
    ("redirect", Kind::Bool),
];

/// Attributes of `GetInput` that have no effect on speech.
const DIGIT_ATTRIBUTES: &[&str] = &["numDigits", "digitEndTimeout", "finishOnKey"];
/// Attributes of `GetInput` that have no effect on digits.
const SPEECH_ATTRIBUTES: &[&str] = &[
    "speechEndTimeout",
    "speechModel",
    "hints",
    "language",
    "profanityFilter",
    "interimSpeechResultsCallback",
    "interimSpeechResultsCallbackMethod",
];

const GET_DIGITS: Table = &[
    ("action", Kind::Url),
    ("method", Kind::Method),
    ("timeout", Kind::Int(1, 3_600)),
    ("digitTimeout", Kind::Int(1, 60)),
    ("finishOnKey", Kind::KeyOrNone),
    ("numDigits", Kind::Int(1, 99)),
    ("retries", Kind::Int(1, 100)),
    ("redirect", Kind::Bool),
    ("playBeep", Kind::Bool),
    ("validDigits", Kind::Keys(12)),
    ("invalidDigitsSound", Kind::Url),
    ("log", Kind::Bool),
];

pub(super) fn play(node: &Node<'_>, findings: &mut Findings) -> Option<Play> {
    let attributes = attributes::check(node, PLAY, &[], findings);
    let url = url_body(node, Kind::Url, findings);
    no_children(node, findings);
    Some(Play { url: url?, repeat: repeat(attributes.number("loop")) })
}

pub(super) fn wait(node: &Node<'_>, findings: &mut Findings) -> Wait {
    let attributes = attributes::check(node, WAIT, &[], findings);
    let silence = attributes.flag("silence", false);
    if !silence {
        attributes.report_no_effect("minSilence", "without silence=\"true\"", findings);
    }
    report_text(node, findings);
    no_children(node, findings);
    let min_silence =
        Duration::from_millis(attributes.number("minSilence").unwrap_or(2_000).into());
    Wait {
        length: attributes.seconds("length", 1),
        min_silence: silence.then_some(min_silence),
        beep: beep(&attributes),
    }
}

/// Converts the `beep` attribute. `true` means the default settings, and pairs override some of
/// them. Returns `None` if no beep is to be detected.
fn beep(attributes: &Attributes<'_>) -> Option<Beep> {
    let mut beep = Beep::default();
    let given = attributes.pairs("beep");
    for (name, number) in &given {
        // Larger numbers are clamped.
        let number = number.parse().unwrap_or(u32::MAX);
        match name.as_str() {
            "duration" => beep.duration_ms = number,
            "inter_silence" => beep.inter_silence_ms = number,
            "intra_silence" => beep.intra_silence_ms = number,
            _ => beep.threshold = number,
        }
    }
    (!given.is_empty() || attributes.flag("beep", false)).then_some(beep)
}

/// Converts the `finishOnKey` attribute. The default is `#`. Returns `None` if no key is set.
fn finish_key(keys: Option<impl Iterator<Item = Digit>>) -> Option<Digit> {
    match keys {
        Some(mut keys) => keys.next(),
        None => Digit::try_from('#').ok(),
    }
}

pub(super) fn get_input(node: &Node<'_>, findings: &mut Findings) -> Option<GetInput> {
    let a = attributes::check(node, GET_INPUT, &[], findings);
    a.require("action", findings);
    let (input_type, unused): (_, &[&str]) = match a.word("inputType") {
        Some("dtmf speech") => (InputType::DtmfSpeech, &[]),
        Some("speech") => (InputType::Speech, DIGIT_ATTRIBUTES),
        // The value is invalid, so it is unknown which attributes have an effect.
        None if a.has("inputType") => (InputType::Dtmf, &[]),
        Some(_) | None => (InputType::Dtmf, SPEECH_ATTRIBUTES),
    };
    let because = if input_type == InputType::Speech {
        "with inputType=\"speech\""
    } else {
        "unless inputType includes speech"
    };
    for name in unused {
        a.report_no_effect(name, because, findings);
    }
    let prompts = prompts(node, findings);
    Some(GetInput {
        action: a.target("action", "method")?,
        redirect: a.flag("redirect", true),
        input_type,
        execution_timeout: a.seconds("executionTimeout", 15),
        digit_end_timeout: a.seconds("digitEndTimeout", 3),
        speech_end_timeout: a.seconds("speechEndTimeout", 1),
        start_input_timeout: a.maybe_seconds("startInputTimeout"),
        finish_on_key: finish_key(a.keys("finishOnKey")),
        num_digits: a.small("numDigits", 32),
        retries: a.small("retries", 1),
        speech_model: a.owned("speechModel").unwrap_or_else(|| "default".to_owned()),
        hints: a.list("hints"),
        language: a.owned("language").unwrap_or_else(|| "en-US".to_owned()),
        interim: a.target("interimSpeechResultsCallback", "interimSpeechResultsCallbackMethod"),
        profanity_filter: a.flag("profanityFilter", false),
        log: a.flag("log", true),
        prompts,
    })
}

pub(super) fn get_digits(node: &Node<'_>, findings: &mut Findings) -> GetDigits {
    let a = attributes::check(node, GET_DIGITS, &[], findings);
    let prompts = prompts(node, findings);
    GetDigits {
        action: a.target("action", "method"),
        redirect: a.flag("redirect", true),
        timeout: a.seconds("timeout", 5),
        digit_timeout: a.seconds("digitTimeout", 2),
        finish_on_key: finish_key(a.keys("finishOnKey")),
        num_digits: a.small("numDigits", 99),
        retries: a.small("retries", 1),
        play_beep: a.flag("playBeep", false),
        valid_digits: match a.keys("validDigits") {
            Some(keys) => keys.collect(),
            None => "1234567890*#".chars().filter_map(|c| Digit::try_from(c).ok()).collect(),
        },
        invalid_digits_sound: a.url("invalidDigitsSound"),
        log: a.flag("log", true),
        prompts,
    }
}
