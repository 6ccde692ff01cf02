//! Connections between the nodes of a fleet: HTTP/2 over TLS 1.3.
//!
//! Each run has a certificate, which its first process creates, and writes its SHA-256 into its row in
//! the table of runs. Only the certificates of members are trusted, so none has to be issued or
//! renewed. Peers have no special rights: forwarded requests carry Meta's signature or a client's
//! credentials, which are verified again.
//!
//! There is one connection per pair and direction for requests, and another one for the audio of
//! calls in rooms of the other node, which is opened when it is needed. The former is open as long
//! as the member is in the table, and pings show whether the other process is alive.

mod pins;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use fleet::Link;
use futures_util::future::{BoxFuture, join_all};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

pub(super) use self::pins::MovedIdentity;
use self::pins::{ALPN, Identity, Pin, SEATS_ALPN};
use super::{CALLS, MOVING, RELAY, REST, WANT, WEBHOOK};
use crate::call::seats::ByteStream;
use crate::limiter::Pool;
use model::Clock;
use model::metric::{self, forward};

/// Time limits of the connections.
#[derive(Clone, Copy, Debug)]
pub struct PeerTimes {
    /// Timeout of a request, from its first byte to the last byte of the response.
    pub request: Duration,
    /// Timeout for opening a connection.
    pub connect: Duration,
    /// Timeout of the TLS handshake of an inbound connection.
    pub handshake: Duration,
    /// Pause between two attempts to connect.
    pub retry: Duration,
    /// Interval between two pings.
    pub ping: Duration,
    /// Time without an answer to a ping after which the other process counts as hanging.
    pub silence: Duration,
}

impl Default for PeerTimes {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            request: ms(2_000),
            connect: ms(1_000),
            handshake: ms(2_000),
            retry: ms(250),
            ping: ms(500),
            silence: ms(1_000),
        }
    }
}

/// Maximum size in bytes of the body of a request, or of a response that is read as a whole.
const BODY_MAX: usize = 4 * 1024 * 1024;

/// Maximum number of requests to a peer that wait for a complete response ([`Peers::send`]).
const REQUESTS_MAX: u32 = 256;

/// Maximum number of responses of a peer that are streamed to clients ([`Peers::open`]), which may
/// read slowly.
const STREAMED_MAX: u32 = 128;

/// Flow-control windows of HTTP/2 in bytes: of one response, and of a connection. If no client reads
/// its streamed response, these fill at most half of the connection's window, and other responses
/// still arrive.
const RESPONSE_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = 32 * 1024 * 1024;
const _: () = assert!(STREAMED_MAX * RESPONSE_WINDOW <= CONNECTION_WINDOW / 2);

/// Maximum number of inbound connections. Beyond it, the oldest connection without a known
/// certificate is closed, of the address with most of them.
const CONNECTIONS_MAX: usize = 128;

/// Time after a member has announced that another process takes over from it. Meanwhile requests to it
/// are sent again if there is no connection, and webhooks may be late.
const MOVE_TIME: Duration = Duration::from_secs(10);

/// Pause between two attempts to send such a request.
const MOVE_RETRY: Duration = Duration::from_millis(20);

/// Time for the other members to hear such an announcement.
const ANNOUNCE_TIME: Duration = Duration::from_millis(250);

/// Time for the responses to the requests of other members, when another process takes over.
const CLOSE_TIME: Duration = Duration::from_millis(500);

/// Header of the response of a member from which another process takes over. It has not executed the
/// request.
const MOVING_HEADER: HeaderName = HeaderName::from_static("x-offhook-moving");

/// Number of refused connection attempts after which a process counts as ended.
const REFUSALS: u8 = 3;

/// Answers the requests of other members. `from` is the member.
pub trait PeerHandler: Send + Sync + 'static {
    fn handle(&self, from: Uuid, request: Request<Bytes>) -> BoxFuture<'static, Response<Body>>;

    /// Serves a connection from another node, for its calls in rooms of this node. The future is
    /// dropped when that node ceases to be a member of the fleet.
    fn serve_seats(&self, from: Uuid, stream: Box<dyn ByteStream>) -> BoxFuture<'static, ()>;
}

/// Another member, according to the table of runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    pub run: Uuid,
    /// The host and port.
    pub address: String,
    /// SHA-256 of the member's certificate, in hexadecimal.
    pub pin: String,
}

