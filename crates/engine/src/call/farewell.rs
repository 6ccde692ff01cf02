//! Tells Graph of ended calls that it may still hold (R3, R6): those of a process that died, and those of which it
//! would not hear when they ended. What is to be told stands in the store with the call's record.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio_util::sync::CancellationToken;

use super::services::Services;
use crate::admission::Directory;
use crate::answer::next_pause;
use crate::meta::ActionRequest;
use store::{FarewellDue, StoreError};

/// How long the process that ended a call asks Graph itself: longer than a call closes at most.
pub(super) const OURS: Duration = Duration::from_secs(120);
/// The same of a call that is over at once, so that only the tries of one request are made for it: its user may still
/// hear it ring, and Meta ends that by itself only after 30 to 60 s.
pub(super) const OURS_AT_ONCE: Duration = Duration::from_secs(15);
/// How often the store is asked for what is due.
const POLL: Duration = Duration::from_secs(2);
/// Read from the store at once, and asked at once.
const BATCH: u32 = 256;
const AT_ONCE: usize = 32;

/// Keeps telling until `stop`. Tokens are those that the numbers have now.
pub async fn keep_telling(
    services: Arc<Services>,
    directory: Arc<Directory>,
    stop: CancellationToken,
) {
    let mut every = tokio::time::interval(POLL);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        let told = stop.run_until_cancelled(tell_all(&services, &directory)).await;
        if let Some(Err(error)) = told {
            tracing::warn!(%error, "calls that Graph still holds can't be read; trying again");
        }
    }
}

async fn tell_all(services: &Services, directory: &Directory) -> Result<(), StoreError> {
    loop {
        let due = services
            .store
            .calls()
            .due_farewells(&services.node_id, services.clock.steady(), BATCH)
            .await?;
        if due.is_empty() {
            return Ok(());
        }
        stream::iter(due).for_each_concurrent(AT_ONCE, |due| tell(services, directory, due)).await;
        services.store.flush().await;
    }
}

async fn tell(services: &Services, directory: &Directory, due: FarewellDue) {
    let FarewellDue { call, wacid, phone_number_id, action, ended, tries } = due;
    let token =
        directory.number(&phone_number_id).and_then(|number| number.spec.access_token.clone());
    let request = ActionRequest::ending(phone_number_id, token, wacid, action);
    let outcome = services.graph.call_action(request).await;
    let now = services.clock.steady();
    let age = services.clock.wall().since(ended);
    let pause = if outcome.is_settled() {
        None
    } else {
        next_pause(tries.saturating_add(1), age, None, &services.dice)
    };
    tracing::info!(call_uuid = %call, action = action.as_str(), ?outcome, again_in = ?pause, "Graph is told of an ended call");
    services.store.calls().settle_farewell(call, pause.map(|pause| now.plus(pause)));
}
