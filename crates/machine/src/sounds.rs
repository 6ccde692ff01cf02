//! Sounds: playlists of elements, and documents that are fetched only to be heard.

use std::time::Duration;

use super::context::CallContext;
use super::params::{self, Event};
use crate::contract::{FetchFailure, FetchId, FetchKind, FetchResponse, Output, Sound, SoundItem};
use model::Method;
use xml::ast::{DocUrl, ElementKind, Play, Prompt, Repeat, Speak, Target};

/// 425 Hz, a second on and four off: ITU-T E.180, and what most of the world hears.
const TONE_HZ: u16 = 425;
const TONE_MS: u16 = 1_000;
const PAUSE_SECS: u16 = 4;

/// Whether anything is to be said at all: without text and SSML it says nothing (W306), and answers no call.
pub(crate) fn is_heard(speak: &Speak) -> bool {
    !speak.speech.0.is_empty()
}

pub(crate) fn of_speak(speak: &Speak) -> Sound {
    Sound::Speak {
        speech: speak.speech.clone(),
        voice: speak.voice.clone(),
        language: speak.language.clone(),
    }
}

pub(crate) fn of_file(url: &DocUrl) -> Sound {
    Sound::File { url: url.clone() }
}

pub(crate) fn speak_item(speak: &Speak) -> SoundItem {
    SoundItem { sound: of_speak(speak), repeat: speak.repeat }
}

pub(crate) fn play_item(play: &Play) -> SoundItem {
    SoundItem { sound: of_file(&play.url), repeat: play.repeat }
}

/// Seconds of silence, as one second repeated: every call's pauses share its frames.
pub(crate) fn silence(length: Duration) -> SoundItem {
    let seconds = u16::try_from(length.as_secs()).unwrap_or(u16::MAX);
    SoundItem { sound: Sound::Silence { ms: 1000 }, repeat: Repeat::Times(seconds) }
}

/// The tone, once around.
pub(crate) fn ring_back() -> Vec<SoundItem> {
    let tone = SoundItem::once(Sound::Tone { hz: TONE_HZ, ms: TONE_MS });
    let pause =
        SoundItem { sound: Sound::Silence { ms: 1_000 }, repeat: Repeat::Times(PAUSE_SECS) };
    vec![tone, pause]
}

/// The children of a prompt-and-keys element as one playlist.
pub(crate) fn playlist(prompts: &[Prompt]) -> Vec<SoundItem> {
    prompts
        .iter()
        .filter_map(|prompt| match prompt {
            Prompt::Speak(speak) => is_heard(speak).then(|| speak_item(speak)),
            Prompt::Play(play) => Some(play_item(play)),
            Prompt::Wait(wait) => Some(silence(wait.length)),
        })
        .collect()
}

/// Has what must be fetched or said made ready.
pub(crate) fn prepare(ctx: &mut CallContext, items: &[SoundItem]) {
    let fetched =
        |item: &&SoundItem| matches!(item.sound, Sound::Speak { .. } | Sound::File { .. });
    let sounds: Vec<Sound> = items.iter().filter(fetched).map(|item| item.sound.clone()).collect();
    if !sounds.is_empty() {
        ctx.wish(Output::Prepare { sounds });
    }
}

/// Asks for a document that is only to be heard: what comes is [`sounds_fetched`].
pub(crate) fn fetch_sounds(ctx: &mut CallContext, url: &DocUrl, event: Event) -> FetchId {
    fetch_sounds_at(ctx, Target { url: url.clone(), method: Method::Post }, event)
}

/// The same, however its URL is to be asked.
pub(crate) fn fetch_sounds_at(ctx: &mut CallContext, target: Target, event: Event) -> FetchId {
    let (params, deadline_ms) = (params::common(ctx, event), ctx.setup.limits.fetch_ms);
    ctx.fetch(FetchKind::Sound, target, params, deadline_ms)
}

/// The sounds of a document that is only to be heard: `Speak`, `Play` and `Wait`, and nothing else. None where it did not
/// come, or has none; `what` asked for it.
pub(crate) fn sounds_fetched(
    ctx: &mut CallContext,
    what: &str,
    result: Result<FetchResponse, FetchFailure>,
) -> Vec<SoundItem> {
    let document = match result {
        Ok(FetchResponse::Document { document }) => document,
        Ok(FetchResponse::Refused { refusal }) => {
            ctx.findings(&refusal.findings);
            ctx.remark(format!("{what}: its document was refused; it is left out"));
            return Vec::new();
        }
        Ok(FetchResponse::Ignored) => return Vec::new(),
        Err(failure) => {
            ctx.remark(format!("{what}: {failure}; it is left out"));
            return Vec::new();
        }
    };
    let mut items = Vec::new();
    for element in &document.elements {
        match &element.kind {
            ElementKind::Speak(speak) if is_heard(speak) => items.push(speak_item(speak)),
            ElementKind::Speak(_) => {}
            ElementKind::Play(play) => items.push(play_item(play)),
            ElementKind::Wait(wait) => items.push(silence(wait.length)),
            other => {
                let (name, line) = (other.name(), element.at.line);
                ctx.remark(format!(
                    "{what}: {name} at line {line} is skipped: only Speak, Play and Wait are heard there"
                ));
            }
        }
    }
    items
}
