//! The state of a fleet as known to one process, for operators.

use std::sync::PoisonError;
use std::time::Duration;

use fleet::{RunState, TermState};
use store::RunInfo;
use uuid::Uuid;

use super::Cluster;
use crate::admission::UnitCounts;

/// The state of a fleet as known to this process.
#[derive(Clone, Debug)]
pub struct Status {
    pub run: Uuid,
    /// Whether the database has answered the last beat, and this node itself has sent it.
    pub is_connected: bool,
    /// Time since the last answered beat was sent. `None` before the first one.
    pub beat_age: Option<Duration>,
    /// Time from sending the last answered beat to its answer.
    pub beat_time: Duration,
    pub term: Option<TermState>,
    /// The units that this process holds.
    pub units: UnitCounts,
    /// The other runs, from the last reading: members, and dead ones whose units are not given back
    /// yet.
    pub others: Vec<RunInfo>,
    /// The runs that this process can reach.
    pub sees: Vec<Uuid>,
}

impl Status {
    /// Returns the names of the other nodes that have not reported the units that they hold since
    /// the database may have lost some. No node gets more units before all have done so.
    pub fn not_restated(&self) -> Vec<&str> {
        let Some(term) = self.term.filter(|term| !term.open) else { return Vec::new() };
        let is_missing = |info: &&RunInfo| info.restated != Some(term.id);
        self.others.iter().filter(is_missing).map(|info| info.node_id.as_str()).collect()
    }

    /// Returns the number of runs in each state, including this run. `is_draining` is the state of
    /// this run.
    pub fn counts(&self, is_draining: bool) -> [(&'static str, usize); 3] {
        let own = if is_draining { RunState::Draining } else { RunState::Up };
        [RunState::Up, RunState::Draining, RunState::Dead].map(|state| {
            let others = self.others.iter().filter(|info| info.state == state).count();
            (state.as_str(), others + usize::from(own == state))
        })
    }
}

impl Cluster {
    /// Returns the state of the fleet as known to this process.
    pub fn status(&self) -> Status {
        let shared = &self.shared;
        let state = *shared.state.borrow();
        Status {
            run: shared.run,
            is_connected: state.is_connected && state.carrier.is_none(),
            beat_age: state.beat.map(|sent| shared.now().saturating_sub(sent)),
            beat_time: state.beat_time,
            term: state.term,
            units: self.gate.units(shared.clock.now()),
            others: shared.others.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            sees: shared.peers.sees(),
        }
    }
}
