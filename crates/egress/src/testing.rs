//! Test support: a local HTTP server in the role of a customer's server, and a scripted resolver.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::{Egress, EgressConfig, Guard, Lookup, Resolve};

/// A request that the server received.
#[derive(Clone, Debug)]
pub struct ReceivedRequest {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl ReceivedRequest {
    /// Returns a header's value, or an empty string if it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

/// How the server responds.
pub enum Reply {
    Whole(u16, Vec<(&'static str, String)>, Bytes),
    /// Sends a single byte after each pause, forever.
    Drip(Duration),
    Endless,
    /// Closes the connection before the body is complete.
    CutOff,
    /// Sends this text as an event stream and then breaks the connection.
    CutStream(String),
    Never,
}

impl Reply {
    /// Creates a reply with status 200 and this body.
    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self::Whole(200, Vec::new(), body.into())
    }

    /// Creates a reply with this status and an empty body.
    pub fn status(status: u16) -> Self {
        Self::Whole(status, Vec::new(), Bytes::new())
    }

    /// Creates a redirect to `to`.
    pub fn redirect(status: u16, to: impl Into<String>) -> Self {
        Self::Whole(status, vec![("location", to.into())], Bytes::from_static(b"moved"))
    }

    /// Creates a reply with status 200, this body and this `Content-Encoding`.
    pub fn coded(coding: &str, body: impl Into<Bytes>) -> Self {
        Self::Whole(200, vec![("content-encoding", coding.to_owned())], body.into())
    }

    async fn response(self) -> Response<UnsyncBoxBody<Bytes, io::Error>> {
        let streaming = |chunks| Response::new(BodyExt::boxed_unsync(StreamBody::new(chunks)));
        match self {
            Self::Whole(status, headers, body) => {
                let mut response = Response::new(
                    Full::new(body).map_err(|e: Infallible| match e {}).boxed_unsync(),
                );
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                for (name, value) in headers {
                    response.headers_mut().append(name, value.parse().unwrap());
                }
                response
            }
            Self::Drip(pause) => streaming(Box::pin(stream::unfold((), move |()| async move {
                tokio::time::sleep(pause).await;
                Some((Ok(Frame::data(Bytes::from_static(b"x"))), ()))
            }))
                as std::pin::Pin<
                    Box<dyn futures_util::Stream<Item = io::Result<Frame<Bytes>>> + Send>,
                >),
            Self::Endless => streaming(Box::pin(stream::repeat_with(|| {
                Ok(Frame::data(Bytes::from_static(&[b'x'; 1000])))
            }))),
            Self::CutOff => streaming(Box::pin(stream::iter([
                Ok(Frame::data(Bytes::from_static(b"<Resp"))),
                Err(io::ErrorKind::ConnectionReset.into()),
            ]))),
            Self::CutStream(begun) => {
                let sent = stream::once(async { Ok(Frame::data(Bytes::from(begun))) });
                // Give the client time to read the data before the connection breaks.
                let cut = stream::once(async {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Err(io::ErrorKind::ConnectionReset.into())
                });
                let mut response = streaming(Box::pin(sent.chain(cut)));
                response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
                response
            }
            Self::Never => pending().await,
        }
    }
}

/// A local HTTP server that stops when it is dropped.
pub struct Server {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<ReceivedRequest>>>,
    count: watch::Receiver<usize>,
    _task: JoinSet<()>,
}

impl Server {
    /// Starts a server without TLS.
    pub async fn start(answer: impl Fn(&ReceivedRequest) -> Reply + Send + Sync + 'static) -> Self {
        Self::run(answer, None).await
    }

    /// Starts a TLS server for `localhost` with these ALPN protocols. Also returns its certificate,
    /// which clients must trust.
    pub async fn start_tls(
        protocols: &[&str],
        answer: impl Fn(&ReceivedRequest) -> Reply + Send + Sync + 'static,
    ) -> (Self, CertificateDer<'static>) {
        let (tls, cert) = tls_acceptor(protocols);
        (Self::run(answer, Some(tls)).await, cert)
    }

