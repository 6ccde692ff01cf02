//! The machine of a call and its states (docs/reference/meta.md#life-of-a-call).
//!
//! A state handles an input and returns the next state. Each state has a file and stores the data
//! that only it needs. Documents are run by the [`Interpreter`].

mod closing;
mod inbound;
mod live;
mod outbound;

use std::borrow::Cow;

use crate::conclude::conclude;
use crate::context::{self, CallContext};
use crate::contract::display::foreign;
use crate::contract::{
    CallSetup, CallState, CallTime, FetchResponse, GraphAction, GraphOutcome, Input, Output,
    RecognitionId, RecordingId, Refusal, Termination,
};
use crate::interpreter::Interpreter;
use crate::snapshot::{Field, SnapshotBuilder, word};
use crate::timers::Timer;
use closing::{ClosingState, close};
use inbound::{AcceptingState, PreparingState};
use live::LiveState;
use model::{CallType, CallUuid, Digit, HangupCause};
use outbound::{CallingState, UnboundState};

/// The state machine of one call.
#[derive(Default)]
pub struct Machine {
    /// `None` before the first input.
    call: Option<Call>,
}

struct Call {
    ctx: CallContext,
    /// `None` only while an input is handled.
    state: Option<State>,
}

/// What follows from an input.
#[derive(Debug)]
pub struct MachineStep {
    pub at: CallTime,
    /// The input in the form for the event log.
    pub logged: Input,
    /// The outputs, in order.
    pub outputs: Vec<Output>,
    /// Whether the step belongs into the event log. A timer that fired early changes nothing and is
    /// omitted.
    pub worth_a_line: bool,
}

impl MachineStep {
    /// Whether a pending Graph request must not be retried: the user has hung up, or an outbound
    /// call is known at Meta or no longer wanted. Evaluated before the outputs are executed.
    pub fn overtakes(&self, asked: GraphAction) -> bool {
        match self.logged {
            Input::Terminated { .. } => true,
            Input::Bound { .. } => asked == GraphAction::Connect,
            // Other inputs overtake a request only if they end the call.
            _ => {
                let ended =
                    || self.outputs.iter().any(|output| matches!(output, Output::Concluded { .. }));
                asked == GraphAction::Connect && ended()
            }
        }
    }
}

impl Machine {
    /// Returns a machine that waits for [`Input::Offered`] or [`Input::Placed`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Handles an input with [`Machine::handle`] and returns all that follows from it. Frees memory
    /// that the machine does not need until the next input.
    pub fn step(&mut self, at: CallTime, input: Input) -> MachineStep {
        let due = self.poll_timeout().is_some_and(|(deadline, _)| deadline <= at);
        let logged = self.loggable(at, &input).into_owned();
        self.handle(at, input);
        let outputs: Vec<_> = std::iter::from_fn(|| self.poll()).collect();
        self.shrink();
        let worth_a_line = due || !outputs.is_empty() || logged != Input::Timer;
        MachineStep { at, logged, outputs, worth_a_line }
    }

