//! A call in a room, for `Conference` and `MultiPartyCall`: entering, waiting with music, sounds,
//! digits and leaving (docs/reference/xml.md#conference).
//!
//! The room manages its members and reports changes with [`RoomEvent`]s. The modules `conference`
//! and `multi_party` contain the differences between the two elements and their callbacks.

pub(crate) mod add_participant;
mod ai_agent;
mod attributes;
mod conference;
mod multi_party;
mod sounds;

use super::Flow;
use super::patterns::DigitPatterns;
use super::stream::DROPPED;
use crate::activity::{Action, Activity, Completion, Env, Progress, Readiness, Stop};
use crate::context::CallContext;
use crate::contract::display::foreign;
use crate::contract::recording;
use crate::contract::{
    CallTime, CallbackRequest, FetchFailure, FetchId, FetchResponse, InstructionOutcome,
    LeaveReason, MediaCommand, MemberId, Output, Params, PlayId, RecordingEndReason, RecordingId,
    RecordingOrder, RoomCommand, RoomEntry, RoomEvent, TrackCommand, TranscriptOrder,
};
use crate::digits::Key;
use crate::params::Event;
use crate::snapshot::{SnapshotBuilder, brief, text, word};
use crate::stream;
use crate::timers::Timer;
use conference::ConferenceElement;
use model::{Digit, HangupCause};
use multi_party::MultiPartyElement;
pub(crate) use multi_party::cut_off;
use sounds::Sounds;
use uuid::Uuid;
use xml::ast::Target;

/// A call that is in a room or enters it.
struct RoomVisit {
    element: Element,
    rules: Rules,
    /// The room. Also set if it was full.
    room: Option<Uuid>,
    inside: Option<Membership>,
    /// The call does not take part in the room at present.
    waits: bool,
    held: bool,
    muted: bool,
    /// The caller speaks, as last reported by the room.
    speaks: bool,
    sounds: Sounds,
    typed: DigitPatterns,
    /// The id and the URL of the room's recording.
    recorded: Option<(Uuid, String)>,
    /// The callback for the start of the recording that this call has requested.
    record_asked: Option<CallbackRequest>,
    /// The recording of this participant alone.
    track: Option<RecordingId>,
}

/// The element, with its attributes.
enum Element {
    Conference(Box<ConferenceElement>),
    MultiParty(Box<MultiPartyElement>),
}

/// Attributes that both elements have.
struct Rules {
    hangup_on_star: bool,
    digits_match: Vec<String>,
    /// How long the call may stay in the room, in milliseconds from entering it.
    limit_ms: Option<u64>,
    /// How long the call waits to take part, in milliseconds.
    wait_ms: Option<u64>,
    /// Digits that are sent to the caller after entering.
    send_digits: Option<String>,
    relays_keys: bool,
}

/// The membership of the call in the room.
#[derive(Clone, Copy, Debug)]
struct Membership {
    room: Uuid,
    member: MemberId,
    first: bool,
    since: CallTime,
}

/// Why the call left the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Full,
    Out(LeaveReason),
    /// The caller pressed `*`.
    Star,
    /// `timeLimit` or `waitTime` has passed.
    TimeLimit,
    /// The stream of the AI agent has ended. `dropped` is set if it could not connect or was lost.
    AgentGone {
        dropped: bool,
    },
}

/// An event that is reported to the customer's server.
#[derive(Clone, Copy, Debug)]
enum Told<'a> {
    Entered { starts: bool },
    Started,
    Digits(&'a str),
    Key(Digit),
    Floor { has: bool },
    Speech { on: bool },
    Audio { on: bool },
    Muted { on: bool },
    Held { on: bool },
}

/// Returns the order for a recording of the whole room.
fn whole_room(
    mp3: bool,
    callback: Option<CallbackRequest>,
    transcript: Option<TranscriptOrder>,
) -> RecordingOrder {
    RecordingOrder {
        id: None,
        held: false,
        mp3,
        stereo: false,
        peer_only: false,
        max_ms: super::record::SESSION_MAX_MS,
        silence_ms: None,
        callback,
        action: None,
        transcript,
    }
}

