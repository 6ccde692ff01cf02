//! Verifies identity tokens and extracts their claims (OpenID Connect Core §3.1.3.7). Pure.

use std::time::Duration;

use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{AlgorithmFamily, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};

use super::ProviderSettings;
use model::Role;
use model::Timestamp;

/// Tolerated difference between the provider's clock and the node's.
const SKEW: Duration = Duration::from_secs(60);
/// Maximum number of keys tried for a token without a key id.
const KEYS_TRIED_MAX: usize = 20;

/// Why a token is rejected. The texts continue "its token …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    #[error("is malformed")]
    Form,
    #[error("is signed with {0}, which is not allowed")]
    Algorithm(String),
    #[error("names a key that the provider does not publish")]
    UnknownKey,
    #[error("is not signed by the provider")]
    Signature,
    #[error("is from another issuer")]
    Issuer,
    #[error("is meant for another application")]
    Audience,
    #[error("was not issued for this sign-in")]
    Nonce,
    #[error("has expired")]
    Expired,
    #[error("has implausible times; check the clocks")]
    Time,
    #[error("lacks {0}")]
    Lacks(&'static str),
}

/// The claims of a token, if it is signed with one of these keys, by this issuer, for this client
/// and sign-in, and valid at `now`.
pub(super) fn verify(
    token: &str,
    keys: &[Jwk],
    settings: &ProviderSettings,
    nonce: &str,
    now: Timestamp,
) -> Result<Map<String, Value>, TokenFault> {
    let header = decode_header(token).map_err(|_| TokenFault::Form)?;
    // Extensions that must be understood (RFC 7515, section 4.1.11). None is.
    if header.crit.is_some() {
        return Err(TokenFault::Form);
    }
    // An HMAC would be keyed with the client secret, which others than the provider may know.
    if header.alg.family() == AlgorithmFamily::Hmac {
        return Err(TokenFault::Algorithm(format!("{:?}", header.alg)));
    }
    let mut validation = Validation::new(header.alg);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.set_issuer(&[&settings.issuer]);
    validation.set_audience(&[&settings.client_id]);
    // Checked below with the node's own clock.
    validation.validate_exp = false;
    let fits = |key: &&Jwk| {
        let named = header.kid.is_none() || key.common.key_id == header.kid;
        let is_of_algorithm =
            key.common.key_algorithm.is_none_or(|of| of.to_string() == format!("{:?}", header.alg));
        named
            && is_of_algorithm
            && key
                .common
                .public_key_use
                .as_ref()
                .is_none_or(|is_for| *is_for == PublicKeyUse::Signature)
    };
    let mut fault = TokenFault::UnknownKey;
    for key in keys.iter().filter(fits).take(KEYS_TRIED_MAX) {
        let Ok(key) = DecodingKey::from_jwk(key) else { continue };
        if key.family() != header.alg.family() {
            continue;
        }
        match decode::<Map<String, Value>>(token, &key, &validation) {
            Ok(data) => return check(data.claims, settings, nonce, now),
            Err(error) => fault = fault_of(&error),
        }
        if fault != TokenFault::Signature {
            break;
        }
    }
    Err(fault)
}

fn fault_of(error: &jsonwebtoken::errors::Error) -> TokenFault {
    use jsonwebtoken::errors::ErrorKind as Kind;
    match error.kind() {
        Kind::InvalidIssuer => TokenFault::Issuer,
        Kind::InvalidAudience => TokenFault::Audience,
        Kind::InvalidSignature => TokenFault::Signature,
        Kind::MissingRequiredClaim(claim) => TokenFault::Lacks(
            ["exp", "iss", "aud", "sub"]
                .into_iter()
                .find(|known| known == claim)
                .unwrap_or("a claim"),
        ),
        _ => TokenFault::Form,
    }
}

