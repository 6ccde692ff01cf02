//! The HTTPS listener beside the plain one: TLS handshakes, and the plain listener's handling of
//! requests that should use TLS.
//!
//! Requests must not cross a network unencrypted if they can use TLS. The plain listener therefore
//! serves only trusted proxies, which have terminated TLS, and programs on this machine. It
//! redirects browsers and answers the challenges of a certificate authority (RFC 8555 section 8.3).

use std::io;
use std::sync::Arc;

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use tls::{Tls, VALIDATION_PROTOCOL};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::connection::rate_pause;
use super::error;
use engine::limiter::RequestRate;

/// The first byte of a TLS connection: the type of a handshake record.
const HANDSHAKE: u8 = 0x16;

/// What a handshake counts towards the rate of a network, in percent of a request: 500 handshakes per
/// second. One takes about as much time as two requests.
const HANDSHAKE_PERCENT: usize = 200;

/// The response to a client that speaks HTTP to the TLS port.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\n\
    content-length: 40\r\nconnection: close\r\n\r\nthis port speaks HTTPS; use an https URL";

const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// The HTTPS listener.
pub struct Https {
    pub listener: Arc<TcpListener>,
    pub tls: Tls,
    pub config: Arc<rustls::ServerConfig>,
    /// The https URL that requests to the plain listener are redirected to, without a trailing
    /// slash.
    pub base_url: String,
}

impl Https {
    /// Performs the handshake of an accepted connection, within the rate of handshakes of its network.
    /// Returns `None` if the connection is done, because a certificate authority has validated a name.
    ///
    /// # Errors
    /// Returns an error if the peer does not complete the handshake.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        rate: Option<&RequestRate>,
    ) -> io::Result<Option<TlsStream<TcpStream>>> {
        let mut first = [0];
        if stream.peek(&mut first).await? > 0 && first != [HANDSHAKE] {
            refuse_plain_http(stream).await?;
            let message = "the client does not speak TLS";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        if let Some(rate) = rate {
            let mut has_waited = false;
            while let Some(time) = rate_pause(rate) {
                tokio::time::sleep(time).await;
                has_waited = true;
            }
            // The client may have given up.
            if has_waited && stream.peek(&mut first).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            rate.take(HANDSHAKE_PERCENT);
        }
        let mut stream = TlsAcceptor::from(self.config.clone()).accept(stream).await?;
        if stream.get_ref().1.alpn_protocol() == Some(VALIDATION_PROTOCOL) {
            let _ = stream.shutdown().await;
            return Ok(None);
        }
        Ok(Some(stream))
    }

    /// Returns the response of the plain listener. `None` if it serves the request.
    pub(super) fn plain_answer(&self, request: &PlainRequest<'_>) -> Option<Response<Body>> {
        match request.action() {
            PlainAction::Serve => None,
            PlainAction::Challenge(token) => Some(match self.tls.key_authorization(token) {
                Some(content) => Response::new(Body::from(content)),
                None => error::listener_error(
                    StatusCode::NOT_FOUND,
                    "not_found",
                    "no certificate is being requested with this token",
                ),
            }),
            PlainAction::Redirect => {
                let path = request.uri.path_and_query().map_or("/", |path| path.as_str());
                let to = HeaderValue::try_from(format!("{}{path}", self.base_url));
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
                response.headers_mut().extend(to.ok().map(|to| (header::LOCATION, to)));
                Some(response)
            }
            PlainAction::NoPath => Some(error::listener_error(
                StatusCode::BAD_REQUEST,
                "bad_request",
                "the request target must be a path that begins with `/`",
            )),
            PlainAction::Refuse => Some(error::listener_error(
                StatusCode::FORBIDDEN,
                "https_required",
                &format!(
                    "send this request to {} instead; plain HTTP is not secure",
                    self.base_url
                ),
            )),
        }
    }
}

