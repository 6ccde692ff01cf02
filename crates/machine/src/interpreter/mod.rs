//! The interpreter of documents (docs/reference/xml.md#how-a-document-runs).
//!
//! An [`Interpreter`] outlives its documents. It fetches the first one, executes it element by
//! element, and replaces it when control is transferred. The behaviour of each element is defined
//! in [`crate::element`].
//!
//! The interpreter is independent of Meta. A [`Readiness`] informs it whether the call is answered.

mod background_recording;
mod cursor;
mod document_fetch;
mod loop_guard;
mod pace;

use std::sync::Arc;

use crate::activity::{Action, Activity, Completion, Env, Progress, Readiness, StopReason};
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
use crate::timers::DocumentTimer;
use background_recording::BackgroundRecording;
use cursor::Cursor;
use document_fetch::DocumentFetch;
use loop_guard::LoopGuard;
use model::{CallUuid, Digit, HangupCause, Leg};
use pace::{Pace, PaceWait};
use xml::Document;
use xml::ast::{Record, Target};

/// The state of the interpreter after an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The interpreter waits for an instruction, a fetch, or the answer of the call.
    Busy,
    /// The call must be hung up with this cause.
    End(HangupCause),
}

/// The current state of the interpreter.
enum Foreground {
    /// No instruction runs: the interpreter is between two elements, or the call has ended.
    Idle,
    /// The next element needs the call to be answered and its media path to be up.
    WaitingForMedia,
    /// A document is being fetched.
    Fetching(DocumentFetch),
    /// An instruction runs.
    Activity(Box<dyn Activity>),
}

/// Executes the documents of a call. See the [module documentation](self).
pub(crate) struct Interpreter {
    /// The position in the document. `None` before the first document.
    cursor: Option<Cursor>,
    foreground: Foreground,
    /// The instruction that is being executed.
    place: Option<Place>,
    /// Tones that are sent in the background.
    tones: Option<PlayId>,
    recording: Option<BackgroundRecording>,
    keys: DigitBuffer,
    loops: LoopGuard,
    pace: Pace,
    /// The cause with which the call ends if no element follows the room that the call has left.
    room_end_cause: Option<HangupCause>,
}

impl Interpreter {
    /// Starts with a fetch of the answer document.
    pub(crate) fn begin(ctx: &mut CallContext) -> Self {
        Self::with_foreground(Foreground::Fetching(DocumentFetch::answer(ctx)))
    }

    fn with_foreground(foreground: Foreground) -> Self {
        Self {
            cursor: None,
            foreground,
            place: None,
            tones: None,
            recording: None,
            keys: DigitBuffer::default(),
            loops: LoopGuard::default(),
            pace: Pace::default(),
            room_end_cause: None,
        }
    }

    /// Starts on a B-leg that was answered. It has no document and waits for its A-leg.
    pub(crate) fn for_b_leg(ctx: &mut CallContext) -> Self {
        Self::with_foreground(Foreground::Activity(Box::new(CalledParty::begin(ctx))))
    }

    /// Starts on a call that was answered and needs a confirmation before its document runs.
    pub(crate) fn with_confirmation(
        ctx: &mut CallContext,
        readiness: Readiness,
        confirm: Confirmation,
        document: Arc<Document>,
    ) -> Self {
        let called_party = CalledParty::confirming(ctx, readiness, confirm, document);
        Self::with_foreground(Foreground::Activity(Box::new(called_party)))
    }

    /// Starts with a document.
    pub(crate) fn with_document(
        ctx: &mut CallContext,
        readiness: Readiness,
        document: Arc<Document>,
    ) -> (Self, Step) {
        let mut interpreter = Self::with_foreground(Foreground::Idle);
        let step = interpreter.load(ctx, readiness, document);
        (interpreter, step)
    }

    // --- inputs ---

