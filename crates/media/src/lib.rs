//! WebRTC media: UDP ports, the threads that own them, the legs of calls, and the audio that passes
//! through them.
//!
//! A call holds a [`LegHandle`]. The leg itself lives on one media thread, its *shard*, and reports
//! [`LegEvent`]s through an [`EventSink`]. This crate knows nothing about calls, XML documents or
//! Meta.
//!
//! | modules | task |
//! |---|---|
//! | `sdp` | parses offers, writes answers |
//! | `ports` | assigns UDP ports to legs |
//! | `shard`, `ticker` | the media thread and its timing |
//! | `leg` | one leg and its 20 ms tick; `player`, `layers`, `dtmf`, `tones` are its parts |
//! | `ice`, `dtls`, `stun` | ICE and DTLS by str0m, with different timing |
//! | `transport`, `srtp`, `rtp`, `rtcp` | the RTP path of a leg |
//! | `prompt` | encoded audio that calls share |
//! | `tap`, `tap_reader`, `feed` | audio out of and into a leg, for recordings, streams and rooms |
//! | `mixer`, `record`, `workers` | rooms, recordings, and the threads that they run on |
//! | `seats` | audio between a room and members at other nodes |
//! | `hand_over`, `snapshot` | move legs to another process |
//! | `bridge`, `cable` | connect two legs, or two users of taps and feeds without a leg |

// Input from the network must not make the process panic. Each exception has an `allow` with a
// reason.
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

mod audio_detector;
mod beep;
mod bridge;
mod cable;
pub mod conceal;
mod drift;
mod dtls;
pub mod dtmf;
mod feed;
mod hand_over;
mod held_tap;
mod ice;
mod jitter_buffer;
mod layers;
mod leg;
mod mixer;
mod offered_leg;
#[allow(
    unsafe_code,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::as_conversions,
    reason = "lengths come from libopus and are checked"
)]
pub mod opus;
mod pace;
mod packet_mixer;
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
mod seats;
mod send_buffer;
mod shard;
mod shared_paths;
mod snapshot;
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
mod tap_reader;
mod ticker;
mod tones;
mod transport;
pub mod turn;
pub mod voice;
mod waker;
mod watchdog;
pub mod workers;

/// The packet layer below a leg, for programs that play the peer of a call.
pub mod packet {
    pub use crate::dtls::{KeyCell, crypto, with_key_cell};
    pub use crate::rtp::{PacketKind, packet_kind};
    pub use crate::send_buffer::SendBuffer;
    pub use crate::srtp::Keys;
    pub use crate::transport::{OutgoingPacket, ReceivedPacket, Transport, TransportConfig};
}

use bridge::ContinuedBridges;
pub use bridge::{BridgeEnd, bridge};
pub use cable::{CableEnd, cable};
pub use feed::{FEED_MAX, Feed};
pub use hand_over::{ContinuedLeg, OtherProcess};
pub use held_tap::HeldTap;
pub use mixer::{Audience, Listeners, MemberAudio, MixEvent, MixSink, Mixer, RoomAudio, SoundKind};
pub use offered_leg::{OfferedLeg, OfferedLegSnapshot};
pub use player::PlayItem;
pub use quality::{Quality, StreamStats};
pub use seats::{PortEnd, SeatAudio, SeatEnd, SeatPacket, SeatSink, port};
pub use snapshot::{LegSnapshot, NotMovable, PromptTable};
pub use tap::{Tap, TapSides};
pub use tap_reader::{AudioFrame, Buffering, TapReader};
pub use watchdog::MissingStep;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

use crate::sockets::interface_addresses;
use ice::{Credentials, IceAgent, Identity, LocalAddresses};
use leg::{Counters, Leg, LegCommand, LegConfig, NetworkConfig};
use machine::{MediaEvent, Overlay, PlayId, VoiceEvent};
use model::Clock;
use model::{Digit, can_reach};
use ports::{Port, PortTable};
use prompt::Frame;
use sdp::{LocalDescription, Offer};
use shard::{Command, NewLeg, Shard, ShardCounters};
use turn::{Relay, RelayedAddress, TurnServer};
use waker::Waker;
use workers::Workers;
use xml::ast::Beep;

