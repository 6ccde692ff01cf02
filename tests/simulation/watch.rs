//! Invariants, checked after each step and at the end. They depend on the effects on the outside
//! and their results, not on the node's internals.

use std::collections::{BTreeMap, BTreeSet};

use engine::admission::Reason;
use engine::call::binding::CallKey;
use engine::webhook::Effect;
use machine::{
    CallState, CallTime, CallbackKind, FetchId, GraphAction, GraphOutcome, MediaCommand, Output,
    Summary,
};
use model::{CallUuid, HangupCause};

use crate::meta::{CallIx, EventKind, Phase};
use crate::node::MAILBOX;
use crate::placed::{OrderModel, Pair};
use crate::plan::{MS, SECOND};
use crate::store::{Delivery, Store};
use crate::world::World;

#[derive(Default)]
pub struct Watch {
    /// The first violated invariant.
    pub broken: Option<String>,
    pub calls: BTreeMap<CallUuid, CallModel>,
    keys: BTreeMap<CallKey, Key>,
    requests: BTreeMap<(u32, usize), RequestModel>,
    /// Times of the Graph requests that a node has begun, by life, and of its retries.
    begun: (u32, Vec<u64>),
    retried: Vec<u64>,
    /// Admissions: when, and whether by the subaccount.
    pub admissions: Vec<(u64, bool)>,
    pub tally: Tally,
    /// Calls that can't be ended at Meta: Graph refused, or the store does not know them.
    pub unendable: BTreeSet<CallIx>,
    // --- business-initiated calls ---
    /// Calls that Meta has created for orders, and when.
    pub made: BTreeMap<CallIx, u64>,
    /// Calls that the node knows and must end.
    pub to_end: BTreeSet<CallIx>,
    /// Orphans without an id at Meta, and until when they may appear.
    pub lost_until: BTreeMap<CallUuid, u64>,
    /// The life in which an event was accepted.
    pub received: BTreeMap<(CallIx, EventKind), u32>,
    pub pairs: BTreeMap<(usize, usize), Pair>,
    /// The last known life and its number of queued calls.
    pub waiting: (u32, usize),
}

macro_rules! tally {
    ($($what:ident),*) => {
        /// Counts what occurred in a run. A test checks that all runs together cover everything.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Tally { $(pub $what: u64,)* }

        impl Tally {
            pub fn add(&mut self, other: &Self) {
                $(self.$what += other.$what;)*
            }

            /// Returns the names of the counts that are zero.
            pub fn never(&self) -> Vec<&'static str> {
                [$((self.$what, stringify!($what)),)*].into_iter().filter(|(n, _)| *n == 0).map(|(_, what)| what).collect()
            }
        }
    };
}

tally!(
    calls,
    answered,
    rejected,
    duplicates,
    late,
    stale,
    busy,
    crashes,
    orphans,
    lost,
    drains,
    panics,
    graph_retries,
    window_edges,
    callback_retries,
    orders,
    denied,
    placed,
    placed_answered,
    given_up,
    expired,
    cancelled_in_the_queue,
    parked,
    doubled,
    strays,
    unnamed_orphans
);

/// How long Meta lets a phone ring at least.
const RINGS: u64 = 30 * SECOND;

/// An admitted call.
pub struct CallModel {
    pub ix: CallIx,
    pub life: u32,
    pub began: u64,
    state: Option<CallState>,
    pub since: u64,
    accepted: bool,
    open_fetch: Option<FetchId>,
    closed: bool,
    pub concluded: u32,
    pub over: bool,
    panicked: bool,
    end_reported_us: Option<u64>,
    gone: bool,
    /// When Graph last failed to receive the request to end it.
    end_unreceived: Option<u64>,
    asked_to_end: bool,
    /// Its start was not stored when its node was killed, so the call is unknown.
    lost: bool,
    /// Set for business-initiated calls.
    pub ordered: Option<OrderModel>,
}

impl CallModel {
    pub fn new(ix: CallIx, life: u32, now: u64, ordered: Option<OrderModel>) -> Self {
        Self {
            ix,
            life,
            began: now,
            state: None,
            since: now,
            accepted: false,
            open_fetch: None,
            closed: false,
            concluded: 0,
            over: false,
            panicked: false,
            end_reported_us: None,
            gone: false,
            end_unreceived: None,
            asked_to_end: false,
            lost: false,
            ordered,
        }
    }
}

