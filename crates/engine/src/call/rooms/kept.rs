//! Multi-party calls in the store. A live one has rows for itself and its members, so that the next
//! process can end it after a crash and send its callbacks.
//!
//! Rows are written before the callbacks that announce them. Callbacks that announce an end are
//! written before its row.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::ask::member_view;
use super::{Cell, CellState, Rooms, locked};
use crate::answer::SigningKeys;
use crate::call::services::Services;
use machine::{
    CallSetup, CallTime, CallbackKind, CallbackRequest, MemberId, Param, ParticipantInfo, Role,
    RoomKind, orphan_participant_params, set_mpc_duration,
};
use model::{AuthId, CallUuid, HangupCause, Timestamp, stable_id};
use store::{
    EndedRoom, LeftMember, NewCallback, OpenMember, Orphan, OrphanRoom, Store, StoreError,
};
use xml::ast::Target;

/// The row to write when a member leaves.
pub(super) enum LeftRow {
    Member(Uuid, OpenMember),
    /// The last member has left.
    Room(EndedRoom),
}

/// Event id of a callback that announces that a participant left or that the multi-party call
/// ended. It is derived from the content, so that the next process computes the same id after a
/// crash.
pub(in crate::call) fn exit_id(notice: &CallbackRequest) -> Uuid {
    let of = |name| notice.params.get(name).map_or("", Param::reveal);
    stable_id(
        "multi-party-exit",
        &[of("MPCUUID"), of("EventName"), of("MemberID"), notice.method.as_str(), &notice.url.0],
    )
}

/// Writes the callbacks of [`Rooms::lose`] about a call.
pub(in crate::call) async fn report_exits(
    services: &Services,
    setup: &CallSetup,
    notices: impl Iterator<Item = CallbackRequest>,
    keys: SigningKeys,
) {
    for notice in notices {
        let event_id = exit_id(&notice);
        let new = NewCallback { event_id, ..services.callback(setup, notice) };
        match services.store.outbox().insert(new).await {
            Ok(written) => services.outbox.send(written, keys.clone()),
            Err(error) => {
                tracing::error!(%error, "callback about a lost participant not stored");
            }
        }
    }
}

