//! Recordings: files, rows, callbacks and deletion. See `docs/reference/xml.md#record` and
//! `docs/reference/reliability.md#r21`.
//!
//! `media::record` writes the audio. This module manages the row of a recording, its callbacks, its
//! deletion and its retention. However a recording ends (a key, a hang-up, a full disk, a killed
//! node), its row is completed once, in the same transaction as its callbacks. Background work on
//! complete recordings runs in `work`: `copies` uploads files, and `transcripts` transcribes
//! them. [`DiskSpace`] limits what they use of the disk.

mod copies;
mod transcripts;
mod unlisted;
mod utterances;
mod work;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

pub use copies::Copies;

use super::outbox::Outbox;
use crate::answer::{RandomSource, SigningKeys};
use crate::disk_space::{Content, DiskSpace};
use crate::links::LinkSigner;
use machine::{
    CallbackKind, CallbackRequest, Param, RecordingEndReason, RecordingEvent, RecordingOrder,
    recording_params,
};
use media::record::{
    self, Format, Recorder, RecordingHandle, RecordingOptions, RecordingState, RepairOutcome,
    Source,
};
use model::Clock;
use model::{AuthId, CallUuid, Digit, Timestamp};
use speech::recognise::Recognisers;
use store::{
    NewCallback, Recording, RecordingConclusion, RecordingEnd, RecordingStart, Scope, Store,
    StoreError,
};

/// Name of the directory in `store.data_dir`.
const FOLDER: &str = "recordings";
/// Rows per read, and files that are looked at together.
const AT_ONCE: u32 = 500;
/// Timeout for a call to report whether it requests the action URL itself. The call has already
/// received the end of the recording by then.
const CALL_ANSWERS: Duration = Duration::from_secs(5);

/// Configuration of recordings.
pub struct RecordingsConfig {
    /// `store.data_dir`.
    pub data_dir: PathBuf,
    /// `public.base_url` without a trailing slash.
    pub base_url: String,
    pub node_id: String,
    /// Number of threads that write files.
    pub threads: usize,
    /// The bucket for copies, if configured.
    pub copies: Option<Copies>,
    /// Speech recognisers for transcripts.
    pub recognisers: Recognisers,
    /// Validity of a download link. `None` means forever.
    pub link_lifetime: Option<Duration>,
    pub space: Arc<DiskSpace>,
}

/// The recordings of a node. Cheap to clone.
#[derive(Clone)]
pub struct Recordings(Arc<Inner>);

struct Inner {
    recorder: Recorder,
    /// When this process began.
    started: Timestamp,
    space: Arc<DiskSpace>,
    base_url: String,
    /// Signs links of limited validity. `None` if links are valid forever.
    links: Option<(LinkSigner, Duration)>,
    node_id: String,
    store: Store,
    outbox: Outbox,
    clock: Clock,
    random: RandomSource,
    copies: Option<Arc<Copies>>,
    recognisers: Recognisers,
    /// Wakes the background work on complete recordings.
    work_ready: Notify,
    /// Tracks background tasks. The node waits for it at shutdown.
    tasks: TaskTracker,
    runtime: Handle,
}

/// A recording to start.
pub struct RecordingRequest {
    pub id: Uuid,
    /// When the recording began.
    pub started: Timestamp,
    /// Where the recording continues, if another process has begun it.
    pub state: Option<RecordingState>,
    /// The owner of the recording and its main account.
    pub account: AuthId,
    pub main_account: AuthId,
    pub call: CallUuid,
    /// The room, if a room is recorded.
    pub room: Option<RecordedRoom>,
    pub order: RecordingOrder,
    /// Signing keys for the callbacks, if the account is deleted meanwhile.
    pub keys: SigningKeys,
    /// How the action URL is requested, if the call may do that itself.
    pub action: Option<ActionHandover>,
    /// Returns when the call was answered, or `None`. Called at the end of the recording, which may
    /// begin before the answer.
    pub answered: Box<dyn Fn() -> Option<Timestamp> + Send>,
    /// Returns whether the call is live. A room's recording may end before its call.
    pub is_up: Box<dyn Fn() -> bool + Send>,
}

/// The room that is recorded.
pub struct RecordedRoom {
    pub id: Uuid,
    pub name: String,
    /// `true` for a multi-party call, `false` for a conference.
    pub multi_party: bool,
}

