//! The task of a relay: a socket, its legs, and a tick of 5 ms in which a quarter of the legs send
//! their packets of 20 ms. Datagrams are received and sent in batches, so that one thread can serve
//! a thousand callers.

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

use super::peer::{Datagram, Identity, MetaLegParams, Peer, PeerEvent};
use super::receiver::{AudioReceiver, LegStats, ReceiveMode};
use super::sender::{self, AudioSender, OutgoingPacket};
use super::stun;
use super::{Command, LegConfig, LegEvent, LegId, LegSink};
use crate::faults::net::{MediaFaultKind, NetworkEmulator};
use crate::log::{LogEvent, SimLog};
use media::dtmf;
use media::packet::SendBuffer;
use media::packet::{PacketKind, packet_kind};
use media::sockets::{BATCH, ReceiveBatch, enlarge_buffers, send_all};
use model::Clock;

/// Interval of ticks. [`SLOTS`] ticks make up the 20 ms of a packet.
const TICK: Duration = Duration::from_millis(5);
/// Legs are spread over this many ticks, as independent callers would be.
const SLOTS: usize = 4;
/// Maximum number of batches that are read before the next tick.
const BATCHES_MAX: usize = 16;
/// Requested socket buffer for each direction, in bytes.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// A payload type that no offer contains.
const OTHER_PT: u8 = 97;

/// State of a leg on Meta's side of a call. Legs of browser phones have none.
struct MetaLeg {
    params: MetaLegParams,
    call_id: String,
    sender: AudioSender,
    receiver: AudioReceiver,
    keys: dtmf::Receiver,
    stats: Arc<LegStats>,
    started: Instant,
    accepted: bool,
    audio_stopped: bool,
    refusals: u32,
}

impl MetaLeg {
    fn at_ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }
}

struct Leg {
    peer: Peer,
    net: Option<NetworkEmulator>,
    meta: Option<MetaLeg>,
    bridge: Option<LegId>,
    ufrag: String,
    sink: LegSink,
}

/// Legs by remote address. Looked up for every packet, hence the fast hasher.
type Addresses = HashMap<SocketAddr, LegId, foldhash::fast::RandomState>;

pub(super) struct RelayTask {
    /// Reports readiness. `plain` is the same socket and does the I/O in batches.
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
    /// Datagrams to send at the end of the current iteration.
    out: SendBuffer,
}

/// A packet to forward to a bridged leg.
struct BridgedPacket {
    to: LegId,
    timestamp: u32,
    marker: bool,
    payload: Arc<[u8]>,
}

