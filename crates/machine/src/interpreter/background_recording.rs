//! The background recording of a call (docs/reference/xml.md#record,
//! docs/reference/rest.md#record-a-call).
//!
//! A call has at most one. It outlives the document that began it. It starts when the media path is
//! up, or when a `Dial` connects.

use crate::activity::{Action, Activity, Completion, Env, Progress, Readiness, Stop};
use crate::context::CallContext;
use crate::contract::recording;
use crate::contract::{
    MediaCommand, RecordingEndReason, RecordingEvent, RecordingId, RecordingOrder,
};
use crate::element::record::{background, callback, transcript, transcript_if_able};
use crate::snapshot::{SnapshotBuilder, text, word};
use xml::ast::{Record, Target};

/// The background recording of a call. See the [module documentation](self).
pub(super) struct BackgroundRecording {
    record: RecordingId,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waits for the media path.
    ForSound,
    /// Waits for a `Dial` to connect.
    ForDial,
    On,
}

impl BackgroundRecording {
    /// Begins the recording that a `Record` element describes.
    pub(super) fn begin(ctx: &mut CallContext, readiness: Readiness, record: &Record) -> Self {
        let transcript = transcript(ctx, record.transcription.as_ref());
        let phase = match (record.start_on_dial_answer && !record.record_session, readiness) {
            (true, _) => Phase::ForDial,
            (false, readiness) => Phase::at(readiness),
        };
        Self::order(ctx, phase, RecordingOrder { transcript, ..background(record, ctx) })
    }

    /// Begins the recording that an API request describes. The caller has checked that none is
    /// running.
    pub(super) fn begin_over_rest(
        ctx: &mut CallContext,
        readiness: Readiness,
        order: RecordingOrder,
        target: Option<Target>,
    ) -> Self {
        let callback = target.map(|target| callback(ctx, &target));
        let transcript = transcript_if_able(ctx, order.transcript.clone());
        Self::order(ctx, Phase::at(readiness), RecordingOrder { callback, transcript, ..order })
    }

    fn order(ctx: &mut CallContext, phase: Phase, order: RecordingOrder) -> Self {
        let record = ctx.record(RecordingOrder { held: phase != Phase::On, ..order });
        Self { record, phase }
    }

    /// Whether this recording has the id.
    pub(super) fn is(&self, record: RecordingId) -> bool {
        self.record == record
    }

    /// Starts the recording when the path or the `Dial` that it waits for is connected.
    pub(super) fn go_on(&mut self, ctx: &mut CallContext, readiness: Readiness, is_joined: bool) {
        let goes = match self.phase {
            Phase::ForSound => readiness == Readiness::Open,
            Phase::ForDial => is_joined,
            Phase::On => false,
        };
        if goes {
            self.phase = Phase::On;
            ctx.media(MediaCommand::RecordStart { recording: self.record });
        }
    }

    /// Ends the recording.
    pub(super) fn stop(self, ctx: &mut CallContext, end: RecordingEndReason) {
        ctx.media(MediaCommand::RecordStop { recording: self.record, reason: end, key: None });
    }

    /// Returns an activity that waits for the name of the recording, which the action of the
    /// element reports.
    pub(super) fn naming(&self, target: Target, redirect: bool) -> RecordingNameWait {
        RecordingNameWait { record: self.record, target, redirect }
    }

    pub(super) fn draw(&self, snapshot: &mut SnapshotBuilder) {
        let how = match self.phase {
            Phase::ForSound => "recording_for_sound",
            Phase::ForDial => "recording_for_dial",
            Phase::On => "recording_on",
        };
        snapshot.say("recording", [text(self.record.0), word(how)]);
    }
}

impl Phase {
    /// Returns the phase of a recording that starts with the media path.
    fn at(readiness: Readiness) -> Self {
        match readiness {
            Readiness::Open => Self::On,
            Readiness::Ringing | Readiness::Answering | Readiness::Unconnected => Self::ForSound,
        }
    }
}

/// Waits for the name of a `Record` in the background, and then requests its action.
pub(super) struct RecordingNameWait {
    record: RecordingId,
    target: Target,
    redirect: bool,
}

impl Activity for RecordingNameWait {
    fn recording(
        &mut self,
        _: &mut Env<'_>,
        recording: RecordingId,
        event: &RecordingEvent,
    ) -> Progress {
        if recording != self.record {
            return Progress::Pending;
        }
        let params = match event {
            RecordingEvent::Ready { id, url } => recording::started_params(*id, url),
            RecordingEvent::Ended { .. } => recording::started_params(uuid::Uuid::nil(), ""),
        };
        let action = Action {
            target: self.target.clone(),
            redirect: self.redirect,
            params,
            repeat_after_hangup: false,
        };
        Progress::Finished(Completion::done("in the background").with_action(Some(action)))
    }

    fn stop(&mut self, _: &mut Env<'_>, _: Stop) {}

    fn draw(&self, snapshot: &mut SnapshotBuilder) {
        snapshot.say("waits_for", [word("name_of_recording"), text(self.record.0)]);
    }
}
