//! The states of a user-initiated call and what each makes of every fact: the table of `meta-calling.md` §7.1.
//!
//! A state takes a fact and gives the state after it. What only one state knows lives in its variant; what a
//! document does meanwhile is the [`Script`]'s business.

use super::desk::Desk;
use super::document::{Gate, Script, Step};
use super::input::{Command, GraphOutcome, Input, Termination};
use super::timers::Timer;
use super::{CallState, GraphAction, MediaOrder};
use crate::model::HangupCause;

/// The reaper asks again so often, and no more than a minute in all (`meta-calling.md` §4.7, §7.3).
const TERMINATE_AGAIN_MS: u64 = 15_000;
const TERMINATE_ASKING_MS: u64 = 60_000;

/// Where a call is.
pub(super) enum State {
    Preparing(Preparing),
    Accepting(Accepting),
    Live(Live),
    Closing(Closing),
    Over,
}

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

/// Answered.
pub(super) struct Live {
    script: Box<Script>,
}

/// `terminate` was sent; the record is written, the slot still held.
pub(super) struct Closing {
    /// Until when a failed `terminate` is sent again.
    asking_until: super::CallTime,
}

impl State {
    /// A call begins: our answer and the customer's URL are asked for at once, side by side.
    pub(super) fn offered(desk: &mut Desk) -> Self {
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
        Self::Preparing(Preparing { script, waited: wait_ms == 0 })
    }

    /// Takes in a fact. Timers come one by one through [`State::fired`].
    pub(super) fn take(self, desk: &mut Desk, fact: Input) -> Self {
        match self {
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
            Self::Preparing(state) => state.fired(desk, timer),
            Self::Accepting(state) => state.fired(desk, timer),
            Self::Live(state) => state.fired(desk, timer),
            Self::Closing(state) => state.fired(desk, timer),
            Self::Over => Self::Over,
        }
    }

    pub(super) fn name(&self) -> CallState {
        match self {
            Self::Preparing(_) => CallState::Preparing,
            Self::Accepting(_) => CallState::Accepting,
            Self::Live(_) => CallState::Live,
            Self::Closing(_) => CallState::Closing,
            Self::Over => CallState::Over,
        }
    }

    /// The script, while there is one.
    pub(super) fn script(&self) -> Option<&Script> {
        match self {
            Self::Preparing(Preparing { script, .. })
            | Self::Accepting(Accepting { script, .. })
            | Self::Live(Live { script }) => Some(script),
            Self::Closing(_) | Self::Over => None,
        }
    }
}

impl Preparing {
    fn take(mut self, desk: &mut Desk, fact: Input) -> State {
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
                self.script.cut(desk);
                note(desk, termination);
                over(desk, HangupCause::CallerCancelled)
            }
            Input::Command { command: Command::Hangup } => self.reject(desk, HangupCause::CancelledByApi),
            Input::Cut { cause } => self.reject(desk, cause),
            fact @ (Input::Fetched { .. }
            | Input::Digit { .. }
            | Input::PlayStarted { .. }
            | Input::Played { .. }
            | Input::PlayFailed { .. }
            | Input::Voice { .. }
            | Input::DigitsSent { .. }) => {
                let step = self.script.take(desk, Gate::Ringing, fact);
                self.after(desk, step)
            }
            Input::Offered { .. } | Input::Graph { .. } | Input::Timer => State::Preparing(self),
        }
    }

    fn fired(mut self, desk: &mut Desk, timer: Timer) -> State {
        match timer {
            Timer::AcceptWait => {
                self.waited = true;
                self.accept_if_ready(desk)
            }
            Timer::Accept if desk.document_in => self.accept(desk),
            Timer::Accept => {
                desk.remark("no document came in time to pick up: the call is rejected".to_owned());
                self.reject(desk, HangupCause::Unreachable(crate::model::DocumentKind::Answer))
            }
            Timer::PathClosed => {
                let cause = desk.path_cause();
                self.reject(desk, cause)
            }
            Timer::ScheduledHangup => self.reject(desk, HangupCause::ScheduledHangup),
            Timer::Fetch | Timer::Wait | Timer::Silence | Timer::InterDigit | Timer::Execution | Timer::StartInput => {
                let step = self.script.fired(desk, Gate::Ringing, timer);
                self.after(desk, step)
            }
            Timer::AcceptOutcome
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
        let reap_ms = desk.setup.limits.reap_ms;
        desk.set(Timer::Reap, reap_ms);
        desk.graph(GraphAction::Accept);
        desk.state(CallState::Accepting);
        State::Accepting(Accepting { script: self.script, ending: None })
    }

    fn reject(mut self, desk: &mut Desk, cause: HangupCause) -> State {
        self.script.cut(desk);
        desk.graph(GraphAction::Reject);
        over(desk, cause)
    }
}

