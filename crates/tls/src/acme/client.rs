//! The HTTP client of the ACME protocol.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use egress::{DirectClient, direct_client_trusting, error_chain};
use http::header::RETRY_AFTER;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::CertificateDer;

use super::schedule::retry_after;
use model::Clock;

/// Timeout of a TCP connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of a request.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum size of a response in bytes. A certificate chain has a few kilobytes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// A response with an error status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<Duration>,
}

/// An HTTP client that remembers the last response with an error status, because the errors of the
/// protocol's library don't have its headers. Clones share it.
#[derive(Clone)]
pub(crate) struct AuthorityClient {
    http: DirectClient<BodyWrapper<Bytes>>,
    clock: Clock,
    refusal: Arc<Mutex<Option<Refusal>>>,
}

impl AuthorityClient {
    /// Creates a client that trusts further authorities.
    ///
    /// # Errors
    /// Returns an error if the TLS library rejects its default configuration.
    pub(crate) fn new(
        trusted: Vec<CertificateDer<'static>>,
        clock: Clock,
    ) -> Result<Self, rustls::Error> {
        let http = direct_client_trusting(CONNECT_TIMEOUT, trusted)?;
        Ok(Self { http, clock, refusal: Arc::default() })
    }

    /// Returns the last response if it had an error status.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, refusal: Option<Refusal>) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
    }

    async fn send(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let failed = |what: String| Error::Other(format!("could not reach {host}: {what}").into());
        let exchange = async {
            let response = self.http.request(request).await.map_err(|e| failed(error_chain(&e)))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
            let body = body.map_err(Error::Other)?.to_bytes();
            Ok(BytesResponse { parts, body: Box::new(body) })
        };
        self.remember(None);
        let response = tokio::time::timeout(TIMEOUT, exchange).await;
        let response = response.unwrap_or_else(|_| Err(failed("timeout".to_owned())))?;
        let (status, headers) = (response.parts.status, &response.parts.headers);
        let wait = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = wait.and_then(|value| retry_after(value, self.clock.wall()));
        let is_error = status.is_client_error() || status.is_server_error();
        self.remember(is_error.then_some(Refusal { status, retry_after }));
        Ok(response)
    }
}

impl HttpClient for AuthorityClient {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        Box::pin(self.clone().send(request))
    }
}
