//! `Record`: the caller's voice into a file (`plivo-xml.md` §5.8).
//!
//! In the foreground: beep, recording, action. How long it is and how long nobody spoke the recorder knows; here are the
//! keys. In the background (`recordSession`, `startOnDialAnswer`) it belongs to the call and not to its document:
//! `document::tape` has it.

use super::get_digits::BEEP;
use super::{At, Flow, Instruction};
use crate::activity::{Action, Activity, Finished, Progress, Stop, Turn};
use crate::contract::display::foreign;
use crate::contract::recording;
use crate::contract::time::millis;
use crate::contract::{
    MediaOrder, Notice, NoticeKind, Param, Params, PlayId, RecordEnd, RecordFact, RecordId,
    RecordOrder, SoundItem, TranscriptOrder,
};
use crate::desk::Desk;
use crate::keys::{Key, Rules};
use crate::params::{self, Event};
use crate::picture::{Sketch, text, word};
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
    Recording(RecordId),
    /// The file is being completed.
    Ending(RecordId),
}

impl Instruction for Record {
    fn start(&self, turn: &mut Turn<'_>, _: At) -> Flow {
        if is_background(self) {
            return Flow::Background(Box::new(self.clone()));
        }
        let transcript = transcript(turn.desk, self.transcription.as_ref());
        let phase = if self.play_beep {
            Phase::Beep(turn.desk.play(vec![SoundItem::once(BEEP)]))
        } else {
            Phase::Recording(order(self, transcript.clone(), turn.desk))
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
    desk: &mut Desk,
    wanted: Option<&Transcription>,
) -> Option<TranscriptOrder> {
    let wanted = wanted?;
    let Some(to) = wanted.target.clone() else {
        desk.remark(
            "transcriptionType without a transcriptionUrl: nobody would be told; nothing is transcribed".to_owned(),
        );
        return None;
    };
    transcript_if_able(desk, Some(TranscriptOrder { to, full: wanted.report_full }))
}

/// The same, of what was ordered in another way.
pub(crate) fn transcript_if_able(
    desk: &mut Desk,
    order: Option<TranscriptOrder>,
) -> Option<TranscriptOrder> {
    let order = order?;
    if !desk.setup.limits.transcribes {
        desk.remark(NO_TRANSCRIPTION.to_owned());
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
fn order(record: &Record, transcript: Option<TranscriptOrder>, desk: &mut Desk) -> RecordId {
    let max_ms = max_ms(record);
    let order = RecordOrder {
        silence_ms: Some(millis(record.timeout)),
        action: record.action.as_ref().map(|target| after_hangup(desk, target)),
        transcript,
        ..background(record, desk)
    };
    let id = desk.record(order);
    desk.set(Timer::Record, max_ms.saturating_add(GRACE_MS));
    id
}

/// What is ordered for a recording in the background.
pub(crate) fn background(record: &Record, desk: &Desk) -> RecordOrder {
    RecordOrder {
        id: None,
        held: false,
        mp3: record.mp3,
        stereo: record.stereo,
        own: false,
        max_ms: max_ms(record),
        silence_ms: None,
        callback: record.callback.as_ref().map(|target| callback(desk, target)),
        action: None,
        transcript: None,
    }
}

fn max_ms(record: &Record) -> u64 {
    record.max_length.map_or(if record.record_session { SESSION_MAX_MS } else { MAX_MS }, millis)
}

/// The callback that says that the file is there; what it says of the file is added when it is.
pub(crate) fn callback(desk: &Desk, target: &Target) -> Notice {
    let params = params::common(desk, Event::RecordStop);
    Notice { kind: NoticeKind::Recording, url: target.url.clone(), method: target.method, params }
}

/// The action of a call that ends while it is recorded: asked all the same, its answer is not read (§4 rule 9).
pub(crate) fn after_hangup(desk: &Desk, target: &Target) -> Notice {
    let mut params = params::common(desk, Event::Redirect);
    params.insert("CallStatus".into(), Param::Plain("completed".into()));
    params.insert("Digits".into(), Param::Plain("".into()));
    Notice { kind: NoticeKind::Action, url: target.url.clone(), method: target.method, params }
}

impl Recording {
    fn record(&self) -> Option<RecordId> {
        match self.phase {
            Phase::Beep(_) => None,
            Phase::Recording(record) | Phase::Ending(record) => Some(record),
        }
    }

    /// Whether this is one of its `finishOnKey`.
    fn ends_by(&self, digit: Digit) -> bool {
        self.element.finish_on_key.contains(&digit)
    }

    fn end(&mut self, desk: &mut Desk, record: RecordId, end: RecordEnd) {
        desk.media(MediaOrder::RecordStop { record, end, key: self.finished_by });
        desk.set(Timer::Record, GRACE_MS);
        self.phase = Phase::Ending(record);
    }

    fn params(&self, end: RecordEnd, duration_ms: u64, start_ms: i64, end_ms: i64) -> Params {
        let (id, url) = self.known.clone().unwrap_or_default();
        let mut params = recording::recorded(id, &url, end, duration_ms, start_ms, end_ms);
        let digits = self.finished_by.map(|digit| digit.as_char().to_string()).unwrap_or_default();
        params.insert("Digits".into(), Param::Plain(digits.into()));
        params
    }

    /// The recording is over. `failure`: why nothing, or not all of it, could be recorded.
    fn finished(&self, turn: &mut Turn<'_>, params: Params, failure: Option<String>) -> Progress {
        let finished = match failure {
            Some(why) => {
                let why = foreign(&why);
                if let Some(place) = turn.place {
                    turn.desk.remark(format!("{place} could not record: {why}; the call goes on"));
                }
                Finished::failed(why)
            }
            None => Finished::done("recorded"),
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
    fn played(&mut self, turn: &mut Turn<'_>, play: PlayId) -> Progress {
        if self.phase == Phase::Beep(play) {
            self.phase = Phase::Recording(order(&self.element, self.transcript.take(), turn.desk));
        }
        Progress::Pending
    }

    fn digit(&mut self, turn: &mut Turn<'_>, key: Key) -> Progress {
        match self.phase {
            Phase::Recording(record) if self.ends_by(key.digit) => {
                self.finished_by = Some(key.digit);
                self.end(turn.desk, record, RecordEnd::FinishedOnKey);
            }
            Phase::Beep(_) | Phase::Recording(_) | Phase::Ending(_) => turn.keys.push(key),
        }
        Progress::Pending
    }

    fn recording(
        &mut self,
        turn: &mut Turn<'_>,
        recording: RecordId,
        event: &RecordFact,
    ) -> Progress {
        if self.record() != Some(recording) {
            return Progress::Pending;
        }
        match event {
            RecordFact::Ready { id, url } => {
                self.known = Some((*id, url.clone()));
                Progress::Pending
            }
            RecordFact::Ended { end, duration_ms, start_ms, end_ms, why } => {
                turn.desk.timers.clear(Timer::Record);
                let failure = why.clone().or_else(|| {
                    (*end == RecordEnd::Failed).then(|| "it could not be written".to_owned())
                });
                let params = self.params(*end, *duration_ms, *start_ms, *end_ms);
                self.finished(turn, params, failure)
            }
        }
    }

    fn timer(&mut self, turn: &mut Turn<'_>, timer: Timer) -> Progress {
        // The others are timers of other instructions.
        if timer != Timer::Record {
            return Progress::Pending;
        }
        if let Phase::Recording(record) = self.phase {
            turn.desk.media(MediaOrder::RecordStop { record, end: RecordEnd::Failed, key: None });
        }
        let params = self.params(RecordEnd::Failed, 0, 0, 0);
        self.finished(turn, params, Some("the recorder did not end it in time".to_owned()))
    }

    fn stop(&mut self, turn: &mut Turn<'_>, why: Stop) {
        turn.desk.timers.clear(Timer::Record);
        let end = match why {
            Stop::CallEnds => RecordEnd::HungUp,
            Stop::Replaced => RecordEnd::Stopped,
        };
        match self.phase {
            Phase::Beep(play) => turn.desk.media(MediaOrder::Stop { play }),
            Phase::Recording(record) => {
                turn.desk.media(MediaOrder::RecordStop { record, end, key: None })
            }
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

    fn awaits_recording(&self, recording: RecordId) -> bool {
        self.record() == Some(recording)
    }

    fn stop_recording(&mut self, desk: &mut Desk) {
        if let Phase::Recording(record) = self.phase {
            self.end(desk, record, RecordEnd::Stopped);
        }
    }

    fn draw(&self, sketch: &mut Sketch) {
        match self.phase {
            Phase::Beep(play) => sketch.say("waits_for", [word("beep"), text(play.0)]),
            Phase::Recording(record) => {
                sketch.say("recording", [text(record.0), word("recording_on")]);
                sketch.say("waits_for", [word("recording_to_end")]);
            }
            Phase::Ending(record) => {
                sketch.say("recording", [text(record.0), word("recording_completed")]);
                sketch.say("waits_for", [word("recording_to_end")]);
            }
        }
    }
}
