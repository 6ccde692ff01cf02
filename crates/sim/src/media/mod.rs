//! Meta's side of the media: one UDP socket for all calls (H13), or one a call. Terminates ICE-lite, DTLS, SRTP.
//!
//! A [`Relay`] is a task (`relay`) that owns a socket and its legs. Orders come over a bounded queue; what legs tell goes to
//! the call they belong to. A leg is Meta's side of a call or the end of a browser's connection; two legs can be
//! bridged, then Opus passes through from one to the other.

pub(crate) mod ear;
pub(crate) mod mouth;
pub(crate) mod peer;
mod relay;
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

use self::ear::{Hearing, LegStats};
use self::mouth::Mouth;
use self::peer::{Identity, MetaSide, PeerError};
use self::relay::Task;
use super::caller::KeyStep;
use super::faults::net::Net;
use super::log::SimLog;
use model::Clock;

/// Orders that may wait.
const ORDERS_MAX: usize = 4_096;

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

/// Threads for relays that many callers will be on: one a processor, so that callers keep neither each other nor the
/// simulator's HTTP waiting. They end with the token.
pub(crate) fn threads(relays: u16, stop: &CancellationToken) -> std::io::Result<Vec<Handle>> {
    let most = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (0..most.min(relays.into()))
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
    /// Binds a socket and starts its task there.
    ///
    /// # Errors
    /// The address can't be bound.
    pub(crate) fn start(
        there: &Handle,
        (ip, port): (IpAddr, u16),
        identity: Identity,
        clock: Clock,
        log: Arc<SimLog>,
        stop: CancellationToken,
    ) -> std::io::Result<Self> {
        let plain = std::net::UdpSocket::bind((ip, port))?;
        plain.set_nonblocking(true)?;
        let addr = plain.local_addr()?;
        let (orders, queue) = mpsc::channel(ORDERS_MAX);
        let _there = there.enter();
        let socket = UdpSocket::from_std(plain.try_clone()?)?;
        let task = Task::new(socket, plain, addr, identity.clone(), clock, log);
        there.spawn(task.run(queue, stop));
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
        made.await
            .unwrap_or_else(|_| Err(PeerError::Dtls("the relay has stopped".into())))
            .map(|()| leg)
    }

    /// Takes a browser's offer; the SDP answer comes back.
    pub(crate) async fn open_browser(
        &self,
        offer: String,
        sink: LegSink,
    ) -> Result<(LegId, String), PeerError> {
        let leg = self.leg();
        let (done, made) = oneshot::channel();
        self.order(Order::OpenBrowser { leg, offer, sink, done }).await;
        let answer =
            made.await.unwrap_or_else(|_| Err(PeerError::Offer("the relay has stopped".into())))?;
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
