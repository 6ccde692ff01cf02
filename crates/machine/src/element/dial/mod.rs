//! `Dial`: calls targets and connects one of them to the caller (docs/reference/xml.md#dial).
//!
//! This module implements the A-leg's side. It decides which targets may be called, and which of
//! them answered first. It plays sounds to the waiting caller and sends the callbacks about the
//! targets.
//!
//! Each B-leg is a separate call, which gets [`BLegCommand`]s and reports [`BLegEvent`]s. When the
//! A-leg ends a B-leg, this takes effect immediately: later events of that leg are ignored.

mod events;
mod music;
mod target;

use super::patterns::DigitPatterns;
use super::{At, Flow, Instruction};
use crate::activity::{Action, Activity, Completion, Env, Progress, Readiness, StopReason};
use crate::context::CallContext;
use crate::contract::dial::sip_headers;
use crate::contract::display::foreign;
use crate::contract::time::millis;
use crate::contract::{
    BLegCommand, BLegEvent, BLegSetup, CallTime, Confirmation, Destination, DialError, DialOrder,
    FetchFailure, FetchId, FetchResponse, MediaCommand, Output, PlayId, RING_MAX_MS,
};
use crate::digits::Key;
use crate::snapshot::{SnapshotBuilder, text, word};
use crate::timers::DocumentTimer;
use events::TargetEvent;
use model::{CallUuid, Digit, Direction, HangupCause, Method, last_four};
use music::Music;
use xml::ast::{Dial, DialTarget};

/// A `Dial` that is being executed.
struct DialAttempt {
    dial: Box<Dial>,
    legs: Vec<BLeg>,
    /// The index in `legs` of the target that answered first.
    winner: Option<usize>,
    /// Whether the winner has confirmed and its media path is up.
    ready: bool,
    /// Whether the two legs are connected.
    joined: bool,
    /// Whether at least one target was placed.
    placed: bool,
    /// Whether the phone of at least one target has rung.
    rang: bool,
    /// The first error among targets that were not placed.
    first_error: Option<DialError>,
    /// The cause of the winner's end. Without a winner, the cause of the placed target that ended
    /// last.
    last_end: Option<HangupCause>,
    music: Music,
    a_patterns: DigitPatterns,
    b_patterns: DigitPatterns,
}

/// A target and the leg that is called for it.
pub(super) struct BLeg {
    call: CallUuid,
    /// The position in the `Dial`, from 1.
    position: u8,
    from: String,
    to: String,
    phase: Phase,
    begun: CallTime,
    answered: Option<CallTime>,
}

/// The state of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A call to the target was ordered and is not placed yet.
    Asked,
    Placed,
    Over,
}

/// Calls all targets that may be called.
impl Instruction for Dial {
    fn start(&self, env: &mut Env<'_>, _: At) -> Flow {
        let mut attempt = DialAttempt::place(self, env.ctx);
        match attempt.begin(env.ctx) {
            Some(finished) => Flow::Finished(finished),
            None => Flow::run(attempt),
        }
    }

    /// The activity requests the answer once a target has been placed.
    fn needs_media(&self) -> bool {
        false
    }

    fn takes_time(&self) -> bool {
        false
    }

    /// Each target is a leg, with callbacks of its own.
    fn cost(&self) -> u64 {
        let targets = u64::try_from(self.targets.len()).unwrap_or(u64::MAX);
        targets.saturating_mul(2).saturating_add(1)
    }
}

impl DialAttempt {
    fn place(dial: &Dial, ctx: &mut CallContext) -> Self {
        let mut attempt = Self {
            dial: Box::new(dial.clone()),
            legs: Vec::with_capacity(dial.targets.len()),
            winner: None,
            ready: false,
            joined: false,
            placed: false,
            rang: false,
            first_error: None,
            last_end: None,
            music: Music::new(&dial.dial_music),
            a_patterns: DigitPatterns::new(&dial.digits_match),
            b_patterns: DigitPatterns::new(&dial.digits_match_b_leg),
        };
        for (position, target) in (1..).zip(&dial.targets) {
            let (from, to) = target::parties(dial, target, ctx);
            let call = ctx.next_leg();
            let leg = BLeg {
                call,
                position,
                from,
                to,
                phase: Phase::Asked,
                begun: ctx.now,
                answered: None,
            };
            let destination = target::destination(ctx, target, &leg.from);
            attempt.legs.push(leg);
            match destination {
                Ok(destination) => {
                    let order = Box::new(attempt.order(ctx, target, call, position, destination));
                    ctx.emit(Output::Dial { order });
                }
                Err(error) => attempt.not_placed(ctx, attempt.legs.len() - 1, error, ""),
            }
        }
        attempt
    }

