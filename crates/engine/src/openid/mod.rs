//! OpenID Connect relying party: the authorization request, the code exchange and the claims of a
//! person (authorization code flow with PKCE, state and nonce).
//!
//! `flow` is the state of one browser, `token` verifies identity tokens, `provider` makes the
//! requests. This module does not depend on users, permissions or pages: `people` maps claims to
//! users, and `console` handles the browser's requests. The operator chooses the provider, so it is
//! requested directly, even at local addresses, and without `egress`'s rules for customer URLs.

mod flow;
mod provider;
mod settings;
mod token;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use url::Url;

pub use flow::{AT_MOST, Flow};
pub use settings::{Allow, ProviderSettings};
pub use token::{Claims, TokenFault};

use egress::{DirectClient, FairPermits, direct_client};
use model::{Clock, network_prefix};
use provider::{Metadata, MetadataCache};

/// The path of the redirect URI below the public base URL.
pub const BACK: &str = "/console/sign-in/openid/back";

/// Maximum number of concurrent code exchanges, in all and of one network. Any browser can start
/// one.
const AT_ONCE: usize = 16;
const AT_ONCE_PER_NETWORK: usize = 4;
/// Longest time that a code exchange waits for its turn.
const TURN_TIME: Duration = Duration::from_secs(10);

/// Why a sign-in with the provider failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenIdError {
    #[error("could not get {what} from the sign-in provider: {why}")]
    Unreachable { what: &'static str, why: String },
    /// The provider's response is not usable.
    #[error("could not use {what} of the sign-in provider: {why}")]
    Document { what: &'static str, why: String },
    /// A recent attempt to reach the provider failed with this error. No new attempt was made.
    #[error("{0}")]
    Away(String),
    #[error(
        "could not finish a sign-in that this browser did not begin within the last ten minutes"
    )]
    State,
    /// The provider's error code, sanitized.
    #[error("could not sign in: the provider reports {0}")]
    Declined(String),
    /// The provider rejected the code, because it was used before, has expired or belongs to
    /// another client.
    #[error("could not exchange the code: the provider reports {0}")]
    Code(String),
    #[error("could not accept the identity token: it {0}")]
    Token(#[from] TokenFault),
    #[error("could not finish the sign-in: too many are in progress")]
    Busy,
}

/// The parameters with which the browser returns from the provider.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReturnParameters<'a> {
    pub state: &'a str,
    pub code: &'a str,
    /// The provider's error code. Only set if it sent no code for the exchange.
    pub error: &'a str,
    /// The issuer, if sent (RFC 9207).
    pub issuer: &'a str,
}

/// A code that a browser brought back to the flow it had begun. The provider has not checked it.
#[derive(Clone, Copy)]
pub struct ReturnedCode<'a> {
    flow: &'a Flow,
    code: &'a str,
}

impl<'a> ReturnedCode<'a> {
    /// The code itself.
    pub fn as_str(&self) -> &'a str {
        self.code
    }
}

/// An OpenID Connect provider; cheap to clone.
#[derive(Clone)]
pub struct Provider(Arc<Inner>);

struct Inner {
    settings: ProviderSettings,
    /// The redirect URI.
    redirect: String,
    http: DirectClient<http_body_util::Full<bytes::Bytes>>,
    clock: Clock,
    /// The code exchanges in progress, by the network of the browser.
    exchanges: FairPermits<IpAddr>,
    /// The last metadata of the provider.
    cache: Mutex<MetadataCache>,
}

impl Provider {
    /// Creates a provider without any request. `base_url` is the public URL of this node.
    ///
    /// # Errors
    ///
    /// Returns an error if the TLS library rejects its own defaults.
    pub fn new(
        settings: ProviderSettings,
        base_url: &str,
        clock: Clock,
    ) -> Result<Self, rustls::Error> {
        let redirect = format!("{}{BACK}", base_url.trim_end_matches('/'));
        let http = direct_client(provider::CONNECT_TIMEOUT)?;
        let exchanges = FairPermits::new(AT_ONCE, AT_ONCE_PER_NETWORK);
        let cache = Mutex::default();
        Ok(Self(Arc::new(Inner { settings, redirect, http, clock, exchanges, cache })))
    }

    /// The settings of this provider.
    pub fn settings(&self) -> &ProviderSettings {
        &self.0.settings
    }

    /// The redirect URI, which has to be registered at the provider.
    pub fn redirect(&self) -> &str {
        &self.0.redirect
    }

    /// Returns the URL at which the browser signs in.
    ///
    /// # Errors
    ///
    /// Returns an error if the provider's metadata cannot be read.
    pub async fn way(&self, flow: &Flow) -> Result<Url, OpenIdError> {
        let inner = &self.0;
        let mut way = inner.metadata().await?.authorization.clone();
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

    /// Verifies the browser's return, without a request.
    ///
    /// # Errors
    ///
    /// Returns the reason why the sign-in failed.
    pub fn accept<'a>(
        &self,
        flow: &'a Flow,
        returned: ReturnParameters<'a>,
    ) -> Result<ReturnedCode<'a>, OpenIdError> {
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
        Ok(ReturnedCode { flow, code: returned.code })
    }

    /// Exchanges a code for claims. A code can be exchanged once (RFC 6749 §4.1.2). Browsers of
    /// different networks take turns.
    ///
    /// # Errors
    ///
    /// Returns the reason why the sign-in failed.
    pub async fn exchange(
        &self,
        ReturnedCode { flow, code }: ReturnedCode<'_>,
        from: IpAddr,
    ) -> Result<Claims, OpenIdError> {
        let inner = &self.0;
        let network = network_prefix(from);
        let turn = inner.exchanges.acquire(&network);
        let _turn = tokio::time::timeout(TURN_TIME, turn).await.map_err(|_| OpenIdError::Busy)?;
        let tokens = inner.trade(flow, code).await?;
        let now = inner.clock.wall();
        let known = inner.metadata().await?;
        let verify = |known: &Metadata| {
            token::verify(&tokens.id_token, &known.keys, &inner.settings, &flow.nonce(), now)
        };
        let mut claims = match verify(&known) {
            // The provider may have published a new key since. A key without an id is replaced by
            // one that only differs.
            Err(TokenFault::UnknownKey | TokenFault::Signature) => {
                verify(&inner.metadata_after(&known).await?)?
            }
            result => result?,
        };
        if !claims.contains_key("email") {
            inner.add_user_info(&tokens, &mut claims).await?;
        }
        Ok(Claims::of(&claims, &inner.settings))
    }

    /// Reads the provider's metadata. Returns the number of keys that it publishes.
    ///
    /// # Errors
    ///
    /// Returns an error if metadata or keys cannot be read.
    pub async fn examine(&self) -> Result<usize, OpenIdError> {
        Ok(self.0.metadata().await?.keys.len())
    }
}

#[cfg(test)]
mod tests;

/// Fixtures for the tests of this module.
#[cfg(test)]
mod testing {
    use super::{Allow, ProviderSettings};

    /// A provider at this address without a role claim.
    pub(super) fn settings(issuer: &str) -> ProviderSettings {
        ProviderSettings {
            issuer: issuer.to_owned(),
            client_id: "offhook".to_owned(),
            client_secret: None,
            scopes: Vec::new(),
            name: String::new(),
            account: None,
            allow: Allow::Invited,
            domains: Vec::new(),
            role_claim: None,
            roles: Vec::new(),
            insecure: false,
        }
    }
}
