//! Users, sessions, invitations and API keys, as the store is asked for them.

use uuid::Uuid;

use super::{Invitation, MadeKey, PeopleWrite, Session, User, UserChange, UserLink};
use crate::{Scope, Store, StoreError};
use model::Role;
use model::Timestamp;

impl Store {
    /// One of a scope's users.
    ///
    /// # Errors
    /// The store's.
    pub async fn user(&self, scope: &Scope, id: Uuid) -> Result<Option<User>, StoreError> {
        super::one(&self.read, scope, id).await
    }

    /// The user who signs in by that name, whosever they are.
    ///
    /// # Errors
    /// The store's.
    pub async fn user_named(&self, name: &str) -> Result<Option<User>, StoreError> {
        super::named(&self.read, name).await
    }

    /// The user whom a sign-in provider knows by that name.
    ///
    /// # Errors
    /// The store's.
    pub async fn user_linked(
        &self,
        issuer: &str,
        subject: &str,
    ) -> Result<Option<User>, StoreError> {
        super::linked(&self.read, issuer, subject).await
    }

    /// Those who sign in by that name, whatever the case of its letters: two at most.
    ///
    /// # Errors
    /// The store's.
    pub async fn users_named_like(&self, name: &str) -> Result<Vec<User>, StoreError> {
        super::named_like(&self.read, name).await
    }

    /// Notes who somebody is at a sign-in provider; `false`: one of the two is linked already.
    ///
    /// # Errors
    /// [`StoreError::NotTaken`].
    pub async fn link_user(&self, link: UserLink) -> Result<bool, StoreError> {
        self.log.people(PeopleWrite::Link(link)).await
    }

    /// A scope's users, newest first; `before`: the last of the page before.
    ///
    /// # Errors
    /// The store's.
    pub async fn users(
        &self,
        scope: &Scope,
        before: Option<(Timestamp, Uuid)>,
        limit: u32,
    ) -> Result<Vec<User>, StoreError> {
        super::list(&self.read, scope, before, limit).await
    }

    /// Writes a new user to the disk; `false`: the name is taken.
    ///
    /// # Errors
    /// [`StoreError::NotTaken`].
    pub async fn create_user(&self, user: User) -> Result<bool, StoreError> {
        self.log.people(PeopleWrite::Create(Box::new(user))).await
    }

    /// Changes a user; `false`: the scope has none of that id, or the configuration says otherwise.
    ///
    /// # Errors
    /// [`StoreError::NotTaken`].
    pub async fn change_user(
        &self,
        scope: &Scope,
        id: Uuid,
        change: UserChange,
    ) -> Result<bool, StoreError> {
        self.log.people(PeopleWrite::Change(scope.clone(), id, change)).await
    }

    /// Removes a user with their sessions; `false`: the scope has none of that id, or it stands in the configuration.
    ///
    /// # Errors
    /// [`StoreError::NotTaken`].
    pub async fn delete_user(&self, scope: &Scope, id: Uuid) -> Result<bool, StoreError> {
        self.log.people(PeopleWrite::Delete(scope.clone(), id)).await
    }

    /// The configuration's people as they are now.
    ///
    /// # Errors
    /// [`StoreError::NotTaken`].
    pub async fn users_of_file(&self, users: Vec<User>) -> Result<bool, StoreError> {
        self.log.people(PeopleWrite::File(users)).await
    }

    /// A session and whose it is, by its token's digest.
    ///
    /// # Errors
    /// The store's.
    pub async fn session(&self, digest: &str) -> Result<Option<(Session, User)>, StoreError> {
        super::session(&self.read, digest).await
    }

    /// Writes a new session to the disk.
    ///
    /// # Errors
    /// [`StoreError::NotTaken`].
    pub async fn begin_session(&self, session: Session) -> Result<bool, StoreError> {
        self.log.people(PeopleWrite::Begin(session)).await
    }

