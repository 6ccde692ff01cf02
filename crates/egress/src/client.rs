//! The HTTP client for customer URLs: HTTP/1.1 and HTTP/2, with connection pooling and bounded
//! responses.
//!
//! Each request has two timeouts: one until a connection is established, and one between two reads
//! after that. For a deadline over the whole request, the caller drops the future. Redirects are
//! returned to the caller, not followed.

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, HOST, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use super::EgressError;
use super::body::Reader;
use super::connect::{
    ConnectionInfo, Connector, HTTP2_WINDOW, OWNER, SilentConnections, UndeliveredBytes,
    WithTimeout,
};
use super::guard::{Guard, Refusal};
use super::open_connections::OpenConnections;
use super::own_files::OwnFiles;
use super::resolve::{Resolve, Resolver, SystemResolver};
use super::tls::{client_tls_with, tls_for_sockets};
use super::url::CustomerUrl;
use model::Clock;

/// Largest response head. The same limits apply to requests that this node receives
/// (`docs/reference/reliability.md#r14`).
const HEAD_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 100;
/// Number of bytes kept of a discarded body.
const DISCARDED_BEGINNING: usize = 2 * 1024;
/// Maximum size of an unwanted body that is read so that its connection can be reused, followed by
/// the time limit. Beyond these the connection is closed.
const DISCARDED_BYTES_MAX: usize = 64 * 1024;
const DISCARDED_TIME_MAX: Duration = Duration::from_secs(1);
/// Maximum idle time of a connection, followed by the maximum number of idle connections per
/// origin.
const IDLE_MAX: Duration = Duration::from_secs(60);
const IDLE_PER_HOST_MAX: usize = 32;

/// Configuration of an [`Egress`].
pub struct EgressConfig {
    pub guard: Guard,
    pub resolver: Arc<dyn Resolve>,
    /// Trusts the certificate authorities of the system and the built-in ones. Disabled only in
    /// tests.
    pub system_roots: bool,
    /// Additional certificate authorities.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// The clock for the duration of file fetches.
    pub clock: Clock,
    /// The node's own files. `None` if it has none.
    pub own_files: Option<OwnFiles>,
}

impl EgressConfig {
    /// Creates a configuration with the system's resolver and certificate authorities.
    pub fn new(guard: Guard) -> Self {
        Self {
            guard,
            resolver: Arc::new(SystemResolver),
            system_roots: true,
            extra_roots: Vec::new(),
            clock: Clock::real(),
            own_files: None,
        }
    }
}

/// The HTTP client for customer URLs. Cheap to clone; clones share connections and the DNS cache.
#[derive(Clone)]
pub struct Egress {
    pub(super) shared: Arc<Shared>,
    /// The owner of the requests. Empty for those of the node itself.
    pub(super) owner: Arc<str>,
}

/// What all clones of an [`Egress`] share.
pub(super) struct Shared {
    pub(super) connector: Connector,
    pub(super) clock: Clock,
    /// The TLS configuration of [`Egress::socket`].
    pub(super) socket_tls: Arc<rustls::ClientConfig>,
    client: HttpClient,
    /// The node's own files, and the client for them. Its connections may lead to the node's own
    /// listeners, so that no other request may use them.
    own_files: Option<(OwnFiles, HttpClient)>,
}

type HttpClient = Client<WithTimeout<HttpsConnector<Connector>>, Full<Bytes>>;

/// A request to one URL.
pub struct EgressRequest<'a> {
    pub method: Method,
    pub url: &'a CustomerUrl,
    /// All headers except `Host` and `Content-Length`, which the client sets.
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Time limit for the connection: DNS lookup, TCP and TLS.
    pub connect: Duration,
    /// Time limit for the response head, and between two chunks of the body.
    pub read: Duration,
    pub body_policy: BodyPolicy,
}

