//! Handles nodes that do not come back: reports recordings that exist only on their disks as
//! failed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::Clock;
use store::{ForgetOutcome, StoreError};
use tokio_util::sync::CancellationToken;

use super::{Cluster, NodeReaper};
use crate::call::recordings::Recordings;

/// Time that a node may be away before its unfinished recordings are reported as failed. If it
/// starts again earlier, it completes them.
const AWAY: Duration = Duration::from_secs(15 * 60);

/// Interval at which a node searches for such recordings.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// Reports recordings of lost nodes as failed.
pub struct LostNodes {
    pub cluster: Arc<Cluster>,
    pub recordings: Recordings,
    pub reaper: NodeReaper,
    pub clock: Clock,
}

/// The times since which nodes have been away, by the clock of this node.
#[derive(Debug, Default)]
struct Absences(BTreeMap<String, Instant>);

impl Absences {
    /// Records the nodes that are away now. Returns those that have been away for [`AWAY`].
    fn update(&mut self, away: BTreeSet<String>, now: Instant) -> Vec<String> {
        self.0.retain(|node, _| away.contains(node));
        for node in away {
            self.0.entry(node).or_insert(now);
        }
        let is_long = |since: &Instant| now.saturating_duration_since(*since) >= AWAY;
        self.0.iter().filter(|(_, since)| is_long(since)).map(|(node, _)| node.clone()).collect()
    }
}

impl LostNodes {
    /// Reports recordings of nodes that stay away as failed, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut absences = Absences::default();
        let mut every = tokio::time::interval(LOOK_INTERVAL);
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            if let Err(error) = self.look(&mut absences).await {
                tracing::warn!(%error, "recordings of absent nodes not checked");
            }
        }
    }

    async fn look(&self, absences: &mut Absences) -> Result<(), StoreError> {
        let mut session = self.cluster.store.fleet_session().await?;
        let away = session.away_with_recordings().await?;
        for node_id in absences.update(away.into_iter().collect(), self.clock.now()) {
            let taken = session.take_recordings(&node_id, &self.cluster.owner()).await?;
            if !taken.is_empty() {
                tracing::warn!(
                    node_id,
                    recordings = taken.len(),
                    "recordings of a lost node reported as failed"
                );
                self.recordings.give_up(&taken).await?;
            }
        }
        session.close().await
    }

    /// Forgets a node that is lost forever: its calls are ended, and its recordings and files
    /// without a copy are given up.
    ///
    /// # Errors
    /// Fails if the database does not answer. Forgetting the node again continues.
    pub async fn forget(&self, node_id: &str) -> Result<ForgetOutcome, StoreError> {
        let (mut session, mine) = (self.cluster.store.fleet_session().await?, self.cluster.owner());
        let outcome = session.forget(node_id).await?;
        if outcome == ForgetOutcome::Forgotten {
            let taken = session.take_recordings(node_id, &mine).await?;
            self.recordings.give_up(&taken).await?;
            let files = session.drop_recordings(node_id).await?;
            for owner in session.inherit(node_id, &mine).await? {
                self.reaper.settle(&owner).await?;
            }
            tracing::warn!(node_id, unfinished = taken.len(), files, "node forgotten");
        }
        session.close().await?;
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f30_recordings_are_given_up_when_their_node_was_away_for_15_minutes() {
        let clock = Clock::real();
        let begun = clock.now();
        let minutes = |minutes: u64| begun + Duration::from_secs(60 * minutes);
        let mut absences = Absences::default();
        let mut update = |away: &[&str], at| {
            let away = away.iter().map(|node| (*node).to_owned()).collect();
            absences.update(away, minutes(at))
        };
        assert!(update(&["a", "b"], 0).is_empty());
        assert!(update(&["a", "b", "c"], 14).is_empty());
        // One has come back, and goes again.
        assert_eq!(update(&["b", "c"], 15), ["b"]);
        assert!(update(&["a", "c"], 16).is_empty());
        assert_eq!(update(&["a", "c"], 30), ["c"]);
        assert_eq!(update(&["a"], 31), ["a"]);
    }
}
