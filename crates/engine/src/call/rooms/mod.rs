//! Rooms: the conferences and multi-party calls of a node. Each belongs to one account
//! (`docs/reference/xml.md#conference`).
//!
//! Calls join and leave through their shells. The decisions of a room (`state`) become inputs of
//! its members' machines and commands to its mixer. The REST API queries and commands rooms in
//! `ask`. A room exists while it has members. Its name is free again as soon as all members have
//! been asked to leave.

mod ask;
mod expected;
mod kept;
mod moved;
mod state;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

pub use ask::{
    CommandResult, Left, MemberCommand, MemberView, Members, OtherRooms, RoomList, RoomView,
    TrackResult,
};

use super::mailbox::Mailbox;
use super::recordings::{RecordedRoom, RecordingRequest, Recordings};
use expected::ExpectedCall;
use kept::LeftRow;
pub(super) use kept::{exit_id, report_exits};
use machine::{
    CallSetup, Command, Input, Legs, MemberId, RecordingEvent, RecordingOrder, RoomEntry,
    RoomEvent, RoomKind, Sound, SoundItem,
};
use media::prompt::Prompt;
use media::record::{PausableSource, Pause, RecordingHandle};
use media::workers::Workers;
use media::{Audience, CableEnd, MixEvent, MixSink, Mixer, PlayItem, SoundKind, cable};
use model::Clock;
use model::{AuthId, CallUuid, Digit, HangupCause, Timestamp};
pub use moved::RoomSnapshot;
use serde::{Deserialize, Serialize};
use state::{Effect, Room};
use store::{EndedRoom, LEFT_MAX, Store};
use xml::ast::{Repeat, Target};

/// Maximum number of ended multi-party calls that are listed.
const ENDED_MAX: usize = 1_000;
/// Distinguishes the mixer id of an agent from that of its member. Member ids count from 1 and
/// never reach this bit.
const AGENT: u64 = 1 << 63;
/// Maximum number of ringback sounds in a row: more than fit into the longest ring timeout, and a
/// bound if all of them are empty.
const RING_ITEMS: usize = 240;

/// Identifies a room.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    account: AuthId,
    kind: RoomKind,
    name: String,
}

/// Prepares a sound for playback, for a main account.
type Prompts = Box<dyn Fn(&AuthId, &Sound) -> Arc<Prompt> + Send + Sync>;

/// The rooms of a node. Cheap to clone.
#[derive(Clone)]
pub struct Rooms(Arc<Inner>);

struct Inner {
    clock: Clock,
    /// Creates the mixer of a room.
    mixers: Box<dyn Fn(MixSink) -> Mixer + Send + Sync>,
    prompts: Prompts,
    next_member: AtomicU64,
    tables: Mutex<Tables>,
    /// The store for multi-party calls, and this node's id.
    store: OnceLock<(Store, String)>,
    /// Called when the name of a room is free again.
    on_free: OnceLock<Box<dyn Fn(uuid::Uuid) + Send + Sync>>,
    /// The rooms of the other nodes of a fleet.
    others: OnceLock<Arc<dyn OtherRooms>>,
}

#[derive(Default)]
struct Tables {
    rooms: BTreeMap<Key, Arc<Cell>>,
    /// The room and member id of each call.
    calls: BTreeMap<CallUuid, (Arc<Cell>, MemberId)>,
    /// Outbound calls whose ringback is played in a room.
    ringing: BTreeMap<CallUuid, Weak<Cell>>,
    /// Outbound calls for a multi-party call that have not joined yet.
    expected: BTreeMap<CallUuid, ExpectedCall>,
    /// Ended multi-party calls, latest first.
    ended: VecDeque<EndedRoom>,
}

/// Which room a call enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoomChoice {
    /// The room with the name, or a new one with this id.
    OpenOr(uuid::Uuid),
    /// The room with the name, if this node hosts it.
    Open,
    /// The room with this id.
    Only(uuid::Uuid),
}

