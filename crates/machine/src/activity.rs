//! The foreground of a call, as the interpreter sees it.
//!
//! An [`Activity`] is an instruction that waits for something: the end of a sound, digits, other
//! legs, a room. The interpreter hands it the inputs of the call and acts on the [`Progress`] that
//! it returns.

use std::borrow::Cow;
use std::sync::Arc;

use super::context::{CallContext, Place};
use super::digits::{DigitBuffer, Key, Rules};
use super::snapshot::SnapshotBuilder;
use super::stream;
use super::timers::DocumentTimer;
use crate::contract::{
    BLegCommand, BLegEvent, FetchFailure, FetchId, FetchResponse, InstructionOutcome, Params,
    PlayId, RecognitionId, RecordingEvent, RecordingId, RoomEvent, SpeechEvent, VoiceEvent,
};
use model::{CallUuid, Digit, HangupCause};
use xml::Document;
use xml::ast::Target;

/// The progress of the call's set-up, as far as it matters to an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// The call is not answered. Elements that need no media run. The first element that needs
    /// media waits and requests an answer.
    Ringing,
    /// `accept` is in flight. No element begins.
    Answering,
    /// The call is answered, but ICE or DTLS is not complete. Elements run as in `Ringing`.
    Unconnected,
    /// Audio can flow.
    Open,
}

impl Readiness {
    pub(crate) fn is_answered(self) -> bool {
        matches!(self, Self::Unconnected | Self::Open)
    }
}

/// The context in which an activity handles an input.
pub(crate) struct Env<'a> {
    pub(crate) ctx: &'a mut CallContext,
    pub(crate) readiness: Readiness,
    /// Digits that no instruction has taken yet.
    pub(crate) keys: &'a mut DigitBuffer,
    /// The instruction that runs. `None` if the activity belongs to no element.
    pub(crate) place: Option<Place>,
}

/// The state of an activity after an input.
pub(crate) enum Progress {
    /// The activity waits for further inputs.
    Pending,
    /// The activity has ended.
    Finished(Completion),
    /// The call runs this document next.
    Run(Arc<Document>),
    /// The call ends.
    HangUp(HangupCause),
}

/// The result of an instruction that has ended.
pub(crate) struct Completion {
    pub(crate) outcome: InstructionOutcome,
    /// A detail for the event log. May be empty.
    pub(crate) note: Cow<'static, str>,
    pub(crate) action: Option<Action>,
    /// The cause with which the call ends if this was the last instruction of its document. `None`
    /// for [`HangupCause::EndOfInstructions`].
    pub(crate) end_cause: Option<HangupCause>,
}

impl Completion {
    /// Returns the completion of an instruction that succeeded and has no action.
    pub(crate) fn done(note: &'static str) -> Self {
        Self { outcome: InstructionOutcome::Done, note: note.into(), action: None, end_cause: None }
    }

    /// Returns the completion of an instruction that failed and has no action.
    pub(crate) fn failed(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { outcome: InstructionOutcome::Failed, note: reason.into(), ..Self::done("") }
    }

    /// Replaces the action.
    pub(crate) fn with_action(self, action: Option<Action>) -> Self {
        Self { action, ..self }
    }
}

/// A request to the action URL of an element.
pub(crate) struct Action {
    pub(crate) target: Target,
    /// Whether the document that the URL returns runs next.
    pub(crate) redirect: bool,
    /// The parameters in addition to those of every request.
    pub(crate) params: Params,
    /// Whether the request is repeated as a callback if the call ends before the URL has answered.
    pub(crate) repeat_after_hangup: bool,
}

/// The reason why an activity is stopped from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// The call and its media end.
    CallEnds,
    /// Another document takes over.
    Replaced,
}

/// An instruction, or another task in the foreground, that waits for inputs.
///
/// The default methods ignore their input.
pub(crate) trait Activity: Send + Sync {
    /// Handles the end of a fetch, which may have been started by this activity.
    fn fetched(
        &mut self,
        env: &mut Env<'_>,
        fetch: FetchId,
        result: Result<FetchResponse, FetchFailure>,
    ) -> Progress {
        let _ = (env, fetch, result);
        Progress::Pending
    }

    /// Handles the end of a playlist that was played completely.
    fn played(&mut self, env: &mut Env<'_>, play: PlayId) -> Progress {
        let _ = (env, play);
        Progress::Pending
    }

    /// Handles an item of a playlist that could not be played and was skipped. `item` counts from
    /// 0.
    fn play_failed(&mut self, env: &mut Env<'_>, play: PlayId, item: u16, reason: &str) {
        let _ = (env, play, item, reason);
    }

