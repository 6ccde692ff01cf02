//! The world of a run: its clock, its event queue, and all participants.
//!
//! A single thread processes one queue of events. Events in the same microsecond occur in an order
//! drawn from the seed. The node can be killed at each of its effects, which drops its memory and
//! keeps the store and the outside.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use engine::admission::permission::{self, PairKey, Reply};
use engine::meta::{Fault, Verdict};

use machine::{FetchFailure, FetchId, FetchResponse, Input};
use model::Clock;
use model::{CallUuid, Timestamp};
use uuid::Uuid;

use crate::customer::Customer;
use crate::graph::Request;
use crate::meta::{CallIx, Meta, Reply as GraphReply, phone_number_id, user};
use crate::node::Node;
use crate::plan::{Faults, MS, Plan, SECOND, UNWILLING};
use crate::rng::Rng;
use crate::store::Store;
use crate::trace::{Show, Trace};
use crate::watch::Watch;

/// The reason why the node stopped an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// The process was killed at this effect.
    Crash,
    /// A simulated bug panicked in one call.
    Panic,
}

pub type StepResult<T = ()> = Result<T, Interruption>;

/// A scheduled event. Events of a node carry its life and are dropped after its end.
#[derive(Debug)]
pub enum Event {
    // The outside
    WallJumps(i64),
    Rings(usize),
    HangsUp(CallIx),
    WindowOver(CallIx),
    Presses(CallIx),
    Orders(usize),
    Cancels(usize),
    PhoneRings(CallIx),
    PicksUp(CallIx),
    Declines(CallIx),
    AudioArrives(CallIx),
    MediaUp(CallIx),
    MediaLost(CallIx),
    Posted {
        post: usize,
        tries: u32,
    },
    Heal,
    // The process
    Boot,
    Kill,
    Drain,
    Reload,
    DrainOver {
        life: u32,
    },
    Gone {
        life: u32,
    },
    // A call of the node
    Run {
        life: u32,
        call: CallUuid,
    },
    Timer {
        life: u32,
        call: CallUuid,
        turn: u64,
    },
    Leg {
        life: u32,
        call: CallUuid,
        input: Input,
    },
    FetchResponse {
        life: u32,
        call: CallUuid,
        fetch: FetchId,
        result: Result<FetchResponse, FetchFailure>,
        late: bool,
    },
    HangUpOverApi {
        life: u32,
        call: CallUuid,
    },
    LetOut {
        life: u32,
        turn: u64,
    },
    // Graph
    GraphInOrder {
        life: u32,
        request: usize,
    },
    GraphTry {
        life: u32,
        request: usize,
        turn: u32,
    },
    GraphArrives {
        life: u32,
        request: usize,
        attempt: u32,
        fault: GraphFault,
    },
    GraphCame {
        life: u32,
        request: usize,
        attempt: u32,
        came: AttemptResult,
    },
    // The store and the outbox
    Commit {
        life: u32,
    },
    Farewells {
        life: u32,
    },
    Send {
        life: u32,
        notice: Uuid,
    },
    Sent {
        life: u32,
        notice: Uuid,
        reply: crate::customer::CallbackReply,
    },
}

/// A fault of a request to Graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GraphFault {
    None,
    /// Graph refuses it permanently.
    Refused,
    Status(u16),
    Rate {
        after: Option<u64>,
    },
    /// A 200 response with an invalid body.
    Nonsense,
    /// The action is performed, but the response is 503.
    DoneAnd503,
    /// The connection is reset after the action.
    ResetAfter,
    /// No response. The action may have been performed.
    Silent {
        done: bool,
    },
}

/// The result of an attempt at Graph.
#[derive(Clone, Debug)]
pub enum AttemptResult {
    Answer(GraphReply),
    Fault(Fault),
}

impl AttemptResult {
    pub fn verdict(self, action: machine::GraphAction) -> Result<Verdict, Fault> {
        match self {
            Self::Answer(GraphReply { status, after, body }) => Ok(engine::meta::classify(
                action,
                status,
                after.map(Duration::from_secs),
                body.as_bytes(),
            )),
            Self::Fault(fault) => Err(fault),
        }
    }
}

/// More events than a run needs.
const EVENTS_MAX: u64 = 60_000;

pub struct World {
    pub plan: Plan,
    /// The plan's faults, until the plan heals.
    pub faults: Faults,
    pub rng: Rng,
    pub clock: Clock,
    pub now: u64,
    queue: BTreeMap<(u64, u64, u64), Event>,
    queued: u64,
    pub meta: Meta,
    pub customer: Customer,
    pub store: Store,
    pub node: Option<Node>,
    pub life: u32,
    /// The calls of the orders.
    pub placed_by_order: BTreeMap<usize, CallUuid>,
    /// Number of effects until the next crash.
    effects_until_crash: Option<u32>,
    pub watch: Watch,
    pub trace: Trace,
}

