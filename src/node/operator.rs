//! What the node's owner asks of it over the API and in the console: how it does, to read its configuration again, to drain.

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

/// The way into a drain; cheap to clone.
#[derive(Clone)]
pub(super) struct Drain {
    pub(super) health: Health,
    pub(super) gate: Arc<Gate>,
    pub(super) dialer: Dialer,
    pub(super) phones: Phones,
}

impl Drain {
    /// `/readyz` says no and new calls are rejected as `draining`; live ones go on.
    pub(super) fn begin(&self) {
        self.health.set_draining();
        metrics::gauge!(metric::DRAINING).set(1.0);
        self.gate.drain();
        // They would be refused when their turn comes: their customers hear it now.
        self.dialer.drain();
        self.phones.drain();
    }
}

/// This node, as its owner sees and commands it.
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
            fetches: exchanges(tallies.fetches, is_fetched),
            graph: exchanges(tallies.graph, is_granted),
        }])
    }

    fn drain(&self, node: &str) -> bool {
        if node != self.id {
            return false;
        }
        tracing::info!(
            live = self.registry.len(),
            "drained by its owner: no new calls; a signal ends the node"
        );
        self.drain.begin();
        true
    }
}

fn exchanges(tallies: Vec<Tally>, is_ok: fn(&str) -> bool) -> Vec<RequestCount> {
    let of = |Tally { what, came, count }| RequestCount {
        kind: what,
        ok: is_ok(&came),
        outcome: came,
        count,
    };
    tallies.into_iter().filter(|tally| tally.count > 0).map(of).collect()
}

/// What Linux says of this process's memory, in bytes.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()?.checked_mul(1024)
}