impl Rooms {
    /// Ends the multi-party calls that an earlier process of this node left open, except for `moved`
    /// ones, which this process continues, loads those that have ended, and stores those that begin
    /// later. The callbacks about the ends are in the
    /// outbox when this returns. Must be called before the orphaned calls are ended, since their
    /// hangup callbacks come later. `queue` returns the queue of a main account and URL.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub async fn recover_and_store(
        &self,
        store: &Store,
        node_id: &str,
        moved: &BTreeSet<Uuid>,
        queue: impl Fn(&AuthId, &str) -> String,
    ) -> Result<(), StoreError> {
        let left = self.end_orphans(store, node_id, node_id, moved, queue).await?;
        let mut ended = store.rooms().ended().await?;
        let not_there = |room: &EndedRoom| ended.iter().all(|other| other.was.id != room.was.id);
        let missing: Vec<EndedRoom> = left.into_iter().filter(not_there).collect();
        ended.extend(missing);
        ended.sort_by_key(|room| std::cmp::Reverse(room.ended));
        let mut tables = locked(&self.0.tables);
        ended.into_iter().rev().for_each(|room| tables.note_ended(room));
        drop(tables);
        let _ = self.0.store.set((store.clone(), node_id.to_owned()));
        Ok(())
    }

    /// Ends the multi-party calls that a process left open, except for `moved` ones. `owner` is the process, and `node_id`
    /// delivers the callbacks about the ends. Must be called before the calls are ended.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub async fn end_orphans(
        &self,
        store: &Store,
        owner: &str,
        node_id: &str,
        moved: &BTreeSet<Uuid>,
        queue: impl Fn(&AuthId, &str) -> String,
    ) -> Result<Vec<EndedRoom>, StoreError> {
        let mut orphans = store.rooms().orphans(owner).await?;
        orphans.retain(|orphan| !moved.contains(&orphan.room.id));
        if orphans.is_empty() {
            return Ok(Vec::new());
        }
        tracing::warn!(rooms = orphans.len(), "ended orphaned multi-party calls");
        let calls = store.calls().orphans(owner).await?;
        let mut calls: BTreeMap<CallUuid, Orphan> =
            calls.into_iter().map(|call| (call.start.call, call)).collect();
        // Participants at other nodes live on.
        let present = orphans.iter().flat_map(|orphan| &orphan.members);
        for OpenMember { was, .. } in present.filter(|member| member.left.is_none()) {
            if !calls.contains_key(&was.call)
                && let Some(call) = store.calls().as_orphan(was.call).await?
            {
                calls.insert(was.call, call);
            }
        }
        let mut left = Vec::with_capacity(orphans.len());
        for orphan in orphans {
            let ended = ended(&orphan);
            let callback = |(setup, notice): (&CallSetup, CallbackRequest)| NewCallback {
                event_id: exit_id(&notice),
                call: setup.call,
                account: setup.account.clone(),
                main_account: setup.parent_account.clone(),
                node_id: node_id.to_owned(),
                origin: queue(&setup.parent_account, &notice.url.0),
                notice,
                number_event: None,
                shut: None,
                created: self.0.clock.steady(),
            };
            let callbacks = end_callbacks(&orphan, owner, ended, &calls);
            let callbacks = callbacks.into_iter().map(callback).collect();
            let room = over(orphan, ended);
            // Listed anyway. The next start ends it again.
            if let Err(error) = store.rooms().end_orphan(room.clone(), callbacks).await {
                tracing::warn!(%error, room = %room.was.id, "end of a multi-party call not stored");
            }
            left.push(room);
        }
        Ok(left)
    }

    /// Removes a call from its room, because the call's process has ended or can't be reached.
    /// `answered` is when the call was answered. Returns the callbacks about the end of the
    /// participant, which its process sends itself if it is alive, and those about the end of the
    /// multi-party call.
    pub(in crate::call) fn lose(
        &self,
        setup: &CallSetup,
        answered: Option<Timestamp>,
    ) -> [Vec<CallbackRequest>; 2] {
        let now = self.0.clock.wall();
        let since_start = |at: Timestamp| CallTime(0).after(at.since(setup.started));
        let found = locked(&self.0.tables).calls.get(&setup.call).cloned();
        let lost = found.filter(|(cell, _)| cell.key.kind == RoomKind::MultiParty);
        let lost = lost.and_then(|(cell, id)| {
            let inside = locked(&cell.state);
            let member = inside.room.any_member(id)?;
            let info = ParticipantInfo {
                room: inside.room.id,
                name: &cell.key.name,
                member: id,
                role: member.entry.role.unwrap_or(Role::Customer),
                coaching: member.coaches,
            };
            let (exit, over) = orphan_participant_params(
                setup,
                answered.map(since_start),
                since_start(now),
                &info,
            );
            Some((member.entry.exit_callback.clone(), exit, over))
        });
        let notice = |Target { url, method }: Target, params| CallbackRequest {
            kind: CallbackKind::MultiParty,
            url,
            method,
            params,
        };
        let mut callbacks = [Vec::new(), Vec::new()];
        self.leave(setup.call, &[], |left| {
            let Some((to, exit, mut over)) = lost else { return };
            set_mpc_duration(&mut over, left.lasted);
            let ends = left.end_callbacks.into_iter().map(|to| notice(to, over.clone())).collect();
            callbacks = [to.map(|to| notice(to, exit)).into_iter().collect(), ends];
        });
        callbacks
    }

    /// Stores a new or changed multi-party call.
    pub(super) fn keep_room(&self, cell: &Cell, inside: &CellState) {
        let Some((store, node_id)) = self.kept_in(cell) else { return };
        let view = self.view_of(cell, inside);
        let born = self.0.clock.steady().minus(cell.age(self.0.clock.now()));
        store.rooms().put(
            view.open(&cell.main_account),
            inside.room.end_callbacks().to_vec(),
            node_id,
            born,
        );
    }

    /// Stores a new or changed member.
    pub(super) fn keep_member(&self, cell: &Cell, inside: &CellState, member: MemberId) {
        let Some((store, _)) = self.kept_in(cell) else { return };
        let Some(is) = inside.room.member(member).zip(inside.calls.get(&member)) else { return };
        let view = member_view(member, is, self.0.clock.now(), self.0.clock.wall());
        let exit_callback = is.0.entry.exit_callback.clone();
        store
            .rooms()
            .put_member(inside.room.id, OpenMember { was: view.kept(), left: None, exit_callback });
    }

    /// Returns the row of the member that left last, while others remain.
    pub(super) fn latest_left(&self, cell: &Cell, inside: &CellState) -> Option<LeftRow> {
        self.kept_in(cell)?;
        let view = inside.left.back()?;
        let left = view.left.as_ref().map(|left| (left.at, left.cause.clone()));
        Some(LeftRow::Member(
            inside.room.id,
            OpenMember { was: view.kept(), left, exit_callback: None },
        ))
    }

    /// Writes the row of a member that has left.
    pub(super) fn keep_left(&self, row: Option<LeftRow>) {
        match (self.0.store.get(), row) {
            (Some((store, _)), Some(LeftRow::Member(room, member))) => {
                store.rooms().put_member(room, member)
            }
            (Some((store, _)), Some(LeftRow::Room(room))) => store.rooms().record_end(room),
            (None, _) | (_, None) => {}
        }
    }

    /// Returns the store if the room is kept there. Conferences are not stored.
    fn kept_in(&self, cell: &Cell) -> Option<&(Store, String)> {
        self.0.store.get().filter(|_| cell.key.kind == RoomKind::MultiParty)
    }
}

