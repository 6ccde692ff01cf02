//! `Record`: the caller's voice into a file (`plivo-xml.md` §5.8).
//!
//! In the foreground: beep, recording, action. How long it is and how long nobody spoke the recorder knows; here are the
//! keys. In the background (`recordSession`, `startOnDialAnswer`) it belongs to the call and not to its document:
//! `document::tape` has it.

use super::get_digits::BEEP;
use super::{Flow, Running, millis};
use crate::contract::recording;
use crate::contract::{
    MediaOrder, Notice, NoticeKind, Param, Params, PlayId, RecordEnd, RecordFact, RecordId,
    RecordOrder, SoundItem, TranscriptOrder,
};
use crate::desk::Desk;
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
pub(crate) struct Recording {
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

/// Begins the element.
pub(super) fn start(record: &Record, desk: &mut Desk) -> Flow {
    if is_background(record) {
        return Flow::Background(Box::new(record.clone()));
    }
    let transcript = transcript(desk, record.transcription.as_ref());
    let phase = if record.play_beep {
        Phase::Beep(desk.play(vec![SoundItem::once(BEEP)]))
    } else {
        Phase::Recording(order(record, transcript.clone(), desk))
    };
    let element = Box::new(record.clone());
    Flow::Run(Running::Recording(Box::new(Recording {
        element,
        transcript,
        phase,
        known: None,
        finished_by: None,
    })))
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
    able(desk, Some(TranscriptOrder { to, full: wanted.report_full }))
}

/// The same, of what was ordered in another way.
pub(crate) fn able(desk: &mut Desk, order: Option<TranscriptOrder>) -> Option<TranscriptOrder> {
    let order = order?;
    if !desk.setup.limits.transcribes {
        desk.remark(NO_TRANSCRIPTION.to_owned());
        return None;
    }
    Some(order)
}

const NO_TRANSCRIPTION: &str = "transcription: no recogniser is configured ([speech.transcribe] or [speech.websocket]); the \
     recording is made without";

pub(super) fn is_background(record: &Record) -> bool {
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
    pub(crate) fn draw(&self, sketch: &mut Sketch) {
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

    fn record(&self) -> Option<RecordId> {
        match self.phase {
            Phase::Beep(_) => None,
            Phase::Recording(record) | Phase::Ending(record) => Some(record),
        }
    }

    /// A sound is over; the beep is followed by the recording.
    pub(crate) fn played(&mut self, desk: &mut Desk, ended: PlayId) {
        if self.phase == Phase::Beep(ended) {
            self.phase = Phase::Recording(order(&self.element, self.transcript.take(), desk));
        }
    }

    /// Whether this key ends it; else it is nobody's yet.
    pub(crate) fn pressed(&mut self, desk: &mut Desk, digit: Digit) -> bool {
        let Phase::Recording(record) = self.phase else { return false };
        if !self.ends_by(digit) {
            return false;
        }
        self.finished_by = Some(digit);
        self.end(desk, record, RecordEnd::FinishedOnKey);
        true
    }

    /// Whether this is one of its `finishOnKey`.
    pub(crate) fn ends_by(&self, digit: Digit) -> bool {
        self.element.finish_on_key.contains(&digit)
    }

    /// Whether something is being recorded now.
    pub(crate) fn runs(&self) -> bool {
        matches!(self.phase, Phase::Recording(_))
    }

    /// Whether this is its recording.
    pub(crate) fn is(&self, record: RecordId) -> bool {
        self.record() == Some(record)
    }

    /// REST ends it: what there is is the recording.
    pub(crate) fn stop(&mut self, desk: &mut Desk) {
        if let Phase::Recording(record) = self.phase {
            self.end(desk, record, RecordEnd::Stopped);
        }
    }

    fn end(&mut self, desk: &mut Desk, record: RecordId, end: RecordEnd) {
        desk.media(MediaOrder::RecordStop { record, end, key: self.finished_by });
        desk.set(Timer::Record, GRACE_MS);
        self.phase = Phase::Ending(record);
    }

    /// A recorder tells something; what there is to say to the action, once the recording is over, and whether it failed.
    pub(crate) fn told(
        &mut self,
        desk: &mut Desk,
        record: RecordId,
        what: RecordFact,
    ) -> Option<(Params, Option<String>)> {
        if self.record() != Some(record) {
            return None;
        }
        match what {
            RecordFact::Ready { id, url } => {
                self.known = Some((id, url));
                None
            }
            RecordFact::Ended { end, duration_ms, start_ms, end_ms, why } => {
                desk.timers.clear(Timer::Record);
                let why = why.or_else(|| {
                    (end == RecordEnd::Failed).then(|| "it could not be written".to_owned())
                });
                Some((self.params(end, duration_ms, start_ms, end_ms), why))
            }
        }
    }

    /// The recorder has forgotten us.
    pub(crate) fn forgotten(&mut self, desk: &mut Desk) -> (Params, Option<String>) {
        if let Phase::Recording(record) = self.phase {
            desk.media(MediaOrder::RecordStop { record, end: RecordEnd::Failed, key: None });
        }
        (
            self.params(RecordEnd::Failed, 0, 0, 0),
            Some("the recorder did not end it in time".to_owned()),
        )
    }

    fn params(&self, end: RecordEnd, duration_ms: u64, start_ms: i64, end_ms: i64) -> Params {
        let (id, url) = self.known.clone().unwrap_or_default();
        let mut params = recording::recorded(id, &url, end, duration_ms, start_ms, end_ms);
        let digits = self.finished_by.map(|digit| digit.as_char().to_string()).unwrap_or_default();
        params.insert("Digits".into(), Param::Plain(digits.into()));
        params
    }

    /// It ends from outside: the call does, or another document takes over.
    pub(crate) fn cut(&mut self, desk: &mut Desk, end: RecordEnd) {
        desk.timers.clear(Timer::Record);
        match self.phase {
            Phase::Beep(play) => desk.media(MediaOrder::Stop { play }),
            Phase::Recording(record) => {
                desk.media(MediaOrder::RecordStop { record, end, key: None })
            }
            Phase::Ending(_) => {}
        }
    }

    /// Where its outcome goes, and whether that document runs next.
    pub(crate) fn action(&self) -> Option<(Target, bool)> {
        Some((self.element.action.clone()?, self.element.redirect))
    }
}
