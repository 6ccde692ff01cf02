//! Recordings, which are written on separate threads because a disk may block.
//!
//! A recorder reads its audio from a [`Source`], which is a leg or a room. It is independent of
//! calls. The owner ends a recording with [`RecordingHandle::stop`], and the result is reported
//! once, on the recorder's thread. `file` writes files and repairs those of a killed process.
//! `read` reads complete files.

mod file;
mod read;
mod source;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use file::{
    Format, RepairOutcome, UNLISTED, file_name, list_unfinished, parse_file_name, remove, repair,
};
pub use read::{FrameSink, read};
pub use source::{PausableSource, Pause, Source};

use super::voice::VoiceDetector;
use crate::opus::Rate;
use file::{AudioFile, FileState};
use machine::RecordingEndReason;

/// Sample rate of recordings: 16 kHz, the full bandwidth of a WhatsApp call.
pub const RATE: Rate = Rate::Hz16000;
/// Milliseconds per step.
const STEP_MS: u64 = 20;
/// Interval at which the sources are read.
const INTERVAL: Duration = Duration::from_millis(STEP_MS);
/// Maximum number of steps taken from one source per turn, so that a source that was delayed can
/// catch up.
const STEPS_PER_TURN: u32 = 100;
/// Maximum number of turns in which the rest of the audio is written after the end was requested. A
/// held tap has 30 s of audio, which take 15 turns.
const LAST_TURNS_MAX: u32 = 50;
/// Maximum number of recordings that wait to be started by a thread.
const WAITING_MAX: usize = 4_096;

/// Parameters of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordingOptions {
    /// The id, which determines the name of the file.
    pub id: Uuid,
    pub format: Format,
    /// Whether there are two channels. Otherwise both sides are mixed into one.
    pub stereo: bool,
    /// Maximum length. The recording ends when it is reached.
    pub max: Duration,
    /// Time without speech after which the recording ends, first measured from its start. `None` if
    /// silence does not end it.
    pub silence: Option<Duration>,
}

/// The outcome of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordingResult {
    pub end: RecordingEndReason,
    /// Milliseconds of audio in the file.
    pub duration_ms: u64,
    /// The reason why the recording failed. `None` if it did not fail. The file, if it exists,
    /// contains the audio recorded before.
    pub failure: Option<String>,
}

/// Where a recording continues that another process has begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordingState {
    file: FileState,
    detector: VoiceDetector,
    steps: u64,
    silent_steps: u64,
}

/// A recording in progress. Dropping it ends the recording with [`RecordingEndReason::HungUp`].
pub struct RecordingHandle(Arc<Control>);

/// What the owner of a recording requests.
struct Control {
    /// The reason to stop as a [`RecordingEndReason`], or [`RUNNING`], or [`DETACHED`].
    stop: AtomicU8,
    on_detached: Mutex<Option<OnDetached>>,
}

/// A value that is no [`RecordingEndReason`]: the recording continues.
const RUNNING: u8 = u8::MAX;
/// The recording continues in another process.
const DETACHED: u8 = u8::MAX - 1;

/// Called once when a recording was detached. Dropped if the recording has ended instead.
type OnDetached = Box<dyn FnOnce(RecordingState) + Send>;

impl RecordingHandle {
    /// Ends the recording. Only the first call has an effect.
    pub fn stop(&self, end: RecordingEndReason) {
        self.0.request(end.number());
    }

    /// Lets go of the recording when the available audio is written, so that another process can
    /// continue it. Its outcome is not reported. `on_detached` is dropped uncalled if the recording
    /// ends instead, after its outcome was reported.
    pub fn detach(self, on_detached: impl FnOnce(RecordingState) + Send + 'static) {
        *lock(&self.0.on_detached) = Some(Box::new(on_detached));
        self.0.request(DETACHED);
    }
}

impl Default for Control {
    fn default() -> Self {
        Self { stop: AtomicU8::new(RUNNING), on_detached: Mutex::default() }
    }
}

