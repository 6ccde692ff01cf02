//! A shard: one thread that owns UDP ports, the legs on them, and a single timer.
//!
//! Every 5 ms it executes its commands, reads the sockets, runs the 20 ms tick of a quarter of its
//! legs, and sends what they produced. It sleeps until the next tick and does not wake for packets,
//! which keeps the batches full (docs/reference/media.md#threads). There is no allocation per leg
//! and no system call per packet on this path.
//!
//! A datagram is assigned to a leg as follows. A STUN request names it by ufrag, a STUN response by
//! the transaction id of a check. Anything else is assigned by its source address, which is known
//! only after authenticated STUN has come from there. If several legs share the address, see
//! `shared_paths`. All other datagrams are counted and dropped without a reply.

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
use machine::{MediaFact, MediaFault};
use model::Clock;
use model::metric;

/// Nice value of a shard thread. On Linux it applies to the calling thread only, and needs root or
/// `LimitNICE=`.
const NICE: i32 = -10;
/// Maximum sleep without legs. The command for the first leg wakes the thread; until then, no
/// expected datagram can arrive.
const IDLE: Duration = Duration::from_millis(500);
/// Maximum number of datagrams read from one port per tick, so that a flood does not use up the
/// tick.
const DATAGRAMS_PER_TICK: usize = 16 * BATCH;
/// Maximum number of commands executed per tick.
const ORDERS_PER_TICK: usize = 1_024;
/// Number of legs that are prefetched together. Their data fits into the L1 cache.
const TOGETHER: usize = 16;
/// Interval at which idle ports are closed.
const SWEEP: Duration = Duration::from_secs(1);
/// Maximum number of source addresses by which one leg is known.
const ADDRESSES_MAX: usize = 16;
/// Maximum number of checks of one leg that await their response: two seconds at the initial rate.
const CHECKS_MAX: usize = 32;

/// A command to a shard.
pub(super) enum Order {
    Add(Box<NewLeg>),
    Leg(LegId, LegOrder),
    Stop,
}

/// A leg on its way to its shard.
pub(super) struct NewLeg {
    pub(super) id: LegId,
    pub(super) port: Port,
    /// Earlier legs on the same port with the same peer address.
    pub(super) rivals: Vec<LegId>,
    pub(super) ufrag: String,
    pub(super) leg: Leg,
    pub(super) sink: EventSink,
}

/// Counters of a shard.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) packets_in: AtomicU64,
    pub(super) packets_out: AtomicU64,
    pub(super) strangers: AtomicU64,
    pub(super) late_ticks: AtomicU64,
    /// Commands that were queued and not executed yet.
    pub(super) waiting: AtomicUsize,
}

/// A leg with its entries in the routing tables.
struct Resident {
    leg: Leg,
    port: PortId,
    slot: usize,
    rivals: Vec<LegId>,
    ufrag: String,
    sink: EventSink,
    addresses: VecDeque<SocketAddr>,
    /// Its checks that have an entry in the table.
    checks: VecDeque<TransactionId>,
    settled: Option<SocketAddr>,
}

struct OpenPort {
    port: Port,
    out: Outbox,
}

/// A table that is read for every packet. The hash is seeded per table. Datagrams from strangers
/// are only looked up; the keys are our own ids and addresses that have authenticated.
type Table<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// The state of a shard thread.
pub(super) struct Shard {
    clock: Clock,
    orders: Receiver<Order>,
    table: Arc<Mutex<Ports>>,
    tally: Arc<Tally>,
    poll: PollSet,
    ports: BTreeMap<PortId, OpenPort>,
    /// Boxed, because a leg takes several kilobytes and a table has unused capacity.
    legs: Table<LegId, Box<Resident>>,
    slots: [Vec<LegId>; SLOTS],
    by_ufrag: Table<String, LegId>,
    by_address: Table<(PortId, SocketAddr), LegId>,
    /// Legs that cannot be told apart by address.
    crowd: Crowd,
    /// Unanswered checks and their destinations.
    by_check: Table<TransactionId, (LegId, SocketAddr)>,
    /// Legs that panicked. Dropped at the end of the tick.
    broken: HashSet<LegId>,
    swept: Instant,
    /// RTP packets in and out since the last update of the counters.
    packets: (u64, u64),
    metrics: Metrics,
}

/// Receive buffers, reused from tick to tick.
#[derive(Default)]
struct Intake {
    inbox: Inbox,
    ready: Vec<u64>,
}

/// Metric handles, kept so that a tick needs no lookup.
struct Metrics {
    packets_in: metrics::Counter,
    packets_out: metrics::Counter,
    late_ticks: metrics::Counter,
}

