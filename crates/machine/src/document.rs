//! Walking a document: which instruction runs, what it waits for, what comes next (`plivo-xml.md` §4).
//!
//! A [`Script`] outlives its documents: it fetches the first, carries each out element by element, and on a
//! control transfer drops one and takes in the next. What a single element does is in [`super::element`].
//! It knows nothing of Meta: whether the call is answered reaches it as a [`Gate`].

mod hearing;
mod legs;
mod picture;
mod rooms;
mod taking;
mod tape;

use std::sync::Arc;

use super::callee::Callee;
use super::desk::{Desk, Place};
use super::element::{self, Collected, Dialled, Flow, Running};
use super::keys::KeyBuffer;
use super::params::{self, Event};
use super::stream;
use super::timers::Timer;
use crate::contract::{
    Confirm, FetchFailure, FetchKind, Input, InstructionOutcome, Output, Params, PlayId, RecordEnd,
    RecordId,
};
use model::{HangupCause, Leg};
use tape::Tape;
use xml::Document;
use xml::ast::{Element, ElementKind, Target};

/// Consecutive documents without an instruction that takes time, and documents of a call (§4 rule 8).
const IDLE_DOCUMENTS_MAX: u32 = 100;
const DOCUMENTS_MAX: u32 = 2_000;
/// Elements looked ahead for sounds to be made ready.
const LOOKAHEAD: usize = 8;

/// How far the call is, as far as instructions are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// Not answered: what needs no media runs, the first element that does waits and wants an answer.
    Ringing,
    /// `accept` is under way: nothing new begins.
    Answering,
    /// Answered, ICE or DTLS not up: as `Ringing`.
    Unconnected,
    /// Audio can flow.
    Open,
}

impl Gate {
    pub(super) fn is_answered(self) -> bool {
        matches!(self, Self::Unconnected | Self::Open)
    }
}

/// What a fact made of the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It waits: for an instruction, a fetch, or the gate.
    Busy,
    /// It hangs up.
    End(HangupCause),
}

/// See the module's note.
pub(super) struct Script {
    document: Option<Arc<Document>>,
    /// The next child of `Response`.
    next: usize,
    /// Within the `PreAnswer` before `next`: its next child.
    inner: Option<usize>,
    /// Elements before this one have had their sounds made ready.
    prepared: usize,
    running: Running,
    /// The instruction being carried out.
    place: Option<Place>,
    /// Tones that go out in the background.
    tones: Option<PlayId>,
    /// The recording in the background.
    tape: Option<Tape>,
    keys: KeyBuffer,
    /// Whether the last collection of this document was one with `log="false"`.
    after_hidden: bool,
    documents: u32,
    idle_documents: u32,
    took_time: bool,
    /// What the call ends with where nothing follows the room that it was in.
    left_by: Option<HangupCause>,
    /// What the action of a `Record` is told, while its document is being fetched.
    owed: Option<(Target, Params)>,
}

impl Script {
    /// A script that has asked for the answer document.
    pub(super) fn begin(desk: &mut Desk) -> Self {
        let mut script = Self::empty();
        let urls = &desk.setup.urls;
        let target = Target { url: urls.answer.clone(), method: urls.answer_method };
        let deadline_ms = desk.setup.limits.fetch_ms.min(desk.answer_budget_ms());
        let params = params::common(desk, Event::StartApp);
        let fetch = desk.fetch(FetchKind::Answer, target, params, deadline_ms);
        script.running = Running::Fetching { fetch, kind: FetchKind::Answer };
        script
    }

    fn empty() -> Self {
        Self {
            document: None,
            next: 0,
            inner: None,
            prepared: 0,
            running: Running::Nothing,
            place: None,
            tones: None,
            tape: None,
            keys: KeyBuffer::default(),
            after_hidden: false,
            documents: 0,
            idle_documents: 0,
            took_time: false,
            left_by: None,
            owed: None,
        }
    }

    /// A script of a B-leg that was picked up: it has no document, and waits for its A-leg.
    pub(super) fn called(desk: &mut Desk) -> Self {
        let callee = Box::new(Callee::begin(desk));
        Self { running: Running::Called(callee), ..Self::empty() }
    }

