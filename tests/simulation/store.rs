//! The store, which outlives a node: records, the outbox, and farewells for Graph. A writer in the
//! node's memory batches writes into transactions. A call's end, its hangup callback and its
//! farewell are one write. The effects of the SQL statements are reimplemented here, following
//! `store::{calls, callbacks}`.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use engine::admission::permission::Consents;
use engine::answer::next_pause;
use engine::call::binding::CallKey;
use engine::call::orphan::{PLACED_SINCE, closing};
use engine::webhook::CONNECT_AGAIN;
use machine::{
    CallSetup, CallTime, CallbackKind, CallbackRequest, GraphAction, GraphOutcome, orphan_summary,
};
use model::{CallUuid, Direction, HangupCause, Timestamp, Wacid};
use store::{CallEnd, CallStart, Orphan, PlacedCall};
use uuid::Uuid;

use crate::customer::CallbackReply;
use crate::node::View;
use crate::plan::{MS, SECOND};
use crate::world::{Event, StepResult, World};

/// Values of `store::writer`: the queue, the batch, how long a write waits for others, and the
/// pause between attempts.
const QUEUE: usize = 16_384;
const BATCH: usize = 500;
const GATHER_TIME: u64 = 20 * MS;
const PAUSE: u64 = 200 * MS;
/// Values of `call::farewell`: how long the node that ended a call sends its farewell, also if the
/// call ended immediately.
const OURS: u64 = 120 * SECOND;
const OURS_AT_ONCE: u64 = 15 * SECOND;

#[derive(Debug, Default)]
pub struct Store {
    /// Permissions, which are stored here and read from memory.
    pub consents: Arc<Consents>,
    pub calls: BTreeMap<CallUuid, Row>,
    pub outbox: BTreeMap<Uuid, Callback>,
    /// Writes fail until this time.
    pub stuck_until: u64,
}

#[derive(Debug)]
pub struct Row {
    start: CallStart,
    setup: CallSetup,
    answered: Option<Timestamp>,
    pub end: Option<CallEnd>,
    farewell: Option<Farewell>,
}

/// A pending farewell and its next attempt.
#[derive(Clone, Copy, Debug)]
pub struct Farewell {
    action: GraphAction,
    due: u64,
    tries: u32,
}

/// A callback in the outbox.
#[derive(Clone, Debug)]
pub struct Callback {
    pub call: CallUuid,
    pub kind: CallbackKind,
    since: u64,
    pub retries: u32,
    due: u64,
    pub state: Delivery,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    Waiting,
    Delivered,
    Refused,
    GivenUp,
}

/// A node's writer, and the stored items that the node is processing.
#[derive(Default)]
pub struct Writer {
    pub queue: VecDeque<Write>,
    gathering: bool,
    /// Calls with a farewell in flight, and the next look for others.
    telling: BTreeSet<CallUuid>,
}

pub enum Write {
    Born(Box<(CallStart, CallSetup)>),
    Answered(CallUuid, Timestamp),
    /// Includes the farewell that applies if the call has already ended.
    Bound(CallUuid, Wacid, Farewell),
    Concluded(Box<Conclusion>),
    Callback(Uuid, Callback),
    Settled(Uuid, Callback),
    /// The farewell is done, or its next attempt is at this time.
    Farewell(CallUuid, Option<u64>),
}

/// The end of a call with its reports.
pub struct Conclusion {
    pub setup: CallSetup,
    pub end: CallEnd,
    pub hangup: (Uuid, Callback),
    pub farewell: Option<Farewell>,
    /// Its task panicked: the call leaves the tables after this write.
    pub after_panic: bool,
}

/// The completion of a write for its waiter.
enum Completion {
    Callback(Uuid),
    Farewell(u64),
    AfterPanic(CallUuid),
}

impl Row {
    /// Returns Meta's id of the call.
    pub fn name(&self) -> Option<&Wacid> {
        self.start.wacid.as_ref()
    }
}

