//! What rooms that do not know each other hear of each other: whoever changes a number, a token or a permission tells the
//! book or the table, and from here webhooks and credentials follow.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::admission::Directory;
use crate::admission::book::{ChangeError, Keeper};
use crate::admission::permission::Consents;
use crate::api::auth::Credentials;
use crate::inbox::Inbox;
use crate::numbers;
use model::Clock;
use model::E164;

/// How often it is looked whether a token's overlap is over.
const LOOK: Duration = Duration::from_secs(5);

/// Lets them hear of each other, from now on.
pub(super) fn connect(
    keeper: &Keeper,
    consents: &Consents,
    credentials: Credentials,
    inbox: &Inbox,
    directory: &Arc<Directory>,
) {
    let (messages, known) = (inbox.clone(), directory.clone());
    keeper.tell(move |before, book| {
        credentials.replace(&book.credentials());
        // Subaccounts that went, numbers that came back: the next message is its owner's already.
        messages.claim_soon();
        for (number, data) in
            numbers::changes(before, book, |number| routed(&messages, &known, number))
        {
            let entry = known.tables().by_number(&number).cloned();
            if let Some(entry) = entry {
                messages.tell_number(&entry, "number.changed", data);
            }
        }
    });
    let book = keeper.clone();
    inbox.tell(Box::new(move |inbox, number, before, after| {
        if let Some(data) =
            numbers::rerouted(&book.book(), &number.spec.number, &before.into(), &after.into())
        {
            inbox.tell_number(number, "number.changed", data);
        }
    }));
    let (messages, known) = (inbox.clone(), directory.clone());
    consents.tell(Box::new(move |pair, state| {
        if let Some(number) = known.number(&pair.number) {
            messages.permission_changed(&number, &pair.user, state);
        }
    }));
}

/// Who answers what comes to a number.
pub(super) fn routed(
    inbox: &Inbox,
    directory: &Directory,
    number: &E164,
) -> numbers::NumberRouting {
    let entry = directory.tables().by_number(number).cloned();
    entry.map_or_else(numbers::NumberRouting::default, |entry| inbox.routing_of(&entry).into())
}

/// Ends the overlap of tokens whose time has come, until `stop`.
pub(super) async fn end_overlaps(keeper: Keeper, clock: Clock, stop: CancellationToken) {
    let mut every = tokio::time::interval(LOOK);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        let now = clock.wall();
        let over = keeper.book().ended_overlaps(now);
        for account in over {
            match keeper
                .change(now, |book| book.end_overlap(&account).map(|keys| ((), keys)).ok_or(()))
                .await
            {
                Ok(()) => {
                    tracing::info!(%account, "an auth token that was replaced counts no more: its time is over")
                }
                // Somebody was faster.
                Err(ChangeError::Refused(())) => {}
                Err(ChangeError::Store(error)) => {
                    tracing::warn!(%account, %error, "a replaced auth token still counts: the store takes nothing");
                }
            }
        }
    }
}
