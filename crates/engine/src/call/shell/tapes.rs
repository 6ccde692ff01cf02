//! The recordings of a call.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::super::handover::{AdoptedLeg, QueuedInput};
use super::super::recordings::{ActionHandover, RecordingRequest};
use super::context::Context;
use machine::{
    Input, Machine, MediaCommand, RecordingEndReason, RecordingEvent, RecordingId, RecordingOrder,
};
use media::record::{Format, PausableSource, Pause, RATE, RecordingHandle, RecordingState};
use media::{Buffering, LegHandle, TapReader, TapSides};
use model::{Digit, Timestamp};

/// The running recordings of a call. Dropping one ends it.
#[derive(Default)]
pub(super) struct CallRecordings(BTreeMap<RecordingId, CallRecording>);

struct CallRecording {
    id: Uuid,
    order: RecordingOrder,
    pause: Pause,
    /// The recording and when it began. `None` before it begins.
    tape: Option<(RecordingHandle, Timestamp)>,
    /// Reports that the call requests the action URL itself or that the request is not wanted. If
    /// dropped, the action is sent as a callback when the recording ends.
    action: Option<oneshot::Sender<()>>,
    key: Arc<OnceLock<Digit>>,
}

/// A recording on its way to another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::call) struct MovedRecording {
    recording: RecordingId,
    id: Uuid,
    order: RecordingOrder,
    is_paused: bool,
    /// When the recording began, and where it continues. `None` before it begins.
    running: Option<(Timestamp, RecordingState)>,
}

impl MovedRecording {
    /// The id, if the recording has begun.
    pub(in crate::call) fn running(&self) -> Option<Uuid> {
        self.running.is_some().then_some(self.id)
    }
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
                    Some(CallRecording { tape: Some((tape, _)), action, key: of, .. }) => {
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
        let line =
            leg.map(|leg| TapReader::new(leg.movable_tap(TapSides::Both), RATE, Buffering::Jitter));
        one.begin(call, record, line, None);
    }

    /// Removes a recording that has ended. `awaited` is whether the machine waits for its end and
    /// requests the action.
    pub(super) fn ended(&mut self, record: RecordingId, awaited: bool) {
        if let Some(action) = self.0.remove(&record).and_then(|one| one.action).filter(|_| awaited)
        {
            let _ = action.send(());
        }
    }

    /// The number of running recordings.
    pub(super) fn running(&self) -> usize {
        self.0.values().filter(|one| one.tape.is_some()).count()
    }

    /// Lets go of the recordings, so that another process can continue them. Those that end instead
    /// have reported this to the mailbox, and stay here.
    pub(super) async fn detach(&mut self) -> Vec<MovedRecording> {
        let detached: Vec<_> = self.0.iter_mut().map(|(record, one)| one.detach(*record)).collect();
        let mut moved = Vec::with_capacity(detached.len());
        for (mut recording, running) in detached {
            if let Some((started, state)) = running {
                let Ok(state) = state.await else { continue };
                recording.running = Some((started, state));
            }
            self.0.remove(&recording.recording);
            moved.push(recording);
        }
        moved
    }

    /// Handles the recordings that have ended during a hand-over. The other process requests their
    /// actions, unless its machine first gets one of `inputs` that may end the call or the document.
    pub(super) fn settle(&mut self, machine: &Machine, inputs: &[QueuedInput]) {
        let is_harmless = |input: &&Input| {
            matches!(
                input,
                Input::Digit { .. }
                    | Input::PlayStarted { .. }
                    | Input::Played { .. }
                    | Input::Recording { .. }
                    | Input::Voice { .. }
            )
        };
        let end_of = |input: &Input| match input {
            Input::Recording { recording, event: RecordingEvent::Ended { .. } } => Some(*recording),
            _ => None,
        };
        let inputs = inputs.iter().map(|queued| &queued.input);
        for record in inputs.take_while(is_harmless).filter_map(end_of) {
            self.ended(record, machine.awaits_recording(record));
        }
        self.clear();
    }

    /// Continues the recordings of another process.
    pub(super) fn resume(
        &mut self,
        call: &Context,
        leg: &mut AdoptedLeg,
        moved: Vec<MovedRecording>,
    ) {
        for MovedRecording { recording, id, order, is_paused, running } in moved {
            let pause = Pause::default();
            pause.set(is_paused);
            let (tape, action, key) = (None, None, Arc::default());
            let mut one = CallRecording { id, order, pause, tape, action, key };
            if running.is_some() {
                one.begin(
                    call,
                    recording,
                    leg.take_tap(TapSides::Both, RATE, Buffering::Jitter),
                    running,
                );
            }
            self.0.insert(recording, one);
        }
    }

    /// Ends all recordings at the end of the call.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl CallRecording {
    /// Starts the recording of `line`, or continues one.
    fn begin(
        &mut self,
        call: &Context,
        record: RecordingId,
        line: Option<TapReader>,
        running: Option<(Timestamp, RecordingState)>,
    ) {
        let (asks, by_call) = oneshot::channel();
        let action = ActionHandover { by_call, key: self.key.clone() };
        let new = request(call, self.id, self.order.clone());
        let (started, state) =
            running.map_or((new.started, None), |(started, state)| (started, Some(state)));
        let begun = match line {
            Some(line) => {
                let source = PausableSource::new(line, self.pause.clone(), self.order.peer_only);
                let request = RecordingRequest { action: Some(action), started, state, ..new };
                let mailbox = call.mailbox.clone();
                let report = move |what| {
                    mailbox.tell(Input::Recording { recording: record, event: what });
                };
                call.services.recordings.begin(request, Box::new(source), report)
            }
            None => Err("the call has no media"),
        };
        match begun {
            Ok(tape) => (self.tape, self.action) = (Some((tape, started)), Some(asks)),
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

    /// Lets go of the recording. If it runs, returns when it began, and its state unless it ends.
    fn detach(
        &mut self,
        recording: RecordingId,
    ) -> (MovedRecording, Option<(Timestamp, oneshot::Receiver<RecordingState>)>) {
        let running = self.tape.take().map(|(tape, started)| {
            let (reply, state) = oneshot::channel();
            tape.detach(move |state| {
                let _ = reply.send(state);
            });
            (started, state)
        });
        let (id, order, is_paused) = (self.id, self.order.clone(), self.pause.is_on());
        (MovedRecording { recording, id, order, is_paused, running: None }, running)
    }
}

/// Describes a recording of a call, or of its room except for the room.
pub(super) fn request(call: &Context, id: Uuid, order: RecordingOrder) -> RecordingRequest {
    let (setup, view, standing) = (&call.view.setup, call.view.clone(), call.view.clone());
    RecordingRequest {
        id,
        started: call.services.clock.wall(),
        state: None,
        account: setup.account.clone(),
        main_account: setup.parent_account.clone(),
        call: setup.call,
        room: None,
        order,
        keys: call.view.keys.clone(),
        action: None,
        answered: Box::new(move || {
            Some(view.setup.started.plus(Duration::from_millis(view.answered()?.0)))
        }),
        is_up: Box::new(move || !standing.is_closing()),
    }
}
