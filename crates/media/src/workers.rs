//! Worker threads for jobs on live audio: mixing, streaming, speech recognition.
//!
//! Each thread runs all its jobs every few milliseconds, as a shard does with its legs. There is no
//! task, timer or wake-up per call. A job must not block. A job that panics is dropped; the others
//! continue.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use model::Clock;

/// Capacity of a thread's queue of new jobs.
const NEW_MAX: usize = 1_024;
/// Whether a job continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Going {
    /// Run it again.
    On,
    /// Drop it.
    Over,
}

/// Work that is done at regular intervals.
pub trait Job: Send {
    /// Does what is due without blocking.
    fn beat(&mut self, now: Instant) -> Going;
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
    pub fn start(name: &str, threads: usize, beat: Duration, clock: &Clock) -> io::Result<Self> {
        let threads =
            (0..threads.max(1)).map(|n| Worker::start(&format!("{name}-{n}"), beat, clock.clone()));
        Ok(Self { threads: threads.collect::<io::Result<_>>()? })
    }

    /// Gives a job to the thread that has the fewest. Returns `false` if the thread cannot take it;
    /// the job is dropped then.
    pub fn add(&self, job: Box<dyn Job>) -> bool {
        let idlest = self.threads.iter().min_by_key(|worker| worker.jobs.load(Ordering::Relaxed));
        idlest.is_some_and(|worker| worker.add(job))
    }

    /// Number of jobs.
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
    fn start(name: &str, beat: Duration, clock: Clock) -> io::Result<Self> {
        let (to, new) = sync_channel(NEW_MAX);
        let jobs = Arc::new(AtomicUsize::new(0));
        let counted = jobs.clone();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(&new, &counted, beat, &clock))?;
        Ok(Self { to: Mutex::new(Some(to)), jobs, thread: Mutex::new(Some(thread)) })
    }

    fn add(&self, job: Box<dyn Job>) -> bool {
        let to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(to) = to.as_ref() else { return false };
        self.jobs.fetch_add(1, Ordering::Relaxed);
        let added = match to.try_send(job) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        };
        if !added {
            self.jobs.fetch_sub(1, Ordering::Relaxed);
        }
        added
    }
}

/// Runs a thread until no more jobs can be added.
fn run(new: &Receiver<Box<dyn Job>>, counted: &AtomicUsize, beat: Duration, clock: &Clock) {
    let mut jobs: Vec<Box<dyn Job>> = Vec::new();
    let mut due = clock.now();
    loop {
        if jobs.is_empty() {
            let Ok(job) = new.recv() else { return };
            jobs.push(job);
            due = clock.now();
        } else if let Some(wait) =
            due.checked_duration_since(clock.now()).filter(|wait| !wait.is_zero())
        {
            std::thread::sleep(wait);
        }
        loop {
            match new.try_recv() {
                Ok(job) => jobs.push(job),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        let now = clock.now();
        // A missed beat is not made up for; jobs process what is available.
        due = now.max(due + beat);
        let before = jobs.len();
        jobs.retain_mut(|job| match catch_unwind(AssertUnwindSafe(|| job.beat(now))) {
            Ok(going) => going == Going::On,
            Err(_) => {
                tracing::error!("media job panicked and was dropped");
                false
            }
        });
        counted.fetch_sub(before - jobs.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{SyncSender, sync_channel};
    use std::time::{Duration, Instant};

    use super::{Going, Job, Workers};
    use model::Clock;

    /// Reports each of its runs, and calls the function from the third run on.
    struct Counting(SyncSender<u32>, u32, fn() -> Going);

    impl Job for Counting {
        fn beat(&mut self, _: Instant) -> Going {
            self.1 += 1;
            let _ = self.0.try_send(self.1);
            if self.1 < 3 { Going::On } else { (self.2)() }
        }
    }

    #[test]
    fn jobs_end_by_themselves_and_a_panic_ends_one_alone() {
        let workers =
            Workers::start("test", 1, Duration::from_millis(1), &Clock::real()).expect("threads");
        let add = |then| {
            let (to, from) = sync_channel(10_000);
            assert!(workers.add(Box::new(Counting(to, 0, then))));
            from
        };
        let (ends, panics, goes_on) =
            (add(|| Going::Over), add(|| panic!("on purpose")), add(|| Going::On));
        assert_eq!(ends.iter().last(), Some(3));
        assert_eq!(panics.iter().last(), Some(3));
        assert!(goes_on.iter().any(|beats| beats > 10));
        assert_eq!(workers.jobs(), 1);
        workers.stop();
        // The channel closes, so the job was dropped.
        goes_on.iter().for_each(drop);
        let (to, _from) = sync_channel(10_000);
        assert!(!workers.add(Box::new(Counting(to, 0, || Going::On))), "nobody takes it");
    }
}
