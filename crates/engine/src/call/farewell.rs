//! Ends calls at Meta that have already ended here: those of a process that died, and those whose
//! `terminate` or `reject` failed when they ended. The pending requests are stored with the call's
//! record, so they survive a restart.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio_util::sync::CancellationToken;

use super::services::Services;
use crate::admission::Directory;
use crate::answer::next_pause;
use crate::meta::ActionRequest;
use model::{CallUuid, Timestamp};
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

/// The outcome of a request, kept while the store still returns the request as due. While the database
/// rejects writes, reads return rows without the outcome.
pub(super) struct Outcome {
    tries: u32,
    /// When to send the request again; `None` if Graph has confirmed it.
    again: Option<Timestamp>,
}

impl Outcome {
    fn is_due(&self, now: Timestamp) -> bool {
        self.again.is_some_and(|again| again <= now)
    }
}

pub(super) type Outcomes = HashMap<CallUuid, Outcome>;

/// Sends due requests until `stop`. Uses the current access tokens of the numbers.
pub async fn send_pending(
    services: Arc<Services>,
    directory: Arc<Directory>,
    stop: CancellationToken,
) {
    // Those that this process has just taken over are due at once.
    services.store.flush().await;
    let mut outcomes = Outcomes::new();
    let mut every = tokio::time::interval(POLL);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        let sending = send_all(&services, &directory, &mut outcomes);
        if let Some(Err(error)) = stop.run_until_cancelled(sending).await {
            tracing::warn!(%error, "reading pending call terminations failed");
        }
    }
}

/// Sends the requests that are due, and those that become due meanwhile.
pub(super) async fn send_all(
    services: &Services,
    directory: &Directory,
    outcomes: &mut Outcomes,
) -> Result<(), StoreError> {
    loop {
        let now = services.clock.steady();
        let limit = BATCH.saturating_add(u32::try_from(outcomes.len()).unwrap_or(u32::MAX));
        let mut due = services.store.calls().due_farewells(&services.node_id, now, limit).await?;
        let listed: HashSet<CallUuid> = due.iter().map(|due| due.call).collect();
        outcomes.retain(|call, _| listed.contains(call));
        due.retain(|due| outcomes.get(&due.call).is_none_or(|outcome| outcome.is_due(now)));
        if due.is_empty() {
            return Ok(());
        }
        for due in &mut due {
            let earlier = outcomes.get(&due.call).map_or(0, |outcome| outcome.tries);
            due.tries = due.tries.max(earlier);
        }
        let sent = stream::iter(due).map(|due| send(services, directory, due));
        let sent: Vec<_> = sent.buffer_unordered(AT_ONCE).collect().await;
        outcomes.extend(sent);
        services.store.flush().await;
    }
}

async fn send(services: &Services, directory: &Directory, due: FarewellDue) -> (CallUuid, Outcome) {
    let FarewellDue { call, wacid, phone_number_id, action, ended, tries } = due;
    let tries = tries.saturating_add(1);
    let token =
        directory.number(&phone_number_id).and_then(|number| number.spec.access_token.clone());
    let request = ActionRequest::ending(phone_number_id, token, wacid, action);
    let outcome = services.graph.call_action(request).await;
    let now = services.clock.steady();
    let age = services.clock.wall().since(ended);
    let pause =
        if outcome.is_settled() { None } else { next_pause(tries, age, None, &services.random) };
    tracing::info!(call_uuid = %call, action = action.as_str(), %outcome, again_in = ?pause, "ended call reported to Graph");
    let again = pause.map(|pause| now.plus(pause));
    services.store.calls().settle_farewell(call, again);
    (call, Outcome { tries, again })
}
