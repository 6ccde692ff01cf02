//! An HTTP client for servers that the operator chose, such as speech and storage services. It may
//! connect to private addresses; the rules for customer URLs do not apply.

use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;

use super::tls::client_tls_with;

/// Maximum idle time of a connection.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// An HTTP client that sends bodies of type `B`.
pub type DirectClient<B> = Client<HttpsConnector<HttpConnector>, B>;

/// Creates a client with its own connection pool. `connect` limits the time of each TCP connection
/// attempt. Nothing is sent yet.
///
/// # Errors
///
/// Fails if the TLS library rejects its default configuration.
pub fn direct_client<B>(connect: Duration) -> Result<DirectClient<B>, rustls::Error>
where
    B: Body<Data = Bytes> + Send,
{
    direct_client_trusting(connect, Vec::new())
}

/// Like [`direct_client`]. It also trusts further certificate authorities.
///
/// # Errors
///
/// Fails if the TLS library rejects its default configuration.
pub fn direct_client_trusting<B>(
    connect: Duration,
    authorities: Vec<CertificateDer<'static>>,
) -> Result<DirectClient<B>, rustls::Error>
where
    B: Body<Data = Bytes> + Send,
{
    let tls = client_tls_with(true, authorities)?;
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

/// Formats an error followed by its sources. The messages of hyper's errors alone rarely name the
/// cause.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