/// The result of a call leaving its room.
#[derive(Debug)]
pub(super) struct LeaveResult {
    /// Whether it was the last member.
    pub(super) last: bool,
    /// URLs that are notified of the room's end, and the duration of the room.
    pub(super) end_callbacks: Vec<Target>,
    pub(super) lasted: Duration,
}

impl LeaveResult {
    /// The result for a call that was in no room.
    pub(super) fn nothing() -> Self {
        Self { last: true, end_callbacks: Vec::new(), lasted: Duration::ZERO }
    }

    /// The result for a call whose room is hosted by another node that does not answer.
    pub(super) fn unknown() -> Self {
        Self { last: false, ..Self::nothing() }
    }
}

/// One room. Its lock may be taken while the lock of the tables is held, but not the other way
/// round.
struct Cell {
    key: Key,
    main_account: AuthId,
    born: Instant,
    state: Mutex<CellState>,
}

struct CellState {
    room: Room,
    mixer: Mixer,
    calls: BTreeMap<MemberId, MemberCall>,
    /// Members with an agent beside them.
    agents: BTreeSet<MemberId>,
    /// Ringback of outbound calls to this room. Only the first is audible.
    ringing: Vec<(CallUuid, Vec<PlayItem>)>,
    /// When the room started.
    started: Option<Instant>,
    recording: Option<Recording>,
    /// A recording that was requested over an API and has not begun.
    record_asked: Option<AskedRecording>,
    /// URL of the latest recording, after its end.
    recorded: Option<String>,
    /// Former participants of a multi-party call, in the order in which they left. The oldest are
    /// dropped at `LEFT_MAX`.
    left: VecDeque<MemberView>,
}

/// A recording that the call of a member was asked to begin. If the member leaves before, another one
/// is asked.
struct AskedRecording {
    member: MemberId,
    order: RecordingOrder,
    callback: Option<Target>,
    /// Whether the recording was stopped before it began.
    is_stopped: bool,
}

/// A room's recording. It runs until the room ends.
struct Recording {
    about: RecordingInfo,
    pause: Pause,
    tape: RecordingHandle,
}

/// What is known of a room's recording in whichever process it runs.
#[derive(Debug, Serialize, Deserialize)]
struct RecordingInfo {
    id: uuid::Uuid,
    url: String,
    when_alone: bool,
    /// The call that requested it.
    by: CallUuid,
    order: RecordingOrder,
    /// When the recording began.
    began: Timestamp,
    /// Whether the recording is paused by request.
    held: bool,
}

