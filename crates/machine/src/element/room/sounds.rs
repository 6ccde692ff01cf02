//! The sounds of a call in a room: its own music while it waits or is on hold, and the sounds that
//! all members hear when it enters or leaves.
//!
//! Documents are fetched one after the other. The exit sound is fetched in advance, since a call
//! that has been hung up fetches nothing.

use std::collections::VecDeque;

use crate::activity::Readiness;
use crate::context::CallContext;
use crate::contract::{
    FetchFailure, FetchId, FetchResponse, Output, PlayId, RoomCommand, Sound, SoundItem,
};
use crate::looped_playlist::LoopedPlaylist;
use crate::params::Event;
use crate::sounds::{fetch_sounds_at, prepare, sounds_fetched};
use crate::timers::DocumentTimer;
use xml::ast::{MemberSound, Target};

/// The beep of `enterSound` and `exitSound`. Plivo does not document its sound.
const BEEP: Sound = Sound::Tone { hz: 800, ms: 200 };
const BETWEEN: Sound = Sound::Silence { ms: 100 };

/// A document that is fetched for its sounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SoundDocument {
    Wait,
    Hold,
    Enter,
    Exit,
    RecordBegun,
    RecordEnded,
}

/// The sounds of a call in a room. See the [module documentation](self).
pub(super) struct Sounds {
    wait: Music,
    hold: Music,
    enter: MemberSound,
    exit: MemberSound,
    /// The sounds of `exit`. Empty until they are available.
    exit_items: Vec<SoundItem>,
    record_begun: Announcement,
    record_ended: Announcement,
    events: Events,
    queued: VecDeque<SoundDocument>,
    open: Option<(FetchId, SoundDocument)>,
}

/// The parameter `Event` in the request for each document.
pub(super) struct Events {
    pub(super) wait: Event,
    pub(super) hold: Event,
    pub(super) enter: Event,
    pub(super) exit: Event,
    /// The documents for the start and the end of the recording.
    pub(super) record: Event,
}

/// A sound that all members hear at an event. The event may occur before the document has been
/// fetched.
#[derive(Default)]
struct Announcement {
    target: Option<Target>,
    items: Option<Vec<SoundItem>>,
    due: bool,
}

impl Announcement {
    fn new(target: Option<Target>) -> Self {
        Self { target, ..Self::default() }
    }

    /// Stores the sounds of the document. Plays them if the event has already occurred.
    fn set_items(&mut self, ctx: &mut CallContext, items: Vec<SoundItem>) {
        match std::mem::take(&mut self.due) {
            true => play_to_room(ctx, items.clone()),
            false => prepare(ctx, &items),
        }
        self.items = Some(items);
    }

    /// Plays the sounds at the event, or as soon as they are available.
    fn play(&mut self, ctx: &mut CallContext) {
        match &self.items {
            Some(items) => play_to_room(ctx, items.clone()),
            None => self.due = self.target.is_some(),
        }
    }
}

/// Music in a loop, from a document that is fetched on demand.
#[derive(Default)]
struct Music {
    target: Option<Target>,
    is_requested: bool,
    playlist: Option<LoopedPlaylist>,
}

impl Music {
    fn new(target: Option<Target>) -> Self {
        Self { target, ..Self::default() }
    }
}

impl Sounds {
    pub(super) fn new(
        wait: Option<Target>,
        hold: Option<Target>,
        enter: MemberSound,
        exit: MemberSound,
        events: Events,
    ) -> Self {
        let exit_items = beeps(&exit);
        Self {
            wait: Music::new(wait),
            hold: Music::new(hold),
            enter,
            exit,
            exit_items,
            record_begun: Announcement::default(),
            record_ended: Announcement::default(),
            events,
            queued: VecDeque::new(),
            open: None,
        }
    }

    /// Adds the documents for the start and the end of a recording.
    pub(super) fn with_recording_sounds(
        self,
        begun: Option<Target>,
        ended: Option<Target>,
    ) -> Self {
        Self {
            record_begun: Announcement::new(begun),
            record_ended: Announcement::new(ended),
            ..self
        }
    }

    /// Plays the sound for the start of the recording that this call has requested.
    pub(super) fn record_begun(&mut self, ctx: &mut CallContext) {
        self.record_begun.play(ctx);
    }

    /// Plays the sound for the end of a recording that ends before the room.
    pub(super) fn record_ended(&mut self, ctx: &mut CallContext) {
        self.record_ended.play(ctx);
    }

    /// Handles the entry of the call into the room.
    pub(super) fn entered(&mut self, ctx: &mut CallContext, waiting: bool, held: bool) {
        self.queue_music(waiting, held);
        match &self.enter {
            MemberSound::None => {}
            MemberSound::Beep(_) => play_to_room(ctx, beeps(&self.enter)),
            MemberSound::Document(_) => self.queued.push_back(SoundDocument::Enter),
        }
        if matches!(self.exit, MemberSound::Document(_)) {
            self.queued.push_back(SoundDocument::Exit);
        }
        for (announcement, sound) in [
            (&self.record_begun, SoundDocument::RecordBegun),
            (&self.record_ended, SoundDocument::RecordEnded),
        ] {
            if announcement.target.is_some() {
                self.queued.push_back(sound);
            }
        }
        self.fetch_next(ctx);
    }

    /// Queues the music that is needed now.
    fn queue_music(&mut self, waiting: bool, held: bool) {
        for (is_needed, music, sound) in [
            (waiting, &mut self.wait, SoundDocument::Wait),
            (held, &mut self.hold, SoundDocument::Hold),
        ] {
            if is_needed
                && music.target.is_some()
                && !std::mem::replace(&mut music.is_requested, true)
            {
                self.queued.push_back(sound);
            }
        }
    }

