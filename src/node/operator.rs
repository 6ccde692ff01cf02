//! Owner commands of the API and the console: status, reload, drain.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio_util::task::TaskTracker;

use super::fleet;
use super::reload::Reloader;
use super::watch::Memory;
use crate::api::{
    FleetStatus, NodeState, NodeStatus, Operator, ReloadOutcome, RequestCount, Units,
};
use crate::observe::tally::is_fetched;
use crate::observe::{Metrics, Tally};
use engine::admission::{Gate, UnitCounts};
use engine::call::phones::Phones;
use engine::call::queues::Waiting;
use engine::call::{Dialer, Registry};
use engine::cluster::{Cluster, LostNodes, Status};
use model::Timestamp;
use model::{Health, metric};
use store::{ForgetOutcome, RunInfo, StoreError};

/// Starts a drain. Cheap to clone.
#[derive(Clone)]
pub(super) struct Drain {
    pub(super) health: Health,
    pub(super) gate: Arc<Gate>,
    pub(super) dialer: Dialer,
    pub(super) phones: Phones,
    pub(super) cluster: Option<Arc<Cluster>>,
    pub(super) tasks: TaskTracker,
}

impl Drain {
    /// Makes `/readyz` fail and rejects new calls as `draining`. Live calls continue.
    pub(super) fn begin(&self) {
        // Queued calls would be rejected at their turn: report it to their customers now, or let
        // another node place them.
        let shared = self.stop();
        match &self.cluster {
            Some(cluster) => {
                fleet::tell_drain(&self.tasks, cluster.clone(), self.dialer.clone(), shared);
            }
            None => self.dialer.give_up_drained(shared),
        }
    }

    /// Does the same without telling other nodes. Returns the queued calls.
    pub(super) fn stop(&self) -> Vec<Waiting> {
        self.health.set_draining();
        metrics::gauge!(metric::DRAINING).set(1.0);
        self.gate.drain();
        let queued = self.dialer.drain();
        self.phones.drain();
        queued
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
    pub(super) cluster: Option<Arc<Cluster>>,
    pub(super) memory: Memory,
    /// The lost nodes of the fleet. `None` outside a fleet.
    pub(super) lost: Option<Arc<LostNodes>>,
}

/// How much of its capacity the node uses, from 0 to 1, in steps of 0.001.
pub(super) fn node_load(registry: &Registry, memory: &Memory) -> f64 {
    (registry.load().max(memory.load()) * 1_000.0).round() / 1_000.0
}

impl ThisNode {
    pub(super) fn is_draining(&self) -> bool {
        self.drain.health.is_draining()
    }

    /// The status of this node. `None` if several main accounts share it.
    pub(super) fn status(&self) -> Option<NodeStatus> {
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
        Some(NodeStatus {
            id: self.id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: Some(self.started.to_string()),
            state,
            not_ready: not_ready.map(str::to_owned),
            live_calls: Some(self.registry.len()),
            load: Some(node_load(&self.registry, &self.memory)),
            fleet: self.cluster.as_ref().map(|cluster| fleet_status(&cluster.status())),
            memory_bytes: Memory::resident(),
            fetches: request_counts(tallies.fetches, is_fetched),
            graph: request_counts(tallies.graph, metric::graph::is_granted),
        })
    }
}

fn fleet_status(status: &Status) -> FleetStatus {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let is_seen = |other: &&RunInfo| status.sees.contains(&other.run);
    let UnitCounts { slots_held, slots_used, permits_held, permits_used } = status.units;
    FleetStatus {
        run: status.run.to_string(),
        connected: status.is_connected,
        beat_age_ms: status.beat_age.map(millis),
        beat_ms: millis(status.beat_time),
        open: status.term.is_some_and(|term| term.open),
        waiting_for: status.not_restated().into_iter().map(str::to_owned).collect(),
        units: Units { slots_held, slots_used, permits_held, permits_used },
        hears: status.others.iter().filter(is_seen).map(|other| other.node_id.clone()).collect(),
    }
}

impl Operator for ThisNode {
    fn reload(&self) -> BoxFuture<'static, ReloadOutcome> {
        self.reloader.reload()
    }

    fn is_shared(&self) -> bool {
        self.reloader.is_shared()
    }

    fn nodes(&self) -> BoxFuture<'static, Option<Vec<NodeStatus>>> {
        let own = self.status();
        let others = self.cluster.as_ref().filter(|_| own.is_some()).map(fleet::other_nodes);
        Box::pin(async move {
            let mut nodes = vec![own?];
            if let Some(others) = others {
                nodes.extend(others.await);
            }
            Some(nodes)
        })
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

    fn forget(&self, node: &str) -> BoxFuture<'static, Result<ForgetOutcome, StoreError>> {
        let (lost, node) = (self.lost.clone(), node.to_owned());
        Box::pin(async move {
            match lost {
                Some(lost) => lost.forget(&node).await,
                None => Ok(ForgetOutcome::Unknown),
            }
        })
    }

    fn node_id(&self) -> &str {
        &self.id
    }
}

fn request_counts(tallies: Vec<Tally>, is_ok: fn(&str) -> bool) -> Vec<RequestCount> {
    let of =
        |Tally { kind, outcome, count }| RequestCount { kind, ok: is_ok(&outcome), outcome, count };
    tallies.into_iter().filter(|tally| tally.count > 0).map(of).collect()
}
