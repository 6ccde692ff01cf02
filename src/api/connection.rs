//! A connection of a listener, observed from outside hyper: how long it has been idle, whether its
//! peer is too slow, and the heads of its requests as received ([`heads`](super::heads)).
//!
//! hyper's own header timeout also runs while a connection is idle, and does not start at the first
//! byte of a head. So the stream is observed instead: by a sweep every second
//! ([`server`](super::server)), and at each request.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::heads::{BadHead, Heads};
use super::http2_frames::{Http2Frames, REQUEST_WEIGHT};
use super::pause::Pause;
use egress::{ReadBudget, ReadTurn, SocketBudget};
use engine::limiter::{Claim, RequestRate, RequestShare};
use model::Clock;

/// Rate limit for reading from a WebSocket, where each frame counts as 256 bytes more: a burst of
/// 512 KiB, then 64 KiB per second, as bytes per millisecond. A peer that sends more waits.
const SOCKET_BYTES_AT_ONCE: i64 = 512 << 10;
const SOCKET_BYTES_A_MS: i64 = 66;
/// Limit for frames of HTTP/2, in the weights of [`Http2Frames`]: 200 requests that wait for their
/// handlers, and a burst of 1,000 PINGs, then 100 per second. A peer that sends more waits.
const FRAMES_AT_ONCE: i64 = 10_000;
const FRAMES_A_MS: i64 = 1;
/// Number of requests that a new connection of HTTP/2 may send while its network is above its
/// request rate, since they may be authenticated, and the number of bytes that are then read at once.
const FIRST_REQUESTS: usize = 2;
const FIRST_BYTES: usize = 256;
/// What a connection counts towards the rate of first requests of its network, in percent of a
/// request: while the network is above its request rate, 1,000 new connections per second are read.
const FIRST_REQUEST_PERCENT: usize = 100;
/// Number of bytes of a connection, of its requests and responses, that are transferred even then: a
/// signed webhook, or a small page.
const RESERVED_BYTES: usize = 8 << 10;
/// Number of bytes that count as one request towards the rate of a network.
const BYTES_READ_PER_REQUEST: usize = 1 << 10;
const BYTES_WRITTEN_PER_REQUEST: usize = 16 << 10;
/// What a read, a frame of HTTP/2, and a frame or chunk of a body count beside their bytes: small ones
/// take as much time as larger ones.
const READ_BYTES: usize = 64;
const FRAME_BYTES: usize = 64;
const BODY_FRAME_BYTES: usize = 200;
/// Limits of a pause while a network is above its request rate. The rate may be reached again at any
/// time, because authenticated requests are given back.
const RATE_PAUSE_MIN: Duration = Duration::from_millis(50);
const RATE_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Limits of a listener (`docs/reference/reliability.md#r10`).
#[derive(Clone, Debug)]
pub struct HttpLimits {
    /// Maximum number of open connections. Beyond it, the oldest unauthenticated connection of the
    /// network with the most is closed.
    pub connections: usize,
    /// Maximum number of bytes of all request bodies that are being read. Beyond it, the oldest
    /// body of the network that sends the most is dropped.
    pub body_bytes: usize,
    /// Timeout for the head of a request from its first byte. For the first head of a connection,
    /// it starts at the accept.
    pub head: Duration,
    /// Timeout for the first bytes of a body, and the reserve later: a body must arrive at 16 KiB
    /// per second on average.
    pub body: Duration,
    /// Maximum number of files that are being downloaded. Beyond it, the connection of the oldest
    /// download of the network with the most downloads is closed.
    pub downloads: usize,
    /// Maximum number of bytes of all responses that are not read yet: those to authenticated clients
    /// that are larger than 64 KiB, and all over HTTP/2. Beyond it, the connection of the oldest one of
    /// the network with the most bytes is closed.
    pub response_bytes: usize,
    /// Maximum time without a request.
    pub idle: Duration,
    /// Maximum time in which the peer reads no part of a response.
    pub stalled: Duration,
    /// Maximum time for connections to complete their requests when the server stops.
    pub grace: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self {
            connections: 8_192,
            body_bytes: 96 << 20,
            head: secs(10),
            body: secs(5),
            downloads: 512,
            response_bytes: 128 << 20,
            idle: secs(75),
            stalled: secs(60),
            grace: secs(5),
        }
    }
}

