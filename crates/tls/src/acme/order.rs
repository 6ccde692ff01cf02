//! The steps of one certificate order (RFC 8555 section 7.4).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Error, Identifier, NewOrder, Order, OrderStatus,
    Problem, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

use super::client::Refusal;
use crate::certificates::Challenge;
use model::metric::certificate_order;

/// Policy for polling the authority for the result of a validation.
const POLLING: RetryPolicy = RetryPolicy::new().backoff(1.5).timeout(Duration::from_secs(120));

/// The method by which the authority validates names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// A handshake with the HTTPS listener (RFC 8737).
    TlsAlpn,
    /// A request to the plain listener (RFC 8555 section 8.3).
    Http,
}

impl Method {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::TlsAlpn => Self::Http,
            Self::Http => Self::TlsAlpn,
        }
    }

    /// Returns the port that the authority connects to.
    fn port(self) -> u16 {
        match self {
            Self::TlsAlpn => 443,
            Self::Http => 80,
        }
    }

    /// Returns the name of the method in the protocol.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::TlsAlpn => "tls-alpn-01",
            Self::Http => "http-01",
        }
    }

    fn challenge(self) -> ChallengeType {
        match self {
            Self::TlsAlpn => ChallengeType::TlsAlpn01,
            Self::Http => ChallengeType::Http01,
        }
    }
}

/// A certificate issued by the authority.
pub(crate) struct Issued {
    /// The certificate chain in PEM format.
    pub(crate) chain: String,
    /// The private key in PEM format.
    pub(crate) key: String,
}

/// The reason why no certificate was issued.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OrderError {
    /// The authority could not validate a name.
    #[error("could not validate {name} at port {port}: {why}")]
    Validation { name: String, port: u16, kind: String, why: String },
    #[error("rate-limited by the certificate authority: {why}")]
    RateLimited { why: String, retry_after: Option<Duration> },
    /// The authority refused the order or the account.
    #[error("refused by the certificate authority: {why}")]
    Refused { kind: String, why: String },
    #[error("certificate authority failed: {why}")]
    Failed { why: String, retry_after: Option<Duration> },
}

impl OrderError {
    /// Converts an error of the protocol and the response that caused it, if any.
    pub(crate) fn of(error: Error, refusal: Option<Refusal>) -> Self {
        let retry_after = refusal.and_then(|refusal| refusal.retry_after);
        match (error, refusal) {
            (Error::Api(problem), _) => Self::refused(&problem, retry_after),
            // The body of an error response was not a problem document.
            (Error::Json(_), Some(Refusal { status, .. })) => {
                Self::Failed { why: format!("its response status was {status}"), retry_after }
            }
            (error, _) => Self::Failed { why: error.to_string(), retry_after },
        }
    }

    fn refused(problem: &Problem, retry_after: Option<Duration>) -> Self {
        let (kind, why) = describe(problem);
        match kind.as_str() {
            "rateLimited" => Self::RateLimited { why, retry_after },
            "serverInternal" => Self::Failed { why, retry_after },
            _ => Self::Refused { kind, why },
        }
    }

    /// Returns a remedy for the operator.
    pub(crate) fn remedy(&self) -> String {
        let text = match self {
            Self::Validation { name, kind, .. } if kind == "dns" => {
                return format!("correct the DNS entries (A and AAAA) of {name}");
            }
            Self::Validation { kind, .. } if kind == "caa" => CAA,
            Self::Validation { name, .. } => {
                return format!(
                    "port 443, or port 80 of a plain listener, of {name} must reach this node: \
                     check its DNS entries, the firewall, and [listen]"
                );
            }
            Self::RateLimited { .. } => "wait; the node tries again when the authority allows it",
            Self::Refused { kind, .. } => match kind.as_str() {
                "caa" => CAA,
                "rejectedIdentifier" | "unsupportedIdentifier" => {
                    "correct tls.domains; the authority issues no certificate for one of them"
                }
                "invalidContact" | "unsupportedContact" => "correct tls.email",
                "externalAccountRequired" => {
                    "set tls.acme_directory to an authority that needs no external account"
                }
                _ => "see the reason; a reload (SIGHUP) tries again at once",
            },
            Self::Failed { .. } => {
                "check tls.acme_directory and the connection; the node tries again by itself"
            }
        };
        text.to_owned()
    }

