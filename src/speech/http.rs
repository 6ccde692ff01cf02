//! The HTTP client for the operator's own speech endpoints, for text and for sound.
//!
//! The operator chose the addresses, so they are asked directly, local ones included, and not by `egress`'s rules.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Uri};
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::config::Secret;
use crate::egress::client_tls;

/// An address must be reached at once: a caller is waiting.
pub(super) const CONNECT: Duration = Duration::from_secs(3);

/// The client.
pub(super) type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Why an endpoint can't be used at all.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("use [speech.{table}] url {url:?}: it is no {schemes} URL")]
    Url { table: &'static str, url: String, schemes: &'static str },
    #[error("set up TLS for [speech.{table}]: {source}")]
    Tls { table: &'static str, source: rustls::Error },
    #[error("find the recogniser pocketsphinx: {0}")]
    Pocketsphinx(String),
}

/// A client of its own for the endpoint of `[speech.table]`; nothing is sent yet.
pub(super) fn client(table: &'static str) -> Result<HttpClient, EndpointError> {
    let tls = client_tls().map_err(|source| EndpointError::Tls { table, source })?;
    let mut http = HttpConnector::new();
    http.set_connect_timeout(Some(CONNECT));
    http.enforce_http(false);
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .wrap_connector(http);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(60))
        .build(connector))
}

/// The endpoint of a base URL (`https://api.openai.com/v1`), or the URL itself where it ends in `path` already.
pub(super) fn endpoint(table: &'static str, url: &str, path: &str) -> Result<Uri, EndpointError> {
    let wrong = || EndpointError::Url { table, url: url.to_owned(), schemes: "http or https" };
    let base = url.trim_end_matches('/');
    let whole = if base.ends_with(path) { base.to_owned() } else { format!("{base}{path}") };
    let uri: Uri = whole.parse().map_err(|_| wrong())?;
    let usable = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
    usable.then_some(uri).ok_or_else(wrong)
}

/// `Authorization` with this key; `None`: the key has a character that no header may have.
pub(super) fn bearer(key: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", key.reveal())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What is said of such a key, without showing it.
pub(super) const KEY_UNUSABLE: &str = "the API key has a character that no header may have";

/// An error with its causes: hyper's own texts say little.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{bearer, endpoint};
    use crate::config::Secret;

    #[rstest]
    #[case("https://api.example.com/v1", Some("https://api.example.com/v1/audio/speech"))]
    #[case("https://api.example.com/v1/", Some("https://api.example.com/v1/audio/speech"))]
    #[case("http://127.0.0.1:8880/v1/audio/speech", Some("http://127.0.0.1:8880/v1/audio/speech"))]
    #[case("api.example.com", None)]
    #[case("ftp://api.example.com", None)]
    #[case("", None)]
    fn the_endpoint_of_a_url(#[case] url: &str, #[case] found: Option<&str>) {
        assert_eq!(endpoint("openai", url, "/audio/speech").ok().map(|u| u.to_string()).as_deref(), found);
    }

    #[test]
    fn a_key_that_is_no_header_is_refused_and_an_unusable_address_is_named() {
        assert!(bearer(&Secret::new("can\nary")).is_none());
        let error = endpoint("openai", "ftp://x", "/audio/speech").unwrap_err().to_string();
        assert!(error.contains("[speech.openai]") && error.contains("ftp://x"), "{error}");
    }
}