impl Control {
    fn request(&self, what: u8) {
        let _ = self.stop.compare_exchange(RUNNING, what, Ordering::AcqRel, Ordering::Acquire);
    }
}

impl std::fmt::Debug for RecordingHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecordingHandle")
    }
}

impl Drop for RecordingHandle {
    fn drop(&mut self) {
        self.stop(RecordingEndReason::HungUp);
    }
}

/// Called once with the outcome, on a thread that may block only on a disk.
pub type OnFinished = Box<dyn FnOnce(RecordingResult) + Send>;

/// Decides whether a file may grow. Called on the recorder's thread before the file is opened, and
/// after each write (about once per second of audio), with the number of bytes of audio in it. If it
/// returns an error, the recording fails with that reason, and what was written is kept.
pub type SpaceCheck = Box<dyn FnMut(u64) -> Result<(), &'static str> + Send>;

/// The reason of a recording that fails because the disk is full.
pub const DISK_FULL: &str = "the disk is full; make room in store.data_dir";

/// The recording threads and their folder. Dropping it ends all recordings.
pub struct Recorder {
    folder: PathBuf,
    threads: Mutex<Vec<JoinHandle<()>>>,
    queues: Mutex<Vec<SyncSender<NewRecording>>>,
    /// The number of recordings of each thread.
    loads: Vec<Arc<AtomicUsize>>,
}

impl Recorder {
    /// Creates the folder (mode 0700) and starts the threads.
    ///
    /// # Errors
    ///
    /// Returns an error if the folder or a thread cannot be created.
    pub fn start(folder: &Path, threads: usize) -> std::io::Result<Self> {
        file::create_folder(folder)?;
        let mut recorder = Self {
            folder: folder.to_owned(),
            threads: Mutex::default(),
            queues: Mutex::default(),
            loads: Vec::new(),
        };
        for n in 0..threads.max(1) {
            let (queue, jobs) = sync_channel(WAITING_MAX);
            let load = Arc::new(AtomicUsize::new(0));
            recorder.loads.push(load.clone());
            let thread = std::thread::Builder::new()
                .name(format!("record-{n}"))
                .spawn(move || run(&jobs, &load))?;
            lock(&recorder.threads).push(thread);
            lock(&recorder.queues).push(queue);
        }
        Ok(recorder)
    }

    /// Returns the folder of the files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the number of recordings in progress.
    pub fn len(&self) -> usize {
        self.loads.iter().map(|load| load.load(Ordering::Acquire)).sum()
    }

