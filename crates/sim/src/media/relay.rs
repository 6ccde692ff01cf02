//! A relay's task: one socket, its legs, a beat of 5 ms in which a quarter of them speak their 20 ms. Datagrams come and
//! go in batches, so that one thread carries a thousand callers.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::ear::{Ear, Hearing, LegStats};
use super::mouth::{self, Mouth, Spoken};
use super::peer::{Datagram, Identity, MetaSide, Peer, PeerEvent};
use super::stun;
use super::{LegId, LegPlan, LegSink, LegTold, Order};
use crate::faults::net::{MediaHow, Net};
use crate::log::{Logged, SimLog};
use media::dtmf;
use media::packet::OutgoingPacket;
use media::packet::SendBuffer;
use media::packet::{PacketKind, packet_kind};
use media::sockets::{BATCH, ReceiveBatch, enlarge_buffers, send_all};
use model::Clock;

/// One tick; [`SLOTS`] of them are the 20 ms of a packet.
const TICK: Duration = Duration::from_millis(5);
/// Legs are spread over so many ticks, as callers are over time.
const SLOTS: usize = 4;
/// Batches read before the tick gets its turn again.
const BATCHES_MAX: usize = 16;
/// What we ask the kernel for, each way, in bytes.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// A payload type that no offer of ours has (H6).
const OTHER_PT: u8 = 97;

/// Meta's side of a call knows what a browser's end does not.
struct MetaLeg {
    side: MetaSide,
    call_id: String,
    mouth: Mouth,
    ear: Ear,
    keys: dtmf::Receiver,
    stats: Arc<LegStats>,
    started: Instant,
    accepted: bool,
    over: bool,
    refusals: u32,
}

impl MetaLeg {
    fn at_ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }
}

struct Leg {
    peer: Peer,
    net: Option<Net>,
    meta: Option<MetaLeg>,
    bridge: Option<LegId>,
    ufrag: String,
    sink: LegSink,
}

/// Asked for every packet.
type Addresses = HashMap<SocketAddr, LegId, foldhash::fast::RandomState>;

pub(super) struct Task {
    /// Tells when there is something to read; `plain`, the same socket, reads and sends.
    socket: UdpSocket,
    plain: std::net::UdpSocket,
    addr: SocketAddr,
    identity: Identity,
    clock: Clock,
    log: Arc<SimLog>,
    legs: BTreeMap<LegId, Leg>,
    slots: [Vec<LegId>; SLOTS],
    by_ufrag: HashMap<String, LegId>,
    by_addr: Addresses,
    /// What goes out when what there is to do is done.
    out: SendBuffer,
}

/// A packet on its way from one bridged leg to the other.
struct Passing {
    to: LegId,
    time: u32,
    marker: bool,
    payload: Arc<[u8]>,
}

