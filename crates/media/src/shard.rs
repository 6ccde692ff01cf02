//! A shard: one thread that owns UDP ports, the legs on them, and a single timer.
//!
//! Every 5 ms it executes its commands, reads the sockets, runs the 20 ms tick of a quarter of its
//! legs, and sends their datagrams. It sleeps until the next tick and does not wake for packets, so
//! that each batch contains many packets (docs/reference/media.md#threads). This path makes no
//! allocation per leg and no system call per packet.
//!
//! With few legs, batches would be small in any case. The legs then share a slot, and the thread
//! skips the ticks of the others and wakes for commands. It also wakes for datagrams while a leg
//! connects, is tapped, or sends live audio. Otherwise, datagrams are read at the next tick.
//!
//! A datagram is assigned to a leg as follows. A STUN request names it by ufrag, a STUN response by
//! the transaction id of a check. All other datagrams are assigned by source address. An address is
//! known only after it has sent authenticated STUN. If several legs share the address, see
//! `shared_paths`. All other datagrams are counted and dropped without a reply.

mod frozen;
mod stun_quota;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::leg::{Leg, LegCommand, count_excess};
use super::ports::{Port, PortId, PortTable};
use super::send_buffer::SendBuffer;
use super::shared_paths::{self, SharedPaths};
use super::stun::{self, Kind, TransactionId};
use super::ticker::{SLOTS, TICK, Ticker};
use super::turn::Relay;
use super::waker::Waker;
use super::{EventSink, LegEvent, LegId};
use crate::hand_over::OtherProcess;
use crate::snapshot::LegSnapshot;
use crate::sockets::{
    BATCH, PollSet, ReceiveBatch, ReceivedDatagram, send_all, timestamp_arrivals,
};
use frozen::Frozen;
pub(super) use frozen::LegsRequest;
use machine::{MediaEvent, MediaFault};
use model::Clock;
use model::metric;
use stun_quota::{RequestSource, StunQuota};

/// Time for a leg's peer to answer the first checks, before legs that share its path are begun.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// Nice value of a shard thread. On Linux it applies to the calling thread only, and needs root or
/// `LimitNICE=`.
const NICE: i32 = -10;
/// Maximum sleep without legs. The command for the first leg wakes the thread. Until then, no
/// expected datagram can arrive.
const IDLE_WAIT: Duration = Duration::from_secs(5);
/// Maximum number of legs that share a slot, and for which the thread wakes for commands. It also
/// wakes for their datagrams while one of them connects, since a faster handshake lets the caller
/// hear something earlier.
const FEW_LEGS: usize = 8;
/// Maximum number of legs with which the thread wakes for each datagram while a leg is
/// [live](Leg::is_live). More legs receive more datagrams than there are ticks.
const LIVE_LEGS_MAX: usize = 2;
/// Time from the connection of a leg within which the command to play has usually arrived.
const FIRST_AUDIO: Duration = Duration::from_millis(2);
/// Maximum number of wake-ups for datagrams between two ticks, so that a flood does not turn into
/// wake-ups. Further datagrams wait for at most [`TICK`].
const WAKES_PER_TICK: u32 = 8;
/// Maximum number of datagrams read from one port per tick, so that a flood does not use up the
/// tick.
const DATAGRAMS_PER_TICK: usize = 16 * BATCH;
/// Maximum number of commands executed per tick.
const COMMANDS_PER_TICK: usize = 1_024;
/// Number of legs that are prefetched together. Their data fit into the L1 cache.
const PREFETCH_LEGS: usize = 16;
/// Interval at which idle ports are closed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of source addresses by which one leg is known.
const ADDRESSES_MAX: usize = 32;
/// Maximum number of pending checks of one leg: two seconds at the initial rate.
const CHECKS_MAX: usize = 32;

/// A command to a shard.
pub(super) enum Command {
    Add(Box<NewLeg>),
    /// Adds a leg of another process, with the addresses that have sent authenticated STUN.
    Adopt(Box<NewLeg>, Vec<SocketAddr>),
    Leg(LegId, LegCommand),
    CheckMovable(LegsRequest<()>),
    Freeze(LegsRequest<LegSnapshot>),
    Thaw(OtherProcess),
    /// Starts reading the sockets.
    Receive,
    Stop,
}

/// A leg that is being passed to its shard.
pub(super) struct NewLeg {
    pub(super) id: LegId,
    pub(super) port: Port,
    /// Earlier legs on the same port with the same peer address.
    pub(super) conflicts: Vec<LegId>,
    pub(super) ufrag: String,
    /// The known candidates of the peer.
    pub(super) peers: Vec<SocketAddr>,
    pub(super) leg: Leg,
    pub(super) sink: EventSink,
}

