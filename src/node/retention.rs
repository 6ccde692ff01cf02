//! Deletes expired data, and this node's files that other nodes have deleted.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::reload::Tunables;
use engine::admission::Gate;
use engine::admission::permission::Consents;
use engine::call::Recordings;
use engine::inbox::Inbox;
use engine::people::People;
use model::{Clock, Timestamp};
use store::{FileToRemove, Store};

/// Interval of the deletion of expired data.
const HOUR: Duration = Duration::from_secs(3600);

/// Interval at which the store is polled for files that other nodes have deleted.
const REMOVAL_INTERVAL: Duration = Duration::from_secs(5);

/// Maximum number of files in one query.
const REMOVALS_MAX: u32 = 500;

/// Removes files from this node's disk that were deleted at other nodes, until `stop`.
pub(super) async fn remove_files(
    store: Store,
    recordings: Recordings,
    inbox: Inbox,
    node_id: String,
    stop: CancellationToken,
) {
    let mut every = tokio::time::interval(REMOVAL_INTERVAL);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        let files = match store.files_to_remove().of(&node_id, REMOVALS_MAX).await {
            Ok(files) => files,
            Err(error) => {
                debug!(%error, "list of files to remove not read");
                continue;
            }
        };
        let Some((last, _)) = files.last() else { continue };
        let (last, count) = (*last, files.len());
        let mut is_removed = true;
        let mut media = Vec::new();
        for (_, file) in files {
            match file {
                FileToRemove::Recording { id, format } => {
                    is_removed &= recordings.remove_own_file(id, &format);
                }
                FileToRemove::Media(message) => media.push(message),
            }
        }
        // One that can't be deleted must not delay the others.
        inbox.user_files().remove_own(media).await;
        if !is_removed {
            continue;
        }
        match store.files_to_remove().done(&node_id, last).await {
            Ok(()) => {
                info!(files = count, "removed files that were deleted at another node")
            }
            Err(error) => warn!(%error, "removal of files not recorded; retrying"),
        }
    }
}

/// The clock may be this far ahead of the expected time when expired data is deleted. If it is
/// further ahead, it may have been set wrongly, so the data is kept for another hour.
const AHEAD_MAX: Duration = Duration::from_secs(7 * 86_400);

/// Deletes expired data every hour, according to `[retention]`. May be cancelled at any time. The
/// remaining data is deleted after the next start.
pub(super) async fn delete_expired(
    store: Store,
    recordings: Recordings,
    inbox: Inbox,
    clock: Clock,
    tunables: Arc<Tunables>,
) {
    let mut every = tokio::time::interval(HOUR);
    let mut deleted_until = Timestamp::default();
    let newest = store.calls().newest_record().await.unwrap_or_else(|error| {
        warn!(%error, "newest record not found; the clock is not checked before expired data is deleted");
        None
    });
    let mut last = (newest, clock.now());
    loop {
        every.tick().await;
        let (wall, now) = (clock.wall(), clock.now());
        let expected =
            last.0.map(|last_wall| last_wall.plus(now.saturating_duration_since(last.1)));
        last = (Some(wall), now);
        if let Some(expected) = expected.filter(|expected| wall.since(*expected) > AHEAD_MAX) {
            warn!(
                %expected,
                clock = %wall,
                "expired data kept for another hour: the clock is days ahead of the newest record \
                or has jumped; correct it if it is wrong"
            );
            continue;
        }
        let before = |days: u64| wall.minus(Duration::from_secs(days.saturating_mul(86_400)));
        let until = before(tunables.event_log_days());
        let deleted = store.calls().delete_history(deleted_until, until).await;
        if report("event logs", deleted) {
            deleted_until = until;
        }
        report("notifications", store.notifications().delete_older(until).await);
        report("failed requests", store.failed_requests().delete_older(until).await);
        report("request counts", store.request_counts().delete_older(until).await);
        let audit = before(tunables.audit_days());
        report("audit records", store.audit().delete_older(audit).await);
        report("API responses", store.responses().delete_expired(clock.wall()).await);
        report("uploads", inbox.uploads().forget().await);
        let messages = before(tunables.message_days());
        report("messages", inbox.conversations().forget(messages).await);
        let made = before(tunables.recording_days());
        report("recordings", recordings.expire(made).await);
    }
}

/// Logs that expired data could not be deleted. Returns whether they were.
fn report<T, E: Display>(what: &'static str, deleted: Result<T, E>) -> bool {
    if let Err(error) = &deleted {
        warn!(%error, "expired {what} not deleted; retrying in an hour");
    }
    deleted.is_ok()
}

/// Deletes expired console sessions every hour, until `stop`.
pub(super) async fn delete_expired_sessions(people: People, stop: CancellationToken) {
    let mut every = tokio::time::interval(HOUR);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        people.tidy().await;
    }
}

/// Drops permission states without information every hour, until `stop`.
pub(super) async fn drop_blank_permissions(
    consents: Arc<Consents>,
    gate: Arc<Gate>,
    clock: Clock,
    stop: CancellationToken,
) {
    let mut every = tokio::time::interval(HOUR);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        let (now, tables) = (clock.wall(), gate.directory().tables().clone());
        consents.forget_blank(now, |number, pair| {
            tables.number(number).is_some_and(|number| pair.is_blank(&number.spec.permissions, now))
        });
    }
}