impl Task {
    pub(super) fn new(
        socket: UdpSocket,
        plain: std::net::UdpSocket,
        addr: SocketAddr,
        identity: Identity,
        clock: Clock,
        log: Arc<SimLog>,
    ) -> Self {
        Self {
            socket,
            plain,
            addr,
            identity,
            clock,
            log,
            legs: BTreeMap::new(),
            slots: Default::default(),
            by_ufrag: HashMap::new(),
            by_addr: Addresses::default(),
            out: SendBuffer::default(),
        }
    }

    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>, stop: CancellationToken) {
        enlarge_buffers(&self.plain, SOCKET_BUFFER);
        let mut tick = tokio::time::interval(TICK);
        // A late tick is made up for: timestamps are never skipped (M13, §5.3).
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        let (mut slot, mut inbox) = (0, ReceiveBatch::default());
        loop {
            let idle = self.legs.is_empty();
            tokio::select! {
                () = stop.cancelled() => break,
                order = orders.recv() => match order {
                    Some(order) => self.carry_out(order),
                    None => break,
                },
                _ = tick.tick(), if !idle => {
                    self.tick(slot);
                    slot = (slot + 1) % SLOTS;
                }
                // An ICMP error of an earlier send comes up here: it concerns nobody.
                _ = self.socket.readable() => self.read(&mut inbox),
            }
            if idle {
                tick.reset();
            }
            self.flush();
        }
    }

    fn read(&mut self, inbox: &mut ReceiveBatch) {
        let now = self.clock.now();
        for _ in 0..BATCHES_MAX {
            let taken =
                self.socket.try_io(Interest::READABLE, || match inbox.receive(&self.plain)? {
                    0 => Err(std::io::ErrorKind::WouldBlock.into()),
                    taken => Ok(taken),
                });
            let Ok(taken) = taken else { return };
            for (from, bytes) in inbox.datagrams() {
                self.datagram(now, from, bytes);
            }
            if taken < BATCH {
                return;
            }
        }
    }

    /// A full socket buffer loses what is left, as a network would.
    fn flush(&mut self) {
        if !self.out.is_empty() {
            send_all(&self.plain, self.addr.is_ipv6(), self.out.iter());
            self.out.clear();
        }
    }

    fn carry_out(&mut self, order: Order) {
        let now = self.clock.now();
        match order {
            Order::OpenMeta { leg, plan, done } => {
                // Its packets may be met by nothing on their way that only an agent knows to do.
                let light = plan.hearing == Hearing::Counting && plan.net.is_none();
                let peer = Peer::meta(&self.identity, &plan.side, light, self.addr, now);
                let made = peer.map(|peer| self.add_meta(leg, peer, *plan));
                let _ = done.send(made);
            }
            Order::OpenBrowser { leg, offer, sink, done } => {
                let made = Peer::browser(&self.identity, &offer, self.addr, now).map(
                    |(mut peer, answer)| {
                        let ufrag = peer.local_ufrag();
                        self.by_ufrag.insert(ufrag.clone(), leg);
                        self.add(
                            leg,
                            Leg { peer, net: None, meta: None, bridge: None, ufrag, sink },
                        );
                        answer
                    },
                );
                let _ = done.send(made);
            }
            Order::Accepted { leg } => {
                if let Some(leg) = self.legs.get_mut(&leg) {
                    leg.meta.iter_mut().for_each(|meta| meta.accepted = true);
                    leg.net.iter_mut().for_each(|net| net.accepted(now));
                }
            }
            Order::Over { leg } => {
                if let Some(meta) = self.meta(leg) {
                    meta.over = true;
                }
            }
            Order::Press { leg, keys } => {
                if let Some(meta) = self.meta(leg) {
                    meta.stats.said_at_ms.store(0, Ordering::Relaxed);
                    meta.mouth.press(keys);
                }
            }
            Order::Bridge { meta, browser } => {
                for (one, other) in [(meta, browser), (browser, meta)] {
                    if let Some(leg) = self.legs.get_mut(&one) {
                        leg.bridge = Some(other);
                    }
                }
            }
            Order::Close { leg, goodbye, recording } => {
                let _ = recording.send(self.close(leg, goodbye, now));
            }
        }
    }

    fn add_meta(&mut self, id: LegId, peer: Peer, plan: LegPlan) {
        let LegPlan { side, call_id, mut mouth, net, hearing, stats, started, sink } = plan;
        if net.as_ref().is_some_and(|net| net.is(self.clock.now(), MediaHow::Dtx)) {
            mouth.keep_silent();
        }
        let ufrag = side.ufrag.clone();
        self.by_ufrag.insert(ufrag.clone(), id);
        let ear = Ear::new(hearing, stats.clone());
        let meta = MetaLeg {
            side,
            call_id,
            mouth,
            ear,
            keys: dtmf::Receiver::default(),
            stats,
            started,
            accepted: false,
            over: false,
            refusals: 0,
        };
        self.add(id, Leg { peer, net, meta: Some(meta), bridge: None, ufrag, sink });
    }

    fn add(&mut self, id: LegId, leg: Leg) {
        if let Some(emptiest) = self.slots.iter_mut().min_by_key(|slot| slot.len()) {
            emptiest.push(id);
        }
        self.legs.insert(id, leg);
    }

    fn close(&mut self, id: LegId, goodbye: bool, now: Instant) -> Option<Vec<i16>> {
        let mut leg = self.legs.remove(&id)?;
        if goodbye {
            if let (Some(to), Some(own)) = (leg.peer.path(), &mut leg.peer.own) {
                own.send_bye(now, to, &mut self.out);
            }
            leg.peer.close(now);
            send(&mut leg, now, &mut self.out);
        }
        self.slots.iter_mut().for_each(|slot| slot.retain(|leg| *leg != id));
        self.by_ufrag.remove(&leg.ufrag);
        self.by_addr.retain(|_, owner| *owner != id);
        leg.meta.and_then(|m| m.ear.into_recording())
    }

    fn meta(&mut self, leg: LegId) -> Option<&mut MetaLeg> {
        self.legs.get_mut(&leg)?.meta.as_mut()
    }

    fn datagram(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        let id = if stun::is_stun(bytes) {
            match self.admit_stun(from, bytes) {
                Some(id) => id,
                None => return,
            }
        } else {
            match self.by_addr.get(&from) {
                Some(id) => *id,
                None => return,
            }
        };
        if let Some(leg) = self.legs.get_mut(&id) {
            if leg.net.as_mut().is_some_and(|net| !net.lets_in(now)) {
                return;
            }
            if take_in(leg, &self.log, now, bytes) {
                return;
            }
            leg.peer.receive(now, from, bytes);
        }
        self.settle(id, now);
    }

    /// Finds the leg of a STUN message and judges it as ICE-lite must (M5).
    fn admit_stun(&mut self, from: SocketAddr, bytes: &[u8]) -> Option<LegId> {
        let message = stun::Message::read(bytes)?;
        let id = *self.by_ufrag.get(message.local_ufrag()?)?;
        let leg = self.legs.get_mut(&id)?;
        if let Some(meta) = &mut leg.meta {
            match message.judge(&meta.side.pwd, &meta.side.remote_ufrag) {
                stun::Verdict::Pass => {}
                stun::Verdict::Conflict(reply) => {
                    self.out.push(from, &reply);
                    refuse_stun(
                        &self.log,
                        meta,
                        "487 role conflict: the peer says controlled, and we are ICE-lite",
                    );
                    return None;
                }
                stun::Verdict::Refuse(why) => {
                    refuse_stun(&self.log, meta, why);
                    return None;
                }
            }
        }
        self.by_addr.insert(from, id);
        Some(id)
    }

    fn tick(&mut self, slot: usize) {
        let now = self.clock.now();
        let due = self.slots.get_mut(slot).map(std::mem::take).unwrap_or_default();
        for id in &due {
            if let Some(leg) = self.legs.get_mut(id) {
                speak(leg, now, &mut self.out);
                leg.peer.pass(now);
            }
            self.settle(*id, now);
        }
        if let Some(place) = self.slots.get_mut(slot) {
            *place = due;
        }
    }

    /// Sends what a leg's peer has to send and tells what it has to tell.
    fn settle(&mut self, id: LegId, now: Instant) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        send(leg, now, &mut self.out);
        let mut passing = Vec::new();
        for event in std::mem::take(&mut leg.peer.events) {
            match event {
                PeerEvent::Up => {
                    leg.peer.take_over(now, self.clock.wall());
                    (leg.sink)(LegTold::Up);
                }
                PeerEvent::Closed => (leg.sink)(LegTold::Closed),
                PeerEvent::Gone(reason) => (leg.sink)(LegTold::Gone(reason)),
                PeerEvent::Packet { pt, time, marker, payload } => {
                    if heard(leg, &self.log, pt, time, &payload, now)
                        && let Some(to) = leg.bridge
                    {
                        passing.push(Passing { to, time, marker, payload });
                    }
                }
            }
        }
        for packet in passing {
            self.pass_on(packet, now);
        }
    }

    fn pass_on(&mut self, packet: Passing, now: Instant) {
        let Some(leg) = self.legs.get_mut(&packet.to) else { return };
        let time = packet.time;
        if let Some(meta) = &mut leg.meta {
            if !meta.accepted || meta.over {
                return;
            }
            if meta.mouth.is_pressing() {
                return; // the event stands where the audio would
            }
            meta.mouth.follow_clock(time.wrapping_add(mouth::TICK_SAMPLES));
        }
        let pt = leg.peer.opus_pt();
        leg.peer.write(now, pt, time, packet.marker, packet.payload);
        leg.peer.pass(now);
        send(leg, now, &mut self.out);
    }
}

