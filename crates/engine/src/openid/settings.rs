//! `[oidc]`: the OpenID Connect provider of the console.

use model::{AuthId, Role, Secret};

/// `[oidc]`: an OpenID Connect provider that people sign in to the console with.
#[derive(Clone, Debug)]
pub struct ProviderSettings {
    /// The issuer identifier, exactly as in the `iss` of the provider's tokens.
    pub issuer: String,
    pub client_id: String,
    /// The client secret. `None` for a public client.
    pub client_secret: Option<Secret>,
    pub scopes: Vec<String>,
    /// The provider's name on the sign-in page.
    pub name: String,
    /// The account of the people who sign in with this provider. `None` if the node has none.
    pub account: Option<AuthId>,
    pub allow: Allow,
    /// E-mail domains that new people may have. Empty allows every domain.
    pub domains: Vec<String>,
    /// The claim that contains a person's role. Dots separate the levels of a nested claim.
    pub role_claim: Option<String>,
    /// Values of the role claim with the role for each, highest role first.
    pub roles: Vec<(String, Role)>,
    /// Whether tokens and codes may be sent over plain http.
    pub insecure: bool,
}

/// Who may sign in with the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allow {
    /// Only people who are already users, either in the configuration or by an invitation.
    Invited,
    /// Everybody the provider knows. A new person becomes a user of the provider's account, with
    /// this role unless the role claim contains another.
    Anyone { role: Role },
}
