//! An answered call, whoever began it: its document runs (`meta-calling.md` §7.1).

use super::{State, UNUSABLE_ANSWER, close, note, over};
use crate::activity::Gate;
use crate::added;
use crate::aside::Asides;
use crate::contract::{CallState, Command, Input, LegWish, Legs, MediaOrder};
use crate::desk::Desk;
use crate::element::add_participant;
use crate::picture::{Sketch, text, word};
use crate::script::{Script, Step};
use crate::stream::{self, Ended};
use crate::timers::Timer;
use model::HangupCause;

/// Answered.
pub(super) struct Live {
    script: Box<Script>,
    /// Keys that a call we placed sends once it is heard.
    digits: Option<String>,
    /// What REST plays beside the document.
    asides: Asides,
}

impl Live {
    /// Picked up: `script` goes on where it waited for that.
    pub(super) fn begin(mut script: Box<Script>, desk: &mut Desk) -> State {
        Self::answered(desk);
        let step = script.resume(desk, open_gate(desk));
        Self { script, digits: None, asides: Asides::default() }.after(desk, step)
    }

    /// The user picked up a call of ours: the answer URL is asked now, or the leg that dialled.
    pub(super) fn begin_placed(desk: &mut Desk) -> State {
        Self::answered(desk);
        add_participant::report(desk, "AddParticipantAnswered");
        if desk.setup.dialled().is_some() {
            let script = Box::new(Script::called(desk));
            return State::Live(Self { script, digits: None, asides: Asides::default() });
        }
        let given = desk.setup.outbound.as_ref().and_then(|placed| placed.document.clone());
        let confirm = desk.setup.outbound.as_ref().and_then(|placed| placed.confirm.clone());
        let (script, step) = match (given, confirm) {
            (Some(document), Some(confirm)) => {
                let script = Box::new(Script::confirming(desk, open_gate(desk), confirm, document));
                // Its keys go out once somebody is known to be there.
                return State::Live(Self { script, digits: None, asides: Asides::default() });
            }
            (Some(document), None) => Script::with(desk, open_gate(desk), document),
            (None, _) => (Script::begin(desk), Step::Busy),
        };
        let digits = desk.setup.outbound.as_ref().and_then(|placed| placed.send_digits.clone());
        let mut live = Self { script: Box::new(script), digits, asides: Asides::default() };
        live.send_digits(desk);
        live.after(desk, step)
    }

    fn answered(desk: &mut Desk) {
        desk.answered = Some(desk.now);
        added::over(desk);
        let limits = &desk.setup.limits;
        let (media_setup_ms, max_call_ms) = (limits.media_setup_ms, limits.max_call_ms);
        desk.set(Timer::MaxCall, max_call_ms);
        if !desk.connected {
            desk.set(Timer::MediaSetup, media_setup_ms);
        }
        desk.state(CallState::Live);
        desk.media(MediaOrder::Open);
    }

    /// Sends the keys that a call was placed with, once it is heard.
    fn send_digits(&mut self, desk: &mut Desk) {
        if desk.connected
            && let Some(digits) = self.digits.take()
        {
            let play = desk.next_play();
            desk.media(MediaOrder::SendDigits { play, digits });
        }
    }

    pub(super) fn script(&self) -> &Script {
        &self.script
    }

    pub(super) fn draw(&self, sketch: &mut Sketch) {
        if let Some(digits) = &self.digits {
            sketch.say("beside", [word("keys_to_send"), text(digits)]);
        }
        self.asides.draw(sketch);
    }

    pub(super) fn handle(mut self, desk: &mut Desk, fact: Input) -> State {
        match fact {
            Input::Media { what, .. } => match desk.path_changed(&what) {
                Some(cause) => self.hang_up(desk, cause),
                None => {
                    self.send_digits(desk);
                    let step = self.script.resume(desk, open_gate(desk));
                    self.after(desk, step)
                }
            },
            Input::Terminated { termination } => {
                self.script.cut(desk, open_gate(desk));
                note(desk, termination);
                over(desk, HangupCause::CallerHangup)
            }
            Input::Stream { stream, what } => {
                let ended = stream::told(desk, stream, what);
                self.after_stream(desk, ended)
            }
            Input::Command { command } => self.command(desk, command),
            Input::Ordered { leg: LegWish::Ask { command } } => self.command(desk, *command),
            Input::PlayFailed { play, item, reason, .. }
                if self.asides.failed(desk, play, item, &reason) =>
            {
                State::Live(self)
            }
            Input::Cut { cause } => self.hang_up(desk, cause),
            fact @ (Input::Fetched { .. }
            | Input::Dialled { .. }
            | Input::Ordered { .. }
            | Input::Room { .. }
            | Input::Digit { .. }
            | Input::PlayStarted { .. }
            | Input::Played { .. }
            | Input::PlayFailed { .. }
            | Input::Voice { .. }
            | Input::Speech { .. }
            | Input::Recorded { .. }
            | Input::DigitsSent { .. }) => {
                if let Input::Played { play, .. } = &fact {
                    self.asides.played(*play);
                }
                let step = self.script.handle(desk, open_gate(desk), fact);
                self.after(desk, step)
            }
            // The answer to our offer, overtaken by ACCEPTED (`meta-calling.md` §7.2).
            Input::SdpAnswer { usable: true } => {
                desk.media(MediaOrder::Begin);
                desk.media(MediaOrder::Open);
                State::Live(self)
            }
            Input::SdpAnswer { usable: false } => {
                desk.remark(UNUSABLE_ANSWER.to_owned());
                self.hang_up(desk, HangupCause::GraphError)
            }
            // Outcomes of `pre_accept` that accept overtook, RINGING after ACCEPTED.
            Input::Offered { .. }
            | Input::Placed { .. }
            | Input::Bound { .. }
            | Input::Status { .. }
            | Input::Graph { .. }
            | Input::Timer => State::Live(self),
        }
    }

