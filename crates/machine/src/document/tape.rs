//! The recording in the background (`plivo-xml.md` §5.8, `plivo-call-api.md` §2.9): one of a call at a time. It outlives the
//! document that began it, and waits for what it is to begin with: the call's sound, or a `Dial` that connects.

use super::super::element::{self, Running};
use super::{Desk, Gate, Script, Step};
use crate::contract::display::foreign;
use crate::contract::recording;
use crate::contract::{
    InstructionOutcome, MediaOrder, Output, RecordEnd, RecordFact, RecordId, RecordOrder,
};
use crate::picture::{Sketch, text, word};
use xml::ast::{Record, Target};

/// See the module's note.
pub(super) struct Tape {
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

impl Tape {
    pub(super) fn draw(&self, sketch: &mut Sketch) {
        let how = match self.phase {
            Phase::ForSound => "recording_for_sound",
            Phase::ForDial => "recording_for_dial",
            Phase::On => "recording_on",
        };
        sketch.say("recording", [text(self.record.0), word(how)]);
    }
}

impl Script {
    /// `Record` in the background; `None`: the next element follows. Its action is asked once its name is known.
    pub(super) fn begin_tape(
        &mut self,
        desk: &mut Desk,
        gate: Gate,
        record: &Record,
    ) -> Option<Step> {
        if self.tape.is_some() {
            let why = "the call is being recorded in the background already";
            if let Some(place) = self.place.take() {
                desk.skip(place, why);
            }
            return None;
        }
        let transcript = element::transcript(desk, record.transcription.as_ref());
        let phase = match (record.start_on_dial_answer && !record.record_session, gate) {
            (true, _) => Phase::ForDial,
            (false, Gate::Open) => Phase::On,
            (false, Gate::Ringing | Gate::Answering | Gate::Unconnected) => Phase::ForSound,
        };
        let order = RecordOrder {
            held: phase != Phase::On,
            transcript,
            ..element::background(record, desk)
        };
        let record_id = desk.record(order);
        self.tape = Some(Tape { record: record_id, phase });
        let Some(target) = record.action.clone() else {
            self.end_place(desk, InstructionOutcome::Done, "in the background");
            return None;
        };
        self.running = Running::Naming { record: record_id, target, redirect: record.redirect };
        Some(Step::Busy)
    }

    /// The call can be heard, or a `Dial` may have connected: what waited for that begins.
    pub(super) fn tape_goes(&mut self, desk: &mut Desk, gate: Gate) {
        let connected = matches!(&self.running, Running::Dialing(dialing) if dialing.is_joined());
        let Some(tape) = &mut self.tape else { return };
        let goes = match tape.phase {
            Phase::ForSound => gate == Gate::Open,
            Phase::ForDial => connected,
            Phase::On => false,
        };
        if goes {
            tape.phase = Phase::On;
            desk.media(MediaOrder::RecordGo { record: tape.record });
        }
    }

    /// REST has the call recorded; whether it may, whoever was asked has seen to.
    pub(crate) fn record(
        &mut self,
        desk: &mut Desk,
        gate: Gate,
        order: RecordOrder,
        callback: Option<Target>,
    ) {
        if self.is_recorded() {
            desk.remark(
                "Record over REST: the call is being recorded already; it is not recorded twice"
                    .to_owned(),
            );
            return;
        }
        let callback = callback.map(|target| element::recording_callback(desk, &target));
        let phase = if gate == Gate::Open { Phase::On } else { Phase::ForSound };
        let transcript = element::transcript_if_able(desk, order.transcript.clone());
        let record =
            desk.record(RecordOrder { held: phase != Phase::On, callback, transcript, ..order });
        self.tape = Some(Tape { record, phase });
    }

