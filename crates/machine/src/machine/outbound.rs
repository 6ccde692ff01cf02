//! A business-initiated call until it is answered (`meta-calling.md` §7.2), and what its beginning leaves behind.
//!
//! Meta promises no order: the SDP answer, RINGING and ACCEPTED come as they like, also before Graph has told us the
//! call's id. The shell sees to it that [`Input::Bound`] comes before all of them.

use super::closing::{close_ended, close_late, end_here};
use super::live::Live;
use super::{State, UNUSABLE_ANSWER, close, describe, gone, graph_cause, note, over};
use crate::added;
use crate::contract::{
    CallState, Command, GraphAction, GraphOutcome, Input, LegNews, LegWish, MediaFact, MediaOrder,
    Notice, NoticeKind, Output, PhoneStatus,
};
use crate::desk::Desk;
use crate::element::add_participant;
use crate::params::{self, Event};
use crate::picture::{Sketch, word};
use crate::timers::Timer;
use model::{CallType, HangupCause};

/// A user who is heard has picked up; ACCEPTED may come so much later (`meta-calling.md` §7.2).
const HEARD_MS: u64 = 2_000;
/// How long a call may still turn out to exist whose `connect` had no outcome (`meta-calling.md` §7.2).
const DOUBT_MS: u64 = 60_000;

/// The phone of the user is to ring, or rings.
pub(super) struct Calling {
    /// Meta's id is known.
    bound: bool,
    /// RINGING has come.
    rung: bool,
}

/// Ended here before Meta's id of the call was known: should there be one, it is ended when it is.
pub(super) struct Unbound {
    /// `connect` is still under way.
    asked: bool,
}

impl Calling {
    /// Our offer goes to Graph.
    pub(super) fn begin(desk: &mut Desk) -> Self {
        desk.graph(GraphAction::Connect);
        desk.state(CallState::Dialing);
        // No outcome at all would be a fault of ours; a call must not hang on it.
        desk.reap();
        Self { bound: false, rung: false }
    }

    pub(super) fn draw(&self, sketch: &mut Sketch) {
        sketch
            .say("waits_for", [word(if self.bound { "somebody_to_pick_up" } else { "metas_id" })]);
    }

    pub(super) fn name(&self) -> CallState {
        match (self.bound, self.rung) {
            (false, _) => CallState::Dialing,
            (true, false) => CallState::Proceeding,
            (true, true) => CallState::Ringing,
        }
    }

    pub(super) fn handle(self, desk: &mut Desk, fact: Input) -> State {
        match fact {
            Input::Graph { action: GraphAction::Connect, outcome } => self.outcome(desk, &outcome),
            Input::Bound { wacid } if !self.bound => {
                desk.setup.wacid = Some(wacid);
                self.proceed(desk)
            }
            Input::SdpAnswer { usable: true } => {
                desk.media(MediaOrder::Begin);
                State::Calling(self)
            }
            Input::SdpAnswer { usable: false } => {
                desk.remark(UNUSABLE_ANSWER.to_owned());
                self.end(desk, HangupCause::GraphError)
            }
            Input::Status { status: PhoneStatus::Ringing } => self.ringing(desk),
            Input::Status { status: PhoneStatus::Accepted } => pick_up(desk),
            Input::Status { status: PhoneStatus::Rejected } => close_ended(desk, HangupCause::Rejected),
            Input::Media { what, .. } => match desk.path_changed(&what) {
                Some(cause) => self.end(desk, cause),
                None => {
                    if what == MediaFact::Flowing {
                        desk.set(Timer::Heard, HEARD_MS);
                    }
                    State::Calling(self)
                }
            },
            Input::Terminated { termination } => {
                note(desk, termination);
                over(desk, HangupCause::NoAnswer)
            }
            Input::Command { command: Command::Hangup } => self.end(desk, HangupCause::CancelledByApi),
            Input::Cut { cause } | Input::Ordered { leg: LegWish::HangUp { cause } } => self.end(desk, cause),
            Input::Fetched { fetch, result } => {
                added::fetched(desk, fetch, result);
                State::Calling(self)
            }
            Input::Offered { .. }
            | Input::Placed { .. }
            | Input::Bound { .. }
            | Input::Graph { .. }
            | Input::PlayStarted { .. }
            | Input::Played { .. }
            | Input::PlayFailed { .. }
            | Input::Digit { .. }
            | Input::Voice { .. }
            | Input::Speech { .. }
            | Input::Stream { .. }
            | Input::Recorded { .. }
            | Input::DigitsSent { .. }
            // What else is asked for is for answered calls.
            | Input::Command { .. }
            | Input::Dialled { .. }
            | Input::Room { .. }
            | Input::Ordered { leg: LegWish::Proceed | LegWish::Join | LegWish::Ask { .. } }
            | Input::Timer => State::Calling(self),
        }
    }

