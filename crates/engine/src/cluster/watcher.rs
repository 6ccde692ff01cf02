//! The task that watches the other nodes and settles what dead ones have left.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fleet::{Finding, Link, Reading, RunSeen, Watch};
use store::{FleetSession, RunInfo, Store, StoreError};
use uuid::Uuid;

use super::{READ_INTERVAL, Reaper, Shared};

/// Time for one reading and what follows from it.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Watcher<R> {
    store: Store,
    session: Option<FleetSession>,
    shared: Arc<Shared>,
    reaper: R,
    watch: Watch,
    runs: BTreeMap<Uuid, RunInfo>,
}

impl<R: Reaper> Watcher<R> {
    pub(super) fn new(run: Uuid, store: Store, shared: Arc<Shared>, reaper: R) -> Self {
        let (watch, runs) = (Watch::new(run), BTreeMap::new());
        Self { store, session: None, shared, reaper, watch, runs }
    }

    pub(super) async fn run(mut self) {
        while !self.shared.stop.is_cancelled() && !self.shared.dead.is_cancelled() {
            match tokio::time::timeout(TIMEOUT, self.step()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "reading of the fleet failed");
                    self.session = None;
                }
                Err(_) => {
                    tracing::warn!("reading of the fleet overdue");
                    self.session = None;
                }
            }
            tokio::time::sleep(READ_INTERVAL).await;
        }
    }

    /// Reads the other nodes, and does what follows.
    async fn step(&mut self) -> Result<(), StoreError> {
        let session = match &mut self.session {
            Some(session) => session,
            none => none.insert(self.store.fleet_session().await?),
        };
        let sent = self.shared.now();
        let (mark, term, runs) = session.runs().await?;
        let received = self.shared.now();
        let seen = |info: &RunInfo| {
            let (run, state, seq) = (info.run, info.state, info.seq);
            RunSeen { run, state, seq, sees: Vec::new() }
        };
        let rows = runs.iter().map(seen).collect();
        self.watch.read(Reading { sent, received, mark, term: term.id, runs: rows });
        self.runs = runs.into_iter().map(|info| (info.run, info)).collect();
        let members = u32::try_from(self.watch.members().count()).unwrap_or(u32::MAX);
        self.shared.members.store(members, Ordering::Release);
        // Nodes have no connections to each other yet, so nobody hears anybody.
        for finding in self.watch.findings(|_| Link::Silent) {
            match finding {
                Finding::Dead { run, seq, death } => {
                    if session.declare_dead(run, seq).await? {
                        let node_id = self.runs.get(&run).map(|info| &info.node_id);
                        tracing::warn!(%run, node_id, ?death, "node declared dead");
                        end_calls(&self.reaper, &self.runs, run).await?;
                    }
                }
                Finding::Release { run } => {
                    end_calls(&self.reaper, &self.runs, run).await?;
                    if session.release(run).await? {
                        tracing::info!(%run, "units of a dead node given back");
                    }
                }
            }
        }
        Ok(())
    }
}

async fn end_calls(
    reaper: &impl Reaper,
    runs: &BTreeMap<Uuid, RunInfo>,
    run: Uuid,
) -> Result<(), StoreError> {
    match runs.get(&run) {
        Some(info) => reaper.end_calls(info.clone()).await,
        None => Ok(()),
    }
}
