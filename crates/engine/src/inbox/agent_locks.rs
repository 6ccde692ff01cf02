//! Locks that keep the answers of AI agents and changes of routing apart.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::RwLock;

use super::Inbox;
use crate::admission::NumberEntry;
use model::PhoneNumberId;

/// Maximum time that a change of routing waits for agents' answers that are being sent to Meta.
const AGENT_WAIT: Duration = Duration::from_secs(15);

impl Inbox {
    /// Waits for agents' answers that are being sent to Meta.
    pub async fn wait_for_agents(&self, number: &NumberEntry) {
        drop(self.pause_agents(&number.spec.mail_id).await);
    }

    /// Waits for agents' answers that are being sent to Meta, and delays further ones while the
    /// guard is held. `None` if they take longer than [`AGENT_WAIT`].
    pub(super) async fn pause_agents(
        &self,
        number: &model::PhoneNumberId,
    ) -> Option<tokio::sync::OwnedRwLockWriteGuard<()>> {
        tokio::time::timeout(AGENT_WAIT, self.routing_lock(number).write_owned()).await.ok()
    }

    pub(super) fn routing_lock(&self, number: &PhoneNumberId) -> Arc<RwLock<()>> {
        self.0.routing_locks.entry(number.clone()).or_default().clone()
    }
}
