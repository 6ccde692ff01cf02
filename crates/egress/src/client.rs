//! Asks a customer's server one thing and reads the answer within bounds: HTTP/1.1 and 2, connections kept.
//!
//! Two clocks a request: until it has a connection, and between two signs of life after that. A deadline over
//! the whole is the caller's, who drops the future. Redirects are handed back, not followed.

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, HOST, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use super::EgressError;
use super::body::Reader;
use super::connect::{Dial, Dialled, InTime, Mute};
use super::guard::{Guard, Refusal};
use super::resolve::{Resolve, Resolver, SystemResolver};
use super::socket::tls_for_sockets;
use super::tls::client_tls_with;
use super::url::CustomerUrl;
use model::Clock;

/// Head of an answer at most (R14's figures, the other way round).
const HEAD_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 100;
/// A body nobody wants is read this far and long, so that its connection can be used again; then dropped.
const DROPPED_BYTES_MAX: usize = 64 * 1024;
const DROPPED_TIME_MAX: Duration = Duration::from_secs(1);
/// Idle connections kept: how long, and how many for one origin.
const IDLE_MAX: Duration = Duration::from_secs(60);
const IDLE_PER_HOST_MAX: usize = 32;

/// What an [`Egress`] is made of.
pub struct EgressConfig {
    pub guard: Guard,
    pub resolver: Arc<dyn Resolve>,
    /// Trust the system's and the built-in certificate authorities; off only in tests.
    pub system_roots: bool,
    /// Further certificate authorities.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// For the metric of fetched files.
    pub clock: Clock,
}

impl EgressConfig {
    /// The system's resolver and certificate authorities.
    pub fn new(guard: Guard) -> Self {
        Self {
            guard,
            resolver: Arc::new(SystemResolver),
            system_roots: true,
            extra_roots: Vec::new(),
            clock: Clock::real(),
        }
    }
}

/// The way out. Cheap to clone; clones share connections and look-ups.
#[derive(Clone)]
pub struct Egress {
    pub(super) dial: Dial,
    pub(super) clock: Clock,
    /// For [`Egress::socket`].
    pub(super) socket_tls: Arc<rustls::ClientConfig>,
    client: Client<InTime<HttpsConnector<Dial>>, Full<Bytes>>,
}

/// One request to one URL.
pub struct EgressRequest<'a> {
    pub method: Method,
    pub url: &'a CustomerUrl,
    /// All headers but `Host` and `Content-Length`.
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Until there is a connection: look-up, TCP and TLS.
    pub connect: Duration,
    /// Until the answer's head, and between two pieces of its body.
    pub read: Duration,
    pub want: Want,
}

/// What of a 2xx answer's body is wanted. Of any other answer only the head is, but for [`Want::Any`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// All of it, decoded, up to so many bytes.
    Body { max: usize },
    /// The same of an answer of any status: from a server of one's own, which says what was wrong.
    Any { max: usize },
    /// Nothing: up to 64 KiB are read and dropped.
    Nothing,
}

/// Is given a body's pieces as they come.
pub type OnPiece<'a> = &'a mut (dyn FnMut(Bytes) + Send);

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The name had its addresses, and one of them was connected to; told only where that was done for this request.
    Dialled { looked_up: Instant, connected: Instant },
    /// A connection is at hand, TLS included.
    Ready(Instant),
    /// The answer's head has come.
    Answered(Instant),
}

/// An answer of any status.
#[derive(Clone, Debug)]
pub struct EgressResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Empty unless it was wanted and the status is 2xx.
    pub body: Bytes,
}

impl EgressResponse {
    /// Where a 301, 302, 303, 307 or 308 leads, judged like a first target; `None` for any other answer.
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
    /// Makes an empty pool. The first of a process blocks while the system's certificate authorities are read.
    ///
    /// # Errors
    /// The TLS library refuses its own defaults.
    pub fn new(config: EgressConfig) -> Result<Self, rustls::Error> {
        let dial = Dial {
            guard: config.guard,
            resolver: Resolver::new(config.resolver),
            clock: config.clock.clone(),
            mute: Mute::default(),
        };
        let tls = client_tls_with(config.system_roots, config.extra_roots)?;
        let socket_tls = tls_for_sockets(tls.clone());
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(dial.clone());
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .http1_max_headers(HEADERS_MAX)
            .http2_max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
            .build(InTime(connector));
        Ok(Self { dial, clock: config.clock, socket_tls, client })
    }

