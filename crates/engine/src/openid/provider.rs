//! Asks the provider: what it says of itself (OpenID Connect Discovery), its keys, a code's token, who somebody is.
//!
//! Everything within bounds of time and size; nothing is redirected. What it says of itself is kept for an hour.

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

/// Somebody is waiting in front of their browser.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
const WITHIN: Duration = Duration::from_secs(10);
/// A document of the provider's, or a token with all it says.
const BYTES_MAX: usize = 256 << 10;
/// What it says of itself and its keys is read again so often, and for a key that is not known no sooner than this.
const FRESH: Duration = Duration::from_secs(3_600);
const ANEW_AFTER: Duration = Duration::from_secs(30);
/// How long a provider that could not be read is left in peace.
const REST: Duration = Duration::from_secs(5);
/// What the provider says of itself.
const CONFIGURATION: &str = "the configuration";
/// Keys of a provider; past it nobody reads on.
const KEYS_MAX: usize = 100;

/// What a provider says of itself; cheap to clone.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) authorization: Url,
    token: Url,
    userinfo: Option<Url>,
    /// The client's secret goes into the form, where the provider does not take it in the header.
    posts_secret: bool,
    pub(super) keys: Arc<[Jwk]>,
    read: Instant,
}

/// What was read last, and when and why it could not be read since.
#[derive(Default)]
pub(super) struct Seen {
    known: Option<Known>,
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

/// What a code was traded in for.
#[derive(Deserialize)]
pub(super) struct Tokens {
    pub(super) id_token: String,
    access_token: Option<String>,
}

impl Inner {
    /// What is asked for: `openid` is always among it.
    pub(super) fn scope(&self) -> String {
        let others =
            self.settings.scopes.iter().map(String::as_str).filter(|scope| *scope != "openid");
        std::iter::once("openid").chain(others).collect::<Vec<_>>().join(" ")
    }

    /// What the provider says of itself: as read within the last hour.
    pub(super) async fn known(&self) -> Result<Known, OpenIdError> {
        self.read(FRESH).await
    }

    /// The same, read just now: within the last half minute.
    pub(super) async fn known_anew(&self) -> Result<Known, OpenIdError> {
        self.read(ANEW_AFTER).await
    }

    /// One reads it, and the others wait for that one; what it could not read they don't try again at once. What was read
    /// before stands meanwhile.
    async fn read(&self, fresh: Duration) -> Result<Known, OpenIdError> {
        let mut seen = self.seen.lock().await;
        let now = self.clock.now();
        let within = |at: Instant, time: Duration| now.saturating_duration_since(at) < time;
        if let Some(known) = seen.known.as_ref().filter(|known| within(known.read, fresh)) {
            return Ok(known.clone());
        }
        if seen.failed.as_ref().is_none_or(|(at, _)| !within(*at, REST)) {
            match self.discover(now).await {
                Ok(known) => {
                    seen.failed = None;
                    return Ok(seen.known.insert(known).clone());
                }
                Err(error) => {
                    tracing::warn!(%error, "the sign-in provider could not be read");
                    seen.failed = Some((self.clock.now(), error.to_string()));
                    if seen.known.is_none() {
                        return Err(error);
                    }
                }
            }
        }
        let failed = seen.failed.as_ref().map(|(_, why)| why.clone()).unwrap_or_default();
        seen.known.clone().ok_or(OpenIdError::Away(failed))
    }

