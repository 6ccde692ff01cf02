//! Queries and commands of the REST API about rooms, restricted to the caller's scope
//! (`docs/reference/rest.md#conferences`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::state::Member;
use super::{Cell, CellState, MemberCall, Rooms, locked};
use machine::{
    Command, Input, LeaveReason, MemberId, RecordingEndReason, RecordingOrder, Role, RoomEvent,
    RoomKind, SoundItem, TrackCommand,
};
use media::{Audience, SoundKind};
use model::{AuthId, CallUuid, Direction, HangupCause, Timestamp};
use store::{EndedRoom, LeftMember, OpenRoom, RoomMember, Scope};
use xml::ast::Target;

/// Snapshot of a room.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RoomView {
    pub id: Uuid,
    pub name: String,
    pub age: Duration,
    pub made: Timestamp,
    pub started: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    /// Whether the room ended because the node died.
    pub failed: bool,
    pub account: AuthId,
    /// URL of its recording, existing or future.
    pub recording: Option<String>,
    /// The members, in the order in which they joined.
    pub members: Vec<MemberView>,
    /// Former participants of a multi-party call.
    pub left: Vec<MemberView>,
}

impl RoomView {
    /// Current and former members in the order in which they joined.
    pub fn everybody(&self) -> Vec<&MemberView> {
        let mut all: Vec<&MemberView> = self.members.iter().chain(&self.left).collect();
        all.sort_by_key(|member| member.member);
        all
    }

    /// Returns the stored form of a room that has ended.
    pub(super) fn ended(&self, main_account: &AuthId) -> EndedRoom {
        EndedRoom {
            was: self.open(main_account),
            ended: self.ended.unwrap_or(self.made),
            failed: self.failed,
            members: self.left.iter().filter_map(MemberView::gone).collect(),
        }
    }

    /// Returns the stored form of a live room.
    pub(super) fn open(&self, main_account: &AuthId) -> OpenRoom {
        OpenRoom {
            id: self.id,
            account: self.account.clone(),
            main_account: main_account.clone(),
            name: self.name.clone(),
            made: self.made,
            started: self.started,
            recording: self.recording.clone(),
        }
    }

    fn of_ended(EndedRoom { was, ended, failed, members }: &EndedRoom) -> Self {
        Self {
            id: was.id,
            name: was.name.clone(),
            age: between(was.made, *ended),
            made: was.made,
            started: was.started,
            ended: Some(*ended),
            failed: *failed,
            account: was.account.clone(),
            recording: was.recording.clone(),
            members: Vec::new(),
            left: members.iter().map(MemberView::of_gone).collect(),
        }
    }
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::from_micros(
        u64::try_from(to.micros().saturating_sub(from.micros())).unwrap_or_default(),
    )
}

/// Live rooms of all nodes.
#[derive(Clone, Debug)]
pub struct RoomList {
    pub rooms: Vec<RoomView>,
    /// Names of the nodes that did not answer.
    pub silent: Vec<String>,
}

/// The rooms of the other nodes of a fleet.
pub trait OtherRooms: Send + Sync + 'static {
    /// Adds the live rooms of a kind in the scope.
    fn add<'a>(
        &'a self,
        scope: &'a Scope,
        kind: RoomKind,
        list: &'a mut RoomList,
    ) -> BoxFuture<'a, ()>;
}

/// Snapshot of a member.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemberView {
    pub member: MemberId,
    pub muted: bool,
    pub deaf: bool,
    pub held: bool,
    pub role: Option<Role>,
    pub coaches: bool,
    pub stays_alone: bool,
    pub ends: bool,
    pub starts: bool,
    pub call: CallUuid,
    pub direction: Direction,
    pub from: String,
    pub to: String,
    pub caller_name: String,
    /// How long the member has been or was in the room.
    pub since: Duration,
    pub joined: Timestamp,
    /// The time and cause of the exit, if the member has left.
    pub left: Option<Left>,
}

/// When and why a member left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    pub at: Timestamp,
    /// Named like a hangup cause (`docs/reference/hangup-causes.md`).
    pub cause: String,
}

impl MemberView {
    /// Returns the stored form of a former member.
    fn gone(&self) -> Option<LeftMember> {
        let Left { at, cause } = self.left.clone()?;
        Some(LeftMember { was: self.kept(), left: at, cause })
    }

    /// Returns the stored form of a member.
    pub(super) fn kept(&self) -> RoomMember {
        RoomMember {
            member: self.member,
            call: self.call,
            direction: self.direction,
            role: self.role,
            muted: self.muted,
            held: self.held,
            coaches: self.coaches,
            stays_alone: self.stays_alone,
            ends: self.ends,
            starts: self.starts,
            joined: self.joined,
        }
    }

