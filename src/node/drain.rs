//! Shutdown of a node: the first signal drains it, and the second one ends it immediately. See
//! `docs/reference/reliability.md#r9`.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use super::Node;
use model::HangupCause;

/// Time limit of each shutdown step.
#[derive(Clone, Copy)]
pub(super) struct EndTimes {
    /// Time limit for `terminate` requests of the remaining calls, and Graph's answers.
    calls: Duration,
    /// Time limit for writes and Graph requests in progress.
    work: Duration,
    /// Time limit for callbacks in progress. Others stay in the store.
    notices: Duration,
    /// Whether the store is kept for the next start.
    keeps_store: bool,
    /// Whether another process takes over the legs. The media threads keep them until it serves.
    hands_over: bool,
}

impl EndTimes {
    /// Limits after the drain time. The process exits within 5 s.
    pub(super) const DRAINED: Self = Self::of(2_000, 500, 1_500);
    /// Limits before another process takes over. The calls have left, and connections wait.
    pub(super) const HAND_OVER: Self = Self { hands_over: true, ..Self::of(0, 2_000, 3_000) };
    /// Limits after a second signal. The process exits within 2 s.
    pub(super) const NOW: Self = Self::of(700, 200, 500);

    /// Limits of a temporary node. Its store is deleted after it has stopped.
    pub(super) const FOR_GOOD: Self = Self { keeps_store: false, ..Self::NOW };

    const fn of(calls: u64, work: u64, notices: u64) -> Self {
        let ms = Duration::from_millis;
        let (calls, work, notices) = (ms(calls), ms(work), ms(notices));
        Self { calls, work, notices, keeps_store: true, hands_over: false }
    }
}

/// Handlers of SIGINT and SIGTERM. While this exists, these signals do not kill the process.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// Whether a signal arrived during start-up.
    early: bool,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// Returns an error if they cannot be installed.
    pub fn new() -> std::io::Result<Self> {
        let (interrupt, terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, early: false })
    }

    pub(super) async fn next(&mut self) {
        if std::mem::take(&mut self.early) {
            return;
        }
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Awaits `start`. A first signal during it takes effect when it completes; a second one
    /// cancels it and returns `None`.
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
                    info!("signal during start-up: stopping once started; a second signal stops now");
                }
            }
        }
    }
}

/// Runs a node until SIGINT or SIGTERM, then drains it. A second signal ends it immediately.
pub async fn until_stopped(node: Node, mut signals: Signals) {
    node.until_stop_requested(&mut signals).await;
    drain_and_end(&node, signals).await;
}

/// Drains a node and ends it. A signal during the drain ends it immediately.
pub(super) async fn drain_and_end(node: &Node, mut signals: Signals) {
    node.stop_admitting();
    let drain_time = tokio::time::sleep(node.tunables.drain_at_most());
    tokio::pin!(drain_time);
    let live = node.registry.len();
    if live > 0 {
        info!(
            live,
            at_most_s = node.tunables.drain_at_most().as_secs(),
            "draining; a second signal ends the calls now"
        );
    } else {
        info!("stopping");
    }
    let drained = tokio::select! {
        left = node.until_drained() => left,
        () = signals.next() => {
            warn!(live = node.registry.len(), "second signal: ending now");
            node.end(EndTimes::NOW).await;
            return;
        }
    };
    if drained > 0 {
        warn!(live = drained, "drain time over: ending the remaining calls");
    }
    // The others would end its calls as failed, although it knows how they ended.
    if node.place.cluster().is_some() && node.store.is_journalling() {
        warn!(
            "waiting for the database, so that the fleet gets the records of this node's calls; a second signal ends now"
        );
        tokio::select! {
            () = node.store.until_database_works() => {}
            () = &mut drain_time => warn!(
                "drain time over without the database: the other nodes end the calls of this one with cause node_failure"
            ),
            () = signals.next() => {
                node.end(EndTimes::NOW).await;
                return;
            }
        }
    }
    tokio::select! {
        () = node.end(EndTimes::DRAINED) => info!("stopped"),
        () = signals.next() => {}
    }
}

impl Node {
    /// Waits for SIGINT or SIGTERM, or until another process has taken this node's lock.
    pub(super) async fn until_stop_requested(&self, signals: &mut Signals) {
        let lost = self.place.lost();
        tokio::select! {
            () = signals.next() => {}
            // Calls of this process continue. The calls that the other process ended are over.
            () = lost.cancelled() => error!("another process took over this node id: draining"),
        }
    }

    /// Waits until this node has no calls and its rooms have none of other nodes, or until the
    /// drain time is over. Returns the number of this node's remaining calls.
    async fn until_drained(&self) -> usize {
        let at_most = self.tunables.drain_at_most();
        let (left, ()) =
            tokio::join!(self.registry.until_empty(at_most), self.hosting.until_empty(at_most));
        left
    }

    /// Makes `/readyz` fail and rejects new calls as `draining`. Live calls continue.
    pub fn stop_admitting(&self) {
        self.drain.begin();
    }

    /// Ends the remaining calls, then all services.
    pub(super) async fn end(&self, times: EndTimes) {
        match times.hands_over {
            true => drop(self.drain.stop()),
            false => self.stop_admitting(),
        }
        self.registry.cut_all(HangupCause::Drained);
        // The background tasks also have the time that calls and recordings do not need.
        let tasks_over = tokio::time::sleep(times.calls + 2 * times.work);
        self.registry.until_empty(times.calls).await;
        self.stop_public.cancel();
        // A recording's file must be complete before its row is written.
        let recordings = self.recordings.clone();
        let completed = tokio::task::spawn_blocking(move || recordings.stop());
        if tokio::time::timeout(times.work, completed).await.is_err() && times.keeps_store {
            warn!("recordings not completed in time; the next start completes them");
        }
        self.tasks.close();
        // Messages and `terminate` requests to Graph, and writes to the store.
        tokio::select! {
            () = self.tasks.wait() => {}
            () = tasks_over => warn!("background tasks not finished in time"),
        }
        let cut_off = self.outbox.drain(times.notices).await;
        if cut_off > 0 && times.keeps_store {
            warn!(
                callbacks = cut_off,
                "callbacks in progress cancelled; the next start delivers them"
            );
        }
        // Exports calls whose end Meta has not confirmed.
        self.registry.export_live();
        if !times.hands_over {
            self.media.stop();
        }
        if let Some(cluster) = self.place.cluster().filter(|_| !times.hands_over) {
            self.store.flush().await;
            match tokio::time::timeout(times.work, cluster.leave()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(%error, "fleet not left gracefully"),
                Err(_) => warn!("leaving the fleet took too long"),
            }
        }
        self.store.close().await;
        #[cfg(feature = "otel")]
        if let Some(otel) = &self.otel {
            otel.flush(times.work).await;
        }
        self.stop_all.cancel();
    }
}
