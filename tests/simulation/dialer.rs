//! Business-initiated calls before their start: `call::dialer` in simulated time. The queues, the
//! gate and the permissions are the real ones.

use std::cell::RefCell;
use std::time::Instant;

use engine::admission::permission::{Engaged, Event as PermissionEvent, PairKey};
use engine::admission::{Admitted, NumberEntry};
use engine::call::binding::Party as _;
use engine::call::queues::{Exit, NotPlaced, Rules, Waiting};

use machine::{CallSetup, CallTime, CallUrls, Command, Input, Outbound, orphan_summary};
use model::{CallType, CallUuid, Direction, E164, HangupCause, Method};
use store::{CallEnd, CallStart};
use xml::ast::DocUrl;

use crate::meta::{MetaCall, Placed, phone_number_id, user};
use crate::node::{Node, StartingCall};
use crate::store::{Conclusion, Write};
use crate::world::{Event, StepResult, World};

/// The outcome of a queued call.
enum QueueOutcome {
    Began(CallSetup, (Admitted, Engaged), Instant),
    GaveUp(Waiting, HangupCause, Option<String>),
    Noted(CallSetup),
}

/// Records what the queues request. It is executed after the queues are unlocked.
struct OutcomeRecorder {
    room: usize,
    left: RefCell<Vec<QueueOutcome>>,
}

impl Exit for OutcomeRecorder {
    fn start(
        &self,
        waiting: &Waiting,
        let_in: (Admitted, Engaged),
        now: Instant,
    ) -> Result<(), Box<Admitted>> {
        let mut left = self.left.borrow_mut();
        let begun = left.iter().filter(|left| matches!(left, QueueOutcome::Began(..))).count();
        if begun >= self.room {
            return Err(Box::new(let_in.0));
        }
        left.push(QueueOutcome::Began(waiting.setup.clone(), let_in, now));
        Ok(())
    }

    fn give_up(&self, waiting: Waiting, cause: HangupCause, why: Option<String>) {
        self.left.borrow_mut().push(QueueOutcome::GaveUp(waiting, cause, why));
    }

    fn note(&self, setup: &CallSetup) -> bool {
        self.left.borrow_mut().push(QueueOutcome::Noted(setup.clone()));
        true
    }
}

impl World {
    /// Orders a business-initiated call.
    pub fn order(&mut self, index: usize) -> StepResult {
        let order = self.plan.orders[index].clone();
        if self.node.as_ref().is_none_or(|node| !node.is_ready) {
            return Ok(());
        }
        self.effect()?;
        let number = self.node().directory.number(&phone_number_id(order.number).as_str().into());
        let number = number.expect("it is there");
        let to = E164::parse(&user(order.user)).expect("a number");
        let asked = {
            let (clock, consents) = (self.clock.clone(), self.store.consents.clone());
            let node = self.node();
            let rules = Rules { gate: &node.gate, consents: &consents, clock: &clock };
            node.queues.check_order(rules, &number, std::slice::from_ref(&to))
        };
        self.judge_order(&order, &asked);
        if let Err(why) = asked {
            self.note(format_args!("API: a call to user {} is not placed: {why:?}", order.user));
            return Ok(());
        }
        let id = (u128::from(self.rng.number()) << 64) | u128::from(self.rng.number());
        let call = CallUuid(uuid::Builder::from_random_bytes(id.to_be_bytes()).into_uuid());
        let ix = self.meta.calls.len();
        let placed = Placed { call, user: order.user, patience_us: order.patience_us };
        self.meta.calls.push(MetaCall::unmade(
            order.number,
            &format!("wacid.out.{ix:04}"),
            Some(placed),
        ));
        self.note(format_args!("API: call {ix} to user {} is ordered ({call})", order.user));
        let account = number.account.auth_id.clone();
        self.watch.ordered(call, ix, self.life, self.now, account);
        self.placed_by_order.insert(index, call);
        let setup = self.setup_of(call, &order, &number, &to);
        let now = self.instant();
        self.node().queues.push(number, setup, now, None);
        self.release()
    }

    fn setup_of(
        &self,
        call: CallUuid,
        order: &crate::plan::Order,
        number: &NumberEntry,
        to: &E164,
    ) -> CallSetup {
        let url = |path: &str| {
            (DocUrl(format!("https://app.example.com/{path}").as_str().into()), Method::Post)
        };
        let (answer, answer_method) = url("answer");
        CallSetup {
            call,
            direction: Direction::Outbound,
            call_type: CallType::Whatsapp,
            wacid: None,
            phone_number_id: number.spec.phone_number_id.clone(),
            from: number.spec.number.to_string(),
            to: to.to_string(),
            caller_name: String::new(),
            cta_payload: None,
            deeplink_payload: None,
            account: number.account.auth_id.clone(),
            parent_account: number.account.main().auth_id.clone(),
            urls: CallUrls { answer, answer_method, fallback: None, hangup: url("hangup") },
            started: self.clock.wall(),
            limits: self.plan.limits.clone(),
            headers: Vec::new(),
            outbound: Some(Box::new(Outbound {
                ring: order.ring_url.then(|| url("ring")),
                ring_timeout_ms: order.ring_timeout_ms,
                hangup_on_ring_ms: order.hangup_on_ring_ms,
                send_digits: order.digits.then(|| "12#".to_owned()),
                parent_call: None,
                b_leg: None,
                document: None,
                confirm: None,
                room: None,
                room_music: None,
                needs_company: false,
                is_queued: false,
            })),
        }
    }

