//! Opens TCP connections to customer servers. Each host name is resolved once, every resolved
//! address is checked, and only those addresses are connected to.
//!
//! The HTTP client pools connections by scheme and authority. Reusing one is safe: its address was
//! checked when it was opened, and no second lookup can return a different one.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::Service;
use url::Host;

use super::open_connections::{OpenConnection, OpenConnections};
use super::read_budget::ReadTurn;
use super::resolve::Resolver;
use super::url::CustomerUrl;
use super::{EgressError, Guard, Refusal};
use model::Clock;

/// Time limit for lookup, TCP and TLS together, even if the request was dropped. It equals the
/// largest connect timeout that a customer can set (`docs/reference/callbacks.md#url-settings`).
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Delay before the next address is tried in parallel (RFC 8305 §5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Largest number of addresses tried for one name.
const ADDRESSES_MAX: usize = 8;

/// Maximum number of bytes that a connection receives without a response head or a part of a body.
/// It exceeds everything that the HTTP client holds at once: a head, and the flow-control window of
/// HTTP/2 ([`HTTP2_WINDOW`]). The HTTP client skips interim responses (1xx) and HTTP/2's own frames
/// without counting them, so that a server could keep it busy with them forever.
const UNDELIVERED_BYTES_MAX: usize = 1024 * 1024;
/// The receive window of an HTTP/2 connection and of its streams, in bytes.
pub(super) const HTTP2_WINDOW: u32 = 512 * 1024;

/// A boxed error, as the HTTP client requires.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;
type ConnectFuture<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

tokio::task_local! {
    /// The owner of the request that the task sends. The HTTP client calls its connector in this
    /// task, and passes it nothing but the URL.
    pub(super) static OWNER: Arc<str>;
}

/// Returns the owner of the task's request, or an empty name for those of the node itself.
fn owner() -> Arc<str> {
    OWNER.try_with(Arc::clone).unwrap_or_default()
}

/// Opens TCP connections to checked addresses.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) guard: Guard,
    pub(super) resolver: Resolver,
    pub(super) clock: Clock,
    pub(super) silent: SilentConnections,
    pub(super) open: OpenConnections,
}

/// What a request can learn of the pooled connection that it uses.
#[derive(Clone, Debug)]
pub(super) struct ConnectionInfo {
    pub(super) times: ConnectTimes,
    pub(super) undelivered: UndeliveredBytes,
}

/// The number of bytes that a connection has received since a response head or a part of a body was
/// last taken from it.
#[derive(Clone, Debug, Default)]
pub(super) struct UndeliveredBytes(Arc<AtomicUsize>);

impl UndeliveredBytes {
    pub(super) fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn add(&self, bytes: usize) -> io::Result<()> {
        match self.0.fetch_add(bytes, Ordering::Relaxed) + bytes {
            0..=UNDELIVERED_BYTES_MAX => Ok(()),
            _ => Err(io::Error::other("the server sent more than 1 MiB, but no response")),
        }
    }
}

/// The times at which a connection was opened. A request compares them with its own start to
/// determine whether the connection was opened for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectTimes {
    pub(super) started: Instant,
    pub(super) resolved: Instant,
    pub(super) connected: Instant,
}

impl Connector {
    /// Resolves a target and checks every address.
    pub(super) async fn targets(&self, url: &CustomerUrl) -> Result<Vec<SocketAddr>, EgressError> {
        let port = url.parsed().port_or_known_default().unwrap_or(0);
        let addresses: Vec<IpAddr> = match url.parsed().host() {
            Some(Host::Ipv4(ip)) => vec![ip.into()],
            Some(Host::Ipv6(ip)) => vec![ip.into()],
            Some(Host::Domain(name)) => {
                let found = self.resolver.addresses(&owner(), name).await;
                found
                    .map_err(|e| EgressError::Resolve {
                        name: name.to_owned(),
                        reason: e.to_string(),
                    })?
                    .to_vec()
            }
            None => Vec::new(),
        };
        let targets: Vec<SocketAddr> =
            addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
        // Refuse the name if any of its addresses is forbidden, because a mixed result is an
        // attack.
        targets.iter().try_for_each(|to| self.guard.check(*to)).map_err(|refusal| {
            match (refusal, url.parsed().domain()) {
                (Refusal::Address(_), Some(name)) => Refusal::AddressOf(name.to_owned()),
                (refusal, _) => refusal,
            }
        })?;
        Ok(interleave_families(targets))
    }

