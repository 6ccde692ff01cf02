//! State that the nodes of a fleet hold in memory and must agree on: settings, API keys, webhooks,
//! routing and owners of numbers, and certificates.
//!
//! The database counts their changes, and the answer to each beat of a node contains the count. A
//! node with a different count reads the state again.

use fleet::TermState;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::admission::book::Keeper;
use crate::inbox::Inbox;
use crate::people::People;
use model::Clock;
use store::{Store, StoreError};
use tls::Tls;

/// The services that hold settings of the whole fleet.
pub struct SharedSettings {
    keeper: Keeper,
    people: People,
    inbox: Inbox,
    store: Store,
    clock: Clock,
    /// The certificates of `listen.https`.
    tls: Option<Tls>,
    /// The term and the count at the last reading. Another term may have lost changes.
    seen: Mutex<Option<(Uuid, i64)>>,
}

impl SharedSettings {
    /// Creates the handle. The first refresh reads all state.
    pub fn new(
        keeper: Keeper,
        people: People,
        inbox: Inbox,
        store: Store,
        clock: Clock,
        tls: Option<Tls>,
    ) -> Self {
        Self { keeper, people, inbox, store, clock, tls, seen: Mutex::default() }
    }

    /// The database's count of changes.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails.
    pub async fn count(&self) -> Result<TermState, StoreError> {
        self.store.fleet_term().await
    }

    /// Reads all state that has changed up to now.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails.
    pub async fn catch_up(&self) -> Result<bool, StoreError> {
        self.refresh(&self.count().await?).await
    }

    /// Reads the changed state if `term`, from the answer to a beat, counts changes that were not
    /// read yet. Returns whether state was read. Calls in progress keep their settings.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails. The next call tries again.
    pub async fn refresh(&self, term: &TermState) -> Result<bool, StoreError> {
        let mut seen = self.seen.lock().await;
        // The answer to an older beat may come late.
        if seen.is_some_and(|(id, book)| id == term.id && book >= term.book) {
            return Ok(false);
        }
        // First, so that a revoked key does not stay valid while a change of other settings is in
        // progress.
        self.people.refresh().await?;
        // The accounts and numbers come before webhooks and routing, which refer to them. They are
        // compared again: with an older account, a number that another node has moved in between
        // would be claimed back.
        self.keeper.refresh(self.clock.wall()).await?;
        self.inbox.router().refresh().await?;
        self.keeper.refresh(self.clock.wall()).await?;
        if let Some(tls) = &self.tls {
            tls.refresh();
        }
        *seen = Some((term.id, term.book));
        Ok(true)
    }
}

#[cfg(test)]
#[path = "shared_settings_tests.rs"]
mod tests;