    async fn discover(&self, now: Instant) -> Result<Known, OpenIdError> {
        const KEYS: &str = "the keys";
        let issuer = &self.settings.issuer;
        let at = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let document: Discovery = self.get(CONFIGURATION, &at, None).await?;
        if document.issuer != *issuer {
            let names: String =
                document.issuer.chars().filter(|c| !c.is_control()).take(200).collect();
            let why = format!(
                "it is the issuer {names:?}, and [oidc] issuer is {issuer:?}: they must be the same"
            );
            return Err(OpenIdError::Document { what: CONFIGURATION, why });
        }
        let keys: Keys = self.get(KEYS, self.safe(&document.jwks_uri)?.as_str(), None).await?;
        let keys = keys.keys.into_iter().take(KEYS_MAX);
        // One of a kind that nobody here knows keeps no other from being used.
        let keys: Arc<[Jwk]> = keys.filter_map(|key| serde_json::from_value(key).ok()).collect();
        if keys.is_empty() {
            return Err(OpenIdError::Document { what: KEYS, why: "there is none".to_owned() });
        }
        let methods = document.token_endpoint_auth_methods_supported;
        let takes = |method: &str| {
            methods.as_ref().is_some_and(|all| all.iter().any(|known| known == method))
        };
        Ok(Known {
            authorization: self.safe(&document.authorization_endpoint)?,
            token: self.safe(&document.token_endpoint)?,
            userinfo: document.userinfo_endpoint.map(|at| self.safe(&at)).transpose()?,
            // Without a list it is the header (Discovery §3).
            posts_secret: takes("client_secret_post") && !takes("client_secret_basic"),
            keys,
            read: now,
        })
    }

    /// One of the provider's addresses: as safe as the issuer's own, since codes and tokens go there.
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

    /// Trades the code in for tokens.
    pub(super) async fn trade(&self, flow: &Flow, code: &str) -> Result<Tokens, OpenIdError> {
        const WHAT: &str = "the token";
        let request =
            self.trading(&self.known().await?, flow, code).map_err(|why| unusable(WHAT, &why))?;
        let (status, body) = self.ask(WHAT, request).await?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|_| unusable(WHAT, "its answer has no identity token"));
        }
        // RFC 6749 §5.2: a word; 5xx is no word about the code.
        let said = serde_json::from_slice::<Value>(&body).ok();
        match said.as_ref().and_then(|said| said.get("error")?.as_str()) {
            Some(error) if status.is_client_error() => Err(OpenIdError::Code(word(error))),
            _ => Err(OpenIdError::Unreachable {
                what: WHAT,
                why: format!("the answer was {status}"),
            }),
        }
    }

    fn trading(
        &self,
        known: &Known,
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
                let basic = basic(id, secret).ok_or("the client's secret is no header")?;
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

    /// What the token leaves to be asked: some providers tell a mail address only there (Core §5.3).
    pub(super) async fn more(
        &self,
        tokens: &Tokens,
        claims: &mut Map<String, Value>,
    ) -> Result<(), OpenIdError> {
        const WHAT: &str = "who somebody is";
        let known = self.known().await?;
        let (Some(at), Some(token)) = (&known.userinfo, &tokens.access_token) else {
            return Ok(());
        };
        let bearer = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| unusable(WHAT, "its token"))?;
        let said: Map<String, Value> = self.get(WHAT, at.as_str(), Some(bearer)).await?;
        // §5.3.2: what is said of another person is not taken.
        if said.get("sub") != claims.get("sub") {
            return Err(TokenFault::Lacks("the same person as its own answers").into());
        }
        for (claim, value) in said {
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
            return Err(OpenIdError::Unreachable { what, why: format!("the answer was {status}") });
        }
        serde_json::from_slice(&body).map_err(|e| unusable(what, &format!("it can't be read: {e}")))
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
        timeout(WITHIN, asked)
            .await
            .unwrap_or_else(|_| Err(failed(format!("no answer within {WITHIN:?}"))))
    }
}

fn unusable(what: &'static str, why: &str) -> OpenIdError {
    OpenIdError::Document { what, why: why.to_owned() }
}

/// RFC 6749 §2.3.1: each half is encoded like a form before it becomes Basic.
fn basic(id: &str, secret: &Secret) -> Option<HeaderValue> {
    let half = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let both = STANDARD.encode(format!("{}:{}", half(id), half(secret.reveal())));
    let mut value = HeaderValue::try_from(format!("Basic {both}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A word of the provider's, or of whoever made the browser say it: shown and logged, so bounded in length and letters.
pub(super) fn word(text: &str) -> String {
    let word: String =
        text.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(60).collect();
    if word.is_empty() { "nothing".to_owned() } else { word }
}
