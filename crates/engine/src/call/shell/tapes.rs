//! The recordings of a call.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::oneshot;
use uuid::Uuid;

use super::super::recordings::{ActionHandover, RecordedRoom, RecordingRequest};
use super::context::Context;
use machine::{
    Input, Machine, MediaCommand, RecordingEndReason, RecordingEvent, RecordingId, RecordingOrder,
};
use media::record::{Format, PausableSource, Pause, RATE, RecordingHandle};
use media::{Buffering, LegHandle, TapReader, TapSides};
use model::Digit;

/// The running recordings of a call. Dropping one ends it.
#[derive(Default)]
pub(super) struct CallRecordings(BTreeMap<RecordingId, CallRecording>);

struct CallRecording {
    id: Uuid,
    order: RecordingOrder,
    pause: Pause,
    /// The recording. `None` before it begins.
    tape: Option<RecordingHandle>,
    /// Reports that the call requests the action URL itself or that the request is not wanted. If
    /// dropped, the action is sent as a callback when the recording ends.
    action: Option<oneshot::Sender<()>>,
    key: Arc<OnceLock<Digit>>,
}

impl CallRecordings {
    /// Executes a command about a recording.
    pub(super) fn execute(
        &mut self,
        call: &Context,
        leg: Option<&LegHandle>,
        machine: &Machine,
        command: MediaCommand,
    ) {
        match command {
            MediaCommand::Record { recording: record, order: how } => {
                let id = how.id.unwrap_or_else(|| call.services.uuid());
                let url = call.services.recordings.url(id, Format::of(how.mp3).as_str());
                call.tell(Input::Recording {
                    recording: record,
                    event: RecordingEvent::Ready { id, url },
                });
                let held = how.held;
                let (pause, key) = (Pause::default(), Arc::default());
                self.0.insert(
                    record,
                    CallRecording { id, order: *how, pause, tape: None, action: None, key },
                );
                if !held {
                    self.start(call, leg, record);
                }
            }
            MediaCommand::RecordStart { recording: record } => self.start(call, leg, record),
            MediaCommand::RecordPause { recording: record, on } => {
                if let Some(one) = self.0.get(&record) {
                    one.pause.set(on);
                }
            }
            MediaCommand::RecordStop { recording: record, reason: end, key } => {
                // Another document has taken over, so no action follows.
                let dropped =
                    end == RecordingEndReason::Stopped && !machine.awaits_recording(record);
                match self.0.get_mut(&record) {
                    Some(CallRecording { tape: Some(tape), action, key: of, .. }) => {
                        if let Some(key) = key {
                            let _ = of.set(key);
                        }
                        if let Some(action) = action.take_if(|_| dropped) {
                            let _ = action.send(());
                        }
                        tape.stop(end);
                    }
                    Some(CallRecording { tape: None, .. }) | None => self.ended(record, false),
                }
            }
            // `ALeg` executes the other commands.
            _ => {}
        }
    }

    /// Starts a recording.
    fn start(&mut self, call: &Context, leg: Option<&LegHandle>, record: RecordingId) {
        let Some(one) = self.0.get_mut(&record).filter(|one| one.tape.is_none()) else { return };
        let (asks, by_call) = oneshot::channel();
        let action = ActionHandover { by_call, key: one.key.clone() };
        let begun = match leg {
            Some(leg) => {
                let line = TapReader::new(leg.tap(TapSides::Both), RATE, Buffering::Jitter);
                let source =
                    Box::new(PausableSource::new(line, one.pause.clone(), one.order.peer_only));
                let request = RecordingRequest {
                    action: Some(action),
                    ..request(call, one.id, None, one.order.clone())
                };
                let mailbox = call.mailbox.clone();
                let told = move |what| {
                    mailbox.tell(Input::Recording { recording: record, event: what });
                };
                call.services.recordings.begin(request, source, told)
            }
            None => Err("the call has no media"),
        };
        match begun {
            Ok(tape) => (one.tape, one.action) = (Some(tape), Some(asks)),
            Err(why) => {
                let event = RecordingEvent::Ended {
                    reason: RecordingEndReason::Failed,
                    duration_ms: 0,
                    start_ms: 0,
                    end_ms: 0,
                    error: Some(why.to_owned()),
                };
                call.tell(Input::Recording { recording: record, event });
            }
        }
    }

    /// Removes a recording that has ended. `awaited` is whether the machine waits for its end and
    /// requests the action.
    pub(super) fn ended(&mut self, record: RecordingId, awaited: bool) {
        if let Some(action) = self.0.remove(&record).and_then(|one| one.action).filter(|_| awaited)
        {
            let _ = action.send(());
        }
    }

    /// Whether a recording is running or about to begin.
    pub(super) fn has_any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Ends all recordings at the end of the call.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Describes a recording of a call or of its room.
pub(super) fn request(
    call: &Context,
    id: Uuid,
    room: Option<RecordedRoom>,
    order: RecordingOrder,
) -> RecordingRequest {
    let (setup, view, standing) = (&call.view.setup, call.view.clone(), call.view.clone());
    RecordingRequest {
        id,
        account: setup.account.clone(),
        main_account: setup.parent_account.clone(),
        call: setup.call,
        room,
        order,
        keys: call.keys.clone(),
        action: None,
        answered: Box::new(move || {
            Some(view.setup.started.plus(Duration::from_millis(view.answered()?.0)))
        }),
        is_up: Box::new(move || !standing.is_closing()),
    }
}
