//! The states of a call and what each makes of every fact: the table of `meta-calling.md` §7.
//!
//! A state takes a fact and gives the state after it. What only one state knows lives in its variant, in a file of its
//! own; what a document does meanwhile is the [`Script`]'s business.

mod closing;
mod inbound;
mod live;
mod outbound;

use super::desk::Desk;
use super::document::Script;
use super::picture::{Sketch, word};
use super::timers::Timer;
use crate::contract::{CallState, GraphOutcome, Input, Termination};
use closing::{Closing, close};
use inbound::{Accepting, Preparing};
use live::Live;
use model::{CallType, HangupCause};
use outbound::{Calling, Unbound};

/// Where a call is.
pub(super) enum State {
    Calling(Calling),
    Unbound(Unbound),
    Preparing(Preparing),
    Accepting(Accepting),
    Live(Live),
    Closing(Closing),
    Over,
}

impl State {
    /// A user-initiated call begins.
    pub(super) fn offered(desk: &mut Desk) -> Self {
        Self::Preparing(Preparing::begin(desk))
    }

    /// A business-initiated call begins.
    pub(super) fn placed(desk: &mut Desk) -> Self {
        Self::Calling(Calling::begin(desk))
    }

    /// Takes in a fact. Timers come one by one through [`State::fired`].
    pub(super) fn take(self, desk: &mut Desk, fact: Input) -> Self {
        match self {
            Self::Calling(state) => state.take(desk, fact),
            Self::Unbound(state) => state.take(desk, fact),
            Self::Preparing(state) => state.take(desk, fact),
            Self::Accepting(state) => state.take(desk, fact),
            Self::Live(state) => state.take(desk, fact),
            Self::Closing(state) => state.take(desk, fact),
            // Late facts are normal, and mean nothing any more.
            Self::Over => Self::Over,
        }
    }

    /// A timer fired.
    pub(super) fn fired(self, desk: &mut Desk, timer: Timer) -> Self {
        match self {
            Self::Calling(state) => state.fired(desk, timer),
            Self::Unbound(state) => state.fired(desk, timer),
            Self::Preparing(state) => state.fired(desk, timer),
            Self::Accepting(state) => state.fired(desk, timer),
            Self::Live(state) => state.fired(desk, timer),
            Self::Closing(state) => state.fired(desk, timer),
            Self::Over => Self::Over,
        }
    }

    pub(super) fn name(&self) -> CallState {
        match self {
            Self::Calling(state) => state.name(),
            Self::Preparing(_) => CallState::Preparing,
            Self::Accepting(_) => CallState::Accepting,
            Self::Live(_) => CallState::Live,
            Self::Unbound(_) | Self::Closing(_) => CallState::Closing,
            Self::Over => CallState::Over,
        }
    }

    /// What only the state knows, and whether the slot is held: it is until Meta is done with the call.
    pub(super) fn draw(&self, desk: &Desk, sketch: &mut Sketch) {
        sketch.say("state", [word(self.name().as_str())]);
        let slot = match (desk.setup.call_type, self) {
            (CallType::Web, _) => "no_slot",
            (_, Self::Over) => "given_back",
            (_, Self::Unbound(state)) if state.is_in_doubt() => "given_back",
            _ => "held",
        };
        sketch.say("slot", [word(slot)]);
        match self {
            Self::Calling(state) => state.draw(sketch),
            Self::Unbound(state) => state.draw(sketch),
            Self::Preparing(state) => state.draw(desk, sketch),
            Self::Accepting(state) => state.draw(sketch),
            Self::Live(state) => state.draw(sketch),
            Self::Closing(_) => sketch.say("waits_for", [word("metas_goodbye")]),
            Self::Over => {}
        }
        if let Some(script) = self.script() {
            script.draw(sketch);
        }
    }

    /// The script, while there is one.
    pub(super) fn script(&self) -> Option<&Script> {
        match self {
            Self::Preparing(state) => Some(state.script()),
            Self::Accepting(state) => Some(state.script()),
            Self::Live(state) => Some(state.script()),
            Self::Calling(_) | Self::Unbound(_) | Self::Closing(_) | Self::Over => None,
        }
    }
}

/// Keeps what the terminate webhook said: Meta's duration stands beside ours.
fn note(desk: &mut Desk, termination: Termination) {
    desk.termination = Some(termination);
}

/// The call is over on both sides.
fn over(desk: &mut Desk, cause: HangupCause) -> State {
    desk.conclude(cause);
    gone(desk)
}

/// The same of a call whose record is closed already.
fn gone(desk: &mut Desk) -> State {
    desk.over();
    State::Over
}

/// `plivo-callbacks.md` §6.3: what it is called that Graph refused or failed.
fn graph_cause(outcome: &GraphOutcome) -> HangupCause {
    match outcome {
        // The number's call rate (`meta-calling.md` §4.6).
        GraphOutcome::RateLimited { code: 138_005 } => HangupCause::CpsExceeded,
        GraphOutcome::RateLimited { .. } => HangupCause::GraphRateLimited,
        GraphOutcome::Timeout | GraphOutcome::Unreachable => HangupCause::GraphTimeout,
        GraphOutcome::Done
        | GraphOutcome::Gone
        | GraphOutcome::Refused { .. }
        | GraphOutcome::ServerError { .. } => HangupCause::GraphError,
    }
}

fn describe(outcome: &GraphOutcome) -> String {
    match outcome {
        GraphOutcome::Done => "done".to_owned(),
        GraphOutcome::Gone => "Meta knows no such call".to_owned(),
        GraphOutcome::Refused { status, code, details } => {
            format!(
                "Graph refused it: {status}, code {code}, {}",
                crate::contract::display::foreign(details)
            )
        }
        GraphOutcome::RateLimited { code } => format!("Graph's rate limit, code {code}"),
        GraphOutcome::ServerError { status } => format!("Graph answered {status}"),
        GraphOutcome::Timeout => "Graph did not answer in time".to_owned(),
        GraphOutcome::Unreachable => "Graph could not be reached".to_owned(),
    }
}