/// Makes the checks that the library does not make: times, nonce, further audiences and the
/// subject.
fn check(
    claims: Map<String, Value>,
    settings: &ProviderSettings,
    nonce: &str,
    now: Timestamp,
) -> Result<Map<String, Value>, TokenFault> {
    let text = |claim: &str| claims.get(claim).and_then(Value::as_str);
    let time = |claim: &str| match claims.get(claim) {
        None | Some(Value::Null) => Ok(None),
        // Some providers send fractions. Values beyond any real time are rejected.
        Some(Value::Number(n)) => n
            .as_f64()
            .filter(|n| (0.0..1e15).contains(n))
            .map(whole)
            .map(Some)
            .ok_or(TokenFault::Time),
        Some(_) => Err(TokenFault::Time),
    };
    let expires = time("exp")?.ok_or(TokenFault::Lacks("exp"))?;
    if now >= Timestamp::from_secs(expires).plus(SKEW) {
        return Err(TokenFault::Expired);
    }
    let from = time("iat")?.into_iter().chain(time("nbf")?).max();
    if from.is_some_and(|from| Timestamp::from_secs(from) > now.plus(SKEW)) {
        return Err(TokenFault::Time);
    }
    // §3.1.3.7: the authorized party must be this client.
    let several = claims.get("aud").and_then(Value::as_array).is_some_and(|all| all.len() > 1);
    match text("azp") {
        Some(party) if party != settings.client_id => return Err(TokenFault::Audience),
        None if several => return Err(TokenFault::Audience),
        Some(_) | None => {}
    }
    if text("nonce") != Some(nonce) {
        return Err(TokenFault::Nonce);
    }
    if text("sub").is_none_or(|sub| sub.is_empty() || sub.len() > 255) {
        return Err(TokenFault::Lacks("sub"));
    }
    Ok(claims)
}

fn whole(seconds: f64) -> i64 {
    // It fits an i64 by far, since `check` has bounded it.
    format!("{seconds:.0}").parse().unwrap_or(i64::MAX)
}

/// A person as the provider knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    pub issuer: String,
    /// The subject, which is unique and permanent at the issuer.
    pub subject: String,
    /// The e-mail address as the provider sent it. `is_verified` is whether the provider has
    /// verified it.
    pub email: Option<String>,
    pub is_verified: bool,
    pub name: Option<String>,
    /// The role from the role claim, or `None` if the claim contains no configured value.
    pub role: Option<Role>,
}

impl Claims {
    pub(super) fn of(claims: &Map<String, Value>, settings: &ProviderSettings) -> Self {
        let text = |claim: &str| {
            claims.get(claim).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty())
        };
        let email = text("email").filter(|email| is_email(email)).map(str::to_owned);
        // Some providers send a string.
        let is_verified = match claims.get("email_verified") {
            Some(Value::Bool(is)) => *is,
            Some(Value::String(is)) => is == "true",
            _ => false,
        };
        Self {
            issuer: settings.issuer.clone(),
            subject: claims.get("sub").and_then(Value::as_str).unwrap_or_default().to_owned(),
            email,
            is_verified,
            name: text("name").map(str::to_owned),
            role: settings
                .role_claim
                .as_deref()
                .and_then(|path| role(claims, path, &settings.roles)),
        }
    }
}

