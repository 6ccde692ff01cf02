//! What the nodes of a fleet hold in memory and must agree on: settings, API keys, and webhooks,
//! routing and owners of numbers.
//!
//! The database counts their changes, and the answer to each beat of a node carries the count. A
//! node whose own count is another one reads them again.

use fleet::TermState;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::admission::book::Keeper;
use crate::inbox::Inbox;
use crate::people::People;
use model::Clock;
use store::StoreError;

/// The services that hold settings of the whole fleet.
pub struct SharedSettings {
    keeper: Keeper,
    people: People,
    inbox: Inbox,
    clock: Clock,
    /// The term and the count of what was read last. Another term may have lost changes.
    seen: Mutex<Option<(Uuid, i64)>>,
}

impl SharedSettings {
    /// Creates the handle. The first refresh reads everything.
    pub fn new(keeper: Keeper, people: People, inbox: Inbox, clock: Clock) -> Self {
        Self { keeper, people, inbox, clock, seen: Mutex::default() }
    }

    /// Reads again what has changed if `term`, from the answer to a beat, counts changes that were
    /// not read yet. Returns whether it did. Calls in progress keep their settings.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails. The next call tries again.
    pub async fn refresh(&self, term: &TermState) -> Result<bool, StoreError> {
        let mut seen = self.seen.lock().await;
        let now = Some((term.id, term.book));
        if *seen == now {
            return Ok(false);
        }
        // The accounts and numbers come first, because webhooks and routing refer to them. They are
        // compared again: with an older account, a number that another node has moved in between
        // would be claimed back.
        self.keeper.refresh(self.clock.wall()).await?;
        self.inbox.refresh().await?;
        self.keeper.refresh(self.clock.wall()).await?;
        self.people.refresh().await?;
        *seen = now;
        Ok(true)
    }
}

#[cfg(test)]
#[path = "shared_settings_tests.rs"]
mod tests;
