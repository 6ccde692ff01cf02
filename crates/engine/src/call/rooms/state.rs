//! A room as a value: who is in, who may speak and hear, whether it has started, and what follows when somebody comes, goes
//! or is asked for something (`plivo-xml.md` §5.9, §5.10).
//!
//! Pure: what is to be done comes out as [`Effect`]s, which `super` carries out. Sound, names and time are elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use machine::{LeaveReason, MemberId, Role, RoomEntry, RoomEvent};
use media::{HeardBy, MemberAudio};
use xml::ast::Target;

/// So many addresses are told that a room is over.
const TOLD_MAX: usize = 32;

/// What follows from a change.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Effect {
    /// A member's machine is told.
    Tell(MemberId, RoomEvent),
    /// What a member says and hears, from now on.
    Part(MemberId, MemberAudio),
}

/// A member as the room knows it.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) entry: RoomEntry,
    pub(super) muted: bool,
    pub(super) deaf: bool,
    pub(super) held: bool,
    pub(super) coaches: bool,
    /// It does not take part yet.
    waits: bool,
    /// It was told to leave, and counts no longer.
    pub(super) out: Option<LeaveReason>,
    /// Others have been in with it: from then on it can be left alone.
    had_company: bool,
    part: MemberAudio,
}

/// See the module's note.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) id: Uuid,
    pub(super) started: bool,
    /// Everybody was told to leave: whoever comes now comes to another room.
    pub(super) ending: bool,
    /// How long it may be there, in milliseconds, as the first member said.
    lasts_ms: Option<u64>,
    /// Where those who were in want to hear that the room is over, each address once.
    told: Vec<Target>,
    members: BTreeMap<MemberId, Member>,
}

/// How an entry went.
#[derive(Debug)]
pub(super) struct Entered {
    pub(super) effects: Vec<Effect>,
    pub(super) is_in: bool,
}

impl Room {
    pub(super) fn new(id: Uuid) -> Self {
        Self {
            id,
            started: false,
            ending: false,
            lasts_ms: None,
            told: Vec::new(),
            members: BTreeMap::new(),
        }
    }

    /// One that is in, be it on its way out.
    pub(super) fn any_member(&self, id: MemberId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// Those who are in and were not told to leave.
    pub(super) fn present(&self) -> impl Iterator<Item = (MemberId, &Member)> {
        self.members
            .iter()
            .filter(|(_, member)| member.out.is_none())
            .map(|(id, member)| (*id, member))
    }

    pub(super) fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.get(&id).filter(|member| member.out.is_none())
    }

    /// What a member says and hears now.
    pub(super) fn part_of(&self, id: MemberId) -> Option<MemberAudio> {
        self.members.get(&id).map(|member| member.part)
    }

    /// Nobody is in, nobody on the way out.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// A call comes in, unless the room is full. `age`: how long the room has been there.
    pub(super) fn enter(&mut self, id: MemberId, entry: RoomEntry, age: Duration) -> Entered {
        if self.present().count() >= usize::from(entry.max_members) {
            return Entered {
                effects: vec![Effect::Tell(id, RoomEvent::Full { room: self.id })],
                is_in: false,
            };
        }
        let first = self.members.is_empty();
        if first {
            self.lasts_ms = entry.max_duration_ms;
        }
        if let Some(target) =
            entry.end_callback.clone().filter(|target| !self.told.contains(target))
        {
            // Who came first is told, should calls without end come with addresses without end.
            if self.told.len() < TOLD_MAX {
                self.told.push(target);
            }
        }
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let room_left_ms = self.lasts_ms.map(|ms| ms.saturating_sub(age_ms));
        let member = Member {
            muted: entry.muted,
            deaf: false,
            held: entry.held,
            coaches: entry.coaching,
            waits: true,
            out: None,
            had_company: false,
            part: MemberAudio {
                heard_by: HeardBy::Nobody,
                hears_room: false,
                agent: is_agent(&entry),
                recorded: true,
            },
            entry,
        };
        self.members.insert(id, member);
        let company = self.present().count() > 1;
        if company {
            self.members
                .values_mut()
                .filter(|member| member.out.is_none())
                .for_each(|member| member.had_company = true);
        }
        let starts = !self.started && self.ought_to_start();
        self.started |= starts;
        let begins = self.may_begin(id);
        if let Some(member) = self.members.get_mut(&id) {
            member.waits = !begins;
        }
        let room = self.id;
        let news = RoomEvent::Entered {
            room,
            member: id,
            first,
            active: begins,
            starts_room: starts,
            room_left_ms,
        };
        let mut effects = vec![Effect::Tell(id, news)];
        effects.extend(self.settled());
        Entered { effects, is_in: true }
    }

    /// A member has gone. Gives what follows, and whether it was the last; none: it was not in.
    pub(super) fn leave(&mut self, id: MemberId) -> Option<(Vec<Effect>, bool)> {
        let gone = self.members.remove(&id)?;
        let mut effects = Vec::new();
        if gone.entry.end_on_exit && !self.ending {
            effects.extend(self.end(LeaveReason::Ended));
        }
        effects.extend(self.settled());
        Some((effects, self.members.is_empty()))
    }

    /// How long it has been there, `age` after it was made: no longer than it may, however late somebody notices.
    pub(super) fn lasted(&self, age: Duration) -> Duration {
        self.lasts_ms.map_or(age, |ms| age.min(Duration::from_millis(ms)))
    }

    /// Where it will be to be said that the room is over.
    pub(super) fn told(&self) -> &[Target] {
        &self.told
    }