/// What the latest response of a connection says about its client.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Standing {
    /// There has been no response.
    New,
    /// The request was authenticated.
    Known,
    /// The request was not authenticated.
    Stranger,
}

/// The state of a connection, shared by its stream, its requests and the sweep. Times are in
/// milliseconds since `epoch`.
pub(super) struct Connection {
    clock: Clock,
    epoch: Instant,
    /// Requests whose responses have not been sent completely.
    in_flight: AtomicU32,
    /// Requests whose handlers have ended since the stream was last read.
    handled: AtomicU32,
    /// Time at which the connection last became idle.
    idle_since: AtomicU64,
    /// Time at which the first byte of a request arrived after that. 0 if none has arrived.
    first_byte: AtomicU64,
    /// Time since which the peer has not read. 0 if it reads.
    stalled_since: AtomicU64,
    /// Responses with data that the peer has not read, not counting those that wait for a handler.
    unsent: AtomicU32,
    /// Time at which a chunk of a response was last requested.
    sent_at: AtomicU64,
    /// Whether there has been a request.
    used: AtomicBool,
    http2: AtomicBool,
    /// The request rate of the peer's network. `None` if the rate is not limited.
    rate: Option<RequestRate>,
    /// The rate of the first requests of its new connections.
    first_rate: Option<RequestRate>,
    /// What the connection has counted towards `rate` since its last response, in percent of a request.
    counted: AtomicUsize,
    /// Number of bytes that were read and written, and what else counts as bytes.
    transferred: AtomicUsize,
    /// A [`Standing`].
    standing: AtomicU8,
    /// Whether it is a WebSocket now.
    upgraded: AtomicBool,
    heads: Mutex<Heads>,
    /// What a pause waits for: the first request, then that no more requests are accepted.
    paused_by: Mutex<Option<TaskTrackerToken>>,
    /// Notified when the connection may be overdue.
    pub(super) may_be_overdue: Notify,
    /// The connection's claim on the listener's limit. Its age counts from the last change between
    /// idle and busy. It is authenticated while an authenticated request is in flight.
    pub(super) claim: Arc<Claim>,
}

impl Connection {
    pub(super) fn new(
        clock: &Clock,
        epoch: Instant,
        claim: Claim,
        [rate, first_rate]: [Option<RequestRate>; 2],
        fresh: TaskTrackerToken,
    ) -> Arc<Self> {
        let connection = Self {
            clock: clock.clone(),
            epoch,
            in_flight: AtomicU32::new(0),
            handled: AtomicU32::new(0),
            idle_since: AtomicU64::new(0),
            first_byte: AtomicU64::new(0),
            stalled_since: AtomicU64::new(0),
            unsent: AtomicU32::new(0),
            sent_at: AtomicU64::new(0),
            used: AtomicBool::new(false),
            http2: AtomicBool::new(false),
            rate,
            first_rate,
            counted: AtomicUsize::new(0),
            transferred: AtomicUsize::new(0),
            standing: AtomicU8::new(Standing::New as u8),
            upgraded: AtomicBool::new(false),
            heads: Mutex::default(),
            paused_by: Mutex::new(Some(fresh)),
            may_be_overdue: Notify::new(),
            claim: Arc::new(claim),
        };
        connection.idle_since.store(connection.now(), Ordering::Relaxed);
        Arc::new(connection)
    }

