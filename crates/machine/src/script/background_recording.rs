//! The recording in the background (`plivo-xml.md` §5.8, `plivo-call-api.md` §2.9): one of a call at a time. It outlives the
//! document that began it, and waits for what it is to begin with: the call's sound, or a `Dial` that connects.

use crate::activity::{Action, Activity, Finished, Gate, Progress, Stop, Turn};
use crate::contract::recording;
use crate::contract::{MediaOrder, RecordEnd, RecordFact, RecordId, RecordOrder};
use crate::desk::Desk;
use crate::element::record::{background, callback, transcript, transcript_if_able};
use crate::picture::{Sketch, text, word};
use xml::ast::{Record, Target};

/// See the module's note.
pub(super) struct BackgroundRecording {
    record: RecordId,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Until the call is heard.
    ForSound,
    /// Until a `Dial` has connected.
    ForDial,
    On,
}

impl BackgroundRecording {
    /// Begins what a `Record` asks for.
    pub(super) fn begin(desk: &mut Desk, gate: Gate, record: &Record) -> Self {
        let transcript = transcript(desk, record.transcription.as_ref());
        let phase = match (record.start_on_dial_answer && !record.record_session, gate) {
            (true, _) => Phase::ForDial,
            (false, gate) => Phase::at(gate),
        };
        Self::order(desk, phase, RecordOrder { transcript, ..background(record, desk) })
    }

    /// Begins what REST asks for; whether it may, whoever was asked has seen to.
    pub(super) fn begin_over_rest(
        desk: &mut Desk,
        gate: Gate,
        order: RecordOrder,
        target: Option<Target>,
    ) -> Self {
        let callback = target.map(|target| callback(desk, &target));
        let transcript = transcript_if_able(desk, order.transcript.clone());
        Self::order(desk, Phase::at(gate), RecordOrder { callback, transcript, ..order })
    }

    fn order(desk: &mut Desk, phase: Phase, order: RecordOrder) -> Self {
        let record = desk.record(RecordOrder { held: phase != Phase::On, ..order });
        Self { record, phase }
    }

    /// Whether this is its name.
    pub(super) fn is(&self, record: RecordId) -> bool {
        self.record == record
    }

    /// The call can be heard, or a `Dial` may have connected: what waited for that begins.
    pub(super) fn go_on(&mut self, desk: &mut Desk, gate: Gate, is_joined: bool) {
        let goes = match self.phase {
            Phase::ForSound => gate == Gate::Open,
            Phase::ForDial => is_joined,
            Phase::On => false,
        };
        if goes {
            self.phase = Phase::On;
            desk.media(MediaOrder::RecordGo { record: self.record });
        }
    }

    /// Ends it.
    pub(super) fn stop(self, desk: &mut Desk, end: RecordEnd) {
        desk.media(MediaOrder::RecordStop { record: self.record, end, key: None });
    }

    /// Waits for its name, which the action of its element is told.
    pub(super) fn naming(&self, target: Target, redirect: bool) -> Naming {
        Naming { record: self.record, target, redirect }
    }

    pub(super) fn draw(&self, sketch: &mut Sketch) {
        let how = match self.phase {
            Phase::ForSound => "recording_for_sound",
            Phase::ForDial => "recording_for_dial",
            Phase::On => "recording_on",
        };
        sketch.say("recording", [text(self.record.0), word(how)]);
    }
}

impl Phase {
    /// Of a recording that begins with the call's sound.
    fn at(gate: Gate) -> Self {
        match gate {
            Gate::Open => Self::On,
            Gate::Ringing | Gate::Answering | Gate::Unconnected => Self::ForSound,
        }
    }
}

/// A `Record` in the background whose name is not known yet.
pub(super) struct Naming {
    record: RecordId,
    target: Target,
    redirect: bool,
}

impl Activity for Naming {
    fn recording(&mut self, _: &mut Turn<'_>, recording: RecordId, event: &RecordFact) -> Progress {
        if recording != self.record {
            return Progress::Pending;
        }
        let params = match event {
            RecordFact::Ready { id, url } => recording::begun(*id, url),
            RecordFact::Ended { .. } => recording::begun(uuid::Uuid::nil(), ""),
        };
        let action = Action {
            target: self.target.clone(),
            redirect: self.redirect,
            params,
            repeat_after_hangup: false,
        };
        Progress::Finished(Finished::done("in the background").with_action(Some(action)))
    }

    fn stop(&mut self, _: &mut Turn<'_>, _: Stop) {}

    fn draw(&self, sketch: &mut Sketch) {
        sketch.say("waits_for", [word("name_of_recording"), text(self.record.0)]);
    }
}
