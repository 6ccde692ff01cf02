//! The machine of a call, and its states: the table of `meta-calling.md` §7.
//!
//! A state takes a fact and gives the state after it. What only one state knows lives in its variant, in a file of its
//! own; what a document does meanwhile is the [`Interpreter`]'s business.

mod closing;
mod inbound;
mod live;
mod outbound;

use std::borrow::Cow;

use crate::conclude::conclude;
use crate::context::{self, CallContext};
use crate::contract::display::foreign;
use crate::contract::{
    CallSetup, CallState, CallTime, FetchResponse, GraphOutcome, Input, Output, RecognitionId,
    RecordingId, Refusal, Termination,
};
use crate::interpreter::Interpreter;
use crate::snapshot::{Field, SnapshotBuilder, word};
use crate::timers::Timer;
use closing::{ClosingState, close};
use inbound::{AcceptingState, PreparingState};
use live::LiveState;
use model::{CallType, CallUuid, Digit, HangupCause};
use outbound::{CallingState, UnboundState};

/// One call's whole behaviour.
#[derive(Default)]
pub struct Machine {
    /// None until the first input.
    call: Option<Call>,
}

struct Call {
    ctx: CallContext,
    /// Always there but while a fact is taken in.
    state: Option<State>,
}

impl Machine {
    /// A machine that waits for its [`Input::Offered`] or [`Input::Placed`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in one fact. Afterwards call [`Machine::poll`] until it is empty.
    ///
    /// A time before the last one counts as the last one. Facts before the first and after `Over` are allowed
    /// and do nothing, as do facts about a fetch, play or request that nothing waits for any more.
    pub fn handle(&mut self, at: CallTime, input: Input) {
        match (&mut self.call, input) {
            (Some(call), input) => call.handle(at, input),
            (None, Input::Offered { setup }) => self.begin(at, setup, State::offered),
            (None, Input::Placed { setup }) => self.begin(at, setup, State::placed),
            (None, _) => {}
        }
        #[cfg(debug_assertions)]
        self.check_invariants();
    }

    fn begin(&mut self, at: CallTime, setup: Box<CallSetup>, first: fn(&mut CallContext) -> State) {
        let mut ctx = CallContext::new(at, setup);
        let state = first(&mut ctx);
        self.call = Some(Call { ctx, state: Some(state) });
    }

    /// The next wish, oldest first.
    pub fn poll(&mut self) -> Option<Output> {
        self.call.as_mut()?.ctx.take_wish()
    }

    /// Gives room back that wishes took: most calls wait for minutes between two facts. To be called when
    /// [`Machine::poll`] has nothing more; without it all is the same.
    pub fn rest(&mut self) {
        if let Some(call) = &mut self.call {
            call.ctx.rest();
        }
    }

    /// When to come back with [`Input::Timer`]. Coming early is harmless; asking again after each
    /// [`Machine::handle`] is needed, since the moment moves. A timer that fires may wish for nothing and decide
    /// something all the same: the event log may leave out only those that came early.
    pub fn poll_timeout(&self) -> Option<(CallTime, Timer)> {
        self.call.as_ref()?.ctx.timers.next()
    }

    /// What must hold after each step; only a fault of ours can break it.
    ///
    /// # Panics
    /// When it does not hold.
    pub fn check_invariants(&self) {
        if let Some(call) = &self.call {
            call.ctx.check();
        }
    }

    /// What it holds now. Pure, and the same for the same facts; before the first one every field is empty.
    pub fn picture(&self) -> Vec<Field> {
        let mut snapshot = SnapshotBuilder::new();
        if let Some(call) = &self.call {
            if let Some(state) = &call.state {
                state.draw(&call.ctx, &mut snapshot);
            }
            call.ctx.draw(&mut snapshot);
        }
        snapshot.fields()
    }

    /// The state; none before the first input.
    pub fn state(&self) -> Option<CallState> {
        Some(self.call.as_ref()?.state.as_ref()?.name())
    }

    /// The instruction being carried out: its element and line.
    pub fn current_element(&self) -> Option<(&'static str, u32)> {
        let place = self.call.as_ref()?.state.as_ref()?.interpreter()?.place()?;
        Some((place.element, place.at.line))
    }

