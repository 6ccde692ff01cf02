//! An outbound call until it is answered (docs/reference/meta.md#business-initiated-calls), and one
//! that ended before its id was known.
//!
//! Meta guarantees no order: the SDP answer, RINGING and ACCEPTED can arrive in any order, even
//! before Graph has returned the id of the call. The call driver delivers [`Input::Bound`] before
//! all of them.

use super::closing::{close_ended, close_late, end_here};
use super::live::LiveState;
use super::{State, UNUSABLE_ANSWER, close, describe, gone, graph_cause, note, over};
use crate::context::CallContext;
use crate::contract::{
    BLegCommand, BLegEvent, CallState, CallbackKind, CallbackRequest, Command, GraphAction,
    GraphOutcome, Input, MediaCommand, MediaEvent, Output, PhoneStatus,
};
use crate::element::add_participant;
use crate::params::{self, Event};
use crate::room_ringback;
use crate::snapshot::{SnapshotBuilder, word};
use crate::timers::Timer;
use model::{CallType, HangupCause};

/// How long ACCEPTED may follow the user's first audio. Audio means that the user has answered.
const HEARD_MS: u64 = 2_000;
/// How long a call may still turn out to exist after a `connect` without an outcome.
const DOUBT_MS: u64 = 60_000;

/// The call is being placed, or the user's phone rings.
pub(super) struct CallingState {
    /// Meta's id of the call is known.
    bound: bool,
    /// RINGING has been received.
    rung: bool,
}

/// The call ended before Meta's id was known. If an id arrives, the call is terminated at Meta.
pub(super) struct UnboundState {
    /// `connect` is in flight.
    asked: bool,
}

impl CallingState {
    /// Begins a call: the SDP offer is sent to Graph.
    pub(super) fn begin(ctx: &mut CallContext) -> Self {
        ctx.graph(GraphAction::Connect);
        ctx.state(CallState::Dialing);
        // Guards against an outcome that is never reported.
        ctx.reap();
        Self { bound: false, rung: false }
    }

    pub(super) fn draw(&self, snapshot: &mut SnapshotBuilder) {
        snapshot
            .say("waits_for", [word(if self.bound { "somebody_to_pick_up" } else { "metas_id" })]);
    }

    pub(super) fn name(&self) -> CallState {
        match (self.bound, self.rung) {
            (false, _) => CallState::Dialing,
            (true, false) => CallState::Proceeding,
            (true, true) => CallState::Ringing,
        }
    }

