//! A document's `Conference` or `MultiPartyCall`: what the room tells, and what follows once it is left.

use super::super::desk::Desk;
use super::super::element::{Attended, Running};
use super::{Gate, Script, Step};
use crate::contract::RoomNews;

impl Script {
    /// The room tells something. One that has been left already has nothing to say.
    pub(super) fn room_told(&mut self, desk: &mut Desk, gate: Gate, news: &RoomNews) -> Step {
        let Running::Attending(attending) = &mut self.running else { return Step::Busy };
        let attended = attending.told(desk, gate, news);
        self.attended(desk, gate, attended)
    }

    pub(super) fn attended(&mut self, desk: &mut Desk, gate: Gate, attended: Attended) -> Step {
        match attended {
            Attended::More => Step::Busy,
            Attended::Over => {
                let step = self.end_attending(desk);
                self.go_on(desk, gate, step)
            }
        }
    }

    /// It is out of the room: `None` where the next element follows.
    fn end_attending(&mut self, desk: &mut Desk) -> Option<Step> {
        let Running::Attending(attending) = std::mem::replace(&mut self.running, Running::Nothing)
        else {
            return None;
        };
        let (outcome, note) = attending.went();
        self.end_place(desk, outcome, note);
        self.left_by = attending.cause();
        let action = attending.action(desk);
        self.acted(desk, action)
    }
}
