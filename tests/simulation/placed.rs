//! Invariants of business-initiated calls, checked against an independent model of the queues, the
//! permissions and the known calls at Meta.

use engine::admission::Reason;
use engine::call::queues::NotPlaced;
use engine::webhook::Effect;
use machine::GraphAction;
use model::{AuthId, CallUuid, HangupCause};

use crate::dialer::is_denied;
use crate::meta::{CallIx, EventKind, Phase};
use crate::plan::{Order, SECOND, UNWILLING};
use crate::watch::{CallModel, Watch};
use crate::world::World;

/// The longest wait for a permit, and the WhatsApp limits on connected and missed calls
/// (`docs/reference/limits.md#whatsapp-rules`).
const WAIT: u64 = 120 * SECOND;
const CALLS_A_DAY: u32 = 5;
const MISSES: u32 = 4;
/// How long an unreported call may still appear at Meta
/// (`docs/reference/meta.md#business-initiated-calls`).
const DOUBT: u64 = 60 * SECOND;

/// The model's state of an ordered call.
#[derive(Clone, Debug)]
pub struct OrderModel {
    pub account: AuthId,
    /// Index among all orders.
    pub place: usize,
    pub since: u64,
    pub waits: bool,
    /// It is bound to an id at Meta.
    pub bound: bool,
    pub rings: u32,
    pub connects: u32,
    /// Deadline until which Meta may still report its id.
    pub doubt_until: Option<u64>,
}

/// The model's permission state of a number and a user.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pair {
    connected: u32,
    misses: u32,
    revoked: bool,
}

impl Watch {
    pub fn ordered(&mut self, call: CallUuid, ix: CallIx, life: u32, now: u64, account: AuthId) {
        self.tally.orders += 1;
        // Start a new count.
        self.waiting = (life, 1);
        let place = self.calls.len();
        let ordered = OrderModel {
            account,
            place,
            since: now,
            waits: true,
            bound: false,
            rings: 0,
            connects: 0,
            doubt_until: None,
        };
        self.calls.insert(call, CallModel::new(ix, life, now, Some(ordered)));
    }

    pub fn ix(&self, call: CallUuid) -> CallIx {
        self.calls[&call].ix
    }

    pub fn starts(&mut self, call: CallUuid, now: u64) {
        self.tally.placed += 1;
        let seen = self.call(call);
        (seen.began, seen.since) = (now, now);
        seen.ordered.as_mut().expect("it was ordered").waits = false;
    }

    /// Records that Meta created a call for an order.
    pub fn made(&mut self, ix: CallIx, now: u64) {
        self.made.insert(ix, now);
    }

    /// The node knows the id of this call at Meta, so it must be ended.
    pub fn must_end(&mut self, ix: CallIx) {
        self.to_end.insert(ix);
    }

    /// Records that a call was bound to its id at Meta.
    pub fn bound(&mut self, call: CallUuid, ix: CallIx) {
        let seen = self.call(call);
        seen.ix = ix;
        seen.ordered.iter_mut().for_each(|ordered| ordered.bound = true);
        self.must_end(ix);
    }

    /// Records an orphan without an id at Meta.
    pub fn unnamed_orphan(&mut self, call: CallUuid, now: u64) {
        self.tally.unnamed_orphans += 1;
        self.lost_until.insert(call, now + DOUBT);
    }

    pub fn records_end(&mut self, call: CallUuid, now: u64) {
        if let Some(ordered) = &mut self.call(call).ordered {
            ordered.doubt_until = Some(now + DOUBT);
        }
    }

    fn pair(&mut self, number: usize, user: usize) -> &mut Pair {
        self.pairs.entry((number, user)).or_default()
    }

    pub fn connected(&mut self, number: usize, user: usize) {
        self.tally.placed_answered += 1;
        let pair = self.pair(number, user);
        pair.connected += 1;
        pair.misses = 0;
    }

    pub fn missed(&mut self, number: usize, user: usize) {
        let pair = self.pair(number, user);
        pair.misses += 1;
        pair.revoked |= pair.misses >= MISSES;
    }

