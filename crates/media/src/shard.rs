//! A shard: one thread that owns ports, the legs on them, and one timer.
//!
//! Every 5 ms it takes its orders, empties the sockets that have something, lets a quarter of its legs play their
//! 20 ms, and flushes what they send. It sleeps until the tick and not for a packet: that is what fills the batches
//! (`media-notes` §5). No lock, no allocation per leg, no system call per packet on this path.
//!
//! Whose datagram is it? STUN tells by ufrag or by the check it answers; anything else by the address it comes
//! from, which counts only after STUN from there passed its check (R19); where several legs share it, `crowd` tells.
//! Strangers are counted and get nothing.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::crowd::{self, Crowd};
use super::leg::{Leg, LegOrder};
use super::outbox::Outbox;
use super::pace::{Pace, SLOTS};
use super::ports::{Port, PortId, Ports};
use super::stun::{self, Kind, TransactionId};
use super::{EventSink, LegEvent, LegId};
use crate::sockets::{BATCH, Inbox, PollSet, send_all};
use machine::{MediaEvent, MediaFault};
use model::Clock;
use model::metric;

/// Nice value of a media thread: Linux applies it to the calling thread alone. Needs root or `LimitNICE=`.
const NICE: i32 = -10;
/// With no leg there is no hurry: a first one's order wakes the thread, and until then only strangers send something.
const IDLE: Duration = Duration::from_millis(500);
/// Datagrams taken from one port in one tick: a flood must not eat the tick.
const DATAGRAMS_PER_TICK: usize = 16 * BATCH;
/// Orders taken in one tick.
const ORDERS_PER_TICK: usize = 1_024;
/// Legs whose tick is got ready at a time: what they need fits into the nearest cache.
const TOGETHER: usize = 16;
/// How often ports are looked over for closing.
const SWEEP: Duration = Duration::from_secs(1);
/// Source addresses that one leg may be known by.
const ADDRESSES_MAX: usize = 16;
/// Checks of one leg whose answers are awaited: two seconds of them at the pace of a beginning.
const CHECKS_MAX: usize = 32;

/// What a shard is told.
pub(super) enum Order {
    Add(Box<NewLeg>),
    Leg(LegId, LegOrder),
    Stop,
}

/// A leg on its way to its shard.
pub(super) struct NewLeg {
    pub(super) id: LegId,
    pub(super) port: Port,
    /// Legs that its port has with the same peer address.
    pub(super) rivals: Vec<LegId>,
    pub(super) ufrag: String,
    pub(super) leg: Leg,
    pub(super) sink: EventSink,
}

/// What a shard has counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) packets_in: AtomicU64,
    pub(super) packets_out: AtomicU64,
    pub(super) strangers: AtomicU64,
    pub(super) late_ticks: AtomicU64,
    /// Orders that were queued and not yet taken.
    pub(super) waiting: AtomicUsize,
}

/// A leg with what the routing tables know of it.
struct Resident {
    leg: Leg,
    port: PortId,
    slot: usize,
    rivals: Vec<LegId>,
    ufrag: String,
    sink: EventSink,
    addresses: VecDeque<SocketAddr>,
    /// Checks of its own that have an entry in the table.
    checks: VecDeque<TransactionId>,
    settled: Option<SocketAddr>,
}

struct OpenPort {
    port: Port,
    out: Outbox,
}

/// Asked for every packet. Each has a secret of its own, and what strangers send is only looked up: what is in it are names
/// of ours, and addresses from which a password came.
type Table<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// The thread's own state.
pub(super) struct Shard {
    clock: Clock,
    orders: Receiver<Order>,
    table: Arc<Mutex<Ports>>,
    tally: Arc<Tally>,
    poll: PollSet,
    ports: BTreeMap<PortId, OpenPort>,
    /// Boxed: an agent is thousands of bytes, and a table has room to spare.
    legs: Table<LegId, Box<Resident>>,
    slots: [Vec<LegId>; SLOTS],
    by_ufrag: Table<String, LegId>,
    by_address: Table<(PortId, SocketAddr), LegId>,
    /// Whom an address does not tell.
    crowd: Crowd,
    /// Checks under way, with where they went.
    by_check: Table<TransactionId, (LegId, SocketAddr)>,
    /// Legs whose agent panicked: dropped at the end of the tick.
    broken: HashSet<LegId>,
    swept: Instant,
    /// RTP packets in and out since they were last added up.
    packets: (u64, u64),
    metrics: Metrics,
}

