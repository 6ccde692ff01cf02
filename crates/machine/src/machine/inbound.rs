//! An inbound call before its answer: the user's phone rings, then `accept` is sent
//! (docs/reference/meta.md#user-initiated-calls).

use super::live::LiveState;
use super::{State, close, describe, end, graph_cause, store_termination};
use crate::activity::Readiness;
use crate::context::CallContext;
use crate::contract::{CallState, Command, GraphAction, GraphOutcome, Input, MediaCommand};
use crate::interpreter::{Interpreter, Step};
use crate::snapshot::{SnapshotBuilder, text, word};
use crate::timers::Timer;
use model::HangupCause;

/// The user's phone rings. The document is fetched and executed up to the first element that needs
/// media, while ICE and DTLS proceed.
pub(super) struct PreparingState {
    interpreter: Box<Interpreter>,
    /// Whether `accept` no longer waits for ICE and DTLS.
    waited: bool,
}

/// `accept` is in flight.
pub(super) struct AcceptingState {
    interpreter: Box<Interpreter>,
    ending: Option<Ending>,
}

/// The way in which the call ended while `accept` was in flight. The outcome of `accept` is
/// awaited, so that no other request overtakes it.
#[derive(Clone, Copy)]
enum Ending {
    /// Meta reported the end. Nothing is sent.
    Remote,
    /// This side ends the call. `terminate` follows the outcome, never a reject.
    Local(HangupCause),
}

impl PreparingState {
    /// Starts a call. The SDP answer is sent, and the answer URL is requested at the same time.
    pub(super) fn begin(ctx: &mut CallContext) -> Self {
        ctx.graph(GraphAction::PreAccept);
        ctx.media(MediaCommand::Begin);
        let interpreter = Box::new(Interpreter::begin(ctx));
        ctx.report_state(CallState::Preparing);
        let limits = &ctx.setup.limits;
        let (wait_ms, deadline_ms) = (limits.accept_wait_ms, limits.accept_deadline_ms);
        if wait_ms > 0 {
            ctx.set_timer(Timer::AcceptWait, wait_ms);
        }
        ctx.set_timer(Timer::Accept, deadline_ms);
        Self { interpreter, waited: wait_ms == 0 }
    }

    pub(super) fn interpreter(&self) -> &Interpreter {
        &self.interpreter
    }

    pub(super) fn write_snapshot(&self, ctx: &CallContext, snapshot: &mut SnapshotBuilder) {
        if !ctx.connected && !self.waited {
            snapshot.add("waits_for", [word("media_path")]);
        }
    }

    pub(super) fn handle(mut self, ctx: &mut CallContext, input: Input) -> State {
        match input {
            Input::Graph { action: GraphAction::PreAccept, outcome } => {
                if outcome != GraphOutcome::Done {
                    // `pre_accept` is optional. `accept` carries the same SDP, and the media path
                    // comes up after it.
                    ctx.remark(format!("pre_accept failed ({}): accept is sent all the same", describe(&outcome)));
                    self.waited = true;
                }
                self.accept_if_ready(ctx)
            }
            Input::Media { event, .. } => match ctx.handle_media(&event) {
                Some(cause) => self.reject(ctx, cause),
                None => self.accept_if_ready(ctx),
            },
            Input::Terminated { termination } => {
                self.interpreter.end_call(ctx, Readiness::Ringing);
                store_termination(ctx, termination);
                end(ctx, HangupCause::CallerCancelled)
            }
            Input::Command { command: Command::Hangup } => self.reject(ctx, HangupCause::CancelledByApi),
            Input::HangUp { cause } => self.reject(ctx, cause),
            input @ (Input::Fetched { .. }
            | Input::BLeg { .. }
            | Input::ALeg { .. }
            | Input::Room { .. }
            | Input::Digit { .. }
            | Input::PlayStarted { .. }
            | Input::Played { .. }
            | Input::PlayFailed { .. }
            | Input::Voice { .. }
            | Input::Speech { .. }
            | Input::Stream { .. }
            | Input::Recording { .. }
            | Input::DigitsSent { .. }) => {
                let step = self.interpreter.handle(ctx, Readiness::Ringing, input);
                self.after(ctx, step)
            }
            Input::Offered { .. }
            | Input::Placed { .. }
            | Input::Bound { .. }
            | Input::SdpAnswer { .. }
            | Input::Status { .. }
            | Input::Graph { .. }
            // All other commands need an answered call.
            | Input::Command { .. }
            | Input::Timer => State::Preparing(self),
        }
    }