/// The reason why a peer did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    #[error("the node is not a member of the fleet")]
    Unknown,
    #[error("there is no connection to the node")]
    Unreachable,
    #[error("the node did not answer in time")]
    TimedOut,
    #[error("too many requests to the node are in progress")]
    Busy,
    #[error("the body is larger than 4 MiB")]
    TooLarge,
}

/// The reason why a process can't take part in the connections of its fleet.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("could not listen on {at}: {source}")]
    Listen {
        at: String,
        #[source]
        source: io::Error,
    },
    #[error("could not create a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("could not set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// The connections of this process to the other members. Cheap to clone.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Peers({})", self.0.address)
    }
}

struct Inner {
    address: String,
    identity: Identity,
    times: PeerTimes,
    clock: Clock,
    listener: Mutex<Option<Arc<TcpListener>>>,
    members: Mutex<BTreeMap<Uuid, Arc<Member>>>,
    /// Cancelled when another process takes over: no connection is accepted, and those of other
    /// members are closed after the responses to their requests.
    leaving: CancellationToken,
    /// The connections of other members.
    inbound: TaskTracker,
    stop: CancellationToken,
}

/// The listener and the certificate that a process uses which continues the run of another one.
pub struct MovedPeers {
    pub listener: TcpListener,
    pub identity: MovedIdentity,
}

/// The connection to a member.
struct Member {
    at: PeerAddress,
    sender: Mutex<Option<SendRequest<Full<Bytes>>>>,
    link: AtomicU8,
    requests: Semaphore,
    streamed: Arc<Semaphore>,
    /// Until when requests are sent again if there is no connection.
    moving_until: Mutex<Option<Instant>>,
    stop: CancellationToken,
}

impl Member {
    fn sender(&self) -> MutexGuard<'_, Option<SendRequest<Full<Bytes>>>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expect_move(&self, now: Instant) {
        let until = now.checked_add(MOVE_TIME);
        *self.moving_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    fn is_moving(&self, now: Instant) -> bool {
        let until = *self.moving_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| now < until)
    }
}

const UP: u8 = 0;
const SILENT: u8 = 1;
const REFUSED: u8 = 2;

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Returns a request to another node, for [`Peers::send`].
pub fn post(path: &'static str, body: Bytes) -> Request<Bytes> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(path);
    request
}

impl Peers {
    /// Listens at `listen`, and creates a certificate, unless they are `moved`. Other members connect
    /// to `advertise`, or to the bound address if that is `None`.
    ///
    /// # Errors
    /// Fails if the address can't be bound.
    pub async fn bind(
        listen: &str,
        advertise: Option<&str>,
        times: PeerTimes,
        clock: Clock,
        moved: Option<MovedPeers>,
    ) -> Result<Self, BindError> {
        let failed = |source| BindError::Listen { at: listen.to_owned(), source };
        let (listener, identity) = match moved {
            Some(moved) => (moved.listener, Identity::resume(moved.identity)),
            None => (TcpListener::bind(listen).await.map_err(failed)?, Identity::new()?),
        };
        let bound: SocketAddr = listener.local_addr().map_err(failed)?;
        Ok(Self(Arc::new(Inner {
            address: advertise.map_or_else(|| bound.to_string(), str::to_owned),
            identity,
            times,
            clock,
            listener: Mutex::new(Some(Arc::new(listener))),
            members: Mutex::default(),
            leaving: CancellationToken::new(),
            inbound: TaskTracker::new(),
            stop: CancellationToken::new(),
        })))
    }

    /// Returns the addresses of `listen`, a host and port at which this process listens.
    ///
    /// # Errors
    /// Fails if the host is not found.
    pub async fn addresses(listen: &str) -> io::Result<Vec<SocketAddr>> {
        #[allow(clippy::disallowed_methods, reason = "the operator's own address, cluster.peer")]
        let found = tokio::net::lookup_host(listen).await?;
        Ok(found.collect())
    }

