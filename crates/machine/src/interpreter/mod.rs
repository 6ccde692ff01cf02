//! Walking a document: which instruction runs, what it waits for, what comes next (`plivo-xml.md` §4).
//!
//! A [`Interpreter`] outlives its documents: it fetches the first, carries each out element by element, and on a
//! control transfer drops one and takes in the next. What a single element does is in [`crate::element`].
//! It knows nothing of Meta: whether the call is answered reaches it as a [`Readiness`].

mod background_recording;
mod cursor;
mod document_fetch;
mod loop_guard;

use std::sync::Arc;

use crate::activity::{Action, Activity, Completion, Env, Progress, Readiness, Stop};
use crate::called_party::CalledParty;
use crate::context::{CallContext, Place};
use crate::contract::display::foreign;
use crate::contract::{
    BLegCommand, Command, Confirmation, FetchFailure, FetchId, FetchKind, FetchResponse, Input,
    InstructionOutcome, Output, Params, PlayId, RecognitionId, RecordingEndReason, RecordingEvent,
    RecordingId, RecordingOrder,
};
use crate::digits::{DigitBuffer, Key, Rules};
use crate::element::{self, At, Flow, ToneWait};
use crate::params::{self, Event};
use crate::snapshot::{SnapshotBuilder, text, word};
use crate::stream;
use crate::timers::Timer;
use background_recording::BackgroundRecording;
use cursor::Cursor;
use document_fetch::DocumentFetch;
use loop_guard::LoopGuard;
use model::{CallUuid, Digit, HangupCause, Leg};
use xml::Document;
use xml::ast::{Record, Target};

/// What an input made of the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It waits: for an instruction, a fetch, or the gate.
    Busy,
    /// It hangs up.
    End(HangupCause),
}

/// What the script waits for.
enum Running {
    /// Nothing: between elements, or the call has ended.
    Nothing,
    /// The next element needs the call answered and its media up.
    AtGate,
    /// A document.
    Fetching(DocumentFetch),
    /// An instruction.
    Activity(Box<dyn Activity>),
}

/// See the module's note.
pub(crate) struct Interpreter {
    /// `None` before the first document.
    cursor: Option<Cursor>,
    running: Running,
    /// The instruction being carried out.
    place: Option<Place>,
    /// Tones that go out in the background.
    tones: Option<PlayId>,
    recording: Option<BackgroundRecording>,
    keys: DigitBuffer,
    loops: LoopGuard,
    /// What the call ends with where nothing follows the room that it was in.
    left_by: Option<HangupCause>,
}

impl Interpreter {
    /// A script that has asked for the answer document.
    pub(crate) fn begin(ctx: &mut CallContext) -> Self {
        Self::waiting_for(Running::Fetching(DocumentFetch::answer(ctx)))
    }

    fn waiting_for(running: Running) -> Self {
        Self {
            cursor: None,
            running,
            place: None,
            tones: None,
            recording: None,
            keys: DigitBuffer::default(),
            loops: LoopGuard::default(),
            left_by: None,
        }
    }

    /// A script of a B-leg that was picked up: it has no document, and waits for its A-leg.
    pub(crate) fn called(ctx: &mut CallContext) -> Self {
        Self::waiting_for(Running::Activity(Box::new(CalledParty::begin(ctx))))
    }

    /// A script of a call that was picked up, and confirms that somebody is there before it runs its document.
    pub(crate) fn confirming(
        ctx: &mut CallContext,
        readiness: Readiness,
        confirm: Confirmation,
        document: Arc<Document>,
    ) -> Self {
        let called_party = CalledParty::confirming(ctx, readiness, confirm, document);
        Self::waiting_for(Running::Activity(Box::new(called_party)))
    }

    /// A script whose first document is there already.
    pub(crate) fn with(
        ctx: &mut CallContext,
        readiness: Readiness,
        document: Arc<Document>,
    ) -> (Self, Step) {
        let mut interpreter = Self::waiting_for(Running::Nothing);
        let step = interpreter.load(ctx, readiness, document);
        (interpreter, step)
    }

    // --- inputs ---