    /// The rules it goes by.
    pub fn guard(&self) -> &Guard {
        &self.dial.guard
    }

    /// Reads a URL by these rules.
    ///
    /// # Errors
    /// As [`CustomerUrl::parse`].
    pub fn url(&self, text: &str) -> Result<CustomerUrl, Refusal> {
        CustomerUrl::parse(text, self.guard())
    }

    /// Asks, once. An answer of any status is `Ok`.
    ///
    /// # Errors
    /// Refused, not reached, not in time, cut off, too large, not decodable.
    pub async fn request(&self, ask: EgressRequest<'_>) -> Result<EgressResponse, EgressError> {
        self.request_watched(ask, &|_| {}).await
    }

    /// [`Egress::request`], and `on_stage` is told how far it comes, when it comes there.
    ///
    /// # Errors
    /// The same.
    pub async fn request_watched(
        &self,
        ask: EgressRequest<'_>,
        on_stage: &(dyn Fn(Stage) + Sync),
    ) -> Result<EgressResponse, EgressError> {
        self.request_in_pieces(ask, on_stage, &mut |_| ()).await
    }

    /// The same, and `on_piece` is given the pieces of a body that is wanted as they come, unless it is compressed.
    ///
    /// # Errors
    /// The same.
    pub(super) async fn request_in_pieces(
        &self,
        ask: EgressRequest<'_>,
        on_stage: &(dyn Fn(Stage) + Sync),
        on_piece: OnPiece<'_>,
    ) -> Result<EgressResponse, EgressError> {
        let (read, want) = (ask.read, ask.want);
        let (head, body) = self.begin(ask, on_stage).await?;
        let body = match want {
            Want::Body { max } if head.status.is_success() => {
                read_body(&head, body, max, read, on_piece).await?
            }
            Want::Any { max } => read_body(&head, body, max, read, on_piece).await?,
            _ => {
                drop_body(body).await;
                Bytes::new()
            }
        };
        Ok(EgressResponse { status: head.status, headers: head.headers, body })
    }

    /// Asks, once, for an answer that is read as it comes. Redirects are an answer like any other.
    ///
    /// # Errors
    /// Refused, not reached, not in time; or it is compressed, which nothing that is read as it comes may be.
    pub async fn stream(&self, ask: EgressRequest<'_>) -> Result<EgressStream, EgressError> {
        let (read, want) = (ask.read, ask.want);
        let (head, body) = self.begin(ask, &|_| {}).await?;
        let coding = head
            .headers
            .get(CONTENT_ENCODING)
            .map(|coding| String::from_utf8_lossy(coding.as_bytes()));
        if let Some(coding) =
            coding.filter(|coding| !coding.trim().eq_ignore_ascii_case("identity"))
        {
            return Err(EgressError::Coding(coding.chars().take(40).collect()));
        }
        let max = match want {
            Want::Body { max } if head.status.is_success() => max,
            _ => 0,
        };
        Ok(EgressStream { status: head.status, headers: head.headers, body, read, left: max, max })
    }

    /// There is no connection in time.
    fn no_connection(&self, origin: &str, waited: Duration) -> EgressError {
        let host = origin.to_owned();
        match origin.starts_with("https:") && self.dial.mute.has(origin) {
            true => EgressError::HandshakeTimeout { host, waited },
            false => EgressError::ConnectTimeout { host, waited },
        }
    }