    async fn connect_uri(&self, to: Uri) -> Result<TokioIo<TrackedStream>, EgressError> {
        let url = CustomerUrl::parse(&to.to_string(), &self.guard)?;
        let (stream, times) = self.connect(&url).await?;
        Ok(TokioIo::new(TrackedStream {
            stream,
            info: ConnectionInfo { times, undelivered: UndeliveredBytes::default() },
            silent: Some(self.silent.track(url.origin())),
            open: self.open.register(owner()),
            turn: ReadTurn::default(),
        }))
    }

    /// Connects to one of a target's addresses.
    pub(super) async fn connect(
        &self,
        url: &CustomerUrl,
    ) -> Result<(TcpStream, ConnectTimes), EgressError> {
        let started = self.clock.now();
        let targets = self.targets(url).await?;
        let resolved = self.clock.now();
        let failed = |reason: String| EgressError::Connect { host: url.origin(), reason };
        let stream = connect_any(targets).await.map_err(|e| failed(e.to_string()))?;
        let ends = stream.local_addr().and_then(|local| Ok((local, stream.peer_addr()?)));
        let (local, peer) = ends.map_err(|e| failed(e.to_string()))?;
        self.guard.check_connected(local, peer)?;
        let connect_times = ConnectTimes { started, resolved, connected: self.clock.now() };
        Ok((stream, connect_times))
    }
}

/// Interleaves IPv6 and IPv4 addresses, starting with the family of the first one (RFC 8305 §4).
fn interleave_families(targets: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = targets.first().is_some_and(SocketAddr::is_ipv6);
    let (mut preferred, mut other): (VecDeque<_>, VecDeque<_>) =
        targets.into_iter().partition(|t| t.is_ipv6() == first_is_v6);
    let mut interleaved = Vec::new();
    while interleaved.len() < ADDRESSES_MAX && !(preferred.is_empty() && other.is_empty()) {
        interleaved.extend(preferred.pop_front());
        interleaved.extend(other.pop_front());
    }
    interleaved
}

/// Connects to all addresses, starting each [`ATTEMPT_DELAY`] after the previous one, and returns
/// the first connection.
async fn connect_any(targets: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut remaining = targets.into_iter();
    let mut attempts = JoinSet::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        match remaining.next() {
            Some(to) => drop(attempts.spawn(connect(to))),
            None if attempts.is_empty() => return Err(failure),
            None => {}
        }
        let finished = match remaining.len() {
            0 => attempts.join_next().await,
            _ => timeout(ATTEMPT_DELAY, attempts.join_next()).await.ok().flatten(),
        };
        match finished {
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err(e))) => failure = e,
            Some(Err(e)) => failure = io::Error::other(e),
            None => {}
        }
    }
}

/// Delay before a connection attempt is repeated after it found no free file descriptor.
const DESCRIPTOR_RETRY_DELAY: Duration = Duration::from_millis(20);

#[allow(clippy::disallowed_methods, reason = "this is egress: the address was checked")]
async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = loop {
        match TcpStream::connect(to).await {
            // The limit of open files of the process or the system is reached. Retry until a
            // descriptor is free. The caller limits the time.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                tokio::time::sleep(DESCRIPTOR_RETRY_DELAY).await
            }
            connected => break connected?,
        }
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TrackedStream>;
    type Error = BoxError;
    type Future = ConnectFuture<TokioIo<TrackedStream>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connector = self.clone();
        // The client may continue this in another task.
        Box::pin(OWNER.scope(owner(), async move { Ok(connector.connect_uri(to).await?) }))
    }
}

/// Connections on which the server has not sent anything yet, counted by origin. Distinguishes a
/// TLS handshake that hangs from an address that does not respond.
#[derive(Clone, Debug, Default)]
pub(super) struct SilentConnections(Arc<Mutex<BTreeMap<String, usize>>>);

impl SilentConnections {
    /// Returns `true` if there is a silent connection to `origin`.
    pub(super) fn contains(&self, origin: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(origin)
    }

    /// Counts a new connection to `origin` until the returned guard is dropped.
    pub(super) fn track(&self, origin: String) -> SilentConnection {
        *self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(origin.clone())
            .or_default() += 1;
        SilentConnection { connections: self.clone(), origin }
    }
}

