//! Keys of Meta's events between the webhook's door and the store, so that a copy which comes after a restart is one (R5).

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::door::Doorway;
use engine::webhook::{Ledger, WebhookHandler};
use model::Clock;
use model::Timestamp;
use store::{KeyKind, SeenKey, Store, StoreError};

/// Known before the node is ready. An older connect is stale anyway, an older tombstone forgotten: only the word that a
/// copy is counted under hangs on the rest.
const AT_ONCE: Duration = Duration::from_secs(900);
const AT_ONCE_MAX: u32 = 100_000;
/// How long a key is kept: Meta redelivers for seven days, and its clock is not ours.
const KEPT: Duration = Duration::from_secs(8 * 86_400);
/// Read in one go, behind the node's back.
const PAGE: u32 = 5_000;
/// How often old keys are forgotten, some at a time.
const TIDY: Duration = Duration::from_secs(60);

/// The store, seen by the webhook's door.
pub(super) struct Kept(pub(super) Store);

impl Ledger for Kept {
    fn note(&self, key: u128, kind: KeyKind, seen: Timestamp) {
        self.0.event_keys().insert(SeenKey { kind, key, seen });
    }

    fn forget(&self, key: u128) {
        self.0.event_keys().remove(key);
    }
}

fn before(now: Timestamp, by: Duration) -> Timestamp {
    Timestamp::from_micros(
        now.micros().saturating_sub(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)),
    )
}

/// Tells the door the keys of late; gives the moment before which older ones are still to be told.
///
/// # Errors
/// The store's.
pub(super) async fn remember_late(
    store: &Store,
    door: &WebhookHandler<Doorway>,
    clock: &Clock,
) -> Result<Timestamp, StoreError> {
    let now = clock.wall();
    let from = before(now, AT_ONCE);
    let keys = store.event_keys().list(from, Timestamp::MAX, AT_ONCE_MAX).await?;
    let rest = if keys.len() < AT_ONCE_MAX as usize {
        Some(from)
    } else {
        keys.last().map(|key| key.seen)
    };
    keys.iter().for_each(|key| {
        door.remember_key(key);
    });
    Ok(rest.unwrap_or(from))
}

/// Tells the door the older keys, then forgets those that are too old, until `stop`.
pub(super) async fn keep(
    store: Store,
    door: Arc<WebhookHandler<Doorway>>,
    clock: Clock,
    mut rest: Timestamp,
    stop: CancellationToken,
) {
    let oldest = before(clock.wall(), KEPT);
    while rest > oldest && !stop.is_cancelled() {
        let keys = match store.event_keys().list(oldest, rest, PAGE).await {
            Ok(keys) => keys,
            Err(error) => {
                warn!(%error, "older keys of Meta's events can't be read: a copy may be counted under another word");
                break;
            }
        };
        let Some(last) = keys.last() else { break };
        rest = last.seen;
        if !keys.iter().all(|key| door.remember_key(key)) {
            break;
        }
    }
    let mut every = tokio::time::interval(TIDY);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        store.event_keys().delete_older(before(clock.wall(), KEPT));
    }
}
