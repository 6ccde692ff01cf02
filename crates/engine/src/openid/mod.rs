//! OpenID Connect, from the side of who trusts a provider: the way there, the code that comes back, and what the provider
//! says of somebody (authorization code with PKCE, state and nonce).
//!
//! `flow` is one browser's way, `token` what is believed, `provider` asks the provider's addresses. It knows nothing of
//! users, roles' rights or pages: `people` says who somebody is here, `console` talks to the browser. The provider is the
//! operator's choice, so it is asked directly, local ones included, and not by `egress`'s rules for customers' URLs.

mod flow;
mod provider;
mod settings;
mod token;

use std::sync::Arc;

use tokio::sync::{Mutex, Semaphore};
use url::Url;

pub use flow::{AT_MOST, Flow};
pub use settings::{Allow, ProviderSettings};
pub use token::{Claims, TokenFault};

use egress::{DirectClient, direct_client};
use model::Clock;
use provider::{Known, Seen};

/// Where it sends people back to, below the public base URL.
pub const BACK: &str = "/console/sign-in/openid/back";

/// Sign-ins that are finished at the provider at the same time: anybody can ask for one.
const AT_ONCE: usize = 8;

/// Why the provider brings nobody. The texts read well after "could not …".
#[derive(Debug, thiserror::Error)]
pub enum OpenIdError {
    #[error("ask {what} of the sign-in provider: {why}")]
    Unreachable { what: &'static str, why: String },
    /// It answers, and not as a provider does.
    #[error("use {what} of the sign-in provider: {why}")]
    Document { what: &'static str, why: String },
    /// As somebody else found it a moment ago.
    #[error("{0}")]
    Away(String),
    #[error("finish a sign-in that this browser has not begun, or more than ten minutes ago")]
    State,
    /// Its own word for it, of a bounded alphabet.
    #[error("sign them in: the provider says {0}")]
    Declined(String),
    /// It does not take the code: used before, too old, or another client's.
    #[error("trade the code in: the provider says {0}")]
    Code(String),
    #[error("believe the provider: its token {0}")]
    Token(#[from] TokenFault),
    #[error("finish so many sign-ins at once")]
    Busy,
}

/// What the browser brings back from the provider.
#[derive(Clone, Copy, Debug, Default)]
pub struct Returned<'a> {
    pub state: &'a str,
    pub code: &'a str,
    /// The provider's word for why there is no code.
    pub error: &'a str,
    /// Who says so, if it says (RFC 9207).
    pub issuer: &'a str,
}

/// A provider of OpenID Connect; cheap to clone.
#[derive(Clone)]
pub struct Provider(Arc<Inner>);

struct Inner {
    settings: ProviderSettings,
    /// Where it sends people back to.
    redirect: String,
    http: DirectClient<http_body_util::Full<bytes::Bytes>>,
    clock: Clock,
    turns: Semaphore,
    /// What it says of itself, as it was read last.
    seen: Mutex<Seen>,
}

impl Provider {
    /// One that is asked nothing yet. `base_url`: as the outside reaches this node.
    ///
    /// # Errors
    /// The TLS library refuses its own defaults.
    pub fn new(
        settings: ProviderSettings,
        base_url: &str,
        clock: Clock,
    ) -> Result<Self, rustls::Error> {
        let redirect = format!("{}{BACK}", base_url.trim_end_matches('/'));
        let http = direct_client(provider::CONNECT)?;
        let (turns, seen) = (Semaphore::new(AT_ONCE), Mutex::default());
        Ok(Self(Arc::new(Inner { settings, redirect, http, clock, turns, seen })))
    }

    /// What is set of it.
    pub fn settings(&self) -> &ProviderSettings {
        &self.0.settings
    }

    /// Where it sends people back to: what must be registered there.
    pub fn redirect(&self) -> &str {
        &self.0.redirect
    }

    /// Where the browser goes to sign in.
    ///
    /// # Errors
    /// The provider does not say.
    pub async fn way(&self, flow: &Flow) -> Result<Url, OpenIdError> {
        let inner = &self.0;
        let mut way = inner.known().await?.authorization.clone();
        way.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &inner.settings.client_id)
            .append_pair("redirect_uri", &inner.redirect)
            .append_pair("scope", &inner.scope())
            .append_pair("state", &flow.state())
            .append_pair("nonce", &flow.nonce())
            .append_pair("code_challenge", &flow.challenge())
            .append_pair("code_challenge_method", "S256");
        Ok(way)
    }

    /// Who has come back. The code is traded in, once: the provider refuses it the second time (RFC 6749 §4.1.2).
    ///
    /// # Errors
    /// Nobody, and why.
    pub async fn finish(&self, flow: &Flow, returned: Returned<'_>) -> Result<Claims, OpenIdError> {
        let inner = &self.0;
        if !flow.is_state(returned.state) {
            return Err(OpenIdError::State);
        }
        if !returned.issuer.is_empty() && returned.issuer != inner.settings.issuer {
            return Err(TokenFault::Issuer.into());
        }
        if !returned.error.is_empty() || returned.code.is_empty() {
            return Err(OpenIdError::Declined(provider::word(returned.error)));
        }
        let _turn = inner.turns.try_acquire().map_err(|_| OpenIdError::Busy)?;
        let tokens = inner.trade(flow, returned.code).await?;
        let now = inner.clock.wall();
        let known = inner.known().await?;
        let verify = |known: &Known| {
            token::verify(&tokens.id_token, &known.keys, &inner.settings, &flow.nonce(), now)
        };
        let mut claims = match verify(&known) {
            // Keys are changed now and then: perhaps it is one that was published since.
            Err(TokenFault::UnknownKey) => verify(&inner.known_anew().await?)?,
            said => said?,
        };
        if !claims.contains_key("email") {
            inner.more(&tokens, &mut claims).await?;
        }
        Ok(Claims::of(&claims, &inner.settings))
    }

    /// How many keys the provider publishes, if all that a sign-in asks of it answers.
    ///
    /// # Errors
    /// What does not.
    pub async fn examine(&self) -> Result<usize, OpenIdError> {
        Ok(self.0.known().await?.keys.len())
    }
}

#[cfg(test)]
mod tests;

/// What tests here begin with.
#[cfg(test)]
mod testing {
    use super::{Allow, ProviderSettings};

    /// A provider at this address, whose claims give nobody a role.
    pub(super) fn settings(issuer: &str) -> ProviderSettings {
        ProviderSettings {
            issuer: issuer.to_owned(),
            client_id: "offhook".to_owned(),
            client_secret: None,
            scopes: Vec::new(),
            name: String::new(),
            allow: Allow::Invited,
            domains: Vec::new(),
            role_claim: None,
            roles: Vec::new(),
            insecure: false,
        }
    }
}
