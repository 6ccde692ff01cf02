//! `Record`: records the caller (docs/reference/xml.md#record).
//!
//! In the foreground it plays a beep, records, and requests its action. The recorder measures the
//! duration and the silence. Digits are handled here. In the background (`recordSession`,
//! `startOnDialAnswer`) a recording belongs to the call and outlives the document. See
//! [`crate::interpreter`].

use super::get_digits::BEEP;
use super::{At, Flow, Instruction};
use crate::activity::{Action, Activity, Completion, Env, Progress, StopReason};
use crate::context::CallContext;
use crate::contract::display::foreign;
use crate::contract::recording;
use crate::contract::time::millis;
use crate::contract::{
    CallbackKind, CallbackRequest, MediaCommand, Output, Param, Params, PlayId, RecordingEndReason,
    RecordingEvent, RecordingId, RecordingOrder, SoundItem, TranscriptOrder,
};
use crate::digits::{Key, Rules};
use crate::params::{self, Event};
use crate::snapshot::{SnapshotBuilder, text, word};
use crate::timers::DocumentTimer;
use model::Digit;
use xml::ast::{Record, Target, Transcription};

/// Default of `maxLength` in milliseconds: for a recording in the foreground or after a `Dial`, and
/// for one of a whole call.
const MAX_MS: u64 = 60_000;
pub(super) const SESSION_MAX_MS: u64 = 14_400_000;
/// Timeout of a recorder that has not reported its due end, in milliseconds.
const GRACE_MS: u64 = 5_000;

/// A `Record` that runs in the foreground.
struct Recording {
    element: Box<Record>,
    transcript: Option<TranscriptOrder>,
    phase: Phase,
    /// The id and the URL of the recording. `None` before they are known.
    known: Option<(uuid::Uuid, String)>,
    /// The key that ended the recording.
    finished_by: Option<Digit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Beep(PlayId),
    Recording(RecordingId),
    /// The recorder completes the file.
    Ending(RecordingId),
}

impl Instruction for Record {
    fn start(&self, env: &mut Env<'_>, _: At) -> Flow {
        if is_background(self) {
            return Flow::Background(Box::new(self.clone()));
        }
        let transcript = transcript(env.ctx, self.transcription.as_ref());
        let phase = if self.play_beep {
            Phase::Beep(env.ctx.play(vec![SoundItem::once(BEEP)]))
        } else {
            Phase::Recording(order(self, transcript.clone(), env.ctx))
        };
        let element = Box::new(self.clone());
        Flow::run(Recording { element, transcript, phase, known: None, finished_by: None })
    }

    fn needs_media(&self) -> bool {
        !is_background(self)
    }

    fn takes_time(&self) -> bool {
        !is_background(self)
    }
}

/// Returns the order for a transcript. If transcripts are not configured or no URL is set for the
/// result, logs a remark and returns `None`.
pub(crate) fn transcript(
    ctx: &mut CallContext,
    transcription: Option<&Transcription>,
) -> Option<TranscriptOrder> {
    let transcription = transcription?;
    let Some(to) = transcription.target.clone() else {
        ctx.remark(
            "transcriptionType without a transcriptionUrl has no effect: set transcriptionUrl to get the text".to_owned(),
        );
        return None;
    };
    transcript_if_able(ctx, Some(TranscriptOrder { to, full: transcription.report_full }))
}

/// Returns the order if transcripts are configured. Otherwise logs a remark and returns `None`.
pub(crate) fn transcript_if_able(
    ctx: &mut CallContext,
    order: Option<TranscriptOrder>,
) -> Option<TranscriptOrder> {
    let order = order?;
    if !ctx.setup.limits.can_transcribe {
        ctx.remark(NO_TRANSCRIPTION.to_owned());
        return None;
    }
    Some(order)
}

const NO_TRANSCRIPTION: &str = "transcription: no recogniser is configured ([speech.transcribe], [speech.websocket] or the model \
     whisper); the recording is made without";

fn is_background(record: &Record) -> bool {
    record.record_session || record.start_on_dial_answer
}