    /// Returns whether a process accepts connections at the address of a member within a second.
    pub async fn is_reachable(address: &str) -> bool {
        #[allow(
            clippy::disallowed_methods,
            reason = "the address is a member's, from the database"
        )]
        let connected = TcpStream::connect(address);
        let connected = tokio::time::timeout(PeerTimes::default().connect, connected).await;
        connected.is_ok_and(|connected| connected.is_ok())
    }

    /// Host and port that other members connect to.
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// SHA-256 of this process's certificate, in hexadecimal.
    pub fn pin(&self) -> String {
        self.0.identity.pin.to_string()
    }

    /// A copy of the listening socket, for another process of this node. `None` once this one
    /// [has handed over](Peers::hand_over).
    ///
    /// # Errors
    /// Fails if there is no file descriptor left.
    pub fn listener(&self) -> io::Result<Option<OwnedFd>> {
        let listener = self.0.listener.lock().unwrap_or_else(PoisonError::into_inner);
        listener.as_ref().map(|listener| listener.as_fd().try_clone_to_owned()).transpose()
    }

    /// Closes all connections, and accepts no more: connections wait for another process of this
    /// node, which uses the same certificate.
    pub async fn hand_over(&self) -> MovedIdentity {
        self.0.leaving.cancel();
        self.0.inbound.close();
        let _ = tokio::time::timeout(CLOSE_TIME, self.0.inbound.wait()).await;
        self.0.stop.cancel();
        self.0.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.0.identity.hand_over()
    }

    /// Starts to answer other members. Must be called once.
    ///
    /// # Errors
    /// Fails if the TLS library rejects the configuration.
    pub fn serve(&self, handler: Arc<dyn PeerHandler>) -> Result<(), rustls::Error> {
        let listener = self.0.listener.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(listener) = listener else { return Ok(()) };
        let acceptor = TlsAcceptor::from(Arc::new(self.0.identity.server()?));
        let weak = Arc::downgrade(&self.0);
        let (stop, times) = (self.0.stop.clone(), self.0.times);
        let (leaving, inbound) = (self.0.leaving.clone(), self.0.inbound.clone());
        let connections = Pool::new(CONNECTIONS_MAX, None);
        let accept = async move {
            loop {
                let Ok((stream, from)) = listener.accept().await else {
                    // Out of file descriptors, for example.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let (acceptor, handler, weak) = (acceptor.clone(), handler.clone(), weak.clone());
                let claim = connections.claim(from.ip(), 1);
                let leaving = leaving.clone();
                inbound.spawn(async move {
                    let _ = stream.set_nodelay(true);
                    let handshake = tokio::time::timeout(times.handshake, acceptor.accept(stream));
                    let handshake = claim.evicted().run_until_cancelled(handshake);
                    let handshake = leaving.run_until_cancelled(handshake).await.flatten();
                    let Some(Ok(Ok(tls))) = handshake else { return };
                    let member = weak.upgrade().zip(pin_of(&tls));
                    let member = member.and_then(|(inner, pin)| inner.member_with(pin));
                    let Some(member) = member else { return };
                    claim.authenticate();
                    if tls.get_ref().1.alpn_protocol() == Some(SEATS_ALPN) {
                        let serving = handler.serve_seats(member.at.run, Box::new(tls));
                        // Calls of other nodes are kept out of its rooms by then.
                        let serving = leaving.run_until_cancelled(serving);
                        member.stop.run_until_cancelled(serving).await;
                        return;
                    }
                    answer(TokioIo::new(tls), member, handler, times, leaving).await;
                });
            }
        };
        let leaving = self.0.leaving.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = accept => {}
                () = stop.cancelled() => {}
                () = leaving.cancelled() => {}
            }
        });
        Ok(())
    }

    /// Connects to these members, and closes the connections to all others.
    pub fn set_members(&self, listed: Vec<PeerAddress>) {
        let mut members = self.0.members();
        members.retain(|_, member| {
            let stays = listed.contains(&member.at);
            if !stays {
                member.stop.cancel();
            }
            stays
        });
        for at in listed {
            let Ok(pin) = at.pin.parse::<Pin>() else { continue };
            members.entry(at.run).or_insert_with(|| {
                let member = Arc::new(Member {
                    at,
                    sender: Mutex::default(),
                    link: AtomicU8::new(SILENT),
                    requests: semaphore(REQUESTS_MAX),
                    streamed: Arc::new(semaphore(STREAMED_MAX)),
                    moving_until: Mutex::default(),
                    stop: self.0.stop.child_token(),
                });
                tokio::spawn(keep_connected(
                    self.0.identity.clone(),
                    pin,
                    member.clone(),
                    self.0.times,
                    self.0.clock.clone(),
                ));
                member
            });
        }
        let pins = members.values().filter_map(|member| member.at.pin.parse().ok()).collect();
        self.0.identity.trust(pins);
    }

    /// The state of the connection to another run.
    pub fn link(&self, run: Uuid) -> Link {
        match self.0.member(run).map(|member| member.link.load(Ordering::Acquire)) {
            Some(UP) => Link::Up,
            Some(REFUSED) => Link::Refused,
            Some(_) | None => Link::Silent,
        }
    }

    /// The runs that this process can reach.
    pub fn sees(&self) -> Vec<Uuid> {
        let members = self.0.members();
        let up = members.values().filter(|member| member.link.load(Ordering::Acquire) == UP);
        up.map(|member| member.at.run).collect()
    }

    /// Sends a request to a member, and reads its response.
    ///
    /// # Errors
    /// Returns why there is no response. The member may have executed the request.
    pub async fn send(
        &self,
        to: Uuid,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, PeerError> {
        self.send_within(to, request, self.0.times.request).await
    }

    /// The same for a request that may take longer than others.
    ///
    /// # Errors
    /// Returns why there is no response. The member may have executed the request.
    pub async fn send_within(
        &self,
        to: Uuid,
        request: Request<Bytes>,
        at_most: Duration,
    ) -> Result<Response<Bytes>, PeerError> {
        let kind = kind_of(request.uri().path());
        let exchange = async {
            let member = self.0.member(to).ok_or(PeerError::Unknown)?;
            let _permit = member.requests.try_acquire().map_err(|_| PeerError::Busy)?;
            let (head, body) = self.exchange(&member, request).await?.into_parts();
            let body = Limited::new(body, BODY_MAX).collect().await;
            let body =
                body.map_err(|error| match error.is::<http_body_util::LengthLimitError>() {
                    true => PeerError::TooLarge,
                    false => PeerError::Unreachable,
                })?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        let exchange = tokio::time::timeout(at_most, exchange);
        measured(&self.0.clock, kind, async { exchange.await.unwrap_or(Err(PeerError::TimedOut)) })
            .await
    }

    /// Sends a request to a member. The body of the response is streamed; only its head has a time
    /// limit. At most 128 bodies of a member are open at a time.
    ///
    /// # Errors
    /// Returns why there is no response. The member may have executed the request.
    pub async fn open(
        &self,
        to: Uuid,
        request: Request<Bytes>,
    ) -> Result<Response<Body>, PeerError> {
        let kind = kind_of(request.uri().path());
        let exchange = async {
            let member = self.0.member(to).ok_or(PeerError::Unknown)?;
            let permit = member.streamed.clone().try_acquire_owned();
            let permit = permit.map_err(|_| PeerError::Busy)?;
            Ok(hold_until_end(self.exchange(&member, request).await?, permit))
        };
        let exchange = tokio::time::timeout(self.0.times.request, exchange);
        measured(&self.0.clock, kind, async { exchange.await.unwrap_or(Err(PeerError::TimedOut)) })
            .await
    }

    /// Opens a connection to another node, for local calls in its rooms. The connection stays open
    /// if that node ceases to be a member of the fleet.
    ///
    /// # Errors
    /// Returns why there is no connection.
    pub async fn connect_seats(&self, to: Uuid) -> Result<Box<dyn ByteStream>, PeerError> {
        let member = self.0.member(to).ok_or(PeerError::Unknown)?;
        let pin = member.at.pin.parse().map_err(|_| PeerError::Unknown)?;
        let stream = dial(&self.0.identity, pin, &member, SEATS_ALPN);
        match tokio::time::timeout(self.0.times.connect, stream).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(ConnectError::Refused | ConnectError::Other)) => Err(PeerError::Unreachable),
            Err(_) => Err(PeerError::TimedOut),
        }
    }

    async fn exchange(
        &self,
        member: &Member,
        request: Request<Bytes>,
    ) -> Result<Response<Incoming>, PeerError> {
        if request.body().len() > BODY_MAX {
            return Err(PeerError::TooLarge);
        }
        loop {
            match member.attempt(request.clone()).await {
                Ok(response) if response.headers().contains_key(MOVING_HEADER) => {
                    member.expect_move(self.0.clock.now());
                }
                // When another process takes over, the earlier one completes the requests that it has
                // begun, and executes no others until it closes the connection.
                Err(_) if member.is_moving(self.0.clock.now()) => {}
                answered => return answered,
            }
            tokio::time::sleep(MOVE_RETRY).await;
        }
    }

    /// Announces to the other members that another process takes over from this one. Their requests
    /// wait for it.
    pub async fn announce_move(&self) {
        let announced = self.sees().into_iter().map(|run| {
            let request = post(MOVING, Bytes::new());
            async move { self.send(run, request).await.is_ok() }
        });
        let _ = tokio::time::timeout(ANNOUNCE_TIME, join_all(announced)).await;
    }

    /// Whether another process takes over from a member, or has done so within the last seconds.
    pub fn is_any_moving(&self) -> bool {
        let now = self.0.clock.now();
        self.0.members().values().any(|member| member.is_moving(now))
    }

    /// Notes that a member has announced that another process takes over from it.
    pub fn expect_move(&self, of: Uuid) {
        if let Some(member) = self.0.member(of) {
            member.expect_move(self.0.clock.now());
        }
    }

    /// The response to a request that is not executed, because another process takes over from this
    /// one. It is sent to that process then.
    pub fn moving() -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response.headers_mut().insert(MOVING_HEADER, HeaderValue::from_static("1"));
        response
    }
}

