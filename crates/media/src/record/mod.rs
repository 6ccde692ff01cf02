//! Recordings: sound into files, on threads of their own, since a disk may make its writer wait.
//!
//! A recorder takes its sound from whatever is a [`Source`]: a leg, a room. It knows nothing of calls: what is to become
//! of a recording its owner says by [`Tape::stop`], what has become of it is told once, from the recorder's thread.
//! `file` writes the files, and repairs those that a killed process left behind; `read` reads them back.

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
use machine::RecordingEndReason;

/// What recordings are made of: 16 kHz, as much as a WhatsApp call has.
pub const RATE: Rate = Rate::Hz16000;
/// Milliseconds of one step.
const STEP_MS: u64 = 20;
/// How often the sources are emptied.
const BEAT: Duration = Duration::from_millis(STEP_MS);
/// Steps taken of one source before the next one has its turn: a source that was held up catches up.
const STEPS_MAX: u32 = 100;
/// Recordings that may wait to be taken on by a thread.
const WAITING_MAX: usize = 4_096;

/// What is to be recorded, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    pub id: Uuid,
    pub format: Format,
    /// Two channels, left and right; else both in one.
    pub stereo: bool,
    /// It ends when it is so long.
    pub max: Duration,
    /// It ends when nobody has spoken for so long, from its beginning on.
    pub silence: Option<Duration>,
}

/// What has become of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    pub end: RecordingEndReason,
    /// Milliseconds of sound in the file.
    pub duration_ms: u64,
    /// Why it failed, if it did: what was recorded before is in the file, if there is one.
    pub failure: Option<String>,
}

/// A recording under way. Dropping it ends it as one whose call is over.
#[derive(Debug)]
pub struct Tape(Arc<AtomicU8>);

/// No word of [`RecordEnd`]: go on.
const GO_ON: u8 = u8::MAX;

impl Tape {
    /// Ends it within a moment; said twice, the first counts.
    pub fn stop(&self, end: RecordingEndReason) {
        let _ = self.0.compare_exchange(GO_ON, end.number(), Ordering::AcqRel, Ordering::Acquire);
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        self.stop(RecordingEndReason::HungUp);
    }
}

/// Told once what has become of a recording, on a thread that may be made to wait for a disk, but not for more.
pub type Told = Box<dyn FnOnce(Recorded) + Send>;

/// The threads that record, and their folder. Dropping it ends what is being recorded.
pub struct Recorder {
    folder: PathBuf,
    threads: Mutex<Vec<JoinHandle<()>>>,
    queues: Mutex<Vec<SyncSender<Begin>>>,
    /// Recordings of each thread.
    loads: Vec<Arc<AtomicUsize>>,
}

impl Recorder {
    /// Makes the folder (0700) and starts so many threads.
    ///
    /// # Errors
    /// No folder, no thread.
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

    /// Where the files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Recordings under way.
    pub fn len(&self) -> usize {
        self.loads.iter().map(|load| load.load(Ordering::Acquire)).sum()
    }

    /// Whether nothing is being recorded.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Begins a recording. The file is made on the recorder's thread: whether that worked is `told`, too.
    ///
    /// # Errors
    /// The recorder is stopped, or has far too much to do; `told` is not called.
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

    /// Ends what is being recorded, and the threads: all files are complete when this returns.
    pub fn stop(&self) {
        lock(&self.queues).clear();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            if thread.thread().id() != std::thread::current().id() {
                // A panic of the thread has been logged where it happened.
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

/// One thread: empties its sources beat by beat, until its recorder is stopped.
fn run(queue: &Receiver<Begin>, load: &AtomicUsize) {
    let mut jobs: Vec<Job> = Vec::new();
    loop {
        let came = match jobs.is_empty() {
            true => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            // Also the pause between two beats. What comes meanwhile makes the next one earlier, and no beat empties
            // more than there is.
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
                    RecordingEndReason::HungUp.number(),
                    Ordering::AcqRel,
                    Ordering::Acquire,
                );
            }
            // A fault in one recording costs no other its end.
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

/// One recording. It stays on its thread.
struct Job {
    order: Order,
    folder: PathBuf,
    source: Box<dyn Source>,
    /// A [`RecordEnd`], or [`GO_ON`].
    stop: Arc<AtomicU8>,
    /// None once it is over.
    told: Option<Told>,
    /// None before the first beat.
    file: Option<SoundFile>,
    judge: Judge,
    /// Steps of 20 ms written, and those since somebody spoke.
    steps: u64,
    quiet: u64,
}

impl Job {
    fn of(Begin { order, folder, source, stop, told }: Begin) -> Self {
        let (file, judge) = (None, Judge::default());
        Self { order, folder, source, stop, told: Some(told), file, judge, steps: 0, quiet: 0 }
    }

    /// Writes what there is.
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
        // Asked before the source is emptied: what had come by then is in the file.
        let stop = RecordingEndReason::from_number(self.stop.load(Ordering::Acquire));
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
                end = Some(RecordingEndReason::MaxLength);
            } else if silence.is_some_and(|silence| self.quiet >= silence) {
                end = Some(RecordingEndReason::Silence);
            }
            if end.is_some() {
                break;
            }
        }
        let end = end.or(stop).or(over.then_some(RecordingEndReason::HungUp));
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

    /// It can't be written any more: what there is of it becomes the file, at once, and nothing is left in the making.
    fn failed(&mut self, error: &std::io::Error) {
        let why = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                "the disk is full; make room in store.data_dir".to_owned()
            }
            _ => format!("its file could not be written: {error}"),
        };
        // A write may have been done in part.
        if self.file.take().is_some() {
            let Order { id, format, stereo, .. } = self.order;
            self.steps = match repair(&self.folder, id, format, stereo) {
                Ok(Left::Repaired { duration_ms }) => duration_ms / STEP_MS,
                Ok(Left::Nothing) => 0,
                Err(error) => {
                    tracing::warn!(recording = %id, %error, "what was recorded could not be made a file");
                    // What can't be removed either, the next start does.
                    let _ = remove(&self.folder, id, format);
                    0
                }
            };
        }
        self.over(RecordingEndReason::Failed, Some(why));
    }

    fn fault(&mut self, fault: &(dyn Any + Send)) {
        let text = fault.downcast_ref::<&str>().copied().unwrap_or("no words");
        tracing::error!(recording = %self.order.id, fault = text, "a fault of ours ended a recording");
        self.failed(&std::io::Error::other("a fault of ours; the node's log says which"));
    }

    fn over(&mut self, end: RecordingEndReason, failure: Option<String>) {
        if let Some(told) = self.told.take() {
            told(Recorded { end, duration_ms: self.steps.saturating_mul(STEP_MS), failure });
        }
    }
}

/// How many steps a time has, begun ones included.
fn steps(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).div_ceil(STEP_MS)
}

#[cfg(test)]
mod tests;
