//! The provider that vouches for the console's people, where one is configured.

use super::{Doctor, Line};
use engine::openid::{OpenIdError, Provider};

const IS: &str = "oidc";

impl Doctor {
    /// Whether people can sign in with the provider, as far as it can be told without one of them. Calls come without it:
    /// nothing here is a failure.
    pub(super) async fn sign_in(&self) -> Option<Line> {
        let oidc = self.config.oidc.clone()?;
        let base_url = self.config.public.base_url.as_ref().map_or("", url::Url::as_str);
        let provider = match Provider::new(oidc, base_url, self.clock.clone()) {
            Ok(provider) => provider,
            Err(e) => {
                return Some(Line::warning(
                    IS,
                    format!("could not set up TLS: {e}"),
                    "see the system's TLS set-up",
                ));
            }
        };
        let line = match provider.examine().await {
            Ok(keys) => {
                let redirect = provider.redirect();
                Line::ok(
                    IS,
                    format!(
                        "the provider answers, with {keys} keys; it must know the redirect URI {redirect}"
                    ),
                )
            }
            Err(error) => {
                let fix = match &error {
                    OpenIdError::Document { .. } => {
                        "write [oidc].issuer as the provider's own configuration names it, to the letter"
                    }
                    _ => {
                        "check [oidc].issuer, its certificate, and the way there from this machine"
                    }
                };
                Line::warning(
                    IS,
                    format!("nobody can sign in with the provider: could not {error}"),
                    fix,
                )
            }
        };
        Some(line.of(provider.settings().issuer.clone()))
    }
}