fn start(
    element: Element,
    rules: Rules,
    entry: RoomEntry,
    sounds: Sounds,
    ctx: &mut CallContext,
) -> Flow {
    let attending = RoomVisit {
        element,
        typed: DigitPatterns::new(&rules.digits_match),
        rules,
        room: None,
        inside: None,
        waits: true,
        held: entry.held,
        muted: entry.muted,
        speaks: false,
        sounds,
        recorded: None,
        record_asked: None,
        track: None,
    };
    ctx.wish(Output::Room { command: RoomCommand::Enter { entry: Box::new(entry) } });
    Flow::run(attending)
}

impl RoomVisit {
    fn entered(&mut self, ctx: &mut CallContext, starts: bool, room_left_ms: Option<u64>) {
        self.tell(ctx, Told::Entered { starts });
        if let Some((how, when_alone)) =
            self.inside.as_ref().and_then(|inside| self.element.record(ctx, inside))
        {
            self.record_room(ctx, how, when_alone);
        }
        if let Some(order) = self.inside.as_ref().and_then(|inside| self.element.track(ctx, inside))
        {
            self.track = Some(ctx.record(order));
        }
        if let Some(ms) = self.rules.limit_ms.or(room_left_ms) {
            ctx.set(Timer::RoomLimit, ms);
        }
        if self.waits {
            self.wait(ctx);
        }
        self.element.begin_agent(ctx);
        if let Some(digits) = self.rules.send_digits.clone() {
            let play = ctx.next_play();
            ctx.media(MediaCommand::SendDigits { play, digits });
        }
        self.sounds.entered(ctx, self.waits, self.held);
    }

    fn record_room(&mut self, ctx: &mut CallContext, how: Box<RecordingOrder>, when_alone: bool) {
        self.record_asked = how.callback.clone();
        ctx.wish(Output::Room { command: RoomCommand::Record { order: how, when_alone } });
    }

    /// Notes the recording of the room. For a conference, its start is reported too
    /// (docs/reference/callbacks.md#conference).
    fn recorded(&mut self, ctx: &mut CallContext, id: Uuid, url: &str, begun: bool) {
        self.recorded = Some((id, url.to_owned()));
        if begun {
            self.sounds.record_begun(ctx);
        }
        let asked = self.record_asked.take_if(|_| begun);
        if let (Element::Conference(_), Some(mut notice)) = (&self.element, asked) {
            let mut params = recording::started_params(id, url);
            // `Digits` belongs to the element `Record`. No digit ends the recording of a room.
            params.remove("Digits");
            notice.params.extend(params);
            ctx.wish(Output::Callback { callback: notice });
        }
    }

    /// Executes an API request about the recording of this participant.
    fn record_track(&mut self, ctx: &mut CallContext, what: &TrackCommand) {
        match (what, self.track) {
            (TrackCommand::Begin { order: how, callback }, None) => {
                let Some(inside) = &self.inside else { return };
                let callback =
                    callback.as_ref().map(|target| self.element.recorded(ctx, inside, target));
                let transcript = super::record::transcript_if_able(ctx, how.transcript.clone());
                self.track =
                    Some(ctx.record(RecordingOrder { callback, transcript, ..(**how).clone() }));
            }
            (TrackCommand::Stop, Some(record)) => {
                ctx.media(MediaCommand::RecordStop {
                    recording: record,
                    reason: RecordingEndReason::Stopped,
                    key: None,
                });
                self.track = None;
            }
            (TrackCommand::Pause { on }, Some(record)) => {
                ctx.media(MediaCommand::RecordPause { recording: record, on: *on })
            }
            // Two requests at the same time.
            (TrackCommand::Begin { .. }, Some(_))
            | (TrackCommand::Stop | TrackCommand::Pause { .. }, None) => {}
        }
    }

    fn wait(&self, ctx: &mut CallContext) {
        if let Some(ms) = self.rules.wait_ms {
            ctx.set(Timer::RoomWait, ms);
        }
    }

    /// Plays the music for the current state of the call: waiting, on hold, or neither.
    fn tune(&mut self, ctx: &mut CallContext, readiness: Readiness) {
        if self.inside.is_some() {
            self.sounds.tune(ctx, readiness, self.waits, self.held);
        }
    }

    /// Whether the room uses the caller's digits. They are then reported to the customer's server
    /// and are not kept out of logs.
    fn takes_digits(&self) -> bool {
        self.inside.is_some()
            && (self.rules.hangup_on_star
                || !self.rules.digits_match.is_empty()
                || self.element.reports_digits())
    }

