//! The end of a node: what a first and a second signal do (R9).

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use super::Node;
use crate::model::HangupCause;

/// After the drain time, what is left of the calls gets so long to say goodbye to Graph and to write its records.
const CUT_TIME: Duration = Duration::from_secs(3);
/// The same after a second signal.
const NOW_TIME: Duration = Duration::from_millis(1_500);
/// What waits to be sent to customers gets one more round and so long.
const NOTICES_TIME: Duration = Duration::from_secs(2);

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Runs a node until SIGINT or SIGTERM, then drains it; a second signal ends it at once.
///
/// # Errors
/// The system gives no signal handlers; the node is stopped.
pub async fn until_stopped(node: Node) -> std::io::Result<()> {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(e) => {
            node.end(Duration::ZERO).await;
            return Err(e);
        }
    };
    signals.next().await;
    node.stop_admitting();
    let live = node.registry.len();
    if live > 0 {
        info!(live, at_most_s = node.drain_at_most.as_secs(), "draining; a second signal ends the calls now");
    }
    let drained = tokio::select! {
        left = node.registry.until_empty(node.drain_at_most) => left,
        () = signals.next() => {
            warn!(live = node.registry.len(), "second signal: ending now");
            node.end(NOW_TIME).await;
            return Ok(());
        }
    };
    if drained > 0 {
        warn!(live = drained, "drain time over: ending the calls that are left");
    }
    tokio::select! {
        () = node.end(CUT_TIME) => {}
        () = signals.next() => {}
    }
    Ok(())
}

impl Node {
    /// `/readyz` says no and new calls are rejected as `draining`; live ones go on.
    pub fn stop_admitting(&self) {
        self.health.draining();
        self.gate.drain();
    }

    /// Ends the calls that are left, at most within `at_most`, then everything else.
    pub async fn end(&self, at_most: Duration) {
        self.stop_admitting();
        self.registry.cut_all(HangupCause::Drained);
        self.registry.until_empty(at_most).await;
        self.stop_public.cancel();
        self.tasks.close();
        // Terminates on their way to Graph, records on their way to the disk.
        if tokio::time::timeout(at_most.max(NOW_TIME), self.tasks.wait()).await.is_err() {
            warn!("some work was not finished in time");
        }
        let cut_off = self.notifier.drain(NOTICES_TIME).await;
        if cut_off > 0 {
            warn!(notices = cut_off, "callbacks not delivered");
        }
        self.media.stop();
        self.store.close().await;
        self.stop_all.cancel();
    }
}