/// The node's knowledge of a call id at a number.
#[derive(Default)]
struct Key {
    admitted: Vec<CallUuid>,
    /// The life in which it was rejected.
    rejected: Option<u32>,
    /// The life in which its connect, and its terminate, was accepted.
    connect: Option<u32>,
    terminate: Option<u32>,
}

/// A request to Graph.
struct RequestModel {
    ix: CallIx,
    action: GraphAction,
    of: Option<CallUuid>,
    refused: bool,
}

/// The state before a webhook.
pub struct StateBefore {
    live: usize,
    all: usize,
    rejects: usize,
    draining: bool,
}

impl Watch {
    pub fn admitted(&mut self, call: CallUuid, key: CallKey, ix: CallIx, life: u32, now: u64) {
        self.tally.calls += 1;
        self.keys.entry(key).or_default().admitted.push(call);
        self.calls.insert(call, CallModel::new(ix, life, now, None));
    }

    pub fn call(&mut self, call: CallUuid) -> &mut CallModel {
        self.calls.get_mut(&call).expect("it was admitted")
    }

    fn fail(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    pub fn stepped(
        &mut self,
        call: CallUuid,
        now: u64,
        was: Option<CallState>,
        is: Option<CallState>,
        accepted: bool,
    ) {
        let seen = self.call(call);
        seen.accepted |= accepted;
        if was != is {
            (seen.state, seen.since) = (is, now);
        }
        if is == Some(CallState::Live) && was != is {
            self.tally.answered += 1;
        }
    }

    pub fn end_reported_us(&mut self, call: CallUuid, now: u64) {
        let seen = self.call(call);
        seen.end_reported_us.get_or_insert(now);
        seen.end_unreceived = None;
    }

    pub fn panicked(&mut self, call: CallUuid) {
        self.tally.panics += 1;
        self.call(call).panicked = true;
    }

    pub fn answered(
        &mut self,
        call: CallUuid,
        now: u64,
        action: GraphAction,
        outcome: &GraphOutcome,
    ) {
        let seen = self.call(call);
        let closing = seen.state == Some(CallState::Closing) && seen.end_reported_us.is_none();
        if action == GraphAction::Terminate
            && closing
            && !outcome.is_settled()
            && now - seen.since < 60 * SECOND
        {
            seen.end_unreceived = Some(now);
        }
        if action == GraphAction::Accept && *outcome == GraphOutcome::Gone {
            self.call(call).gone = true;
        }
    }

    pub fn concluded(&mut self, call: CallUuid, now: u64, at: CallTime, summary: &Summary) {
        let seen = self.call(call);
        let lasted = (now - seen.began) / MS;
        seen.concluded += 1;
        let (ix, concluded) = (seen.ix, seen.concluded);
        if concluded > 1 {
            self.fail(format!("R3: call {ix} is concluded {concluded} times"));
        }
        let answered =
            summary.answered.map(|answered| at.0.saturating_sub(answered.0).div_ceil(1_000));
        if summary.bill_secs != answered.unwrap_or(0) || summary.bill_secs > summary.duration_secs {
            self.fail(format!(
                "R3, R8: call {ix} is billed {} s of {answered:?}",
                summary.bill_secs
            ));
        }
        // The input was stamped on arrival, a moment earlier.
        if at.0.abs_diff(lasted) > 10 || summary.duration_secs.abs_diff(lasted.div_ceil(1_000)) > 1
        {
            self.fail(format!("R8: call {ix} lasted {lasted} ms, and says {} ms", at.0));
        }
        if summary.cause == HangupCause::NodeFailure {
            self.fail(format!("call {ix} calls its own end a failure of the node"));
        }
    }

    pub fn over(&mut self, call: CallUuid) {
        let seen = &self.calls[&call];
        let ix = seen.ix;
        // A placed call without an id at Meta can't be ended there.
        let named = seen.ordered.as_ref().is_none_or(|ordered| ordered.bound);
        let seen = self.call(call);
        let unreported =
            named && seen.end_reported_us.is_none() && !seen.gone && !seen.asked_to_end;
        let broken = if std::mem::replace(&mut seen.over, true) {
            Some("is over twice")
        } else if seen.concluded != 1 {
            Some("is over without having been concluded")
        } else if unreported {
            Some("is over, and nobody has told Meta (R6)")
        } else {
            None
        };
        if let Some(broken) = broken {
            self.fail(format!("R3: call {ix} {broken}"));
        }
    }

    /// Handles the end of a node. Calls without a stored start no longer exist.
    pub fn lost_with_the_node(&mut self, life: u32, store: &Store) {
        for (call, seen) in &mut self.calls {
            if seen.life == life && !store.calls.contains_key(call) && !seen.lost {
                seen.lost = true;
                self.unendable.insert(seen.ix);
                self.tally.lost += 1;
            }
        }
        self.admissions.clear();
    }

    // --- Graph ---

    pub fn asked(
        &mut self,
        life: u32,
        request: usize,
        ix: CallIx,
        action: GraphAction,
        of: Option<CallUuid>,
    ) {
        if let Some(call) = of {
            self.call(call).end_unreceived = None;
        }
        self.requests.insert((life, request), RequestModel { ix, action, of, refused: false });
    }

    pub fn request(&self, life: u32, request: usize) -> Option<(CallIx, GraphAction)> {
        self.requests.get(&(life, request)).map(|asked| (asked.ix, asked.action))
    }

    pub fn refused(&mut self, life: u32, request: usize) {
        let asked = self.requests.get_mut(&(life, request)).expect("it was made");
        asked.refused = true;
        if matches!(asked.action, GraphAction::Reject | GraphAction::Terminate) {
            self.unendable.insert(asked.ix);
        }
    }

    pub fn graph_begun(&mut self, life: u32, now: u64) {
        self.of_this_life(life);
        self.begun.1.push(now);
    }

    /// Records a retry. Returns true if it was within the budget: a tenth of the requests of the
    /// last ten seconds, and at least ten.
    pub fn graph_tried_again(&mut self, life: u32, now: u64) -> bool {
        self.of_this_life(life);
        self.tally.graph_retries += 1;
        self.retried.push(now);
        let recent =
            |times: &[u64], window| times.iter().rev().take_while(|at| now - **at < window).count();
        recent(&self.retried, 10 * SECOND) <= 10.max(recent(&self.begun.1, 10 * SECOND) / 10)
    }

    fn of_this_life(&mut self, life: u32) {
        if self.begun.0 != life {
            self.begun = (life, Vec::new());
            self.retried.clear();
        }
    }
}

impl World {
    // --- webhooks ---

