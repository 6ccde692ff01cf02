//! An outbound call before its answer (docs/reference/meta.md#business-initiated-calls), and an
//! outbound call that ended before its id was known.
//!
//! Meta guarantees no order: the SDP answer, RINGING and ACCEPTED can arrive in any order, even
//! before Graph has returned the id of the call. The call driver delivers [`Input::Bound`] before
//! all of them.

use super::closing::{close_ended, close_late, end_here};
use super::live::LiveState;
use super::{State, UNUSABLE_ANSWER, close, describe, end, finish, graph_cause, store_termination};
use crate::context::CallContext;
use crate::contract::{
    BLegCommand, BLegEvent, CallState, CallbackKind, CallbackRequest, Command, GraphAction,
    GraphOutcome, Input, MediaCommand, MediaEvent, Output, PhoneStatus,
};
use crate::element::add_participant;
use crate::params::{self, Event};
use crate::room_ringback;
use crate::snapshot::{SnapshotBuilder, word};
use crate::timers::{DocumentTimer, Timer};
use model::{CallType, HangupCause};

/// Timeout of ACCEPTED after the user's first audio, in milliseconds. The audio shows that the user
/// has answered.
const ACCEPTED_GRACE_MS: u64 = 2_000;
/// Time for which the id of a call may still arrive after a `connect` with an unknown outcome.
const UNKNOWN_CONNECT_MS: u64 = 60_000;

/// The call is being placed, or the user's phone rings.
pub(super) struct CallingState {
    /// Whether Meta's id of the call is known.
    bound: bool,
    /// Whether RINGING has been received.
    rung: bool,
}

/// The call ended before Meta's id was known. If an id arrives, the call is terminated at Meta.
pub(super) struct UnboundState {
    /// Whether `connect` is in flight.
    connect_in_flight: bool,
}

impl CallingState {
    /// Starts a call: sends the SDP offer to Graph.
    pub(super) fn begin(ctx: &mut CallContext) -> Self {
        ctx.graph(GraphAction::Connect);
        ctx.report_state(CallState::Dialing);
        // Covers the case that the outcome is never reported.
        ctx.set_reap_timer();
        Self { bound: false, rung: false }
    }

    pub(super) fn write_snapshot(&self, snapshot: &mut SnapshotBuilder) {
        snapshot.add("waits_for", [word(if self.bound { "answer" } else { "meta_call_id" })]);
    }

    pub(super) fn name(&self) -> CallState {
        match (self.bound, self.rung) {
            (false, _) => CallState::Dialing,
            (true, false) => CallState::Proceeding,
            (true, true) => CallState::Ringing,
        }
    }

