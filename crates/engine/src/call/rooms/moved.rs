//! Conferences and multi-party calls on their way to another process of the node
//! (`docs/operations.md#upgrade`). Their mixers are made anew there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::state::Room;
use super::{Cell, Key, MemberCall, MemberView, Recording, RecordingInfo, Rooms, locked};
use crate::answer::SigningKeys;
use crate::call::handover::{IncomingCall, instant_of, micros_of};
use crate::call::mailbox::Mailbox;
use crate::call::recordings::{RecordingRequest, Recordings};
use machine::{MemberId, RoomKind};
use media::record::RecordingState;
use model::{AuthId, CallUuid};

/// A room that runs nowhere. All of its members are suspended.
#[derive(Debug, Serialize, Deserialize)]
pub struct RoomSnapshot {
    account: AuthId,
    main_account: AuthId,
    kind: RoomKind,
    name: String,
    /// Times in microseconds since the machine was booted.
    born_us: u64,
    started_us: Option<u64>,
    room: Room,
    members: Vec<MovedMember>,
    left: VecDeque<MemberView>,
    /// The id of the next member of any room. Ids of members who have left are not used again.
    next_member: MemberId,
    recording: Option<MovedRecording>,
    /// URL of the latest recording, after its end.
    recorded: Option<String>,
}

/// A room's recording on its way to another process.
#[derive(Debug, Serialize, Deserialize)]
struct MovedRecording {
    about: RecordingInfo,
    /// Where the recording continues. `None` while that is awaited.
    state: Option<RecordingState>,
}

impl Recording {
    /// Lets go of the recording. The receiver fails if it ends instead.
    fn detach(self) -> (MovedRecording, oneshot::Receiver<RecordingState>) {
        let (reply, state) = oneshot::channel();
        self.tape.detach(move |state| {
            let _ = reply.send(state);
        });
        (MovedRecording { about: self.about, state: None }, state)
    }
}

impl MovedRecording {
    /// Returns the request that continues the recording. `calls` go on in this process.
    fn request(
        &self,
        room: &RoomSnapshot,
        calls: &[IncomingCall],
        keys: SigningKeys,
    ) -> RecordingRequest {
        let RecordingInfo { id, by: requested_by, ref order, began, .. } = self.about;
        let by = calls.iter().find(|call| call.call() == requested_by);
        let answered = by.and_then(IncomingCall::answered);
        let up = by.map(|call| call.mailbox.clone());
        RecordingRequest {
            id,
            started: began,
            state: self.state.clone(),
            account: room.account.clone(),
            main_account: room.main_account.clone(),
            call: requested_by,
            room: None,
            order: order.clone(),
            keys,
            action: None,
            answered: Box::new(move || answered),
            is_up: Box::new(move || up.as_ref().is_some_and(Mailbox::is_open)),
        }
    }
}

impl RoomSnapshot {
    /// Returns the room's id.
    pub fn id(&self) -> Uuid {
        self.room.id
    }

