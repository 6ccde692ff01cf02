//! What a call in a room hears beside its members: music while it waits or is on hold; and what the members hear when it
//! comes and goes.
//!
//! Documents are fetched one after the other, that of coming in before it is needed no more, that of leaving before it is
//! needed: a call that has been hung up fetches nothing.

use std::collections::VecDeque;

use crate::activity::Readiness;
use crate::context::CallContext;
use crate::contract::{
    FetchFailure, FetchId, FetchResponse, Output, PlayId, RoomCommand, Sound, SoundItem,
};
use crate::looped_playlist::LoopedPlaylist;
use crate::params::Event;
use crate::sounds::{fetch_sounds_at, prepare, sounds_fetched};
use crate::timers::Timer;
use xml::ast::{MemberSound, Target};

/// Plivo names the beeps and not how they sound.
const BEEP: Sound = Sound::Tone { hz: 800, ms: 200 };
const BETWEEN: Sound = Sound::Silence { ms: 100 };

/// A document that may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SoundDocument {
    Wait,
    Hold,
    Enter,
    Exit,
    RecordBegun,
    RecordEnded,
}

/// See the module's note.
pub(super) struct Sounds {
    wait: Music,
    hold: Music,
    enter: MemberSound,
    exit: MemberSound,
    /// Of `exit`, once it is here.
    exit_items: Vec<SoundItem>,
    record_begun: Announcement,
    record_ended: Announcement,
    events: Events,
    asked: VecDeque<SoundDocument>,
    open: Option<(FetchId, SoundDocument)>,
}

/// `Event` of each document's request.
pub(super) struct Events {
    pub(super) wait: Event,
    pub(super) hold: Event,
    pub(super) enter: Event,
    pub(super) exit: Event,
    /// That the recording begins or has ended.
    pub(super) record: Event,
}

/// Something that all hear when it happens. It may happen before its document is here.
#[derive(Default)]
struct Announcement {
    target: Option<Target>,
    items: Option<Vec<SoundItem>>,
    due: bool,
}

impl Announcement {
    fn of(target: Option<Target>) -> Self {
        Self { target, ..Self::default() }
    }

    /// Its document is here, or never will be.
    fn have(&mut self, ctx: &mut CallContext, items: Vec<SoundItem>) {
        match std::mem::take(&mut self.due) {
            true => into_the_room(ctx, items.clone()),
            false => prepare(ctx, &items),
        }
        self.items = Some(items);
    }

    /// It has happened.
    fn play(&mut self, ctx: &mut CallContext) {
        match &self.items {
            Some(items) => into_the_room(ctx, items.clone()),
            None => self.due = self.target.is_some(),
        }
    }
}

/// Music that is there, or can be asked for.
#[derive(Default)]
struct Music {
    target: Option<Target>,
    asked: bool,
    round: Option<LoopedPlaylist>,
}

