//! Dials: a name is resolved once, every address of the answer is checked, and only those are connected to.
//!
//! The pool of `client` keeps connections by scheme and authority. Using one again is safe: its address was
//! checked when it was connected, and there is no second look-up that could give another.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::Service;
use url::Host;

use super::resolve::Resolver;
use super::url::CustomerUrl;
use super::{EgressError, Guard};
use model::Clock;

/// Look-up, connect and TLS together at most, whoever still waits (the largest `ct` of `plivo-callbacks.md` §4.2).
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Head start of an address before the next one is tried beside it (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(250);
/// Addresses of one name tried at most.
const ADDRESSES_MAX: usize = 8;

/// A boxed error, as the HTTP client takes it.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Dialling<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// Makes checked TCP connections.
#[derive(Clone)]
pub(super) struct Dial {
    pub(super) guard: Guard,
    pub(super) resolver: Resolver,
    pub(super) clock: Clock,
    pub(super) mute: Mute,
}

/// When a connection was made; with it in the pool, so that a request knows whether it was made for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialled {
    pub(super) begun: Instant,
    pub(super) looked_up: Instant,
    pub(super) connected: Instant,
}

impl Dial {
    /// The addresses of a target, each of them checked.
    pub(super) async fn targets(&self, url: &CustomerUrl) -> Result<Vec<SocketAddr>, EgressError> {
        let port = url.parsed().port_or_known_default().unwrap_or(0);
        let addresses: Vec<IpAddr> = match url.parsed().host() {
            Some(Host::Ipv4(ip)) => vec![ip.into()],
            Some(Host::Ipv6(ip)) => vec![ip.into()],
            Some(Host::Domain(name)) => {
                let found = self.resolver.addresses(name).await;
                found
                    .map_err(|e| EgressError::Resolve {
                        name: name.to_owned(),
                        what: e.to_string(),
                    })?
                    .to_vec()
            }
            None => Vec::new(),
        };
        let targets: Vec<SocketAddr> =
            addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
        // All of them: a mixed answer is somebody's trick.
        targets.iter().try_for_each(|to| self.guard.check(*to))?;
        Ok(families_in_turn(targets))
    }

    async fn dial(&self, to: Uri) -> Result<Wire, EgressError> {
        let url = CustomerUrl::parse(&to.to_string(), &self.guard)?;
        let (stream, dialled) = self.connect(&url).await?;
        let mute = self.mute.one(url.origin());
        Ok(Wire(TokioIo::new(stream), dialled, Some(mute)))
    }

    /// A connection to one of a target's addresses.
    pub(super) async fn connect(
        &self,
        url: &CustomerUrl,
    ) -> Result<(TcpStream, Dialled), EgressError> {
        let begun = self.clock.now();
        let targets = self.targets(url).await?;
        let looked_up = self.clock.now();
        let failed = |what: String| EgressError::Connect { host: url.origin(), what };
        let stream = first_connected(targets).await.map_err(|e| failed(e.to_string()))?;
        let ends = stream.local_addr().and_then(|local| Ok((local, stream.peer_addr()?)));
        let (local, peer) = ends.map_err(|e| failed(e.to_string()))?;
        self.guard.check_connected(local, peer)?;
        let dialled = Dialled { begun, looked_up, connected: self.clock.now() };
        Ok((stream, dialled))
    }
}

/// IPv6 and IPv4 by turns, beginning with the resolver's first choice (RFC 8305 §4).
fn families_in_turn(targets: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = targets.first().is_some_and(SocketAddr::is_ipv6);
    let (mut preferred, mut other): (VecDeque<_>, VecDeque<_>) =
        targets.into_iter().partition(|t| t.is_ipv6() == first_is_v6);
    let mut turns = Vec::new();
    while turns.len() < ADDRESSES_MAX && !(preferred.is_empty() && other.is_empty()) {
        turns.extend(preferred.pop_front());
        turns.extend(other.pop_front());
    }
    turns
}

/// Connects to whichever answers first, each address with a head start before the next.
async fn first_connected(targets: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut left = targets.into_iter();
    let mut tries = JoinSet::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "there is no address");
    loop {
        match left.next() {
            Some(to) => drop(tries.spawn(connect(to))),
            None if tries.is_empty() => return Err(failure),
            None => {}
        }
        let ended = match left.len() {
            0 => tries.join_next().await,
            _ => timeout(HEAD_START, tries.join_next()).await.ok().flatten(),
        };
        match ended {
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err(e))) => failure = e,
            Some(Err(e)) => failure = io::Error::other(e),
            None => {}
        }
    }
}

/// How soon a connection is tried again that had no descriptor.
const CROWDED: Duration = Duration::from_millis(20);

