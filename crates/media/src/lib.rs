//! The media path: few UDP ports, shards that own them, legs as values, sound as frames.
//!
//! A call holds a [`LegHandle`]; its leg lives in one shard thread, which posts [`LegEvent`]s and never calls
//! back. Nothing here knows a call, a document or Meta. `sdp` reads offers and writes answers, `agent` is str0m as we
//! want it, `transport` a leg's own RTP (over `srtp`, `rtp`, `rtcp`), `ports` says which port a leg gets, `shard` is the
//! thread, `pace` its beat, `leg` what happens every 20 ms, `player` and `dtmf` are its parts as pure values, `prompt` holds
//! ready Opus frames that calls share. Who records, streams, mixes or recognises reads a `tap` as a `line` of PCM and speaks
//! through a `feed`, on `workers` beside the shards; a `cable` joins two of them without a leg.

// Bytes from outside must not make the process panic: where one of these is needed, an `allow` gives the reason.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::as_conversions
    )
)]
#![deny(unsafe_code, clippy::undocumented_unsafe_blocks)]

mod agent;
mod beep;
mod blend;
mod bridge;
mod cable;
pub mod conceal;
mod crowd;
mod drift;
mod dtls;
pub mod dtmf;
mod ear;
mod feed;
mod inlet;
mod layers;
mod leg;
mod line;
mod mixer;
mod offering;
#[allow(
    unsafe_code,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::as_conversions,
    reason = "lengths come from libopus and are checked"
)]
pub mod opus;
mod outbox;
mod pace;
mod player;
mod ports;
#[allow(unsafe_code, reason = "a prefetch instruction")]
mod prefetch;
#[doc(hidden)]
pub mod probe;
pub mod prompt;
mod quality;
pub mod record;
mod rtcp;
mod rtp;
pub mod sdp;
mod shard;
#[allow(
    unsafe_code,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::as_conversions,
    reason = "sendmmsg, recvmmsg and poll: lengths come from the kernel and are checked"
)]
pub mod sockets;
mod srtp;
#[doc(hidden)]
pub mod stun;
mod tap;
mod tones;
mod transport;
pub mod voice;
mod watchdog;
pub mod workers;

/// The packet layer beneath a leg, for programs that play the other side of a call.
pub mod packet {
    pub use crate::dtls::{Keyring, crypto, with_keyring};
    pub use crate::outbox::Outbox;
    pub use crate::rtp::{Looks, looks};
    pub use crate::srtp::Keys;
    pub use crate::transport::{Making, Received, Sending, Transport};
}

pub use bridge::{BridgeEnd, bridge};
pub use cable::{CableEnd, cable};
pub use feed::{FEED_MAX, Feed};
pub use line::{Line, Patience, Twenty};
pub use mixer::{Audience, MixEvent, MixPart, MixSink, Mixer, Played, RoomSound, Says};
pub use offering::OfferedLeg;
pub use player::PlayItem;
pub use quality::{Quality, Way};
pub use tap::{Sides, Tap};
pub use watchdog::Missing;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

use crate::sockets::interface_addresses;
use agent::{Agent, Credentials, Homes, Identity};
use leg::{Counters, Leg, LegOrder, Making};
use machine::{Overlay, MediaEvent, PlayId, VoiceEvent};
use model::Clock;
use model::{Digit, leads_to};
use ports::Ports;
use prompt::Frame;
use sdp::{Offer, Ours};
use shard::{NewLeg, Order, Shard, Tally};
use workers::Workers;
use xml::ast::Beep;

/// What a leg reports, to the [`EventSink`] it was made with.
#[derive(Clone, Debug, PartialEq)]
pub enum LegEvent {
    Fact(MediaEvent),
    PlayStarted(PlayId),
    Played(PlayId),
    PlayFailed {
        play: PlayId,
        item: u16,
        reason: String,
    },
    Digit(Digit),
    DigitsSent(PlayId),
    /// The first packet of ours went out, silence included.
    FirstSent,
    /// So long after [`LegHandle::open`] this is what there is no sound for; told at 3 s and at 8 s, or as soon as it is certain.
    /// `checking`: we send the ICE checks.
    Missing {
        missing: Missing,
        waited: Duration,
        checking: bool,
    },
    /// Told while [`LegHandle::listen`] is on.
    Voice(VoiceEvent),
}

