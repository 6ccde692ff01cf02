//! A call that has ended on this side and not yet at Meta. Its record is written, and its slot is
//! still held.

use super::{State, finish, store_termination};
use crate::conclude::conclude;
use crate::context::CallContext;
use crate::contract::{CallState, CallTime, GraphAction, GraphOutcome, Input, MediaCommand};
use crate::timers::Timer;
use model::HangupCause;

/// Interval of repeated `terminate` requests, and the time for which they are sent
/// (docs/reference/meta.md#reaper).
const TERMINATE_RETRY_MS: u64 = 15_000;
const TERMINATE_RETRIES_MS: u64 = 60_000;

/// `terminate` was sent, and Meta has not confirmed the end of the call.
pub(super) struct ClosingState {
    /// Time until which a failed `terminate` is repeated.
    retry_until: CallTime,
}

impl ClosingState {
    pub(super) fn handle(self, ctx: &mut CallContext, input: Input) -> State {
        match input {
            Input::Terminated { termination } => {
                store_termination(ctx, termination);
                finish(ctx)
            }
            Input::Graph { action: GraphAction::Terminate, outcome } => {
                match outcome {
                    GraphOutcome::Done | GraphOutcome::Gone => {
                        let close_ms = ctx.setup.limits.close_ms;
                        ctx.set_timer(Timer::Close, close_ms);
                    }
                    GraphOutcome::Refused { .. }
                    | GraphOutcome::RateLimited { .. }
                    | GraphOutcome::ServerError { .. }
                    | GraphOutcome::Timeout
                    | GraphOutcome::Unreachable => {
                        if ctx.now < self.retry_until {
                            ctx.set_timer(Timer::TerminateRetry, TERMINATE_RETRY_MS);
                        }
                    }
                }
                State::Closing(self)
            }
            Input::Offered { .. }
            | Input::Placed { .. }
            | Input::Bound { .. }
            | Input::SdpAnswer { .. }
            | Input::Status { .. }
            | Input::Graph { .. }
            | Input::Fetched { .. }
            | Input::Media { .. }
            | Input::PlayStarted { .. }
            | Input::Played { .. }
            | Input::PlayFailed { .. }
            | Input::Digit { .. }
            | Input::Voice { .. }
            | Input::Speech { .. }
            | Input::Stream { .. }
            | Input::Recording { .. }
            | Input::DigitsSent { .. }
            | Input::BLeg { .. }
            | Input::ALeg { .. }
            | Input::Room { .. }
            | Input::Command { .. }
            | Input::HangUp { .. }
            | Input::Timer => State::Closing(self),
        }
    }

    pub(super) fn handle_timer(self, ctx: &mut CallContext, timer: Timer) -> State {
        match timer {
            Timer::TerminateRetry => {
                ctx.graph(GraphAction::Terminate);
                State::Closing(self)
            }
            Timer::Close | Timer::Reap => finish(ctx),
            Timer::AcceptWait
            | Timer::Accept
            | Timer::Ring
            | Timer::RingLimit
            | Timer::AcceptedOverdue
            | Timer::UnknownConnect
            | Timer::AcceptOutcome
            | Timer::MediaSetup
            | Timer::PathClosed
            | Timer::MaxCall
            | Timer::ScheduledHangup
            | Timer::Document(_)
            | Timer::StreamLimit => State::Closing(self),
        }
    }
}

/// Ends a call that is still active at Meta. Its record is written now. Its slot is released when
/// Meta confirms the end.
pub(super) fn close(ctx: &mut CallContext, cause: HangupCause) -> State {
    ctx.graph(GraphAction::Terminate);
    close_here(ctx, cause)
}

/// Ends a call that the user has ended. If no terminate webhook follows, `terminate` is sent.
pub(super) fn close_ended(ctx: &mut CallContext, cause: HangupCause) -> State {
    let closing = close_here(ctx, cause);
    ctx.set_timer(Timer::TerminateRetry, TERMINATE_RETRY_MS);
    closing
}

/// Ends a call at Meta after its record has been written.
pub(super) fn close_late(ctx: &mut CallContext) -> State {
    ctx.graph(GraphAction::Terminate);
    begin_waiting(ctx)
}

fn close_here(ctx: &mut CallContext, cause: HangupCause) -> State {
    end_here(ctx, cause);
    begin_waiting(ctx)
}

/// Ends the call on this side: closes its media and writes its record.
pub(super) fn end_here(ctx: &mut CallContext, cause: HangupCause) {
    ctx.media(MediaCommand::Close);
    ctx.report_state(CallState::Closing);
    conclude(ctx, cause);
}

fn begin_waiting(ctx: &mut CallContext) -> State {
    ctx.set_reap_timer();
    State::Closing(ClosingState { retry_until: ctx.now.plus(TERMINATE_RETRIES_MS) })
}