/// Determines when a response body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyPolicy {
    /// Read the body of a 2xx response, at most `max` bytes after decoding. Other bodies are
    /// discarded.
    OnSuccess { max: usize },
    /// Read the body of a response with any status, at most `max` bytes after decoding. For trusted
    /// servers whose error bodies explain the failure.
    Always { max: usize },
    /// Discard the body. Up to 64 KiB are read so that the connection can be reused.
    Discard,
}

/// Progress of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A TCP connection was opened for this request. Not reported if the request uses a pooled
    /// connection.
    Connected { resolved: Instant, connected: Instant },
    /// A connection is ready, including TLS.
    Ready(Instant),
    /// The response head has arrived.
    Responded(Instant),
}

/// A response with any status.
#[derive(Clone, Debug)]
pub struct EgressResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The body. Empty unless the request's [`BodyPolicy`] includes the body of this response.
    pub body: Bytes,
    /// The first bytes of a body that the [`BodyPolicy`] discarded, as sent: at most 2 KiB. They
    /// help to find the cause of an error.
    pub discarded: Bytes,
}

impl EgressResponse {
    /// Returns the target of a 301, 302, 303, 307 or 308 response, checked like any other URL.
    /// Returns `None` for other responses.
    pub fn redirect(
        &self,
        from: &CustomerUrl,
        guard: &Guard,
    ) -> Option<Result<CustomerUrl, Refusal>> {
        let location = match self.status.as_u16() {
            301 | 302 | 303 | 307 | 308 => self.headers.get(LOCATION)?,
            _ => return None,
        };
        Some(match std::str::from_utf8(location.as_bytes()) {
            Ok(location) => from.join(location, guard),
            Err(_) => Err(Refusal::Malformed("a Location header is not UTF-8".to_owned())),
        })
    }
}

impl Egress {
    /// Creates a client with an empty connection pool. The first call in a process blocks while the
    /// system's certificate authorities are read.
    ///
    /// # Errors
    ///
    /// Fails if the TLS library rejects its default configuration.
    pub fn new(config: EgressConfig) -> Result<Self, rustls::Error> {
        let connector = Connector {
            guard: config.guard,
            resolver: Resolver::new(config.resolver),
            clock: config.clock.clone(),
            silent: SilentConnections::default(),
            open: OpenConnections::new(config.clock.clone()),
        };
        let tls = client_tls_with(config.system_roots, config.extra_roots)?;
        let socket_tls = tls_for_sockets(tls.clone());
        let own_files = config.own_files.map(|files| {
            let connector = Connector { guard: files.guard().clone(), ..connector.clone() };
            let client = http_client(connector, tls.clone());
            (files, client)
        });
        let client = http_client(connector.clone(), tls);
        let shared = Shared { connector, clock: config.clock, socket_tls, client, own_files };
        Ok(Self { shared: Arc::new(shared), owner: Arc::default() })
    }

    /// Returns a client for the requests of one owner, such as a main account. Owners take turns
    /// with lookups of host names; the node itself is one of them. Connections and caches are shared.
    pub fn of(&self, owner: &str) -> Self {
        Self { shared: self.shared.clone(), owner: owner.into() }
    }

    /// Returns the rules that customer URLs are checked against.
    pub fn guard(&self) -> &Guard {
        &self.shared.connector.guard
    }

    /// Parses a URL under this client's rules.
    ///
    /// # Errors
    ///
    /// See [`CustomerUrl::parse`].
    pub fn url(&self, text: &str) -> Result<CustomerUrl, Refusal> {
        CustomerUrl::parse(text, self.guard())
    }

    /// Sends a request once. A response with any status is `Ok`.
    ///
    /// # Errors
    ///
    /// Fails if the target is refused or unreachable, if a timeout expires, if the connection
    /// breaks, or if the body is too large or cannot be decoded.
    pub async fn request(&self, request: EgressRequest<'_>) -> Result<EgressResponse, EgressError> {
        self.request_watched(request, &|_| {}).await
    }