impl Music {
    fn of(target: Option<Target>) -> Self {
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
            wait: Music::of(wait),
            hold: Music::of(hold),
            enter,
            exit,
            exit_items,
            record_begun: Announcement::default(),
            record_ended: Announcement::default(),
            events,
            asked: VecDeque::new(),
            open: None,
        }
    }

    /// With these documents for all when a recording begins and when it ends.
    pub(super) fn of_recording(self, begun: Option<Target>, ended: Option<Target>) -> Self {
        Self {
            record_begun: Announcement::of(begun),
            record_ended: Announcement::of(ended),
            ..self
        }
    }

    /// The recording that this one has asked for begins.
    pub(super) fn record_begun(&mut self, ctx: &mut CallContext) {
        self.record_begun.play(ctx);
    }

    /// It has ended, and the room goes on.
    pub(super) fn record_ended(&mut self, ctx: &mut CallContext) {
        self.record_ended.play(ctx);
    }

    /// The call is in the room.
    pub(super) fn entered(&mut self, ctx: &mut CallContext, waits: bool, held: bool) {
        self.want(waits, held);
        match &self.enter {
            MemberSound::None => {}
            MemberSound::Beep(_) => into_the_room(ctx, beeps(&self.enter)),
            MemberSound::Document(_) => self.asked.push_back(SoundDocument::Enter),
        }
        if matches!(self.exit, MemberSound::Document(_)) {
            self.asked.push_back(SoundDocument::Exit);
        }
        for (cue, which) in [
            (&self.record_begun, SoundDocument::RecordBegun),
            (&self.record_ended, SoundDocument::RecordEnded),
        ] {
            if cue.target.is_some() {
                self.asked.push_back(which);
            }
        }
        self.ask(ctx);
    }

    /// Asks for the music that will be needed.
    fn want(&mut self, waits: bool, held: bool) {
        for (wanted, tune, which) in [
            (waits, &mut self.wait, SoundDocument::Wait),
            (held, &mut self.hold, SoundDocument::Hold),
        ] {
            if wanted && tune.target.is_some() && !std::mem::replace(&mut tune.asked, true) {
                self.asked.push_back(which);
            }
        }
    }

    /// The next document, if none is under way.
    fn ask(&mut self, ctx: &mut CallContext) {
        while self.open.is_none() {
            let Some(which) = self.asked.pop_front() else { return };
            let (target, event) = match which {
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
                self.open = Some((fetch_sounds_at(ctx, target, event), which));
            }
        }
    }

    /// A document came, or not: then it is as if there was none (`plivo-callbacks.md` §4.3).
    pub(super) fn fetched(
        &mut self,
        ctx: &mut CallContext,
        fetch: FetchId,
        result: Result<FetchResponse, FetchFailure>,
    ) {
        let Some((_, which)) = self.open.take_if(|(open, _)| *open == fetch) else { return };
        ctx.timers.clear(Timer::Fetch);
        let what = match which {
            SoundDocument::Wait => "the wait sound",
            SoundDocument::Hold => "the hold music",
            SoundDocument::Enter => "the enter sound",
            SoundDocument::Exit => "the exit sound",
            SoundDocument::RecordBegun => "startRecordingAudio",
            SoundDocument::RecordEnded => "stopRecordingAudio",
        };
        let items = sounds_fetched(ctx, what, result);
        match which {
            SoundDocument::Wait => {
                self.wait.round = Some(LoopedPlaylist::of(ctx, items, Vec::new()))
            }
            SoundDocument::Hold => {
                self.hold.round = Some(LoopedPlaylist::of(ctx, items, Vec::new()))
            }
            SoundDocument::Enter => into_the_room(ctx, items),
            SoundDocument::RecordBegun => self.record_begun.have(ctx, items),
            SoundDocument::RecordEnded => self.record_ended.have(ctx, items),
            SoundDocument::Exit => {
                prepare(ctx, &items);
                self.exit_items = items;
            }
        }
        self.ask(ctx);
    }

    /// Whoever fetches has forgotten us.
    pub(super) fn timed_out(&mut self, ctx: &mut CallContext) {
        if let Some((fetch, _)) = self.open {
            ctx.wish(Output::CancelFetch { fetch });
            self.fetched(ctx, fetch, Err(FetchFailure::Timeout));
        }
    }

    /// Plays what is to be heard now, and nothing else.
    pub(super) fn tune(
        &mut self,
        ctx: &mut CallContext,
        readiness: Readiness,
        waits: bool,
        held: bool,
    ) {
        self.want(waits, held);
        self.ask(ctx);
        let (on, off) = match (held, waits) {
            (true, _) => (Some(&mut self.hold), [Some(&mut self.wait), None]),
            (false, true) => (Some(&mut self.wait), [Some(&mut self.hold), None]),
            (false, false) => (None, [Some(&mut self.wait), Some(&mut self.hold)]),
        };
        for tune in off.into_iter().flatten() {
            if let Some(round) = &mut tune.round {
                round.stop(ctx);
            }
        }
        if let Some(round) = on.and_then(|tune| tune.round.as_mut()) {
            round.play(ctx, readiness);
        }
    }

    pub(super) fn played(&mut self, ctx: &mut CallContext, readiness: Readiness, ended: PlayId) {
        for tune in [&mut self.wait, &mut self.hold] {
            if let Some(round) = tune.round.as_mut().filter(|round| round.is_playing(ended)) {
                round.played(ctx, readiness, ended);
            }
        }
    }

    pub(super) fn is_playing(&self, which: PlayId) -> bool {
        [&self.wait, &self.hold]
            .iter()
            .any(|tune| tune.round.as_ref().is_some_and(|round| round.is_playing(which)))
    }

    /// Silence, and nothing more is fetched.
    pub(super) fn stop(&mut self, ctx: &mut CallContext) {
        for tune in [&mut self.wait, &mut self.hold] {
            if let Some(round) = &mut tune.round {
                round.stop(ctx);
            }
        }
        self.asked.clear();
        if let Some((fetch, _)) = self.open.take() {
            ctx.cancel_fetch(fetch);
        }
    }

    /// What those who stay hear.
    pub(super) fn of_leaving(&mut self) -> Vec<SoundItem> {
        std::mem::take(&mut self.exit_items)
    }
}

fn into_the_room(ctx: &mut CallContext, items: Vec<SoundItem>) {
    if !items.is_empty() {
        prepare(ctx, &items);
        ctx.wish(Output::Room { command: RoomCommand::Sound { items } });
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