/// An event of a leg, delivered to the [`EventSink`] that the leg was created with.
#[derive(Clone, Debug, PartialEq)]
pub enum LegEvent {
    /// The state of the media path changed.
    Media(MediaEvent),
    /// The first frame of a playlist was sent.
    PlayStarted(PlayId),
    /// The last frame of a playlist was sent 20 ms ago.
    Played(PlayId),
    /// Item `item` (from 0) of a playlist failed and was skipped.
    PlayFailed { play: PlayId, item: u16, reason: String },
    /// The peer pressed a key.
    Digit(Digit),
    /// The digits of a [`LegHandle::send_digits`] were sent.
    DigitsSent(PlayId),
    /// The first RTP packet was sent. It may be silence.
    FirstSent,
    /// No audio has arrived within the time `waited` after [`LegHandle::open`]. `missing` is the
    /// first step that has not succeeded. Reported after 3 s and after 8 s. A wrong certificate is
    /// reported immediately. `checking` is true if this side sends the ICE checks.
    NoAudio { missing: MissingStep, waited: Duration, checking: bool },
    /// Speech or a beep was detected; see [`LegHandle::detect_voice`] and
    /// [`LegHandle::detect_beep`].
    Voice(VoiceEvent),
}

/// Receives the events of a leg. It is called on a shard thread and must not block.
pub type EventSink = Arc<dyn Fn(LegEvent) + Send + Sync>;

/// Duration of a frame in milliseconds. All audio moves in frames of this length.
pub const FRAME_MS: u32 = 20;
/// Interval at which the worker threads run their jobs.
const WORKER_INTERVAL: Duration = Duration::from_millis(5);
/// Capacity of a shard's command queue. A shard executes about a thousand commands every 5 ms.
const COMMAND_QUEUE_MAX: usize = 8_192;
/// Maximum number of host candidates that are offered to a peer (docs/reference/meta.md#a3).
const CANDIDATES_MAX: usize = 8;
/// Alphabet of ICE credentials (`ice-char`, RFC 8445 §15.4).
const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Length in characters of our ufrag, followed by that of our password: 48 and 144 bits of
/// randomness (docs/reference/meta.md#a4).
const UFRAG_CHARS: usize = 8;
const PWD_CHARS: usize = 24;
/// Length of the RTCP CNAME in characters, 96 random bits (RFC 7022).
const CNAME_CHARS: usize = 16;

/// Time limit at start-up for obtaining an address from the TURN server.
const ALLOCATION_WAIT: Duration = Duration::from_secs(5);
/// Number of queued commands of one shard above which no new call is accepted. Two ticks execute
/// this many.
const COMMAND_BACKLOG_MAX: usize = 2_048;

/// Settings of the media path, from `[listen]`, `[public]` and `[limits]` of the configuration.
#[derive(Clone, Debug)]
pub struct MediaConfig {
    /// Address of the first UDP port. Port 0 binds free ports (tests).
    pub listen: SocketAddr,
    /// Maximum number of ports. Port numbers are counted upward from the first. At least one port
    /// is opened.
    pub max_ports: u16,
    /// The addresses of our ICE candidates. If empty, the bound address is used, or the addresses
    /// of the interfaces if that is unspecified.
    pub public_ips: Vec<IpAddr>,
    /// The TURN server that relays all media. If set, there is one port per shard, `public_ips` has
    /// no effect, and candidates contain relayed addresses.
    pub turn: Option<TurnServer>,
    /// Number of shard threads. Each starts with one port.
    pub shards: usize,
    /// Time without any valid packet after which a connected leg is lost
    /// (docs/reference/meta.md#t-media-dead).
    pub media_dead: Duration,
    /// Whether [`Media::read_offer`] accepts candidates with loopback addresses, which a simulated
    /// Meta sends.
    pub loopback_offers: bool,
    /// Bound sockets of an earlier process, from [`Media::sockets`]. They are used instead of binding
    /// their addresses, and are read from [`Media::start_receiving`] on.
    pub inherited: Vec<Arc<UdpSocket>>,
}