    pub fn revoked_by_graph(&mut self, number: usize, user: usize) {
        self.pair(number, user).revoked = true;
    }

    fn permits(&self, number: usize, user: usize) -> bool {
        let pair = self.pairs.get(&(number, user)).copied().unwrap_or_default();
        user < UNWILLING && !pair.revoked && pair.connected < CALLS_A_DAY
    }
}

impl World {
    /// Returns the number and the user of a placed call.
    pub fn pair_of(&self, ix: CallIx) -> Option<(usize, usize)> {
        let call = &self.meta.calls[ix];
        call.placed.as_ref().map(|placed| (call.number, placed.user))
    }

    /// Returns true if another call between the two is live or, if `waiting_too`, queued.
    fn is_busy(&self, pair: (usize, usize), but: Option<CallUuid>, waiting_too: bool) -> bool {
        let node = self.node.as_ref().expect("it is up");
        let of_pair = |ix| self.pair_of(ix) == Some(pair);
        let up = node
            .calls
            .values()
            .any(|call| of_pair(call.ix) && call.holds_a_slot() && Some(call.uuid) != but)
            || node.beginning.iter().any(|(call, begin)| of_pair(begin.ix) && Some(*call) != but);
        let waits =
            |waiting: &engine::call::queues::Waiting| of_pair(self.watch.ix(waiting.setup.call));
        up || waiting_too && node.queues.iter().any(waits)
    }

    pub fn judge_order(&mut self, order: &Order, asked: &Result<(), NotPlaced>) {
        let node = self.node.as_ref().expect("it is up");
        let (draining, room) = (
            node.draining,
            node.live(order.number) < self.plan.numbers[order.number].limit as usize,
        );
        let permitted = self.watch.permits(order.number, order.user);
        let busy = self.is_busy((order.number, order.user), None, true);
        let wrong = match (asked, is_denied(asked)) {
            (Ok(()), _) if draining => "R9: the node is draining",
            (Ok(()), _) if !permitted => "the user does not permit it",
            (Ok(()), _) if busy => "L9: a call between the two is up or waits",
            (Ok(()), _) if !room => "R1: the number is full",
            (Err(NotPlaced::Draining), _) if !draining => "R9: the node is not draining",
            (_, Some(Reason::NoPermission)) if permitted => "the user permits it",
            (_, Some(Reason::UserBusy)) if !busy => "L9: nobody speaks with the user",
            (_, Some(Reason::NumberFull)) if room => "R1: there is a slot",
            (Err(NotPlaced::QueueFull { .. }), _) => "L6: there is room",
            _ => {
                self.watch.tally.denied += u64::from(asked.is_err());
                return;
            }
        };
        self.fail(format!("an order is {asked:?}: {wrong}"));
    }

    /// Checks the start of a queued call: it must be the first of its account, with a permit, a
    /// slot and the user's permission.
    pub fn judge_start(&mut self, call: CallUuid, ix: CallIx) {
        let pair = self.pair_of(ix).expect("it is placed");
        let (number, user) = pair;
        let plan = &self.plan.numbers[number];
        let of_sub = plan.of_sub;
        let (main_full, sub_full) = self.rate_is_full(of_sub);
        let node = self.node.as_ref().expect("it is up");
        let ordered = self.watch.calls[&call].ordered.as_ref().expect("it was ordered");
        let overtakes =
            self.watch.calls.values().filter(|seen| seen.life == self.life).any(|seen| {
                let of = seen.ordered.as_ref();
                of.is_some_and(|of| {
                    of.waits && of.account == ordered.account && of.place < ordered.place
                })
            });
        let wrong = if !ordered.waits {
            "it did not wait"
        } else if overtakes {
            "L6: it overtakes another of its account"
        } else if main_full || sub_full {
            "R1: more calls in a second than allowed"
        } else if node.live(number) >= plan.limit as usize {
            "R1: the number is full"
        } else if node.book().live >= self.plan.live_max {
            "R10: the node is full"
        } else if node.draining {
            "R9: the node is draining"
        } else if self.now - ordered.since >= WAIT {
            "L6: it has waited too long"
        } else if !self.watch.permits(number, user) {
            "the user does not permit it"
        } else if self.is_busy(pair, Some(call), false) {
            "L9: a call between the two is up"
        } else {
            self.watch.admissions.push((self.now, of_sub));
            return;
        };
        self.fail(format!("call {ix} goes out: {wrong}"));
    }

