//! An answered call, inbound or outbound. Its document runs
//! (docs/reference/meta.md#life-of-a-call).

use super::{State, UNUSABLE_ANSWER, close, end, store_termination};
use crate::activity::Readiness;
use crate::context::CallContext;
use crate::contract::{BLegCommand, CallState, Command, Input, Legs, MediaCommand};
use crate::element::add_participant;
use crate::interpreter::{Interpreter, Step};
use crate::overlays::Overlays;
use crate::room_ringback;
use crate::snapshot::{SnapshotBuilder, text, word};
use crate::stream::{self, EndedStream};
use crate::timers::Timer;
use model::HangupCause;

/// The call is answered.
pub(super) struct LiveState {
    interpreter: Box<Interpreter>,
    /// Digits that an outbound call sends when the media path is up.
    digits: Option<String>,
    /// Sounds that API requests play beside the document.
    overlays: Overlays,
}

impl LiveState {
    /// Enters this state after `accept` has succeeded. The interpreter continues with the element
    /// that waited for it.
    pub(super) fn begin(mut interpreter: Box<Interpreter>, ctx: &mut CallContext) -> State {
        Self::mark_answered(ctx);
        let step = interpreter.resume(ctx, live_readiness(ctx));
        Self { interpreter, digits: None, overlays: Overlays::default() }.after(ctx, step)
    }

    /// Enters this state after the user has answered an outbound call. Requests the answer URL, or
    /// reports to the leg that dialled.
    pub(super) fn begin_outbound(ctx: &mut CallContext) -> State {
        Self::mark_answered(ctx);
        add_participant::report(ctx, "AddParticipantAnswered");
        if ctx.setup.b_leg().is_some() {
            let interpreter = Box::new(Interpreter::for_b_leg(ctx));
            return State::Live(Self { interpreter, digits: None, overlays: Overlays::default() });
        }
        let document = ctx.setup.outbound.as_ref().and_then(|outbound| outbound.document.clone());
        let confirm = ctx.setup.outbound.as_ref().and_then(|outbound| outbound.confirm.clone());
        let (interpreter, step) = match (document, confirm) {
            (Some(document), Some(confirm)) => {
                let interpreter = Box::new(Interpreter::with_confirmation(
                    ctx,
                    live_readiness(ctx),
                    confirm,
                    document,
                ));
                // The digits are sent after the confirmation.
                return State::Live(Self {
                    interpreter,
                    digits: None,
                    overlays: Overlays::default(),
                });
            }
            (Some(document), None) => {
                Interpreter::with_document(ctx, live_readiness(ctx), document)
            }
            (None, _) => (Interpreter::begin(ctx), Step::Busy),
        };
        let digits = ctx.setup.outbound.as_ref().and_then(|outbound| outbound.send_digits.clone());
        let mut live =
            Self { interpreter: Box::new(interpreter), digits, overlays: Overlays::default() };
        live.send_digits(ctx);
        live.after(ctx, step)
    }

    fn mark_answered(ctx: &mut CallContext) {
        ctx.answered = Some(ctx.now);
        room_ringback::stop(ctx);
        let limits = &ctx.setup.limits;
        let (media_setup_ms, max_call_ms) = (limits.media_setup_ms, limits.max_call_ms);
        ctx.set_timer(Timer::MaxCall, max_call_ms);
        if !ctx.connected {
            ctx.set_timer(Timer::MediaSetup, media_setup_ms);
        }
        ctx.report_state(CallState::Live);
        ctx.media(MediaCommand::Open);
    }

    /// Sends the digits of an outbound call, if the media path is up.
    fn send_digits(&mut self, ctx: &mut CallContext) {
        if ctx.connected
            && let Some(digits) = self.digits.take()
        {
            let play = ctx.next_play();
            ctx.media(MediaCommand::SendDigits { play, digits });
        }
    }

    pub(super) fn interpreter(&self) -> &Interpreter {
        &self.interpreter
    }

    pub(super) fn write_snapshot(&self, snapshot: &mut SnapshotBuilder) {
        if let Some(digits) = &self.digits {
            snapshot.add("beside", [word("digits_to_send"), text(digits)]);
        }
        self.overlays.write_snapshot(snapshot);
    }

    pub(super) fn handle(mut self, ctx: &mut CallContext, input: Input) -> State {
        match input {
            Input::Media { event, .. } => match ctx.handle_media(&event) {
                Some(cause) => self.hang_up(ctx, cause),
                None => {
                    self.send_digits(ctx);
                    let step = self.interpreter.resume(ctx, live_readiness(ctx));
                    self.after(ctx, step)
                }
            },
            Input::Terminated { termination } => {
                self.interpreter.end_call(ctx, live_readiness(ctx));
                store_termination(ctx, termination);
                end(ctx, HangupCause::CallerHangup)
            }
            Input::Stream { stream, event } => {
                let ended = stream::handle_event(ctx, stream, event);
                self.after_stream(ctx, ended)
            }
            Input::Command { command } => self.command(ctx, command),
            Input::ALeg { command: BLegCommand::Forward { command } } => {
                self.command(ctx, *command)
            }
            Input::PlayFailed { play, item, reason, .. }
                if self.overlays.failed(ctx, play, item, &reason) =>
            {
                State::Live(self)
            }
            Input::HangUp { cause } => self.hang_up(ctx, cause),
            input @ (Input::Fetched { .. }
            | Input::BLeg { .. }
            | Input::ALeg { .. }
            | Input::Room { .. }
            | Input::Digit { .. }
            | Input::PlayStarted { .. }
            | Input::Played { .. }
            | Input::PlayFailed { .. }
            | Input::Voice { .. }
            | Input::Speech { .. }
            | Input::Recording { .. }
            | Input::DigitsSent { .. }) => {
                if let Input::Played { play, .. } = &input {
                    self.overlays.played(*play);
                }
                let step = self.interpreter.handle(ctx, live_readiness(ctx), input);
                self.after(ctx, step)
            }
            // The answer to our offer arrived after ACCEPTED
            // (docs/reference/meta.md#business-initiated-calls).
            Input::SdpAnswer { usable: true } => {
                ctx.media(MediaCommand::Begin);
                ctx.media(MediaCommand::Open);
                State::Live(self)
            }
            Input::SdpAnswer { usable: false } => {
                ctx.remark(UNUSABLE_ANSWER.to_owned());
                self.hang_up(ctx, HangupCause::GraphError)
            }
            // The outcome of `pre_accept` may arrive after that of `accept`, and RINGING after
            // ACCEPTED.
            Input::Offered { .. }
            | Input::Placed { .. }
            | Input::Bound { .. }
            | Input::Status { .. }
            | Input::Graph { .. }
            | Input::Timer => State::Live(self),
        }
    }