    fn leave(&mut self, ctx: &mut CallContext, why: Ended) -> Progress {
        self.out(ctx);
        let (outcome, note) = why.outcome();
        Progress::Finished(Completion {
            outcome,
            note: note.into(),
            action: self.action(ctx),
            end_cause: self.end_cause(why),
        })
    }

    /// Leaves the room and reports it.
    fn out(&mut self, ctx: &mut CallContext) {
        for timer in [Timer::RoomLimit, Timer::RoomWait] {
            ctx.timers.clear(timer);
        }
        if let Some(record) = self.track.take() {
            ctx.media(MediaCommand::RecordStop {
                recording: record,
                reason: RecordingEndReason::HungUp,
                key: None,
            });
        }
        self.element.stop_agent(ctx);
        // Speech ends with the membership.
        if std::mem::take(&mut self.speaks) {
            self.tell(ctx, Told::Speech { on: false });
        }
        self.sounds.stop(ctx);
        let sounds = if self.inside.is_some() { self.sounds.of_leaving() } else { Vec::new() };
        let [others_stay, was_last] = match &self.inside {
            Some(inside) => {
                [false, true].map(|last| self.element.left(ctx, inside, last).into_iter().collect())
            }
            None => Default::default(),
        };
        let over =
            self.inside.as_ref().and_then(|inside| self.element.over(ctx, inside)).map(Box::new);
        ctx.wish(Output::Room {
            command: RoomCommand::Leave {
                sounds,
                if_others_stay: others_stay,
                if_last: was_last,
                end_params: over,
            },
        });
    }

    fn tell(&self, ctx: &mut CallContext, what: Told<'_>) {
        let Some(inside) = &self.inside else { return };
        for notice in self.element.told(ctx, inside, what) {
            ctx.wish(Output::Callback { callback: notice });
        }
    }

    /// Returns the cause with which the call ends if no element follows. `None` for
    /// [`HangupCause::EndOfInstructions`].
    fn end_cause(&self, why: Ended) -> Option<HangupCause> {
        match (&self.element, why) {
            (Element::Conference(_), _) => None,
            (Element::MultiParty(_), Ended::Out(why)) => match why {
                LeaveReason::Kicked => Some(HangupCause::MpcKicked),
                LeaveReason::Ended | LeaveReason::TimeUp => Some(HangupCause::MpcEnded),
                LeaveReason::Stopped => Some(HangupCause::MpcStopped),
                LeaveReason::Alone => None,
            },
            (
                Element::MultiParty(_),
                Ended::Full | Ended::Star | Ended::TimeLimit | Ended::AgentGone { .. },
            ) => None,
        }
    }

    /// Returns the request that reports the result.
    fn action(&self, ctx: &CallContext) -> Option<Action> {
        let (target, redirect, params) = match &self.element {
            Element::Conference(of) => {
                of.action(self.room, self.inside.as_ref(), self.recorded.as_ref())
            }
            Element::MultiParty(of) => of.action(ctx, self.room, self.inside.as_ref()),
        }?;
        Some(Action { target, redirect, params, repeat_after_hangup: false })
    }
}

impl Ended {
    /// Returns the outcome of the instruction, with a note.
    fn outcome(self) -> (InstructionOutcome, &'static str) {
        match self {
            Self::Full => (InstructionOutcome::Failed, "full"),
            Self::Out(why) => (InstructionOutcome::Done, why.as_str()),
            Self::Star => (InstructionOutcome::Done, "star"),
            Self::TimeLimit => (InstructionOutcome::Done, "time limit"),
            Self::AgentGone { dropped: true } => (InstructionOutcome::Failed, DROPPED),
            Self::AgentGone { dropped: false } => (InstructionOutcome::Done, "its agent has gone"),
        }
    }
}

