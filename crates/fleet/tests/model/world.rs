//! Nodes and their database in one thread under a seed.
//!
//! The database is the state after each commit. A failover keeps a prefix of the commits; an old
//! primary may go on and commit more. Messages are lost, doubled, late by up to 4 s and overtaken.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use offhook_fleet::{
    Answer, Beat, Contact, Death, Finding, Ledger, LimitKey, LimitKind, Link, Membership, OVERDUE,
    Reading, Request, RunReading, RunSnapshot, RunState, Supply, TermState, Units, Usage, Verdict,
    Watch,
};
use uuid::Uuid;

use crate::faults::Faults;
use crate::mutation::Mutation;
use crate::rng::Rng;

/// Microseconds of the world's own clock.
pub(crate) type Time = u64;

pub(crate) const MS: Time = 1_000;
pub(crate) const SECOND: Time = 1_000_000;

/// The caps of the number and of the account.
pub(crate) const SLOTS: u32 = 12;
pub(crate) const PERMITS: u32 = 4;

/// How long a permit rests.
const REST: Time = 1_001 * MS;

/// The number of nodes.
const NODES: usize = 3;

/// When faults begin.
const CALM: Time = 12 * SECOND;

pub(crate) fn slots() -> LimitKey {
    LimitKey::from("n:1")
}

pub(crate) fn permits() -> LimitKey {
    LimitKey::from("a:1")
}

/// What distinguishes one run of the simulation from another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    pub(crate) seed: u64,
    /// `cluster.strict`.
    pub(crate) strict: bool,
    /// A synchronous standby: nothing that was answered is lost.
    pub(crate) synchronous: bool,
    pub(crate) faults: Faults,
    pub(crate) mutation: Option<Mutation>,
}

/// What a database holds.
#[derive(Clone)]
struct State {
    ledger: Ledger,
    /// Calls by their id, with the run that has claimed them.
    calls: BTreeMap<u64, Uuid>,
}

/// One life of a primary.
pub(crate) struct Server {
    pub(crate) up: bool,
    /// Without its synchronous standby, an old primary commits and answers nothing.
    pub(crate) answers: bool,
    mark: u64,
    state: Rc<State>,
    pub(crate) history: VecDeque<(Time, Snapshot)>,
    /// The state was set back under the running server, and nobody has noticed yet.
    set_back: bool,
}

/// A state after a commit.
#[derive(Clone)]
pub(crate) struct Snapshot(Rc<State>);

impl Server {
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot(self.state.clone())
    }

    fn state(&mut self) -> &mut State {
        Rc::make_mut(&mut self.state)
    }
}

/// The counters of a node's admission.
struct Counters {
    now: Time,
    slots: u32,
    permits: u32,
    /// Calls that are up, as Meta counts them.
    calls: BTreeSet<u64>,
    /// When the permits were used that rest.
    used: VecDeque<Time>,
    waiting: [Time; 2],
    tell_first: bool,
    /// The usage that is reported in place of the real one.
    pretended: Option<[u32; 2]>,
}

impl Counters {
    fn limit(&mut self, key: &LimitKey) -> &mut u32 {
        match key.kind() {
            LimitKind::Slots => &mut self.slots,
            LimitKind::Permits => &mut self.permits,
        }
    }

    fn in_use(&mut self, kind: LimitKind) -> u32 {
        // A permit rests by the world's clock. That clocks run at different rates matters to it no
        // more than to any other second that two machines measure.
        while self.used.front().is_some_and(|at| at + REST <= self.now) {
            self.used.pop_front();
        }
        let used = match kind {
            LimitKind::Slots => self.calls.len(),
            LimitKind::Permits => self.used.len(),
        };
        u32::try_from(used).expect("few")
    }
}

impl Supply for Counters {
    fn usage(&mut self, key: &LimitKey) -> Usage {
        let index = usize::from(key.kind() == LimitKind::Permits);
        let used = self.pretended.map_or_else(|| self.in_use(key.kind()), |used| used[index]);
        let starts = self.in_use(LimitKind::Permits);
        let waiting = u32::from(self.waiting[index] > self.now);
        Usage { used, waiting, starts }
    }

    fn lower(&mut self, key: &LimitKey, to: u32) -> u32 {
        let to = to.max(self.usage(key).used);
        if !self.tell_first {
            *self.limit(key) = to;
        }
        to
    }

    fn raise(&mut self, key: &LimitKey, to: u32) {
        *self.limit(key) = to;
    }
}

