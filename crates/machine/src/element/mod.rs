//! What each element does: one file an element, one arm here.
//!
//! Starting an element gives a [`Flow`]; what it then waits for stands in [`Running`]. Both prompt-and-keys
//! elements share one engine, [`collect`].

mod collect;
mod dial;
mod dtmf;
mod get_digits;
mod get_input;
mod hangup;
mod hear;
mod message;
mod patterns;
mod play;
mod pre_answer;
mod record;
mod redirect;
mod room;
mod round;
mod speak;
mod stream;
mod wait;

use super::callee::Callee;
use super::desk::Desk;
use super::document::Gate;
use super::params::{self, Event};
use crate::contract::{
    FetchFailure, FetchId, FetchKind, Fetched, InstructionOutcome, PlayId, RecordId, Sound,
    SoundItem,
};
pub(super) use collect::{Collected, Collection, Rules};
pub(super) use dial::{Dialing, Dialled, ring_back};
use model::{HangupCause, Method, StreamId};
pub(super) use record::{
    Recording, able as transcript_if_able, after_hangup, background,
    callback as recording_callback, transcript,
};
pub(super) use room::{Attended, Attending, added, cut_off};
pub(super) use round::prepare;
pub(super) use stream::DROPPED;
pub(super) use wait::Early;
use xml::ast::{DocUrl, Element, ElementKind, Prompt, Record, Repeat, Target};

/// What the foreground waits for.
pub(super) enum Running {
    /// Nothing: between elements, or the call has ended.
    Nothing,
    /// The next element needs the call answered and its media up.
    AtGate,
    /// A document.
    Fetching { fetch: FetchId, kind: FetchKind },
    /// A `Speak` or `Play`; with why, if it could not be had.
    Playing { play: PlayId, failed: Option<String> },
    /// `Timer::Wait`; with what ends it early, if something does.
    Waiting { early: Option<Early> },
    /// Keys.
    Collecting(Box<Collection>),
    /// Other legs.
    Dialing(Box<Dialing>),
    /// Nothing of its own: this is a leg that another call dialled.
    Called(Box<Callee>),
    /// A room, or the way into it.
    Attending(Box<Attending>),
    /// A stream that keeps the call alive.
    Streaming { stream: StreamId },
    /// A `Record` in the foreground.
    Recording(Box<Recording>),
    /// The name of a recording in the background, for its action.
    Naming { record: RecordId, target: Target, redirect: bool },
    /// Tones going out.
    SendingDigits { play: PlayId },
}

