//! Table tests of a room's rules and a property test of its invariants.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use uuid::Uuid;

use super::{Effect, Room};
use machine::{LeaveReason, MemberId, Role, RoomEntry, RoomEvent, RoomKind};
use media::{Listeners, MemberAudio};
use model::Method;
use xml::ast::{DocUrl, Target};

fn entry() -> RoomEntry {
    RoomEntry {
        kind: RoomKind::Conference,
        name: "room".to_owned(),
        muted: false,
        held: false,
        start_on_enter: true,
        needs_company: false,
        end_on_exit: false,
        stay_alone: true,
        max_members: 20,
        waits_for_agent: false,
        report_floor: false,
        report_speech: false,
        report_audio: false,
        end_callback: None,
        exit_callback: None,
        role: None,
        coaching: false,
        record_coach: false,
        track: false,
        max_duration_ms: None,
    }
}

impl Room {
    fn comes(&mut self, member: MemberId, entry: RoomEntry) -> super::Entered {
        self.enter(member, entry, Duration::ZERO)
    }
}

fn room() -> Room {
    Room::new(Uuid::from_u128(7))
}

/// Events and audio changes of these effects.
fn events(effects: &[Effect]) -> Vec<(MemberId, RoomEvent)> {
    let tell = |effect: &Effect| match effect {
        Effect::Tell(member, news) => Some((*member, news.clone())),
        Effect::Part(..) => None,
    };
    effects.iter().filter_map(tell).collect()
}

fn parts(effects: &[Effect]) -> Vec<(MemberId, Listeners, bool)> {
    let part = |effect: &Effect| match effect {
        Effect::Part(member, part) => Some((*member, part.listeners, part.hears_room)),
        Effect::Tell(..) => None,
    };
    effects.iter().filter_map(part).collect()
}

fn entered(member: MemberId, first: bool, begins: bool, starts: bool) -> (MemberId, RoomEvent) {
    (
        member,
        RoomEvent::Entered {
            room: Uuid::from_u128(7),
            member,
            first,
            active: begins,
            starts_room: starts,
            room_left_ms: None,
        },
    )
}

#[test]
fn the_first_member_starts_the_room_and_all_hear_each_other() {
    let mut room = room();
    let first = room.comes(1, entry());
    assert_eq!(events(&first.effects), [entered(1, true, true, true)]);
    assert_eq!(parts(&first.effects), [(1, Listeners::Everyone, true)]);
    let second = room.comes(2, RoomEntry { muted: true, ..entry() });
    assert_eq!(events(&second.effects), [entered(2, false, true, false)]);
    assert_eq!(parts(&second.effects), [(2, Listeners::Nobody, true)]);
    let (effects, last) = room.leave(1).expect("it was in");
    assert!(effects.is_empty() && !last);
    assert_eq!(room.leave(2).map(|(_, last)| last), Some(true));
    assert!(room.leave(2).is_none() && room.is_empty());
}

#[test]
fn every_end_callback_is_kept_whichever_member_leaves_last() {
    let at = |url: &str| Some(Target { url: DocUrl(url.into()), method: Method::Post });
    let mut room = room();
    for (member, end_callback) in
        [(1, at("https://a")), (2, at("https://b")), (3, at("https://a")), (4, None)]
    {
        room.comes(member, RoomEntry { end_callback, ..entry() });
    }
    for member in 1..=4 {
        assert_eq!(room.leave(member).map(|(_, last)| last), Some(member == 4));
    }
    assert_eq!(
        room.take_end_callbacks().into_iter().map(Some).collect::<Vec<_>>(),
        [at("https://a"), at("https://b")]
    );
    assert!(room.take_end_callbacks().is_empty());
    for n in 0..100 {
        room.comes(n, RoomEntry { end_callback: at(&format!("https://{n}")), ..entry() });
        room.leave(n);
    }
    assert_eq!(room.take_end_callbacks().len(), 32, "bounded");
}

