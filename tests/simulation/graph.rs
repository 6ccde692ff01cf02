//! Graph requests: `call::shell` and `meta::Graph` in simulated time. The real `meta::Asking`,
//! `Policy`, `Budget` and `classify` decide about retries and results.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::admission::permission;
use engine::call::binding::CallKey;
use engine::call::consent::refusal_of;
use engine::meta::{Fault, NextStep, RetryState, Verdict};
use machine::{GraphAction, GraphOutcome, Input};
use model::{CallUuid, Wacid};

use crate::meta::{CallIx, Reply};
use crate::node::View;
use crate::plan::{MS, SECOND};
use crate::shell::Call;
use crate::store::Write;
use crate::world::{AttemptResult, Event, GraphFault, StepResult, World};

/// How long a request waits for the response to the previous one, as in `call::shell`.
const IN_ORDER: u64 = 250 * MS;
/// The same value as in `meta::GraphConfig`.
const ENDING_AGAIN: u64 = 15 * SECOND;
const ENDING_MAX: u64 = 60 * SECOND;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A request with its retries.
pub struct Request {
    ix: CallIx,
    action: GraphAction,
    of: RequestOwner,
    deadline: Option<Instant>,
    overtaken: bool,
    /// The previous request of the same call.
    before: Option<usize>,
    /// The request that waits for this one.
    next: Option<usize>,
    asking: Option<RetryState>,
    phase: Phase,
    /// When the request was made.
    made: u64,
    turn: u32,
    attempt: u32,
    /// The call created by a `connect`.
    connected: Option<Wacid>,
    /// The call's view, which outlives its entry in the tables.
    view: Option<Arc<View>>,
}

/// The receiver of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestOwner {
    Call(CallUuid),
    Reject,
    /// A call at Meta that belongs to no live call.
    Stray(Option<CallUuid>),
    /// A call that has already ended.
    Farewell(CallUuid),
}

#[derive(Clone, Debug, PartialEq)]
enum Phase {
    InOrder,
    Trying,
    Pausing(GraphOutcome),
    Done,
}

impl World {
    pub fn ask_graph(&mut self, call: &mut Call, action: GraphAction) {
        match action {
            GraphAction::Connect if !call.has_sdp => {
                self.tell(call.uuid, Input::Graph { action, outcome: GraphOutcome::Unreachable });
                return;
            }
            GraphAction::PreAccept | GraphAction::Accept if !call.has_sdp => return,
            GraphAction::PreAccept
            | GraphAction::Accept
            | GraphAction::Reject
            | GraphAction::Terminate
                if call.wacid.is_none() =>
            {
                return;
            }
            _ => {}
        }
        if matches!(action, GraphAction::Reject | GraphAction::Terminate) {
            call.farewell = Some(action);
        }
        let before = call.asked.take().map(|(before, _)| before);
        let deadline = call.clock.answer_window(action);
        let request =
            self.request(call.ix, action, RequestOwner::Call(call.uuid), deadline, before);
        call.asked = Some((request, action));
    }

    pub fn reject_at_graph(&mut self, key: CallKey) {
        let ix = self.call_of(&key);
        self.request(ix, GraphAction::Reject, RequestOwner::Reject, None, None);
    }

    /// Sends a terminate for a call at Meta that belongs to no live call.
    pub fn end_stray(&mut self, key: &CallKey, late: Option<CallUuid>) {
        let ix = self.call_of(key);
        self.note(format_args!("node: call {ix} is none of ours"));
        self.watch.tally.strays += 1;
        if let Some(call) = late {
            let farewell = self.farewell_later(GraphAction::Terminate, false);
            self.write(Write::Bound(call, key.wacid.clone(), farewell));
        }
        self.request(ix, GraphAction::Terminate, RequestOwner::Stray(late), None, None);
    }

    /// Sends the farewell of an ended call.
    pub fn farewell(&mut self, ix: CallIx, call: CallUuid, action: GraphAction) {
        self.request(ix, action, RequestOwner::Farewell(call), None, None);
    }