    /// Starts the ring timeout if a target is being called. Otherwise returns how the element
    /// ended.
    fn begin(&mut self, ctx: &mut CallContext) -> Option<Completion> {
        if self.legs.iter().any(|leg| leg.phase != Phase::Over) {
            ctx.set_timer(DocumentTimer::DialRing, self.ring_ms());
        }
        self.completion(ctx)
    }

    fn ring_ms(&self) -> u64 {
        millis(self.dial.timeout).min(RING_MAX_MS)
    }

    fn order(
        &self,
        ctx: &CallContext,
        target: &DialTarget,
        call: CallUuid,
        position: u8,
        destination: Destination,
    ) -> DialOrder {
        let dial = &self.dial;
        // `confirmKey` has no effect without a sound (W312).
        let confirm = dial.confirm_sound.is_some().then(|| Confirmation {
            sound: dial.confirm_sound.clone(),
            method: Method::Post,
            key: dial.confirm_key,
            timeout_ms: millis(dial.confirm_timeout),
        });
        let a_request = (ctx.setup.direction == Direction::Outbound).then_some(ctx.setup.call);
        let mut headers = sip_headers(&dial.sip_headers);
        for (name, value) in sip_headers(&target.sip_headers) {
            headers.retain(|(other, _)| *other != name);
            headers.push((name, value));
        }
        DialOrder {
            call,
            position,
            destination,
            caller_name: target
                .caller_name
                .clone()
                .or_else(|| dial.caller_name.clone())
                .unwrap_or_default(),
            headers,
            ring_timeout_ms: self.ring_ms(),
            send_digits: target.send_digits.clone(),
            b_leg: BLegSetup {
                a_leg: ctx.setup.call,
                a_request,
                confirm,
                report_digits: !dial.digits_match_b_leg.is_empty(),
            },
        }
    }

    /// Whether the `Dial` uses the caller's digits. They are then reported to the customer's server
    /// and are not kept out of logs.
    fn takes_digits(&self) -> bool {
        self.joined && (self.dial.hangup_on_star || !self.dial.digits_match.is_empty())
    }

    fn placed(&mut self, ctx: &mut CallContext, readiness: Readiness, at: usize) {
        if let Some(leg) = self.legs.get_mut(at)
            && leg.phase == Phase::Asked
        {
            leg.phase = Phase::Placed;
            if !std::mem::replace(&mut self.placed, true) {
                self.music.begin(ctx);
                self.music.play(ctx, readiness);
            }
        }
    }

    /// Handles an answer. The first leg to answer wins, and the others are hung up.
    fn answered(&mut self, ctx: &mut CallContext, at: usize) {
        if self.winner.is_some() {
            return;
        }
        self.winner = Some(at);
        ctx.timers.clear(DocumentTimer::DialRing);
        let now = ctx.now;
        let Some(leg) = self.legs.get_mut(at) else { return };
        leg.answered = Some(now);
        ctx.emit(Output::BLeg { call: leg.call, command: BLegCommand::Proceed });
        self.report(ctx, at, TargetEvent::Answer);
        for other in 0..self.legs.len() {
            if other != at {
                self.end(ctx, other, HangupCause::LostRace);
            }
        }
    }

    fn join(&mut self, ctx: &mut CallContext, readiness: Readiness) {
        let Some(winner) =
            self.winner.filter(|_| self.ready && !self.joined && readiness == Readiness::Open)
        else {
            return;
        };
        let Some(leg) = self.legs.get(winner).filter(|leg| leg.phase != Phase::Over) else {
            return;
        };
        self.joined = true;
        self.music.stop(ctx);
        ctx.emit(Output::BLeg { call: leg.call, command: BLegCommand::Join });
        ctx.set_timer(DocumentTimer::DialLimit, millis(self.dial.time_limit));
        self.report(ctx, winner, TargetEvent::Connected);
    }

    fn match_patterns(&mut self, ctx: &mut CallContext, digit: Digit, by_a: bool) {
        let Some(winner) = self.winner.filter(|_| self.joined) else { return };
        let patterns = if by_a { &mut self.a_patterns } else { &mut self.b_patterns };
        for pattern in patterns.pressed(digit) {
            self.report(ctx, winner, TargetEvent::Digits { pattern: &pattern, by_a });
        }
    }

    /// Marks a target as not placed, logs the reason, and reports a hangup.
    fn not_placed(&mut self, ctx: &mut CallContext, at: usize, error: DialError, detail: &str) {
        let Some(leg) = self.legs.get_mut(at) else { return };
        leg.phase = Phase::Over;
        let (position, to) = (leg.position, redacted_target(&leg.to));
        let reason = if detail.is_empty() { error.explanation() } else { detail };
        ctx.remark(format!(
            "Dial: target {position}, {to}, is not called: {}: {reason}",
            error.as_str()
        ));
        self.first_error.get_or_insert(error);
        self.report(ctx, at, TargetEvent::Hangup { cause: error.cause(), error: Some(error) });
    }