#[test]
fn a_room_lasts_no_longer_than_its_maximum() {
    let mut room = room();
    room.comes(1, RoomEntry { max_duration_ms: Some(300_000), ..entry() });
    room.comes(2, RoomEntry { max_duration_ms: Some(600_000), ..entry() });
    for (age_ms, lasted_ms) in [(299_999, 299_999), (300_000, 300_000), (300_002, 300_000)] {
        assert_eq!(room.lasted(Duration::from_millis(age_ms)), Duration::from_millis(lasted_ms));
    }
    assert_eq!(
        super::Room::new(Uuid::from_u128(7)).lasted(Duration::MAX),
        Duration::MAX,
        "a conference"
    );
}

#[test]
fn members_wait_until_one_that_starts_the_room_joins() {
    let mut room = room();
    let waiting = RoomEntry { start_on_enter: false, ..entry() };
    assert_eq!(events(&room.comes(1, waiting.clone()).effects), [entered(1, true, false, false)]);
    assert!(
        parts(&room.comes(2, waiting).effects).is_empty(),
        "they neither say nor hear anything"
    );
    let third = room.comes(3, entry());
    assert_eq!(
        events(&third.effects),
        [
            entered(3, false, true, true),
            (1, RoomEvent::Active { starts_room: false }),
            (2, RoomEvent::Active { starts_room: false })
        ]
    );
    assert_eq!(parts(&third.effects).len(), 3);
    // Started over REST: exactly one member is asked to notify the application.
    let mut other = super::Room::new(Uuid::from_u128(7));
    other.comes(1, RoomEntry { start_on_enter: false, ..entry() });
    other.comes(2, RoomEntry { start_on_enter: false, ..entry() });
    let started = events(&other.start());
    assert_eq!(
        started,
        [
            (1, RoomEvent::Active { starts_room: true }),
            (2, RoomEvent::Active { starts_room: false })
        ]
    );
    assert!(other.start().is_empty());
}

#[test]
fn a_full_room_refuses_members_until_one_leaves() {
    let mut room = room();
    let small = RoomEntry { max_members: 1, ..entry() };
    assert!(room.comes(1, small.clone()).is_in);
    let refused = room.comes(2, small.clone());
    assert!(!refused.is_in);
    assert_eq!(events(&refused.effects), [(2, RoomEvent::Full { room: Uuid::from_u128(7) })]);
    assert!(room.comes(3, RoomEntry { max_members: 2, ..entry() }).is_in, "each by its own word");
    room.kick(1);
    room.kick(3);
    assert!(room.comes(4, small).is_in, "those on their way out count no longer");
}

#[test]
fn the_room_ends_with_a_moderator_and_a_lone_member_leaves() {
    let mut room = room();
    room.comes(1, RoomEntry { end_on_exit: true, ..entry() });
    room.comes(2, entry());
    room.comes(3, entry());
    let (effects, last) = room.leave(1).expect("it was in");
    assert!(!last && room.ending);
    assert_eq!(
        events(&effects),
        [2, 3].map(|member| (member, RoomEvent::MustLeave { reason: LeaveReason::Ended }))
    );
    assert_eq!(parts(&effects), [(2, Listeners::Nobody, false), (3, Listeners::Nobody, false)]);
    assert_eq!(room.leave(2).map(|(effects, last)| (effects.len(), last)), Some((0, false)));
    assert_eq!(room.leave(3).map(|(_, last)| last), Some(true));

    let mut room = super::Room::new(Uuid::from_u128(7));
    room.comes(1, RoomEntry { stay_alone: false, ..entry() });
    assert!(events(&room.kick(9)).is_empty(), "the first to come is alone by its own will");
    room.comes(2, entry());
    let (effects, _) = room.leave(2).expect("it was in");
    assert_eq!(events(&effects), [(1, RoomEvent::MustLeave { reason: LeaveReason::Alone })]);
}

