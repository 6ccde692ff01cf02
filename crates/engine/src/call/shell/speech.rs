//! Speech recognition of a call, and interim results for the application.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::Instrument as _;

use super::{Media, Shell};
use crate::answer::{CallbackJob, Hops, Notifier};
use crate::call::hearing::{Hearing, Listener};
use machine::{CallbackRequest, Input, RecognitionId, SpeechCommand, SpeechEvent};

/// Capacity of the queue of interim results: one second. Further results would be outdated before
/// they are sent.
const INTERIMS: usize = 5;

/// The speech recognition of a call. Replaced by the default, it stops.
#[derive(Default)]
pub(super) struct Recognition {
    hearing: Option<Hearing>,
    /// The interim results that are still to be sent.
    pub(super) interims: Option<Interims>,
}

/// Sends interim results in order, with one attempt each. Dropping the value discards those that
/// are still queued.
pub(super) struct Interims {
    queue: mpsc::Sender<CallbackJob>,
    task: AbortHandle,
}

impl Drop for Interims {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shell {
    pub(super) fn recognise(&mut self, recognition: RecognitionId, order: SpeechCommand) {
        match order {
            SpeechCommand::Begin { settings: how } => {
                // Dropping the previous recognition stops it.
                self.recognition.hearing = None;
                let recognisers = &self.services.recognisers;
                if !recognisers.can_recognise(&how.language) {
                    self.mailbox
                        .tell(Input::Speech { recognition, event: SpeechEvent::Unavailable });
                } else if let Media::Leg(leg) = &self.a_leg.media {
                    let listener = Listener {
                        workers: self.services.media.workers(),
                        recognisers,
                        mailbox: &self.mailbox,
                        tasks: &self.services.tasks,
                    };
                    self.recognition.hearing =
                        Some(Hearing::begin(recognition, *how, leg, &listener));
                }
            }
            SpeechCommand::Finish => {
                if let Some(hearing) =
                    self.recognition.hearing.as_ref().filter(|hearing| hearing.is(recognition))
                {
                    hearing.finish();
                }
            }
            SpeechCommand::Stop => {
                drop(self.recognition.hearing.take_if(|hearing| hearing.is(recognition)))
            }
        }
    }

    /// Sends an interim result. It is useless later, so it bypasses the outbox.
    pub(super) fn interim(&mut self, notice: CallbackRequest) {
        let job = CallbackJob {
            call: self.call,
            notice,
            keys: self.keys.clone(),
            secrets: std::sync::Arc::default(),
            event_id: self.services.uuid(),
            attempts: 0,
            // Counts as a retry, so that exactly one attempt is made whatever the URL's fragment
            // says (`docs/reference/callbacks.md#interim-speech-results`).
            retries: 1,
            age: Duration::ZERO,
            hops: Hops::new(),
        };
        let (notifier, tasks) = (&self.services.notifier, &self.services.tasks);
        let interims = self.recognition.interims.get_or_insert_with(|| {
            let (queue, jobs) = mpsc::channel(INTERIMS);
            let task = tasks.spawn(tell_in_order(notifier.clone(), jobs).in_current_span());
            Interims { queue, task: task.abort_handle() }
        });
        let _ = interims.queue.try_send(job);
    }
}

async fn tell_in_order(notifier: Notifier, mut jobs: mpsc::Receiver<CallbackJob>) {
    while let Some(job) = jobs.recv().await {
        notifier.deliver(&job).await;
    }
}