    fn of_gone(LeftMember { was: kept, left, cause }: &LeftMember) -> Self {
        Self {
            member: kept.member,
            muted: kept.muted,
            deaf: false,
            held: kept.held,
            role: kept.role,
            coaches: kept.coaches,
            stays_alone: kept.stays_alone,
            ends: kept.ends,
            starts: kept.starts,
            call: kept.call,
            direction: kept.direction,
            from: String::new(),
            to: String::new(),
            caller_name: String::new(),
            since: between(kept.joined, *left),
            joined: kept.joined,
            left: Some(Left { at: *left, cause: cause.clone() }),
        }
    }
}

/// Returns the cause of a member's exit, as shown to users. `None` means that the member left on
/// its own or its call ended.
pub(super) fn cause_of(out: Option<LeaveReason>) -> String {
    let cause = match out {
        None => "Normal Hangup",
        Some(LeaveReason::Kicked) => "Kicked Out Of Multiparty Call",
        Some(LeaveReason::Ended | LeaveReason::Stopped | LeaveReason::TimeUp) => {
            "Multiparty Call Ended"
        }
        Some(LeaveReason::Alone) => "Left Alone",
    };
    cause.to_owned()
}

/// Returns the snapshot of a member.
pub(super) fn member_view(
    id: MemberId,
    of: (&Member, &MemberCall),
    now: Instant,
    wall: Timestamp,
) -> MemberView {
    let (member, MemberCall { setup, since, .. }) = of;
    let since = now.saturating_duration_since(*since);
    MemberView {
        member: id,
        muted: member.muted,
        deaf: member.deaf,
        held: member.held,
        role: member.entry.role,
        coaches: member.coaches,
        stays_alone: member.entry.stay_alone,
        ends: member.entry.end_on_exit,
        starts: member.entry.start_on_enter,
        call: setup.call,
        direction: setup.direction,
        from: setup.from.clone(),
        to: setup.to.clone(),
        caller_name: setup.caller_name.clone(),
        since,
        joined: wall.minus(since),
        left: None,
    }
}

/// Selects members of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Members {
    All,
    These(Vec<MemberId>),
}

/// A command to members.
#[derive(Clone, Debug)]
pub enum MemberCommand {
    Mute(bool),
    Deaf(bool),
    Hold(bool),
    Coach(bool),
    /// Removes the member from the room. Its document continues.
    Kick,
    HangUp,
    Play(SoundKind, Vec<SoundItem>),
    Stop(SoundKind),
}

/// Result of a command to members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandResult {
    /// The command was sent to these members.
    Done(Vec<MemberId>),
    NoRoom,
    /// A selected member is not in the room. No member received the command.
    NoMember,
}

/// Result of a command about the recording of one participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrackResult {
    Done,
    NoRoom,
    NoMember,
    /// The participant is already in the requested state.
    Otherwise,
    /// The mailbox of the participant's call is full.
    Full,
}

impl Rooms {
    /// Returns the live rooms of a kind in the scope, ordered by name.
    pub fn list(&self, scope: &Scope, kind: RoomKind) -> Vec<RoomView> {
        self.cells(scope, kind).iter().map(|cell| self.view(cell)).collect()
    }

    /// Makes lists include the rooms of other nodes. Only the first call has an effect.
    pub fn list_others(&self, others: Arc<dyn OtherRooms>) {
        let _ = self.0.others.set(others);
    }

    /// Like [`Rooms::list`], with the rooms of the other nodes of a fleet.
    pub async fn list_all(&self, scope: &Scope, kind: RoomKind) -> RoomList {
        let mut list = RoomList { rooms: self.list(scope, kind), silent: Vec::new() };
        if let Some(others) = self.0.others.get() {
            others.add(scope, kind, &mut list).await;
            list.rooms.sort_by(|one, other| (&one.name, one.id).cmp(&(&other.name, other.id)));
        }
        list
    }

    /// Like [`Rooms::ended`], with the multi-party calls of the other nodes of a fleet.
    pub async fn ended_all(&self, scope: &Scope) -> Vec<RoomView> {
        if let (Some(_), Some((store, _))) = (self.0.others.get(), self.0.store.get()) {
            store.flush().await;
            match store.rooms().ended().await {
                Ok(ended) => {
                    let seen = ended
                        .iter()
                        .filter(|room| scope.holds(&room.was.account, &room.was.main_account));
                    return seen.map(RoomView::of_ended).collect();
                }
                Err(error) => {
                    tracing::warn!(%error, "ended multi-party calls of other nodes not read")
                }
            }
        }
        self.ended(scope)
    }

    /// Returns the ended multi-party calls in the scope, latest first, up to the limit of the list.
    pub fn ended(&self, scope: &Scope) -> Vec<RoomView> {
        let tables = locked(&self.0.tables);
        let seen = tables
            .ended
            .iter()
            .filter(|room| scope.holds(&room.was.account, &room.was.main_account));
        seen.map(RoomView::of_ended).collect()
    }