/// The call of a member.
struct MemberCall {
    setup: Box<CallSetup>,
    mailbox: Mailbox,
    since: Instant,
    /// Whether this member is recorded individually.
    tracked: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Rooms {
    /// Creates an empty set of rooms.
    pub fn new(
        clock: Clock,
        mixers: impl Fn(MixSink) -> Mixer + Send + Sync + 'static,
        prompts: impl Fn(&AuthId, &Sound) -> Arc<Prompt> + Send + Sync + 'static,
    ) -> Self {
        let (mixers, prompts) = (Box::new(mixers), Box::new(prompts));
        Self(Arc::new(Inner {
            clock,
            mixers,
            prompts,
            next_member: AtomicU64::new(1),
            tables: Mutex::default(),
            store: OnceLock::new(),
            on_free: OnceLock::new(),
            others: OnceLock::new(),
        }))
    }

    /// Creates rooms without audio, for tests and simulations.
    pub fn silent(clock: Clock) -> Self {
        Self::new(clock, |_| Mixer::silent(), |_, _| Prompt::from_frames([]))
    }

    /// Prepares sounds for playback.
    fn items(&self, main_account: &AuthId, items: &[SoundItem]) -> Vec<PlayItem> {
        items
            .iter()
            .map(|item| PlayItem {
                prompt: (self.0.prompts)(main_account, &item.sound),
                repeat: item.repeat,
            })
            .collect()
    }

    /// Calls `on_free` with the id of a room when its name is free again. Only the first call has
    /// an effect.
    pub(super) fn when_free(&self, on_free: impl Fn(uuid::Uuid) + Send + Sync + 'static) {
        let _ = self.0.on_free.set(Box::new(on_free));
    }

    /// Adds a call to a room. The result is sent to the call's machine. `connect` returns the
    /// call's audio. Returns `false` if there is no such room.
    pub(super) fn enter(
        &self,
        setup: &CallSetup,
        entry: RoomEntry,
        mailbox: &Mailbox,
        connect: impl FnOnce() -> CableEnd,
        choice: RoomChoice,
    ) -> bool {
        let key =
            Key { account: setup.account.clone(), kind: entry.kind, name: entry.name.clone() };
        let now = self.0.clock.now();
        let member = self.0.next_member.fetch_add(1, Ordering::Relaxed);
        let mut tables = locked(&self.0.tables);
        tables.expected.remove(&setup.call);
        let there = tables.rooms.get(&key).filter(|cell| {
            let room = &locked(&cell.state).room;
            !room.ending && !matches!(choice, RoomChoice::Only(id) if id != room.id)
        });
        let is_new = there.is_none();
        let cell = match (there, choice) {
            (Some(cell), _) => cell.clone(),
            (None, RoomChoice::OpenOr(id)) => {
                self.new_cell(&key, setup.parent_account.clone(), Room::new(id), now)
            }
            (None, RoomChoice::Open | RoomChoice::Only(_)) => return false,
        };
        let mut inside = locked(&cell.state);
        let before = (inside.started.is_some(), inside.room.end_callbacks().len());
        let tracked = entry.track;
        let entered = inside.room.enter(member, entry, now.saturating_duration_since(cell.born));
        if entered.is_in {
            inside.mixer.add(member, connect());
            let caller = MemberCall {
                setup: Box::new(setup.clone()),
                mailbox: mailbox.clone(),
                since: now,
                tracked,
            };
            inside.calls.insert(member, caller);
            inside.carry_out(entered.effects);
            inside.note_start(now);
            inside.note_recording(Some(member));
            if is_new || (inside.started.is_some(), inside.room.end_callbacks().len()) != before {
                self.keep_room(&cell, &inside);
            }
            self.keep_member(&cell, &inside, member);
            drop(inside);
            tables.rooms.insert(key, cell.clone());
            tables.calls.insert(setup.call, (cell, member));
            return true;
        }
        for effect in entered.effects {
            if let Effect::Tell(_, news) = effect {
                mailbox.tell(Input::Room { event: news });
            }
        }
        true
    }

    /// Releases the name of a room that has ended.
    fn free(&self, room: uuid::Uuid) {
        if let Some(on_free) = self.0.on_free.get() {
            on_free(room);
        }
    }

    /// Creates a room without calls.
    fn new_cell(&self, key: &Key, main_account: AuthId, room: Room, born: Instant) -> Arc<Cell> {
        Arc::new_cyclic(|cell: &Weak<Cell>| {
            let cell = cell.clone();
            let sink = move |event| {
                if let Some(cell) = cell.upgrade() {
                    locked(&cell.state).report_audio(event);
                }
            };
            let mixer = (self.0.mixers)(Arc::new(sink));
            Cell {
                key: key.clone(),
                main_account,
                born,
                state: Mutex::new(CellState {
                    room,
                    mixer,
                    calls: BTreeMap::new(),
                    agents: BTreeSet::new(),
                    ringing: Vec::new(),
                    started: None,
                    recording: None,
                    record_asked: None,
                    recorded: None,
                    left: VecDeque::new(),
                }),
            }
        })
    }

    /// Removes a call from its room, if it is in one. `sounds` are played to the remaining members.
    ///
    /// `tell` writes the callbacks. It runs under the lock, so the callbacks of members that leave
    /// later come after these; the last member announces the end of the room. The callbacks are
    /// also written before the rows. If the process dies in between, the next one finds the member
    /// still in the room and repeats the callbacks with the same ids (`exit_id`).
    pub(super) fn leave(
        &self,
        call: CallUuid,
        sounds: &[SoundItem],
        tell: impl FnOnce(LeaveResult),
    ) {
        let mut tables = locked(&self.0.tables);
        let sounds = tables
            .calls
            .get(&call)
            .map(|(cell, _)| self.items(&cell.main_account, sounds))
            .unwrap_or_default();
        let (gone, row) = self.taken_out(&mut tables, call, sounds);
        tell(gone);
        self.keep_left(row);
    }

    fn taken_out(
        &self,
        tables: &mut Tables,
        call: CallUuid,
        sounds: Vec<PlayItem>,
    ) -> (LeaveResult, Option<LeftRow>) {
        let unknown = || (LeaveResult::nothing(), None);
        tables.expected.remove(&call);
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
            inside.mixer.remove(agent_mixer_id(member));
        }
        let Some((effects, last)) = inside.room.leave(member) else { return unknown() };
        if let Some(asked) = inside.record_asked.take_if(|asked| asked.member == member)
            && !asked.is_stopped
        {
            inside.ask_to_record(asked.order, asked.callback);
        }
        let end_callbacks = if last { inside.room.take_end_callbacks() } else { Vec::new() };
        if !sounds.is_empty() {
            inside.mixer.play(Audience::All, SoundKind::Cue, sounds);
        }
        inside.carry_out(effects);
        inside.note_recording(None);
        let mut row = if last { None } else { self.latest_left(&cell, &inside) };
        let (id, ends) = (inside.room.id, last || inside.room.ending);
        drop(inside);
        if ends && !was_ending {
            self.free(id);
            tables.hang_up_expected(&cell.key, id, HangupCause::MpcEnded);
        }
        let view = self.view(&cell);
        let lasted = view.age;
        if last && cell.key.kind == RoomKind::MultiParty {
            let ended =
                RoomView { ended: Some(view.made.plus(lasted)), ..view }.ended(&cell.main_account);
            tables.note_ended(ended.clone());
            row = Some(LeftRow::Room(ended));
        }
        if last && tables.rooms.get(&cell.key).is_some_and(|named| Arc::ptr_eq(named, &cell)) {
            tables.rooms.remove(&cell.key);
        }
        (LeaveResult { last, end_callbacks, lasted }, row)
    }

