//! Worker threads for jobs on live audio: mixing, streaming, speech recognition.
//!
//! Each thread runs all its jobs every few milliseconds, as a shard does with its legs. Calls need
//! no task, timer or wake-up of their own. A job must not block. A job that panics is dropped; the
//! others continue.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use model::Clock;

/// Capacity of a thread's queue of new jobs.
const NEW_JOBS_MAX: usize = 1_024;
/// The status of a job after a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobStatus {
    /// The job is run again.
    Running,
    /// The job is dropped.
    Done,
}

/// Work that is done at regular intervals.
pub trait Job: Send {
    /// Performs the work that is due. Must not block.
    fn run(&mut self, now: Instant) -> JobStatus;
}

/// A pool of threads. Dropping it stops them and drops their jobs.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    to: Mutex<Option<SyncSender<Box<dyn Job>>>>,
    jobs: Arc<AtomicUsize>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for dyn Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

impl Workers {
    /// Starts `threads` threads (at least one) that run their jobs every `interval`. `name` is the
    /// prefix of their names.
    ///
    /// # Errors
    ///
    /// Returns an error if a thread cannot be started.
    pub fn start(
        name: &str,
        threads: usize,
        interval: Duration,
        clock: &Clock,
    ) -> io::Result<Self> {
        let threads = (0..threads.max(1))
            .map(|n| Worker::start(&format!("{name}-{n}"), interval, clock.clone()));
        Ok(Self { threads: threads.collect::<io::Result<_>>()? })
    }

    /// Assigns a job to the thread with the fewest jobs. Returns `false` and drops the job if the
    /// thread cannot accept it.
    pub fn add(&self, job: Box<dyn Job>) -> bool {
        let least_loaded =
            self.threads.iter().min_by_key(|worker| worker.jobs.load(Ordering::Relaxed));
        least_loaded.is_some_and(|worker| worker.add(job))
    }

    /// Returns the number of jobs.
    pub fn jobs(&self) -> usize {
        self.threads.iter().map(|worker| worker.jobs.load(Ordering::Relaxed)).sum()
    }

    /// Stops the threads and drops their jobs.
    pub fn stop(&self) {
        for worker in &self.threads {
            worker.to.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        for worker in &self.threads {
            let thread = worker.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(thread) = thread.filter(|t| t.thread().id() != std::thread::current().id())
            {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Worker {
    fn start(name: &str, interval: Duration, clock: Clock) -> io::Result<Self> {
        let (to, new_jobs) = sync_channel(NEW_JOBS_MAX);
        let jobs = Arc::new(AtomicUsize::new(0));
        let job_count = jobs.clone();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(&new_jobs, &job_count, interval, &clock))?;
        Ok(Self { to: Mutex::new(Some(to)), jobs, thread: Mutex::new(Some(thread)) })
    }

    fn add(&self, job: Box<dyn Job>) -> bool {
        let to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(to) = to.as_ref() else { return false };
        self.jobs.fetch_add(1, Ordering::Relaxed);
        let accepted = match to.try_send(job) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        };
        if !accepted {
            self.jobs.fetch_sub(1, Ordering::Relaxed);
        }
        accepted
    }
}

/// Runs a thread until no more jobs can be added.
fn run(
    new_jobs: &Receiver<Box<dyn Job>>,
    job_count: &AtomicUsize,
    interval: Duration,
    clock: &Clock,
) {
    let mut jobs: Vec<Box<dyn Job>> = Vec::new();
    let mut due = clock.now();
    loop {
        if jobs.is_empty() {
            let Ok(job) = new_jobs.recv() else { return };
            jobs.push(job);
            due = clock.now();
        } else if let Some(wait) =
            due.checked_duration_since(clock.now()).filter(|wait| !wait.is_zero())
        {
            std::thread::sleep(wait);
        }
        loop {
            match new_jobs.try_recv() {
                Ok(job) => jobs.push(job),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        let now = clock.now();
        // A missed interval is not repeated, because jobs process all available data.
        due = now.max(due + interval);
        let before = jobs.len();
        jobs.retain_mut(|job| match catch_unwind(AssertUnwindSafe(|| job.run(now))) {
            Ok(going) => going == JobStatus::Running,
            Err(_) => {
                tracing::error!("media job panicked and was dropped");
                false
            }
        });
        job_count.fetch_sub(before - jobs.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{SyncSender, sync_channel};
    use std::time::{Duration, Instant};

    use super::{Job, JobStatus, Workers};
    use model::Clock;

    /// Reports each of its runs, and calls the function from the third run on.
    struct Counting(SyncSender<u32>, u32, fn() -> JobStatus);

    impl Job for Counting {
        fn run(&mut self, _: Instant) -> JobStatus {
            self.1 += 1;
            let _ = self.0.try_send(self.1);
            if self.1 < 3 { JobStatus::Running } else { (self.2)() }
        }
    }

    #[test]
    fn jobs_end_when_done_or_when_they_panic() {
        let workers =
            Workers::start("test", 1, Duration::from_millis(1), &Clock::real()).expect("threads");
        let add = |then| {
            let (to, from) = sync_channel(10_000);
            assert!(workers.add(Box::new(Counting(to, 0, then))));
            from
        };
        let (ends, panics, continues) =
            (add(|| JobStatus::Done), add(|| panic!("on purpose")), add(|| JobStatus::Running));
        assert_eq!(ends.iter().last(), Some(3));
        assert_eq!(panics.iter().last(), Some(3));
        assert!(continues.iter().any(|beats| beats > 10));
        assert_eq!(workers.jobs(), 1);
        workers.stop();
        // The channel closes, so the job was dropped.
        continues.iter().for_each(drop);
        let (to, _from) = sync_channel(10_000);
        assert!(
            !workers.add(Box::new(Counting(to, 0, || JobStatus::Running))),
            "the threads have stopped"
        );
    }
}