    /// Handles an input. Call [`Machine::poll`] afterwards until it returns `None`.
    ///
    /// An `at` before that of the previous input counts as equal to it. Inputs before
    /// [`Input::Offered`] or [`Input::Placed`] and after [`Output::Over`] are ignored. So are
    /// inputs about a fetch, a playlist or a request that the machine no longer waits for.
    pub fn handle(&mut self, at: CallTime, input: Input) {
        match (&mut self.call, input) {
            (Some(call), input) => call.handle(at, input),
            (None, Input::Offered { setup }) => self.begin(at, setup, State::begin_inbound),
            (None, Input::Placed { setup }) => self.begin(at, setup, State::begin_outbound),
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

    /// Returns the next output, in order, or `None` if there is none.
    pub fn poll(&mut self) -> Option<Output> {
        self.call.as_mut()?.ctx.next_output()
    }

    /// Frees unused memory of the output queue. Most calls wait for minutes between two inputs.
    /// Call this when [`Machine::poll`] returns `None`. It has no other effect.
    pub fn shrink(&mut self) {
        if let Some(call) = &mut self.call {
            call.ctx.shrink();
        }
    }

    /// Returns the time at which [`Input::Timer`] is due, and the timer. `None` if no timer is set.
    ///
    /// Call it again after each [`Machine::handle`], since the time can change. An early
    /// [`Input::Timer`] is harmless. A timer that fires may change the state without an output, so
    /// an event log may omit only early inputs of this kind.
    pub fn poll_timeout(&self) -> Option<(CallTime, Timer)> {
        self.call.as_ref()?.ctx.timers.next()
    }

    /// Asserts the invariants that hold after each step.
    ///
    /// # Panics
    ///
    /// Panics if one does not hold, which is a bug in this crate.
    pub fn check_invariants(&self) {
        if let Some(call) = &self.call {
            call.ctx.assert_invariants();
        }
    }

    /// Returns the state for display. The same inputs lead to the same fields. Before the first
    /// input all fields are empty.
    pub fn snapshot(&self) -> Vec<Field> {
        let mut snapshot = SnapshotBuilder::new();
        if let Some(call) = &self.call {
            if let Some(state) = &call.state {
                state.write_snapshot(&call.ctx, &mut snapshot);
            }
            call.ctx.write_snapshot(&mut snapshot);
        }
        snapshot.fields()
    }

    /// Returns the state, or `None` before the first input.
    pub fn state(&self) -> Option<CallState> {
        Some(self.call.as_ref()?.state.as_ref()?.name())
    }

    /// Returns the name and line of the element that is being executed, or `None` if there is none.
    pub fn current_element(&self) -> Option<(&'static str, u32)> {
        let place = self.call.as_ref()?.state.as_ref()?.interpreter()?.place()?;
        Some((place.element, place.at.line))
    }

    /// Returns the leg that has answered the call's `Dial`, or `None` if none is connected.
    pub fn b_leg(&self) -> Option<CallUuid> {
        self.interpreter()?.b_leg()
    }

    /// Whether the call is recorded, or will be.
    pub fn is_recorded(&self) -> bool {
        self.interpreter().is_some_and(Interpreter::is_recorded)
    }

    /// Whether the machine requests an action at the end of this recording. Otherwise the caller
    /// must report the recording.
    pub fn awaits_recording(&self, recording: RecordingId) -> bool {
        self.interpreter().is_some_and(|interpreter| interpreter.awaits_recording(recording))
    }

    /// Returns when the call was answered, or `None` if it was not.
    pub fn answered(&self) -> Option<CallTime> {
        self.call.as_ref()?.ctx.answered
    }

    /// Returns the setup of the call. `None` before the first input.
    pub fn setup(&self) -> Option<&CallSetup> {
        Some(&self.call.as_ref()?.ctx.setup)
    }

    /// Whether a digit pressed now must stay out of logs, traces and the console, because of
    /// `log="false"`.
    pub fn hides_input(&self) -> bool {
        self.interpreter().is_some_and(Interpreter::hides_digits)
    }

    /// Returns a digit that leads to the same decisions as `digit` would now and does not reveal
    /// it.
    pub fn redact(&self, digit: Digit) -> Digit {
        self.interpreter().map_or(digit, |interpreter| interpreter.stand_in(digit))
    }

    /// Returns an input in the form for the event log. Call it just before
    /// [`Machine::handle`], with the same time.
    ///
    /// A replay of the result leads to the same outputs. Digits and words that must stay out of
    /// logs are replaced, and findings beyond the first 100 are omitted.
    ///
    /// Timers that are due before `at` fire first, since they may change which collection takes the
    /// digit.
    pub fn loggable<'a>(&mut self, at: CallTime, input: &'a Input) -> Cow<'a, Input> {
        if let Some(call) = &mut self.call {
            call.catch_up(at, input);
        }
        match input {
            Input::Digit { leg, digit } if self.hides_input() => {
                Cow::Owned(Input::Digit { leg: *leg, digit: self.redact(*digit) })
            }
            // Remove words that no activity waits for.
            Input::Speech { recognition, event } => match self.hides_speech(*recognition) {
                Some(false) => Cow::Borrowed(input),
                Some(true) => {
                    Cow::Owned(Input::Speech { recognition: *recognition, event: event.masked() })
                }
                None => {
                    Cow::Owned(Input::Speech { recognition: *recognition, event: event.blank() })
                }
            },
            Input::Fetched { fetch, result: Ok(FetchResponse::Refused { refusal }) } => {
                let refusal = Refusal {
                    findings: context::limit_findings(&refusal.findings),
                    first: refusal.first,
                };
                Cow::Owned(Input::Fetched {
                    fetch: *fetch,
                    result: Ok(FetchResponse::Refused { refusal }),
                })
            }
            other => Cow::Borrowed(other),
        }
    }

