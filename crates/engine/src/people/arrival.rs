//! Maps people who signed in with OpenID Connect to users of the provider's account: by an earlier
//! link, by a verified e-mail address, or as new users if the configuration allows it.

use std::net::IpAddr;

use uuid::Uuid;

use super::{MOST, NAME_MAX, People, Token};
use crate::limiter::{Attempt, Guess, Origin, Refusal};
use crate::openid::Claims;
use model::AuthId;
use model::Role;
use model::Secret;
use store::{Scope, Session, StoreError, User, UserChange, UserLink};

/// The name under which codes of the provider are counted. It is longer than any user's name.
const COUNTED_AS: &str =
    "code of the sign-in provider, counted separately from the names of all users of the node";
const _: () = assert!(COUNTED_AS.len() > NAME_MAX);

/// The rules for signing in with the provider.
#[derive(Clone, Debug)]
pub struct Rules<'a> {
    /// New people become users of this account.
    pub account: AuthId,
    /// Only users of this main account and its subaccounts sign in with the provider. A user of
    /// another account may have the same e-mail address as its name.
    pub main_account: AuthId,
    /// The role of new people, unless the provider gives another. `None` if only existing users may
    /// sign in.
    pub newcomers: Option<Role>,
    /// E-mail domains that new people may have. Empty allows every domain.
    pub domains: &'a [String],
    /// Whether a claim of the provider contains the role.
    pub has_roles: bool,
}

/// Why a person known to the provider may not sign in.
#[derive(Debug, thiserror::Error)]
pub enum SignInRefusal {
    #[error("could not identify the person: the provider sent no email address")]
    NoEmail,
    /// The e-mail address is unverified, and may be invented.
    #[error("could not identify the person: the provider has not verified the email address")]
    Unverified(String),
    #[error("there is no user with this email address")]
    Unknown(String),
    /// The user is linked to another subject, for example because the address has a new owner.
    #[error("this user is linked to another person at the sign-in provider")]
    Another(String),
    #[error("could not find a role in the provider's claims")]
    NoRole,
    #[error("the node has no account whose people sign in with the provider")]
    NoAccount,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A sign-in with the provider.
#[derive(Debug)]
pub struct ProviderSignIn {
    pub token: Token,
    /// The user after the sign-in.
    pub user: User,
    /// The role before the sign-in. `None` if the sign-in created the user.
    pub role_before: Option<Role>,
    /// Whether the sign-in linked the user to the provider's subject.
    pub is_linked: bool,
}

impl People {
    /// Begins to check a code of the provider. Each check is a request to the provider, so codes are
    /// limited like passwords: those of a network with too many wrong ones wait for their turn.
    ///
    /// # Errors
    ///
    /// Returns an error if the code is known to be wrong, or if its turn does not come in time.
    pub async fn begin_code_check(&self, code: &str, from: IpAddr) -> Result<Attempt<'_>, Refusal> {
        let inner = &self.0;
        let guess = Guess { password: &Secret::new(code), hash: None };
        inner.failures.begin(COUNTED_AS, Origin::Network(from), guess, &inner.clock).await
    }

    /// Starts a session for the person in these claims.
    ///
    /// # Errors
    ///
    /// Returns the reason why the person may not sign in, or an error of the store.
    pub async fn sign_in_with(
        &self,
        claims: &Claims,
        rules: &Rules<'_>,
    ) -> Result<ProviderSignIn, SignInRefusal> {
        let inner = &self.0;
        let role = match (rules.has_roles, claims.role, rules.newcomers) {
            (false, ..) => None,
            (true, Some(role), _) => Some(role),
            (true, None, Some(role)) => Some(role),
            (true, None, None) => return Err(SignInRefusal::NoRole),
        };
        let linked = inner.store.people().by_link(&claims.issuer, &claims.subject).await?;
        let linked = linked.filter(|user| user.main_account == rules.main_account);
        let is_linked = linked.is_none();
        let (mut user, is_new) = match linked {
            Some(user) => (user, false),
            None => self.find_or_create(claims, rules, role).await?,
        };
        let role_before = (!is_new).then_some(user.role);
        // The provider's role is applied at each sign-in, except to users of the configuration
        // file.
        if let Some(role) = role.filter(|role| *role != user.role && !user.in_file) {
            let change = UserChange { role: Some(role), ..UserChange::default() };
            inner
                .store
                .people()
                .change(&Scope::of(user.main_account.clone()), user.id, change)
                .await?;
            self.publish(&user);
            user.role = role;
        }
        let (token, at) = (Token::fresh(), inner.clock.wall());
        let session = Session { digest: token.digest(), user: user.id, begun: at, seen: at };
        if !inner.store.sessions().begin(session, None).await? {
            return Err(SignInRefusal::Unknown(user.name));
        }
        Ok(ProviderSignIn { token, user, role_before, is_linked })
    }

