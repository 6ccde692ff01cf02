//! `fixtures/plivo-xml/input-traces.json`: timed collections, with the element and the time that
//! follow.
//!
//! The media are simulated: a prompt lasts as long as the trace says, the beep lasts 400 ms.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Bench, digit, document, setup};
use crate::contract::{FetchKind, Input, MediaCommand, Output, PlayId, Sound, SoundItem};
use model::Leg;

#[derive(Deserialize)]
struct Traces {
    traces: Vec<Trace>,
}

#[derive(Deserialize)]
struct Trace {
    id: String,
    element: String,
    attributes: BTreeMap<String, String>,
    prompt_ms: u64,
    #[serde(default)]
    invalid_sound_ms: u64,
    buffered: String,
    presses: Vec<Press>,
    expect: Expect,
}

#[derive(Deserialize)]
struct Press {
    at_ms: u64,
    key: char,
}

#[derive(Deserialize)]
struct Expect {
    at_ms: u64,
    action: bool,
    #[serde(rename = "Digits")]
    digits: Option<String>,
    attempt: Option<usize>,
}

/// The time at which the element begins. Traces count from there.
const BASE_MS: u64 = 1_000;
const NEXT: &str = "https://app.example.com/next.wav";
const INVALID: &str = "https://app.example.com/invalid.wav";
const PROMPT: &str = "https://app.example.com/prompt.wav";

impl Trace {
    /// Returns a document with a `Play` during which the buffered digits are pressed, the element,
    /// and a `Play` that marks the next element.
    fn xml(&self) -> String {
        let attributes: String =
            self.attributes.iter().map(|(name, value)| format!(" {name}=\"{value}\"")).collect();
        let invalid = match self.invalid_sound_ms {
            0 => String::new(),
            _ => format!(" invalidDigitsSound=\"{INVALID}\""),
        };
        let prompt =
            if self.prompt_ms > 0 { format!("<Play>{PROMPT}</Play>") } else { String::new() };
        let name = &self.element;
        format!(
            "<Response><Play>https://app.example.com/before.wav</Play><{name} action=\"https://app.example.com/do\"\
             {attributes}{invalid}>{prompt}</{name}><Play>{NEXT}</Play></Response>"
        )
    }

    fn lasts(&self, items: &[SoundItem]) -> u64 {
        let ms = |item: &SoundItem| match &item.sound {
            Sound::File { url } if &*url.0 == PROMPT => self.prompt_ms,
            Sound::File { url } if &*url.0 == INVALID => self.invalid_sound_ms,
            Sound::Tone { ms, .. } => u64::from(*ms),
            other => panic!("{}: an unexpected {other}", self.id),
        };
        items.iter().map(ms).sum()
    }

    fn run(&self) -> (u64, Option<String>, usize) {
        let mut bench = Bench::live(setup(), document(&self.xml()));
        self.buffered.chars().for_each(|key| bench.give(digit(key)));
        bench.now = BASE_MS;
        bench.give(Input::Played { leg: Leg::A, play: PlayId(1) });
        let mut presses = self.presses.iter().peekable();
        loop {
            if let Some((at, digits)) = self.ended(&bench) {
                return (at - BASE_MS, digits, self.attempts(&bench));
            }
            let sound = self.sound(&bench);
            let key = presses.peek().map(|press| BASE_MS + press.at_ms);
            let timer = bench.machine.poll_timeout().map(|(due, _)| due.0);
            let next = [sound.map(|(end, _)| end), key, timer]
                .into_iter()
                .flatten()
                .min()
                .expect("something is due");
            bench.now = next;
            match (sound, key) {
                (Some((end, play)), _) if end == next => {
                    bench.give(Input::Played { leg: Leg::A, play })
                }
                (_, Some(at)) if at == next => {
                    bench.give(digit(presses.next().expect("it was peeked").key))
                }
                _ => bench.give(Input::Timer),
            }
        }
    }

    /// Returns the sound that is being played and when it ends.
    fn sound(&self, bench: &Bench) -> Option<(u64, PlayId)> {
        let (since, playing) = bench.playing()?;
        bench.outputs.iter().find_map(|(_, output)| match output {
            Output::Media { command: MediaCommand::Play { play, items }, .. }
                if *play == playing =>
            {
                Some((since + self.lasts(items), playing))
            }
            _ => None,
        })
    }

    /// Returns the time of the action's request with its digits, or of the next element.
    fn ended(&self, bench: &Bench) -> Option<(u64, Option<String>)> {
        bench.outputs.iter().find_map(|(at, output)| match output {
            Output::Fetch { kind: FetchKind::Action, params, .. } => {
                Some((*at, params.get("Digits").map(|digits| digits.reveal().to_owned())))
            }
            Output::Media { command: MediaCommand::Play { items, .. }, .. } => items
                .iter()
                .any(|item| matches!(&item.sound, Sound::File { url } if &*url.0 == NEXT))
                .then_some((*at, None)),
            _ => None,
        })
    }

    /// Returns the number of prompts that were started, at least 1. Type-ahead skips the prompt.
    fn attempts(&self, bench: &Bench) -> usize {
        let prompts = bench.outputs.iter().filter(|(_, output)| match output {
            Output::Media { command: MediaCommand::Play { items, .. }, .. } => items
                .iter()
                .any(|item| matches!(&item.sound, Sound::File { url } if &*url.0 == PROMPT)),
            _ => false,
        });
        prompts.count().max(1)
    }
}

#[test]
fn every_trace_ends_as_expected() {
    let text = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fixtures/plivo-xml/input-traces.json"
    ));
    let Traces { traces } = serde_json::from_str(text).expect("the fixture reads");
    assert_eq!(traces.len(), 37);
    for trace in &traces {
        let (at, digits, attempts) = trace.run();
        let expect = &trace.expect;
        assert!(at.abs_diff(expect.at_ms) <= 150, "{}: at {at} ms, not {}", trace.id, expect.at_ms);
        assert_eq!(digits.is_some(), expect.action, "{}", trace.id);
        assert_eq!(digits, expect.digits, "{}", trace.id);
        if let Some(attempt) = expect.attempt {
            assert_eq!(attempts, attempt, "{}", trace.id);
        }
    }
}
