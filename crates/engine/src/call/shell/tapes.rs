//! The recordings of a call.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::oneshot;
use uuid::Uuid;

use super::super::recordings::{ActionHandover, RecordedRoom, RecordingRequest};
use super::{Media, Shell};
use machine::{
    Input, MediaCommand, RecordingEndReason, RecordingEvent, RecordingId, RecordingOrder,
};
use media::record::{Format, PausableSource, Pause, RATE, RecordingHandle};
use media::{Buffering, TapReader, TapSides};
use model::Digit;

/// The running recordings of a call. Dropping one ends it.
#[derive(Default)]
pub(super) struct CallRecordings(BTreeMap<RecordingId, CallRecording>);

struct CallRecording {
    id: Uuid,
    order: RecordingOrder,
    pause: Pause,
    /// `None` before it begins.
    tape: Option<RecordingHandle>,
    /// Reports that the call requests the action URL itself or that the request is not wanted. If
    /// dropped, the action is sent as a callback when the recording ends.
    action: Option<oneshot::Sender<()>>,
    key: Arc<OnceLock<Digit>>,
}

impl CallRecordings {
    /// Removes a recording that has ended. `awaited` is whether the machine waits for its end and
    /// requests the action.
    pub(super) fn ended(&mut self, record: RecordingId, awaited: bool) {
        if let Some(action) = self.0.remove(&record).and_then(|one| one.action).filter(|_| awaited)
        {
            let _ = action.send(());
        }
    }

    /// Ends all recordings at the end of the call.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Shell {
    /// Executes a command about a recording.
    pub(super) fn record(&mut self, order: MediaCommand) {
        match order {
            MediaCommand::Record { recording: record, order: how } => {
                let id = how.id.unwrap_or_else(|| self.services.uuid());
                let url = self.services.recordings.url(id, Format::of(how.mp3).as_str());
                self.mailbox.tell(Input::Recording {
                    recording: record,
                    event: RecordingEvent::Ready { id, url },
                });
                self.note_format(how.mp3);
                let held = how.held;
                let (pause, key) = (Pause::default(), Arc::default());
                self.tapes.0.insert(
                    record,
                    CallRecording { id, order: *how, pause, tape: None, action: None, key },
                );
                if !held {
                    self.start_recording(record);
                }
            }
            MediaCommand::RecordStart { recording: record } => self.start_recording(record),
            MediaCommand::RecordPause { recording: record, on } => {
                if let Some(one) = self.tapes.0.get(&record) {
                    one.pause.set(on);
                }
            }
            MediaCommand::RecordStop { recording: record, reason: end, key } => {
                // Another document has taken over, so no action follows.
                let dropped = end == RecordingEndReason::Stopped
                    && !self.stepper.machine().awaits_recording(record);
                match self.tapes.0.get_mut(&record) {
                    Some(CallRecording { tape: Some(tape), action, key: of, .. }) => {
                        if let Some(key) = key {
                            let _ = of.set(key);
                        }
                        if let Some(action) = action.take_if(|_| dropped) {
                            let _ = action.send(());
                        }
                        tape.stop(end);
                    }
                    Some(CallRecording { tape: None, .. }) | None => {
                        self.tapes.ended(record, false)
                    }
                }
            }
            _ => {}
        }
    }

    /// Adds a remark, once per call, if recordings use another format than requested.
    pub(super) fn note_format(&mut self, mp3: bool) {
        if let Some(why) = Format::substitution_remark(mp3)
            .filter(|why| !self.report.remarks.iter().any(|remark| remark == why))
        {
            tracing::info!(remark = why, "call remark");
            self.report.remarks.push(why.to_owned());
        }
    }

    /// Describes a recording of this call or of its room.
    pub(super) fn taking(
        &self,
        id: Uuid,
        room: Option<RecordedRoom>,
        order: RecordingOrder,
    ) -> RecordingRequest {
        let (setup, view, standing) = (&self.view.setup, self.view.clone(), self.view.clone());
        RecordingRequest {
            id,
            account: setup.account.clone(),
            main_account: setup.parent_account.clone(),
            call: setup.call,
            room,
            order,
            keys: self.keys.clone(),
            action: None,
            answered: Box::new(move || {
                Some(view.setup.started.plus(Duration::from_millis(view.answered()?.0)))
            }),
            is_up: Box::new(move || !standing.is_closing()),
        }
    }

    /// Starts a recording.
    fn start_recording(&mut self, record: RecordingId) {
        let Some(one) = self.tapes.0.get(&record).filter(|one| one.tape.is_none()) else { return };
        let (asks, by_call) = oneshot::channel();
        let action = ActionHandover { by_call, key: one.key.clone() };
        let begun = match &self.a_leg.media {
            Media::Leg(leg) => {
                let line = TapReader::new(leg.tap(TapSides::Both), RATE, Buffering::Jitter);
                let source =
                    Box::new(PausableSource::new(line, one.pause.clone(), one.order.peer_only));
                let taking = RecordingRequest {
                    action: Some(action),
                    ..self.taking(one.id, None, one.order.clone())
                };
                let mailbox = self.mailbox.clone();
                let told = move |what| {
                    mailbox.tell(Input::Recording { recording: record, event: what });
                };
                self.services.recordings.begin(taking, source, told)
            }
            Media::None | Media::Offered(_) | Media::Awaited => Err("the call has no media"),
        };
        match begun {
            Ok(tape) => {
                if let Some(one) = self.tapes.0.get_mut(&record) {
                    (one.tape, one.action) = (Some(tape), Some(asks));
                }
            }
            Err(why) => {
                let (end, why) = (RecordingEndReason::Failed, Some(why.to_owned()));
                let what = RecordingEvent::Ended {
                    reason: end,
                    duration_ms: 0,
                    start_ms: 0,
                    end_ms: 0,
                    error: why,
                };
                self.mailbox.tell(Input::Recording { recording: record, event: what });
            }
        }
    }
}