/// Counters of a shard.
#[derive(Debug, Default)]
pub(super) struct ShardCounters {
    pub(super) packets_in: AtomicU64,
    pub(super) packets_out: AtomicU64,
    pub(super) unmatched: AtomicU64,
    pub(super) late_ticks: AtomicU64,
    /// The number of commands that were queued and not executed yet.
    pub(super) waiting: AtomicUsize,
    /// The load of the thread, see [`ShardCounters::load`].
    load: AtomicU32,
}

impl ShardCounters {
    /// Returns the share of the time between ticks that recent ticks took: 1 if the thread does
    /// nothing else, and more if it falls behind.
    pub(super) fn load(&self) -> f32 {
        f32::from_bits(self.load.load(Ordering::Relaxed))
    }

    /// Counts a tick. The last 200 ticks, about a second, make up most of the load.
    fn count_tick(&self, took: Duration) {
        let share = took.as_secs_f32() / TICK.as_secs_f32();
        let load = self.load() + (share - self.load()) / 200.0;
        self.load.store(load.to_bits(), Ordering::Relaxed);
    }

    /// Resets the load, because the thread has no legs.
    fn rest(&self) {
        self.load.store(0, Ordering::Relaxed);
    }
}

/// A leg with its entries in the routing tables.
struct RoutedLeg {
    leg: Leg,
    port: PortId,
    slot: usize,
    conflicts: Vec<LegId>,
    ufrag: String,
    sink: EventSink,
    /// The addresses that have sent authenticated STUN.
    addresses: VecDeque<SocketAddr>,
    /// When the leg began to connect.
    begun: Option<Instant>,
    /// The checks of the leg that have an entry in the table.
    checks: VecDeque<TransactionId>,
    peer_address: Option<SocketAddr>,
    /// Limits the STUN requests of the peer. Not part of the snapshot for another process, because
    /// str0m begins without known addresses there, too.
    stun_quota: StunQuota,
    /// The peer's addresses with a permission of the TURN server.
    permitted: Vec<IpAddr>,
}

impl RoutedLeg {
    fn source_of(&self, from: SocketAddr) -> RequestSource {
        if self.peer_address == Some(from) {
            RequestSource::Path
        } else if self.addresses.contains(&from) {
            RequestSource::Known
        } else {
            RequestSource::New
        }
    }

    /// Whether legs with the same port and peer address wait for this one. A stranger can name any
    /// address in an offer, so only a peer that answers can keep others waiting for long.
    fn keeps_others_waiting(&self, now: Instant) -> bool {
        let is_new = self.begun.is_some_and(|at| now.saturating_duration_since(at) < ANSWER_TIME);
        self.leg.is_connecting() && (is_new || !self.addresses.is_empty())
    }
}

struct BoundPort {
    port: Port,
    out: SendBuffer,
    /// The TURN relay, which carries all datagrams. `None` if the node has no TURN server.
    relay: Option<Box<Relay>>,
}

/// A table that is read for every packet. The hash is seeded per table. Datagrams from unknown
/// sources are only looked up. The keys are internal ids and addresses that have authenticated.
type RoutingTable<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// The state of a shard thread.
pub(super) struct Shard {
    clock: Clock,
    commands: Receiver<Command>,
    waker: Arc<Waker>,
    ports_table: Arc<Mutex<PortTable>>,
    counters: Arc<ShardCounters>,
    poll: PollSet,
    ports: BTreeMap<PortId, BoundPort>,
    /// The legs by id. They are boxed, because a leg takes several kilobytes and a table has unused
    /// capacity.
    legs: RoutingTable<LegId, Box<RoutedLeg>>,
    slots: [Vec<LegId>; SLOTS],
    by_ufrag: RoutingTable<String, LegId>,
    by_address: RoutingTable<(PortId, SocketAddr), LegId>,
    /// Legs that share a port and a peer address.
    shared_paths: SharedPaths,
    /// Unanswered checks and their destinations.
    by_check: RoutingTable<TransactionId, (LegId, SocketAddr)>,
    /// The legs that panicked. They are dropped at the end of the tick.
    broken: HashSet<LegId>,
    /// Legs that were connected since the last tick.
    connected: Vec<LegId>,
    /// Adopted and resumed legs that have no slot yet.
    resumed: Vec<LegId>,
    frozen: Frozen,
    /// Whether the sockets are read. Otherwise another process reads them.
    reads: bool,
    last_sweep: Instant,
    /// The numbers of received and sent RTP packets since the last update of the counters.
    packets: (u64, u64),
    metrics: Metrics,
}

