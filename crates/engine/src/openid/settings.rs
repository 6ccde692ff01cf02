//! `[oidc]`: the OpenID Connect provider of the console.

use model::{AuthId, Role, Secret};

/// `[oidc]`: an OpenID Connect provider that people sign in to the console with.
#[derive(Clone, Debug)]
pub struct ProviderSettings {
    /// The issuer identifier, exactly as the provider's tokens name it in `iss`.
    pub issuer: String,
    pub client_id: String,
    /// `None` for a public client.
    pub client_secret: Option<Secret>,
    pub scopes: Vec<String>,
    /// The provider's name on the sign-in page.
    pub name: String,
    /// The account of the people who sign in with this provider. `None` if the node has none.
    pub account: Option<AuthId>,
    pub allow: Allow,
    /// Mail domains that new people may have. Empty allows every domain.
    pub domains: Vec<String>,
    /// The claim that gives a person's role; dots separate the levels of a nested claim.
    pub role_claim: Option<String>,
    /// Values of the role claim with the role that each stands for, highest role first.
    pub roles: Vec<(String, Role)>,
    /// Whether tokens and codes may go over plain http.
    pub insecure: bool,
}

/// Who may sign in with the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allow {
    /// Only people who already are users, whether by the configuration or by an invitation.
    Invited,
    /// Everybody the provider knows. A new person becomes a user of the provider's account, with
    /// this role unless the role claim gives another.
    Anyone { role: Role },
}
