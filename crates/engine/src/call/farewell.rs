//! Ends calls at Meta that have already ended here: those of a process that died, and those whose
//! `terminate` or `reject` failed when they ended. The pending requests are stored with the call's
//! record, so they survive a restart.

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

/// How long the process that ended a call retries the Graph request itself. Longer than the closing
/// phase of a call.
pub(super) const RETRY_TIME: Duration = Duration::from_secs(120);
/// The same limit for a call that ends immediately, for which only one request with its retries is
/// made. The user's phone may still ring, and Meta stops that only after 30 to 60 s.
pub(super) const SHORT_RETRY_TIME: Duration = Duration::from_secs(15);
/// Interval at which the store is polled for due requests.
const POLL: Duration = Duration::from_secs(5);
/// Rows per read, and concurrent requests.
const BATCH: u32 = 256;
const AT_ONCE: usize = 32;

/// Sends due requests until `stop`. Uses the current access tokens of the numbers.
pub async fn send_pending(
    services: Arc<Services>,
    directory: Arc<Directory>,
    stop: CancellationToken,
) {
    // Those that this process has just taken over are due at once.
    services.store.flush().await;
    let mut every = tokio::time::interval(POLL);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        let sent = stop.run_until_cancelled(send_all(&services, &directory)).await;
        if let Some(Err(error)) = sent {
            tracing::warn!(%error, "reading pending call terminations failed");
        }
    }
}

async fn send_all(services: &Services, directory: &Directory) -> Result<(), StoreError> {
    loop {
        let due = services
            .store
            .calls()
            .due_farewells(&services.node_id, services.clock.steady(), BATCH)
            .await?;
        if due.is_empty() {
            return Ok(());
        }
        stream::iter(due).for_each_concurrent(AT_ONCE, |due| send(services, directory, due)).await;
        services.store.flush().await;
    }
}

async fn send(services: &Services, directory: &Directory, due: FarewellDue) {
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
        next_pause(tries.saturating_add(1), age, None, &services.random)
    };
    tracing::info!(call_uuid = %call, action = action.as_str(), %outcome, again_in = ?pause, "ended call reported to Graph");
    services.store.calls().settle_farewell(call, pause.map(|pause| now.plus(pause)));
}