/// Where a leg's events go. Called on a shard thread: must not block.
pub type EventSink = Arc<dyn Fn(LegEvent) + Send + Sync>;

/// How often what is made of live sound is gone on with.
const WORK_BEAT: Duration = Duration::from_millis(5);
/// Orders that a shard may be behind with. It takes a thousand every 5 ms.
const ORDERS_MAX: usize = 8_192;
/// The most addresses that we offer a peer (A3).
const PUBLIC_MAX: usize = 8;
/// What ICE credentials are made of (RFC 8445 §15.4: `ice-char`).
const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Characters of our ufrag and pwd: 48 and 144 bits (A4, R19).
const UFRAG_CHARS: usize = 8;
const PWD_CHARS: usize = 24;
/// And of the name that our RTCP reports bear (RFC 7022: 96 bits, as random).
const CNAME_CHARS: usize = 16;

/// Orders waiting for one shard past which no further call is taken (R10): two ticks' worth.
const ORDERS_BEHIND: usize = 2_048;

/// What media needs to be told (`[listen]`, `[public]`, `[limits]` of the configuration).
#[derive(Clone, Debug)]
pub struct MediaConfig {
    /// The first UDP port; port 0 takes any free ones (tests).
    pub listen: SocketAddr,
    /// The most ports, counted upward from the first; at least one is opened.
    pub max_ports: u16,
    /// Addresses for our candidates. Empty: the bound one, or the interfaces' where that is unspecified.
    pub public_ips: Vec<IpAddr>,
    /// Threads; each begins with one port.
    pub shards: usize,
    /// T_media_dead: a connected leg that hears nothing valid for so long is lost.
    pub media_dead: Duration,
}

/// Why a leg could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    #[error("make the DTLS certificate")]
    Certificate,
    #[error("answer the offer: it names no address of a family that we have")]
    NoFamily,
    #[error("use a public address: it is not one that a peer could reach")]
    NoAddress,
    #[error("draw random numbers from the system")]
    Random,
    #[error("make a leg: media is stopped")]
    Stopped,
}

/// Names a leg in its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct LegId(u64);

/// The media path of this process: owns the shard threads.
pub struct Media {
    clock: Clock,
    public_ips: Vec<IpAddr>,
    media_dead: Duration,
    identity: Identity,
    random: SystemRandom,
    silence: Frame,
    next_leg: AtomicU64,
    ports: Arc<Mutex<Ports>>,
    shards: Vec<ShardHandle>,
    workers: Workers,
}

/// A leg on its way into a shard.
struct Made {
    leg: Leg,
    ufrag: String,
    answer: String,
}

/// Our side of a leg.
struct Side {
    homes: Homes,
    pwd: String,
    ssrc: u32,
    cname: String,
    controlling: bool,
    /// We made the offer.
    offered: bool,
}

struct ShardHandle {
    orders: Orders,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// How media is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MediaStats {
    pub ports_open: usize,
    /// Answered and not over yet.
    pub legs: usize,
    /// RTP packets that authenticated, and those sent.
    pub packets_in: u64,
    pub packets_out: u64,
    /// Datagrams that belonged to nobody: dropped without an answer.
    pub strangers: u64,
    /// Ticks that began more than 20 ms late.
    pub late_ticks: u64,
}