impl Accepting {
    fn take(mut self, desk: &mut Desk, fact: Input) -> State {
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
            Input::Command { command: Command::Hangup } => self.end(desk, Ending::Ours(HangupCause::CancelledByApi)),
            Input::Cut { cause } => self.end(desk, Ending::Ours(cause)),
            fact @ (Input::Fetched { .. }
            | Input::Digit { .. }
            | Input::PlayStarted { .. }
            | Input::Played { .. }
            | Input::PlayFailed { .. }
            | Input::Voice { .. }
            | Input::DigitsSent { .. }) => {
                if self.ending.is_some() {
                    return State::Accepting(self);
                }
                let step = self.script.take(desk, Gate::Answering, fact);
                self.after(desk, step)
            }
            Input::Offered { .. } | Input::Graph { .. } | Input::Timer => State::Accepting(self),
        }
    }

    fn fired(mut self, desk: &mut Desk, timer: Timer) -> State {
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
            Timer::Fetch | Timer::Wait | Timer::Silence | Timer::InterDigit | Timer::Execution | Timer::StartInput => {
                let step = self.script.fired(desk, Gate::Answering, timer);
                self.after(desk, step)
            }
            Timer::AcceptWait
            | Timer::Accept
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
            (None, GraphOutcome::Done) => self.live(desk),
            (None, GraphOutcome::Gone) => {
                self.script.cut(desk);
                over(desk, HangupCause::CallerCancelled)
            }
            (None, failed) => {
                desk.remark(format!("accept failed ({}): the call is given up", describe(failed)));
                self.script.cut(desk);
                desk.graph(GraphAction::Terminate);
                over(desk, graph_cause(failed))
            }
        }
    }

    fn live(mut self, desk: &mut Desk) -> State {
        desk.timers.clear(Timer::Reap);
        desk.answered = Some(desk.now);
        let limits = &desk.setup.limits;
        let (media_setup_ms, max_call_ms) = (limits.media_setup_ms, limits.max_call_ms);
        desk.set(Timer::MaxCall, max_call_ms);
        if !desk.connected {
            desk.set(Timer::MediaSetup, media_setup_ms);
        }
        desk.state(CallState::Live);
        desk.media(MediaOrder::Open);
        let step = self.script.resume(desk, open_gate(desk));
        Live { script: self.script }.after(desk, step)
    }

    /// The call is over, `accept` is not yet: no media from now on, and at most a moment for the outcome.
    fn end(mut self, desk: &mut Desk, ending: Ending) -> State {
        match (self.ending, ending) {
            (None, _) => {
                self.script.cut(desk);
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

impl Live {
    fn take(mut self, desk: &mut Desk, fact: Input) -> State {
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

    fn fired(mut self, desk: &mut Desk, timer: Timer) -> State {
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

impl Closing {
    fn take(self, desk: &mut Desk, fact: Input) -> State {
        match fact {
            Input::Terminated { termination } => {
                note(desk, termination);
                desk.over();
                State::Over
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
            | Input::Graph { .. }
            | Input::Fetched { .. }
            | Input::Media { .. }
            | Input::PlayStarted { .. }
            | Input::Played { .. }
            | Input::PlayFailed { .. }
            | Input::Digit { .. }
            | Input::Voice { .. }
            | Input::DigitsSent { .. }
            | Input::Command { .. }
            | Input::Cut { .. }
            | Input::Timer => State::Closing(self),
        }
    }

    fn fired(self, desk: &mut Desk, timer: Timer) -> State {
        match timer {
            Timer::TerminateAgain => {
                desk.graph(GraphAction::Terminate);
                State::Closing(self)
            }
            Timer::Close | Timer::Reap => {
                desk.over();
                State::Over
            }
            Timer::AcceptWait
            | Timer::Accept
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
            | Timer::StartInput => State::Closing(self),
        }
    }
}

fn open_gate(desk: &Desk) -> Gate {
    if desk.connected { Gate::Open } else { Gate::Unconnected }
}

/// Keeps what the terminate webhook said: Meta's duration stands beside ours.
fn note(desk: &mut Desk, termination: Termination) {
    desk.termination = Some(termination);
}

/// We end a call that Meta still holds: the record is written now, the slot goes when Meta's side is done.
fn close(desk: &mut Desk, cause: HangupCause) -> State {
    desk.graph(GraphAction::Terminate);
    desk.media(MediaOrder::Close);
    desk.state(CallState::Closing);
    desk.conclude(cause);
    let reap_ms = desk.setup.limits.reap_ms;
    desk.set(Timer::Reap, reap_ms);
    State::Closing(Closing { asking_until: desk.now.plus(TERMINATE_ASKING_MS) })
}

/// The call is over on both sides.
fn over(desk: &mut Desk, cause: HangupCause) -> State {
    desk.conclude(cause);
    desk.over();
    State::Over
}

/// `plivo-callbacks.md` §6.3: what Graph's refusal to pick up is called.
fn graph_cause(outcome: &GraphOutcome) -> HangupCause {
    match outcome {
        GraphOutcome::RateLimited { .. } => HangupCause::GraphRateLimited,
        GraphOutcome::Timeout | GraphOutcome::Unreachable => HangupCause::GraphTimeout,
        GraphOutcome::Done | GraphOutcome::Gone | GraphOutcome::Refused { .. } | GraphOutcome::ServerError { .. } => {
            HangupCause::GraphError
        }
    }
}

fn describe(outcome: &GraphOutcome) -> String {
    match outcome {
        GraphOutcome::Done => "done".to_owned(),
        GraphOutcome::Gone => "Meta knows no such call".to_owned(),
        GraphOutcome::Refused { status, code, details } => {
            format!("Graph refused it: {status}, code {code}, {}", super::desk::foreign(details))
        }
        GraphOutcome::RateLimited { code } => format!("Graph's rate limit, code {code}"),
        GraphOutcome::ServerError { status } => format!("Graph answered {status}"),
        GraphOutcome::Timeout => "Graph did not answer in time".to_owned(),
        GraphOutcome::Unreachable => "Graph could not be reached".to_owned(),
    }
}
