//! Walking a document: which instruction runs, what it waits for, what comes next (`plivo-xml.md` §4).
//!
//! A [`Script`] outlives its documents: it fetches the first, carries each out element by element, and on a
//! control transfer drops one and takes in the next. What a single element does is in [`super::element`].
//! It knows nothing of Meta: whether the call is answered reaches it as a [`Gate`].

mod legs;
mod picture;
mod rooms;
mod tape;

use std::sync::Arc;

use super::callee::Callee;
use super::desk::{Desk, Place, foreign};
use super::dial::{Confirm, LegNews};
use super::element::{self, Collected, Dialled, Flow, Running};
use super::input::{FetchFailure, Fetched, FirstFault, Input};
use super::keys::KeyBuffer;
use super::params::{self, Event};
use super::recording::{RecordEnd, RecordId};
use super::stream;
use super::timers::Timer;
use super::{FetchId, FetchKind, InstructionOutcome, MediaOrder, Output, Params, PlayId, RecognitionId, Voice};
use crate::model::{Digit, DocumentKind, HangupCause, Leg};
use crate::xml::Document;
use crate::xml::ast::{Element, ElementKind, Target};
use tape::Tape;

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
    pub(super) fn confirming(desk: &mut Desk, gate: Gate, confirm: Confirm, document: Arc<Document>) -> Self {
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
        self.tape.is_some() || matches!(&self.running, Running::Recording(recording) if recording.runs())
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
            Input::PlayFailed { leg: Leg::A, play, item, reason } => self.play_failed(desk, play, item, &reason),
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
            Running::Called(mut callee) => callee.cut(desk),
            Running::Collecting(mut collection) => collection.hear_no_more(desk),
            Running::Recording(mut recording) => recording.cut(desk, RecordEnd::HungUp),
            _ => {}
        }
        self.cut_tape(desk);
        self.end_place(desk, InstructionOutcome::Cut, "");
    }

    /// The call's stream has ended: where it kept the call alive, the next element follows.
    pub(super) fn stream_ended(&mut self, desk: &mut Desk, gate: Gate, ended: stream::Ended) -> Step {
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

    // --- documents ---

    fn fetched(&mut self, desk: &mut Desk, gate: Gate, fetch: FetchId, result: Result<Fetched, FetchFailure>) -> Step {
        let kind = match &mut self.running {
            Running::Fetching { fetch: open, kind } if *open == fetch => *kind,
            Running::Dialing(dialing) => {
                dialing.fetched(desk, gate, fetch, result);
                return Step::Busy;
            }
            Running::Attending(attending) => {
                attending.fetched(desk, gate, fetch, result);
                return Step::Busy;
            }
            Running::Called(callee) => {
                callee.fetched(desk, gate, fetch, result);
                return self.called_on(desk, gate);
            }
            // Of a fetch that was cancelled or timed out here.
            _ => return Step::Busy,
        };
        desk.timers.clear(Timer::Fetch);
        self.running = Running::Nothing;
        self.owed = None;
        match result {
            Ok(Fetched::Document { document }) => {
                self.end_place(desk, InstructionOutcome::Done, "");
                self.load(desk, gate, document)
            }
            Ok(Fetched::Refused { refusal }) => {
                desk.findings(&refusal.findings);
                let first = refusal.findings.iter().find(|f| f.severity == crate::xml::ast::Severity::Error);
                let why = first.map_or_else(
                    || "its document was refused".to_owned(),
                    |f| format!("its document was refused: {} at line {}, {}", f.rule, f.at.line, foreign(&f.message)),
                );
                self.fetch_failed(desk, kind, refused_cause(refusal.first, kind), &why)
            }
            Ok(Fetched::Ignored) => {
                self.fetch_failed(desk, kind, HangupCause::Unreachable(document_kind(kind)), "no document came back")
            }
            Err(failure) => {
                let cause = match failure {
                    // A body past the limit is a refused document: E101 (`plivo-xml.md` §1).
                    FetchFailure::TooLarge => HangupCause::InvalidXml(document_kind(kind)),
                    FetchFailure::Timeout
                    | FetchFailure::Unreachable { .. }
                    | FetchFailure::Status { .. }
                    | FetchFailure::UrlRefused { .. }
                    | FetchFailure::Invalid { .. } => HangupCause::Unreachable(document_kind(kind)),
                };
                self.fetch_failed(desk, kind, cause, &failure.to_string())
            }
        }
    }

    /// The answer URL has a second chance, everything else ends the call (`plivo-callbacks.md` §4.3).
    fn fetch_failed(&mut self, desk: &mut Desk, kind: FetchKind, cause: HangupCause, why: &str) -> Step {
        self.end_place(desk, InstructionOutcome::Failed, why);
        let left_ms = desk.answer_budget_ms();
        match (kind, desk.setup.urls.fallback.clone()) {
            (FetchKind::Answer, Some((url, method))) if left_ms > 0 => {
                desk.remark(format!("the answer URL failed: {why}; the fallback URL is asked"));
                let deadline_ms = desk.setup.limits.fetch_ms.min(left_ms);
                let params = params::common(desk, Event::StartApp);
                let fetch = desk.fetch(FetchKind::Fallback, Target { url, method }, params, deadline_ms);
                self.running = Running::Fetching { fetch, kind: FetchKind::Fallback };
                Step::Busy
            }
            _ => {
                desk.remark(format!("the {} URL failed: {why}; the call ends", kind.as_str()));
                Step::End(cause)
            }
        }
    }

    fn load(&mut self, desk: &mut Desk, gate: Gate, document: Arc<Document>) -> Step {
        self.documents = self.documents.saturating_add(1);
        desk.document_in = true;
        desk.findings(&document.warnings);
        self.document = Some(document);
        self.next = 0;
        self.inner = None;
        self.prepared = 0;
        self.keys.clear();
        self.after_hidden = false;
        self.took_time = false;
        self.left_by = None;
        self.walk(desk, gate)
    }

    /// Another document takes over by REST: what is being carried out ends at once (§4 rule 4).
    pub(super) fn transferred(&mut self, desk: &mut Desk, target: Target) -> Step {
        self.dropped(desk);
        self.transfer(desk, FetchKind::Transfer, target, Params::new())
    }

    /// The same, with a document that came with the request.
    pub(super) fn given(&mut self, desk: &mut Desk, gate: Gate, document: Arc<Document>) -> Step {
        self.dropped(desk);
        self.load(desk, gate, document)
    }

    /// A script whose first document is there already.
    pub(super) fn with(desk: &mut Desk, gate: Gate, document: Arc<Document>) -> (Self, Step) {
        let mut script = Self::empty();
        let step = script.load(desk, gate, document);
        (script, step)
    }

    /// What is being carried out ends.
    fn dropped(&mut self, desk: &mut Desk) {
        match std::mem::replace(&mut self.running, Running::Nothing) {
            Running::Nothing | Running::AtGate => {}
            Running::Fetching { fetch, .. } => {
                desk.cancel_fetch(fetch);
                self.owed = None;
            }
            Running::Playing { play, .. } => desk.media(MediaOrder::Stop { play }),
            // One that keeps the call alive ends with its element (§4 rule 4).
            Running::Streaming { stream } => {
                stream::stop(desk, Some(stream), stream::Stop::Api);
            }
            Running::Waiting { early: None } => desk.timers.clear(Timer::Wait),
            Running::Waiting { early: Some(early) } => early.stop(desk),
            Running::Collecting(mut collection) => {
                self.after_hidden = collection.hides_keys();
                collection.cut(desk);
            }
            // A leg that is not transferred is hung up.
            Running::Dialing(mut dialing) => dialing.transferred(desk),
            Running::Attending(mut attending) => attending.cut(desk),
            Running::Called(mut callee) => {
                callee.cut(desk);
                // It goes on as a call of its own.
                desk.news(LegNews::Ended { cause: HangupCause::ApiHangup });
            }
            Running::Recording(mut recording) => recording.cut(desk, RecordEnd::Stopped),
            Running::Naming { .. } => {}
            // In the background they go on.
            Running::SendingDigits { play } if self.tones == Some(play) => {}
            Running::SendingDigits { play } => desk.media(MediaOrder::Stop { play }),
        }
        self.end_place(desk, InstructionOutcome::Cut, "transferred");
    }

    /// Drops this document and asks for the next (§4 rule 4).
    fn transfer(&mut self, desk: &mut Desk, kind: FetchKind, target: Target, extra: Params) -> Step {
        self.idle_documents = if self.took_time { 0 } else { self.idle_documents.saturating_add(1) };
        if self.idle_documents > IDLE_DOCUMENTS_MAX || self.documents >= DOCUMENTS_MAX {
            let what = if self.documents >= DOCUMENTS_MAX {
                format!("{DOCUMENTS_MAX} documents in one call")
            } else {
                format!("{} documents in a row in which nothing took time", self.idle_documents)
            };
            desk.remark(format!("{what}: the documents send the call in a circle, it ends"));
            self.end_place(desk, InstructionOutcome::Failed, "instruction loop");
            return Step::End(HangupCause::InstructionLoop);
        }
        let mut params = params::common(desk, Event::Redirect);
        params.extend(extra);
        let deadline_ms = desk.setup.limits.fetch_ms;
        let fetch = desk.fetch(kind, target, params, deadline_ms);
        self.running = Running::Fetching { fetch, kind };
        Step::Busy
    }

    // --- elements ---

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
                Flow::Transfer { kind, target } => return self.transfer(desk, kind, target, Params::new()),
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
        let children = match self.next.checked_sub(1).and_then(|at| document.elements.get(at)).map(|e| &e.kind) {
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

    // --- sounds and keys ---

    fn played(&mut self, desk: &mut Desk, gate: Gate, ended: PlayId) -> Step {
        match &mut self.running {
            Running::Playing { play, failed } if *play == ended => {
                let failed = std::mem::take(failed);
                match failed {
                    None => self.done(desk, gate),
                    Some(why) => {
                        self.end_place(desk, InstructionOutcome::Failed, &why);
                        self.walk(desk, gate)
                    }
                }
            }
            Running::Collecting(collection) => {
                let flow = collection.played(desk, &mut self.keys, ended);
                self.collected(desk, gate, flow)
            }
            Running::Recording(recording) => {
                recording.played(desk, ended);
                Step::Busy
            }
            Running::Dialing(dialing) => {
                dialing.played(desk, gate, ended);
                Step::Busy
            }
            Running::Attending(attending) => {
                attending.played(desk, gate, ended);
                Step::Busy
            }
            Running::Called(callee) => {
                callee.played(desk, gate, ended);
                self.called_on(desk, gate)
            }
            _ => Step::Busy,
        }
    }

    fn play_failed(&mut self, desk: &mut Desk, which: PlayId, item: u16, reason: &str) -> Step {
        let reason = foreign(reason);
        if let Running::Called(callee) = &self.running
            && callee.is_playing(which)
        {
            let what = callee.sound_name();
            desk.remark(format!("item {} of {what} could not be played: {reason}; it is skipped", item + 1));
        }
        let Some(place) = self.place else { return Step::Busy };
        match &mut self.running {
            Running::Dialing(dialing) if dialing.is_playing(which) => {
                desk.remark(format!("item {} of dialMusic could not be played: {reason}; it is skipped", item + 1));
            }
            Running::Attending(attending) if attending.is_playing(which) => {
                desk.remark(format!(
                    "item {} of the music of {place} could not be played: {reason}; it is skipped",
                    item + 1
                ));
            }
            Running::Playing { play, failed } if *play == which => {
                desk.remark(format!("{place} could not be played: {reason}; it is skipped"));
                *failed = Some(reason);
            }
            Running::Collecting(collection) if collection.is_playing(which) => {
                desk.remark(format!("prompt {} of {place} could not be played: {reason}; it is skipped", item + 1));
            }
            _ => {}
        }
        Step::Busy
    }

    fn digit(&mut self, desk: &mut Desk, gate: Gate, digit: Digit) -> Step {
        // Read from the wire, but they mean nothing to a document (§4.1).
        if digit.is_letter() {
            return Step::Busy;
        }
        let hidden = self.hides_keys();
        match &mut self.running {
            Running::Collecting(collection) => {
                let flow = collection.pressed(desk, &mut self.keys, digit, hidden);
                self.collected(desk, gate, flow)
            }
            Running::Dialing(dialing) => {
                let (taken, dialled) = dialing.pressed(desk, digit);
                if !taken {
                    self.keys.push(digit, hidden);
                }
                self.dialled(desk, gate, dialled)
            }
            Running::Attending(attending) => {
                let (taken, attended) = attending.pressed(desk, digit);
                if !taken {
                    self.keys.push(digit, hidden);
                }
                self.attended(desk, gate, attended)
            }
            Running::Recording(recording) => {
                if !recording.pressed(desk, digit) {
                    self.keys.push(digit, hidden);
                }
                Step::Busy
            }
            Running::Called(callee) => {
                callee.pressed(desk, gate, digit);
                self.called_on(desk, gate)
            }
            _ => {
                self.keys.push(digit, hidden);
                Step::Busy
            }
        }
    }

    fn voice(&mut self, desk: &mut Desk, gate: Gate, what: Voice) -> Step {
        match &mut self.running {
            Running::Waiting { early: Some(early) } if early.heard(desk, what) => {
                early.stop(desk);
                self.end_place(desk, InstructionOutcome::Done, "beep");
                return self.walk(desk, gate);
            }
            Running::Collecting(collection) => collection.voice(desk, what),
            _ => {}
        }
        Step::Busy
    }

    fn digits_sent(&mut self, desk: &mut Desk, gate: Gate, sent: PlayId) -> Step {
        if self.tones == Some(sent) {
            self.tones = None;
        }
        match &mut self.running {
            Running::SendingDigits { play } if *play == sent => self.done(desk, gate),
            Running::Called(callee) => {
                callee.digits_sent(desk, gate, sent);
                self.called_on(desk, gate)
            }
            _ => Step::Busy,
        }
    }

    fn collected(&mut self, desk: &mut Desk, gate: Gate, collected: Collected) -> Step {
        match collected {
            Collected::More => Step::Busy,
            ended => {
                let step = self.end_collection(desk, ended);
                self.go_on(desk, gate, step)
            }
        }
    }

    /// A collection has ended: `None` where the next element follows.
    fn end_collection(&mut self, desk: &mut Desk, collected: Collected) -> Option<Step> {
        let entered = match collected {
            Collected::More => return None,
            Collected::NoInput => None,
            Collected::Input(entered) => Some(entered),
        };
        let Running::Collecting(collection) = std::mem::replace(&mut self.running, Running::Nothing) else {
            return None;
        };
        self.keys.clear();
        self.after_hidden = collection.hides_keys();
        self.end_place(desk, InstructionOutcome::Done, if entered.is_some() { "input" } else { "no input" });
        let (action, extra) = collection.action(entered?)?;
        self.acted(desk, Some((action.target, action.redirect, extra)))
    }

    /// An element is over that may have an action, which is told `extra`. With `redirect` its document runs next; `None`
    /// where the next element does.
    fn acted(&mut self, desk: &mut Desk, action: Option<(Target, bool, Params)>) -> Option<Step> {
        let (target, redirect, extra) = action?;
        if redirect {
            return Some(self.transfer(desk, FetchKind::Action, target, extra));
        }
        let mut params = params::common(desk, Event::Redirect);
        params.extend(extra);
        desk.notify_action(target, params);
        None
    }

    /// What an element's end led to, or else the next element.
    fn go_on(&mut self, desk: &mut Desk, gate: Gate, step: Option<Step>) -> Step {
        match step {
            Some(step) => step,
            None => self.walk(desk, gate),
        }
    }

    // --- what the event log may hold ---

    /// Whether a key pressed now must not be written down (`log="false"`): it would be taken by such a
    /// collection, or follows what one has taken.
    pub(super) fn hides_keys(&self) -> bool {
        match &self.running {
            Running::Collecting(collection) => collection.hides_keys(),
            Running::Dialing(dialing) if dialing.takes_keys() => false,
            Running::Attending(attending) if attending.takes_keys() => false,
            Running::Fetching { .. } => self.after_hidden,
            _ => self.after_hidden || self.next_collector().is_some_and(|rules| rules.hidden),
        }
    }

    /// Whether what that recognition hears must not be written down; `None`: nobody waits for it.
    pub(super) fn hides_speech(&self, recognition: RecognitionId) -> Option<bool> {
        match &self.running {
            Running::Collecting(collection) if collection.recognises(recognition) => Some(collection.hides_keys()),
            _ => None,
        }
    }

    /// A key that leads to the same decisions and says nothing about the one pressed.
    pub(super) fn stand_in(&self, digit: Digit) -> Digit {
        match &self.running {
            Running::Collecting(collection) => collection.rules().stand_in(digit),
            Running::Fetching { .. } => element::Rules::taking_all().stand_in(digit),
            // Which key ended it, the application is told.
            Running::Recording(recording) if recording.ends_by(digit) => digit,
            Running::Recording(recording) => {
                let rules = self.next_collector().unwrap_or_else(element::Rules::taking_all);
                let stands_for =
                    |other: &Digit| !recording.ends_by(*other) && rules.stand_in(*other) == rules.stand_in(digit);
                (0..12).filter_map(Digit::from_event).find(stands_for).unwrap_or(digit)
            }
            _ => self.next_collector().unwrap_or_else(element::Rules::taking_all).stand_in(digit),
        }
    }

    /// The rules of the collection that will take the keys pressed now.
    fn next_collector(&self) -> Option<element::Rules> {
        let document = self.document.as_deref()?;
        document.elements.iter().skip(self.next).find_map(|element| element::rules_of(&element.kind))
    }
}

/// Which document a fetch is about: it picks the last digit of the cause's code.
fn document_kind(kind: FetchKind) -> DocumentKind {
    match kind {
        FetchKind::Answer | FetchKind::Fallback => DocumentKind::Answer,
        FetchKind::Action => DocumentKind::Action,
        FetchKind::Redirect => DocumentKind::Redirect,
        FetchKind::Transfer => DocumentKind::Transfer,
        // Never a document that runs.
        FetchKind::Sound => DocumentKind::Answer,
    }
}

/// `plivo-xml.md` §2.3: the first error names the code where it is a URL or method, else the document does.
fn refused_cause(first: FirstFault, kind: FetchKind) -> HangupCause {
    match first {
        FirstFault::ActionUrl => HangupCause::InvalidUrl(DocumentKind::Action),
        FirstFault::RedirectUrl => HangupCause::InvalidUrl(DocumentKind::Redirect),
        FirstFault::ActionMethod => HangupCause::InvalidMethod(DocumentKind::Action),
        FirstFault::RedirectMethod => HangupCause::InvalidMethod(DocumentKind::Redirect),
        FirstFault::Other => HangupCause::InvalidXml(document_kind(kind)),
    }
}
