//! Converts elements to playlists, and fetches documents for their sounds only.

use std::time::Duration;

use super::context::CallContext;
use super::params::{self, Event};
use crate::contract::{FetchFailure, FetchId, FetchKind, FetchResponse, Output, Sound, SoundItem};
use model::Method;
use xml::ast::{DocUrl, ElementKind, Play, Prompt, Repeat, Speak, Target};

/// The frequency of the ring-back tone: 425 Hz, one second on and four seconds off (ITU-T E.180).
const TONE_HZ: u16 = 425;
const TONE_MS: u16 = 1_000;
const PAUSE_SECS: u16 = 4;

/// Whether the element contains text or SSML. Otherwise it is skipped (W306) and does not answer
/// the call.
pub(crate) fn has_speech(speak: &Speak) -> bool {
    !speak.speech.0.is_empty()
}

pub(crate) fn speak_sound(speak: &Speak) -> Sound {
    Sound::Speak {
        speech: speak.speech.clone(),
        voice: speak.voice.clone(),
        language: speak.language.clone(),
    }
}

pub(crate) fn file_sound(url: &DocUrl) -> Sound {
    Sound::File { url: url.clone() }
}

pub(crate) fn speak_item(speak: &Speak) -> SoundItem {
    SoundItem { sound: speak_sound(speak), repeat: speak.repeat }
}

pub(crate) fn play_item(play: &Play) -> SoundItem {
    SoundItem { sound: file_sound(&play.url), repeat: play.repeat }
}

/// Returns silence of this length as a repeated second, so that the pauses of all calls share one
/// prompt.
pub(crate) fn silence(length: Duration) -> SoundItem {
    let seconds = u16::try_from(length.as_secs()).unwrap_or(u16::MAX);
    SoundItem { sound: Sound::Silence { ms: 1000 }, repeat: Repeat::Times(seconds) }
}

/// Returns one period of the ring-back tone.
pub(crate) fn ring_back() -> Vec<SoundItem> {
    let tone = SoundItem::once(Sound::Tone { hz: TONE_HZ, ms: TONE_MS });
    let pause =
        SoundItem { sound: Sound::Silence { ms: 1_000 }, repeat: Repeat::Times(PAUSE_SECS) };
    vec![tone, pause]
}

/// Converts the children of a prompt element to one playlist.
pub(crate) fn playlist(prompts: &[Prompt]) -> Vec<SoundItem> {
    prompts
        .iter()
        .filter_map(|prompt| match prompt {
            Prompt::Speak(speak) => has_speech(speak).then(|| speak_item(speak)),
            Prompt::Play(play) => Some(play_item(play)),
            Prompt::Wait(wait) => Some(silence(wait.length)),
        })
        .collect()
}

/// Prepares those sounds that must be fetched or synthesized.
pub(crate) fn prepare(ctx: &mut CallContext, items: &[SoundItem]) {
    let fetched =
        |item: &&SoundItem| matches!(item.sound, Sound::Speak { .. } | Sound::File { .. });
    let sounds: Vec<Sound> = items.iter().filter(fetched).map(|item| item.sound.clone()).collect();
    if !sounds.is_empty() {
        ctx.emit(Output::Prepare { sounds });
    }
}

/// Fetches a document for its sounds. Pass the result to [`sounds_fetched`].
pub(crate) fn fetch_sounds(ctx: &mut CallContext, url: &DocUrl, event: Event) -> FetchId {
    fetch_sounds_at(ctx, Target { url: url.clone(), method: Method::Post }, event)
}

/// Fetches a document for its sounds, with the URL and the method of `target`.
pub(crate) fn fetch_sounds_at(ctx: &mut CallContext, target: Target, event: Event) -> FetchId {
    let (params, deadline_ms) = (params::common(ctx, event), ctx.setup.limits.fetch_ms);
    ctx.fetch(FetchKind::Sound, target, params, deadline_ms)
}

/// Returns the sounds of a fetched document: those of `Speak`, `Play` and `Wait`. Other elements
/// are skipped.
///
/// The result is empty if the fetch failed or the document has no sounds. `attribute` names the
/// attribute with the URL in remarks.
pub(crate) fn sounds_fetched(
    ctx: &mut CallContext,
    attribute: &str,
    result: Result<FetchResponse, FetchFailure>,
) -> Vec<SoundItem> {
    let document = match result {
        Ok(FetchResponse::Document { document }) => document,
        Ok(FetchResponse::Refused { refusal }) => {
            ctx.findings(&refusal.findings);
            ctx.remark(format!("{attribute}: its document was refused; it is left out"));
            return Vec::new();
        }
        Ok(FetchResponse::Ignored) => return Vec::new(),
        Err(failure) => {
            ctx.remark(format!("{attribute}: {failure}; it is left out"));
            return Vec::new();
        }
    };
    let mut items = Vec::new();
    for element in &document.elements {
        match &element.kind {
            ElementKind::Speak(speak) if has_speech(speak) => items.push(speak_item(speak)),
            ElementKind::Speak(_) => {}
            ElementKind::Play(play) => items.push(play_item(play)),
            ElementKind::Wait(wait) => items.push(silence(wait.length)),
            other => {
                let (name, line) = (other.name(), element.at.line);
                ctx.remark(format!(
                    "{attribute}: {name} at line {line} is skipped: only Speak, Play and Wait are heard there"
                ));
            }
        }
    }
    items
}