    /// Hangs up a leg and marks it as ended.
    fn end(&mut self, ctx: &mut CallContext, at: usize, cause: HangupCause) {
        let Some(leg) = self.legs.get(at).filter(|leg| leg.phase != Phase::Over) else { return };
        ctx.emit(Output::BLeg { call: leg.call, command: BLegCommand::HangUp { cause } });
        self.ended(ctx, at, cause);
    }

    fn end_all(&mut self, ctx: &mut CallContext, cause: impl Fn(&BLeg) -> HangupCause) {
        for at in 0..self.legs.len() {
            if let Some(cause) = self.legs.get(at).map(&cause) {
                self.end(ctx, at, cause);
            }
        }
    }

    fn ended(&mut self, ctx: &mut CallContext, at: usize, cause: HangupCause) {
        let Some(leg) = self.legs.get_mut(at) else { return };
        leg.phase = Phase::Over;
        if self.winner.is_none_or(|winner| winner == at) {
            self.last_end = Some(cause);
        }
        if self.winner == Some(at) && self.joined {
            ctx.media(MediaCommand::Unjoin);
        }
        self.report(ctx, at, TargetEvent::Hangup { cause, error: None });
    }

    /// Returns how the element ended. `None` while a leg is up.
    fn completion(&mut self, ctx: &mut CallContext) -> Option<Completion> {
        if self.legs.iter().any(|leg| leg.phase != Phase::Over) {
            return None;
        }
        self.clean_up(ctx);
        let finished = match self.failed_before_placing() {
            Some(error) => Completion::failed(error.as_str()),
            None => Completion::done(self.status().0),
        };
        Some(finished.with_action(self.action(ctx)))
    }

    fn progress(&mut self, ctx: &mut CallContext) -> Progress {
        self.completion(ctx).map_or(Progress::Pending, Progress::Finished)
    }

    fn clean_up(&mut self, ctx: &mut CallContext) {
        ctx.timers.clear(DocumentTimer::DialRing);
        ctx.timers.clear(DocumentTimer::DialLimit);
        self.music.stop(ctx);
    }

    /// Returns `DialStatus` and its cause.
    fn status(&self) -> (&'static str, HangupCause) {
        match (self.winner, self.last_end, self.first_error) {
            (Some(_), cause, _) => ("completed", cause.unwrap_or(HangupCause::DialEnded)),
            (None, Some(cause), _) => (cause.wire(Direction::Outbound).unanswered_status(), cause),
            (None, None, Some(error)) => ("failed", error.cause()),
            (None, None, None) => ("failed", HangupCause::InternalError),
        }
    }

    /// Returns the first error if no target was placed, otherwise `None`.
    fn failed_before_placing(&self) -> Option<DialError> {
        self.first_error.filter(|_| self.last_end.is_none())
    }

    /// Returns the request that reports the result, or `None` if the element has no action.
    fn action(&self, ctx: &CallContext) -> Option<Action> {
        Some(Action {
            target: self.dial.action.clone()?,
            redirect: self.dial.redirect,
            params: self.outcome(ctx),
            repeat_after_hangup: false,
        })
    }
}

impl Activity for DialAttempt {
    fn fetched(
        &mut self,
        env: &mut Env<'_>,
        fetch: FetchId,
        result: Result<FetchResponse, FetchFailure>,
    ) -> Progress {
        self.music.fetched(env.ctx, env.readiness, fetch, result);
        Progress::Pending
    }

    fn played(&mut self, env: &mut Env<'_>, play: PlayId) -> Progress {
        self.music.played(env.ctx, env.readiness, play);
        Progress::Pending
    }

    fn play_failed(&mut self, env: &mut Env<'_>, play: PlayId, item: u16, reason: &str) {
        if self.music.is_playing(play) {
            env.ctx.remark(format!(
                "item {} of dialMusic could not be played: {reason}; it is skipped",
                item + 1
            ));
        }
    }

    fn digit(&mut self, env: &mut Env<'_>, key: Key) -> Progress {
        if !self.takes_digits() {
            env.keys.push(key);
            return Progress::Pending;
        }
        self.match_patterns(env.ctx, key.digit, true);
        if self.dial.hangup_on_star
            && key.digit.as_char() == '*'
            && let Some(winner) = self.winner
        {
            self.end(env.ctx, winner, HangupCause::DialEnded);
        }
        self.progress(env.ctx)
    }