/// Room for what comes in, used again from tick to tick.
#[derive(Default)]
struct Intake {
    inbox: Inbox,
    ready: Vec<u64>,
}

/// Handles kept, so that a tick pays no look-up.
struct Metrics {
    packets_in: metrics::Counter,
    packets_out: metrics::Counter,
    late_ticks: metrics::Counter,
}

impl Shard {
    /// `first` is the port it begins with.
    pub(super) fn new(
        clock: Clock,
        orders: Receiver<Order>,
        table: Arc<Mutex<Ports>>,
        tally: Arc<Tally>,
        first: Port,
    ) -> std::io::Result<Self> {
        let mut shard = Self {
            swept: clock.now(),
            clock,
            orders,
            table,
            tally,
            poll: PollSet::new()?,
            ports: BTreeMap::new(),
            legs: Table::default(),
            slots: Default::default(),
            by_ufrag: Table::default(),
            by_address: Table::default(),
            crowd: Crowd::default(),
            by_check: Table::default(),
            broken: HashSet::new(),
            packets: (0, 0),
            metrics: Metrics {
                packets_in: metrics::counter!(metric::MEDIA_PACKETS_TOTAL, "direction" => metric::packets::IN),
                packets_out: metrics::counter!(metric::MEDIA_PACKETS_TOTAL, "direction" => metric::packets::OUT),
                late_ticks: metrics::counter!(metric::MEDIA_LATE_TICKS_TOTAL),
            },
        };
        shard.open(first)?;
        Ok(shard)
    }