    /// Takes in a fact about a fetch, a play or a key; what concerns the call is its state's business.
    pub(crate) fn handle(
        &mut self,
        ctx: &mut CallContext,
        readiness: Readiness,
        fact: Input,
    ) -> Step {
        match fact {
            Input::Digit { leg: Leg::A, digit } => self.digit(ctx, readiness, digit),
            Input::Fetched { fetch, result } => self.fetched(ctx, readiness, fetch, result),
            Input::Played { leg: Leg::A, play } => {
                self.hand_on(ctx, readiness, |activity, env| activity.played(env, play))
            }
            Input::PlayFailed { leg: Leg::A, play, item, reason } => {
                let reason = foreign(&reason);
                self.hand_on(ctx, readiness, |activity, env| {
                    activity.play_failed(env, play, item, &reason);
                    Progress::Pending
                })
            }
            Input::DigitsSent { leg: Leg::A, play } => {
                self.tones.take_if(|tones| *tones == play);
                self.hand_on(ctx, readiness, |activity, env| activity.digits_sent(env, play))
            }
            Input::Voice { leg: Leg::A, event: what } => {
                self.hand_on(ctx, readiness, |activity, env| activity.voice(env, what))
            }
            Input::Speech { recognition, event: what } => {
                self.hand_on(ctx, readiness, |activity, env| {
                    activity.speech(env, recognition, what)
                })
            }
            Input::BLeg { call, event: news } => {
                self.hand_on(ctx, readiness, |activity, env| activity.leg_event(env, call, news))
            }
            Input::Recording { recording: record, event: what } => {
                self.recorded(ctx, readiness, record, &what)
            }
            Input::ALeg { command: BLegCommand::HangUp { cause } } => Step::End(cause),
            Input::ALeg { command: leg } => {
                self.hand_on(ctx, readiness, |activity, env| activity.leg_command(env, &leg))
            }
            Input::Room { event: news } => {
                self.hand_on(ctx, readiness, |activity, env| activity.room_event(env, &news))
            }
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
            | Input::HangUp { .. }
            | Input::Timer => Step::Busy,
        }
    }

    /// A timer of an instruction fired.
    pub(crate) fn handle_timer(
        &mut self,
        ctx: &mut CallContext,
        readiness: Readiness,
        timer: Timer,
    ) -> Step {
        match (timer, &self.running) {
            (Timer::Fetch, Running::Fetching(fetching)) => {
                let fetch = fetching.fetch;
                ctx.wish(Output::CancelFetch { fetch });
                self.fetched(ctx, readiness, fetch, Err(FetchFailure::Timeout))
            }
            (timer, _) => self.hand_on(ctx, readiness, |activity, env| activity.timer(env, timer)),
        }
    }

    /// The gate has changed: what stood before it may go on.
    pub(crate) fn resume(&mut self, ctx: &mut CallContext, readiness: Readiness) -> Step {
        self.resume_recording(ctx, readiness);
        match &self.running {
            Running::AtGate => self.walk(ctx, readiness),
            Running::Nothing | Running::Fetching(_) => Step::Busy,
            Running::Activity(_) => {
                self.hand_on(ctx, readiness, |activity, env| activity.readiness_changed(env))
            }
        }
    }

    /// The call's stream has ended: where it kept the call alive, the next element follows.
    pub(crate) fn stream_ended(
        &mut self,
        ctx: &mut CallContext,
        readiness: Readiness,
        ended: stream::Ended,
    ) -> Step {
        self.hand_on(ctx, readiness, |activity, env| activity.stream_ended(env, ended))
    }

    /// The call ends: whatever runs is cut (§4 rule 9).
    pub(crate) fn cut(&mut self, ctx: &mut CallContext, readiness: Readiness) {
        match self.take_running() {
            Running::Nothing | Running::AtGate => {}
            Running::Fetching(fetching) => fetching.abandon(ctx),
            Running::Activity(mut activity) => {
                activity.stop(&mut self.env(ctx, readiness), Stop::CallEnds);
            }
        }
        if let Some(recording) = self.recording.take() {
            recording.stop(ctx, RecordingEndReason::HungUp);
        }
        self.end_place(ctx, InstructionOutcome::Cut, "");
    }

