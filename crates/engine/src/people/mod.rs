//! Who may sign in and with what: the console's people, their sessions and invitations, who a provider of OpenID Connect
//! vouches for (`arrival`), and API keys made while the node runs (R15, R20).
//!
//! `api` and `console` ask it who somebody is; what they may do is theirs to say. Secrets are random and told once: the
//! store has digests, and passwords as Argon2id. Sessions are looked up each time, so that one that was ended is over at
//! once; keys are in memory, since a program asks often.

mod arrival;
pub mod cookie;
mod failures;
mod settings;
mod token;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use uuid::Uuid;

pub use arrival::{Newcomers, NotWelcome, Rules};
pub use failures::Failures;
pub use settings::UserSettings;
pub use token::Token;

use crate::feed::{Feed, What};
use model::Clock;
use model::{AuthId, Timestamp};
use model::{Role, Secret};
use store::{
    ApiKeyRow, Invitation, PasswordError, Passwords, Scope, Session, Store, StoreError, User,
    UserChange,
};

/// R20: a session that is not used, and any.
const IDLE: Duration = Duration::from_secs(12 * 3600);
const AT_MOST: Duration = Duration::from_secs(7 * 86_400);
/// That a session is in use is written down so often.
const SEEN_EVERY: Duration = Duration::from_secs(300);
/// An invitation is good for so long.
pub const INVITED_FOR: Duration = Duration::from_secs(7 * 86_400);
/// Characters of a password, and of the names of people and keys.
pub const PASSWORD_MIN: usize = 10;
pub const PASSWORD_MAX: usize = 256;
pub const NAME_MAX: usize = 64;
/// People and keys of one account.
const MOST: u32 = 1_000;

/// Somebody who is signed in.
#[derive(Clone, Debug)]
pub struct Person {
    pub user: User,
    /// What a form that changes something has to bring along.
    pub csrf: String,
}

impl Person {
    /// Whose data they see.
    pub fn scope(&self) -> Scope {
        Scope::of(self.user.account.clone())
    }
}

/// Who a key of the number API is.
#[derive(Clone, Debug)]
pub struct KeyHolder {
    pub id: Uuid,
    pub account: AuthId,
    pub role: Role,
    pub wa_id: Option<String>,
}

/// Why somebody was not let in.
#[derive(Debug, thiserror::Error)]
pub enum NotIn {
    #[error("know who this is")]
    Unknown,
    #[error("let them try again before {0:?}")]
    Wait(Duration),
    #[error("check so many passwords at once")]
    Busy,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why something about people did not change.
#[derive(Debug, thiserror::Error)]
pub enum NotDone {
    #[error("find them")]
    Missing,
    #[error("find them as they were seen")]
    Changed,
    /// A field, and what is wrong with it.
    #[error("take {0}: {1}")]
    Bad(&'static str, String),
    /// A word, and a sentence.
    #[error("{1}")]
    Conflict(&'static str, &'static str),
    #[error("check so many passwords at once")]
    Busy,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A new user as somebody wants it.
#[derive(Clone, Debug)]
pub struct NewUser {
    pub account: AuthId,
    pub main_account: AuthId,
    pub name: String,
    pub full_name: String,
    pub role: Role,
    pub wa_id: Option<String>,
    /// None: they are invited, and set one themselves.
    pub password: Option<Secret>,
}

/// What is to change of a user; `None` stays as it is.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub full_name: Option<String>,
    pub role: Option<Role>,
    pub password: Option<Secret>,
    pub wa_id: Option<Option<String>>,
    /// Only if they are still as this shows them.
    pub seen: Option<Box<User>>,
}

/// All of it; cheap to clone.
#[derive(Clone)]
pub struct People(Arc<Inner>);

struct Inner {
    store: Store,
    passwords: Passwords,
    clock: Clock,
    feed: Feed,
    failures: Failures,
    /// By digest.
    keys: ArcSwap<HashMap<String, KeyHolder>>,
    /// Told when somebody signs out: whoever is here by a session looks whether it still holds.
    signed_out: tokio::sync::watch::Sender<()>,
    /// Keys are written, read and put in force by one at a time: who read before a key was revoked puts nothing in force after.
    keys_turn: tokio::sync::Mutex<()>,
}

impl People {
    /// Nobody's keys are in force until [`People::load`].
    pub fn new(store: Store, passwords: Passwords, clock: Clock, feed: Feed) -> Self {
        let (failures, keys, keys_turn) = Default::default();
        let signed_out = tokio::sync::watch::Sender::new(());
        Self(Arc::new(Inner {
            store,
            passwords,
            clock,
            feed,
            failures,
            keys,
            signed_out,
            keys_turn,
        }))
    }