    /// Checks the end of a queued call before its start.
    pub fn judge_given_up(&mut self, call: CallUuid, cause: HangupCause) {
        let ix = self.watch.ix(call);
        let pair = self.pair_of(ix).expect("it is placed");
        let node = self.node.as_ref().expect("it is up");
        let full = node.live(pair.0) >= self.plan.numbers[pair.0].limit as usize;
        let overloaded = node.book().live >= self.plan.live_max;
        let (draining, busy) = (node.draining, self.is_busy(pair, Some(call), false));
        let permitted = self.watch.permits(pair.0, pair.1);
        let now = self.now;
        let seen = self.watch.call(call);
        let ordered = seen.ordered.as_mut().expect("it was ordered");
        let waited = now - ordered.since >= WAIT;
        let wrong = !std::mem::replace(&mut ordered.waits, false)
            || match cause {
                HangupCause::CancelledByApi => false,
                HangupCause::Drained => !draining,
                HangupCause::CpsExceeded => !(waited || overloaded),
                HangupCause::NumberFull => !full,
                HangupCause::NoPermission => permitted,
                HangupCause::UserBusy => !busy,
                _ => true,
            };
        seen.concluded += 1;
        seen.over = true;
        let tally = &mut self.watch.tally;
        tally.given_up += 1;
        tally.expired += u64::from(cause == HangupCause::CpsExceeded && waited);
        if wrong {
            self.fail(format!("call {ix} is given up as {cause:?}, for no reason that there is"));
        }
    }

    /// Returns true if an event that names the call can be attributed: the call is live, or may
    /// still appear.
    pub fn is_known(&self, ix: CallIx) -> bool {
        let Some(placed) = &self.meta.calls[ix].placed else { return false };
        let node = self.node.as_ref().expect("it is up");
        let seen = &self.watch.calls[&placed.call];
        // After a change of the wall clock and a restart, the age of an ended call is unknown.
        let tells = seen.life == self.life || self.plan.jumps.is_empty();
        let doubt = seen.ordered.as_ref().and_then(|ordered| ordered.doubt_until).filter(|_| tells);
        let until = doubt.max(self.watch.lost_until.get(&placed.call).copied());
        // Its known id has ended, but the call may appear under another for one more minute.
        node.tables.view(placed.call).is_some() || until.is_some_and(|until| self.now < until)
    }

    /// Checks the effect of a webhook about a placed call. `known` is true if it names a call that
    /// the node knows.
    pub fn judge_placed(&mut self, ix: CallIx, event_kind: EventKind, effect: Effect, known: bool) {
        let life = self.life;
        let again = self.watch.received.get(&(ix, event_kind)) == Some(&life);
        let right = match effect {
            Effect::Duplicate => {
                again || event_kind == EventKind::Connect && self.was_named_before(ix)
            }
            Effect::AnswerApplied | Effect::AnswerBad | Effect::Stale => {
                event_kind == EventKind::Connect && !again
            }
            Effect::StatusApplied => {
                matches!(event_kind, EventKind::Ringing | EventKind::Accepted | EventKind::Rejected)
                    && !again
            }
            Effect::Ended => event_kind == EventKind::Terminate && !again,
            Effect::Parked => event_kind != EventKind::Terminate && !again,
            Effect::Late => !again,
            Effect::Busy => true,
            _ => false,
        };
        match effect {
            Effect::Parked => self.watch.tally.parked += 1,
            Effect::Late => self.watch.tally.late += 1,
            _ => {}
        }
        if effect != Effect::Busy {
            self.watch.received.insert((ix, event_kind), life);
        }
        let taken = !matches!(effect, Effect::Busy | Effect::Duplicate | Effect::Stale);
        if known && taken && event_kind != EventKind::Terminate {
            self.watch.must_end(ix);
        }
        if !right {
            self.fail(format!("R5: the {} of call {ix} is {effect:?}", event_kind.word()));
        }
    }