/// A process of a node.
pub(crate) struct Node {
    pub(crate) name: usize,
    run: Uuid,
    /// The process exists.
    alive: bool,
    pub(crate) paused_until: Time,
    /// Another process continues the run, and admits nothing yet.
    moving: bool,
    pub(crate) cut_from_database: bool,
    pub(crate) cut_from_peers: bool,
    /// Rate of its clock, in thousandths.
    rate: u64,
    pub(crate) server: usize,
    member: Membership,
    counters: Counters,
    watch: Watch,
    /// The runs that it was connected to at its last beat.
    sees: Vec<Uuid>,
    /// The next beat goes over a peer.
    by_peer: bool,
    newest_seq: i64,
    /// Dead runs, and when this node first saw them.
    dead: BTreeMap<Uuid, Time>,
    /// Beats of other runs, and when this node first saw them.
    seen: BTreeMap<Uuid, (i64, Time)>,
    aliases: Aliases,
}

/// Other names for terms, so that a node does not notice that it returns to one it has left.
#[derive(Default)]
struct Aliases {
    names: BTreeMap<Uuid, Uuid>,
    current: Option<Uuid>,
}

impl Aliases {
    fn name(&mut self, real: Uuid, fresh: Uuid) -> Uuid {
        if self.current != Some(real) {
            self.names.insert(real, fresh);
            self.current = Some(real);
        }
        self.names.get(&real).copied().unwrap_or(real)
    }

    fn real(&self, name: Uuid) -> Uuid {
        self.names.iter().find(|(_, alias)| **alias == name).map_or(name, |(real, _)| *real)
    }
}

/// What happened in one run of the simulation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) admitted: u64,
    pub(crate) held: u64,
    pub(crate) terms: u64,
    pub(crate) deaths: u64,
    pub(crate) ghosts: u64,
    pub(crate) carried: u64,
    pub(crate) lost_rows: u64,
    pub(crate) upgrades: u64,
    pub(crate) events: u64,
}

enum Reply {
    Registered(Option<TermState>),
    Answer(Answer),
}

type Action = Box<dyn FnOnce(&mut World)>;

struct Event {
    at: Time,
    number: u64,
    action: Action,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

pub(crate) struct World {
    pub(crate) scene: Scene,
    pub(crate) rng: Rng,
    pub(crate) now: Time,
    events: BinaryHeap<Reverse<Event>>,
    next: u64,
    ids: u128,
    pub(crate) servers: Vec<Server>,
    /// The primary, and the old ones that may still live.
    pub(crate) primary: usize,
    pub(crate) nodes: Vec<Node>,
    admissions: VecDeque<Time>,
    /// Calls that a database knew at some time.
    claimed: BTreeSet<u64>,
    pub(crate) counts: Counts,
    pub(crate) violation: Option<String>,
    /// Whether faults go on.
    pub(crate) faulty: bool,
    dirty: bool,
}

impl World {
    pub(crate) fn new(scene: Scene) -> Self {
        let mut world = Self {
            scene,
            rng: Rng::new(scene.seed),
            now: 0,
            events: BinaryHeap::new(),
            next: 0,
            ids: 0,
            servers: Vec::new(),
            primary: 0,
            nodes: Vec::new(),
            admissions: VecDeque::new(),
            claimed: BTreeSet::new(),
            counts: Counts::default(),
            violation: None,
            faulty: true,
            dirty: false,
        };
        let mut ledger = Ledger::new();
        ledger.limits = BTreeMap::from([(slots(), SLOTS), (permits(), PERMITS)]);
        world.add_server(Snapshot(Rc::new(State { ledger, calls: BTreeMap::new() })));
        for name in 0..NODES {
            world.start(name);
        }
        world.after(0, Self::load);
        world.after(CALM, Self::next_fault);
        world
    }

    /// Runs until a time or a violation.
    pub(crate) fn run(&mut self, until: Time) {
        while let Some(Reverse(event)) = self.events.pop() {
            if event.at > until || self.violation.is_some() {
                self.events.push(Reverse(event));
                return;
            }
            self.now = event.at;
            (event.action)(self);
            self.counts.events += 1;
            self.check();
        }
    }

    pub(crate) fn after(&mut self, delay: Time, action: impl FnOnce(&mut Self) + 'static) {
        self.next += 1;
        let (at, number, action) = (self.now + delay, self.next, Box::new(action));
        self.events.push(Reverse(Event { at, number, action }));
    }

    /// A random time, exponentially distributed.
    fn exponential(&mut self, mean: Time) -> Time {
        let share = self.rng.share().clamp(1e-9, 1.0);
        Duration::from_micros(mean).mul_f64(-share.ln()).as_micros().try_into().expect("short")
    }

