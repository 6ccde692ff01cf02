//! The state of a room: its members, who may speak and hear, whether it has started, and the
//! consequences when a member joins, leaves or receives a command
//! (`docs/reference/xml.md#conference`).
//!
//! This module has no I/O. Changes return [`Effect`]s, which the parent module executes. Audio,
//! names and time are handled elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use machine::{LeaveReason, MemberId, Role, RoomEntry, RoomEvent};
use media::{Listeners, MemberAudio};
use xml::ast::Target;

/// Maximum number of URLs that are notified of the room's end.
const END_CALLBACKS_MAX: usize = 32;

/// A consequence of a change.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Effect {
    /// Sends an event to a member's machine.
    Tell(MemberId, RoomEvent),
    /// Changes a member's audio in the mix.
    Part(MemberId, MemberAudio),
}

/// State of a member.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) entry: RoomEntry,
    pub(super) muted: bool,
    pub(super) deaf: bool,
    pub(super) held: bool,
    pub(super) coaches: bool,
    /// Whether the member waits for the room or an agent.
    waits: bool,
    /// The reason for which the member must leave, once that is decided. The member then no longer
    /// counts as a participant.
    pub(super) out: Option<LeaveReason>,
    /// Whether another member was present at the same time. Only such a member can be left alone.
    had_company: bool,
    part: MemberAudio,
}

/// The state of a room. See the module documentation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Room {
    pub(super) id: Uuid,
    pub(super) started: bool,
    /// Whether all members have been asked to leave. New calls then join a new room.
    pub(super) ending: bool,
    /// Maximum duration in milliseconds, set by the first member.
    lasts_ms: Option<u64>,
    /// URLs to notify of the room's end, without duplicates.
    #[serde(rename = "told")]
    end_callbacks: Vec<Target>,
    members: BTreeMap<MemberId, Member>,
}

/// Result of joining.
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
            end_callbacks: Vec::new(),
            members: BTreeMap::new(),
        }
    }

    /// Looks up a member, including one that must leave.
    pub(super) fn any_member(&self, id: MemberId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// The members that need not leave.
    pub(super) fn present(&self) -> impl Iterator<Item = (MemberId, &Member)> {
        self.members
            .iter()
            .filter(|(_, member)| member.out.is_none())
            .map(|(id, member)| (*id, member))
    }

    pub(super) fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.get(&id).filter(|member| member.out.is_none())
    }

    /// Returns a member's audio in the mix.
    pub(super) fn part_of(&self, id: MemberId) -> Option<MemberAudio> {
        self.members.get(&id).map(|member| member.part)
    }

    /// Whether the room has no members at all.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Adds a member unless the room is full. `age` is that of the room.
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
            entry.end_callback.clone().filter(|target| !self.end_callbacks.contains(target))
        {
            // The first URLs win if there are too many.
            if self.end_callbacks.len() < END_CALLBACKS_MAX {
                self.end_callbacks.push(target);
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
                listeners: Listeners::Nobody,
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

    /// Removes a member. Returns the effects and whether it was the last, or `None` if it was not
    /// in the room.
    pub(super) fn leave(&mut self, id: MemberId) -> Option<(Vec<Effect>, bool)> {
        let gone = self.members.remove(&id)?;
        let mut effects = Vec::new();
        if gone.entry.end_on_exit && !self.ending {
            effects.extend(self.end(LeaveReason::Ended));
        }
        effects.extend(self.settled());
        Some((effects, self.members.is_empty()))
    }

    /// Returns the duration of a room of this age, cut to its maximum. Its end may be noticed late.
    pub(super) fn lasted(&self, age: Duration) -> Duration {
        self.lasts_ms.map_or(age, |ms| age.min(Duration::from_millis(ms)))
    }

    /// The URLs to notify of the room's end.
    pub(super) fn end_callbacks(&self) -> &[Target] {
        &self.end_callbacks
    }

    /// Takes the URLs to notify of the room's end.
    pub(super) fn take_end_callbacks(&mut self) -> Vec<Target> {
        std::mem::take(&mut self.end_callbacks)
    }

    /// Asks all members to leave.
    pub(super) fn end(&mut self, why: LeaveReason) -> Vec<Effect> {
        self.ending = true;
        let all: Vec<MemberId> = self.present().map(|(id, _)| id).collect();
        all.into_iter().flat_map(|id| self.send_out(id, why)).collect()
    }

    /// Asks one member to leave. Other members may have to leave as a consequence.
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

    /// Starts the room on request.
    pub(super) fn start(&mut self) -> Vec<Effect> {
        if std::mem::replace(&mut self.started, true) {
            return Vec::new();
        }
        let mut effects = self.settled();
        // Exactly one member notifies the application.
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

    /// Whether a present member's entry starts the room.
    fn ought_to_start(&self) -> bool {
        let alone = self.present().count() < 2;
        self.present().any(|(_, member)| {
            member.entry.start_on_enter && !(alone && member.entry.needs_company)
        })
    }

    /// Whether a member may take part in the conversation now.
    fn may_begin(&self, id: MemberId) -> bool {
        let agent_is_in = self.present().any(|(_, member)| is_agent(&member.entry));
        self.member(id)
            .is_some_and(|member| self.started && (agent_is_in || !member.entry.waits_for_agent))
    }

    /// Computes the consequences of any change: members that begin or wait, a member that is left
    /// alone, and changes of the mix.
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

    /// Returns a member's audio if it has changed.
    fn part(&mut self, id: MemberId) -> Option<Effect> {
        let coaches_are_recorded = self.present().any(|(_, member)| member.entry.record_coach);
        let member = self.members.get_mut(&id)?;
        let takes_part = member.out.is_none() && !member.waits && !member.held;
        let listeners = match (takes_part && !member.muted, member.coaches) {
            (false, _) => Listeners::Nobody,
            (true, false) => Listeners::Everyone,
            (true, true) => Listeners::Agents,
        };
        let part = MemberAudio {
            listeners,
            hears_room: takes_part && !member.deaf,
            agent: is_agent(&member.entry),
            recorded: listeners != Listeners::Agents || coaches_are_recorded,
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
