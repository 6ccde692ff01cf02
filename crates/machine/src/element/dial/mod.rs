//! `Dial`: other people are called, and one of them is brought together with the caller (`plivo-xml.md` §5.7, §6).
//!
//! This is the A-leg's side: which targets may be placed at all, who of those that ring was first, what the caller hears
//! meanwhile, what the application is told of each, and what became of them together. A B-leg is a call of its own; what it
//! tells comes as [`LegNews`], and it is ordered by [`LegWish`]. What the A-leg decides of a leg counts at once: whatever
//! comes of it later is not waited for.

mod events;
mod music;
mod target;

use super::patterns::Patterns;
use super::{At, Flow, Instruction};
use crate::activity::{Action, Activity, Finished, Gate, Progress, Stop, Turn};
use crate::contract::dial::headers;
use crate::contract::display::foreign;
use crate::contract::time::millis;
use crate::contract::{
    CallTime, Confirm, Destination, DialError, DialOrder, DialledBy, FetchFailure, FetchId,
    Fetched, LegNews, LegWish, MediaOrder, Output, PlayId, RING_MAX_MS,
};
use crate::desk::Desk;
use crate::keys::Key;
use crate::picture::{Sketch, text, word};
use crate::timers::Timer;
use events::Happened;
use model::{CallUuid, Digit, Direction, HangupCause, Method, last_four};
use music::Music;
use xml::ast::{Dial, DialTarget};

/// A `Dial` being carried out.
struct Dialing {
    dial: Box<Dial>,
    legs: Vec<BLeg>,
    /// Of `legs`: who answered.
    winner: Option<usize>,
    /// The winner is confirmed and can be heard.
    ready: bool,
    /// The two hear each other.
    joined: bool,
    /// A target was placed.
    placed: bool,
    /// Somebody's phone has rung.
    rang: bool,
    /// Of targets that were not placed.
    first_error: Option<DialError>,
    /// What the target ended with that was placed and ended last; the winner, if there was one.
    last_end: Option<HangupCause>,
    music: Music,
    typed_by_a: Patterns,
    typed_by_b: Patterns,
}

/// A target.
pub(super) struct BLeg {
    call: CallUuid,
    /// From 1.
    position: u8,
    from: String,
    to: String,
    phase: Phase,
    begun: CallTime,
    answered: Option<CallTime>,
}

/// How far a target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It is to be placed.
    Asked,
    Placed,
    Over,
}

/// Begins: whoever may not be called is not, all others are at once.
impl Instruction for Dial {
    fn start(&self, turn: &mut Turn<'_>, _: At) -> Flow {
        let mut dialing = Dialing::place(self, turn.desk);
        match dialing.begin(turn.desk) {
            Some(finished) => Flow::Finished(finished),
            None => Flow::run(dialing),
        }
    }

    /// It asks for itself, once a target is called.
    fn needs_media(&self) -> bool {
        false
    }

    fn takes_time(&self) -> bool {
        false
    }
}

impl Dialing {
    fn place(dial: &Dial, desk: &mut Desk) -> Self {
        let mut dialing = Self {
            dial: Box::new(dial.clone()),
            legs: Vec::with_capacity(dial.targets.len()),
            winner: None,
            ready: false,
            joined: false,
            placed: false,
            rang: false,
            first_error: None,
            last_end: None,
            music: Music::of(&dial.dial_music),
            typed_by_a: Patterns::new(&dial.digits_match),
            typed_by_b: Patterns::new(&dial.digits_match_b_leg),
        };
        for (position, target) in (1..).zip(&dial.targets) {
            let (from, to) = target::parties(dial, target, desk);
            let call = desk.next_leg();
            let leg = BLeg {
                call,
                position,
                from,
                to,
                phase: Phase::Asked,
                begun: desk.now,
                answered: None,
            };
            let destination = target::destination(desk, target, &leg.from);
            dialing.legs.push(leg);
            match destination {
                Ok(destination) => {
                    let order = Box::new(dialing.order(desk, target, call, position, destination));
                    desk.wish(Output::Dial { order });
                }
                Err(error) => dialing.not_placed(desk, dialing.legs.len() - 1, error, ""),
            }
        }
        dialing
    }

