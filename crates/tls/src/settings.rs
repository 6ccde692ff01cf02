use std::path::PathBuf;

use url::Url;

/// `[tls]`: where the certificates of `listen.https` come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsSettings {
    /// Files in PEM form. Clients that name no known host get the first certificate.
    Files(Vec<CertificateFiles>),
    /// A certificate authority with the ACME protocol (RFC 8555).
    Acme(AcmeSettings),
}

/// The files of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, followed by those of intermediate authorities.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Settings for a certificate authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeSettings {
    /// The host names of the certificate, in lower case.
    pub domains: Vec<String>,
    /// Where the authority writes about the account.
    pub email: Option<String>,
    /// The URL of the authority's directory.
    pub directory: Url,
    /// A file with further authorities that the connection to `directory` trusts.
    pub ca: Option<PathBuf>,
}

impl AcmeSettings {
    /// The directory of Let's Encrypt.
    #[allow(clippy::expect_used, reason = "a constant, and a test reads it")]
    pub fn lets_encrypt() -> Url {
        Url::parse("https://acme-v02.api.letsencrypt.org/directory").expect("a URL")
    }
}