    /// REST ends the recording in the background, or else the `Record` that runs, whose action follows.
    pub(crate) fn stop_recording(&mut self, desk: &mut Desk) {
        match (self.tape.take(), &mut self.running) {
            (Some(tape), _) => desk.media(stop(tape.record, RecordEnd::Stopped)),
            (None, Running::Recording(recording)) => recording.stop(desk),
            (None, _) => {}
        }
    }

    /// A recorder tells something.
    pub(super) fn recorded(
        &mut self,
        desk: &mut Desk,
        gate: Gate,
        record: RecordId,
        what: RecordFact,
    ) -> Step {
        match &mut self.running {
            Running::Naming { record: named, target, redirect } if *named == record => {
                let (target, redirect) = (target.clone(), *redirect);
                let extra = match &what {
                    RecordFact::Ready { id, url } => recording::begun(*id, url),
                    RecordFact::Ended { .. } => recording::begun(uuid::Uuid::nil(), ""),
                };
                self.running = Running::Nothing;
                self.end_place(desk, InstructionOutcome::Done, "in the background");
                let step = self.acted(desk, Some((target, redirect, extra)));
                let step = self.go_on(desk, gate, step);
                self.tape_ended(desk, record, &what);
                return step;
            }
            Running::Recording(recording) => {
                if let Some((extra, failure)) = recording.told(desk, record, what.clone()) {
                    let action = recording.action();
                    return self.end_recording(desk, gate, action, extra, failure);
                }
            }
            _ => {}
        }
        self.tape_ended(desk, record, &what);
        Step::Busy
    }

    /// The recorder of a `Record` in the foreground has forgotten us.
    pub(super) fn recorder_forgot(&mut self, desk: &mut Desk, gate: Gate) -> Step {
        let Running::Recording(recording) = &mut self.running else { return Step::Busy };
        let (extra, failure) = recording.forgotten(desk);
        let action = recording.action();
        self.end_recording(desk, gate, action, extra, failure)
    }

    fn end_recording(
        &mut self,
        desk: &mut Desk,
        gate: Gate,
        action: Option<(Target, bool)>,
        extra: super::Params,
        failure: Option<String>,
    ) -> Step {
        self.running = Running::Nothing;
        match failure {
            Some(why) => {
                let why = foreign(&why);
                if let Some(place) = self.place {
                    desk.remark(format!("{place} could not record: {why}; the call goes on"));
                }
                self.end_place(desk, InstructionOutcome::Failed, &why);
            }
            None => self.end_place(desk, InstructionOutcome::Done, "recorded"),
        }
        self.owed = action
            .as_ref()
            .filter(|(_, redirect)| *redirect)
            .map(|(target, _)| (target.clone(), extra.clone()));
        let step = self.acted(desk, action.map(|(target, redirect)| (target, redirect, extra)));
        self.go_on(desk, gate, step)
    }

    /// The call ends while the action of a `Record` is asked: it may not have got there, and is told again (§5.8).
    pub(super) fn tell_what_is_owed(&mut self, desk: &mut Desk) {
        if let Some((target, extra)) = self.owed.take() {
            let mut notice = element::after_hangup(desk, &target);
            notice.params.extend(extra);
            desk.wish(Output::Notify { notice });
        }
    }

    fn tape_ended(&mut self, desk: &mut Desk, record: RecordId, what: &RecordFact) {
        let RecordFact::Ended { why, .. } = what else { return };
        let which = match self.tape.take_if(|tape| tape.record == record) {
            Some(_) => "the recording in the background",
            // What a participant of a multi-party call says.
            None => "a recording",
        };
        if let Some(why) = why {
            desk.remark(format!("{which} failed: {}; the call goes on", foreign(why)));
        }
    }

    /// The call ends, and its recording with it.
    pub(super) fn cut_tape(&mut self, desk: &mut Desk) {
        if let Some(tape) = self.tape.take() {
            desk.media(stop(tape.record, RecordEnd::HungUp));
        }
    }
}

fn stop(record: RecordId, end: RecordEnd) -> MediaOrder {
    MediaOrder::RecordStop { record, end, key: None }
}
