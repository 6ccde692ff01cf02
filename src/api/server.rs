//! A listener, the public one or the admin one: an accept loop, its bounds (R10, R14), and who gets a request.
//!
//! The two share nothing. `/webhooks/meta` goes to its own handler, free of every layer; everything else to the axum router. Bounded are
//! connections, heads, idleness and slowness; bodies are their handlers' (`body`). WebSockets and streams live
//! outside hyper's graceful shutdown: their handlers hold a cancellation token.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::connection::{Answering, Conn, Watched};
use super::heads::HEAD_BYTES_MAX;
use super::{error, leftover};
use model::Clock;
use model::metric;

/// The handler of `/webhooks/meta`, all methods: raw bytes in, an answer out at once.
pub type WebhookDoor =
    Arc<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// Who asks, in every request's extensions: the connection's address, or what a trusted proxy says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// Bounds of the listener; the defaults are R10's.
#[derive(Clone, Debug)]
pub struct HttpLimits {
    /// Past it the one that has been idle longest goes.
    pub connections: usize,
    /// A head, from its first byte; on a new connection from the accept.
    pub head: Duration,
    /// Keep-alive between two requests.
    pub idle: Duration,
    /// A peer that takes no bytes of its answer.
    pub stalled: Duration,
    /// How long connections have for what they are at, once the server is cancelled.
    pub grace: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self {
            connections: 8_192,
            head: secs(10),
            idle: secs(75),
            stalled: secs(60),
            grace: secs(5),
        }
    }
}

/// Longest request target (R14).
const URI_BYTES_MAX: usize = 8 << 10;
/// Header fields of a request (R14).
const FIELDS_MAX: usize = 100;

/// What a listener serves.
pub struct Served {
    /// `/webhooks/meta`'s; none: the router has that path, too.
    pub webhook: Option<WebhookDoor>,
    pub router: Router,
    /// `listen.trusted_proxies`.
    pub trusted_proxies: Vec<IpNet>,
    pub limits: HttpLimits,
    pub clock: Clock,
    /// The outside comes by https: browsers are told to stay with it.
    pub secure: bool,
    /// Its connections are those that the metrics tell of.
    pub counted: bool,
}

impl Served {
    /// The admin listener's: few connections, which nobody counts.
    #[must_use]
    pub fn admin(router: Router, clock: Clock) -> Self {
        let limits = HttpLimits { connections: 64, ..HttpLimits::default() };
        Self {
            webhook: None,
            router,
            trusted_proxies: Vec::new(),
            limits,
            clock,
            secure: false,
            counted: false,
        }
    }
}

/// Binds a listener and tells the address, which port 0 leaves open.
///
/// # Errors
/// The system's, with the address; reads well after "could not …".
pub async fn bind(at: SocketAddr) -> Result<(TcpListener, SocketAddr), String> {
    let listener = TcpListener::bind(at).await.map_err(|e| format!("listen on {at}: {e}"))?;
    let bound = listener.local_addr().map_err(|e| format!("listen on {at}: {e}"))?;
    Ok((listener, bound))
}

