//! Checks the sign-in provider of the console, if one is configured.

use super::{Doctor, Finding};
use engine::openid::{OpenIdError, Provider};

const IS: &str = "oidc";

impl Doctor {
    /// Checks everything that a sign-in needs, except a person. Calls do not depend on it, so no
    /// finding is a failure.
    pub(super) async fn sign_in(&self) -> Option<Finding> {
        let oidc = self.config.oidc.clone()?;
        let base_url = self.config.public.base_url.as_ref().map_or("", url::Url::as_str);
        let provider = match Provider::new(oidc, base_url, self.clock.clone()) {
            Ok(provider) => provider,
            Err(e) => {
                return Some(Finding::warning(
                    IS,
                    format!("could not set up TLS: {e}"),
                    "see the system's TLS set-up",
                ));
            }
        };
        let line = match provider.examine().await {
            Ok(keys) => {
                let redirect = provider.redirect();
                Finding::ok(
                    IS,
                    format!(
                        "the provider responds, with {keys} keys; register the redirect URI {redirect} there"
                    ),
                )
            }
            Err(error) => {
                let fix = match &error {
                    OpenIdError::Document { .. } => {
                        "set [oidc].issuer exactly as the provider's metadata names it"
                    }
                    _ => {
                        "check [oidc].issuer, its certificate, and the connection from this machine"
                    }
                };
                Finding::warning(IS, format!("sign-in with the provider fails: {error}"), fix)
            }
        };
        Some(line.of(provider.settings().issuer.clone()))
    }
}