/// Starts a recording in the foreground.
fn order(
    record: &Record,
    transcript: Option<TranscriptOrder>,
    ctx: &mut CallContext,
) -> RecordingId {
    let max_ms = max_ms(record);
    let order = RecordingOrder {
        silence_ms: Some(millis(record.timeout)),
        action: record.action.as_ref().map(|target| after_hangup(ctx, target)),
        transcript,
        ..background(record, ctx)
    };
    let id = ctx.record(order);
    ctx.set_timer(DocumentTimer::Record, max_ms.saturating_add(GRACE_MS));
    id
}

/// Returns the order for a recording in the background.
pub(crate) fn background(record: &Record, ctx: &CallContext) -> RecordingOrder {
    RecordingOrder {
        id: None,
        held: false,
        mp3: record.mp3,
        stereo: record.stereo,
        peer_only: false,
        max_ms: max_ms(record),
        silence_ms: None,
        callback: record.callback.as_ref().map(|target| callback(ctx, target)),
        action: None,
        transcript: None,
    }
}

fn max_ms(record: &Record) -> u64 {
    record.max_length.map_or(if record.record_session { SESSION_MAX_MS } else { MAX_MS }, millis)
}

/// Returns the callback that reports the file. The recorder adds the parameters that describe the
/// file.
pub(crate) fn callback(ctx: &CallContext, target: &Target) -> CallbackRequest {
    let params = params::common(ctx, Event::RecordStop);
    CallbackRequest {
        kind: CallbackKind::Recording,
        url: target.url.clone(),
        method: target.method,
        params,
    }
}

/// Returns the action of a call that ends during the recording. It is sent as a callback, and its
/// response is ignored (docs/reference/xml.md#hang-up).
pub(crate) fn after_hangup(ctx: &CallContext, target: &Target) -> CallbackRequest {
    let mut params = params::common(ctx, Event::Redirect);
    params.insert("CallStatus".into(), Param::Plain("completed".into()));
    params.insert("Digits".into(), Param::Plain("".into()));
    CallbackRequest {
        kind: CallbackKind::Action,
        url: target.url.clone(),
        method: target.method,
        params,
    }
}

impl Recording {
    fn record(&self) -> Option<RecordingId> {
        match self.phase {
            Phase::Beep(_) => None,
            Phase::Recording(record) | Phase::Ending(record) => Some(record),
        }
    }

    /// Whether the digit is one of the keys in `finishOnKey`.
    fn is_finish_key(&self, digit: Digit) -> bool {
        self.element.finish_on_key.contains(&digit)
    }

    fn end(&mut self, ctx: &mut CallContext, record: RecordingId, end: RecordingEndReason) {
        ctx.media(MediaCommand::RecordStop {
            recording: record,
            reason: end,
            key: self.finished_by,
        });
        ctx.set_timer(DocumentTimer::Record, GRACE_MS);
        self.phase = Phase::Ending(record);
    }

    fn params(
        &self,
        end: RecordingEndReason,
        duration_ms: u64,
        start_ms: i64,
        end_ms: i64,
    ) -> Params {
        let (id, url) = self.known.clone().unwrap_or_default();
        let mut params = recording::recording_params(id, &url, end, duration_ms, start_ms, end_ms);
        let digits = self.finished_by.map(|digit| digit.as_char().to_string()).unwrap_or_default();
        params.insert("Digits".into(), Param::Plain(digits.into()));
        params
    }

    /// Handles the end of the recording. `failure` is the reason why it is missing or incomplete.
    fn finished(&self, env: &mut Env<'_>, params: Params, failure: Option<String>) -> Progress {
        let finished = match failure {
            Some(reason) => {
                let reason = foreign(&reason);
                if let Some(place) = env.place {
                    env.ctx.remark(format!("{place} could not record: {reason}; the call goes on"));
                }
                Completion::failed(reason)
            }
            None => Completion::done("recorded"),
        };
        let action = self.element.action.clone().map(|target| Action {
            target,
            redirect: self.element.redirect,
            params,
            repeat_after_hangup: true,
        });
        Progress::Finished(finished.with_action(action))
    }
}

impl Activity for Recording {
    /// Starts the recording after the beep.
    fn played(&mut self, env: &mut Env<'_>, play: PlayId) -> Progress {
        if self.phase == Phase::Beep(play) {
            self.phase = Phase::Recording(order(&self.element, self.transcript.take(), env.ctx));
        }
        Progress::Pending
    }

