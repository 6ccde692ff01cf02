//! A client for servers of the operator's own choice (speech, storage): asked directly, local ones included, and not by the
//! rules for customers' URLs.

use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::client_tls;

/// Idle connections are kept so long.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// The client; what it sends is a `B`.
pub type DirectClient<B> = Client<HttpsConnector<HttpConnector>, B>;

/// A client of its own, with connections of its own, each of which must be there within `connect`; nothing is sent yet.
///
/// # Errors
/// The system's certificate authorities.
pub fn direct_client<B>(connect: Duration) -> Result<DirectClient<B>, rustls::Error>
where
    B: Body<Data = Bytes> + Send,
{
    let tls = client_tls()?;
    let mut http = HttpConnector::new();
    http.set_connect_timeout(Some(connect));
    http.enforce_http(false);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .wrap_connector(http);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_MAX)
        .build(connector))
}

/// An error with its causes: hyper's own texts say little.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