    /// Notes that a session is in use.
    ///
    /// # Errors
    /// [`StoreError::NotTaken`].
    pub async fn session_seen(&self, digest: String, at: Timestamp) -> Result<bool, StoreError> {
        self.log.people(PeopleWrite::Seen(digest, at)).await
    }

    /// Ends a session.
    ///
    /// # Errors
    /// [`StoreError::NotTaken`].
    pub async fn end_session(&self, digest: String) -> Result<bool, StoreError> {
        self.log.people(PeopleWrite::End(digest)).await
    }

    /// Ends all sessions of a user.
    ///
    /// # Errors
    /// [`StoreError::NotTaken`].
    pub async fn end_sessions(&self, user: Uuid) -> Result<bool, StoreError> {
        self.log.people(PeopleWrite::EndAll(user)).await
    }

    /// Writes an invitation, instead of those that the user had.
    ///
    /// # Errors
    /// [`StoreError::NotTaken`].
    pub async fn invite(&self, invitation: Invitation) -> Result<bool, StoreError> {
        self.log.people(PeopleWrite::Invite(invitation)).await
    }

    /// Who an invitation that still holds is for.
    ///
    /// # Errors
    /// The store's.
    pub async fn invited(&self, digest: &str, now: Timestamp) -> Result<Option<User>, StoreError> {
        super::invited(&self.read, digest, now).await
    }

    /// Uses an invitation up and sets the user's password, a hash; `false`: it holds no more.
    ///
    /// # Errors
    /// [`StoreError::NotTaken`].
    pub async fn accept_invitation(
        &self,
        digest: String,
        password: String,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.log.people(PeopleWrite::Accept { digest, password, now }).await
    }

    /// Forgets sessions begun before, or not seen since, and invitations that are over.
    ///
    /// # Errors
    /// [`StoreError::NotTaken`].
    pub async fn forget_sessions(
        &self,
        begun_before: Timestamp,
        seen_before: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.log.people(PeopleWrite::Forget { begun_before, seen_before, now }).await
    }

    /// A scope's API keys, newest first; `before`: the last of the page before.
    ///
    /// # Errors
    /// The store's.
    pub async fn api_keys(
        &self,
        scope: &Scope,
        before: Option<(Timestamp, Uuid)>,
        limit: u32,
    ) -> Result<Vec<MadeKey>, StoreError> {
        super::keys(&self.read, scope, before, limit).await
    }

    /// Every API key that was made here.
    ///
    /// # Errors
    /// The store's.
    pub async fn all_api_keys(&self) -> Result<Vec<MadeKey>, StoreError> {
        super::all_keys(&self.read).await
    }

    /// Writes a new API key to the disk.
    ///
    /// # Errors
    /// [`StoreError::NotTaken`].
    pub async fn create_api_key(&self, key: MadeKey) -> Result<bool, StoreError> {
        self.log.people(PeopleWrite::CreateKey(Box::new(key))).await
    }

    /// One of a scope's API keys.
    ///
    /// # Errors
    /// The store's.
    pub async fn api_key(&self, scope: &Scope, id: Uuid) -> Result<Option<MadeKey>, StoreError> {
        super::one_key(&self.read, scope, id).await
    }

    /// Changes an API key; `false`: the scope has none of that id.
    ///
    /// # Errors
    /// [`StoreError::NotTaken`].
    pub async fn change_api_key(
        &self,
        scope: &Scope,
        id: Uuid,
        name: Option<String>,
        role: Option<Role>,
    ) -> Result<bool, StoreError> {
        self.log.people(PeopleWrite::ChangeKey { scope: scope.clone(), id, name, role }).await
    }

    /// Removes an API key; `false`: the scope has none of that id.
    ///
    /// # Errors
    /// [`StoreError::NotTaken`].
    pub async fn delete_api_key(&self, scope: &Scope, id: Uuid) -> Result<bool, StoreError> {
        self.log.people(PeopleWrite::DeleteKey(scope.clone(), id)).await
    }
}
