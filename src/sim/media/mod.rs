//! Meta's side of the media: one UDP socket for all calls (H13), or one a call. Terminates ICE-lite, DTLS, SRTP.
//!
//! A [`Relay`] is a task that owns a socket and its legs. Orders come over a bounded queue; what legs tell goes to
//! the call they belong to. A leg is Meta's side of a call or the end of a browser's connection; two legs can be
//! bridged, then Opus passes through from one to the other.

pub(crate) mod ear;
pub(crate) mod mouth;
pub(crate) mod peer;
pub(crate) mod stun;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::ear::{Ear, Hearing, LegStats};
use self::mouth::{Mouth, Spoken};
use self::peer::{Datagram, Identity, MetaSide, Peer, PeerError, PeerEvent};
use super::caller::KeyStep;
use super::faults::net::{MediaHow, Net};
use super::log::{Logged, SimLog};
use crate::clock::Clock;
use crate::media::dtmf;

/// Pace of sending.
const TICK: Duration = Duration::from_millis(20);
/// Orders that may wait.
const ORDERS_MAX: usize = 4_096;
/// Largest datagram looked at.
const DATAGRAM_MAX: usize = 2_048;
/// Datagrams read before the tick gets its turn again.
const READ_MAX: usize = 256;

/// A payload type that no offer of ours has (H6).
const OTHER_PT: u8 = 97;

/// Names a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LegId(u64);

/// What a leg tells its call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LegTold {
    Up,
    Closed,
    Gone(String),
    FirstAudio,
    KeySent(char),
    KeyHeard(char),
}

/// Where a leg's news go: must not block.
pub(crate) type LegSink = Box<dyn Fn(LegTold) + Send>;

/// What a leg is made from.
pub(crate) struct LegPlan {
    pub(crate) side: MetaSide,
    pub(crate) call_id: String,
    pub(crate) mouth: Mouth,
    pub(crate) hearing: Hearing,
    /// What its datagrams meet on their way.
    pub(crate) net: Option<Net>,
    pub(crate) stats: Arc<LegStats>,
    pub(crate) started: Instant,
    pub(crate) sink: LegSink,
}

enum Order {
    OpenMeta {
        leg: LegId,
        plan: Box<LegPlan>,
        done: oneshot::Sender<Result<(), PeerError>>,
    },
    OpenBrowser {
        leg: LegId,
        offer: String,
        sink: LegSink,
        done: oneshot::Sender<Result<String, PeerError>>,
    },
    /// The call is over: nothing is heard or said any more, the path itself stays until `Close`.
    Over {
        leg: LegId,
    },
    /// `accept` was answered: what the business says is heard from now on, and the user speaks (M9).
    Accepted {
        leg: LegId,
    },
    Press {
        leg: LegId,
        keys: Vec<KeyStep>,
    },
    Bridge {
        meta: LegId,
        browser: LegId,
    },
    Close {
        leg: LegId,
        /// With RTCP BYE and DTLS close_notify.
        goodbye: bool,
        recording: oneshot::Sender<Option<Vec<i16>>>,
    },
}

/// Speaks to the relay's task; cheap to clone. The task ends with the last handle or the token.
#[derive(Clone, Debug)]
pub(crate) struct Relay {
    orders: mpsc::Sender<Order>,
    addr: SocketAddr,
    next: Arc<AtomicU64>,
    pub(crate) identity: Identity,
}

impl Relay {
    /// Binds a socket and starts its task.
    ///
    /// # Errors
    /// The address can't be bound.
    pub(crate) async fn start(
        ip: IpAddr,
        port: u16,
        identity: Identity,
        clock: Clock,
        log: Arc<SimLog>,
        stop: CancellationToken,
    ) -> std::io::Result<Self> {
        let socket = UdpSocket::bind((ip, port)).await?;
        let addr = socket.local_addr()?;
        let (orders, queue) = mpsc::channel(ORDERS_MAX);
        let task = Task {
            socket,
            addr,
            identity: identity.clone(),
            clock,
            log,
            legs: BTreeMap::new(),
            by_ufrag: HashMap::new(),
            by_addr: HashMap::new(),
        };
        tokio::spawn(task.run(queue, stop));
        Ok(Self { orders, addr, next: Arc::new(AtomicU64::new(1)), identity })
    }

