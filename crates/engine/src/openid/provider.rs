//! Requests to the provider: metadata (OpenID Connect Discovery), keys, the code exchange and the
//! user info.
//!
//! All requests have limits on time and size and follow no redirects. Metadata is cached for an
//! hour.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use jsonwebtoken::jwk::Jwk;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time::timeout;
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::flow::Flow;
use super::{Inner, OpenIdError, TokenFault};
use egress::error_chain;
use model::Secret;
use model::is_loopback;

/// Timeout for connecting. It is short, because a person waits for these requests.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of a response.
const BYTES_MAX: usize = 256 << 10;
/// How long metadata and keys are cached.
const MAX_AGE: Duration = Duration::from_secs(3_600);
/// Minimum time between two requests for new keys.
const REFRESH_PAUSE: Duration = Duration::from_secs(5);
/// Pause after metadata could not be read.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// The name of the metadata in error texts.
const CONFIGURATION: &str = "the configuration";
/// Maximum number of keys read from a provider.
const KEYS_MAX: usize = 100;

/// The metadata of a provider; cheap to clone.
#[derive(Clone)]
pub(super) struct Metadata {
    pub(super) authorization: Url,
    token: Url,
    userinfo: Option<Url>,
    /// Whether the client secret is sent in the form, since the provider does not accept it in the
    /// header.
    posts_secret: bool,
    pub(super) keys: Arc<[Jwk]>,
    read: Instant,
}

/// The last metadata, and the time and error of a later failure to read it.
#[derive(Default)]
pub(super) struct MetadataCache {
    known: Option<Metadata>,
    /// The time of the last request for new keys.
    refreshed: Option<Instant>,
    failed: Option<(Instant, String)>,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<Value>,
}

/// The result of a code exchange.
#[derive(Deserialize)]
pub(super) struct Tokens {
    pub(super) id_token: String,
    access_token: Option<String>,
}

impl Inner {
    /// The requested scopes, which always include `openid`.
    pub(super) fn scope(&self) -> String {
        let others =
            self.settings.scopes.iter().map(String::as_str).filter(|scope| *scope != "openid");
        std::iter::once("openid").chain(others).collect::<Vec<_>>().join(" ")
    }

    /// The metadata, at most an hour old.
    pub(super) async fn metadata(&self) -> Result<Metadata, OpenIdError> {
        let mut cache = self.cache.lock().await;
        let now = self.clock.now();
        let is_fresh = |known: &&Metadata| now.saturating_duration_since(known.read) < MAX_AGE;
        match cache.known.as_ref().filter(is_fresh) {
            Some(known) => Ok(known.clone()),
            None => self.read(&mut cache).await,
        }
    }

    /// Metadata that was read after `seen`, because its keys did not verify a token. Reads it, but
    /// not too often.
    pub(super) async fn metadata_after(&self, seen: &Metadata) -> Result<Metadata, OpenIdError> {
        let mut cache = self.cache.lock().await;
        let now = self.clock.now();
        // Another sign-in may have read it in the meantime.
        let newer = cache.known.as_ref().filter(|known| known.read > seen.read);
        let recent = |at: Instant| now.saturating_duration_since(at) < REFRESH_PAUSE;
        if newer.is_some() || cache.refreshed.is_some_and(recent) {
            return Ok(newer.unwrap_or(seen).clone());
        }
        cache.refreshed = Some(now);
        self.read(&mut cache).await
    }

    /// Reads the metadata. One task reads while others wait. After a failure there is a pause, and
    /// older metadata stays in use.
    async fn read(&self, cache: &mut MetadataCache) -> Result<Metadata, OpenIdError> {
        let now = self.clock.now();
        let within = |at: Instant, time: Duration| now.saturating_duration_since(at) < time;
        if cache.failed.as_ref().is_none_or(|(at, _)| !within(*at, RETRY_PAUSE)) {
            match self.discover(now).await {
                Ok(known) => {
                    cache.failed = None;
                    return Ok(cache.known.insert(known).clone());
                }
                Err(error) => {
                    tracing::warn!(%error, "sign-in provider metadata could not be read");
                    cache.failed = Some((self.clock.now(), error.to_string()));
                    if cache.known.is_none() {
                        return Err(error);
                    }
                }
            }
        }
        let failed = cache.failed.as_ref().map(|(_, why)| why.clone()).unwrap_or_default();
        cache.known.clone().ok_or(OpenIdError::Away(failed))
    }

