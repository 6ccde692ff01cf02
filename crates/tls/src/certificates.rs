//! The certificates that the HTTPS listener presents.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use rustls::CertificateError;
use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::x509::Validity;
use model::metric;

/// The ALPN protocol with which a certificate authority validates a name (RFC 8737).
pub const VALIDATION_PROTOCOL: &[u8] = b"acme-tls/1";

/// A certificate with its private key.
#[derive(Clone)]
pub(crate) struct Certificate {
    key: Arc<CertifiedKey>,
    /// `None` if the certificate can't be parsed.
    pub(crate) validity: Option<Validity>,
}

impl Certificate {
    /// Joins a certificate, those of the authorities behind it, and its private key.
    ///
    /// # Errors
    /// Returns an error if the key does not belong to the first certificate, or if any certificate
    /// is damaged: clients then refuse the connection, even if they need only the others.
    pub(crate) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, rustls::Error> {
        let is_damaged = |der: &CertificateDer<'_>| Validity::of(der).is_none();
        if chain.iter().skip(1).any(is_damaged) {
            return Err(CertificateError::BadEncoding.into());
        }
        let key = CertifiedKey::from_der(chain, key, &default_provider())?;
        let validity = key.cert.first().and_then(|der| Validity::of(der));
        Ok(Self { key: Arc::new(key), validity })
    }

    /// Returns whether the certificate is valid for this host name.
    pub(crate) fn is_for(&self, name: &str) -> bool {
        let Ok(name) = ServerName::try_from(name) else { return false };
        let parsed = self.key.cert.first().and_then(|der| ParsedCertificate::try_from(der).ok());
        parsed.is_some_and(|certificate| verify_server_name(&certificate, &name).is_ok())
    }
}

/// The response to a certificate authority that validates a name.
#[derive(Clone)]
pub(crate) struct Challenge {
    /// The token that identifies the HTTP resource.
    pub(crate) token: String,
    /// The content of the HTTP resource.
    pub(crate) key_authorization: String,
    /// The certificate that is presented for [`VALIDATION_PROTOCOL`].
    pub(crate) certificate: Arc<CertifiedKey>,
}

/// The certificates in force, and the responses to challenges. A handshake reads them without
/// waiting.
#[derive(Default)]
pub(crate) struct Certificates {
    /// The certificates in force. The first one is presented to clients that send no host name, or
    /// one without a certificate, because they report the mismatch better than a failed handshake.
    current: ArcSwap<Vec<Certificate>>,
    /// The challenges by host name.
    challenges: Mutex<HashMap<String, Challenge>>,
}

impl Certificates {
    /// Puts certificates into force for the next handshakes. Established connections keep their
    /// certificates.
    pub(crate) fn replace(&self, certificates: Vec<Certificate>) {
        let ends = certificates.iter().filter_map(|known| known.validity).map(|v| v.not_after);
        let end = ends.min().map_or(0, |end| end.secs());
        metrics::gauge!(metric::TLS_CERTIFICATE_EXPIRY).set(end as f64);
        self.current.store(Arc::new(certificates));
    }

    fn challenges(&self) -> MutexGuard<'_, HashMap<String, Challenge>> {
        self.challenges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_challenges(&self, challenges: HashMap<String, Challenge>) {
        *self.challenges() = challenges;
    }

    /// Returns the content of `/.well-known/acme-challenge/{token}`. `None` if the token is
    /// unknown.
    pub(crate) fn key_authorization(&self, token: &str) -> Option<String> {
        let challenges = self.challenges();
        let found = challenges.values().find(|challenge| challenge.token == token);
        found.map(|challenge| challenge.key_authorization.clone())
    }

    fn find(&self, name: Option<&str>, is_validation: bool) -> Option<Arc<CertifiedKey>> {
        if is_validation {
            return self.challenges().get(name?).map(|challenge| challenge.certificate.clone());
        }
        let certificates = self.current.load();
        let named = name.and_then(|name| certificates.iter().find(|known| known.is_for(name)));
        named.or(certificates.first()).map(|known| known.key.clone())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut protocols = hello.alpn().into_iter().flatten();
        self.find(hello.server_name(), protocols.any(|protocol| protocol == VALIDATION_PROTOCOL))
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificates(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files;

    #[test]
    fn a_client_gets_the_certificate_of_the_host_that_it_names_or_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let write = |stem, names: &[&str]| files::tests::write(folder.path(), stem, names);
        let files = [write("a", &["a.example"]), write("b", &["b.example", "*.c.example"])];
        let loaded = files::load(&files).unwrap();
        let keys: Vec<_> = loaded.iter().map(|loaded| loaded.key.clone()).collect();
        let certificates = Certificates::default();
        assert!(certificates.find(Some("a.example"), false).is_none(), "none is in force");
        certificates.replace(loaded);
        let is = |name, key: usize| {
            certificates.find(name, false).is_some_and(|found| Arc::ptr_eq(&found, &keys[key]))
        };
        assert!(is(Some("a.example"), 0) && is(Some("b.example"), 1) && is(Some("x.c.example"), 1));
        assert!(is(Some("unknown.example"), 0) && is(None, 0) && is(Some("not a name"), 0));
        let challenge = Challenge {
            token: "t".to_owned(),
            key_authorization: "t.k".to_owned(),
            certificate: keys[1].clone(),
        };
        certificates.set_challenges([("a.example".to_owned(), challenge)].into());
        assert!(certificates.find(Some("a.example"), true).is_some());
        assert!(certificates.find(Some("b.example"), true).is_none(), "nobody examines it");
        assert!(is(Some("a.example"), 0), "other clients get the usual certificate");
        assert_eq!(certificates.key_authorization("t").as_deref(), Some("t.k"));
        assert_eq!(certificates.key_authorization("u"), None);
    }
}
