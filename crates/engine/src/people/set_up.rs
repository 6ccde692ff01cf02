//! The creation of the first owner, with a link that each node prints at its start.

use std::net::IpAddr;
use std::time::Duration;

use super::{NAME_MAX, NAME_TAKEN, People, PeopleError, Token, sign_in_name};
use crate::limiter::{Attempt, Guess, Origin, Refusal};
use model::{AuthId, Role, Secret, stable_id};
use store::{Invitation, StoreError, User};
use uuid::Uuid;

/// Validity of the link.
const LINK_VALID_FOR: Duration = Duration::from_secs(24 * 3_600);
/// The name under which wrong links are counted. It is longer than any user's name.
const COUNTED_AS: &str =
    "set-up link, which is counted separately from the names of all users of the node";
const _: () = assert!(COUNTED_AS.len() > NAME_MAX);

/// Why a set-up link was refused.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// The token is wrong or has expired, or an owner exists.
    #[error("the set-up link is not valid")]
    Invalid,
    #[error("too many wrong links; try again in {0:?}")]
    Wait(Duration),
    #[error(transparent)]
    People(#[from] PeopleError),
}

impl From<StoreError> for SetUpError {
    fn from(error: StoreError) -> Self {
        Self::People(error.into())
    }
}

impl People {
    /// Returns the token of a new set-up link, or `None` if an owner exists. It replaces the earlier
    /// ones of this node. All nodes of a fleet accept it.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails.
    pub async fn begin_set_up(&self, node: &str) -> Result<Option<Token>, StoreError> {
        if self.0.store.people().any_owner().await? {
            return Ok(None);
        }
        let token = Token::fresh();
        let invitation = Invitation {
            digest: token.digest(),
            user: stable_id("set-up", &[node]),
            expires: self.0.clock.wall().plus(LINK_VALID_FOR),
        };
        self.0.store.people().invite(invitation).await?;
        Ok(Some(token))
    }

    /// Whether a set-up link is valid. None is if an owner exists.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails.
    pub async fn is_set_up_open(&self) -> Result<bool, StoreError> {
        self.0.store.people().invites_first(None, self.0.clock.wall()).await
    }

    /// Checks the token of a set-up link.
    ///
    /// # Errors
    ///
    /// Returns an error if the link is not valid, if too many wrong ones came from this address, or
    /// if the store fails.
    pub async fn check_set_up(&self, token: &str, from: IpAddr) -> Result<(), SetUpError> {
        let inner = &self.0;
        // A token can't be guessed, so the right one is never refused for the wrong ones of others.
        if let Some(token) = Token::read(token)
            && inner.store.people().invites_first(Some(&token.digest()), inner.clock.wall()).await?
        {
            return Ok(());
        }
        let guess = Guess { password: &Secret::new(token), hash: None };
        let origin = Origin::Network(from);
        let begun = inner.failures.begin_now(COUNTED_AS, origin, guess, inner.clock.now());
        Err(match begun.map(Attempt::fail) {
            Ok(None) | Err(Refusal::KnownWrong) => SetUpError::Invalid,
            Ok(Some(wait)) | Err(Refusal::Wait(wait)) => SetUpError::Wait(wait),
        })
    }

    /// Creates the first owner, of this main account, and uses up all links. Of concurrent requests
    /// only one succeeds.
    ///
    /// # Errors
    ///
    /// As [`People::check_set_up`], or if a field is invalid or a user has this name.
    pub async fn set_up(
        &self,
        (account, token): (&AuthId, &str),
        (name, password): (&str, Secret),
        from: IpAddr,
    ) -> Result<User, SetUpError> {
        self.check_set_up(token, from).await?;
        let name = sign_in_name(name)?;
        let password = self.hash(password).await?;
        let user = User {
            id: Uuid::new_v4(),
            account: account.clone(),
            main_account: account.clone(),
            full_name: name.clone(),
            name,
            role: Role::Owner,
            password: Some(password),
            wa_id: None,
            in_file: false,
            is_linked: false,
            created: self.0.clock.wall(),
        };
        if self.0.store.people().create_first_owner(user.clone()).await? {
            return Ok(user);
        }
        Err(match self.is_set_up_open().await? {
            true => NAME_TAKEN.into(),
            false => SetUpError::Invalid,
        })
    }
}
