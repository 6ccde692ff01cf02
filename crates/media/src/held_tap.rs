//! Keeps the audio of a tap until its reader begins.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use super::tap::Tap;
use super::workers::{Job, JobStatus, Workers};

/// A tap that is not read yet. It keeps up to 30 s of audio, the oldest.
#[derive(Debug)]
pub struct HeldTap(Arc<Mutex<Option<Tap>>>);

impl HeldTap {
    /// Keeps the audio of a tap with a job of `workers`.
    pub fn new(tap: Tap, workers: &Workers) -> Self {
        let tap = Arc::new(Mutex::new(Some(tap)));
        workers.add(Box::new(HoldJob(Arc::downgrade(&tap))));
        Self(tap)
    }

    /// Returns the tap with its audio.
    pub fn take(self) -> Option<Tap> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

struct HoldJob(Weak<Mutex<Option<Tap>>>);

impl Job for HoldJob {
    fn run(&mut self, _now: Instant) -> JobStatus {
        let Some(tap) = self.0.upgrade() else { return JobStatus::Done };
        match &mut *tap.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(tap) => tap.hold(),
            None => return JobStatus::Done,
        }
        JobStatus::Running
    }
}
