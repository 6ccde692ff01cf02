//! `Record`: the caller's voice into a file (`plivo-xml.md` §5.8).
//!
//! In the foreground: beep, recording, action. How long it is and how long nobody spoke the recorder knows; here are the
//! keys. In the background (`recordSession`, `startOnDialAnswer`) it belongs to the call and not to its document:
//! `document::tape` has it.

use super::get_digits::BEEP;
use super::{At, Flow, Instruction};
use crate::activity::{Action, Activity, Completion, Env, Progress, Stop};
use crate::context::CallContext;
use crate::contract::display::foreign;
use crate::contract::recording;
use crate::contract::time::millis;
use crate::contract::{
    CallbackKind, CallbackRequest, MediaCommand, Param, Params, PlayId, RecordingEndReason,
    RecordingEvent, RecordingId, RecordingOrder, SoundItem, TranscriptOrder,
};
use crate::digits::{Key, Rules};
use crate::params::{self, Event};
use crate::snapshot::{SnapshotBuilder, text, word};
use crate::timers::Timer;
use model::Digit;
use xml::ast::{Record, Target, Transcription};

/// Without `maxLength`: in the foreground and after a `Dial` connected, and of a whole call.
const MAX_MS: u64 = 60_000;
pub(super) const SESSION_MAX_MS: u64 = 14_400_000;
/// A recorder that has said nothing so long after the recording must have ended has forgotten us.
const GRACE_MS: u64 = 5_000;

/// A `Record` in the foreground.
struct Recording {
    element: Box<Record>,
    transcript: Option<TranscriptOrder>,
    phase: Phase,
    /// Its id and URL.
    known: Option<(uuid::Uuid, String)>,
    /// Ended it.
    finished_by: Option<Digit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Beep(PlayId),
    Recording(RecordingId),
    /// The file is being completed.
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

/// What is to be written down of a recording, where somebody can, and somebody is told; else a remark says why not.
pub(crate) fn transcript(
    ctx: &mut CallContext,
    wanted: Option<&Transcription>,
) -> Option<TranscriptOrder> {
    let wanted = wanted?;
    let Some(to) = wanted.target.clone() else {
        ctx.remark(
            "transcriptionType without a transcriptionUrl: nobody would be told; nothing is transcribed".to_owned(),
        );
        return None;
    };
    transcript_if_able(ctx, Some(TranscriptOrder { to, full: wanted.report_full }))
}

/// The same, of what was ordered in another way.
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

const NO_TRANSCRIPTION: &str = "transcription: no recogniser is configured ([speech.transcribe] or [speech.websocket]); the \
     recording is made without";

fn is_background(record: &Record) -> bool {
    record.record_session || record.start_on_dial_answer
}

/// Has the foreground recorded, from now on.
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
    ctx.set(Timer::Record, max_ms.saturating_add(GRACE_MS));
    id
}

/// What is ordered for a recording in the background.
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

/// The callback that says that the file is there; what it says of the file is added when it is.
pub(crate) fn callback(ctx: &CallContext, target: &Target) -> CallbackRequest {
    let params = params::common(ctx, Event::RecordStop);
    CallbackRequest {
        kind: CallbackKind::Recording,
        url: target.url.clone(),
        method: target.method,
        params,
    }
}

/// The action of a call that ends while it is recorded: asked all the same, its answer is not read (§4 rule 9).
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

    /// Whether this is one of its `finishOnKey`.
    fn ends_by(&self, digit: Digit) -> bool {
        self.element.finish_on_key.contains(&digit)
    }

    fn end(&mut self, ctx: &mut CallContext, record: RecordingId, end: RecordingEndReason) {
        ctx.media(MediaCommand::RecordStop {
            recording: record,
            reason: end,
            key: self.finished_by,
        });
        ctx.set(Timer::Record, GRACE_MS);
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

    /// The recording is over. `failure`: why nothing, or not all of it, could be recorded.
    fn finished(&self, env: &mut Env<'_>, params: Params, failure: Option<String>) -> Progress {
        let finished = match failure {
            Some(why) => {
                let why = foreign(&why);
                if let Some(place) = env.place {
                    env.ctx.remark(format!("{place} could not record: {why}; the call goes on"));
                }
                Completion::failed(why)
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
    /// A sound is over; the beep is followed by the recording.
    fn played(&mut self, env: &mut Env<'_>, play: PlayId) -> Progress {
        if self.phase == Phase::Beep(play) {
            self.phase = Phase::Recording(order(&self.element, self.transcript.take(), env.ctx));
        }
        Progress::Pending
    }

    fn digit(&mut self, env: &mut Env<'_>, key: Key) -> Progress {
        match self.phase {
            Phase::Recording(record) if self.ends_by(key.digit) => {
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
            RecordingEvent::Ended { reason: end, duration_ms, start_ms, end_ms, error: why } => {
                env.ctx.timers.clear(Timer::Record);
                let failure = why.clone().or_else(|| {
                    (*end == RecordingEndReason::Failed)
                        .then(|| "it could not be written".to_owned())
                });
                let params = self.params(*end, *duration_ms, *start_ms, *end_ms);
                self.finished(env, params, failure)
            }
        }
    }

    fn timer(&mut self, env: &mut Env<'_>, timer: Timer) -> Progress {
        // The others are timers of other instructions.
        if timer != Timer::Record {
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

    fn stop(&mut self, env: &mut Env<'_>, why: Stop) {
        env.ctx.timers.clear(Timer::Record);
        let end = match why {
            Stop::CallEnds => RecordingEndReason::HungUp,
            Stop::Replaced => RecordingEndReason::Stopped,
        };
        match self.phase {
            Phase::Beep(play) => env.ctx.media(MediaCommand::Stop { play }),
            Phase::Recording(record) => env.ctx.media(MediaCommand::RecordStop {
                recording: record,
                reason: end,
                key: None,
            }),
            Phase::Ending(_) => {}
        }
    }

    /// The key that ends the recording is told to the application, and stands for itself.
    fn stand_in(&self, digit: Digit, next: Rules) -> Digit {
        if self.ends_by(digit) {
            return digit;
        }
        let is_alike =
            |other: &Digit| !self.ends_by(*other) && next.stand_in(*other) == next.stand_in(digit);
        (0..12).filter_map(Digit::from_event).find(is_alike).unwrap_or(digit)
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

    fn draw(&self, snapshot: &mut SnapshotBuilder) {
        match self.phase {
            Phase::Beep(play) => snapshot.say("waits_for", [word("beep"), text(play.0)]),
            Phase::Recording(record) => {
                snapshot.say("recording", [text(record.0), word("recording_on")]);
                snapshot.say("waits_for", [word("recording_to_end")]);
            }
            Phase::Ending(record) => {
                snapshot.say("recording", [text(record.0), word("recording_completed")]);
                snapshot.say("waits_for", [word("recording_to_end")]);
            }
        }
    }
}
