//! TLS client configuration: one cryptography library and one set of trusted certificate
//! authorities for every outbound connection.
//!
//! It also serves connections to servers that the operator chose, such as Graph, a speech service
//! or a telemetry collector. The system's certificate authorities are read once per process because
//! reading them takes milliseconds of the start-up; a changed certificate store takes effect at the
//! next start.

use std::sync::{Arc, LazyLock};

use rustls::pki_types::CertificateDer;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, InvalidMessage, RootCertStore,
};

/// The certificate authorities of the system, which may include those of a company, and the ones of
/// Mozilla. Either list may lack some authorities.
static AUTHORITIES: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let mut store = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::debug!(%error, "system certificate store could not be read");
    }
    store.add_parsable_certificates(native.certs);
    Arc::new(store)
});

/// Initialises the cryptography library's random generator and reads the certificate authorities.
/// Both happen once per process and take a third of the start-up. Call this in the background at
/// start, because it blocks, and concurrent users of either wait for it.
pub fn warm_up() {
    // A failure is ignored, because every later user of random bytes checks again.
    let _ = aws_lc_rs::rand::fill(&mut [0; 1]);
    LazyLock::force(&AUTHORITIES);
}

/// Creates a TLS configuration that trusts the system's and the built-in certificate authorities.
/// The first call blocks while the system's are read.
///
/// # Errors
///
/// Fails if the TLS library rejects its default configuration.
pub fn client_tls() -> Result<ClientConfig, rustls::Error> {
    config_with_roots(AUTHORITIES.clone())
}

/// Like [`client_tls`], with additional authorities, and without the usual ones if `system` is
/// `false`.
pub(super) fn client_tls_with(
    system: bool,
    extra: Vec<CertificateDer<'static>>,
) -> Result<ClientConfig, rustls::Error> {
    if system && extra.is_empty() {
        return client_tls();
    }
    let mut store =
        if system { RootCertStore::clone(&AUTHORITIES) } else { RootCertStore::empty() };
    store.add_parsable_certificates(extra);
    config_with_roots(Arc::new(store))
}

/// Restricts a TLS configuration to HTTP/1.1, the only protocol that upgrades to WebSocket here.
pub(super) fn tls_for_sockets(mut tls: ClientConfig) -> Arc<ClientConfig> {
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(tls)
}

fn config_with_roots(roots: Arc<RootCertStore>) -> Result<ClientConfig, rustls::Error> {
    let tls = ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()?
    .with_root_certificates(roots)
    .with_no_client_auth();
    Ok(tls)
}

/// Describes a TLS failure for the operator of the server. Returns `None` if the library's own
/// message is clear enough or the failure has another cause.
pub(super) fn describe_fault(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let inner = error.downcast_ref::<std::io::Error>();
    if inner.is_some_and(|e| {
        e.kind() == std::io::ErrorKind::UnexpectedEof && e.to_string().contains("handshake")
    }) {
        return Some(
            "it broke off the TLS handshake: the port may not speak TLS, or only versions before 1.2",
        );
    }
    let boxed = inner.and_then(std::io::Error::get_ref).and_then(|e| e.downcast_ref::<Error>());
    match boxed.or_else(|| error.downcast_ref::<Error>())? {
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => Some(
            "its certificate was not issued by a trusted authority: it is self-signed, or an \
             intermediate certificate is missing",
        ),
        Error::InvalidCertificate(CertificateError::Other(other))
            if other.to_string().contains("CaUsedAsEndEntity") =>
        {
            Some("its certificate is self-signed")
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            Some("it does not speak TLS on this port")
        }
        Error::AlertReceived(AlertDescription::ProtocolVersion) | Error::PeerIncompatible(_) => {
            Some("it supports neither TLS 1.2 nor a later version, or no secure cipher suite")
        }
        _ => None,
    }
}

/// Describes an error with [`describe_fault`], or with the library's message.
pub(super) fn describe_error(error: &std::io::Error) -> String {
    describe_fault(error).map_or_else(|| error.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_failures_are_described_for_the_operator_of_the_server() {
        let certificate = |error| Error::InvalidCertificate(error);
        for (error, expected) in [
            (certificate(CertificateError::UnknownIssuer), Some("self-signed, or an intermediate")),
            (certificate(CertificateError::BadSignature), Some("self-signed, or an intermediate")),
            (Error::InvalidMessage(InvalidMessage::InvalidContentType), Some("does not speak TLS")),
            (Error::AlertReceived(AlertDescription::ProtocolVersion), Some("neither TLS 1.2")),
            (certificate(CertificateError::Expired), None),
        ] {
            let shown = format!("{error:?}");
            let plain = describe_fault(&error);
            // The connector wraps the error like this.
            let wrapped =
                describe_fault(&std::io::Error::new(std::io::ErrorKind::InvalidData, error));
            assert_eq!(plain, wrapped, "{shown}");
            assert_eq!(
                plain.is_some_and(|text| expected.is_some_and(|expected| text.contains(expected))),
                expected.is_some(),
                "{shown}"
            );
        }
        let eof = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "tls handshake eof");
        assert!(describe_fault(&eof).is_some_and(|text| text.contains("handshake")));
    }

    #[test]
    fn certificate_authorities_are_read_once_and_shared() {
        let _held = [client_tls(), client_tls_with(true, Vec::new())].map(|tls| tls.expect("TLS"));
        assert!(Arc::strong_count(&AUTHORITIES) >= 3, "they hold the store itself");
        assert!(AUTHORITIES.len() >= webpki_roots::TLS_SERVER_ROOTS.len());
    }
}