    /// Returns the id of the recording that goes on.
    pub fn recording(&self) -> Option<Uuid> {
        self.recording.as_ref().map(|recording| recording.about.id)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct MovedMember {
    member: MemberId,
    call: CallUuid,
    since_us: u64,
    tracked: bool,
}

impl Rooms {
    /// Returns why the room of a call can't be handed over to another process. `None` if it can, or
    /// if the call is in no room.
    pub(in crate::call) fn obstacle(&self, call: CallUuid) -> Option<&'static str> {
        let tables = locked(&self.0.tables);
        let (cell, _) = tables.calls.get(&call)?;
        let inside = locked(&cell.state);
        let text = "a recording of its conference or multi-party call is about to begin";
        inside.record_asked.is_some().then_some(text)
    }

    /// Lets go of the rooms and their recordings, so that another process can continue them.
    pub(in crate::call) async fn detach(&self) -> Vec<RoomSnapshot> {
        let (mut rooms, states): (Vec<_>, Vec<_>) = self.snapshots().into_iter().unzip();
        for (room, state) in rooms.iter_mut().zip(states) {
            let Some(state) = state else { continue };
            match (state.await, room.recording.take()) {
                (Ok(state), Some(recording)) => {
                    room.recording = Some(MovedRecording { state: Some(state), ..recording });
                }
                // It has ended instead.
                (_, recording) => room.recorded = recording.map(|recording| recording.about.url),
            }
        }
        rooms
    }

    /// Returns the rooms, and the receivers of the states of their recordings.
    fn snapshots(&self) -> Vec<(RoomSnapshot, Option<oneshot::Receiver<RecordingState>>)> {
        let clock = &self.0.clock;
        let tables = locked(&self.0.tables);
        let mut cells: Vec<&Arc<Cell>> = Vec::new();
        for (cell, _) in tables.calls.values() {
            if cells.iter().all(|other| !Arc::ptr_eq(other, cell)) {
                cells.push(cell);
            }
        }
        let of = |cell: &&Arc<Cell>| {
            let mut inside = locked(&cell.state);
            let (recording, state) = inside.recording.take().map(Recording::detach).unzip();
            let member = |(member, caller): (&MemberId, &MemberCall)| MovedMember {
                member: *member,
                call: caller.setup.call,
                since_us: micros_of(caller.since, clock),
                tracked: caller.tracked,
            };
            let room = RoomSnapshot {
                account: cell.key.account.clone(),
                main_account: cell.main_account.clone(),
                kind: cell.key.kind,
                name: cell.key.name.clone(),
                born_us: micros_of(cell.born, clock),
                started_us: inside.started.map(|at| micros_of(at, clock)),
                room: inside.room.clone(),
                members: inside.calls.iter().map(member).collect(),
                left: inside.left.clone(),
                next_member: self.0.next_member.load(Ordering::Relaxed),
                recording,
                recorded: inside.recorded.clone(),
            };
            (room, state)
        };
        cells.iter().map(of).collect()
    }

    /// Forgets a call that has left this process. Its room is not changed, and no event is sent.
    pub(in crate::call) fn forget(&self, call: CallUuid) {
        locked(&self.0.tables).calls.remove(&call);
    }

    /// Continues rooms of another process with these calls, whose media goes on here. Members with
    /// other calls leave a conference. Those of a multi-party call stay in it, without media, until
    /// [`Rooms::lose`] is called for the dropped call. `keys` returns the signing keys of an account
    /// and its main account.
    pub(in crate::call) fn resume(
        &self,
        rooms: Vec<RoomSnapshot>,
        calls: &[IncomingCall],
        dropped: &[IncomingCall],
        recordings: &Recordings,
        keys: impl Fn(&AuthId, &AuthId) -> SigningKeys,
    ) {
        let clock = &self.0.clock;
        let mut tables = locked(&self.0.tables);
        for mut snapshot in rooms {
            let recording = snapshot.recording.take().map(|recording| {
                let keys = keys(&snapshot.account, &snapshot.main_account);
                (recording.request(&snapshot, calls, keys), recording)
            });
            let RoomSnapshot { account, main_account, kind, name, room, members, .. } = snapshot;
            let key = Key { account, kind, name };
            self.0.next_member.fetch_max(snapshot.next_member, Ordering::Relaxed);
            let born = instant_of(snapshot.born_us, clock);
            let cell = self.new_cell(&key, main_account, room, born);
            let mut inside = locked(&cell.state);
            inside.started = snapshot.started_us.map(|at| instant_of(at, clock));
            inside.recorded = snapshot.recorded;
            inside.left = snapshot.left;
            let mut lost = Vec::new();
            for MovedMember { member, call, since_us, tracked } in members {
                let dropped = dropped.iter().filter(|_| kind == RoomKind::MultiParty);
                let mut known = calls.iter().chain(dropped);
                let Some(call) = known.find(|other| other.call() == call) else {
                    lost.push(member);
                    continue;
                };
                if let Some(jack) = call.leg.room_jack() {
                    inside.mixer.add(member, jack.connect());
                }
                if let Some(part) = inside.room.part_of(member) {
                    inside.mixer.set_member(member, part);
                }
                let (setup, mailbox) = (Box::new(call.setup.clone()), call.mailbox.clone());
                let since = instant_of(since_us, clock);
                inside.calls.insert(member, MemberCall { setup, mailbox, since, tracked });
                tables.calls.insert(call.call(), (cell.clone(), member));
            }
            if let Some((request, recording)) = recording {
                let RecordingInfo { id, url, when_alone, held, .. } = recording.about;
                match inside.record(&cell, recordings, request, url, when_alone) {
                    Ok(()) => drop(inside.hold_recording(held)),
                    Err(why) => {
                        tracing::error!(recording = %id, why, "room recording not continued")
                    }
                }
            }
            for member in lost {
                if let Some((effects, _)) = inside.room.leave(member) {
                    inside.carry_out(effects);
                }
            }
            let is_open = !inside.room.ending && !inside.calls.is_empty();
            drop(inside);
            if is_open {
                tables.rooms.insert(key, cell);
            }
        }
        drop(tables);
        for call in calls.iter().filter(|call| call.answered().is_none()) {
            self.expect(&call.setup, &call.mailbox);
        }
    }
}
