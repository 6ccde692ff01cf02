//! The HTTP client for the operator's own speech endpoints, for text and for sound.
//!
//! The operator chose the addresses, so they are asked directly, local ones included, and not by `egress`'s rules.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Uri};
use http_body_util::Full;

pub(super) use egress::error_chain;
use egress::{DirectClient, direct_client};
use model::Secret;

/// An address must be reached at once: a caller is waiting.
pub(super) const CONNECT: Duration = Duration::from_secs(3);

/// The client.
pub(super) type HttpClient = DirectClient<Full<Bytes>>;

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
    direct_client(CONNECT).map_err(|source| EndpointError::Tls { table, source })
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
    fn a_key_that_is_no_header_is_refused_and_an_unusable_address_is_named() {
        assert!(bearer(&Secret::new("can\nary")).is_none());
        let error = endpoint("openai", "ftp://x", "/audio/speech").unwrap_err().to_string();
        assert!(error.contains("[speech.openai]") && error.contains("ftp://x"), "{error}");
    }
}