/// The outcome of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub hash: u64,
    pub steps: u64,
    pub broken: Option<String>,
    pub tally: crate::watch::Tally,
}

/// From this seed on runs include business-initiated calls. Earlier seeds keep the runs that the
/// crate's documentation describes.
const BUSINESS_FROM: u64 = 2_000;

/// 2026-11-20 06:03:11, an arbitrary time.
const BEGIN_SECS: i64 = 1_795_154_591;

impl World {
    pub fn new(seed: u64, show: Show) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::of(&mut rng, seed >= BUSINESS_FROM);
        let clock = Clock::stepped(Timestamp::from_secs(BEGIN_SECS));
        let mut world = Self {
            faults: plan.faults.clone(),
            clock,
            now: 0,
            queue: BTreeMap::new(),
            queued: 0,
            meta: Meta::default(),
            customer: Customer::default(),
            store: Store::default(),
            node: None,
            life: 0,
            placed_by_order: BTreeMap::new(),
            effects_until_crash: None,
            watch: Watch::default(),
            trace: Trace::new(show),
            rng,
            plan,
        };
        if show == Show::All {
            println!("{:#?}", world.plan);
        }
        world.grant();
        world.schedule_plan();
        world
    }

    /// Grants permanent permission for all users except the unwilling.
    fn grant(&mut self) {
        let now = self.clock.steady();
        for order in self.plan.orders.iter().filter(|order| order.user < UNWILLING) {
            let key =
                PairKey::new(&phone_number_id(order.number).as_str().into(), &user(order.user));
            let reply = Reply::Accept { permanent: true, expiration: None, automatic: false };
            self.store.consents.apply(
                &key,
                &Default::default(),
                now,
                permission::Event::Replied { at: None, reply },
            );
        }
    }

    fn schedule_plan(&mut self) {
        self.after(0, Event::Boot);
        // Usually the node is up before the first call.
        let first = self.rng.pick(&[20 * MS, 20 * MS, 0]);
        for (index, arrival) in self.plan.arrivals.clone().into_iter().enumerate() {
            self.after(first + arrival.at_us, Event::Rings(index));
        }
        for (index, order) in self.plan.orders.clone().into_iter().enumerate() {
            self.after(first + order.at_us, Event::Orders(index));
            if let Some(us) = order.cancel_us {
                self.after(first + order.at_us + us, Event::Cancels(index));
            }
        }
        for (at, seconds) in self.plan.jumps.clone() {
            self.after(at, Event::WallJumps(seconds));
        }
        for at in self.plan.kills_us.clone() {
            self.after(at, Event::Kill);
        }
        if let Some(at) = self.plan.drain_at_us {
            self.after(at, Event::Drain);
        }
        if let Some(at) = self.plan.reload_at_us {
            self.after(at, Event::Reload);
        }
        self.after(self.plan.healed_at_us, Event::Heal);
    }

    /// Runs to the end or to the first violated invariant.
    pub fn run(mut self) -> Outcome {
        let mut events = 0;
        while let Some(((at, _, _), event)) = self.queue.pop_first() {
            self.clock.step(Duration::from_micros(at - self.now));
            self.now = at;
            self.process(event);
            self.check_now();
            events += 1;
            if events > EVENTS_MAX {
                self.fail("the run does not come to an end".to_owned());
            }
            if self.watch.broken.is_some() {
                break;
            }
        }
        if self.watch.broken.is_none() {
            self.check_end();
        }
        Outcome {
            hash: self.trace.hash(),
            steps: self.trace.steps(),
            tally: self.watch.tally,
            broken: self.watch.broken,
        }
    }

    pub fn instant(&self) -> Instant {
        self.clock.now()
    }

    /// Schedules an event `us` microseconds from now.
    pub fn after(&mut self, us: u64, event: Event) {
        self.queued += 1;
        let tie = self.rng.number();
        self.queue.insert((self.now + us, tie, self.queued), event);
    }

    /// Like [`World::after`], but in order: later than all events scheduled earlier for the same
    /// time.
    pub fn in_order(&mut self, us: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((self.now + us, u64::MAX, self.queued), event);
    }

    pub fn fail(&mut self, what: String) {
        self.trace.step(self.now, format_args!("BROKEN {what}"));
        self.watch.broken.get_or_insert(what);
    }

    pub fn note(&mut self, what: std::fmt::Arguments<'_>) {
        self.trace.step(self.now, what);
    }

    pub fn alive(&self, life: u32) -> bool {
        self.life == life && self.node.is_some()
    }

    /// Called before each effect that the outside or the store can see. Returns an error if the
    /// process is killed here.
    pub fn effect(&mut self) -> StepResult {
        match &mut self.effects_until_crash {
            Some(0) => Err(Interruption::Crash),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn process(&mut self, event: Event) {
        let of_node = match &event {
            Event::Run { life, .. }
            | Event::Timer { life, .. }
            | Event::Leg { life, .. }
            | Event::FetchResponse { life, .. }
            | Event::HangUpOverApi { life, .. }
            | Event::LetOut { life, .. }
            | Event::GraphInOrder { life, .. }
            | Event::GraphTry { life, .. }
            | Event::GraphCame { life, .. }
            | Event::Commit { life }
            | Event::Send { life, .. }
            | Event::Farewells { life }
            | Event::Sent { life, .. }
            | Event::DrainOver { life }
            | Event::Gone { life } => Some(*life),
            _ => None,
        };
        if of_node.is_some_and(|life| !self.alive(life)) {
            return;
        }
        let went = match event {
            Event::WallJumps(seconds) => {
                self.note(format_args!("the wall clock is set by {seconds} s"));
                self.clock.jump(seconds);
                Ok(())
            }
            Event::Rings(arrival) => self.user_calls(arrival),
            Event::HangsUp(call) => self.user_hangs_up(call),
            Event::WindowOver(call) => self.window_over(call),
            Event::Presses(call) => self.user_presses(call),
            Event::Orders(order) => self.order(order),
            Event::Cancels(order) => self.cancels(order),
            Event::PhoneRings(call) => self.phone_rings(call),
            Event::PicksUp(call) => self.picks_up(call),
            Event::Declines(call) => self.declines(call),
            Event::AudioArrives(call) => self.audio_arrives(call),
            Event::LetOut { turn, .. } => self.let_out_again(turn),
            Event::MediaUp(call) => self.media_up(call),
            Event::MediaLost(call) => self.media_lost(call),
            Event::Posted { post, tries } => self.webhook_arrives(post, tries),
            Event::Heal => self.heal(),
            Event::Boot => self.boot(),
            Event::Kill => self.kill(),
            Event::Drain => self.drain(),
            Event::Reload => self.reload(),
            Event::DrainOver { .. } => self.drain_over(),
            Event::Gone { .. } => self.gone(),
            Event::Run { call, .. } => self.run_call(call),
            Event::Timer { call, turn, .. } => self.timer_fires(call, turn),
            Event::Leg { call, input, .. } => self.leg_event(call, input),
            Event::FetchResponse { call, fetch, result, late, .. } => {
                self.fetch_ends(call, fetch, result, late)
            }
            Event::HangUpOverApi { call, .. } => self.hang_up_over_api(call),
            Event::GraphInOrder { request, .. } => self.graph_begins(request),
            Event::GraphTry { request, turn, .. } => self.graph_again(request, turn),
            Event::GraphArrives { life, request, attempt, fault } => {
                self.graph_arrives(life, request, attempt, fault)
            }
            Event::GraphCame { request, attempt, came, .. } => {
                self.graph_came(request, attempt, came)
            }
            Event::Commit { .. } => self.commit(),
            Event::Farewells { .. } => self.farewells(),
            Event::Send { notice, .. } => self.send_notice(notice),
            Event::Sent { notice, reply, .. } => self.notice_sent(notice, reply),
        };
        if went.is_err() {
            self.crash();
        }
    }

    fn kill(&mut self) -> StepResult {
        if self.node.is_some() { Err(Interruption::Crash) } else { Ok(()) }
    }

    /// Drops the node's memory and schedules its restart.
    fn crash(&mut self) {
        let live = self.node.as_ref().map_or(0, |node| node.calls.len());
        self.note(format_args!("node: KILLED with {live} calls"));
        self.watch.tally.crashes += 1;
        self.down();
        let away = self.rng.pick(&[100 * MS, SECOND, 8 * SECOND]);
        self.after(away, Event::Boot);
    }

    /// Removes the process.
    pub fn down(&mut self) {
        // A second call that Meta created for one order is not stored anywhere.
        let strays = self
            .node
            .iter()
            .flat_map(|node| node.requests.iter().filter_map(Request::unstored_call));
        self.watch.unendable.extend(strays);
        if let Some(node) = &mut self.node {
            self.store.save_names(std::mem::take(&mut node.writer.queue));
        }
        self.node = None;
        self.effects_until_crash = None;
        self.watch.lost_with_the_node(self.life, &self.store);
        self.life += 1;
    }

    /// Arms the plan's next crash, counted from the start of a node.
    pub fn arm_crash(&mut self) {
        if self.now < self.plan.healed_at_us {
            self.effects_until_crash = self.plan.crashes.pop();
        }
    }

    fn heal(&mut self) -> StepResult {
        self.note(format_args!("from now on nothing goes wrong"));
        self.faults = Faults::default();
        self.effects_until_crash = None;
        self.store.stuck_until = 0;
        Ok(())
    }
}
