//! WebSocket connections to customer servers. The same address rules apply as to HTTP requests.
//!
//! Redirects are not followed. The size of incoming messages and the rate of incoming bytes are
//! limited.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::header::{CONNECTION, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Uri};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Error};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::client::request_uri;
use super::{CustomerUrl, Egress, EgressError};
use model::Clock;

/// Largest amount of unsent data buffered in the process for a server that does not read.
const WRITE_BYTES_MAX: usize = 512 * 1024;
/// Size of one read.
const READ_BYTES: usize = 16 * 1024;

/// An open WebSocket.
pub type Socket = WebSocketStream<SocketTransport>;

/// Maximum burst of bytes from the server. Beyond it, the socket is read more slowly.
const BYTES_AT_ONCE: i64 = 6 * 1024 * 1024;
/// Maximum rate of bytes from the server, per millisecond: 1 MiB a second.
const BYTES_A_MS: i64 = 1_048;
/// What a frame counts beside its bytes. Frames are read one by one, even those without content.
const FRAME_BYTES: usize = 256;
/// Pause between reads above that rate.
const READ_PAUSE: Duration = Duration::from_millis(50);

/// The transport of a WebSocket, with or without TLS.
pub struct SocketTransport {
    stream: MaybeTls,
    budget: ReadBudget,
    frames: FrameCounter,
}

/// Counts the frames of a WebSocket in the bytes from the server (RFC 6455 §5.2). The bytes begin
/// with the head of the response.
#[derive(Default)]
struct FrameCounter {
    /// Number of bytes of the empty line that ends the head.
    blank_line: usize,
    /// Number of bytes of the present header, up to the length of 7 bits.
    position: u8,
    /// Remaining bytes of the longer length and of the mask.
    extended: u8,
    mask: u8,
    /// Length of the content. While the header is incomplete, what is known of it.
    length: u64,
    /// Remaining bytes of the content.
    content: u64,
}

impl FrameCounter {
    /// Returns the number of frames whose headers end in the next bytes.
    fn count(&mut self, mut bytes: &[u8]) -> usize {
        const BLANK_LINE: &[u8] = b"\r\n\r\n";
        let mut frames = 0;
        while let Some((first, rest)) = bytes.split_first() {
            if self.blank_line < BLANK_LINE.len() {
                self.blank_line = match BLANK_LINE.get(self.blank_line) == Some(first) {
                    true => self.blank_line + 1,
                    false => usize::from(*first == b'\r'),
                };
                bytes = rest;
            } else if self.content > 0 {
                let part = usize::try_from(self.content).unwrap_or(usize::MAX).min(bytes.len());
                self.content -= u64::try_from(part).unwrap_or_default();
                bytes = bytes.get(part..).unwrap_or_default();
            } else {
                self.header(*first);
                frames += usize::from(self.position == 0);
                bytes = rest;
            }
        }
        frames
    }

    /// Takes the next byte of a header. Afterwards `position` is 0 if it was the last one.
    fn header(&mut self, byte: u8) {
        match self.position {
            0 => {
                self.position = 1;
                return;
            }
            1 => {
                self.position = 2;
                self.mask = if byte & 0x80 == 0 { 0 } else { 4 };
                (self.extended, self.length) = match byte & 0x7f {
                    126 => (2, 0),
                    127 => (8, 0),
                    length => (0, length.into()),
                };
            }
            _ if self.extended > 0 => {
                self.extended -= 1;
                self.length = self.length << 8 | u64::from(byte);
            }
            _ => self.mask -= 1,
        }
        if self.extended == 0 && self.mask == 0 {
            self.position = 0;
            self.content = self.length;
        }
    }
}

/// Rate limit for reading from a WebSocket. It counts bytes rather than messages, because frames
/// without content, such as empty fragments, belong to no message.
pub struct ReadBudget {
    clock: Clock,
    at_once: i64,
    a_ms: i64,
    /// The bytes that may be read at present. Negative after a read of more.
    left: i64,
    /// The time up to which `left` was refilled.
    refilled: Instant,
    pause: Option<Pin<Box<Sleep>>>,
}

