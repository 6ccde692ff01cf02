//! Ends the calls of dead processes of the fleet and adopts their work.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use model::metric::{self, adopted};
use store::{Birth, CallStart, FleetSession, RunInfo, StoreError, run_of_owner};
use uuid::Uuid;

use super::{FleetClaims, Reaper};
use crate::admission::Directory;
use crate::call::registry::{CallKey, Registry};
use crate::call::{Dialer, Services, orphan};
use crate::webhook::OtherNodes as _;

/// Claims per query.
const PAGE: u32 = 10_000;

/// Ends the calls of dead processes and adopts their other work, for this node.
#[derive(Clone)]
pub struct NodeReaper {
    pub services: Arc<Services>,
    pub registry: Registry,
    pub dialer: Dialer,
    pub directory: Arc<Directory>,
    /// `None` if this node is alone.
    pub claims: Option<Arc<FleetClaims>>,
}

impl NodeReaper {
    /// Ends the calls of an owner: a dead run, or an earlier process of this node. Adopts its
    /// callbacks, requests to Graph, and messages.
    ///
    /// # Errors
    /// Fails if the database does not answer. What was done is not undone.
    pub async fn settle(&self, owner: &str) -> Result<(), StoreError> {
        let Services { store, rooms, outbox, node_id, .. } = &*self.services;
        let run = run_of_owner(owner);
        let mut session = store.fleet_session().await?;
        if let Some(run) = run {
            session.fence(run).await?;
        }
        rooms
            .end_orphans(
                store,
                owner,
                node_id,
                &std::collections::BTreeSet::new(),
                |account, url| outbox.queue(account, url),
            )
            .await?;
        // Before the open calls are ended: these go on waiting.
        let waiting = self.dialer.adopt(owner).await?;
        if waiting > 0 {
            tracing::info!(owner, calls = waiting, "adopted waiting calls");
        }
        let ended = orphan::end_all(&self.services, owner, &HashSet::new()).await?;
        metrics::counter!(metric::ADOPTED_TOTAL, "what" => adopted::CALLS).increment(ended.calls);
        for placed in ended.placed {
            let number = self.directory.number(&placed.phone_number_id);
            let token = number.and_then(|number| number.spec.access_token.clone());
            self.registry.remember(placed, token);
        }
        if let Some(run) = run {
            session.release_rooms_of(run).await?;
            self.reject_claimed(&mut session, run).await?;
        }
        let adopted = session.adopt(owner, node_id).await?;
        metrics::counter!(metric::ADOPTED_TOTAL, "what" => adopted::ROWS).increment(adopted);
        if adopted > 0 {
            tracing::info!(owner, rows = adopted, "work of another process adopted");
        }
        session.close().await
    }

    /// Rejects calls that a run had decided to reject, without waiting for Graph.
    async fn reject_claimed(
        &self,
        session: &mut FleetSession,
        run: Uuid,
    ) -> Result<(), StoreError> {
        let Some(claims) = self.claims.clone() else { return Ok(()) };
        let rejections = session.unsettled_rejections(run, PAGE).await?;
        if rejections.is_empty() {
            return Ok(());
        }
        tracing::warn!(%run, calls = rejections.len(), "rejecting calls for a dead process");
        let (registry, directory) = (self.registry.clone(), self.directory.clone());
        self.services.tasks.spawn(async move {
            for rejection in rejections {
                let Ok(key) = serde_json::from_slice::<CallKey>(&rejection) else { continue };
                let Some(number) = directory.number(&key.phone_number_id) else { continue };
                let (claims, wacid) = (claims.clone(), key.wacid.clone());
                let settled = Box::new(move || claims.rejected(&key));
                registry.reject_for_other(&number, wacid, settled).await;
            }
        });
        Ok(())
    }

    /// Writes the rows of calls that a dead run had claimed but not written.
    async fn restore_claimed(&self, run: &RunInfo) -> Result<(), StoreError> {
        let store = &self.services.store;
        let mut session = store.fleet_session().await?;
        let mut restored = 0_usize;
        for claim in session.orphan_claims(run.run, PAGE).await? {
            let Some(birth) = store.open_birth(model::CallUuid(claim.call), &claim.birth) else {
                tracing::error!(call_uuid = %claim.call, "claim of a dead node not readable: it has another store.secret_key");
                continue;
            };
            let Birth { node_id, born, setup } = birth;
            if store.calls().begin(CallStart::of(&setup, &node_id), &setup, born) {
                restored += 1;
            }
        }
        session.close().await?;
        if restored > 0 {
            store.flush().await;
            tracing::warn!(calls = restored, node_id = %run.node_id, "calls of a dead node restored from their claims");
        }
        Ok(())
    }
}

impl Reaper for NodeReaper {
    fn reap(&self, run: RunInfo) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            self.restore_claimed(&run).await?;
            self.settle(&run.owner()).await
        }
        .boxed()
    }
}
