//! `[meta]`: the app at Meta and the Graph API.

use url::Url;

use model::Secret;

/// The settings of `[meta]`.
#[derive(Clone, Debug)]
pub struct MetaSettings {
    /// The base URL of the Graph API, with its version.
    pub graph_url: Url,
    pub app_id: Option<String>,
    /// The Facebook Login for Business configuration that the sign-up window uses.
    pub signup_config_id: Option<String>,
    /// Verifies the signatures of webhooks.
    pub app_secret: Secret,
    /// The secret before a rotation. While it is set, webhooks signed with either are accepted.
    pub app_secret_previous: Option<Secret>,
    /// The token that Meta repeats when it verifies the webhook's URL.
    pub verify_token: Secret,
    /// The access token of WABAs that have none of their own.
    pub access_token: Option<Secret>,
}

impl MetaSettings {
    /// The defaults, with the two secrets that have none.
    #[allow(clippy::expect_used, reason = "a constant")]
    pub fn new(app_secret: Secret, verify_token: Secret) -> Self {
        Self {
            graph_url: Url::parse("https://graph.facebook.com/v23.0").expect("a URL"),
            app_id: None,
            signup_config_id: None,
            app_secret,
            app_secret_previous: None,
            verify_token,
            access_token: None,
        }
    }
}
