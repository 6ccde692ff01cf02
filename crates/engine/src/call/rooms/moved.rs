//! Conferences on their way to another process of the node (`docs/operations.md#upgrade`). Their
//! mixers are made anew there.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::state::Room;
use super::{Cell, Key, MemberCall, Rooms, locked};
use crate::call::handover::{IncomingCall, instant_of, micros_of};
use machine::{MemberId, RoomKind};
use model::{AuthId, CallUuid};

/// A conference that runs nowhere. All of its members are suspended.
#[derive(Debug, Serialize, Deserialize)]
pub struct RoomSnapshot {
    account: AuthId,
    main_account: AuthId,
    name: String,
    /// Times in microseconds since the machine was booted.
    born_us: u64,
    started_us: Option<u64>,
    room: Room,
    members: Vec<MovedMember>,
    recorded: Option<String>,
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
        if cell.key.kind == RoomKind::MultiParty {
            Some("it is in a multi-party call")
        } else if inside.recording.is_some() || inside.record_asked {
            Some("its conference is recorded")
        } else if !inside.agents.is_empty() {
            Some("an AI agent is in its conference")
        } else {
            None
        }
    }

    /// Returns the conferences, for another process.
    pub(in crate::call) fn snapshot(&self) -> Vec<RoomSnapshot> {
        let clock = &self.0.clock;
        let tables = locked(&self.0.tables);
        let mut cells: Vec<&Arc<Cell>> = Vec::new();
        for (cell, _) in tables.calls.values() {
            if cells.iter().all(|other| !Arc::ptr_eq(other, cell)) {
                cells.push(cell);
            }
        }
        let of = |cell: &&Arc<Cell>| {
            let inside = locked(&cell.state);
            let member = |(member, caller): (&MemberId, &MemberCall)| MovedMember {
                member: *member,
                call: caller.setup.call,
                since_us: micros_of(caller.since, clock),
                tracked: caller.tracked,
            };
            RoomSnapshot {
                account: cell.key.account.clone(),
                main_account: cell.main_account.clone(),
                name: cell.key.name.clone(),
                born_us: micros_of(cell.born, clock),
                started_us: inside.started.map(|at| micros_of(at, clock)),
                room: inside.room.clone(),
                members: inside.calls.iter().map(member).collect(),
                recorded: inside.recorded.clone(),
            }
        };
        cells.iter().map(of).collect()
    }

    /// Forgets a call that has left this process. Its room is not changed, and nobody is told.
    pub(in crate::call) fn forget(&self, call: CallUuid) {
        locked(&self.0.tables).calls.remove(&call);
    }

    /// Continues conferences of another process with these calls, whose media goes on here. Members
    /// whose call does not go on leave.
    pub(in crate::call) fn resume(&self, rooms: Vec<RoomSnapshot>, calls: &[IncomingCall]) {
        let clock = &self.0.clock;
        let mut tables = locked(&self.0.tables);
        for snapshot in rooms {
            let RoomSnapshot { account, main_account, name, room, members, .. } = snapshot;
            let key = Key { account, kind: RoomKind::Conference, name };
            let born = instant_of(snapshot.born_us, clock);
            let cell = self.new_cell(&key, main_account, room, born);
            let mut inside = locked(&cell.state);
            inside.started = snapshot.started_us.map(|at| instant_of(at, clock));
            inside.recorded = snapshot.recorded;
            let mut lost = Vec::new();
            for MovedMember { member, call, since_us, tracked } in members {
                self.0.next_member.fetch_max(member + 1, Ordering::Relaxed);
                let Some(call) = calls.iter().find(|other| other.call() == call) else {
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
    }
}