    pub(super) fn handle_timer(mut self, ctx: &mut CallContext, timer: Timer) -> State {
        match timer {
            Timer::AcceptWait => {
                self.waited = true;
                self.accept_if_ready(ctx)
            }
            // `Timer::PathClosed` follows, unless Meta reports the end before.
            Timer::Accept if ctx.path_lost => State::Preparing(self),
            Timer::Accept if ctx.document_received => self.accept(ctx),
            Timer::Accept => {
                ctx.remark("no document came in time to pick up: the call is rejected".to_owned());
                self.reject(ctx, HangupCause::Unreachable(model::DocumentKind::Answer))
            }
            Timer::PathClosed => {
                let cause = ctx.path_cause();
                self.reject(ctx, cause)
            }
            Timer::ScheduledHangup => self.reject(ctx, HangupCause::ScheduledHangup),
            Timer::Document(timer) => {
                let step = self.interpreter.handle_timer(ctx, Readiness::Ringing, timer);
                self.after(ctx, step)
            }
            Timer::AcceptOutcome
            | Timer::StreamLimit
            | Timer::Ring
            | Timer::RingLimit
            | Timer::AcceptedOverdue
            | Timer::UnknownConnect
            | Timer::MediaSetup
            | Timer::MaxCall
            | Timer::Close
            | Timer::TerminateRetry
            | Timer::Reap => State::Preparing(self),
        }
    }

    fn after(self, ctx: &mut CallContext, step: Step) -> State {
        match step {
            Step::Busy => self.accept_if_ready(ctx),
            Step::End(cause) => self.reject(ctx, cause),
        }
    }

    /// Answers the call if the document needs media, and the media path is up or the wait for it
    /// has expired.
    fn accept_if_ready(self, ctx: &mut CallContext) -> State {
        if self.interpreter.wants_media() && !ctx.path_lost && (ctx.connected || self.waited) {
            self.accept(ctx)
        } else {
            State::Preparing(self)
        }
    }

    fn accept(self, ctx: &mut CallContext) -> State {
        ctx.timers.clear(Timer::AcceptWait);
        ctx.timers.clear(Timer::Accept);
        // Covers the case that the outcome is never reported.
        ctx.set_reap_timer();
        ctx.graph(GraphAction::Accept);
        ctx.report_state(CallState::Accepting);
        State::Accepting(AcceptingState { interpreter: self.interpreter, ending: None })
    }

    fn reject(mut self, ctx: &mut CallContext, cause: HangupCause) -> State {
        self.interpreter.end_call(ctx, Readiness::Ringing);
        ctx.graph(GraphAction::Reject);
        end(ctx, cause)
    }
}

impl AcceptingState {
    pub(super) fn write_snapshot(&self, snapshot: &mut SnapshotBuilder) {
        snapshot.add("waits_for", [word("accept_response")]);
        match self.ending {
            Some(Ending::Remote) => snapshot.add("hung_up", [word("by_user")]),
            Some(Ending::Local(cause)) => {
                snapshot.add("hung_up", [word("by_offhook"), text(cause.as_str())])
            }
            None => {}
        }
    }

    pub(super) fn interpreter(&self) -> &Interpreter {
        &self.interpreter
    }

    pub(super) fn handle(mut self, ctx: &mut CallContext, input: Input) -> State {
        match input {
            Input::Graph { action: GraphAction::Accept, outcome } => self.outcome(ctx, &outcome),
            Input::Media { event, .. } => match ctx.handle_media(&event) {
                Some(cause) => self.end(ctx, Ending::Local(cause)),
                None => State::Accepting(self),
            },
            Input::Terminated { termination } => {
                store_termination(ctx, termination);
                self.end(ctx, Ending::Remote)
            }
            Input::Command { command: Command::Hangup } => {
                self.end(ctx, Ending::Local(HangupCause::CancelledByApi))
            }
            Input::HangUp { cause } => self.end(ctx, Ending::Local(cause)),
            input @ (Input::Fetched { .. }
            | Input::BLeg { .. }
            | Input::ALeg { .. }
            | Input::Room { .. }
            | Input::Digit { .. }
            | Input::PlayStarted { .. }
            | Input::Played { .. }
            | Input::PlayFailed { .. }
            | Input::Voice { .. }
            | Input::Speech { .. }
            | Input::Stream { .. }
            | Input::Recording { .. }
            | Input::DigitsSent { .. }) => {
                if self.ending.is_some() {
                    return State::Accepting(self);
                }
                let step = self.interpreter.handle(ctx, Readiness::Answering, input);
                self.after(ctx, step)
            }
            Input::Offered { .. }
            | Input::Placed { .. }
            | Input::Bound { .. }
            | Input::SdpAnswer { .. }
            | Input::Status { .. }
            | Input::Graph { .. }
            | Input::Command { .. }
            | Input::Timer => State::Accepting(self),
        }
    }

