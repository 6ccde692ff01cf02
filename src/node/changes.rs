//! Forwards changes between services that do not depend on each other. Changed numbers, tokens and
//! permissions update credentials and trigger customers' webhooks.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::api::auth::Credentials;
use engine::admission::Directory;
use engine::admission::book::{ChangeError, Keeper};
use engine::admission::permission::Consents;
use engine::inbox::Inbox;
use engine::numbers;
use model::Clock;
use model::E164;

/// Interval at which expired overlaps of auth tokens are searched for.
const OVERLAP_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Registers the listeners.
pub(super) fn forward(
    keeper: &Keeper,
    consents: &Consents,
    credentials: Credentials,
    inbox: &Inbox,
    directory: &Arc<Directory>,
) {
    let (messages, known) = (inbox.clone(), directory.clone());
    keeper.tell(move |before, book| {
        credentials.replace(&book.credentials());
        // Deleted subaccounts and returning numbers: the next message must go to the new owner.
        messages.router().spawn_claim();
        for (number, data) in
            numbers::changes(before, book, |number| routing_of(&messages, &known, number))
        {
            let entry = known.tables().by_number(&number).cloned();
            if let Some(entry) = entry {
                messages.events().notify_number(&entry, "number.changed", data);
            }
        }
    });
    let (book, events) = (keeper.clone(), inbox.events().clone());
    inbox.router().on_change(Box::new(move |number, before, after| {
        if let Some(data) =
            numbers::rerouted(&book.book(), &number.spec.number, &before.into(), &after.into())
        {
            events.notify_number(number, "number.changed", data);
        }
    }));
    let (messages, known) = (inbox.clone(), directory.clone());
    consents.tell(Box::new(move |pair, state| {
        if let Some(number) = known.number(&pair.number) {
            messages.events().permission_changed(&number, &pair.user, state);
        }
    }));
}

/// The routing of a number.
pub(super) fn routing_of(
    inbox: &Inbox,
    directory: &Directory,
    number: &E164,
) -> numbers::NumberRouting {
    let entry = directory.tables().by_number(number).cloned();
    entry.map_or_else(numbers::NumberRouting::default, |entry| {
        inbox.numbers().routing_of(&entry).into()
    })
}

/// Revokes replaced auth tokens at the end of their overlap, until `stop`.
pub(super) async fn end_overlaps(keeper: Keeper, clock: Clock, stop: CancellationToken) {
    let mut every = tokio::time::interval(OVERLAP_CHECK_INTERVAL);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        let now = clock.wall();
        let over = keeper.book().ended_overlaps(now);
        for account in over {
            match keeper
                .change(now, |book| book.end_overlap(&account).map(|keys| ((), keys)).ok_or(()))
                .await
            {
                Ok(()) => {
                    tracing::info!(%account, "replaced auth token expired")
                }
                // Another task ended the overlap first.
                Err(ChangeError::Refused(())) => {}
                Err(ChangeError::Store(error)) => {
                    tracing::warn!(%account, %error, "replaced auth token stays valid: the store is not writable");
                }
            }
        }
    }
}