impl RelayTask {
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

    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        stop: CancellationToken,
    ) {
        enlarge_buffers(&self.plain, SOCKET_BUFFER);
        let mut tick = tokio::time::interval(TICK);
        // Late ticks are made up for, because timestamps must not skip.
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        let (mut slot, mut inbox) = (0, ReceiveBatch::default());
        loop {
            let idle = self.legs.is_empty();
            tokio::select! {
                () = stop.cancelled() => break,
                command = commands.recv() => match command {
                    Some(command) => self.handle_command(command),
                    None => break,
                },
                _ = tick.tick(), if !idle => {
                    self.tick(slot);
                    slot = (slot + 1) % SLOTS;
                }
                // Readiness may also be an ICMP error of an earlier send, which is ignored.
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
            let received =
                self.socket.try_io(Interest::READABLE, || match inbox.receive(&self.plain)? {
                    0 => Err(std::io::ErrorKind::WouldBlock.into()),
                    received => Ok(received),
                });
            let Ok(received) = received else { return };
            for datagram in inbox.datagrams() {
                self.datagram(now, datagram.from, datagram.bytes);
            }
            if received < BATCH {
                return;
            }
        }
    }

    /// Sends the queued datagrams. What does not fit into the socket buffer is lost, as on a
    /// network.
    fn flush(&mut self) {
        if !self.out.is_empty() {
            send_all(&self.plain, self.addr.is_ipv6(), self.out.iter());
            self.out.clear();
        }
    }

    fn handle_command(&mut self, command: Command) {
        let now = self.clock.now();
        match command {
            Command::OpenMeta { leg, config, done } => {
                // Emulated networks need datagrams from str0m, so only legs without one can be
                // lightweight.
                let lightweight = config.mode == ReceiveMode::Count && config.net.is_none();
                let peer = Peer::meta(&self.identity, &config.params, lightweight, self.addr, now);
                let opened = peer.map(|peer| self.add_meta(leg, peer, *config));
                let _ = done.send(opened);
            }
            Command::OpenBrowser { leg, offer, sink, done } => {
                let opened = Peer::browser(&self.identity, &offer, self.addr, now).map(
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
                let _ = done.send(opened);
            }
            Command::Accept { leg } => {
                if let Some(leg) = self.legs.get_mut(&leg) {
                    leg.meta.iter_mut().for_each(|meta| meta.accepted = true);
                    leg.net.iter_mut().for_each(|net| net.accepted(now));
                }
            }
            Command::StopAudio { leg } => {
                if let Some(meta) = self.meta(leg) {
                    meta.audio_stopped = true;
                }
            }
            Command::Press { leg, keys } => {
                if let Some(meta) = self.meta(leg) {
                    meta.stats.idle_since_ms.store(0, Ordering::Relaxed);
                    meta.sender.press(keys);
                }
            }
            Command::Bridge { meta, browser } => {
                for (one, other) in [(meta, browser), (browser, meta)] {
                    if let Some(leg) = self.legs.get_mut(&one) {
                        leg.bridge = Some(other);
                    }
                }
            }
            Command::Close { leg, graceful, recording } => {
                let _ = recording.send(self.close(leg, graceful, now));
            }
        }
    }

    fn add_meta(&mut self, id: LegId, peer: Peer, config: LegConfig) {
        let LegConfig { params, call_id, mut sender, net, mode, stats, started, sink } = config;
        if net.as_ref().is_some_and(|net| net.is_active(self.clock.now(), MediaFaultKind::Dtx)) {
            sender.disable_silence();
        }
        let ufrag = params.ufrag.clone();
        self.by_ufrag.insert(ufrag.clone(), id);
        let receiver = AudioReceiver::new(mode, stats.clone());
        let meta = MetaLeg {
            params,
            call_id,
            sender,
            receiver,
            keys: dtmf::Receiver::default(),
            stats,
            started,
            accepted: false,
            audio_stopped: false,
            refusals: 0,
        };
        self.add(id, Leg { peer, net, meta: Some(meta), bridge: None, ufrag, sink });
    }

    fn add(&mut self, id: LegId, leg: Leg) {
        if let Some(smallest) = self.slots.iter_mut().min_by_key(|slot| slot.len()) {
            smallest.push(id);
        }
        self.legs.insert(id, leg);
    }

    fn close(&mut self, id: LegId, graceful: bool, now: Instant) -> Option<Vec<i16>> {
        let mut leg = self.legs.remove(&id)?;
        if graceful {
            if let (Some(to), Some(transport)) = (leg.peer.remote(), &mut leg.peer.transport) {
                transport.send_bye(now, to, &mut self.out);
            }
            leg.peer.close(now);
            send(&mut leg, now, &mut self.out);
        }
        self.slots.iter_mut().for_each(|slot| slot.retain(|leg| *leg != id));
        self.by_ufrag.remove(&leg.ufrag);
        self.by_addr.retain(|_, owner| *owner != id);
        leg.meta.and_then(|m| m.receiver.into_recording())
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
            if leg.net.as_mut().is_some_and(|net| !net.admits(now)) {
                return;
            }
            if packet_kind(bytes) == PacketKind::Rtp
                && let Some(arrivals) = leg.meta.as_ref().and_then(|m| m.stats.arrivals.as_ref())
            {
                arrivals.datagram(bytes);
            }
            if receive_direct(leg, &self.log, now, bytes) {
                return;
            }
            leg.peer.receive(now, from, bytes);
        }
        self.process_events(id, now);
    }

    /// Finds the leg of a STUN message and checks the message as an ICE-lite agent must.
    fn admit_stun(&mut self, from: SocketAddr, bytes: &[u8]) -> Option<LegId> {
        let message = stun::Message::parse(bytes)?;
        let id = *self.by_ufrag.get(message.local_ufrag()?)?;
        let leg = self.legs.get_mut(&id)?;
        if let Some(meta) = &mut leg.meta {
            match message.check(&meta.params.pwd, &meta.params.remote_ufrag) {
                stun::Verdict::Pass => {}
                stun::Verdict::RoleConflict(reply) => {
                    self.out.push(from, &reply);
                    log_stun_refusal(
                        &self.log,
                        meta,
                        "487 role conflict: the peer claims the controlled role of an ICE-lite agent",
                    );
                    return None;
                }
                stun::Verdict::Refuse(reason) => {
                    log_stun_refusal(&self.log, meta, reason);
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
                send_tick(leg, now, &mut self.out);
                leg.peer.advance(now);
            }
            self.process_events(*id, now);
        }
        if let Some(place) = self.slots.get_mut(slot) {
            *place = due;
        }
    }

    /// Sends the pending datagrams of a leg's peer and handles its events.
    fn process_events(&mut self, id: LegId, now: Instant) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        send(leg, now, &mut self.out);
        let mut bridged = Vec::new();
        for event in std::mem::take(&mut leg.peer.events) {
            match event {
                PeerEvent::Up => {
                    leg.peer.start_own_transport(now, self.clock.wall());
                    (leg.sink)(LegEvent::Up);
                }
                PeerEvent::Closed => (leg.sink)(LegEvent::Closed),
                PeerEvent::Failed(reason) => (leg.sink)(LegEvent::Failed(reason)),
                PeerEvent::Packet { pt, timestamp, marker, payload } => {
                    if handle_packet(leg, &self.log, pt, timestamp, &payload, now)
                        && let Some(to) = leg.bridge
                    {
                        bridged.push(BridgedPacket { to, timestamp, marker, payload });
                    }
                }
            }
        }
        for packet in bridged {
            self.forward(packet, now);
        }
    }

    fn forward(&mut self, packet: BridgedPacket, now: Instant) {
        let Some(leg) = self.legs.get_mut(&packet.to) else { return };
        let timestamp = packet.timestamp;
        if let Some(meta) = &mut leg.meta {
            if !meta.accepted || meta.audio_stopped {
                return;
            }
            if meta.sender.is_pressing() {
                return; // the telephone event replaces the audio
            }
            meta.sender.set_clock(timestamp.wrapping_add(sender::TICK_SAMPLES));
        }
        let pt = leg.peer.opus_pt();
        leg.peer.write(now, pt, timestamp, packet.marker, packet.payload);
        leg.peer.advance(now);
        send(leg, now, &mut self.out);
    }
}

