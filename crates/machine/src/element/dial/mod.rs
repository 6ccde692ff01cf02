//! `Dial`: other people are called, and one of them is brought together with the caller (`plivo-xml.md` §5.7, §6).
//!
//! This is the A-leg's side: which targets may be placed at all, who of those that ring was first, what the caller hears
//! meanwhile, what the application is told of each, and what became of them together. A B-leg is a call of its own; what it
//! tells comes as [`LegNews`], and it is ordered by [`LegWish`]. What the A-leg decides of a leg counts at once: whatever
//! comes of it later is not waited for.

mod events;
mod music;
mod picture;
mod target;

use super::patterns::Patterns;
use super::{Flow, millis};
use crate::contract::dial::headers;
use crate::contract::display::foreign;
use crate::contract::{
    CallTime, Confirm, Destination, DialError, DialOrder, DialledBy, FetchFailure, FetchId,
    Fetched, InstructionOutcome, LegNews, LegWish, MediaOrder, Output, Params, PlayId, RING_MAX_MS,
};
use crate::desk::Desk;
use crate::document::Gate;
use crate::timers::Timer;
use events::Happened;
use model::{CallUuid, Digit, Direction, HangupCause, Method, last_four};
use music::Music;
pub(crate) use music::ring_back;
use xml::ast::{Dial, DialTarget, Target};

/// A `Dial` being carried out.
pub(crate) struct Dialing {
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

/// What became of a `Dial`.
pub(crate) enum Dialled {
    /// It goes on.
    More,
    /// All its legs have ended.
    Over,
}

/// Begins: whoever may not be called is not, all others are at once.
pub(super) fn start(dial: &Dial, desk: &mut Desk) -> Flow {
    let mut dialing = Dialing {
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
        let leg =
            BLeg { call, position, from, to, phase: Phase::Asked, begun: desk.now, answered: None };
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
    Flow::Dial(Box::new(dialing))
}

impl Dialing {
    /// Whether it is over already; else its time begins.
    pub(crate) fn begin(&mut self, desk: &mut Desk) -> Dialled {
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

    /// Whether somebody is being called, so that the caller has to be answered and hear something (§4 rule 2).
    pub(crate) fn wants_media(&self) -> bool {
        self.placed
    }

    /// A B-leg tells something.
    pub(crate) fn told(
        &mut self,
        desk: &mut Desk,
        gate: Gate,
        call: CallUuid,
        news: LegNews,
    ) -> Dialled {
        let Some(at) =
            self.legs.iter().position(|leg| leg.call == call && leg.phase != Phase::Over)
        else {
            return Dialled::More;
        };
        match news {
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
        self.so_far(desk)
    }

    /// Whether the caller and who answered hear each other, or have.
    pub(crate) fn is_joined(&self) -> bool {
        self.joined
    }

    /// Whether the caller's keys are meant for this: they are no secret then, the application is told of them.
    pub(crate) fn takes_keys(&self) -> bool {
        self.joined && (self.dial.hangup_on_star || !self.dial.digits_match.is_empty())
    }

    /// The caller pressed a key; `true`: it was meant for this, and nobody else shall have it.
    pub(crate) fn pressed(&mut self, desk: &mut Desk, digit: Digit) -> (bool, Dialled) {
        if !self.takes_keys() {
            return (false, Dialled::More);
        }
        self.match_patterns(desk, digit, true);
        if self.dial.hangup_on_star
            && digit.as_char() == '*'
            && let Some(winner) = self.winner
        {
            self.end(desk, winner, HangupCause::DialEnded);
        }
        (true, self.so_far(desk))
    }

    /// The call's own path or answer has changed.
    pub(crate) fn resume(&mut self, desk: &mut Desk, gate: Gate) {
        if self.placed && !self.joined {
            self.music.play(desk, gate);
        }
        self.join(desk, gate);
    }

    /// One of its timers fired.
    pub(crate) fn fired(&mut self, desk: &mut Desk, gate: Gate, timer: Timer) -> Dialled {
        match timer {
            Timer::DialRing => self.end_all(desk, |_| HangupCause::RingTimeout),
            Timer::DialLimit => self.end_all(desk, |_| HangupCause::TimeLimit),
            Timer::Fetch => self.music.fetch_timed_out(desk, gate),
            _ => {}
        }
        self.so_far(desk)
    }

    pub(crate) fn fetched(
        &mut self,
        desk: &mut Desk,
        gate: Gate,
        fetch: FetchId,
        result: Result<Fetched, FetchFailure>,
    ) {
        self.music.fetched(desk, gate, fetch, result);
    }

    pub(crate) fn played(&mut self, desk: &mut Desk, gate: Gate, play: PlayId) {
        self.music.played(desk, gate, play);
    }

    pub(crate) fn is_playing(&self, play: PlayId) -> bool {
        self.music.is_playing(play)
    }

    /// The call ends, or another document takes over: the legs end with it, and no action follows.
    pub(crate) fn cut(&mut self, desk: &mut Desk) {
        self.end_all(desk, |leg| match leg.answered {
            Some(_) => HangupCause::DialEnded,
            None => HangupCause::CallerCancelled,
        });
        self.clean_up(desk);
    }

    /// Who answered, and has not ended.
    pub(crate) fn b_leg(&self) -> Option<CallUuid> {
        let leg = self.legs.get(self.winner?)?;
        (leg.phase != Phase::Over).then_some(leg.call)
    }

    /// The leg that answered has got a document of its own: it goes on, and this is over for it.
    pub(crate) fn leave(&mut self, desk: &mut Desk) {
        if let Some(winner) = self.winner {
            self.ended(desk, winner, HangupCause::ApiHangup);
        }
        self.clean_up(desk);
    }

    /// The call is transferred over REST, and its legs are not.
    pub(crate) fn transferred(&mut self, desk: &mut Desk) {
        self.end_all(desk, |leg| match leg.answered {
            Some(_) => HangupCause::ApiHangup,
            None => HangupCause::CancelledByApi,
        });
        self.clean_up(desk);
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

    fn so_far(&mut self, desk: &mut Desk) -> Dialled {
        if self.legs.iter().any(|leg| leg.phase != Phase::Over) {
            return Dialled::More;
        }
        self.clean_up(desk);
        Dialled::Over
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

    /// How the instruction went.
    pub(crate) fn went(&self) -> (InstructionOutcome, &'static str) {
        match self.failed_before_placing() {
            Some(error) => (InstructionOutcome::Failed, error.as_str()),
            None => (InstructionOutcome::Done, self.status().0),
        }
    }

    /// Where the outcome goes: the URL, whether its document runs next, and what is told.
    pub(crate) fn action(&self, desk: &Desk) -> Option<(Target, bool, Params)> {
        let action = self.dial.action.clone()?;
        Some((action, self.dial.redirect, self.outcome(desk)))
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