    /// Where it is to be said that the room is over, once.
    pub(super) fn take_told(&mut self) -> Vec<Target> {
        std::mem::take(&mut self.told)
    }

    /// All are to leave.
    pub(super) fn end(&mut self, why: LeaveReason) -> Vec<Effect> {
        self.ending = true;
        let all: Vec<MemberId> = self.present().map(|(id, _)| id).collect();
        all.into_iter().flat_map(|id| self.send_out(id, why)).collect()
    }

    /// One is to leave, and the others may have to follow.
    pub(super) fn kick(&mut self, id: MemberId) -> Vec<Effect> {
        let mut effects = self.send_out(id, LeaveReason::Kicked);
        effects.extend(self.settled());
        effects
    }

    fn send_out(&mut self, id: MemberId, why: LeaveReason) -> Vec<Effect> {
        let Some(member) = self.members.get_mut(&id).filter(|member| member.out.is_none()) else {
            return Vec::new();
        };
        member.out = Some(why);
        let mut effects = vec![Effect::Tell(id, RoomEvent::MustLeave { reason: why })];
        effects.extend(self.part(id));
        effects
    }

    /// The room starts, by somebody's word.
    pub(super) fn start(&mut self) -> Vec<Effect> {
        if std::mem::replace(&mut self.started, true) {
            return Vec::new();
        }
        let mut effects = self.settled();
        // One of them tells the application.
        let first = effects.iter_mut().find_map(|effect| match effect {
            Effect::Tell(_, RoomEvent::Active { starts_room: starts }) => Some(starts),
            Effect::Tell(..) | Effect::Part(..) => None,
        });
        if let Some(starts) = first {
            *starts = true;
        }
        effects
    }

    pub(super) fn mute(&mut self, id: MemberId, on: bool) -> Vec<Effect> {
        self.change(id, RoomEvent::Muted { on }, |member| {
            std::mem::replace(&mut member.muted, on) != on
        })
    }

    pub(super) fn deafen(&mut self, id: MemberId, on: bool) -> Vec<Effect> {
        let Some(member) = self.members.get_mut(&id).filter(|member| member.out.is_none()) else {
            return Vec::new();
        };
        member.deaf = on;
        self.part(id).into_iter().collect()
    }

    pub(super) fn hold(&mut self, id: MemberId, on: bool) -> Vec<Effect> {
        self.change(id, RoomEvent::Held { on }, |member| {
            std::mem::replace(&mut member.held, on) != on
        })
    }

    pub(super) fn coach(&mut self, id: MemberId, on: bool) -> Vec<Effect> {
        self.change(id, RoomEvent::Coaching { on }, |member| {
            std::mem::replace(&mut member.coaches, on) != on
        })
    }

    fn change(
        &mut self,
        id: MemberId,
        news: RoomEvent,
        change: impl FnOnce(&mut Member) -> bool,
    ) -> Vec<Effect> {
        let Some(member) = self.members.get_mut(&id).filter(|member| member.out.is_none()) else {
            return Vec::new();
        };
        if !change(member) {
            return Vec::new();
        }
        let mut effects = vec![Effect::Tell(id, news)];
        effects.extend(self.part(id));
        effects
    }

    /// Whether somebody is in with whom the room starts.
    fn ought_to_start(&self) -> bool {
        let alone = self.present().count() < 2;
        self.present().any(|(_, member)| {
            member.entry.start_on_enter && !(alone && member.entry.needs_company)
        })
    }

    /// Whether a member may take part now.
    fn may_begin(&self, id: MemberId) -> bool {
        let agent_is_in = self.present().any(|(_, member)| is_agent(&member.entry));
        self.member(id)
            .is_some_and(|member| self.started && (agent_is_in || !member.entry.waits_for_agent))
    }

    /// After any change: who begins or waits, who has been left alone, and everybody's part in the mix.
    fn settled(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        let present: Vec<MemberId> = self.present().map(|(id, _)| id).collect();
        if let [alone] = present.as_slice()
            && self
                .members
                .get(alone)
                .is_some_and(|member| member.had_company && !member.entry.stay_alone)
        {
            effects.extend(self.send_out(*alone, LeaveReason::Alone));
        }
        for id in present {
            let begins = self.may_begin(id);
            if let Some(member) = self
                .members
                .get_mut(&id)
                .filter(|member| member.out.is_none() && member.waits == begins)
            {
                member.waits = !begins;
                let news = if begins {
                    RoomEvent::Active { starts_room: false }
                } else {
                    RoomEvent::Waiting
                };
                effects.push(Effect::Tell(id, news));
            }
            effects.extend(self.part(id));
        }
        effects
    }

    /// A member's part in the mix, where it has changed.
    fn part(&mut self, id: MemberId) -> Option<Effect> {
        let coaches_are_recorded = self.present().any(|(_, member)| member.entry.record_coach);
        let member = self.members.get_mut(&id)?;
        let takes_part = member.out.is_none() && !member.waits && !member.held;
        let heard_by = match (takes_part && !member.muted, member.coaches) {
            (false, _) => HeardBy::Nobody,
            (true, false) => HeardBy::Everyone,
            (true, true) => HeardBy::Agents,
        };
        let part = MemberAudio {
            heard_by,
            hears_room: takes_part && !member.deaf,
            agent: is_agent(&member.entry),
            recorded: heard_by != HeardBy::Agents || coaches_are_recorded,
        };
        (std::mem::replace(&mut member.part, part) != part).then_some(Effect::Part(id, part))
    }
}

fn is_agent(entry: &RoomEntry) -> bool {
    matches!(entry.role, Some(Role::Agent | Role::AiAgent))
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
