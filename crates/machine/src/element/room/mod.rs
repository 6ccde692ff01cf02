//! Being in a room, as `Conference` and `MultiPartyCall` have it: entering, waiting with music, the sounds of coming and
//! going, keys, and leaving, for whatever reason (`plivo-xml.md` §5.9, §5.10).
//!
//! Who else is in, and what that means for this call, the room decides (`call::rooms`); it tells by [`RoomNews`]. What the
//! two elements call things, and what they tell the application, is `conference`'s and `multi_party`'s.

mod ai_agent;
mod conference;
mod multi_party;
mod picture;
mod sounds;

use uuid::Uuid;

use super::super::desk::Desk;
use super::super::document::Gate;
use super::super::params::Event;
use super::super::stream;
use super::super::timers::Timer;
use super::patterns::Patterns;
use super::stream::DROPPED;
use super::{Flow, Running};
use crate::contract::display::foreign;
use crate::contract::recording;
use crate::contract::{
    CallTime, FetchFailure, FetchId, Fetched, InstructionOutcome, MediaOrder, MemberId, Notice,
    Output, Param, Params, PlayId, RecordEnd, RecordId, RecordOrder, RoomEntry, RoomNews, RoomOut,
    RoomWish, TrackNews, TranscriptOrder,
};
use conference::OfConference;
use model::{Digit, HangupCause};
use multi_party::OfMultiParty;
pub(crate) use multi_party::cut_off;
use sounds::Sounds;
use xml::Document;
use xml::ast::{Conference, ElementKind, MultiPartyCall, Target};