    /// Returns whether nothing is being recorded.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Starts a recording, or continues the one with this state. The file is opened on the
    /// recorder's thread, if `space` permits; `on_finished` also reports if that fails.
    ///
    /// # Errors
    ///
    /// Returns an error if the recorder has stopped or has too many recordings waiting.
    /// `on_finished` is not called then.
    pub fn start_recording(
        &self,
        options: RecordingOptions,
        state: Option<RecordingState>,
        source: Box<dyn Source>,
        space: SpaceCheck,
        on_finished: OnFinished,
    ) -> Result<RecordingHandle, &'static str> {
        let loads = self.loads.iter().enumerate();
        let least = loads
            .min_by_key(|(_, load)| load.load(Ordering::Acquire))
            .map(|(n, load)| (n, load.clone()));
        let (n, load) = least.ok_or("no recording thread is running")?;
        let control = Arc::<Control>::default();
        let job = NewRecording {
            options,
            state,
            folder: self.folder.clone(),
            source,
            control: control.clone(),
            space,
            on_finished,
        };
        load.fetch_add(1, Ordering::AcqRel);
        let queue = lock(&self.queues).get(n).cloned();
        match queue
            .ok_or("the recorder has stopped")
            .and_then(|to| to.try_send(job).map_err(|_| "too many recordings are waiting"))
        {
            Ok(()) => Ok(RecordingHandle(control)),
            Err(reason) => {
                load.fetch_sub(1, Ordering::AcqRel);
                Err(reason)
            }
        }
    }

    /// Ends all recordings and the threads. All files are complete when it returns.
    pub fn stop(&self) {
        lock(&self.queues).clear();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            if thread.thread().id() != std::thread::current().id() {
                // The thread has already logged its panic.
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a recording thread until its recorder is stopped.
fn run(queue: &Receiver<NewRecording>, load: &AtomicUsize) {
    let mut jobs: Vec<RecordingJob> = Vec::new();
    loop {
        let received = match jobs.is_empty() {
            true => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            // The timeout is the pause between two turns. A new recording starts the next turn
            // earlier, which reads only the available audio.
            false => queue.recv_timeout(INTERVAL),
        };
        let stopping = match received {
            Ok(new) => {
                jobs.push(RecordingJob::new(new));
                loop {
                    match queue.try_recv() {
                        Ok(new) => jobs.push(RecordingJob::new(new)),
                        Err(TryRecvError::Empty) => break false,
                        Err(TryRecvError::Disconnected) => break true,
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
        for job in &mut jobs {
            if stopping {
                job.control.request(RecordingEndReason::HungUp.number());
            }
            // A panic in one recording does not affect the others.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| job.run())) {
                let _ = catch_unwind(AssertUnwindSafe(|| job.handle_panic(&*panic)));
            }
        }
        let before = jobs.len();
        jobs.retain(|job| job.on_finished.is_some());
        load.fetch_sub(before.saturating_sub(jobs.len()), Ordering::AcqRel);
        if stopping && jobs.is_empty() {
            return;
        }
    }
}

/// A recording that is being passed to its thread.
struct NewRecording {
    options: RecordingOptions,
    state: Option<RecordingState>,
    folder: PathBuf,
    source: Box<dyn Source>,
    control: Arc<Control>,
    space: SpaceCheck,
    on_finished: OnFinished,
}

/// A recording on its thread.
struct RecordingJob {
    options: RecordingOptions,
    folder: PathBuf,
    source: Box<dyn Source>,
    control: Arc<Control>,
    space: SpaceCheck,
    /// Called at the end. `None` after the recording has ended.
    on_finished: Option<OnFinished>,
    /// The file. `None` before the first turn.
    file: Option<AudioFile>,
    /// Where the file continues. `None` if it is new, or open.
    resumed: Option<FileState>,
    detector: VoiceDetector,
    /// The number of steps of 20 ms written so far.
    steps: u64,
    /// The number of steps since the last speech.
    silent_steps: u64,
    /// The number of turns since the end was requested.
    last_turns: u32,
}

impl RecordingJob {
    fn new(new: NewRecording) -> Self {
        let NewRecording { options, state, folder, source, control, space, on_finished } = new;
        let mut job = Self {
            options,
            folder,
            source,
            control,
            space,
            on_finished: Some(on_finished),
            file: None,
            resumed: None,
            detector: VoiceDetector::default(),
            steps: 0,
            silent_steps: 0,
            last_turns: 0,
        };
        if let Some(RecordingState { file, detector, steps, silent_steps }) = state {
            job.resumed = Some(file);
            (job.detector, job.steps, job.silent_steps) = (detector, steps, silent_steps);
        }
        job
    }

    fn open(&mut self) -> std::io::Result<AudioFile> {
        let RecordingOptions { id, format, stereo, .. } = self.options;
        match self.resumed.take() {
            Some(state) => AudioFile::reopen(&self.folder, id, format, stereo, state),
            None => AudioFile::create(&self.folder, id, format, stereo),
        }
    }

    /// Writes the audio that is available.
    fn run(&mut self) {
        if self.file.is_none() {
            let bytes = self.resumed.as_ref().map_or(0, FileState::bytes);
            if let Err(reason) = (self.space)(bytes) {
                return self.fail(reason.to_owned());
            }
            match self.open() {
                Ok(file) => self.file = Some(file),
                Err(error) => return self.fail(reason(&error)),
            }
        }
        // Read before the source, so that all audio that arrived earlier is in the file.
        let requested = self.control.stop.load(Ordering::Acquire);
        let stop = RecordingEndReason::from_number(requested);
        let source_is_over = self.source.is_over();
        let [max, silence] =
            [Some(self.options.max), self.options.silence].map(|time| time.map(steps));
        let Some(file) = &mut self.file else { return };
        let (mut reached, mut is_drained) = (None, false);
        for _ in 0..STEPS_PER_TURN {
            let Some((left, right)) = self.source.next() else {
                is_drained = true;
                break;
            };
            if let Err(error) = file.push(left, right) {
                return self.fail(reason(&error));
            }
            self.steps += 1;
            self.silent_steps = if self.detector.push(left) { 0 } else { self.silent_steps + 1 };
            if max.is_some_and(|max| self.steps >= max) {
                reached = Some(RecordingEndReason::MaxLength);
            } else if silence.is_some_and(|silence| self.silent_steps >= silence) {
                reached = Some(RecordingEndReason::Silence);
            }
            if reached.is_some() {
                break;
            }
        }
        if requested == DETACHED && reached.is_none() && is_drained {
            return match file.detach() {
                Ok(file) => self.detached(file),
                Err(error) => self.fail(reason(&error)),
            };
        }
        let requested_end = stop.or(source_is_over.then_some(RecordingEndReason::HungUp));
        self.last_turns += u32::from(requested_end.is_some());
        let is_complete = is_drained || self.last_turns >= LAST_TURNS_MAX;
        let end = reached.or(requested_end.filter(|_| is_complete));
        let kept = match end {
            Some(end) => file.finish().map(|()| (Some(end), None)),
            None => file.write_if_due().map(|written| (None, written)),
        };
        match kept {
            Ok((Some(end), _)) => self.finish(end, None),
            Ok((None, Some(bytes))) => {
                if let Err(reason) = (self.space)(bytes) {
                    self.fail(reason.to_owned());
                }
            }
            Ok((None, None)) => {}
            Err(error) => self.fail(reason(&error)),
        }
    }

    /// Ends a recording that can no longer be written. The audio written so far becomes the file.
    fn fail(&mut self, reason: String) {
        // The last write may be incomplete.
        if self.file.take().is_some() || self.steps > 0 {
            let RecordingOptions { id, format, stereo, .. } = self.options;
            self.steps = match repair(&self.folder, id, format, stereo) {
                Ok(RepairOutcome::Repaired { duration_ms }) => duration_ms / STEP_MS,
                Ok(RepairOutcome::Nothing) => 0,
                Err(error) => {
                    tracing::warn!(recording = %id, %error, "recording repair failed");
                    // A file that cannot be removed either is removed at the next start.
                    let _ = remove(&self.folder, id, format);
                    0
                }
            };
        }
        self.finish(RecordingEndReason::Failed, Some(reason));
    }

    fn handle_panic(&mut self, panic: &(dyn Any + Send)) {
        let text = panic.downcast_ref::<&str>().copied().unwrap_or("unknown panic");
        tracing::error!(recording = %self.options.id, panic = text, "recording panicked and was ended");
        self.fail(reason(&std::io::Error::other("internal error; see the node's log")));
    }

    /// Lets go of the recording.
    fn detached(&mut self, file: FileState) {
        self.on_finished = None;
        if let Some(on_detached) = lock(&self.control.on_detached).take() {
            let (detector, steps) = (self.detector.clone(), self.steps);
            on_detached(RecordingState { file, detector, steps, silent_steps: self.silent_steps });
        }
    }

    fn finish(&mut self, end: RecordingEndReason, failure: Option<String>) {
        if let Some(on_finished) = self.on_finished.take() {
            on_finished(RecordingResult {
                end,
                duration_ms: self.steps.saturating_mul(STEP_MS),
                failure,
            });
        }
    }
}

/// Returns why a recording fails with an error of its file.
fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => DISK_FULL.to_owned(),
        _ => format!("the file could not be written: {error}"),
    }
}

/// Returns the number of steps in a time, rounded up.
fn steps(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).div_ceil(STEP_MS)
}

#[cfg(test)]
mod tests;