    /// The leg that the call has dialled, once it has answered.
    pub fn b_leg(&self) -> Option<CallUuid> {
        self.interpreter()?.b_leg()
    }

    /// Whether the call is recorded, or will be.
    pub fn is_recorded(&self) -> bool {
        self.interpreter().is_some_and(Interpreter::is_recorded)
    }

    /// Whether that recording's action will be asked once its end is told; else it is somebody else's to send.
    pub fn awaits(&self, record: RecordingId) -> bool {
        self.interpreter().is_some_and(|interpreter| interpreter.awaits(record))
    }

    /// When the call was answered, if it was.
    pub fn answered(&self) -> Option<CallTime> {
        self.call.as_ref()?.ctx.answered
    }

    /// What the call began with.
    pub fn setup(&self) -> Option<&CallSetup> {
        Some(&self.call.as_ref()?.ctx.setup)
    }

    /// Whether a key pressed now must stay out of logs, traces and the console (`log="false"`).
    pub fn hides_input(&self) -> bool {
        self.interpreter().is_some_and(Interpreter::hides_digits)
    }

    /// A key that leads to the same decisions as `digit` would now, and says nothing about it.
    pub fn redact(&self, digit: Digit) -> Digit {
        self.interpreter().map_or(digit, |interpreter| interpreter.stand_in(digit))
    }

    /// A fact as the event log may hold it, asked just before it is handled, with the same time. Replaying what
    /// this gives leads to the same wishes: a hidden key is replaced by its stand-in, findings past the first
    /// hundred are left out.
    ///
    /// Timers that were due before `at` fire first: they may change which collection takes the key.
    pub fn loggable<'a>(&mut self, at: CallTime, input: &'a Input) -> Cow<'a, Input> {
        if let Some(call) = &mut self.call {
            call.catch_up(at, input);
        }
        match input {
            Input::Digit { leg, digit } if self.hides_input() => {
                Cow::Owned(Input::Digit { leg: *leg, digit: self.redact(*digit) })
            }
            // Words that nobody waits for any more are nobody's to keep.
            Input::Speech { recognition, event: what } => match self.hides_speech(*recognition) {
                Some(false) => Cow::Borrowed(input),
                Some(true) => {
                    Cow::Owned(Input::Speech { recognition: *recognition, event: what.masked() })
                }
                None => {
                    Cow::Owned(Input::Speech { recognition: *recognition, event: what.blank() })
                }
            },
            Input::Fetched { fetch, result: Ok(FetchResponse::Refused { refusal }) } => {
                let refusal =
                    Refusal { findings: context::shown(&refusal.findings), first: refusal.first };
                Cow::Owned(Input::Fetched {
                    fetch: *fetch,
                    result: Ok(FetchResponse::Refused { refusal }),
                })
            }
            other => Cow::Borrowed(other),
        }
    }

    /// Whether what that recognition hears must stay out of logs; `None`: nobody waits for it.
    fn hides_speech(&self, recognition: RecognitionId) -> Option<bool> {
        self.interpreter()?.hides_speech(recognition)
    }

    fn interpreter(&self) -> Option<&Interpreter> {
        self.call.as_ref()?.state.as_ref()?.interpreter()
    }
}

impl Call {
    fn handle(&mut self, at: CallTime, input: Input) {
        self.catch_up(at, &input);
        if let Input::Graph { action, .. } = &input {
            self.ctx.graph_answered(*action);
        }
        if let Some(state) = self.state.take() {
            self.state = Some(state.handle(&mut self.ctx, input));
        }
    }

    /// Comes to `at`. What was due before this fact happened comes first, so that a late wake-up changes no
    /// decision; what is due at this very moment fires with `Input::Timer` alone.
    fn catch_up(&mut self, at: CallTime, input: &Input) {
        self.ctx.now = self.ctx.now.max(at);
        let due = match input {
            Input::Timer => Some(self.ctx.now),
            _ => self.ctx.now.0.checked_sub(1).map(CallTime),
        };
        while let Some(timer) = due.and_then(|due| self.ctx.timers.take_due(due)) {
            self.state = self.state.take().map(|state| state.handle_timer(&mut self.ctx, timer));
        }
    }
}