    /// Like [`Egress::request`], and calls `on_stage` whenever the request reaches a new stage.
    ///
    /// # Errors
    ///
    /// See [`Egress::request`].
    pub async fn request_watched(
        &self,
        request: EgressRequest<'_>,
        on_stage: &(dyn Fn(Stage) + Sync),
    ) -> Result<EgressResponse, EgressError> {
        let client = &self.shared.client;
        self.open_response(client, request, on_stage).await?.read(&mut |_| ()).await
    }

    /// Requests a file, which may be one of the node's own, and returns the response before its body
    /// is read.
    ///
    /// # Errors
    ///
    /// See [`Egress::request`].
    pub(super) async fn open_file_response(
        &self,
        request: EgressRequest<'_>,
    ) -> Result<OpenResponse, EgressError> {
        let own = self.shared.own_files.as_ref().filter(|(files, _)| files.contains(request.url));
        let client = own.map_or(&self.shared.client, |(_, client)| client);
        self.open_response(client, request, &|_| {}).await
    }

    async fn open_response(
        &self,
        client: &HttpClient,
        request: EgressRequest<'_>,
        on_stage: &(dyn Fn(Stage) + Sync),
    ) -> Result<OpenResponse, EgressError> {
        let (read, body_policy) = (request.read, request.body_policy);
        let (head, body) = self.send(client, request, on_stage).await?;
        let max = match body_policy {
            BodyPolicy::OnSuccess { max } if head.status.is_success() => Some(max),
            BodyPolicy::Always { max } => Some(max),
            BodyPolicy::OnSuccess { .. } | BodyPolicy::Discard => None,
        };
        let reader = max.map(|max| Reader::new(&head.headers, max)).transpose()?;
        Ok(OpenResponse { head, body, read, reader })
    }

    /// Sends a request once and returns a response whose body is read incrementally.
    ///
    /// # Errors
    ///
    /// Fails if the target is refused or unreachable or a timeout expires, and with
    /// [`EgressError::Coding`] if the body is compressed.
    pub async fn stream(&self, request: EgressRequest<'_>) -> Result<EgressStream, EgressError> {
        let (read, body_policy) = (request.read, request.body_policy);
        let (head, body) = self.send(&self.shared.client, request, &|_| {}).await?;
        let coding = head
            .headers
            .get(CONTENT_ENCODING)
            .map(|coding| String::from_utf8_lossy(coding.as_bytes()));
        if let Some(coding) =
            coding.filter(|coding| !coding.trim().eq_ignore_ascii_case("identity"))
        {
            return Err(EgressError::Coding(coding.chars().take(40).collect()));
        }
        let max = match body_policy {
            BodyPolicy::OnSuccess { max } if head.status.is_success() => max,
            BodyPolicy::Always { max } => max,
            BodyPolicy::OnSuccess { .. } | BodyPolicy::Discard => 0,
        };
        Ok(EgressStream {
            status: head.status,
            headers: head.headers,
            body,
            read,
            remaining: max,
            max,
        })
    }

    /// Returns the error for a connection that was not ready within `waited`.
    fn connect_timeout_error(&self, origin: &str, waited: Duration) -> EgressError {
        let host = origin.to_owned();
        match origin.starts_with("https:") && self.shared.connector.silent.contains(origin) {
            true => EgressError::HandshakeTimeout { host, waited },
            false => EgressError::ConnectTimeout { host, waited },
        }
    }

