//! Who a sign-in provider vouches for, as a user here (OpenID Connect): linked before, known by a verified mail address,
//! or new where new people may come.

use uuid::Uuid;

use super::{MOST, NAME_MAX, People, Token};
use crate::openid::Claims;
use model::AuthId;
use model::Role;
use store::{Scope, Session, StoreError, User, UserChange, UserLink};

/// Whose users new people become.
#[derive(Clone, Debug)]
pub struct Newcomers {
    pub account: AuthId,
    pub main_account: AuthId,
    /// Where the provider says no other.
    pub role: Role,
}

/// By which rules somebody comes in.
#[derive(Clone, Debug)]
pub struct Rules<'a> {
    /// None: only who is a user already.
    pub newcomers: Option<Newcomers>,
    /// Mail domains that new people may be of; none: any.
    pub domains: &'a [String],
    /// The provider says what people may.
    pub has_roles: bool,
}

/// Why somebody whom the provider knows does not come in. The texts read well after "could not …".
#[derive(Debug, thiserror::Error)]
pub enum NotWelcome {
    #[error("know them: the provider tells no mail address")]
    NoEmail,
    /// Whoever says so may have made it up.
    #[error("know them by a mail address that the provider has not verified")]
    Unverified(String),
    #[error("find a user of that mail address")]
    Unknown(String),
    /// The user is somebody else at the provider: an address that got another owner.
    #[error("take them for a user who is somebody else at the provider")]
    Another(String),
    #[error("find a role in what the provider says")]
    NoRole,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl People {
    /// Begins a session for whom the provider vouches for.
    ///
    /// # Errors
    /// Why not.
    pub async fn arrive(&self, claims: &Claims, rules: &Rules<'_>) -> Result<Token, NotWelcome> {
        let inner = &self.0;
        let role = match (rules.has_roles, claims.role, &rules.newcomers) {
            (false, ..) => None,
            (true, Some(role), _) => Some(role),
            (true, None, Some(newcomers)) => Some(newcomers.role),
            (true, None, None) => return Err(NotWelcome::NoRole),
        };
        let user = match inner.store.people().by_link(&claims.issuer, &claims.subject).await? {
            Some(user) => user,
            None => self.meet(claims, rules, role).await?,
        };
        // The provider's word counts each time; what stands in the configuration stands.
        if let Some(role) = role.filter(|role| *role != user.role && !user.in_file) {
            let change = UserChange { role: Some(role), ..UserChange::default() };
            inner
                .store
                .people()
                .change(&Scope::of(user.main_account.clone()), user.id, change)
                .await?;
            self.tell(&user);
        }
        let (token, at) = (Token::fresh(), inner.clock.wall());
        inner
            .store
            .sessions()
            .begin(Session { digest: token.digest(), user: user.id, begun: at, seen: at })
            .await?;
        Ok(token)
    }

    /// The first time: who this is by their mail address, or somebody new.
    async fn meet(
        &self,
        claims: &Claims,
        rules: &Rules<'_>,
        role: Option<Role>,
    ) -> Result<User, NotWelcome> {
        let inner = &self.0;
        let email = claims.email.clone().ok_or(NotWelcome::NoEmail)?;
        if !claims.is_verified {
            return Err(NotWelcome::Unverified(email));
        }
        let mut known = inner.store.people().by_name_ignoring_case(&email).await?;
        let user = match (known.pop(), &rules.newcomers) {
            // Two whom only the case of letters tells apart: nobody can say who is meant.
            (Some(_), _) if !known.is_empty() => return Err(NotWelcome::Unknown(email)),
            (Some(user), _) => user,
            (None, Some(newcomers)) if may_come(&email, rules.domains) => self
                .settle(claims, &email, newcomers, role)
                .await?
                .ok_or(NotWelcome::Unknown(email.clone()))?,
            (None, _) => return Err(NotWelcome::Unknown(email)),
        };
        let at = inner.clock.wall();
        let (issuer, subject) = (claims.issuer.clone(), claims.subject.clone());
        let linked =
            inner.store.people().link(UserLink { issuer, subject, user: user.id, at }).await?;
        // Another request of theirs may have been quicker.
        let is = linked
            || inner
                .store
                .people()
                .by_link(&claims.issuer, &claims.subject)
                .await?
                .is_some_and(|u| u.id == user.id);
        if !is {
            return Err(NotWelcome::Another(email));
        }
        tracing::info!(user = %user.id, "a user is known to the sign-in provider from now on");
        self.tell(&user);
        Ok(user)
    }

    /// Makes a user of somebody new; none: there are as many as there may be.
    async fn settle(
        &self,
        claims: &Claims,
        email: &str,
        newcomers: &Newcomers,
        role: Option<Role>,
    ) -> Result<Option<User>, StoreError> {
        let others = self
            .0
            .store
            .people()
            .list(&Scope::of(newcomers.main_account.clone()), None, MOST)
            .await?;
        if others.len() >= usize::try_from(MOST).unwrap_or(usize::MAX) {
            tracing::warn!(
                "an account has as many users as it may have: somebody new could not come in"
            );
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
            account: newcomers.account.clone(),
            main_account: newcomers.main_account.clone(),
            name: email.to_owned(),
            full_name: if full.trim().is_empty() {
                email.to_owned()
            } else {
                full.trim().to_owned()
            },
            role: role.unwrap_or(newcomers.role),
            password: None,
            wa_id: None,
            in_file: false,
            created: self.0.clock.wall(),
        };
        if self.0.store.people().create(user.clone()).await? {
            return Ok(Some(user));
        }
        self.0.store.people().by_name(email).await
    }
}

/// Whether somebody new of that address may come.
fn may_come(email: &str, domains: &[String]) -> bool {
    let of = email.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
    email.chars().count() <= NAME_MAX && (domains.is_empty() || domains.contains(&of))
}

#[cfg(test)]
mod tests {
    use super::may_come;

    #[test]
    fn new_people_come_from_the_named_domains_alone() {
        let domains = ["example.com".to_owned()];
        assert!(may_come("asha@Example.com", &domains) && may_come("a@b", &[]));
        for bad in ["asha@example.com.evil.test", "asha@sub.example.com", "asha@evil.test"] {
            assert!(!may_come(bad, &domains), "{bad}");
        }
        assert!(
            !may_come(&format!("{}@example.com", "a".repeat(60)), &domains),
            "longer than a name may be"
        );
    }
}
