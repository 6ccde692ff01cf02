//! Ends orphans: calls that were live when their process died (`docs/reference/reliability.md#r3`).
//! Also writes the heartbeat from which the next process knows how long the calls lasted.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::author::DialogueLine;
use super::record;
use super::registry::{CallKey, Registry};
use super::services::Services;
use machine::{CallSetup, CallTime, GraphAction, Summary, orphan_summary};
use model::{CallType, CallUuid, Direction, HangupCause};
use store::{CallEnd, CallLine, Conclusion, Farewell, Orphan, PlacedCall, StoreError};

/// Heartbeat interval of a node with live calls. With the time of the write, the duration in a
/// record is less than a second too short.
const SIGN_OF_LIFE: Duration = Duration::from_millis(400);
/// Calls that ended this recently may still appear at Meta: one minute, plus the time of a restart.
pub const PLACED_SINCE: Duration = Duration::from_secs(120);
/// Batch size, well below the capacity of the store's queue.
const AT_ONCE: usize = 2_000;

const REMARK: &str = "the node stopped in the middle of this call (killed, crashed or without power); the call ends where \
    the node last showed a sign of life";
const QUEUED_REMARK: &str =
    "the node stopped (killed, crashed or without power) while this call waited to be placed";

/// The calls that an earlier process left open, now ended.
#[derive(Debug, Default)]
pub struct Orphans {
    /// Number of calls.
    pub calls: u64,
    /// Meta's ids of the orphans, as far as they are known.
    pub named: Vec<CallKey>,
    /// Outbound orphans and other recent outbound calls, which may still appear at Meta.
    pub placed: Vec<PlacedCall>,
}

/// Ends the calls that a process left open: closes their records, puts their hangup callbacks into
/// the outbox of this node, and stores the requests that end them at Meta. `owner` is the process:
/// the node's name, or the name of a dead run of a fleet. `taken_over` are calls of that process which
/// go on here. All writes are durable when this returns.
///
/// # Errors
/// Returns an error if the store fails.
pub async fn end_all(
    services: &Services,
    owner: &str,
    taken_over: &HashSet<CallUuid>,
) -> Result<Orphans, StoreError> {
    let mut orphans = services.store.calls().orphans(owner).await?;
    orphans.retain(|orphan| !taken_over.contains(&orphan.start.call));
    let since = services.clock.wall().minus(PLACED_SINCE);
    let placed = services.store.calls().placed_since(owner, since).await?;
    if orphans.is_empty() {
        services.store.dialogues().delete_ended();
        return Ok(Orphans { placed, ..Orphans::default() });
    }
    let begun = services.clock.now();
    let mut dialogues = services.store.dialogues().of_orphans(owner).await?;
    let calls = u64::try_from(orphans.len()).unwrap_or(u64::MAX);
    let mut ended = Orphans { calls, placed, ..Orphans::default() };
    for some in orphans.chunks(AT_ONCE) {
        let mut concluding = Vec::with_capacity(some.len());
        for orphan in some {
            let dialogue = dialogues.remove(&orphan.start.call).unwrap_or_default();
            concluding.push(services.store.calls().conclude(end(services, orphan, dialogue)));
        }
        for concluded in join_all(concluding).await {
            concluded?;
        }
        for orphan in some {
            let Orphan { start, .. } = orphan;
            let phone_number_id = start.phone_number_id.clone();
            // A web leg does not exist at Meta.
            if start.direction == Direction::Outbound && start.call_type == CallType::Whatsapp {
                let (call, wacid) = (start.call, start.wacid.clone());
                ended.placed.push(PlacedCall {
                    call,
                    phone_number_id: phone_number_id.clone(),
                    wacid,
                });
            }
            ended.named.extend(start.wacid.clone().map(|wacid| CallKey { phone_number_id, wacid }));
        }
    }
    services.store.dialogues().delete_ended();
    let took = services.clock.now().saturating_duration_since(begun);
    tracing::warn!(calls = orphans.len(), took_ms = took.as_millis(), "ended orphaned calls");
    Ok(ended)
}

/// How an orphan is ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Closing {
    pub end: CallEnd,
    /// The setup and summary for the hangup callback. `None` if the stored setup cannot be read.
    pub hangup: Option<(CallSetup, Summary)>,
    /// The request that ends the call at Meta.
    pub farewell: Option<GraphAction>,
}

/// Decides how an orphan ends: with the cause `node_failure`, at the last heartbeat of its node. A
/// call that waited to be placed has no duration.
pub fn closing(orphan: &Orphan) -> Closing {
    let Orphan { start, setup, answered, lived } = orphan;
    let cause = HangupCause::NodeFailure;
    let farewell = start.wacid.is_some().then_some(GraphAction::Terminate);
    let is_queued = setup.as_ref().is_some_and(CallSetup::is_queued);
    let remarks = vec![if is_queued { QUEUED_REMARK } else { REMARK }.to_owned()];
    let lived = if is_queued { Duration::ZERO } else { *lived };
    let Some(setup) = setup else {
        let end = CallEnd {
            remarks,
            ..CallEnd::unanswered(cause, start.direction, start.started.plus(lived))
        };
        return Closing { end, hangup: None, farewell };
    };
    let answered = answered.map(|at| CallTime(0).after(at.since(start.started)));
    let summary = orphan_summary(setup.clone(), answered, CallTime(0).after(lived), cause);
    let end = CallEnd::of(&summary, start.started, remarks, Vec::new());
    Closing { end, hangup: Some((setup.clone(), summary)), farewell }
}

fn end(services: &Services, orphan: &Orphan, dialogue: Vec<CallLine>) -> Conclusion {
    let dialogue: Vec<DialogueLine> = dialogue.into_iter().filter_map(DialogueLine::kept).collect();
    let start = orphan.start.clone();
    let Closing { end, hangup, farewell } = closing(orphan);
    let due = services.clock.steady();
    let farewell = farewell.map(|action| Farewell { action, due });
    let mut callbacks = Vec::new();
    match hangup {
        Some((setup, summary)) => {
            record::count(&summary);
            callbacks = services.reports_of(&setup, &summary, &dialogue, !setup.is_queued());
        }
        None => {
            tracing::error!(call_uuid = %start.call, "call setup not readable, hangup callback skipped");
        }
    }
    Conclusion { start, end, callbacks, farewell }
}

/// Writes the heartbeat while calls are live, until `stop`.
pub async fn keep_alive(services: Arc<Services>, registry: Registry, stop: CancellationToken) {
    let beat = async {
        loop {
            registry.until_live().await;
            services.store.calls().heartbeat(&services.node_id, services.clock.steady());
            tokio::time::sleep(SIGN_OF_LIFE).await;
        }
    };
    stop.run_until_cancelled(beat).await;
}