    /// Whether it is over already; else its time begins.
    fn begin(&mut self, desk: &mut Desk) -> Option<Finished> {
        if self.legs.iter().any(|leg| leg.phase != Phase::Over) {
            desk.set(Timer::DialRing, self.ring_ms());
        }
        self.so_far(desk)
    }

    fn ring_ms(&self) -> u64 {
        millis(self.dial.timeout).min(RING_MAX_MS)
    }

    fn order(
        &self,
        desk: &Desk,
        target: &DialTarget,
        call: CallUuid,
        position: u8,
        destination: Destination,
    ) -> DialOrder {
        let dial = &self.dial;
        // A key without a sound has no effect (W312).
        let confirm = dial.confirm_sound.is_some().then(|| Confirm {
            sound: dial.confirm_sound.clone(),
            method: Method::Post,
            key: dial.confirm_key,
            timeout_ms: millis(dial.confirm_timeout),
        });
        let a_request = (desk.setup.direction == Direction::Outbound).then_some(desk.setup.call);
        let mut pairs = headers(&dial.sip_headers);
        for (name, value) in headers(&target.sip_headers) {
            pairs.retain(|(other, _)| *other != name);
            pairs.push((name, value));
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
            headers: pairs,
            ring_timeout_ms: self.ring_ms(),
            send_digits: target.send_digits.clone(),
            dialled: DialledBy {
                a_leg: desk.setup.call,
                a_request,
                confirm,
                tells_keys: !dial.digits_match_b_leg.is_empty(),
            },
        }
    }

    /// Whether the caller's keys are meant for this: they are no secret then, the application is told of them.
    fn takes_keys(&self) -> bool {
        self.joined && (self.dial.hangup_on_star || !self.dial.digits_match.is_empty())
    }

    fn placed(&mut self, desk: &mut Desk, gate: Gate, at: usize) {
        if let Some(leg) = self.legs.get_mut(at)
            && leg.phase == Phase::Asked
        {
            leg.phase = Phase::Placed;
            if !std::mem::replace(&mut self.placed, true) {
                self.music.begin(desk);
                self.music.play(desk, gate);
            }
        }
    }

    /// The first to answer has won; the others ring no longer.
    fn answered(&mut self, desk: &mut Desk, at: usize) {
        if self.winner.is_some() {
            return;
        }
        self.winner = Some(at);
        desk.timers.clear(Timer::DialRing);
        let now = desk.now;
        let Some(leg) = self.legs.get_mut(at) else { return };
        leg.answered = Some(now);
        desk.wish(Output::Order { call: leg.call, leg: LegWish::Proceed });
        self.tell(desk, at, Happened::Answer);
        for other in 0..self.legs.len() {
            if other != at {
                self.end(desk, other, HangupCause::LostRace);
            }
        }
    }

    fn join(&mut self, desk: &mut Desk, gate: Gate) {
        let Some(winner) = self.winner.filter(|_| self.ready && !self.joined && gate == Gate::Open)
        else {
            return;
        };
        let Some(leg) = self.legs.get(winner).filter(|leg| leg.phase != Phase::Over) else {
            return;
        };
        self.joined = true;
        self.music.stop(desk);
        desk.wish(Output::Order { call: leg.call, leg: LegWish::Join });
        desk.set(Timer::DialLimit, millis(self.dial.time_limit));
        self.tell(desk, winner, Happened::Connected);
    }

    fn match_patterns(&mut self, desk: &mut Desk, digit: Digit, by_a: bool) {
        let Some(winner) = self.winner.filter(|_| self.joined) else { return };
        let patterns = if by_a { &mut self.typed_by_a } else { &mut self.typed_by_b };
        for pattern in patterns.pressed(digit) {
            self.tell(desk, winner, Happened::Digits { pattern: &pattern, by_a });
        }
    }

    /// A target is not placed: said plainly, and told as its hangup.
    fn not_placed(&mut self, desk: &mut Desk, at: usize, error: DialError, detail: &str) {
        let Some(leg) = self.legs.get_mut(at) else { return };
        leg.phase = Phase::Over;
        let (position, to) = (leg.position, shown(&leg.to));
        let why = if detail.is_empty() { error.why() } else { detail };
        desk.remark(format!(
            "Dial: target {position}, {to}, is not called: {}: {why}",
            error.as_str()
        ));
        self.first_error.get_or_insert(error);
        self.tell(desk, at, Happened::Hangup { cause: error.cause(), error: Some(error) });
    }