    async fn discover(&self, now: Instant) -> Result<Metadata, OpenIdError> {
        const KEYS: &str = "the keys";
        let issuer = &self.settings.issuer;
        let at = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let document: Discovery = self.get(CONFIGURATION, &at, None).await?;
        if document.issuer != *issuer {
            let names: String =
                document.issuer.chars().filter(|c| !c.is_control()).take(200).collect();
            let why = format!(
                "it names the issuer {names:?} and [oidc] issuer is {issuer:?}; they must be the same"
            );
            return Err(OpenIdError::Document { what: CONFIGURATION, why });
        }
        let keys: Keys = self.get(KEYS, self.safe(&document.jwks_uri)?.as_str(), None).await?;
        let keys = keys.keys.into_iter().take(KEYS_MAX);
        // A key of an unknown type must not prevent the use of others.
        let keys: Arc<[Jwk]> = keys.filter_map(|key| serde_json::from_value(key).ok()).collect();
        if keys.is_empty() {
            return Err(OpenIdError::Document {
                what: KEYS,
                why: "the provider publishes none".to_owned(),
            });
        }
        let methods = document.token_endpoint_auth_methods_supported;
        let takes = |method: &str| {
            methods.as_ref().is_some_and(|all| all.iter().any(|known| known == method))
        };
        Ok(Metadata {
            authorization: self.safe(&document.authorization_endpoint)?,
            token: self.safe(&document.token_endpoint)?,
            userinfo: document.userinfo_endpoint.map(|at| self.safe(&at)).transpose()?,
            // The default without a list is the header (Discovery §3).
            posts_secret: takes("client_secret_post") && !takes("client_secret_basic"),
            keys,
            read: now,
        })
    }

    /// Parses one of the provider's endpoints. It must be as safe as the issuer's URL, since codes
    /// and tokens are sent there.
    fn safe(&self, at: &str) -> Result<Url, OpenIdError> {
        let shown: String = at.chars().filter(|c| !c.is_control()).take(200).collect();
        let unusable = |why: &str| unusable(CONFIGURATION, &format!("{shown:?} {why}"));
        let url = Url::parse(at).map_err(|_| unusable("is no URL"))?;
        match url.scheme() {
            "https" => Ok(url),
            "http" if is_loopback(&url) || self.settings.insecure => Ok(url),
            _ => Err(unusable("is not https")),
        }
    }