    pub fn before(&mut self, ix: CallIx) -> StateBefore {
        let number = self.meta.calls[ix].number;
        let node = self.node();
        let book = node.book();
        StateBefore {
            live: node.live(number),
            all: book.live,
            rejects: book.rejects,
            draining: node.draining,
        }
    }

    /// Checks the effect of a webhook against the model (no limit exceeded, no event counted twice, no call
    /// admitted while draining).
    pub fn judge(&mut self, ix: CallIx, connect: bool, effect: Effect, before: StateBefore) {
        let life = self.life;
        let key = self.meta.calls[ix].key.clone();
        if !connect {
            let known = self.watch.keys.entry(key).or_default();
            let again = known.terminate == Some(life);
            match effect {
                Effect::Ended | Effect::Late if again => {
                    self.fail(format!("R5: terminate of call {ix} counts twice"))
                }
                Effect::Duplicate if !again => {
                    self.fail(format!("R5: the first terminate of call {ix} is a duplicate"))
                }
                Effect::Ended | Effect::Late | Effect::Duplicate => known.terminate = Some(life),
                Effect::Busy => self.watch.tally.busy += 1,
                other => self.fail(format!("a terminate is {other:?}")),
            }
            return;
        }
        let call = &self.meta.calls[ix];
        let (number, age) = (call.number, self.clock.wall().secs() - call.timestamp);
        let plan = &self.plan.numbers[number];
        let (limit, of_sub) = (plan.limit as usize, plan.of_sub);
        let usable = !call.bad_offer;
        let fresh = (-300..=60).contains(&age);
        let (main_full, sub_full) = self.rate_is_full(of_sub);
        let known = self.watch.keys.entry(key.clone()).or_default();
        let recorded = known.admitted.iter().any(|call| !self.watch.calls[call].lost);
        let seen = known.connect == Some(life) || recorded;
        let over = known.terminate == Some(life);
        let wrong = match effect {
            Effect::Admitted if recorded => Some("R5: a second call of one id"),
            Effect::Admitted if seen => Some("R5: its connect was taken before"),
            Effect::Admitted if over => Some("R5: it was over before it began"),
            Effect::Admitted if !fresh => Some("R5: its connect is too old"),
            Effect::Admitted if before.draining => Some("R9: the node is draining"),
            Effect::Admitted if before.live >= limit => Some("R1: the number is full"),
            Effect::Admitted if main_full || sub_full => {
                Some("R1: more calls in a second than allowed")
            }
            Effect::Admitted if before.all >= self.plan.live_max => Some("R10: the node is full"),
            Effect::Rejected(_) if seen || over || !fresh => Some("R5: it was to be left alone"),
            Effect::Rejected(Reason::NumberFull) if before.live < limit => {
                Some("R1: there is a slot")
            }
            Effect::Rejected(Reason::CpsExceeded) if !(main_full || sub_full) => {
                Some("R1: there is a permit")
            }
            Effect::Rejected(Reason::Draining) if !before.draining => {
                Some("R9: the node is not draining")
            }
            Effect::Rejected(Reason::BadOffer) if usable => Some("its offer is usable"),
            Effect::Rejected(Reason::Overloaded) if before.all < self.plan.live_max => {
                Some("R10: there is room")
            }
            Effect::Rejected(
                Reason::UnknownNumber
                | Reason::CallingDisabled
                | Reason::NoPermission
                | Reason::GeoBlocked
                | Reason::UserBusy
                | Reason::Duplicate,
            ) => Some("for no reason of this world"),
            Effect::Duplicate if !seen => Some("R5: nothing of it was seen before"),
            Effect::Late if !over => Some("R5: its end was not heard of"),
            Effect::Stale if fresh => Some("R5: it is fresh"),
            Effect::Busy if before.rejects < self.plan.rejects_max => {
                Some("R10: a reject would have had room")
            }
            Effect::Admitted
            | Effect::Rejected(_)
            | Effect::Duplicate
            | Effect::Late
            | Effect::Stale
            | Effect::Busy => None,
            _ => Some("of no kind that there is here"),
        };
        if let Some(wrong) = wrong {
            self.fail(format!("connect of call {ix} is {effect:?}: {wrong}"));
        }
        let known = self.watch.keys.get_mut(&key).expect("just there");
        let tally = &mut self.watch.tally;
        match effect {
            Effect::Admitted => self.watch.admissions.push((self.now, of_sub)),
            Effect::Rejected(_) => {
                known.rejected = Some(life);
                tally.rejected += 1;
            }
            Effect::Duplicate => tally.duplicates += 1,
            Effect::Late => tally.late += 1,
            Effect::Stale => tally.stale += 1,
            _ => tally.busy += 1,
        }
        if effect != Effect::Busy {
            known.connect = Some(life);
        }
    }

