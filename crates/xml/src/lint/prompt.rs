//! `Play`, `Wait`, `GetInput`, `GetDigits`.

use std::time::Duration;

use crate::ast::{Beep, GetDigits, GetInput, InputType, Play, Wait};
use crate::attributes::{self, Attributes, Table};
use crate::findings::Findings;
use crate::names::Attr;
use crate::tree::Node;
use crate::value::Kind;
use model::Digit;

use super::control::url_body;
use super::speak::repeat;
use super::{no_children, prompts, report_text};

const PLAY: Table = &[(Attr::Loop, Kind::Int(0, 10_000))];

const WAIT: Table = &[
    (Attr::Length, Kind::Int(1, 14_400)),
    (Attr::Silence, Kind::Bool),
    (Attr::MinSilence, Kind::Int(1, 60_000)),
    (Attr::Beep, Kind::Beep),
];

const GET_INPUT: Table = &[
    (Attr::Action, Kind::Url),
    (Attr::Method, Kind::Method),
    (Attr::InputType, Kind::Input),
    (Attr::ExecutionTimeout, Kind::Int(5, 60)),
    (Attr::DigitEndTimeout, Kind::IntOr(2, 10, "auto", 3)),
    (Attr::SpeechEndTimeout, Kind::IntOr(2, 10, "auto", 1)),
    (Attr::StartInputTimeout, Kind::Int(1, 60)),
    (Attr::FinishOnKey, Kind::KeyOrNone),
    (Attr::NumDigits, Kind::Int(1, 32)),
    (Attr::Retries, Kind::Int(1, 10)),
    (Attr::SpeechModel, Kind::OpenEnum(&["default", "command_and_search", "phone_call"])),
    (Attr::Hints, Kind::Hints),
    (Attr::Language, Kind::Lang),
    (Attr::InterimSpeechResultsCallback, Kind::Url),
    (Attr::InterimSpeechResultsCallbackMethod, Kind::Method),
    (Attr::ProfanityFilter, Kind::Bool),
    (Attr::Log, Kind::Bool),
    (Attr::Redirect, Kind::Bool),
];

/// Attributes of `GetInput` that have no effect on speech.
const DIGIT_ATTRIBUTES: &[Attr] = &[Attr::NumDigits, Attr::DigitEndTimeout, Attr::FinishOnKey];
/// Attributes of `GetInput` that have no effect on digits.
const SPEECH_ATTRIBUTES: &[Attr] = &[
    Attr::SpeechEndTimeout,
    Attr::SpeechModel,
    Attr::Hints,
    Attr::Language,
    Attr::ProfanityFilter,
    Attr::InterimSpeechResultsCallback,
    Attr::InterimSpeechResultsCallbackMethod,
];

const GET_DIGITS: Table = &[
    (Attr::Action, Kind::Url),
    (Attr::Method, Kind::Method),
    (Attr::Timeout, Kind::Int(1, 3_600)),
    (Attr::DigitTimeout, Kind::Int(1, 60)),
    (Attr::FinishOnKey, Kind::KeyOrNone),
    (Attr::NumDigits, Kind::Int(1, 99)),
    (Attr::Retries, Kind::Int(1, 100)),
    (Attr::Redirect, Kind::Bool),
    (Attr::PlayBeep, Kind::Bool),
    (Attr::ValidDigits, Kind::Keys(12)),
    (Attr::InvalidDigitsSound, Kind::Url),
    (Attr::Log, Kind::Bool),
];

pub(super) fn play(node: &Node<'_>, findings: &mut Findings) -> Option<Play> {
    let attributes = attributes::check(node, PLAY, &[], findings);
    let url = url_body(node, Kind::Url, findings);
    no_children(node, findings);
    Some(Play { url: url?, repeat: repeat(attributes.number(Attr::Loop)) })
}