/// Takes in RTP and RTCP of a light peer; false: it is the agent's.
fn take_in(leg: &mut Leg, log: &SimLog, now: Instant, bytes: &[u8]) -> bool {
    let kind = packet_kind(bytes);
    let Some(mut own) = leg.peer.own.take_if(|_| kind != PacketKind::Other) else { return false };
    match kind {
        PacketKind::Rtp => {
            if let Some(packet) = own.receive_rtp(now, bytes) {
                heard(leg, log, packet.payload_type, packet.timestamp, packet.payload, now);
            }
        }
        PacketKind::Rtcp => {
            own.receive_rtcp(now, bytes);
        }
        PacketKind::Other => {}
    }
    leg.peer.own = Some(own);
    true
}

/// Takes in one packet; true where a bridged leg should get it.
fn heard(leg: &mut Leg, log: &SimLog, pt: u8, time: u32, payload: &[u8], now: Instant) -> bool {
    let is_opus = pt == leg.peer.opus_pt();
    let Some(meta) = &mut leg.meta else { return is_opus };
    if meta.over {
        return false;
    }
    if !meta.accepted {
        if meta.stats.clipped.fetch_add(1, Ordering::Relaxed) == 0 {
            let details = "audio before accept was answered: it is clipped away".to_owned();
            log.add(Logged::Media { call_id: meta.call_id.clone(), details });
        }
        return false;
    }
    let at_ms = meta.at_ms(now);
    if leg.peer.digit_pt() == Some(pt) {
        let mut digits = Vec::new();
        meta.keys.receive(now, 0, time, payload, &mut digits);
        digits.iter().for_each(|digit| (leg.sink)(LegTold::KeyHeard(digit.as_char())));
    }
    if is_opus && meta.ear.hear(time, payload, at_ms) {
        (leg.sink)(LegTold::FirstAudio);
    }
    is_opus
}