/// Processes RTP and RTCP of a lightweight peer. Returns false if the datagram is for str0m.
fn receive_direct(leg: &mut Leg, log: &SimLog, now: Instant, bytes: &[u8]) -> bool {
    let looks = packet_kind(bytes);
    let Some(mut transport) = leg.peer.transport.take_if(|_| looks != PacketKind::Other) else {
        return false;
    };
    match looks {
        PacketKind::Rtp => {
            if let Some(packet) = transport.receive_rtp(now, bytes) {
                handle_packet(leg, log, packet.payload_type, packet.timestamp, packet.payload, now);
            }
        }
        PacketKind::Rtcp => {
            transport.receive_rtcp(now, bytes);
        }
        PacketKind::Other => {}
    }
    leg.peer.transport = Some(transport);
    true
}

/// Processes an RTP packet. Returns true if it should be forwarded to a bridged leg.
fn handle_packet(
    leg: &mut Leg,
    log: &SimLog,
    pt: u8,
    timestamp: u32,
    payload: &[u8],
    now: Instant,
) -> bool {
    let is_opus = pt == leg.peer.opus_pt();
    let Some(meta) = &mut leg.meta else { return is_opus };
    if meta.audio_stopped {
        return false;
    }
    if !meta.accepted {
        if meta.stats.clipped.fetch_add(1, Ordering::Relaxed) == 0 {
            let details = "audio before accept was answered: dropped as clipped".to_owned();
            log.add(LogEvent::Media { call_id: meta.call_id.clone(), details });
        }
        return false;
    }
    if let Some(arrivals) = meta.stats.arrivals.as_ref().filter(|_| is_opus) {
        arrivals.audio(now);
    }
    let at_ms = meta.at_ms(now);
    if leg.peer.digit_pt() == Some(pt) {
        let mut digits = Vec::new();
        meta.keys.receive(now, 0, timestamp, payload, &mut digits);
        digits.iter().for_each(|digit| (leg.sink)(LegEvent::KeyReceived(digit.as_char())));
    }
    if is_opus && meta.receiver.receive(timestamp, payload, at_ms) {
        (leg.sink)(LegEvent::FirstAudio);
    }
    is_opus
}

