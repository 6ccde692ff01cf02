//! Pauses a listener while another process takes over. New connections wait in the kernel, accepted
//! connections complete their requests, and later requests are held until the listener resumes or
//! stops. Requests that take too long are given up, so that no client can prevent the pause.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Maximum time that a pause waits for the first requests of connections that were accepted before
/// it.
const FIRST_REQUEST_TIME: Duration = Duration::from_millis(500);

/// Maximum time for the handlers that still run when requests are held, bodies that arrive slowly
/// included.
const HANDLER_TIME: Duration = Duration::from_millis(1_500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PauseState {
    Running,
    /// No connection is accepted, and connections end after their requests in progress.
    Pausing,
    /// Requests are held.
    Paused,
}

/// Pauses and resumes a listener. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pause {
    state: watch::Sender<PauseState>,
    /// The listener's task and the connections that have sent a request, until they have noticed
    /// the pause.
    unaware: TaskTracker,
    /// The connections that have not sent their first request.
    fresh: TaskTracker,
    /// The requests whose handlers are running.
    requests: TaskTracker,
    /// [`HANDLER_TIME`], except in tests.
    handler_time: Duration,
}

impl Default for Pause {
    fn default() -> Self {
        let state = watch::Sender::new(PauseState::Running);
        let (unaware, fresh) = (TaskTracker::new(), TaskTracker::new());
        let requests = TaskTracker::new();
        Self { state, unaware, fresh, requests, handler_time: HANDLER_TIME }
    }
}

impl Pause {
    /// Pauses the listener and waits until no handler runs. Bodies of responses may still be sent.
    pub async fn begin(&self) {
        self.state.send_replace(PauseState::Pausing);
        self.unaware.close();
        self.fresh.close();
        self.requests.close();
        // Otherwise a connection could be accepted, or a request read, after the waits below.
        self.unaware.wait().await;
        // Others, such as those that a browser opens in advance, are closed.
        let _ = tokio::time::timeout(FIRST_REQUEST_TIME, self.fresh.wait()).await;
        self.unaware.wait().await;
        self.state.send_replace(PauseState::Paused);
        self.requests.wait().await;
    }

    /// Resumes the listener.
    pub fn end(&self) {
        self.unaware.reopen();
        self.fresh.reopen();
        self.requests.reopen();
        self.state.send_replace(PauseState::Running);
    }

    /// Follows the state.
    pub(super) fn follow(&self) -> watch::Receiver<PauseState> {
        self.state.subscribe()
    }

    /// Reports at each change whether the listener runs, until cancelled.
    pub async fn report(self, stop: CancellationToken, on_change: impl Fn(bool)) {
        let mut state = self.follow();
        while let Some(Ok(())) = stop.run_until_cancelled(state.changed()).await {
            on_change(*state.borrow_and_update() == PauseState::Running);
        }
    }

    /// Registers the listener's task, or a connection that has sent a request. The returned value
    /// must be dropped when it accepts no more connections or requests because of a pause.
    pub(super) fn run(&self) -> TaskTrackerToken {
        self.unaware.token()
    }

    /// Registers a connection without a request until the returned value is dropped.
    pub(super) fn connect(&self) -> TaskTrackerToken {
        self.fresh.token()
    }

    /// Waits until a request that runs should be given up.
    pub(super) async fn overdue(&self) {
        let mut state = self.follow();
        loop {
            // `self` holds the sender, so the waits cannot fail.
            let _ = state.wait_for(|state| *state == PauseState::Paused).await;
            let resumed = state.wait_for(|state| *state != PauseState::Paused);
            if tokio::time::timeout(self.handler_time, resumed).await.is_err() {
                return;
            }
        }
    }

    /// Registers a request until the returned value is dropped. `None` while requests are held.
    pub(crate) fn try_enter(&self) -> Option<TaskTrackerToken> {
        // Registered first: `begin` waits for all that were not held.
        let token = self.requests.token();
        (*self.state.borrow() != PauseState::Paused).then_some(token)
    }

    /// Registers a request until the returned value is dropped. Waits while requests are held.
    /// `None` if the listener stops.
    pub(crate) async fn enter(&self, stop: &CancellationToken) -> Option<TaskTrackerToken> {
        loop {
            if let Some(token) = self.try_enter() {
                return Some(token);
            }
            let mut state = self.follow();
            let resumed = state.wait_for(|state| *state != PauseState::Paused);
            // `self` holds the sender, so the wait cannot fail.
            let _ = stop.run_until_cancelled(resumed).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn requests_are_not_held_before_all_connections_have_noticed_the_pause() {
        let (pause, stop) = (Pause::default(), CancellationToken::new());
        let (listener, fresh) = (pause.run(), pause.connect());
        let mut begin = Box::pin(pause.begin());
        assert!(begin.as_mut().now_or_never().is_none());
        // The first request of a connection that was accepted before the pause.
        let (kept, request) = (pause.run(), pause.enter(&stop).await);
        drop((listener, fresh));
        assert!(begin.as_mut().now_or_never().is_none());
        assert!(pause.enter(&stop).now_or_never().is_some(), "not held");
        drop(kept);
        assert!(begin.as_mut().now_or_never().is_none(), "a request is running");
        assert!(pause.enter(&stop).now_or_never().is_none(), "held");
        drop(request);
        begin.await;
    }

    #[tokio::test]
    async fn a_request_is_given_up_if_it_runs_too_long_after_the_pause() {
        let pause = Pause { handler_time: Duration::from_secs(3_600), ..Pause::default() };
        let mut overdue = Box::pin(pause.overdue());
        assert!(overdue.as_mut().now_or_never().is_none());
        pause.begin().await;
        assert!(overdue.as_mut().now_or_never().is_none(), "it still has time");
        pause.end();
        assert!(overdue.as_mut().now_or_never().is_none(), "the listener has resumed");
        let pause = Pause { handler_time: Duration::from_millis(1), ..Pause::default() };
        pause.begin().await;
        pause.overdue().await;
    }
}