impl Media {
    /// Opens the first ports and starts the shards. The metrics recorder must be in place: handles are taken here.
    ///
    /// # Errors
    /// A port that can't be bound, no address to offer, no certificate, no thread.
    pub fn start(config: MediaConfig, clock: Clock) -> io::Result<Arc<Self>> {
        let public_ips = public_ips(&config)?;
        let ports = Ports::open(config.listen, config.max_ports, config.shards.max(1))?;
        let firsts: Vec<_> = ports.ports().cloned().collect();
        let ports = Arc::new(Mutex::new(ports));
        let mut shards = Vec::new();
        for (n, first) in firsts.into_iter().enumerate() {
            let (queue_in, queue) = sync_channel(ORDERS_MAX);
            let tally = Arc::new(Tally::default());
            let orders = Orders { queue: queue_in, tally: tally.clone() };
            let shard = Shard::new(clock.clone(), queue, ports.clone(), tally, first)?;
            let thread = std::thread::Builder::new()
                .name(format!("media-{n}"))
                .spawn(move || shard.run())?;
            shards.push(ShardHandle { orders, thread: Mutex::new(Some(thread)) });
        }
        let workers = Workers::start("sound", shards.len(), WORK_BEAT, &clock)?;
        Ok(Arc::new(Self {
            clock,
            public_ips,
            media_dead: config.media_dead,
            identity: Identity::new().map_err(io::Error::other)?,
            random: SystemRandom::new(),
            silence: opus::silence_frame(),
            next_leg: AtomicU64::new(1),
            ports,
            shards,
            workers,
        }))
    }

    /// Whether a leg could answer `offer`: it names an address of a family that we have, or none at all, and then its
    /// peer comes to us.
    pub fn reaches(&self, offer: &Offer) -> bool {
        let families = |v4: bool| self.public_ips.iter().any(|ip| ip.is_ipv4() == v4);
        offer.candidates.is_empty() || offer.candidates.iter().any(|c| families(c.addr.is_ipv4()))
    }

    /// Makes a leg that answers `offer`, and our SDP: byte for byte what `pre_accept` and `accept` carry. Takes one
    /// or two milliseconds of CPU and does not wait. The leg is silent until [`LegHandle::begin`].
    ///
    /// # Errors
    /// [`MediaError::NoFamily`] where the offer has only addresses of a family that we don't serve: `bad_offer`.
    pub fn answer(
        &self,
        offer: &Offer,
        sink: EventSink,
    ) -> Result<(LegHandle, String), MediaError> {
        let id = LegId(self.next_leg.fetch_add(1, Ordering::Relaxed));
        let peers = offer.candidates.iter().map(|c| c.addr).collect();
        let (port, rivals) = {
            let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
            (ports.take(id, peers), ports.rivals(id))
        };
        let orders = match self.shards.get(port.shard) {
            Some(shard) => shard.orders.clone(),
            None => return Err(MediaError::Stopped),
        };
        // From here on, dropping the handle gives the port back.
        let counters = Arc::new(Counters::default());
        let mut handle =
            LegHandle { id, orders, counters: counters.clone(), unborn: Some(self.ports.clone()) };

        let reachable = self.reachable(port.bound);
        let Made { leg, ufrag, answer } = self.make(offer, &reachable, sink.clone(), counters)?;
        let new = NewLeg { id, port, rivals, ufrag, leg, sink };
        if !handle.orders.send(Order::Add(Box::new(new))) {
            return Err(MediaError::Stopped);
        }
        // The shard gives the port back when the leg ends.
        handle.unborn = None;
        Ok((handle, answer))
    }

    /// A leg that answers `offer` from these addresses; none of it is in a table yet.
    fn make(
        &self,
        offer: &Offer,
        reachable: &[SocketAddr],
        sink: EventSink,
        counters: Arc<Counters>,
    ) -> Result<Made, MediaError> {
        let now = self.clock.now();
        let homes = Homes::of(reachable);
        if !offer.candidates.is_empty()
            && offer.candidates.iter().all(|c| homes.towards(c.addr.ip()).is_none())
        {
            return Err(MediaError::NoFamily);
        }
        let ours = self.credentials()?;
        // The role follows the offer: a lite side is checked by us; a full one checks us.
        let controlling = offer.ice_lite;
        let agent = agent::towards(&self.identity, offer, homes, &ours, controlling, now)?;
        let (stream, track) = (self.uuid()?, self.uuid()?);
        let answer = offer.answer(&Ours {
            candidates: reachable,
            ufrag: &ours.ufrag,
            pwd: &ours.pwd,
            fingerprint: &self.identity.fingerprint,
            ssrc: ours.ssrc,
            cname: &ours.cname,
            stream: &stream,
            track: &track,
            session: u64::from_be_bytes(self.bytes()?) >> 2,
            ice_lite: !controlling,
        });
        let ufrag = ours.ufrag.clone();
        let side = Side {
            homes,
            pwd: ours.pwd,
            ssrc: ours.ssrc,
            cname: ours.cname,
            controlling,
            offered: false,
        };
        let leg = self.leg(offer, agent, side, sink, counters, now)?;
        Ok(Made { leg, ufrag, answer })
    }

