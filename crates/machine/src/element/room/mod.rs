//! Being in a room, as `Conference` and `MultiPartyCall` have it: entering, waiting with music, the sounds of coming and
//! going, keys, and leaving, for whatever reason (`plivo-xml.md` §5.9, §5.10).
//!
//! Who else is in, and what that means for this call, the room decides (`call::rooms`); it tells by [`RoomNews`]. What the
//! two elements call things, and what they tell the application, is `conference`'s and `multi_party`'s.

pub(crate) mod add_participant;
mod ai_agent;
mod attributes;
mod conference;
mod multi_party;
mod sounds;

use super::Flow;
use super::patterns::Patterns;
use super::stream::DROPPED;
use crate::activity::{Action, Activity, Finished, Gate, Progress, Stop, Turn};
use crate::contract::display::foreign;
use crate::contract::recording;
use crate::contract::{
    CallTime, FetchFailure, FetchId, Fetched, InstructionOutcome, MediaOrder, MemberId, Notice,
    Output, Params, PlayId, RecordEnd, RecordId, RecordOrder, RoomEntry, RoomNews, RoomOut,
    RoomWish, TrackNews, TranscriptOrder,
};
use crate::desk::Desk;
use crate::keys::Key;
use crate::params::Event;
use crate::picture::{Sketch, brief, text, word};
use crate::stream;
use crate::timers::Timer;
use conference::OfConference;
use model::{Digit, HangupCause};
use multi_party::OfMultiParty;
pub(crate) use multi_party::cut_off;
use sounds::Sounds;
use uuid::Uuid;
use xml::ast::Target;

/// A call in a room, or on its way in.
struct Attending {
    element: Element,
    rules: Rules,
    /// The room, also where it is full.
    room: Option<Uuid>,
    inside: Option<Inside>,
    /// It does not take part yet, or again not.
    waits: bool,
    held: bool,
    muted: bool,
    /// It was heard to speak, and not yet to stop.
    speaks: bool,
    sounds: Sounds,
    typed: Patterns,
    /// The room's recording.
    recorded: Option<(Uuid, String)>,
    /// What tells of a recording that this one has asked for, until it begins.
    record_asked: Option<Notice>,
    /// The recording of what this one says.
    track: Option<RecordId>,
}

/// Which element it is.
enum Element {
    Conference(Box<OfConference>),
    MultiParty(Box<OfMultiParty>),
}

/// What both elements have.
struct Rules {
    hangup_on_star: bool,
    digits_match: Vec<String>,
    /// It is over after so long, in milliseconds from entering.
    limit_ms: Option<u64>,
    /// So long it waits to take part.
    wait_ms: Option<u64>,
    /// Keys for the caller, once in.
    send_digits: Option<String>,
    relays_keys: bool,
}

/// What it is in the room.
#[derive(Clone, Copy, Debug)]
struct Inside {
    room: Uuid,
    member: MemberId,
    first: bool,
    since: CallTime,
}

/// Why it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Full,
    Out(RoomOut),
    /// The caller pressed `*`.
    Star,
    /// `timeLimit` or `waitTime`.
    TimeLimit,
    /// The stream of its agent has ended. `dropped`: it was lost, or never was.
    AgentGone {
        dropped: bool,
    },
}

/// Something that the application is told.
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

