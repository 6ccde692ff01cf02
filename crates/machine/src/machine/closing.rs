//! A call that has ended here, and that Meta still holds: its record is written, its slot still held.

use super::{State, gone, note};
use crate::conclude::conclude;
use crate::contract::{CallState, CallTime, GraphAction, GraphOutcome, Input, MediaOrder};
use crate::desk::Desk;
use crate::timers::Timer;
use model::HangupCause;

/// The reaper asks again so often, and no more than a minute in all (`meta-calling.md` §4.7, §7.3).
const TERMINATE_AGAIN_MS: u64 = 15_000;
const TERMINATE_ASKING_MS: u64 = 60_000;

/// `terminate` was sent; the record is written, the slot still held.
pub(super) struct Closing {
    /// Until when a failed `terminate` is sent again.
    asking_until: CallTime,
}

impl Closing {
    pub(super) fn handle(self, desk: &mut Desk, fact: Input) -> State {
        match fact {
            Input::Terminated { termination } => {
                note(desk, termination);
                gone(desk)
            }
            Input::Graph { action: GraphAction::Terminate, outcome } => {
                match outcome {
                    GraphOutcome::Done | GraphOutcome::Gone => {
                        let close_ms = desk.setup.limits.close_ms;
                        desk.set(Timer::Close, close_ms);
                    }
                    GraphOutcome::Refused { .. }
                    | GraphOutcome::RateLimited { .. }
                    | GraphOutcome::ServerError { .. }
                    | GraphOutcome::Timeout
                    | GraphOutcome::Unreachable => {
                        if desk.now < self.asking_until {
                            desk.set(Timer::TerminateAgain, TERMINATE_AGAIN_MS);
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
            | Input::Recorded { .. }
            | Input::DigitsSent { .. }
            | Input::Dialled { .. }
            | Input::Ordered { .. }
            | Input::Room { .. }
            | Input::Command { .. }
            | Input::Cut { .. }
            | Input::Timer => State::Closing(self),
        }
    }

    pub(super) fn handle_timer(self, desk: &mut Desk, timer: Timer) -> State {
        match timer {
            Timer::TerminateAgain => {
                desk.graph(GraphAction::Terminate);
                State::Closing(self)
            }
            Timer::Close | Timer::Reap => gone(desk),
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
pub(super) fn close(desk: &mut Desk, cause: HangupCause) -> State {
    desk.graph(GraphAction::Terminate);
    close_here(desk, cause)
}

/// The user ended it, and Meta's terminate webhook will say so; where it does not, Graph is asked.
pub(super) fn close_ended(desk: &mut Desk, cause: HangupCause) -> State {
    let closing = close_here(desk, cause);
    desk.set(Timer::TerminateAgain, TERMINATE_AGAIN_MS);
    closing
}

/// A call whose record is closed already turns out to be there at Meta.
pub(super) fn close_late(desk: &mut Desk) -> State {
    desk.graph(GraphAction::Terminate);
    wait(desk)
}

fn close_here(desk: &mut Desk, cause: HangupCause) -> State {
    end_here(desk, cause);
    wait(desk)
}

/// The call has ended on our side, whatever there still is at Meta: no media from now on, and its record is written.
pub(super) fn end_here(desk: &mut Desk, cause: HangupCause) {
    desk.media(MediaOrder::Close);
    desk.state(CallState::Closing);
    conclude(desk, cause);
}

fn wait(desk: &mut Desk) -> State {
    desk.reap();
    State::Closing(Closing { asking_until: desk.now.plus(TERMINATE_ASKING_MS) })
}
