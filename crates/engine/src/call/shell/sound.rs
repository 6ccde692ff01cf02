//! The prompts of a call and its playback.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::author;
use super::super::failed::{self, FETCH_FILE, Failed};
use super::super::handover::micros;
use super::super::trace::Trace;
use super::context::Context;
use machine::{MediaCommand, Overlay, OverlayKind, PlayId, Sound, SoundItem};
use media::PlayItem;
use media::prompt::Prompt;
use xml::ast::DocUrl;

/// Maximum number of prompts that a call keeps ready.
const PREPARED_MAX: usize = 64;
/// Maximum number of playlists whose voices are awaited. A call plays one, and two beside it.
const PLAYLISTS_MAX: usize = 4;
/// Maximum number of audio files whose URLs are kept, to record those that fail.
const FILES_MAX: usize = 64;

/// The prompts of a call and its playback.
#[derive(Default)]
pub(super) struct Playback {
    /// The sounds of the current document, so that they are ready when they are played.
    prepared: HashMap<Sound, Arc<Prompt>>,
    /// Whether this node writes the call's documents. Only then is the playback tracked.
    pub(super) written: bool,
    /// The current playback.
    playing: Option<Playing>,
    /// The playlists whose voices are not in the event log yet.
    playlists: Vec<Playlist>,
    /// The customer's audio files in playlists that have not ended, with their places.
    files: VecDeque<(PlayId, u16, DocUrl)>,
}

/// A playback that the caller can interrupt.
#[derive(Clone, Copy)]
struct Playing {
    play: PlayId,
    /// Its start, later by all pauses that have ended.
    since: Instant,
    /// The start of the current pause: the caller speaks, and the playback may go on.
    paused: Option<Instant>,
}

impl Playing {
    fn pause(&mut self, now: Instant, on: bool) {
        if on {
            self.paused.get_or_insert(now);
        } else if let Some(paused) = self.paused.take() {
            self.since += now.saturating_duration_since(paused);
        }
    }

    /// Returns how long it has been played, without pauses.
    fn played(&self, now: Instant) -> Duration {
        self.paused.unwrap_or(now).saturating_duration_since(self.since)
    }
}

/// A playlist whose voices are not in the event log yet.
struct Playlist {
    play: PlayId,
    /// A later overlay of this kind replaces it.
    overlay: Option<OverlayKind>,
    /// The prompts that may contain speech.
    prompts: Vec<Arc<Prompt>>,
    /// Whether its first packet was sent.
    started: bool,
}

impl Playlist {
    fn log_voices(self, call: &Context) {
        let mut voices = Vec::new();
        for voice in self.prompts.iter().flat_map(|prompt| prompt.voices()) {
            if !voices.contains(&voice) {
                voices.push(voice);
            }
        }
        if self.started && !voices.is_empty() {
            call.journal.trace(&Trace::Spoken { play: self.play, voices });
        }
    }
}

impl Playback {
    /// Gives up the sounds of the document before.
    pub(super) fn begin_document(&mut self) {
        self.prepared.clear();
    }

    /// Prepares a sound of the document.
    pub(super) fn prepare(&mut self, call: &Context, sound: &Sound) {
        let prompt = self.prompt(call, sound);
        if self.prepared.len() >= PREPARED_MAX {
            self.prepared.clear();
        }
        self.prepared.insert(sound.clone(), prompt);
    }

    /// Returns the prompt of a sound, which is encoded in the background if it is not cached.
    fn prompt(&self, call: &Context, sound: &Sound) -> Arc<Prompt> {
        if let Sound::File { url } = sound
            && let Some(path) = author::path_of(&url.0)
            && let Some(prompt) = call.services.author.sound(call.id, path)
        {
            return prompt;
        }
        if let Some(prompt) = self.prepared.get(sound).filter(|prompt| prompt.failure().is_none()) {
            return prompt.clone();
        }
        call.services.sounds.prompt_for(&call.view.setup.parent_account, sound)
    }

    /// Returns the prompts that a command plays.
    pub(super) fn items(&mut self, call: &Context, command: &MediaCommand) -> Vec<PlayItem> {
        let (MediaCommand::Play { play, items }
        | MediaCommand::Overlay { play, overlay: Overlay { items, .. } }) = command
        else {
            return Vec::new();
        };
        let overlay = match command {
            MediaCommand::Overlay { overlay, .. } => Some(overlay.kind),
            _ => None,
        };
        let is_replaced =
            |playlist: &mut Playlist| overlay.is_some() && playlist.overlay == overlay;
        for playlist in self.playlists.extract_if(.., is_replaced) {
            playlist.log_voices(call);
        }
        let play_item = |item: &SoundItem| PlayItem {
            prompt: self.prompt(call, &item.sound),
            repeat: item.repeat,
        };
        let prepared: Vec<PlayItem> = items.iter().map(play_item).collect();
        for (place, item) in (0..).zip(items) {
            if let Sound::File { url } = &item.sound
                && author::path_of(&url.0).is_none()
            {
                if self.files.len() >= FILES_MAX {
                    self.files.pop_front();
                }
                self.files.push_back((*play, place, url.clone()));
            }
        }
        // A file may be the speech of an agent.
        let may_speak =
            |item: &SoundItem| matches!(item.sound, Sound::Speak { .. } | Sound::File { .. });
        let prompts: Vec<Arc<Prompt>> = items
            .iter()
            .zip(&prepared)
            .filter(|(item, _)| may_speak(item))
            .map(|(_, prepared)| prepared.prompt.clone())
            .collect();
        if !prompts.is_empty() {
            if self.playlists.len() >= PLAYLISTS_MAX {
                self.playlists.remove(0).log_voices(call);
            }
            self.playlists.push(Playlist { play: *play, overlay, prompts, started: false });
        }
        prepared
    }