    /// Finds the user with this email address or creates one, and links it to the provider's
    /// subject. Also returns whether the user was created.
    async fn find_or_create(
        &self,
        claims: &Claims,
        rules: &Rules<'_>,
        role: Option<Role>,
    ) -> Result<(User, bool), SignInRefusal> {
        let inner = &self.0;
        let email = claims.email.clone().ok_or(SignInRefusal::NoEmail)?;
        if !claims.is_verified {
            return Err(SignInRefusal::Unverified(email));
        }
        let mut known =
            inner.store.people().by_name_ignoring_case(&rules.main_account, &email).await?;
        let found = known.pop();
        let is_new = found.is_none();
        let user = match (found, rules.newcomers) {
            // Two names that differ only in case are ambiguous.
            (Some(_), _) if !known.is_empty() => return Err(SignInRefusal::Unknown(email)),
            (Some(user), _) => user,
            (None, Some(newcomer)) if is_allowed_address(&email, rules.domains) => self
                .create_newcomer(claims, &email, rules, role.unwrap_or(newcomer))
                .await?
                .ok_or(SignInRefusal::Unknown(email.clone()))?,
            (None, _) => return Err(SignInRefusal::Unknown(email)),
        };
        let at = inner.clock.wall();
        let (issuer, subject) = (claims.issuer.clone(), claims.subject.clone());
        let linked =
            inner.store.people().link(UserLink { issuer, subject, user: user.id, at }).await?;
        // A concurrent sign-in of the same person may have created the link.
        let is = linked
            || inner
                .store
                .people()
                .by_link(&claims.issuer, &claims.subject)
                .await?
                .is_some_and(|u| u.id == user.id);
        if !is {
            return Err(SignInRefusal::Another(email));
        }
        tracing::info!(user = %user.id, "user linked to the sign-in provider");
        self.publish(&user);
        Ok((user, is_new))
    }

    /// Creates a user for a new person. Returns `None` if the account has the maximum number of
    /// users.
    async fn create_newcomer(
        &self,
        claims: &Claims,
        email: &str,
        rules: &Rules<'_>,
        role: Role,
    ) -> Result<Option<User>, StoreError> {
        let others =
            self.0.store.people().list(&Scope::of(rules.main_account.clone()), None, MOST).await?;
        if others.len() >= usize::try_from(MOST).unwrap_or(usize::MAX) {
            tracing::warn!("new user refused: the account has the maximum number of users");
            return Ok(None);
        }
        let full: String = claims
            .name
            .as_deref()
            .unwrap_or(email)
            .chars()
            .filter(|c| !c.is_control())
            .take(NAME_MAX)
            .collect();
        let user = User {
            id: Uuid::new_v4(),
            account: rules.account.clone(),
            main_account: rules.main_account.clone(),
            name: email.to_owned(),
            full_name: if full.trim().is_empty() {
                email.to_owned()
            } else {
                full.trim().to_owned()
            },
            role,
            password: None,
            wa_id: None,
            in_file: false,
            is_linked: false,
            created: self.0.clock.wall(),
        };
        if self.0.store.people().create(user.clone()).await? {
            return Ok(Some(user));
        }
        Ok(self.0.store.people().by_name(Some(&rules.main_account), email).await?.pop())
    }
}

/// Whether a new person with this address may sign in.
fn is_allowed_address(email: &str, domains: &[String]) -> bool {
    let of = email.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
    email.chars().count() <= NAME_MAX && (domains.is_empty() || domains.contains(&of))
}

#[cfg(test)]
mod tests {
    use super::is_allowed_address;

    #[test]
    fn new_people_must_have_an_allowed_domain() {
        let domains = ["example.com".to_owned()];
        assert!(is_allowed_address("asha@Example.com", &domains) && is_allowed_address("a@b", &[]));
        for bad in ["asha@example.com.evil.test", "asha@sub.example.com", "asha@evil.test"] {
            assert!(!is_allowed_address(bad, &domains), "{bad}");
        }
        assert!(
            !is_allowed_address(&format!("{}@example.com", "a".repeat(60)), &domains),
            "longer than a name may be"
        );
    }
}