    /// Waits for the first request by polling, since a listener is rarely paused.
    pub(super) async fn first_request(&self) {
        while !self.used.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Records that it is a WebSocket from now on. Returns `false` if the client has already sent
    /// something after the request, which it must not (RFC 6455 §4.1): then it is unknown where its
    /// first frame begins.
    #[must_use]
    pub(super) fn upgrade(&self) -> bool {
        let is_at_first_frame = !self.heads().is_in_progress();
        self.upgraded.store(is_at_first_frame, Ordering::Relaxed);
        is_at_first_frame
    }

    /// Records that the first request has come.
    pub(super) fn end_first_wait(&self, pause: &Pause) {
        if !self.used.load(Ordering::Relaxed) {
            let kept = Some(pause.run());
            *self.paused_by.lock().unwrap_or_else(PoisonError::into_inner) = kept;
        }
    }

    /// Records that the connection accepts no more requests.
    pub(super) fn end_requests(&self) {
        self.paused_by.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Closes the connection immediately when cancelled.
    pub(super) fn kill(&self) -> &CancellationToken {
        self.claim.evicted()
    }

    /// Milliseconds since the server started, never 0.
    fn now(&self) -> u64 {
        let since = self.clock.now().saturating_duration_since(self.epoch);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// Time since which the connection has been idle. `None` if it is not idle.
    fn idle_since(&self) -> Option<u64> {
        (self.in_flight.load(Ordering::Relaxed) == 0)
            .then(|| self.idle_since.load(Ordering::Relaxed))
    }

    /// The limit that the peer exceeds, as the label of the metric.
    pub(super) fn overdue(&self, limits: &HttpLimits) -> Option<&'static str> {
        let now = self.now();
        let past =
            |since: u64, bound: Duration| Duration::from_millis(now.saturating_sub(since)) > bound;
        let stalled = self.stalled_since.load(Ordering::Relaxed);
        if stalled != 0 && past(stalled, limits.stalled) {
            return Some("slow");
        }
        // HTTP/2 has its own flow control: a peer that opens no window reads nothing, although TCP
        // is not blocked.
        if self.unsent.load(Ordering::Relaxed) > 0
            && past(self.sent_at.load(Ordering::Relaxed), limits.stalled)
        {
            return Some("slow");
        }
        let idle = self.idle_since()?;
        if !self.used.load(Ordering::Relaxed) {
            return past(idle, limits.head).then_some("slow");
        }
        let first_byte = self.first_byte.load(Ordering::Relaxed);
        if first_byte != 0 && !self.http2.load(Ordering::Relaxed) {
            return past(first_byte, limits.head).then_some("slow");
        }
        past(idle, limits.idle).then_some("idle")
    }

    fn heads(&self) -> MutexGuard<'_, Heads> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, bytes: &[u8]) {
        if bytes.is_empty() || self.http2.load(Ordering::Relaxed) {
            return;
        }
        let mut heads = self.heads();
        heads.read(bytes);
        if heads.is_http2() {
            self.http2.store(true, Ordering::Relaxed);
        } else if self.in_flight.load(Ordering::Relaxed) == 0 && heads.is_in_progress() {
            let _ = self.first_byte.compare_exchange(
                0,
                self.now(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
    }

    /// Returns the fault of the next HTTP/1 head as received, if there is one. `headers` are those
    /// that hyper parsed. Must be called once per request.
    pub(super) fn bad_head(&self, headers: &HeaderMap) -> Option<BadHead> {
        let Some(head) = self.heads().next() else { return Some(BadHead::Unseen) };
        // If hyper repaired nothing, it has seen as many fields.
        head.bad.or_else(|| (head.fields != headers.len()).then_some(BadHead::Unseen))
    }

    /// Stops observing the stream, because it has been upgraded to another protocol or is closed.
    pub(super) fn stop_observing(&self) {
        *self.heads() = Heads::stopped();
    }

    /// Returns a value to be dropped when a request has been handled, or was reset.
    pub(super) fn handling(self: &Arc<Self>) -> Handling {
        Handling(self.clone())
    }

    /// Counts the next request of HTTP/1. Waits while the peer's network is above its request rate,
    /// if the previous request was not authenticated.
    pub(super) async fn wait_for_rate(&self) {
        let Some(rate) = &self.rate else { return };
        while self.standing() == Standing::Stranger
            && let Some(time) = rate_pause(rate)
        {
            sleep(time).await;
        }
        self.count(100);
    }

    /// Counts a part of a request towards the rate of the peer's network, in percent of it.
    fn count(&self, percent: usize) {
        if let Some(rate) = self.rate.as_ref().filter(|_| percent > 0) {
            self.counted.fetch_add(percent, Ordering::Relaxed);
            rate.take(percent);
        }
    }

    /// Counts bytes, unless the peer is authenticated. WebSockets have other limits.
    fn count_bytes(&self, bytes: usize, per_request: usize) {
        if self.rate.is_none() {
            return;
        }
        let before = self.transferred.fetch_add(bytes, Ordering::Relaxed);
        let is_counted = self.standing() != Standing::Known
            && !self.upgraded.load(Ordering::Relaxed)
            // Only a large request gets so far before its response shows that it was authenticated.
            && (before < RESERVED_BYTES || !self.claim.is_authenticated());
        if is_counted {
            self.count(bytes * 100 / per_request);
        }
    }

    /// Counts a frame or chunk of a request's body.
    pub(super) fn count_body_frame(&self) {
        self.count_bytes(BODY_FRAME_BYTES, BYTES_READ_PER_REQUEST);
    }

    /// Records whether a request was authenticated, when its response is known.
    pub(super) fn answered(&self, is_authenticated: bool) {
        let Some(rate) = &self.rate else { return };
        let standing = if is_authenticated { Standing::Known } else { Standing::Stranger };
        self.standing.store(standing as u8, Ordering::Relaxed);
        let counted = self.counted.swap(0, Ordering::Relaxed);
        if is_authenticated {
            rate.give_back(counted);
        }
    }

    fn standing(&self) -> Standing {
        let standing = self.standing.load(Ordering::Relaxed);
        let is = |other: &Standing| *other as u8 == standing;
        [Standing::Known, Standing::Stranger].into_iter().find(is).unwrap_or(Standing::New)
    }

    /// Counts a request of a client until the returned value is dropped.
    pub(super) fn begin(self: &Arc<Self>, client: IpAddr) -> InFlight {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) == 0 {
            self.claim.renew(client);
        }
        self.used.store(true, Ordering::Relaxed);
        InFlight { connection: self.clone(), client }
    }
}

/// Returns how long to pause if a network is above its rate, and counts the pause.
pub(super) fn rate_pause(rate: &RequestRate) -> Option<Duration> {
    let wait = rate.wait()?;
    rate.record_wait();
    Some(wait.clamp(RATE_PAUSE_MIN, RATE_PAUSE_MAX))
}

/// A request that is being handled, on its connection.
pub(super) struct Handling(pub(super) Arc<Connection>);

impl Drop for Handling {
    fn drop(&mut self) {
        self.0.handled.fetch_add(1, Ordering::Relaxed);
    }
}

/// A request whose response has not been sent completely.
pub(super) struct InFlight {
    connection: Arc<Connection>,
    client: IpAddr,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let connection = &self.connection;
        let now = connection.now();
        // A pipelined request may have arrived in the meantime, or a part of one.
        let next = if connection.heads().is_in_progress() { now } else { 0 };
        connection.first_byte.store(next, Ordering::Relaxed);
        connection.idle_since.store(now, Ordering::Relaxed);
        if connection.in_flight.fetch_sub(1, Ordering::Relaxed) == 1 {
            connection.claim.renew(self.client);
        }
    }
}

/// Size in bytes of the pieces in which a response is sent. hyper takes the next one when it has
/// written the last one, so a body in one piece would be out of sight before it is sent.
pub(super) const PIECE: usize = 64 << 10;

/// The body of a response. It keeps its request in flight until it has been sent, and records
/// whether the peer reads it: hyper polls for a chunk only if there is room to send one.
pub(super) struct ObservedBody {
    body: Body,
    /// The rest of the last frame.
    rest: Bytes,
    /// Whether the body is included in the counter of unsent responses.
    unsent: bool,
    request: InFlight,
    _share: RequestShare,
    /// The claim of a download or large response.
    _claim: Option<Claim>,
}

impl ObservedBody {
    pub(super) fn new(
        body: Body,
        request: InFlight,
        share: RequestShare,
        claim: Option<Claim>,
    ) -> Self {
        let rest = Bytes::new();
        let mut observed =
            Self { body, rest, unsent: false, request, _share: share, _claim: claim };
        observed.record(true);
        observed
    }

    fn record(&mut self, unsent: bool) {
        let connection = &self.request.connection;
        connection.sent_at.store(connection.now(), Ordering::Relaxed);
        match (std::mem::replace(&mut self.unsent, unsent), unsent) {
            (false, true) => drop(connection.unsent.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(connection.unsent.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
    }
}

impl Drop for ObservedBody {
    fn drop(&mut self) {
        self.record(false);
    }
}

impl hyper::body::Body for ObservedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            let polled = Pin::new(&mut self.body).poll_frame(cx);
            self.record(polled.is_ready());
            match ready!(polled) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return Poll::Ready(other),
            }
        } else {
            self.record(true);
        }
        let piece = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut whole = SizeHint::new();
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper.saturating_add(rest));
        }
        whole.set_lower(hint.lower().saturating_add(rest));
        whole
    }
}

