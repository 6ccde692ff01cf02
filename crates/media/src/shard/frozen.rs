//! Legs that another process is taking over. They are frozen: they send nothing, and their commands
//! wait. The sockets are not read, so that the kernel keeps the datagrams for the other process.
//! There, adopted legs continue in the same way as frozen legs do here if the other process fails.

use std::sync::mpsc::SyncSender;
use std::time::Instant;

use super::{Leg, LegCommand, LegId, RoutedLeg, RoutingTable, Shard};
use crate::COMMAND_QUEUE_MAX;
use crate::hand_over::OtherProcess;
use crate::snapshot::{LegSnapshot, NotMovable, PromptTable, TimeBase};

/// Maximum number of ticks that a leg makes up for when it continues, as many as
/// [`Ticker`](crate::ticker::Ticker) does after a delay.
const CATCH_UP_TICKS_MAX: u32 = 10;

/// A request about legs of a shard.
pub(crate) struct LegsRequest<T> {
    pub(crate) legs: Vec<LegId>,
    pub(crate) prompts: PromptTable,
    /// Receives one result per leg.
    pub(crate) reply: SyncSender<Vec<Result<T, NotMovable>>>,
}

/// The frozen legs of a shard.
#[derive(Default)]
pub(super) struct Frozen {
    legs: RoutingTable<LegId, Box<RoutedLeg>>,
    /// The commands for frozen legs, in order of arrival.
    commands: Vec<(LegId, LegCommand)>,
}

impl Frozen {
    pub(super) fn contains(&self, id: LegId) -> bool {
        self.legs.contains_key(&id)
    }

    pub(super) fn remove(&mut self, id: LegId) -> Option<Box<RoutedLeg>> {
        self.legs.remove(&id)
    }

    /// Keeps a command until the leg continues.
    pub(super) fn defer(&mut self, id: LegId, command: LegCommand) {
        if self.commands.len() == COMMAND_QUEUE_MAX {
            tracing::error!("too many commands for legs that are handed over; one was dropped");
            return;
        }
        self.commands.push((id, command));
    }
}

impl Shard {
    /// Reports which legs can move, and collects the prompts of those that can.
    pub(super) fn check_movable(&self, request: LegsRequest<()>) {
        let LegsRequest { legs, prompts, reply } = request;
        let check = |id: LegId| {
            let leg = &self.legs.get(&id).ok_or(NotMovable::Ended)?.leg;
            self.movable(id)?;
            for prompt in leg.prompts() {
                prompts.id_of(prompt);
            }
            Ok(())
        };
        // The caller waits for the reply, unless it panicked.
        let _ = reply.send(legs.into_iter().map(check).collect());
    }

    fn movable(&self, id: LegId) -> Result<(), NotMovable> {
        let routed = self.legs.get(&id).ok_or(NotMovable::Ended)?;
        let is_relayed = self.ports.get(&routed.port).is_some_and(|open| open.relay.is_some());
        if is_relayed {
            return Err(NotMovable::Relayed);
        }
        routed.leg.movable()
    }

    /// Freezes legs and reports their snapshots. Stops reading the sockets, unless they are those of
    /// a TURN client, which the other process does not have.
    pub(super) fn freeze(&mut self, request: LegsRequest<LegSnapshot>) {
        // What was written before is sent before, so that the snapshots are complete.
        self.flush();
        self.reads = self.ports.values().any(|open| open.relay.is_some());
        let LegsRequest { legs, prompts, reply } = request;
        let snapshots = legs.into_iter().map(|id| self.freeze_leg(id, &prompts)).collect();
        let _ = reply.send(snapshots);
    }

    fn freeze_leg(&mut self, id: LegId, prompts: &PromptTable) -> Result<LegSnapshot, NotMovable> {
        self.movable(id)?;
        let (now, taken) = (self.clock.now(), self.clock.uptime());
        let routed = self.legs.get_mut(&id).ok_or(NotMovable::Ended)?;
        let port = self.ports.get(&routed.port).ok_or(NotMovable::Ended)?;
        let snapshot = LegSnapshot {
            taken,
            bound: port.port.bound,
            ufrag: routed.ufrag.clone(),
            addresses: routed.addresses.clone(),
            leg: routed.leg.snapshot(TimeBase(now), prompts)?,
            feed: routed.leg.feed_snapshot(),
            bridge: routed.leg.bridge_snapshot(),
        };
        if let Some(routed) = self.legs.remove(&id) {
            self.remove_from_slot(id, routed.slot);
            self.frozen.legs.insert(id, routed);
        }
        Ok(snapshot)
    }

    /// Continues all frozen legs and reads the sockets again.
    pub(super) fn thaw(&mut self, other: OtherProcess) {
        self.reads = true;
        let now = self.clock.now();
        let Frozen { legs, commands } = std::mem::take(&mut self.frozen);
        for (id, mut routed) in legs {
            if other == OtherProcess::MayHaveSent {
                routed.leg.skip_sent(now);
            }
            self.legs.insert(id, routed);
            self.resumed.push(id);
        }
        for (id, command) in commands {
            self.execute_on(id, command);
        }
    }

    /// Makes up for the ticks that resumed legs have missed, and assigns them to the slots in which
    /// their rhythm continues. `slot_from` returns the slot of the first tick at a time or later.
    pub(super) fn place_resumed(&mut self, now: Instant, slot_from: impl Fn(Instant) -> usize) {
        for id in std::mem::take(&mut self.resumed) {
            let Some(routed) = self.legs.get_mut(&id) else { continue };
            let due = routed.leg.ticks_missed(now);
            let missed = due.min(CATCH_UP_TICKS_MAX);
            routed.leg.tap_gap(due - missed);
            let slot = slot_from(routed.leg.next_tick(now));
            routed.slot = slot;
            if let Some(place) = self.slots.get_mut(slot) {
                place.push(id);
            }
            self.with_leg(id, |leg: &mut Leg, out| {
                (0..missed).for_each(|_| leg.tick(now, out));
            });
        }
        self.flush();
    }
}
