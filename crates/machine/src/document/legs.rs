//! A document and other legs: those that its `Dial` makes, and the one that made this call.

use super::super::desk::Desk;
use super::super::element::{Dialled, Running};
use super::{Gate, Script, Step};
use crate::contract::{Command, LegNews, LegWish, Output};
use model::CallUuid;
use xml::ast::Target;

impl Script {
    /// The leg that this call dialled, once it has answered.
    pub(crate) fn b_leg(&self) -> Option<CallUuid> {
        match &self.running {
            Running::Dialing(dialing) => dialing.b_leg(),
            _ => None,
        }
    }

    /// Asks that leg for something, if there is one.
    pub(crate) fn ask_leg(&self, desk: &mut Desk, command: Command) {
        if let Some(call) = self.b_leg() {
            desk.wish(Output::Order { call, leg: LegWish::Ask { command: Box::new(command) } });
        }
    }

    /// That leg gets a document of its own and is no longer this call's. `false`: there is none.
    pub(crate) fn transfer_leg(&mut self, desk: &mut Desk, target: Target) -> bool {
        if self.b_leg().is_none() {
            return false;
        }
        self.ask_leg(desk, Command::Transfer { aleg: Some(target), bleg: None });
        if let Running::Dialing(dialing) = &mut self.running {
            dialing.leave(desk);
        }
        true
    }

    /// A B-leg tells something.
    pub(super) fn told(
        &mut self,
        desk: &mut Desk,
        gate: Gate,
        call: CallUuid,
        news: LegNews,
    ) -> Step {
        let Running::Dialing(dialing) = &mut self.running else { return Step::Busy };
        let dialled = dialing.told(desk, gate, call, news);
        self.took_time |= dialing.wants_media();
        self.tape_goes(desk, gate);
        self.dialled(desk, gate, dialled)
    }

    /// The A-leg wants something.
    pub(super) fn ordered(&mut self, desk: &mut Desk, gate: Gate, wish: &LegWish) -> Step {
        match (wish, &mut self.running) {
            (LegWish::HangUp { cause }, _) => return Step::End(*cause),
            (wish, Running::Called(callee)) => callee.ordered(desk, gate, wish),
            _ => {}
        }
        Step::Busy
    }

    /// Something has happened to a leg that waits: where it was to confirm that somebody is there and has, its document runs.
    pub(super) fn called_on(&mut self, desk: &mut Desk, gate: Gate) -> Step {
        let Running::Called(callee) = &mut self.running else { return Step::Busy };
        match callee.confirmed() {
            Some(document) => self.load(desk, gate, document),
            None => Step::Busy,
        }
    }

    pub(super) fn dialled(&mut self, desk: &mut Desk, gate: Gate, dialled: Dialled) -> Step {
        match dialled {
            Dialled::More => Step::Busy,
            Dialled::Over => {
                let step = self.end_dial(desk);
                self.go_on(desk, gate, step)
            }
        }
    }

    /// A `Dial` is over: `None` where the next element follows.
    pub(super) fn end_dial(&mut self, desk: &mut Desk) -> Option<Step> {
        let Running::Dialing(dialing) = std::mem::replace(&mut self.running, Running::Nothing)
        else {
            return None;
        };
        let (outcome, note) = dialing.went();
        self.end_place(desk, outcome, note);
        let action = dialing.action(desk);
        self.acted(desk, action)
    }
}