/// Receive buffers, which are reused for every tick.
#[derive(Default)]
struct ReceiveBuffers {
    batch: ReceiveBatch,
    ready: Vec<u64>,
}

/// Handles of metrics, stored so that a tick needs no lookup.
struct Metrics {
    packets_in: metrics::Counter,
    packets_out: metrics::Counter,
    late_ticks: metrics::Counter,
}

impl Shard {
    /// Creates a shard with its first port. With `reads`, it reads its sockets from the start.
    pub(super) fn new(
        clock: Clock,
        (commands, waker): (Receiver<Command>, Arc<Waker>),
        ports_table: Arc<Mutex<PortTable>>,
        counters: Arc<ShardCounters>,
        (first, relay): (Port, Option<Relay>),
        reads: bool,
    ) -> std::io::Result<Self> {
        let mut shard = Self {
            last_sweep: clock.now(),
            clock,
            commands,
            waker,
            ports_table,
            counters,
            poll: PollSet::new()?,
            ports: BTreeMap::new(),
            legs: RoutingTable::default(),
            slots: Default::default(),
            by_ufrag: RoutingTable::default(),
            by_address: RoutingTable::default(),
            shared_paths: SharedPaths::default(),
            by_check: RoutingTable::default(),
            broken: HashSet::new(),
            connected: Vec::new(),
            resumed: Vec::new(),
            frozen: Frozen::default(),
            reads,
            packets: (0, 0),
            metrics: Metrics {
                packets_in: metrics::counter!(metric::MEDIA_PACKETS_TOTAL, "direction" => metric::packets::IN),
                packets_out: metrics::counter!(metric::MEDIA_PACKETS_TOTAL, "direction" => metric::packets::OUT),
                late_ticks: metrics::counter!(metric::MEDIA_LATE_TICKS_TOTAL),
            },
        };
        shard.open(first, relay)?;
        Ok(shard)
    }