impl Activity for RoomVisit {
    fn room_event(&mut self, env: &mut Env<'_>, event: &RoomEvent) -> Progress {
        let ctx = &mut *env.ctx;
        match *event {
            RoomEvent::Entered {
                room,
                member,
                first,
                active: begins,
                starts_room: starts,
                room_left_ms,
            } => {
                if self.inside.is_none() {
                    self.room = Some(room);
                    self.inside = Some(Membership { room, member, first, since: ctx.now });
                    self.waits = !begins;
                    if matches!(self.element, Element::Conference(_)) {
                        ctx.conference = Some(room);
                    }
                    self.entered(ctx, starts, room_left_ms);
                }
            }
            RoomEvent::Full { room } => {
                if self.inside.is_none() {
                    self.room = Some(room);
                    return self.leave(ctx, Ended::Full);
                }
            }
            RoomEvent::MustLeave { reason: why } => return self.leave(ctx, Ended::Out(why)),
            RoomEvent::Active { starts_room: starts } => {
                self.waits = false;
                ctx.timers.clear(Timer::RoomWait);
                if starts {
                    self.tell(ctx, Told::Started);
                }
            }
            RoomEvent::Waiting => {
                self.waits = true;
                self.wait(ctx);
            }
            RoomEvent::Floor { has } => self.tell(ctx, Told::Floor { has }),
            RoomEvent::Speech { on } => {
                self.speaks = on;
                self.tell(ctx, Told::Speech { on });
            }
            RoomEvent::Audio { on } => self.tell(ctx, Told::Audio { on }),
            RoomEvent::RecordingEnded => self.sounds.record_ended(ctx),
            RoomEvent::RecordingFailed { reason: ref why } => {
                ctx.remark(format!(
                    "the recording of the room failed: {}; the room goes on",
                    foreign(why)
                ));
            }
            RoomEvent::Muted { on } => {
                self.muted = on;
                self.tell(ctx, Told::Muted { on });
            }
            RoomEvent::Held { on } => {
                self.held = on;
                self.tell(ctx, Told::Held { on });
            }
            RoomEvent::Coaching { on } => self.element.coaches(on),
            RoomEvent::Record { order: ref how, ref callback } => {
                if let Some(inside) = &self.inside {
                    let callback =
                        callback.as_ref().map(|target| self.element.recorded(ctx, inside, target));
                    let transcript = super::record::transcript_if_able(ctx, how.transcript.clone());
                    let how = Box::new(RecordingOrder { callback, transcript, ..(**how).clone() });
                    self.record_room(ctx, how, true);
                }
            }
            RoomEvent::Track { command: ref what } => self.record_track(ctx, what),
            RoomEvent::Recording { id, ref url, begun } => self.recorded(ctx, id, url, begun),
        }
        self.tune(ctx, env.readiness);
        Progress::Pending
    }

    fn fetched(
        &mut self,
        env: &mut Env<'_>,
        fetch: FetchId,
        result: Result<FetchResponse, FetchFailure>,
    ) -> Progress {
        self.sounds.fetched(env.ctx, fetch, result);
        self.tune(env.ctx, env.readiness);
        Progress::Pending
    }

    fn played(&mut self, env: &mut Env<'_>, play: PlayId) -> Progress {
        self.sounds.played(env.ctx, env.readiness, play);
        Progress::Pending
    }

    fn play_failed(&mut self, env: &mut Env<'_>, play: PlayId, item: u16, reason: &str) {
        if let Some(place) = env.place
            && self.sounds.is_playing(play)
        {
            env.ctx.remark(format!(
                "item {} of the music of {place} could not be played: {reason}; it is skipped",
                item + 1
            ));
        }
    }

    fn digit(&mut self, env: &mut Env<'_>, key: Key) -> Progress {
        if self.inside.is_none() {
            env.keys.push(key);
            return Progress::Pending;
        }
        let digit = key.digit;
        for pattern in self.typed.pressed(digit) {
            self.tell(env.ctx, Told::Digits(&pattern));
        }
        self.tell(env.ctx, Told::Key(digit));
        if self.rules.hangup_on_star && digit.as_char() == '*' {
            return self.leave(env.ctx, Ended::Star);
        }
        if self.rules.relays_keys {
            env.ctx.wish(Output::Room { command: RoomCommand::Digit { digit } });
        }
        if !self.takes_digits() {
            env.keys.push(key);
        }
        Progress::Pending
    }

    /// Leaves the room if the stream was the AI agent's.
    fn stream_ended(&mut self, env: &mut Env<'_>, ended: stream::Ended) -> Progress {
        let is_its_agents = match &mut self.element {
            Element::MultiParty(of) => of.agent.ended(ended.stream),
            Element::Conference(_) => false,
        };
        match is_its_agents {
            true => self.leave(env.ctx, Ended::AgentGone { dropped: ended.dropped }),
            false => Progress::Pending,
        }
    }