    pub(super) fn handle_timer(mut self, ctx: &mut CallContext, timer: Timer) -> State {
        match timer {
            Timer::AcceptOutcome => match self.ending {
                Some(Ending::Local(cause)) => close(ctx, cause),
                Some(Ending::Remote) | None => end(ctx, HangupCause::CallerCancelled),
            },
            Timer::Reap => self.outcome(ctx, &GraphOutcome::Timeout),
            Timer::PathClosed => {
                let cause = ctx.path_cause();
                self.end(ctx, Ending::Local(cause))
            }
            Timer::ScheduledHangup => self.end(ctx, Ending::Local(HangupCause::ScheduledHangup)),
            Timer::Document(timer) => {
                let step = self.interpreter.handle_timer(ctx, Readiness::Answering, timer);
                self.after(ctx, step)
            }
            Timer::AcceptWait
            | Timer::StreamLimit
            | Timer::Accept
            | Timer::Ring
            | Timer::RingLimit
            | Timer::AcceptedOverdue
            | Timer::UnknownConnect
            | Timer::MediaSetup
            | Timer::MaxCall
            | Timer::Close
            | Timer::TerminateRetry => State::Accepting(self),
        }
    }

    fn after(self, ctx: &mut CallContext, step: Step) -> State {
        match step {
            Step::Busy => State::Accepting(self),
            Step::End(cause) => self.end(ctx, Ending::Local(cause)),
        }
    }

    /// Handles the outcome of `accept`.
    fn outcome(mut self, ctx: &mut CallContext, outcome: &GraphOutcome) -> State {
        match (self.ending, outcome) {
            (Some(Ending::Remote), _) => end(ctx, HangupCause::CallerCancelled),
            (Some(Ending::Local(cause)), GraphOutcome::Done) => close(ctx, cause),
            (Some(Ending::Local(cause)), GraphOutcome::Gone) => end(ctx, cause),
            (Some(Ending::Local(cause)), _) => {
                ctx.graph(GraphAction::Terminate);
                end(ctx, cause)
            }
            (None, GraphOutcome::Done) => {
                ctx.timers.clear(Timer::Reap);
                LiveState::begin(self.interpreter, ctx)
            }
            (None, GraphOutcome::Gone) => {
                self.interpreter.end_call(ctx, Readiness::Answering);
                end(ctx, HangupCause::CallerCancelled)
            }
            (None, failed) => {
                ctx.remark(format!("accept failed ({}): the call is given up", describe(failed)));
                self.interpreter.end_call(ctx, Readiness::Answering);
                ctx.graph(GraphAction::Terminate);
                end(ctx, graph_cause(failed))
            }
        }
    }

    /// Ends the call while `accept` is in flight. Closes its media and waits a short time for the
    /// outcome.
    fn end(mut self, ctx: &mut CallContext, ending: Ending) -> State {
        match (self.ending, ending) {
            (None, _) => {
                self.interpreter.end_call(ctx, Readiness::Answering);
                ctx.media(MediaCommand::Close);
                ctx.timers.clear_all();
                let outcome_ms = ctx.setup.limits.accept_outcome_ms;
                ctx.set_timer(Timer::AcceptOutcome, outcome_ms);
                self.ending = Some(ending);
            }
            // This side ended the call first. After the webhook, `terminate` is no longer needed.
            (Some(Ending::Local(cause)), Ending::Remote) => return end(ctx, cause),
            (Some(_), _) => {}
        }
        State::Accepting(self)
    }
}
