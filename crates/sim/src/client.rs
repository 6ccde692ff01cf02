//! The simulator's HTTP client: one request with a deadline and a bounded response. The node that
//! it calls may use http or https.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// A pooled HTTP/1.1 client.
pub type Client = hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A response with its whole body.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// The `Location` of a redirect.
    pub location: Option<String>,
    pub body: Bytes,
}

/// Creates a client. It trusts the certificate authorities of the system and of Mozilla.
///
/// # Errors
///
/// Fails if the TLS library rejects its default configuration.
pub fn client() -> io::Result<Client> {
    client_with(true)
}

/// Creates a client. `keeps_connections` sets whether connections are kept for later requests.
pub(crate) fn client_with(keeps_connections: bool) -> io::Result<Client> {
    let tls = egress::client_tls().map_err(io::Error::other)?;
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
    let mut builder = hyper_util::client::legacy::Client::builder(TokioExecutor::new());
    if !keeps_connections {
        builder.pool_max_idle_per_host(0);
    }
    Ok(builder.build(connector))
}

/// Sends a request and reads the whole response within `deadline`.
///
/// # Errors
///
/// Returns a message if the connection fails, no complete response arrives in time, or the body is
/// longer than `body_bytes_max`.
pub async fn fetch(
    client: &Client,
    request: Request<Bytes>,
    deadline: Duration,
    body_bytes_max: usize,
) -> Result<Response, String> {
    let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let exchange = async {
        let response = send(client, request).await?;
        let status = response.status().as_u16();
        let location = response.headers().get(http::header::LOCATION);
        let location = location.and_then(|to| to.to_str().ok()).map(str::to_owned);
        let mut body_stream = response.into_body();
        let mut body = BytesMut::new();
        while let Some(frame) = body_stream.frame().await {
            let frame = frame.map_err(|e| {
                format!("{authority} closed the connection within its response: {e}")
            })?;
            if let Some(data) = frame.data_ref() {
                if body.len() + data.len() > body_bytes_max {
                    return Err(format!(
                        "the response of {authority} is larger than {body_bytes_max} bytes"
                    ));
                }
                body.extend_from_slice(data);
            }
        }
        Ok(Response { status, location, body: body.freeze() })
    };
    tokio::time::timeout(deadline, exchange).await.unwrap_or_else(|_| {
        Err(format!("no response from {authority} within {} s", deadline.as_secs_f32()))
    })
}

/// Sends a request and returns the response with its body unread.
///
/// # Errors
///
/// Returns a message if the connection fails.
pub async fn send(
    client: &Client,
    request: Request<Bytes>,
) -> Result<http::Response<Incoming>, String> {
    let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    client.request(request.map(Full::new)).await.map_err(|e| {
        let mut cause: &dyn std::error::Error = &e;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        match (e.is_connect(), cause.is::<rustls::Error>()) {
            (true, false) => format!(
                "could not connect to {authority}: {cause}; check the address, and that the server runs"
            ),
            (true, true) => format!(
                "could not connect to {authority}: {cause}; set SSL_CERT_FILE to the certificate of its authority, \
                 also for the `offhook dev` that simulates Meta"
            ),
            (false, _) => format!("the request to {authority} failed: {cause}"),
        }
    })
}

/// Reads a response body line by line.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    rest: BytesMut,
    line_bytes_max: usize,
    ended: bool,
}

impl Lines {
    /// Reads `body`. A line longer than `line_bytes_max` ends the stream.
    pub fn new(body: Incoming, line_bytes_max: usize) -> Self {
        Self { body, rest: BytesMut::new(), line_bytes_max, ended: false }
    }

    /// The next line without its line feed. `None` at the end of the body.
    pub async fn next(&mut self) -> Option<Bytes> {
        let mut searched = 0;
        loop {
            let found =
                self.rest.get(searched..).and_then(|new| new.iter().position(|b| *b == b'\n'));
            if let Some(at) = found {
                let mut line = self.rest.split_to(searched + at + 1);
                line.truncate(searched + at);
                return Some(line.freeze());
            }
            searched = self.rest.len();
            if self.ended || searched > self.line_bytes_max {
                return (!self.rest.is_empty() && searched <= self.line_bytes_max)
                    .then(|| self.rest.split().freeze());
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.rest.extend_from_slice(data);
                    }
                }
                Some(Err(_)) | None => self.ended = true,
            }
        }
    }
}
