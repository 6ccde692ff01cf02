//! Certificates that are trusted by their hash alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};
use serde::{Deserialize, Serialize};

use super::BindError;

/// The name in the certificates. It is not checked.
const NAME: &str = "node.offhook.internal";

/// The ALPN protocol of requests between nodes.
pub(super) const ALPN: &[u8] = b"offhook-peer/1";

/// The ALPN protocol of seats in rooms.
pub(super) const SEATS_ALPN: &[u8] = b"offhook-seats/1";

pub(super) fn server_name() -> ServerName<'static> {
    // A valid name.
    ServerName::try_from(NAME)
        .unwrap_or(ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()))
}

/// The SHA-256 of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Pin([u8; 32]);

impl Pin {
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Self {
        let mut pin = [0; 32];
        pin.copy_from_slice(digest(&SHA256, certificate).as_ref());
        Self(pin)
    }
}

impl std::fmt::Display for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::str::FromStr for Pin {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, hex::FromHexError> {
        let mut pin = [0; 32];
        hex::decode_to_slice(text, &mut pin)?;
        Ok(Self(pin))
    }
}

/// The certificate of this process, and those that it trusts.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) pin: Pin,
    certificate: CertificateDer<'static>,
    key: Arc<PrivateKeyDer<'static>>,
    provider: Arc<CryptoProvider>,
    members: Arc<ArcSwap<BTreeSet<Pin>>>,
}

/// A certificate with its private key, on the way to another process of the node. Both are DER, the
/// key PKCS #8.
#[derive(Clone, Serialize, Deserialize)]
pub struct MovedIdentity {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Identity {
    pub(super) fn new() -> Result<Self, BindError> {
        let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()])?;
        let (certificate, key) = (made.cert.der().to_vec(), made.signing_key.serialize_der());
        Ok(Self::resume(MovedIdentity { certificate, key }))
    }

    /// Continues to use the certificate of another process of the node.
    pub(super) fn resume(moved: MovedIdentity) -> Self {
        let certificate = CertificateDer::from(moved.certificate);
        Self {
            pin: Pin::of(&certificate),
            certificate,
            key: Arc::new(PrivatePkcs8KeyDer::from(moved.key).into()),
            provider: Arc::new(provider::default_provider()),
            members: Arc::default(),
        }
    }

    pub(super) fn hand_over(&self) -> MovedIdentity {
        MovedIdentity {
            certificate: self.certificate.to_vec(),
            key: self.key.secret_der().to_vec(),
        }
    }

    /// Trusts the members with these certificates only.
    pub(super) fn trust(&self, members: BTreeSet<Pin>) {
        self.members.store(Arc::new(members));
    }

    pub(super) fn server(&self) -> Result<ServerConfig, Error> {
        let verifier = Verifier {
            trusted: Trusted::Members(self.members.clone()),
            provider: self.provider.clone(),
        };
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())?;
        config.alpn_protocols = vec![ALPN.to_vec(), SEATS_ALPN.to_vec()];
        // Each connection shows its certificate, so that a removed member is refused.
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    pub(super) fn client(&self, of: Pin, protocol: &[u8]) -> Result<ClientConfig, Error> {
        let verifier = Verifier { trusted: Trusted::One(of), provider: self.provider.clone() };
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(vec![self.certificate.clone()], self.key.clone_key())?;
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(config)
    }
}

/// Verifies a certificate by its hash, and that the other side has its private key.
#[derive(Debug)]
struct Verifier {
    trusted: Trusted,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
enum Trusted {
    One(Pin),
    Members(Arc<ArcSwap<BTreeSet<Pin>>>),
}

impl Verifier {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let pin = Pin::of(certificate);
        let is_trusted = match &self.trusted {
            Trusted::One(trusted) => *trusted == pin,
            Trusted::Members(members) => members.load().contains(&pin),
        };
        match is_trusted {
            true => Ok(()),
            false => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
        }
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn only_tls13() -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("nodes support only TLS 1.3".to_owned()))
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::only_tls13()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::only_tls13()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