/// A direction of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Transfer {
    Read,
    Write,
}

/// The bytes of a connection, with or without TLS.
pub(super) enum Stream {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Encrypted(stream) => stream.get_ref().0,
        }
    }
}

/// Calls a method of the stream within a [`Stream`].
macro_rules! of_stream {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            Stream::Plain($inner) => {
                let $inner = Pin::new($inner);
                $call
            }
            Stream::Encrypted($inner) => {
                let $inner = Pin::new(&mut **$inner);
                $call
            }
        }
    };
}

/// The stream of an observed connection.
pub(super) struct ObservedStream {
    stream: Stream,
    connection: Arc<Connection>,
    /// Rate limit for reading once the connection is a WebSocket.
    socket: Option<SocketBudget>,
    http2: Http2Frames,
    /// Rate limit for reading once the connection speaks HTTP/2.
    frames: Option<ReadBudget>,
    /// Number of requests of HTTP/2 that were read.
    requests: usize,
    /// Whether it has been counted towards the rate of first requests.
    is_first_counted: bool,
    /// A pause while the peer's network is above its request rate.
    pause: Option<Pin<Box<Sleep>>>,
    turn: ReadTurn,
}

impl ObservedStream {
    pub(super) fn new(stream: Stream, connection: Arc<Connection>) -> Self {
        Self {
            stream,
            connection,
            socket: None,
            http2: Http2Frames::default(),
            frames: None,
            requests: 0,
            is_first_counted: false,
            pause: None,
            turn: ReadTurn::default(),
        }
    }

