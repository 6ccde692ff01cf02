//! Authentication: the console's users, their sessions and invitations, users of an OpenID Connect
//! provider (`arrival`), and API keys created at run time.
//!
//! `api` and `console` use this module to identify the sender of a request, and check permissions
//! themselves. Secrets are random and shown once; the store has digests of them, and Argon2id
//! hashes of passwords. Sessions are looked up for each request, so that an ended session is over
//! immediately. Keys are kept in memory, since programs make many requests.

mod arrival;
mod browser;
pub mod cookie;
mod set_up;
mod settings;
mod token;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use uuid::Uuid;

pub use arrival::{ProviderSignIn, Rules, SignInRefusal};
pub use set_up::SetUpError;
pub use settings::UserSettings;
pub use token::Token;

use crate::feed::{Audience, Feed, FeedChange};
use crate::limiter::{Attempt, Failures, Guess, Origin, Refusal};
use browser::Browsers;
use model::{AuthId, Clock, Role, Secret, Timestamp, is_line, is_visible};
use store::{
    ApiKeyRow, Invitation, PasswordError, Passwords, SAME_NAME_MAX, Scope, Session, Store,
    StoreError, User, UserChange,
};

/// Maximum idle time of a session.
const IDLE: Duration = Duration::from_secs(12 * 3600);
/// Maximum lifetime of a session.
const AT_MOST: Duration = Duration::from_secs(7 * 86_400);
/// Time for which expired sessions are kept, so that they differ from those that were ended: a call at
/// the phone goes on.
const EXPIRED_KEPT: Duration = Duration::from_secs(86_400);
/// Minimum interval between writes of the last use of a session.
const SEEN_EVERY: Duration = Duration::from_secs(300);
/// Validity of an invitation.
pub const INVITED_FOR: Duration = Duration::from_secs(7 * 86_400);
/// Minimum length of a password, in characters.
pub const PASSWORD_MIN: usize = 10;
/// Maximum length of a password, in characters.
pub const PASSWORD_MAX: usize = 256;
/// Maximum length of a name, in characters.
pub const NAME_MAX: usize = 64;
/// Maximum number of users, and of API keys, per account.
const MOST: u32 = 1_000;

/// A signed-in user.
#[derive(Clone, Debug)]
pub struct Person {
    pub user: User,
    /// The token that forms must contain to make changes.
    pub csrf: String,
}

impl Person {
    /// The scope of the data that the user may see.
    pub fn scope(&self) -> Scope {
        Scope::of(self.user.account.clone())
    }
}

/// The identity of an API key.
#[derive(Clone, Debug)]
pub struct KeyHolder {
    pub id: Uuid,
    pub account: AuthId,
    pub role: Role,
    pub wa_id: Option<String>,
}

/// What a person enters to sign in.
#[derive(Clone, Debug)]
pub struct Credentials<'a> {
    /// The person's main account or subaccount. `None` searches all accounts.
    pub account: Option<&'a AuthId>,
    pub name: &'a str,
    pub password: Secret,
    /// Whether there are several main accounts, whose users may have the same name.
    pub several_accounts: bool,
}

/// A user who may be the one that signs in, or the place of one who does not exist.
struct Candidate {
    /// The name under which failures are counted.
    counted_as: String,
    origin: Origin,
    hash: Option<String>,
    user: Option<Uuid>,
}

impl Candidate {
    fn guess<'a>(&'a self, password: &'a Secret) -> Guess<'a> {
        Guess { password, hash: self.hash.as_deref() }
    }
}

/// The outcome of a password for one candidate.
enum Comparison {
    Right(Uuid),
    Wrong,
    /// There were too many wrong passwords. Contains the time to wait.
    OneTooMany(Duration),
}

/// The outcome of a password for all candidates of a sign-in.
#[derive(Default)]
struct Compared {
    user: Option<Uuid>,
    /// Whether the password is wrong for a candidate without too many failures.
    is_wrong: bool,
    /// The shortest wait of the others.
    wait: Option<Duration>,
}