    /// A leg towards the peer of `offer`, which may be an answer to ours.
    fn leg(
        &self,
        offer: &Offer,
        agent: Agent,
        side: Side,
        sink: EventSink,
        counters: Arc<Counters>,
        now: Instant,
    ) -> Result<Leg, MediaError> {
        Ok(Leg::new(Making {
            rtc: agent.rtc,
            mid: agent.mid,
            keys: agent.keys,
            cname: side.cname,
            ssrc: side.ssrc,
            sink,
            counters,
            homes: side.homes,
            pwd: side.pwd,
            remote_pwd: offer.pwd.clone(),
            controlling: side.controlling,
            offered: side.offered,
            dtls_client: offer.setup.answered() == sdp::Setup::Active,
            opus_pt: offer.opus_pt,
            telephone_events: offer.telephone_events.clone(),
            digits_out: offer.digits_out(),
            remote_ssrc: offer.ssrc,
            packet_ms: offer.ptime,
            // Half the range: no rollover within the first minutes (RFC 3711 §3.3.1).
            sequence: u16::from_be_bytes(self.bytes()?) >> 1,
            timestamp: u32::from_be_bytes(self.bytes()?),
            silence: self.silence.clone(),
            media_dead: self.media_dead,
            now,
            wall: self.clock.wall(),
        }))
    }

    /// The addresses under which a port is reached.
    fn reachable(&self, bound: SocketAddr) -> Vec<SocketAddr> {
        let serving = self.public_ips.iter().filter(|ip| leads_to(**ip, bound.ip()));
        serving.map(|ip| SocketAddr::new(*ip, bound.port())).take(PUBLIC_MAX).collect()
    }

    /// Fresh ones, from the system's generator (A4, R19).
    fn credentials(&self) -> Result<Credentials, MediaError> {
        Ok(Credentials {
            ufrag: self.ice_text::<UFRAG_CHARS>()?,
            pwd: self.ice_text::<PWD_CHARS>()?,
            // 0 means no SSRC to some.
            ssrc: u32::from_be_bytes(self.bytes()?).max(1),
            cname: self.ice_text::<CNAME_CHARS>()?,
        })
    }

    fn uuid(&self) -> Result<String, MediaError> {
        Ok(uuid::Builder::from_random_bytes(self.bytes()?).into_uuid().to_string())
    }

    /// Where live sound is worked on, beside the shards: streams, mixes, recognition. Beats every 5 ms.
    pub fn workers(&self) -> &Workers {
        &self.workers
    }

    /// Says goodbye on all legs and ends the threads. Later answers are refused.
    pub fn stop(&self) {
        for shard in &self.shards {
            shard.orders.send(Order::Stop);
        }
        for shard in &self.shards {
            let thread = shard.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            // The last owner of an `Arc<Media>` may be a sink, and a sink is dropped on its shard's thread.
            if let Some(thread) = thread.filter(|t| t.thread().id() != std::thread::current().id())
            {
                // A panic of the thread has been logged where it happened.
                let _ = thread.join();
            }
        }
        self.workers.stop();
    }

    /// Whether a shard is behind with its orders: no time for a further call.
    pub fn is_behind(&self) -> bool {
        self.shards.iter().any(|shard| shard.orders.is_behind())
    }