impl ReadBudget {
    /// Allows a burst of `at_once` bytes, and `a_ms` bytes per millisecond.
    pub fn new(clock: Clock, at_once: i64, a_ms: i64) -> Self {
        let refilled = clock.now();
        Self { clock, at_once, a_ms, left: at_once, refilled, pause: None }
    }

    /// Waits until something may be read.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            let passed = self.clock.now().saturating_duration_since(self.refilled).as_millis();
            let ms = u32::try_from(passed).unwrap_or(u32::MAX);
            self.refilled += Duration::from_millis(ms.into());
            let refill = i64::from(ms).saturating_mul(self.a_ms);
            self.left = self.left.saturating_add(refill).min(self.at_once);
            if self.left > 0 {
                return Poll::Ready(());
            }
            self.pause = Some(Box::pin(sleep(READ_PAUSE)));
        }
    }

    /// Counts bytes that were read.
    pub fn take(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

enum MaybeTls {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Egress {
    /// Opens a WebSocket with one attempt; lookup, connection, TLS and upgrade must finish within
    /// `within`. `url` comes from [`CustomerUrl::socket`], and `headers` are all headers except
    /// those of the upgrade. Receiving a message of more than `message_bytes_max` bytes fails with
    /// `tungstenite::Error::Capacity`.
    ///
    /// # Errors
    ///
    /// Fails if the target is refused or unreachable, if the time is up, or if the server does not
    /// upgrade.
    pub async fn socket(
        &self,
        url: &CustomerUrl,
        headers: HeaderMap,
        message_bytes_max: usize,
        within: Duration,
    ) -> Result<Socket, EgressError> {
        let handshaking = AtomicBool::new(false);
        let timed_out = |_| {
            let host = url.origin();
            match handshaking.load(Ordering::Relaxed) {
                true => EgressError::HandshakeTimeout { host, waited: within },
                false => EgressError::ConnectTimeout { host, waited: within },
            }
        };
        timeout(within, self.open(url, headers, message_bytes_max, &handshaking))
            .await
            .map_err(timed_out)?
    }

    async fn open(
        &self,
        url: &CustomerUrl,
        headers: HeaderMap,
        message_bytes_max: usize,
        handshaking: &AtomicBool,
    ) -> Result<Socket, EgressError> {
        let request = upgrade_request(url, headers)?;
        let (stream, _) = self.connector.connect(url).await?;
        let stream = match url.is_https() {
            false => MaybeTls::Plain(stream),
            true => {
                let failed = |reason: String| EgressError::Connect { host: url.origin(), reason };
                let host =
                    url.parsed().host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
                let name = ServerName::try_from(host).map_err(|e| failed(e.to_string()))?;
                handshaking.store(true, Ordering::Relaxed);
                let tls = TlsConnector::from(self.socket_tls.clone()).connect(name, stream).await;
                handshaking.store(false, Ordering::Relaxed);
                MaybeTls::Tls(Box::new(tls.map_err(|e| failed(super::tls::describe_error(&e)))?))
            }
        };
        let budget = ReadBudget::new(self.clock.clone(), BYTES_AT_ONCE, BYTES_A_MS);
        let transport = SocketTransport { stream, budget, frames: FrameCounter::default() };
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .max_write_buffer_size(WRITE_BYTES_MAX)
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max));
        match client_async_with_config(request, transport, Some(config)).await {
            Ok((socket, _)) => Ok(socket),
            Err(Error::Http(answer)) => Err(EgressError::NotUpgraded(answer.status().as_u16())),
            Err(error) => Err(EgressError::Broken { reason: describe_upgrade_failure(&error) }),
        }
    }
}

/// Describes a failed upgrade. The library's own message for an oversized response head ("attack
/// attempt") would be misleading.
fn describe_upgrade_failure(error: &Error) -> String {
    match error {
        Error::AttackAttempt => {
            "the response head of the upgrade is too large or arrives in too many small pieces"
                .to_owned()
        }
        error => error.to_string(),
    }
}

