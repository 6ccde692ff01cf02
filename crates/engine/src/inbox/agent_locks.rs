//! Keeps the answers of AI agents and changes of routing apart: once a change is confirmed, no
//! answer under the old routing is sent.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use model::PhoneNumberId;

/// Maximum time that a change of routing waits for agents' answers that are being sent to Meta.
const AGENT_WAIT: Duration = Duration::from_secs(15);

/// A lock per number. Sending an agent's answer holds it for reading, changing the routing for
/// writing.
#[derive(Default)]
pub struct AgentLocks(DashMap<PhoneNumberId, Arc<RwLock<()>>>);

impl AgentLocks {
    /// Waits for agents' answers that are being sent to Meta.
    pub async fn wait(&self, number: &PhoneNumberId) {
        drop(self.pause(number).await);
    }

    /// Waits for agents' answers that are being sent to Meta, and delays further ones while the
    /// guard is held. `None` if they take longer than [`AGENT_WAIT`].
    pub(super) async fn pause(&self, number: &PhoneNumberId) -> Option<OwnedRwLockWriteGuard<()>> {
        tokio::time::timeout(AGENT_WAIT, self.of(number).write_owned()).await.ok()
    }

    /// Delays changes of routing while the guard is held. Waits for the one in progress.
    pub(super) async fn answer(&self, number: &PhoneNumberId) -> OwnedRwLockReadGuard<()> {
        self.of(number).read_owned().await
    }

    fn of(&self, number: &PhoneNumberId) -> Arc<RwLock<()>> {
        self.0.entry(number.clone()).or_default().clone()
    }
}
