//! Recordings. They are written on threads of their own, because a disk may block its writer.
//!
//! A recorder reads its audio from a [`Source`]: a leg or a room. It knows nothing about calls. The
//! owner ends a recording with [`RecordingHandle::stop`], and the result is reported once, on the
//! recorder's thread. `file` writes files and repairs those that a killed process left behind;
//! `read` reads them back.

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

use uuid::Uuid;

pub use file::{Format, Left, left_behind, name, remove, repair};
pub use read::{Heard, read};
pub use source::{Part, Pause, Source};

use super::voice::Judge;
use crate::opus::Rate;
use file::SoundFile;
use machine::RecordEnd;

/// Sample rate of recordings: 16 kHz, the full bandwidth of a WhatsApp call.
pub const RATE: Rate = Rate::Hz16000;
/// Milliseconds per step.
const STEP_MS: u64 = 20;
/// Interval at which the sources are read.
const BEAT: Duration = Duration::from_millis(STEP_MS);
/// Maximum steps taken from one source per turn, so that a source that was delayed can catch up.
const STEPS_MAX: u32 = 100;
/// Maximum number of recordings that wait to be taken up by a thread.
const WAITING_MAX: usize = 4_096;

/// What to record, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Names the file.
    pub id: Uuid,
    pub format: Format,
    /// Two channels; otherwise both sides are mixed into one.
    pub stereo: bool,
    /// Maximum length. The recording ends when it is reached.
    pub max: Duration,
    /// The recording ends when nobody has spoken for this long, counted from its start.
    pub silence: Option<Duration>,
}

/// The outcome of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    pub end: RecordEnd,
    /// Milliseconds of audio in the file.
    pub duration_ms: u64,
    /// Why it failed, if it did. What was recorded before is in the file, if there is one.
    pub failure: Option<String>,
}

/// A recording in progress. Dropping it ends the recording with [`RecordEnd::HungUp`].
#[derive(Debug)]
pub struct Tape(Arc<AtomicU8>);

/// No [`RecordEnd`]: the recording continues.
const GO_ON: u8 = u8::MAX;

impl Tape {
    /// Ends the recording. Only the first call has an effect.
    pub fn stop(&self, end: RecordEnd) {
        let _ = self.0.compare_exchange(GO_ON, end.number(), Ordering::AcqRel, Ordering::Acquire);
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        self.stop(RecordEnd::HungUp);
    }
}

/// Called once with the outcome, on a thread that may block on a disk, but on nothing else.
pub type Told = Box<dyn FnOnce(Recorded) + Send>;

/// The recording threads and their folder. Dropping it ends all recordings.
pub struct Recorder {
    folder: PathBuf,
    threads: Mutex<Vec<JoinHandle<()>>>,
    queues: Mutex<Vec<SyncSender<Begin>>>,
    /// Number of recordings of each thread.
    loads: Vec<Arc<AtomicUsize>>,
}

impl Recorder {
    /// Creates the folder (mode 0700) and starts the threads.
    ///
    /// # Errors
    ///
    /// Returns an error if the folder or a thread cannot be created.
    pub fn start(folder: &Path, threads: usize) -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
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

    /// The folder of the files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Number of recordings in progress.
    pub fn len(&self) -> usize {
        self.loads.iter().map(|load| load.load(Ordering::Acquire)).sum()
    }