    /// Puts the keys that were made in force.
    ///
    /// # Errors
    /// The store's.
    pub async fn load(&self) -> Result<(), StoreError> {
        let _turn = self.0.keys_turn.lock().await;
        self.read_keys().await
    }

    async fn read_keys(&self) -> Result<(), StoreError> {
        let keys = self.0.store.api_keys().all().await?.into_iter().map(|key| {
            let holder =
                KeyHolder { id: key.id, account: key.account, role: key.role, wa_id: key.wa_id };
            (key.digest, holder)
        });
        self.0.keys.store(Arc::new(keys.collect()));
        Ok(())
    }

    /// Writes something about keys and puts it in force: both, also where nobody waits for it any more.
    async fn with_keys<T, F>(
        &self,
        write: impl FnOnce(Store) -> F + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let this = self.clone();
        let done = tokio::spawn(async move {
            let _turn = this.0.keys_turn.lock().await;
            let written = write(this.0.store.clone()).await?;
            this.read_keys().await?;
            Ok(written)
        });
        done.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Puts the configuration's people into the store; the configuration wins. `main_of`: an account's main account.
    ///
    /// # Errors
    /// The store's, or there is no way to hash a password now.
    pub async fn take_file(
        &self,
        users: &[UserSettings],
        main_of: impl Fn(&AuthId) -> AuthId,
    ) -> Result<(), NotDone> {
        let mut rows = Vec::new();
        for user in users {
            let known =
                self.0.store.people().by_name(&user.name).await?.and_then(|known| known.password);
            // A hash is made anew only for another password: it costs, and its sessions end with it.
            let same = match &known {
                Some(hash) => self
                    .0
                    .passwords
                    .verify(user.password.clone(), Some(hash))
                    .await
                    .map_err(busy)?,
                None => false,
            };
            let password = match known.filter(|_| same) {
                Some(hash) => hash,
                None => self.0.passwords.hash(user.password.clone()).await.map_err(busy)?,
            };
            rows.push(User {
                id: Uuid::new_v4(),
                account: user.account.clone(),
                main_account: main_of(&user.account),
                name: user.name.clone(),
                full_name: user.name.clone(),
                role: user.role,
                password: Some(password),
                wa_id: None,
                in_file: true,
                created: self.0.clock.wall(),
            });
        }
        self.0.store.people().sync_configured(rows).await?;
        Ok(())
    }

    /// Begins a session. A name that nobody has takes as long as a wrong password, and is one answer with it.
    ///
    /// # Errors
    /// Why not.
    pub async fn sign_in(
        &self,
        name: &str,
        password: Secret,
        from: IpAddr,
    ) -> Result<Token, NotIn> {
        let inner = &self.0;
        let name = name.trim();
        let known_as: String = name.chars().take(NAME_MAX).collect();
        let now = inner.clock.now();
        let begun = inner.failures.begin(&known_as, from, now).map_err(NotIn::Wait)?;
        let found = match inner.store.people().by_name(name).await {
            Ok(found) => found,
            Err(error) => {
                begun.untried();
                return Err(error.into());
            }
        };
        let hash = found.as_ref().and_then(|user| user.password.as_deref());
        match inner.passwords.verify_from(from, password, hash).await {
            Ok(true) => begun.right(),
            Ok(false) | Err(PasswordError::Hash) => {
                tracing::info!("somebody came to the console with a wrong name or password");
                return Err(NotIn::Unknown);
            }
            Err(PasswordError::Busy) => {
                begun.untried();
                return Err(NotIn::Busy);
            }
        }
        let user = found.ok_or(NotIn::Unknown)?;
        let (token, at) = (Token::fresh(), inner.clock.wall());
        let session = Session { digest: token.digest(), user: user.id, begun: at, seen: at };
        inner.store.sessions().begin(session).await?;
        Ok(token)
    }

    /// Who a session is of, if it is still one.
    ///
    /// # Errors
    /// The store's.
    pub async fn who(&self, token: &Token) -> Result<Option<Person>, StoreError> {
        let inner = &self.0;
        let digest = token.digest();
        let Some((session, user)) = inner.store.sessions().get(&digest).await? else {
            return Ok(None);
        };
        let now = inner.clock.wall();
        if now.since(session.begun) >= AT_MOST || now.since(session.seen) >= IDLE {
            let _ = inner.store.sessions().end(digest).await;
            return Ok(None);
        }
        if now.since(session.seen) >= SEEN_EVERY {
            // Nobody waits for it: one that is lost is noted with the next request.
            let store = inner.store.clone();
            tokio::spawn(async move { store.sessions().touch(digest, now).await });
        }
        Ok(Some(Person { user, csrf: token.csrf() }))
    }

    /// Ends a session.
    ///
    /// # Errors
    /// The store's.
    pub async fn sign_out(&self, token: &Token) -> Result<(), StoreError> {
        self.0.store.sessions().end(token.digest()).await?;
        self.0.signed_out.send_replace(());
        Ok(())
    }

    /// Changes whenever somebody has signed out.
    pub fn signed_out(&self) -> tokio::sync::watch::Receiver<()> {
        self.0.signed_out.subscribe()
    }

    /// Ends all sessions of a user.
    ///
    /// # Errors
    /// The store's.
    pub async fn sign_out_everywhere(&self, user: Uuid) -> Result<(), StoreError> {
        self.0.store.sessions().end_all(user).await?;
        self.0.signed_out.send_replace(());
        Ok(())
    }

    /// Forgets sessions and invitations that are over. Now and then.
    pub async fn tidy(&self) {
        let now = self.0.clock.wall();
        if let Err(error) =
            self.0.store.sessions().delete_expired(now.minus(AT_MOST), now.minus(IDLE), now).await
        {
            tracing::warn!(%error, "sessions that are over could not be forgotten");
        }
    }

    /// A scope's users, newest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn users(
        &self,
        scope: &Scope,
        before: Option<(Timestamp, Uuid)>,
        limit: u32,
    ) -> Result<Vec<User>, StoreError> {
        self.0.store.people().list(scope, before, limit).await
    }

