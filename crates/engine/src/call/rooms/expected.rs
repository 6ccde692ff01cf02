//! Outbound calls that are placed for a multi-party call. If it ends before they have joined, they
//! are hung up.

use uuid::Uuid;

use super::{Key, Rooms, Tables, locked};
use crate::call::mailbox::Mailbox;
use machine::{CallSetup, Input, RoomKind};
use model::{CallUuid, HangupCause};

/// An outbound call that has not joined its multi-party call yet.
pub(super) struct ExpectedCall {
    key: Key,
    /// The id of the multi-party call, if it existed when the call was requested. `None` matches
    /// the next one of that name.
    room: Option<Uuid>,
    mailbox: Mailbox,
}

impl Rooms {
    /// Registers a new call. If it is placed for a multi-party call, it is hung up when the
    /// multi-party call ends.
    pub(in crate::call) fn expect(&self, setup: &CallSetup, mailbox: &Mailbox) {
        let Some((key, room)) = target_of(setup) else { return };
        let mut tables = locked(&self.0.tables);
        if room.is_some_and(|id| !tables.has(&key, id)) {
            mailbox.tell(Input::HangUp { cause: HangupCause::MpcEnded });
            return;
        }
        tables.expected.insert(setup.call, ExpectedCall { key, room, mailbox: mailbox.clone() });
    }

    /// Handles a call that has entered a room of another node.
    pub(in crate::call) fn entered_elsewhere(&self, call: CallUuid) {
        locked(&self.0.tables).expected.remove(&call);
    }

    /// Whether the multi-party call for which a call was requested has ended.
    pub(in crate::call) fn is_gone(&self, setup: &CallSetup) -> bool {
        let Some((key, Some(id))) = target_of(setup) else { return false };
        !locked(&self.0.tables).has(&key, id)
    }
}

impl Tables {
    /// Whether the room exists and is not ending.
    fn has(&self, key: &Key, id: Uuid) -> bool {
        self.rooms.get(key).is_some_and(|cell| {
            let inside = locked(&cell.state);
            inside.room.id == id && !inside.room.ending
        })
    }

    /// Hangs up the outbound calls that are placed for a room, because the room ends.
    pub(super) fn hang_up_expected(&mut self, key: &Key, id: Uuid, cause: HangupCause) {
        let is_its = |expected: &ExpectedCall| {
            expected.key == *key && expected.room.is_none_or(|room| room == id)
        };
        for (_, expected) in self.expected.extract_if(.., |_, expected| is_its(expected)) {
            expected.mailbox.tell(Input::HangUp { cause });
        }
    }
}

/// Returns the room that a call is placed for.
fn target_of(setup: &CallSetup) -> Option<(Key, Option<Uuid>)> {
    let (name, room) = setup.multi_party_call()?;
    Some((
        Key { account: setup.account.clone(), kind: RoomKind::MultiParty, name: name.to_owned() },
        room,
    ))
}