/// Sends the packet of a leg's phone for the current tick.
fn send_tick(leg: &mut Leg, now: Instant, out: &mut SendBuffer) {
    if let (Some(to), Some(transport)) = (leg.peer.remote(), &mut leg.peer.transport) {
        transport.tick(now, to, out);
    }
    let Some(meta) = &mut leg.meta else { return };
    if !meta.accepted || meta.audio_stopped || !leg.peer.is_up() {
        return;
    }
    let is = |kind| leg.net.as_ref().is_some_and(|net| net.is_active(now, kind));
    let (no_rtp, other_pt) = (is(MediaFaultKind::NoRtp), is(MediaFaultKind::OtherPt));
    if let Some(net) = &mut leg.net {
        if let Some(samples) = net.take_clock_jump(now) {
            meta.sender.advance_clock(samples);
        }
        if net.take_ssrc_change(now) {
            leg.peer.change_ssrc(meta.params.ssrc.wrapping_add(0x0101_0101).max(1));
        }
    }
    match meta.sender.tick() {
        Some(_) if no_rtp => {}
        Some(OutgoingPacket::Audio { payload, timestamp, marker }) => {
            let pt = if other_pt { OTHER_PT } else { leg.peer.opus_pt() };
            write_packet(&mut leg.peer, now, pt, timestamp, marker, payload, out);
        }
        Some(OutgoingPacket::Event { payload, timestamp, marker }) => {
            // Without telephone-event in the SDP, keys are not sent.
            if let Some(pt) = leg.peer.digit_pt() {
                write_packet(&mut leg.peer, now, pt, timestamp, marker, Arc::from(payload), out);
            }
        }
        None => {}
    }
    if let Some(digit) = meta.sender.take_sent_key() {
        (leg.sink)(LegEvent::KeySent(digit.as_char()));
    }
    if !meta.sender.is_done() {
        meta.stats.idle_since_ms.store(0, Ordering::Relaxed);
    } else if meta.stats.idle_since_ms.load(Ordering::Relaxed) == 0 {
        meta.stats.idle_since_ms.store(meta.at_ms(now).max(1), Ordering::Relaxed);
    }
}

/// Sends a packet directly for a lightweight peer, otherwise queues it with str0m.
fn write_packet(
    peer: &mut Peer,
    now: Instant,
    pt: u8,
    timestamp: u32,
    marker: bool,
    payload: Arc<[u8]>,
    out: &mut SendBuffer,
) {
    if peer.transport.is_none() {
        return peer.write(now, pt, timestamp, marker, payload);
    }
    let Some((sequence, to)) = peer.next_packet() else { return };
    let sending = media::packet::OutgoingPacket {
        payload_type: pt,
        marker,
        sequence,
        timestamp,
        payload: &payload,
        at: now,
    };
    if let Some(transport) = &mut peer.transport {
        transport.send(to, sending, out);
    }
}

fn log_stun_refusal(log: &SimLog, meta: &mut MetaLeg, reason: &str) {
    // The peer repeats its request every 50 ms: three log lines are enough.
    meta.refusals = meta.refusals.saturating_add(1);
    if meta.refusals <= 3 {
        log.add(LogEvent::Stun { call_id: meta.call_id.clone(), details: reason.to_owned() });
    }
}

fn send(leg: &mut Leg, now: Instant, out: &mut SendBuffer) {
    let mut queue = |datagram: Datagram| out.push(datagram.to, &datagram.bytes);
    match &mut leg.net {
        None => leg.peer.outgoing.drain(..).for_each(queue),
        Some(net) => {
            leg.peer.outgoing.drain(..).for_each(|datagram| net.send(now, datagram));
            while let Some(datagram) = net.due(now) {
                queue(datagram);
            }
        }
    }
}
