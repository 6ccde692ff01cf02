//! Recordings of a node: what is recorded, what becomes of the files, and who is told (`plivo-xml.md` §5.8,
//! `plivo-callbacks.md` §3.4, R21).
//!
//! `media::record` writes the sound; here are a recording's row, its callbacks, its deletion and its age. Whatever ends a
//! recording (a key, a hang-up, a full disk, a node that is killed), its row gets its end once, together with the
//! callbacks that tell it. What is to be done about a complete one (`errands`): `copies` takes it to other storage,
//! `transcripts` has what is said in it (`stretches`) written down.

mod copies;
mod errands;
mod stretches;
mod transcripts;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

pub use copies::Copies;

use super::outbox::Outbox;
use crate::answer::{Dice, SigningKeys};
use machine::{
    CallbackKind, CallbackRequest, Param, RecordingEndReason, RecordingEvent, RecordingOrder,
    recording_params,
};
use media::record::{
    self, Format, Recorder, RecordingHandle, RecordingOptions, RepairOutcome, Source,
};
use model::Clock;
use model::{AuthId, CallUuid, Digit, Timestamp};
use speech::recognise::Recognisers;
use store::{
    NewCallback, Recording, RecordingConclusion, RecordingEnd, RecordingStart, Scope, Store,
    StoreError,
};

/// The folder's name in `store.data_dir`.
const FOLDER: &str = "recordings";
/// Rows looked at together.
const AT_ONCE: u32 = 500;
/// So long a call may take to say what becomes of its recording's action: it has had the fact before.
const CALL_ANSWERS: Duration = Duration::from_secs(5);

/// What recordings need to be told.
pub struct RecordingsConfig {
    /// `store.data_dir`.
    pub data_dir: PathBuf,
    /// `public.base_url`, without a slash at its end.
    pub base_url: String,
    pub node_id: String,
    /// Threads that write files.
    pub threads: usize,
    /// Where complete files are copied to, if they are.
    pub copies: Option<Copies>,
    /// Who writes down what is said.
    pub recognisers: Recognisers,
}

/// Recordings; cheap to clone.
#[derive(Clone)]
pub struct Recordings(Arc<Inner>);

struct Inner {
    recorder: Recorder,
    base_url: String,
    node_id: String,
    store: Store,
    outbox: Outbox,
    clock: Clock,
    dice: Dice,
    copies: Option<Arc<Copies>>,
    recognisers: Recognisers,
    /// There is something to be done about a recording.
    errand: Notify,
    /// Where errands run; the node waits for it when it stops.
    tasks: TaskTracker,
    runtime: Handle,
}

/// A recording to be made.
pub struct Taking {
    pub id: Uuid,
    /// The owner, and its main account.
    pub account: AuthId,
    pub main_account: AuthId,
    pub call: CallUuid,
    /// Of a room's recording.
    pub room: Option<OfRoom>,
    pub order: RecordingOrder,
    /// What its callbacks are signed with.
    pub keys: SigningKeys,
    /// Who asks its action in the call, if somebody may.
    pub action: Option<ActionAsked>,
    /// When the call was answered, if it was by now: it may be recorded from before.
    pub answered: Box<dyn Fn() -> Option<Timestamp> + Send>,
    /// Whether the call goes on: a room's recording may end before it.
    pub is_up: Box<dyn Fn() -> bool + Send>,
}

/// The room that is recorded.
pub struct OfRoom {
    pub id: Uuid,
    pub name: String,
    /// A multi-party call; else a conference.
    pub multi_party: bool,
}

/// Whether a recording's action is asked by its call; if not, it is sent with the recording's end.
pub struct ActionAsked {
    /// A word: it is, or is not wanted any more. Closed without one: the call ended before.
    pub by_call: tokio::sync::oneshot::Receiver<()>,
    /// The key that ended the recording.
    pub key: Arc<OnceLock<Digit>>,
}

impl Recordings {
    /// Starts the threads that record. Errands run where this is called, tracked by `tasks`.
    ///
    /// # Errors
    /// No folder, no thread.
    pub fn start(
        config: RecordingsConfig,
        store: Store,
        outbox: Outbox,
        clock: Clock,
        dice: Dice,
        tasks: TaskTracker,
    ) -> std::io::Result<Self> {
        let RecordingsConfig { data_dir, base_url, node_id, threads, copies, recognisers } = config;
        let recorder = Recorder::start(&data_dir.join(FOLDER), threads)?;
        let runtime = Handle::current();
        let (copies, errand) = (copies.map(Arc::new), Notify::new());
        Ok(Self(Arc::new(Inner {
            recorder,
            base_url,
            node_id,
            store,
            outbox,
            clock,
            dice,
            copies,
            recognisers,
            errand,
            tasks,
            runtime,
        })))
    }

