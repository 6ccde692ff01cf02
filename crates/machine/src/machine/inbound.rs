//! A user-initiated call until it is answered: it rings at the user's, then `accept` is under way
//! (`meta-calling.md` §7.1).

use super::live::Live;
use super::{State, close, describe, graph_cause, note, over};
use crate::activity::Gate;
use crate::contract::{CallState, Command, GraphAction, GraphOutcome, Input, MediaOrder};
use crate::desk::Desk;
use crate::picture::{Sketch, text, word};
use crate::script::{Script, Step};
use crate::timers::Timer;
use model::HangupCause;

/// The phone rings: the document is fetched and run up to where it needs media, while the path comes up.
pub(super) struct Preparing {
    script: Box<Script>,
    /// `accept` waits no longer for ICE and DTLS.
    waited: bool,
}

/// `accept` is under way.
pub(super) struct Accepting {
    script: Box<Script>,
    ending: Option<Ending>,
}

/// The call ended while `accept` was under way: its outcome is waited for, so that no request overtakes it.
#[derive(Clone, Copy)]
enum Ending {
    /// Meta's terminate webhook: nothing is to be sent.
    Theirs,
    /// Ours: `terminate` follows the outcome. Never a reject (R6).
    Ours(HangupCause),
}

impl Preparing {
    /// A call begins: our answer and the customer's URL are asked for at once, side by side.
    pub(super) fn begin(desk: &mut Desk) -> Self {
        desk.graph(GraphAction::PreAccept);
        desk.media(MediaOrder::Begin);
        let script = Box::new(Script::begin(desk));
        desk.state(CallState::Preparing);
        let limits = &desk.setup.limits;
        let (wait_ms, deadline_ms) = (limits.accept_wait_ms, limits.accept_deadline_ms);
        if wait_ms > 0 {
            desk.set(Timer::AcceptWait, wait_ms);
        }
        desk.set(Timer::Accept, deadline_ms);
        Self { script, waited: wait_ms == 0 }
    }

    pub(super) fn script(&self) -> &Script {
        &self.script
    }

    pub(super) fn draw(&self, desk: &Desk, sketch: &mut Sketch) {
        if !desk.connected && !self.waited {
            sketch.say("waits_for", [word("media_path")]);
        }
    }

    pub(super) fn handle(mut self, desk: &mut Desk, fact: Input) -> State {
        match fact {
            Input::Graph { action: GraphAction::PreAccept, outcome } => {
                if outcome != GraphOutcome::Done {
                    // It is optional: `accept` brings the same SDP, and only then can the path come up.
                    desk.remark(format!("pre_accept failed ({}): accept is sent all the same", describe(&outcome)));
                    self.waited = true;
                }
                self.accept_if_ready(desk)
            }
            Input::Media { what, .. } => match desk.path_changed(&what) {
                Some(cause) => self.reject(desk, cause),
                None => self.accept_if_ready(desk),
            },
            Input::Terminated { termination } => {
                self.script.cut(desk, Gate::Ringing);
                note(desk, termination);
                over(desk, HangupCause::CallerCancelled)
            }
            Input::Command { command: Command::Hangup } => self.reject(desk, HangupCause::CancelledByApi),
            Input::Cut { cause } => self.reject(desk, cause),
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
            | Input::Stream { .. }
            | Input::Recorded { .. }
            | Input::DigitsSent { .. }) => {
                let step = self.script.handle(desk, Gate::Ringing, fact);
                self.after(desk, step)
            }
            Input::Offered { .. }
            | Input::Placed { .. }
            | Input::Bound { .. }
            | Input::SdpAnswer { .. }
            | Input::Status { .. }
            | Input::Graph { .. }
            // What else is asked for is for answered calls.
            | Input::Command { .. }
            | Input::Timer => State::Preparing(self),
        }
    }

    pub(super) fn handle_timer(mut self, desk: &mut Desk, timer: Timer) -> State {
        match timer {
            Timer::AcceptWait => {
                self.waited = true;
                self.accept_if_ready(desk)
            }
            Timer::Accept if desk.document_in => self.accept(desk),
            Timer::Accept => {
                desk.remark("no document came in time to pick up: the call is rejected".to_owned());
                self.reject(desk, HangupCause::Unreachable(model::DocumentKind::Answer))
            }
            Timer::PathClosed => {
                let cause = desk.path_cause();
                self.reject(desk, cause)
            }
            Timer::ScheduledHangup => self.reject(desk, HangupCause::ScheduledHangup),
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
            | Timer::StreamLimit
            | Timer::Confirm => {
                let step = self.script.handle_timer(desk, Gate::Ringing, timer);
                self.after(desk, step)
            }
            Timer::AcceptOutcome
            | Timer::Ring
            | Timer::RingLimit
            | Timer::Heard
            | Timer::Doubt
            | Timer::MediaSetup
            | Timer::MaxCall
            | Timer::Close
            | Timer::TerminateAgain
            | Timer::Reap => State::Preparing(self),
        }
    }

    fn after(self, desk: &mut Desk, step: Step) -> State {
        match step {
            Step::Busy => self.accept_if_ready(desk),
            Step::End(cause) => self.reject(desk, cause),
        }
    }

    /// Picks up once the document needs it and the path is up, or has been waited for.
    fn accept_if_ready(self, desk: &mut Desk) -> State {
        if self.script.wants_media() && !desk.path_lost && (desk.connected || self.waited) {
            self.accept(desk)
        } else {
            State::Preparing(self)
        }
    }

    fn accept(self, desk: &mut Desk) -> State {
        desk.timers.clear(Timer::AcceptWait);
        desk.timers.clear(Timer::Accept);
        // No outcome at all would be a fault of ours; a call must not hang on it.
        desk.reap();
        desk.graph(GraphAction::Accept);
        desk.state(CallState::Accepting);
        State::Accepting(Accepting { script: self.script, ending: None })
    }

    fn reject(mut self, desk: &mut Desk, cause: HangupCause) -> State {
        self.script.cut(desk, Gate::Ringing);
        desk.graph(GraphAction::Reject);
        over(desk, cause)
    }
}