impl Compared {
    fn add(&mut self, comparison: Comparison) {
        match comparison {
            Comparison::Right(user) => self.user = self.user.or(Some(user)),
            Comparison::Wrong => self.is_wrong = true,
            Comparison::OneTooMany(wait) => {
                self.wait = Some(self.wait.map_or(wait, |shortest| shortest.min(wait)));
            }
        }
    }
}

/// The state of a console session.
#[derive(Debug)]
pub enum SessionState {
    SignedIn(Person),
    /// It is too old, or was not used for too long.
    Expired(Person),
    /// It was ended, by signing out for example, or never existed.
    Ended,
}

/// A session that a sign-in started.
#[derive(Debug)]
pub struct SignedIn {
    pub token: Token,
    pub user: Uuid,
}

/// Why a sign-in failed.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    #[error("the name or the password is wrong")]
    Unknown,
    #[error("too many failed attempts; try again in {0:?}")]
    Wait(Duration),
    #[error("could not check a password: too many checks are in progress")]
    Busy,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a change of users or keys failed.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    #[error("there is no such user or key")]
    Missing,
    #[error("could not make the change: the user was changed concurrently")]
    Changed,
    /// The field and its fault.
    #[error("{0} is not acceptable: {1}")]
    Bad(&'static str, String),
    /// The error code and the message.
    #[error("{1}")]
    Conflict(&'static str, &'static str),
    #[error("could not check a password: too many checks are in progress")]
    Busy,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A user to create.
#[derive(Clone, Debug)]
pub struct NewUser {
    pub account: AuthId,
    pub main_account: AuthId,
    pub name: String,
    pub full_name: String,
    pub role: Role,
    pub wa_id: Option<String>,
    /// The password. `None` to invite the user, who then sets one.
    pub password: Option<Secret>,
}

/// A change of a user. `None` keeps a field.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub full_name: Option<String>,
    pub role: Option<Role>,
    pub password: Option<Secret>,
    pub wa_id: Option<Option<String>>,
    /// If set, the change is made only if the user still equals this.
    pub seen: Option<Box<User>>,
}

/// A handle to users, sessions and keys; cheap to clone.
#[derive(Clone)]
pub struct People(Arc<Inner>);

struct Inner {
    store: Store,
    passwords: Passwords,
    clock: Clock,
    feed: Feed,
    failures: Failures,
    browsers: Browsers,
    /// The API keys by digest.
    keys: ArcSwap<HashMap<String, KeyHolder>>,
    /// Notified on each sign-out, so that open connections check their sessions again.
    signed_out: tokio::sync::watch::Sender<()>,
    /// Serializes changes of keys, so that a task that read the keys before a revocation can't
    /// apply them after it.
    keys_turn: tokio::sync::Mutex<()>,
}

impl People {
    /// Creates the handle. No API keys are accepted before [`People::load`].
    pub fn new(
        store: Store,
        passwords: Passwords,
        clock: Clock,
        feed: Feed,
        failures: Failures,
    ) -> Self {
        let (keys, keys_turn) = Default::default();
        let signed_out = tokio::sync::watch::Sender::new(());
        Self(Arc::new(Inner {
            store,
            passwords,
            clock,
            feed,
            failures,
            browsers: Browsers::new(),
            keys,
            signed_out,
            keys_turn,
        }))
    }

    /// Loads the API keys from the store.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails.
    pub async fn load(&self) -> Result<(), StoreError> {
        let _turn = self.0.keys_turn.lock().await;
        self.read_keys().await
    }

    /// Applies changes of other nodes: API keys, and ended sessions.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        self.0.signed_out.send_replace(());
        self.load().await
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

    /// Writes a change of keys and applies it. Both are completed even if the returned future is
    /// dropped.
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