impl Store {
    pub fn open(&self) -> impl Iterator<Item = CallUuid> + '_ {
        self.calls.iter().filter(|(_, row)| row.end.is_none()).map(|(call, _)| *call)
    }

    fn born(&mut self, start: CallStart, setup: CallSetup) -> &mut Row {
        let row = Row { start, setup, answered: None, end: None, farewell: None };
        match self.calls.entry(row.start.call) {
            // A queued call starts, so its time begins now.
            Entry::Occupied(mut entry) if entry.get().end.is_none() => {
                entry.get_mut().start.started = row.start.started;
                entry.get_mut().setup.started = row.setup.started;
                entry.into_mut()
            }
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(row),
        }
    }

    /// Keeps the ids of calls from the writer's queue when the process dies: the real store writes
    /// them to a separate file (`store::pending_log`).
    pub fn save_names(&mut self, queue: VecDeque<Write>) {
        for write in queue {
            if let Write::Bound(call, wacid, farewell) = write
                && let Some(row) = self.calls.get_mut(&call).filter(|row| row.start.wacid.is_none())
            {
                row.start.wacid = Some(wacid);
                row.farewell = row.end.is_some().then_some(farewell).or(row.farewell);
            }
        }
    }

    fn write(&mut self, write: Write, completions: &mut Vec<Completion>) {
        match write {
            Write::Born(born) => {
                self.born(born.0, born.1);
            }
            Write::Answered(call, at) => {
                if let Some(row) = self.calls.get_mut(&call).filter(|row| row.end.is_none()) {
                    row.answered = Some(at);
                }
            }
            Write::Bound(call, wacid, farewell) => {
                if let Some(row) = self.calls.get_mut(&call) {
                    row.start.wacid = Some(wacid);
                    if row.end.is_some() {
                        row.farewell = Some(farewell);
                        completions.push(Completion::Farewell(farewell.due));
                    }
                }
            }
            Write::Concluded(conclusion) => {
                let Conclusion { setup, end, hangup, farewell, after_panic } = *conclusion;
                let call = setup.call;
                let start = CallStart::of(&setup, "node");
                let row = self.born(start.clone(), setup);
                if row.end.is_none() {
                    row.start.started = start.started;
                    row.end = Some(end);
                    row.farewell = farewell;
                    completions.extend(farewell.map(|farewell| Completion::Farewell(farewell.due)));
                    completions.push(Completion::Callback(hangup.0));
                    self.outbox.insert(hangup.0, hangup.1);
                }
                completions.extend(after_panic.then_some(Completion::AfterPanic(call)));
            }
            Write::Callback(id, callback) => {
                self.outbox.insert(id, callback);
                completions.push(Completion::Callback(id));
            }
            Write::Settled(id, callback) => {
                self.outbox.insert(id, callback);
            }
            Write::Farewell(call, again) => {
                let Some(row) = self.calls.get_mut(&call) else { return };
                if let Some(farewell) = &mut row.farewell {
                    match again {
                        None => row.farewell = None,
                        Some(due) => {
                            farewell.due = due;
                            farewell.tries += 1;
                            completions.push(Completion::Farewell(due));
                        }
                    }
                }
            }
        }
    }
}

impl World {
    pub fn callback_of(&mut self, call: CallUuid, notice: &CallbackRequest) -> (Uuid, Callback) {
        let id = (u128::from(self.rng.number()) << 64) | u128::from(self.rng.number());
        let state = Delivery::Waiting;
        let callback =
            Callback { call, kind: notice.kind, since: self.now, retries: 0, due: self.now, state };
        (Uuid::from_u128(id), callback)
    }

    /// Returns the farewell to send if this node does not manage to.
    pub fn farewell_later(&self, action: GraphAction, last: bool) -> Farewell {
        Farewell { action, due: self.now + if last { OURS_AT_ONCE } else { OURS }, tries: 0 }
    }

    pub fn write(&mut self, write: Write) {
        let life = self.life;
        let writer = &mut self.node().writer;
        writer.queue.push_back(write);
        if writer.queue.len() > QUEUE {
            self.fail("R10: the writer's queue is past its bound".to_owned());
            return;
        }
        if !std::mem::replace(&mut self.node().writer.gathering, true) {
            self.after(GATHER_TIME, Event::Commit { life });
        }
    }

    /// Attempts to write a batch.
    pub fn commit(&mut self) -> StepResult {
        let life = self.life;
        if self.now >= self.store.stuck_until && self.rng.chance(self.faults.store_stuck) {
            let us = self.rng.pick(&[300 * MS, 5 * SECOND, 30 * SECOND]);
            self.note(format_args!("store: stuck"));
            self.store.stuck_until = self.now + us;
        }
        if self.now < self.store.stuck_until {
            self.after(PAUSE, Event::Commit { life });
            return Ok(());
        }
        self.write_batch()?;
        let writer = &mut self.node().writer;
        writer.gathering = !writer.queue.is_empty();
        if writer.gathering {
            self.after(GATHER_TIME, Event::Commit { life });
        }
        Ok(())
    }