    fn digit(&mut self, ctx: &mut CallContext, readiness: Readiness, digit: Digit) -> Step {
        // Read from the wire, but they mean nothing to a document (§4.1).
        if digit.is_letter() {
            return Step::Busy;
        }
        let key = Key { digit, hidden: self.hides_digits() };
        match &self.running {
            Running::Activity(_) => {
                self.hand_on(ctx, readiness, |activity, env| activity.digit(env, key))
            }
            Running::Nothing | Running::AtGate | Running::Fetching(_) => {
                self.keys.push(key);
                Step::Busy
            }
        }
    }

    fn fetched(
        &mut self,
        ctx: &mut CallContext,
        readiness: Readiness,
        fetch: FetchId,
        result: Result<FetchResponse, FetchFailure>,
    ) -> Step {
        let fetching = match self.take_running() {
            Running::Fetching(fetching) if fetching.fetch == fetch => fetching,
            // Also of a fetch that was cancelled or timed out here.
            other => {
                self.running = other;
                return self
                    .hand_on(ctx, readiness, |activity, env| activity.fetched(env, fetch, result));
            }
        };
        ctx.timers.clear(Timer::Fetch);
        let failure = match fetching.document(ctx, result) {
            Ok(document) => {
                self.end_place(ctx, InstructionOutcome::Done, "");
                return self.load(ctx, readiness, document);
            }
            Err(failure) => failure,
        };
        self.end_place(ctx, InstructionOutcome::Failed, &failure.why);
        if let Some(fallback) = fetching.fallback(ctx, &failure.why) {
            self.running = Running::Fetching(fallback);
            return Step::Busy;
        }
        let (kind, why) = (fetching.kind.as_str(), &failure.why);
        ctx.remark(format!("the {kind} URL failed: {why}; the call ends"));
        Step::End(failure.cause)
    }

    fn recorded(
        &mut self,
        ctx: &mut CallContext,
        readiness: Readiness,
        record: RecordingId,
        event: &RecordingEvent,
    ) -> Step {
        let in_foreground = self.awaits(record);
        let step =
            self.hand_on(ctx, readiness, |activity, env| activity.recording(env, record, event));
        if !in_foreground && let RecordingEvent::Ended { error: why, .. } = event {
            let which = match self.recording.take_if(|recording| recording.is(record)) {
                Some(_) => "the recording in the background",
                // What a participant of a multi-party call says.
                None => "a recording",
            };
            if let Some(why) = why {
                ctx.remark(format!("{which} failed: {}; the call goes on", foreign(why)));
            }
        }
        step
    }