    /// Handles an input that concerns the document. Inputs that concern the call itself are handled
    /// by its state.
    pub(crate) fn handle(
        &mut self,
        ctx: &mut CallContext,
        readiness: Readiness,
        input: Input,
    ) -> Step {
        match input {
            Input::Digit { leg: Leg::A, digit } => self.digit(ctx, readiness, digit),
            Input::Fetched { fetch, result } => self.fetched(ctx, readiness, fetch, result),
            Input::Played { leg: Leg::A, play } => {
                self.dispatch(ctx, readiness, |activity, env| activity.played(env, play))
            }
            Input::PlayFailed { leg: Leg::A, play, item, reason } => {
                let reason = foreign(&reason);
                self.dispatch(ctx, readiness, |activity, env| {
                    activity.play_failed(env, play, item, &reason);
                    Progress::Pending
                })
            }
            Input::DigitsSent { leg: Leg::A, play } => {
                self.tones.take_if(|tones| *tones == play);
                self.dispatch(ctx, readiness, |activity, env| activity.digits_sent(env, play))
            }
            Input::Voice { leg: Leg::A, event } => {
                self.dispatch(ctx, readiness, |activity, env| activity.voice(env, event))
            }
            Input::Speech { recognition, event } => {
                self.dispatch(ctx, readiness, |activity, env| {
                    activity.speech(env, recognition, event)
                })
            }
            Input::BLeg { call, event } => {
                self.dispatch(ctx, readiness, |activity, env| activity.leg_event(env, call, event))
            }
            Input::Recording { recording: record, event } => {
                self.handle_recording(ctx, readiness, record, &event)
            }
            Input::ALeg { command: BLegCommand::HangUp { cause } } => Step::End(cause),
            Input::ALeg { command } => {
                self.dispatch(ctx, readiness, |activity, env| activity.leg_command(env, &command))
            }
            Input::Room { event } => {
                self.dispatch(ctx, readiness, |activity, env| activity.room_event(env, &event))
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

    /// Handles a timer of the document.
    pub(crate) fn handle_timer(
        &mut self,
        ctx: &mut CallContext,
        readiness: Readiness,
        timer: DocumentTimer,
    ) -> Step {
        match (timer, &self.foreground) {
            (DocumentTimer::Fetch, Foreground::Fetching(fetching)) => {
                let fetch = fetching.fetch;
                ctx.emit(Output::CancelFetch { fetch });
                self.fetched(ctx, readiness, fetch, Err(FetchFailure::Timeout))
            }
            (timer, _) => self.dispatch(ctx, readiness, |activity, env| activity.timer(env, timer)),
        }
    }

    /// Continues after the readiness has changed.
    pub(crate) fn resume(&mut self, ctx: &mut CallContext, readiness: Readiness) -> Step {
        self.resume_recording(ctx, readiness);
        match &self.foreground {
            Foreground::WaitingForMedia => self.run_elements(ctx, readiness),
            Foreground::Idle | Foreground::Fetching(_) => Step::Busy,
            Foreground::Activity(_) => {
                self.dispatch(ctx, readiness, |activity, env| activity.readiness_changed(env))
            }
        }
    }

    /// Handles the end of the call's stream. If the document waited for it, the document continues.
    pub(crate) fn stream_ended(
        &mut self,
        ctx: &mut CallContext,
        readiness: Readiness,
        ended: stream::EndedStream,
    ) -> Step {
        self.dispatch(ctx, readiness, |activity, env| activity.stream_ended(env, ended))
    }

    /// Stops all activities at the end of the call (docs/reference/xml.md#hang-up).
    pub(crate) fn end_call(&mut self, ctx: &mut CallContext, readiness: Readiness) {
        match self.take_foreground() {
            Foreground::Idle | Foreground::WaitingForMedia => {}
            Foreground::Fetching(fetching) => fetching.abandon(ctx),
            Foreground::Activity(mut activity) => {
                activity.stop(&mut self.env(ctx, readiness), StopReason::CallEnds);
            }
        }
        if let Some(recording) = self.recording.take() {
            recording.stop(ctx, RecordingEndReason::HungUp);
        }
        self.end_place(ctx, InstructionOutcome::Cut, "");
    }

    fn digit(&mut self, ctx: &mut CallContext, readiness: Readiness, digit: Digit) -> Step {
        // The letters A to D can be received but have no meaning in a document
        // (docs/reference/xml.md#digits).
        if digit.is_letter() {
            return Step::Busy;
        }
        let key = Key { digit, hidden: self.hides_digits() };
        match &self.foreground {
            Foreground::Activity(_) => {
                self.dispatch(ctx, readiness, |activity, env| activity.digit(env, key))
            }
            Foreground::Idle | Foreground::WaitingForMedia | Foreground::Fetching(_) => {
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
        let fetching = match self.take_foreground() {
            Foreground::Fetching(fetching) if fetching.fetch == fetch => fetching,
            // Also reached for a fetch that was cancelled or has timed out.
            other => {
                self.foreground = other;
                return self.dispatch(ctx, readiness, |activity, env| {
                    activity.fetched(env, fetch, result)
                });
            }
        };
        ctx.timers.clear(DocumentTimer::Fetch);
        let failure = match fetching.document(ctx, result) {
            Ok(document) => {
                self.end_place(ctx, InstructionOutcome::Done, "");
                return self.load(ctx, readiness, document);
            }
            Err(failure) => failure,
        };
        self.end_place(ctx, InstructionOutcome::Failed, &failure.reason);
        if let Some(fallback) = fetching.fallback(ctx, &failure.reason) {
            self.foreground = Foreground::Fetching(fallback);
            return Step::Busy;
        }
        let (kind, reason) = (fetching.kind.as_str(), &failure.reason);
        ctx.remark(format!("the {kind} URL failed: {reason}; the call ends"));
        Step::End(failure.cause)
    }

    fn handle_recording(
        &mut self,
        ctx: &mut CallContext,
        readiness: Readiness,
        record: RecordingId,
        event: &RecordingEvent,
    ) -> Step {
        let in_foreground = self.awaits_recording(record);
        let step =
            self.dispatch(ctx, readiness, |activity, env| activity.recording(env, record, event));
        if !in_foreground && let RecordingEvent::Ended { error, .. } = event {
            let label = match self.recording.take_if(|recording| recording.has_id(record)) {
                Some(_) => "the recording in the background",
                // The recording of a participant of a multi-party call.
                None => "a recording",
            };
            if let Some(error) = error {
                ctx.remark(format!("{label} failed: {}; the call goes on", foreign(error)));
            }
        }
        step
    }

    /// Passes an input to the activity, if one runs, and acts on the result.
    fn dispatch(
        &mut self,
        ctx: &mut CallContext,
        readiness: Readiness,
        handler: impl FnOnce(&mut dyn Activity, &mut Env<'_>) -> Progress,
    ) -> Step {
        let Foreground::Activity(activity) = &mut self.foreground else { return Step::Busy };
        let mut env = Env { ctx, readiness, keys: &mut self.keys, place: self.place };
        let progress = handler(activity.as_mut(), &mut env);
        self.loops.note(activity.wants_media());
        self.resume_recording(ctx, readiness);
        match progress {
            Progress::Pending => Step::Busy,
            Progress::Finished(finished) => match self.finish(ctx, finished) {
                Some(step) => step,
                None => self.run_elements(ctx, readiness),
            },
            Progress::Run(document) => self.load(ctx, readiness, document),
            Progress::HangUp(cause) => Step::End(cause),
        }
    }

    // --- the document ---

    /// Starts executing a document.
    fn load(
        &mut self,
        ctx: &mut CallContext,
        readiness: Readiness,
        document: Arc<Document>,
    ) -> Step {
        self.loops.begin_document();
        self.pace.note_document(ctx.now, document.source.len());
        ctx.document_received = true;
        let mut warnings = document.warnings.clone();
        document.allow_sip_host(&mut warnings, &ctx.setup.limits.sip_host);
        ctx.findings(&warnings);
        self.cursor = Some(Cursor::new(document));
        self.keys.clear(false);
        self.room_end_cause = None;
        self.run_elements(ctx, readiness)
    }

    /// Executes elements until one does not complete immediately.
    fn run_elements(&mut self, ctx: &mut CallContext, readiness: Readiness) -> Step {
        loop {
            self.foreground = Foreground::Idle;
            if readiness == Readiness::Answering {
                self.foreground = Foreground::WaitingForMedia;
                return Step::Busy;
            }
            let Some(cursor) = &mut self.cursor else { return Step::Busy };
            let within_pre_answer = cursor.is_inside();
            let sounds = cursor.sounds_ahead();
            if !sounds.is_empty() {
                ctx.emit(Output::Prepare { sounds });
            }
            let document = cursor.document();
            let Some(element) = cursor.upcoming(&document) else { return self.end_document() };
            let instruction = element::instruction(&element.kind);
            if !within_pre_answer && readiness != Readiness::Open && instruction.needs_media() {
                self.foreground = Foreground::WaitingForMedia;
                return Step::Busy;
            }
            if let Some(wait_ms) = self.pace.wait_for(ctx.now, instruction.cost()) {
                return self.wait_for_pace(ctx, wait_ms);
            }
            cursor.advance();
            let is_last = cursor.upcoming(&document).is_none();
            self.room_end_cause = None;
            let place = Place { element: element.kind.name(), at: element.at };
            if let Some(reason) = instruction.skip_reason(readiness, within_pre_answer) {
                ctx.skip(place, reason);
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
                    self.foreground = Foreground::Activity(activity);
                    Some(Step::Busy)
                }
                Flow::Tones(play) => {
                    self.tones = Some(play);
                    self.finish(ctx, Completion::done(""))
                }
                Flow::Background(record) => self.record_in_background(ctx, readiness, &record),
                Flow::Transfer { kind, target } => {
                    Some(self.fetch_next(ctx, kind, target, Params::new(), false))
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

    /// Pauses before the next element.
    fn wait_for_pace(&mut self, ctx: &mut CallContext, wait_ms: u64) -> Step {
        if self.pace.begins_to_wait() {
            ctx.remark(
                "too many elements or documents at once; the call continues more slowly".to_owned(),
            );
        }
        ctx.set_timer(DocumentTimer::Pace, wait_ms);
        self.foreground = Foreground::Activity(Box::new(PaceWait));
        Step::Busy
    }

    /// Ends the instruction. Returns `None` if the document continues with the next element.
    fn finish(&mut self, ctx: &mut CallContext, finished: Completion) -> Option<Step> {
        self.foreground = Foreground::Idle;
        self.end_place(ctx, finished.outcome, &finished.note);
        self.room_end_cause = finished.end_cause;
        let Action { target, redirect, params: extra, repeat_after_hangup } = finished.action?;
        if redirect {
            let kind = FetchKind::Action;
            return Some(self.fetch_next(ctx, kind, target, extra, repeat_after_hangup));
        }
        let mut params = params::common(ctx, Event::Redirect);
        params.extend(extra);
        ctx.notify_action(target, params);
        None
    }

    /// Handles the end of the document (docs/reference/xml.md#end-of-the-document).
    ///
    /// Waits for tones that are being sent. Otherwise a document that ends in `DTMF` would send
    /// none.
    fn end_document(&mut self) -> Step {
        match self.tones {
            Some(play) => {
                let tones = ToneWait { play, in_background: true };
                self.foreground = Foreground::Activity(Box::new(tones));
                Step::Busy
            }
            None => Step::End(self.room_end_cause.take().unwrap_or(HangupCause::EndOfInstructions)),
        }
    }

    /// Replaces the document on behalf of an API request. The running instruction stops immediately
    /// (docs/reference/xml.md#control-transfer).
    pub(crate) fn transfer_to(
        &mut self,
        ctx: &mut CallContext,
        readiness: Readiness,
        target: Target,
    ) -> Step {
        self.stop_foreground(ctx, readiness);
        self.fetch_next(ctx, FetchKind::Transfer, target, Params::new(), false)
    }

    /// Replaces the document by one that an API request contains.
    pub(crate) fn replace_document(
        &mut self,
        ctx: &mut CallContext,
        readiness: Readiness,
        document: Arc<Document>,
    ) -> Step {
        self.stop_foreground(ctx, readiness);
        self.load(ctx, readiness, document)
    }

    /// Stops the foreground. The background continues.
    fn stop_foreground(&mut self, ctx: &mut CallContext, readiness: Readiness) {
        match self.take_foreground() {
            Foreground::Idle | Foreground::WaitingForMedia => {}
            Foreground::Fetching(fetching) => ctx.cancel_fetch(fetching.fetch),
            Foreground::Activity(mut activity) => {
                activity.stop(&mut self.env(ctx, readiness), StopReason::Replaced);
            }
        }
        self.end_place(ctx, InstructionOutcome::Cut, "transferred");
    }

    /// Leaves this document and fetches the next one (docs/reference/xml.md#control-transfer).
    fn fetch_next(
        &mut self,
        ctx: &mut CallContext,
        kind: FetchKind,
        target: Target,
        extra: Params,
        repeat_after_hangup: bool,
    ) -> Step {
        if let Err(limit) = self.loops.end_document() {
            ctx.remark(format!("{limit}: the documents send the call in a circle, it ends"));
            self.end_place(ctx, InstructionOutcome::Failed, "instruction loop");
            return Step::End(HangupCause::InstructionLoop);
        }
        let repeat_after_hangup = repeat_after_hangup.then(|| (target.clone(), extra.clone()));
        let mut params = params::common(ctx, Event::Redirect);
        params.extend(extra);
        let deadline_ms = ctx.setup.limits.fetch_ms;
        let fetch = ctx.fetch(kind, target, params, deadline_ms);
        self.foreground = Foreground::Fetching(DocumentFetch { fetch, kind, repeat_after_hangup });
        Step::Busy
    }

    fn end_place(&mut self, ctx: &mut CallContext, outcome: InstructionOutcome, note: &str) {
        if let Some(place) = self.place.take() {
            ctx.instruction(place, outcome, note);
        }
    }

    fn take_foreground(&mut self) -> Foreground {
        std::mem::replace(&mut self.foreground, Foreground::Idle)
    }

    fn env<'a>(&'a mut self, ctx: &'a mut CallContext, readiness: Readiness) -> Env<'a> {
        Env { ctx, readiness, keys: &mut self.keys, place: self.place }
    }

    fn activity(&self) -> Option<&dyn Activity> {
        match &self.foreground {
            Foreground::Activity(activity) => Some(activity.as_ref()),
            Foreground::Idle | Foreground::WaitingForMedia | Foreground::Fetching(_) => None,
        }
    }

    // --- recordings ---

    /// Starts a background `Record`. Returns `None` if the document continues with the next
    /// element.
    ///
    /// The action is requested once the recording has an id.
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
        self.foreground =
            Foreground::Activity(Box::new(recording.await_name(target, record.redirect)));
        Some(Step::Busy)
    }

    fn resume_recording(&mut self, ctx: &mut CallContext, readiness: Readiness) {
        let is_joined = self.activity().is_some_and(Activity::is_joined);
        if let Some(recording) = &mut self.recording {
            recording.resume(ctx, readiness, is_joined);
        }
    }

    /// Records the call on behalf of an API request, unless it is already being recorded.
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
        let recording = BackgroundRecording::begin_for_api(ctx, readiness, order, callback);
        self.recording = Some(recording);
    }

    /// Ends the background recording on behalf of an API request. Without one, ends the current
    /// `Record` element, and its action follows.
    pub(crate) fn stop_recording(&mut self, ctx: &mut CallContext) {
        match (self.recording.take(), &mut self.foreground) {
            (Some(recording), _) => recording.stop(ctx, RecordingEndReason::Stopped),
            (None, Foreground::Activity(activity)) => activity.stop_recording(ctx),
            (None, Foreground::Idle | Foreground::WaitingForMedia | Foreground::Fetching(_)) => {}
        }
    }

    /// Whether the call is or will be recorded, in the background or by the current `Record`
    /// element.
    pub(crate) fn is_recorded(&self) -> bool {
        self.recording.is_some() || self.activity().is_some_and(Activity::is_recording)
    }

    /// Whether the activity waits for the end of this recording and then requests an action.
    pub(crate) fn awaits_recording(&self, record: RecordingId) -> bool {
        self.activity().is_some_and(|activity| activity.awaits_recording(record))
    }

    // --- the B-leg ---

    /// Returns the leg that has answered this call's `Dial`, or `None` if none is connected.
    pub(crate) fn b_leg(&self) -> Option<CallUuid> {
        self.activity()?.b_leg()
    }

    /// Forwards a command to the B-leg, if there is one.
    pub(crate) fn forward_to_b_leg(&self, ctx: &mut CallContext, command: Command) {
        if let Some(call) = self.b_leg() {
            ctx.emit(Output::BLeg {
                call,
                command: BLegCommand::Forward { command: Box::new(command) },
            });
        }
    }

    /// Transfers the B-leg to another document and releases it. Returns `false` without a B-leg.
    pub(crate) fn transfer_b_leg(&mut self, ctx: &mut CallContext, target: Target) -> bool {
        if self.b_leg().is_none() {
            return false;
        }
        self.forward_to_b_leg(ctx, Command::Transfer { aleg: Some(target), bleg: None });
        if let Foreground::Activity(activity) = &mut self.foreground {
            activity.release_b_leg(ctx);
        }
        true
    }

    // --- queries ---

    /// Whether the call must be answered for the document to continue: the next element needs
    /// media, or a `Dial` is ringing.
    pub(crate) fn wants_media(&self) -> bool {
        match &self.foreground {
            Foreground::WaitingForMedia => true,
            Foreground::Activity(activity) => activity.wants_media(),
            Foreground::Idle | Foreground::Fetching(_) => false,
        }
    }

    /// Returns the instruction that is being executed, or `None` if there is none.
    pub(crate) fn place(&self) -> Option<Place> {
        self.place
    }

    /// Whether a digit pressed now must stay out of logs.
    ///
    /// A collection with `log="false"` would take the digit, or has taken digits before it.
    pub(crate) fn hides_digits(&self) -> bool {
        let after_hidden = self.keys.is_after_hidden();
        match &self.foreground {
            Foreground::Fetching(_) => after_hidden,
            Foreground::Idle | Foreground::WaitingForMedia | Foreground::Activity(_) => {
                let taken = self.activity().and_then(Activity::hides_digits);
                taken.unwrap_or_else(|| {
                    after_hidden || self.next_rules().is_some_and(|rules| rules.hidden)
                })
            }
        }
    }

    /// Whether the words of this recognition must stay out of logs. `None` if no activity waits for
    /// them.
    pub(crate) fn hides_speech(&self, recognition: RecognitionId) -> Option<bool> {
        self.activity()?.hides_speech(recognition)
    }

    /// Returns a digit that leads to the same decisions as `digit` and does not reveal it.
    pub(crate) fn stand_in(&self, digit: Digit) -> Digit {
        let next = || self.next_rules().unwrap_or_else(Rules::taking_all);
        match &self.foreground {
            Foreground::Fetching(_) => Rules::taking_all().stand_in(digit),
            Foreground::Idle | Foreground::WaitingForMedia => next().stand_in(digit),
            Foreground::Activity(activity) => activity.stand_in(digit, next()),
        }
    }

    /// Returns the rules of the collection that takes the digits which are pressed now. `None` if
    /// no collection follows.
    fn next_rules(&self) -> Option<Rules> {
        self.cursor.as_ref()?.next_rules()
    }

    /// Adds the position in the document and the current state to the snapshot.
    pub(crate) fn write_snapshot(&self, snapshot: &mut SnapshotBuilder) {
        if let Some(cursor) = &self.cursor {
            cursor.write_snapshot(self.loops.documents(), snapshot);
        }
        if let Some(place) = self.place {
            snapshot.add(
                "instruction",
                [text(format!("<{}>", place.element)), word("line"), text(place.at.line)],
            );
        }
        if !self.keys.is_empty() {
            snapshot.add("typed_ahead", [text(self.keys.redacted())]);
        }
        if let Some(play) = self.tones {
            snapshot.add("beside", [word("tones"), text(play.0)]);
        }
        if let Some(recording) = &self.recording {
            recording.write_snapshot(snapshot);
        }
        match &self.foreground {
            Foreground::Idle => {}
            Foreground::WaitingForMedia => {
                snapshot.add("waits_for", [word("answered_and_connected"), text("")])
            }
            Foreground::Fetching(fetching) => fetching.write_snapshot(snapshot),
            Foreground::Activity(activity) => activity.write_snapshot(snapshot),
        }
    }
}