impl Accepting {
    pub(super) fn draw(&self, sketch: &mut Sketch) {
        sketch.say("waits_for", [word("accepts_answer")]);
        match self.ending {
            Some(Ending::Theirs) => sketch.say("hung_up", [word("by_them")]),
            Some(Ending::Ours(cause)) => {
                sketch.say("hung_up", [word("by_us"), text(cause.as_str())])
            }
            None => {}
        }
    }

    pub(super) fn script(&self) -> &Script {
        &self.script
    }

    pub(super) fn handle(mut self, desk: &mut Desk, fact: Input) -> State {
        match fact {
            Input::Graph { action: GraphAction::Accept, outcome } => self.outcome(desk, &outcome),
            Input::Media { what, .. } => match desk.path_changed(&what) {
                Some(cause) => self.end(desk, Ending::Ours(cause)),
                None => State::Accepting(self),
            },
            Input::Terminated { termination } => {
                note(desk, termination);
                self.end(desk, Ending::Theirs)
            }
            Input::Command { command: Command::Hangup } => {
                self.end(desk, Ending::Ours(HangupCause::CancelledByApi))
            }
            Input::Cut { cause } => self.end(desk, Ending::Ours(cause)),
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
            | Input::Stream { .. }
            | Input::Recorded { .. }
            | Input::DigitsSent { .. }) => {
                if self.ending.is_some() {
                    return State::Accepting(self);
                }
                let step = self.script.handle(desk, Gate::Answering, fact);
                self.after(desk, step)
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

    pub(super) fn handle_timer(mut self, desk: &mut Desk, timer: Timer) -> State {
        match timer {
            Timer::AcceptOutcome => match self.ending {
                Some(Ending::Ours(cause)) => close(desk, cause),
                Some(Ending::Theirs) | None => over(desk, HangupCause::CallerCancelled),
            },
            Timer::Reap => self.outcome(desk, &GraphOutcome::Timeout),
            Timer::PathClosed => {
                let cause = desk.path_cause();
                self.end(desk, Ending::Ours(cause))
            }
            Timer::ScheduledHangup => self.end(desk, Ending::Ours(HangupCause::ScheduledHangup)),
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
            | Timer::StreamLimit
            | Timer::Confirm => {
                let step = self.script.handle_timer(desk, Gate::Answering, timer);
                self.after(desk, step)
            }
            Timer::AcceptWait
            | Timer::Accept
            | Timer::Ring
            | Timer::RingLimit
            | Timer::Heard
            | Timer::Doubt
            | Timer::MediaSetup
            | Timer::MaxCall
            | Timer::Close
            | Timer::TerminateAgain => State::Accepting(self),
        }
    }

    fn after(self, desk: &mut Desk, step: Step) -> State {
        match step {
            Step::Busy => State::Accepting(self),
            Step::End(cause) => self.end(desk, Ending::Ours(cause)),
        }
    }

    /// `accept` came to its end.
    fn outcome(mut self, desk: &mut Desk, outcome: &GraphOutcome) -> State {
        match (self.ending, outcome) {
            (Some(Ending::Theirs), _) => over(desk, HangupCause::CallerCancelled),
            (Some(Ending::Ours(cause)), GraphOutcome::Done) => close(desk, cause),
            (Some(Ending::Ours(cause)), GraphOutcome::Gone) => over(desk, cause),
            (Some(Ending::Ours(cause)), _) => {
                desk.graph(GraphAction::Terminate);
                over(desk, cause)
            }
            (None, GraphOutcome::Done) => {
                desk.timers.clear(Timer::Reap);
                Live::begin(self.script, desk)
            }
            (None, GraphOutcome::Gone) => {
                self.script.cut(desk, Gate::Answering);
                over(desk, HangupCause::CallerCancelled)
            }
            (None, failed) => {
                desk.remark(format!("accept failed ({}): the call is given up", describe(failed)));
                self.script.cut(desk, Gate::Answering);
                desk.graph(GraphAction::Terminate);
                over(desk, graph_cause(failed))
            }
        }
    }

    /// The call is over, `accept` is not yet: no media from now on, and at most a moment for the outcome.
    fn end(mut self, desk: &mut Desk, ending: Ending) -> State {
        match (self.ending, ending) {
            (None, _) => {
                self.script.cut(desk, Gate::Answering);
                desk.media(MediaOrder::Close);
                desk.timers.clear_all();
                let outcome_ms = desk.setup.limits.accept_outcome_ms;
                desk.set(Timer::AcceptOutcome, outcome_ms);
                self.ending = Some(ending);
            }
            // Ours first, then the webhook: nothing is left to terminate.
            (Some(Ending::Ours(cause)), Ending::Theirs) => return over(desk, cause),
            (Some(_), _) => {}
        }
        State::Accepting(self)
    }
}
