//! Background work on complete recordings: uploads (`copies`), transcripts (`transcripts`) and the
//! deletion of copies. The pending work is in the store, so it survives a restart; this module
//! reads it and runs a few tasks at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Inner, Recordings};
use crate::answer::PAUSE_MAX;
use model::AuthId;
use store::{RecordingWork, StoreError};

/// Maximum number of concurrent uploads and deletions.
const COPIES_MAX: usize = 4;
/// Maximum number of concurrent transcripts, and of those of one main account. They wait for each other
/// and for live calls at the recognisers.
const TRANSCRIPTS_MAX: usize = 6;
const TRANSCRIPTS_SHARE: usize = 2;
/// Maximum interval between two reads of the store.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Interval after a failed read.
const LOOK_SOON: Duration = Duration::from_secs(5);

/// One unit of work. The same unit never runs twice at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Work {
    Copy(Uuid),
    Remove(String),
    /// A recording and its main account.
    Transcribe(Uuid, AuthId),
}

impl Work {
    /// The main account of a transcript.
    fn account(&self) -> Option<&AuthId> {
        match self {
            Self::Transcribe(_, account) => Some(account),
            Self::Copy(_) | Self::Remove(_) => None,
        }
    }
}

/// Running tasks.
#[derive(Default)]
struct RunningWork {
    tasks: JoinSet<()>,
    work: Vec<(Id, Work)>,
}

impl RunningWork {
    /// Starts a task unless it is already running, or the limit of its kind is reached, for all or for
    /// the account.
    fn begin(&mut self, work_ready: Work, work: impl Future<Output = ()> + Send + 'static) {
        let (most, share) = match work_ready {
            Work::Transcribe(..) => (TRANSCRIPTS_MAX, TRANSCRIPTS_SHARE),
            Work::Copy(_) | Work::Remove(_) => (COPIES_MAX, COPIES_MAX),
        };
        let account = work_ready.account();
        let others = self.work.iter().map(|(_, other)| other.account());
        let alike = others.clone().filter(|other| other.is_some() == account.is_some()).count();
        let own = others.filter(|other| *other == account).count();
        let is_running = self.work.iter().any(|(_, other)| *other == work_ready);
        if alike < most && own < share && !is_running {
            let task = self.tasks.spawn(work);
            self.work.push((task.id(), work_ready));
        }
    }

    /// Waits until a task ends. Never returns without a task.
    async fn one_is_over(&mut self) {
        let over = match self.tasks.join_next_with_id().await {
            Some(over) => over.as_ref().map_or_else(JoinError::id, |(id, ())| *id),
            None => std::future::pending().await,
        };
        self.work.retain(|(id, _)| *id != over);
    }
}

impl Recordings {
    /// Runs background work until `stop`. Interrupted tasks are repeated after the next start.
    pub async fn run_background_work(self, stop: CancellationToken) {
        self.0.bring_forward().await;
        let mut under_way = RunningWork::default();
        loop {
            let wait = self.0.begin_background_work(&mut under_way).await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = under_way.one_is_over() => {}
                () = self.0.work_ready.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}

impl Inner {
    /// Makes work due that was postponed while the system's clock was ahead of today's time.
    async fn bring_forward(&self) {
        let now = self.clock.wall();
        let latest = now.plus(PAUSE_MAX);
        match self.store.recordings().bring_forward(&self.node_id, latest, now).await {
            Ok(0) => {}
            Ok(items) => tracing::warn!(
                items,
                "uploads, transcriptions and deletions of recordings made due now: they were \
                 postponed while the clock was ahead"
            ),
            Err(error) => tracing::warn!(%error, "due times of recording work not checked"),
        }
    }

    /// Starts as many tasks as the limits allow. Returns how long to wait before the next read.
    async fn begin_background_work(self: &Arc<Self>, under_way: &mut RunningWork) -> Duration {
        let now = self.clock.wall();
        let limit = u32::try_from(TRANSCRIPTS_MAX + under_way.work.len()).unwrap_or(u32::MAX);
        let work = match self.store.recordings().work(&self.node_id, now, limit).await {
            Ok(work) => work,
            Err(error) => {
                tracing::warn!(%error, "reading pending recording work failed");
                return LOOK_SOON;
            }
        };
        let RecordingWork { copies: to_copy, objects, transcripts, next } = work;
        if let Some(copies) = &self.copies {
            for recording in to_copy {
                let (inner, copies) = (self.clone(), copies.clone());
                let work_ready = Work::Copy(recording.id);
                under_way.begin(work_ready, async move { inner.copy(&copies, recording).await });
            }
            for (object, tries) in objects {
                let (inner, copies) = (self.clone(), copies.clone());
                let work_ready = Work::Remove(object.clone());
                under_way.begin(work_ready, async move {
                    inner.delete_copy(&copies, object, tries).await
                });
            }
        }
        for work in transcripts {
            let inner = self.clone();
            let work_ready = Work::Transcribe(work.start.id, work.start.main_account.clone());
            under_way.begin(work_ready, async move { inner.transcribe(work).await });
        }
        next.map_or(LOOK_AGAIN, |next| next.since(now)).min(LOOK_AGAIN)
    }

    /// Handles a result that could not be stored: pauses, since the work will be repeated.
    pub(super) async fn not_written(&self, error: &StoreError) {
        tracing::warn!(%error, "result of recording work not stored, work will be repeated");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
