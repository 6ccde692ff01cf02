//! The event log of a live call: written by the shell, followed by the API and its clients.
//!
//! At `LINES_MAX` lines or `BYTES_MAX` bytes the log is full and keeps no further lines. The store
//! receives the same lines. `machine::log` defines their format.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream::{self, Stream};
use tokio::sync::watch;

/// Maximum number of lines of one call. An hour in a menu stays far below this.
const LINES_MAX: usize = 20_000;
/// Maximum number of bytes of one call.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// The event log of one live call.
#[derive(Debug)]
pub struct LiveLog {
    lines: Mutex<Lines>,
    /// Number of lines, and whether the log is closed.
    progress: watch::Sender<(usize, bool)>,
    exported: AtomicBool,
}

#[derive(Debug, Default)]
struct Lines {
    kept: Vec<Arc<str>>,
    bytes: usize,
    full: bool,
}

impl Lines {
    fn update_full(&mut self) {
        self.full = self.kept.len() >= LINES_MAX || self.bytes >= BYTES_MAX;
    }
}

impl LiveLog {
    /// Creates an empty log.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            lines: Mutex::default(),
            progress: watch::Sender::new((0, false)),
            exported: AtomicBool::new(false),
        })
    }

    /// Creates the log of a call that another process has handed over.
    pub(super) fn resumed(lines: Vec<Arc<str>>) -> Arc<Self> {
        let log = Self::new();
        let count = lines.len();
        {
            let mut kept = log.lines.lock().unwrap_or_else(PoisonError::into_inner);
            kept.bytes = lines.iter().map(|line| line.len()).sum();
            kept.kept = lines;
            kept.update_full();
        }
        log.progress.send_modify(|p| p.0 = count);
        log
    }

    /// Appends a line and returns its number, from 0. Returns `None` if the log is full.
    pub fn push(&self, line: Arc<str>) -> Option<u64> {
        let count = {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.full {
                return None;
            }
            lines.bytes += line.len();
            lines.kept.push(line);
            lines.update_full();
            lines.kept.len()
        };
        // Two writers may race here, so the count must not decrease.
        self.progress.send_modify(|p| p.0 = p.0.max(count));
        u64::try_from(count - 1).ok()
    }

    /// Whether the log keeps no further lines.
    pub(super) fn is_full(&self) -> bool {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).full
    }

    /// Marks the log as complete.
    pub fn close(&self) {
        self.progress.send_modify(|p| p.1 = true);
    }

    /// Returns the lines so far.
    pub fn snapshot(&self) -> Vec<Arc<str>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).kept.clone()
    }

    /// Returns the lines so far for the trace exporter. Returns `None` on the second call.
    pub fn export(&self) -> Option<Vec<Arc<str>>> {
        (!self.exported.swap(true, Ordering::Relaxed)).then(|| self.snapshot())
    }

    fn from(&self, at: usize) -> Vec<Arc<str>> {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .kept
            .get(at..)
            .unwrap_or_default()
            .to_vec()
    }

    /// Returns a stream of all lines, existing and future, that ends when the log is closed.
    pub fn follow(self: &Arc<Self>) -> impl Stream<Item = Arc<str>> + Send + use<> {
        let state =
            (self.clone(), self.progress.subscribe(), 0_usize, Vec::<Arc<str>>::new().into_iter());
        stream::unfold(state, |(log, mut progress, mut at, mut ready)| async move {
            loop {
                if let Some(line) = ready.next() {
                    return Some((line, (log, progress, at, ready)));
                }
                let (count, closed) = *progress.borrow_and_update();
                if count > at {
                    let fresh = log.from(at);
                    at += fresh.len();
                    ready = fresh.into_iter();
                    continue;
                }
                if closed || progress.changed().await.is_err() {
                    return None;
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::LiveLog;

    #[tokio::test]
    async fn a_follower_gets_existing_and_future_lines() {
        let log = LiveLog::new();
        log.push("one".into());
        let follower = log.follow();
        let writer = log.clone();
        let task = tokio::spawn(async move {
            writer.push("two".into());
            writer.close();
        });
        let lines: Vec<String> = follower.map(|l| l.to_string()).collect().await;
        task.await.expect("the writer ends");
        assert_eq!(lines, ["one", "two"]);
        assert_eq!(log.snapshot().len(), 2);
    }
}