    /// Handles a key that the caller has pressed. If the activity does not take it, it is kept for
    /// the next collection.
    fn digit(&mut self, env: &mut Env<'_>, key: Key) -> Progress {
        env.keys.push(key);
        Progress::Pending
    }

    /// Handles the end of the digits with this play id.
    fn digits_sent(&mut self, env: &mut Env<'_>, play: PlayId) -> Progress {
        let _ = (env, play);
        Progress::Pending
    }

    /// Handles the beginning or end of the caller's voice, or the beep of a voicemail.
    fn voice(&mut self, env: &mut Env<'_>, voice: VoiceEvent) -> Progress {
        let _ = (env, voice);
        Progress::Pending
    }

    /// Handles an event of a recogniser about the caller's speech.
    fn speech(
        &mut self,
        env: &mut Env<'_>,
        recognition: RecognitionId,
        event: SpeechEvent,
    ) -> Progress {
        let _ = (env, recognition, event);
        Progress::Pending
    }

    /// Handles a recording that has received its id or has ended.
    fn recording(
        &mut self,
        env: &mut Env<'_>,
        recording: RecordingId,
        event: &RecordingEvent,
    ) -> Progress {
        let _ = (env, recording, event);
        Progress::Pending
    }

    /// Handles an event of a leg that this call has dialled.
    fn leg_event(&mut self, env: &mut Env<'_>, call: CallUuid, event: BLegEvent) -> Progress {
        let _ = (env, call, event);
        Progress::Pending
    }

    /// Handles a command of the leg that dialled this call.
    fn leg_command(&mut self, env: &mut Env<'_>, command: &BLegCommand) -> Progress {
        let _ = (env, command);
        Progress::Pending
    }

    /// Handles an event of the room that the call is in.
    fn room_event(&mut self, env: &mut Env<'_>, event: &RoomEvent) -> Progress {
        let _ = (env, event);
        Progress::Pending
    }

    /// Handles the end of the call's stream.
    fn stream_ended(&mut self, env: &mut Env<'_>, ended: stream::EndedStream) -> Progress {
        let _ = (env, ended);
        Progress::Pending
    }

    /// Handles a timer.
    fn timer(&mut self, env: &mut Env<'_>, timer: DocumentTimer) -> Progress {
        let _ = (env, timer);
        Progress::Pending
    }

    /// Handles a possible change of the [`Readiness`].
    fn readiness_changed(&mut self, env: &mut Env<'_>) -> Progress {
        let _ = env;
        Progress::Pending
    }

    /// Stops the activity from outside. It is dropped afterwards.
    fn stop(&mut self, env: &mut Env<'_>, reason: StopReason);

    /// Whether the activity needs the call to be answered, although its element needs no media.
    fn wants_media(&self) -> bool {
        false
    }

    /// Whether a digit pressed now must stay out of logs. `None` if the activity does not take digits.
    fn hides_digits(&self) -> Option<bool> {
        None
    }

    /// Returns a digit that leads to the same decisions as `digit` and does not reveal it.
    ///
    /// `next` contains the rules of the collection that takes the remaining digits.
    fn stand_in(&self, digit: Digit, next: Rules) -> Digit {
        next.stand_in(digit)
    }

    /// Whether the words of this recognition must stay out of logs. `None` if the activity does not
    /// wait for them.
    fn hides_speech(&self, recognition: RecognitionId) -> Option<bool> {
        let _ = recognition;
        None
    }

    /// Whether the activity records the caller now.
    fn is_recording(&self) -> bool {
        false
    }

    /// Whether the activity waits for the end of this recording.
    fn awaits_recording(&self, recording: RecordingId) -> bool {
        let _ = recording;
        false
    }

    /// Ends the recording of the activity.
    fn stop_recording(&mut self, ctx: &mut CallContext) {
        let _ = ctx;
    }

    /// Returns the leg that has answered this call's `Dial`. `None` if none is connected.
    fn b_leg(&self) -> Option<CallUuid> {
        None
    }

    /// Releases the B-leg, which continues with another document.
    fn release_b_leg(&mut self, ctx: &mut CallContext) {
        let _ = ctx;
    }

    /// Whether the two legs of a `Dial` are connected to each other.
    fn is_joined(&self) -> bool {
        false
    }

    /// Adds the condition that the activity waits for to the snapshot.
    fn write_snapshot(&self, snapshot: &mut SnapshotBuilder);
}