/// The reason why a leg could not be created.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    #[error("could not create the DTLS certificate")]
    Certificate,
    #[error(
        "could not answer the offer: it has no candidate of an address family that this node serves"
    )]
    NoFamily,
    #[error("this node has no address that peers can reach: no ICE candidate is left")]
    NoAddress,
    #[error("could not read random numbers from the operating system")]
    Random,
    #[error("could not create a leg: the media threads have stopped")]
    Stopped,
    #[error("could not adopt a leg: its snapshot is malformed or lacks a prompt")]
    Snapshot,
    #[error("could not adopt a leg: its UDP port {0} was not inherited")]
    PortNotInherited(SocketAddr),
}

/// Identifies a leg within the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct LegId(u64);

/// The media path of the process. Owns the shard threads.
pub struct Media {
    clock: Clock,
    public_ips: Vec<IpAddr>,
    /// The relayed address of each port. Empty without a TURN server.
    relayed: Vec<RelayedAddress>,
    media_dead: Duration,
    loopback_offers: bool,
    identity: Arc<Identity>,
    random: SystemRandom,
    silence: Frame,
    next_leg: AtomicU64,
    /// The bridges of adopted legs.
    bridges: Mutex<ContinuedBridges>,
    ports: Arc<Mutex<PortTable>>,
    shards: Vec<ShardHandle>,
    mixers: Workers,
    workers: Workers,
}

/// A leg that answers an offer and has not been handed to its shard.
struct AnsweredLeg {
    leg: Leg,
    ufrag: String,
    answer: String,
}

/// The local parameters of a leg.
struct LocalSide {
    local_addresses: LocalAddresses,
    pwd: String,
    ssrc: u32,
    cname: String,
    controlling: bool,
    /// Whether this side made the offer.
    offered: bool,
}

struct ShardHandle {
    commands: CommandSender,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Counters of the media path since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MediaStats {
    /// The number of UDP ports that are open now.
    pub ports_open: usize,
    /// The number of legs that were created and have not ended.
    pub legs: usize,
    /// The number of received RTP packets that were authentic.
    pub packets_in: u64,
    /// The number of RTP packets sent.
    pub packets_out: u64,
    /// The number of datagrams that matched no leg, and of STUN requests beyond the limits of their leg.
    /// They are dropped without a reply.
    pub unmatched: u64,
    /// The number of ticks that started more than 20 ms late.
    pub late_ticks: u64,
}

impl Media {
    /// Opens the first ports and starts the shard and worker threads. The metrics recorder must be
    /// installed before, because metric handles are created here.
    ///
    /// # Errors
    ///
    /// Returns an error if a port cannot be bound, no address can be offered, the certificate
    /// cannot be created, or a thread cannot be started.
    pub fn start(config: MediaConfig, clock: Clock) -> io::Result<Arc<Self>> {
        // Until the legs are adopted, the earlier process reads its sockets.
        let reads = config.inherited.is_empty() || config.turn.is_some();
        let (mut public_ips, ports) = match &config.turn {
            None => (
                public_ips(&config)?,
                PortTable::open(
                    config.listen,
                    config.max_ports,
                    config.shards.max(1),
                    config.inherited,
                )?,
            ),
            // Peers see the relayed ports, so the local port does not matter. A new port avoids
            // waiting for the server to forget an earlier process.
            Some(_) => {
                let ports = u16::try_from(config.shards).unwrap_or(u16::MAX);
                let listen = SocketAddr::new(config.listen.ip(), 0);
                (Vec::new(), PortTable::open(listen, ports, config.shards.max(1), Vec::new())?)
            }
        };
        let mut relayed = Vec::new();
        let first_ports: Vec<_> = ports.ports().cloned().collect();
        let ports = Arc::new(Mutex::new(ports));
        let mut shards = Vec::new();
        for (n, port) in first_ports.into_iter().enumerate() {
            let (queue_in, queue) = sync_channel(COMMAND_QUEUE_MAX);
            let counters = Arc::new(ShardCounters::default());
            let waker = Arc::new(Waker::new()?);
            let commands =
                CommandSender { queue: queue_in, counters: counters.clone(), waker: waker.clone() };
            let relay =
                config.turn.clone().map(|server| Relay::new(server, port.bound, clock.now()));
            relayed.extend(relay.as_ref().map(Relay::relayed));
            let port = (port, relay);
            let shard =
                Shard::new(clock.clone(), (queue, waker), ports.clone(), counters, port, reads)?;
            let thread = std::thread::Builder::new()
                .name(format!("media-{n}"))
                .spawn(move || shard.run())?;
            shards.push(ShardHandle { commands, thread: Mutex::new(Some(thread)) });
        }
        if let Some(turn) = &config.turn {
            for address in &relayed {
                let address = address.wait(ALLOCATION_WAIT);
                public_ips.push(address.map(|address| address.ip()).ok_or_else(|| no_relay(turn))?);
            }
        }
        let workers = |name| Workers::start(name, shards.len(), WORKER_INTERVAL, &clock);
        let (mixers, workers) = (workers("mixer")?, workers("sound")?);
        Ok(Arc::new(Self {
            clock,
            public_ips,
            relayed,
            media_dead: config.media_dead,
            loopback_offers: config.loopback_offers,
            identity: Arc::new(Identity::new().map_err(io::Error::other)?),
            random: SystemRandom::new(),
            silence: opus::silence_frame(),
            next_leg: AtomicU64::new(1),
            bridges: Mutex::default(),
            ports,
            shards,
            mixers,
            workers,
        }))
    }

