use std::path::PathBuf;

use url::Url;

/// The section `[tls]`: the origin of the certificates of `listen.https`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsSettings {
    /// Files in PEM format. Clients that send no known host name get the first certificate.
    Files(Vec<CertificateFiles>),
    /// Certificates from an authority with the ACME protocol (RFC 8555).
    Acme(AcmeSettings),
}

/// The files of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, followed by the certificates of intermediate authorities.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Settings for a certificate authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeSettings {
    /// The host names of the certificate, in lower case.
    pub domains: Vec<String>,
    /// The e-mail address for messages of the authority about the account.
    pub email: Option<String>,
    /// The URL of the authority's directory.
    pub directory: Url,
    /// A file with further authorities that the connection to `directory` trusts.
    pub ca: Option<PathBuf>,
}

impl AcmeSettings {
    /// Returns the URL of Let's Encrypt's directory.
    #[allow(clippy::expect_used, reason = "a constant, and a test reads it")]
    pub fn lets_encrypt() -> Url {
        Url::parse("https://acme-v02.api.letsencrypt.org/directory").expect("a URL")
    }
}
