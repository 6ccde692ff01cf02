//! The rooms of this node: conferences and multi-party calls, each of one account (`plivo-xml.md` §5.9, §5.10).
//!
//! Calls enter and leave by their shells; what a room decides (`state`) goes to its members' machines as facts and to its
//! mixer as orders. REST asks here too. A room is there as long as somebody is in; its name is free again as soon as all were
//! told to leave.

mod ask;
mod awaited;
mod kept;
mod state;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

pub use ask::{Asked, Left, MemberAsk, MemberView, Members, RoomView, Tracked};

use super::recordings::OfRoom;
use super::shell::Mailbox;
use awaited::Awaited;
use kept::LeftRow;
pub(super) use kept::exit_id;
use machine::{
    CallSetup, Command, Input, Legs, MemberId, RecordingEvent, RoomEntry, RoomEvent, RoomKind,
    Sound, SoundItem,
};
use media::prompt::Prompt;
use media::record::{PausableSource, Pause, RecordingHandle, Source};
use media::workers::Workers;
use media::{Audience, CableEnd, LegHandle, MixEvent, MixSink, Mixer, PlayItem, SoundKind, cable};
use model::Clock;
use model::{AuthId, CallUuid, Digit, HangupCause, Timestamp};
use state::{Effect, Room};
use store::{EndedRoom, LEFT_MAX, Store};
use xml::ast::{Repeat, Target};

/// Multi-party calls that are over and still shown.
const ENDED_MAX: usize = 1_000;
/// What tells an agent's seat from its member's: members are counted from 1, and never so far.
const AGENT: u64 = 1 << 63;
/// Sounds in a row that are heard while somebody is called: more than fit into the longest ringing, and no loop without
/// an end where none of them makes a sound.
const RING_ITEMS: usize = 240;

/// A room's name: unlike ones never meet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    account: AuthId,
    kind: RoomKind,
    name: String,
}

/// Who is told how a room's recording ended, from a thread of the recorder's.
pub(super) type RecordTold = Box<dyn FnOnce(RecordingEvent) + Send>;

/// Makes sounds ready.
type Prompts = Box<dyn Fn(&Sound) -> Arc<Prompt> + Send + Sync>;

/// The rooms of a node; cheap to clone.
#[derive(Clone)]
pub struct Rooms(Arc<Inner>);

struct Inner {
    clock: Clock,
    /// Begins a room's sound.
    mixers: Box<dyn Fn(MixSink) -> Mixer + Send + Sync>,
    prompts: Prompts,
    next_member: AtomicU64,
    tables: Mutex<Tables>,
    /// Where multi-party calls are kept, and this node's name there.
    store: OnceLock<(Store, String)>,
}

#[derive(Default)]
struct Tables {
    rooms: BTreeMap<Key, Arc<Cell>>,
    /// Where each call is.
    calls: BTreeMap<CallUuid, (Arc<Cell>, MemberId)>,
    /// Calls that are being placed, and heard to ring in a room.
    ringing: BTreeMap<CallUuid, Weak<Cell>>,
    /// Calls that are placed for a multi-party call, until they are in.
    awaited: BTreeMap<CallUuid, Awaited>,
    /// Multi-party calls that are over, the latest first.
    ended: VecDeque<EndedRoom>,
}

/// How a call has left its room.
pub(super) struct Gone {
    /// Nobody else was in.
    pub(super) last: bool,
    /// Where it is to be said that the room is over, and how long it was there.
    pub(super) told: Vec<Target>,
    pub(super) lasted: Duration,
}

/// One room. Its lock may be taken while the tables' is held, never the other way round.
struct Cell {
    key: Key,
    main_account: AuthId,
    born: Instant,
    state: Mutex<Inside>,
}

struct Inside {
    room: Room,
    mixer: Mixer,
    calls: BTreeMap<MemberId, Caller>,
    /// Members that have an agent beside them.
    agents: BTreeSet<MemberId>,
    /// What is heard while somebody is called into it: of those who are at the same time, the first.
    ringing: Vec<(CallUuid, Vec<PlayItem>)>,
    /// When it started.
    started: Option<Instant>,
    recording: Option<Recording>,
    /// A recording was asked for over an API, and has not begun yet.
    record_asked: bool,
    /// Where it was recorded, once it is no longer.
    recorded: Option<String>,
    /// Who was in a multi-party call, in the order in which they left; the first ones are forgotten where they are many.
    left: VecDeque<MemberView>,
}