    fn leg_event(&mut self, env: &mut Env<'_>, call: CallUuid, event: BLegEvent) -> Progress {
        let (ctx, readiness) = (&mut *env.ctx, env.readiness);
        let Some(at) =
            self.legs.iter().position(|leg| leg.call == call && leg.phase != Phase::Over)
        else {
            return Progress::Pending;
        };
        match event {
            BLegEvent::Refused { error, detail } => {
                self.not_placed(ctx, at, error, &foreign(&detail))
            }
            BLegEvent::Placed => self.placed(ctx, readiness, at),
            BLegEvent::Ringing => {
                self.placed(ctx, readiness, at);
                self.rang = true;
            }
            BLegEvent::Answered => {
                self.placed(ctx, readiness, at);
                self.answered(ctx, at);
            }
            BLegEvent::Ready => {
                self.ready = self.winner == Some(at);
                self.join(ctx, readiness);
            }
            BLegEvent::Digit { digit } => self.match_patterns(ctx, digit, false),
            BLegEvent::Ended { cause } => match DialError::from_cause(cause) {
                Some(error) if self.legs.get(at).is_some_and(|leg| leg.phase == Phase::Asked) => {
                    self.not_placed(ctx, at, error, "");
                }
                _ => self.ended(ctx, at, cause),
            },
        }
        self.progress(ctx)
    }

    fn timer(&mut self, env: &mut Env<'_>, timer: DocumentTimer) -> Progress {
        match timer {
            DocumentTimer::DialRing => self.end_all(env.ctx, |_| HangupCause::RingTimeout),
            DocumentTimer::DialLimit => self.end_all(env.ctx, |_| HangupCause::TimeLimit),
            DocumentTimer::Fetch => self.music.fetch_timed_out(env.ctx, env.readiness),
            // Timers of other instructions.
            _ => return Progress::Pending,
        }
        self.progress(env.ctx)
    }

    fn readiness_changed(&mut self, env: &mut Env<'_>) -> Progress {
        if self.placed && !self.joined {
            self.music.play(env.ctx, env.readiness);
        }
        self.join(env.ctx, env.readiness);
        Progress::Pending
    }

    /// Ends the dialled legs. No action is requested.
    fn stop(&mut self, env: &mut Env<'_>, reason: StopReason) {
        let (answered, unanswered) = match reason {
            StopReason::CallEnds => (HangupCause::DialEnded, HangupCause::CallerCancelled),
            StopReason::Replaced => (HangupCause::ApiHangup, HangupCause::CancelledByApi),
        };
        self.end_all(env.ctx, |leg| match leg.answered {
            Some(_) => answered,
            None => unanswered,
        });
        self.clean_up(env.ctx);
    }

    /// While a target is being called, the caller must be answered to hear the ringing
    /// (docs/reference/xml.md#answering).
    fn wants_media(&self) -> bool {
        self.placed
    }

    fn hides_digits(&self) -> Option<bool> {
        self.takes_digits().then_some(false)
    }

    fn b_leg(&self) -> Option<CallUuid> {
        let leg = self.legs.get(self.winner?)?;
        (leg.phase != Phase::Over).then_some(leg.call)
    }

    fn release_b_leg(&mut self, ctx: &mut CallContext) {
        if let Some(winner) = self.winner {
            self.ended(ctx, winner, HangupCause::ApiHangup);
        }
        self.clean_up(ctx);
    }

    fn is_joined(&self) -> bool {
        self.joined
    }

    fn write_snapshot(&self, snapshot: &mut SnapshotBuilder) {
        for (index, leg) in self.legs.iter().enumerate() {
            let won = self.winner == Some(index);
            let label = match (leg.phase, leg.answered) {
                (Phase::Over, _) => "leg_over",
                (_, Some(_)) if won && self.joined => "leg_joined",
                (_, Some(_)) => "leg_answered",
                (Phase::Placed, None) => "leg_placed",
                (Phase::Asked, None) => "leg_asked",
            };
            let name = format!("B{}", leg.position);
            snapshot.add(
                "legs",
                [text(name), text(format_args!("…{}", last_four(&leg.to))), word(label)],
            );
        }
        let waits_for = match (self.winner, self.joined) {
            (None, _) => "leg_to_answer",
            (Some(_), false) => "leg_to_be_ready",
            (Some(_), true) => "end_of_connection",
        };
        snapshot.add("waits_for", [word(waits_for)]);
    }
}

/// Formats a target for the log. Only the last four digits of a number are included.
fn redacted_target(to: &str) -> String {
    if to.bytes().all(|b| b.is_ascii_digit()) {
        format!("…{}", last_four(to))
    } else {
        foreign(to)
    }
}