/// What the phone says in this tick.
fn speak(leg: &mut Leg, now: Instant, out: &mut SendBuffer) {
    if let (Some(to), Some(own)) = (leg.peer.path(), &mut leg.peer.own) {
        own.tick(now, to, out);
    }
    let Some(meta) = &mut leg.meta else { return };
    if !meta.accepted || meta.over || !leg.peer.is_up() {
        return;
    }
    let is = |how| leg.net.as_ref().is_some_and(|net| net.is(now, how));
    let (no_rtp, other_pt) = (is(MediaHow::NoRtp), is(MediaHow::OtherPt));
    if let Some(net) = &mut leg.net {
        if let Some(samples) = net.jump(now) {
            meta.mouth.jump(samples);
        }
        if net.changes_ssrc(now) {
            leg.peer.change_ssrc(meta.side.ssrc.wrapping_add(0x0101_0101).max(1));
        }
    }
    match meta.mouth.tick() {
        Some(_) if no_rtp => {}
        Some(Spoken::Audio { payload, time, marker }) => {
            let pt = if other_pt { OTHER_PT } else { leg.peer.opus_pt() };
            write(&mut leg.peer, now, pt, time, marker, payload, out);
        }
        Some(Spoken::Event { payload, time, marker }) => {
            // No telephone-event in the SDP: keys make no sound on the wire.
            if let Some(pt) = leg.peer.digit_pt() {
                write(&mut leg.peer, now, pt, time, marker, Arc::from(payload), out);
            }
        }
        None => {}
    }
    if let Some(digit) = meta.mouth.take_sent() {
        (leg.sink)(LegTold::KeySent(digit.as_char()));
    }
    if !meta.mouth.is_done() {
        meta.stats.said_at_ms.store(0, Ordering::Relaxed);
    } else if meta.stats.said_at_ms.load(Ordering::Relaxed) == 0 {
        meta.stats.said_at_ms.store(meta.at_ms(now).max(1), Ordering::Relaxed);
    }
}

/// A light peer's packets are its own; any other's are the agent's, and go out when its time passes.
fn write(
    peer: &mut Peer,
    now: Instant,
    pt: u8,
    time: u32,
    marker: bool,
    payload: Arc<[u8]>,
    out: &mut SendBuffer,
) {
    if peer.own.is_none() {
        return peer.write(now, pt, time, marker, payload);
    }
    let Some((sequence, to)) = peer.next() else { return };
    let sending = OutgoingPacket {
        payload_type: pt,
        marker,
        sequence,
        timestamp: time,
        payload: &payload,
        at: now,
    };
    if let Some(own) = &mut peer.own {
        own.send(to, sending, out);
    }
}

fn refuse_stun(log: &SimLog, meta: &mut MetaLeg, why: &str) {
    // A peer in the wrong repeats itself every 50 ms: three lines are enough.
    meta.refusals = meta.refusals.saturating_add(1);
    if meta.refusals <= 3 {
        log.add(Logged::Stun { call_id: meta.call_id.clone(), details: why.to_owned() });
    }
}

fn send(leg: &mut Leg, now: Instant, out: &mut SendBuffer) {
    let mut go = |datagram: Datagram| out.push(datagram.to, &datagram.bytes);
    match &mut leg.net {
        None => leg.peer.out.drain(..).for_each(go),
        Some(net) => {
            leg.peer.out.drain(..).for_each(|datagram| net.send(now, datagram));
            while let Some(datagram) = net.due(now) {
                go(datagram);
            }
        }
    }
}