    fn request(
        &mut self,
        ix: CallIx,
        action: GraphAction,
        of: RequestOwner,
        deadline: Option<Instant>,
        before: Option<usize>,
    ) -> usize {
        let (life, made) = (self.life, self.now);
        let node = self.node();
        let view = match of {
            RequestOwner::Call(call) => node.tables.view(call),
            RequestOwner::Reject | RequestOwner::Stray(_) | RequestOwner::Farewell(_) => None,
        };
        let id = node.requests.len();
        node.requests.push(Request {
            ix,
            action,
            of,
            deadline,
            overtaken: false,
            before,
            next: None,
            asking: None,
            phase: Phase::InOrder,
            made,
            turn: 0,
            attempt: 0,
            connected: None,
            view,
        });
        let waits = before.is_some_and(|before| {
            let before = &mut node.requests[before];
            before.next = Some(id);
            before.phase != Phase::Done
        });
        let of = match of {
            RequestOwner::Call(call) => Some(call),
            RequestOwner::Reject | RequestOwner::Stray(_) | RequestOwner::Farewell(_) => None,
        };
        self.watch.asked(life, id, ix, action, of);
        self.in_order(if waits { IN_ORDER } else { 0 }, Event::GraphInOrder { life, request: id });
        id
    }

    /// Prevents further retries of a request.
    pub fn overtake(&mut self, id: usize) {
        let request = &mut self.node().requests[id];
        request.overtaken = true;
        if request.phase == Phase::InOrder
            && let Some(before) = request.before.take()
        {
            // It stops waiting, and so does the request before it.
            let life = self.life;
            self.in_order(0, Event::GraphInOrder { life, request: id });
            return self.overtake(before);
        }
        let request = &mut self.node().requests[id];
        if let Phase::Pausing(or_else) = &request.phase {
            let or_else = or_else.clone();
            self.request_ends(id, or_else);
        }
    }

    /// The previous request was answered, or its wait is over.
    pub fn graph_begins(&mut self, id: usize) -> StepResult {
        let now = self.instant();
        let request = &mut self.node().requests[id];
        if request.phase != Phase::InOrder {
            return Ok(());
        }
        if let Some(before) = request.before.take() {
            self.overtake(before);
        }
        let request = &mut self.node().requests[id];
        match RetryState::begin(request.action, request.deadline, request.overtaken, now) {
            Ok(asking) => {
                request.asking = Some(asking);
                self.graph_sends(id)
            }
            Err(too_late) => {
                self.request_ends(id, too_late);
                Ok(())
            }
        }
    }

    /// The pause before a retry is over.
    pub fn graph_again(&mut self, id: usize, turn: u32) -> StepResult {
        let request = &self.node().requests[id];
        if request.turn == turn && matches!(request.phase, Phase::Pausing(_)) {
            self.graph_sends(id)
        } else {
            Ok(())
        }
    }

    fn graph_sends(&mut self, id: usize) -> StepResult {
        self.effect()?;
        let (life, now) = (self.life, self.instant());
        let node = self.node();
        let request = &mut node.requests[id];
        let asking = request.asking.as_mut().expect("it has begun");
        match asking.begin_attempt(request.overtaken, now, &mut node.budget) {
            None => {}
            Some(NextStep::Done(outcome) | NextStep::OutOfBudget(outcome)) => {
                self.request_ends(id, outcome);
                return Ok(());
            }
            Some(next) => unreachable!("{next:?} before anything went out"),
        }
        request.phase = Phase::Trying;
        request.attempt += 1;
        let (ix, action, attempt) = (request.ix, request.action, request.attempt);
        let asking = request.asking.as_ref().expect("it has begun");
        let (time, tries) = (asking.time(now, REQUEST_TIMEOUT), asking.tries() + 1);
        self.note(format_args!("to Graph: {} of call {ix}, try {attempt}", action.as_str()));
        self.check_try(life, id, ix, action, tries);
        if tries == 1 {
            self.watch.graph_begun(life, self.now);
        } else if !self.watch.graph_tried_again(life, self.now) {
            self.fail("R6: more than a tenth of the requests to Graph are retries".to_owned());
        }
        let us = u64::try_from(time.as_micros()).expect("seconds");
        self.after(
            us,
            Event::GraphCame {
                life,
                request: id,
                attempt,
                came: AttemptResult::Fault(Fault::Timeout),
            },
        );
        let faults = self.faults.clone();
        let slow = self.rng.chance(faults.graph_slow);
        let way = self.rng.between(5, if slow { 4_000 } else { 60 }) * MS;
        let lost = |fault| Event::GraphCame {
            life,
            request: id,
            attempt,
            came: AttemptResult::Fault(fault),
        };
        if self.rng.chance(faults.graph_unreachable) {
            self.after(way, lost(Fault::Unreachable));
            return Ok(());
        }
        if self.rng.chance(faults.graph_reset) {
            self.after(way, lost(Fault::Broken));
            return Ok(());
        }
        let fault = if self.rng.chance(faults.graph_refused) {
            GraphFault::Refused
        } else if self.rng.chance(faults.graph_5xx) {
            GraphFault::Status(self.rng.pick(&[500, 502, 503]))
        } else if self.rng.chance(faults.graph_rate) {
            GraphFault::Rate { after: self.rng.pick(&[None, Some(1), Some(3_600)]) }
        } else if self.rng.chance(faults.graph_nonsense) {
            GraphFault::Nonsense
        } else if self.rng.chance(faults.graph_reset_after) {
            GraphFault::ResetAfter
        } else if self.rng.chance(faults.graph_silent) {
            GraphFault::Silent { done: self.rng.chance(500) }
        } else if action == GraphAction::Connect && self.rng.chance(faults.connect_done_and_503) {
            GraphFault::DoneAnd503
        } else {
            GraphFault::None
        };
        self.after(way, Event::GraphArrives { life, request: id, attempt, fault });
        Ok(())
    }

