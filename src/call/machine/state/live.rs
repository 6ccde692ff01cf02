//! An answered call, whoever began it: its document runs (`meta-calling.md` §7.1).

use super::super::desk::Desk;
use super::super::document::{Gate, Script, Step};
use super::super::input::{Command, Input};
use super::super::timers::Timer;
use super::super::{CallState, MediaOrder};
use super::{State, close, note, over};
use crate::model::HangupCause;

/// Answered.
pub(in crate::call::machine) struct Live {
    script: Box<Script>,
}

impl Live {
    /// Picked up: `script` goes on where it waited for that.
    pub(super) fn begin(mut script: Box<Script>, desk: &mut Desk) -> State {
        desk.answered = Some(desk.now);
        let limits = &desk.setup.limits;
        let (media_setup_ms, max_call_ms) = (limits.media_setup_ms, limits.max_call_ms);
        desk.set(Timer::MaxCall, max_call_ms);
        if !desk.connected {
            desk.set(Timer::MediaSetup, media_setup_ms);
        }
        desk.state(CallState::Live);
        desk.media(MediaOrder::Open);
        let step = script.resume(desk, open_gate(desk));
        Self { script }.after(desk, step)
    }

    pub(super) fn script(&self) -> &Script {
        &self.script
    }

    pub(super) fn take(mut self, desk: &mut Desk, fact: Input) -> State {
        match fact {
            Input::Media { what, .. } => match desk.path_changed(&what) {
                Some(cause) => self.hang_up(desk, cause),
                None => {
                    let step = self.script.resume(desk, open_gate(desk));
                    self.after(desk, step)
                }
            },
            Input::Terminated { termination } => {
                self.script.cut(desk);
                note(desk, termination);
                over(desk, HangupCause::CallerHangup)
            }
            Input::Command { command: Command::Hangup } => self.hang_up(desk, HangupCause::ApiHangup),
            Input::Cut { cause } => self.hang_up(desk, cause),
            fact @ (Input::Fetched { .. }
            | Input::Digit { .. }
            | Input::PlayStarted { .. }
            | Input::Played { .. }
            | Input::PlayFailed { .. }
            | Input::Voice { .. }
            | Input::DigitsSent { .. }) => {
                let step = self.script.take(desk, open_gate(desk), fact);
                self.after(desk, step)
            }
            // Outcomes of `pre_accept` that accept overtook.
            Input::Offered { .. } | Input::Graph { .. } | Input::Timer => State::Live(self),
        }
    }

    pub(super) fn fired(mut self, desk: &mut Desk, timer: Timer) -> State {
        match timer {
            Timer::MediaSetup => self.hang_up(desk, HangupCause::MediaSetupTimeout),
            Timer::PathClosed => {
                let cause = desk.path_cause();
                self.hang_up(desk, cause)
            }
            Timer::MaxCall => self.hang_up(desk, HangupCause::TimeLimit),
            Timer::ScheduledHangup => self.hang_up(desk, HangupCause::ScheduledHangup),
            Timer::Fetch | Timer::Wait | Timer::Silence | Timer::InterDigit | Timer::Execution | Timer::StartInput => {
                let step = self.script.fired(desk, open_gate(desk), timer);
                self.after(desk, step)
            }
            Timer::AcceptWait
            | Timer::Accept
            | Timer::AcceptOutcome
            | Timer::Close
            | Timer::TerminateAgain
            | Timer::Reap => State::Live(self),
        }
    }

    fn after(self, desk: &mut Desk, step: Step) -> State {
        match step {
            Step::Busy => State::Live(self),
            Step::End(cause) => self.hang_up(desk, cause),
        }
    }

    fn hang_up(mut self, desk: &mut Desk, cause: HangupCause) -> State {
        self.script.cut(desk);
        close(desk, cause)
    }
}

fn open_gate(desk: &Desk) -> Gate {
    if desk.connected { Gate::Open } else { Gate::Unconnected }
}