    fn id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128(self.ids)
    }

    fn mutated(&self, mutation: Mutation) -> bool {
        self.scene.mutation == Some(mutation)
    }

    // Nodes

    /// Starts a process of a node.
    pub(crate) fn start(&mut self, name: usize) {
        let run = self.id();
        let mut member = Membership::new(run, self.scene.strict);
        member.track(slots(), SLOTS, Duration::ZERO);
        member.track(permits(), PERMITS, Duration::ZERO);
        let node = self.nodes.len();
        let earlier = self.nodes.iter().filter(|other| other.name == name && !other.alive);
        let ended = earlier.map(|other| other.run).collect();
        self.nodes.push(Node {
            name,
            run,
            alive: true,
            paused_until: 0,
            moving: false,
            cut_from_database: false,
            cut_from_peers: false,
            rate: self.rng.between(900, 1_100),
            server: self.primary,
            member,
            counters: Counters {
                now: self.now,
                slots: 0,
                permits: 0,
                calls: BTreeSet::new(),
                used: VecDeque::new(),
                waiting: [0; 2],
                tell_first: self.mutated(Mutation::TellFirst),
                pretended: None,
            },
            watch: Watch::new(run, ended),
            sees: Vec::new(),
            by_peer: false,
            newest_seq: 0,
            dead: BTreeMap::new(),
            seen: BTreeMap::new(),
            aliases: Aliases::default(),
        });
        let delay = self.rng.between(0, 300 * MS);
        self.after(delay, move |world| world.tick(node));
        let delay = self.rng.between(0, 500 * MS);
        self.after(delay, move |world| world.watch(node));
    }

    /// Kills a process and starts the node again later.
    pub(crate) fn kill(&mut self, node: usize, restart: Time) {
        let name = self.nodes[node].name;
        self.nodes[node].alive = false;
        self.after(restart, move |world| world.start(name));
    }

    /// Lets another process continue the run of a node after a pause, in which no call is admitted and
    /// the calls are in no process. Beats go on or not. A first process may fail after it has sent
    /// beats.
    pub(crate) fn upgrade(&mut self, node: usize) {
        if self.nodes[node].moving {
            return;
        }
        let pause = self.rng.pick(&[200, 200, 1_000, 3_000, 12_000]) * MS;
        let (fails, delay) = (self.rng.chance(300), self.rng.between(0, 2 * SECOND));
        let beats = self.rng.chance(500);
        let is_frozen = !self.mutated(Mutation::NotFrozen);
        let at = &mut self.nodes[node];
        at.moving = true;
        at.member.set_frozen(is_frozen);
        match beats {
            true => at.counters.pretended = Some([0, 0]),
            false => at.paused_until = self.now + pause,
        }
        let mut snapshot = at.member.snapshot();
        snapshot.for_next_process();
        let held = [at.member.limit(&slots()), at.member.limit(&permits())];
        self.after(pause, move |world| {
            world.resume(node, snapshot.clone(), held);
            let delay = if fails { delay } else { 0 };
            world.after(delay, move |world| {
                if fails {
                    snapshot.for_next_process();
                    world.resume(node, snapshot, held);
                }
                world.nodes[node].moving = false;
            });
        });
        self.counts.upgrades += 1;
    }

    /// Continues the run of a node in another process. `held` are the units that the previous one
    /// held.
    fn resume(&mut self, node: usize, snapshot: RunSnapshot, held: [u32; 2]) {
        let (now, clock, strict) = (self.now, self.clock(node), self.scene.strict);
        let pretended = self.mutated(Mutation::UnitsKept).then_some(held);
        let at = &mut self.nodes[node];
        at.member = Membership::resume(snapshot, strict, clock);
        at.member.track(slots(), SLOTS, clock);
        at.member.track(permits(), PERMITS, clock);
        at.counters = Counters {
            now,
            slots: 0,
            permits: 0,
            waiting: [0; 2],
            pretended,
            calls: std::mem::take(&mut at.counters.calls),
            used: std::mem::take(&mut at.counters.used),
            ..at.counters
        };
        at.member.hold_used(&mut at.counters);
        at.counters.pretended = None;
        at.watch.clear();
        self.dirty = true;
    }

    /// Time on a node's own clock.
    fn clock(&self, node: usize) -> Duration {
        Duration::from_micros(self.now * self.nodes[node].rate / 1_000)
    }

    pub(crate) fn is_awake(&self, node: usize) -> bool {
        self.nodes[node].alive && self.nodes[node].paused_until <= self.now
    }