/// A call in a room, or on its way in.
pub(crate) struct Attending {
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
    /// Why it is over.
    ended: Option<Ended>,
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

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attended {
    /// It goes on.
    More,
    /// It has left.
    Over,
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

/// `Conference` begins.
pub(super) fn conference(conference: &Conference, desk: &mut Desk) -> Flow {
    let (element, rules, entry, sounds) = OfConference::read(conference);
    start(Element::Conference(Box::new(element)), rules, entry, sounds, desk)
}

/// `MultiPartyCall` begins.
pub(super) fn multi_party(call: &MultiPartyCall, desk: &mut Desk) -> Flow {
    let (element, rules, mut entry, sounds) = OfMultiParty::read(call);
    entry.needs_company = desk.setup.outbound.as_ref().is_some_and(|placed| placed.needs_company);
    start(Element::MultiParty(Box::new(element)), rules, entry, sounds, desk)
}

/// What is told of a call that was placed to enter a multi-party call, as its document has it.
/// `room`: where there is one yet; `status`: `CallStatus` where the call is over.
pub(crate) fn added(
    desk: &Desk,
    document: &Document,
    room: Option<uuid::Uuid>,
    event: &str,
    status: Option<&'static str>,
) -> Option<Notice> {
    let call = document.elements.iter().find_map(|element| match &element.kind {
        ElementKind::MultiPartyCall(call) => Some(call),
        _ => None,
    });
    let mut notice = OfMultiParty::read(call?).0.added(desk, room, event)?;
    if let Some(status) = status {
        notice.params.insert("CallStatus".into(), Param::Plain(status.into()));
    }
    Some(notice)
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
        ended: None,
    };
    desk.wish(Output::Room { room: RoomWish::Enter { entry: Box::new(entry) } });
    Flow::Run(Running::Attending(Box::new(attending)))
}

impl Attending {
    /// The room tells something.
    pub(crate) fn told(&mut self, desk: &mut Desk, gate: Gate, news: &RoomNews) -> Attended {
        match *news {
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
                    let transcript = super::record::able(desk, how.transcript.clone());
                    let how = Box::new(RecordOrder { callback, transcript, ..(**how).clone() });
                    self.record_room(desk, how, true);
                }
            }
            RoomNews::Track { ref what } => self.record_track(desk, what),
            RoomNews::Recorded { id, ref url, begun } => self.recorded(desk, id, url, begun),
        }
        self.tune(desk, gate);
        Attended::More
    }

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
                let transcript = super::record::able(desk, how.transcript.clone());
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

    /// A stream of the call's has ended: where it was the agent's, that one leaves.
    pub(crate) fn stream_ended(&mut self, desk: &mut Desk, ended: stream::Ended) -> Attended {
        let is_its_agents = match &mut self.element {
            Element::MultiParty(of) => of.agent.ended(ended.stream),
            Element::Conference(_) => false,
        };
        match is_its_agents {
            true => self.leave(desk, Ended::AgentGone { dropped: ended.dropped }),
            false => Attended::More,
        }
    }

    /// What is heard instead of the room: music while it waits or is on hold.
    fn tune(&mut self, desk: &mut Desk, gate: Gate) {
        if self.inside.is_some() {
            self.sounds.tune(desk, gate, self.waits, self.held);
        }
    }

    /// The call's own path has changed.
    pub(crate) fn resume(&mut self, desk: &mut Desk, gate: Gate) {
        self.tune(desk, gate);
    }

    /// Whether the caller's keys are meant for this: they are no secret then, the application is told of them.
    pub(crate) fn takes_keys(&self) -> bool {
        self.inside.is_some()
            && (self.rules.hangup_on_star
                || !self.rules.digits_match.is_empty()
                || self.element.tells_keys())
    }

    /// The caller pressed a key; `true`: it was meant for this, and nobody else shall have it.
    pub(crate) fn pressed(&mut self, desk: &mut Desk, digit: Digit) -> (bool, Attended) {
        if self.inside.is_none() {
            return (false, Attended::More);
        }
        for pattern in self.typed.pressed(digit) {
            self.tell(desk, Told::Digits(&pattern));
        }
        self.tell(desk, Told::Key(digit));
        if self.rules.hangup_on_star && digit.as_char() == '*' {
            return (true, self.leave(desk, Ended::Star));
        }
        if self.rules.relays_keys {
            desk.wish(Output::Room { room: RoomWish::Key { digit } });
        }
        (self.takes_keys(), Attended::More)
    }

    /// One of its timers fired.
    pub(crate) fn fired(&mut self, desk: &mut Desk, gate: Gate, timer: Timer) -> Attended {
        match timer {
            // The call that they are in is over for all of them at this moment.
            Timer::RoomLimit if self.rules.limit_ms.is_none() => {
                self.leave(desk, Ended::Out(RoomOut::TimeUp))
            }
            Timer::RoomLimit | Timer::RoomWait => self.leave(desk, Ended::TimeLimit),
            Timer::Fetch => {
                self.sounds.timed_out(desk);
                self.tune(desk, gate);
                Attended::More
            }
            _ => Attended::More,
        }
    }

    pub(crate) fn fetched(
        &mut self,
        desk: &mut Desk,
        gate: Gate,
        fetch: FetchId,
        result: Result<Fetched, FetchFailure>,
    ) {
        self.sounds.fetched(desk, fetch, result);
        self.tune(desk, gate);
    }

    pub(crate) fn played(&mut self, desk: &mut Desk, gate: Gate, play: PlayId) {
        self.sounds.played(desk, gate, play);
    }

    pub(crate) fn is_playing(&self, play: PlayId) -> bool {
        self.sounds.is_playing(play)
    }

    /// The call ends, or another document takes over: no action follows.
    pub(crate) fn cut(&mut self, desk: &mut Desk) {
        if self.ended.is_none() {
            self.out(desk);
        }
    }

    fn leave(&mut self, desk: &mut Desk, why: Ended) -> Attended {
        self.out(desk);
        self.ended = Some(why);
        Attended::Over
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

    /// How the instruction went.
    pub(crate) fn went(&self) -> (InstructionOutcome, &'static str) {
        match self.ended {
            Some(Ended::Full) => (InstructionOutcome::Failed, "full"),
            Some(Ended::Out(why)) => (InstructionOutcome::Done, why.as_str()),
            Some(Ended::Star) => (InstructionOutcome::Done, "star"),
            Some(Ended::TimeLimit) => (InstructionOutcome::Done, "time limit"),
            Some(Ended::AgentGone { dropped: true }) => (InstructionOutcome::Failed, DROPPED),
            Some(Ended::AgentGone { dropped: false }) => {
                (InstructionOutcome::Done, "its agent has gone")
            }
            None => (InstructionOutcome::Done, ""),
        }
    }

    /// What the call ends with where nothing follows in its document; the usual, where there is none.
    pub(crate) fn cause(&self) -> Option<HangupCause> {
        match (&self.element, self.ended?) {
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
    pub(crate) fn action(&self, desk: &Desk) -> Option<(Target, bool, Params)> {
        match &self.element {
            Element::Conference(of) => {
                of.action(self.room, self.inside.as_ref(), self.recorded.as_ref())
            }
            Element::MultiParty(of) => of.action(desk, self.room, self.inside.as_ref()),
        }
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
