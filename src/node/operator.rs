//! Owner commands of the API and the console: status, reload, drain.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::reload::Reloader;
use crate::api::{NodeState, NodeStatus, Operator, ReloadOutcome, RequestCount};
use crate::observe::tally::{is_fetched, is_granted};
use crate::observe::{Metrics, Tally};
use engine::admission::Gate;
use engine::call::phones::Phones;
use engine::call::{Dialer, Registry};
use model::Timestamp;
use model::{Health, metric};

/// Starts a drain. Cheap to clone.
#[derive(Clone)]
pub(super) struct Drain {
    pub(super) health: Health,
    pub(super) gate: Arc<Gate>,
    pub(super) dialer: Dialer,
    pub(super) phones: Phones,
}

impl Drain {
    /// Makes `/readyz` fail and rejects new calls as `draining`. Live calls continue.
    pub(super) fn begin(&self) {
        self.health.set_draining();
        metrics::gauge!(metric::DRAINING).set(1.0);
        self.gate.drain();
        // Queued calls would be rejected at their turn: report it to their customers now.
        self.dialer.drain();
        self.phones.drain();
    }
}

/// Implements [`Operator`] for this node.
pub(super) struct ThisNode {
    pub(super) id: String,
    pub(super) started: Timestamp,
    pub(super) reloader: Reloader,
    pub(super) drain: Drain,
    pub(super) registry: Registry,
    pub(super) metrics: Metrics,
}

impl Operator for ThisNode {
    fn reload(&self) -> BoxFuture<'static, ReloadOutcome> {
        self.reloader.reload()
    }

    fn nodes(&self) -> Option<Vec<NodeStatus>> {
        if self.reloader.is_shared() {
            return None;
        }
        let health = &self.drain.health;
        let not_ready = health.unready_reason();
        let state = match not_ready {
            None => NodeState::Ready,
            Some(_) if health.is_draining() => NodeState::Draining,
            Some(_) => NodeState::Unready,
        };
        let tallies = self.metrics.tallies();
        Some(vec![NodeStatus {
            id: self.id.clone(),
            version: env!("CARGO_PKG_VERSION"),
            started: self.started,
            state,
            not_ready,
            live_calls: self.registry.len(),
            memory_bytes: resident(),
            fetches: request_counts(tallies.fetches, is_fetched),
            graph: request_counts(tallies.graph, is_granted),
        }])
    }

    fn drain(&self, node: &str) -> bool {
        if node != self.id {
            return false;
        }
        tracing::info!(
            live = self.registry.len(),
            "drain requested through the API: no new calls are accepted; send SIGTERM to stop the node"
        );
        self.drain.begin();
        true
    }
}

fn request_counts(tallies: Vec<Tally>, is_ok: fn(&str) -> bool) -> Vec<RequestCount> {
    let of = |Tally { what, came, count }| RequestCount {
        kind: what,
        ok: is_ok(&came),
        outcome: came,
        count,
    };
    tallies.into_iter().filter(|tally| tally.count > 0).map(of).collect()
}

/// Resident memory of this process, in bytes. `None` if `/proc` is not readable.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()?.checked_mul(1024)
}