    /// A leg is to end, and counts as ended.
    fn end(&mut self, desk: &mut Desk, at: usize, cause: HangupCause) {
        let Some(leg) = self.legs.get(at).filter(|leg| leg.phase != Phase::Over) else { return };
        desk.wish(Output::Order { call: leg.call, leg: LegWish::HangUp { cause } });
        self.ended(desk, at, cause);
    }

    fn end_all(&mut self, desk: &mut Desk, cause: impl Fn(&BLeg) -> HangupCause) {
        for at in 0..self.legs.len() {
            if let Some(cause) = self.legs.get(at).map(&cause) {
                self.end(desk, at, cause);
            }
        }
    }

    fn ended(&mut self, desk: &mut Desk, at: usize, cause: HangupCause) {
        let Some(leg) = self.legs.get_mut(at) else { return };
        leg.phase = Phase::Over;
        if self.winner.is_none_or(|winner| winner == at) {
            self.last_end = Some(cause);
        }
        if self.winner == Some(at) && self.joined {
            desk.media(MediaOrder::Part);
        }
        self.tell(desk, at, Happened::Hangup { cause, error: None });
    }

    /// How the element ended. `None` while a leg is up.
    fn so_far(&mut self, desk: &mut Desk) -> Option<Finished> {
        if self.legs.iter().any(|leg| leg.phase != Phase::Over) {
            return None;
        }
        self.clean_up(desk);
        let finished = match self.failed_before_placing() {
            Some(error) => Finished::failed(error.as_str()),
            None => Finished::done(self.status().0),
        };
        Some(finished.with_action(self.action(desk)))
    }

    fn progress(&mut self, desk: &mut Desk) -> Progress {
        self.so_far(desk).map_or(Progress::Pending, Progress::Finished)
    }

    fn clean_up(&mut self, desk: &mut Desk) {
        desk.timers.clear(Timer::DialRing);
        desk.timers.clear(Timer::DialLimit);
        self.music.stop(desk);
    }

    /// `DialStatus`, and the cause behind it.
    fn status(&self) -> (&'static str, HangupCause) {
        match (self.winner, self.last_end, self.first_error) {
            (Some(_), cause, _) => ("completed", cause.unwrap_or(HangupCause::DialEnded)),
            (None, Some(cause), _) => (cause.wire(Direction::Outbound).unanswered_status(), cause),
            (None, None, Some(error)) => ("failed", error.cause()),
            (None, None, None) => ("failed", HangupCause::InternalError),
        }
    }

    /// The first error, where no target was placed.
    fn failed_before_placing(&self) -> Option<DialError> {
        self.first_error.filter(|_| self.last_end.is_none())
    }

    /// Where the outcome goes.
    fn action(&self, desk: &Desk) -> Option<Action> {
        Some(Action {
            target: self.dial.action.clone()?,
            redirect: self.dial.redirect,
            params: self.outcome(desk),
            repeat_after_hangup: false,
        })
    }
}

impl Activity for Dialing {
    fn fetched(
        &mut self,
        turn: &mut Turn<'_>,
        fetch: FetchId,
        result: Result<Fetched, FetchFailure>,
    ) -> Progress {
        self.music.fetched(turn.desk, turn.gate, fetch, result);
        Progress::Pending
    }

    fn played(&mut self, turn: &mut Turn<'_>, play: PlayId) -> Progress {
        self.music.played(turn.desk, turn.gate, play);
        Progress::Pending
    }

    fn play_failed(&mut self, turn: &mut Turn<'_>, play: PlayId, item: u16, reason: &str) {
        if self.music.is_playing(play) {
            turn.desk.remark(format!(
                "item {} of dialMusic could not be played: {reason}; it is skipped",
                item + 1
            ));
        }
    }

    fn digit(&mut self, turn: &mut Turn<'_>, key: Key) -> Progress {
        if !self.takes_keys() {
            turn.keys.push(key);
            return Progress::Pending;
        }
        self.match_patterns(turn.desk, key.digit, true);
        if self.dial.hangup_on_star
            && key.digit.as_char() == '*'
            && let Some(winner) = self.winner
        {
            self.end(turn.desk, winner, HangupCause::DialEnded);
        }
        self.progress(turn.desk)
    }