    pub(super) fn handle(self, ctx: &mut CallContext, input: Input) -> State {
        match input {
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
            Input::Status { status: PhoneStatus::Accepted } => answer(ctx),
            Input::Status { status: PhoneStatus::Rejected } => close_ended(ctx, HangupCause::Rejected),
            Input::Media { event, .. } => match ctx.handle_media(&event) {
                Some(cause) => self.end(ctx, cause),
                None => {
                    if event == MediaEvent::Flowing {
                        ctx.set_timer(Timer::AcceptedOverdue, ACCEPTED_GRACE_MS);
                    }
                    State::Calling(self)
                }
            },
            Input::Terminated { termination } => {
                store_termination(ctx, termination);
                end(ctx, HangupCause::NoAnswer)
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
            Timer::AcceptedOverdue => {
                ctx.remark(
                    "the user is heard, and no ACCEPTED has come: the call counts as answered"
                        .to_owned(),
                );
                answer(ctx)
            }
            Timer::PathClosed => {
                let cause = ctx.path_cause();
                self.end(ctx, cause)
            }
            Timer::Reap => self.outcome(ctx, &GraphOutcome::Timeout),
            Timer::Document(DocumentTimer::Fetch) => {
                room_ringback::fetch_timed_out(ctx);
                State::Calling(self)
            }
            Timer::AcceptWait
            | Timer::Accept
            | Timer::AcceptOutcome
            | Timer::MediaSetup
            | Timer::MaxCall
            | Timer::ScheduledHangup
            | Timer::Document(_)
            | Timer::StreamLimit
            | Timer::Close
            | Timer::TerminateRetry
            | Timer::UnknownConnect => State::Calling(self),
        }
    }

    /// Handles the arrival of Meta's id: starts the ring timeout.
    fn proceed(self, ctx: &mut CallContext) -> State {
        ctx.timers.clear(Timer::Reap);
        let ring_ms = ctx.setup.outbound.as_ref().map_or(0, |outbound| outbound.ring_timeout_ms);
        ctx.set_timer(Timer::Ring, ring_ms);
        ctx.report_state(CallState::Proceeding);
        add_participant::report(ctx, "AddParticipantInitiated");
        ctx.report_to_a_leg(BLegEvent::Placed);
        room_ringback::begin(ctx);
        State::Calling(Self { bound: true, ..self })
    }

    /// Handles the outcome of `connect`.
    fn outcome(self, ctx: &mut CallContext, outcome: &GraphOutcome) -> State {
        // A webhook has delivered the id, so the call exists even if the request failed.
        if self.bound {
            return State::Calling(self);
        }
        match (ctx.setup.call_type, outcome) {
            // A web leg gets no id from Meta. Either its phones ring, or none is registered.
            (CallType::Web, GraphOutcome::Done) => return self.proceed(ctx),
            (CallType::Web, _) => {
                ctx.remark("no phone has registered as this endpoint".to_owned());
                return end(ctx, HangupCause::EndpointNotRegistered);
            }
            (CallType::Whatsapp, GraphOutcome::Done) => return State::Calling(self),
            (CallType::Whatsapp, _) => {}
        }
        let cause = connect_cause(outcome);
        ctx.remark(format!("connect failed ({}): {}", describe(outcome), remedy(cause)));
        if is_unknown(outcome) {
            end_here(ctx, cause);
            return UnboundState::outcome_unknown(ctx);
        }
        end(ctx, cause)
    }

    /// Handles the first report that the user's phone rings.
    fn ringing(self, ctx: &mut CallContext) -> State {
        if self.rung {
            return State::Calling(self);
        }
        ctx.report_state(CallState::Ringing);
        add_participant::report(ctx, "AddParticipantRinging");
        ctx.report_to_a_leg(BLegEvent::Ringing);
        let outbound = ctx.setup.outbound.clone().unwrap_or_default();
        if let Some((url, method)) = outbound.ring {
            let params = params::common(ctx, Event::Ring);
            ctx.emit(Output::Callback {
                callback: CallbackRequest { kind: CallbackKind::Ring, url, method, params },
            });
        }
        if let Some(limit_ms) = outbound.hangup_on_ring_ms {
            ctx.set_timer(Timer::RingLimit, limit_ms);
        }
        State::Calling(Self { rung: true, ..self })
    }

    /// Ends the call. `terminate` is sent as soon as the id is known.
    fn end(self, ctx: &mut CallContext, cause: HangupCause) -> State {
        if self.bound {
            return close(ctx, cause);
        }
        end_here(ctx, cause);
        ctx.set_reap_timer();
        State::Unbound(UnboundState { connect_in_flight: true })
    }
}

/// Marks the call as answered at the current time of the local clock. The timestamp from Meta is
/// not used.
fn answer(ctx: &mut CallContext) -> State {
    for timer in [Timer::Ring, Timer::RingLimit, Timer::AcceptedOverdue] {
        ctx.timers.clear(timer);
    }
    LiveState::begin_outbound(ctx)
}

impl UnboundState {
    /// Handles an unknown outcome of `connect`: releases the slot and waits for an id for a limited
    /// time.
    fn outcome_unknown(ctx: &mut CallContext) -> State {
        ctx.emit(Output::FreeSlot);
        ctx.timers.clear(Timer::Reap);
        ctx.set_timer(Timer::UnknownConnect, UNKNOWN_CONNECT_MS);
        State::Unbound(Self { connect_in_flight: false })
    }

    /// Whether the outcome of `connect` is unknown, so that the slot is released.
    pub(super) fn is_outcome_unknown(&self) -> bool {
        !self.connect_in_flight
    }

    pub(super) fn write_snapshot(&self, snapshot: &mut SnapshotBuilder) {
        snapshot.add(
            "waits_for",
            [word(if self.connect_in_flight { "connect_response" } else { "meta_call_id" })],
        );
    }

    pub(super) fn handle(self, ctx: &mut CallContext, input: Input) -> State {
        match input {
            Input::Bound { wacid } => {
                ctx.setup.wacid = Some(wacid);
                ctx.timers.clear(Timer::UnknownConnect);
                close_late(ctx)
            }
            Input::Graph { action: GraphAction::Connect, outcome }
                if self.connect_in_flight && is_unknown(&outcome) =>
            {
                Self::outcome_unknown(ctx)
            }
            // If the outcome is `Done`, `Bound` has already arrived.
            Input::Graph { action: GraphAction::Connect, .. } if self.connect_in_flight => {
                finish(ctx)
            }
            Input::Terminated { .. } => finish(ctx),
            // The node stops. The next process ends the call if it appears at Meta.
            Input::HangUp { cause: HangupCause::Drained } if self.is_outcome_unknown() => {
                finish(ctx)
            }
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
            Timer::UnknownConnect | Timer::Reap => finish(ctx),
            Timer::AcceptWait
            | Timer::Accept
            | Timer::Ring
            | Timer::RingLimit
            | Timer::AcceptedOverdue
            | Timer::AcceptOutcome
            | Timer::MediaSetup
            | Timer::PathClosed
            | Timer::MaxCall
            | Timer::ScheduledHangup
            | Timer::Document(_)
            | Timer::StreamLimit
            | Timer::Close
            | Timer::TerminateRetry => State::Unbound(self),
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

/// Returns a remedy for the operator, which is logged.
fn remedy(cause: HangupCause) -> &'static str {
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