    /// Parses an SDP offer, or an answer to our offer (`docs/reference/meta.md#usable-offer`). If
    /// no leg could answer it, logs the reason and returns `None`.
    pub fn read_offer(&self, sdp: &str) -> Option<Offer> {
        let offer = match Offer::parse(sdp, self.loopback_offers) {
            Ok(offer) => offer,
            Err(fault) => {
                tracing::info!(%fault, "unusable offer");
                return None;
            }
        };
        if !self.can_answer(&offer) {
            tracing::info!(
                "offer has no candidate of an address family of this node; see public.media_ips"
            );
            return None;
        }
        Some(offer)
    }

    /// Returns whether a leg could answer `offer`. It must contain a candidate of an address family
    /// that this node serves, or no candidate at all, in which case the peer sends the checks.
    fn can_answer(&self, offer: &Offer) -> bool {
        let families = |v4: bool| self.public_ips.iter().any(|ip| ip.is_ipv4() == v4);
        offer.candidates.is_empty() || offer.candidates.iter().any(|c| families(c.addr.is_ipv4()))
    }

    /// Creates a leg that answers `offer`, and returns it with the SDP answer. `pre_accept` and
    /// `accept` must both carry this text unchanged. Takes one to two milliseconds of CPU time and
    /// does not block. The leg sends nothing until [`LegHandle::begin`].
    ///
    /// # Errors
    ///
    /// Returns [`MediaError::NoFamily`] if the offer has only candidates of address families that
    /// this node does not serve.
    pub fn answer(
        &self,
        offer: &Offer,
        sink: EventSink,
    ) -> Result<(LegHandle, String), MediaError> {
        let id = LegId(self.next_leg.fetch_add(1, Ordering::Relaxed));
        let peers: Vec<SocketAddr> = offer.candidates.iter().map(|c| c.addr).collect();
        let (port, conflicts) = {
            let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
            (ports.allocate(id, peers.clone()), ports.conflicts(id))
        };
        let commands = match self.shards.get(port.shard) {
            Some(shard) => shard.commands.clone(),
            None => return Err(MediaError::Stopped),
        };
        // From here on, dropping the handle releases the port.
        let counters = Arc::new(Counters::default());
        let mut handle = LegHandle {
            id,
            commands,
            counters: counters.clone(),
            reserved_in: Some(self.ports.clone()),
        };

        let reachable = self.reachable(&port);
        let AnsweredLeg { leg, ufrag, answer } =
            self.prepare_answer(offer, &reachable, sink.clone(), counters)?;
        let new = NewLeg { id, port, conflicts, ufrag, peers, leg, sink };
        if !handle.commands.send(Command::Add(Box::new(new))) {
            return Err(MediaError::Stopped);
        }
        // The shard releases the port when the leg ends.
        handle.reserved_in = None;
        Ok((handle, answer))
    }