    /// Runs until it is told to stop, or nobody is left to tell it.
    pub(super) fn run(mut self) {
        // Ticks go before everything (R10), where the system lets them.
        if let Err(e) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!(error = %e, "media threads run with the usual priority; LimitNICE= of the unit allows more");
        }
        let mut pace = Pace::starting(self.clock.now());
        let mut intake = Intake::default();
        loop {
            let now = self.clock.now();
            let idle = self.legs.is_empty();
            if idle {
                match self.orders.recv_timeout(IDLE) {
                    Ok(order) => {
                        if !self.obey(order) {
                            return;
                        }
                        pace = Pace::starting(self.clock.now());
                        continue;
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            } else if let Some(wait) = pace.wait(now) {
                // Orders wait for the tick, 5 ms at most: an order that woke this thread would cost both sides more
                // than it says, and nothing goes out before the tick.
                std::thread::sleep(wait);
            }
            let now = self.clock.now();
            if idle {
                // Strangers alone can be here.
                self.drain(now, &mut intake);
                self.sweep(now);
            } else if pace.wait(now).is_none() {
                let tick = pace.begin(now);
                if !self.tick(now, tick.slot, &mut intake) {
                    return;
                }
                self.add_up(tick.late);
            }
        }
    }

    fn tick(&mut self, now: Instant, slot: usize, intake: &mut Intake) -> bool {
        for _ in 0..ORDERS_PER_TICK {
            match self.orders.try_recv() {
                Ok(order) => {
                    if !self.obey(order) {
                        return false;
                    }
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        self.drain(now, intake);
        if slot == 0 {
            self.take_turns(now);
        }
        let due = self.slots.get_mut(slot).map(std::mem::take).unwrap_or_default();
        for some in due.chunks(TOGETHER) {
            self.fetch(some.iter().copied(), Leg::fetch_for_sealing);
            for id in some {
                self.with_leg(*id, |leg, out| leg.tick(now, out));
            }
        }
        if let Some(place) = self.slots.get_mut(slot) {
            *place = due;
        }
        for broken in std::mem::take(&mut self.broken) {
            self.remove(broken);
        }
        self.flush();
        self.sweep(now);
        true
    }

    /// Asks the processor for what is going to be asked of these legs, [`BATCH`] at most, so that their loads are under way
    /// together and not one after another.
    fn fetch(&self, ids: impl Iterator<Item = LegId>, last: impl Fn(&Leg)) {
        let mut legs = [None; BATCH];
        for (place, id) in legs.iter_mut().zip(ids) {
            *place = self.legs.get(&id).map(|resident| &resident.leg);
            place.inspect(|leg| leg.fetch());
        }
        let legs = || legs.iter().map_while(|leg| *leg);
        legs().for_each(Leg::fetch_held);
        legs().for_each(last);
    }

    /// Begins the legs that waited for others with their peer's address and port.
    fn take_turns(&mut self, now: Instant) {
        let legs = &self.legs;
        for id in self.crowd.turns(now, |id| legs.get(&id).is_some_and(|r| r.leg.is_coming_up())) {
            self.with_leg(id, |leg, out| leg.order(now, LegOrder::Begin, out));
        }
    }

    /// Carries out one order; false: stop.
    fn obey(&mut self, order: Order) -> bool {
        self.tally.waiting.fetch_sub(1, Ordering::Relaxed);
        let now = self.clock.now();
        match order {
            Order::Add(new) => self.add(*new),
            Order::Leg(id, LegOrder::Close) => {
                self.with_leg(id, |leg, out| leg.order(now, LegOrder::Close, out));
                self.flush();
                self.remove(id);
            }
            Order::Leg(id, LegOrder::Begin) if self.has_rivals(id) => {
                let behind = self.legs.get_mut(&id).map(|r| std::mem::take(&mut r.rivals));
                self.crowd.wait(id, behind.unwrap_or_default(), now);
            }
            Order::Leg(id, order) => self.with_leg(id, |leg, out| leg.order(now, order, out)),
            Order::Stop => {
                let all: Vec<LegId> = self.legs.keys().copied().collect();
                for id in all {
                    self.with_leg(id, |leg, out| leg.order(now, LegOrder::Close, out));
                }
                self.flush();
                return false;
            }
        }
        true
    }

    fn has_rivals(&self, id: LegId) -> bool {
        self.legs.get(&id).is_some_and(|r| !r.rivals.is_empty())
    }

    fn add(&mut self, new: NewLeg) {
        let port = new.port.id;
        if !self.ports.contains_key(&port) && self.open(new.port).is_err() {
            (new.sink)(LegEvent::Fact(MediaEvent::Lost { fault: MediaFault::Silent }));
            self.table.lock().unwrap_or_else(PoisonError::into_inner).release(new.id);
            return;
        }
        // The emptiest slot, so that the legs' packets spread over the 20 ms.
        let slot = (0..SLOTS).min_by_key(|s| self.slots.get(*s).map(Vec::len)).unwrap_or_default();
        if let Some(place) = self.slots.get_mut(slot) {
            place.push(new.id);
        }
        self.by_ufrag.insert(new.ufrag.clone(), new.id);
        self.legs.insert(
            new.id,
            Box::new(Resident {
                leg: new.leg,
                port,
                slot,
                rivals: new.rivals,
                ufrag: new.ufrag,
                sink: new.sink,
                addresses: VecDeque::new(),
                checks: VecDeque::new(),
                settled: None,
            }),
        );
    }

    /// Forgets a leg and all that leads to it.
    fn remove(&mut self, id: LegId) {
        let Some(gone) = self.legs.remove(&id) else { return };
        if let Some(slot) = self.slots.get_mut(gone.slot) {
            slot.retain(|leg| *leg != id);
        }
        self.by_ufrag.remove(&gone.ufrag);
        for address in gone.addresses {
            self.unlearn((gone.port, address), id);
        }
        self.crowd.forget(id);
        for check in gone.checks {
            self.by_check.remove(&check);
        }
        self.table.lock().unwrap_or_else(PoisonError::into_inner).release(id);
    }

    /// Does something with a leg, and writes down where its packets may come from now. The agent is a large piece of
    /// foreign code that reads what strangers send: should it panic, this leg is lost and no other.
    fn with_leg(&mut self, id: LegId, act: impl FnOnce(&mut Leg, &mut Outbox)) {
        let Some(resident) = self.legs.get_mut(&id) else { return };
        let Some(open) = self.ports.get_mut(&resident.port) else { return };
        let before = open.out.len();
        if catch_unwind(AssertUnwindSafe(|| act(&mut resident.leg, &mut open.out))).is_err() {
            tracing::error!("a leg's WebRTC agent panicked; the leg is dropped");
            (resident.sink)(LegEvent::Fact(MediaEvent::Lost { fault: MediaFault::Broken }));
            self.broken.insert(id);
            return;
        }
        for (to, datagram) in open.out.iter_from(before) {
            // A copy of one has its entry.
            if let Some(check) =
                stun::check_sent(datagram).filter(|check| !self.by_check.contains_key(check))
            {
                if resident.checks.len() == CHECKS_MAX
                    && let Some(oldest) = resident.checks.pop_front()
                {
                    self.by_check.remove(&oldest);
                }
                resident.checks.push_back(check);
                self.by_check.insert(check, (id, to));
            }
        }
        let (packets_in, packets_out) = resident.leg.counted();
        self.packets.0 += packets_in;
        self.packets.1 += packets_out;
        let settled = resident.leg.settled();
        if settled != resident.settled {
            resident.settled = settled;
            if let Some(peer) = settled {
                self.table.lock().unwrap_or_else(PoisonError::into_inner).settle(id, peer);
            }
        }
    }

    /// Takes in what the sockets have.
    fn drain(&mut self, now: Instant, Intake { inbox, ready }: &mut Intake) {
        let mut strangers = 0;
        // So many ports are told at a time; one that is flooded would be told again and again.
        for _ in 0..=self.ports.len() / BATCH {
            self.poll.ready(ready);
            let all = ready.len() < BATCH;
            for token in ready.drain(..) {
                strangers += u16::try_from(token)
                    .map_or(0, |port| self.drain_port(now, PortId(port), inbox));
            }
            if all {
                break;
            }
        }
        if strangers > 0 {
            self.tally.strangers.fetch_add(strangers, Ordering::Relaxed);
        }
    }

    /// Takes in what one port has; how much of it was nobody's.
    fn drain_port(&mut self, now: Instant, port: PortId, inbox: &mut Inbox) -> u64 {
        let Some(socket) = self.ports.get(&port).map(|p| p.port.socket.clone()) else { return 0 };
        let (mut taken, mut strangers) = (0, 0);
        while taken < DATAGRAMS_PER_TICK {
            // An error is an earlier datagram's, told late; the socket goes on.
            let Ok(n) = inbox.receive(&socket) else { break };
            taken += n;
            let is_rtp = |datagram| stun::kind(datagram) == Kind::Else;
            let expected = inbox.datagrams().filter(|(_, datagram)| is_rtp(datagram));
            let expected =
                expected.filter_map(|(from, _)| self.by_address.get(&(port, from)).copied());
            self.fetch(expected, Leg::fetch_for_opening);
            for (from, datagram) in inbox.datagrams() {
                strangers += u64::from(!self.route(now, port, from, datagram));
            }
            if n < BATCH {
                break;
            }
        }
        strangers
    }

    /// Gives a datagram to its leg; false: nobody's.
    fn route(&mut self, now: Instant, port: PortId, from: SocketAddr, datagram: &[u8]) -> bool {
        let id = match stun::kind(datagram) {
            Kind::Else => match self.crowd.of((port, from)) {
                Some(legs) => {
                    let legs = legs.to_vec();
                    return self.route_in_crowd(now, from, datagram, legs);
                }
                None => self.by_address.get(&(port, from)).copied(),
            },
            Kind::Request { ufrag } => self
                .by_ufrag
                .get(ufrag)
                .copied()
                .filter(|id| {
                    self.resident(*id, port).is_some_and(|leg| leg.authenticates_request(datagram))
                })
                .inspect(|id| self.learn(*id, port, from)),
            // RFC 8445 §7.2.5.2.1: an answer comes from where the check went.
            Kind::Response(check) => self
                .by_check
                .get(&check)
                .filter(|(_, to)| *to == from)
                .map(|(id, _)| *id)
                .filter(|id| {
                    self.resident(*id, port).is_some_and(|leg| leg.authenticates_response(datagram))
                })
                .inspect(|id| {
                    // Once: the same answer again would be no sign of life (R19).
                    self.by_check.remove(&check);
                    self.learn(*id, port, from);
                }),
            // Indications of a known peer: nothing to do, nobody to count.
            Kind::OtherStun => return self.by_address.contains_key(&(port, from)),
        };
        match id {
            Some(id) => {
                self.with_leg(id, |leg, out| leg.receive(now, from, datagram, out));
                true
            }
            None => false,
        }
    }

    /// Gives what is no STUN to whom it may be for, of the legs that have this path; false: to nobody. What a leg gets
    /// of another's does not authenticate and changes nothing (R19).
    fn route_in_crowd(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
        mut legs: Vec<LegId>,
    ) -> bool {
        let sender = crowd::sender(datagram);
        let wanted = |shard: &Self, id: LegId| {
            shard.legs.get(&id).is_some_and(|r| match sender {
                Some(ssrc) => r.leg.knows(ssrc),
                None => r.leg.is_shaking_hands(),
            })
        };
        // Those first; of DTLS only those, unless it is the end of a leg that is up.
        legs.sort_by_key(|id| !wanted(self, *id));
        let told = legs.first().is_some_and(|id| wanted(self, *id));
        let most = if told && sender.is_none() { 1 } else { crowd::TRIED_MAX };
        for id in legs.iter().take(most) {
            let heard = |shard: &Self| shard.legs.get(id).map_or(0, |r| r.leg.heard_so_far());
            let before = heard(self);
            self.with_leg(*id, |leg, out| leg.receive(now, from, datagram, out));
            if heard(self) > before {
                break;
            }
        }
        !legs.is_empty()
    }

    /// A leg, if it lives on this port.
    fn resident(&self, id: LegId, port: PortId) -> Option<&Leg> {
        self.legs.get(&id).filter(|r| r.port == port).map(|r| &r.leg)
    }

    /// STUN from there passed its check: what else comes from there is this leg's, from now on.
    fn learn(&mut self, id: LegId, port: PortId, from: SocketAddr) {
        let key = (port, from);
        match self.by_address.insert(key, id) {
            Some(before) if before == id => return,
            Some(before) => self.crowd.join(key, before, id),
            None => {}
        }
        let Some(resident) = self.legs.get_mut(&id) else { return };
        if !resident.addresses.contains(&from) {
            resident.addresses.push_back(from);
        }
        if resident.addresses.len() > ADDRESSES_MAX
            && let Some(oldest) = resident.addresses.pop_front()
        {
            self.unlearn((port, oldest), id);
        }
    }

    /// A leg is not known by this path any more.
    fn unlearn(&mut self, path: crowd::Path, id: LegId) {
        let left = self.crowd.leave(path, id);
        if self.by_address.get(&path) == Some(&id) {
            match left {
                Some(other) => self.by_address.insert(path, other),
                None => self.by_address.remove(&path),
            };
        }
    }

    fn open(&mut self, port: Port) -> std::io::Result<()> {
        self.poll.add(&*port.socket, u64::from(port.id.0))?;
        self.ports.insert(port.id, OpenPort { port, out: Outbox::default() });
        Ok(())
    }

    fn flush(&mut self) {
        for open in self.ports.values_mut().filter(|p| !p.out.is_empty()) {
            send_all(&open.port.socket, open.port.bound.is_ipv6(), open.out.iter());
            open.out.clear();
        }
    }

    /// Closes the extra ports that no leg has, once a second.
    fn sweep(&mut self, now: Instant) {
        if self.ports.len() < 2 || now.saturating_duration_since(self.swept) < SWEEP {
            return;
        }
        self.swept = now;
        let mut used = HashSet::new();
        used.extend(self.legs.values().map(|r| r.port));
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        self.ports.retain(|id, _| used.contains(id) || !table.close_if_idle(*id));
    }

    /// Adds up what this tick has counted.
    fn add_up(&mut self, late: bool) {
        let (packets_in, packets_out) = std::mem::take(&mut self.packets);
        for (n, sum, metric) in [
            (packets_in, &self.tally.packets_in, &self.metrics.packets_in),
            (packets_out, &self.tally.packets_out, &self.metrics.packets_out),
            (u64::from(late), &self.tally.late_ticks, &self.metrics.late_ticks),
        ] {
            if n > 0 {
                sum.fetch_add(n, Ordering::Relaxed);
                metric.increment(n);
            }
        }
    }
}