/// A room's recording: what it is called, whether it pauses, and the tape, which runs as long as the room is there.
struct Recording {
    id: uuid::Uuid,
    url: String,
    when_alone: bool,
    /// Who had wanted it.
    by: CallUuid,
    /// Somebody wants it to leave out what is said.
    held: bool,
    pause: Pause,
    tape: RecordingHandle,
}

/// A member's call.
struct Caller {
    setup: Box<CallSetup>,
    mailbox: Mailbox,
    since: Instant,
    /// What it says is recorded by itself.
    tracked: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Rooms {
    /// No rooms as yet.
    pub fn new(
        clock: Clock,
        mixers: impl Fn(MixSink) -> Mixer + Send + Sync + 'static,
        prompts: impl Fn(&Sound) -> Arc<Prompt> + Send + Sync + 'static,
    ) -> Self {
        let (mixers, prompts) = (Box::new(mixers), Box::new(prompts));
        Self(Arc::new(Inner {
            clock,
            mixers,
            prompts,
            next_member: AtomicU64::new(1),
            tables: Mutex::default(),
            store: OnceLock::new(),
        }))
    }

    /// Rooms in which nothing is heard, for what only asks about them.
    pub fn silent(clock: Clock) -> Self {
        Self::new(clock, |_| Mixer::silent(), |_| Prompt::from_frames([]))
    }

    /// Sounds, as they are played.
    fn items(&self, items: &[SoundItem]) -> Vec<PlayItem> {
        items
            .iter()
            .map(|item| PlayItem { prompt: (self.0.prompts)(&item.sound), repeat: item.repeat })
            .collect()
    }

    /// A call enters; how that went, its machine is told. `id` is the room's, should there be none of that name.
    pub(super) fn enter(
        &self,
        setup: &CallSetup,
        entry: RoomEntry,
        mailbox: &Mailbox,
        leg: &LegHandle,
        id: uuid::Uuid,
    ) {
        let key =
            Key { account: setup.account.clone(), kind: entry.kind, name: entry.name.clone() };
        let now = self.0.clock.now();
        let member = self.0.next_member.fetch_add(1, Ordering::Relaxed);
        let mut tables = locked(&self.0.tables);
        tables.awaited.remove(&setup.call);
        let there = tables.rooms.get(&key).filter(|cell| !locked(&cell.state).room.ending).cloned();
        let is_new = there.is_none();
        let cell = there.unwrap_or_else(|| self.open(&key, setup, id, now));
        let mut inside = locked(&cell.state);
        let before = (inside.started.is_some(), inside.room.told().len());
        let tracked = entry.track;
        let entered = inside.room.enter(member, entry, now.saturating_duration_since(cell.born));
        if entered.is_in {
            inside.mixer.add(member, leg);
            let caller = Caller {
                setup: Box::new(setup.clone()),
                mailbox: mailbox.clone(),
                since: now,
                tracked,
            };
            inside.calls.insert(member, caller);
            inside.carry_out(entered.effects);
            inside.note_start(now);
            inside.note_recording(Some(member));
            if is_new || (inside.started.is_some(), inside.room.told().len()) != before {
                self.keep_room(&cell, &inside);
            }
            self.keep_member(&cell, &inside, member);
            drop(inside);
            tables.rooms.insert(key, cell.clone());
            tables.calls.insert(setup.call, (cell, member));
            return;
        }
        for effect in entered.effects {
            if let Effect::Tell(_, news) = effect {
                mailbox.tell(Input::Room { event: news });
            }
        }
    }

    fn open(&self, key: &Key, setup: &CallSetup, id: uuid::Uuid, now: Instant) -> Arc<Cell> {
        Arc::new_cyclic(|cell: &Weak<Cell>| {
            let cell = cell.clone();
            let sink = move |event| {
                if let Some(cell) = cell.upgrade() {
                    locked(&cell.state).heard(event);
                }
            };
            let mixer = (self.0.mixers)(Arc::new(sink));
            Cell {
                key: key.clone(),
                main_account: setup.parent_account.clone(),
                born: now,
                state: Mutex::new(Inside {
                    room: Room::new(id),
                    mixer,
                    calls: BTreeMap::new(),
                    agents: BTreeSet::new(),
                    ringing: Vec::new(),
                    started: None,
                    recording: None,
                    record_asked: false,
                    recorded: None,
                    left: VecDeque::new(),
                }),
            }
        })
    }

    /// A call is out of its room, if it was in one; `sounds` are for those who stay. What `tell` writes down is written before what
    /// anybody does who leaves later: the last one says that the room is over. It also comes before the rows that say so: should
    /// this process die in between, the next one finds it in, and what that one tells is known to be told (`exit_id`).
    pub(super) fn leave(&self, call: CallUuid, sounds: &[SoundItem], tell: impl FnOnce(Gone)) {
        let sounds = self.items(sounds);
        let mut tables = locked(&self.0.tables);
        let (gone, row) = self.taken_out(&mut tables, call, sounds);
        tell(gone);
        self.keep_left(row);
    }

    fn taken_out(
        &self,
        tables: &mut Tables,
        call: CallUuid,
        sounds: Vec<PlayItem>,
    ) -> (Gone, Option<LeftRow>) {
        let unknown = || (Gone { last: true, told: Vec::new(), lasted: Duration::ZERO }, None);
        tables.awaited.remove(&call);
        let Some((cell, member)) = tables.calls.remove(&call) else { return unknown() };
        let mut inside = locked(&cell.state);
        let was_ending = inside.room.ending;
        if cell.key.kind == RoomKind::MultiParty {
            let now = self.0.clock.now();
            inside.note_leaving(member, now, self.0.clock.wall(), cell.age(now));
        }
        inside.calls.remove(&member);
        inside.mixer.remove(member);
        if inside.agents.remove(&member) {
            inside.mixer.remove(agents_seat(member));
        }
        let Some((effects, last)) = inside.room.leave(member) else { return unknown() };
        let told = if last { inside.room.take_told() } else { Vec::new() };
        if !sounds.is_empty() {
            inside.mixer.play(Audience::All, SoundKind::Cue, sounds);
        }
        inside.carry_out(effects);
        inside.note_recording(None);
        let mut row = if last { None } else { self.latest_left(&cell, &inside) };
        let (id, ends) = (inside.room.id, last || inside.room.ending);
        drop(inside);
        if ends && !was_ending {
            tables.let_go(&cell.key, id, HangupCause::MpcEnded);
        }
        let view = self.view(&cell);
        let lasted = view.age;
        if last && cell.key.kind == RoomKind::MultiParty {
            let ended =
                RoomView { ended: Some(view.made.plus(lasted)), ..view }.ended(&cell.main_account);
            tables.ended.push_front(ended.clone());
            tables.ended.truncate(ENDED_MAX);
            row = Some(LeftRow::Room(ended));
        }
        if last && tables.rooms.get(&cell.key).is_some_and(|named| Arc::ptr_eq(named, &cell)) {
            tables.rooms.remove(&cell.key);
        }
        (Gone { last, told, lasted }, row)
    }

    /// Whoever is at the other end of what this gives speaks and hears in the room beside this call's peer, as the same
    /// participant. None: the call is in no room, or no thread has time for it.
    pub(super) fn seat_agent(&self, call: CallUuid, workers: &Workers) -> Option<CableEnd> {
        let (cell, member) = locked(&self.0.tables).calls.get(&call).cloned()?;
        let [ours, theirs] = cable(workers, [Mixer::PREBUFFER_FRAMES, crate::stream::LEAD])?;
        let mut inside = locked(&cell.state);
        // What the room's end pushes is for the other's ears, and waits there as long as a stream's sound does at a leg.
        let part = inside.room.part_of(member)?;
        inside.agents.insert(member);
        inside.mixer.add_cable(agents_seat(member), ours);
        inside.mixer.set_member(agents_seat(member), part);
        Some(theirs)
    }

    /// All in the call's room hear this.
    pub(super) fn sound(&self, call: CallUuid, items: &[SoundItem]) {
        let items = self.items(items);
        let cell = locked(&self.0.tables).calls.get(&call).map(|(cell, _)| cell.clone());
        if let Some(cell) = cell {
            locked(&cell.state).mixer.play(Audience::All, SoundKind::Cue, items);
        }
    }

    /// A call is being placed for the multi-party call of this name: who is in hears that.
    pub(super) fn ring(&self, setup: &CallSetup, name: String, items: &[SoundItem]) {
        let items = self.items(items);
        let key = Key { account: setup.account.clone(), kind: RoomKind::MultiParty, name };
        let mut tables = locked(&self.0.tables);
        let Some(cell) =
            tables.rooms.get(&key).filter(|cell| !locked(&cell.state).room.ending).cloned()
        else {
            return;
        };
        tables.ringing.insert(setup.call, Arc::downgrade(&cell));
        let mut inside = locked(&cell.state);
        let rounds = match items.as_slice() {
            // It goes over into itself.
            [one] if one.repeat != Repeat::Times(0) => {
                vec![PlayItem { repeat: Repeat::Endless, ..one.clone() }]
            }
            _ => items.iter().cloned().cycle().take(items.len().min(1) * RING_ITEMS).collect(),
        };
        inside.ringing.push((setup.call, rounds));
        if inside.ringing.len() == 1 {
            inside.play_ring();
        }
    }

    /// It has been answered, or is over.
    pub(super) fn ring_over(&self, call: CallUuid) {
        let cell = locked(&self.0.tables).ringing.remove(&call).and_then(|cell| cell.upgrade());
        let Some(cell) = cell else { return };
        let mut inside = locked(&cell.state);
        let was_heard = inside.ringing.first().is_some_and(|(first, _)| *first == call);
        inside.ringing.retain(|(other, _)| *other != call);
        if was_heard {
            inside.mixer.stop(Audience::All, SoundKind::Ring);
            inside.play_ring();
        }
    }

    /// The call's room is recorded until it is over, unless it is already: `begin` is given what is heard there, and whom to
    /// tell of the end.
    pub(super) fn record(
        &self,
        call: CallUuid,
        (id, url): (uuid::Uuid, String),
        when_alone: bool,
        begin: impl FnOnce(OfRoom, Box<dyn Source>, RecordTold) -> Result<RecordingHandle, &'static str>,
    ) -> Result<(), &'static str> {
        let cell = locked(&self.0.tables).calls.get(&call).map(|(cell, _)| cell.clone());
        let Some(cell) = cell else { return Ok(()) };
        let mut inside = locked(&cell.state);
        inside.record_asked = false;
        if inside.recording.is_some() {
            return Ok(());
        }
        let pause = Pause::default();
        pause.set(!when_alone && inside.calls.len() < 2);
        let source = PausableSource::new(inside.mixer.listen(), pause.clone(), false);
        let multi_party = cell.key.kind == RoomKind::MultiParty;
        let of = OfRoom { id: inside.room.id, name: cell.key.name.clone(), multi_party };
        let room = Arc::downgrade(&cell);
        let told = move |what| {
            if let (Some(cell), RecordingEvent::Ended { error: Some(why), duration_ms, .. }) =
                (room.upgrade(), what)
            {
                locked(&cell.state).record_failed(id, why, duration_ms > 0);
            }
        };
        let tape = begin(of, Box::new(source), Box::new(told))?;
        inside.recording =
            Some(Recording { id, url, when_alone, by: call, held: false, pause, tape });
        self.keep_room(&cell, &inside);
        let members: Vec<(MemberId, bool)> = inside
            .calls
            .iter()
            .map(|(member, caller)| (*member, caller.setup.call == call))
            .collect();
        for (member, begun) in members {
            inside.tell_recording(member, begun);
        }
        Ok(())
    }