    /// Starts the calls that may start, and schedules the next attempt that the queues ask for.
    pub fn release(&mut self) -> StepResult {
        let (clock, consents, live_max) =
            (self.clock.clone(), self.store.consents.clone(), self.plan.live_max);
        let node = self.node();
        let door = OutcomeRecorder {
            room: live_max.saturating_sub(node.book().live),
            left: RefCell::default(),
        };
        let mut queues = std::mem::take(&mut node.queues);
        let rules = Rules { gate: &node.gate, consents: &consents, clock: &clock };
        let next = queues.release(rules, &door);
        let node = self.node();
        node.queues = queues;
        node.look += 1;
        let (life, turn) = (node.life, node.look);
        if let Some(at) = next {
            let until = at.saturating_duration_since(self.instant());
            let us = u64::try_from(until.as_nanos().div_ceil(1_000)).expect("a while");
            self.after(us, Event::LetOut { life, turn });
        }
        for left in door.left.into_inner() {
            match left {
                QueueOutcome::Began(setup, let_in, now) => self.begins(setup, let_in, now)?,
                QueueOutcome::GaveUp(waiting, cause, why) => self.gives_up(waiting, cause, why),
                QueueOutcome::Noted(setup) => {
                    self.write(Write::Born(Box::new((CallStart::of(&setup, "node"), setup))))
                }
            }
        }
        Ok(())
    }

    pub fn let_out_again(&mut self, turn: u64) -> StepResult {
        if self.node().look == turn { self.release() } else { Ok(()) }
    }

    /// Corresponds to `Registry::place`.
    fn begins(
        &mut self,
        mut setup: CallSetup,
        (admitted, engaged): (Admitted, Engaged),
        now: Instant,
    ) -> StepResult {
        setup.started = self.clock.wall();
        let (life, call) = (self.life, setup.call);
        let ix = self.watch.ix(call);
        self.judge_start(call, ix);
        self.write(Write::Born(Box::new((CallStart::of(&setup, "node"), setup.clone()))));
        let (_, slot) = admitted.begin();
        let node = self.node();
        let view = node.tables.enter(&setup, now);
        node.book().live += 1;
        node.beginning.insert(
            call,
            StartingCall { ix, view, slot, engaged: Some(engaged), setup, arrived: now },
        );
        self.note(format_args!("node: call {ix} goes out"));
        self.watch.starts(call, self.now);
        self.in_order(0, Event::Run { life, call });
        self.effect()
    }

    /// Ends a call before its start.
    fn gives_up(&mut self, waiting: Waiting, cause: HangupCause, why: Option<String>) {
        let mut setup = waiting.setup;
        self.note(format_args!("node: {} is not placed after all: {cause:?}, {why:?}", setup.call));
        setup.started = self.clock.wall();
        self.judge_given_up(setup.call, cause);
        let summary = orphan_summary(setup.clone(), None, CallTime(0), cause);
        let end = CallEnd::of(&summary, setup.started, why.into_iter().collect(), Vec::new());
        let hangup = self.callback_of(setup.call, &summary.hangup);
        let conclusion = Conclusion { setup, end, hangup, farewell: None, after_panic: false };
        self.write(Write::Concluded(Box::new(conclusion)));
    }

    /// Corresponds to `Dialer::drain`.
    pub fn drain_queues(&mut self) {
        let all = std::mem::take(&mut self.node().queues);
        all.into_iter().for_each(|waiting| self.gives_up(waiting, HangupCause::Drained, None));
    }

    /// Cancels an order.
    pub fn cancels(&mut self, order: usize) -> StepResult {
        let Some(call) = self.placed_by_order.get(&order).copied() else { return Ok(()) };
        if self.node.as_ref().is_none_or(|node| !node.is_ready) {
            return Ok(());
        }
        if let Some(waiting) = self.node().queues.remove(call) {
            self.watch.tally.cancelled_in_the_queue += 1;
            self.gives_up(waiting, HangupCause::CancelledByApi, None);
            return Ok(());
        }
        if self.node().tables.view(call).is_some_and(|view| !view.is_closing()) {
            self.note(format_args!("API: hang up {call}"));
            self.tell(call, Input::Command { command: Command::Hangup });
        }
        Ok(())
    }

    /// Applies a permission event of the number and user of a placed call.
    pub fn permission(&mut self, call: CallUuid, event: PermissionEvent) {
        let Some(view) = self.node().tables.view(call) else { return };
        let setup = &view.setup;
        let key = PairKey::new(&setup.phone_number_id, &setup.to);
        let number = self.node().directory.number(&setup.phone_number_id).expect("it is there");
        let steady = self.clock.steady();
        self.store.consents.apply(&key, &number.spec.permissions, steady, event);
    }
}

impl Node {
    /// Returns the number of queued calls.
    pub fn waiting(&self) -> usize {
        self.queues.iter().count()
    }
}

/// Returns the reason if the permission rules refused the order.
pub fn is_denied(asked: &Result<(), NotPlaced>) -> Option<engine::admission::Reason> {
    match asked {
        Err(NotPlaced::Denied { denied, .. }) => Some(denied.reason),
        _ => None,
    }
}
