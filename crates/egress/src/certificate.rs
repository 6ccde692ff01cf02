//! The certificate that a server shows, for whoever wants to know how long it is good.

use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;

use super::{CustomerUrl, Egress, EgressError};

impl Egress {
    /// The certificate of an https server (DER), once it was found good: by its name, its chain and its time.
    ///
    /// # Errors
    /// The server can't be reached, or its certificate is not good.
    pub async fn certificate(
        &self,
        url: &CustomerUrl,
        within: Duration,
    ) -> Result<CertificateDer<'static>, EgressError> {
        let late = || EgressError::ConnectTimeout { host: url.origin(), waited: within };
        tokio::time::timeout(within, self.shown(url)).await.map_err(|_| late())?
    }

    async fn shown(&self, url: &CustomerUrl) -> Result<CertificateDer<'static>, EgressError> {
        let failed = |what: String| EgressError::Connect { host: url.origin(), what };
        let (stream, _) = self.dial.connect(url).await?;
        let host = url.parsed().host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|e| failed(e.to_string()))?;
        let tls = TlsConnector::from(self.socket_tls.clone()).connect(name, stream).await;
        let tls = tls.map_err(|e| failed(super::tls::said(&e)))?;
        let shown = tls.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
        shown.ok_or_else(|| failed("it showed no certificate".to_owned()))
    }
}