#[test]
fn a_member_that_needs_company_does_not_start_a_room_alone() {
    let starts = |effects: &[Effect]| {
        events(effects)
            .iter()
            .any(|(_, news)| matches!(news, RoomEvent::Entered { starts_room: true, .. }))
    };
    let mut room = super::Room::new(Uuid::from_u128(7));
    let first = room.comes(1, RoomEntry { needs_company: true, ..entry() });
    assert!(!starts(&first.effects) && !room.started);
    // The first member's entry starts the room, not the second's.
    let second = room.comes(2, RoomEntry { start_on_enter: false, ..entry() });
    assert!(starts(&second.effects) && room.started);
    assert!(events(&second.effects).contains(&(1, RoomEvent::Active { starts_room: false })));
    room.leave(2);
    assert!(room.started, "one who is left goes on");
}

#[test]
fn coaches_are_recorded_while_a_member_requests_it() {
    let mut room = room();
    let recorded = |effects: &[Effect]| -> Vec<(MemberId, bool)> {
        let parts = effects.iter().filter_map(|effect| match effect {
            Effect::Part(member, part) => Some((*member, part.recorded)),
            Effect::Tell(..) => None,
        });
        parts.collect()
    };
    let coach = RoomEntry { role: Some(Role::Supervisor), coaching: true, ..entry() };
    assert_eq!(recorded(&room.comes(1, coach).effects), [(1, false)]);
    let wants = RoomEntry { role: Some(Role::Agent), record_coach: true, ..entry() };
    assert_eq!(recorded(&room.comes(2, wants).effects), [(1, true), (2, true)]);
    assert_eq!(recorded(&room.leave(2).expect("it was in").0), [(1, false)]);
    assert_eq!(recorded(&room.coach(1, false)), [(1, true)], "who speaks to all always is");
}

#[test]
fn mute_deaf_hold_and_coaching_change_the_mix() {
    let mut room = room();
    let role = |role, coaches| RoomEntry { role: Some(role), coaching: coaches, ..entry() };
    room.comes(1, role(Role::Agent, false));
    room.comes(2, role(Role::Customer, false));
    let supervisor = room.comes(3, role(Role::Supervisor, true));
    assert_eq!(parts(&supervisor.effects), [(3, Listeners::Agents, true)]);
    let muted = room.mute(1, true);
    assert_eq!(
        (events(&muted), parts(&muted)),
        (vec![(1, RoomEvent::Muted { on: true })], vec![(1, Listeners::Nobody, true)])
    );
    assert!(room.mute(1, true).is_empty(), "it is");
    assert_eq!(parts(&room.deafen(1, true)), [(1, Listeners::Nobody, false)]);
    let held = room.hold(2, true);
    assert_eq!(
        (events(&held), parts(&held)),
        (vec![(2, RoomEvent::Held { on: true })], vec![(2, Listeners::Nobody, false)])
    );
    assert_eq!(parts(&room.hold(2, false)), [(2, Listeners::Everyone, true)]);
    assert_eq!(parts(&room.coach(3, false)), [(3, Listeners::Everyone, true)]);
    room.kick(2);
    for effects in [
        room.mute(2, true),
        room.deafen(2, true),
        room.hold(2, true),
        room.kick(2),
        room.mute(99, true),
    ] {
        assert!(effects.is_empty(), "{effects:?}");
    }
}

#[test]
fn a_customer_waits_for_an_agent_and_again_when_the_last_has_gone() {
    let mut room = room();
    let customer = RoomEntry { role: Some(Role::Customer), waits_for_agent: true, ..entry() };
    assert_eq!(events(&room.comes(1, customer).effects), [entered(1, true, false, true)]);
    let agent = room.comes(2, RoomEntry { role: Some(Role::Agent), ..entry() });
    assert_eq!(
        events(&agent.effects),
        [entered(2, false, true, false), (1, RoomEvent::Active { starts_room: false })]
    );
    let (effects, _) = room.leave(2).expect("it was in");
    assert_eq!(events(&effects), [(1, RoomEvent::Waiting)]);
    assert_eq!(parts(&effects), [(1, Listeners::Nobody, false)]);
}

#[derive(Clone, Debug)]
enum Pick {
    Enter { starts: bool, ends: bool, stays_alone: bool, max: u8 },
    Leave(u8),
    Kick(u8),
    Mute(u8, bool),
    Deaf(u8, bool),
    Hold(u8, bool),
    End,
    Start,
}