    /// A script of a call that was picked up, and confirms that somebody is there before it runs its document.
    pub(super) fn confirming(
        desk: &mut Desk,
        gate: Gate,
        confirm: Confirm,
        document: Arc<Document>,
    ) -> Self {
        let callee = Box::new(Callee::confirming(desk, gate, confirm, document));
        Self { running: Running::Called(callee), ..Self::empty() }
    }

    /// Whether it stands before an element that needs the call answered and its media up, or dials already.
    pub(super) fn wants_media(&self) -> bool {
        match &self.running {
            Running::AtGate => true,
            Running::Dialing(dialing) => dialing.wants_media(),
            _ => false,
        }
    }

    /// The instruction being carried out.
    pub(super) fn place(&self) -> Option<Place> {
        self.place
    }

    /// Whether the call is recorded, or will be: in the background, or by the `Record` that runs.
    pub(super) fn is_recorded(&self) -> bool {
        self.tape.is_some()
            || matches!(&self.running, Running::Recording(recording) if recording.runs())
    }

    /// Whether the end of that recording is waited for, to have its action asked.
    pub(super) fn awaits(&self, record: RecordId) -> bool {
        matches!(&self.running, Running::Recording(recording) if recording.is(record))
    }

    /// Takes in a fact about a fetch, a play or a key; what concerns the call is its state's business.
    pub(super) fn take(&mut self, desk: &mut Desk, gate: Gate, fact: Input) -> Step {
        match fact {
            Input::Fetched { fetch, result } => self.fetched(desk, gate, fetch, result),
            Input::Played { leg: Leg::A, play } => self.played(desk, gate, play),
            Input::PlayFailed { leg: Leg::A, play, item, reason } => {
                self.play_failed(desk, play, item, &reason)
            }
            Input::Digit { leg: Leg::A, digit } => self.digit(desk, gate, digit),
            Input::DigitsSent { leg: Leg::A, play } => self.digits_sent(desk, gate, play),
            Input::Voice { leg: Leg::A, what } => self.voice(desk, gate, what),
            Input::Speech { recognition, what } => match &mut self.running {
                Running::Collecting(collection) => {
                    let flow = collection.heard(desk, &mut self.keys, recognition, what);
                    self.collected(desk, gate, flow)
                }
                _ => Step::Busy,
            },
            Input::Dialled { call, news } => self.told(desk, gate, call, news),
            Input::Recorded { record, what } => self.recorded(desk, gate, record, what),
            Input::Ordered { leg } => self.ordered(desk, gate, &leg),
            Input::Room { news } => self.room_told(desk, gate, &news),
            Input::Voice { leg: Leg::B(_), .. }
            | Input::Played { leg: Leg::B(_), .. }
            | Input::PlayFailed { leg: Leg::B(_), .. }
            | Input::Digit { leg: Leg::B(_), .. }
            | Input::DigitsSent { leg: Leg::B(_), .. }
            | Input::PlayStarted { .. }
            | Input::Offered { .. }
            | Input::Placed { .. }
            | Input::Bound { .. }
            | Input::SdpAnswer { .. }
            | Input::Status { .. }
            | Input::Graph { .. }
            | Input::Media { .. }
            | Input::Stream { .. }
            | Input::Terminated { .. }
            | Input::Command { .. }
            | Input::Cut { .. }
            | Input::Timer => Step::Busy,
        }
    }

    /// One of an instruction's own timers fired.
    pub(super) fn fired(&mut self, desk: &mut Desk, gate: Gate, timer: Timer) -> Step {
        match (timer, &mut self.running) {
            (Timer::DialRing | Timer::DialLimit | Timer::Fetch, Running::Dialing(dialing)) => {
                let dialled = dialing.fired(desk, gate, timer);
                self.dialled(desk, gate, dialled)
            }
            (Timer::RoomLimit | Timer::RoomWait | Timer::Fetch, Running::Attending(attending)) => {
                let attended = attending.fired(desk, gate, timer);
                self.attended(desk, gate, attended)
            }
            (Timer::Fetch, Running::Called(callee)) => {
                callee.fetch_timed_out(desk, gate);
                self.called_on(desk, gate)
            }
            (Timer::Record, Running::Recording(_)) => self.recorder_forgot(desk, gate),
            (Timer::Confirm, Running::Called(callee)) => callee.unconfirmed(desk),
            (Timer::Fetch, Running::Fetching { fetch, .. }) => {
                let fetch = *fetch;
                desk.wish(Output::CancelFetch { fetch });
                self.fetched(desk, gate, fetch, Err(FetchFailure::Timeout))
            }
            (Timer::Wait, Running::Waiting { early: None }) => self.done(desk, gate),
            (Timer::Wait | Timer::Silence, Running::Waiting { early: Some(early) }) => {
                early.stop(desk);
                let note = if timer == Timer::Silence { "silence" } else { "" };
                self.end_place(desk, InstructionOutcome::Done, note);
                self.walk(desk, gate)
            }
            (
                Timer::Wait
                | Timer::Silence
                | Timer::InterDigit
                | Timer::Execution
                | Timer::StartInput
                | Timer::SpeechEnd
                | Timer::Transcript
                | Timer::Interim,
                Running::Collecting(collection),
            ) => {
                let flow = collection.timed_out(desk, &mut self.keys, timer);
                self.collected(desk, gate, flow)
            }
            _ => Step::Busy,
        }
    }

