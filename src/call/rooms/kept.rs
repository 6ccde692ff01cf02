//! Multi-party calls in the store: as long as one is up it has rows, who is in among them, so that the next start can end
//! one whose process died in its middle. What an application has been told of is on the disk before: its callbacks are
//! written behind these rows.

use super::ask::member_view;
use super::{Cell, ENDED_MAX, Inside, Rooms, locked};
use crate::call::machine::{MemberId, RoomKind};
use crate::model::{HangupCause, Timestamp};
use crate::store::{EndedRoom, LeftMember, OpenMember, OrphanRoom, Store, StoreError};

impl Rooms {
    /// Ends the multi-party calls that an earlier process of this node left when it died, shows those that were over
    /// before, and keeps there those that begin from now on.
    ///
    /// # Errors
    /// The store's, where it can't be read.
    pub async fn keep_in(&self, store: &Store, node_id: &str) -> Result<(), StoreError> {
        let left: Vec<EndedRoom> = store.orphan_rooms(node_id).await?.into_iter().map(over).collect();
        if !left.is_empty() {
            tracing::warn!(rooms = left.len(), "ended the multi-party calls that this node left open when it died");
        }
        for room in &left {
            // Shown all the same; the next start ends it once more.
            if let Err(error) = store.end_room(room.clone()).await {
                tracing::warn!(%error, room = %room.was.id, "the end of a multi-party call is not in the store");
            }
        }
        let mut ended = store.ended_rooms().await?;
        let not_there = |room: &EndedRoom| ended.iter().all(|other| other.was.id != room.was.id);
        let missing: Vec<EndedRoom> = left.into_iter().filter(not_there).collect();
        ended.extend(missing);
        ended.sort_by_key(|room| std::cmp::Reverse(room.ended));
        ended.truncate(ENDED_MAX);
        locked(&self.0.tables).ended.extend(ended);
        let _ = self.0.store.set((store.clone(), node_id.to_owned()));
        Ok(())
    }

    /// A multi-party call begins, or something of it has changed.
    pub(super) fn keep_room(&self, cell: &Cell, inside: &Inside) {
        let Some((store, node_id)) = self.kept_in(cell) else { return };
        let view = self.view_of(cell, inside);
        store.room_up(view.open(&cell.main_account), node_id, self.0.clock.steady().minus(view.age));
    }

    /// Somebody is in, or something of it has changed.
    pub(super) fn keep_member(&self, cell: &Cell, inside: &Inside, member: MemberId) {
        let Some((store, _)) = self.kept_in(cell) else { return };
        let Some(is) = inside.room.member(member).zip(inside.calls.get(&member)) else { return };
        let view = member_view(member, is, self.0.clock.now(), self.0.clock.wall());
        store.room_member(inside.room.id, OpenMember { was: view.kept(), left: None });
    }

    /// Somebody has left.
    pub(super) fn keep_latest_left(&self, cell: &Cell, inside: &Inside) {
        let Some((store, _)) = self.kept_in(cell) else { return };
        let Some(view) = inside.left.back() else { return };
        let left = view.left.as_ref().map(|left| (left.at, left.cause.clone()));
        store.room_member(inside.room.id, OpenMember { was: view.kept(), left });
    }

    /// Conferences are shown only while they are there.
    fn kept_in(&self, cell: &Cell) -> Option<&(Store, String)> {
        self.0.store.get().filter(|_| cell.key.kind == RoomKind::MultiParty)
    }
}

/// How one ends that was left open: as its calls do, where its node last showed a sign of life. Pure.
fn over(orphan: OrphanRoom) -> EndedRoom {
    let OrphanRoom { room, lived, members } = orphan;
    // A sign of life comes now and then; whoever came after the last one came before the end.
    let seen = |one: &OpenMember| one.left.as_ref().map_or(one.was.joined, |(at, _)| *at);
    let ended = members.iter().map(seen).chain(room.started).fold(room.made.plus(lived), Timestamp::max);
    let gone = |OpenMember { was, left }: OpenMember| {
        let died = || (ended, HangupCause::NodeFailure.wire(was.direction).name.to_owned());
        let (left, cause) = left.unwrap_or_else(died);
        LeftMember { was, left, cause }
    };
    let members = members.into_iter().map(gone).collect();
    EndedRoom { was: room, ended, failed: true, members }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;
    use crate::clock::Clock;
    use crate::model::AuthId;
    use crate::observe::Health;
    use crate::store::{KeptMember, OpenRoom, Scope};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn member(member: MemberId, joined: i64, left: Option<i64>) -> OpenMember {
        let was = KeptMember::held_agent(member, at(joined));
        OpenMember { was, left: left.map(|secs| (at(secs), "Left Alone".to_owned())) }
    }

    fn room() -> OpenRoom {
        OpenRoom {
            id: Uuid::from_u128(7),
            account: "MAXXXXXXXXXXXXXXXXXX".into(),
            main_account: "MAXXXXXXXXXXXXXXXXXX".into(),
            name: "Care".to_owned(),
            made: at(10),
            started: Some(at(12)),
            recording: None,
        }
    }

    #[test]
    fn one_that_was_left_open_ends_where_its_node_was_last_seen() {
        let ended = |lived, members: Vec<OpenMember>| {
            let ended = over(OrphanRoom { room: room(), lived: Duration::from_secs(lived), members });
            assert!(ended.failed);
            let left =
                ended.members.iter().map(|one| (one.was.member, one.left, one.cause.clone())).collect::<Vec<_>>();
            (ended.ended, left)
        };
        let died = |n, secs| (n, at(secs), "Internal Error".to_owned());
        let two = vec![member(1, 11, Some(14)), member(2, 13, None)];
        assert_eq!(ended(9, two.clone()), (at(19), vec![(1, at(14), "Left Alone".to_owned()), died(2, 19)]));
        // There was none since.
        assert_eq!(ended(0, two).0, at(14));
        assert_eq!(ended(0, vec![member(2, 13, None)]), (at(13), vec![died(2, 13)]));
        assert_eq!(ended(0, Vec::new()).0, at(12));
    }

    #[tokio::test]
    async fn the_next_start_shows_it_as_over_and_so_does_the_one_after() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        store.room_up(room(), "node", at(100));
        store.room_member(room().id, member(1, 11, None));
        store.alive("node", at(107));
        store.settled().await;
        for _ in 0..2 {
            let rooms = Rooms::silent(Clock::real());
            rooms.keep_in(&store, "node").await.unwrap();
            let shown = rooms.ended(&Scope::Main("MAXXXXXXXXXXXXXXXXXX".into()));
            let [one] = shown.as_slice() else { panic!("{shown:?}") };
            assert_eq!((one.id, one.ended, one.failed), (room().id, Some(at(17)), true));
            let [was] = one.left.as_slice() else { panic!("{one:?}") };
            assert_eq!(was.left.as_ref().map(|left| (left.at, left.cause.as_str())), Some((at(17), "Internal Error")));
            let other = rooms.ended(&Scope::Main(AuthId::from("MAYYYYYYYYYYYYYYYYYY")));
            assert!(other.is_empty(), "it is its account's alone");
        }
    }
}