fn pick() -> impl Strategy<Value = Pick> {
    let who = || 0..6_u8;
    prop_oneof![
        6 => (any::<bool>(), prop::bool::weighted(0.2), any::<bool>(), 1..5_u8)
            .prop_map(|(starts, ends, stays_alone, max)| Pick::Enter { starts, ends, stays_alone, max }),
        4 => who().prop_map(Pick::Leave),
        1 => who().prop_map(Pick::Kick),
        2 => (who(), any::<bool>()).prop_map(|(who, on)| Pick::Mute(who, on)),
        2 => (who(), any::<bool>()).prop_map(|(who, on)| Pick::Deaf(who, on)),
        2 => (who(), any::<bool>()).prop_map(|(who, on)| Pick::Hold(who, on)),
        1 => Just(Pick::End),
        1 => Just(Pick::Start),
    ]
}

proptest! { /// A member is neither heard nor hears others while it is muted, held, deaf, waiting or leaving.
/// Each member is told to leave at most once, and only the last one to leave is reported as last.
#[test]
    fn room_invariants_hold(picks in prop::collection::vec(pick(), 1..60)) {
        let mut room = room();
        let mut parts: BTreeMap<MemberId, MemberAudio> = BTreeMap::new();
        let (mut out, mut begun) = (BTreeSet::new(), BTreeSet::new());
        let (mut muted, mut deaf, mut held) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut members: Vec<MemberId> = Vec::new();
        let mut next = 1;
        for pick in picks {
            let at = |who: u8, members: &[MemberId]| members.get(usize::from(who)).copied().unwrap_or(999);
            let mark = |set: &mut BTreeSet<MemberId>, who: MemberId, on: bool| { if on { set.insert(who); } else { set.remove(&who); } };
            let effects = match pick {
                Pick::Enter { starts, ends, stays_alone, max } => {
                    let entered = room.comes(next, RoomEntry { start_on_enter: starts, end_on_exit: ends, stay_alone: stays_alone, max_members: max, ..entry() });
                    if entered.is_in {
                        members.push(next);
                    }
                    next += 1;
                    entered.effects
                }
                Pick::Leave(who) => {
                    let who = at(who, &members);
                    let left = room.leave(who);
                    prop_assert_eq!(left.is_some(), members.contains(&who));
                    members.retain(|member| *member != who);
                    if let Some((_, last)) = &left {
                        prop_assert_eq!(*last, members.is_empty());
                    }
                    parts.remove(&who);
                    left.map(|(effects, _)| effects).unwrap_or_default()
                }
                Pick::Kick(who) => room.kick(at(who, &members)),
                Pick::Mute(who, on) => {
                    let who = at(who, &members);
                    let counts = room.member(who).is_some();
                    if counts { mark(&mut muted, who, on); }
                    room.mute(who, on)
                }
                Pick::Deaf(who, on) => {
                    let who = at(who, &members);
                    if room.member(who).is_some() { mark(&mut deaf, who, on); }
                    room.deafen(who, on)
                }
                Pick::Hold(who, on) => {
                    let who = at(who, &members);
                    if room.member(who).is_some() { mark(&mut held, who, on); }
                    room.hold(who, on)
                }
                Pick::End => room.end(LeaveReason::Stopped),
                Pick::Start => room.start(),
            };
            for effect in effects {
                match effect {
                    Effect::Tell(who, RoomEvent::MustLeave { .. }) => prop_assert!(out.insert(who), "told twice"),
                    Effect::Tell(who, RoomEvent::Entered { active: true, .. } | RoomEvent::Active { .. }) => {
                        prop_assert!(begun.insert(who), "begun twice");
                    }
                    Effect::Tell(..) => {}
                    Effect::Part(who, part) => { parts.insert(who, part); }
                }
            }
            for (who, part) in &parts {
                let takes_part = begun.contains(who) && !out.contains(who) && !held.contains(who);
                prop_assert_eq!(part.listeners == Listeners::Everyone, takes_part && !muted.contains(who), "{} {:?}", who, part);
                prop_assert_eq!(part.hears_room, takes_part && !deaf.contains(who));
            }
        }
    }
}