/// Whether the text is a single email address usable as a sign-in name.
fn is_email(text: &str) -> bool {
    let parts = text
        .split_once('@')
        .is_some_and(|(who, at)| !who.is_empty() && !at.is_empty() && !at.contains('@'));
    parts && text.len() <= 254 && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// The highest role in the role claim.
fn role(claims: &Map<String, Value>, path: &str, roles: &[(String, Role)]) -> Option<Role> {
    // The claim's name itself may contain dots.
    let found = claims.get(path).or_else(|| {
        let mut levels = path.split('.');
        let first = claims.get(levels.next()?)?;
        levels.try_fold(first, |value, level| value.get(level))
    })?;
    let values: Vec<&str> = match found {
        Value::String(one) => vec![one],
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    roles.iter().filter(|(word, _)| values.contains(&word.as_str())).map(|(_, role)| *role).max()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::super::testing;
    use super::*;

    fn settings() -> ProviderSettings {
        ProviderSettings {
            role_claim: Some("realm.roles".to_owned()),
            roles: vec![("boss".to_owned(), Role::Owner), ("desk".to_owned(), Role::Agent)],
            ..testing::settings("https://login.example.com")
        }
    }

    fn claims(change: Value) -> Map<String, Value> {
        let mut claims = json!({"iss": "https://login.example.com", "aud": "offhook", "sub": "7", "nonce": "n",
            "exp": 1_000, "iat": 900});
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims.as_object().unwrap().clone()
    }

    #[test]
    fn checks_sign_in_client_and_time() {
        let now = Timestamp::from_secs(1_000);
        let of = |change: Value| check(claims(change), &settings(), "n", now).err();
        assert_eq!(of(json!({})), None);
        assert_eq!(of(json!({"exp": 940.4})), Some(TokenFault::Expired));
        assert_eq!(of(json!({"exp": 941})), None, "within the clocks' difference");
        assert_eq!(of(json!({"exp": "soon"})), Some(TokenFault::Time));
        assert_eq!(of(json!({"exp": -1e300})), Some(TokenFault::Time));
        assert_eq!(of(json!({"iat": 1_061})), Some(TokenFault::Time));
        assert_eq!(of(json!({"nbf": 1_061})), Some(TokenFault::Time));
        assert_eq!(of(json!({"nonce": "another"})), Some(TokenFault::Nonce));
        assert_eq!(of(json!({"nonce": null})), Some(TokenFault::Nonce));
        assert_eq!(of(json!({"azp": "another"})), Some(TokenFault::Audience));
        assert_eq!(of(json!({"aud": ["offhook", "another"]})), Some(TokenFault::Audience));
        assert_eq!(of(json!({"aud": ["offhook", "another"], "azp": "offhook"})), None);
        assert_eq!(of(json!({"sub": ""})), Some(TokenFault::Lacks("sub")));
        assert_eq!(verify("a.b", &[], &settings(), "n", now), Err(TokenFault::Form));
        let with_head = |head: &str| format!("{}.e30.e30", URL_SAFE_NO_PAD.encode(head));
        let of = |head: &str| verify(&with_head(head), &[], &settings(), "n", now).err();
        assert_eq!(of(r#"{"alg":"RS256"}"#), Some(TokenFault::UnknownKey));
        assert_eq!(of(r#"{"alg":"RS256","crit":["exp"]}"#), Some(TokenFault::Form));
        // The key is for this algorithm, for any, or for another one.
        let with_key = |alg: Value| {
            let key = json!({"kty": "RSA", "n": "u1SU1LfVLPHCozMxH2Mo", "e": "AQAB", "alg": alg});
            let key: Jwk = serde_json::from_value(key).unwrap();
            verify(&with_head(r#"{"alg":"RS256"}"#), &[key], &settings(), "n", now).err()
        };
        assert_ne!(with_key(json!("RS256")), Some(TokenFault::UnknownKey));
        assert_ne!(with_key(json!(null)), Some(TokenFault::UnknownKey));
        assert_eq!(with_key(json!("RS384")), Some(TokenFault::UnknownKey));
    }

    #[test]
    fn extracts_the_claims_of_a_person() {
        let of = |change: Value| Claims::of(&claims(change), &settings());
        let asha =
            of(json!({"email": " asha@example.com ", "email_verified": "true", "name": "Asha",
            "realm": {"roles": ["desk", "boss", "x"]}}));
        assert_eq!((asha.email.as_deref(), asha.is_verified), (Some("asha@example.com"), true));
        assert_eq!((asha.role, asha.subject.as_str()), (Some(Role::Owner), "7"));
        assert_eq!(of(json!({"realm.roles": "desk"})).role, Some(Role::Agent));
        assert_eq!(of(json!({"realm": {"roles": [["boss"], 1]}})).role, None);
        assert!(!of(json!({"email": "a@b", "email_verified": 1})).is_verified);
        for bad in ["", "asha", "@b", "a@", "a@b@c", "a b@c"] {
            assert_eq!(of(json!({"email": bad})).email, None, "{bad}");
        }
    }
}