    /// Its connect counts as a duplicate, because an earlier process knew its id.
    fn was_named_before(&self, ix: CallIx) -> bool {
        let call = &self.meta.calls[ix];
        let row = call.placed.as_ref().and_then(|placed| self.store.calls.get(&placed.call));
        row.is_some_and(|row| row.name() == Some(&call.key.wacid))
    }

    /// Checks the start of an attempt of `connect`.
    pub fn check_connect(&mut self, ix: CallIx, of: Option<CallUuid>, attempt: usize) {
        let concluded = of.is_some_and(|call| self.watch.calls[&call].concluded > 0);
        let pair = self.pair_of(ix);
        let unwilling = pair.is_none_or(|(_, user)| user >= UNWILLING);
        let wrong = if concluded {
            "after its end"
        } else if unwilling {
            "to a user who permits none"
        } else if attempt > 2 {
            "once too often"
        } else {
            return;
        };
        self.fail(format!("R6: call {ix} is {} at Graph {wrong}", GraphAction::Connect.as_str()));
    }

    /// Checks the queues. Called after each step.
    pub fn check_queues(&mut self) {
        let Some(node) = &self.node else { return };
        let waiting = node.waiting();
        let (now, life) = (self.now, self.life);
        if waiting == 0 && self.watch.waiting == (life, 0) {
            return;
        }
        let of_life = self.watch.calls.values().filter(|seen| seen.life == life && !seen.over);
        let mut known = 0;
        let mut oldest = now;
        for ordered in
            of_life.filter_map(|seen| seen.ordered.as_ref()).filter(|ordered| ordered.waits)
        {
            known += 1;
            oldest = oldest.min(ordered.since);
        }
        self.watch.waiting = (life, known);
        if known != waiting {
            self.fail(format!("R3: {known} calls are to wait, and {waiting} do"));
        } else if now - oldest > WAIT + SECOND {
            self.fail("L6: a call waits for more than two minutes".to_owned());
        }
    }

    /// Checks at the end that no call known to the node continues at Meta, and no pair counts as
    /// engaged.
    pub fn check_placed(&self, wrong: &mut Vec<String>) {
        for ix in self.watch.to_end.iter().filter(|ix| !self.watch.unendable.contains(ix)) {
            let call = &self.meta.calls[*ix];
            if !matches!(call.phase, Phase::Unmade | Phase::Ended) && call.placed.is_some() {
                wrong.push(format!("R3: call {ix} goes on at Meta, and was known here"));
            }
        }
        for order in &self.plan.orders {
            let number = crate::meta::phone_number_id(order.number).as_str().into();
            let key = engine::admission::permission::PairKey::new(
                &number,
                &crate::meta::user(order.user),
            );
            if self.store.consents.is_engaged(&key) {
                wrong.push(format!("L9: user {} counts as on the line at the end", order.user));
            }
        }
        if let Some(node) = &self.node
            && (node.waiting() > 0 || !node.tables.bindings.is_empty())
        {
            wrong.push("a call waits, or a name of Meta's is left over".to_owned());
        }
    }

    /// Returns whether the calls per second of the main account and of the subaccount are used up.
    pub fn rate_is_full(&self, of_sub: bool) -> (bool, bool) {
        let window = |sub_only: bool| {
            let of = self
                .watch
                .admissions
                .iter()
                .filter(|(at, sub)| self.now - at < SECOND && (*sub || !sub_only));
            of.count()
        };
        let main_full = window(false) >= self.plan.cps as usize;
        let sub_full = of_sub && self.plan.sub_cps.is_some_and(|cps| window(true) >= cps as usize);
        (main_full, sub_full)
    }
}
