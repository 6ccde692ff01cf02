//! An HTTP listener: the public one, with or without TLS, or the admin one. See `docs/reference/reliability.md#r10` and
//! `#r14`.
//!
//! The listener limits connections, heads, and idle and slow clients; the handlers limit bodies
//! (`body`). Requests to `/webhooks/meta` go directly to their own handler, without any layer, and
//! all others to the axum router. hyper's graceful shutdown does not cover WebSockets and streams,
//! so their handlers hold a cancellation token.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use ipnet::IpNet;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

pub use super::connection::HttpLimits;
use super::connection::{Connection, ObservedBody, ObservedStream, PIECE, Stream};
use super::heads::HEAD_BYTES_MAX;
use super::https::{Https, PlainRequest};
use super::limited_body::BodyFault;
pub use super::limited_body::LimitedBody;
pub use super::pause::Pause;
use super::pause::PauseState;
use super::{error, unread_body};
use engine::limiter::{
    Claim, Offenders, Pool, RequestClaims, RequestRates, RequestShare, Resource, Shares,
};
use model::AuthId;
use model::Clock;
use model::is_local_host;
use model::metric;

/// The handler of `/webhooks/meta` for all methods. It reads the raw body.
pub type WebhookHandler =
    Arc<dyn Fn(Request<LimitedBody>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// The address of the client, in the extensions of every request. It is that of the connection, or
/// the one that a trusted proxy reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// The message for clients whose requests are held or given up during an upgrade.
const HANDING_OVER: &str = "the node hands over to another process; send the request again";

/// Number of requests that an account may have in progress, however few connections there are.
const IN_PROGRESS_MIN: usize = 16;

/// Maximum length of a request target in bytes.
const URI_BYTES_MAX: usize = 8 << 10;
/// Maximum number of connections that wait to be accepted. If there are more, the kernel drops
/// their SYNs, and each client repeats its SYN only after a second, so the usual 128 would delay
/// webhooks during a burst of connections. The kernel may lower it (`net.core.somaxconn`).
const BACKLOG: u32 = 4_096;
/// Maximum number of streams of an HTTP/2 connection that are reset for mistakes of the client.
const LOCAL_RESETS_MAX: usize = 32;
/// Maximum number of header fields in a request.
const FIELDS_MAX: usize = 100;

/// The settings of a listener.
pub struct ServerConfig {
    /// The handler of `/webhooks/meta`. `None` if the router also serves that path.
    pub webhook: Option<WebhookHandler>,
    pub router: Router,
    /// `listen.https`: accepts connections with TLS as well, within the same limits.
    pub https: Option<Https>,
    /// `listen.trusted_proxies`.
    pub trusted_proxies: Vec<IpNet>,
    /// `listen.proxies_only`: closes plain connections that don't come from a trusted proxy.
    pub proxies_only: bool,
    /// Whether only requests with an IP address or `localhost` as `Host` are accepted, which
    /// prevents DNS rebinding.
    pub local_hosts_only: bool,
    /// Counts evicted connections and bodies, and limits the request rate of each network. `None`
    /// for the admin listener.
    pub offenders: Option<Offenders>,
    pub limits: HttpLimits,
    pub clock: Clock,
    /// Whether clients connect over HTTPS, directly or by a proxy. Responses then carry
    /// `Strict-Transport-Security`.
    pub is_https: bool,
    /// Whether the metrics about connections describe this listener.
    pub has_metrics: bool,
    /// Pauses the listener for an upgrade.
    pub pause: Pause,
}

impl ServerConfig {
    /// The settings of the admin listener: few connections, without metrics.
    #[must_use]
    pub fn admin(router: Router, local_hosts_only: bool, clock: Clock) -> Self {
        let limits = HttpLimits { connections: 64, ..HttpLimits::default() };
        Self {
            webhook: None,
            router,
            https: None,
            trusted_proxies: Vec::new(),
            proxies_only: false,
            local_hosts_only,
            offenders: None,
            limits,
            clock,
            is_https: false,
            has_metrics: false,
            pause: Pause::default(),
        }
    }
}

/// Binds a listener and returns its address. With port 0, the system chooses the port.
///
/// # Errors
/// Fails if the address can't be bound.
pub fn bind(at: SocketAddr) -> Result<(Arc<TcpListener>, SocketAddr), String> {
    let listen = || {
        let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Otherwise a restart could not bind the port while old connections are in TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind(at)?;
        let listener = socket.listen(BACKLOG)?;
        let bound = listener.local_addr()?;
        Ok((Arc::new(listener), bound))
    };
    listen().map_err(|e: std::io::Error| format!("could not listen on {at}: {e}"))
}

/// Serves until cancelled. Then no new connections are accepted, and requests are completed within
/// the grace period.
pub async fn serve(listener: Arc<TcpListener>, config: ServerConfig, cancel: CancellationToken) {
    let pool = |max, resource| {
        Pool::new(max, config.offenders.clone().map(|offenders| (resource, offenders)))
    };
    let rates = || {
        config.offenders.clone().map(|offenders| RequestRates::new(config.clock.clone(), offenders))
    };
    let server = Arc::new(Server {
        connections: pool(config.limits.connections, Resource::Connections),
        bodies: pool(config.limits.body_bytes, Resource::Bodies),
        downloads: pool(config.limits.downloads, Resource::Downloads),
        responses: pool(config.limits.response_bytes, Resource::Responses),
        in_progress: in_progress(config.limits.connections),
        rates: rates(),
        first_rates: rates(),
        handshakes: rates(),
        epoch: config.clock.now(),
        builder: builder(),
        open: Mutex::default(),
        cancel: cancel.clone(),
        gauge: config.has_metrics.then(|| metrics::gauge!(metric::HTTP_CONNECTIONS)),
        config,
    });
    let tasks = TaskTracker::new();
    let limits = &server.config.limits;
    let sweep =
        [limits.head, limits.idle, limits.stalled].into_iter().min().unwrap_or_default() / 4;
    let mut sweep =
        tokio::time::interval(sweep.clamp(Duration::from_millis(5), Duration::from_secs(1)));
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut id = 0;
    let mut paused = server.config.pause.follow();
    // Ends keep-alive connections: at a pause, and when the server stops.
    let mut session = cancel.child_token();
    let mut running = Some(server.config.pause.run());
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            Ok(()) = paused.changed() => match *paused.borrow_and_update() {
                PauseState::Pausing | PauseState::Paused => {
                    session.cancel();
                    running = None;
                }
                PauseState::Running => {
                    session = cancel.child_token();
                    running = Some(server.config.pause.run());
                }
            },
            _ = sweep.tick(), if !server.open().is_empty() => server.sweep(),
            (accepted, is_encrypted) = accept(&listener, server.config.https.as_ref()), if !session.is_cancelled() => {
                match accepted {
                    Ok((stream, from)) => {
                        id += 1;
                        if let Some(entry) = server.admit(id, from.ip(), is_encrypted) {
                            let connection = server.clone().connection(entry, stream, from, is_encrypted, session.clone());
                            tasks.spawn(connection);
                        }
                    }
                    // Most likely there are no file descriptors left: a connection is closed to
                    // make room.
                    Err(e) => {
                        tracing::warn!(error = %e, "accept failed; retrying in 100 ms");
                        server.connections.evict();
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        }
    }
    drop((listener, running));
    tasks.close();
    if tokio::time::timeout(server.config.limits.grace, tasks.wait()).await.is_err() {
        server.open().values().for_each(|connection| connection.kill().cancel());
        tasks.wait().await;
    }
}

/// Accepts a connection. Returns whether it begins with a TLS handshake.
async fn accept(
    plain: &TcpListener,
    https: Option<&Https>,
) -> (io::Result<(TcpStream, SocketAddr)>, bool) {
    let Some(https) = https else { return (plain.accept().await, false) };
    tokio::select! {
        accepted = plain.accept() => (accepted, false),
        accepted = https.listener.accept() => (accepted, true),
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // `connection` limits the time of heads; hyper's own timeout would also close idle connections.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(FIELDS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .max_concurrent_streams(128)
        // Streams that hyper resets don't count among the concurrent ones.
        .max_local_error_reset_streams(LOCAL_RESETS_MAX)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// The origin of the requests on a connection.
#[derive(Clone, Copy)]
struct Origin {
    /// The peer, which may be a proxy.
    from: IpAddr,
    /// Whether the peer is a program on this machine.
    is_local: bool,
    is_encrypted: bool,
}

impl Origin {
    fn of(stream: &TcpStream, from: SocketAddr, is_encrypted: bool) -> Self {
        let from = from.ip().to_canonical();
        // A connection to an address of this machine comes from the same address.
        let is_local = from.is_loopback()
            || stream.local_addr().is_ok_and(|own| own.ip().to_canonical() == from);
        Self { from, is_local, is_encrypted }
    }
}

/// Allows each main account an eighth of the connections for requests in progress, and half to all
/// together: Meta's webhooks and other accounts always find connections that can be closed.
fn in_progress(connections: usize) -> Shares<AuthId> {
    Shares::new((connections / 8).max(IN_PROGRESS_MIN), (connections / 2).max(IN_PROGRESS_MIN))
}

struct Server {
    config: ServerConfig,
    epoch: Instant,
    builder: auto::Builder<TokioExecutor>,
    open: Mutex<BTreeMap<u64, Arc<Connection>>>,
    connections: Pool,
    bodies: Pool,
    downloads: Pool,
    responses: Pool,
    /// The authenticated requests in progress, by main account.
    in_progress: Shares<AuthId>,
    /// `None` if the rates are not limited.
    rates: Option<RequestRates>,
    /// The rates of the first requests of new connections.
    first_rates: Option<RequestRates>,
    /// The rates of TLS handshakes.
    handshakes: Option<RequestRates>,
    cancel: CancellationToken,
    /// The gauge of open connections, if the listener has metrics.
    gauge: Option<metrics::Gauge>,
}

/// Marks a response whose body is read from a file while it is sent. Anyone with the link can request
/// the file, and a slow client holds memory, so the number of such responses is limited.
#[derive(Clone, Copy)]
pub struct Download;

/// Memory of an HTTP/2 stream beside its response, in bytes.
const STREAM_BYTES: usize = 10 << 10;

/// The registration of an open connection, until it is dropped.
struct OpenConnection {
    id: u64,
    connection: Arc<Connection>,
    server: Arc<Server>,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        // After an upgrade the stream has another protocol.
        self.connection.stop_observing();
        self.connection.claim.release();
        let mut open = self.server.open();
        open.remove(&self.id);
        self.server.gauge(open.len());
    }
}

impl Server {
    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gauge(&self, open: usize) {
        if let Some(gauge) = &self.gauge {
            gauge.set(open as f64);
        }
    }

    /// Whether this is the address of a trusted proxy. It sends the requests of many networks, and has
    /// to limit them itself.
    fn is_proxy(&self, from: IpAddr) -> bool {
        is_trusted(from.to_canonical(), &self.config.trusted_proxies)
    }

    /// Counts a connection that the server closes.
    fn closed(&self, reason: &'static str) {
        if self.config.has_metrics {
            metrics::counter!(metric::HTTP_CONNECTIONS_CLOSED_TOTAL, "reason" => reason)
                .increment(1);
        }
    }

    /// Registers a new connection. Another connection may be evicted for it. Returns `None` if the
    /// new connection is not served.
    fn admit(
        self: &Arc<Self>,
        id: u64,
        from: IpAddr,
        is_encrypted: bool,
    ) -> Option<OpenConnection> {
        if self.config.proxies_only && !is_encrypted && !self.is_proxy(from) {
            self.closed("not_proxy");
            return None;
        }
        let claim = self.connections.claim(from, 1);
        if claim.evicted().is_cancelled() {
            self.closed("full");
            return None;
        }
        let rates = [&self.rates, &self.first_rates].map(|rates| {
            let limited = rates.as_ref().filter(|_| !self.is_proxy(from));
            limited.map(|rates| rates.of(from))
        });
        let fresh = self.config.pause.connect();
        let connection = Connection::new(&self.config.clock, self.epoch, claim, rates, fresh);
        let mut open = self.open();
        open.insert(id, connection.clone());
        self.gauge(open.len());
        Some(OpenConnection { id, connection, server: self.clone() })
    }

    /// Notifies the tasks of the connections that may be overdue. They close those that are.
    fn sweep(&self) {
        for connection in self.open().values() {
            if connection.overdue(&self.config.limits).is_some() {
                connection.may_be_overdue.notify_one();
            }
        }
    }

    async fn connection(
        self: Arc<Self>,
        open: OpenConnection,
        stream: TcpStream,
        from: SocketAddr,
        is_encrypted: bool,
        session: CancellationToken,
    ) {
        let _ = stream.set_nodelay(true);
        let connection = &open.connection;
        let origin = Origin::of(&stream, from, is_encrypted);
        let handshakes = self.handshakes.as_ref().filter(|_| !self.is_proxy(from.ip()));
        let handshakes = handshakes.map(|rates| rates.of(from.ip()));
        // The sweep closes the connection if its first request takes too long, handshake included.
        let serving = async {
            let stream = match self.config.https.as_ref().filter(|_| is_encrypted) {
                None => Stream::Plain(stream),
                Some(https) => match Box::pin(https.accept(stream, handshakes.as_ref())).await {
                    Ok(Some(stream)) => Stream::Encrypted(Box::new(stream)),
                    Ok(None) => return,
                    Err(error) => {
                        tracing::debug!(%error, "TLS handshake failed");
                        self.closed("handshake");
                        return;
                    }
                },
            };
            self.serve_http(connection, stream, origin, session).await;
        };
        let mut serving = pin!(serving);
        loop {
            // What the peer has sent is read first: on a busy machine, it may be the node that is late.
            tokio::select! {
                biased;
                () = serving.as_mut() => break,
                () = connection.kill().cancelled() => {
                    self.closed("full");
                    break;
                }
                () = connection.may_be_overdue.notified() => {
                    if let Some(reason) = connection.overdue(&self.config.limits) {
                        self.closed(reason);
                        break;
                    }
                }
            }
        }
        // A WebSocket may still hold it.
        connection.end_requests();
    }

    /// Serves requests until the client closes the connection, or `session` is cancelled.
    async fn serve_http(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        stream: Stream,
        origin: Origin,
        session: CancellationToken,
    ) {
        let service = service_fn(|request| {
            let (server, handling) = (self.clone(), connection.handling());
            async move { Ok::<_, Infallible>(server.request(request, &handling.0, origin).await) }
        });
        let io = TokioIo::new(ObservedStream::new(stream, connection.clone()));
        let mut serving = pin!(self.builder.serve_connection_with_upgrades(io, service));
        let outcome = tokio::select! {
            outcome = serving.as_mut() => outcome,
            () = session.cancelled() => {
                // hyper closes a connection from which it has read nothing yet, even if the client
                // has sent a request.
                let mut paused = self.config.pause.follow();
                let closes = async {
                    let closing = paused.wait_for(|state| *state == PauseState::Paused);
                    tokio::select! {
                        () = connection.first_request() => {}
                        _ = closing => {}
                        () = self.cancel.cancelled() => {}
                    }
                };
                tokio::select! {
                    outcome = serving.as_mut() => return log_failure(outcome),
                    () = closes => {}
                }
                serving.as_mut().graceful_shutdown();
                connection.end_requests();
                serving.await
            }
        };
        log_failure(outcome);
    }

    async fn request(
        &self,
        request: Request<Incoming>,
        connection: &Arc<Connection>,
        origin: Origin,
    ) -> Response<Body> {
        if request.version() < Version::HTTP_2 {
            let _ = self.cancel.run_until_cancelled(connection.wait_for_rate()).await;
        }
        let Some(_running) = self.config.pause.enter(&self.cancel).await else {
            return error::listener_error(
                StatusCode::SERVICE_UNAVAILABLE,
                "restarting",
                HANDING_OVER,
            );
        };
        connection.end_first_wait(&self.config.pause);
        let client = client(origin.from, request.headers(), &self.config.trusted_proxies);
        let in_flight = connection.begin(client);
        let mut is_https = origin.is_encrypted || self.config.is_https;
        let share = RequestShare::default();
        let has_body = !request.body().is_end_stream();
        let is_http2 = request.version() == Version::HTTP_2;
        let mut response = match refusal(&request, connection) {
            Some(refused) => refused,
            None if self.config.local_hosts_only && !is_for_local_host(&request) => {
                let message = "the Host is not an IP address or localhost";
                error::listener_error(StatusCode::MISDIRECTED_REQUEST, "foreign_host", message)
            }
            None => match self.plain_answer(&request, origin) {
                Some(answer) => {
                    is_https = false;
                    answer
                }
                None => tokio::select! {
                    biased;
                    response = self.dispatch(request, connection, client, share.clone()) => response,
                    () = self.config.pause.overdue() => {
                        closing_error(StatusCode::SERVICE_UNAVAILABLE, "restarting", HANDING_OVER)
                    }
                },
            },
        };
        connection.answered(share.get().is_some());
        let is_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if is_upgrade && (has_body || !connection.upgrade()) {
            let message = "a request to upgrade has no body, and the client waits for the response before it sends anything";
            response = closing_error(StatusCode::BAD_REQUEST, "bad_request", message);
        }
        let response = with_security_headers(response, is_https);
        let is_authenticated = share.get().is_some();
        let claim = self.claim(&response, is_http2, client, connection, is_authenticated);
        response.map(|body| Body::new(ObservedBody::new(body, in_flight, share, claim)))
    }

    /// Claims the memory of a response that a client may read slowly. On HTTP/2, a client can have many
    /// unread responses of any size on one connection.
    fn claim(
        &self,
        response: &Response<Body>,
        is_http2: bool,
        client: IpAddr,
        connection: &Connection,
        is_authenticated: bool,
    ) -> Option<Claim> {
        let bytes = response.body().size_hint().exact().unwrap_or_default();
        let bytes = usize::try_from(bytes).ok()?;
        let (pool, weight) = match response.extensions().get::<Download>() {
            Some(Download) => (&self.downloads, 1),
            None if is_http2 && !response.body().is_end_stream() => {
                (&self.responses, bytes.saturating_add(STREAM_BYTES))
            }
            None if is_authenticated && bytes > PIECE => (&self.responses, bytes),
            None => return None,
        };
        Some(pool.claim_until(client, weight, connection.kill().clone()))
    }

    /// The answer to a request that should have used the HTTPS listener.
    fn plain_answer(&self, request: &Request<Incoming>, origin: Origin) -> Option<Response<Body>> {
        let https = self.config.https.as_ref().filter(|_| !origin.is_encrypted)?;
        https.plain_answer(&PlainRequest {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            is_local: origin.is_local,
            is_proxied: is_trusted(origin.from, &self.config.trusted_proxies),
        })
    }

    /// Passes a request to its handler.
    async fn dispatch(
        &self,
        mut request: Request<Incoming>,
        connection: &Arc<Connection>,
        client: IpAddr,
        share: RequestShare,
    ) -> Response<Body> {
        let body = Arc::new(self.bodies.claim(client, 0));
        let claims = RequestClaims {
            connection: connection.claim.clone(),
            body: body.clone(),
            in_progress: self.in_progress.clone(),
            share,
        };
        // HTTP/2 has `:authority` in its place, which the handlers then need not know.
        let host = request.uri().authority().map(|authority| authority.as_str().parse());
        if let Some(Ok(host)) = host {
            request.headers_mut().entry(header::HOST).or_insert(host);
        }
        request.extensions_mut().insert(Peer(client));
        request.extensions_mut().insert(claims);
        let fault = Arc::new(OnceLock::new());
        let request = request.map(|incoming| {
            let (clock, grace) = (self.config.clock.clone(), self.config.limits.body);
            LimitedBody::new(
                incoming,
                clock,
                grace,
                body.clone(),
                connection.clone(),
                fault.clone(),
            )
        });
        let webhook = self.config.webhook.as_ref();
        if let Some(webhook) = webhook.filter(|_| request.uri().path() == "/webhooks/meta") {
            let response = webhook(request).await;
            return fault.get().map_or(response, |fault| body_refusal(*fault));
        }
        let is_http1 = request.version() < Version::HTTP_2;
        let (request, unread) = unread_body::lend(request);
        let Ok(mut response) = self.config.router.clone().oneshot(request.map(Body::new)).await;
        if let Some(fault) = fault.get() {
            response = body_refusal(*fault);
        }
        match is_http1 {
            true => unread.discard(&mut response).await,
            false => unread.discard_beside_response(),
        }
        response
    }
}

fn log_failure<E: std::fmt::Display>(outcome: Result<(), E>) {
    if let Err(e) = outcome {
        tracing::debug!(error = %e, "connection failed");
    }
}

/// The response to a request whose body was not read completely.
fn body_refusal(fault: BodyFault) -> Response<Body> {
    let (status, code) = match fault {
        BodyFault::TooSlow => (StatusCode::REQUEST_TIMEOUT, "slow"),
        BodyFault::Evicted => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
    };
    let mut response = error::listener_error(status, code, &fault.to_string());
    let headers = response.headers_mut();
    if fault == BodyFault::Evicted {
        metrics::counter!(metric::QUEUE_REFUSED_TOTAL, "queue" => metric::queue::BODIES)
            .increment(1);
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// Adds headers that forbid browsers to run, frame or reinterpret a response
/// (`docs/reference/reliability.md#r20`). Headers that a handler has set are kept.
fn with_security_headers(mut response: Response<Body>, is_https: bool) -> Response<Body> {
    const POLICY: &str =
        "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
    let headers = response.headers_mut();
    let mut set = |name, value| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::X_FRAME_OPTIONS, "DENY");
    set(header::CACHE_CONTROL, "no-store");
    if is_https {
        set(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    response
}

/// The response to a request that is malformed or exceeds a limit; the connection is closed after
/// it.
fn refusal(request: &Request<Incoming>, connection: &Connection) -> Option<Response<Body>> {
    let (status, code, message) = if uri_bytes(request.uri()) > URI_BYTES_MAX {
        (
            StatusCode::URI_TOO_LONG,
            "uri_too_long",
            "the request target is longer than 8 KiB".to_owned(),
        )
    } else if request.version() < Version::HTTP_2 {
        let hosts = request.headers().get_all(header::HOST).iter().count();
        let what = match connection.bad_head(request.headers()) {
            Some(bad) => format!("the head of the request is refused: {bad}"),
            // hyper accepts `CONNECT` and a bare authority.
            None if request.uri().path().is_empty() => "the request target has no path".to_owned(),
            None if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) => {
                "the request must have exactly one Host".to_owned()
            }
            None => return None,
        };
        (StatusCode::BAD_REQUEST, "bad_request", what)
    } else if request.headers().len() > FIELDS_MAX {
        let what = "the request has more than 100 header fields".to_owned();
        (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too_many_fields", what)
    } else if !has_one_authority(request) {
        let what = "the request must name one host, in :authority, Host or both".to_owned();
        (StatusCode::BAD_REQUEST, "bad_request", what)
    } else {
        return None;
    };
    Some(closing_error(status, code, &message))
}

/// A response after which the connection is closed.
fn closing_error(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let mut response = error::listener_error(status, code, message);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Whether an HTTP/2 request says once which host it is for. `:authority` and `Host` may both be
/// there if they agree (RFC 9113, section 8.3.1).
fn has_one_authority<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (request.uri().authority(), hosts.next()) {
        (None, None) => false,
        (Some(authority), Some(host))
            if !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) =>
        {
            false
        }
        _ => hosts.next().is_none(),
    }
}

fn is_for_local_host(request: &Request<Incoming>) -> bool {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    request
        .uri()
        .authority()
        .map(|authority| authority.as_str())
        .or(host)
        .is_some_and(is_local_host)
}

/// The length of a request target, including the authority of the absolute form.
fn uri_bytes(uri: &http::Uri) -> usize {
    let authority = uri.authority().map_or(0, |a| a.as_str().len());
    authority + uri.path_and_query().map_or(0, |p| p.as_str().len())
}

fn is_trusted(ip: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&ip))
}

/// Returns the address of the client: the peer's, or if the peer is a trusted proxy, the last
/// address in `X-Forwarded-For` that is not a trusted proxy.
fn client(from: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut client = from.to_canonical();
    // By bytes: what the client has sent need not be text, and a proxy adds its hop to it.
    let forwarded: Vec<&[u8]> = headers
        .get_all("x-forwarded-for")
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .collect();
    for hop in forwarded.iter().rev() {
        if !is_trusted(client, trusted) {
            break;
        }
        let Some(ip) = hop_address(hop) else { break };
        client = ip.to_canonical();
    }
    client
}

/// Parses an address of `X-Forwarded-For`. Some proxies add the port, or brackets to IPv6.
fn hop_address(hop: &[u8]) -> Option<IpAddr> {
    let hop = str::from_utf8(hop).ok()?.trim();
    let in_brackets = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || hop.parse().ok().map(|address: SocketAddr| address.ip());
    hop.parse().ok().or_else(with_port).or_else(in_brackets)
}

#[cfg(test)]
pub(super) mod tests;