impl Shard {
    /// Creates a shard with its first port.
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

    /// Runs until a stop command, or until all senders are gone.
    pub(super) fn run(mut self) {
        // Media ticks have priority over everything else, if the system allows it.
        if let Err(e) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!(error = %e, "media thread priority not raised; set LimitNICE= in the unit");
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
                // Commands wait for the tick, 5 ms at most. Waking the thread for each would cost
                // more, and nothing is sent before the tick.
                std::thread::sleep(wait);
            }
            let now = self.clock.now();
            if idle {
                // Without legs, no datagram is expected.
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

    /// Prefetches the data of these legs, at most [`BATCH`], so that their memory loads overlap.
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

    /// Starts the legs that waited for others with the same peer address and port.
    fn take_turns(&mut self, now: Instant) {
        let legs = &self.legs;
        for id in self.crowd.turns(now, |id| legs.get(&id).is_some_and(|r| r.leg.is_coming_up())) {
            self.with_leg(id, |leg, out| leg.order(now, LegOrder::Begin, out));
        }
    }

    /// Executes a command. Returns `false` if the shard must stop.
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
            (new.sink)(LegEvent::Fact(MediaFact::Lost { fault: MediaFault::Silent }));
            self.table.lock().unwrap_or_else(PoisonError::into_inner).release(new.id);
            return;
        }
        // Use the emptiest slot, so that the packets of all legs spread over the 20 ms.
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

    /// Removes a leg and its entries in the routing tables.
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

    /// Runs `act` on a leg and updates the routing tables. str0m is a large dependency that parses
    /// input from strangers. If it panics, only this leg is lost.
    fn with_leg(&mut self, id: LegId, act: impl FnOnce(&mut Leg, &mut Outbox)) {
        let Some(resident) = self.legs.get_mut(&id) else { return };
        let Some(open) = self.ports.get_mut(&resident.port) else { return };
        let before = open.out.len();
        if catch_unwind(AssertUnwindSafe(|| act(&mut resident.leg, &mut open.out))).is_err() {
            tracing::error!("leg panicked and was dropped");
            (resident.sink)(LegEvent::Fact(MediaFact::Lost { fault: MediaFault::Broken }));
            self.broken.insert(id);
            return;
        }
        for (to, datagram) in open.out.iter_from(before) {
            // Copies of a check already have their entry.
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

    /// Reads all sockets.
    fn drain(&mut self, now: Instant, Intake { inbox, ready }: &mut Intake) {
        let mut strangers = 0;
        // The poll set reports a limited number of ports at a time, and a flooded port would be
        // reported again and again.
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

    /// Reads one port. Returns the number of datagrams that matched no leg.
    fn drain_port(&mut self, now: Instant, port: PortId, inbox: &mut Inbox) -> u64 {
        let Some(socket) = self.ports.get(&port).map(|p| p.port.socket.clone()) else { return 0 };
        let (mut taken, mut strangers) = (0, 0);
        while taken < DATAGRAMS_PER_TICK {
            // An error belongs to an earlier datagram; the socket remains usable.
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

    /// Passes a datagram to its leg. Returns `false` if it matches none.
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
            // A response comes from the address that the check was sent to (RFC 8445 §7.2.5.2.1).
            Kind::Response(check) => self
                .by_check
                .get(&check)
                .filter(|(_, to)| *to == from)
                .map(|(id, _)| *id)
                .filter(|id| {
                    self.resident(*id, port).is_some_and(|leg| leg.authenticates_response(datagram))
                })
                .inspect(|id| {
                    // Each response counts once: a replay would be no sign of life.
                    self.by_check.remove(&check);
                    self.learn(*id, port, from);
                }),
            // An indication of a known peer. Nothing to do.
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

    /// Passes a datagram to the legs on a shared path until one accepts it. Returns `false` if
    /// there are none. A datagram of another leg does not authenticate and changes nothing.
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
        // Likely legs first. DTLS goes only to a leg in its handshake if there is one; otherwise it
        // may be the close_notify of a connected leg.
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

    /// Returns a leg if it lives on this port.
    fn resident(&self, id: LegId, port: PortId) -> Option<&Leg> {
        self.legs.get(&id).filter(|r| r.port == port).map(|r| &r.leg)
    }

    /// Records an address from which authenticated STUN of a leg came. Other datagrams from there
    /// belong to this leg.
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

    /// Removes an address of a leg.
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

    /// Closes extra ports without legs, once a second.
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

    /// Adds the counts of this tick to the counters.
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
