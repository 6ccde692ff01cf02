//! WebSocket connections to customer servers. The same address rules apply as to HTTP requests.
//!
//! Redirects are not followed. The size of incoming messages and the rate of incoming bytes are
//! limited.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{CONNECTION, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Uri};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::client::request_uri;
use super::connect::OWNER;
use super::read_budget::{ReadBudget, SocketBudget};
use super::{CustomerUrl, Egress, EgressError};

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

/// The transport of a WebSocket, with or without TLS.
pub struct SocketTransport {
    stream: MaybeTls,
    budget: SocketBudget,
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
        let opening = self.open(url, headers, message_bytes_max, &handshaking);
        timeout(within, OWNER.scope(self.owner.clone(), opening)).await.map_err(timed_out)?
    }

    async fn open(
        &self,
        url: &CustomerUrl,
        headers: HeaderMap,
        message_bytes_max: usize,
        handshaking: &AtomicBool,
    ) -> Result<Socket, EgressError> {
        let request = upgrade_request(url, headers)?;
        let (stream, _) = self.shared.connector.connect(url).await?;
        let stream = match url.is_https() {
            false => MaybeTls::Plain(stream),
            true => {
                let failed = |reason: String| EgressError::Connect { host: url.origin(), reason };
                let host =
                    url.parsed().host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
                let name = ServerName::try_from(host).map_err(|e| failed(e.to_string()))?;
                handshaking.store(true, Ordering::Relaxed);
                let tls =
                    TlsConnector::from(self.shared.socket_tls.clone()).connect(name, stream).await;
                handshaking.store(false, Ordering::Relaxed);
                MaybeTls::Tls(Box::new(tls.map_err(|e| failed(super::tls::describe_error(&e)))?))
            }
        };
        let budget = ReadBudget::new(self.shared.clock.clone(), BYTES_AT_ONCE, BYTES_A_MS);
        let transport = SocketTransport { stream, budget: SocketBudget::of_client(budget) };
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

/// Returns `true` if a received message exceeded the size limit, according to the error of a socket
/// or one of its sources. The close code for this is 1009.
pub fn is_too_large(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut errors = std::iter::successors(Some(error), |error| error.source());
    errors.any(|error| matches!(error.downcast_ref(), Some(Error::Capacity(_))))
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
        self.budget.take(into.filled().get(before..).unwrap_or_default());
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
    use super::{Error, describe_upgrade_failure};

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