    /// Runs one transaction and then completes its waiters. A process that is killed before has
    /// written nothing.
    pub fn write_batch(&mut self) -> StepResult {
        self.effect()?;
        let queue = &mut self.node().writer.queue;
        let batch: Vec<_> = queue.drain(..queue.len().min(BATCH)).collect();
        self.note(format_args!("store: {} writes", batch.len()));
        let mut completions = Vec::new();
        for write in batch {
            self.store.write(write, &mut completions);
        }
        // A kill before the waiters are completed.
        self.effect()?;
        for completion in completions {
            self.written(completion);
        }
        Ok(())
    }

    fn written(&mut self, completion: Completion) {
        let life = self.life;
        match completion {
            Completion::Callback(notice) => self.after(0, Event::Send { life, notice }),
            Completion::Farewell(due) => {
                let us = due.saturating_sub(self.now) + self.rng.between(0, 2_000) * MS;
                self.after(us, Event::Farewells { life });
            }
            Completion::AfterPanic(call) => self.leave(call),
        }
    }

    /// After a panic in a call's task: closes its record, sends its callback, and tells Graph.
    pub fn conclude_panicked(
        &mut self,
        view: &View,
        setup: CallSetup,
        arrived: std::time::Instant,
        answered: Option<CallTime>,
    ) {
        let lived = CallTime(0).after(self.instant().saturating_duration_since(arrived));
        let summary = orphan_summary(setup.clone(), answered, lived, HangupCause::InternalError);
        let end = CallEnd::of(&summary, setup.started, Vec::new(), Vec::new());
        let hangup = self.callback_of(setup.call, &summary.hangup);
        let farewell = Farewell { action: GraphAction::Terminate, due: self.now, tries: 0 };
        let farewell = view.at_meta.wacid().is_some().then_some(farewell);
        let conclusion = Conclusion { setup, end, hangup, farewell, after_panic: true };
        self.write(Write::Concluded(Box::new(conclusion)));
    }

    /// Closes and reports calls that a dead node left open, and schedules pending farewells and
    /// callbacks.
    pub fn recover(&mut self) -> StepResult {
        let orphans: Vec<_> = self.store.open().collect();
        self.remember_placed(&orphans);
        for call in orphans {
            let row = &self.store.calls[&call];
            // Heartbeats are not simulated: the call lived until it was answered.
            let lived = row.answered.map_or(Duration::ZERO, |at| at.since(row.start.started));
            let (start, setup) = (row.start.clone(), Some(row.setup.clone()));
            let unnamed = start.wacid.is_none();
            let closing = closing(&Orphan { start, setup, answered: row.answered, lived });
            self.note(format_args!("store: {call} was left open"));
            self.watch.tally.orphans += 1;
            let farewell =
                closing.farewell.map(|action| Farewell { action, due: self.now, tries: 0 });
            if farewell.is_none() != unnamed
                || closing.end.cause != HangupCause::NodeFailure.as_str()
            {
                self.fail(format!(
                    "R3: {call} was left open and ends as {}, {farewell:?}",
                    closing.end.cause
                ));
            }
            if unnamed {
                self.watch.unnamed_orphan(call, self.now);
            }
            let Some((setup, summary)) = closing.hangup else { continue };
            let hangup = self.callback_of(call, &summary.hangup);
            let conclusion =
                Conclusion { setup, end: closing.end, hangup, farewell, after_panic: false };
            self.write(Write::Concluded(Box::new(conclusion)));
        }
        while !self.node().writer.queue.is_empty() {
            self.write_batch()?;
        }
        for row in self.store.calls.values_mut() {
            if let Some(farewell) = &mut row.farewell {
                farewell.due = 0;
            }
        }
        let life = self.life;
        self.after(0, Event::Farewells { life });
        for row in self.store.calls.values() {
            if row.start.started.plus(CONNECT_AGAIN) >= self.clock.wall()
                && let Some(key) = key_of(&row.start)
            {
                self.node.as_ref().expect("it starts").door.remember(key);
            }
        }
        let waiting =
            self.store.outbox.iter().filter(|(_, callback)| callback.state == Delivery::Waiting);
        let due: Vec<_> =
            waiting.map(|(id, callback)| (*id, callback.due.saturating_sub(self.now))).collect();
        for (notice, us) in due {
            self.after(us, Event::Send { life, notice });
        }
        Ok(())
    }