    /// The candidate's address.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Makes Meta's side of a call.
    pub(crate) async fn open_meta(&self, plan: LegPlan) -> Result<LegId, PeerError> {
        let leg = self.leg();
        let (done, made) = oneshot::channel();
        self.order(Order::OpenMeta { leg, plan: Box::new(plan), done }).await;
        made.await.unwrap_or_else(|_| Err(PeerError::Dtls("the relay has stopped".into()))).map(|()| leg)
    }

    /// Takes a browser's offer; the SDP answer comes back.
    pub(crate) async fn open_browser(&self, offer: String, sink: LegSink) -> Result<(LegId, String), PeerError> {
        let leg = self.leg();
        let (done, made) = oneshot::channel();
        self.order(Order::OpenBrowser { leg, offer, sink, done }).await;
        let answer = made.await.unwrap_or_else(|_| Err(PeerError::Offer("the relay has stopped".into())))?;
        Ok((leg, answer))
    }

    pub(crate) async fn accepted(&self, leg: LegId) {
        self.order(Order::Accepted { leg }).await;
    }

    /// The call is over, but its path is left to the other side to close: a goodbye in the media must not overtake
    /// the terminate webhook.
    pub(crate) async fn over(&self, leg: LegId) {
        self.order(Order::Over { leg }).await;
    }

    pub(crate) async fn press(&self, leg: LegId, keys: Vec<KeyStep>) {
        self.order(Order::Press { leg, keys }).await;
    }

    /// Passes Opus through between a call and a browser, both ways.
    pub(crate) async fn bridge(&self, meta: LegId, browser: LegId) {
        self.order(Order::Bridge { meta, browser }).await;
    }

    /// Ends a leg, in silence or with a goodbye; what it recorded comes back.
    pub(crate) async fn close(&self, leg: LegId, goodbye: bool) -> Option<Vec<i16>> {
        let (recording, kept) = oneshot::channel();
        self.order(Order::Close { leg, goodbye, recording }).await;
        kept.await.ok().flatten()
    }