    /// Connects an agent to the room as part of the call's participant. Returns the other end of
    /// the connection, or `None` if the call is in no room or no worker has capacity.
    pub(super) fn seat_agent(&self, call: CallUuid, workers: &Workers) -> Option<CableEnd> {
        // The prebuffer of the stream side equals the lead of a stream at a leg.
        let [ours, theirs] = cable(workers, [Mixer::PREBUFFER_FRAMES, crate::stream::LEAD])?;
        self.add_agent(call, ours).then_some(theirs)
    }

    /// Adds an agent as part of the call's participant. Returns `false` if the call is in no room.
    pub(super) fn add_agent(&self, call: CallUuid, end: CableEnd) -> bool {
        let found = locked(&self.0.tables).calls.get(&call).cloned();
        let Some((cell, member)) = found else { return false };
        let mut inside = locked(&cell.state);
        let Some(part) = inside.room.part_of(member) else { return false };
        inside.agents.insert(member);
        inside.mixer.add(agent_mixer_id(member), end);
        inside.mixer.set_member(agent_mixer_id(member), part);
        true
    }

    /// Plays sounds to all members of the call's room.
    pub(super) fn sound(&self, call: CallUuid, items: &[SoundItem]) {
        let cell = locked(&self.0.tables).calls.get(&call).map(|(cell, _)| cell.clone());
        if let Some(cell) = cell {
            let items = self.items(&cell.main_account, items);
            locked(&cell.state).mixer.play(Audience::All, SoundKind::Cue, items);
        }
    }