    fn leg_event(&mut self, turn: &mut Turn<'_>, call: CallUuid, event: LegNews) -> Progress {
        let (desk, gate) = (&mut *turn.desk, turn.gate);
        let Some(at) =
            self.legs.iter().position(|leg| leg.call == call && leg.phase != Phase::Over)
        else {
            return Progress::Pending;
        };
        match event {
            LegNews::Refused { error, detail } => {
                self.not_placed(desk, at, error, &foreign(&detail))
            }
            LegNews::Placed => self.placed(desk, gate, at),
            LegNews::Ringing => {
                self.placed(desk, gate, at);
                self.rang = true;
            }
            LegNews::Answered => {
                self.placed(desk, gate, at);
                self.answered(desk, at);
            }
            LegNews::Ready => {
                self.ready = self.winner == Some(at);
                self.join(desk, gate);
            }
            LegNews::Key { digit } => self.match_patterns(desk, digit, false),
            LegNews::Ended { cause } => match DialError::of_refused(cause) {
                Some(error) if self.legs.get(at).is_some_and(|leg| leg.phase == Phase::Asked) => {
                    self.not_placed(desk, at, error, "");
                }
                _ => self.ended(desk, at, cause),
            },
        }
        self.progress(desk)
    }

    fn timer(&mut self, turn: &mut Turn<'_>, timer: Timer) -> Progress {
        match timer {
            Timer::DialRing => self.end_all(turn.desk, |_| HangupCause::RingTimeout),
            Timer::DialLimit => self.end_all(turn.desk, |_| HangupCause::TimeLimit),
            Timer::Fetch => self.music.fetch_timed_out(turn.desk, turn.gate),
            // Timers of other instructions.
            _ => return Progress::Pending,
        }
        self.progress(turn.desk)
    }

    fn gate_changed(&mut self, turn: &mut Turn<'_>) -> Progress {
        if self.placed && !self.joined {
            self.music.play(turn.desk, turn.gate);
        }
        self.join(turn.desk, turn.gate);
        Progress::Pending
    }

    /// The legs end with the call, or with the document that dialled them. No action follows.
    fn stop(&mut self, turn: &mut Turn<'_>, why: Stop) {
        let (answered, unanswered) = match why {
            Stop::CallEnds => (HangupCause::DialEnded, HangupCause::CallerCancelled),
            Stop::Replaced => (HangupCause::ApiHangup, HangupCause::CancelledByApi),
        };
        self.end_all(turn.desk, |leg| match leg.answered {
            Some(_) => answered,
            None => unanswered,
        });
        self.clean_up(turn.desk);
    }

    /// Somebody is being called, so that the caller has to be answered and hear something (§4 rule 2).
    fn wants_media(&self) -> bool {
        self.placed
    }

    fn hides_digits(&self) -> Option<bool> {
        self.takes_keys().then_some(false)
    }

    fn b_leg(&self) -> Option<CallUuid> {
        let leg = self.legs.get(self.winner?)?;
        (leg.phase != Phase::Over).then_some(leg.call)
    }

    fn release_b_leg(&mut self, desk: &mut Desk) {
        if let Some(winner) = self.winner {
            self.ended(desk, winner, HangupCause::ApiHangup);
        }
        self.clean_up(desk);
    }

    fn is_joined(&self) -> bool {
        self.joined
    }

    fn draw(&self, sketch: &mut Sketch) {
        for (index, leg) in self.legs.iter().enumerate() {
            let won = self.winner == Some(index);
            let how = match (leg.phase, leg.answered) {
                (Phase::Over, _) => "leg_over",
                (_, Some(_)) if won && self.joined => "leg_joined",
                (_, Some(_)) => "leg_answered",
                (Phase::Placed, None) => "leg_placed",
                (Phase::Asked, None) => "leg_asked",
            };
            let name = format!("B{}", leg.position);
            sketch.say(
                "legs",
                [text(name), text(format_args!("…{}", last_four(&leg.to))), word(how)],
            );
        }
        let waits = match (self.winner, self.joined) {
            (None, _) => "leg_to_answer",
            (Some(_), false) => "leg_to_be_ready",
            (Some(_), true) => "legs_to_part",
        };
        sketch.say("waits_for", [word(waits)]);
    }
}

/// A target in the log: people by their last four digits.
fn shown(to: &str) -> String {
    if to.bytes().all(|b| b.is_ascii_digit()) {
        format!("…{}", last_four(to))
    } else {
        foreign(to)
    }
}