    /// One of them.
    ///
    /// # Errors
    /// The store's.
    pub async fn user(&self, scope: &Scope, id: Uuid) -> Result<Option<User>, StoreError> {
        self.0.store.people().get(scope, id).await
    }

    /// Makes a user; without a password with an invitation.
    ///
    /// # Errors
    /// A field, a name that is taken, or the store.
    pub async fn make_user(&self, new: NewUser) -> Result<(User, Option<Token>), NotDone> {
        let inner = &self.0;
        let name = name_of("name", &new.name)?;
        let full_name = if new.full_name.trim().is_empty() {
            name.clone()
        } else {
            name_of("fullName", &new.full_name)?
        };
        let scope = Scope::of(new.main_account.clone());
        if inner.store.people().list(&scope, None, MOST).await?.len()
            >= usize::try_from(MOST).unwrap_or(usize::MAX)
        {
            return Err(NotDone::Conflict("too_many", "an account has 1,000 users at most"));
        }
        // Two that differ in case alone are taken for each other. Those that are there stay.
        if !inner.store.people().by_name_ignoring_case(&name).await?.is_empty() {
            return Err(NotDone::Conflict("name_taken", "somebody signs in by this name already"));
        }
        let password = match new.password {
            Some(password) => Some(self.hash(password).await?),
            None => None,
        };
        let invited = password.is_none();
        let user = User {
            id: Uuid::new_v4(),
            account: new.account,
            main_account: new.main_account,
            name,
            full_name,
            role: new.role,
            password,
            wa_id: wa_id(new.wa_id)?,
            in_file: false,
            created: inner.clock.wall(),
        };
        if !inner.store.people().create(user.clone()).await? {
            return Err(NotDone::Conflict("name_taken", "somebody signs in by this name already"));
        }
        self.tell(&user);
        let token = if invited { Some(self.new_invitation(&user).await?) } else { None };
        Ok((user, token))
    }