    fn digit(&mut self, env: &mut Env<'_>, key: Key) -> Progress {
        match self.phase {
            Phase::Recording(record) if self.is_finish_key(key.digit) => {
                self.finished_by = Some(key.digit);
                self.end(env.ctx, record, RecordingEndReason::FinishedOnKey);
            }
            Phase::Beep(_) | Phase::Recording(_) | Phase::Ending(_) => env.keys.push(key),
        }
        Progress::Pending
    }

    fn recording(
        &mut self,
        env: &mut Env<'_>,
        recording: RecordingId,
        event: &RecordingEvent,
    ) -> Progress {
        if self.record() != Some(recording) {
            return Progress::Pending;
        }
        match event {
            RecordingEvent::Ready { id, url } => {
                self.known = Some((*id, url.clone()));
                Progress::Pending
            }
            RecordingEvent::Ended { reason, duration_ms, start_ms, end_ms, error } => {
                env.ctx.timers.clear(DocumentTimer::Record);
                let failure = error.clone().or_else(|| {
                    (*reason == RecordingEndReason::Failed)
                        .then(|| "it could not be written".to_owned())
                });
                let params = self.params(*reason, *duration_ms, *start_ms, *end_ms);
                self.finished(env, params, failure)
            }
        }
    }

    fn timer(&mut self, env: &mut Env<'_>, timer: DocumentTimer) -> Progress {
        // All other timers are those of other instructions.
        if timer != DocumentTimer::Record {
            return Progress::Pending;
        }
        if let Phase::Recording(record) = self.phase {
            env.ctx.media(MediaCommand::RecordStop {
                recording: record,
                reason: RecordingEndReason::Failed,
                key: None,
            });
        }
        let params = self.params(RecordingEndReason::Failed, 0, 0, 0);
        self.finished(env, params, Some("the recorder did not end it in time".to_owned()))
    }

    fn stop(&mut self, env: &mut Env<'_>, reason: StopReason) {
        env.ctx.timers.clear(DocumentTimer::Record);
        let end_reason = match reason {
            StopReason::CallEnds => RecordingEndReason::HungUp,
            StopReason::Replaced => RecordingEndReason::Stopped,
        };
        match self.phase {
            Phase::Beep(play) => {
                env.ctx.media(MediaCommand::Stop { play });
                // No recorder reports the end.
                if let (StopReason::CallEnds, Some(target)) = (reason, &self.element.action) {
                    let mut callback = after_hangup(env.ctx, target);
                    callback.params.extend(self.params(end_reason, 0, 0, 0));
                    env.ctx.emit(Output::Callback { callback });
                }
            }
            Phase::Recording(record) => env.ctx.media(MediaCommand::RecordStop {
                recording: record,
                reason: end_reason,
                key: None,
            }),
            Phase::Ending(_) => {}
        }
    }

    /// Returns the digit itself if it ends the recording, because it is reported to the customer's
    /// server and therefore not hidden.
    fn stand_in(&self, digit: Digit, next: Rules) -> Digit {
        if self.is_finish_key(digit) {
            return digit;
        }
        let is_equivalent = |other: &Digit| {
            !self.is_finish_key(*other) && next.stand_in(*other) == next.stand_in(digit)
        };
        (0..12).filter_map(Digit::from_event).find(is_equivalent).unwrap_or(digit)
    }

    fn is_recording(&self) -> bool {
        matches!(self.phase, Phase::Recording(_))
    }

    fn awaits_recording(&self, recording: RecordingId) -> bool {
        self.record() == Some(recording)
    }

    fn stop_recording(&mut self, ctx: &mut CallContext) {
        if let Phase::Recording(record) = self.phase {
            self.end(ctx, record, RecordingEndReason::Stopped);
        }
    }

    fn write_snapshot(&self, snapshot: &mut SnapshotBuilder) {
        match self.phase {
            Phase::Beep(play) => snapshot.add("waits_for", [word("beep"), text(play.0)]),
            Phase::Recording(record) => {
                snapshot.add("recording", [text(record.0), word("recording_on")]);
                snapshot.add("waits_for", [word("recording_to_end")]);
            }
            Phase::Ending(record) => {
                snapshot.add("recording", [text(record.0), word("recording_completed")]);
                snapshot.add("waits_for", [word("recording_to_end")]);
            }
        }
    }
}
