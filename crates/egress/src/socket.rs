//! A WebSocket to a customer's server: the same rules for its address as for every URL (R17), a connection of its own.
//!
//! No redirect is followed. What is said over it is the asker's business; messages are bounded as they are read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONNECTION, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Uri};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Error};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::client::request_uri;
use super::{CustomerUrl, Egress, EgressError};

/// What waits in memory for a server that does not read, beside what the system keeps.
const WRITE_BYTES_MAX: usize = 512 * 1024;
/// What is read at a time.
const READ_BYTES: usize = 16 * 1024;

/// An open socket.
pub type Socket = WebSocketStream<SocketWire>;

/// Its connection, with TLS or without.
pub struct SocketWire(Way);

enum Way {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Egress {
    /// Opens a socket, once: look-up, connection, TLS and upgrade within `within`. `url` is [`CustomerUrl::socket`]'s,
    /// `headers` are all that the upgrade itself does not need. A message of more than `message_bytes_max` is an error
    /// of the socket's (`tungstenite::Error::Capacity`).
    ///
    /// # Errors
    /// Refused, not reached, not in time, or not upgraded.
    pub async fn socket(
        &self,
        url: &CustomerUrl,
        headers: HeaderMap,
        message_bytes_max: usize,
        within: Duration,
    ) -> Result<Socket, EgressError> {
        let shaking_hands = AtomicBool::new(false);
        let late = |_| {
            let host = url.origin();
            match shaking_hands.load(Ordering::Relaxed) {
                true => EgressError::HandshakeTimeout { host, waited: within },
                false => EgressError::ConnectTimeout { host, waited: within },
            }
        };
        timeout(within, self.open(url, headers, message_bytes_max, &shaking_hands))
            .await
            .map_err(late)?
    }

    async fn open(
        &self,
        url: &CustomerUrl,
        headers: HeaderMap,
        message_bytes_max: usize,
        shaking_hands: &AtomicBool,
    ) -> Result<Socket, EgressError> {
        let request = upgrade(url, headers)?;
        let (stream, _) = self.dial.connect(url).await?;
        let wire = match url.is_https() {
            false => Way::Plain(stream),
            true => {
                let failed = |what: String| EgressError::Connect { host: url.origin(), what };
                let host =
                    url.parsed().host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
                let name = ServerName::try_from(host).map_err(|e| failed(e.to_string()))?;
                shaking_hands.store(true, Ordering::Relaxed);
                let tls = TlsConnector::from(self.socket_tls.clone()).connect(name, stream).await;
                shaking_hands.store(false, Ordering::Relaxed);
                Way::Tls(Box::new(tls.map_err(|e| failed(super::tls::said(&e)))?))
            }
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .max_write_buffer_size(WRITE_BYTES_MAX)
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max));
        match client_async_with_config(request, SocketWire(wire), Some(config)).await {
            Ok((socket, _)) => Ok(socket),
            Err(Error::Http(answer)) => Err(EgressError::NotUpgraded(answer.status().as_u16())),
            Err(error) => Err(EgressError::Broken { what: broken(&error) }),
        }
    }
}

/// Why there was no upgrade, where the library's words would puzzle whoever runs the server.
fn broken(error: &Error) -> String {
    match error {
        Error::AttackAttempt => {
            "the head of the answer to the upgrade is too large (or comes in very many small pieces)".to_owned()
        }
        error => error.to_string(),
    }
}

fn upgrade(url: &CustomerUrl, headers: HeaderMap) -> Result<Request<()>, EgressError> {
    let (uri, host) = request_uri(url)?;
    let mut parts = uri.into_parts();
    let scheme = if url.is_https() { "wss" } else { "ws" };
    let unusable = |what: String| EgressError::Broken { what };
    parts.scheme =
        Some(scheme.parse().map_err(|e: http::uri::InvalidUri| unusable(e.to_string()))?);
    let mut request: Request<()> = Request::new(());
    *request.uri_mut() = Uri::from_parts(parts).map_err(|e| unusable(e.to_string()))?;
    *request.headers_mut() = headers;
    let own = request.headers_mut();
    own.insert(HOST, host);
    own.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    own.insert(UPGRADE, HeaderValue::from_static("websocket"));
    own.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    let key = HeaderValue::try_from(generate_key());
    own.insert(SEC_WEBSOCKET_KEY, key.map_err(|e| unusable(e.to_string()))?);
    Ok(request)
}

/// TLS for sockets: HTTP/1.1 is all that they are upgraded from.
pub(super) fn tls_for_sockets(mut tls: rustls::ClientConfig) -> Arc<rustls::ClientConfig> {
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(tls)
}

/// Whether a message was larger than it may be: the code to close with is 1009.
pub fn is_too_large(error: &tungstenite::Error) -> bool {
    matches!(error, Error::Capacity(_))
}

impl AsyncRead for SocketWire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Way::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Way::Tls(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for SocketWire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Way::Plain(stream) => Pin::new(stream).poll_write(cx, from),
            Way::Tls(stream) => Pin::new(stream).poll_write(cx, from),
        }
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Way::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Way::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Way::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Way::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, broken};

    #[test]
    fn a_head_that_is_too_large_is_called_that() {
        let said = broken(&Error::AttackAttempt);
        assert!(said.contains("too large") && !said.to_lowercase().contains("attack"), "{said}");
        assert_eq!(broken(&Error::Utf8("x".to_owned())), Error::Utf8("x".to_owned()).to_string());
    }
}