    /// Returns whether nothing is being recorded.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Starts a recording. The file is created on the recorder's thread; `on_finished` also reports
    /// if that fails.
    ///
    /// # Errors
    ///
    /// Returns an error if the recorder has stopped or has too many recordings waiting.
    /// `on_finished` is not called then.
    pub fn begin(
        &self,
        order: Order,
        source: Box<dyn Source>,
        told: Told,
    ) -> Result<Tape, &'static str> {
        let loads = self.loads.iter().enumerate();
        let least = loads
            .min_by_key(|(_, load)| load.load(Ordering::Acquire))
            .map(|(n, load)| (n, load.clone()));
        let (n, load) = least.ok_or("there is no thread to record on")?;
        let stop = Arc::new(AtomicU8::new(GO_ON));
        let job = Begin { order, folder: self.folder.clone(), source, stop: stop.clone(), told };
        load.fetch_add(1, Ordering::AcqRel);
        let queue = lock(&self.queues).get(n).cloned();
        match queue
            .ok_or("the recorder is stopped")
            .and_then(|to| to.try_send(job).map_err(|_| "it has too much to do"))
        {
            Ok(()) => Ok(Tape(stop)),
            Err(why) => {
                load.fetch_sub(1, Ordering::AcqRel);
                Err(why)
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

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a recording thread until its recorder is stopped.
fn run(queue: &Receiver<Begin>, load: &AtomicUsize) {
    let mut jobs: Vec<Job> = Vec::new();
    loop {
        let came = match jobs.is_empty() {
            true => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            // The timeout is the pause between two turns. A new recording makes the next turn
            // earlier, which reads no more than is available.
            false => queue.recv_timeout(BEAT),
        };
        let stopped = match came {
            Ok(begin) => {
                jobs.push(Job::of(begin));
                loop {
                    match queue.try_recv() {
                        Ok(begin) => jobs.push(Job::of(begin)),
                        Err(TryRecvError::Empty) => break false,
                        Err(TryRecvError::Disconnected) => break true,
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
        for job in &mut jobs {
            if stopped {
                let _ = job.stop.compare_exchange(
                    GO_ON,
                    RecordEnd::HungUp.number(),
                    Ordering::AcqRel,
                    Ordering::Acquire,
                );
            }
            // A panic in one recording does not affect the others.
            if let Err(fault) = catch_unwind(AssertUnwindSafe(|| job.beat())) {
                let _ = catch_unwind(AssertUnwindSafe(|| job.fault(&*fault)));
            }
        }
        let before = jobs.len();
        jobs.retain(|job| job.told.is_some());
        load.fetch_sub(before.saturating_sub(jobs.len()), Ordering::AcqRel);
        if stopped && jobs.is_empty() {
            return;
        }
    }
}

/// A recording on its way to its thread.
struct Begin {
    order: Order,
    folder: PathBuf,
    source: Box<dyn Source>,
    stop: Arc<AtomicU8>,
    told: Told,
}

/// A recording on its thread.
struct Job {
    order: Order,
    folder: PathBuf,
    source: Box<dyn Source>,
    /// A [`RecordEnd`], or [`RUNNING`].
    stop: Arc<AtomicU8>,
    /// `None` once the recording is over.
    told: Option<Told>,
    /// `None` before the first turn.
    file: Option<SoundFile>,
    judge: Judge,
    /// Steps of 20 ms written.
    steps: u64,
    /// Steps since anybody spoke.
    quiet: u64,
}

impl Job {
    fn of(Begin { order, folder, source, stop, told }: Begin) -> Self {
        let (file, judge) = (None, Judge::default());
        Self { order, folder, source, stop, told: Some(told), file, judge, steps: 0, quiet: 0 }
    }

    /// Writes the audio that is available.
    fn beat(&mut self) {
        if self.file.is_none() {
            match SoundFile::create(
                &self.folder,
                self.order.id,
                self.order.format,
                self.order.stereo,
            ) {
                Ok(file) => self.file = Some(file),
                Err(error) => return self.failed(&error),
            }
        }
        // Read before the source is: what has arrived by this time is in the file.
        let stop = RecordEnd::of_number(self.stop.load(Ordering::Acquire));
        let over = self.source.is_over();
        let [max, silence] = [Some(self.order.max), self.order.silence].map(|time| time.map(steps));
        let Some(file) = &mut self.file else { return };
        let mut end = None;
        for _ in 0..STEPS_MAX {
            let Some((left, right)) = self.source.next() else { break };
            if let Err(error) = file.push(left, right) {
                return self.failed(&error);
            }
            self.steps += 1;
            self.quiet = if self.judge.hear(left) { 0 } else { self.quiet + 1 };
            if max.is_some_and(|max| self.steps >= max) {
                end = Some(RecordEnd::MaxLength);
            } else if silence.is_some_and(|silence| self.quiet >= silence) {
                end = Some(RecordEnd::Silence);
            }
            if end.is_some() {
                break;
            }
        }
        let end = end.or(stop).or(over.then_some(RecordEnd::HungUp));
        let kept = match end {
            Some(end) => file.finish().map(|()| Some(end)),
            None => file.keep().map(|()| None),
        };
        match kept {
            Ok(None) => {}
            Ok(Some(end)) => self.over(end, None),
            Err(error) => self.failed(&error),
        }
    }

    /// Ends a recording that cannot be written any more. What was written becomes the file.
    fn failed(&mut self, error: &std::io::Error) {
        let why = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                "the disk is full; make room in store.data_dir".to_owned()
            }
            _ => format!("its file could not be written: {error}"),
        };
        // The last write may be incomplete.
        if self.file.take().is_some() {
            let Order { id, format, stereo, .. } = self.order;
            self.steps = match repair(&self.folder, id, format, stereo) {
                Ok(Left::Repaired { duration_ms }) => duration_ms / STEP_MS,
                Ok(Left::Nothing) => 0,
                Err(error) => {
                    tracing::warn!(recording = %id, %error, "what was recorded could not be made a file");
                    // A file that cannot be removed either is handled at the next start.
                    let _ = remove(&self.folder, id, format);
                    0
                }
            };
        }
        self.over(RecordEnd::Failed, Some(why));
    }

    fn fault(&mut self, fault: &(dyn Any + Send)) {
        let text = fault.downcast_ref::<&str>().copied().unwrap_or("no words");
        tracing::error!(recording = %self.order.id, fault = text, "a fault of ours ended a recording");
        self.failed(&std::io::Error::other("a fault of ours; the node's log says which"));
    }

    fn over(&mut self, end: RecordEnd, failure: Option<String>) {
        if let Some(told) = self.told.take() {
            told(Recorded { end, duration_ms: self.steps.saturating_mul(STEP_MS), failure });
        }
    }
}

/// Number of steps in a time, rounded up.
fn steps(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).div_ceil(STEP_MS)
}

#[cfg(test)]
mod tests;
