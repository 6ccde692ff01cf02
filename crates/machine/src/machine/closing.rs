//! A call that has ended here, and that Meta still holds: its record is written, its slot still held.

use super::{State, gone, note};
use crate::conclude::conclude;
use crate::context::CallContext;
use crate::contract::{CallState, CallTime, GraphAction, GraphOutcome, Input, MediaCommand};
use crate::timers::Timer;
use model::HangupCause;

/// The reaper asks again so often, and no more than a minute in all (`meta-calling.md` §4.7, §7.3).
const TERMINATE_AGAIN_MS: u64 = 15_000;
const TERMINATE_ASKING_MS: u64 = 60_000;

/// `terminate` was sent; the record is written, the slot still held.
pub(super) struct ClosingState {
    /// Until when a failed `terminate` is sent again.
    asking_until: CallTime,
}

impl ClosingState {
    pub(super) fn handle(self, ctx: &mut CallContext, fact: Input) -> State {
        match fact {
            Input::Terminated { termination } => {
                note(ctx, termination);
                gone(ctx)
            }
            Input::Graph { action: GraphAction::Terminate, outcome } => {
                match outcome {
                    GraphOutcome::Done | GraphOutcome::Gone => {
                        let close_ms = ctx.setup.limits.close_ms;
                        ctx.set(Timer::Close, close_ms);
                    }
                    GraphOutcome::Refused { .. }
                    | GraphOutcome::RateLimited { .. }
                    | GraphOutcome::ServerError { .. }
                    | GraphOutcome::Timeout
                    | GraphOutcome::Unreachable => {
                        if ctx.now < self.asking_until {
                            ctx.set(Timer::TerminateAgain, TERMINATE_AGAIN_MS);
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
            Timer::TerminateAgain => {
                ctx.graph(GraphAction::Terminate);
                State::Closing(self)
            }
            Timer::Close | Timer::Reap => gone(ctx),
            Timer::AcceptWait
            | Timer::Accept
            | Timer::Ring
            | Timer::RingLimit
            | Timer::Heard
            | Timer::Doubt
            | Timer::AcceptOutcome
            | Timer::MediaSetup
            | Timer::PathClosed
            | Timer::MaxCall
            | Timer::ScheduledHangup
            | Timer::Fetch
            | Timer::Wait
            | Timer::Silence
            | Timer::InterDigit
            | Timer::Execution
            | Timer::StartInput
            | Timer::SpeechEnd
            | Timer::Transcript
            | Timer::Interim
            | Timer::Record
            | Timer::DialRing
            | Timer::DialLimit
            | Timer::RoomLimit
            | Timer::RoomWait
            | Timer::StreamLimit
            | Timer::Confirm => State::Closing(self),
        }
    }
}

/// We end a call that Meta still holds: the record is written now, the slot goes when Meta's side is done.
pub(super) fn close(ctx: &mut CallContext, cause: HangupCause) -> State {
    ctx.graph(GraphAction::Terminate);
    close_here(ctx, cause)
}

/// The user ended it, and Meta's terminate webhook will say so; where it does not, Graph is asked.
pub(super) fn close_ended(ctx: &mut CallContext, cause: HangupCause) -> State {
    let closing = close_here(ctx, cause);
    ctx.set(Timer::TerminateAgain, TERMINATE_AGAIN_MS);
    closing
}

/// A call whose record is closed already turns out to be there at Meta.
pub(super) fn close_late(ctx: &mut CallContext) -> State {
    ctx.graph(GraphAction::Terminate);
    wait(ctx)
}

fn close_here(ctx: &mut CallContext, cause: HangupCause) -> State {
    end_here(ctx, cause);
    wait(ctx)
}

/// The call has ended on our side, whatever there still is at Meta: no media from now on, and its record is written.
pub(super) fn end_here(ctx: &mut CallContext, cause: HangupCause) {
    ctx.media(MediaCommand::Close);
    ctx.state(CallState::Closing);
    conclude(ctx, cause);
}

fn wait(ctx: &mut CallContext) -> State {
    ctx.reap();
    State::Closing(ClosingState { asking_until: ctx.now.plus(TERMINATE_ASKING_MS) })
}