#[allow(clippy::disallowed_methods, reason = "this is egress: the address was checked")]
async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = loop {
        match TcpStream::connect(to).await {
            // This process, or the system, has as many files open as it may: one is given back in a moment. Whoever waits
            // for this has a time of their own.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                tokio::time::sleep(CROWDED).await
            }
            connected => break connected?,
        }
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Service<Uri> for Dial {
    type Response = Wire;
    type Error = BoxError;
    type Future = Dialling<Wire>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let dial = self.clone();
        Box::pin(async move { Ok(dial.dial(to).await?) })
    }
}

/// Connections on which the server has said nothing yet, by scheme, host and port: a handshake that hangs can be told from an
/// address where nobody is.
#[derive(Clone, Debug, Default)]
pub(super) struct Mute(Arc<Mutex<BTreeMap<String, usize>>>);

impl Mute {
    /// Whether one to that origin is.
    pub(super) fn has(&self, origin: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(origin)
    }

    /// Another one.
    pub(super) fn one(&self, origin: String) -> MuteOne {
        *self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(origin.clone())
            .or_default() += 1;
        MuteOne { of: self.clone(), origin }
    }
}

/// One of them, as long as it is.
#[derive(Debug)]
pub(super) struct MuteOne {
    of: Mute,
    origin: String,
}

impl Drop for MuteOne {
    fn drop(&mut self) {
        let mut mute = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = mute.get_mut(&self.origin) {
            *count -= 1;
            if *count == 0 {
                mute.remove(&self.origin);
            }
        }
    }
}

/// A connection to a checked address; and that nothing has come on it, as long as it has not.
pub(super) struct Wire(TokioIo<TcpStream>, Dialled, Option<MuteOne>);

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new().extra(self.1)
    }
}

impl hyper::rt::Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.0).poll_read(cx, into);
        if read.is_ready() {
            self.2 = None;
        }
        read
    }
}

impl hyper::rt::Write for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, from)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Bounds another connector's time, TLS included: a connect that nobody waits for any more ends too.
#[derive(Clone)]
pub(super) struct InTime<C>(pub(super) C);

impl<C> Service<Uri> for InTime<C>
where
    C: Service<Uri, Error = BoxError>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Dialling<C::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let host = to.to_string();
        let connecting = self.0.call(to);
        Box::pin(async move {
            tokio::select! {
                made = connecting => made,
                () = sleep(CONNECT_MAX) => Err(EgressError::ConnectTimeout { host, waited: CONNECT_MAX }.into()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{ADDRESSES_MAX, Clock, Dial, Mute, families_in_turn};
    use crate::resolve::Resolver;
    use crate::testing::FakeResolver;
    use crate::{CustomerUrl, EgressError, Guard, Refusal};

    fn dial(fake: Arc<FakeResolver>, guard: Guard) -> Dial {
        Dial { guard, resolver: Resolver::new(fake), clock: Clock::real(), mute: Mute::default() }
    }

    #[tokio::test]
    async fn r17_one_bad_address_in_an_answer_spoils_it() {
        let guard = Guard::default();
        let url = CustomerUrl::parse("https://app.example.com/", &guard).unwrap();
        for (answer, refused) in [
            (&["8.8.8.8", "127.0.0.1"][..], "127.0.0.1"),
            (&["10.0.0.1", "8.8.8.8"], "10.0.0.1"),
            (&["8.8.8.8", "2606:4700::1111", "::ffff:169.254.169.254"], "::ffff:169.254.169.254"),
            (&["::1"], "::1"),
            (&["fe80::1", "8.8.8.8"], "fe80::1"),
        ] {
            let targets = dial(FakeResolver::of(&[answer]), guard.clone()).targets(&url).await;
            let refused = Refusal::Address(refused.parse().unwrap());
            assert_eq!(targets, Err(EgressError::Refused(refused)), "{answer:?}");
        }
        let good = dial(FakeResolver::of(&[&["8.8.8.8", "1.1.1.1", "2606:4700::1111"]]), guard)
            .targets(&url)
            .await
            .unwrap();
        let shown: Vec<String> = good.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["8.8.8.8:443", "[2606:4700::1111]:443", "1.1.1.1:443"]);
    }

    #[tokio::test]
    async fn r17_a_name_that_leads_to_our_own_listener_is_refused() {
        let guard = Guard::new(true, vec!["0.0.0.0:8443".parse().unwrap()]);
        let url = CustomerUrl::parse("https://app.example.com:8443/", &guard).unwrap();
        let targets = dial(FakeResolver::of(&[&["127.0.0.1"]]), guard).targets(&url).await;
        assert!(matches!(targets, Err(EgressError::Refused(Refusal::OwnListener(_)))));
    }

    #[test]
    fn a_long_answer_is_tried_in_part() {
        let many = (0..100).map(|n| std::net::SocketAddr::from(([8, 8, 8, n], 443))).collect();
        assert_eq!(families_in_turn(many).len(), ADDRESSES_MAX);
    }
}