    /// Fetches the next document, unless a fetch is in progress.
    fn fetch_next(&mut self, ctx: &mut CallContext) {
        while self.open.is_none() {
            let Some(sound) = self.queued.pop_front() else { return };
            let (target, event) = match sound {
                SoundDocument::Wait => (self.wait.target.clone(), self.events.wait),
                SoundDocument::Hold => (self.hold.target.clone(), self.events.hold),
                SoundDocument::Enter => (document(&self.enter), self.events.enter),
                SoundDocument::Exit => (document(&self.exit), self.events.exit),
                SoundDocument::RecordBegun => {
                    (self.record_begun.target.clone(), self.events.record)
                }
                SoundDocument::RecordEnded => {
                    (self.record_ended.target.clone(), self.events.record)
                }
            };
            if let Some(target) = target {
                self.open = Some((fetch_sounds_at(ctx, target, event), sound));
            }
        }
    }

    /// Handles the end of a fetch. If it failed, the sound is omitted
    /// (docs/reference/callbacks.md#failures).
    pub(super) fn fetched(
        &mut self,
        ctx: &mut CallContext,
        fetch: FetchId,
        result: Result<FetchResponse, FetchFailure>,
    ) {
        let Some((_, sound)) = self.open.take_if(|(open, _)| *open == fetch) else { return };
        ctx.timers.clear(DocumentTimer::Fetch);
        let label = match sound {
            SoundDocument::Wait => "the wait sound",
            SoundDocument::Hold => "the hold music",
            SoundDocument::Enter => "the enter sound",
            SoundDocument::Exit => "the exit sound",
            SoundDocument::RecordBegun => "startRecordingAudio",
            SoundDocument::RecordEnded => "stopRecordingAudio",
        };
        let items = sounds_fetched(ctx, label, result);
        match sound {
            SoundDocument::Wait => {
                self.wait.playlist = Some(LoopedPlaylist::new(ctx, items, Vec::new()))
            }
            SoundDocument::Hold => {
                self.hold.playlist = Some(LoopedPlaylist::new(ctx, items, Vec::new()))
            }
            SoundDocument::Enter => play_to_room(ctx, items),
            SoundDocument::RecordBegun => self.record_begun.set_items(ctx, items),
            SoundDocument::RecordEnded => self.record_ended.set_items(ctx, items),
            SoundDocument::Exit => {
                prepare(ctx, &items);
                self.exit_items = items;
            }
        }
        self.fetch_next(ctx);
    }

    /// Handles a fetch that has exceeded its deadline.
    pub(super) fn fetch_timed_out(&mut self, ctx: &mut CallContext) {
        if let Some((fetch, _)) = self.open {
            ctx.emit(Output::CancelFetch { fetch });
            self.fetched(ctx, fetch, Err(FetchFailure::Timeout));
        }
    }

    /// Plays the music for the current state and stops all other music.
    pub(super) fn update_music(
        &mut self,
        ctx: &mut CallContext,
        readiness: Readiness,
        waiting: bool,
        held: bool,
    ) {
        self.queue_music(waiting, held);
        self.fetch_next(ctx);
        let (on, off) = match (held, waiting) {
            (true, _) => (Some(&mut self.hold), [Some(&mut self.wait), None]),
            (false, true) => (Some(&mut self.wait), [Some(&mut self.hold), None]),
            (false, false) => (None, [Some(&mut self.wait), Some(&mut self.hold)]),
        };
        for music in off.into_iter().flatten() {
            if let Some(playlist) = &mut music.playlist {
                playlist.stop(ctx);
            }
        }
        if let Some(playlist) = on.and_then(|music| music.playlist.as_mut()) {
            playlist.play(ctx, readiness);
        }
    }

    pub(super) fn played(&mut self, ctx: &mut CallContext, readiness: Readiness, ended: PlayId) {
        for music in [&mut self.wait, &mut self.hold] {
            if let Some(playlist) =
                music.playlist.as_mut().filter(|playlist| playlist.is_playing(ended))
            {
                playlist.played(ctx, readiness, ended);
            }
        }
    }

    pub(super) fn is_playing(&self, play_id: PlayId) -> bool {
        [&self.wait, &self.hold].iter().any(|music| {
            music.playlist.as_ref().is_some_and(|playlist| playlist.is_playing(play_id))
        })
    }

    /// Stops the music and all fetches.
    pub(super) fn stop(&mut self, ctx: &mut CallContext) {
        for music in [&mut self.wait, &mut self.hold] {
            if let Some(playlist) = &mut music.playlist {
                playlist.stop(ctx);
            }
        }
        self.queued.clear();
        if let Some((fetch, _)) = self.open.take() {
            ctx.cancel_fetch(fetch);
        }
    }

    /// Removes and returns the sounds that the remaining members hear.
    pub(super) fn take_exit_sounds(&mut self) -> Vec<SoundItem> {
        std::mem::take(&mut self.exit_items)
    }
}

fn play_to_room(ctx: &mut CallContext, items: Vec<SoundItem>) {
    if !items.is_empty() {
        prepare(ctx, &items);
        ctx.emit(Output::Room { command: RoomCommand::Sound { items } });
    }
}

fn document(sound: &MemberSound) -> Option<Target> {
    match sound {
        MemberSound::None | MemberSound::Beep(_) => None,
        MemberSound::Document(target) => Some(target.clone()),
    }
}

fn beeps(sound: &MemberSound) -> Vec<SoundItem> {
    match sound {
        MemberSound::None | MemberSound::Document(_) => Vec::new(),
        MemberSound::Beep(2) => [BEEP, BETWEEN, BEEP].map(SoundItem::once).into(),
        MemberSound::Beep(_) => vec![SoundItem::once(BEEP)],
    }
}
