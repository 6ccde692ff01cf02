//! The client side of TLS, the same for every server that we ask: one crypto library, and whom to believe.
//!
//! Also for those whose address the operator chose (Graph, a speech service, a collector), who go there without this
//! room's rules for customers' URLs. Reading the system's certificate authorities takes milliseconds of a start, so
//! they are read once a process: a changed store is seen at the next start.

use std::sync::{Arc, LazyLock};

use rustls::pki_types::CertificateDer;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, InvalidMessage, RootCertStore,
};

/// The system's certificate authorities (a company's own is among them) and Mozilla's: either may be missing one.
static AUTHORITIES: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let mut store = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::debug!(%error, "a certificate store of the system could not be read");
    }
    store.add_parsable_certificates(native.certs);
    Arc::new(store)
});

/// What TLS and keys need once a process, and what takes a third of a start: the crypto library gathers its seed, the
/// authorities are read. Blocks meanwhile; who needs either sooner waits for it.
pub fn prepare() {
    // Whether there are random bytes is asked again by whoever needs them.
    let _ = aws_lc_rs::rand::fill(&mut [0; 1]);
    LazyLock::force(&AUTHORITIES);
}

/// TLS to servers that the system's or the built-in certificate authorities vouch for. Blocks the first time, while
/// the system's are read.
///
/// # Errors
/// The TLS library refuses its own defaults.
pub fn client_tls() -> Result<ClientConfig, rustls::Error> {
    trusting(AUTHORITIES.clone())
}

/// The same with further authorities, and without the usual ones where `system` is false.
pub(super) fn client_tls_with(
    system: bool,
    further: Vec<CertificateDer<'static>>,
) -> Result<ClientConfig, rustls::Error> {
    if system && further.is_empty() {
        return client_tls();
    }
    let mut store =
        if system { RootCertStore::clone(&AUTHORITIES) } else { RootCertStore::empty() };
    store.add_parsable_certificates(further);
    trusting(Arc::new(store))
}

fn trusting(authorities: Arc<RootCertStore>) -> Result<ClientConfig, rustls::Error> {
    let tls = ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()?
    .with_root_certificates(authorities)
    .with_no_client_auth();
    Ok(tls)
}

/// What went wrong with TLS, where the library's own words say little to whoever owns the server; none: they say enough, or
/// it was something else.
pub(super) fn words(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let inner = error.downcast_ref::<std::io::Error>();
    if inner.is_some_and(|e| {
        e.kind() == std::io::ErrorKind::UnexpectedEof && e.to_string().contains("handshake")
    }) {
        return Some(
            "it broke the TLS handshake off: it may speak no TLS there, or only versions before 1.2",
        );
    }
    let boxed = inner.and_then(std::io::Error::get_ref).and_then(|e| e.downcast_ref::<Error>());
    match boxed.or_else(|| error.downcast_ref::<Error>())? {
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => Some(
            "its certificate is of no authority that is trusted here: it is self-signed, or an intermediate certificate is \
             missing",
        ),
        Error::InvalidCertificate(CertificateError::Other(other))
            if other.to_string().contains("CaUsedAsEndEntity") =>
        {
            Some("its certificate is self-signed")
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            Some("it does not speak TLS there")
        }
        Error::AlertReceived(AlertDescription::ProtocolVersion) | Error::PeerIncompatible(_) => {
            Some("it offers no version of TLS from 1.2 on, or no cipher that is still safe")
        }
        _ => None,
    }
}

/// [`words`], or what the library says.
pub(super) fn said(error: &std::io::Error) -> String {
    words(error).map_or_else(|| error.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_wrong_with_tls_has_words_for_whoever_owns_the_server() {
        let certificate = |error| Error::InvalidCertificate(error);
        for (error, said) in [
            (certificate(CertificateError::UnknownIssuer), Some("self-signed, or an intermediate")),
            (certificate(CertificateError::BadSignature), Some("self-signed, or an intermediate")),
            (Error::InvalidMessage(InvalidMessage::InvalidContentType), Some("does not speak TLS")),
            (Error::AlertReceived(AlertDescription::ProtocolVersion), Some("from 1.2 on")),
            (certificate(CertificateError::Expired), None),
        ] {
            let shown = format!("{error:?}");
            let plain = words(&error);
            // As the connector hands it on.
            let wrapped = words(&std::io::Error::new(std::io::ErrorKind::InvalidData, error));
            assert_eq!(plain, wrapped, "{shown}");
            assert_eq!(
                plain.is_some_and(|text| said.is_some_and(|said| text.contains(said))),
                said.is_some(),
                "{shown}"
            );
        }
        let eof = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "tls handshake eof");
        assert!(words(&eof).is_some_and(|text| text.contains("handshake")));
    }

    #[test]
    fn the_authorities_are_read_once_and_shared() {
        let _held = [client_tls(), client_tls_with(true, Vec::new())].map(|tls| tls.expect("TLS"));
        assert!(Arc::strong_count(&AUTHORITIES) >= 3, "they hold the store itself");
        assert!(AUTHORITIES.len() >= webpki_roots::TLS_SERVER_ROOTS.len());
    }
}
