//! Retrieves a server's TLS certificate, for checks of its expiry.

use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;

use super::{CustomerUrl, Egress, EgressError};

impl Egress {
    /// Connects to an `https` server and returns its certificate (DER) after verifying its name,
    /// chain and validity period.
    ///
    /// # Errors
    ///
    /// Fails if the server cannot be reached within `within` or its certificate is not valid.
    pub async fn certificate(
        &self,
        url: &CustomerUrl,
        within: Duration,
    ) -> Result<CertificateDer<'static>, EgressError> {
        let timed_out = || EgressError::ConnectTimeout { host: url.origin(), waited: within };
        tokio::time::timeout(within, self.verified_certificate(url))
            .await
            .map_err(|_| timed_out())?
    }

    async fn verified_certificate(
        &self,
        url: &CustomerUrl,
    ) -> Result<CertificateDer<'static>, EgressError> {
        let failed = |reason: String| EgressError::Connect { host: url.origin(), reason };
        let (stream, _) = self.shared.connector.connect(url).await?;
        let host = url.parsed().host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|e| failed(e.to_string()))?;
        let tls = TlsConnector::from(self.shared.socket_tls.clone()).connect(name, stream).await;
        let tls = tls.map_err(|e| failed(super::tls::describe_error(&e)))?;
        let certificate = tls.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
        certificate.ok_or_else(|| failed("the server sent no certificate".to_owned()))
    }
}