/// Answers plain HTTP on the TLS port, so that the client reports more than a closed connection.
async fn refuse_plain_http(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(PLAIN_HTTP).await?;
    stream.shutdown().await?;
    // Closing a socket with unread data would reset the connection and discard the answer.
    let mut unread = [0; 8_192];
    let _ = stream.read(&mut unread).await?;
    Ok(())
}

/// The properties of a request to the plain listener.
pub(super) struct PlainRequest<'a> {
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    pub(super) headers: &'a HeaderMap,
    /// Whether a program on this machine sends the request.
    pub(super) is_local: bool,
    /// Whether a trusted proxy forwards the request.
    pub(super) is_proxied: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum PlainAction<'a> {
    Serve,
    /// Respond with the content of this token.
    Challenge(&'a str),
    Redirect,
    /// The target is no path, such as `*` (RFC 9112 §3.2.4), so there is nothing to redirect to.
    NoPath,
    Refuse,
}

impl<'a> PlainRequest<'a> {
    /// Decides how to handle a request to the plain listener of a node that has an HTTPS listener.
    fn action(&self) -> PlainAction<'a> {
        let is_read = matches!(*self.method, Method::GET | Method::HEAD);
        if is_read && let Some(token) = self.uri.path().strip_prefix(CHALLENGES) {
            return PlainAction::Challenge(token);
        }
        // A redirect would only lead programs to repeat what they have already sent in the clear.
        let has_key = [header::AUTHORIZATION.as_str(), "x-api-key"]
            .iter()
            .any(|name| self.headers.contains_key(*name));
        match self.is_local {
            _ if self.is_proxied => PlainAction::Serve,
            _ if is_read && !has_key => match self.uri.path().starts_with('/') {
                true => PlainAction::Redirect,
                false => PlainAction::NoPath,
            },
            true => PlainAction::Serve,
            false => PlainAction::Refuse,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_requests_are_redirected_refused_or_served() {
        let [here, there] = [true, false];
        let action = |method: Method, path: &'static str, key: bool, is_local, is_proxied| {
            let uri = Uri::from_static(path);
            let mut headers = HeaderMap::new();
            if key {
                headers.insert("x-api-key", HeaderValue::from_static("k"));
            }
            let (method, headers) = (&method, &headers);
            let request = PlainRequest { method, uri: &uri, headers, is_local, is_proxied };
            format!("{:?}", request.action())
        };
        for (method, key, is_local, is_proxied, expected) in [
            (Method::GET, false, there, false, "Redirect"),
            (Method::HEAD, false, here, false, "Redirect"),
            (Method::GET, true, there, false, "Refuse"),
            (Method::POST, false, there, false, "Refuse"),
            (Method::POST, true, there, false, "Refuse"),
            // Programs on this machine, such as `offhook numbers`.
            (Method::GET, true, here, false, "Serve"),
            (Method::POST, false, here, false, "Serve"),
            (Method::GET, false, there, true, "Serve"),
            (Method::POST, true, there, true, "Serve"),
        ] {
            assert_eq!(
                action(method.clone(), "/v1/", key, is_local, is_proxied),
                expected,
                "{method} {key} {is_local} {is_proxied}"
            );
        }
        let path = "/.well-known/acme-challenge/a-token";
        for is_proxied in [false, true] {
            let taken = action(Method::GET, path, false, there, is_proxied);
            assert_eq!(taken, "Challenge(\"a-token\")");
        }
        assert_eq!(action(Method::POST, path, false, there, false), "Refuse");
        for target in ["*", "offhook.example:80"] {
            assert_eq!(action(Method::GET, target, false, there, false), "NoPath", "{target}");
        }
        assert_eq!(action(Method::GET, "http://offhook.example", false, there, false), "Redirect");
    }

    #[test]
    fn the_answer_to_plain_http_has_its_own_length() {
        let text = std::str::from_utf8(PLAIN_HTTP).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{text}");
    }
}