    /// Counts since the start.
    pub fn stats(&self) -> MediaStats {
        let mut stats = MediaStats::default();
        {
            let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
            stats.ports_open = ports.ports().count();
            stats.legs = ports.legs();
        }
        for tally in self.shards.iter().map(|s| &s.orders.tally) {
            stats.packets_in += tally.packets_in.load(Ordering::Relaxed);
            stats.packets_out += tally.packets_out.load(Ordering::Relaxed);
            stats.strangers += tally.strangers.load(Ordering::Relaxed);
            stats.late_ticks += tally.late_ticks.load(Ordering::Relaxed);
        }
        stats
    }

    fn bytes<const N: usize>(&self) -> Result<[u8; N], MediaError> {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes).map_err(|_| MediaError::Random)?;
        Ok(bytes)
    }

    /// Random ICE characters, six bits each.
    fn ice_text<const N: usize>(&self) -> Result<String, MediaError> {
        let pick = |b: u8| ICE_CHARS.get(usize::from(b & 63)).copied().map_or('A', char::from);
        Ok(self.bytes::<N>()?.into_iter().map(pick).collect())
    }
}

impl Drop for Media {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A call's hold on its leg. Dropping it closes the leg.
///
/// Orders are queued for the shard, which takes them within 5 ms; they wait only when it is thousands behind.
pub struct LegHandle {
    id: LegId,
    orders: Orders,
    counters: Arc<Counters>,
    /// Set while the shard doesn't have the leg yet: where its port is to be given back.
    unborn: Option<Arc<Mutex<Ports>>>,
}

/// What a leg has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LegStats {
    /// RTP packets that authenticated, digits included.
    pub rtp_in: u64,
    pub rtp_out: u64,
    /// At most a second old; all zeroes where the leg was never up, or its RTP is the WebRTC library's.
    pub quality: Quality,
}

impl LegHandle {
    /// ICE checks start now: `pre_accept` is being sent.
    pub fn begin(&self) {
        self.order(LegOrder::Begin);
    }

    /// `accept` got its 200: once connected, a packet goes out every 20 ms.
    pub fn open(&self) {
        self.order(LegOrder::Open);
    }

    /// Plays these one after another without a gap, instead of what plays now. Begins when the leg is connected and
    /// open; [`LegEvent::Played`] comes when the last frame has been heard out.
    pub fn play(&self, play: PlayId, items: Vec<PlayItem>) {
        self.order(LegOrder::Play(play, items));
    }

    /// Plays these beside what [`LegHandle::play`] plays, over it or instead of it; `items` are `aside`'s. Replaces what
    /// plays of the same kind. The same events come of it.
    pub fn play_aside(&self, play: PlayId, aside: Overlay, items: Vec<PlayItem>) {
        self.order(LegOrder::Aside(play, aside, items));
    }

    /// Stops that play, or those digits, with the next packet; no event follows.
    pub fn stop(&self, play: PlayId) {
        self.order(LegOrder::Stop(play));
    }

    /// Sends keys (RFC 4733): `0-9 * # A-D`, `w` waits half a second, `W` a second, after those already ordered. [`LegEvent::DigitsSent`] comes at
    /// the end. Where the offer had no telephone-event they are sent as tones.
    pub fn send_digits(&self, play: PlayId, digits: &str) {
        self.order(LegOrder::SendDigits(play, digits.to_owned()));
    }

    /// Tells where the peer's voice begins and ends, or no longer. Its sound is decoded meanwhile.
    pub fn listen(&self, on: bool) {
        self.order(LegOrder::Listen(on));
    }

    /// Tells once a voicemail has beeped, or no longer.
    pub fn await_beep(&self, how: Option<Beep>) {
        self.order(LegOrder::Beep(how));
    }

    /// From now on its peer hears the peer of the leg that has the other end, and is heard there. What is played goes
    /// before that.
    pub fn bridge(&self, end: BridgeEnd) {
        self.order(LegOrder::Bridge(Box::new(end)));
    }