    /// Hands an input on to the activity, if one runs.
    fn hand_on(
        &mut self,
        ctx: &mut CallContext,
        readiness: Readiness,
        input: impl FnOnce(&mut dyn Activity, &mut Env<'_>) -> Progress,
    ) -> Step {
        let Running::Activity(activity) = &mut self.running else { return Step::Busy };
        let mut env = Env { ctx, readiness, keys: &mut self.keys, place: self.place };
        let progress = input(activity.as_mut(), &mut env);
        self.loops.note(activity.wants_media());
        self.resume_recording(ctx, readiness);
        match progress {
            Progress::Pending => Step::Busy,
            Progress::Finished(finished) => match self.finish(ctx, finished) {
                Some(step) => step,
                None => self.walk(ctx, readiness),
            },
            Progress::Run(document) => self.load(ctx, readiness, document),
            Progress::HangUp(cause) => Step::End(cause),
        }
    }

    // --- the document ---

    /// A document begins.
    fn load(
        &mut self,
        ctx: &mut CallContext,
        readiness: Readiness,
        document: Arc<Document>,
    ) -> Step {
        self.loops.begin_document();
        ctx.document_in = true;
        ctx.findings(&document.warnings);
        self.cursor = Some(Cursor::new(document));
        self.keys.clear(false);
        self.left_by = None;
        self.walk(ctx, readiness)
    }

    /// Carries elements out until one takes time.
    fn walk(&mut self, ctx: &mut CallContext, readiness: Readiness) -> Step {
        loop {
            self.running = Running::Nothing;
            if readiness == Readiness::Answering {
                self.running = Running::AtGate;
                return Step::Busy;
            }
            let Some(cursor) = &mut self.cursor else { return Step::Busy };
            let within_pre_answer = cursor.is_inside();
            let sounds = cursor.sounds_ahead();
            if !sounds.is_empty() {
                ctx.wish(Output::Prepare { sounds });
            }
            let document = cursor.document();
            let Some(element) = cursor.upcoming(&document) else { return self.at_end() };
            let instruction = element::instruction(&element.kind);
            if !within_pre_answer && readiness != Readiness::Open && instruction.needs_media() {
                self.running = Running::AtGate;
                return Step::Busy;
            }
            cursor.advance();
            let is_last = cursor.upcoming(&document).is_none();
            self.left_by = None;
            let place = Place { element: element.kind.name(), at: element.at };
            if let Some(why) = instruction.skip_reason(readiness, within_pre_answer) {
                ctx.skip(place, why);
                continue;
            }
            self.loops.note(instruction.takes_time());
            self.place = Some(place);
            ctx.instruction(place, InstructionOutcome::Started, "");
            let mut env = self.env(ctx, readiness);
            let step = match instruction.start(&mut env, At { place, is_last }) {
                Flow::Finished(finished) => self.finish(ctx, finished),
                Flow::Inside => {
                    if let Some(cursor) = &mut self.cursor {
                        cursor.enter();
                    }
                    self.finish(ctx, Completion::done(""))
                }
                Flow::Run(activity) => {
                    self.running = Running::Activity(activity);
                    Some(Step::Busy)
                }
                Flow::Tones(play) => {
                    self.tones = Some(play);
                    self.finish(ctx, Completion::done(""))
                }
                Flow::Background(record) => self.record_in_background(ctx, readiness, &record),
                Flow::Transfer { kind, target } => {
                    Some(self.transfer(ctx, kind, target, Params::new(), false))
                }
                Flow::End { cause, outcome, note } => {
                    self.end_place(ctx, outcome, note);
                    Some(Step::End(cause))
                }
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    /// The instruction is over. `None` where the next element follows.
    fn finish(&mut self, ctx: &mut CallContext, finished: Completion) -> Option<Step> {
        self.running = Running::Nothing;
        self.end_place(ctx, finished.outcome, &finished.note);
        self.left_by = finished.end_cause;
        let Action { target, redirect, params: extra, repeat_after_hangup } = finished.action?;
        if redirect {
            let kind = FetchKind::Action;
            return Some(self.transfer(ctx, kind, target, extra, repeat_after_hangup));
        }
        let mut params = params::common(ctx, Event::Redirect);
        params.extend(extra);
        ctx.notify_action(target, params);
        None
    }

    /// The end of the document (§4 rule 7). Tones already ordered are let out: a document that ends in `DTMF`
    /// would send none of them otherwise.
    fn at_end(&mut self) -> Step {
        match self.tones {
            Some(play) => {
                let tones = ToneWait { play, in_background: true };
                self.running = Running::Activity(Box::new(tones));
                Step::Busy
            }
            None => Step::End(self.left_by.take().unwrap_or(HangupCause::EndOfInstructions)),
        }
    }

    /// Another document takes over by REST: what is being carried out ends at once (§4 rule 4).
    pub(crate) fn transferred(
        &mut self,
        ctx: &mut CallContext,
        readiness: Readiness,
        target: Target,
    ) -> Step {
        self.dropped(ctx, readiness);
        self.transfer(ctx, FetchKind::Transfer, target, Params::new(), false)
    }

    /// The same, with a document that came with the request.
    pub(crate) fn given(
        &mut self,
        ctx: &mut CallContext,
        readiness: Readiness,
        document: Arc<Document>,
    ) -> Step {
        self.dropped(ctx, readiness);
        self.load(ctx, readiness, document)
    }

    /// What is being carried out ends. What runs in the background goes on.
    fn dropped(&mut self, ctx: &mut CallContext, readiness: Readiness) {
        match self.take_running() {
            Running::Nothing | Running::AtGate => {}
            Running::Fetching(fetching) => ctx.cancel_fetch(fetching.fetch),
            Running::Activity(mut activity) => {
                activity.stop(&mut self.env(ctx, readiness), Stop::Replaced);
            }
        }
        self.end_place(ctx, InstructionOutcome::Cut, "transferred");
    }

    /// Drops this document and asks for the next (§4 rule 4).
    fn transfer(
        &mut self,
        ctx: &mut CallContext,
        kind: FetchKind,
        target: Target,
        extra: Params,
        repeat_after_hangup: bool,
    ) -> Step {
        if let Err(what) = self.loops.end_document() {
            ctx.remark(format!("{what}: the documents send the call in a circle, it ends"));
            self.end_place(ctx, InstructionOutcome::Failed, "instruction loop");
            return Step::End(HangupCause::InstructionLoop);
        }
        let repeat_after_hangup = repeat_after_hangup.then(|| (target.clone(), extra.clone()));
        let mut params = params::common(ctx, Event::Redirect);
        params.extend(extra);
        let deadline_ms = ctx.setup.limits.fetch_ms;
        let fetch = ctx.fetch(kind, target, params, deadline_ms);
        self.running = Running::Fetching(DocumentFetch { fetch, kind, repeat_after_hangup });
        Step::Busy
    }

    fn end_place(&mut self, ctx: &mut CallContext, outcome: InstructionOutcome, note: &str) {
        if let Some(place) = self.place.take() {
            ctx.instruction(place, outcome, note);
        }
    }

    fn take_running(&mut self) -> Running {
        std::mem::replace(&mut self.running, Running::Nothing)
    }

    fn env<'a>(&'a mut self, ctx: &'a mut CallContext, readiness: Readiness) -> Env<'a> {
        Env { ctx, readiness, keys: &mut self.keys, place: self.place }
    }

    fn activity(&self) -> Option<&dyn Activity> {
        match &self.running {
            Running::Activity(activity) => Some(activity.as_ref()),
            Running::Nothing | Running::AtGate | Running::Fetching(_) => None,
        }
    }

    // --- recordings ---

    /// `Record` in the background; `None`: the next element follows. Its action is asked once its name is known.
    fn record_in_background(
        &mut self,
        ctx: &mut CallContext,
        readiness: Readiness,
        record: &Record,
    ) -> Option<Step> {
        if self.recording.is_some() {
            if let Some(place) = self.place.take() {
                ctx.skip(place, "the call is being recorded in the background already");
            }
            return None;
        }
        let recording = BackgroundRecording::begin(ctx, readiness, record);
        let recording = self.recording.insert(recording);
        let Some(target) = record.action.clone() else {
            return self.finish(ctx, Completion::done("in the background"));
        };
        self.running = Running::Activity(Box::new(recording.naming(target, record.redirect)));
        Some(Step::Busy)
    }

    fn resume_recording(&mut self, ctx: &mut CallContext, readiness: Readiness) {
        let is_joined = self.activity().is_some_and(Activity::is_joined);
        if let Some(recording) = &mut self.recording {
            recording.go_on(ctx, readiness, is_joined);
        }
    }

    /// REST has the call recorded; whether it may, whoever was asked has seen to.
    pub(crate) fn record(
        &mut self,
        ctx: &mut CallContext,
        readiness: Readiness,
        order: RecordingOrder,
        callback: Option<Target>,
    ) {
        if self.is_recorded() {
            ctx.remark(
                "Record over REST: the call is being recorded already; it is not recorded twice"
                    .to_owned(),
            );
            return;
        }
        let recording = BackgroundRecording::begin_over_rest(ctx, readiness, order, callback);
        self.recording = Some(recording);
    }

    /// REST ends the recording in the background, or else the `Record` that runs, whose action follows.
    pub(crate) fn stop_recording(&mut self, ctx: &mut CallContext) {
        match (self.recording.take(), &mut self.running) {
            (Some(recording), _) => recording.stop(ctx, RecordingEndReason::Stopped),
            (None, Running::Activity(activity)) => activity.stop_recording(ctx),
            (None, Running::Nothing | Running::AtGate | Running::Fetching(_)) => {}
        }
    }

    /// Whether the call is recorded, or will be: in the background, or by the `Record` that runs.
    pub(crate) fn is_recorded(&self) -> bool {
        self.recording.is_some() || self.activity().is_some_and(Activity::is_recording)
    }

    /// Whether the end of that recording is waited for, to have its action asked.
    pub(crate) fn awaits(&self, record: RecordingId) -> bool {
        self.activity().is_some_and(|activity| activity.awaits_recording(record))
    }

    // --- the B-leg ---

    /// The leg that this call dialled, once it has answered.
    pub(crate) fn b_leg(&self) -> Option<CallUuid> {
        self.activity()?.b_leg()
    }

    /// Asks that leg for something, if there is one.
    pub(crate) fn ask_leg(&self, ctx: &mut CallContext, command: Command) {
        if let Some(call) = self.b_leg() {
            ctx.wish(Output::BLeg {
                call,
                command: BLegCommand::Forward { command: Box::new(command) },
            });
        }
    }

    /// That leg gets a document of its own and is no longer this call's. `false`: there is none.
    pub(crate) fn transfer_leg(&mut self, ctx: &mut CallContext, target: Target) -> bool {
        if self.b_leg().is_none() {
            return false;
        }
        self.ask_leg(ctx, Command::Transfer { aleg: Some(target), bleg: None });
        if let Running::Activity(activity) = &mut self.running {
            activity.release_b_leg(ctx);
        }
        true
    }

    // --- what the call, the event log and people want to know ---

    /// Whether it stands before an element that needs the call answered and its media up, or dials already.
    pub(crate) fn wants_media(&self) -> bool {
        match &self.running {
            Running::AtGate => true,
            Running::Activity(activity) => activity.wants_media(),
            Running::Nothing | Running::Fetching(_) => false,
        }
    }

    /// The instruction being carried out.
    pub(crate) fn place(&self) -> Option<Place> {
        self.place
    }

    /// Whether a key pressed now must not be written down (`log="false"`): it would be taken by such a
    /// collection, or follows what one has taken.
    pub(crate) fn hides_digits(&self) -> bool {
        let after_hidden = self.keys.is_after_hidden();
        match &self.running {
            Running::Fetching(_) => after_hidden,
            Running::Nothing | Running::AtGate | Running::Activity(_) => {
                let taken = self.activity().and_then(Activity::hides_digits);
                taken.unwrap_or_else(|| {
                    after_hidden || self.next_rules().is_some_and(|rules| rules.hidden)
                })
            }
        }
    }

    /// Whether what that recognition hears must not be written down; `None`: nobody waits for it.
    pub(crate) fn hides_speech(&self, recognition: RecognitionId) -> Option<bool> {
        self.activity()?.hides_speech(recognition)
    }

    /// A key that leads to the same decisions and says nothing about the one pressed.
    pub(crate) fn stand_in(&self, digit: Digit) -> Digit {
        let next = || self.next_rules().unwrap_or_else(Rules::taking_all);
        match &self.running {
            Running::Fetching(_) => Rules::taking_all().stand_in(digit),
            Running::Nothing | Running::AtGate => next().stand_in(digit),
            Running::Activity(activity) => activity.stand_in(digit, next()),
        }
    }

    /// The rules of the collection that will take the keys pressed now.
    fn next_rules(&self) -> Option<Rules> {
        self.cursor.as_ref()?.next_rules()
    }

    /// Where in its document the script stands, and what it waits for.
    pub(crate) fn draw(&self, snapshot: &mut SnapshotBuilder) {
        if let Some(cursor) = &self.cursor {
            cursor.draw(self.loops.documents(), snapshot);
        }
        if let Some(place) = self.place {
            snapshot.say(
                "instruction",
                [text(format!("<{}>", place.element)), word("line"), text(place.at.line)],
            );
        }
        if !self.keys.is_empty() {
            snapshot.say("typed_ahead", [text(self.keys.shown())]);
        }
        if let Some(play) = self.tones {
            snapshot.say("beside", [word("tones"), text(play.0)]);
        }
        if let Some(recording) = &self.recording {
            recording.draw(snapshot);
        }
        match &self.running {
            Running::Nothing => {}
            Running::AtGate => {
                snapshot.say("waits_for", [word("answered_and_connected"), text("")])
            }
            Running::Fetching(fetching) => fetching.draw(snapshot),
            Running::Activity(activity) => activity.draw(snapshot),
        }
    }
}