    /// Creates a leg that answers `offer` from these local addresses, without registering it.
    fn prepare_answer(
        &self,
        offer: &Offer,
        reachable: &[SocketAddr],
        sink: EventSink,
        counters: Arc<Counters>,
    ) -> Result<AnsweredLeg, MediaError> {
        let now = self.clock.now();
        let local_addresses = LocalAddresses::first_per_family(reachable);
        if !offer.candidates.is_empty()
            && offer.candidates.iter().all(|c| local_addresses.for_peer(c.addr.ip()).is_none())
        {
            return Err(MediaError::NoFamily);
        }
        let ours = self.credentials()?;
        // A lite peer does not send checks, so this side sends them. Otherwise the peer does.
        let controlling = offer.ice_lite;
        let ice_agent =
            ice::new_agent(&self.identity, offer, local_addresses, &ours, controlling, now)?;
        let (stream, track) = (self.random_uuid()?, self.random_uuid()?);
        let answer = offer.answer(&LocalDescription {
            candidates: reachable,
            ufrag: &ours.ufrag,
            pwd: &ours.pwd,
            fingerprint: &self.identity.fingerprint,
            ssrc: ours.ssrc,
            cname: &ours.cname,
            stream: &stream,
            track: &track,
            session: u64::from_be_bytes(self.random_bytes()?) >> 2,
            ice_lite: !controlling,
        });
        let ufrag = ours.ufrag.clone();
        let side = LocalSide {
            local_addresses,
            pwd: ours.pwd,
            ssrc: ours.ssrc,
            cname: ours.cname,
            controlling,
            offered: false,
        };
        let leg = self.build_leg(offer, ice_agent, side, sink, counters, now)?;
        Ok(AnsweredLeg { leg, ufrag, answer })
    }

    /// Creates a leg for the peer of `offer`, which may also be the answer to our offer.
    fn build_leg(
        &self,
        offer: &Offer,
        ice_agent: IceAgent,
        side: LocalSide,
        sink: EventSink,
        counters: Arc<Counters>,
        now: Instant,
    ) -> Result<Leg, MediaError> {
        Ok(Leg::new(LegConfig {
            network: NetworkConfig {
                rtc: ice_agent.rtc,
                mid: ice_agent.mid,
                keys: ice_agent.keys,
                cname: side.cname,
                ssrc: side.ssrc,
                remote_ssrc: offer.ssrc,
                opus_pt: offer.opus_pt,
                local_addresses: side.local_addresses,
                pwd: side.pwd,
                remote_ufrag: offer.ufrag.clone(),
                remote_pwd: offer.pwd.clone(),
                controlling: side.controlling,
                dtls_client: offer.setup.answer_role() == sdp::Setup::Active,
                now,
                wall: self.clock.wall(),
            },
            sink,
            counters,
            offered: side.offered,
            telephone_events: offer.telephone_events.clone(),
            telephone_event_out: offer.telephone_event_out(),
            packet_ms: offer.ptime,
            // Only half of the range is used, so that the sequence number does not roll over within
            // the first minutes (RFC 3711 §3.3.1).
            sequence: u16::from_be_bytes(self.random_bytes()?) >> 1,
            timestamp: u32::from_be_bytes(self.random_bytes()?),
            silence: self.silence.clone(),
            media_dead: self.media_dead,
        }))
    }

    /// Returns the public addresses at which a port can be reached.
    fn reachable(&self, port: &Port) -> Vec<SocketAddr> {
        if !self.relayed.is_empty() {
            let relayed = self.relayed.get(usize::from(port.id.0));
            return relayed.and_then(RelayedAddress::get).into_iter().collect();
        }
        let bound = port.bound;
        let serving = self.public_ips.iter().filter(|ip| can_reach(**ip, bound.ip()));
        serving.map(|ip| SocketAddr::new(*ip, bound.port())).take(CANDIDATES_MAX).collect()
    }

    /// Creates fresh random credentials for one leg.
    fn credentials(&self) -> Result<Credentials, MediaError> {
        Ok(Credentials {
            ufrag: self.random_ice_chars::<UFRAG_CHARS>()?,
            pwd: self.random_ice_chars::<PWD_CHARS>()?,
            // Some implementations interpret SSRC 0 as a missing SSRC.
            ssrc: u32::from_be_bytes(self.random_bytes()?).max(1),
            cname: self.random_ice_chars::<CNAME_CHARS>()?,
        })
    }

