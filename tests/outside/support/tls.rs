//! A certificate authority of the tests, and an HTTPS client that connects to this machine under
//! any host name.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PublicKeyData,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::http::Answer;

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Authority of tests");
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    /// The certificate of the authority itself in PEM form.
    pub fn root(&self) -> String {
        self.0.pem()
    }

    /// Signs a certificate for some names that is valid for this time.
    pub fn sign(
        &self,
        names: &[String],
        key: &impl PublicKeyData,
        valid_for: Duration,
    ) -> rcgen::Certificate {
        let mut params = CertificateParams::new(names).expect("host names");
        let now = model::Clock::real().wall().secs();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now.unsigned_abs());
        (params.not_before, params.not_after) = (now.into(), (now + valid_for).into());
        params.signed_by(key, &self.0).expect("a certificate")
    }

    /// Writes a certificate for some names to `{stem}.pem` and its key to `{stem}.key`.
    pub fn write(&self, folder: &Path, stem: &str, names: &[&str]) -> CertificateDer<'static> {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = self.sign(&names, &key, Duration::from_secs(30 * 86_400));
        // The pair is not complete in between, which the node must notice.
        std::fs::write(folder.join(format!("{stem}.key")), key.serialize_pem()).expect("written");
        std::fs::write(folder.join(format!("{stem}.pem")), made.pem()).expect("written");
        made.der().clone()
    }

    /// A client that trusts this authority alone.
    pub fn client(&self, to: SocketAddr) -> Client {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.0.as_ref().der().clone()).expect("a root");
        Client { roots: Arc::new(roots), to, from: None }
    }
}

/// A client of one HTTPS listener.
#[derive(Clone)]
pub struct Client {
    roots: Arc<rustls::RootCertStore>,
    to: SocketAddr,
    /// The source address.
    pub from: Option<std::net::IpAddr>,
}

impl Client {
    /// The address of the listener.
    pub fn to(&self) -> SocketAddr {
        self.to
    }

    /// Connects as a client that wants to reach this host, and offers a protocol.
    pub async fn connect(
        &self,
        host: &'static str,
        protocol: &[u8],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let socket = TcpSocket::new_v4()?;
        if let Some(from) = self.from {
            socket.bind((from, 0).into())?;
        }
        #[allow(clippy::disallowed_methods, reason = "a test's own peer")]
        let stream = socket.connect(self.to).await?;
        let name = ServerName::try_from(host).expect("a host name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// The certificate that the node presents to a client of this host.
    pub async fn certificate(
        &self,
        host: &'static str,
    ) -> std::io::Result<CertificateDer<'static>> {
        let stream = self.connect(host, b"http/1.1").await?;
        Ok(stream.get_ref().1.peer_certificates().expect("certificates")[0].clone())
    }

    /// Sends one request over HTTP/1.1 or HTTP/2.
    pub async fn send(
        &self,
        host: &'static str,
        is_http2: bool,
        request: http::request::Builder,
        body: impl Into<Bytes>,
    ) -> Answer {
        let protocol: &[u8] = if is_http2 { b"h2" } else { b"http/1.1" };
        let stream = self.connect(host, protocol).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
        let stream = TokioIo::new(stream);
        let body = Full::new(body.into());
        let response = match is_http2 {
            true => {
                let request = request.version(http::Version::HTTP_2).body(body).expect("a request");
                let made = http2::handshake(TokioExecutor::new(), stream).await;
                let (mut sender, connection) = made.expect("HTTP/2");
                tokio::spawn(connection);
                sender.send_request(request).await
            }
            false => {
                let request = request.header("host", host).body(body).expect("a request");
                let (mut sender, connection) = http1::handshake(stream).await.expect("HTTP/1.1");
                tokio::spawn(connection);
                sender.send_request(request).await
            }
        };
        answer(response.expect("a response")).await
    }
}

/// Reads a response to its end.
pub async fn answer(response: http::Response<hyper::body::Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

/// The certificate that a listener presents when a certificate authority examines a name (RFC 8737).
///
/// # Errors
/// Returns a text if the handshake fails, or if the listener does not take part in the validation.
pub async fn validation_certificate(to: SocketAddr, name: &str) -> Result<Vec<u8>, String> {
    const PROTOCOL: &[u8] = b"acme-tls/1";
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    #[allow(clippy::disallowed_methods, reason = "a test's own peer")]
    let stream = TcpStream::connect(to).await.map_err(|e| e.to_string())?;
    let name = ServerName::try_from(name.to_owned()).expect("a host name");
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let stream = stream.map_err(|e| e.to_string())?;
    let tls = stream.get_ref().1;
    if tls.alpn_protocol() != Some(PROTOCOL) {
        return Err("it did not negotiate acme-tls/1".to_owned());
    }
    Ok(tls.peer_certificates().expect("certificates")[0].to_vec())
}

/// Accepts every certificate: that of a validation is self-signed, and has a critical extension that
/// the TLS library does not know.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