/// Decides whether the call requests the action URL. Otherwise it is sent as a callback when the
/// recording ends.
pub struct ActionHandover {
    /// Receives a message if the call requests the URL, or if the request is not wanted. Closed
    /// without a message if the call ended first.
    pub by_call: oneshot::Receiver<()>,
    /// The key that ended the recording.
    pub key: Arc<OnceLock<Digit>>,
}

impl Recordings {
    /// Starts the recorder's threads. Background work runs on the current runtime and is tracked by
    /// `tasks`.
    ///
    /// # Errors
    /// Fails if the directory or a thread cannot be created.
    pub fn start(
        config: RecordingsConfig,
        store: Store,
        outbox: Outbox,
        clock: Clock,
        random: RandomSource,
        tasks: TaskTracker,
    ) -> std::io::Result<Self> {
        let RecordingsConfig {
            data_dir,
            base_url,
            node_id,
            threads,
            copies,
            recognisers,
            link_lifetime,
            space,
        } = config;
        let links = link_lifetime.map(|valid| (LinkSigner::new(store.link_key()), valid));
        let folder = data_dir.join(FOLDER);
        let recorder = Recorder::start(&folder, threads)?;
        let runtime = Handle::current();
        let (copies, work_ready) = (copies.map(Arc::new), Notify::new());
        Ok(Self(Arc::new(Inner {
            recorder,
            started: clock.wall(),
            space,
            base_url,
            links,
            node_id,
            store,
            outbox,
            clock,
            random,
            copies,
            recognisers,
            work_ready,
            tasks,
            runtime,
        })))
    }

    /// Returns a download URL of a recording, existing or future. It is valid for
    /// `recordings.link_days` from now on, up to the end of the day.
    pub fn url(&self, id: Uuid, format: &str) -> String {
        self.0.url(id, format)
    }

    /// The path of [`Recordings::url`] with its query.
    pub fn path(&self, id: Uuid, format: &str) -> String {
        self.0.path(id, format)
    }

    /// Whether a link with this query is valid now. `until` is in Unix seconds.
    pub fn is_valid_link(&self, id: Uuid, format: &str, until: Option<i64>, tag: &str) -> bool {
        let Some((links, _)) = &self.0.links else { return true };
        until.is_some_and(|until| {
            links.is_valid(&linked(id, format), until, tag, self.0.clock.wall())
        })
    }

    /// The directory of the recordings.
    pub fn folder(&self) -> &Path {
        self.0.recorder.folder()
    }

    /// Whether a recogniser for transcripts is configured.
    pub fn can_transcribe(&self) -> bool {
        self.0.recognisers.can_recognise(self.0.recognisers.transcript_language())
    }

    /// The copies in a bucket, if configured.
    pub fn copies(&self) -> Option<&Copies> {
        self.0.copies.as_deref()
    }

    /// Number of running recordings.
    pub fn len(&self) -> usize {
        self.0.recorder.len()
    }