impl Member {
    async fn attempt(&self, request: Request<Bytes>) -> Result<Response<Incoming>, PeerError> {
        // Under the lock, so that no request is sent while the connection is being dropped.
        let sent = match &mut *self.sender() {
            Some(sender) => sender.send_request(request.map(Full::new)),
            None => return Err(PeerError::Unreachable),
        };
        sent.await.map_err(|_| PeerError::Unreachable)
    }
}

impl Inner {
    fn members(&self) -> MutexGuard<'_, BTreeMap<Uuid, Arc<Member>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn member(&self, run: Uuid) -> Option<Arc<Member>> {
        self.members().get(&run).cloned()
    }

    fn member_with(&self, pin: Pin) -> Option<Arc<Member>> {
        let has = |member: &&Arc<Member>| member.at.pin.parse() == Ok(pin);
        self.members().values().find(has).cloned()
    }
}

fn semaphore(permits: u32) -> Semaphore {
    Semaphore::new(usize::try_from(permits).unwrap_or(usize::MAX))
}

/// Returns a response that holds a permit until its body ends or is dropped.
pub fn hold_until_end<B>(
    response: Response<B>,
    permit: impl Send + Unpin + 'static,
) -> Response<Body>
where
    B: hyper::body::Body<Data = Bytes, Error: Into<axum::BoxError>> + Send + 'static,
{
    response.map(|body| Body::new(HoldingBody { body: Body::new(body), permit: Some(permit) }))
}

