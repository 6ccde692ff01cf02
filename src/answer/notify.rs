//! Sends callbacks that nothing waits for: in order for each call and URL, few at once to each host, so that a
//! dead endpoint delays no other (R4).
//!
//! First the attempts that the URL's fragment allows, then, for notices worth it, those of `schedule`. A host
//! with work has one task, its lane, which ends with its last notice. All in memory: what must survive the
//! process is the outbox's business, which learns of each outcome through the [`Observer`].

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::ask::{Question, Tried};
use super::dice::Dice;
use super::fragment::Settings;
use super::sign::SigningKeys;
use super::{params, schedule};
use crate::call::machine::{Notice, NoticeKind};
use crate::clock::Clock;
use crate::egress::{CustomerUrl, Egress, Want};
use crate::model::CallUuid;
use crate::observe::names;

/// A notice to be sent.
#[derive(Clone, Debug)]
pub struct NoticeJob {
    pub call: CallUuid,
    pub notice: Notice,
    pub keys: SigningKeys,
    /// The same on every attempt.
    pub event_id: Uuid,
}

/// What became of a notice, for now or for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoticeOutcome {
    /// A 2xx.
    Delivered { status: u16 },
    /// Not this time; tried again after that pause.
    Retry { why: String, after: Duration },
    /// Given up.
    Failed { why: String },
}

impl NoticeOutcome {
    /// `outcome` of `offhook_callback_total`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Delivered { .. } => names::delivery::DELIVERED,
            Self::Retry { .. } => names::delivery::RETRY,
            Self::Failed { .. } => names::delivery::FAILED,
        }
    }
}

/// One outcome of one notice.
#[derive(Debug)]
pub struct NoticeReport<'a> {
    pub job: &'a NoticeJob,
    /// Attempts made so far.
    pub attempts: u32,
    pub outcome: NoticeOutcome,
}