    /// Another invitation, instead of the one there was: also for who has forgotten their password.
    ///
    /// # Errors
    /// No such user, one of the configuration's, or the store.
    pub async fn invite(&self, scope: &Scope, id: Uuid) -> Result<(User, Token), NotDone> {
        let user = self.0.store.people().get(scope, id).await?.ok_or(NotDone::Missing)?;
        if user.in_file {
            return Err(IN_FILE);
        }
        let token = self.new_invitation(&user).await?;
        Ok((user, token))
    }

    async fn new_invitation(&self, user: &User) -> Result<Token, StoreError> {
        let token = Token::fresh();
        let expires = self.0.clock.wall().plus(INVITED_FOR);
        self.0
            .store
            .people()
            .invite(Invitation { digest: token.digest(), user: user.id, expires })
            .await?;
        Ok(token)
    }

    /// Who an invitation is for, if it still holds.
    ///
    /// # Errors
    /// The store's.
    pub async fn invited(&self, token: &Token) -> Result<Option<User>, StoreError> {
        self.0.store.people().by_invitation(&token.digest(), self.0.clock.wall()).await
    }

    /// Sets the password of who was invited; the invitation is used up.
    ///
    /// # Errors
    /// It holds no more, the password is none, or the store.
    pub async fn accept(&self, token: &Token, password: Secret) -> Result<(), NotDone> {
        let hash = self.hash(password).await?;
        match self
            .0
            .store
            .people()
            .accept_invitation(token.digest(), hash, self.0.clock.wall())
            .await?
        {
            true => Ok(()),
            false => Err(NotDone::Missing),
        }
    }

    /// Changes a user. `by`: who does it; nobody takes a role from themselves, so that an owner remains.
    ///
    /// # Errors
    /// No such user, a field, one of the configuration's, or the store.
    pub async fn change(
        &self,
        scope: &Scope,
        id: Uuid,
        by: Option<Uuid>,
        change: Change,
    ) -> Result<User, NotDone> {
        let inner = &self.0;
        let user = inner.store.people().get(scope, id).await?.ok_or(NotDone::Missing)?;
        let role = change.role.filter(|role| *role != user.role);
        if user.in_file && (role.is_some() || change.password.is_some()) {
            return Err(IN_FILE);
        }
        if role.is_some() && by == Some(id) {
            return Err(NotDone::Conflict(
                "own_role",
                "nobody changes their own role: ask another owner",
            ));
        }
        let password = match change.password {
            Some(password) => Some(self.hash(password).await?),
            None => None,
        };
        let full_name = change.full_name.map(|name| name_of("fullName", &name)).transpose()?;
        let wa_id = change.wa_id.map(wa_id).transpose()?;
        let seen = change.seen.is_some();
        let change = UserChange { full_name, role, password, wa_id, seen: change.seen };
        if !inner.store.people().change(scope, id, change).await? {
            let there = seen && inner.store.people().get(scope, id).await?.is_some();
            return Err(if there { NotDone::Changed } else { NotDone::Missing });
        }
        self.tell(&user);
        inner.store.people().get(scope, id).await?.ok_or(NotDone::Missing)
    }

    /// Removes a user, and ends their sessions. Nobody removes themselves.
    ///
    /// # Errors
    /// No such user, oneself, one of the configuration's, or the store.
    pub async fn remove(&self, scope: &Scope, id: Uuid, by: Option<Uuid>) -> Result<(), NotDone> {
        let user = self.0.store.people().get(scope, id).await?.ok_or(NotDone::Missing)?;
        if user.in_file {
            return Err(IN_FILE);
        }
        if by == Some(id) {
            return Err(NotDone::Conflict(
                "oneself",
                "nobody removes themselves: ask another owner",
            ));
        }
        if !self.0.store.people().delete(scope, id).await? {
            return Err(NotDone::Missing);
        }
        self.tell(&user);
        Ok(())
    }

    /// Who an `X-API-Key` is of, if it was made here.
    pub fn key(&self, key: &str) -> Option<KeyHolder> {
        Token::read(key).and_then(|key| self.0.keys.load().get(&key.digest()).cloned())
    }

    /// A scope's keys, newest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn keys(
        &self,
        scope: &Scope,
        before: Option<(Timestamp, Uuid)>,
        limit: u32,
    ) -> Result<Vec<ApiKeyRow>, StoreError> {
        self.0.store.api_keys().list(scope, before, limit).await
    }