    pub(super) fn handle_timer(self, desk: &mut Desk, timer: Timer) -> State {
        match timer {
            Timer::Ring | Timer::RingLimit => self.end(desk, HangupCause::RingTimeout),
            Timer::Heard => {
                desk.remark(
                    "the user is heard, and no ACCEPTED has come: the call counts as answered"
                        .to_owned(),
                );
                pick_up(desk)
            }
            Timer::PathClosed => {
                let cause = desk.path_cause();
                self.end(desk, cause)
            }
            Timer::Reap => self.outcome(desk, &GraphOutcome::Timeout),
            Timer::Fetch => {
                added::fetch_timed_out(desk);
                State::Calling(self)
            }
            Timer::AcceptWait
            | Timer::Accept
            | Timer::AcceptOutcome
            | Timer::MediaSetup
            | Timer::MaxCall
            | Timer::ScheduledHangup
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
            | Timer::Confirm
            | Timer::Close
            | Timer::TerminateAgain
            | Timer::Doubt => State::Calling(self),
        }
    }

    /// The call is on its way: from now on the other side has its time to pick up.
    fn proceed(self, desk: &mut Desk) -> State {
        desk.timers.clear(Timer::Reap);
        let ring_ms = desk.setup.outbound.as_ref().map_or(0, |placed| placed.ring_timeout_ms);
        desk.set(Timer::Ring, ring_ms);
        desk.state(CallState::Proceeding);
        add_participant::report(desk, "AddParticipantInitiated");
        desk.news(LegNews::Placed);
        added::begin(desk);
        State::Calling(Self { bound: true, ..self })
    }

    /// `connect` came to its end.
    fn outcome(self, desk: &mut Desk, outcome: &GraphOutcome) -> State {
        // A webhook has named the call: it is there, whatever became of the request.
        if self.bound {
            return State::Calling(self);
        }
        match (desk.setup.call_type, outcome) {
            // A web leg has no name at Meta to wait for: its phones ring, or there are none.
            (CallType::Web, GraphOutcome::Done) => return self.proceed(desk),
            (CallType::Web, _) => {
                desk.remark("no phone has registered as this endpoint".to_owned());
                return over(desk, HangupCause::EndpointNotRegistered);
            }
            (CallType::Whatsapp, GraphOutcome::Done) => return State::Calling(self),
            (CallType::Whatsapp, _) => {}
        }
        let cause = connect_cause(outcome);
        desk.remark(format!("connect failed ({}): {}", describe(outcome), advice(cause)));
        if is_unknown(outcome) {
            end_here(desk, cause);
            return Unbound::doubt(desk);
        }
        over(desk, cause)
    }

    /// The user's phone rings: told once.
    fn ringing(self, desk: &mut Desk) -> State {
        if self.rung {
            return State::Calling(self);
        }
        desk.state(CallState::Ringing);
        add_participant::report(desk, "AddParticipantRinging");
        desk.news(LegNews::Ringing);
        let placed = desk.setup.outbound.clone().unwrap_or_default();
        if let Some((url, method)) = placed.ring {
            let params = params::common(desk, Event::Ring);
            desk.wish(Output::Notify {
                notice: Notice { kind: NoticeKind::Ring, url, method, params },
            });
        }
        if let Some(limit_ms) = placed.hangup_on_ring_ms {
            desk.set(Timer::RingLimit, limit_ms);
        }
        State::Calling(Self { rung: true, ..self })
    }