/// Where a call is.
enum State {
    Calling(CallingState),
    Unbound(UnboundState),
    Preparing(PreparingState),
    Accepting(AcceptingState),
    Live(LiveState),
    Closing(ClosingState),
    Over,
}

impl State {
    /// A user-initiated call begins.
    fn offered(ctx: &mut CallContext) -> Self {
        Self::Preparing(PreparingState::begin(ctx))
    }

    /// A business-initiated call begins.
    fn placed(ctx: &mut CallContext) -> Self {
        Self::Calling(CallingState::begin(ctx))
    }

    /// Takes in a fact. Timers come one by one through [`State::handle_timer`].
    fn handle(self, ctx: &mut CallContext, fact: Input) -> Self {
        match self {
            Self::Calling(state) => state.handle(ctx, fact),
            Self::Unbound(state) => state.handle(ctx, fact),
            Self::Preparing(state) => state.handle(ctx, fact),
            Self::Accepting(state) => state.handle(ctx, fact),
            Self::Live(state) => state.handle(ctx, fact),
            Self::Closing(state) => state.handle(ctx, fact),
            // Late facts are normal, and mean nothing any more.
            Self::Over => Self::Over,
        }
    }

    /// A timer fired.
    fn handle_timer(self, ctx: &mut CallContext, timer: Timer) -> Self {
        match self {
            Self::Calling(state) => state.handle_timer(ctx, timer),
            Self::Unbound(state) => state.handle_timer(ctx, timer),
            Self::Preparing(state) => state.handle_timer(ctx, timer),
            Self::Accepting(state) => state.handle_timer(ctx, timer),
            Self::Live(state) => state.handle_timer(ctx, timer),
            Self::Closing(state) => state.handle_timer(ctx, timer),
            Self::Over => Self::Over,
        }
    }

    fn name(&self) -> CallState {
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
    fn draw(&self, ctx: &CallContext, snapshot: &mut SnapshotBuilder) {
        snapshot.say("state", [word(self.name().as_str())]);
        let slot = match (ctx.setup.call_type, self) {
            (CallType::Web, _) => "no_slot",
            (_, Self::Over) => "given_back",
            (_, Self::Unbound(state)) if state.is_in_doubt() => "given_back",
            _ => "held",
        };
        snapshot.say("slot", [word(slot)]);
        match self {
            Self::Calling(state) => state.draw(snapshot),
            Self::Unbound(state) => state.draw(snapshot),
            Self::Preparing(state) => state.draw(ctx, snapshot),
            Self::Accepting(state) => state.draw(snapshot),
            Self::Live(state) => state.draw(snapshot),
            Self::Closing(_) => snapshot.say("waits_for", [word("metas_goodbye")]),
            Self::Over => {}
        }
        if let Some(interpreter) = self.interpreter() {
            interpreter.draw(snapshot);
        }
    }

    /// The script, while there is one.
    fn interpreter(&self) -> Option<&Interpreter> {
        match self {
            Self::Preparing(state) => Some(state.interpreter()),
            Self::Accepting(state) => Some(state.interpreter()),
            Self::Live(state) => Some(state.interpreter()),
            Self::Calling(_) | Self::Unbound(_) | Self::Closing(_) | Self::Over => None,
        }
    }
}

/// Keeps what the terminate webhook said: Meta's duration stands beside ours.
fn note(ctx: &mut CallContext, termination: Termination) {
    ctx.termination = Some(termination);
}

/// The call is over on both sides.
fn over(ctx: &mut CallContext, cause: HangupCause) -> State {
    conclude(ctx, cause);
    gone(ctx)
}

/// The same of a call whose record is closed already.
fn gone(ctx: &mut CallContext) -> State {
    ctx.over();
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
            format!("Graph refused it: {status}, code {code}, {}", foreign(details))
        }
        GraphOutcome::RateLimited { code } => format!("Graph's rate limit, code {code}"),
        GraphOutcome::ServerError { status } => format!("Graph answered {status}"),
        GraphOutcome::Timeout => "Graph did not answer in time".to_owned(),
        GraphOutcome::Unreachable => "Graph could not be reached".to_owned(),
    }
}

/// Remark on Meta's SDP answer to our offer.
const UNUSABLE_ANSWER: &str = "Meta's SDP answer is unusable: the call is ended";
