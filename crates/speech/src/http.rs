//! The HTTP client for the operator's speech endpoints.
//!
//! The operator chose these URLs, so the rules for customer URLs do not apply: private addresses
//! are allowed.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Uri};
use http_body_util::Full;

pub(super) use egress::error_chain;
use egress::{DirectClient, direct_client};
use model::Secret;

/// Time limit for connecting. It is short because a caller is waiting.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The HTTP client for speech endpoints.
pub(super) type HttpClient = DirectClient<Full<Bytes>>;

/// The reason why a configured endpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("could not use [speech.{table}] url {url:?}: it is not a valid {schemes} URL")]
    Url { table: &'static str, url: String, schemes: &'static str },
    #[error("could not set up TLS for [speech.{table}]: {source}")]
    Tls { table: &'static str, source: rustls::Error },
    #[error("could not find the recogniser whisper: run `offhook models fetch whisper`")]
    Whisper,
    #[error("could not find the recogniser pocketsphinx: {0}")]
    Pocketsphinx(String),
}

/// Creates a client with its own connection pool for the endpoint of `[speech.table]`. Nothing is
/// sent yet.
pub(super) fn client(table: &'static str) -> Result<HttpClient, EndpointError> {
    direct_client(CONNECT_TIMEOUT).map_err(|source| EndpointError::Tls { table, source })
}

/// Returns the endpoint for a base URL (`https://api.openai.com/v1`), or the URL itself if it
/// already ends with `path`.
pub(super) fn endpoint(table: &'static str, url: &str, path: &str) -> Result<Uri, EndpointError> {
    let invalid = || EndpointError::Url { table, url: url.to_owned(), schemes: "http or https" };
    let base = url.trim_end_matches('/');
    let full = if base.ends_with(path) { base.to_owned() } else { format!("{base}{path}") };
    let uri: Uri = full.parse().map_err(|_| invalid())?;
    let usable = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
    usable.then_some(uri).ok_or_else(invalid)
}

/// Returns the URL of an endpoint for people, without its query, which may contain a key.
pub fn shown_url(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

/// Returns the value of an `Authorization` header, or `None` if the key contains a character that
/// headers do not allow.
pub(super) fn bearer(key: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", key.reveal())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Error message for a key with a character that headers do not allow. It must not contain the key.
pub(super) const INVALID_KEY: &str =
    "the API key contains a character that HTTP headers do not allow";

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{bearer, endpoint};
    use model::Secret;

    #[rstest]
    #[case("https://api.example.com/v1", Some("https://api.example.com/v1/audio/speech"))]
    #[case("https://api.example.com/v1/", Some("https://api.example.com/v1/audio/speech"))]
    #[case("http://127.0.0.1:8880/v1/audio/speech", Some("http://127.0.0.1:8880/v1/audio/speech"))]
    #[case("api.example.com", None)]
    #[case("ftp://api.example.com", None)]
    #[case("", None)]
    fn the_endpoint_of_a_url(#[case] url: &str, #[case] found: Option<&str>) {
        assert_eq!(
            endpoint("openai", url, "/audio/speech").ok().map(|u| u.to_string()).as_deref(),
            found
        );
    }

    #[test]
    fn an_invalid_key_is_refused_and_an_invalid_url_is_named() {
        assert!(bearer(&Secret::new("can\nary")).is_none());
        let error = endpoint("openai", "ftp://x", "/audio/speech").unwrap_err().to_string();
        assert!(error.contains("[speech.openai]") && error.contains("ftp://x"), "{error}");
    }
}
