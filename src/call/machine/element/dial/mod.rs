//! `Dial`: other people are called, and one of them is brought together with the caller (`plivo-xml.md` §5.7, §6).
//!
//! This is the A-leg's side: which targets may be placed at all, what the application is told of each, and what became
//! of them together.

mod events;
mod target;

use super::Flow;
use crate::call::machine::desk::{Desk, Place};
use crate::call::machine::dial::DialError;
use crate::call::machine::{CallTime, InstructionOutcome, Params};
use crate::model::{CallUuid, HangupCause};
use crate::xml::ast::{Dial, Target};
use events::Happened;

/// A `Dial` being carried out.
pub(in crate::call::machine) struct Dialing {
    dial: Box<Dial>,
    legs: Vec<BLeg>,
    /// Of `legs`: who answered.
    winner: Option<usize>,
    /// Somebody's phone has rung.
    rang: bool,
    /// Of targets that were not placed.
    first_error: Option<DialError>,
    /// What the target ended with that was placed and ended last.
    last_end: Option<HangupCause>,
}

/// A target.
pub(super) struct BLeg {
    call: CallUuid,
    /// From 1.
    position: u8,
    from: String,
    to: String,
    begun: CallTime,
    answered: Option<CallTime>,
}

/// What became of a `Dial`.
pub(in crate::call::machine) enum Dialled {
    /// It goes on.
    #[allow(dead_code, reason = "no target is placed yet")]
    More,
    /// All its legs have ended.
    Over,
}

/// Begins: whoever may not be called is not.
pub(super) fn start(dial: &Dial, desk: &mut Desk, place: Place) -> Flow {
    let mut dialing = Dialing {
        dial: Box::new(dial.clone()),
        legs: Vec::with_capacity(dial.targets.len()),
        winner: None,
        rang: false,
        first_error: None,
        last_end: None,
    };
    for (position, target) in (1..).zip(&dial.targets) {
        let (from, to) = target::parties(dial, target, desk);
        let call = desk.next_leg();
        let leg = BLeg { call, position, from, to, begun: desk.now, answered: None };
        let error = match target::destination(desk, target, &leg.from) {
            Err(error) => error,
            Ok(target::Destination::Endpoint { .. }) => DialError::EndpointNotRegistered,
            Ok(target::Destination::Whatsapp { .. }) => return super::not_built(desk, place),
        };
        dialing.not_placed(desk, &leg, error, "");
        dialing.legs.push(leg);
    }
    Flow::Dial(Box::new(dialing))
}

impl Dialing {
    /// Whether it is over already.
    pub(in crate::call::machine) fn begin(&mut self) -> Dialled {
        Dialled::Over
    }

    /// A target is not placed: said plainly, and told as its hangup.
    fn not_placed(&mut self, desk: &mut Desk, leg: &BLeg, error: DialError, detail: &str) {
        let (position, why) = (leg.position, if detail.is_empty() { error.why() } else { detail });
        let to = shown(&leg.to);
        desk.remark(format!("Dial: target {position}, {to}, is not called: {}: {why}", error.as_str()));
        self.first_error.get_or_insert(error);
        self.tell(desk, leg, Happened::Hangup { cause: error.cause(), error: Some(error) });
    }

    /// `DialStatus`, and the cause behind it.
    fn status(&self) -> (&'static str, HangupCause) {
        match (self.winner, self.last_end, self.first_error) {
            (Some(_), cause, _) => ("completed", cause.unwrap_or(HangupCause::DialEnded)),
            (None, Some(cause), _) => (cause.wire(crate::model::Direction::Outbound).unanswered_status(), cause),
            (None, None, Some(error)) => ("failed", error.cause()),
            (None, None, None) => ("failed", HangupCause::InternalError),
        }
    }

    /// The first error, where no target was placed.
    fn failed_before_placing(&self) -> Option<DialError> {
        self.first_error.filter(|_| self.winner.is_none() && self.last_end.is_none())
    }

    /// How the instruction went.
    pub(in crate::call::machine) fn went(&self) -> (InstructionOutcome, &'static str) {
        match self.failed_before_placing() {
            Some(error) => (InstructionOutcome::Failed, error.as_str()),
            None => (InstructionOutcome::Done, self.status().0),
        }
    }

    /// Where the outcome goes: the URL, whether its document runs next, and what is told.
    pub(in crate::call::machine) fn action(&self, desk: &Desk) -> Option<(Target, bool, Params)> {
        let action = self.dial.action.clone()?;
        Some((action, self.dial.redirect, self.outcome(desk)))
    }
}

/// A target in the log: people by their last four digits.
fn shown(to: &str) -> String {
    if to.bytes().all(|b| b.is_ascii_digit()) {
        format!("…{}", crate::model::last_four(to))
    } else {
        super::super::desk::foreign(to)
    }
}
