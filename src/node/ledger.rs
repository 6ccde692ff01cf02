//! Keeps the deduplication keys of Meta's events in the store, so that a copy that arrives after a
//! restart is recognised.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use engine::call::Registry;
use engine::webhook::{Ledger, WebhookHandler};
use model::Clock;
use model::Timestamp;
use store::{KeyKind, SeenKey, Store, StoreError};

/// Age up to which keys are loaded before the node is ready. An older `connect` is rejected as
/// stale and older tombstones have expired, so older keys only determine the result under which a
/// copy is counted.
const RECENT: Duration = Duration::from_secs(900);
const RECENT_MAX: u32 = 100_000;
/// How long a key is kept. Meta redelivers for seven days; the eighth allows for clock skew.
const RETENTION: Duration = Duration::from_secs(8 * 86_400);
/// Keys per query when older ones are loaded in the background.
const PAGE: u32 = 5_000;
/// Interval at which expired keys are deleted.
const CLEAN_UP_INTERVAL: Duration = Duration::from_secs(60);

/// Implements the webhook's [`Ledger`] with the store.
pub(super) struct StoredKeys(pub(super) Store);

impl Ledger for StoredKeys {
    fn note(&self, key: u128, kind: KeyKind, seen: Timestamp) {
        self.0.event_keys().insert(SeenKey { kind, key, seen });
    }

    fn forget(&self, key: u128) {
        self.0.event_keys().remove(key);
    }
}

/// Loads the recent keys into the webhook handler. Returns the time before which older keys must
/// still be loaded.
///
/// # Errors
/// Returns the store's error if the keys cannot be read.
pub(super) async fn load_recent(
    store: &Store,
    webhooks: &WebhookHandler<Registry>,
    clock: &Clock,
) -> Result<Timestamp, StoreError> {
    let now = clock.wall();
    let from = now.minus(RECENT);
    let keys = store.event_keys().list(from, Timestamp::MAX, RECENT_MAX).await?;
    let rest =
        if keys.len() < RECENT_MAX as usize { Some(from) } else { keys.last().map(|key| key.seen) };
    keys.iter().for_each(|key| {
        webhooks.remember_key(key);
    });
    Ok(rest.unwrap_or(from))
}

/// Loads the older keys into the webhook handler, then deletes expired keys until `stop`.
pub(super) async fn run(
    store: Store,
    webhooks: Arc<WebhookHandler<Registry>>,
    clock: Clock,
    mut rest: Timestamp,
    stop: CancellationToken,
) {
    let oldest = clock.wall().minus(RETENTION);
    while rest > oldest && !stop.is_cancelled() {
        let keys = match store.event_keys().list(oldest, rest, PAGE).await {
            Ok(keys) => keys,
            Err(error) => {
                warn!(%error, "older event keys not loaded; a duplicate webhook may be counted under another result");
                break;
            }
        };
        let Some(last) = keys.last() else { break };
        rest = last.seen;
        if !keys.iter().all(|key| webhooks.remember_key(key)) {
            break;
        }
    }
    let mut every = tokio::time::interval(CLEAN_UP_INTERVAL);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        store.event_keys().delete_older(clock.wall().minus(RETENTION));
    }
}
