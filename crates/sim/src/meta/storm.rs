//! Storms: many calls triggered by one call, either overlapping or one after another from the same
//! user.
//!
//! They are ordinary calls to which fault rules apply, except that they start no further storms.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::World;
use crate::caller::{CallEventKind, CallEvents, CallScript, HangupRule, PhoneKind};
use crate::faults::{CallFaults, Storm};
use crate::log::LogEvent;

/// Starts a storm. It ends with its last call or with the simulator. `first` is the id of the call
/// that triggered it.
pub(crate) fn start(
    world: &Arc<World>,
    script: &CallScript,
    storm: Storm,
    faults: Arc<CallFaults>,
    first: String,
) {
    let (world, script) = (world.clone(), script.clone());
    tokio::spawn(async move {
        let log = |details| world.log.add(LogEvent::Fault { call_id: first.clone(), details });
        log(format!("storm started: {} further calls", storm.calls));
        if let Some(answered) =
            world.stop.run_until_cancelled(run(&world, &script, storm, &faults)).await
        {
            log(format!("storm ended: {answered} of {} calls were answered", storm.calls));
        }
    });
}

/// Runs the calls and returns how many were answered.
async fn run(world: &Arc<World>, script: &CallScript, storm: Storm, faults: &CallFaults) -> usize {
    let started_at = world.clock.now();
    let first: u64 = script.from.parse().unwrap_or(0);
    let (mut calls, mut answered) = (JoinSet::new(), 0);
    for nr in 1..=storm.calls {
        let from = if storm.sequential {
            script.from.clone()
        } else {
            first.saturating_add(nr.into()).to_string()
        };
        let (min, max) = storm.hangup;
        let call = CallScript {
            from,
            due: None,
            phone: if storm.media { PhoneKind::Counting } else { PhoneKind::SignallingOnly },
            keys: Vec::new(),
            say: Vec::new(),
            record: false,
            hangup: HangupRule::AfterPlaced(faults.between(min, max)),
            ..script.clone()
        };
        if storm.sequential {
            answered += usize::from(was_answered(world.place_storm_call(call)).await);
        } else {
            tokio::time::sleep_until((started_at + storm.over * nr / storm.calls).into()).await;
            calls.spawn(was_answered(world.place_storm_call(call)));
        }
    }
    answered + calls.join_all().await.into_iter().filter(|answered| *answered).count()
}

async fn was_answered(events: CallEvents) -> bool {
    events.all().await.iter().any(|event| event.kind == CallEventKind::Answered)
}
