//! The end of a node: what a first and a second signal do (R9).

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use super::Node;
use model::HangupCause;

/// How long each step of the end may take; together they keep R9's figures.
#[derive(Clone, Copy)]
pub(super) struct EndTimes {
    /// For Graph to hear of the calls that are cut, and to confirm it.
    calls: Duration,
    /// For work under way: records to the disk, requests to Graph.
    work: Duration,
    /// For callbacks under way; the others wait in the store.
    notices: Duration,
}

impl EndTimes {
    /// After the drain time: out within 5 s more.
    pub(super) const DRAINED: Self = Self::of(2_000, 500, 1_500);
    /// After a second signal: out within 2 s.
    pub(super) const NOW: Self = Self::of(700, 200, 500);

    const fn of(calls: u64, work: u64, notices: u64) -> Self {
        let ms = Duration::from_millis;
        Self { calls: ms(calls), work: ms(work), notices: ms(notices) }
    }
}

/// SIGINT and SIGTERM: from when this is made they end the process no more by themselves.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// One came while the node was starting.
    early: bool,
}

impl Signals {
    /// # Errors
    /// The system gives no signal handlers.
    pub fn new() -> std::io::Result<Self> {
        let (interrupt, terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, early: false })
    }

    async fn next(&mut self) {
        if std::mem::take(&mut self.early) {
            return;
        }
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Starts a node. A signal meanwhile is one that comes as soon as it has started; a second one gives the start up: none.
    pub async fn through<T>(&mut self, start: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(start);
        let mut early = false;
        loop {
            tokio::select! {
                biased;
                started = &mut start => {
                    self.early = early;
                    return Some(started);
                }
                () = self.next() => {
                    if early {
                        return None;
                    }
                    early = true;
                    info!("stopping as soon as it has started; a second signal stops it now");
                }
            }
        }
    }
}

/// Runs a node until SIGINT or SIGTERM, then drains it; a second signal ends it at once.
pub async fn until_stopped(node: Node, mut signals: Signals) {
    let lost = node.hold.lost();
    tokio::select! {
        () = signals.next() => {}
        // The calls that are up here go on; what the other process has ended is over.
        () = lost.cancelled() => error!("this process is no node any more: draining"),
    }
    node.stop_admitting();
    let live = node.registry.len();
    if live > 0 {
        info!(
            live,
            at_most_s = node.knobs.drain_at_most().as_secs(),
            "draining; a second signal ends the calls now"
        );
    }
    let drained = tokio::select! {
        left = node.registry.until_empty(node.knobs.drain_at_most()) => left,
        () = signals.next() => {
            warn!(live = node.registry.len(), "second signal: ending now");
            node.end(EndTimes::NOW).await;
            return;
        }
    };
    if drained > 0 {
        warn!(live = drained, "drain time over: ending the calls that are left");
    }
    tokio::select! {
        () = node.end(EndTimes::DRAINED) => {}
        () = signals.next() => {}
    }
}

impl Node {
    /// `/readyz` says no and new calls are rejected as `draining`; live ones go on.
    pub fn stop_admitting(&self) {
        self.drain.begin();
    }

    /// Ends the calls that are left, then everything else.
    pub(super) async fn end(&self, times: EndTimes) {
        self.stop_admitting();
        self.registry.cut_all(HangupCause::Drained);
        self.registry.until_empty(times.calls).await;
        self.stop_public.cancel();
        // Their files are complete before their rows are.
        let recordings = self.recordings.clone();
        let completed = tokio::task::spawn_blocking(move || recordings.stop());
        if tokio::time::timeout(times.work, completed).await.is_err() {
            warn!("some recordings were not completed in time: the next start does it");
        }
        self.tasks.close();
        // Terminates on their way to Graph, records on their way to the disk.
        if tokio::time::timeout(times.work, self.tasks.wait()).await.is_err() {
            warn!("some work was not finished in time");
        }
        let cut_off = self.outbox.drain(times.notices).await;
        if cut_off > 0 {
            warn!(
                callbacks = cut_off,
                "callbacks under way were cut off; they go on after the next start"
            );
        }
        // Those of which Meta has not said that they are over: nobody waits for that any more.
        self.registry.export_live();
        self.media.stop();
        self.store.close().await;
        #[cfg(feature = "otel")]
        if let Some(otel) = &self.otel {
            otel.flush(times.work).await;
        }
        self.stop_all.cancel();
    }
}