/// Serves until cancelled; then takes no new connections, lets requests come to their end, and returns.
pub async fn serve(listener: TcpListener, served: Served, cancel: CancellationToken) {
    let server = Arc::new(Server {
        epoch: served.clock.now(),
        builder: builder(),
        open: Mutex::default(),
        cancel: cancel.clone(),
        gauge: served.counted.then(|| metrics::gauge!(metric::HTTP_CONNECTIONS)),
        served,
    });
    let tasks = TaskTracker::new();
    let limits = &server.served.limits;
    let sweep =
        [limits.head, limits.idle, limits.stalled].into_iter().min().unwrap_or_default() / 4;
    let mut sweep =
        tokio::time::interval(sweep.clamp(Duration::from_millis(5), Duration::from_secs(1)));
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut id = 0;
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            _ = sweep.tick() => server.sweep(),
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    id += 1;
                    if let Some(entry) = server.admit(id) {
                        tasks.spawn(server.clone().connection(entry, stream, from));
                    }
                }
                // Out of file descriptors, most likely: nothing dies; an idle connection makes room (R10).
                Err(e) => {
                    tracing::warn!(error = %e, "could not accept a connection; trying again in 100 ms");
                    server.close_idle(&mut server.open());
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(server.served.limits.grace, tasks.wait()).await.is_err() {
        server.open().values().for_each(|conn| conn.kill.cancel());
        tasks.wait().await;
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // `connection` watches the head's time; hyper's own timeout would end idle connections with it.
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
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

struct Server {
    served: Served,
    epoch: Instant,
    builder: auto::Builder<TokioExecutor>,
    open: Mutex<BTreeMap<u64, Arc<Conn>>>,
    cancel: CancellationToken,
    /// Of its open connections, where they are counted.
    gauge: Option<metrics::Gauge>,
}

/// A connection's place among the open ones, given back on drop.
struct Entry {
    id: u64,
    conn: Arc<Conn>,
    server: Arc<Server>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        // What became of it after an upgrade is another's.
        self.conn.over();
        let mut open = self.server.open();
        open.remove(&self.id);
        self.server.gauge(open.len());
    }
}

impl Server {
    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Conn>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gauge(&self, open: usize) {
        if let Some(gauge) = &self.gauge {
            gauge.set(open as f64);
        }
    }

    /// Ends of connections that aren't their peers' doing.
    fn closed(&self, reason: &'static str) {
        if self.served.counted {
            metrics::counter!(metric::HTTP_CONNECTIONS_CLOSED_TOTAL, "reason" => reason)
                .increment(1);
        }
    }

    /// A place for a new connection: where there is none, that of the one idle longest; `None` if all are busy.
    fn admit(self: &Arc<Self>, id: u64) -> Option<Entry> {
        let mut open = self.open();
        if open.len() >= self.served.limits.connections {
            self.closed("full");
            self.close_idle(&mut open)?;
        }
        let conn = Conn::new(&self.served.clock, self.epoch);
        open.insert(id, conn.clone());
        self.gauge(open.len());
        Some(Entry { id, conn, server: self.clone() })
    }

    /// Ends the connection that has been idle longest; `None` if all are busy.
    fn close_idle(&self, open: &mut BTreeMap<u64, Arc<Conn>>) -> Option<()> {
        let idle = open.iter().filter_map(|(id, conn)| Some((conn.idle_since()?, *id))).min();
        open.remove(&idle?.1)?.kill.cancel();
        Some(())
    }

    fn sweep(&self) {
        for conn in self.open().values() {
            if let Some(reason) = conn.overdue(&self.served.limits)
                && !conn.kill.is_cancelled()
            {
                self.closed(reason);
                conn.kill.cancel();
            }
        }
    }

    async fn connection(self: Arc<Self>, entry: Entry, stream: TcpStream, from: SocketAddr) {
        let _ = stream.set_nodelay(true);
        let conn = &entry.conn;
        let service = service_fn(|request| {
            let (server, conn) = (self.clone(), conn.clone());
            async move { Ok::<_, Infallible>(server.request(request, &conn, from.ip()).await) }
        });
        let io = TokioIo::new(Watched { stream, conn: conn.clone() });
        let mut serving = pin!(self.builder.serve_connection_with_upgrades(io, service));
        let outcome = tokio::select! {
            outcome = serving.as_mut() => outcome,
            () = conn.kill.cancelled() => return,
            () = self.cancel.cancelled() => {
                serving.as_mut().graceful_shutdown();
                tokio::select! {
                    outcome = serving.as_mut() => outcome,
                    () = conn.kill.cancelled() => return,
                }
            }
        };
        if let Err(e) = outcome {
            tracing::debug!(error = %e, "a connection ended");
        }
    }

    async fn request(
        &self,
        mut request: Request<Incoming>,
        conn: &Arc<Conn>,
        from: IpAddr,
    ) -> Response<Body> {
        let in_flight = conn.begin();
        let response = match refusal(&request, conn) {
            Some(refused) => refused,
            None => {
                let peer = Peer(client(from, request.headers(), &self.served.trusted_proxies));
                request.extensions_mut().insert(peer);
                if let Some(webhook) = self
                    .served
                    .webhook
                    .as_ref()
                    .filter(|_| request.uri().path() == "/webhooks/meta")
                {
                    webhook(request).await
                } else {
                    let is_one = request.version() < Version::HTTP_2;
                    let (request, leftover) = leftover::lend(request);
                    let Ok(mut response) =
                        self.served.router.clone().oneshot(request.map(Body::new)).await;
                    if is_one {
                        leftover.clear(&mut response).await;
                    }
                    response
                }
            }
        };
        let response = secured(response, self.served.secure);
        response.map(|body| Body::new(Answering::new(body, in_flight)))
    }
}

/// What a browser is told with every answer, the webhook's and refusals included (R20): nothing runs in it, is framed or taken
/// for something else. Pages and files that say something of their own keep that.
fn secured(mut response: Response<Body>, secure: bool) -> Response<Body> {
    const POLICY: &str =
        "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
    let headers = response.headers_mut();
    let mut say = |name, value| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    say(header::CONTENT_SECURITY_POLICY, POLICY);
    say(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    say(header::REFERRER_POLICY, "no-referrer");
    say(header::X_FRAME_OPTIONS, "DENY");
    say(header::CACHE_CONTROL, "no-store");
    if secure {
        say(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    response
}

/// The answer to a request that is out of bounds or not well-formed (R14); the connection ends with it.
fn refusal(request: &Request<Incoming>, conn: &Conn) -> Option<Response<Body>> {
    let (status, code, message) = if uri_bytes(request.uri()) > URI_BYTES_MAX {
        (
            StatusCode::URI_TOO_LONG,
            "uri_too_long",
            "the request target is longer than 8 KiB".to_owned(),
        )
    } else if request.version() < Version::HTTP_2 {
        let hosts = request.headers().get_all(header::HOST).iter().count();
        let what = match conn.bad_head(request.headers()) {
            Some(bad) => format!("the head of the request is not acceptable: {bad:?}"),
            // hyper takes `CONNECT` and a bare authority.
            None if request.uri().path().is_empty() => "the request target has no path".to_owned(),
            None if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) => {
                "exactly one Host is wanted".to_owned()
            }
            None => return None,
        };
        (StatusCode::BAD_REQUEST, "bad_request", what)
    } else if request.headers().len() > FIELDS_MAX {
        let what = "the request has more than 100 header fields".to_owned();
        (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too_many_fields", what)
    } else {
        return None;
    };
    let mut response = error::json(status, code, &message, None);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    Some(response)
}

/// The length of a request target, that of its authority (absolute form) included.
fn uri_bytes(uri: &http::Uri) -> usize {
    let authority = uri.authority().map_or(0, |a| a.as_str().len());
    authority + uri.path_and_query().map_or(0, |p| p.as_str().len())
}

/// Whose request it is: the peer, or, where that is a trusted proxy, the last address in `X-Forwarded-For` that
/// isn't one.
fn client(from: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let from = from.to_canonical();
    let is_trusted = |ip: IpAddr| trusted.iter().any(|net| net.contains(&ip));
    let mut client = from;
    let forwarded: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .collect();
    for hop in forwarded.iter().rev() {
        if !is_trusted(client) {
            break;
        }
        let Ok(ip) = hop.trim().parse::<IpAddr>() else { break };
        client = ip.to_canonical();
    }
    client
}

#[cfg(test)]
pub(super) mod tests;