    /// Whether no recording is running.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Starts or continues a recording of `source`. `report` is called on a recorder thread when the
    /// file is complete.
    ///
    /// # Errors
    /// Returns a message if the recorder has no capacity. `report` is not called then.
    pub fn begin(
        &self,
        taking: RecordingRequest,
        source: Box<dyn Source>,
        report: impl FnOnce(RecordingEvent) + Send + 'static,
    ) -> Result<RecordingHandle, &'static str> {
        let RecordingRequest {
            id,
            started,
            state,
            account,
            main_account,
            call,
            room,
            order,
            keys,
            action,
            answered,
            is_up,
        } = taking;
        let format = Format::of(order.mp3);
        let start = RecordingStart {
            id,
            account,
            main_account,
            call,
            room: room.as_ref().map(|room| room.id),
            multi_party: room.as_ref().is_some_and(|room| room.multi_party),
            conference: room.map(|room| room.name),
            format: format.as_str().to_owned(),
            stereo: order.stereo,
            node_id: self.0.node_id.clone(),
            started,
            // The action after a hang-up goes first: most applications wait for it.
            notices: order.action.into_iter().chain(order.callback).collect(),
            transcript: order.transcript,
        };
        let how = RecordingOptions {
            id,
            format,
            stereo: order.stereo,
            max: Duration::from_millis(order.max_ms),
            silence: order.silence_ms.map(Duration::from_millis),
        };
        let (inner, begun) = (self.0.clone(), start.clone());
        let (row_is_queued, queued) = oneshot::channel::<()>();
        let done = move |what: record::RecordingResult| {
            if let Some(why) = &what.failure {
                tracing::warn!(recording = %begun.id, call_uuid = %begun.call, %why, "recording failed");
            }
            let remark = what.failure.as_deref().map(|why| failed_late(why, what.duration_ms));
            report(RecordingEvent::Ended {
                reason: what.end,
                duration_ms: what.duration_ms,
                start_ms: millis(begun.started),
                end_ms: millis(begun.started).saturating_add_unsigned(what.duration_ms),
                error: what.failure,
            });
            let runtime = inner.runtime.clone();
            let up = is_up();
            let (tasks, standing) = (inner.tasks.clone(), (answered(), up));
            // A live call receives the failure and adds the remark itself.
            let late = remark.filter(|_| !up);
            let work = async move {
                let action = Action::of(action).await;
                // Otherwise the row of a recording that fails at once would be written after it was
                // deleted.
                let _ = queued.await;
                if let Some(text) = late {
                    inner.store.calls().add_remark(begun.call, text);
                }
                inner
                    .conclude(begun, what.end, what.duration_ms, (action, standing), Some(keys))
                    .await;
            };
            tasks.spawn_on(work, &runtime);
        };
        let is_new = state.is_none();
        let mut file = self.0.space.file(Content::Recording, start.main_account.clone());
        let space = Box::new(move |bytes| file.grow(bytes));
        let tape = self.0.recorder.start_recording(how, state, source, space, Box::new(done))?;
        if is_new {
            self.0.store.recordings().begin(start);
        }
        drop(row_is_queued);
        Ok(tape)
    }

    /// Completes the recordings that an earlier process of this node left open: repairs their
    /// files, completes their rows and sends their callbacks. Unfinished files without such a row are
    /// deleted. Those in `kept` are continued.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub async fn recover(&self, kept: &HashSet<Uuid>) -> Result<(), StoreError> {
        self.move_listed_back().await;
        let mut left = self.0.store.recordings().unfinished(&self.0.node_id).await?;
        left.retain(|start| !kept.contains(&start.id));
        let count = left.len();
        for start in left {
            let format = Format::from_name(&start.format).unwrap_or(Format::Wav);
            let (end, duration_ms) = match record::repair(
                self.folder(),
                start.id,
                format,
                start.stereo,
            ) {
                Ok(RepairOutcome::Repaired { duration_ms }) => {
                    (RecordingEndReason::HungUp, duration_ms)
                }
                Ok(RepairOutcome::Nothing) => (RecordingEndReason::Failed, 0),
                Err(error) => {
                    tracing::error!(recording = %start.id, %error, "repairing an interrupted recording failed");
                    (RecordingEndReason::Failed, 0)
                }
            };
            self.0
                .conclude(start, end, duration_ms, (Action::Due { key: None }, (None, false)), None)
                .await;
        }
        if count > 0 {
            tracing::warn!(recordings = count, "completed interrupted recordings");
        }
        let files = record::list_unfinished(self.folder()).unwrap_or_default();
        let ids: Vec<Uuid> = files.iter().map(|(id, _)| *id).collect();
        // Those of another `cluster.node_id`, which this node may have had before.
        let others = self.0.store.recordings().unfinished_among(&ids).await?;
        for (id, format) in files {
            if !kept.contains(&id) && !others.contains(&id) {
                self.0.unlink(id, format);
            }
        }
        Ok(())
    }

    /// Reports recordings of this owner that are in progress as failed, because their files were on
    /// the disk of a lost node.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub async fn give_up(&self, ids: &[Uuid]) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let left = self.0.store.recordings().unfinished(&self.0.node_id).await?;
        for start in left.into_iter().filter(|start| ids.contains(&start.id)) {
            self.0
                .conclude(
                    start,
                    RecordingEndReason::Failed,
                    0,
                    (Action::Due { key: None }, (None, false)),
                    None,
                )
                .await;
        }
        Ok(())
    }

    /// Deletes a recording. Returns `false` if it does not exist in the scope.
    ///
    /// # Errors
    /// Returns an error if the store fails, or if the file cannot be deleted. Nothing has changed
    /// in the latter case.
    pub async fn remove(&self, scope: &Scope, id: Uuid) -> Result<bool, StoreError> {
        let Some(recording) = self.0.store.recordings().get(scope, id).await? else {
            return Ok(false);
        };
        self.0.delete_all(&[recording]).await?;
        Ok(true)
    }

    /// Deletes the file of a recording on the disk of this node. Returns `false` if that failed.
    pub fn remove_own_file(&self, id: Uuid, format: &str) -> bool {
        Format::from_name(format).is_none_or(|format| self.0.unlink(id, format))
    }

    /// Deletes recordings that began before `before` (`retention.recording_days`).
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub async fn expire(&self, before: Timestamp) -> Result<(), StoreError> {
        if let Err(error) = self.expire_unlisted(before).await {
            tracing::warn!(%error, "deleting expired unlisted recordings failed; retrying in an hour");
        }
        loop {
            let old = self.0.store.recordings().older_than(before, AT_ONCE).await?;
            if old.is_empty() {
                return Ok(());
            }
            self.0.delete_all(&old).await?;
            tracing::info!(recordings = old.len(), "expired recordings deleted");
        }
    }

    /// The disk space of the node's files.
    pub fn space(&self) -> &Arc<DiskSpace> {
        &self.0.space
    }

    /// Reads what the complete recordings of each account use. `None` if the store fails.
    pub async fn used_space(&self) -> Option<Vec<(AuthId, u64)>> {
        // So that recordings that have just ended are counted.
        self.0.store.flush().await;
        let with_copied = self.0.copies.as_ref().is_none_or(|copies| copies.keeps_local());
        let used = self.0.store.recordings().used_space(&self.0.node_id, with_copied).await;
        used.inspect_err(|error| {
            tracing::warn!(%error, "counting the space of recordings failed; trying again in a minute");
        })
        .ok()
    }

    /// Ends all running recordings. All files are complete when this returns. Blocks.
    pub fn stop(&self) {
        self.0.recorder.stop();
    }
}