/// Counts one silent connection until this value is dropped.
#[derive(Debug)]
pub(super) struct SilentConnection {
    connections: SilentConnections,
    origin: String,
}

impl Drop for SilentConnection {
    fn drop(&mut self) {
        let mut silent = self.connections.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = silent.get_mut(&self.origin) {
            *count -= 1;
            if *count == 0 {
                silent.remove(&self.origin);
            }
        }
    }
}

/// A connection to a checked address.
pub(super) struct TrackedStream {
    stream: TcpStream,
    info: ConnectionInfo,
    /// Dropped when the first bytes arrive.
    silent: Option<SilentConnection>,
    open: OpenConnection,
    turn: ReadTurn,
}

impl Connection for TrackedStream {
    fn connected(&self) -> Connected {
        Connected::new().extra(self.info.clone())
    }
}

impl AsyncRead for TrackedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.open.is_closed(cx) {
            return Poll::Ready(Ok(()));
        }
        ready!(self.turn.poll_ready(cx));
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, into);
        let received = into.filled().len() - before;
        self.turn.record(&read, received);
        if read.is_pending() {
            return read;
        }
        self.silent = None;
        self.open.used();
        self.info.undelivered.add(received)?;
        read
    }
}

impl AsyncWrite for TrackedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.open.used();
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.open.used();
        Pin::new(&mut self.stream).poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Wraps a connector and limits its time, including TLS, so that abandoned connection attempts end.
#[derive(Clone)]
pub(super) struct WithTimeout<C>(pub(super) C);

impl<C> Service<Uri> for WithTimeout<C>
where
    C: Service<Uri, Error = BoxError>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = ConnectFuture<C::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let host = to.to_string();
        let connecting = self.0.call(to);
        Box::pin(async move {
            tokio::select! {
                connected = connecting => connected,
                () = sleep(CONNECT_MAX) => Err(EgressError::ConnectTimeout { host, waited: CONNECT_MAX }.into()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{
        ADDRESSES_MAX, Clock, Connector, OpenConnections, SilentConnections, interleave_families,
    };
    use crate::resolve::Resolver;
    use crate::testing::FakeResolver;
    use crate::{CustomerUrl, EgressError, Guard, Refusal};

    fn connector(fake: Arc<FakeResolver>, guard: Guard) -> Connector {
        Connector {
            guard,
            resolver: Resolver::new(fake),
            clock: Clock::real(),
            silent: SilentConnections::default(),
            open: OpenConnections::new(Clock::real()),
        }
    }

    #[tokio::test]
    async fn r17_a_name_with_one_private_address_is_refused() {
        let guard = Guard::default();
        let url = CustomerUrl::parse("https://app.example.com/", &guard).unwrap();
        for answer in [
            &["8.8.8.8", "127.0.0.1"][..],
            &["10.0.0.1", "8.8.8.8"],
            &["8.8.8.8", "2606:4700::1111", "::ffff:169.254.169.254"],
            &["::1"],
            &["fe80::1", "8.8.8.8"],
        ] {
            let targets =
                connector(FakeResolver::new(&[answer]), guard.clone()).targets(&url).await;
            let refused = Refusal::AddressOf("app.example.com".to_owned());
            assert_eq!(targets, Err(EgressError::Refused(refused)), "{answer:?}");
        }
        let good =
            connector(FakeResolver::new(&[&["8.8.8.8", "1.1.1.1", "2606:4700::1111"]]), guard)
                .targets(&url)
                .await
                .unwrap();
        let addresses: Vec<String> = good.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["8.8.8.8:443", "[2606:4700::1111]:443", "1.1.1.1:443"]);
    }

    #[tokio::test]
    async fn r17_a_name_that_resolves_to_an_own_listener_is_refused() {
        let guard = Guard::new(true, vec!["0.0.0.0:8443".parse().unwrap()]);
        let url = CustomerUrl::parse("https://app.example.com:8443/", &guard).unwrap();
        let targets = connector(FakeResolver::new(&[&["127.0.0.1"]]), guard).targets(&url).await;
        assert!(matches!(targets, Err(EgressError::Refused(Refusal::OwnListener(_)))));
    }

    #[test]
    fn only_the_first_addresses_of_a_long_list_are_tried() {
        let many = (0..100).map(|n| std::net::SocketAddr::from(([8, 8, 8, n], 443))).collect();
        assert_eq!(interleave_families(many).len(), ADDRESSES_MAX);
    }
}