    fn random_uuid(&self) -> Result<String, MediaError> {
        Ok(uuid::Builder::from_random_bytes(self.random_bytes()?).into_uuid().to_string())
    }

    /// The worker threads for jobs on the audio of one call: streams, speech recognition. They run
    /// every 5 ms.
    pub fn workers(&self) -> &Workers {
        &self.workers
    }

    /// The worker threads for conferences and multi-party calls. They are others, because streams with
    /// noise cancellation can take all the time of a thread. They run every 5 ms.
    pub fn mixers(&self) -> &Workers {
        &self.mixers
    }

    /// Closes all legs and stops the threads. Later calls to [`Media::answer`] fail.
    pub fn stop(&self) {
        for shard in &self.shards {
            shard.commands.send(Command::Stop);
        }
        for shard in &self.shards {
            let thread = shard.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            // The last owner of an `Arc<Media>` may be a sink, which is dropped on its shard's
            // thread.
            if let Some(thread) = thread.filter(|t| t.thread().id() != std::thread::current().id())
            {
                // The thread has already logged its panic.
                let _ = thread.join();
            }
        }
        self.mixers.stop();
        self.workers.stop();
    }

    /// Returns the open sockets, for the process that replaces this one.
    pub fn sockets(&self) -> Vec<Arc<UdpSocket>> {
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports.ports().map(|port| port.socket.clone()).collect()
    }

    /// Returns whether a shard's command queue is too long to accept another call.
    pub fn is_behind(&self) -> bool {
        self.shards.iter().any(|shard| shard.commands.is_behind())
    }

    /// Returns the load of the busiest shard: 0 without legs, 1 if its thread does nothing but
    /// media.
    pub fn load(&self) -> f64 {
        let loads = self.shards.iter().map(|shard| shard.commands.counters.load());
        f64::from(loads.fold(0.0, f32::max))
    }

    /// Returns the counters since the start.
    pub fn stats(&self) -> MediaStats {
        let mut stats = MediaStats::default();
        {
            let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
            stats.ports_open = ports.ports().count();
            stats.legs = ports.legs();
        }
        for counters in self.shards.iter().map(|s| &s.commands.counters) {
            stats.packets_in += counters.packets_in.load(Ordering::Relaxed);
            stats.packets_out += counters.packets_out.load(Ordering::Relaxed);
            stats.unmatched += counters.unmatched.load(Ordering::Relaxed);
            stats.late_ticks += counters.late_ticks.load(Ordering::Relaxed);
        }
        stats
    }

    fn random_bytes<const N: usize>(&self) -> Result<[u8; N], MediaError> {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes).map_err(|_| MediaError::Random)?;
        Ok(bytes)
    }

    /// Returns random ICE characters with six bits of randomness each.
    fn random_ice_chars<const N: usize>(&self) -> Result<String, MediaError> {
        let pick = |b: u8| ICE_CHARS.get(usize::from(b & 63)).copied().map_or('A', char::from);
        Ok(self.random_bytes::<N>()?.into_iter().map(pick).collect())
    }
}

impl Drop for Media {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A call's handle to its leg. Dropping it closes the leg.
///
/// Methods queue commands for the shard, which executes them within 5 ms. They block only if
/// thousands of commands are queued.
pub struct LegHandle {
    id: LegId,
    commands: CommandSender,
    counters: Arc<Counters>,
    /// The table in which the port is reserved, until the shard has taken over the leg.
    reserved_in: Option<Arc<Mutex<PortTable>>>,
}

/// Counters of a leg.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LegStats {
    /// The number of received RTP packets that were authentic, including telephone events.
    pub rtp_in: u64,
    /// The number of RTP packets sent.
    pub rtp_out: u64,
    /// The measured quality, updated once a second. All zero if the leg never connected, or if
    /// str0m carries its RTP.
    pub quality: Quality,
}

impl LegHandle {
    /// Starts the ICE checks. Call this when `pre_accept` is sent.
    pub fn begin(&self) {
        self.command(LegCommand::Begin);
    }