    /// Executes an API request. The part that concerns the B-leg is forwarded to it.
    fn command(mut self, ctx: &mut CallContext, command: Command) -> State {
        match command {
            Command::Hangup => return self.hang_up(ctx, HangupCause::ApiHangup),
            Command::Transfer { aleg, bleg } => {
                let is_released =
                    bleg.is_some_and(|target| self.interpreter.transfer_b_leg(ctx, target));
                match aleg {
                    Some(target) => {
                        let step = self.interpreter.transfer_to(ctx, live_readiness(ctx), target);
                        return self.after(ctx, step);
                    }
                    // A leg that is not named in the transfer is hung up
                    // (docs/reference/rest.md#transfer).
                    None if is_released => return self.hang_up(ctx, HangupCause::ApiHangup),
                    None => {}
                }
            }
            Command::Run { document, room } => {
                // The call enters a multi-party call. Its events as a participant are reported now,
                // because it was answered before.
                for event in ["AddParticipantInitiated", "AddParticipantAnswered"] {
                    add_participant::report_for(ctx, &document, room, event);
                }
                let step = self.interpreter.replace_document(ctx, live_readiness(ctx), document);
                return self.after(ctx, step);
            }
            Command::Play { legs, overlay } => {
                if legs.has_b() {
                    self.interpreter.forward_to_b_leg(
                        ctx,
                        Command::Play { legs: Legs::A, overlay: overlay.clone() },
                    );
                }
                self.overlays.play(ctx, legs, overlay);
            }
            Command::StopPlay { kind } => {
                self.interpreter.forward_to_b_leg(ctx, Command::StopPlay { kind });
                self.overlays.stop(ctx, kind);
            }
            Command::Record { order, callback } => {
                self.interpreter.record(ctx, live_readiness(ctx), *order, callback)
            }
            Command::StopRecord => self.interpreter.stop_recording(ctx),
            Command::SendDigits { legs, digits } => {
                if legs.has_b() {
                    self.interpreter.forward_to_b_leg(
                        ctx,
                        Command::SendDigits { legs: Legs::A, digits: digits.clone() },
                    );
                }
                Overlays::send_digits(ctx, legs, digits);
            }
            Command::Stream { stream, order } => {
                stream::open(ctx, stream, order);
            }
            Command::StopStream { stream } => {
                let ended = stream::stop(ctx, stream, stream::StopReason::Api);
                return self.after_stream(ctx, ended);
            }
        }
        State::Live(self)
    }

    pub(super) fn handle_timer(mut self, ctx: &mut CallContext, timer: Timer) -> State {
        match timer {
            Timer::MediaSetup => self.hang_up(ctx, HangupCause::MediaSetupTimeout),
            Timer::PathClosed => {
                let cause = ctx.path_cause();
                self.hang_up(ctx, cause)
            }
            Timer::MaxCall => self.hang_up(ctx, HangupCause::TimeLimit),
            Timer::ScheduledHangup => self.hang_up(ctx, HangupCause::ScheduledHangup),
            Timer::StreamLimit => {
                let ended = stream::stop(ctx, None, stream::StopReason::Timeout);
                self.after_stream(ctx, ended)
            }
            Timer::Document(timer) => {
                let step = self.interpreter.handle_timer(ctx, live_readiness(ctx), timer);
                self.after(ctx, step)
            }
            Timer::AcceptWait
            | Timer::Accept
            | Timer::Ring
            | Timer::RingLimit
            | Timer::AcceptedOverdue
            | Timer::UnknownConnect
            | Timer::AcceptOutcome
            | Timer::Close
            | Timer::TerminateRetry
            | Timer::Reap => State::Live(self),
        }
    }

    /// Continues the document, if it waited for the end of the stream.
    fn after_stream(mut self, ctx: &mut CallContext, ended: Option<EndedStream>) -> State {
        let Some(ended) = ended else { return State::Live(self) };
        let step = self.interpreter.stream_ended(ctx, live_readiness(ctx), ended);
        self.after(ctx, step)
    }

    fn after(self, ctx: &mut CallContext, step: Step) -> State {
        match step {
            Step::Busy => State::Live(self),
            Step::End(cause) => self.hang_up(ctx, cause),
        }
    }

    fn hang_up(mut self, ctx: &mut CallContext, cause: HangupCause) -> State {
        self.interpreter.end_call(ctx, live_readiness(ctx));
        close(ctx, cause)
    }
}

fn live_readiness(ctx: &CallContext) -> Readiness {
    if ctx.connected { Readiness::Open } else { Readiness::Unconnected }
}
