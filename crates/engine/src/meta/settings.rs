//! `[meta]`: the app at Meta and the Graph API.

use url::Url;

use model::{Secret, is_loopback};

/// The settings of `[meta]`.
#[derive(Clone, Debug)]
pub struct MetaSettings {
    /// The base URL of the Graph API, with its version.
    pub graph_url: Url,
    /// Whether `graph_url` is a simulated Meta. `None` if the configuration leaves it open; see
    /// [`MetaSettings::is_simulated`].
    pub simulated: Option<bool>,
    pub app_id: Option<String>,
    /// The Facebook Login for Business configuration that the sign-up window uses.
    pub signup_config_id: Option<String>,
    /// The secret that verifies the signatures of webhooks.
    pub app_secret: Secret,
    /// The previous secret during a rotation. While it is set, webhooks signed with either are
    /// accepted.
    pub app_secret_previous: Option<Secret>,
    /// The token that Meta repeats when it verifies the webhook's URL.
    pub verify_token: Secret,
    /// The access token of WABAs without their own.
    pub access_token: Option<Secret>,
}

impl MetaSettings {
    /// Creates the default settings with these two secrets, which have no defaults.
    #[allow(clippy::expect_used, reason = "a constant")]
    pub fn new(app_secret: Secret, verify_token: Secret) -> Self {
        Self {
            graph_url: Url::parse("https://graph.facebook.com/v23.0").expect("a URL"),
            simulated: None,
            app_id: None,
            signup_config_id: None,
            app_secret,
            app_secret_previous: None,
            verify_token,
            access_token: None,
        }
    }

    /// Whether Meta is simulated: as configured, otherwise if `graph_url` is on loopback.
    pub fn is_simulated(&self) -> bool {
        self.simulated.unwrap_or_else(|| is_loopback(&self.graph_url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_simulated_unless_the_configuration_says_otherwise() {
        let secret = || Secret::new("s");
        let settings = |url: &str, simulated| MetaSettings {
            graph_url: url.parse().unwrap(),
            simulated,
            ..MetaSettings::new(secret(), secret())
        };
        for (url, simulated, expected) in [
            ("http://127.0.0.1:9000/v23.0", None, true),
            ("http://127.0.0.1:9000/v23.0", Some(false), false),
            ("https://graph.facebook.com/v23.0", None, false),
            ("https://sim.example.com/v23.0", Some(true), true),
        ] {
            assert_eq!(settings(url, simulated).is_simulated(), expected, "{url} {simulated:?}");
        }
    }
}