    pub(super) fn handle(self, ctx: &mut CallContext, fact: Input) -> State {
        match fact {
            Input::Graph { action: GraphAction::Connect, outcome } => self.outcome(ctx, &outcome),
            Input::Bound { wacid } if !self.bound => {
                ctx.setup.wacid = Some(wacid);
                self.proceed(ctx)
            }
            Input::SdpAnswer { usable: true } => {
                ctx.media(MediaCommand::Begin);
                State::Calling(self)
            }
            Input::SdpAnswer { usable: false } => {
                ctx.remark(UNUSABLE_ANSWER.to_owned());
                self.end(ctx, HangupCause::GraphError)
            }
            Input::Status { status: PhoneStatus::Ringing } => self.ringing(ctx),
            Input::Status { status: PhoneStatus::Accepted } => pick_up(ctx),
            Input::Status { status: PhoneStatus::Rejected } => close_ended(ctx, HangupCause::Rejected),
            Input::Media { event: what, .. } => match ctx.path_changed(&what) {
                Some(cause) => self.end(ctx, cause),
                None => {
                    if what == MediaEvent::Flowing {
                        ctx.set(Timer::Heard, HEARD_MS);
                    }
                    State::Calling(self)
                }
            },
            Input::Terminated { termination } => {
                note(ctx, termination);
                over(ctx, HangupCause::NoAnswer)
            }
            Input::Command { command: Command::Hangup } => self.end(ctx, HangupCause::CancelledByApi),
            Input::HangUp { cause } | Input::ALeg { command: BLegCommand::HangUp { cause } } => self.end(ctx, cause),
            Input::Fetched { fetch, result } => {
                room_ringback::fetched(ctx, fetch, result);
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
            | Input::Recording { .. }
            | Input::DigitsSent { .. }
            // All other commands need an answered call.
            | Input::Command { .. }
            | Input::BLeg { .. }
            | Input::Room { .. }
            | Input::ALeg { command: BLegCommand::Proceed | BLegCommand::Join | BLegCommand::Forward { .. } }
            | Input::Timer => State::Calling(self),
        }
    }

    pub(super) fn handle_timer(self, ctx: &mut CallContext, timer: Timer) -> State {
        match timer {
            Timer::Ring | Timer::RingLimit => self.end(ctx, HangupCause::RingTimeout),
            Timer::Heard => {
                ctx.remark(
                    "the user is heard, and no ACCEPTED has come: the call counts as answered"
                        .to_owned(),
                );
                pick_up(ctx)
            }
            Timer::PathClosed => {
                let cause = ctx.path_cause();
                self.end(ctx, cause)
            }
            Timer::Reap => self.outcome(ctx, &GraphOutcome::Timeout),
            Timer::Fetch => {
                room_ringback::fetch_timed_out(ctx);
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

    /// Meta's id is known: the ring timeout begins.
    fn proceed(self, ctx: &mut CallContext) -> State {
        ctx.timers.clear(Timer::Reap);
        let ring_ms = ctx.setup.outbound.as_ref().map_or(0, |placed| placed.ring_timeout_ms);
        ctx.set(Timer::Ring, ring_ms);
        ctx.state(CallState::Proceeding);
        add_participant::report(ctx, "AddParticipantInitiated");
        ctx.news(BLegEvent::Placed);
        room_ringback::begin(ctx);
        State::Calling(Self { bound: true, ..self })
    }

    /// Handles the outcome of `connect`.
    fn outcome(self, ctx: &mut CallContext, outcome: &GraphOutcome) -> State {
        // A webhook has delivered the id. The call exists, whatever the outcome of the request is.
        if self.bound {
            return State::Calling(self);
        }
        match (ctx.setup.call_type, outcome) {
            // A web leg gets no id from Meta. Either its phones ring, or none is registered.
            (CallType::Web, GraphOutcome::Done) => return self.proceed(ctx),
            (CallType::Web, _) => {
                ctx.remark("no phone has registered as this endpoint".to_owned());
                return over(ctx, HangupCause::EndpointNotRegistered);
            }
            (CallType::Whatsapp, GraphOutcome::Done) => return State::Calling(self),
            (CallType::Whatsapp, _) => {}
        }
        let cause = connect_cause(outcome);
        ctx.remark(format!("connect failed ({}): {}", describe(outcome), advice(cause)));
        if is_unknown(outcome) {
            end_here(ctx, cause);
            return UnboundState::doubt(ctx);
        }
        over(ctx, cause)
    }

    /// The user's phone rings. Reported once.
    fn ringing(self, ctx: &mut CallContext) -> State {
        if self.rung {
            return State::Calling(self);
        }
        ctx.state(CallState::Ringing);
        add_participant::report(ctx, "AddParticipantRinging");
        ctx.news(BLegEvent::Ringing);
        let placed = ctx.setup.outbound.clone().unwrap_or_default();
        if let Some((url, method)) = placed.ring {
            let params = params::common(ctx, Event::Ring);
            ctx.wish(Output::Callback {
                callback: CallbackRequest { kind: CallbackKind::Ring, url, method, params },
            });
        }
        if let Some(limit_ms) = placed.hangup_on_ring_ms {
            ctx.set(Timer::RingLimit, limit_ms);
        }
        State::Calling(Self { rung: true, ..self })
    }

    /// Ends the call. `terminate` is sent as soon as the id is known.
    fn end(self, ctx: &mut CallContext, cause: HangupCause) -> State {
        if self.bound {
            return close(ctx, cause);
        }
        end_here(ctx, cause);
        ctx.reap();
        State::Unbound(UnboundState { asked: true })
    }
}

/// The call is answered now by our clock, whatever timestamp Meta reports.
fn pick_up(ctx: &mut CallContext) -> State {
    for timer in [Timer::Ring, Timer::RingLimit, Timer::Heard] {
        ctx.timers.clear(timer);
    }
    LiveState::begin_placed(ctx)
}

impl UnboundState {
    /// The outcome of `connect` is unknown. Releases the slot and waits a while for an id.
    fn doubt(ctx: &mut CallContext) -> State {
        ctx.wish(Output::FreeSlot);
        ctx.timers.clear(Timer::Reap);
        ctx.set(Timer::Doubt, DOUBT_MS);
        State::Unbound(Self { asked: false })
    }

    /// Whether the outcome of `connect` is unknown. The slot is released then.
    pub(super) fn is_in_doubt(&self) -> bool {
        !self.asked
    }

    pub(super) fn draw(&self, snapshot: &mut SnapshotBuilder) {
        snapshot.say("waits_for", [word(if self.asked { "connects_answer" } else { "metas_id" })]);
    }

    pub(super) fn handle(self, ctx: &mut CallContext, fact: Input) -> State {
        match fact {
            Input::Bound { wacid } => {
                ctx.setup.wacid = Some(wacid);
                ctx.timers.clear(Timer::Doubt);
                close_late(ctx)
            }
            Input::Graph { action: GraphAction::Connect, outcome }
                if self.asked && is_unknown(&outcome) =>
            {
                Self::doubt(ctx)
            }
            // After `Done`, `Bound` has come first.
            Input::Graph { action: GraphAction::Connect, .. } if self.asked => gone(ctx),
            Input::Terminated { .. } => gone(ctx),
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
            | Input::Recording { .. }
            | Input::DigitsSent { .. }
            | Input::BLeg { .. }
            | Input::ALeg { .. }
            | Input::Room { .. }
            | Input::Command { .. }
            | Input::HangUp { .. }
            | Input::Timer => State::Unbound(self),
        }
    }

    pub(super) fn handle_timer(self, ctx: &mut CallContext, timer: Timer) -> State {
        match timer {
            Timer::Doubt | Timer::Reap => gone(ctx),
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

/// Whether Meta may have created the call although the request failed.
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

/// Returns the hangup cause for a `connect` that Graph refused
/// (docs/reference/meta.md#error-codes).
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

/// Returns a remedy for the log.
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