pub(super) fn wait(node: &Node<'_>, findings: &mut Findings) -> Wait {
    let attributes = attributes::check(node, WAIT, &[], findings);
    let silence = attributes.flag(Attr::Silence, false);
    if !silence {
        attributes.report_no_effect(Attr::MinSilence, "without silence=\"true\"", findings);
    }
    report_text(node, findings);
    no_children(node, findings);
    let min_silence =
        Duration::from_millis(attributes.number(Attr::MinSilence).unwrap_or(2_000).into());
    Wait {
        length: attributes.seconds(Attr::Length, 1),
        min_silence: silence.then_some(min_silence),
        beep: beep(&attributes),
    }
}

/// Converts the `beep` attribute. `true` means the default settings, and pairs override some of
/// them. Returns `None` if no beep is to be detected.
fn beep(attributes: &Attributes<'_>) -> Option<Beep> {
    let mut beep = Beep::default();
    let given = attributes.pairs(Attr::Beep);
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
    (!given.is_empty() || attributes.flag(Attr::Beep, false)).then_some(beep)
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
    a.require(Attr::Action, findings);
    let (input_type, unused): (_, &[Attr]) = match a.word(Attr::InputType) {
        Some("dtmf speech") => (InputType::DtmfSpeech, &[]),
        Some("speech") => (InputType::Speech, DIGIT_ATTRIBUTES),
        // The value is invalid, so it is unknown which attributes have an effect.
        None if a.has(Attr::InputType) => (InputType::Dtmf, &[]),
        Some(_) | None => (InputType::Dtmf, SPEECH_ATTRIBUTES),
    };
    let because = if input_type == InputType::Speech {
        "with inputType=\"speech\""
    } else {
        "unless inputType includes speech"
    };
    for name in unused {
        a.report_no_effect(*name, because, findings);
    }
    let prompts = prompts(node, findings);
    Some(GetInput {
        action: a.target(Attr::Action, Attr::Method)?,
        redirect: a.flag(Attr::Redirect, true),
        input_type,
        execution_timeout: a.seconds(Attr::ExecutionTimeout, 15),
        digit_end_timeout: a.seconds(Attr::DigitEndTimeout, 3),
        // `auto` is read as 1, which is no valid number of seconds.
        speech_end_timeout: a
            .maybe_seconds(Attr::SpeechEndTimeout)
            .filter(|timeout| timeout.as_secs() > 1),
        start_input_timeout: a.maybe_seconds(Attr::StartInputTimeout),
        finish_on_key: finish_key(a.keys(Attr::FinishOnKey)),
        num_digits: a.small(Attr::NumDigits, 32),
        retries: a.small(Attr::Retries, 1),
        speech_model: a.owned(Attr::SpeechModel).unwrap_or_else(|| "default".to_owned()),
        hints: a.list(Attr::Hints),
        language: a.owned(Attr::Language).unwrap_or_else(|| "en-US".to_owned()),
        interim: a
            .target(Attr::InterimSpeechResultsCallback, Attr::InterimSpeechResultsCallbackMethod),
        profanity_filter: a.flag(Attr::ProfanityFilter, false),
        log: a.flag(Attr::Log, true),
        prompts,
    })
}

pub(super) fn get_digits(node: &Node<'_>, findings: &mut Findings) -> GetDigits {
    let a = attributes::check(node, GET_DIGITS, &[], findings);
    let prompts = prompts(node, findings);
    GetDigits {
        action: a.target(Attr::Action, Attr::Method),
        redirect: a.flag(Attr::Redirect, true),
        timeout: a.seconds(Attr::Timeout, 5),
        digit_timeout: a.seconds(Attr::DigitTimeout, 2),
        finish_on_key: finish_key(a.keys(Attr::FinishOnKey)),
        num_digits: a.small(Attr::NumDigits, 99),
        retries: a.small(Attr::Retries, 1),
        play_beep: a.flag(Attr::PlayBeep, false),
        valid_digits: match a.keys(Attr::ValidDigits) {
            Some(keys) => keys.collect(),
            None => "1234567890*#".chars().filter_map(|c| Digit::try_from(c).ok()).collect(),
        },
        invalid_digits_sound: a.url(Attr::InvalidDigitsSound),
        log: a.flag(Attr::Log, true),
        prompts,
    }
}