/// A body that holds a permit.
struct HoldingBody<P> {
    body: Body,
    permit: Option<P>,
}

impl<P: Unpin> hyper::body::Body for HoldingBody<P> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(std::pin::Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() {
            self.permit = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Returns the metric label of requests to a path.
fn kind_of(path: &str) -> &'static str {
    match path {
        WEBHOOK => forward::WEBHOOK,
        CALLS => forward::CALL,
        WANT => forward::UNITS,
        _ if path.starts_with(REST) || path.starts_with(RELAY) => forward::REST,
        _ => forward::NODE,
    }
}

/// Records the duration and outcome of a request to another node.
async fn measured<T>(
    clock: &Clock,
    kind: &'static str,
    exchange: impl Future<Output = Result<T, PeerError>>,
) -> Result<T, PeerError> {
    let begun = clock.now();
    let result = exchange.await;
    let time = clock.now().saturating_duration_since(begun);
    let outcome = match &result {
        Ok(_) => forward::ANSWERED,
        Err(PeerError::Unknown | PeerError::Unreachable) => forward::UNREACHABLE,
        Err(PeerError::TimedOut) => forward::TIMED_OUT,
        Err(PeerError::Busy | PeerError::TooLarge) => forward::REFUSED,
    };
    metrics::counter!(metric::FORWARDS_TOTAL, "kind" => kind, "outcome" => outcome).increment(1);
    metrics::histogram!(metric::PEER_SECONDS, "kind" => kind).record(time);
    result
}

fn pin_of(tls: &server::TlsStream<TcpStream>) -> Option<Pin> {
    Some(Pin::of(tls.get_ref().1.peer_certificates()?.first()?))
}

/// Answers the requests of a member until it closes its connection or is no longer a member, or until
/// `leaving`.
fn answer(
    io: TokioIo<server::TlsStream<TcpStream>>,
    member: Arc<Member>,
    handler: Arc<dyn PeerHandler>,
    times: PeerTimes,
    leaving: CancellationToken,
) -> BoxFuture<'static, ()> {
    let from = member.at.run;
    let service = service_fn(move |request| read_and_handle(handler.clone(), from, request));
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(REQUESTS_MAX + STREAMED_MAX)
        .keep_alive_interval(times.ping)
        .keep_alive_timeout(times.silence)
        .serve_connection(io, service);
    let answering = async move {
        let mut connection = std::pin::pin!(connection);
        if leaving.run_until_cancelled(connection.as_mut()).await.is_none() {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    };
    Box::pin(async move {
        let _ = member.stop.run_until_cancelled(answering).await;
    })
}

async fn read_and_handle(
    handler: Arc<dyn PeerHandler>,
    from: Uuid,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_MAX).collect().await else {
        let mut refused = Response::new(Body::empty());
        *refused.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        return Ok(refused);
    };
    Ok(handler.handle(from, Request::from_parts(head, body.to_bytes())).await)
}