    // --- outputs of a call ---

    /// Checks an output of the machine against its earlier ones.
    pub fn check_output(&mut self, call: CallUuid, output: &Output) {
        let seen = self.watch.call(call);
        let mut wrong = None;
        let mut must = |holds: bool, what: &'static str| {
            if !holds {
                wrong.get_or_insert(what);
            }
        };
        must(!seen.over, "wishes for something after it was over");
        match output {
            Output::Graph { action } => {
                if matches!(action, GraphAction::Reject | GraphAction::Terminate) {
                    seen.asked_to_end = true;
                } else {
                    must(seen.concluded == 0, "is to be answered after its end");
                }
                if let Some(ordered) = &mut seen.ordered {
                    ordered.connects += u32::from(*action == GraphAction::Connect);
                    let suits = matches!(action, GraphAction::Connect | GraphAction::Terminate);
                    must(
                        suits && ordered.connects == 1,
                        "was placed, and Graph is asked for that twice or for more",
                    );
                }
            }
            Output::Fetch { fetch, .. } => {
                must(seen.concluded == 0, "asks for a document after its end (R7)");
                seen.open_fetch = Some(*fetch);
            }
            Output::CancelFetch { fetch } => {
                must(seen.open_fetch.take() == Some(*fetch), "breaks off what was not open");
            }
            Output::Media { command: order, .. } => {
                must(!seen.closed, "orders media after it was closed");
                match order {
                    MediaCommand::Close => seen.closed = true,
                    MediaCommand::Play { .. }
                    | MediaCommand::SendDigits { .. }
                    | MediaCommand::Overlay { .. }
                    | MediaCommand::Open => {
                        must(seen.accepted, "makes a sound before it is answered");
                    }
                    MediaCommand::RecordStart { .. } => {
                        must(seen.accepted, "is recorded before it is answered")
                    }
                    MediaCommand::Record { order: how, .. } => {
                        must(seen.accepted || how.held, "is recorded before it is answered")
                    }
                    MediaCommand::Begin
                    | MediaCommand::RecordStop { .. }
                    | MediaCommand::RecordPause { .. }
                    | MediaCommand::Stop { .. }
                    | MediaCommand::PlayPause { .. }
                    | MediaCommand::DetectVoice { .. }
                    | MediaCommand::DetectBeep { .. }
                    | MediaCommand::Join
                    | MediaCommand::Unjoin => {}
                }
            }
            Output::Callback { callback: notice } => {
                must(seen.concluded == 0, "sends a callback after its end");
                if let (CallbackKind::Ring, Some(ordered)) = (notice.kind, &mut seen.ordered) {
                    ordered.rings += 1;
                    must(ordered.rings == 1, "rings twice");
                }
            }
            _ => {}
        }
        let ix = seen.ix;
        if let Some(wrong) = wrong {
            self.fail(format!("R3: call {ix} {wrong}"));
        }
    }