    /// Placed calls may still appear under another id: orphans, and those that ended recently.
    fn remember_placed(&mut self, orphans: &[CallUuid]) {
        let (now, since) = (self.clock.now(), self.clock.wall().minus(PLACED_SINCE));
        let node = self.node.as_ref().expect("it starts");
        for (call, row) in &self.store.calls {
            let recent = row.end.as_ref().is_some_and(|end| end.ended >= since);
            if row.start.direction == Direction::Outbound && (recent || orphans.contains(call)) {
                let (phone_number_id, wacid) =
                    (row.start.phone_number_id.clone(), row.start.wacid.clone());
                node.tables.bindings.remember(
                    PlacedCall { call: *call, phone_number_id, wacid },
                    None,
                    now,
                );
            }
        }
    }

    // --- farewells ---

    /// Sends the farewells that are due.
    pub fn farewells(&mut self) -> StepResult {
        let due = |row: &Row| row.farewell.filter(|farewell| farewell.due <= self.now);
        let due: Vec<_> =
            self.store.calls.iter().filter_map(|(call, row)| Some((*call, due(row)?))).collect();
        for (call, farewell) in due {
            if self.node().writer.telling.insert(call) {
                let key =
                    key_of(&self.store.calls[&call].start).expect("what is to be ended has a name");
                let ix = self.call_of(&key);
                self.farewell(ix, call, farewell.action);
            }
        }
        Ok(())
    }

    /// Handles the result of a farewell.
    pub fn farewell_done(&mut self, call: CallUuid, outcome: &GraphOutcome) {
        self.node().writer.telling.remove(&call);
        let row = &self.store.calls[&call];
        let tries = row.farewell.map_or(0, |farewell| farewell.tries);
        let ended = row.end.as_ref().map_or(row.start.started, |end| end.ended);
        let age = self.clock.wall().since(ended);
        let again = if outcome.is_settled() {
            None
        } else {
            let pauses = self.node().pauses.clone();
            next_pause(tries + 1, age, None, &pauses)
        };
        let again = again.map(|pause| self.now + u64::try_from(pause.as_micros()).expect("hours"));
        self.write(Write::Farewell(call, again));
    }

    // --- the outbox ---

    pub fn send_notice(&mut self, notice: Uuid) -> StepResult {
        self.effect()?;
        let Callback { call, kind, .. } = self.store.outbox[&notice];
        let (us, reply) = self.callback(call, kind, notice);
        let life = self.life;
        self.after(us, Event::Sent { life, notice, reply });
        Ok(())
    }

    pub fn notice_sent(&mut self, id: Uuid, reply: CallbackReply) -> StepResult {
        let mut callback = self.store.outbox[&id].clone();
        let passing = match reply {
            CallbackReply::Status(200..=299) => {
                callback.state = Delivery::Delivered;
                false
            }
            CallbackReply::Status(408 | 425 | 429 | 500..) | CallbackReply::Broken => true,
            CallbackReply::Status(_) => {
                callback.state = Delivery::Refused;
                false
            }
        };
        if passing {
            let pauses = self.node().pauses.clone();
            let age = Duration::from_micros(self.now - callback.since);
            let lasting = callback.kind == CallbackKind::Hangup;
            match next_pause(callback.retries + 1, age, None, &pauses).filter(|_| lasting) {
                Some(pause) => {
                    callback.retries += 1;
                    let us = u64::try_from(pause.as_micros()).expect("hours");
                    callback.due = self.now + us;
                    let life = self.life;
                    self.after(us, Event::Send { life, notice: id });
                }
                None => callback.state = Delivery::GivenUp,
            }
        }
        self.write(Write::Settled(id, callback));
        Ok(())
    }
}

/// Returns Meta's id of a call, if known.
fn key_of(start: &CallStart) -> Option<CallKey> {
    Some(CallKey { phone_number_id: start.phone_number_id.clone(), wacid: start.wacid.clone()? })
}
