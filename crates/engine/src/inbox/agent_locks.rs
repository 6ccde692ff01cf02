//! Keeps the answers of AI agents and changes of routing apart: once a change is confirmed, no
//! answer under the old routing is sent. After a change, the store refuses to send further ones, and
//! those that are being sent are waited for.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

use model::PhoneNumberId;

/// Maximum time that a change of routing waits for agents' answers that are being sent to Meta.
const AGENT_WAIT: Duration = Duration::from_secs(15);

/// A lock per number. Sending an agent's answer holds it for reading, and who has changed the routing
/// waits for it for writing.
#[derive(Default)]
pub struct AgentLocks(DashMap<PhoneNumberId, Arc<RwLock<()>>>);

impl AgentLocks {
    /// Waits for agents' answers that are being sent to Meta, but for 15 s at most.
    pub async fn wait(&self, number: &PhoneNumberId) {
        let _ = tokio::time::timeout(AGENT_WAIT, self.of(number).write_owned()).await;
    }

    /// Delays the response to changes of routing while the guard is held.
    pub(super) async fn answer(&self, number: &PhoneNumberId) -> OwnedRwLockReadGuard<()> {
        self.of(number).read_owned().await
    }

    fn of(&self, number: &PhoneNumberId) -> Arc<RwLock<()>> {
        self.0.entry(number.clone()).or_default().clone()
    }
}