    /// Checks the start of an attempt at Graph (retry rules, `docs/reference/reliability.md#r6`).
    pub fn check_try(
        &mut self,
        life: u32,
        request: usize,
        ix: CallIx,
        action: GraphAction,
        attempt: usize,
    ) {
        let asked = &self.watch.requests[&(life, request)];
        let gone = asked.of.is_some_and(|call| self.watch.calls[&call].end_reported_us.is_some());
        // Independent of the program's own limit: Meta lets a phone ring for at least 30 s, and the
        // user may be gone after that.
        let began = asked.of.map(|call| self.watch.calls[&call].began);
        let since = began.map_or(0, |began| self.now - began);
        let late = since >= RINGS;
        let refused = asked.refused;
        let of = asked.of;
        if action == GraphAction::Connect {
            self.check_connect(ix, of, attempt);
            return;
        }
        let answering = matches!(action, GraphAction::PreAccept | GraphAction::Accept);
        self.watch.tally.window_edges += u64::from(answering && since + 6 * SECOND >= RINGS);
        let call = &mut self.meta.calls[ix];
        match action {
            GraphAction::Accept => call.accept_sent = Some(life),
            GraphAction::Reject => call.reject_sent = Some(life),
            _ => {}
        }
        if matches!(action, GraphAction::Reject | GraphAction::Terminate) {
            call.tries_to_end += 1;
        }
        // A reject begun by a killed node is unknown to the next one, for which the phone may still
        // ring. The same applies to calls without a stored row.
        let (calls, key) = (&self.watch.calls, self.watch.keys.get(&call.key));
        let lost = |life| {
            key.is_some_and(|key| {
                key.admitted.iter().any(|c| calls[c].life == life && calls[c].lost)
            })
        };
        let both = match (call.accept_sent, call.reject_sent) {
            (Some(accept), Some(reject)) => accept <= reject && !lost(accept),
            _ => false,
        };
        let wrong = if both {
            "both an accept and a reject"
        } else if answering && gone {
            "a try when the user has gone"
        } else if answering && late {
            "a try when nobody can be sure to ring any more"
        } else if refused {
            "once more what Graph has refused for good"
        } else if attempt > if answering { 3 } else { 5 } {
            "one try too many"
        } else {
            return;
        };
        self.fail(format!("R6: call {ix} sees {wrong}: {}", action.as_str()));
    }

    // --- after each step ---

    pub fn check_now(&mut self) {
        self.check_queues();
        let Some(node) = &self.node else { return };
        let mut wrong = None;
        for (number, slots) in node.slots.iter().enumerate() {
            let (used, live) = (slots.in_use() as usize, node.live(number));
            if used != live {
                wrong =
                    Some(format!("R1: {used} slots of number {number} are taken by {live} calls"));
            }
        }
        let book = node.book();
        if let Some(full) = book.mailboxes.values().find(|mailbox| mailbox.len() > MAILBOX) {
            wrong = Some(format!("R10: a mailbox holds {} facts", full.len()));
        }
        if book.rejects > self.plan.rejects_max || book.live > self.plan.live_max {
            wrong = Some(format!("R10: {} rejects, {} calls", book.rejects, book.live));
        }
        drop(book);
        for uuid in node.calls.keys() {
            let seen = &self.watch.calls[uuid];
            let limits = &self.plan.limits;
            let here = (self.now - seen.since) / MS;
            // One second beyond the timers, for late wake-ups.
            let most = 1_000
                + match seen.state {
                    Some(CallState::Preparing) | None => limits.accept_deadline_ms,
                    Some(CallState::Accepting) => limits.reap_ms,
                    Some(CallState::Live) => limits.max_call_ms,
                    Some(CallState::Dialing | CallState::Proceeding | CallState::Ringing) => {
                        limits.reap_ms
                    }
                    // A call that may exist at Meta is waited for and closed a minute later.
                    Some(CallState::Closing) if seen.ordered.is_some() => 2 * limits.reap_ms,
                    Some(CallState::Closing) => limits.reap_ms,
                    Some(CallState::Over) => 0,
                };
            if seen.end_unreceived.is_some_and(|at| self.now - at > 16 * SECOND) {
                wrong = Some(format!("R6: Graph is not asked again to end call {}", seen.ix));
            }
            let elapsed_ms = seen.end_reported_us.map_or(0, |at| (self.now - at) / MS);
            if here > most {
                wrong = Some(format!("call {} stays {:?} for {here} ms", seen.ix, seen.state));
            } else if elapsed_ms > limits.accept_outcome_ms + 1_000 {
                wrong = Some(format!(
                    "R7: call {} is still up {elapsed_ms} ms after its end was reported",
                    seen.ix
                ));
            }
        }
        if let Some(wrong) = wrong {
            self.fail(wrong);
        }
    }

