//! What is to be done about complete recordings: copied (`copies`), written down (`transcripts`), taken away elsewhere. It
//! stands in the store, so that a restart forgets nothing; here it is found and carried out, some at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Inner, Recordings};
use store::{RecordingWork, StoreError};

/// Files on their way, and objects being taken away, at a time.
const COPIES_MAX: usize = 4;
/// Recordings being written down: live calls want recognisers too.
const TRANSCRIPTS_MAX: usize = 2;
/// The longest time until the store is asked again.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// The same where the store gave no answer.
const LOOK_SOON: Duration = Duration::from_secs(5);

/// One errand, which is run once at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Errand {
    Copy(Uuid),
    Remove(String),
    WriteDown(Uuid),
}

/// Those under way.
#[derive(Default)]
struct UnderWay {
    tasks: JoinSet<()>,
    errands: Vec<(Id, Errand)>,
}

impl UnderWay {
    /// Begins one, if there is room for its kind and it is not under way.
    fn begin(&mut self, errand: Errand, work: impl Future<Output = ()> + Send + 'static) {
        let is_transcript = |errand: &Errand| matches!(errand, Errand::WriteDown(_));
        let most = if is_transcript(&errand) { TRANSCRIPTS_MAX } else { COPIES_MAX };
        let alike = self
            .errands
            .iter()
            .filter(|(_, other)| is_transcript(other) == is_transcript(&errand))
            .count();
        if alike < most && self.errands.iter().all(|(_, other)| *other != errand) {
            let task = self.tasks.spawn(work);
            self.errands.push((task.id(), errand));
        }
    }

    /// Waits until one is over; for ever, where there is none.
    async fn one_is_over(&mut self) {
        let over = match self.tasks.join_next_with_id().await {
            Some(over) => over.as_ref().map_or_else(JoinError::id, |(id, ())| *id),
            None => std::future::pending().await,
        };
        self.errands.retain(|(id, _)| *id != over);
    }
}

impl Recordings {
    /// Does what is to be done until the node stops. What is cut off then is done once more.
    pub async fn run_errands(self, stop: CancellationToken) {
        let mut under_way = UnderWay::default();
        loop {
            let wait = self.0.begin_errands(&mut under_way).await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = under_way.one_is_over() => {}
                () = self.0.errand.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}

impl Inner {
    /// Takes on as much as there is room for; gives how long there is nothing else to look for.
    async fn begin_errands(self: &Arc<Self>, under_way: &mut UnderWay) -> Duration {
        let now = self.clock.wall();
        let limit = u32::try_from(COPIES_MAX + under_way.errands.len()).unwrap_or(u32::MAX);
        let work = match self.store.recordings().work(&self.node_id, now, limit).await {
            Ok(work) => work,
            Err(error) => {
                tracing::warn!(%error, "what is to be done about recordings is not known; asking again");
                return LOOK_SOON;
            }
        };
        let RecordingWork { copies: to_copy, objects, transcripts, next } = work;
        if let Some(copies) = &self.copies {
            for recording in to_copy {
                let (inner, copies) = (self.clone(), copies.clone());
                let errand = Errand::Copy(recording.id);
                under_way.begin(errand, async move { inner.copy(&copies, recording).await });
            }
            for (object, tries) in objects {
                let (inner, copies) = (self.clone(), copies.clone());
                let errand = Errand::Remove(object.clone());
                under_way.begin(errand, async move {
                    inner.take_copy_away(&copies, object, tries).await
                });
            }
        }
        for work in transcripts {
            let inner = self.clone();
            let errand = Errand::WriteDown(work.start.id);
            under_way.begin(errand, async move { inner.write_down(work).await });
        }
        next.map_or(LOOK_AGAIN, |next| next.since(now)).min(LOOK_AGAIN)
    }

    /// What became of an errand is not in the store: it is run once more, and not at once.
    pub(super) async fn not_written(&self, error: &StoreError) {
        tracing::warn!(%error, "what became of an errand about a recording is not written; it is run once more");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