    /// A member's key, for all others: they get it as a key, each in its own manner (`media::leg`).
    pub(super) fn key(&self, call: CallUuid, digit: Digit) {
        let found = locked(&self.0.tables).calls.get(&call).cloned();
        let Some((cell, member)) = found else { return };
        let inside = locked(&cell.state);
        for (_, caller) in inside.calls.iter().filter(|(other, _)| **other != member) {
            let digits = digit.as_char().to_string();
            let command = Command::SendDigits { legs: Legs::A, digits };
            caller.mailbox.tell(Input::Command { command });
        }
    }
}

impl Inside {
    /// What is heard of those who are being called.
    fn play_ring(&self) {
        if let Some((_, items)) = self.ringing.first() {
            self.mixer.play(Audience::All, SoundKind::Ring, items.clone());
        }
    }

    fn carry_out(&self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Tell(member, news) => self.tell(member, news),
                Effect::Part(member, part) => {
                    self.mixer.set_member(member, part);
                    if self.agents.contains(&member) {
                        self.mixer.set_member(agents_seat(member), part);
                    }
                }
            }
        }
    }

    /// Who is in has changed; `new` is to hear of the recording.
    fn note_recording(&self, new: Option<MemberId>) {
        let Some(recording) = &self.recording else { return };
        recording.pause.set(recording.held || (!recording.when_alone && self.calls.len() < 2));
        if let Some(member) = new {
            self.tell_recording(member, false);
        }
    }

    /// That recording has failed, unless it is another one by now; `kept`: what was written before is there. Who wanted it is
    /// told, or else all who are in. It may be recorded anew.
    fn record_failed(&mut self, id: uuid::Uuid, why: String, kept: bool) {
        let Some(recording) = self.recording.take_if(|recording| recording.id == id) else {
            return;
        };
        if kept {
            self.recorded = Some(recording.url.clone());
        }
        let by = self
            .calls
            .iter()
            .find(|(_, caller)| caller.setup.call == recording.by)
            .map(|(member, _)| *member);
        let told: Vec<MemberId> = match by {
            Some(by) => vec![by],
            None => self.calls.keys().copied().collect(),
        };
        for member in told {
            self.tell(member, RoomEvent::RecordingFailed { reason: why.clone() });
        }
    }

    /// Where the recording is. `begun`: it has begun, and this is who wanted it.
    fn tell_recording(&self, member: MemberId, begun: bool) {
        if let Some(Recording { id, url, .. }) = &self.recording {
            self.tell(member, RoomEvent::Recording { id: *id, url: url.clone(), begun });
        }
    }

    /// A member is about to be taken out: it stays in the room's list, as one who has left.
    /// `age`: of the room.
    fn note_leaving(&mut self, member: MemberId, now: Instant, wall: Timestamp, age: Duration) {
        let Some(was) = self.room.any_member(member).zip(self.calls.get(&member)) else { return };
        let view = ask::member_view(member, was, now, wall);
        // Nobody has been in for longer than the room was there.
        let late = age.saturating_sub(self.room.lasted(age)).min(view.since);
        let left = Left { at: wall.minus(late), cause: ask::cause_of(was.0.out) };
        let view = MemberView { left: Some(left), since: view.since.saturating_sub(late), ..view };
        // Nobody's number outlives its being there.
        self.left.push_back(MemberView {
            from: String::new(),
            to: String::new(),
            caller_name: String::new(),
            ..view
        });
        if self.left.len() > usize::from(LEFT_MAX) {
            self.left.pop_front();
        }
    }

    fn note_start(&mut self, now: Instant) {
        if self.room.started {
            self.started.get_or_insert(now);
        }
    }

    fn tell(&self, member: MemberId, news: RoomEvent) {
        if let Some(caller) = self.calls.get(&member) {
            caller.mailbox.tell(Input::Room { event: news });
        }
    }

    /// Something of the sound, for those whose applications want to know.
    fn heard(&self, event: MixEvent) {
        let wants = |member: MemberId, what: fn(&RoomEntry) -> bool| {
            self.room.member(member).is_some_and(|member| what(&member.entry))
        };
        match event {
            MixEvent::Floor { from, to } => {
                let (from, to) = (from.map(whose), to.map(whose));
                for (member, has) in
                    from.map(|from| (from, false)).into_iter().chain(to.map(|to| (to, true)))
                {
                    if wants(member, |entry| entry.report_floor) {
                        self.tell(member, RoomEvent::Floor { has });
                    }
                }
            }
            MixEvent::Playback { to, on } => {
                let whom: Vec<MemberId> = match to {
                    Audience::All => self.room.present().map(|(member, _)| member).collect(),
                    Audience::Member(member) => vec![member],
                };
                for member in
                    whom.into_iter().filter(|member| wants(*member, |entry| entry.report_audio))
                {
                    self.tell(member, RoomEvent::Audio { on });
                }
            }
            MixEvent::Speech { member, on } => {
                let member = whose(member);
                if wants(member, |entry| entry.report_speech) {
                    self.tell(member, RoomEvent::Speech { on });
                }
            }
        }
    }
}

/// The mixer's name for the agent beside a member.
fn agents_seat(member: MemberId) -> u64 {
    member | AGENT
}

/// Whose seat it is.
fn whose(seat: u64) -> MemberId {
    seat & !AGENT
}

impl Cell {
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.born)
    }
}