const DAY_SECS: i64 = 86_400;

/// Returns the path of a recording's file that the signatures of its links cover.
fn linked(id: Uuid, format: &str) -> String {
    format!("recording {id}.{format}")
}

impl Inner {
    fn url(&self, id: Uuid, format: &str) -> String {
        format!("{}{}", self.base_url, self.path(id, format))
    }

    fn path(&self, id: Uuid, format: &str) -> String {
        let query = self.links.as_ref().map_or_else(String::new, |(links, valid)| {
            // Rounded up to a day, so that pages which are shown again keep their links.
            let until = self.clock.wall().plus(*valid).secs();
            let until = Timestamp::from_secs((until / DAY_SECS + 1) * DAY_SECS);
            format!("?{}", links.query(&linked(id, format), until))
        });
        format!("/recordings/{}.{format}{query}", id.as_hyphenated())
    }

    /// Completes the row of a recording, or deletes it if nothing was kept, and enqueues its
    /// callbacks.
    async fn conclude(
        &self,
        start: RecordingStart,
        end: RecordingEndReason,
        duration_ms: u64,
        (action, (answered, is_up)): (Action, (Option<Timestamp>, bool)),
        keys: Option<SigningKeys>,
    ) {
        let ended = start.started.plus(Duration::from_millis(duration_ms));
        let url = self.url(start.id, &start.format);
        let notices = start.notices.iter().filter(|notice| is_due(notice, action));
        let params = recording_params(
            start.id,
            &url,
            end,
            duration_ms,
            millis(start.started),
            millis(ended),
        );
        let callbacks = notices.map(|notice| {
            let mut notice = notice.clone();
            notice.params.extend(params.clone());
            // The recording may have been ordered before the call was answered.
            let over = match start.room {
                Some(_) => !is_up,
                None => {
                    !is_up
                        || end == RecordingEndReason::HungUp
                        || notice.kind == CallbackKind::Action
                }
            };
            let status = if over { "completed" } else { "in-progress" };
            notice.params.insert("CallStatus".into(), Param::Plain(status.to_owned().into()));
            if let (CallbackKind::Action, Action::Due { key: Some(key) }) = (notice.kind, action) {
                notice
                    .params
                    .insert("Digits".into(), Param::Plain(key.as_char().to_string().into()));
            }
            if let (None, Some(answered)) = (notice.params.get("AnswerTime"), answered) {
                notice
                    .params
                    .insert("AnswerTime".into(), Param::Plain(answered.plivo_secs().into()));
            }
            self.callback(&start, notice)
        });
        let callbacks = callbacks.collect();
        let id = start.id;
        let mut end = RecordingEnd { ended, duration_ms, end, upload: None, transcribe: None };
        if !end.is_empty() {
            end.upload = self.copies.is_some().then(|| self.clock.wall());
            end.transcribe = start.transcript.is_some().then(|| self.clock.wall());
        }
        match self.store.recordings().conclude(RecordingConclusion { start, end, callbacks }).await
        {
            Ok(written) => {
                self.work_ready.notify_one();
                if keys.is_some() {
                    written.into_iter().for_each(|written| self.outbox.send(written, keys.clone()));
                }
            }
            Err(error) => {
                tracing::error!(%error, recording = %id, "recording end not stored")
            }
        }
    }