    /// Where a recording is, or will be, downloaded.
    pub fn url(&self, id: Uuid, format: &str) -> String {
        format!("{}/recordings/{}.{format}", self.0.base_url, id.as_hyphenated())
    }

    /// The folder of the files.
    pub fn folder(&self) -> &Path {
        self.0.recorder.folder()
    }

    /// Whether what is said in recordings can be written down.
    pub fn can_transcribe(&self) -> bool {
        self.0.recognisers.can_recognise(self.0.recognisers.transcript_language())
    }

    /// Where copies of the files are, if there are some.
    pub fn copies(&self) -> Option<&Copies> {
        self.0.copies.as_deref()
    }

    /// Recordings under way.
    pub fn len(&self) -> usize {
        self.0.recorder.len()
    }

    /// Whether nothing is being recorded.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Begins a recording of `source`; `told` how it ended, from a thread of the recorder's, when its file is complete.
    ///
    /// # Errors
    /// There is no room for it: a sentence. Nothing is told.
    pub fn begin(
        &self,
        taking: Taking,
        source: Box<dyn Source>,
        told: impl FnOnce(RecordingEvent) + Send + 'static,
    ) -> Result<RecordingHandle, &'static str> {
        let Taking { id, account, main_account, call, room, order, keys, action, answered, is_up } =
            taking;
        let format = Format::of(order.mp3);
        let started = self.0.clock.wall();
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
            // The action after a hang-up first: it is what most applications wait for.
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
        let done = move |what: record::RecordingResult| {
            if let Some(why) = &what.failure {
                tracing::warn!(recording = %begun.id, call_uuid = %begun.call, %why, "a recording failed; its call goes on");
            }
            let remark = what.failure.as_deref().map(|why| failed_late(why, what.duration_ms));
            told(RecordingEvent::Ended {
                reason: what.end,
                duration_ms: what.duration_ms,
                start_ms: millis(begun.started),
                end_ms: millis(begun.started).saturating_add_unsigned(what.duration_ms),
                error: what.failure,
            });
            let runtime = inner.runtime.clone();
            let up = is_up();
            let (tasks, standing) = (inner.tasks.clone(), (answered(), up));
            // A call that is up is told, and says so itself.
            let late = remark.filter(|_| !up);
            let work = async move {
                let action = Action::of(action).await;
                if let Some(text) = late {
                    inner.store.calls().add_remark(begun.call, text);
                }
                inner
                    .conclude(begun, what.end, what.duration_ms, (action, standing), Some(keys))
                    .await;
            };
            tasks.spawn_on(work, &runtime);
        };
        let tape = self.0.recorder.start_recording(how, source, Box::new(done))?;
        self.0.store.recordings().begin(start);
        Ok(tape)
    }

    /// Completes what an earlier process of this node left behind: its files are made whole, rows get their ends, and
    /// callbacks go out. Files that no row knows are removed.
    ///
    /// # Errors
    /// The store's.
    pub async fn take_in_what_was_left(&self) -> Result<(), StoreError> {
        let left = self.0.store.recordings().unfinished(&self.0.node_id).await?;
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
                    tracing::error!(recording = %start.id, %error, "a recording that was cut off could not be repaired");
                    (RecordingEndReason::Failed, 0)
                }
            };
            self.0
                .conclude(start, end, duration_ms, (Action::Due { key: None }, (None, false)), None)
                .await;
        }
        if count > 0 {
            tracing::warn!(
                recordings = count,
                "completed the recordings that this node left open when it died"
            );
        }
        for (id, format) in record::list_unfinished(self.folder()).unwrap_or_default() {
            self.0.unlink(id, format);
        }
        Ok(())
    }

    /// Takes a recording away: from then on there is none. `false`: the scope has none of that id.
    ///
    /// # Errors
    /// The store's; or the file can't be removed, and all is as it was.
    pub async fn remove(&self, scope: &Scope, id: Uuid) -> Result<bool, StoreError> {
        let Some(recording) = self.0.store.recordings().get(scope, id).await? else {
            return Ok(false);
        };
        self.0.take_away(&[recording]).await?;
        Ok(true)
    }

    /// Takes away what began before then (`retention.recording_days`).
    ///
    /// # Errors
    /// The store's.
    pub async fn expire(&self, before: Timestamp) -> Result<(), StoreError> {
        loop {
            let old = self.0.store.recordings().older_than(before, AT_ONCE).await?;
            if old.is_empty() {
                return Ok(());
            }
            self.0.take_away(&old).await?;
            tracing::info!(recordings = old.len(), "recordings past their time were removed");
        }
    }

    /// Ends what is being recorded; all files are complete when this returns. Blocks.
    pub fn stop(&self) {
        self.0.recorder.stop();
    }
}