    /// Asks, once, and waits for the answer's head.
    async fn begin(
        &self,
        ask: EgressRequest<'_>,
        on_stage: &(dyn Fn(Stage) + Sync),
    ) -> Result<(http::response::Parts, Incoming), EgressError> {
        let asked = self.clock.now();
        let (read, host) = (ask.read, ask.url.origin());
        let mut request = http_request(ask.url, ask.method, ask.headers, ask.body)?;
        let mut connection = capture_connection(&mut request);
        let answer = self.client.request(request);
        tokio::pin!(answer);
        let begun = timeout(ask.connect, async {
            tokio::select! {
                biased;
                answer = &mut answer => Some(answer),
                () = async { drop(connection.wait_for_connection_metadata().await) } => None,
            }
        })
        .await
        .map_err(|_| self.no_connection(&host, ask.connect))?;
        let late = |_| EgressError::ReadTimeout { waited: read };
        if let Some(dialled) = dialled(&connection).filter(|d| d.begun >= asked) {
            on_stage(Stage::Dialled { looked_up: dialled.looked_up, connected: dialled.connected });
        }
        let answer = match begun {
            Some(answer) => answer,
            None => {
                on_stage(Stage::Ready(self.clock.now()));
                timeout(read, answer).await.map_err(late)?
            }
        };
        let answer = answer.map_err(|e| fault(&e, &host))?;
        on_stage(Stage::Answered(self.clock.now()));
        Ok(answer.into_parts())
    }
}

/// An answer of any status whose body is read as it comes.
#[derive(Debug)]
pub struct EgressStream {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: Incoming,
    read: Duration,
    left: usize,
    max: usize,
}

impl EgressStream {
    /// The next piece of the body; `None`: it is over. Of an answer that is no 2xx, nothing is read.
    ///
    /// # Errors
    /// Not in time, cut off, or more than was wanted.
    pub async fn next(&mut self) -> Result<Option<Bytes>, EgressError> {
        if !self.status.is_success() {
            return Ok(None);
        }
        let late = |_| EgressError::ReadTimeout { waited: self.read };
        while let Some(frame) = timeout(self.read, self.body.frame()).await.map_err(late)? {
            let frame = frame.map_err(|e| EgressError::Broken { what: root_cause(&e) })?;
            if let Ok(piece) = frame.into_data() {
                self.left = self
                    .left
                    .checked_sub(piece.len())
                    .ok_or(EgressError::TooLarge { max: self.max })?;
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }
}

/// When the connection that a request got was made.
fn dialled(connection: &CaptureConnection) -> Option<Dialled> {
    let mut extras = http::Extensions::new();
    connection.connection_metadata().as_ref()?.get_extras(&mut extras);
    extras.get().copied()
}

fn http_request(
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
    // Set here, since the client would leave a written `:443` out.
    request.headers_mut().insert(HOST, host);
    Ok(request)
}

/// Where a request goes, and its `Host`.
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

async fn read_body(
    head: &http::response::Parts,
    mut body: Incoming,
    max: usize,
    read: Duration,
    on_piece: OnPiece<'_>,
) -> Result<Bytes, EgressError> {
    let mut reader = Reader::new(&head.headers, max)?;
    let is_plain = reader.is_plain();
    while let Some(frame) =
        timeout(read, body.frame()).await.map_err(|_| EgressError::ReadTimeout { waited: read })?
    {
        let frame = frame.map_err(|e| EgressError::Broken { what: root_cause(&e) })?;
        if let Ok(piece) = frame.into_data() {
            reader.push(&piece)?;
            if is_plain {
                on_piece(piece);
            }
        }
    }
    reader.finish()
}

/// Reads what is left of a body nobody wants, within bounds; its faults are nobody's business.
async fn drop_body(mut body: Incoming) {
    let mut left = DROPPED_BYTES_MAX;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else {
                break;
            };
            left = rest;
        }
    };
    let _ = timeout(DROPPED_TIME_MAX, reading).await;
}

/// Our own error where the connector made one; else what the client library says, by its root cause.
fn fault(error: &legacy::Error, host: &str) -> EgressError {
    let mut cause = error.source();
    while let Some(e) = cause {
        if let Some(ours) = e.downcast_ref::<EgressError>() {
            return ours.clone();
        }
        cause = e.source();
    }
    match error.is_connect() {
        true => EgressError::Connect { host: host.to_owned(), what: root_cause(error) },
        false => EgressError::Broken { what: root_cause(error) },
    }
}

fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    loop {
        if let Some(words) = super::tls::words(last) {
            return words.to_owned();
        }
        match last.source() {
            Some(next) => last = next,
            None => return last.to_string(),
        }
    }
}
