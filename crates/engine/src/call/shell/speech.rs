//! Speech recognition of a call, and interim results for the application.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::Instrument as _;

use super::context::Context;
use crate::answer::{CallbackJob, Hops, Notifier};
use crate::call::hearing::{Hearing, Listener};
use machine::{CallbackRequest, Input, RecognitionId, SpeechCommand, SpeechEvent};
use media::LegHandle;

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
                if !recognisers.can_recognise(&how.language) {
                    call.tell(Input::Speech { recognition, event: SpeechEvent::Unavailable });
                } else if let Some(leg) = leg {
                    let listener = Listener {
                        workers: call.services.media.workers(),
                        recognisers,
                        mailbox: &call.mailbox,
                        journal: &call.journal,
                        tasks: &call.services.tasks,
                    };
                    self.hearing = Some(Hearing::begin(recognition, *how, leg, &listener));
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

    /// Whether speech is being recognised.
    pub(super) fn is_running(&self) -> bool {
        self.hearing.is_some()
    }

    /// Sends an interim result. It is useless later, so it bypasses the outbox.
    pub(super) fn send_interim(&mut self, call: &Context, notice: CallbackRequest) {
        let job = CallbackJob {
            call: call.id,
            notice,
            keys: call.keys.clone(),
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

async fn tell_in_order(notifier: Notifier, mut jobs: mpsc::Receiver<CallbackJob>) {
    while let Some(job) = jobs.recv().await {
        notifier.deliver(&job).await;
    }
}