    /// Whether the words of this recognition must stay out of logs. `None` if no activity waits for
    /// them.
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

    /// Advances the time to `at` and fires the timers that were due before it.
    ///
    /// A late call therefore changes no decision. Timers that are due exactly at `at` fire with
    /// `Input::Timer` only.
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

/// The state of a call.
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
    /// Starts an inbound call.
    fn begin_inbound(ctx: &mut CallContext) -> Self {
        Self::Preparing(PreparingState::begin(ctx))
    }

    /// Starts an outbound call.
    fn begin_outbound(ctx: &mut CallContext) -> Self {
        Self::Calling(CallingState::begin(ctx))
    }

    /// Handles an input. Timers are handled by [`State::handle_timer`].
    fn handle(self, ctx: &mut CallContext, input: Input) -> Self {
        match self {
            Self::Calling(state) => state.handle(ctx, input),
            Self::Unbound(state) => state.handle(ctx, input),
            Self::Preparing(state) => state.handle(ctx, input),
            Self::Accepting(state) => state.handle(ctx, input),
            Self::Live(state) => state.handle(ctx, input),
            Self::Closing(state) => state.handle(ctx, input),
            // Late inputs are normal and have no effect.
            Self::Over => Self::Over,
        }
    }

    /// Handles a timer.
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

    /// Adds the data of the state to the snapshot, and whether the slot is held. A slot is held
    /// until Meta confirms the end.
    fn write_snapshot(&self, ctx: &CallContext, snapshot: &mut SnapshotBuilder) {
        snapshot.add("state", [word(self.name().as_str())]);
        let slot = match (ctx.setup.call_type, self) {
            (CallType::Web, _) => "no_slot",
            (_, Self::Over) => "given_back",
            (_, Self::Unbound(state)) if state.is_outcome_unknown() => "given_back",
            _ => "held",
        };
        snapshot.add("slot", [word(slot)]);
        match self {
            Self::Calling(state) => state.write_snapshot(snapshot),
            Self::Unbound(state) => state.write_snapshot(snapshot),
            Self::Preparing(state) => state.write_snapshot(ctx, snapshot),
            Self::Accepting(state) => state.write_snapshot(snapshot),
            Self::Live(state) => state.write_snapshot(snapshot),
            Self::Closing(_) => snapshot.add("waits_for", [word("terminate_webhook")]),
            Self::Over => {}
        }
        if let Some(interpreter) = self.interpreter() {
            interpreter.write_snapshot(snapshot);
        }
    }

    /// Returns the interpreter, if the state has one.
    fn interpreter(&self) -> Option<&Interpreter> {
        match self {
            Self::Preparing(state) => Some(state.interpreter()),
            Self::Accepting(state) => Some(state.interpreter()),
            Self::Live(state) => Some(state.interpreter()),
            Self::Calling(_) | Self::Unbound(_) | Self::Closing(_) | Self::Over => None,
        }
    }
}

/// Stores the terminate webhook. Its duration is recorded in addition to Offhook's own.
fn store_termination(ctx: &mut CallContext, termination: Termination) {
    ctx.termination = Some(termination);
}

/// Ends the call at Meta and on this side.
fn end(ctx: &mut CallContext, cause: HangupCause) -> State {
    conclude(ctx, cause);
    finish(ctx)
}

/// Ends a call after its record has been written.
fn finish(ctx: &mut CallContext) -> State {
    ctx.finish();
    State::Over
}

/// Returns the hangup cause for a request that was refused by Graph or has failed
/// (docs/reference/hangup-causes.md).
fn graph_cause(outcome: &GraphOutcome) -> HangupCause {
    match outcome {
        // The limit of calls per second of the number (docs/reference/meta.md#error-codes).
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
        GraphOutcome::ServerError { status, .. } => format!("Graph answered {status}"),
        GraphOutcome::Timeout => "Graph did not answer in time".to_owned(),
        GraphOutcome::Unreachable => "Graph could not be reached".to_owned(),
    }
}

/// The remark about an unusable SDP answer of Meta.
const UNUSABLE_ANSWER: &str = "Meta's SDP answer is unusable: the call is ended";