/// Keeps a connection to a member open until it is no longer a member.
async fn keep_connected(
    identity: Identity,
    pin: Pin,
    member: Arc<Member>,
    times: PeerTimes,
    clock: Clock,
) {
    let stop = member.stop.clone();
    let work = async {
        let (mut was_up, mut refusals) = (false, 0);
        loop {
            match connect(&identity, pin, &member, times).await {
                Ok((sender, connection)) => {
                    let mut open = OpenConnection::new(&member, sender, connection);
                    (was_up, refusals) = (true, 0);
                    let begun = clock.now();
                    open.closed().await;
                    let lasted = clock.now().saturating_duration_since(begun);
                    drop(open);
                    // Without a pause: a process that has ended is to be seen soon. One that closes
                    // the connection at once does not know this process yet.
                    if lasted >= times.retry {
                        continue;
                    }
                }
                Err(ConnectError::Refused) if was_up => {
                    refusals = REFUSALS.min(refusals + 1);
                    if refusals == REFUSALS {
                        member.link.store(REFUSED, Ordering::Release);
                    }
                }
                Err(ConnectError::Refused | ConnectError::Other) => {
                    refusals = 0;
                    member.link.store(SILENT, Ordering::Release);
                }
            }
            tokio::time::sleep(times.retry).await;
        }
    };
    stop.run_until_cancelled(work).await;
}

type Connection =
    http2::Connection<TokioIo<client::TlsStream<TcpStream>>, Full<Bytes>, TokioExecutor>;

/// The open connection to a member. Dropping it closes the connection.
struct OpenConnection<'a> {
    member: &'a Member,
    connection: Option<Connection>,
}

impl<'a> OpenConnection<'a> {
    fn new(member: &'a Member, sender: SendRequest<Full<Bytes>>, connection: Connection) -> Self {
        *member.sender() = Some(sender);
        member.link.store(UP, Ordering::Release);
        Self { member, connection: Some(connection) }
    }

    /// Drives the connection until it is closed.
    async fn closed(&mut self) {
        if let Some(connection) = &mut self.connection {
            let _ = connection.await;
        }
    }
}

impl Drop for OpenConnection<'_> {
    /// Drops the connection under the lock of its sender. hyper would never answer a request that is
    /// sent meanwhile: a message that a thread is writing into a channel of tokio outlasts the
    /// receiver.
    fn drop(&mut self) {
        let mut sender = self.member.sender();
        *sender = None;
        self.connection = None;
        self.member.link.store(SILENT, Ordering::Release);
    }
}

enum ConnectError {
    /// The connection is refused: the machine is up, but no process listens.
    Refused,
    Other,
}

/// Connects to a member. The second result drives the connection until it ends.
async fn connect(
    identity: &Identity,
    pin: Pin,
    member: &Member,
    times: PeerTimes,
) -> Result<(SendRequest<Full<Bytes>>, Connection), ConnectError> {
    let connecting = async {
        let io = TokioIo::new(dial(identity, pin, member, ALPN).await?);
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(times.ping)
            .keep_alive_timeout(times.silence)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(RESPONSE_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(io)
            .await
            .map_err(|_| ConnectError::Other)
    };
    tokio::time::timeout(times.connect, connecting).await.unwrap_or(Err(ConnectError::Other))
}

/// Opens a connection to another node and verifies its certificate.
async fn dial(
    identity: &Identity,
    pin: Pin,
    member: &Member,
    protocol: &[u8],
) -> Result<client::TlsStream<TcpStream>, ConnectError> {
    #[allow(clippy::disallowed_methods, reason = "the address is a member's, from the database")]
    let stream = TcpStream::connect(&member.at.address).await;
    let stream = stream.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => ConnectError::Refused,
        _ => ConnectError::Other,
    })?;
    let _ = stream.set_nodelay(true);
    let tls = identity.client(pin, protocol).map_err(|_| ConnectError::Other)?;
    let tls = TlsConnector::from(Arc::new(tls)).connect(pins::server_name(), stream).await;
    tls.map_err(|_| ConnectError::Other)
}