    /// Waits until the limits of the connection's protocol allow a read. Returns the maximum number
    /// of bytes to read.
    fn poll_allowed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        ready!(self.turn.poll_ready(cx));
        if let Some(socket) = &mut self.socket {
            return socket.poll_ready(cx).map(|()| Ok(usize::MAX));
        }
        if self.connection.upgraded.load(Ordering::Relaxed) {
            let clock = self.connection.clock.clone();
            let budget = ReadBudget::new(clock, SOCKET_BYTES_AT_ONCE, SOCKET_BYTES_A_MS);
            self.socket = Some(SocketBudget::of_server(budget));
        }
        if let Some(budget) = &mut self.frames {
            let handled = self.connection.handled.swap(0, Ordering::Relaxed);
            budget.give_back(usize::try_from(handled).unwrap_or_default() * REQUEST_WEIGHT);
            ready!(budget.poll_ready(cx));
        }
        self.poll_rate(cx, Transfer::Read)
    }

    /// Waits while the peer's network is above its request rate, if the latest request was not
    /// authenticated. Returns the maximum number of bytes to transfer.
    fn poll_rate(&mut self, cx: &mut Context<'_>, transfer: Transfer) -> Poll<io::Result<usize>> {
        let Some(rate) = &self.connection.rate else { return Poll::Ready(Ok(usize::MAX)) };
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
                // A stream that is not read does not tell otherwise that the peer has reset it.
                if let Some(error) = self.stream.tcp().take_error()? {
                    return Poll::Ready(Err(error));
                }
            }
            if rate.wait().is_none() {
                return Poll::Ready(Ok(usize::MAX));
            }
            let transferred = self.connection.transferred.load(Ordering::Relaxed);
            let reserved = RESERVED_BYTES.saturating_sub(transferred);
            let is_http2 = self.connection.http2.load(Ordering::Relaxed);
            match self.connection.standing() {
                Standing::Known => return Poll::Ready(Ok(usize::MAX)),
                _ if self.connection.claim.is_authenticated() => {
                    return Poll::Ready(Ok(usize::MAX));
                }
                _ if reserved == 0 => {}
                _ if transfer == Transfer::Write => return Poll::Ready(Ok(reserved)),
                Standing::New if !self.is_first_counted => {
                    let first = self.connection.first_rate.as_ref();
                    self.pause = first.and_then(rate_pause).map(|time| Box::pin(sleep(time)));
                    if self.pause.is_none() {
                        self.is_first_counted = true;
                        first.inspect(|rate| rate.take(FIRST_REQUEST_PERCENT));
                    }
                    continue;
                }
                // Requests of HTTP/1 wait one by one before they are handled.
                _ if !is_http2 => return Poll::Ready(Ok(reserved.min(FIRST_BYTES))),
                Standing::New if self.requests < FIRST_REQUESTS => {
                    return Poll::Ready(Ok(FIRST_BYTES));
                }
                Standing::New | Standing::Stranger => {}
            }
            self.pause = rate_pause(rate).map(|time| Box::pin(sleep(time)));
        }
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        of_stream!(&mut self.stream, inner => inner.poll_read(cx, buf))
    }

    /// Waits until the limits allow a write. Returns the maximum number of bytes to write.
    fn poll_write_allowed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match self.connection.upgraded.load(Ordering::Relaxed) {
            true => Poll::Ready(Ok(usize::MAX)),
            false => self.poll_rate(cx, Transfer::Write),
        }
    }

    fn record_read(&mut self, bytes: &[u8]) {
        if let Some(socket) = &mut self.socket {
            return socket.take(bytes);
        }
        let (frames, weight) = self.http2.read(bytes);
        if !bytes.is_empty() {
            let counted = bytes.len() + READ_BYTES + frames * FRAME_BYTES;
            self.connection.count_bytes(counted, BYTES_READ_PER_REQUEST);
        }
        if weight > 0 {
            let clock = &self.connection.clock;
            let budget = || ReadBudget::new(clock.clone(), FRAMES_AT_ONCE, FRAMES_A_MS);
            self.frames.get_or_insert_with(budget).take(weight);
            self.requests += weight / REQUEST_WEIGHT;
            self.connection.count(weight * 100 / REQUEST_WEIGHT);
        }
        self.connection.read(bytes);
    }

    fn record_write(&self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &outcome {
            self.connection.count_bytes(*bytes, BYTES_WRITTEN_PER_REQUEST);
        }
        let stalled = &self.connection.stalled_since;
        match outcome {
            Poll::Ready(_) if stalled.load(Ordering::Relaxed) != 0 => {
                stalled.store(0, Ordering::Relaxed)
            }
            Poll::Pending => {
                let _ = stalled.compare_exchange(
                    0,
                    self.connection.now(),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
            }
            Poll::Ready(_) => {}
        }
        outcome
    }
}

