//! The prompts of a call and its playback.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::super::author;
use super::context::Context;
use machine::{MediaCommand, Overlay, PlayId, Sound};
use media::PlayItem;
use media::prompt::Prompt;

/// Maximum number of prompts that a call keeps ready.
const PREPARED_MAX: usize = 64;

/// The prompts of a call and its playback.
#[derive(Default)]
pub(super) struct Playback {
    prepared: HashMap<Sound, Arc<Prompt>>,
    /// Whether this node writes the call's documents. Only then is the playback tracked.
    pub(super) written: bool,
    /// The current playback and its start.
    playing: Option<(PlayId, Instant)>,
}

impl Playback {
    /// Returns the prompt of a sound, which is encoded in the background if it is not cached.
    pub(super) fn prompt(&mut self, call: &Context, sound: &Sound) -> Arc<Prompt> {
        if let Sound::File { url } = sound
            && let Some(path) = author::path_of(&url.0)
            && let Some(prompt) = call.services.author.sound(call.id, path)
        {
            return prompt;
        }
        if let Some(prompt) = self.prepared.get(sound).filter(|prompt| prompt.failure().is_none()) {
            return prompt.clone();
        }
        let prompt = call.services.sounds.prompt(sound);
        if self.prepared.len() >= PREPARED_MAX {
            self.prepared.clear();
        }
        self.prepared.insert(sound.clone(), prompt.clone());
        prompt
    }

    /// Returns the prompts that a command plays.
    pub(super) fn items(&mut self, call: &Context, command: &MediaCommand) -> Vec<PlayItem> {
        let (MediaCommand::Play { items, .. }
        | MediaCommand::Overlay { overlay: Overlay { items, .. }, .. }) = command
        else {
            return Vec::new();
        };
        items
            .iter()
            .map(|item| PlayItem { prompt: self.prompt(call, &item.sound), repeat: item.repeat })
            .collect()
    }

    /// Tracks playback for the author of generated documents, which must know when it is
    /// interrupted.
    pub(super) fn note(&mut self, call: &Context, command: &MediaCommand) {
        if !self.written {
            return;
        }
        let now = call.services.clock.now();
        let cut = match command {
            MediaCommand::Play { play, .. } => {
                self.playing = Some((*play, now));
                None
            }
            MediaCommand::Stop { play } => self.playing.take_if(|(playing, _)| playing == play),
            MediaCommand::Close => self.playing.take(),
            _ => None,
        };
        if let Some((_, since)) = cut {
            call.services.author.cut(call.id, now.saturating_duration_since(since));
        }
    }

    /// Notes that a playback has ended.
    pub(super) fn ended(&mut self, play: PlayId) {
        self.playing.take_if(|(playing, _)| *playing == play);
    }
}