    async fn run(
        answer: impl Fn(&ReceivedRequest) -> Reply + Send + Sync + 'static,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let mut task = JoinSet::new();
        let (counted, received, answer) = (connections.clone(), seen.clone(), Arc::new(answer));
        let (counter, count) = watch::channel(0);
        let counter = Arc::new(counter);
        task.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let (received, answer, tls, counter) =
                    (received.clone(), answer.clone(), tls.clone(), counter.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (received, answer, counter) =
                        (received.clone(), answer.clone(), counter.clone());
                    async move {
                        let (head, body) = request.into_parts();
                        let seen = ReceivedRequest {
                            method: head.method,
                            target: head.uri.path_and_query().unwrap().to_string(),
                            version: head.version,
                            headers: head.headers,
                            body: body.collect().await.map_err(io::Error::other)?.to_bytes(),
                        };
                        received.lock().unwrap().push(seen.clone());
                        counter.send_modify(|n| *n += 1);
                        let reply = answer(&seen);
                        Ok::<_, io::Error>(reply.response().await)
                    }
                });
                open.spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    match tls {
                        None => drop(server.serve_connection(TokioIo::new(stream), service).await),
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                drop(server.serve_connection(TokioIo::new(stream), service).await);
                            }
                        }
                    }
                });
            }
        });
        Self { address, connections, seen, count, _task: task }
    }

    /// Returns an `http` URL of this server.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Returns an `https` URL of this server.
    pub fn https_url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }

    /// Returns the number of connections that the server has accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits until the server has received `requests` requests.
    pub async fn until_seen(&self, requests: usize) {
        let mut count = self.count.clone();
        let result =
            tokio::time::timeout(Duration::from_secs(60), count.wait_for(|n| *n >= requests)).await;
        assert!(result.is_ok(), "{} requests of {requests} after a minute", self.seen().len());
    }

    /// Returns all requests received so far.
    pub fn seen(&self) -> Vec<ReceivedRequest> {
        self.seen.lock().unwrap().clone()
    }
}

/// Creates the TLS side of a server for `localhost` with these ALPN protocols. Also returns its
/// certificate, which clients must trust.
pub fn tls_acceptor(protocols: &[&str]) -> (TlsAcceptor, CertificateDer<'static>) {
    let generated = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let cert = generated.cert.der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(generated.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.clone()], key)
        .unwrap();
    tls.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    (TlsAcceptor::from(Arc::new(tls)), cert)
}

/// A resolver that returns these answers in order and repeats the last one.
#[derive(Default)]
pub struct FakeResolver {
    answers: Mutex<VecDeque<Vec<IpAddr>>>,
    lookups: AtomicUsize,
}

impl FakeResolver {
    /// Creates a resolver that answers lookups with these address lists.
    pub fn new(answers: &[&[&str]]) -> Arc<Self> {
        let answers =
            answers.iter().map(|a| a.iter().map(|ip| ip.parse().unwrap()).collect()).collect();
        Arc::new(Self { answers: Mutex::new(answers), lookups: AtomicUsize::new(0) })
    }

    /// Returns the number of lookups.
    pub fn lookups(&self) -> usize {
        self.lookups.load(Ordering::SeqCst)
    }
}

impl Resolve for FakeResolver {
    fn lookup(&self, _name: &str) -> Lookup {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        Box::pin(async move {
            tokio::task::yield_now().await;
            answer.ok_or_else(|| io::Error::other("no such name"))
        })
    }
}

/// Creates a client that trusts only `roots` and resolves every name to 127.0.0.1.
pub fn egress(guard: Guard, roots: Vec<CertificateDer<'static>>) -> Egress {
    egress_with(guard, roots, FakeResolver::new(&[&["127.0.0.1"]]))
}

/// Like [`egress`], with the given resolver.
pub fn egress_with(
    guard: Guard,
    roots: Vec<CertificateDer<'static>>,
    resolver: Arc<dyn Resolve>,
) -> Egress {
    Egress::new(EgressConfig {
        resolver,
        system_roots: false,
        extra_roots: roots,
        ..EgressConfig::new(guard)
    })
    .unwrap()
}

/// Returns rules that allow loopback, as in development.
pub fn open_guard() -> Guard {
    Guard::new(true, Vec::new())
}
