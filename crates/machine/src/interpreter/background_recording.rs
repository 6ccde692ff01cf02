//! The background recording of a call (docs/reference/xml.md#record,
//! docs/reference/rest.md#record-a-call).
//!
//! A call has at most one. It outlives the document that began it. It starts when the media path is
//! up, or when a `Dial` connects.

use crate::activity::{Action, Activity, Completion, Env, Progress, Readiness, StopReason};
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
    recording: RecordingId,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The recording waits for the media path.
    WaitingForMedia,
    /// The recording waits for a `Dial` to connect.
    WaitingForDial,
    Recording,
}

impl BackgroundRecording {
    /// Starts the recording that a `Record` element describes.
    pub(super) fn begin(ctx: &mut CallContext, readiness: Readiness, record: &Record) -> Self {
        let transcript = transcript(ctx, record.transcription.as_ref());
        let phase = match (record.start_on_dial_answer && !record.record_session, readiness) {
            (true, _) => Phase::WaitingForDial,
            (false, readiness) => Phase::at(readiness),
        };
        Self::order(ctx, phase, RecordingOrder { transcript, ..background(record, ctx) })
    }

    /// Starts the recording that an API request describes. The caller has checked that none is
    /// running.
    pub(super) fn begin_for_api(
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
        let recording = ctx.record(RecordingOrder { held: phase != Phase::Recording, ..order });
        Self { recording, phase }
    }

    /// Whether this recording has the id.
    pub(super) fn has_id(&self, recording: RecordingId) -> bool {
        self.recording == recording
    }

    /// Starts the recording when the path or the `Dial` that it waits for is connected.
    pub(super) fn resume(&mut self, ctx: &mut CallContext, readiness: Readiness, is_joined: bool) {
        let starts = match self.phase {
            Phase::WaitingForMedia => readiness == Readiness::Open,
            Phase::WaitingForDial => is_joined,
            Phase::Recording => false,
        };
        if starts {
            self.phase = Phase::Recording;
            ctx.media(MediaCommand::RecordStart { recording: self.recording });
        }
    }

    /// Ends the recording.
    pub(super) fn stop(self, ctx: &mut CallContext, end: RecordingEndReason) {
        ctx.media(MediaCommand::RecordStop { recording: self.recording, reason: end, key: None });
    }

    /// Returns an activity that waits for the id of the recording, and then requests the action of
    /// the element.
    pub(super) fn await_name(&self, target: Target, redirect: bool) -> RecordingNameWait {
        RecordingNameWait { recording: self.recording, target, redirect }
    }

    pub(super) fn write_snapshot(&self, snapshot: &mut SnapshotBuilder) {
        let label = match self.phase {
            Phase::WaitingForMedia => "recording_for_sound",
            Phase::WaitingForDial => "recording_for_dial",
            Phase::Recording => "recording_on",
        };
        snapshot.add("recording", [text(self.recording.0), word(label)]);
    }
}

impl Phase {
    /// Returns the phase of a recording that starts with the media path.
    fn at(readiness: Readiness) -> Self {
        match readiness {
            Readiness::Open => Self::Recording,
            Readiness::Ringing | Readiness::Answering | Readiness::Unconnected => {
                Self::WaitingForMedia
            }
        }
    }
}

/// Waits for the id of a background `Record`, and then requests its action.
pub(super) struct RecordingNameWait {
    recording: RecordingId,
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
        if recording != self.recording {
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

    fn stop(&mut self, _: &mut Env<'_>, _: StopReason) {}

    fn write_snapshot(&self, snapshot: &mut SnapshotBuilder) {
        snapshot.add("waits_for", [word("name_of_recording"), text(self.recording.0)]);
    }
}