impl Inner {
    /// A recording has its end: in its row, and on its way to whoever is told.
    async fn conclude(
        &self,
        start: RecordingStart,
        end: RecordingEndReason,
        duration_ms: u64,
        (action, (answered, is_up)): (Action, (Option<Timestamp>, bool)),
        keys: Option<SigningKeys>,
    ) {
        let ended = start.started.plus(Duration::from_millis(duration_ms));
        let url =
            format!("{}/recordings/{}.{}", self.base_url, start.id.as_hyphenated(), start.format);
        let notices = start.notices.iter().filter(|notice| is_due(notice, action));
        let said = recording_params(
            start.id,
            &url,
            end,
            duration_ms,
            millis(start.started),
            millis(ended),
        );
        let callbacks = notices.map(|notice| {
            let mut notice = notice.clone();
            notice.params.extend(said.clone());
            // It may have been ordered while the phone rang.
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
        let (id, nothing) = (start.id, end == RecordingEndReason::Failed && duration_ms == 0);
        let upload = (self.copies.is_some() && !nothing).then(|| self.clock.wall());
        let transcribe = (start.transcript.is_some() && !nothing).then(|| self.clock.wall());
        let end = RecordingEnd { ended, duration_ms, end, upload, transcribe };
        match self.store.recordings().conclude(RecordingConclusion { start, end, callbacks }).await
        {
            Ok(written) => {
                self.errand.notify_one();
                if keys.is_some() {
                    written.into_iter().for_each(|written| self.outbox.send(written, keys.clone()));
                }
            }
            Err(error) => {
                tracing::error!(%error, recording = %id, "could not write a recording's end")
            }
        }
        if nothing && let Err(error) = self.store.recordings().delete(vec![id]).await {
            tracing::warn!(%error, recording = %id, "could not forget a recording that came to nothing");
        }
    }

    fn callback(&self, start: &RecordingStart, notice: CallbackRequest) -> NewCallback {
        let (high, low) = (self.dice.roll(), self.dice.roll());
        let event_id = ((u128::from(high) << 64) | u128::from(low)).to_be_bytes();
        NewCallback {
            event_id: uuid::Builder::from_random_bytes(event_id).into_uuid(),
            call: start.call,
            account: start.account.clone(),
            main_account: start.main_account.clone(),
            node_id: self.node_id.clone(),
            origin: self.outbox.origin(&notice.url.0),
            notice,
            shut: None,
            created: self.clock.steady(),
        }
    }

    /// Files first: a row without one is found again, a file without a row never.
    async fn take_away(&self, recordings: &[Recording]) -> Result<(), StoreError> {
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
        self.errand.notify_one();
        Ok(())
    }

    fn unlink(&self, id: Uuid, format: Format) -> bool {
        record::remove(self.recorder.folder(), id, format)
            .inspect_err(|error| tracing::warn!(recording = %id, %error, "a recording's file could not be removed"))
            .is_ok()
    }
}

/// What the record of a call says whose recording could not be completed when it was over.
fn failed_late(why: &str, kept_ms: u64) -> String {
    let kept = match kept_ms {
        0 => "nothing of it is there".to_owned(),
        ms => format!("{}.{} s of it are there", ms / 1_000, ms % 1_000 / 100),
    };
    format!("a recording could not be completed after the call: {why}; {kept}")
}

/// What becomes of a recording's action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// The call asks it, or nobody any more.
    Asked,
    /// The call was over before.
    Due { key: Option<Digit> },
}

impl Action {
    async fn of(asked: Option<ActionAsked>) -> Self {
        let Some(ActionAsked { by_call, key }) = asked else { return Self::Due { key: None } };
        match tokio::time::timeout(CALL_ANSWERS, by_call).await {
            Ok(Ok(())) => Self::Asked,
            Ok(Err(_)) | Err(_) => Self::Due { key: key.get().copied() },
        }
    }
}

/// Whether a notice is to go out: an action is the machine's own, unless the call was over before.
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