    /// Exchanges the code for tokens.
    pub(super) async fn trade(&self, flow: &Flow, code: &str) -> Result<Tokens, OpenIdError> {
        const WHAT: &str = "the token";
        let request = self
            .trading(&self.metadata().await?, flow, code)
            .map_err(|why| unusable(WHAT, &why))?;
        let (status, body) = self.ask(WHAT, request).await?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|_| unusable(WHAT, "the response has no identity token"));
        }
        // RFC 6749 §5.2: 4xx responses have an error code. 5xx says nothing about the code.
        let body = serde_json::from_slice::<Value>(&body).ok();
        match body.as_ref().and_then(|body| body.get("error")?.as_str()) {
            Some(error) if status.is_client_error() => Err(OpenIdError::Code(word(error))),
            _ => Err(OpenIdError::Unreachable {
                what: WHAT,
                why: format!("the response status was {status}"),
            }),
        }
    }

    fn trading(
        &self,
        known: &Metadata,
        flow: &Flow,
        code: &str,
    ) -> Result<Request<Full<Bytes>>, String> {
        let (id, verifier) = (&self.settings.client_id, flow.verifier());
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "authorization_code")
            .append_pair("code", code)
            .append_pair("redirect_uri", &self.redirect)
            .append_pair("code_verifier", &verifier);
        let mut request = Request::builder().method(Method::POST).uri(known.token.as_str());
        match &self.settings.client_secret {
            Some(secret) if known.posts_secret => {
                form.append_pair("client_id", id).append_pair("client_secret", secret.reveal());
            }
            Some(secret) => {
                let basic =
                    basic(id, secret).ok_or("the client secret cannot be sent in a header")?;
                request = request.header(header::AUTHORIZATION, basic);
            }
            None => {
                form.append_pair("client_id", id);
            }
        }
        let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let request = request.header(header::ACCEPT, "application/json");
        request.body(Full::from(form.finish())).map_err(|e| e.to_string())
    }

    /// Adds claims from the user info endpoint, since some providers send the email address only
    /// there (Core §5.3).
    pub(super) async fn add_user_info(
        &self,
        tokens: &Tokens,
        claims: &mut Map<String, Value>,
    ) -> Result<(), OpenIdError> {
        const WHAT: &str = "the user info";
        let known = self.metadata().await?;
        let (Some(at), Some(token)) = (&known.userinfo, &tokens.access_token) else {
            return Ok(());
        };
        let bearer = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| unusable(WHAT, "the access token cannot be sent in a header"))?;
        let user_info: Map<String, Value> = self.get(WHAT, at.as_str(), Some(bearer)).await?;
        // §5.3.2: claims of another subject must not be used.
        if user_info.get("sub") != claims.get("sub") {
            return Err(TokenFault::Lacks("the subject of the user info").into());
        }
        // Whether an address is verified is known from where the address is.
        claims.remove("email_verified");
        for (claim, value) in user_info {
            claims.entry(claim).or_insert(value);
        }
        Ok(())
    }

    async fn get<T: for<'de> Deserialize<'de>>(
        &self,
        what: &'static str,
        at: &str,
        bearer: Option<HeaderValue>,
    ) -> Result<T, OpenIdError> {
        let mut request = Request::builder().uri(at).header(header::ACCEPT, "application/json");
        if let Some(mut bearer) = bearer {
            bearer.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, bearer);
        }
        let request = request.body(Full::default()).map_err(|e| unusable(what, &e.to_string()))?;
        let (status, body) = self.ask(what, request).await?;
        if !status.is_success() {
            return Err(OpenIdError::Unreachable {
                what,
                why: format!("the response status was {status}"),
            });
        }
        serde_json::from_slice(&body)
            .map_err(|e| unusable(what, &format!("it can't be parsed: {e}")))
    }

    async fn ask(
        &self,
        what: &'static str,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), OpenIdError> {
        let failed = |why: String| OpenIdError::Unreachable { what, why };
        let asked = async {
            let answer = self.http.request(request).await.map_err(|e| failed(error_chain(&e)))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, BYTES_MAX)
                .collect()
                .await
                .map_err(|e| failed(error_chain(&*e)))?;
            Ok((head.status, body.to_bytes()))
        };
        timeout(REQUEST_TIMEOUT, asked)
            .await
            .unwrap_or_else(|_| Err(failed(format!("no response within {REQUEST_TIMEOUT:?}"))))
    }
}

fn unusable(what: &'static str, why: &str) -> OpenIdError {
    OpenIdError::Document { what, why: why.to_owned() }
}

/// Returns the Basic credentials. Both parts are form-encoded first (RFC 6749 §2.3.1).
fn basic(id: &str, secret: &Secret) -> Option<HeaderValue> {
    let half = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let both = STANDARD.encode(format!("{}:{}", half(id), half(secret.reveal())));
    let mut value = HeaderValue::try_from(format!("Basic {both}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Sanitizes an error code, which the provider or an attacker sent, for display and logs.
pub(super) fn word(text: &str) -> String {
    let word: String =
        text.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(60).collect();
    if word.is_empty() { "nothing".to_owned() } else { word }
}