    /// Plays the ringback of an outbound call in the multi-party call of this name.
    pub(super) fn ring(&self, setup: &CallSetup, name: String, items: &[SoundItem]) {
        let items = self.items(&setup.parent_account, items);
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
            // A single sound loops without a gap.
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

    /// Ends the ringback of a call that was answered or has ended.
    pub(super) fn ring_over(&self, call: CallUuid) {
        let cell = locked(&self.0.tables).ringing.remove(&call).and_then(|cell| cell.upgrade());
        let Some(cell) = cell else { return };
        let mut inside = locked(&cell.state);
        let was_first = inside.ringing.first().is_some_and(|(first, _)| *first == call);
        inside.ringing.retain(|(other, _)| *other != call);
        if was_first {
            inside.mixer.stop(Audience::All, SoundKind::Ring);
            inside.play_ring();
        }
    }

    /// Records the room of the request's call until it ends, unless it is already recorded. `url` is
    /// that of the recording.
    pub(super) fn record(
        &self,
        recordings: &Recordings,
        request: RecordingRequest,
        url: String,
        when_alone: bool,
    ) -> Result<(), &'static str> {
        let call = request.call;
        let cell = locked(&self.0.tables).calls.get(&call).map(|(cell, _)| cell.clone());
        let Some(cell) = cell else { return Ok(()) };
        let mut inside = locked(&cell.state);
        let asked = inside.record_asked.take();
        let is_stopped =
            asked.is_some_and(|asked| asked.is_stopped && asked.order.id == Some(request.id));
        if is_stopped || inside.recording.is_some() {
            return Ok(());
        }
        inside.record(&cell, recordings, request, url, when_alone)?;
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

    /// Notes that the separate recording of a member has ended by itself.
    pub(super) fn track_ended(&self, call: CallUuid) {
        let found = locked(&self.0.tables).calls.get(&call).cloned();
        let Some((cell, member)) = found else { return };
        if let Some(caller) = locked(&cell.state).calls.get_mut(&member) {
            caller.tracked = false;
        }
    }

    /// Sends a member's key to all other members, each of which receives it as a key
    /// (`media::leg`).
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

impl Tables {
    /// Adds a multi-party call that has just ended. Beyond the limit, the oldest one of the main account
    /// with the most is forgotten.
    fn note_ended(&mut self, room: EndedRoom) {
        self.ended.push_front(room);
        if self.ended.len() <= ENDED_MAX {
            return;
        }
        let mut counts: BTreeMap<&AuthId, usize> = BTreeMap::new();
        for room in &self.ended {
            *counts.entry(&room.was.main_account).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        let oldest = most.and_then(|(account, _)| {
            self.ended.iter().rposition(|room| room.was.main_account == *account)
        });
        oldest.and_then(|oldest| self.ended.remove(oldest));
    }
}

impl CellState {
    /// Asks the call of a member to record the room. Returns `false` if there is none that can.
    fn ask_to_record(&mut self, order: RecordingOrder, callback: Option<Target>) -> bool {
        let members = self.calls.iter().filter(|(member, _)| self.room.member(**member).is_some());
        let asked = members.map(|(member, caller)| {
            let (order, callback) = (Box::new(order.clone()), callback.clone());
            let event = RoomEvent::Record { order, callback };
            caller.mailbox.tell(Input::Room { event }).then_some(*member)
        });
        let member = asked.flatten().next();
        self.record_asked =
            member.map(|member| AskedRecording { member, order, callback, is_stopped: false });
        self.record_asked.is_some()
    }

    /// Plays the ringback of the first ringing call.
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
                        self.mixer.set_member(agent_mixer_id(member), part);
                    }
                }
            }
        }
    }

    /// Starts or continues a recording of this room, which is that of `cell`.
    fn record(
        &mut self,
        cell: &Arc<Cell>,
        recordings: &Recordings,
        request: RecordingRequest,
        url: String,
        when_alone: bool,
    ) -> Result<(), &'static str> {
        let (id, by, began) = (request.id, request.call, request.started);
        let (pause, order) = (Pause::default(), request.order.clone());
        pause.set(!when_alone && self.calls.len() < 2);
        let source = PausableSource::new(self.mixer.listen(), pause.clone(), false);
        let multi_party = cell.key.kind == RoomKind::MultiParty;
        let room = RecordedRoom { id: self.room.id, name: cell.key.name.clone(), multi_party };
        let weak = Arc::downgrade(cell);
        let report = move |what| {
            if let (Some(cell), RecordingEvent::Ended { error, duration_ms, .. }) =
                (weak.upgrade(), what)
            {
                locked(&cell.state).recording_ended(id, error, duration_ms > 0);
            }
        };
        let request = RecordingRequest { room: Some(room), ..request };
        let tape = recordings.begin(request, Box::new(source), report)?;
        let about = RecordingInfo { id, url, when_alone, by, order, began, held: false };
        self.recording = Some(Recording { about, pause, tape });
        Ok(())
    }

    /// Pauses or resumes the recording by request. Returns `false` if there is none.
    fn hold_recording(&mut self, on: bool) -> bool {
        let Some(recording) = &mut self.recording else { return false };
        recording.about.held = on;
        self.note_recording(None);
        true
    }

    /// Updates the recording after a member joined or left. `new` is a member that must be notified
    /// of the recording.
    fn note_recording(&self, new: Option<MemberId>) {
        let Some(Recording { about, pause, .. }) = &self.recording else { return };
        pause.set(about.held || (!about.when_alone && self.calls.len() < 2));
        if let Some(member) = new {
            self.tell_recording(member, false);
        }
    }

    /// Handles the end of a recording that was not stopped: it has reached its maximum or failed.
    /// `kept` is whether a file exists. An error is reported to the call that requested the
    /// recording, or to all members if that call has left. A new recording may begin.
    fn recording_ended(&mut self, id: uuid::Uuid, error: Option<String>, kept: bool) {
        let Some(recording) = self.recording.take_if(|recording| recording.about.id == id) else {
            return;
        };
        if kept {
            self.recorded = Some(recording.about.url.clone());
        }
        let Some(why) = error else { return };
        let by = self
            .calls
            .iter()
            .find(|(_, caller)| caller.setup.call == recording.about.by)
            .map(|(member, _)| *member);
        let recipients: Vec<MemberId> = match by {
            Some(by) => vec![by],
            None => self.calls.keys().copied().collect(),
        };
        for member in recipients {
            self.tell(member, RoomEvent::RecordingFailed { reason: why.clone() });
        }
    }

    /// Notifies a member of the recording's URL. `begun` is set for the member that requested it,
    /// when it begins.
    fn tell_recording(&self, member: MemberId, begun: bool) {
        if let Some(Recording { about, .. }) = &self.recording {
            let (id, url) = (about.id, about.url.clone());
            self.tell(member, RoomEvent::Recording { id, url, begun });
        }
    }

    /// Keeps a snapshot of a member that is about to be removed. `age` is that of the room.
    fn note_leaving(&mut self, member: MemberId, now: Instant, wall: Timestamp, age: Duration) {
        let Some(was) = self.room.any_member(member).zip(self.calls.get(&member)) else { return };
        let view = ask::member_view(member, was, now, wall);
        // A member cannot have stayed longer than the room existed.
        let late = age.saturating_sub(self.room.lasted(age)).min(view.since);
        let left = Left { at: wall.minus(late), cause: ask::cause_of(was.0.out) };
        let view = MemberView { left: Some(left), since: view.since.saturating_sub(late), ..view };
        // Phone numbers are not kept after a member has left.
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

    /// Reports audio events to the members that subscribed to them.
    fn report_audio(&self, event: MixEvent) {
        let wants = |member: MemberId, what: fn(&RoomEntry) -> bool| {
            self.room.member(member).is_some_and(|member| what(&member.entry))
        };
        match event {
            MixEvent::Floor { from, to } => {
                let (from, to) = (from.map(member_of), to.map(member_of));
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
                let member = member_of(member);
                if wants(member, |entry| entry.report_speech) {
                    self.tell(member, RoomEvent::Speech { on });
                }
            }
        }
    }
}

/// Returns the mixer id of the agent beside a member.
fn agent_mixer_id(member: MemberId) -> u64 {
    member | AGENT
}

/// Returns the member of a mixer id.
fn member_of(seat: u64) -> MemberId {
    seat & !AGENT
}

impl Cell {
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.born)
    }
}