    pub(crate) fn awake(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.is_awake(*node)).collect()
    }

    /// Whether two processes hear each other.
    fn linked(&self, one: usize, other: usize) -> bool {
        let reachable = |node| self.is_awake(node) && !self.nodes[node].cut_from_peers;
        one != other && reachable(one) && reachable(other)
    }

    fn linked_with(&self, node: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|other| self.linked(node, *other)).collect()
    }

    /// Runs an action at a process, once it is not paused.
    fn at_node(&mut self, node: usize, delay: Time, action: impl FnOnce(&mut Self) + 'static) {
        self.after(delay, move |world| {
            let at = &world.nodes[node];
            if !at.alive {
            } else if at.paused_until > world.now {
                let delay = at.paused_until - world.now + MS;
                world.at_node(node, delay, action);
            } else {
                action(world);
            }
        });
    }

    fn tick(&mut self, node: usize) {
        if !self.nodes[node].alive {
            return;
        }
        if self.nodes[node].paused_until > self.now {
            let delay = self.nodes[node].paused_until - self.now + self.rng.between(0, 20 * MS);
            return self.after(delay, move |world| world.tick(node));
        }
        let delay = self.rng.between(30 * MS, 70 * MS);
        self.after(delay, move |world| world.tick(node));
        self.step(node);
    }

    /// Sends the next request of a node if it is due.
    fn step(&mut self, node: usize) {
        let clock = self.clock(node);
        let fresh = |world: &Self, peer: usize| {
            let at = &world.nodes[peer];
            !at.cut_from_database && at.member.contact(world.clock(peer)) == Contact::Fresh
        };
        let overdue = self.nodes[node].member.under_way().filter(|sent| *sent + OVERDUE <= clock);
        if let Some(sent) = overdue {
            let carried = self.linked_with(node).into_iter().any(|peer| fresh(self, peer));
            // A new connection looks the primary's address up.
            let server = &self.servers[self.nodes[node].server];
            if !server.up || (!server.answers && self.rng.chance(300)) {
                self.nodes[node].server = self.primary;
            }
            if carried {
                self.nodes[node].member.abandon(sent);
                self.nodes[node].by_peer = true;
            } else {
                self.nodes[node].member.fail(clock, sent);
                self.nodes[node].by_peer = false;
            }
        }
        if self.nodes[node].member.take_reconnect() && self.rng.chance(500) {
            self.nodes[node].server = self.primary;
        }
        let now = self.now;
        let sees = self.linked_with(node).into_iter().map(|peer| self.nodes[peer].run).collect();
        let at = &mut self.nodes[node];
        at.counters.now = now;
        let urgent = at.counters.waiting.iter().any(|until| *until > now);
        let polled = at.member.poll(clock, urgent, &mut at.counters);
        let Some(mut request) = polled else { return };
        at.sees = sees;
        if let Request::Beat(beat) = &mut request {
            at.newest_seq = beat.seq;
            if let Some(mutation) = self.scene.mutation {
                let calls = at.counters.in_use(LimitKind::Slots);
                mutation.send(calls, beat);
            }
        }
        let via = match at.by_peer {
            true => {
                let peers: Vec<_> =
                    self.linked_with(node).into_iter().filter(|p| fresh(self, *p)).collect();
                (!peers.is_empty()).then(|| self.rng.pick(&peers))
            }
            false => None,
        };
        self.counts.carried += u64::from(via.is_some());
        self.send(node, via, request);
    }

    /// Sends a request to the database that the node, or the peer that carries it, is connected
    /// to.
    fn send(&mut self, node: usize, via: Option<usize>, request: Request) {
        let carrier = via.unwrap_or(node);
        let server = self.nodes[carrier].server;
        if matches!(&request, Request::Beat(beat) if beat.whole) {
            // The claims of live calls come first.
            let (run, calls) = (self.nodes[node].run, self.nodes[node].counters.calls.clone());
            self.deliver(node, carrier, server, move |world| {
                for call in calls {
                    world.claim(server, call, run);
                }
            });
        }
        for _ in 0..=u32::from(self.rng.chance(40)) {
            let request = request.clone();
            self.deliver(node, carrier, server, move |world| {
                let reply = world.transact(node, server, &request);
                world.commit(server);
                if !world.servers[server].answers {
                    return;
                }
                if let Some(delay) = world.delay() {
                    world.at_node(node, delay, move |world| world.receive(node, &request, reply));
                }
            });
        }
    }

    /// Runs an action at a database, if the message arrives.
    fn deliver(
        &mut self,
        node: usize,
        carrier: usize,
        server: usize,
        action: impl FnOnce(&mut Self) + 'static,
    ) {
        let Some(delay) = self.delay() else { return };
        self.after(delay, move |world| {
            let reaches = world.servers[server].up
                && !world.nodes[carrier].cut_from_database
                && (carrier == node || world.linked(node, carrier));
            if reaches {
                action(world);
            }
        });
    }

    /// The time that a message takes. `None` if it is lost.
    fn delay(&mut self) -> Option<Time> {
        match self.rng.between(1, 100) {
            1..=3 => None,
            4..=6 => Some(self.rng.between(0, 4 * SECOND)),
            _ => Some(self.rng.between(0, 30 * MS)),
        }
    }

    fn transact(&mut self, node: usize, server: usize, request: &Request) -> Reply {
        let new_term = self.id();
        let mutation = self.scene.mutation;
        let (name, run) = (self.nodes[node].name.to_string(), self.nodes[node].run);
        let at = &mut self.servers[server];
        let mark = match mutation {
            Some(Mutation::MarkIgnored) => "1".to_owned(),
            _ => at.mark.to_string(),
        };
        let stale = at.history.len().checked_sub(3).map(|index| at.history[index].1.clone());
        let ledger = &mut at.state().ledger;
        let before = ledger.term;
        let reply = match request {
            Request::Register(register) => {
                Reply::Registered(ledger.register(&mark, new_term, run, &name, register.again))
            }
            Request::Beat(beat) => {
                let mut beat = beat.clone();
                self.nodes[node].real_terms(&mut beat);
                let beat = &beat;
                let stale = stale.map(|stale| stale.0.ledger.units.clone());
                Reply::Answer(match mutation {
                    Some(mutation) => mutation.beat(ledger, stale.as_ref(), &mark, new_term, beat),
                    None => ledger.beat(&mark, new_term, beat),
                })
            }
        };
        if ledger.term.id != before.id {
            self.counts.terms += 1;
            at.set_back = false;
        }
        reply
    }

    /// A node receives the answer to its request.
    fn receive(&mut self, node: usize, request: &Request, reply: Reply) {
        let clock = self.clock(node);
        let fresh_name = self.id();
        let mutation = self.scene.mutation;
        let now = self.now;
        let at = &mut self.nodes[node];
        at.counters.now = now;
        match (request, reply) {
            (Request::Register(register), Reply::Registered(term)) => {
                let term = term.map(|term| TermState {
                    id: at.name_term(mutation, term.id, fresh_name),
                    ..term
                });
                at.member.registered(clock, register, term);
            }
            (Request::Beat(beat), Reply::Answer(mut answer)) => {
                self.counts.lost_rows += u64::from(answer.verdict == Verdict::Unknown);
                answer.term.id = at.name_term(mutation, answer.term.id, fresh_name);
                let mut beat = beat.clone();
                if let Some(mutation) = mutation {
                    mutation.receive(at.newest_seq, &mut beat, &mut answer);
                }
                at.member.answered(clock, &beat, &answer, &mut at.counters);
                at.by_peer = false;
                if at.counters.tell_first {
                    at.counters.slots = at.member.limit(&slots());
                    at.counters.permits = at.member.limit(&permits());
                }
            }
            _ => unreachable!("an answer to another request"),
        }
        if self.nodes[node].member.is_dead() {
            self.counts.ghosts += 1;
            self.nodes[node].counters.calls.clear();
            let delay = self.rng.between(300 * MS, 3 * SECOND);
            self.kill(node, delay);
            self.dirty = true;
        } else {
            self.step(node);
        }
    }

    /// A call comes to some node.
    fn load(&mut self) {
        let delay = self.exponential(SECOND / 40);
        self.after(delay, Self::load);
        let alive: Vec<_> = (0..self.nodes.len()).filter(|node| self.nodes[*node].alive).collect();
        if !alive.is_empty() {
            let node = self.rng.pick(&alive);
            self.admit(node);
        }
    }

    fn admit(&mut self, node: usize) {
        if !self.is_awake(node) || self.nodes[node].moving {
            return;
        }
        let (now, clock) = (self.now, self.clock(node));
        let waits = self.rng.chance(200);
        let at = &mut self.nodes[node];
        at.counters.now = now;
        let full = [
            at.counters.in_use(LimitKind::Slots) >= at.counters.slots,
            at.counters.in_use(LimitKind::Permits) >= at.counters.permits,
        ];
        if full.contains(&true) {
            // An admission waits 100 ms for a unit.
            if waits {
                for (waiting, full) in at.counters.waiting.iter_mut().zip(full) {
                    *waiting = (*waiting).max(if full { now + 100 * MS } else { 0 });
                }
                self.step(node);
            }
            return;
        }
        let contact = at.member.contact(clock);
        let admits = at.member.admits_until().is_some_and(|until| clock <= until);
        assert_eq!(admits, contact != Contact::Stale);
        match contact {
            Contact::Fresh => {}
            Contact::CutOff => self.counts.held += 1,
            Contact::Stale if self.mutated(Mutation::FreshnessIgnored) => {}
            Contact::Stale => return,
        }
        let call = u64::try_from(self.ids).expect("a small number");
        self.ids += 1;
        let at = &mut self.nodes[node];
        at.counters.calls.insert(call);
        at.counters.used.push_back(now);
        self.admissions.push_back(now);
        self.counts.admitted += 1;
        self.dirty = true;
        let (server, run) = (at.server, at.run);
        // The claim. `cluster.strict` admits no call that the database does not know: others could
        // not end it if this run were cut off and declared dead.
        self.after(2 * MS, move |world| {
            let at = &world.servers[server];
            let reached = at.up && !world.nodes[node].cut_from_database;
            let claimed = reached && world.claim(server, call, run);
            if !claimed && (reached && world.servers[server].answers || world.scene.strict) {
                world.nodes[node].counters.calls.remove(&call);
            }
        });
        let length = self.exponential(4 * SECOND);
        self.after(length, move |world| {
            if world.nodes[node].alive && world.nodes[node].counters.calls.remove(&call) {
                world.after(10 * MS, move |world| {
                    for server in &mut world.servers {
                        if server.state.calls.contains_key(&call) {
                            server.state().calls.remove(&call);
                        }
                    }
                });
            }
        });
    }

    /// Whether a node has calls that are not in the table of claims.
    pub(crate) fn has_unclaimed_calls(&self, node: usize) -> bool {
        let claims = &self.servers[self.primary].state.calls;
        self.nodes[node].counters.calls.iter().any(|call| !claims.contains_key(call))
    }

    // Members

    /// Reads the table of runs and does what follows from it.
    fn watch(&mut self, node: usize) {
        if !self.nodes[node].alive {
            return;
        }
        if self.nodes[node].paused_until > self.now {
            let delay = self.nodes[node].paused_until - self.now + 50 * MS;
            return self.after(delay, move |world| world.watch(node));
        }
        self.after(250 * MS, move |world| world.watch(node));
        // Peers name their terms.
        for peer in self.linked_with(node) {
            let term = self.nodes[peer].member.term();
            let deaf = self.mutated(Mutation::TermTakenBack) || !self.rng.chance(300);
            if let Some(term) = term.filter(|_| !deaf) {
                self.nodes[node].member.report_peer_term(term);
                if self.nodes[node].member.take_reconnect() {
                    self.nodes[node].server = self.primary;
                }
            }
        }
        let server = self.nodes[node].server;
        let at = &self.servers[server];
        let registered = self.nodes[node].member.term().is_some();
        if !at.up || !at.answers || self.nodes[node].cut_from_database || !registered {
            return;
        }
        let clock = self.clock(node);
        let sees = |run: Uuid| self.nodes.iter().find(|other| other.run == run);
        let runs = at.state.ledger.runs.iter().map(|(run, row)| RunReading {
            run: *run,
            state: row.state,
            seq: row.seq,
            sees: sees(*run).map_or_else(Vec::new, |other| other.sees.clone()),
        });
        let reading = Reading {
            sent: clock,
            received: clock,
            mark: at.mark.to_string(),
            term: at.state.ledger.term.id,
            runs: runs.collect(),
        };
        let dead: Vec<Uuid> = reading
            .runs
            .iter()
            .filter(|row| row.state == RunState::Dead)
            .map(|row| row.run)
            .collect();
        self.nodes[node].watch.read(reading);
        let members = self.nodes[node].watch.members().count();
        self.nodes[node].member.set_members(u32::try_from(members).expect("few"));
        let findings = self.nodes[node].watch.findings(|run| self.link(node, run));
        for finding in findings {
            match finding {
                Finding::Dead { run, seq, death } => {
                    assert!(
                        self.scene.mutation.is_some()
                            || death == Death::Silent
                            || !self.nodes.iter().any(|other| other.run == run && other.alive),
                        "a living process was proven dead"
                    );
                    self.declare_dead(server, run, seq);
                }
                Finding::Release { run } => {
                    if !self.mutated(Mutation::UnitsBeforeCalls) {
                        self.end_calls(server, run);
                    }
                    self.release(server, run);
                }
            }
        }
        for run in dead {
            let now = self.now;
            let since = *self.nodes[node].dead.entry(run).or_insert(now);
            if self.mutated(Mutation::UnitsBeforeCalls) {
                self.release(server, run);
                self.after(3 * SECOND, move |world| world.end_calls(server, run));
            } else if self.mutated(Mutation::QuickDeath) {
                self.end_calls(server, run);
                self.release(server, run);
            } else if now - since > SECOND {
                self.end_calls(server, run);
            }
        }
        if self.mutated(Mutation::QuickDeath) {
            self.kill_quickly(node, server);
        }
    }

    /// Declares runs dead after 3 s without a beat, whoever hears them.
    fn kill_quickly(&mut self, node: usize, server: usize) {
        let now = self.now;
        let rows: Vec<_> = self.nodes[node].watch.members().cloned().collect();
        let me = self.nodes[node].run;
        for row in rows.iter().filter(|row| row.run != me) {
            let seen = self.nodes[node].seen.entry(row.run).or_insert((row.seq, now));
            if seen.0 != row.seq {
                *seen = (row.seq, now);
            } else if now - seen.1 > 3 * SECOND {
                self.declare_dead(server, row.run, row.seq);
            }
        }
    }

    fn link(&self, node: usize, run: Uuid) -> Link {
        match self.nodes.iter().position(|other| other.run == run) {
            Some(other) if self.linked(node, other) => Link::Up,
            Some(other) if !self.nodes[other].alive && !self.nodes[node].cut_from_peers => {
                Link::Refused
            }
            _ => Link::Silent,
        }
    }

    fn declare_dead(&mut self, server: usize, run: Uuid, seq: i64) {
        if self.servers[server].state().ledger.declare_dead(run, seq) {
            self.counts.deaths += 1;
            self.commit(server);
        }
    }

    fn release(&mut self, server: usize, run: Uuid) {
        if self.servers[server].state().ledger.release(run) {
            self.commit(server);
        }
    }

    /// Notes whose a call is, if the run is a member.
    fn claim(&mut self, server: usize, call: u64, run: Uuid) -> bool {
        let state = self.servers[server].state();
        let is_member = state.ledger.runs.get(&run).is_some_and(|row| row.state.is_member());
        if is_member {
            state.calls.entry(call).or_insert(run);
            self.claimed.insert(call);
        }
        is_member
    }

    /// Ends the calls of a dead run that the database knows.
    fn end_calls(&mut self, server: usize, run: Uuid) {
        let Some(node) = self.nodes.iter().position(|node| node.run == run) else { return };
        let state = self.servers[server].state();
        let known: Vec<u64> =
            state.calls.iter().filter(|(_, owner)| **owner == run).map(|(call, _)| *call).collect();
        for call in known {
            state.calls.remove(&call);
            self.nodes[node].counters.calls.remove(&call);
        }
        // Calls whose rows were in lost commits, and whose run could not write them again: nobody can
        // end them. They are known to be possible, and not counted.
        let alive = self.nodes[node].alive;
        let claimed = &self.claimed;
        let unknown = |call: &u64| alive && !claimed.contains(call);
        self.nodes[node].counters.calls.retain(unknown);
    }

    // The database

    fn commit(&mut self, server: usize) {
        self.dirty = true;
        let (now, at) = (self.now, &mut self.servers[server]);
        at.history.push_back((now, Snapshot(at.state.clone())));
        if at.history.len() > 400 {
            at.history.pop_front();
        }
    }

    /// Adds a primary that begins with a state.
    pub(crate) fn add_server(&mut self, from: Snapshot) -> usize {
        let mark = u64::try_from(self.servers.len()).expect("few") + 1;
        self.servers.push(Server {
            up: true,
            answers: true,
            mark,
            state: from.0,
            history: VecDeque::new(),
            set_back: false,
        });
        self.servers.len() - 1
    }

    /// Sets the state of a running primary back.
    pub(crate) fn set_back(&mut self, to: Snapshot) {
        let primary = self.primary;
        self.servers[primary].state = to.0;
        self.servers[primary].set_back = true;
        self.commit(primary);
    }

    // What must hold

    fn check(&mut self) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        // The database may have lost its last commits, and with them rows and units of a process that
        // has died. Then no node can know of the calls of that process, until Meta ends them.
        let state = &self.servers[self.primary].state;
        for node in self.nodes.iter_mut().filter(|node| !node.alive) {
            let row = state.ledger.runs.get(&node.run);
            let held = match row.is_none_or(|row| row.state == RunState::Reaped) {
                true => 0,
                false => state.ledger.units.get(&(slots(), node.run)).map_or(0, |units| units.held),
            };
            let calls = &mut node.counters.calls;
            let known = calls.iter().filter(|call| state.calls.contains_key(call)).count();
            let mut lost = calls.len().saturating_sub(known.max(held as usize));
            calls.retain(|call| {
                let is_lost = lost > 0 && !state.calls.contains_key(call);
                lost -= usize::from(is_lost);
                !is_lost
            });
        }
        let live: usize = self.nodes.iter().map(|node| node.counters.calls.len()).sum();
        if live > SLOTS as usize {
            return self.violate(format!("{live} calls of {SLOTS}"));
        }
        let window = self.now.saturating_sub(SECOND);
        // The last one stays for `unsettled`.
        while self.admissions.len() > 1 && self.admissions.front().is_some_and(|at| *at <= window) {
            self.admissions.pop_front();
        }
        if self.admissions.len() > PERMITS as usize {
            let count = self.admissions.len();
            return self.violate(format!("{count} calls of {PERMITS} within a second"));
        }
        let at = &self.servers[self.primary];
        let ledger = &at.state.ledger;
        if ledger.mark != at.mark.to_string() || self.scene.mutation.is_some() {
            return;
        }
        let gone = |run: &Uuid| match ledger.runs.get(run).map(|row| row.state) {
            None | Some(RunState::Reaped | RunState::Left) => true,
            Some(RunState::Up | RunState::Draining | RunState::Dead) => false,
        };
        let leak = ledger.units.iter().find(|((_, run), units)| units.held > 0 && gone(run));
        if let Some(((key, run), units)) = leak {
            let text = format!("{run}, which is gone, holds {} of {key:?}", units.held);
            return self.violate(text);
        }
        if !ledger.term.open || at.set_back {
            return;
        }
        for key in [slots(), permits()] {
            for node in &self.nodes {
                let up = ledger.runs.get(&node.run).is_some_and(|row| row.state == RunState::Up);
                let current = node.member.term() == Some(ledger.term.id);
                if !up || !current || !node.alive || !node.member.is_settled() {
                    continue;
                }
                let units = ledger.units.get(&(key.clone(), node.run)).copied();
                let held = units.unwrap_or(Units::default()).held;
                let limit = node.member.limit(&key);
                if limit > held {
                    let text = format!("{} admits with {limit} of {held} {key:?}", node.run);
                    return self.violate(text);
                }
            }
        }
    }

    fn violate(&mut self, what: String) {
        self.violation = Some(format!("{what} at {:.3} s", self.now as f64 / 1e6));
    }

    /// Ends all faults.
    pub(crate) fn heal(&mut self) {
        self.faulty = false;
        let primary = self.primary;
        self.servers[primary].up = true;
        self.servers[primary].answers = true;
        for (index, server) in self.servers.iter_mut().enumerate() {
            server.up &= index == primary;
        }
        for node in &mut self.nodes {
            (node.cut_from_database, node.cut_from_peers) = (false, false);
            node.server = primary;
        }
    }

    /// After a time without faults, all nodes are members, the term is open, and calls are
    /// admitted. Returns what is not so.
    pub(crate) fn unsettled(&self) -> Option<String> {
        let ledger = &self.servers[self.primary].state.ledger;
        let up = ledger.runs.values().filter(|row| row.state == RunState::Up).count();
        let settled = self.nodes.iter().filter(|n| n.alive && n.member.is_settled()).count();
        if !ledger.term.open || up != NODES || settled != NODES {
            return Some(format!("open: {}, up: {up}, settled: {settled}", ledger.term.open));
        }
        let dead = ledger.runs.values().filter(|row| row.state == RunState::Dead).count();
        if dead > 0 {
            return Some(format!("{dead} dead runs are not reaped"));
        }
        let last = self.admissions.back().copied().unwrap_or(0);
        (last + 10 * SECOND < self.now).then(|| "no call is admitted".to_owned())
    }
}

impl Node {
    fn name_term(&mut self, mutation: Option<Mutation>, real: Uuid, fresh: Uuid) -> Uuid {
        match mutation {
            Some(Mutation::TermTakenBack) => self.aliases.name(real, fresh),
            _ => real,
        }
    }

    /// The request as the database gets it.
    fn real_terms(&self, beat: &mut Beat) {
        beat.term = self.aliases.real(beat.term);
        beat.refused = beat.refused.map(|term| self.aliases.real(term));
    }
}