    /// Starts sending audio: one packet every 20 ms as soon as the leg is connected. Call this when
    /// `accept` has succeeded.
    pub fn open(&self) {
        self.command(LegCommand::Open);
    }

    /// Plays `items` one after another without a gap, in place of the current playlist. Playing
    /// starts when the leg is connected and open. [`LegEvent::Played`] is reported when the last
    /// frame has been played by the peer.
    pub fn play(&self, play: PlayId, items: Vec<PlayItem>) {
        self.command(LegCommand::Play(play, items));
    }

    /// Plays `items` in addition to the current playlist or in place of it, as specified in
    /// `aside`, and replaces earlier items of the same kind. Reports the same events as
    /// [`LegHandle::play`].
    pub fn play_aside(&self, play: PlayId, aside: Overlay, items: Vec<PlayItem>) {
        self.command(LegCommand::Overlay(play, aside, items));
    }

    /// Stops a playlist or digits by their id. No event follows.
    pub fn stop(&self, play: PlayId) {
        self.command(LegCommand::Stop(play));
    }

    /// Pauses or resumes a playlist by its id. Playback resumes with the next frame.
    pub fn pause(&self, play: PlayId, on: bool) {
        self.command(LegCommand::Pause(play, on));
    }

    /// Sends DTMF digits after those already queued: `0-9 * # A-D`; `w` waits half a second and `W`
    /// one second. They are sent as RFC 4733 events, or as tones if the offer had no
    /// telephone-event. [`LegEvent::DigitsSent`] is reported at the end.
    pub fn send_digits(&self, play: PlayId, digits: &str) {
        self.command(LegCommand::SendDigits(play, digits.to_owned()));
    }

    /// Turns voice detection on or off. While it is on, the peer's audio is decoded.
    pub fn detect_voice(&self, on: bool) {
        self.command(LegCommand::DetectVoice(on));
    }

    /// Starts or stops waiting for the beep of a voicemail. The beep is reported once.
    pub fn detect_beep(&self, settings: Option<Beep>) {
        self.command(LegCommand::DetectBeep(settings));
    }

    /// Connects this leg with the leg that holds the other end of the bridge, so that the peers
    /// hear each other. Prompts have precedence over the other peer's audio.
    pub fn bridge(&self, end: BridgeEnd) {
        self.command(LegCommand::Bridge(Box::new(end)));
    }

    /// Ends the bridge.
    pub fn unbridge(&self) {
        self.command(LegCommand::Unbridge);
    }

    /// Returns a copy of this leg's packets, to be read with a [`TapReader`]. It starts with the
    /// next tick and ends with the leg. Nothing is decoded on the shard.
    pub fn tap(&self, sides: TapSides) -> Tap {
        let (end, tap) = tap::tap(sides);
        self.command(LegCommand::Tap(end));
        tap
    }

    /// Like [`LegHandle::tap`], but the leg can move to another process. This tap ends there, and
    /// [`Media::adopt`] returns one that continues it.
    pub fn movable_tap(&self, sides: TapSides) -> Tap {
        let (end, tap) = tap::tap(sides);
        self.command(LegCommand::Tap(end.movable()));
        tap
    }

    /// Returns a feed of live audio to the peer and replaces an earlier one. Audio starts when
    /// `lead` frames are queued, initially and after an underrun. Prompts have precedence over it.
    /// A bridge or room is audible at the same time.
    pub fn feed(&self, lead: usize) -> Feed {
        let (feed, end) = feed::feed(lead);
        self.command(LegCommand::Feed(Box::new(end)));
        feed
    }

    /// Like [`LegHandle::feed`], but the leg can move to another process. The frames that wait then
    /// move with it, and [`Media::adopt`] returns a feed that continues this one.
    pub fn movable_feed(&self, lead: usize) -> Feed {
        let (feed, end) = feed::feed(lead);
        self.command(LegCommand::Feed(Box::new(end.movable())));
        feed
    }

    /// Returns a handle that connects this leg to a room.
    pub fn room_jack(&self) -> RoomJack {
        RoomJack { leg: self.id, commands: self.commands.clone() }
    }