    /// No longer.
    pub fn part(&self) {
        self.order(LegOrder::Part);
    }

    /// A copy of what passes here, to be read elsewhere ([`Line`]). It begins with the next tick and is over when the leg
    /// is. The sound is not decoded here.
    pub fn tap(&self, sides: Sides) -> Tap {
        let (end, tap) = tap::tap(sides);
        self.order(LegOrder::Tap(end));
        tap
    }

    /// Live sound to the peer, in place of an earlier feed, once `lead` frames are there, and again after it ran dry. What
    /// is played goes before it; the other leg of a bridge, and a room, are heard beneath it.
    pub fn feed(&self, lead: usize) -> Feed {
        let (feed, end) = feed::feed(lead);
        self.order(LegOrder::Feed(Box::new(end)));
        feed
    }

    /// The same of a room, in place of an earlier one: its words go before the music that is played to who waits or is on hold.
    pub fn room_feed(&self, lead: usize) -> Feed {
        let (feed, end) = feed::feed(lead);
        self.order(LegOrder::Room(Box::new(end)));
        feed
    }

    /// Nobody hears the peer's sound, or all do again. Its keys count all the same, and that it is there.
    pub fn mute(&self, on: bool) {
        self.order(LegOrder::Mute(on));
    }

    /// RTCP BYE, DTLS close, gone. No event follows.
    pub fn close(&self) {
        self.order(LegOrder::Close);
    }

    /// Counts so far.
    pub fn stats(&self) -> LegStats {
        LegStats {
            rtp_in: self.counters.rtp_in.load(Ordering::Relaxed),
            rtp_out: self.counters.rtp_out.load(Ordering::Relaxed),
            quality: self.counters.quality.read(),
        }
    }

    fn order(&self, order: LegOrder) {
        // A stopped shard has no leg to order about.
        self.orders.send(Order::Leg(self.id, order));
    }
}

impl fmt::Debug for LegHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LegHandle").field(&self.id.0).finish()
    }
}

impl Drop for LegHandle {
    fn drop(&mut self) {
        match self.unborn.take() {
            Some(ports) => ports.lock().unwrap_or_else(PoisonError::into_inner).release(self.id),
            None => self.close(),
        }
    }
}

/// A shard's queue of orders.
#[derive(Clone)]
struct Orders {
    queue: SyncSender<Order>,
    tally: Arc<Tally>,
}

impl Orders {
    /// Queues an order; false: the shard has ended. A full queue is waited for (a tick, as a rule): no order may be
    /// lost.
    fn send(&self, order: Order) -> bool {
        self.tally.waiting.fetch_add(1, Ordering::Relaxed);
        match self.queue.try_send(order) {
            Ok(()) => true,
            Err(TrySendError::Full(order)) => self.queue.send(order).is_ok(),
            Err(TrySendError::Disconnected(_)) => false,
        }
    }

    fn is_behind(&self) -> bool {
        self.tally.waiting.load(Ordering::Relaxed) > ORDERS_BEHIND
    }
}

/// The addresses for our candidates, best first; never an unspecified one.
fn public_ips(config: &MediaConfig) -> io::Result<Vec<IpAddr>> {
    let bound = config.listen.ip();
    let mut ips: Vec<IpAddr> = match config.public_ips.as_slice() {
        [] if !bound.is_unspecified() => vec![bound],
        [] => {
            let all = interface_addresses()?;
            // Loopback is of use to peers on this machine alone: only where there is nothing else.
            let outward: Vec<IpAddr> = all.iter().filter(|ip| !ip.is_loopback()).copied().collect();
            if outward.is_empty() { all } else { outward }
        }
        named => named.to_vec(),
    };
    ips.retain(|ip| leads_to(*ip, bound));
    if ips.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::AddrNotAvailable,
            "no address to offer to peers",
        ));
    }
    Ok(ips)
}

#[cfg(test)]
mod network_tests;
#[cfg(any(test, feature = "test-util"))]
#[doc(hidden)]
pub mod test_peer;
#[cfg(test)]
mod tests;