    fn leg(&self) -> LegId {
        LegId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    async fn order(&self, order: Order) {
        let _ = self.orders.send(order).await;
    }
}

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

struct Task {
    socket: UdpSocket,
    addr: SocketAddr,
    identity: Identity,
    clock: Clock,
    log: Arc<SimLog>,
    legs: BTreeMap<LegId, Leg>,
    by_ufrag: HashMap<String, LegId>,
    by_addr: HashMap<SocketAddr, LegId>,
}

/// A packet on its way from one bridged leg to the other.
struct Passing {
    to: LegId,
    time: u32,
    marker: bool,
    payload: Arc<[u8]>,
}

impl Task {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        // A late tick is made up for: timestamps are never skipped (M13, §5.3).
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        let mut buffer = vec![0u8; DATAGRAM_MAX];
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                order = orders.recv() => match order {
                    Some(order) => self.carry_out(order),
                    None => break,
                },
                _ = tick.tick() => self.tick(),
                got = self.socket.recv_from(&mut buffer) => {
                    // An ICMP error of an earlier send comes up here: it concerns nobody.
                    if let Ok((length, from)) = got {
                        self.datagram(from, buffer.get(..length).unwrap_or_default());
                        self.read_more(&mut buffer);
                    }
                }
            }
        }
    }

    fn read_more(&mut self, buffer: &mut [u8]) {
        for _ in 0..READ_MAX {
            match self.socket.try_recv_from(buffer) {
                Ok((length, from)) => self.datagram(from, buffer.get(..length).unwrap_or_default()),
                Err(_) => return,
            }
        }
    }

    fn carry_out(&mut self, order: Order) {
        let now = self.clock.now();
        match order {
            Order::OpenMeta { leg, plan, done } => {
                let made =
                    Peer::meta(&self.identity, &plan.side, self.addr, now).map(|peer| self.add_meta(leg, peer, *plan));
                let _ = done.send(made);
            }
            Order::OpenBrowser { leg, offer, sink, done } => {
                let made = Peer::browser(&self.identity, &offer, self.addr, now).map(|(mut peer, answer)| {
                    let ufrag = peer.local_ufrag();
                    self.by_ufrag.insert(ufrag.clone(), leg);
                    self.legs.insert(leg, Leg { peer, net: None, meta: None, bridge: None, ufrag, sink });
                    answer
                });
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
        self.legs.insert(id, Leg { peer, net, meta: Some(meta), bridge: None, ufrag, sink });
    }

    fn close(&mut self, id: LegId, goodbye: bool, now: Instant) -> Option<Vec<i16>> {
        let mut leg = self.legs.remove(&id)?;
        if goodbye {
            leg.peer.close(now);
            send(&self.socket, &mut leg, now);
        }
        self.by_ufrag.remove(&leg.ufrag);
        self.by_addr.retain(|_, owner| *owner != id);
        leg.meta.and_then(|m| m.ear.into_recording())
    }

    fn meta(&mut self, leg: LegId) -> Option<&mut MetaLeg> {
        self.legs.get_mut(&leg)?.meta.as_mut()
    }

    fn datagram(&mut self, from: SocketAddr, bytes: &[u8]) {
        let now = self.clock.now();
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
                    let _ = self.socket.try_send_to(&reply, from);
                    refuse_stun(&self.log, meta, "487 role conflict: the peer says controlled, and we are ICE-lite");
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

    fn tick(&mut self) {
        let now = self.clock.now();
        let ids: Vec<LegId> = self.legs.keys().copied().collect();
        for id in ids {
            if let Some(leg) = self.legs.get_mut(&id) {
                speak(leg, now);
                leg.peer.pass(now);
            }
            self.settle(id, now);
        }
    }

    /// Sends what a leg's peer has to send and tells what it has to tell.
    fn settle(&mut self, id: LegId, now: Instant) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        send(&self.socket, leg, now);
        let mut passing = Vec::new();
        for event in std::mem::take(&mut leg.peer.events) {
            match event {
                PeerEvent::Up => (leg.sink)(LegTold::Up),
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
        send(&self.socket, leg, now);
    }
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
        meta.keys.packet(now, 0, time, payload, &mut digits);
        digits.iter().for_each(|digit| (leg.sink)(LegTold::KeyHeard(digit.as_char())));
    }
    if is_opus && meta.ear.hear(time, payload, at_ms) {
        (leg.sink)(LegTold::FirstAudio);
    }
    is_opus
}

/// What the phone says in this tick.
fn speak(leg: &mut Leg, now: Instant) {
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
            leg.peer.write(now, pt, time, marker, payload);
        }
        Some(Spoken::Event { payload, time, marker }) => {
            // No telephone-event in the SDP: keys make no sound on the wire.
            if let Some(pt) = leg.peer.digit_pt() {
                leg.peer.write(now, pt, time, marker, Arc::from(payload));
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

fn refuse_stun(log: &SimLog, meta: &mut MetaLeg, why: &str) {
    // A peer in the wrong repeats itself every 50 ms: three lines are enough.
    meta.refusals = meta.refusals.saturating_add(1);
    if meta.refusals <= 3 {
        log.add(Logged::Stun { call_id: meta.call_id.clone(), details: why.to_owned() });
    }
}

fn send(socket: &UdpSocket, leg: &mut Leg, now: Instant) {
    // A full socket buffer loses the datagram, as a network would.
    let go = |datagram: Datagram| {
        let _ = socket.try_send_to(&datagram.bytes, datagram.to);
    };
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