/// Told of every outcome. Called on a worker: must not block.
pub type Observer = Arc<dyn Fn(&NoticeReport<'_>) + Send + Sync>;

/// How much a [`Notifier`] takes on.
#[derive(Clone, Copy, Debug)]
pub struct NotifierLimits {
    /// Notices held, waiting ones included.
    pub held: usize,
    /// Of these, for one host.
    pub held_per_host: usize,
    /// Requests at once to one host.
    pub at_once_per_host: usize,
}

impl Default for NotifierLimits {
    fn default() -> Self {
        Self { held: 50_000, held_per_host: 20_000, at_once_per_host: 32 }
    }
}

/// Takes notices and sends them; cheap to clone.
#[derive(Clone)]
pub struct Notifier(Arc<Inner>);

struct Inner {
    egress: Egress,
    clock: Clock,
    dice: Dice,
    observer: Observer,
    limits: NotifierLimits,
    room: Arc<Semaphore>,
    /// Lanes with work, by origin.
    lanes: Mutex<HashMap<String, Inbox>>,
    tasks: TaskTracker,
    draining: CancellationToken,
    aborted: CancellationToken,
}

struct Inbox {
    jobs: mpsc::Sender<Pending>,
    room: Arc<Semaphore>,
}

/// A notice on its way.
struct Pending {
    job: Arc<NoticeJob>,
    url: CustomerUrl,
    attempts: u32,
    /// Retries of the schedule begun, and the time waited for them.
    retries: u32,
    waited: Duration,
    _room: [OwnedSemaphorePermit; 2],
}

impl Notifier {
    pub fn new(egress: Egress, clock: Clock, dice: Dice, observer: Observer, limits: NotifierLimits) -> Self {
        Self(Arc::new(Inner {
            egress,
            clock,
            dice,
            observer,
            limits,
            room: Arc::new(Semaphore::new(limits.held)),
            lanes: Mutex::default(),
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            aborted: CancellationToken::new(),
        }))
    }

    /// Takes a notice; returns at once. What cannot be taken (a refused URL, a full queue) is reported as failed.
    pub fn send(&self, job: NoticeJob) {
        let job = Arc::new(job);
        if let Err(why) = self.0.accept(job.clone()) {
            self.0.report(&job, 0, NoticeOutcome::Failed { why });
        }
    }

    /// Notices not yet delivered or given up.
    pub fn held(&self) -> usize {
        self.0.limits.held - self.0.room.available_permits()
    }

    /// Gives every notice held one more round of attempts now, whatever its schedule, and waits for that until
    /// `deadline` is over. Returns how many were cut off by it. Call it when nobody sends any more.
    pub async fn drain(&self, deadline: Duration) -> usize {
        self.0.draining.cancel();
        self.0.tasks.close();
        if timeout(deadline, self.0.tasks.wait()).await.is_ok() {
            return 0;
        }
        let left = self.held();
        self.0.aborted.cancel();
        self.0.tasks.wait().await;
        left
    }
}

impl Inner {
    fn accept(self: &Arc<Self>, job: Arc<NoticeJob>) -> Result<(), String> {
        let url = self.egress.url(&job.notice.url.0).map_err(|refusal| refusal.to_string())?;
        let full = |_| "the queue of notices is full".to_owned();
        let total = self.room.clone().try_acquire_owned().map_err(full)?;
        let origin = url.origin();
        let mut lanes = self.lanes();
        let lane = lanes.entry(origin).or_insert_with_key(|origin| Lane::open(self, origin));
        let own = lane.room.clone().try_acquire_owned().map_err(full)?;
        let pending = Pending { job, url, attempts: 0, retries: 0, waited: Duration::ZERO, _room: [total, own] };
        lane.jobs.try_send(pending).map_err(|_| "the queue of notices is gone".to_owned())
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<String, Inbox>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, job: &NoticeJob, attempts: u32, outcome: NoticeOutcome) {
        let kind = job.notice.kind.as_str();
        metrics::counter!(names::CALLBACK_TOTAL, "kind" => kind, "outcome" => outcome.as_str()).increment(1);
        match &outcome {
            NoticeOutcome::Delivered { status } => {
                tracing::debug!(call_uuid = %job.call, kind, attempts, status, "a callback was delivered");
            }
            NoticeOutcome::Retry { why, after } => {
                tracing::info!(call_uuid = %job.call, kind, attempts, why, ?after, "a callback will be tried again");
            }
            NoticeOutcome::Failed { why } => {
                tracing::warn!(call_uuid = %job.call, kind, attempts, why, "a callback was given up");
            }
        }
        (self.observer)(&NoticeReport { job, attempts, outcome });
    }

    /// The attempts of one stage: all that the fragment allows at first, a single one in a retry of the schedule.
    async fn ask(&self, job: &NoticeJob, url: &CustomerUrl, before: u32) -> Tried {
        let (mut settings, passed_over) = Settings::of(url.fragment());
        if before > 0 {
            settings.retries = 0;
        } else if !passed_over.is_empty() {
            tracing::info!(?passed_over, call_uuid = %job.call, "settings in a URL's fragment are not as they should be");
        }
        let question = Question {
            url,
            method: job.notice.method,
            pairs: &params::pairs(&job.notice.params),
            keys: &job.keys,
            event_id: job.event_id,
            accept: "*/*",
            want: Want::Nothing,
        };
        question.ask(&self.egress, &self.dice, &settings, before).await
    }

    /// What an outcome of the attempts means for the notice.
    fn judge(&self, pending: &Pending, tried: Tried) -> NoticeOutcome {
        let (why, passing, asked) = match tried.outcome {
            Ok(answer) if answer.status.is_success() => {
                return NoticeOutcome::Delivered { status: answer.status.as_u16() };
            }
            Ok(answer) => {
                let asked = schedule::retry_after(&answer.headers, self.clock.wall());
                (format!("the answer was {}", answer.status.as_u16()), schedule::is_passing(answer.status), asked)
            }
            Err(error) => (format!("could not {error}"), schedule::is_network(&error), None),
        };
        let again = passing && is_lasting(pending.job.notice.kind) && !self.draining.is_cancelled();
        let pause = again.then(|| schedule::next_pause(pending.retries + 1, pending.waited, asked, &self.dice));
        match pause.flatten() {
            Some(after) => NoticeOutcome::Retry { why, after },
            None => NoticeOutcome::Failed { why },
        }
    }
}

/// Whether a notice is still worth delivering later (`plivo-callbacks.md` §4.3).
fn is_lasting(kind: NoticeKind) -> bool {
    match kind {
        NoticeKind::Hangup => true,
        NoticeKind::Action | NoticeKind::Dial => false,
    }
}

/// What is delivered in order: the notices of one call to one URL.
type Stream = (CallUuid, Arc<str>);

/// One host's queue.
struct Lane {
    inner: Arc<Inner>,
    origin: String,
    inbox: mpsc::Receiver<Pending>,
    /// Never empty ones; only the first notice of each is being worked on.
    streams: HashMap<Stream, VecDeque<Pending>>,
    /// Streams whose first notice may be sent.
    ready: VecDeque<Stream>,
    tasks: JoinSet<Step>,
    /// Which stream a request is for, also when its task panics.
    requests: HashMap<Id, Stream>,
}

/// What a lane's task came back with.
enum Step {
    Asked(Tried),
    /// The pause before a retry is over.
    Due(Stream),
}

impl Lane {
    fn open(inner: &Arc<Inner>, origin: &str) -> Inbox {
        let (jobs, inbox) = mpsc::channel(inner.limits.held_per_host.max(1));
        let lane = Self {
            inner: inner.clone(),
            origin: origin.to_owned(),
            inbox,
            streams: HashMap::new(),
            ready: VecDeque::new(),
            tasks: JoinSet::new(),
            requests: HashMap::new(),
        };
        let aborted = inner.aborted.clone();
        inner.tasks.spawn(async move { aborted.run_until_cancelled_owned(lane.run()).await });
        Inbox { jobs, room: Arc::new(Semaphore::new(inner.limits.held_per_host)) }
    }

    async fn run(mut self) {
        loop {
            while self.requests.len() < self.inner.limits.at_once_per_host {
                let Some(stream) = self.ready.pop_front() else { break };
                self.begin(stream);
            }
            if self.streams.is_empty() && self.retired() {
                return;
            }
            tokio::select! {
                Some(pending) = self.inbox.recv() => self.take(pending),
                Some(ended) = self.tasks.join_next_with_id() => self.step(ended),
                else => return,
            }
        }
    }

    /// Closes an idle lane. Under the lock that senders hold, so that nothing falls between.
    fn retired(&mut self) -> bool {
        let mut lanes = self.inner.lanes();
        if self.inbox.is_empty() {
            lanes.remove(&self.origin);
        }
        self.inbox.is_empty()
    }

    fn take(&mut self, pending: Pending) {
        let stream = (pending.job.call, pending.job.notice.url.0.clone());
        let queue = self.streams.entry(stream.clone()).or_default();
        if queue.is_empty() {
            self.ready.push_back(stream);
        }
        queue.push_back(pending);
    }

    /// Sends the first notice of a stream.
    fn begin(&mut self, stream: Stream) {
        let Some(pending) = self.streams.get(&stream).and_then(VecDeque::front) else { return };
        let (inner, job, url, before) =
            (self.inner.clone(), pending.job.clone(), pending.url.clone(), pending.attempts);
        let task = self.tasks.spawn(async move { Step::Asked(inner.ask(&job, &url, before).await) });
        self.requests.insert(task.id(), stream);
    }

    fn step(&mut self, ended: Result<(Id, Step), JoinError>) {
        let (id, tried) = match ended {
            Ok((_, Step::Due(stream))) => return self.ready.push_back(stream),
            Ok((id, Step::Asked(tried))) => (id, Some(tried)),
            Err(error) => (error.id(), None),
        };
        let Some(stream) = self.requests.remove(&id) else { return };
        let Some(queue) = self.streams.get_mut(&stream) else { return };
        let Some(pending) = queue.front_mut() else { return };
        let outcome = match tried {
            Some(tried) => {
                pending.attempts = tried.attempts;
                self.inner.judge(pending, tried)
            }
            None => NoticeOutcome::Failed { why: "a fault of ours ended the attempt".to_owned() },
        };
        self.inner.report(&pending.job, pending.attempts, outcome.clone());
        if let NoticeOutcome::Retry { after, .. } = outcome {
            pending.retries += 1;
            pending.waited += after;
            let draining = self.inner.draining.clone();
            self.tasks.spawn(async move {
                let _ = draining.run_until_cancelled_owned(sleep(after)).await;
                Step::Due(stream)
            });
            return;
        }
        queue.pop_front();
        if queue.is_empty() {
            self.streams.remove(&stream);
        } else {
            self.ready.push_back(stream);
        }
    }
}
