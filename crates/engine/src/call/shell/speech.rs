//! Speech recognition of a call, and interim results for the application.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::Instrument as _;

use super::context::Context;
use crate::answer::{CallbackJob, Hops, Notifier};
use crate::call::handover::AdoptedLeg;
use crate::call::hearing::{Hearing, Listener, MovedHearing};
use machine::{CallbackRequest, Input, RecognitionId, SpeechCommand, SpeechEvent};
use media::opus::Rate;
use media::{Buffering, LegHandle, TapReader, TapSides};

/// Capacity of the queue of interim results: one second. Further results would be outdated before
/// they are sent.
const INTERIMS: usize = 5;

/// The speech recognition of a call. Replacing it by the default stops it.
#[derive(Default)]
pub(super) struct Recognition {
    hearing: Option<Hearing>,
    /// The interim results that are still to be sent.
    interims: Option<Interims>,
}

/// Sends interim results in order, with one attempt each. Dropping the value discards those that
/// are still queued.
struct Interims {
    queue: mpsc::Sender<CallbackJob>,
    task: AbortHandle,
}

impl Drop for Interims {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Recognition {
    pub(super) fn execute(
        &mut self,
        call: &Context,
        leg: Option<&LegHandle>,
        recognition: RecognitionId,
        command: SpeechCommand,
    ) {
        match command {
            SpeechCommand::Begin { settings: how } => {
                // Dropping the previous recognition stops it.
                self.hearing = None;
                let recognisers = &call.services.recognisers;
                if !recognisers.can_recognise_with(&how.language, &how.hints) {
                    call.tell(Input::Speech { recognition, event: SpeechEvent::Unavailable });
                } else if let Some(leg) = leg {
                    let tap = leg.movable_tap(TapSides::Received);
                    let line = TapReader::new(tap, Rate::Hz16000, Buffering::Jitter);
                    self.hearing = Some(Hearing::begin(recognition, *how, line, &listener(call)));
                }
            }
            SpeechCommand::Finish => {
                if let Some(hearing) = self.hearing.as_ref().filter(|one| one.is(recognition)) {
                    hearing.finish();
                }
            }
            SpeechCommand::Stop => drop(self.hearing.take_if(|one| one.is(recognition))),
        }
    }

    /// Handles the end of a recognition.
    pub(super) fn ended(&mut self, recognition: RecognitionId) {
        self.hearing.take_if(|one| one.is(recognition));
    }

    /// Whether speech is being recognised.
    pub(super) fn is_running(&self) -> bool {
        self.hearing.is_some()
    }

    /// Whether the caller has spoken and the result is pending.
    pub(super) fn is_busy(&self) -> bool {
        self.hearing.as_ref().is_some_and(Hearing::is_busy)
    }

    /// Holds the audio from now on, without events. Returns `false` if the recognition is busy.
    pub(super) fn hold(&self) -> bool {
        self.hearing.as_ref().is_none_or(Hearing::hold)
    }

    /// Continues with the audio that was held.
    pub(super) fn release(&self) {
        if let Some(hearing) = &self.hearing {
            hearing.release();
        }
    }

    /// Lets go of the recognition, so that another process can continue it.
    pub(super) fn detach(&mut self) -> Option<MovedHearing> {
        self.hearing.take()?.detach()
    }

    /// Continues a recognition of another process.
    pub(super) fn resume(&mut self, call: &Context, leg: &mut AdoptedLeg, moved: MovedHearing) {
        let recognition = moved.recognition;
        let settings = &moved.settings;
        let recognisers = &call.services.recognisers;
        if !recognisers.can_recognise_with(&settings.language, &settings.hints) {
            call.tell(Input::Speech { recognition, event: SpeechEvent::Unavailable });
        } else if let Some(line) =
            leg.take_tap(TapSides::Received, Rate::Hz16000, Buffering::Jitter)
        {
            self.hearing = Some(Hearing::resume(moved, line, &listener(call)));
        }
    }

    /// Sends an interim result. It is useless later, so it bypasses the outbox.
    pub(super) fn send_interim(&mut self, call: &Context, notice: CallbackRequest) {
        let job = CallbackJob {
            call: call.id,
            main_account: call.view.setup.parent_account.clone(),
            notice,
            keys: call.keys(),
            secrets: std::sync::Arc::default(),
            event_id: call.services.uuid(),
            attempts: 0,
            // Counts as a retry, so that exactly one attempt is made whatever the URL's fragment
            // says (`docs/reference/callbacks.md#interim-speech-results`).
            retries: 1,
            age: Duration::ZERO,
            hops: Hops::new(),
        };
        let (notifier, tasks) = (&call.services.notifier, &call.services.tasks);
        let interims = self.interims.get_or_insert_with(|| {
            let (queue, jobs) = mpsc::channel(INTERIMS);
            let task = tasks.spawn(tell_in_order(notifier.clone(), jobs).in_current_span());
            Interims { queue, task: task.abort_handle() }
        });
        let _ = interims.queue.try_send(job);
    }

    /// Discards interim results that are not sent yet: the final one follows.
    pub(super) fn discard_interims(&mut self) {
        self.interims = None;
    }
}

fn listener(call: &Context) -> Listener<'_> {
    Listener {
        workers: call.services.media.workers(),
        recognisers: &call.services.recognisers,
        mailbox: &call.mailbox,
        journal: &call.journal,
        tasks: &call.services.tasks,
        account: &call.view.setup.parent_account,
    }
}

async fn tell_in_order(notifier: Notifier, mut jobs: mpsc::Receiver<CallbackJob>) {
    while let Some(job) = jobs.recv().await {
        notifier.deliver(&job).await;
    }
}