    /// Returns the label for the metric.
    pub(crate) fn outcome(&self) -> &'static str {
        match self {
            Self::Validation { .. } | Self::Refused { .. } => certificate_order::REFUSED,
            Self::RateLimited { .. } => certificate_order::RATE_LIMITED,
            Self::Failed { .. } => certificate_order::FAILED,
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Failed { retry_after, .. } => {
                *retry_after
            }
            Self::Validation { .. } | Self::Refused { .. } => None,
        }
    }
}

const CAA: &str =
    "the CAA record of the domain forbids this authority: allow it, or set tls.acme_directory";

/// Returns the last part of a problem's type, and its text. A problem with several parts is
/// represented by its first part.
fn describe(problem: &Problem) -> (String, String) {
    let first = problem.subproblems.first();
    let kind = problem.r#type.as_deref().unwrap_or_default();
    let kind = match first {
        Some(part) if kind.ends_with(":compound") => part.r#type.as_deref().unwrap_or(kind),
        _ => kind,
    };
    let mut why = problem.detail.clone().unwrap_or_else(|| kind.to_owned());
    if let Some(detail) = first.and_then(|part| part.detail.as_deref()) {
        why = format!("{why}: {detail}");
    }
    (kind.rsplit(':').next().unwrap_or_default().to_owned(), why)
}

/// Orders a certificate. `prepare` must make the challenges answerable before it returns.
///
/// # Errors
/// Returns an error if the authority can't be reached, does not answer in time, or refuses.
pub(crate) async fn order(
    account: &Account,
    domains: &[String],
    method: Method,
    prepare: impl AsyncFnOnce(HashMap<String, Challenge>),
    refusal: impl Fn() -> Option<Refusal>,
) -> Result<Issued, OrderError> {
    let failed = |error: Error| OrderError::of(error, refusal());
    let identifiers: Vec<_> = domains.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await.map_err(failed)?;
    let challenges = challenges(&mut order, method, failed).await?;
    if !challenges.is_empty() {
        prepare(challenges).await;
        begin_validation(&mut order, method, failed).await?;
    }
    match order.poll_ready(&POLLING).await {
        Ok(OrderStatus::Ready) => {}
        Ok(_) => {
            let error = failed(Error::Str("the order is invalid"));
            return Err(failed_validation(&mut order, method).await.unwrap_or(error));
        }
        Err(error) => {
            let error = failed(error);
            return Err(failed_validation(&mut order, method).await.unwrap_or(error));
        }
    }
    let (key, request) =
        signing_request(domains).map_err(|error| failed(Error::Other(error.into())))?;
    order.finalize_csr(&request).await.map_err(failed)?;
    let chain = order.poll_certificate(&POLLING).await.map_err(failed)?;
    Ok(Issued { chain, key })
}

/// Returns the challenges for the names that the authority has not validated yet.
async fn challenges(
    order: &mut Order,
    method: Method,
    failed: impl Fn(Error) -> OrderError,
) -> Result<HashMap<String, Challenge>, OrderError> {
    let mut challenges = HashMap::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(&failed)?;
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        let name = authorization.identifier().to_string();
        let Some(challenge) = authorization.challenge(method.challenge()) else {
            return Err(OrderError::Validation {
                name,
                port: method.port(),
                kind: String::new(),
                why: "the authority does not offer this type of challenge".to_owned(),
            });
        };
        let key = challenge.key_authorization();
        let created = Challenge::new(&name, &challenge.token, key.as_str());
        let created = created.map_err(|error| failed(Error::Other(error.into())))?;
        challenges.insert(name, created);
    }
    Ok(challenges)
}

/// Requests the validation of the names from the authority.
async fn begin_validation(
    order: &mut Order,
    method: Method,
    failed: impl Fn(Error) -> OrderError,
) -> Result<(), OrderError> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(&failed)?;
        if authorization.status == AuthorizationStatus::Pending
            && let Some(mut challenge) = authorization.challenge(method.challenge())
        {
            challenge.set_ready().await.map_err(&failed)?;
        }
    }
    Ok(())
}

