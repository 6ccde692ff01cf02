//! Writes of resources that come from outside a call (agents, notifications …): each says itself how it is carried out, so
//! that the queue, the writer and the batch need not know it. Whoever waits hears how many rows it touched, once that is
//! on the disk. The journal takes none: where the store doesn't, nothing has changed.

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::StoreError;
use super::queue::{EventLog, Write};
use super::seal::Seal;
use super::sql::Conn;

/// One write. Carried out within a batch's transaction, perhaps again in a later one: it changes nothing but rows.
pub(super) trait Deed: Send + Sync {
    /// How many rows it touched.
    fn carry_out<'a>(
        &'a self,
        to: &'a mut Conn,
        seal: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>>;

    /// Whether it must be on the disk when its batch is done; else it may be lost with the power.
    fn is_synced(&self) -> bool {
        true
    }
}

impl EventLog {
    /// Queues it now, behind room for it, and gives what to wait for.
    pub(super) fn deed<D: Deed + 'static>(
        &self,
        deed: D,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send + 'static + use<D> {
        let (tell, told) = oneshot::channel();
        let asked = self.ask(Write::Deed(Box::new(deed), tell), told);
        self.in_a_hurry();
        async move { asked.await.map_err(|_| StoreError::NotTaken) }
    }

    /// Queues it now, unless the queue is full: then it is refused and counted (`None`).
    pub(super) fn deed_if_room<D: Deed + 'static>(
        &self,
        deed: D,
    ) -> Option<impl Future<Output = Result<u64, StoreError>> + Send + 'static + use<D>> {
        let (tell, told) = oneshot::channel();
        let queued = self.note(Write::Deed(Box::new(deed), tell));
        queued.then_some(async move { told.await.map_err(|_| StoreError::NotTaken) })
    }
}