    fn timer(&mut self, env: &mut Env<'_>, timer: Timer) -> Progress {
        match timer {
            // Without its own limit, the call has reached the limit of the whole multi-party call.
            Timer::RoomLimit if self.rules.limit_ms.is_none() => {
                self.leave(env.ctx, Ended::Out(LeaveReason::TimeUp))
            }
            Timer::RoomLimit | Timer::RoomWait => self.leave(env.ctx, Ended::TimeLimit),
            Timer::Fetch => {
                self.sounds.timed_out(env.ctx);
                self.tune(env.ctx, env.readiness);
                Progress::Pending
            }
            // Timers of other instructions.
            _ => Progress::Pending,
        }
    }

    fn readiness_changed(&mut self, env: &mut Env<'_>) -> Progress {
        self.tune(env.ctx, env.readiness);
        Progress::Pending
    }

    /// Leaves the room. No action follows.
    fn stop(&mut self, env: &mut Env<'_>, _: Stop) {
        self.out(env.ctx);
    }

    fn hides_digits(&self) -> Option<bool> {
        self.takes_digits().then_some(false)
    }

    fn draw(&self, snapshot: &mut SnapshotBuilder) {
        let what = match self.element {
            Element::Conference(_) => "conference",
            Element::MultiParty(_) => "multi_party_call",
        };
        match &self.inside {
            Some(inside) => {
                snapshot.say("room", [word(what), text(brief(inside.room)), word("inside")])
            }
            None => snapshot.say("room", [word(what), word("outside")]),
        }
        for (is, how) in
            [(self.waits, "room_waits"), (self.held, "room_held"), (self.muted, "room_muted")]
        {
            if is {
                snapshot.say("room", [word(how)]);
            }
        }
        if let Some(track) = self.track {
            snapshot.say("recording", [word("own_track"), text(track.0)]);
        }
        let waits = if self.inside.is_some() { "room_to_end" } else { "room_to_enter" };
        snapshot.say("waits_for", [word(waits)]);
    }
}

impl Element {
    fn told(&self, ctx: &CallContext, inside: &Membership, what: Told<'_>) -> Vec<CallbackRequest> {
        match self {
            Self::Conference(of) => of.told(ctx, inside, what).into_iter().collect(),
            Self::MultiParty(of) => of.told(ctx, inside, what),
        }
    }

    fn left(&self, ctx: &CallContext, inside: &Membership, last: bool) -> Option<CallbackRequest> {
        match self {
            Self::Conference(of) => of.left(ctx, inside, last),
            Self::MultiParty(of) => of.left(ctx, inside),
        }
    }

    fn over(&self, ctx: &CallContext, inside: &Membership) -> Option<Params> {
        match self {
            Self::Conference(_) => None,
            Self::MultiParty(of) => Some(of.over(ctx, inside)),
        }
    }

    /// Returns the callback that reports the recording of the room to `target`.
    fn recorded(&self, ctx: &CallContext, inside: &Membership, target: &Target) -> CallbackRequest {
        match self {
            Self::Conference(of) => {
                of.notice_to(target, ctx, inside, (Event::ConferenceRecord, "record"), false, None)
            }
            Self::MultiParty(of) => of.recorded_to(target, ctx, inside),
        }
    }

    /// Returns the order for the recording of the room, and whether it also covers times with one
    /// member only.
    fn record(
        &self,
        ctx: &mut CallContext,
        inside: &Membership,
    ) -> Option<(Box<RecordingOrder>, bool)> {
        match self {
            Self::Conference(of) => of.record(ctx, inside),
            Self::MultiParty(of) => of.record(ctx, inside),
        }
    }

    /// Returns the order for the recording of this participant.
    fn track(&self, ctx: &mut CallContext, inside: &Membership) -> Option<RecordingOrder> {
        match self {
            Self::Conference(_) => None,
            Self::MultiParty(of) => of.track(ctx, inside),
        }
    }

    fn begin_agent(&mut self, ctx: &mut CallContext) {
        match self {
            Self::Conference(_) => {}
            Self::MultiParty(of) => of.agent.begin(ctx),
        }
    }

    fn stop_agent(&mut self, ctx: &mut CallContext) {
        match self {
            Self::Conference(_) => {}
            Self::MultiParty(of) => of.agent.stop(ctx),
        }
    }

    fn coaches(&mut self, on: bool) {
        match self {
            Self::Conference(_) => {}
            Self::MultiParty(of) => of.coaches = on,
        }
    }

    fn reports_digits(&self) -> bool {
        match self {
            Self::Conference(_) => false,
            Self::MultiParty(of) => of.reports_digits(),
        }
    }
}