/// Returns the error of the failed challenge, or `None` if no challenge failed or the authority
/// reports no error.
async fn failed_validation(order: &mut Order, method: Method) -> Option<OrderError> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.ok()?;
        let state = authorization.refresh().await.ok()?;
        let mut errors = state.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        if let Some((kind, why)) = errors.next().map(describe) {
            let name = state.identifier().to_string();
            return Some(OrderError::Validation { name, port: method.port(), kind, why });
        }
    }
    None
}

/// Creates a private key in PEM format, and a certificate signing request with it.
fn signing_request(domains: &[String]) -> Result<(String, Vec<u8>), rcgen::Error> {
    let mut params = CertificateParams::new(domains)?;
    params.distinguished_name = DistinguishedName::new();
    let key = KeyPair::generate()?;
    let request = params.serialize_request(&key)?;
    Ok((key.serialize_pem(), request.der().to_vec()))
}

impl Challenge {
    /// Creates the response to the authority's validation of a name.
    ///
    /// # Errors
    /// Returns an error if no certificate can be created for the name.
    pub(crate) fn new(name: &str, token: &str, key: &str) -> Result<Self, ChallengeError> {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
        let mut params = CertificateParams::new([name.to_owned()])?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest.as_ref())];
        let pair = KeyPair::generate()?;
        let certificate = params.self_signed(&pair)?;
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        // The TLS library refuses to parse the critical extension, so it can't compare the key.
        let private = default_provider().key_provider.load_private_key(private)?;
        let certificate = CertifiedKey::new(vec![certificate.der().clone()], private);
        Ok(Self {
            token: token.to_owned(),
            key_authorization: key.to_owned(),
            certificate: Arc::new(certificate),
        })
    }
}

/// The reason why no certificate for a validation could be created.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChallengeError {
    #[error(transparent)]
    Certificate(#[from] rcgen::Error),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> Problem {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn refusals_say_what_to_do() {
        let hour = Some(Duration::from_secs(3600));
        let limit = problem(
            r#"{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many", "status": 429}"#,
        );
        let refusal = Refusal { status: http::StatusCode::TOO_MANY_REQUESTS, retry_after: hour };
        let error = OrderError::of(Error::Api(limit), Some(refusal));
        assert_eq!((error.outcome(), error.retry_after()), ("rate_limited", hour));
        assert!(error.to_string().contains("too many"));
        let name = problem(
            r#"{"type": "urn:ietf:params:acme:error:compound", "detail": "Some names", "subproblems":
            [{"type": "urn:ietf:params:acme:error:rejectedIdentifier", "detail": "is forbidden"}]}"#,
        );
        let error = OrderError::of(Error::Api(name), None);
        assert!(error.to_string().ends_with("Some names: is forbidden"), "{error}");
        assert!(error.remedy().contains("tls.domains"), "{}", error.remedy());
        let body = serde_json::from_str::<u8>("<html>").unwrap_err();
        let refusal = Refusal { status: http::StatusCode::BAD_GATEWAY, retry_after: None };
        let error = OrderError::of(Error::Json(body), Some(refusal));
        assert!(error.to_string().contains("502") && error.outcome() == "failed", "{error}");
        let validation = |kind: &str| OrderError::Validation {
            name: "a.example".to_owned(),
            port: 443,
            kind: kind.to_owned(),
            why: "timeout".to_owned(),
        };
        assert!(validation("connection").remedy().contains("port 443"));
        assert!(validation("dns").remedy().contains("DNS entries"));
        assert!(validation("caa").remedy().contains("CAA"));
    }

    #[test]
    fn a_validation_certificate_names_the_host_and_the_key() {
        let created = Challenge::new("a.example", "t", "t.k").unwrap();
        let der = created.certificate.cert[0].as_ref();
        // The identifier of the extension, 1.3.6.1.5.5.7.1.31, marked as critical.
        let extension = [0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x1f, 0x01, 0x01, 0xff];
        assert!(der.windows(extension.len()).any(|window| window == extension));
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"t.k");
        assert!(der.windows(32).any(|window| window == digest.as_ref()));
        assert!(der.windows(9).any(|window| window == b"a.example"));
    }
}