    /// Runs until a stop command is received or all senders are dropped.
    pub(super) fn run(mut self) {
        // Media ticks have priority over everything else, if the system allows it.
        if let Err(e) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!(error = %e, "media thread priority not raised; set LimitNICE= in the unit");
        }
        let mut ticker = Ticker::new(self.clock.now());
        let mut buffers = ReceiveBuffers::default();
        let mut wakes = 0;
        loop {
            let now = self.clock.now();
            if self.legs.is_empty() {
                self.counters.rest();
                // Wakes regularly to close ports without legs.
                let wait = if self.ports.len() > 1 { SWEEP_INTERVAL } else { IDLE_WAIT };
                let relays = self.ports.values().filter_map(|open| open.relay.as_ref());
                let relay_due = relays.map(|relay| relay.due()).min();
                let wait = relay_due
                    .map_or(wait, |due| wait.min(due.saturating_duration_since(now)).max(TICK));
                if !self.wait(relay_due.is_some(), wait) {
                    return;
                }
                let now = self.clock.now();
                self.receive_all(now, &mut buffers);
                self.poll_relays(now);
                self.sweep(now);
                ticker = Ticker::new(now);
                continue;
            }
            let is_prompt = self.is_prompt();
            ticker.unskip(now);
            if !self.resumed.is_empty() {
                self.place_resumed(now, |at| ticker.slot_from(at));
            }
            // The first of the ticks starts the legs that wait for others.
            if is_prompt && !self.shared_paths.has_waiting() {
                ticker.skip(|slot| self.slots.get(slot).is_none_or(Vec::is_empty));
            }
            match ticker.time_until_due(now) {
                None => {
                    let tick = ticker.start_tick(now);
                    if !self.tick(now, tick.slot, &mut buffers) {
                        return;
                    }
                    if is_prompt {
                        self.gather(tick.slot);
                    }
                    self.flush_counts(tick.late);
                    self.counters.count_tick(self.clock.now().saturating_duration_since(now));
                    wakes = 0;
                }
                Some(wait) if is_prompt => {
                    let is_live = self.is_live();
                    let is_flooded = wakes >= WAKES_PER_TICK;
                    wakes = if is_flooded { 0 } else { wakes + 1 };
                    let wait = if is_flooded { wait.min(TICK) } else { wait };
                    if !self.wait(is_live && !is_flooded, wait) {
                        return;
                    }
                    let now = self.clock.now();
                    // The tick that is due reads the sockets.
                    if ticker.time_until_due(now).is_none() {
                        continue;
                    }
                    self.receive_all(now, &mut buffers);
                    self.flush();
                    ticker.unskip(now);
                    self.advance_connected(ticker.slot_from(now + FIRST_AUDIO));
                }
                // Commands wait for the tick, 5 ms at most. Waking the thread for each would cost
                // more, and nothing is sent before the tick.
                Some(wait) => std::thread::sleep(wait),
            }
        }
    }

    /// Moves the legs that were connected since the last tick to `slot`, which has the next tick. A
    /// leg is usually connected right after its own tick, so the caller would hear nothing for
    /// 20 ms.
    fn advance_connected(&mut self, slot: usize) {
        for id in std::mem::take(&mut self.connected) {
            self.move_to_slot(id, slot);
        }
    }

    /// Moves the legs of a slot that has just had its tick to the slot with the most legs, so that
    /// the thread wakes once for all. Their next packets are sent up to 15 ms early. Live legs stay,
    /// because their next audio may not have arrived by then.
    fn gather(&mut self, from: usize) {
        let to = self.fullest_slot();
        if from == to {
            return;
        }
        let is_live = |id: &LegId| self.legs.get(id).is_some_and(|routed| routed.leg.is_live());
        let legs = self.slots.get(from).map(Vec::as_slice).unwrap_or_default();
        let legs: Vec<LegId> = legs.iter().copied().filter(|id| !is_live(id)).collect();
        legs.into_iter().for_each(|id| self.move_to_slot(id, to));
    }

    fn move_to_slot(&mut self, id: LegId, slot: usize) {
        let Some(routed) = self.legs.get_mut(&id) else { return };
        let before = std::mem::replace(&mut routed.slot, slot);
        self.remove_from_slot(id, before);
        if let Some(legs) = self.slots.get_mut(slot) {
            legs.push(id);
        }
    }

    /// Waits for a command, a datagram or the timeout, and executes the commands. Returns `false`
    /// if the shard must stop.
    fn wait(&mut self, has_datagrams: bool, timeout: Duration) -> bool {
        let mut first = None;
        let sockets = (has_datagrams && self.reads).then_some(&self.poll);
        self.waker.wait(sockets, timeout, || {
            first = self.commands.try_recv().ok();
            first.is_some()
        });
        first.is_none_or(|command| self.execute(command)) && self.execute_all()
    }

    /// Executes the commands in the queue. Returns `false` if the shard must stop.
    fn execute_all(&mut self) -> bool {
        for _ in 0..COMMANDS_PER_TICK {
            match self.commands.try_recv() {
                Ok(command) => {
                    if !self.execute(command) {
                        return false;
                    }
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        true
    }

    /// Returns whether the thread skips the ticks of empty slots, and wakes for commands. With more
    /// legs, their batches are large enough.
    fn is_prompt(&self) -> bool {
        let is_connecting = || self.legs.values().any(|routed| routed.leg.is_unconnected());
        let legs = self.legs.len();
        legs <= LIVE_LEGS_MAX || legs <= FEW_LEGS && (is_connecting() || !self.is_live())
    }

    /// Returns whether a leg's datagrams must be read as they arrive.
    fn is_live(&self) -> bool {
        self.legs.values().any(|routed| routed.leg.is_live())
    }

    fn tick(&mut self, now: Instant, slot: usize, buffers: &mut ReceiveBuffers) -> bool {
        if !self.execute_all() {
            return false;
        }
        self.receive_all(now, buffers);
        self.poll_relays(now);
        if slot == 0 {
            self.start_waiting_legs(now);
        }
        self.connected.clear();
        let due = self.slots.get_mut(slot).map(std::mem::take).unwrap_or_default();
        for group in due.chunks(PREFETCH_LEGS) {
            self.prefetch(group.iter().copied(), Leg::prefetch_for_sending);
            for id in group {
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
    fn prefetch(&self, ids: impl Iterator<Item = LegId>, last: impl Fn(&Leg)) {
        let mut legs = [None; BATCH];
        for (place, id) in legs.iter_mut().zip(ids) {
            *place = self.legs.get(&id).map(|routed| &routed.leg);
            place.inspect(|leg| leg.prefetch());
        }
        let legs = || legs.iter().map_while(|leg| *leg);
        legs().for_each(Leg::prefetch_owned);
        legs().for_each(last);
    }

    /// Starts the legs that waited for others with the same peer address and port.
    fn start_waiting_legs(&mut self, now: Instant) {
        let legs = &self.legs;
        let is_busy = |id: LegId| legs.get(&id).is_some_and(|r| r.keeps_others_waiting(now));
        for id in self.shared_paths.take_ready(now, is_busy) {
            self.begin(id, now);
        }
    }

    fn begin(&mut self, id: LegId, now: Instant) {
        if let Some(routed) = self.legs.get_mut(&id) {
            routed.begun = Some(now);
        }
        self.with_leg(id, |leg, out| leg.execute(now, LegCommand::Begin, out));
    }

    /// Executes a command. Returns `false` if the shard must stop.
    fn execute(&mut self, command: Command) -> bool {
        self.counters.waiting.fetch_sub(1, Ordering::Relaxed);
        let now = self.clock.now();
        match command {
            Command::Add(new) => {
                self.reads = true;
                let slot = self.slot_for_new_leg();
                if let Some(id) = self.add(*new, slot)
                    && let Some(place) = self.slots.get_mut(slot)
                {
                    place.push(id);
                }
            }
            Command::Adopt(new, addresses) => self.adopt(*new, addresses),
            Command::CheckMovable(request) => self.check_movable(request),
            Command::Freeze(request) => self.freeze(request),
            Command::Thaw(other) => self.thaw(other),
            Command::Receive => self.reads = true,
            Command::Leg(id, command) => self.execute_on(id, command),
            Command::Stop => {
                let all: Vec<LegId> = self.legs.keys().copied().collect();
                for id in all {
                    self.with_leg(id, |leg, out| leg.execute(now, LegCommand::Close, out));
                }
                self.flush();
                self.close_relays();
                return false;
            }
        }
        true
    }

    /// Executes a command of a leg.
    fn execute_on(&mut self, id: LegId, command: LegCommand) {
        let now = self.clock.now();
        match command {
            LegCommand::Close => {
                self.with_leg(id, |leg, out| leg.execute(now, LegCommand::Close, out));
                self.flush();
                self.remove(id);
            }
            command if self.frozen.contains(id) => self.frozen.defer(id, command),
            LegCommand::Begin if self.has_conflicts(id) => {
                let predecessors = self.legs.get_mut(&id).map(|r| std::mem::take(&mut r.conflicts));
                self.shared_paths.wait(id, predecessors.unwrap_or_default(), now);
            }
            LegCommand::Begin => self.begin(id, now),
            command => self.with_leg(id, |leg, out| leg.execute(now, command, out)),
        }
    }

    fn has_conflicts(&self, id: LegId) -> bool {
        self.legs.get(&id).is_some_and(|r| !r.conflicts.is_empty())
    }

    /// Returns the slot that few legs share, or with more legs the slot with the fewest, so that
    /// their packets spread over the 20 ms.
    fn slot_for_new_leg(&self) -> usize {
        if self.legs.len() < FEW_LEGS {
            return self.fullest_slot();
        }
        (0..SLOTS).min_by_key(|s| self.slots.get(*s).map(Vec::len)).unwrap_or_default()
    }

    fn fullest_slot(&self) -> usize {
        (0..SLOTS).max_by_key(|s| self.slots.get(*s).map(Vec::len)).unwrap_or_default()
    }

    /// Adds a leg that another process has connected.
    fn adopt(&mut self, new: NewLeg, addresses: Vec<SocketAddr>) {
        let port = new.port.id;
        let Some(id) = self.add(new, 0) else { return };
        for address in addresses.into_iter().take(ADDRESSES_MAX) {
            self.add_address(self.clock.now(), (id, port), address);
        }
        if let Some(routed) = self.legs.get_mut(&id) {
            routed.peer_address = routed.leg.peer_address();
            routed.stun_quota = StunQuota::default();
        }
        self.resumed.push(id);
    }

    /// Adds a leg to the tables and returns its id. Its slot must be filled by the caller. Returns
    /// `None` if its port could not be opened.
    fn add(&mut self, new: NewLeg, slot: usize) -> Option<LegId> {
        let port = new.port.id;
        if !self.ports.contains_key(&port) && self.open(new.port, None).is_err() {
            (new.sink)(LegEvent::Media(MediaEvent::Lost { fault: MediaFault::Silent }));
            self.ports_table.lock().unwrap_or_else(PoisonError::into_inner).release(new.id);
            return None;
        }
        let mut permitted = Vec::new();
        if let Some(BoundPort { port, relay: Some(relay), .. }) = self.ports.get_mut(&port) {
            permitted = relay.permit(self.clock.now(), &new.peers, !new.leg.is_controlling());
            relay.flush(&port.socket, port.bound.is_ipv6());
        }
        self.by_ufrag.insert(new.ufrag.clone(), new.id);
        self.legs.insert(
            new.id,
            Box::new(RoutedLeg {
                leg: new.leg,
                port,
                slot,
                conflicts: new.conflicts,
                ufrag: new.ufrag,
                sink: new.sink,
                addresses: VecDeque::new(),
                begun: None,
                checks: VecDeque::new(),
                peer_address: None,
                stun_quota: StunQuota::default(),
                permitted,
            }),
        );
        Some(new.id)
    }

    /// Removes a leg and its entries in the routing tables.
    fn remove(&mut self, id: LegId) {
        let Some(gone) = self.legs.remove(&id).or_else(|| self.frozen.remove(id)) else { return };
        self.remove_from_slot(id, gone.slot);
        self.by_ufrag.remove(&gone.ufrag);
        for address in gone.addresses {
            self.remove_address((gone.port, address), id);
        }
        if let Some(relay) = self.ports.get_mut(&gone.port).and_then(|open| open.relay.as_mut()) {
            gone.permitted.into_iter().for_each(|ip| relay.release(ip));
        }
        self.shared_paths.remove_queued(id);
        for check in gone.checks {
            self.by_check.remove(&check);
        }
        self.ports_table.lock().unwrap_or_else(PoisonError::into_inner).release(id);
    }

    /// Removes a leg from its slot, or from the legs that have no slot yet.
    fn remove_from_slot(&mut self, id: LegId, slot: usize) {
        self.resumed.retain(|leg| *leg != id);
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.retain(|leg| *leg != id);
        }
    }

    /// Runs `act` on a leg and updates the routing tables. str0m is a large dependency that parses
    /// untrusted input. If it panics, only this leg is lost.
    fn with_leg(&mut self, id: LegId, act: impl FnOnce(&mut Leg, &mut SendBuffer)) {
        let Some(routed) = self.legs.get_mut(&id) else { return };
        let Some(open) = self.ports.get_mut(&routed.port) else { return };
        let queued = open.out.len();
        if catch_unwind(AssertUnwindSafe(|| act(&mut routed.leg, &mut open.out))).is_err() {
            tracing::error!("leg panicked and was dropped");
            (routed.sink)(LegEvent::Media(MediaEvent::Lost { fault: MediaFault::Broken }));
            self.broken.insert(id);
            return;
        }
        for (to, datagram) in open.out.iter_from(queued) {
            // A copy of a check already has its entry.
            if let Some(check) =
                stun::check_id(datagram).filter(|check| !self.by_check.contains_key(check))
            {
                if routed.checks.len() == CHECKS_MAX
                    && let Some(oldest) = routed.checks.pop_front()
                {
                    self.by_check.remove(&oldest);
                }
                routed.checks.push_back(check);
                self.by_check.insert(check, (id, to));
            }
        }
        let (packets_in, packets_out) = routed.leg.take_counts();
        self.packets.0 += packets_in;
        self.packets.1 += packets_out;
        let peer_address = routed.leg.peer_address();
        if peer_address != routed.peer_address {
            if routed.peer_address.is_none() {
                self.connected.push(id);
            }
            routed.peer_address = peer_address;
            if let Some(peer) = peer_address {
                self.ports_table.lock().unwrap_or_else(PoisonError::into_inner).set_peer(id, peer);
            }
        }
    }

    /// Reads all sockets.
    fn receive_all(&mut self, now: Instant, ReceiveBuffers { batch, ready }: &mut ReceiveBuffers) {
        if !self.reads {
            return;
        }
        if self.ports.len() == 1
            && let Some((port, _)) = self.ports.first_key_value()
        {
            // Asking whether the only socket is readable costs as much as reading it.
            let unmatched = self.receive_port(now, *port, batch);
            return self.count_unmatched(unmatched);
        }
        let mut unmatched = 0;
        // The poll set reports a limited number of ports at a time, and a flooded port would be
        // reported again and again.
        for _ in 0..=self.ports.len() / BATCH {
            self.poll.ready(ready);
            let all = ready.len() < BATCH;
            for token in ready.drain(..) {
                unmatched += u16::try_from(token)
                    .map_or(0, |port| self.receive_port(now, PortId(port), batch));
            }
            if all {
                break;
            }
        }
        self.count_unmatched(unmatched);
    }

    fn count_unmatched(&self, unmatched: u64) {
        if unmatched > 0 {
            self.counters.unmatched.fetch_add(unmatched, Ordering::Relaxed);
        }
    }

    /// Reads one port. Returns the number of datagrams that matched no leg.
    fn receive_port(&mut self, now: Instant, port: PortId, batch: &mut ReceiveBatch) -> u64 {
        let Some(open) = self.ports.get(&port) else { return 0 };
        let (socket, is_relayed) = (open.port.socket.clone(), open.relay.is_some());
        let (mut taken, mut unmatched) = (0, 0);
        while taken < DATAGRAMS_PER_TICK {
            // The error belongs to an earlier datagram, and the socket remains usable.
            let Ok(n) = batch.receive(&socket) else { break };
            taken += n;
            let rtp = batch.datagrams().filter(|d| stun::classify(d.bytes) == Kind::NotStun);
            let rtp = rtp.filter_map(|d| self.by_address.get(&(port, d.from)).copied());
            self.prefetch(rtp, Leg::prefetch_for_receiving);
            for datagram in batch.datagrams() {
                let is_matched = match is_relayed {
                    false => self.route(now, port, datagram),
                    true => self.receive_relayed(now, port, datagram),
                };
                unmatched += u64::from(!is_matched);
            }
            if n < BATCH {
                break;
            }
        }
        unmatched
    }

    /// Passes a datagram from the TURN server to its leg. Returns `false` if it matches none.
    fn receive_relayed(
        &mut self,
        now: Instant,
        port: PortId,
        ReceivedDatagram { from, bytes, waited }: ReceivedDatagram<'_>,
    ) -> bool {
        let Some(BoundPort { port: Port { socket, bound, .. }, relay: Some(relay), .. }) =
            self.ports.get_mut(&port)
        else {
            return false;
        };
        if !relay.is_server(from) {
            return false;
        }
        let received = relay.receive(now, from, bytes);
        relay.flush(socket, bound.is_ipv6());
        received.is_none_or(|(from, bytes)| {
            self.route(now, port, ReceivedDatagram { from, bytes: &bytes, waited })
        })
    }

    /// Passes a datagram to its leg. Returns `false` if it matches none.
    fn route(&mut self, now: Instant, port: PortId, received: ReceivedDatagram<'_>) -> bool {
        let ReceivedDatagram { from, bytes: datagram, .. } = received;
        let id = match stun::classify(datagram) {
            Kind::NotStun => match self.shared_paths.legs_on((port, from)) {
                Some(legs) => {
                    let legs = legs.to_vec();
                    return self.route_shared(now, received, legs);
                }
                None => self.by_address.get(&(port, from)).copied(),
            },
            Kind::Request { ufrag } => self
                .by_ufrag
                .get(ufrag)
                .copied()
                .filter(|id| self.accepts_request(now, (*id, port), from, datagram)),
            // A response comes from the address that the check was sent to (RFC 8445 §7.2.5.2.1).
            Kind::Response(check) => self
                .by_check
                .get(&check)
                .filter(|(_, to)| *to == from)
                .map(|(id, _)| *id)
                .filter(|id| {
                    self.leg_on_port(*id, port)
                        .is_some_and(|leg| leg.authenticates_response(datagram))
                })
                .inspect(|id| {
                    // Each response counts only once, because a replay does not prove that the peer
                    // is alive.
                    self.by_check.remove(&check);
                    self.add_address(now, (*id, port), from);
                }),
            // An indication from a known peer needs no action.
            Kind::OtherStun => return self.by_address.contains_key(&(port, from)),
        };
        match id {
            Some(id) => {
                self.with_leg(id, |leg, out| leg.receive(now, received, out));
                true
            }
            None => false,
        }
    }

    /// Returns whether a STUN request to a leg is authentic and not one too many. Records its source.
    fn accepts_request(
        &mut self,
        now: Instant,
        (id, port): (LegId, PortId),
        from: SocketAddr,
        request: &[u8],
    ) -> bool {
        let Some(routed) = self.legs.get_mut(&id).filter(|routed| routed.port == port) else {
            return false;
        };
        let source = routed.source_of(from);
        if !routed.stun_quota.has_requests(now, source) {
            count_excess();
            return false;
        }
        let is_authentic = routed.leg.authenticates_request(request);
        routed.stun_quota.count_request(source, is_authentic);
        if is_authentic {
            self.add_address(now, (id, port), from);
        }
        is_authentic
    }

    /// Passes a datagram to the legs on a shared path until one accepts it. Returns `false` if
    /// there are none. A datagram of another leg does not authenticate and changes nothing.
    fn route_shared(
        &mut self,
        now: Instant,
        datagram: ReceivedDatagram<'_>,
        mut legs: Vec<LegId>,
    ) -> bool {
        let ssrc = shared_paths::sender_ssrc(datagram.bytes);
        let is_likely = |shard: &Self, id: LegId| {
            shard.legs.get(&id).is_some_and(|r| match ssrc {
                Some(ssrc) => r.leg.has_ssrc(ssrc),
                None => r.leg.is_handshaking(),
            })
        };
        // Try likely legs first. DTLS goes only to a leg in its handshake if there is one.
        // Otherwise it may be the close_notify of a connected leg.
        legs.sort_by_key(|id| !is_likely(self, *id));
        let has_likely = legs.first().is_some_and(|id| is_likely(self, *id));
        let tries = if has_likely && ssrc.is_none() { 1 } else { shared_paths::TRIES_MAX };
        for id in legs.iter().take(tries) {
            let received =
                |shard: &Self| shard.legs.get(id).map_or(0, |r| r.leg.packets_received());
            let previous = received(self);
            self.with_leg(*id, |leg, out| leg.receive(now, datagram, out));
            if received(self) > previous {
                break;
            }
        }
        !legs.is_empty()
    }

    /// Returns a leg if it is on this port, otherwise `None`.
    fn leg_on_port(&self, id: LegId, port: PortId) -> Option<&Leg> {
        self.legs.get(&id).filter(|r| r.port == port).map(|r| &r.leg)
    }

    /// Records an address that has sent authenticated STUN of a leg. Other datagrams from this
    /// address belong to this leg.
    fn add_address(&mut self, now: Instant, (id, port): (LegId, PortId), from: SocketAddr) {
        let key = (port, from);
        match self.by_address.insert(key, id) {
            Some(previous) if previous == id => return,
            Some(previous) => self.shared_paths.join(key, previous, id),
            None => {}
        }
        let Some(routed) = self.legs.get_mut(&id) else { return };
        if routed.addresses.contains(&from) {
            return;
        }
        routed.stun_quota.count_source(now);
        routed.addresses.push_back(from);
        if routed.addresses.len() > ADDRESSES_MAX {
            let is_unused = |address: &SocketAddr| Some(*address) != routed.peer_address;
            let oldest = routed.addresses.iter().position(is_unused);
            if let Some(oldest) = oldest.and_then(|at| routed.addresses.remove(at)) {
                self.remove_address((port, oldest), id);
            }
        }
    }

    /// Removes an address of a leg.
    fn remove_address(&mut self, path: shared_paths::Path, id: LegId) {
        let left = self.shared_paths.leave(path, id);
        if self.by_address.get(&path) == Some(&id) {
            match left {
                Some(other) => self.by_address.insert(path, other),
                None => self.by_address.remove(&path),
            };
        }
    }

    fn open(&mut self, port: Port, relay: Option<Relay>) -> std::io::Result<()> {
        self.poll.add(&*port.socket, u64::from(port.id.0))?;
        timestamp_arrivals(&port.socket);
        let relay = relay.map(Box::new);
        self.ports.insert(port.id, BoundPort { port, out: SendBuffer::default(), relay });
        Ok(())
    }

    fn flush(&mut self) {
        for BoundPort { port, out, relay } in self.ports.values_mut().filter(|p| !p.out.is_empty())
        {
            match relay {
                None => drop(send_all(&port.socket, port.bound.is_ipv6(), out.iter())),
                Some(relay) => {
                    let now = self.clock.now();
                    out.iter().for_each(|(to, datagram)| relay.send(now, to, datagram));
                    relay.flush(&port.socket, port.bound.is_ipv6());
                }
            }
            out.clear();
        }
    }

    /// Keeps the allocations on the TURN server alive.
    fn poll_relays(&mut self, now: Instant) {
        for BoundPort { port, relay, .. } in self.ports.values_mut() {
            let Some(relay) = relay else { continue };
            if relay.due() <= now {
                relay.poll(now);
                relay.flush(&port.socket, port.bound.is_ipv6());
            }
        }
    }

    /// Releases the allocations on the TURN server.
    fn close_relays(&mut self) {
        let now = self.clock.now();
        for BoundPort { port, relay, .. } in self.ports.values_mut() {
            if let Some(relay) = relay {
                relay.close(now);
                relay.flush(&port.socket, port.bound.is_ipv6());
            }
        }
    }

    /// Closes extra ports without legs, once a second.
    fn sweep(&mut self, now: Instant) {
        if self.ports.len() < 2 || now.saturating_duration_since(self.last_sweep) < SWEEP_INTERVAL {
            return;
        }
        self.last_sweep = now;
        let mut used = HashSet::new();
        used.extend(self.legs.values().map(|r| r.port));
        let mut ports_table = self.ports_table.lock().unwrap_or_else(PoisonError::into_inner);
        self.ports.retain(|id, _| used.contains(id) || !ports_table.close_if_idle(*id));
    }

    /// Adds the counts of this tick to the counters.
    fn flush_counts(&mut self, late: bool) {
        let (packets_in, packets_out) = std::mem::take(&mut self.packets);
        for (n, sum, metric) in [
            (packets_in, &self.counters.packets_in, &self.metrics.packets_in),
            (packets_out, &self.counters.packets_out, &self.metrics.packets_out),
            (u64::from(late), &self.counters.late_ticks, &self.metrics.late_ticks),
        ] {
            if n > 0 {
                sum.fetch_add(n, Ordering::Relaxed);
                metric.increment(n);
            }
        }
    }
}