    /// Mutes or unmutes the peer. The audio of a muted peer is discarded, but its keys still count
    /// and its packets keep the leg alive.
    pub fn mute(&self, on: bool) {
        self.command(LegCommand::Mute(on));
    }

    /// Closes the leg: sends RTCP BYE, closes DTLS. No event follows.
    pub fn close(&self) {
        self.command(LegCommand::Close);
    }

    /// Returns the counters so far.
    pub fn stats(&self) -> LegStats {
        LegStats {
            rtp_in: self.counters.rtp_in.load(Ordering::Relaxed),
            rtp_out: self.counters.rtp_out.load(Ordering::Relaxed),
            quality: self.counters.quality.read(),
        }
    }

    fn command(&self, command: LegCommand) {
        // A stopped shard has no legs, so the command is dropped.
        self.commands.send(Command::Leg(self.id, command));
    }
}

/// Connects a leg to a room. Does not keep the leg open.
#[derive(Clone)]
pub struct RoomJack {
    leg: LegId,
    commands: CommandSender,
}

impl RoomJack {
    /// Returns a tap of the audio that the leg receives, and a feed for the audio that the room
    /// sends to it. The feed has precedence over the music that a waiting or held member hears, and
    /// replaces an earlier one. Both end if the leg moves to another process.
    pub fn connect(&self) -> CableEnd {
        let (end, tap) = tap::tap(TapSides::Received);
        self.commands.send(Command::Leg(self.leg, LegCommand::Tap(end.movable())));
        let (feed, end) = feed::feed(Mixer::PREBUFFER_FRAMES);
        self.commands.send(Command::Leg(self.leg, LegCommand::RoomFeed(Box::new(end))));
        CableEnd { tap, feed }
    }
}

impl fmt::Debug for RoomJack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RoomJack").field(&self.leg.0).finish()
    }
}

impl fmt::Debug for LegHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LegHandle").field(&self.id.0).finish()
    }
}

impl Drop for LegHandle {
    fn drop(&mut self) {
        match self.reserved_in.take() {
            Some(ports) => ports.lock().unwrap_or_else(PoisonError::into_inner).release(self.id),
            None => self.close(),
        }
    }
}

/// Sends commands to a shard.
#[derive(Clone)]
struct CommandSender {
    queue: SyncSender<Command>,
    counters: Arc<ShardCounters>,
    waker: Arc<Waker>,
}

impl CommandSender {
    /// Queues a command. Returns `false` if the shard has ended. Blocks if the queue is full,
    /// usually for one tick, because no command may be lost.
    fn send(&self, command: Command) -> bool {
        self.counters.waiting.fetch_add(1, Ordering::Relaxed);
        let is_queued = match self.queue.try_send(command) {
            Ok(()) => true,
            Err(TrySendError::Full(command)) => self.queue.send(command).is_ok(),
            Err(TrySendError::Disconnected(_)) => false,
        };
        self.waker.wake();
        is_queued
    }

    fn is_behind(&self) -> bool {
        self.counters.waiting.load(Ordering::Relaxed) > COMMAND_BACKLOG_MAX
    }
}

fn no_relay(turn: &TurnServer) -> io::Error {
    let server = turn.address;
    let message = format!(
        "the TURN server {server} gave no address within {ALLOCATION_WAIT:?}; check server, username and password of [turn], and that UDP to {server} is let through"
    );
    io::Error::new(io::ErrorKind::TimedOut, message)
}

/// Returns the addresses of our candidates, best first. None of them is unspecified.
fn public_ips(config: &MediaConfig) -> io::Result<Vec<IpAddr>> {
    let bound = config.listen.ip();
    let mut ips: Vec<IpAddr> = match config.public_ips.as_slice() {
        [] if !bound.is_unspecified() => vec![bound],
        [] => {
            let all = interface_addresses()?;
            // Only peers on this machine can use loopback, so it is offered only if there is no
            // other address.
            let outward: Vec<IpAddr> = all.iter().filter(|ip| !ip.is_loopback()).copied().collect();
            if outward.is_empty() { all } else { outward }
        }
        named => named.to_vec(),
    };
    ips.retain(|ip| can_reach(*ip, bound));
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
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::as_conversions,
    reason = "tests"
)]
pub mod test_peer;
#[cfg(test)]
mod tests;