/// What is ordered for a recording of all that is said in a room.
fn whole_room(
    mp3: bool,
    callback: Option<Notice>,
    transcript: Option<TranscriptOrder>,
) -> RecordOrder {
    RecordOrder {
        id: None,
        held: false,
        mp3,
        stereo: false,
        own: false,
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
    desk: &mut Desk,
) -> Flow {
    let attending = Attending {
        element,
        typed: Patterns::new(&rules.digits_match),
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
    desk.wish(Output::Room { room: RoomWish::Enter { entry: Box::new(entry) } });
    Flow::run(attending)
}

impl Attending {
    fn entered(&mut self, desk: &mut Desk, starts: bool, room_left_ms: Option<u64>) {
        self.tell(desk, Told::Entered { starts });
        if let Some((how, when_alone)) =
            self.inside.as_ref().and_then(|inside| self.element.record(desk, inside))
        {
            self.record_room(desk, how, when_alone);
        }
        if let Some(order) =
            self.inside.as_ref().and_then(|inside| self.element.track(desk, inside))
        {
            self.track = Some(desk.record(order));
        }
        if let Some(ms) = self.rules.limit_ms.or(room_left_ms) {
            desk.set(Timer::RoomLimit, ms);
        }
        if self.waits {
            self.wait(desk);
        }
        self.element.begin_agent(desk);
        if let Some(digits) = self.rules.send_digits.clone() {
            let play = desk.next_play();
            desk.media(MediaOrder::SendDigits { play, digits });
        }
        self.sounds.entered(desk, self.waits, self.held);
    }

    fn record_room(&mut self, desk: &mut Desk, how: Box<RecordOrder>, when_alone: bool) {
        self.record_asked = how.callback.clone();
        desk.wish(Output::Room { room: RoomWish::Record { how, when_alone } });
    }

    /// The room is recorded. A conference's application hears of the beginning, too (`plivo-callbacks.md` §3.5).
    fn recorded(&mut self, desk: &mut Desk, id: Uuid, url: &str, begun: bool) {
        self.recorded = Some((id, url.to_owned()));
        if begun {
            self.sounds.record_begun(desk);
        }
        let asked = self.record_asked.take_if(|_| begun);
        if let (Element::Conference(_), Some(mut notice)) = (&self.element, asked) {
            let mut params = recording::begun(id, url);
            // That is the element `Record`'s: nobody presses a key to end a room's recording.
            params.remove("Digits");
            notice.params.extend(params);
            desk.wish(Output::Notify { notice });
        }
    }

    /// What somebody wants over an API of the recording of what this one says.
    fn record_track(&mut self, desk: &mut Desk, what: &TrackNews) {
        match (what, self.track) {
            (TrackNews::Begin { how, callback }, None) => {
                let Some(inside) = &self.inside else { return };
                let callback =
                    callback.as_ref().map(|target| self.element.recorded(desk, inside, target));
                let transcript = super::record::transcript_if_able(desk, how.transcript.clone());
                self.track =
                    Some(desk.record(RecordOrder { callback, transcript, ..(**how).clone() }));
            }
            (TrackNews::Stop, Some(record)) => {
                desk.media(MediaOrder::RecordStop { record, end: RecordEnd::Stopped, key: None });
                self.track = None;
            }
            (TrackNews::Pause { on }, Some(record)) => {
                desk.media(MediaOrder::RecordPause { record, on: *on })
            }
            // Two asked at the same time.
            (TrackNews::Begin { .. }, Some(_))
            | (TrackNews::Stop | TrackNews::Pause { .. }, None) => {}
        }
    }

    fn wait(&self, desk: &mut Desk) {
        if let Some(ms) = self.rules.wait_ms {
            desk.set(Timer::RoomWait, ms);
        }
    }

    /// What is heard instead of the room: music while it waits or is on hold.
    fn tune(&mut self, desk: &mut Desk, gate: Gate) {
        if self.inside.is_some() {
            self.sounds.tune(desk, gate, self.waits, self.held);
        }
    }

    /// Whether the caller's keys are meant for this: they are no secret then, the application is told of them.
    fn takes_keys(&self) -> bool {
        self.inside.is_some()
            && (self.rules.hangup_on_star
                || !self.rules.digits_match.is_empty()
                || self.element.tells_keys())
    }

    fn leave(&mut self, desk: &mut Desk, why: Ended) -> Progress {
        self.out(desk);
        let (outcome, note) = why.outcome();
        Progress::Finished(Finished {
            outcome,
            note: note.into(),
            action: self.action(desk),
            end_cause: self.end_cause(why),
        })
    }

    /// Out of the room, with all that is told of it.
    fn out(&mut self, desk: &mut Desk) {
        for timer in [Timer::RoomLimit, Timer::RoomWait] {
            desk.timers.clear(timer);
        }
        if let Some(record) = self.track.take() {
            desk.media(MediaOrder::RecordStop { record, end: RecordEnd::HungUp, key: None });
        }
        self.element.stop_agent(desk);
        // Nobody hears it any more.
        if std::mem::take(&mut self.speaks) {
            self.tell(desk, Told::Speech { on: false });
        }
        self.sounds.stop(desk);
        let sounds = if self.inside.is_some() { self.sounds.of_leaving() } else { Vec::new() };
        let [others_stay, was_last] = match &self.inside {
            Some(inside) => [false, true]
                .map(|last| self.element.left(desk, inside, last).into_iter().collect()),
            None => Default::default(),
        };
        let over =
            self.inside.as_ref().and_then(|inside| self.element.over(desk, inside)).map(Box::new);
        desk.wish(Output::Room { room: RoomWish::Leave { sounds, others_stay, was_last, over } });
    }

    fn tell(&self, desk: &mut Desk, what: Told<'_>) {
        let Some(inside) = &self.inside else { return };
        for notice in self.element.told(desk, inside, what) {
            desk.wish(Output::Notify { notice });
        }
    }

    /// What the call ends with where nothing follows in its document; the usual, where there is none.
    fn end_cause(&self, why: Ended) -> Option<HangupCause> {
        match (&self.element, why) {
            (Element::Conference(_), _) => None,
            (Element::MultiParty(_), Ended::Out(why)) => match why {
                RoomOut::Kicked => Some(HangupCause::MpcKicked),
                RoomOut::Ended | RoomOut::TimeUp => Some(HangupCause::MpcEnded),
                RoomOut::Stopped => Some(HangupCause::MpcStopped),
                RoomOut::Alone => None,
            },
            (
                Element::MultiParty(_),
                Ended::Full | Ended::Star | Ended::TimeLimit | Ended::AgentGone { .. },
            ) => None,
        }
    }

    /// Where the outcome goes: the URL, whether its document runs next, and what is told.
    fn action(&self, desk: &Desk) -> Option<Action> {
        let (target, redirect, params) = match &self.element {
            Element::Conference(of) => {
                of.action(self.room, self.inside.as_ref(), self.recorded.as_ref())
            }
            Element::MultiParty(of) => of.action(desk, self.room, self.inside.as_ref()),
        }?;
        Some(Action { target, redirect, params, repeat_after_hangup: false })
    }
}

impl Ended {
    /// How the instruction went.
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

impl Activity for Attending {
    fn room_event(&mut self, turn: &mut Turn<'_>, event: &RoomNews) -> Progress {
        let desk = &mut *turn.desk;
        match *event {
            RoomNews::Entered { room, member, first, begins, starts, room_left_ms } => {
                if self.inside.is_none() {
                    self.room = Some(room);
                    self.inside = Some(Inside { room, member, first, since: desk.now });
                    self.waits = !begins;
                    if matches!(self.element, Element::Conference(_)) {
                        desk.conference = Some(room);
                    }
                    self.entered(desk, starts, room_left_ms);
                }
            }
            RoomNews::Full { room } => {
                if self.inside.is_none() {
                    self.room = Some(room);
                    return self.leave(desk, Ended::Full);
                }
            }
            RoomNews::Out { why } => return self.leave(desk, Ended::Out(why)),
            RoomNews::Begins { starts } => {
                self.waits = false;
                desk.timers.clear(Timer::RoomWait);
                if starts {
                    self.tell(desk, Told::Started);
                }
            }
            RoomNews::Waits => {
                self.waits = true;
                self.wait(desk);
            }
            RoomNews::Floor { has } => self.tell(desk, Told::Floor { has }),
            RoomNews::Speech { on } => {
                self.speaks = on;
                self.tell(desk, Told::Speech { on });
            }
            RoomNews::Audio { on } => self.tell(desk, Told::Audio { on }),
            RoomNews::RecordEnded => self.sounds.record_ended(desk),
            RoomNews::RecordFailed { ref why } => {
                desk.remark(format!(
                    "the recording of the room failed: {}; the room goes on",
                    foreign(why)
                ));
            }
            RoomNews::Muted { on } => {
                self.muted = on;
                self.tell(desk, Told::Muted { on });
            }
            RoomNews::Held { on } => {
                self.held = on;
                self.tell(desk, Told::Held { on });
            }
            RoomNews::Coaches { on } => self.element.coaches(on),
            RoomNews::Record { ref how, ref callback } => {
                if let Some(inside) = &self.inside {
                    let callback =
                        callback.as_ref().map(|target| self.element.recorded(desk, inside, target));
                    let transcript =
                        super::record::transcript_if_able(desk, how.transcript.clone());
                    let how = Box::new(RecordOrder { callback, transcript, ..(**how).clone() });
                    self.record_room(desk, how, true);
                }
            }
            RoomNews::Track { ref what } => self.record_track(desk, what),
            RoomNews::Recorded { id, ref url, begun } => self.recorded(desk, id, url, begun),
        }
        self.tune(desk, turn.gate);
        Progress::Pending
    }

    fn fetched(
        &mut self,
        turn: &mut Turn<'_>,
        fetch: FetchId,
        result: Result<Fetched, FetchFailure>,
    ) -> Progress {
        self.sounds.fetched(turn.desk, fetch, result);
        self.tune(turn.desk, turn.gate);
        Progress::Pending
    }

    fn played(&mut self, turn: &mut Turn<'_>, play: PlayId) -> Progress {
        self.sounds.played(turn.desk, turn.gate, play);
        Progress::Pending
    }

    fn play_failed(&mut self, turn: &mut Turn<'_>, play: PlayId, item: u16, reason: &str) {
        if let Some(place) = turn.place
            && self.sounds.is_playing(play)
        {
            turn.desk.remark(format!(
                "item {} of the music of {place} could not be played: {reason}; it is skipped",
                item + 1
            ));
        }
    }

    fn digit(&mut self, turn: &mut Turn<'_>, key: Key) -> Progress {
        if self.inside.is_none() {
            turn.keys.push(key);
            return Progress::Pending;
        }
        let digit = key.digit;
        for pattern in self.typed.pressed(digit) {
            self.tell(turn.desk, Told::Digits(&pattern));
        }
        self.tell(turn.desk, Told::Key(digit));
        if self.rules.hangup_on_star && digit.as_char() == '*' {
            return self.leave(turn.desk, Ended::Star);
        }
        if self.rules.relays_keys {
            turn.desk.wish(Output::Room { room: RoomWish::Key { digit } });
        }
        if !self.takes_keys() {
            turn.keys.push(key);
        }
        Progress::Pending
    }

    /// Where the stream was the agent's, that one leaves.
    fn stream_ended(&mut self, turn: &mut Turn<'_>, ended: stream::Ended) -> Progress {
        let is_its_agents = match &mut self.element {
            Element::MultiParty(of) => of.agent.ended(ended.stream),
            Element::Conference(_) => false,
        };
        match is_its_agents {
            true => self.leave(turn.desk, Ended::AgentGone { dropped: ended.dropped }),
            false => Progress::Pending,
        }
    }

    fn timer(&mut self, turn: &mut Turn<'_>, timer: Timer) -> Progress {
        match timer {
            // The call that they are in is over for all of them at this moment.
            Timer::RoomLimit if self.rules.limit_ms.is_none() => {
                self.leave(turn.desk, Ended::Out(RoomOut::TimeUp))
            }
            Timer::RoomLimit | Timer::RoomWait => self.leave(turn.desk, Ended::TimeLimit),
            Timer::Fetch => {
                self.sounds.timed_out(turn.desk);
                self.tune(turn.desk, turn.gate);
                Progress::Pending
            }
            // Timers of other instructions.
            _ => Progress::Pending,
        }
    }

    fn gate_changed(&mut self, turn: &mut Turn<'_>) -> Progress {
        self.tune(turn.desk, turn.gate);
        Progress::Pending
    }

    /// No action follows.
    fn stop(&mut self, turn: &mut Turn<'_>, _: Stop) {
        self.out(turn.desk);
    }

    fn hides_digits(&self) -> Option<bool> {
        self.takes_keys().then_some(false)
    }

    fn draw(&self, sketch: &mut Sketch) {
        let what = match self.element {
            Element::Conference(_) => "conference",
            Element::MultiParty(_) => "multi_party_call",
        };
        match &self.inside {
            Some(inside) => {
                sketch.say("room", [word(what), text(brief(inside.room)), word("inside")])
            }
            None => sketch.say("room", [word(what), word("outside")]),
        }
        for (is, how) in
            [(self.waits, "room_waits"), (self.held, "room_held"), (self.muted, "room_muted")]
        {
            if is {
                sketch.say("room", [word(how)]);
            }
        }
        if let Some(track) = self.track {
            sketch.say("recording", [word("own_track"), text(track.0)]);
        }
        let waits = if self.inside.is_some() { "room_to_end" } else { "room_to_enter" };
        sketch.say("waits_for", [word(waits)]);
    }
}

impl Element {
    fn told(&self, desk: &Desk, inside: &Inside, what: Told<'_>) -> Vec<Notice> {
        match self {
            Self::Conference(of) => of.told(desk, inside, what).into_iter().collect(),
            Self::MultiParty(of) => of.told(desk, inside, what),
        }
    }

    fn left(&self, desk: &Desk, inside: &Inside, last: bool) -> Option<Notice> {
        match self {
            Self::Conference(of) => of.left(desk, inside, last),
            Self::MultiParty(of) => of.left(desk, inside),
        }
    }

    fn over(&self, desk: &Desk, inside: &Inside) -> Option<Params> {
        match self {
            Self::Conference(_) => None,
            Self::MultiParty(of) => Some(of.over(desk, inside)),
        }
    }

    /// What says that the room's recording is there.
    fn recorded(&self, desk: &Desk, inside: &Inside, target: &Target) -> Notice {
        match self {
            Self::Conference(of) => {
                of.notice_to(target, desk, inside, (Event::ConferenceRecord, "record"), false, None)
            }
            Self::MultiParty(of) => of.recorded_to(target, desk, inside),
        }
    }

    /// How it wants the room recorded, and whether also while one is alone.
    fn record(&self, desk: &mut Desk, inside: &Inside) -> Option<(Box<RecordOrder>, bool)> {
        match self {
            Self::Conference(of) => of.record(desk, inside),
            Self::MultiParty(of) => of.record(desk, inside),
        }
    }

    /// How it wants what this one says recorded.
    fn track(&self, desk: &mut Desk, inside: &Inside) -> Option<RecordOrder> {
        match self {
            Self::Conference(_) => None,
            Self::MultiParty(of) => of.track(desk, inside),
        }
    }

    fn begin_agent(&mut self, desk: &mut Desk) {
        match self {
            Self::Conference(_) => {}
            Self::MultiParty(of) => of.agent.begin(desk),
        }
    }

    fn stop_agent(&mut self, desk: &mut Desk) {
        match self {
            Self::Conference(_) => {}
            Self::MultiParty(of) => of.agent.stop(desk),
        }
    }

    fn coaches(&mut self, on: bool) {
        match self {
            Self::Conference(_) => {}
            Self::MultiParty(of) => of.coaches = on,
        }
    }

    fn tells_keys(&self) -> bool {
        match self {
            Self::Conference(_) => false,
            Self::MultiParty(of) => of.tells_keys(),
        }
    }
}