/// Returns when an orphaned multi-party call ended: at the last heartbeat of its node. Pure
/// function.
fn ended(orphan: &OrphanRoom) -> Timestamp {
    let OrphanRoom { room, lived, members, .. } = orphan;
    // Heartbeats are periodic, so a member may have joined after the last one.
    let seen = |one: &OpenMember| one.left.as_ref().map_or(one.was.joined, |(at, _)| *at);
    members.iter().map(seen).chain(room.started).fold(room.made.plus(*lived), Timestamp::max)
}

/// Returns the stored form of an ended orphan. Pure function.
fn over(orphan: OrphanRoom, ended: Timestamp) -> EndedRoom {
    let gone = |OpenMember { was, left, .. }: OpenMember| {
        let died = || (ended, HangupCause::NodeFailure.wire(was.direction).name.to_owned());
        let (left, cause) = left.unwrap_or_else(died);
        LeftMember { was, left, cause }
    };
    let members = orphan.members.into_iter().map(gone).collect();
    EndedRoom { was: orphan.room, ended, failed: true, members }
}

/// Returns the callbacks about the end of an orphan, with the call that each belongs to: that each
/// remaining member left, and that the multi-party call ended, which belongs to the last member.
/// `calls` are those of the members, and `owner` is the process that has died. Members of other
/// processes report their exit themselves. A member without a call has no callbacks. Pure function.
fn end_callbacks<'c>(
    orphan: &OrphanRoom,
    owner: &str,
    ended: Timestamp,
    calls: &'c BTreeMap<CallUuid, Orphan>,
) -> Vec<(&'c CallSetup, CallbackRequest)> {
    let notice = |Target { url, method }: Target, params| CallbackRequest {
        kind: CallbackKind::MultiParty,
        url,
        method,
        params,
    };
    let mut callbacks = Vec::new();
    let mut last = None;
    for OpenMember { was, exit_callback: to, .. } in
        orphan.members.iter().filter(|one| one.left.is_none())
    {
        let Some(call) = calls.get(&was.call) else { continue };
        let Some(setup) = &call.setup else { continue };
        let since_start = |at: Timestamp| CallTime(0).after(at.since(setup.started));
        let seat = ParticipantInfo {
            room: orphan.room.id,
            name: &orphan.room.name,
            member: was.member,
            role: was.role.unwrap_or(Role::Customer),
            coaching: was.coaches,
        };
        let (exit, over) = orphan_participant_params(
            setup,
            call.answered.map(since_start),
            since_start(ended),
            &seat,
        );
        if call.start.node_id == owner {
            callbacks.extend(to.clone().map(|to| (setup, notice(to, exit))));
        }
        last = Some((setup, over));
    }
    if let Some((setup, mut over)) = last {
        set_mpc_duration(&mut over, ended.since(orphan.room.made));
        callbacks.extend(
            orphan.end_callbacks.iter().map(|to| (setup, notice(to.clone(), over.clone()))),
        );
    }
    callbacks
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::super::MemberView;
    use super::*;
    use model::Clock;
    use model::Health;
    use model::Method;
    use store::sample::{held_agent, setup};
    use store::{CallStart, Callback, DeliveryOutcome, OpenRoom, Scope, Settlement};
    use xml::ast::DocUrl;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn member(member: MemberId, joined: i64, left: Option<i64>) -> OpenMember {
        let was = held_agent(member, at(joined));
        let exit_callback = left.is_none().then(|| target("https://app.example.com/exit"));
        OpenMember {
            was,
            left: left.map(|secs| (at(secs), "Left Alone".to_owned())),
            exit_callback,
        }
    }

    fn target(url: &str) -> Target {
        Target { url: DocUrl(url.into()), method: Method::Post }
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
    fn an_orphaned_room_ends_at_the_last_heartbeat() {
        let went = |lived, members: Vec<OpenMember>| {
            let orphan = OrphanRoom {
                room: room(),
                end_callbacks: Vec::new(),
                lived: Duration::from_secs(lived),
                members,
            };
            let at = ended(&orphan);
            let ended = over(orphan, at);
            assert!(ended.failed);
            let left = ended
                .members
                .iter()
                .map(|one| (one.was.member, one.left, one.cause.clone()))
                .collect::<Vec<_>>();
            (ended.ended, left)
        };
        let died = |n, secs| (n, at(secs), "Internal Error".to_owned());
        let two = vec![member(1, 11, Some(14)), member(2, 13, None)];
        assert_eq!(
            went(9, two.clone()),
            (at(19), vec![(1, at(14), "Left Alone".to_owned()), died(2, 19)])
        );
        // There was no heartbeat since.
        assert_eq!(went(0, two).0, at(14));
        assert_eq!(went(0, vec![member(2, 13, None)]), (at(13), vec![died(2, 13)]));
        assert_eq!(went(0, Vec::new()).0, at(12));
    }

    #[tokio::test]
    async fn r03_the_next_start_ends_an_orphaned_room_once_and_repeats_idempotently() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        let both =
            [target("https://app.example.com/exit"), target("https://other.example.com/end")];
        store.rooms().put(room(), both.to_vec(), "node", at(100));
        // The setup of the last member's call is unknown.
        for one in
            [member(1, 11, None), member(2, 12, Some(13)), member(3, 12, None), member(4, 12, None)]
        {
            if one.was.member < 4 {
                let setup = CallSetup { started: at(1), ..setup(one.was.member.into()) };
                assert!(store.calls().begin(CallStart::of(&setup, "node"), &setup, at(101)));
                store.calls().set_answered(setup.call, at(4));
            }
            store.rooms().put_member(room().id, one);
        }
        store.calls().heartbeat("node", at(107));
        store.flush().await;
        // The process that died had already written this callback.
        let calls = store.calls().orphans("node").await.unwrap();
        let calls = calls.into_iter().map(|call| (call.start.call, call)).collect();
        let orphan = store.rooms().orphans("node").await.unwrap().remove(0);
        let (_, exit) = end_callbacks(&orphan, "node", ended(&orphan), &calls).remove(0);
        let earlier = NewCallback { event_id: exit_id(&exit), ..callback(1, exit) };
        store.outbox().insert(earlier).await.unwrap();
        for _ in 0..2 {
            let rooms = Rooms::silent(Clock::real());
            rooms
                .recover_and_store(&store, "node", &BTreeSet::new(), |_, _| "app".to_owned())
                .await
                .unwrap();
            let shown = rooms.ended(&Scope::Main("MAXXXXXXXXXXXXXXXXXX".into()));
            let [one] = shown.as_slice() else { panic!("{shown:?}") };
            assert_eq!((one.id, one.ended, one.failed), (room().id, Some(at(17)), true));
            let left =
                |was: &MemberView| was.left.as_ref().map(|left| (left.at, left.cause.clone()));
            let died = Some((at(17), "Internal Error".to_owned()));
            let first = Some((at(13), "Left Alone".to_owned()));
            assert_eq!(
                one.left.iter().map(left).collect::<Vec<_>>(),
                [died.clone(), first, died.clone(), died]
            );
            let other = rooms.ended(&Scope::Main(AuthId::from("MAYYYYYYYYYYYYYYYYYY")));
            assert!(other.is_empty(), "it is its account's alone");
        }
        // `due` returns the first waiting callback per call and URL, and the end waits for all of
        // them.
        let mut reported = Vec::new();
        loop {
            let due = store
                .outbox()
                .due("node", "app", Timestamp::from_secs(i64::from(u32::MAX)), 9)
                .await
                .unwrap();
            if due.is_empty() {
                break;
            }
            for Callback { row, new, .. } in due {
                let of = |name| new.notice.params.get(name).map_or("", Param::reveal).to_owned();
                let what =
                    ["EventName", "MemberID", "EventTimestamp", "MPCDuration", "MPCBilledDuration"]
                        .map(of);
                reported.push((new.call.0.as_u128(), new.notice.url.0.to_string(), what));
                let settled = DeliveryOutcome::Delivered;
                let done = Settlement {
                    row,
                    attempts: 1,
                    at: at(200),
                    outcome: settled,
                    last: String::new(),
                };
                store.outbox().settle(done).await.unwrap();
            }
        }
        let exit = |n: u128| {
            let what = ["ParticipantExit", &n.to_string(), "1970-01-01 00:00:17.000000", "", ""]
                .map(str::to_owned);
            (n, "https://app.example.com/exit".to_owned(), what)
        };
        let over = |url: &str| {
            let what = ["MPCEnd", "", "1970-01-01 00:00:17.000000", "7", "7"].map(str::to_owned);
            (3, url.to_owned(), what)
        };
        let expected = [
            exit(1),
            exit(3),
            over("https://other.example.com/end"),
            over("https://app.example.com/exit"),
        ];
        assert_eq!(reported, expected);
    }

    fn callback(call: u128, notice: CallbackRequest) -> NewCallback {
        let setup = setup(call);
        NewCallback {
            event_id: Uuid::from_u128(1),
            call: setup.call,
            account: setup.account,
            main_account: setup.parent_account,
            node_id: "node".to_owned(),
            origin: "app".to_owned(),
            notice,
            number_event: None,
            shut: None,
            created: at(150),
        }
    }
}
