//! Rejects run on a thread of their own, with connections of their own (`meta::Graph`).
//!
//! A node that has too much to do has a long line of work, and a request to Graph stands in it at each of its steps. A call
//! that was let in bears that; rejects are what an overload consists of, and were they to wait for the webhooks that
//! bring ever more of them, they would never get through (R10). The system shares the processor between threads, and so
//! between the two.

use tokio::runtime::{Builder, Runtime};
use tokio_util::task::TaskTracker;

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub struct RejectThread(Option<Runtime>);

impl RejectThread {
    /// Starts it.
    ///
    /// # Errors
    /// The system gives no further thread.
    pub fn start() -> std::io::Result<Self> {
        Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("rejects")
            .enable_all()
            .build()
            .map(Some)
            .map(Self)
    }

    /// Runs a task there; `tasks` counts it among its own.
    pub(super) fn spawn(
        &self,
        tasks: &TaskTracker,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        if let Some(runtime) = &self.0 {
            tasks.spawn_on(work, runtime.handle());
        }
    }
}

impl Drop for RejectThread {
    fn drop(&mut self) {
        // Not waited for: a runtime can't be within another one's task.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
