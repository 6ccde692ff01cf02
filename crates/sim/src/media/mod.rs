//! Meta's side of the media: ICE-lite, DTLS and SRTP on one UDP socket for all calls, or on one
//! socket per call.
//!
//! A [`Relay`] is a handle to a task that owns a socket and its legs. A leg is Meta's side of a
//! call or the connection of a browser phone. Commands reach the task over a bounded queue; events
//! of a leg go to its call. Two legs can be bridged, which forwards Opus between them.

pub(crate) mod arrivals;
pub(crate) mod peer;
pub(crate) mod receiver;
mod relay;
pub(crate) mod sender;
pub(crate) mod stun;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::peer::{Identity, MetaLegParams, PeerError};
use self::receiver::{LegStats, ReceiveMode};
use self::relay::RelayTask;
use self::sender::AudioSender;
use super::faults::net::NetworkEmulator;
use super::keys::KeyStep;
use super::log::SimLog;
use model::Clock;

/// Capacity of the command queue.
const COMMANDS_MAX: usize = 4_096;

/// Identifies a leg of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LegId(u64);

/// An event of a leg, for its call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LegEvent {
    Up,
    Closed,
    Failed(String),
    FirstAudio,
    KeySent(char),
    KeyReceived(char),
}

/// Receives the events of a leg. Must not block.
pub(crate) type LegSink = Box<dyn Fn(LegEvent) + Send>;

/// Configuration of a new leg.
pub(crate) struct LegConfig {
    pub(crate) params: MetaLegParams,
    pub(crate) call_id: String,
    pub(crate) sender: AudioSender,
    pub(crate) mode: ReceiveMode,
    /// Emulated network, if any.
    pub(crate) net: Option<NetworkEmulator>,
    pub(crate) stats: Arc<LegStats>,
    pub(crate) started: Instant,
    pub(crate) sink: LegSink,
}

enum Command {
    OpenMeta {
        leg: LegId,
        config: Box<LegConfig>,
        done: oneshot::Sender<Result<(), PeerError>>,
    },
    OpenBrowser {
        leg: LegId,
        offer: String,
        sink: LegSink,
        done: oneshot::Sender<Result<String, PeerError>>,
    },
    /// Ends the call's audio: received audio is dropped and none is sent. The connection stays
    /// until `Close`.
    StopAudio {
        leg: LegId,
    },
    /// Marks the call as answered: counts received audio and starts to send.
    Accept {
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
        /// Sends RTCP BYE and DTLS close_notify.
        graceful: bool,
        recording: oneshot::Sender<Option<Vec<i16>>>,
    },
}

/// A handle to a relay's task. Cheap to clone. The task ends with the last handle or with the stop
/// token.
#[derive(Clone, Debug)]
pub(crate) struct Relay {
    commands: mpsc::Sender<Command>,
    addr: SocketAddr,
    next: Arc<AtomicU64>,
    pub(crate) identity: Identity,
}

/// Starts threads for the relays of a load, at most one per processor, so that busy relays delay
/// neither each other nor the simulator's HTTP. They end with the token.
pub(crate) fn threads(relays: u16, stop: &CancellationToken) -> std::io::Result<Vec<Handle>> {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (0..cores.min(relays.into()))
        .map(|n| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (handle, stop) = (runtime.handle().clone(), stop.clone());
            let run = move || runtime.block_on(stop.cancelled());
            thread::Builder::new().name(format!("callers-{n}")).spawn(run)?;
            Ok(handle)
        })
        .collect()
}

impl Relay {
    /// Binds a socket and starts the relay's task on `runtime`.
    ///
    /// # Errors
    ///
    /// Fails if the address cannot be bound.
    pub(crate) fn start(
        runtime: &Handle,
        (ip, port): (IpAddr, u16),
        identity: Identity,
        clock: Clock,
        log: Arc<SimLog>,
        stop: CancellationToken,
    ) -> std::io::Result<Self> {
        let plain = std::net::UdpSocket::bind((ip, port))?;
        plain.set_nonblocking(true)?;
        let addr = plain.local_addr()?;
        let (commands, queue) = mpsc::channel(COMMANDS_MAX);
        let _guard = runtime.enter();
        let socket = UdpSocket::from_std(plain.try_clone()?)?;
        let task = RelayTask::new(socket, plain, addr, identity.clone(), clock, log);
        runtime.spawn(task.run(queue, stop));
        Ok(Self { commands, addr, next: Arc::new(AtomicU64::new(1)), identity })
    }

    /// The address of the relay's ICE candidate.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Opens Meta's leg of a call.
    pub(crate) async fn open_meta(&self, config: LegConfig) -> Result<LegId, PeerError> {
        let leg = self.next_leg_id();
        let (done, opened) = oneshot::channel();
        self.send(Command::OpenMeta { leg, config: Box::new(config), done }).await;
        opened
            .await
            .unwrap_or_else(|_| Err(PeerError::Dtls("the relay has stopped".into())))
            .map(|()| leg)
    }

    /// Opens the leg of a browser phone from its SDP offer. Returns the SDP answer.
    pub(crate) async fn open_browser(
        &self,
        offer: String,
        sink: LegSink,
    ) -> Result<(LegId, String), PeerError> {
        let leg = self.next_leg_id();
        let (done, opened) = oneshot::channel();
        self.send(Command::OpenBrowser { leg, offer, sink, done }).await;
        let answer = opened
            .await
            .unwrap_or_else(|_| Err(PeerError::Offer("the relay has stopped".into())))?;
        Ok((leg, answer))
    }

    pub(crate) async fn accept(&self, leg: LegId) {
        self.send(Command::Accept { leg }).await;
    }

    /// Stops the audio of a call that is over. The connection stays open: RTCP BYE must not arrive
    /// before the terminate webhook.
    pub(crate) async fn stop_audio(&self, leg: LegId) {
        self.send(Command::StopAudio { leg }).await;
    }

    pub(crate) async fn press(&self, leg: LegId, keys: Vec<KeyStep>) {
        self.send(Command::Press { leg, keys }).await;
    }

    /// Forwards Opus between a call and a browser phone in both directions.
    pub(crate) async fn bridge(&self, meta: LegId, browser: LegId) {
        self.send(Command::Bridge { meta, browser }).await;
    }

    /// Closes a leg and returns its recording. `graceful` sends RTCP BYE and DTLS close_notify.
    pub(crate) async fn close(&self, leg: LegId, graceful: bool) -> Option<Vec<i16>> {
        let (recording, recorded) = oneshot::channel();
        self.send(Command::Close { leg, graceful, recording }).await;
        recorded.await.ok().flatten()
    }

    fn next_leg_id(&self) -> LegId {
        LegId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    async fn send(&self, command: Command) {
        let _ = self.commands.send(command).await;
    }
}