    // --- at the end ---

    pub fn check_end(&mut self) {
        let mut wrong = Vec::new();
        match &self.node {
            None => wrong.push("the node is not up at the end".to_owned()),
            Some(node) => {
                let used: u32 = node.directory.slots_in_use().iter().map(|(_, used)| used).sum();
                let book = node.book();
                if used > 0 || book.live > 0 || !node.calls.is_empty() || !node.beginning.is_empty()
                {
                    wrong.push(format!("R1, R3: {used} slots, {} calls at the end", book.live));
                }
                if book.rejects > 0 || node.requests.iter().any(|asked| !asked.is_done()) {
                    wrong.push("a reject or a request is left over".to_owned());
                }
                if !node.writer.queue.is_empty() {
                    wrong.push("writes are left over".to_owned());
                }
            }
        }
        if self.meta.undelivered > 0 {
            wrong.push("R5: a webhook was never taken".to_owned());
        }
        let mut hangups: BTreeMap<CallUuid, BTreeSet<uuid::Uuid>> = BTreeMap::new();
        for (identity, notice) in &self.store.outbox {
            if notice.kind != CallbackKind::Hangup {
                if notice.state == Delivery::Waiting {
                    wrong.push(format!("R4: an action of {} was not told", notice.call));
                }
                continue;
            }
            hangups.entry(notice.call).or_default().insert(*identity);
            self.watch.tally.callback_retries += u64::from(notice.retries);
            let is_reported =
                self.customer.hangups.get(&notice.call).is_some_and(|ids| ids.contains(identity));
            match notice.state {
                Delivery::Delivered if !is_reported => {
                    wrong.push(format!("R4: {} counts as told", notice.call))
                }
                Delivery::Waiting | Delivery::GivenUp => {
                    wrong.push(format!("R4: {} was not told", notice.call))
                }
                Delivery::Delivered | Delivery::Refused => {}
            }
        }
        for (call, row) in &self.store.calls {
            let seen = self.watch.calls.get(call);
            if row.end.is_none() {
                wrong.push(format!("R3: the record of {call} is open at the end"));
            }
            if hangups.get(call).map_or(0, BTreeSet::len) != 1 {
                wrong.push(format!(
                    "R3: {call} has {:?} as its hangup callbacks",
                    hangups.get(call)
                ));
            }
            if seen.is_none_or(|seen| seen.lost) {
                wrong.push(format!("R3: a record of {call}, which never was"));
            }
        }
        for (call, seen) in &self.watch.calls {
            if !seen.lost && !self.store.calls.contains_key(call) {
                wrong.push(format!("R3: call {} has no record", seen.ix));
            }
        }
        for (call, ids) in &self.customer.hangups {
            if ids.len() != 1 || !self.store.calls.contains_key(call) {
                wrong.push(format!(
                    "R3: the customer heard {} times of the end of {call}",
                    ids.len()
                ));
            }
        }
        for (ix, call) in self.meta.calls.iter().enumerate() {
            let known = self.watch.keys.get(&call.key);
            let admitted = known.is_some_and(|known| !known.admitted.is_empty());
            if call.placed.is_none()
                && call.phase != Phase::Ended
                && !self.watch.unendable.contains(&ix)
            {
                wrong.push(format!("R6: the user of call {ix} is left hanging ({admitted})"));
            }
        }
        self.check_placed(&mut wrong);
        if let Some(first) = wrong.into_iter().next() {
            self.fail(first);
        }
    }
}