    /// What REST wants. What is meant for the leg that this call dialled is asked of that one.
    fn command(mut self, desk: &mut Desk, command: Command) -> State {
        match command {
            Command::Hangup => return self.hang_up(desk, HangupCause::ApiHangup),
            Command::Transfer { aleg, bleg } => {
                let left = bleg.is_some_and(|target| self.script.transfer_leg(desk, target));
                match aleg {
                    Some(target) => {
                        let step = self.script.transferred(desk, open_gate(desk), target);
                        return self.after(desk, step);
                    }
                    // A leg that is not transferred is hung up (`plivo-call-api.md` §2.8).
                    None if left => return self.hang_up(desk, HangupCause::ApiHangup),
                    None => {}
                }
            }
            Command::Run { document, room } => {
                // It is taken into a multi-party call, and has been picked up long since.
                for event in ["AddParticipantInitiated", "AddParticipantAnswered"] {
                    add_participant::report_for(desk, &document, room, event);
                }
                let step = self.script.given(desk, open_gate(desk), document);
                return self.after(desk, step);
            }
            Command::Play { legs, aside } => {
                if legs.has_b() {
                    self.script
                        .ask_leg(desk, Command::Play { legs: Legs::A, aside: aside.clone() });
                }
                self.asides.play(desk, legs, aside);
            }
            Command::StopPlay { what } => {
                self.script.ask_leg(desk, Command::StopPlay { what });
                self.asides.stop(desk, what);
            }
            Command::Record { order, callback } => {
                self.script.record(desk, open_gate(desk), *order, callback)
            }
            Command::StopRecord => self.script.stop_recording(desk),
            Command::SendDigits { legs, digits } => {
                if legs.has_b() {
                    self.script.ask_leg(
                        desk,
                        Command::SendDigits { legs: Legs::A, digits: digits.clone() },
                    );
                }
                Asides::send_digits(desk, legs, digits);
            }
            Command::Stream { stream, order } => {
                stream::open(desk, stream, order);
            }
            Command::StopStream { stream } => {
                let ended = stream::stop(desk, stream, stream::Stop::Api);
                return self.after_stream(desk, ended);
            }
        }
        State::Live(self)
    }

    pub(super) fn handle_timer(mut self, desk: &mut Desk, timer: Timer) -> State {
        match timer {
            Timer::MediaSetup => self.hang_up(desk, HangupCause::MediaSetupTimeout),
            Timer::PathClosed => {
                let cause = desk.path_cause();
                self.hang_up(desk, cause)
            }
            Timer::MaxCall => self.hang_up(desk, HangupCause::TimeLimit),
            Timer::ScheduledHangup => self.hang_up(desk, HangupCause::ScheduledHangup),
            Timer::StreamLimit => {
                let ended = stream::stop(desk, None, stream::Stop::Timeout);
                self.after_stream(desk, ended)
            }
            Timer::Fetch
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
            | Timer::Confirm => {
                let step = self.script.handle_timer(desk, open_gate(desk), timer);
                self.after(desk, step)
            }
            Timer::AcceptWait
            | Timer::Accept
            | Timer::Ring
            | Timer::RingLimit
            | Timer::Heard
            | Timer::Doubt
            | Timer::AcceptOutcome
            | Timer::Close
            | Timer::TerminateAgain
            | Timer::Reap => State::Live(self),
        }
    }

    /// A stream that kept the call alive lets its document go on.
    fn after_stream(mut self, desk: &mut Desk, ended: Option<Ended>) -> State {
        let Some(ended) = ended else { return State::Live(self) };
        let step = self.script.stream_ended(desk, open_gate(desk), ended);
        self.after(desk, step)
    }

    fn after(self, desk: &mut Desk, step: Step) -> State {
        match step {
            Step::Busy => State::Live(self),
            Step::End(cause) => self.hang_up(desk, cause),
        }
    }

    fn hang_up(mut self, desk: &mut Desk, cause: HangupCause) -> State {
        self.script.cut(desk, open_gate(desk));
        close(desk, cause)
    }
}

fn open_gate(desk: &Desk) -> Gate {
    if desk.connected { Gate::Open } else { Gate::Unconnected }
}