impl AsyncRead for ObservedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let allowed = ready!(self.poll_allowed(cx))?;
        let before = buf.filled().len();
        let read = if allowed < buf.remaining() {
            let mut part = ReadBuf::new(buf.initialize_unfilled_to(allowed));
            let read = self.poll_stream(cx, &mut part);
            let bytes = part.filled().len();
            buf.advance(bytes);
            read
        } else {
            self.poll_stream(cx, buf)
        };
        let bytes = buf.filled().get(before..).unwrap_or_default();
        self.turn.record(&read, bytes.len());
        self.record_read(bytes);
        read
    }
}

impl AsyncWrite for ObservedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let allowed = ready!(self.poll_write_allowed(cx))?;
        let buf = buf.get(..allowed).unwrap_or(buf);
        let outcome = of_stream!(&mut self.stream, inner => inner.poll_write(cx, buf));
        self.record_write(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let allowed = ready!(self.poll_write_allowed(cx))?;
        if bufs.iter().map(|buf| buf.len()).sum::<usize>() > allowed {
            let first = bufs.iter().find(|buf| !buf.is_empty());
            return self.poll_write(cx, first.map_or(&[], |buf| buf));
        }
        let outcome = of_stream!(&mut self.stream, inner => inner.poll_write_vectored(cx, bufs));
        self.record_write(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Encrypted(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_stream!(&mut self.stream, inner => inner.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_stream!(&mut self.stream, inner => inner.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use http::HeaderMap;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::{
        BadHead, Clock, Connection, FIRST_REQUEST_PERCENT, HttpLimits, ObservedStream,
        RESERVED_BYTES, Stream,
    };
    use engine::limiter::{Offenders, Pool, RequestRate, RequestRates};
    use model::Timestamp;

    fn open(clock: &Clock) -> Arc<Connection> {
        open_with(clock, [None, None])
    }

    fn open_with(clock: &Clock, rates: [Option<RequestRate>; 2]) -> Arc<Connection> {
        let claim = Pool::new(1, None).claim([192, 0, 2, 1].into(), 1);
        let fresh = crate::api::server::Pause::default().connect();
        Connection::new(clock, clock.now(), claim, rates, fresh)
    }

    #[test]
    fn r14_refuses_a_head_that_differs_from_what_hyper_parsed() {
        let clock = Clock::stepped(Timestamp::default());
        let connection = open(&clock);
        let headers =
            HeaderMap::from_iter([(http::header::HOST, http::HeaderValue::from_static("a"))]);
        assert_eq!(connection.bad_head(&headers), Some(BadHead::Unseen));
        connection
            .read(b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\nx: y\r\n\r\n");
        assert_eq!(connection.bad_head(&headers), None);
        assert_eq!(connection.bad_head(&headers), Some(BadHead::Unseen));
        connection.stop_observing();
        connection.read(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(connection.bad_head(&headers), Some(BadHead::Unseen));
    }

    /// Returns a stream and its peer.
    async fn connect(connection: &Arc<Connection>) -> (ObservedStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        #[allow(clippy::disallowed_methods, reason = "a test asks its own listener")]
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        (ObservedStream::new(Stream::Plain(server), connection.clone()), client)
    }

    /// Reads until a read has to wait; returns how many bytes were read.
    async fn read_until_limit(stream: &mut ObservedStream) -> usize {
        let (mut buffer, mut read) = ([0; 4_096], 0);
        loop {
            // The peer has sent enough: only a limit makes a read wait for longer.
            let next = tokio::time::timeout(Duration::from_millis(40), stream.read(&mut buffer));
            match next.await {
                Ok(bytes) => read += bytes.unwrap(),
                Err(_) => return read,
            }
        }
    }

    #[tokio::test]
    async fn r10_frames_are_read_slowly_after_a_burst() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice();
        let request = [0, 0, 1, 1, 4, 0, 0, 0, 1, 0x82].as_slice();
        let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8].as_slice();
        let empty_fragment = [0x00, 0x80, 1, 2, 3, 4].as_slice();
        for (is_socket, first, frame, burst) in [
            (true, [].as_slice(), empty_fragment, 2_002 * empty_fragment.len()),
            (false, preface, ping, 1_000 * ping.len()),
            (false, preface, request, 200 * request.len()),
        ] {
            let clock = Clock::stepped(Timestamp::default());
            let connection = open(&clock);
            let (mut stream, mut client) = connect(&connection).await;
            if is_socket {
                assert!(connection.upgrade());
            }
            let sent = [first, &frame.repeat(20_000)].concat();
            let sending =
                tokio::spawn(async move { client.write_all(&sent).await.map(|()| client) });
            let read = read_until_limit(&mut stream).await;
            assert!((burst..burst + 2 * 4_096).contains(&read), "{read} of {burst}");
            if frame == request {
                (0..4_000).for_each(|_| drop(connection.handling()));
            } else {
                clock.step(Duration::from_secs(60));
            }
            assert!(read_until_limit(&mut stream).await > 0);
            drop((stream, sending.await));
        }
    }

    /// Clients that open a new connection for a few requests are limited, too.
    #[tokio::test]
    async fn r10_little_is_read_from_a_new_connection_of_a_network_above_its_rate() {
        let clock = Clock::stepped(Timestamp::default());
        let [rate, first_rate] = [(); 2].map(|()| {
            let rates = RequestRates::new(clock.clone(), Offenders::new(clock.clone()));
            rates.of([192, 0, 2, 1].into())
        });
        (0..3_000).for_each(|_| rate.take(100));
        (0..2_500).for_each(|_| first_rate.take(FIRST_REQUEST_PERCENT));
        let connection = open_with(&clock, [Some(rate), Some(first_rate)]);
        let (mut stream, mut client) = connect(&connection).await;
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        // With 91 bytes of fields.
        let request = [[0, 0, 91, 1, 5, 0, 0, 0, 1].as_slice(), &[0x82; 91]].concat();
        client.write_all(&[preface, request.repeat(100).as_slice()].concat()).await.unwrap();
        // The network has opened too many connections.
        assert_eq!(read_until_limit(&mut stream).await, 0);
        clock.step(Duration::from_millis(600));
        let mut first = [0; 24];
        stream.read_exact(&mut first).await.unwrap();
        let read = read_until_limit(&mut stream).await;
        assert!((100..=512).contains(&read), "{read}");
        // Nothing more, since the request was not authenticated.
        connection.answered(false);
        assert_eq!(read_until_limit(&mut stream).await, 0);
        // An authenticated one shows that the client is known.
        connection.answered(true);
        let mut rest = vec![0; 100 * request.len() - read];
        stream.read_exact(&mut rest).await.unwrap();
    }

    #[tokio::test]
    async fn r10_a_reset_is_noticed_while_a_network_is_above_its_rate() {
        let clock = Clock::stepped(Timestamp::default());
        let rates = RequestRates::new(clock.clone(), Offenders::new(clock.clone()));
        let rate = rates.of([192, 0, 2, 1].into());
        (0..3_000).for_each(|_| rate.take(100));
        let connection = open_with(&clock, [Some(rate), None]);
        connection.answered(false);
        connection.count_bytes(RESERVED_BYTES, RESERVED_BYTES);
        let (mut stream, mut client) = connect(&connection).await;
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(read_until_limit(&mut stream).await, 0);
        client.set_zero_linger().unwrap();
        drop(client);
        let error = stream.read(&mut [0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn r10_other_tasks_run_while_a_peer_keeps_sending() {
        let clock = Clock::stepped(Timestamp::default());
        let (mut stream, mut client) = connect(&open(&clock)).await;
        client.write_all(&[b'x'; 64 << 10]).await.unwrap();
        let mut buffer = [0; 8_192];
        for _ in 0..2 {
            assert_eq!(stream.read(&mut buffer).await.unwrap(), buffer.len());
        }
        let mut read = std::pin::pin!(stream.read(&mut buffer));
        assert!(futures_util::poll!(read.as_mut()).is_pending());
        assert!(futures_util::poll!(read).is_ready());
    }

    #[test]
    fn finds_idle_and_slow_connections() {
        let clock = Clock::stepped(Timestamp::default());
        let limits = HttpLimits::default();
        let connection = open(&clock);
        let step = |secs| clock.step(Duration::from_secs(secs));
        step(9);
        connection.read(b"GET / HT");
        assert_eq!(connection.overdue(&limits), None);
        step(2);
        assert_eq!(
            connection.overdue(&limits),
            Some("slow"),
            "the first head has 10 s from the accept"
        );

        connection.read(b"TP/1.1\r\n\r\n");
        let request = connection.begin([192, 0, 2, 1].into());
        assert_eq!(connection.bad_head(&HeaderMap::new()), None);
        step(1000);
        assert_eq!(
            (connection.overdue(&limits), connection.idle_since()),
            (None, None),
            "a handler may take any time"
        );
        drop(request);
        step(74);
        assert_eq!(connection.overdue(&limits), None);
        step(2);
        assert_eq!(connection.overdue(&limits), Some("idle"));
        connection.read(b"G");
        assert_eq!(connection.overdue(&limits), None);
        step(11);
        assert_eq!(connection.overdue(&limits), Some("slow"));

        // The time of a pipelined request starts when the previous one has been answered.
        let connection = open(&clock);
        connection.read(b"GET / HTTP/1.1\r\n\r\n");
        let request = connection.begin([192, 0, 2, 1].into());
        assert_eq!(connection.bad_head(&HeaderMap::new()), None);
        connection.read(b"GET / HT");
        step(1000);
        drop(request);
        assert_eq!(connection.overdue(&limits), None);
        step(11);
        assert_eq!(connection.overdue(&limits), Some("slow"));
    }
}
