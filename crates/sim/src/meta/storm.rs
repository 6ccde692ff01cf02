//! Many calls that one brings with it (H11): a crowd in the same second, or one user who calls again and again.
//!
//! Each is a call like any other, which the rules meet too; only none of them begins a storm.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::World;
use crate::caller::{CallEvents, CallScript, HangupRule, Happened, PhoneKind};
use crate::faults::{CallFaults, Storm};
use crate::log::Logged;

/// Lets a storm loose; it ends with its last call, or with the simulator. `first` is the call that brings it.
pub(crate) fn begin(
    world: &Arc<World>,
    script: &CallScript,
    storm: Storm,
    faults: Arc<CallFaults>,
    first: String,
) {
    let (world, script) = (world.clone(), script.clone());
    tokio::spawn(async move {
        let log = |details| world.log.add(Logged::Fault { call_id: first.clone(), details });
        log(format!("storm: {} calls more", storm.calls));
        if let Some(answered) =
            world.stop.run_until_cancelled(run(&world, &script, storm, &faults)).await
        {
            log(format!("the storm is over: {answered} of {} calls were answered", storm.calls));
        }
    });
}

/// Gives how many calls were answered.
async fn run(world: &Arc<World>, script: &CallScript, storm: Storm, faults: &CallFaults) -> usize {
    let begun = world.clock.now();
    let first: u64 = script.from.parse().unwrap_or(0);
    let (mut calls, mut answered) = (JoinSet::new(), 0);
    for nr in 1..=storm.calls {
        let from = if storm.in_a_row {
            script.from.clone()
        } else {
            first.saturating_add(nr.into()).to_string()
        };
        let (least, most) = storm.hangup;
        let call = CallScript {
            from,
            due: None,
            phone: if storm.media { PhoneKind::Counting } else { PhoneKind::Deaf },
            keys: Vec::new(),
            say: Vec::new(),
            record: false,
            hangup: HangupRule::AfterPlaced(faults.between(least, most)),
            ..script.clone()
        };
        if storm.in_a_row {
            answered += usize::from(was_answered(world.place_of_storm(call)).await);
        } else {
            tokio::time::sleep_until((begun + storm.over * nr / storm.calls).into()).await;
            calls.spawn(was_answered(world.place_of_storm(call)));
        }
    }
    answered + calls.join_all().await.into_iter().filter(|answered| *answered).count()
}

async fn was_answered(events: CallEvents) -> bool {
    events.all().await.iter().any(|event| event.what == Happened::Answered)
}