    /// Looks up a room by name. A room of the scope's own account takes precedence over one of a
    /// subaccount.
    pub fn find(&self, scope: &Scope, kind: RoomKind, name: &str) -> Option<RoomView> {
        self.cell(scope, kind, name).map(|cell| self.view(&cell))
    }

    /// Sends a command to members.
    pub fn ask(
        &self,
        scope: &Scope,
        kind: RoomKind,
        name: &str,
        whom: &Members,
        what: &MemberCommand,
    ) -> CommandResult {
        let Some(cell) = self.cell(scope, kind, name) else { return CommandResult::NoRoom };
        let items = if let MemberCommand::Play(_, items) = what {
            self.items(&cell.main_account, items)
        } else {
            Vec::new()
        };
        let mut inside = locked(&cell.state);
        let present: Vec<MemberId> = inside.room.present().map(|(member, _)| member).collect();
        let asked = match whom {
            Members::All => present,
            Members::These(these) if these.iter().all(|member| present.contains(member)) => {
                these.clone()
            }
            Members::These(_) => return CommandResult::NoMember,
        };
        // A sound for all members is played once in the mix.
        let audiences: Vec<Audience> = match whom {
            Members::All => vec![Audience::All],
            Members::These(these) => these.iter().copied().map(Audience::Member).collect(),
        };
        match what {
            MemberCommand::Play(played, _) => {
                for to in audiences {
                    inside.mixer.play(to, *played, items.clone());
                }
            }
            MemberCommand::Stop(played) => {
                let each = asked.iter().copied().map(Audience::Member);
                audiences.into_iter().chain(each).for_each(|to| inside.mixer.stop(to, *played));
            }
            MemberCommand::Mute(_)
            | MemberCommand::Deaf(_)
            | MemberCommand::Hold(_)
            | MemberCommand::Coach(_)
            | MemberCommand::Kick
            | MemberCommand::HangUp => {
                for member in &asked {
                    inside.ask(*member, what);
                    self.keep_member(&cell, &inside, *member);
                }
            }
        }
        CommandResult::Done(asked)
    }

    /// Requests a recording of a room; the call of one of its members starts it. Returns `None` if
    /// the room does not exist, and `Some(false)` if it is already recorded, or has no member.
    pub fn begin_recording(
        &self,
        scope: &Scope,
        kind: RoomKind,
        name: &str,
        how: RecordingOrder,
        callback: Option<Target>,
    ) -> Option<bool> {
        let cell = self.cell(scope, kind, name)?;
        let mut inside = locked(&cell.state);
        if inside.recording.is_some() || inside.record_asked.is_some() {
            return Some(false);
        }
        Some(inside.ask_to_record(how, callback))
    }

    /// Ends a room's recording. Returns `None` if the room does not exist, and `Some(false)` if it
    /// is not recorded.
    pub fn end_recording(&self, scope: &Scope, kind: RoomKind, name: &str) -> Option<bool> {
        let cell = self.cell(scope, kind, name)?;
        let mut inside = locked(&cell.state);
        let recording = inside.recording.take();
        let asked = inside.record_asked.as_mut().filter(|asked| !asked.is_stopped);
        let is_asked = asked.is_some();
        if let Some(asked) = asked {
            asked.is_stopped = true;
        }
        if let Some(recording) = &recording {
            recording.tape.stop(RecordingEndReason::Stopped);
            inside.recorded = Some(recording.about.url.clone());
            if let Some(caller) =
                inside.calls.values().find(|caller| caller.setup.call == recording.about.by)
            {
                caller.mailbox.tell(Input::Room { event: RoomEvent::RecordingEnded });
            }
        }
        Some(recording.is_some() || is_asked)
    }

    /// Pauses or resumes a room's recording. Returns `None` if the room does not exist, and
    /// `Some(false)` if it is not recorded.
    pub fn pause_recording(
        &self,
        scope: &Scope,
        kind: RoomKind,
        name: &str,
        on: bool,
    ) -> Option<bool> {
        let cell = self.cell(scope, kind, name)?;
        Some(locked(&cell.state).hold_recording(on))
    }

    /// Starts or stops the recording of one participant of a multi-party call. The participant's
    /// own call makes the recording.
    pub fn track(
        &self,
        scope: &Scope,
        name: &str,
        member: MemberId,
        what: TrackCommand,
    ) -> TrackResult {
        let Some(cell) = self.cell(scope, RoomKind::MultiParty, name) else {
            return TrackResult::NoRoom;
        };
        let mut inside = locked(&cell.state);
        let is_in = inside.room.member(member).is_some();
        let Some(caller) = inside.calls.get_mut(&member).filter(|_| is_in) else {
            return TrackResult::NoMember;
        };
        let begins = matches!(what, TrackCommand::Begin { .. });
        if caller.tracked == begins {
            return TrackResult::Otherwise;
        }
        let tracked = begins || matches!(what, TrackCommand::Pause { .. });
        if !caller.mailbox.tell(Input::Room { event: RoomEvent::Track { command: what } }) {
            return TrackResult::Full;
        }
        caller.tracked = tracked;
        TrackResult::Done
    }