    /// Notes that the first packet of a playlist was sent. Its voices are logged if no further one
    /// can follow.
    pub(super) fn started(&mut self, call: &Context, play: PlayId) {
        if let Some(playing) = self.playing.as_mut().filter(|playing| playing.play == play) {
            playing.since = call.services.clock.now();
        }
        let Some(index) = self.playlists.iter().position(|playlist| playlist.play == play) else {
            return;
        };
        if let Some(playlist) = self.playlists.get_mut(index) {
            playlist.started = true;
            if playlist.prompts.iter().all(|prompt| prompt.is_finished()) {
                self.playlists.remove(index).log_voices(call);
            }
        }
    }

    /// Records a customer's audio file that could not be played with the failed requests.
    pub(super) fn failed(&mut self, call: &Context, play: PlayId, item: u16, reason: &str) {
        let is_it = |(of, place, _): &(PlayId, u16, DocUrl)| (*of, *place) == (play, item);
        let Some((_, _, url)) =
            self.files.iter().position(is_it).and_then(|at| self.files.remove(at))
        else {
            return;
        };
        let (services, setup) = (&call.services, &call.view.setup);
        // The reason begins with the URL.
        let outcome = reason.split_once(": ").map_or(reason, |(_, outcome)| outcome);
        let failed = Failed {
            call: call.id,
            account: &setup.account,
            main_account: &setup.parent_account,
            kind: FETCH_FILE.to_owned(),
            method: "GET",
            url: &url.0,
            outcome,
            attempts: 1,
            response: None,
        };
        let (space, now) = (services.recordings.space(), services.clock.wall());
        failed::record(&services.store, space, services.uuid(), now, failed);
    }

    /// Logs the voices of the playlists that have ended, one or all of the call, and forgets their
    /// files.
    fn end_playlists(&mut self, call: &Context, ended: Option<PlayId>) {
        let is_over = |playlist: &mut Playlist| ended.is_none_or(|play| playlist.play == play);
        self.files.retain(|(play, ..)| ended.is_some_and(|ended| *play != ended));
        for playlist in self.playlists.extract_if(.., is_over) {
            playlist.log_voices(call);
        }
    }

    /// Gives up the incomplete prompts of a playlist that is stopped.
    fn give_up(&mut self, play: PlayId) {
        let stopped = self.playlists.iter().filter(|playlist| playlist.play == play);
        for prompt in stopped.flat_map(|playlist| &playlist.prompts) {
            let is_it = |prepared: &Arc<Prompt>| Arc::ptr_eq(prepared, prompt);
            self.prepared.retain(|_, prepared| prepared.is_finished() || !is_it(prepared));
        }
    }

    /// Tracks playback for the event log, and for the author of generated documents, which must
    /// know when it is interrupted.
    pub(super) fn note(&mut self, call: &Context, command: &MediaCommand) {
        match command {
            MediaCommand::Stop { play } => {
                self.give_up(*play);
                self.end_playlists(call, Some(*play));
            }
            MediaCommand::Close => self.end_playlists(call, None),
            _ => {}
        }
        if !self.written {
            return;
        }
        let now = call.services.clock.now();
        let cut = match command {
            MediaCommand::Play { play, items } => {
                // Tones are those of a `Dial` or `Record`, and not of the author.
                let is_of_author = items
                    .iter()
                    .any(|item| matches!(item.sound, Sound::Speak { .. } | Sound::File { .. }));
                let playing = Playing { play: *play, since: now, paused: None };
                self.playing = is_of_author.then_some(playing);
                None
            }
            MediaCommand::PlayPause { play, on } => {
                if let Some(playing) = self.playing.as_mut().filter(|playing| playing.play == *play)
                {
                    playing.pause(now, *on);
                }
                None
            }
            MediaCommand::Stop { play } => self.playing.take_if(|playing| playing.play == *play),
            MediaCommand::Close => self.playing.take(),
            _ => None,
        };
        if let Some(playing) = cut {
            call.services.author.cut(call.id, playing.played(now));
        }
    }

    /// The current playback of a written document, and its start and that of its pause in
    /// microseconds since `zero`.
    pub(super) fn playing(&self, zero: Instant) -> (Option<(PlayId, u64)>, Option<u64>) {
        let Some(Playing { play, since, paused }) = self.playing else { return (None, None) };
        let us = |at: Instant| micros(at.saturating_duration_since(zero));
        (Some((play, us(since))), paused.map(us))
    }

    /// Continues to track the playback of a call with written documents, after another process.
    pub(super) fn resume(
        &mut self,
        zero: Instant,
        playing: Option<(PlayId, u64)>,
        paused_us: Option<u64>,
    ) {
        let at = |us| zero + Duration::from_micros(us);
        self.written = true;
        self.playing = playing.map(|(play, since_us)| Playing {
            play,
            since: at(since_us),
            paused: paused_us.map(at),
        });
    }

    /// Notes that a playback has ended.
    pub(super) fn ended(&mut self, call: &Context, play: PlayId) {
        self.end_playlists(call, Some(play));
        self.playing.take_if(|playing| playing.play == play);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_do_not_count_as_heard() {
        let zero = model::Clock::real().now();
        let at = |ms| zero + Duration::from_millis(ms);
        let mut playing = Playing { play: PlayId(1), since: zero, paused: None };
        playing.pause(at(300), true);
        playing.pause(at(800), true);
        assert_eq!(playing.played(at(2_000)), Duration::from_millis(300));
        playing.pause(at(2_000), false);
        playing.pause(at(2_100), false);
        assert_eq!(playing.played(at(2_500)), Duration::from_millis(800));
    }
}
