//! What a call does with speech: hearing its caller, and telling the application what it sounds like so far.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::Instrument as _;

use super::{Media, Shell};
use crate::answer::{Hops, NoticeJob, Notifier};
use crate::call::hearing::{Hearing, Listener};
use machine::{CallbackRequest, Input, RecognitionId, SpeechCommand, SpeechEvent};

/// Interim results that wait for the one before them: a second's. Those past them are stale before they could go out.
const INTERIMS: usize = 5;

/// Interim results on their way, in order, each tried once. Dropping it takes back those that have not gone out.
pub(super) struct Interims {
    queue: mpsc::Sender<NoticeJob>,
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
                // The one before it is stopped.
                self.hearing = None;
                let recognisers = &self.services.recognisers;
                if !recognisers.can_recognise(&how.language) {
                    self.mailbox
                        .tell(Input::Speech { recognition, event: SpeechEvent::Unavailable });
                } else if let Media::Leg(leg) = &self.media {
                    let listener = Listener {
                        workers: self.services.media.workers(),
                        recognisers,
                        mailbox: &self.mailbox,
                        tasks: &self.services.tasks,
                    };
                    self.hearing = Some(Hearing::begin(recognition, *how, leg, &listener));
                }
            }
            SpeechCommand::Finish => {
                if let Some(hearing) =
                    self.hearing.as_ref().filter(|hearing| hearing.is(recognition))
                {
                    hearing.finish();
                }
            }
            SpeechCommand::Stop => drop(self.hearing.take_if(|hearing| hearing.is(recognition))),
        }
    }

    /// Sends an interim result. It is worth nothing later, so the outbox has no part in it.
    pub(super) fn interim(&mut self, notice: CallbackRequest) {
        let job = NoticeJob {
            call: self.call,
            notice,
            keys: self.keys.clone(),
            secrets: std::sync::Arc::default(),
            event_id: self.services.uuid(),
            attempts: 0,
            // As if it were a later stage: one attempt, whatever the URL's fragment says (`plivo-callbacks.md` §3.1).
            retries: 1,
            age: Duration::ZERO,
            hops: Hops::new(),
        };
        let (notifier, tasks) = (&self.services.notifier, &self.services.tasks);
        let interims = self.interims.get_or_insert_with(|| {
            let (queue, jobs) = mpsc::channel(INTERIMS);
            let task = tasks.spawn(tell_in_order(notifier.clone(), jobs).in_current_span());
            Interims { queue, task: task.abort_handle() }
        });
        let _ = interims.queue.try_send(job);
    }
}

async fn tell_in_order(notifier: Notifier, mut jobs: mpsc::Receiver<NoticeJob>) {
    while let Some(job) = jobs.recv().await {
        notifier.deliver(&job).await;
    }
}