    /// Sends a request and waits for the response head.
    async fn send(
        &self,
        client: &HttpClient,
        request: EgressRequest<'_>,
        on_stage: &(dyn Fn(Stage) + Sync),
    ) -> Result<(http::response::Parts, ResponseBody), EgressError> {
        let started = self.shared.clock.now();
        let (read, host) = (request.read, request.url.origin());
        let mut http_request =
            build_request(request.url, request.method, request.headers, request.body)?;
        let mut connection = capture_connection(&mut http_request);
        let response = OWNER.scope(self.owner.clone(), client.request(http_request));
        tokio::pin!(response);
        let early = timeout(request.connect, async {
            tokio::select! {
                biased;
                response = &mut response => Some(response),
                () = async { drop(connection.wait_for_connection_metadata().await) } => None,
            }
        })
        .await
        .map_err(|_| self.connect_timeout_error(&host, request.connect))?;
        let timed_out = |_| EgressError::ReadTimeout { waited: read };
        let times = connection_info(&connection).map(|info| info.times);
        if let Some(times) = times.filter(|times| times.started >= started) {
            on_stage(Stage::Connected { resolved: times.resolved, connected: times.connected });
        }
        let response = match early {
            Some(response) => response,
            None => {
                on_stage(Stage::Ready(self.shared.clock.now()));
                timeout(read, response).await.map_err(timed_out)?
            }
        };
        let response = response.map_err(|e| into_egress_error(&e, &host))?;
        on_stage(Stage::Responded(self.shared.clock.now()));
        let undelivered =
            connection_info(&connection).map(|info| info.undelivered).unwrap_or_default();
        undelivered.reset();
        let (head, body) = response.into_parts();
        Ok((head, ResponseBody { body, undelivered }))
    }
}

/// The body of a response.
#[derive(Debug)]
struct ResponseBody {
    body: Incoming,
    /// Of the connection that the body arrives on.
    undelivered: UndeliveredBytes,
}

impl ResponseBody {
    /// Waits for the next part of the body, and returns `None` at its end.
    async fn frame(&mut self) -> Option<Result<Frame<Bytes>, hyper::Error>> {
        let frame = self.body.frame().await;
        self.undelivered.reset();
        frame
    }
}

/// A response whose body has not been read.
pub(super) struct OpenResponse {
    head: http::response::Parts,
    body: ResponseBody,
    read: Duration,
    /// `None` if the body is discarded.
    reader: Option<Reader>,
}

impl OpenResponse {
    pub(super) fn is_success(&self) -> bool {
        self.head.status.is_success()
    }

    /// Returns the largest size of the body that is read.
    pub(super) fn body_bytes_max(&self) -> usize {
        self.reader.as_ref().map_or(0, Reader::bytes_max)
    }

    /// Reads the body, and calls `on_chunk` with each chunk of it, unless it is compressed.
    ///
    /// # Errors
    ///
    /// See [`Egress::request`].
    pub(super) async fn read(
        self,
        on_chunk: &mut (dyn FnMut(Bytes) + Send),
    ) -> Result<EgressResponse, EgressError> {
        let Self { head, body, read, reader } = self;
        let (body, discarded) = match reader {
            Some(reader) => (collect_body(body, reader, read, on_chunk).await?, Bytes::new()),
            None => (Bytes::new(), discard_body(body).await),
        };
        let (status, headers) = (head.status, head.headers);
        Ok(EgressResponse { status, headers, body, discarded })
    }
}

/// A response with any status whose body is read incrementally.
#[derive(Debug)]
pub struct EgressStream {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: ResponseBody,
    read: Duration,
    remaining: usize,
    max: usize,
}

