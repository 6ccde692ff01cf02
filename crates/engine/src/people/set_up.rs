//! The creation of a node's first user, with a link that the node prints at its start.

use std::net::IpAddr;
use std::time::Duration;

use super::{NAME_MAX, People, PeopleError, Token, name_of};
use crate::limiter::{Attempt, Guess, Origin, Refusal};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use model::{AuthId, Role, Secret, Timestamp, stable_id};
use store::{StoreError, User};

/// Validity of the link.
const LINK_VALID_FOR: Duration = Duration::from_secs(24 * 3_600);
/// The name under which wrong links are counted. It is longer than any user's name.
const COUNTED_AS: &str =
    "set-up link, which is counted separately from the names of all users of the node";
const _: () = assert!(COUNTED_AS.len() > NAME_MAX);

/// A set-up link that is waiting for the first user. Only the digest of its token is kept.
#[derive(Clone, Debug)]
pub struct SetUp {
    digest: String,
    expires: Timestamp,
    /// The account of the first user.
    pub account: AuthId,
}

/// Why a set-up link was refused.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// The token is wrong or has expired, or a user exists.
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
    /// Returns a new set-up link for an owner of this main account, or `None` if a user exists.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails.
    pub async fn begin_set_up(
        &self,
        account: &AuthId,
    ) -> Result<Option<(SetUp, Token)>, StoreError> {
        if self.0.store.people().any().await? {
            return Ok(None);
        }
        let token = Token::fresh();
        let expires = self.0.clock.wall().plus(LINK_VALID_FOR);
        Ok(Some((SetUp { digest: token.digest(), expires, account: account.clone() }, token)))
    }

    /// Whether no user exists yet.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails.
    pub async fn is_set_up_open(&self) -> Result<bool, StoreError> {
        Ok(!self.0.store.people().any().await?)
    }

    /// Checks the token of a set-up link.
    ///
    /// # Errors
    ///
    /// Returns an error if the link is not valid, if too many wrong ones came from this address, or
    /// if the store fails.
    pub async fn check_set_up(
        &self,
        set_up: &SetUp,
        token: &str,
        from: IpAddr,
    ) -> Result<(), SetUpError> {
        let inner = &self.0;
        let is_same = |token: Token| {
            verify_slices_are_equal(token.digest().as_bytes(), set_up.digest.as_bytes()).is_ok()
        };
        // A token can't be guessed, so the right one is never refused for the wrong ones of others.
        if !Token::read(token).is_some_and(is_same) {
            let guess = Guess { password: &Secret::new(token), hash: None };
            let origin = Origin::Network(from);
            let begun = inner.failures.begin_now(COUNTED_AS, origin, guess, inner.clock.now());
            return Err(match begun.map(Attempt::fail) {
                Ok(None) | Err(Refusal::KnownWrong) => SetUpError::Invalid,
                Ok(Some(wait)) | Err(Refusal::Wait(wait)) => SetUpError::Wait(wait),
            });
        }
        match inner.clock.wall() < set_up.expires && self.is_set_up_open().await? {
            true => Ok(()),
            false => Err(SetUpError::Invalid),
        }
    }

    /// Creates the first user, an owner, and uses up the link. Of concurrent requests only one
    /// succeeds.
    ///
    /// # Errors
    ///
    /// As [`People::check_set_up`], or if a field is invalid.
    pub async fn set_up(
        &self,
        (set_up, token): (&SetUp, &str),
        (name, password): (&str, Secret),
        from: IpAddr,
    ) -> Result<User, SetUpError> {
        self.check_set_up(set_up, token, from).await?;
        let name = name_of("name", name)?;
        let password = self.hash(password).await?;
        let user = User {
            id: stable_id("user", &["first"]),
            account: set_up.account.clone(),
            main_account: set_up.account.clone(),
            full_name: name.clone(),
            name,
            role: Role::Owner,
            password: Some(password),
            wa_id: None,
            in_file: false,
            created: self.0.clock.wall(),
        };
        match self.0.store.people().create_first(user.clone()).await? {
            true => Ok(user),
            false => Err(SetUpError::Invalid),
        }
    }
}