    /// Ends a room: its members leave and their documents continue. Returns `false` if the room
    /// does not exist.
    pub fn stop(&self, scope: &Scope, kind: RoomKind, name: &str) -> bool {
        let Some(cell) = self.cell(scope, kind, name) else { return false };
        let mut inside = locked(&cell.state);
        let effects = inside.room.end(LeaveReason::Stopped);
        inside.carry_out(effects);
        let id = inside.room.id;
        drop(inside);
        self.free(id);
        locked(&self.0.tables).hang_up_expected(&cell.key, id, HangupCause::MpcStopped);
        true
    }

    /// Starts a room that waits for a member. Returns `false` if the room does not exist.
    pub fn begin(&self, scope: &Scope, kind: RoomKind, name: &str) -> bool {
        let Some(cell) = self.cell(scope, kind, name) else { return false };
        let mut inside = locked(&cell.state);
        let effects = inside.room.start();
        inside.carry_out(effects);
        inside.note_start(self.0.clock.now());
        self.keep_room(&cell, &inside);
        true
    }

    fn cells(&self, scope: &Scope, kind: RoomKind) -> Vec<Arc<Cell>> {
        let tables = locked(&self.0.tables);
        let seen = |cell: &&Arc<Cell>| {
            cell.key.kind == kind && scope.holds(&cell.key.account, &cell.main_account)
        };
        tables
            .rooms
            .values()
            .filter(seen)
            .filter(|cell| !locked(&cell.state).room.ending)
            .cloned()
            .collect()
    }

    fn cell(&self, scope: &Scope, kind: RoomKind, name: &str) -> Option<Arc<Cell>> {
        let mut named: Vec<_> =
            self.cells(scope, kind).into_iter().filter(|cell| cell.is_named(name)).collect();
        let own = named.iter().position(|cell| cell.key.account == *scope.auth_id()).unwrap_or(0);
        (!named.is_empty()).then(|| named.swap_remove(own))
    }

    pub(super) fn view(&self, cell: &Cell) -> RoomView {
        self.view_of(cell, &locked(&cell.state))
    }

    pub(super) fn view_of(&self, cell: &Cell, inside: &CellState) -> RoomView {
        let (now, wall) = (self.0.clock.now(), self.0.clock.wall());
        let ago = |age: Duration| wall.minus(age);
        let members = inside.room.present().filter_map(|(id, member)| {
            Some(member_view(id, (member, inside.calls.get(&id)?), now, wall))
        });
        RoomView {
            id: inside.room.id,
            name: cell.key.name.clone(),
            age: inside.room.lasted(cell.age(now)),
            made: ago(cell.age(now)),
            started: inside.started.map(|at| ago(now.saturating_duration_since(at))),
            ended: None,
            failed: false,
            account: cell.key.account.clone(),
            recording: inside
                .recording
                .as_ref()
                .map(|recording| recording.about.url.clone())
                .or(inside.recorded.clone()),
            members: members.collect(),
            left: inside.left.iter().cloned().collect(),
        }
    }
}

impl Cell {
    /// Whether `name` names this room. A multi-party call also matches `name_<name>` and
    /// `uuid_<id>`.
    fn is_named(&self, name: &str) -> bool {
        match self.key.kind {
            super::RoomKind::Conference => self.key.name == name,
            super::RoomKind::MultiParty => {
                match (name.strip_prefix("name_"), name.strip_prefix("uuid_")) {
                    (Some(name), _) => self.key.name == name,
                    (None, Some(id)) => locked(&self.state).room.id.to_string() == id,
                    (None, None) => false,
                }
            }
        }
    }
}

impl CellState {
    fn ask(&mut self, member: MemberId, what: &MemberCommand) {
        let effects = match what {
            MemberCommand::Mute(on) => self.room.mute(member, *on),
            MemberCommand::Deaf(on) => self.room.deafen(member, *on),
            MemberCommand::Hold(on) => self.room.hold(member, *on),
            MemberCommand::Coach(on) => self.room.coach(member, *on),
            MemberCommand::Kick => self.room.kick(member),
            MemberCommand::HangUp => {
                if let Some(caller) = self.calls.get(&member) {
                    caller.mailbox.tell(Input::Command { command: Command::Hangup });
                }
                return;
            }
            // Handled by the mixer.
            MemberCommand::Play(..) | MemberCommand::Stop(_) => return,
        };
        self.carry_out(effects);
    }
}
