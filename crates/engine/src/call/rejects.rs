//! Rejects run on their own thread with their own connections (`meta::Graph`).
//!
//! On an overloaded node, each step of a Graph request waits in a long run queue of the runtime.
//! Admitted calls tolerate that. Rejects make up most of the load in an overload; if they queued
//! behind the webhooks that cause them, they would never be sent
//! (`docs/reference/reliability.md#r10`). The operating system shares the processor fairly between
//! the two threads.

use tokio::runtime::{Builder, Runtime};
use tokio_util::task::TaskTracker;

/// The thread for rejects. It ends when this value is dropped.
#[derive(Debug)]
pub struct RejectThread(Option<Runtime>);

impl RejectThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// Fails if the operating system cannot create a thread.
    pub fn start() -> std::io::Result<Self> {
        Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("rejects")
            .enable_all()
            .build()
            .map(Some)
            .map(Self)
    }

    /// Spawns a task on the thread, tracked by `tasks`.
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
        // A runtime must not be dropped with blocking inside of an async context.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