    /// The gate has changed: what stood before it may go on.
    pub(super) fn resume(&mut self, desk: &mut Desk, gate: Gate) -> Step {
        self.tape_goes(desk, gate);
        match &mut self.running {
            Running::AtGate => return self.walk(desk, gate),
            Running::Dialing(dialing) => {
                dialing.resume(desk, gate);
                self.tape_goes(desk, gate);
            }
            Running::Attending(attending) => attending.resume(desk, gate),
            Running::Called(callee) => {
                callee.resume(desk, gate);
                return self.called_on(desk, gate);
            }
            _ => {}
        }
        Step::Busy
    }

    /// The call ends: whatever runs is cut (§4 rule 9).
    pub(super) fn cut(&mut self, desk: &mut Desk) {
        match std::mem::replace(&mut self.running, Running::Nothing) {
            Running::Fetching { fetch, .. } => {
                desk.wish(Output::CancelFetch { fetch });
                self.tell_what_is_owed(desk);
            }
            Running::Dialing(mut dialing) => dialing.cut(desk),
            Running::Attending(mut attending) => attending.cut(desk),
            Running::Called(mut callee) => callee.cut(desk, true),
            Running::Collecting(mut collection) => collection.hear_no_more(desk),
            Running::Recording(mut recording) => recording.cut(desk, RecordEnd::HungUp),
            _ => {}
        }
        self.cut_tape(desk);
        self.end_place(desk, InstructionOutcome::Cut, "");
    }

    /// The call's stream has ended: where it kept the call alive, the next element follows.
    pub(super) fn stream_ended(
        &mut self,
        desk: &mut Desk,
        gate: Gate,
        ended: stream::Ended,
    ) -> Step {
        if let Running::Attending(attending) = &mut self.running {
            let attended = attending.stream_ended(desk, ended);
            return self.attended(desk, gate, attended);
        }
        if !matches!(self.running, Running::Streaming { stream } if stream == ended.stream) {
            return Step::Busy;
        }
        match ended.dropped {
            true => self.end_place(desk, InstructionOutcome::Failed, element::DROPPED),
            false => self.end_place(desk, InstructionOutcome::Done, ""),
        }
        self.walk(desk, gate)
    }