impl EgressStream {
    /// Returns the next chunk of the body, or `None` at its end. A body that the request's
    /// [`BodyPolicy`] discards is not read.
    ///
    /// # Errors
    ///
    /// Fails if the read timeout expires, the connection breaks, or the body exceeds its limit.
    pub async fn next(&mut self) -> Result<Option<Bytes>, EgressError> {
        if self.max == 0 {
            return Ok(None);
        }
        let timed_out = |_| EgressError::ReadTimeout { waited: self.read };
        while let Some(frame) = timeout(self.read, self.body.frame()).await.map_err(timed_out)? {
            let frame = frame.map_err(|e| EgressError::Broken { reason: root_cause(&e) })?;
            if let Ok(chunk) = frame.into_data() {
                self.remaining = self
                    .remaining
                    .checked_sub(chunk.len())
                    .ok_or(EgressError::TooLarge { max: self.max })?;
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }
}

/// Creates an HTTP client with its own connection pool.
fn http_client(connector: Connector, tls: rustls::ClientConfig) -> HttpClient {
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(connector);
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_MAX)
        .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
        .http1_max_buf_size(HEAD_BYTES_MAX)
        .http1_max_headers(HEADERS_MAX)
        .http2_initial_connection_window_size(HTTP2_WINDOW)
        .http2_initial_stream_window_size(HTTP2_WINDOW)
        .http2_max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .build(WithTimeout(connector))
}

/// Returns the connection info of a request. `None` if there is no connection yet.
fn connection_info(connection: &CaptureConnection) -> Option<ConnectionInfo> {
    let mut extras = http::Extensions::new();
    connection.connection_metadata().as_ref()?.get_extras(&mut extras);
    extras.remove()
}

fn build_request(
    url: &CustomerUrl,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, EgressError> {
    let (uri, host) = request_uri(url)?;
    let mut request = Request::new(Full::new(body));
    *request.uri_mut() = uri;
    *request.method_mut() = method;
    *request.headers_mut() = headers;
    // Set explicitly because the HTTP client would drop an explicit `:443`.
    request.headers_mut().insert(HOST, host);
    Ok(request)
}

/// Returns a request's URI and its `Host` header.
pub(super) fn request_uri(url: &CustomerUrl) -> Result<(Uri, HeaderValue), EgressError> {
    let unsendable =
        |e: &dyn std::fmt::Display| Refusal::Malformed(format!("it cannot be sent: {e}"));
    let (authority, parsed) = (url.authority(), url.parsed());
    let path_and_query = match parsed.query() {
        Some(query) => format!("{}?{query}", parsed.path()),
        None => parsed.path().to_owned(),
    };
    let host = HeaderValue::from_str(&authority).map_err(|e| unsendable(&e))?;
    let uri =
        Uri::builder().scheme(parsed.scheme()).authority(authority).path_and_query(path_and_query);
    Ok((uri.build().map_err(|e| unsendable(&e))?, host))
}

async fn collect_body(
    mut body: ResponseBody,
    mut reader: Reader,
    read: Duration,
    on_chunk: &mut (dyn FnMut(Bytes) + Send),
) -> Result<Bytes, EgressError> {
    let is_plain = reader.is_plain();
    while let Some(frame) =
        timeout(read, body.frame()).await.map_err(|_| EgressError::ReadTimeout { waited: read })?
    {
        let frame = frame.map_err(|e| EgressError::Broken { reason: root_cause(&e) })?;
        if let Ok(chunk) = frame.into_data() {
            reader.push(&chunk)?;
            if is_plain {
                on_chunk(chunk);
            }
        }
    }
    reader.finish()
}

/// Discards the rest of a body within the limits above and returns its beginning. Errors are
/// ignored.
async fn discard_body(mut body: ResponseBody) -> Bytes {
    let mut remaining = DISCARDED_BYTES_MAX;
    let mut beginning = Vec::new();
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let data = frame.data_ref().map_or(&[][..], |data| data.as_ref());
            let room = DISCARDED_BEGINNING.saturating_sub(beginning.len());
            beginning.extend(data.iter().take(room));
            let Some(rest) = remaining.checked_sub(data.len()) else { break };
            remaining = rest;
        }
    };
    let _ = timeout(DISCARDED_TIME_MAX, reading).await;
    beginning.into()
}

/// Returns the [`EgressError`] of the connector if the error chain contains one, otherwise the
/// client library's error, described by its root cause.
fn into_egress_error(error: &legacy::Error, host: &str) -> EgressError {
    let mut cause = error.source();
    while let Some(e) = cause {
        if let Some(inner) = e.downcast_ref::<EgressError>() {
            return inner.clone();
        }
        cause = e.source();
    }
    match error.is_connect() {
        true => EgressError::Connect { host: host.to_owned(), reason: root_cause(error) },
        false => EgressError::Broken { reason: root_cause(error) },
    }
}

fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    loop {
        if let Some(description) = super::tls::describe_fault(last) {
            return description.to_owned();
        }
        match last.source() {
            Some(next) => last = next,
            None => return last.to_string(),
        }
    }
}