fn upgrade_request(url: &CustomerUrl, headers: HeaderMap) -> Result<Request<()>, EgressError> {
    let (uri, host) = request_uri(url)?;
    let mut parts = uri.into_parts();
    let scheme = if url.is_https() { "wss" } else { "ws" };
    let invalid = |reason: String| EgressError::Broken { reason };
    parts.scheme = Some(scheme.parse().map_err(|e: http::uri::InvalidUri| invalid(e.to_string()))?);
    let mut request: Request<()> = Request::new(());
    *request.uri_mut() = Uri::from_parts(parts).map_err(|e| invalid(e.to_string()))?;
    *request.headers_mut() = headers;
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    let key = HeaderValue::try_from(generate_key());
    headers.insert(SEC_WEBSOCKET_KEY, key.map_err(|e| invalid(e.to_string()))?);
    Ok(request)
}

/// Returns `true` if a received message exceeded the size limit. The close code for this is 1009.
pub fn is_too_large(error: &tungstenite::Error) -> bool {
    matches!(error, Error::Capacity(_))
}

impl AsyncRead for SocketTransport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.budget.poll_ready(cx));
        let before = into.filled().len();
        let read = match &mut self.stream {
            MaybeTls::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            MaybeTls::Tls(stream) => Pin::new(stream).poll_read(cx, into),
        };
        let received = into.filled().get(before..).unwrap_or_default();
        let frames = self.frames.count(received);
        self.budget.take(received.len() + frames * FRAME_BYTES);
        read
    }
}

impl AsyncWrite for SocketTransport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            MaybeTls::Plain(stream) => Pin::new(stream).poll_write(cx, from),
            MaybeTls::Tls(stream) => Pin::new(stream).poll_write(cx, from),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            MaybeTls::Plain(stream) => Pin::new(stream).poll_flush(cx),
            MaybeTls::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            MaybeTls::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            MaybeTls::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::{
        BYTES_AT_ONCE, Error, FrameCounter, READ_PAUSE, ReadBudget, describe_upgrade_failure,
    };
    use model::{Clock, Timestamp};

    #[tokio::test]
    async fn bytes_above_the_rate_are_read_later() {
        let clock = Clock::stepped(Timestamp::default());
        let mut budget = ReadBudget::new(clock.clone(), BYTES_AT_ONCE, super::BYTES_A_MS);
        let is_ready =
            |budget: &mut ReadBudget| budget.poll_ready(&mut Context::from_waker(Waker::noop()));
        budget.take(usize::try_from(BYTES_AT_ONCE).unwrap() - 1);
        assert_eq!(is_ready(&mut budget), Poll::Ready(()));
        budget.take(16_384);
        assert_eq!(is_ready(&mut budget), Poll::Pending);
        clock.step(READ_PAUSE * 10);
        budget.pause = None;
        assert_eq!(is_ready(&mut budget), Poll::Ready(()));
        assert_eq!(budget.left, 1 - 16_384 + 500 * super::BYTES_A_MS, "the debt counts");
        clock.step(READ_PAUSE * 1_000);
        assert_eq!(is_ready(&mut budget), Poll::Ready(()));
        assert_eq!(budget.left, BYTES_AT_ONCE, "no more than a burst");
    }

    #[test]
    fn frames_are_counted_in_pieces_of_any_size() {
        let long = |header: &[u8], content: usize| [header, &vec![0x81; content]].concat();
        let stream = [
            b"HTTP/1.1 101 Switching Protocols\r\nx: \r\r\n\r\n".to_vec(),
            long(&[0x01, 1], 1),
            // Empty fragments, one of them masked.
            vec![0x00, 0, 0x00, 0, 0x00, 0x80, 1, 2, 3, 4],
            long(&[0x82, 126, 1, 0], 256),
            long(&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0], 65_536),
            long(&[0x89, 125], 125),
        ]
        .concat();
        for size in [1, 2, 3, 7, 100, stream.len()] {
            let mut counter = FrameCounter::default();
            let frames: usize = stream.chunks(size).map(|piece| counter.count(piece)).sum();
            assert_eq!((frames, counter.position, counter.content), (7, 0, 0), "{size}");
        }
    }

    #[test]
    fn an_oversized_response_head_is_described_as_such() {
        let text = describe_upgrade_failure(&Error::AttackAttempt);
        assert!(text.contains("too large") && !text.to_lowercase().contains("attack"), "{text}");
        assert_eq!(
            describe_upgrade_failure(&Error::Utf8("x".to_owned())),
            Error::Utf8("x".to_owned()).to_string()
        );
    }
}
