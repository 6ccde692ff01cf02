//! Executes the media commands of a call, and prepares its prompts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tracing::warn;

use super::super::author;
use super::leg_events;
use super::{Media, Shell};
use ::speech::library::Library;
use machine::{Input, MediaCommand, MediaEvent, MediaFault, Overlay, PlayId, Sound};
use media::PlayItem;
use media::prompt::Prompt;
use model::Leg;

/// Maximum number of prompts that a call keeps ready.
const PREPARED_MAX: usize = 64;

/// The prompts of a call, and what it plays.
#[derive(Default)]
pub(super) struct Playback {
    prepared: HashMap<Sound, Arc<Prompt>>,
    /// Whether this node writes the call's documents. Only then is the playback tracked.
    pub(super) written: bool,
    /// The current playback and its start.
    pub(super) playing: Option<(PlayId, Instant)>,
}

impl Playback {
    /// Returns a prepared prompt, or prepares it in `library`.
    fn prompt(&mut self, sound: &Sound, library: &Library) -> Arc<Prompt> {
        if let Some(prompt) = self.prepared.get(sound).filter(|prompt| prompt.failure().is_none()) {
            return prompt.clone();
        }
        let prompt = library.prompt(sound);
        if self.prepared.len() >= PREPARED_MAX {
            self.prepared.clear();
        }
        self.prepared.insert(sound.clone(), prompt.clone());
        prompt
    }
}

impl Shell {
    /// Returns the prompt of a sound, which is encoded in the background if it is not cached.
    pub(super) fn prompt(&mut self, sound: &Sound) -> Arc<Prompt> {
        if let Sound::File { url } = sound
            && let Some(prompt) =
                author::path_of(&url.0).and_then(|path| self.services.author.sound(self.call, path))
        {
            return prompt;
        }
        self.playback.prompt(sound, &self.services.sounds)
    }

    pub(super) fn media(&mut self, order: MediaCommand) {
        // Prompts are looked up before the leg is borrowed.
        let items = match &order {
            MediaCommand::Play { items, .. }
            | MediaCommand::Overlay { overlay: Overlay { items, .. }, .. } => items
                .iter()
                .map(|i| PlayItem { prompt: self.prompt(&i.sound), repeat: i.repeat })
                .collect(),
            _ => Vec::new(),
        };
        if order == MediaCommand::Begin {
            self.take_answer();
        }
        self.note_playing(&order);
        if matches!(order, MediaCommand::Join | MediaCommand::Unjoin) {
            let end = self.a_leg.bridge().take();
            return self.bridge_media(&order, end);
        }
        if let MediaCommand::Record { .. }
        | MediaCommand::RecordStart { .. }
        | MediaCommand::RecordPause { .. }
        | MediaCommand::RecordStop { .. } = &order
        {
            return self.record(order);
        }
        if order == MediaCommand::Close {
            self.tapes.clear();
        }
        let Media::Leg(leg) = &self.a_leg.media else {
            if order == MediaCommand::Close {
                self.a_leg.media = Media::None;
            }
            return;
        };
        match order {
            MediaCommand::Begin => leg.begin(),
            MediaCommand::Open => {
                leg.open();
                self.start_sampling();
            }
            MediaCommand::Play { play, .. } => leg.play(play, items),
            MediaCommand::Overlay { play, overlay: aside } => leg.play_aside(play, aside, items),
            MediaCommand::Stop { play } => leg.stop(play),
            MediaCommand::PlayPause { play, on } => leg.pause(play, on),
            MediaCommand::SendDigits { play, digits } => leg.send_digits(play, &digits),
            MediaCommand::DetectVoice { on } => leg.detect_voice(on),
            MediaCommand::DetectBeep { settings: how } => leg.detect_beep(how),
            MediaCommand::Join | MediaCommand::Unjoin => {}
            MediaCommand::Record { .. }
            | MediaCommand::RecordStart { .. }
            | MediaCommand::RecordPause { .. }
            | MediaCommand::RecordStop { .. } => {}
            MediaCommand::Close => {
                let measured = leg.stats().quality;
                leg.close();
                self.a_leg.media = Media::None;
                self.report_quality(&measured);
            }
        }
    }

    /// Tracks playback for the author of generated documents, which is notified of interruptions.
    pub(super) fn note_playing(&mut self, order: &MediaCommand) {
        if !self.playback.written {
            return;
        }
        let now = self.services.clock.now();
        let cut = match order {
            MediaCommand::Play { play, .. } => {
                self.playback.playing = Some((*play, now));
                None
            }
            MediaCommand::Stop { play } => {
                self.playback.playing.take_if(|(playing, _)| playing == play)
            }
            MediaCommand::Close => self.playback.playing.take(),
            _ => None,
        };
        if let Some((_, since)) = cut {
            self.services.author.cut(self.call, now.saturating_duration_since(since));
        }
    }

    /// Applies Meta's answer to our offer.
    pub(super) fn take_answer(&mut self) {
        let Some(answer) = self.a_leg.answer.take() else { return };
        let Media::Offered(leg) = std::mem::replace(&mut self.a_leg.media, Media::None) else {
            return;
        };
        match self.services.media.accept_answer(*leg, &answer, leg_events(&self.mailbox, None)) {
            Ok(leg) => self.a_leg.media = Media::Leg(leg),
            Err(error) => {
                warn!(%error, "media set-up failed");
                self.mailbox.tell(Input::Media {
                    leg: Leg::A,
                    event: MediaEvent::Lost { fault: MediaFault::DtlsFailed },
                });
            }
        }
    }
}