    /// Stores the users of the configuration, which take precedence over stored ones. `main_of`
    /// returns an account's main account.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails or no password can be hashed now.
    pub async fn sync_configured(
        &self,
        users: &[UserSettings],
        main_of: impl Fn(&AuthId) -> AuthId,
    ) -> Result<(), PeopleError> {
        let mut rows = Vec::new();
        for user in users {
            let main_account = main_of(&user.account);
            let mut known = self.0.store.people().by_name(Some(&main_account), &user.name).await?;
            let known = known.pop().and_then(|known| known.password);
            // Hash only a changed password: hashing is expensive, and a new hash ends the user's
            // sessions.
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
                main_account,
                name: user.name.clone(),
                full_name: user.name.clone(),
                role: user.role,
                password: Some(password),
                wa_id: None,
                in_file: true,
                is_linked: false,
                created: self.0.clock.wall(),
            });
        }
        self.0.store.people().sync_configured(rows).await?;
        Ok(())
    }

    /// The value of [`cookie::BROWSER`] after a sign-in with a password. `None` if the browser has
    /// a valid one.
    pub fn browser(&self, user: Uuid, current: Option<&str>) -> Option<String> {
        let browsers = &self.0.browsers;
        if current.is_some_and(|value| browsers.verify(user, value).is_some()) {
            return None;
        }
        browsers.issue(user)
    }

    /// Checks name and password and starts a session. An unknown name takes as long as a wrong
    /// password and has the same error. Without an account, the password decides between users of
    /// several accounts who have the same name. `browser` is the value of [`cookie::BROWSER`].
    ///
    /// Wrong passwords are counted for each user that they were compared with, so that failures of
    /// one user do not affect users of other accounts with the same name.
    ///
    /// # Errors
    ///
    /// Returns the reason why the sign-in failed.
    pub async fn sign_in(
        &self,
        credentials: Credentials<'_>,
        from: IpAddr,
        browser: Option<&str>,
    ) -> Result<SignedIn, SignInError> {
        let inner = &self.0;
        let (name, password) = (credentials.name.trim(), &credentials.password);
        let found = inner.store.people().by_name(credentials.account, name).await?;
        let mut candidates: Vec<Candidate> = found
            .into_iter()
            .map(|user| {
                let known = browser.and_then(|value| inner.browsers.verify(user.id, value));
                Candidate {
                    counted_as: user.id.to_string(),
                    origin: known.map_or(Origin::Network(from), |id| Origin::Browser(id, from)),
                    hash: user.password,
                    user: Some(user.id),
                }
            })
            .collect();
        // Passwords are compared for users who do not exist, too, so that neither the time nor the
        // limits show how many accounts have a user of this name.
        let compared = match credentials.account {
            None if credentials.several_accounts => usize::from(SAME_NAME_MAX),
            _ => 1,
        };
        for nth in candidates.len()..compared {
            let name: String = name.chars().take(NAME_MAX).collect();
            candidates.push(Candidate {
                counted_as: format!("{name}/{nth}"),
                origin: Origin::Network(from),
                hash: None,
                user: None,
            });
        }
        let (mut compared, mut late) = (Compared::default(), Vec::new());
        for (nth, candidate) in candidates.iter().enumerate() {
            let Candidate { counted_as, origin, .. } = candidate;
            let (guess, now) = (candidate.guess(password), inner.clock.now());
            match inner.failures.begin_now(counted_as, *origin, guess, now) {
                Err(Refusal::Wait(_)) => late.push((nth, candidate)),
                begun => compared.add(self.compare(candidate, begun, nth, password).await?),
            }
        }
        if compared.user.is_none() {
            let late = late.into_iter().map(async |(nth, candidate)| {
                let Candidate { counted_as, origin, .. } = candidate;
                let guess = candidate.guess(password);
                let begun = inner.failures.begin(counted_as, *origin, guess, &inner.clock).await;
                self.compare(candidate, begun, nth, password).await
            });
            for comparison in join_all(late).await {
                compared.add(comparison?);
            }
        }
        match compared {
            Compared { user: Some(user), .. } => {
                let (token, at) = (Token::fresh(), inner.clock.wall());
                let session = Session { digest: token.digest(), user, begun: at, seen: at };
                let verified = candidates.into_iter().find(|one| one.user == Some(user));
                let password = verified.and_then(|candidate| candidate.hash);
                if !inner.store.sessions().begin(session, password).await? {
                    tracing::info!("console sign-in failed: the password was changed meanwhile");
                    return Err(SignInError::Unknown);
                }
                Ok(SignedIn { token, user })
            }
            Compared { is_wrong: false, wait: Some(wait), .. } => Err(SignInError::Wait(wait)),
            Compared { .. } => {
                tracing::info!("console sign-in failed");
                Err(SignInError::Unknown)
            }
        }
    }

    /// Compares a password with the candidate's, the `nth` of a sign-in.
    async fn compare(
        &self,
        candidate: &Candidate,
        begun: Result<Attempt<'_>, Refusal>,
        nth: usize,
        password: &Secret,
    ) -> Result<Comparison, SignInError> {
        let attempt = match begun {
            Ok(attempt) => attempt,
            Err(Refusal::KnownWrong) => return Ok(Comparison::Wrong),
            Err(Refusal::Wait(wait)) => return Ok(Comparison::OneTooMany(wait)),
        };
        let (passwords, hash) = (&self.0.passwords, candidate.hash.as_deref());
        let compared = match candidate.origin {
            Origin::Network(from) => passwords.verify_from(from, password.clone(), hash).await,
            Origin::Browser(..) => passwords.verify_known(password.clone(), hash).await,
        };
        match compared {
            Ok(true) => {
                attempt.succeed();
                Ok(candidate.user.map_or(Comparison::Wrong, Comparison::Right))
            }
            Ok(false) | Err(PasswordError::Hash) => {
                let wait = if nth == 0 { attempt.fail() } else { attempt.fail_beside_others() };
                Ok(wait.map_or(Comparison::Wrong, Comparison::OneTooMany))
            }
            Err(PasswordError::Busy) => {
                attempt.cancel();
                Err(SignInError::Busy)
            }
        }
    }

    /// The signed-in user of a session, or `None` if it has ended or expired.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails.
    pub async fn who(&self, token: &Token) -> Result<Option<Person>, StoreError> {
        Ok(match self.session(token).await? {
            SessionState::SignedIn(person) => Some(person),
            SessionState::Expired(_) | SessionState::Ended => None,
        })
    }

    /// The state of a session.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails.
    pub async fn session(&self, token: &Token) -> Result<SessionState, StoreError> {
        let inner = &self.0;
        let digest = token.digest();
        let Some((session, user)) = inner.store.sessions().get(&digest).await? else {
            return Ok(SessionState::Ended);
        };
        let person = Person { user, csrf: token.csrf() };
        let now = inner.clock.wall();
        if now.since(session.begun) >= AT_MOST || now.since(session.seen) >= IDLE {
            return Ok(SessionState::Expired(person));
        }
        if now.since(session.seen) >= SEEN_EVERY {
            // In the background. If it is lost, the next request stores it.
            let store = inner.store.clone();
            tokio::spawn(async move { store.sessions().touch(digest, now).await });
        }
        Ok(SessionState::SignedIn(person))
    }

    /// Ends a session.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails.
    pub async fn sign_out(&self, token: &Token) -> Result<(), StoreError> {
        self.0.store.sessions().end(token.digest()).await?;
        self.0.signed_out.send_replace(());
        Ok(())
    }

    /// A receiver that is notified on each sign-out.
    pub fn signed_out(&self) -> tokio::sync::watch::Receiver<()> {
        self.0.signed_out.subscribe()
    }

    /// Ends all sessions of a user.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails.
    pub async fn sign_out_everywhere(&self, user: Uuid) -> Result<(), StoreError> {
        self.0.store.sessions().end_all(user).await?;
        self.0.signed_out.send_replace(());
        Ok(())
    }

    /// Deletes expired sessions and invitations. Called periodically.
    pub async fn tidy(&self) {
        let now = self.0.clock.wall();
        let [begun_before, seen_before] =
            [AT_MOST, IDLE].map(|limit| now.minus(limit + EXPIRED_KEPT));
        let sessions = self.0.store.sessions();
        if let Err(error) = sessions.delete_expired(begun_before, seen_before, now).await {
            tracing::warn!(%error, "expired sessions could not be deleted");
        }
    }

    /// The users in a scope, newest first.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails.
    pub async fn users(
        &self,
        scope: &Scope,
        before: Option<(Timestamp, Uuid)>,
        limit: u32,
    ) -> Result<Vec<User>, StoreError> {
        self.0.store.people().list(scope, before, limit).await
    }

    /// A user in a scope.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails.
    pub async fn user(&self, scope: &Scope, id: Uuid) -> Result<Option<User>, StoreError> {
        self.0.store.people().get(scope, id).await
    }

    /// Creates a user, with an invitation if no password is given.
    ///
    /// # Errors
    ///
    /// Returns an error if a field is invalid, the name is taken or the store fails.
    pub async fn make_user(&self, new: NewUser) -> Result<(User, Option<Token>), PeopleError> {
        let inner = &self.0;
        let name = sign_in_name(&new.name)?;
        let full_name = if new.full_name.trim().is_empty() {
            name.clone()
        } else {
            name_of("fullName", &new.full_name)?
        };
        let scope = Scope::of(new.main_account.clone());
        if inner.store.people().list(&scope, None, MOST).await?.len()
            >= usize::try_from(MOST).unwrap_or(usize::MAX)
        {
            return Err(PeopleError::Conflict(
                "too_many",
                "an account can have at most 1,000 users",
            ));
        }
        // Names that differ only in case would be confused. Existing ones are kept. Names in other
        // accounts are not compared, so that the answer does not reveal them.
        if !inner.store.people().by_name_ignoring_case(&new.main_account, &name).await?.is_empty() {
            return Err(NAME_TAKEN);
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
            is_linked: false,
            created: inner.clock.wall(),
        };
        if !inner.store.people().create(user.clone()).await? {
            return Err(NAME_TAKEN);
        }
        self.publish(&user);
        let token = if invited { Some(self.new_invitation(&user).await?) } else { None };
        Ok((user, token))
    }

    /// Creates an invitation that replaces the user's previous one. A user who has forgotten the
    /// password needs one as well.
    ///
    /// # Errors
    ///
    /// Returns an error if the user does not exist, the configuration defines the user or the store
    /// fails.
    pub async fn invite(&self, scope: &Scope, id: Uuid) -> Result<(User, Token), PeopleError> {
        let user = self.0.store.people().get(scope, id).await?.ok_or(PeopleError::Missing)?;
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

    /// The invited user, if the invitation is still valid.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails.
    pub async fn invited(&self, token: &Token) -> Result<Option<User>, StoreError> {
        self.0.store.people().by_invitation(&token.digest(), self.0.clock.wall()).await
    }

    /// Sets the password of an invited user and uses up the invitation.
    ///
    /// # Errors
    ///
    /// Returns an error if the invitation is no longer valid, the password is invalid or the store
    /// fails.
    pub async fn accept(&self, token: &Token, password: Secret) -> Result<(), PeopleError> {
        let hash = self.hash(password).await?;
        match self
            .0
            .store
            .people()
            .accept_invitation(token.digest(), hash, self.0.clock.wall())
            .await?
        {
            true => Ok(()),
            false => Err(PeopleError::Missing),
        }
    }

    /// Changes a user. `by` is the user who makes the change. Users cannot change their own role,
    /// so that there is always an owner.
    ///
    /// # Errors
    ///
    /// Returns an error if the user does not exist, a field is invalid, the configuration defines
    /// the user or the store fails.
    pub async fn change(
        &self,
        scope: &Scope,
        id: Uuid,
        by: Option<Uuid>,
        change: Change,
    ) -> Result<User, PeopleError> {
        let inner = &self.0;
        let user = inner.store.people().get(scope, id).await?.ok_or(PeopleError::Missing)?;
        let role = change.role.filter(|role| *role != user.role);
        if user.in_file && (role.is_some() || change.password.is_some()) {
            return Err(IN_FILE);
        }
        if role.is_some() && by == Some(id) {
            return Err(PeopleError::Conflict(
                "own_role",
                "you can't change your own role; ask another owner",
            ));
        }
        if role.is_some() {
            self.check_other_owner(&user).await?;
        }
        let password = match change.password {
            Some(password) => Some(self.hash(password).await?),
            None => None,
        };
        let full_name = change.full_name.map(|name| name_of("fullName", &name)).transpose()?;
        let wa_id = change.wa_id.map(wa_id).transpose()?;
        let seen = change.seen.is_some();
        let keeps_an_owner = true;
        let change =
            UserChange { full_name, role, keeps_an_owner, password, wa_id, seen: change.seen };
        if !inner.store.people().change(scope, id, change).await? {
            if role.is_some() {
                // The other owner may have been demoted or deleted at the same time.
                self.check_other_owner(&user).await?;
            }
            let there = seen && inner.store.people().get(scope, id).await?.is_some();
            return Err(if there { PeopleError::Changed } else { PeopleError::Missing });
        }
        self.publish(&user);
        inner.store.people().get(scope, id).await?.ok_or(PeopleError::Missing)
    }

    /// Deletes a user and ends the sessions. Users cannot delete themselves.
    ///
    /// # Errors
    ///
    /// Returns an error if the user does not exist, `by` is the user, the configuration defines the
    /// user or the store fails.
    pub async fn remove(
        &self,
        scope: &Scope,
        id: Uuid,
        by: Option<Uuid>,
    ) -> Result<(), PeopleError> {
        let user = self.0.store.people().get(scope, id).await?.ok_or(PeopleError::Missing)?;
        if user.in_file {
            return Err(IN_FILE);
        }
        if by == Some(id) {
            return Err(PeopleError::Conflict(
                "oneself",
                "you can't remove yourself; ask another owner",
            ));
        }
        self.check_other_owner(&user).await?;
        if !self.0.store.people().delete(scope, id).await? {
            self.check_other_owner(&user).await?;
            return Err(PeopleError::Missing);
        }
        self.publish(&user);
        Ok(())
    }

    /// Checks that the main account has another owner, without whom nobody could manage it in the
    /// console.
    async fn check_other_owner(&self, user: &User) -> Result<(), PeopleError> {
        const PAGE: u32 = 200;
        let is_owner = |one: &User| one.role == Role::Owner && one.account == one.main_account;
        let scope = Scope::Main(user.main_account.clone());
        let mut before = None;
        while is_owner(user) {
            let page = self.0.store.people().list(&scope, before, PAGE).await?;
            if page.iter().any(|one| one.id != user.id && is_owner(one)) {
                break;
            }
            let Some(last) = page.last() else {
                return Err(PeopleError::Conflict(
                    "last_owner",
                    "this is the account's last owner; make another person an owner first",
                ));
            };
            before = Some((last.created, last.id));
        }
        Ok(())
    }

    /// Returns the identity of an `X-API-Key` that was created at run time. `None` if the key is
    /// unknown.
    pub fn key(&self, key: &str) -> Option<KeyHolder> {
        Token::read(key).and_then(|key| self.0.keys.load().get(&key.digest()).cloned())
    }

    /// The keys in a scope, newest first.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails.
    pub async fn keys(
        &self,
        scope: &Scope,
        before: Option<(Timestamp, Uuid)>,
        limit: u32,
    ) -> Result<Vec<ApiKeyRow>, StoreError> {
        self.0.store.api_keys().list(scope, before, limit).await
    }

    /// Creates a key. Its secret is returned only here.
    ///
    /// # Errors
    ///
    /// Returns an error if a field is invalid or the store fails.
    pub async fn make_key(
        &self,
        (account, main_account): (AuthId, AuthId),
        name: &str,
        role: Role,
        wa: Option<String>,
    ) -> Result<(ApiKeyRow, Token), PeopleError> {
        let inner = &self.0;
        let name = name_of("name", name)?;
        let scope = Scope::of(main_account.clone());
        if inner.store.api_keys().list(&scope, None, MOST).await?.len()
            >= usize::try_from(MOST).unwrap_or(usize::MAX)
        {
            return Err(PeopleError::Conflict(
                "too_many",
                "an account can have at most 1,000 API keys",
            ));
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
        self.publish_key(&key);
        Ok((key, token))
    }

    /// Changes the name or role of a key.
    ///
    /// # Errors
    ///
    /// Returns an error if the key does not exist, a field is invalid or the store fails.
    pub async fn change_key(
        &self,
        scope: &Scope,
        id: Uuid,
        name: Option<&str>,
        role: Option<Role>,
    ) -> Result<ApiKeyRow, PeopleError> {
        let name = name.map(|name| name_of("name", name)).transpose()?;
        let of = scope.clone();
        if !self
            .with_keys(async move |store| store.api_keys().change(&of, id, name, role).await)
            .await?
        {
            return Err(PeopleError::Missing);
        }
        let key = self.0.store.api_keys().get(scope, id).await?.ok_or(PeopleError::Missing)?;
        self.publish_key(&key);
        Ok(key)
    }

    /// Deletes a key, which is then no longer accepted.
    ///
    /// # Errors
    ///
    /// Returns an error if the key does not exist or the store fails.
    pub async fn remove_key(&self, scope: &Scope, id: Uuid) -> Result<(), PeopleError> {
        let (of, this) = (scope.clone(), self.clone());
        let removed = self.with_keys(async move |store| {
            let key = store.api_keys().get(&of, id).await?;
            if !store.api_keys().delete(&of, id).await? {
                return Ok(None);
            }
            // This revokes the key even if the others cannot be read now.
            let mut keys = HashMap::clone(&this.0.keys.load());
            keys.retain(|_, holder| holder.id != id);
            this.0.keys.store(Arc::new(keys));
            Ok(key)
        });
        let key = removed.await?.ok_or(PeopleError::Missing)?;
        self.publish_key(&key);
        Ok(())
    }

    /// Deletes the users and keys of a subaccount that was removed, and ends their sessions.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails. Some of them may be deleted then.
    pub async fn remove_all_of(&self, subaccount: &AuthId) -> Result<(), PeopleError> {
        let (scope, store) = (Scope::of(subaccount.clone()), &self.0.store);
        for user in store.people().list(&scope, None, MOST).await? {
            store.people().delete(&scope, user.id).await?;
            self.publish(&user);
        }
        for key in store.api_keys().list(&scope, None, MOST).await? {
            self.remove_key(&scope, key.id).await?;
        }
        Ok(())
    }

    fn publish(&self, user: &User) {
        let to = Audience::of(&user.account, &user.main_account);
        self.0.feed.publish(to, FeedChange::People);
    }

    fn publish_key(&self, key: &ApiKeyRow) {
        let to = Audience::of(&key.account, &key.main_account);
        self.0.feed.publish(to, FeedChange::People);
    }

    async fn hash(&self, password: Secret) -> Result<String, PeopleError> {
        let length = password.reveal().chars().count();
        if !(PASSWORD_MIN..=PASSWORD_MAX).contains(&length) {
            let why = format!("a password has {PASSWORD_MIN} to {PASSWORD_MAX} characters");
            return Err(PeopleError::Bad("password", why));
        }
        self.0.passwords.hash(password).await.map_err(busy)
    }
}

const NAME_TAKEN: PeopleError = PeopleError::Conflict("name_taken", "another user has this name");
const IN_FILE: PeopleError = PeopleError::Conflict(
    "in_configuration",
    "this user is defined in the configuration file; change it there",
);

fn busy(_: PasswordError) -> PeopleError {
    PeopleError::Busy
}

/// Validates the name of a user or key, which is one line of text.
fn name_of(field: &'static str, text: &str) -> Result<String, PeopleError> {
    let text = text.trim();
    match is_line(text, 1..=NAME_MAX) {
        true => Ok(text.to_owned()),
        false => Err(PeopleError::Bad(
            field,
            format!("{field} must have 1 to {NAME_MAX} characters on one line"),
        )),
    }
}

/// Validates the name that a user signs in with.
fn sign_in_name(text: &str) -> Result<String, PeopleError> {
    let name = name_of("name", text)?;
    match is_visible(&name) {
        true => Ok(name),
        false => Err(PeopleError::Bad("name", "name has characters that can't be seen".to_owned())),
    }
}

/// Normalizes a WhatsApp number to its digits. An empty one is `None`.
fn wa_id(text: Option<String>) -> Result<Option<String>, PeopleError> {
    let Some(text) = text
        .map(|text| text.trim().trim_start_matches('+').to_owned())
        .filter(|text| !text.is_empty())
    else {
        return Ok(None);
    };
    match (5..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()) {
        true => Ok(Some(text)),
        false => Err(PeopleError::Bad(
            "waId",
            "waId must be a WhatsApp number: 5 to 20 digits".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests;