    fn callback(&self, start: &RecordingStart, notice: CallbackRequest) -> NewCallback {
        let (high, low) = (self.random.next(), self.random.next());
        let event_id = ((u128::from(high) << 64) | u128::from(low)).to_be_bytes();
        NewCallback {
            event_id: uuid::Builder::from_random_bytes(event_id).into_uuid(),
            call: start.call,
            account: start.account.clone(),
            main_account: start.main_account.clone(),
            node_id: self.node_id.clone(),
            origin: self.outbox.queue(&start.main_account, &notice.url.0),
            notice,
            number_event: None,
            shut: None,
            created: self.clock.steady(),
        }
    }

    /// Deletes files before rows, because a row without a file is found again at once, but a file
    /// without a row only at the next start.
    async fn delete_all(&self, recordings: &[Recording]) -> Result<(), StoreError> {
        let mut gone = Vec::with_capacity(recordings.len());
        for recording in recordings {
            let format = Format::from_name(&recording.format).unwrap_or(Format::Wav);
            if self.unlink(recording.id, format) {
                gone.push(recording.id);
            }
        }
        if gone.is_empty() && !recordings.is_empty() {
            return Err(StoreError::NotTaken);
        }
        self.store.recordings().delete(gone).await?;
        self.work_ready.notify_one();
        Ok(())
    }

    fn unlink(&self, id: Uuid, format: Format) -> bool {
        record::remove(self.recorder.folder(), id, format)
            .inspect_err(
                |error| tracing::warn!(recording = %id, %error, "deleting a recording file failed"),
            )
            .is_ok()
    }
}

/// Returns the remark for the record of a call that ended before its recording failed.
fn failed_late(why: &str, kept_ms: u64) -> String {
    let kept = match kept_ms {
        0 => "nothing of it was kept".to_owned(),
        ms => format!("{}.{} s of it were kept", ms / 1_000, ms % 1_000 / 100),
    };
    format!("a recording could not be completed after the call: {why}; {kept}")
}

/// How the action URL of a recording is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// The call requests the URL, or the request is not wanted.
    Asked,
    /// The URL is requested as a callback, because the call ended first.
    Due { key: Option<Digit> },
}

impl Action {
    async fn of(asked: Option<ActionHandover>) -> Self {
        let Some(ActionHandover { by_call, key }) = asked else { return Self::Due { key: None } };
        match tokio::time::timeout(CALL_ANSWERS, by_call).await {
            Ok(Ok(())) => Self::Asked,
            Ok(Err(_)) | Err(_) => Self::Due { key: key.get().copied() },
        }
    }
}

/// Whether a callback is sent. An action that the call requests itself is not.
fn is_due(notice: &CallbackRequest, action: Action) -> bool {
    match notice.kind {
        CallbackKind::Action => action != Action::Asked,
        CallbackKind::Recording
        | CallbackKind::Hangup
        | CallbackKind::Ring
        | CallbackKind::Dial
        | CallbackKind::Interim
        | CallbackKind::Conference
        | CallbackKind::MultiParty
        | CallbackKind::Stream
        | CallbackKind::Message
        | CallbackKind::Event
        | CallbackKind::Transcription => true,
    }
}

fn millis(at: Timestamp) -> i64 {
    at.micros().div_euclid(1_000)
}