    /// An attempt returned or timed out.
    pub fn graph_came(&mut self, id: usize, attempt: u32, came: AttemptResult) -> StepResult {
        let (life, now, roll) = (self.life, self.instant(), self.rng.share());
        let node = self.node.as_mut().expect("it is up");
        let request = &mut node.requests[id];
        if request.attempt != attempt || request.phase != Phase::Trying {
            return Ok(());
        }
        if matches!(came, AttemptResult::Answer(Reply { status: 401, .. })) {
            self.watch.refused(life, id);
        }
        let verdict = came.verdict(request.action);
        if let Ok(Verdict::Connected { wacid }) = &verdict {
            request.connected = Some(wacid.clone());
        }
        let asking = request.asking.as_mut().expect("it has begun");
        let next = asking.finish_attempt(
            verdict,
            &node.policy,
            roll,
            request.overtaken,
            now,
            &mut node.budget,
        );
        match next {
            NextStep::Retry { pause, or_else } => {
                request.phase = Phase::Pausing(or_else);
                request.turn += 1;
                let turn = request.turn;
                let us = u64::try_from(pause.as_micros()).expect("seconds");
                self.after(us, Event::GraphTry { life, request: id, turn });
            }
            NextStep::Done(outcome) | NextStep::OutOfBudget(outcome) => {
                self.request_ends(id, outcome)
            }
        }
        Ok(())
    }

    fn request_ends(&mut self, id: usize, outcome: GraphOutcome) {
        let now = self.now;
        let request = &mut self.node().requests[id];
        if matches!(request.of, RequestOwner::Reject | RequestOwner::Stray(_))
            && !outcome.is_settled()
            && now - request.made < ENDING_MAX
        {
            // The call has left the tables, so its terminate is requested again
            // (`meta::Graph::call_action_to_the_end`).
            request.phase = Phase::InOrder;
            let life = self.life;
            return self.after(ENDING_AGAIN, Event::GraphInOrder { life, request: id });
        }
        request.phase = Phase::Done;
        let view = request.view.take();
        let (of, action, next, ix) = (request.of, request.action, request.next, request.ix);
        let connected = request.connected.take();
        self.note(format_args!("Graph: {} of call {ix} came to {outcome:?}", action.as_str()));
        match of {
            RequestOwner::Call(call) => {
                self.watch.answered(call, now, action, &outcome);
                let ends = matches!(action, GraphAction::Reject | GraphAction::Terminate);
                if ends && outcome.is_settled() {
                    self.write(Write::Farewell(call, None));
                }
                if let (GraphAction::Connect, GraphOutcome::Refused { code, details, .. }) =
                    (&action, &outcome)
                    && let Some(event) = refusal_of(*code, details)
                {
                    if event == permission::Event::NoPermission
                        && let Some((number, user)) = self.pair_of(ix)
                    {
                        self.watch.revoked_by_graph(number, user);
                    }
                    self.permission(call, event);
                }
                if let (Some(wacid), Some(view)) = (connected, view) {
                    self.bind(&view, wacid);
                }
                self.tell(call, Input::Graph { action, outcome });
            }
            RequestOwner::Stray(late) => {
                if let Some(call) = late.filter(|_| outcome.is_settled()) {
                    self.write(Write::Farewell(call, None));
                }
            }
            RequestOwner::Reject => self.node().book().rejects -= 1,
            RequestOwner::Farewell(call) => self.farewell_done(call, &outcome),
        }
        if let Some(next) = next {
            let life = self.life;
            self.in_order(0, Event::GraphInOrder { life, request: next });
        }
    }
}

impl Request {
    /// Returns the call at Meta that the request is about if the store does not know it.
    pub fn unstored_call(&self) -> Option<CallIx> {
        (self.of == RequestOwner::Stray(None) && self.phase != Phase::Done).then_some(self.ix)
    }

    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }
}