    /// Makes a key; its secret is told this once.
    ///
    /// # Errors
    /// A field, or the store.
    pub async fn make_key(
        &self,
        (account, main_account): (AuthId, AuthId),
        name: &str,
        role: Role,
        wa: Option<String>,
    ) -> Result<(ApiKeyRow, Token), NotDone> {
        let inner = &self.0;
        let name = name_of("name", name)?;
        let scope = Scope::of(main_account.clone());
        if inner.store.api_keys().list(&scope, None, MOST).await?.len()
            >= usize::try_from(MOST).unwrap_or(usize::MAX)
        {
            return Err(NotDone::Conflict("too_many", "an account has 1,000 API keys at most"));
        }
        let token = Token::fresh();
        let key = ApiKeyRow {
            id: Uuid::new_v4(),
            account,
            main_account,
            name,
            ending: token.ending(),
            digest: token.digest(),
            role,
            wa_id: wa_id(wa)?,
            created: inner.clock.wall(),
        };
        let row = key.clone();
        self.with_keys(async move |store| store.api_keys().create(row).await).await?;
        self.0.feed.tell(&key.main_account, What::People);
        Ok((key, token))
    }

    /// Renames a key, or gives it another role.
    ///
    /// # Errors
    /// No such key, a field, or the store.
    pub async fn change_key(
        &self,
        scope: &Scope,
        main: &AuthId,
        id: Uuid,
        name: Option<&str>,
        role: Option<Role>,
    ) -> Result<ApiKeyRow, NotDone> {
        let name = name.map(|name| name_of("name", name)).transpose()?;
        let of = scope.clone();
        if !self
            .with_keys(async move |store| store.api_keys().change(&of, id, name, role).await)
            .await?
        {
            return Err(NotDone::Missing);
        }
        self.0.feed.tell(main, What::People);
        self.0.store.api_keys().get(scope, id).await?.ok_or(NotDone::Missing)
    }

    /// Removes a key: from now on it opens nothing.
    ///
    /// # Errors
    /// No such key, or the store.
    pub async fn remove_key(&self, scope: &Scope, main: &AuthId, id: Uuid) -> Result<(), NotDone> {
        let (of, this) = (scope.clone(), self.clone());
        let removed = self.with_keys(async move |store| {
            let removed = store.api_keys().delete(&of, id).await?;
            if removed {
                // Also where the others can't be read now.
                let mut keys = HashMap::clone(&this.0.keys.load());
                keys.retain(|_, holder| holder.id != id);
                this.0.keys.store(Arc::new(keys));
            }
            Ok(removed)
        });
        if !removed.await? {
            return Err(NotDone::Missing);
        }
        self.0.feed.tell(main, What::People);
        Ok(())
    }

    fn tell(&self, user: &User) {
        self.0.feed.tell(&user.main_account, What::People);
    }

    async fn hash(&self, password: Secret) -> Result<String, NotDone> {
        let length = password.reveal().chars().count();
        if !(PASSWORD_MIN..=PASSWORD_MAX).contains(&length) {
            let why = format!("a password has {PASSWORD_MIN} to {PASSWORD_MAX} characters");
            return Err(NotDone::Bad("password", why));
        }
        self.0.passwords.hash(password).await.map_err(busy)
    }
}

const IN_FILE: NotDone =
    NotDone::Conflict("in_configuration", "they stand in the configuration file: change it there");

fn busy(_: PasswordError) -> NotDone {
    NotDone::Busy
}

/// A name of a person or key: text on one line.
fn name_of(field: &'static str, text: &str) -> Result<String, NotDone> {
    let text = text.trim();
    let fits =
        (1..=NAME_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    match fits {
        true => Ok(text.to_owned()),
        false => Err(NotDone::Bad(
            field,
            format!("{field} must have 1 to {NAME_MAX} characters, on one line"),
        )),
    }
}

/// A WhatsApp number: digits; an empty one is none.
fn wa_id(text: Option<String>) -> Result<Option<String>, NotDone> {
    let Some(text) = text
        .map(|text| text.trim().trim_start_matches('+').to_owned())
        .filter(|text| !text.is_empty())
    else {
        return Ok(None);
    };
    match (5..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()) {
        true => Ok(Some(text)),
        false => {
            Err(NotDone::Bad("waId", "waId must be a WhatsApp number: 5 to 20 digits".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests;