    /// Carries elements out until one takes time.
    fn walk(&mut self, desk: &mut Desk, gate: Gate) -> Step {
        loop {
            self.running = Running::Nothing;
            if gate == Gate::Answering {
                self.running = Running::AtGate;
                return Step::Busy;
            }
            self.prepare(desk);
            let Some(document) = self.document.clone() else { return Step::Busy };
            let Some(element) = self.upcoming(&document) else { return self.at_end() };
            let within_pre_answer = self.inner.is_some();
            if !within_pre_answer && gate != Gate::Open && element::needs_media(&element.kind) {
                self.running = Running::AtGate;
                return Step::Busy;
            }
            self.pass();
            self.left_by = None;
            let place = Place { element: element.kind.name(), line: element.at.line };
            if let Some(why) = element::skipped(&element.kind, gate, within_pre_answer) {
                desk.skip(place, why);
                continue;
            }
            self.took_time |= element::takes_time(&element.kind);
            self.place = Some(place);
            desk.instruction(place, InstructionOutcome::Started, "");
            let is_last = self.upcoming(&document).is_none();
            match element::start(element, desk, gate, is_last) {
                Flow::Next => self.end_place(desk, InstructionOutcome::Done, ""),
                Flow::Inside => {
                    self.end_place(desk, InstructionOutcome::Done, "");
                    self.inner = Some(0);
                }
                Flow::Tones { play, wait: false } => {
                    self.tones = Some(play);
                    self.end_place(desk, InstructionOutcome::Done, "");
                }
                Flow::Tones { play, wait: true } => {
                    self.running = Running::SendingDigits { play };
                    return Step::Busy;
                }
                Flow::Run(running) => {
                    self.running = running;
                    return Step::Busy;
                }
                Flow::Collect(mut collection) => {
                    let collected = collection.begin(desk, &mut self.keys);
                    self.running = Running::Collecting(collection);
                    // Not through `collected`: 2,000 of them may end at once, and must not nest.
                    match collected {
                        Collected::More => return Step::Busy,
                        ended => {
                            if let Some(step) = self.end_collection(desk, ended) {
                                return step;
                            }
                        }
                    }
                }
                Flow::Dial(mut dialing) => {
                    let dialled = dialing.begin(desk);
                    self.running = Running::Dialing(dialing);
                    match dialled {
                        Dialled::More => return Step::Busy,
                        Dialled::Over => {
                            if let Some(step) = self.end_dial(desk) {
                                return step;
                            }
                        }
                    }
                }
                Flow::Failed(why) => self.end_place(desk, InstructionOutcome::Failed, why),
                Flow::Background(record) => {
                    if let Some(step) = self.begin_tape(desk, gate, &record) {
                        return step;
                    }
                }
                Flow::Transfer { kind, target } => {
                    return self.transfer(desk, kind, target, Params::new());
                }
                Flow::End { cause, outcome, note } => {
                    self.end_place(desk, outcome, note);
                    return Step::End(cause);
                }
            }
        }
    }

    /// The end of the document (§4 rule 7). Tones already ordered are let out: a document that ends in `DTMF`
    /// would send none of them otherwise.
    fn at_end(&mut self) -> Step {
        match self.tones {
            Some(play) => {
                self.running = Running::SendingDigits { play };
                Step::Busy
            }
            None => Step::End(self.left_by.take().unwrap_or(HangupCause::EndOfInstructions)),
        }
    }

    fn upcoming<'a>(&self, document: &'a Document) -> Option<&'a Element> {
        if let Some(child) = self.inner
            && let Some(Element { kind: ElementKind::PreAnswer(pre), .. }) =
                self.next.checked_sub(1).and_then(|at| document.elements.get(at))
            && let Some(element) = pre.children.get(child)
        {
            return Some(element);
        }
        document.elements.get(self.next)
    }

    /// Moves past the upcoming element.
    fn pass(&mut self) {
        match &mut self.inner {
            Some(child) => *child += 1,
            None => self.next += 1,
        }
    }

    /// Leaves a `PreAnswer` whose children are done.
    fn leave_inner(&mut self, document: &Document) {
        let children = match self
            .next
            .checked_sub(1)
            .and_then(|at| document.elements.get(at))
            .map(|e| &e.kind)
        {
            Some(ElementKind::PreAnswer(pre)) => pre.children.len(),
            _ => 0,
        };
        if self.inner.is_some_and(|child| child >= children) {
            self.inner = None;
        }
    }

    /// Has the sounds of the next few elements made ready.
    fn prepare(&mut self, desk: &mut Desk) {
        let Some(document) = self.document.clone() else { return };
        self.leave_inner(&document);
        let until = self.next.saturating_add(LOOKAHEAD);
        let mut sounds = Vec::new();
        while self.prepared < until {
            let Some(element) = document.elements.get(self.prepared) else { break };
            element::sounds(&element.kind, &mut sounds);
            self.prepared += 1;
        }
        if !sounds.is_empty() {
            desk.wish(Output::Prepare { sounds });
        }
    }

    /// The instruction in the foreground is done: on to the next.
    fn done(&mut self, desk: &mut Desk, gate: Gate) -> Step {
        self.end_place(desk, InstructionOutcome::Done, "");
        self.walk(desk, gate)
    }

    fn end_place(&mut self, desk: &mut Desk, outcome: InstructionOutcome, note: &str) {
        if let Some(place) = self.place.take() {
            desk.instruction(place, outcome, note);
        }
    }
}