    /// Ours: `terminate` follows, as soon as there is an id to name.
    fn end(self, desk: &mut Desk, cause: HangupCause) -> State {
        if self.bound {
            return close(desk, cause);
        }
        end_here(desk, cause);
        desk.reap();
        State::Unbound(Unbound { asked: true })
    }
}

/// Answered: by our clock, whatever Meta says of the moment.
fn pick_up(desk: &mut Desk) -> State {
    for timer in [Timer::Ring, Timer::RingLimit, Timer::Heard] {
        desk.timers.clear(timer);
    }
    Live::begin_placed(desk)
}

impl Unbound {
    /// Nothing is known of the call any more: its slot is given back, its name is kept for a while.
    fn doubt(desk: &mut Desk) -> State {
        desk.wish(Output::FreeSlot);
        desk.timers.clear(Timer::Reap);
        desk.set(Timer::Doubt, DOUBT_MS);
        State::Unbound(Self { asked: false })
    }

    /// Nothing is known of the call, and its slot has gone back.
    pub(super) fn is_in_doubt(&self) -> bool {
        !self.asked
    }

    pub(super) fn draw(&self, sketch: &mut Sketch) {
        sketch.say("waits_for", [word(if self.asked { "connects_answer" } else { "metas_id" })]);
    }

    pub(super) fn handle(self, desk: &mut Desk, fact: Input) -> State {
        match fact {
            Input::Bound { wacid } => {
                desk.setup.wacid = Some(wacid);
                desk.timers.clear(Timer::Doubt);
                close_late(desk)
            }
            Input::Graph { action: GraphAction::Connect, outcome }
                if self.asked && is_unknown(&outcome) =>
            {
                Self::doubt(desk)
            }
            // With `Done` came `Bound`, before this.
            Input::Graph { action: GraphAction::Connect, .. } if self.asked => gone(desk),
            Input::Terminated { .. } => gone(desk),
            Input::Offered { .. }
            | Input::Placed { .. }
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
            | Input::Timer => State::Unbound(self),
        }
    }

    pub(super) fn handle_timer(self, desk: &mut Desk, timer: Timer) -> State {
        match timer {
            Timer::Doubt | Timer::Reap => gone(desk),
            Timer::AcceptWait
            | Timer::Accept
            | Timer::Ring
            | Timer::RingLimit
            | Timer::Heard
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
            | Timer::Confirm
            | Timer::Close
            | Timer::TerminateAgain => State::Unbound(self),
        }
    }
}

/// Whether Meta may have made the call all the same: no answer, or one that is none.
fn is_unknown(outcome: &GraphOutcome) -> bool {
    match outcome {
        GraphOutcome::Timeout | GraphOutcome::ServerError { .. } => true,
        GraphOutcome::Done
        | GraphOutcome::Gone
        | GraphOutcome::Refused { .. }
        | GraphOutcome::RateLimited { .. }
        | GraphOutcome::Unreachable => false,
    }
}

/// What a refused `connect` is called (`meta-calling.md` §4.6, `plivo-callbacks.md` §6.3).
fn connect_cause(outcome: &GraphOutcome) -> HangupCause {
    let (GraphOutcome::Refused { code, .. } | GraphOutcome::RateLimited { code }) = outcome else {
        return graph_cause(outcome);
    };
    match code {
        138_000 => HangupCause::CallingDisabled,
        138_001 => HangupCause::UserUnreachable,
        138_002 => HangupCause::NumberFull,
        138_003 => HangupCause::UserBusy,
        138_005 => HangupCause::CpsExceeded,
        138_006 | 138_012 => HangupCause::PermissionRefused,
        138_007 => HangupCause::NoAnswer,
        _ => graph_cause(outcome),
    }
}

/// What whoever reads the record had better do.
fn advice(cause: HangupCause) -> &'static str {
    match cause {
        HangupCause::CallingDisabled => "enable calling for the number at Meta",
        HangupCause::UserUnreachable => "the user cannot be called on WhatsApp",
        HangupCause::NumberFull => "the number has as many calls as Meta allows",
        HangupCause::UserBusy => "a call between the two is under way",
        HangupCause::PermissionRefused => {
            "the user must permit calls first, or permits no more for now"
        }
        HangupCause::CpsExceeded | HangupCause::GraphRateLimited => "call more slowly",
        _ => "the call is given up",
    }
}