/// What starting an element led to.
pub(super) enum Flow {
    /// It is done already.
    Next,
    /// Its children come next.
    Inside,
    /// It waits for this.
    Run(Running),
    /// It collects keys.
    Collect(Box<Collection>),
    /// It calls people.
    Dial(Box<Dialing>),
    /// Tones go out; does the next element wait for them?
    Tones { play: PlayId, wait: bool },
    /// It came to nothing; why.
    Failed(&'static str),
    /// The call is recorded in the background.
    Background(Box<Record>),
    /// Another document takes over.
    Transfer { kind: FetchKind, target: Target },
    /// The call ends.
    End { cause: HangupCause, outcome: InstructionOutcome, note: &'static str },
}

/// Begins an element that is not [`skipped`].
pub(super) fn start(element: &Element, desk: &mut Desk, gate: Gate, is_last: bool) -> Flow {
    match &element.kind {
        ElementKind::Speak(speak) => speak::start(speak, desk),
        ElementKind::Play(play) => play::start(play, desk),
        ElementKind::Wait(wait) => wait::start(wait, desk),
        ElementKind::GetInput(get) => get_input::start(get, element.at),
        ElementKind::GetDigits(get) => get_digits::start(get),
        ElementKind::Redirect(redirect) => redirect::start(redirect),
        ElementKind::Hangup(hangup) => hangup::start(hangup, desk, gate, is_last),
        ElementKind::PreAnswer(_) => Flow::Inside,
        ElementKind::Dtmf(dtmf) => dtmf::start(dtmf, desk),
        ElementKind::Dial(dial) => dial::start(dial, desk),
        ElementKind::Record(record) => record::start(record, desk),
        ElementKind::Conference(conference) => room::conference(conference, desk),
        ElementKind::MultiPartyCall(call) => room::multi_party(call, desk),
        ElementKind::Stream(element) => stream::start(element, desk),
        // Always skipped; named here so that a new element asks for its arm.
        ElementKind::Message(_) => Flow::Failed(message::WHY),
    }
}

/// Why an element does nothing here, if it does nothing.
pub(super) fn skipped(
    kind: &ElementKind,
    gate: Gate,
    within_pre_answer: bool,
) -> Option<&'static str> {
    match kind {
        ElementKind::Message(_) => Some(message::WHY),
        ElementKind::PreAnswer(_) => gate.is_answered().then_some(pre_answer::LATE),
        ElementKind::Speak(_)
        | ElementKind::Play(_)
        | ElementKind::GetDigits(_)
        | ElementKind::Dtmf(_) => within_pre_answer.then_some(pre_answer::UNHEARD),
        ElementKind::Wait(_)
        | ElementKind::GetInput(_)
        | ElementKind::Redirect(_)
        | ElementKind::Hangup(_)
        | ElementKind::Record(_)
        | ElementKind::Dial(_)
        | ElementKind::Conference(_)
        | ElementKind::MultiPartyCall(_)
        | ElementKind::Stream(_) => None,
    }
}

/// Whether an element needs the call answered and its media up (`plivo-xml.md` §4 rule 2).
pub(super) fn needs_media(kind: &ElementKind) -> bool {
    match kind {
        ElementKind::Speak(speak) => speak::is_heard(speak),
        ElementKind::Record(record) => !record::is_background(record),
        ElementKind::Play(_)
        | ElementKind::GetInput(_)
        | ElementKind::GetDigits(_)
        | ElementKind::Dtmf(_)
        | ElementKind::Conference(_)
        | ElementKind::MultiPartyCall(_)
        | ElementKind::Stream(_) => true,
        ElementKind::Wait(_)
        | ElementKind::Redirect(_)
        | ElementKind::Hangup(_)
        | ElementKind::PreAnswer(_)
        | ElementKind::Message(_)
        // It asks for itself, once a target is called.
        | ElementKind::Dial(_) => false,
    }
}

/// Whether an element takes time, for the loop rule (§4 rule 8).
pub(super) fn takes_time(kind: &ElementKind) -> bool {
    match kind {
        ElementKind::Speak(speak) => speak::takes_time(speak),
        ElementKind::Dtmf(dtmf) => !dtmf.asynchronous,
        ElementKind::Record(record) => !record::is_background(record),
        ElementKind::Play(_)
        | ElementKind::Wait(_)
        | ElementKind::GetInput(_)
        | ElementKind::GetDigits(_)
        | ElementKind::Conference(_)
        | ElementKind::MultiPartyCall(_) => true,
        ElementKind::Stream(stream) => stream.keep_call_alive,
        ElementKind::Redirect(_)
        | ElementKind::Hangup(_)
        | ElementKind::PreAnswer(_)
        | ElementKind::Message(_)
        | ElementKind::Dial(_) => false,
    }
}

/// The sounds an element will want that have to be fetched or synthesised.
pub(super) fn sounds(kind: &ElementKind, into: &mut Vec<Sound>) {
    let mut add = |sound: Sound| {
        if !into.contains(&sound) {
            into.push(sound);
        }
    };
    match kind {
        ElementKind::Speak(speak) if speak::is_heard(speak) => add(speak::sound(speak)),
        ElementKind::Play(play) => add(play::sound(&play.url)),
        ElementKind::GetInput(get) => prompt_sounds(&get.prompts, &mut add),
        ElementKind::GetDigits(get) => {
            prompt_sounds(&get.prompts, &mut add);
            if let Some(url) = &get.invalid_digits_sound {
                add(play::sound(url));
            }
        }
        ElementKind::Speak(_)
        | ElementKind::Wait(_)
        | ElementKind::Redirect(_)
        | ElementKind::Hangup(_)
        | ElementKind::PreAnswer(_)
        | ElementKind::Message(_)
        | ElementKind::Dtmf(_)
        | ElementKind::Record(_)
        | ElementKind::Dial(_)
        | ElementKind::Conference(_)
        | ElementKind::MultiPartyCall(_)
        | ElementKind::Stream(_) => {}
    }
}

fn prompt_sounds(prompts: &[Prompt], add: &mut impl FnMut(Sound)) {
    for item in playlist(prompts) {
        match item.sound {
            Sound::Speak { .. } | Sound::File { .. } => add(item.sound),
            Sound::Silence { .. } | Sound::Tone { .. } => {}
        }
    }
}

/// The collection rules of an element that collects keys.
pub(super) fn rules_of(kind: &ElementKind) -> Option<Rules> {
    match kind {
        ElementKind::GetInput(get) => Some(get_input::rules(get)),
        ElementKind::GetDigits(get) => Some(get_digits::rules(get)),
        ElementKind::Speak(_)
        | ElementKind::Play(_)
        | ElementKind::Wait(_)
        | ElementKind::Redirect(_)
        | ElementKind::Hangup(_)
        | ElementKind::PreAnswer(_)
        | ElementKind::Message(_)
        | ElementKind::Dtmf(_)
        | ElementKind::Record(_)
        | ElementKind::Dial(_)
        | ElementKind::Conference(_)
        | ElementKind::MultiPartyCall(_)
        | ElementKind::Stream(_) => None,
    }
}

/// A stretch of the prompt of a prompt-and-keys element.
pub(super) enum Stretch {
    /// Played without a gap.
    Sounds(Vec<SoundItem>),
    /// A `Wait` that listens: silence for `ms`, or until it has heard what it waits for.
    Quiet { ms: u64, early: Early },
}

/// The children of a prompt-and-keys element: one playlist, but for a wait that ends by itself.
fn stretches(prompts: &[Prompt]) -> Vec<Stretch> {
    let mut stretches = Vec::new();
    for prompts in prompts.chunk_by(|a, b| quiet(a).is_none() && quiet(b).is_none()) {
        match prompts.first().and_then(quiet) {
            Some(wait) => stretches.push(wait),
            None => {
                let items = playlist(prompts);
                if !items.is_empty() {
                    stretches.push(Stretch::Sounds(items));
                }
            }
        }
    }
    stretches
}

fn quiet(prompt: &Prompt) -> Option<Stretch> {
    let Prompt::Wait(wait) = prompt else { return None };
    Some(Stretch::Quiet { ms: millis(wait.length), early: Early::of(wait)? })
}

/// The children of a prompt-and-keys element as one playlist.
fn playlist(prompts: &[Prompt]) -> Vec<SoundItem> {
    prompts
        .iter()
        .filter_map(|prompt| match prompt {
            Prompt::Speak(speak) => speak::is_heard(speak).then(|| speak::item(speak)),
            Prompt::Play(play) => Some(play::item(play)),
            Prompt::Wait(wait) => Some(silence(wait.length)),
        })
        .collect()
}

/// Asks for a document that is only to be heard: what comes is [`sounds_fetched`].
pub(super) fn fetch_sounds(desk: &mut Desk, url: &DocUrl, event: Event) -> FetchId {
    fetch_sounds_at(desk, Target { url: url.clone(), method: Method::Post }, event)
}

/// The same, however its URL is to be asked.
pub(super) fn fetch_sounds_at(desk: &mut Desk, target: Target, event: Event) -> FetchId {
    let (params, deadline_ms) = (params::common(desk, event), desk.setup.limits.fetch_ms);
    desk.fetch(FetchKind::Sound, target, params, deadline_ms)
}

/// The sounds of a document that is only to be heard: `Speak`, `Play` and `Wait`, and nothing else. None where it did not
/// come, or has none; `what` asked for it.
pub(super) fn sounds_fetched(
    desk: &mut Desk,
    what: &str,
    result: Result<Fetched, FetchFailure>,
) -> Vec<SoundItem> {
    let document = match result {
        Ok(Fetched::Document { document }) => document,
        Ok(Fetched::Refused { refusal }) => {
            desk.findings(&refusal.findings);
            desk.remark(format!("{what}: its document was refused; it is left out"));
            return Vec::new();
        }
        Ok(Fetched::Ignored) => return Vec::new(),
        Err(failure) => {
            desk.remark(format!("{what}: {failure}; it is left out"));
            return Vec::new();
        }
    };
    let mut items = Vec::new();
    for element in &document.elements {
        match &element.kind {
            ElementKind::Speak(speak) if speak::is_heard(speak) => items.push(speak::item(speak)),
            ElementKind::Speak(_) => {}
            ElementKind::Play(play) => items.push(play::item(play)),
            ElementKind::Wait(wait) => items.push(silence(wait.length)),
            other => {
                let (name, line) = (other.name(), element.at.line);
                desk.remark(format!(
                    "{what}: {name} at line {line} is skipped: only Speak, Play and Wait are heard there"
                ));
            }
        }
    }
    items
}

/// Plays one item in the foreground.
fn play_item(desk: &mut Desk, item: SoundItem) -> Flow {
    let play = desk.play(vec![item]);
    Flow::Run(Running::Playing { play, failed: None })
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Seconds of silence, as one second repeated: every call's pauses share its frames.
fn silence(length: std::time::Duration) -> SoundItem {
    let seconds = u16::try_from(length.as_secs()).unwrap_or(u16::MAX);
    SoundItem { sound: Sound::Silence { ms: 1000 }, repeat: Repeat::Times(seconds) }
}
