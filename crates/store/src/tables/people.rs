//! Console users, their sessions and invitations, and API keys created at run time.
//!
//! Each row has an owner, and methods that an API can reach take the caller's scope. Tokens and
//! keys are passed as digests, so this module handles no secrets.

use std::collections::{BTreeSet, HashMap};

use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::error::{StoreError, failed};
use crate::page::NewestFirst;
use crate::rows::user::User;
use crate::scope::{Scope, push_scope};
use crate::seal::Seal;
use crate::shared::Shared;
use crate::sql::{self, Conn, Dialect, Pool, QueryBuilder, Row};
use crate::write::WriteTask;
use model::{AuthId, Role, Timestamp};

/// Handle to the API keys. See [`Store::api_keys`](crate::Store::api_keys).
#[derive(Clone, Copy, Debug)]
pub struct ApiKeys<'a>(pub(crate) &'a Shared);

impl ApiKeys<'_> {
    /// Returns API keys of the scope, newest first. `before` is the last one of the previous page.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn list(
        self,
        scope: &Scope,
        before: Option<(Timestamp, Uuid)>,
        limit: u32,
    ) -> Result<Vec<ApiKeyRow>, StoreError> {
        crate::tables::people::keys(&self.0.read, scope, before, limit).await
    }

    /// Returns all API keys of all accounts.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn all(self) -> Result<Vec<ApiKeyRow>, StoreError> {
        crate::tables::people::all_keys(&self.0.read).await
    }

    /// Creates an API key. It is on disk when this returns.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn create(self, key: ApiKeyRow) -> Result<bool, StoreError> {
        run(self.0, PeopleWrite::CreateKey(Box::new(key))).await
    }

    /// Returns an API key, or `None` if the scope has no such key.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn get(self, scope: &Scope, id: Uuid) -> Result<Option<ApiKeyRow>, StoreError> {
        crate::tables::people::one_key(&self.0.read, scope, id).await
    }

    /// Changes an API key. Returns `false` if the scope has no such key.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn change(
        self,
        scope: &Scope,
        id: Uuid,
        name: Option<String>,
        role: Option<Role>,
    ) -> Result<bool, StoreError> {
        run(self.0, PeopleWrite::ChangeKey { scope: scope.clone(), id, name, role }).await
    }

    /// Deletes an API key. Returns `false` if the scope has no such key.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn delete(self, scope: &Scope, id: Uuid) -> Result<bool, StoreError> {
        run(self.0, PeopleWrite::DeleteKey(scope.clone(), id)).await
    }
}

/// Handle to the console sessions. See [`Store::sessions`](crate::Store::sessions).
#[derive(Clone, Copy, Debug)]
pub struct Sessions<'a>(pub(crate) &'a Shared);

impl Sessions<'_> {
    /// Returns a session and its user by the digest of the session token.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn get(self, digest: &str) -> Result<Option<(Session, User)>, StoreError> {
        let _turn = self.0.unauthenticated.acquire().await;
        crate::tables::people::session(&self.0.read, digest).await
    }

    /// Creates a session. It is on disk when this returns. `password` is the hash that the password of a
    /// sign-in was compared with. Returns `false` if the user was deleted since, or has another hash: a
    /// new password also stops sign-ins that are in progress.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn begin(
        self,
        session: Session,
        password: Option<String>,
    ) -> Result<bool, StoreError> {
        run(self.0, PeopleWrite::BeginSession { session, password }).await
    }

    /// Updates the time when a session was last used.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn touch(self, digest: String, at: Timestamp) -> Result<bool, StoreError> {
        run(self.0, PeopleWrite::Touch(digest, at)).await
    }

    /// Ends a session.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn end(self, digest: String) -> Result<bool, StoreError> {
        run(self.0, PeopleWrite::EndSession(digest)).await
    }

    /// Ends all sessions of a user.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn end_all(self, user: Uuid) -> Result<bool, StoreError> {
        run(self.0, PeopleWrite::EndAllSessions(user)).await
    }

    /// Deletes sessions that began before `begun_before` or were last used before `seen_before`,
    /// and expired invitations.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn delete_expired(
        self,
        begun_before: Timestamp,
        seen_before: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        run(self.0, PeopleWrite::DeleteExpired { begun_before, seen_before, now }).await
    }
}

/// Handle to the console users. See [`Store::people`](crate::Store::people).
#[derive(Clone, Copy, Debug)]
pub struct People<'a>(pub(crate) &'a Shared);

impl People<'_> {
    /// Returns a user, or `None` if the scope has no such user.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn get(self, scope: &Scope, id: Uuid) -> Result<Option<User>, StoreError> {
        crate::tables::people::one(&self.0.read, scope, id).await
    }

    /// Returns the users with this sign-in name, oldest first, at most four. `account` limits the
    /// search to a main account or a subaccount.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn by_name(
        self,
        account: Option<&AuthId>,
        name: &str,
    ) -> Result<Vec<User>, StoreError> {
        let _turn = self.0.unauthenticated.acquire().await;
        crate::tables::people::named(&self.0.read, account, name).await
    }

    /// Returns the user linked to a subject of a sign-in provider.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn by_link(self, issuer: &str, subject: &str) -> Result<Option<User>, StoreError> {
        let _turn = self.0.unauthenticated.acquire().await;
        crate::tables::people::linked(&self.0.read, issuer, subject).await
    }

    /// Returns up to two users of a main account and its subaccounts with this sign-in name,
    /// ignoring case.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn by_name_ignoring_case(
        self,
        main_account: &AuthId,
        name: &str,
    ) -> Result<Vec<User>, StoreError> {
        crate::tables::people::named_like(&self.0.read, main_account, name).await
    }

    /// Returns the full names of users of the scope by their sign-in names. Unknown names are left
    /// out.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn full_names(
        self,
        scope: &Scope,
        names: &BTreeSet<&str>,
    ) -> Result<HashMap<String, String>, StoreError> {
        crate::tables::people::full_names(&self.0.read, scope, names).await
    }

    /// Links a user to a subject of a sign-in provider. Returns `false` if one of the two is
    /// already linked.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn link(self, link: UserLink) -> Result<bool, StoreError> {
        run(self.0, PeopleWrite::Link(link)).await
    }

    /// Returns users of the scope, newest first. `before` is the last one of the previous page.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn list(
        self,
        scope: &Scope,
        before: Option<(Timestamp, Uuid)>,
        limit: u32,
    ) -> Result<Vec<User>, StoreError> {
        crate::tables::people::list(&self.0.read, scope, before, limit).await
    }

    /// Creates a user. Returns `false` if the name is taken within the main account. It is on disk when this returns.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn create(self, user: User) -> Result<bool, StoreError> {
        run(self.0, PeopleWrite::Create(Box::new(user))).await
    }

    /// Whether any account has an owner.
    ///
    /// # Errors
    /// Fails if the users cannot be read.
    pub async fn any_owner(self) -> Result<bool, StoreError> {
        let select = sql::query_as(OWNER);
        let found: Option<(String,)> =
            select.fetch_optional(&self.0.read).await.map_err(failed("find owners"))?;
        Ok(found.is_some())
    }

    /// Whether no owner exists, and an invitation of the first one is valid at `now`: the one with
    /// this digest, or any. Its [`Invitation::user`] is no user; it names the node that created it.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn invites_first(
        self,
        digest: Option<&str>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        // A deleted user's invitations are deleted, so those of no user are of the first owner.
        let mut select = QueryBuilder::new("SELECT digest FROM invitations WHERE expires_us > ");
        select.push_bind(now.micros());
        select.push(" AND user_id NOT IN (SELECT user_id FROM users) AND NOT EXISTS (");
        select.push(OWNER).push(")");
        if let Some(digest) = digest {
            select.push(" AND digest = ").push_bind(digest.to_owned());
        }
        let select = select.push(" LIMIT 1").build_query_as();
        let found: Option<(String,)> =
            select.fetch_optional(&self.0.read).await.map_err(failed("find the set-up link"))?;
        Ok(found.is_some())
    }

    /// Creates the first owner, and removes the invitations of [`People::invites_first`]. Returns
    /// `false` if an owner exists, also one that another node has created concurrently, or if the
    /// name is taken. The user is on disk when this returns.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn create_first_owner(self, user: User) -> Result<bool, StoreError> {
        run(self.0, PeopleWrite::CreateFirstOwner(Box::new(user))).await
    }

    /// Changes a user. Returns `false` if the scope has no such user, or if the configuration file
    /// sets the field to be changed.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn change(
        self,
        scope: &Scope,
        id: Uuid,
        change: UserChange,
    ) -> Result<bool, StoreError> {
        run(self.0, PeopleWrite::Change(scope.clone(), id, change)).await
    }

    /// Deletes a user and their sessions. Returns `false` if the scope has no such user, or if the
    /// configuration file lists them.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn delete(self, scope: &Scope, id: Uuid) -> Result<bool, StoreError> {
        run(self.0, PeopleWrite::Delete(scope.clone(), id)).await
    }

    /// Updates the users to those listed in the configuration file.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn sync_configured(self, users: Vec<User>) -> Result<bool, StoreError> {
        run(self.0, PeopleWrite::SyncConfigured(users)).await
    }

    /// Creates an invitation that replaces earlier ones of the user.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn invite(self, invitation: Invitation) -> Result<bool, StoreError> {
        run(self.0, PeopleWrite::Invite(invitation)).await
    }

    /// Returns the user of an invitation that is valid at `now`.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn by_invitation(
        self,
        digest: &str,
        now: Timestamp,
    ) -> Result<Option<User>, StoreError> {
        let _turn = self.0.unauthenticated.acquire().await;
        crate::tables::people::invited(&self.0.read, digest, now).await
    }

    /// Sets the user's password hash and removes the invitation. Returns `false` if the invitation
    /// is not valid.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn accept_invitation(
        self,
        digest: String,
        password: String,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        run(self.0, PeopleWrite::Accept { digest, password, now }).await
    }
}

/// Handle to the saved filters of users. See [`Store::saved_filters`](crate::Store::saved_filters).
#[derive(Clone, Copy, Debug)]
pub struct SavedFilters<'a>(pub(crate) &'a Shared);

impl SavedFilters<'_> {
    /// Maximum number of filters per user.
    pub const MAX: u32 = 20;

    /// Returns the names and queries of a user's filters, by name.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn list(self, user: Uuid) -> Result<Vec<(String, String)>, StoreError> {
        let select =
            "SELECT name, query FROM saved_filters WHERE user_id = $1 ORDER BY name LIMIT $2";
        let select = sql::query_as(select).bind(user.to_string()).bind(i64::from(Self::MAX));
        select.fetch_all(&self.0.read).await.map_err(failed("read saved filters"))
    }

    /// Saves a filter and replaces one with the same name. Returns `false` if the user already has
    /// [`SavedFilters::MAX`] others.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn put(self, user: Uuid, name: String, query: String) -> Result<bool, StoreError> {
        run(self.0, PeopleWrite::PutFilter { user, name, query }).await
    }

    /// Deletes a filter.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn delete(self, user: Uuid, name: String) -> Result<bool, StoreError> {
        run(self.0, PeopleWrite::DeleteFilter(user, name)).await
    }
}

/// Changes of a user. `None` leaves a field unchanged.
#[derive(Clone, Default)]
pub struct UserChange {
    pub full_name: Option<String>,
    pub role: Option<Role>,
    /// Whether nothing changes if the main account would have no owner then.
    pub keeps_an_owner: bool,
    /// The new password's hash. A new password ends the user's sessions.
    pub password: Option<String>,
    /// The new WhatsApp number. `Some(None)` removes it.
    pub wa_id: Option<Option<String>>,
    /// If set, the change applies only if the user still has these values.
    pub seen: Option<Box<User>>,
}

/// A session, identified by the digest of its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub digest: String,
    pub user: Uuid,
    pub begun: Timestamp,
    pub seen: Timestamp,
}

/// An invitation to set a password once, identified by the digest of its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    pub digest: String,
    pub user: Uuid,
    pub expires: Timestamp,
}

/// The link of a user to a subject of a sign-in provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserLink {
    pub issuer: String,
    pub subject: String,
    pub user: Uuid,
    pub at: Timestamp,
}

/// A key of the number API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeyRow {
    pub id: Uuid,
    pub account: AuthId,
    pub main_account: AuthId,
    pub name: String,
    /// The last characters of the key, for display.
    pub ending: String,
    pub digest: String,
    pub role: Role,
    pub wa_id: Option<String>,
    pub created: Timestamp,
}

/// A write about users, sessions, invitations or API keys. It changes nothing if a name is taken or
/// the row does not exist.
pub(crate) enum PeopleWrite {
    Create(Box<User>),
    /// Creates the first owner and removes its invitations. Changes nothing if an owner exists.
    CreateFirstOwner(Box<User>),
    Change(Scope, Uuid, UserChange),
    Delete(Scope, Uuid),
    /// Updates the users to those listed in the configuration file. Users who are no longer listed
    /// are deleted.
    SyncConfigured(Vec<User>),
    BeginSession {
        session: Session,
        password: Option<String>,
    },
    Touch(String, Timestamp),
    EndSession(String),
    /// Ends all sessions of a user.
    EndAllSessions(Uuid),
    /// Creates an invitation and removes the user's earlier ones.
    Invite(Invitation),
    /// Sets the invited user's password and removes the invitation. Changes nothing if it is not
    /// valid.
    Accept {
        digest: String,
        password: String,
        now: Timestamp,
    },
    /// Links a user to a subject of a sign-in provider and removes the user's invitations. Changes
    /// nothing if either is already linked.
    Link(UserLink),
    CreateKey(Box<ApiKeyRow>),
    ChangeKey {
        scope: Scope,
        id: Uuid,
        name: Option<String>,
        role: Option<Role>,
    },
    DeleteKey(Scope, Uuid),
    PutFilter {
        user: Uuid,
        name: String,
        query: String,
    },
    DeleteFilter(Uuid, String),
    /// Deletes old sessions and expired invitations.
    DeleteExpired {
        begun_before: Timestamp,
        seen_before: Timestamp,
        now: Timestamp,
    },
}

/// Maximum number of users that a search for a sign-in name returns. A sign-in without an account
/// tries the password of each.
pub const SAME_NAME_MAX: u8 = 4;

const USER: &str = "users.user_id, auth_id, main_auth_id, name, full_name, role, password, wa_id, in_file, created_us, \
     (SELECT COUNT(*) FROM user_links WHERE user_links.user_id = users.user_id) AS links";

/// Selects an owner of any account.
const OWNER: &str = "SELECT user_id FROM users WHERE role = 'owner' LIMIT 1";

const KEY: &str = "key_id, auth_id, main_auth_id, name, ending, digest, role, wa_id, created_us";

impl WriteTask for PeopleWrite {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _seal: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        Box::pin(write(to, self))
    }
}

/// Queues the write. Returns whether anything has changed.
async fn run(shared: &Shared, write: PeopleWrite) -> Result<bool, StoreError> {
    Ok(shared.queue.run(write).await? > 0)
}

/// Executes the write. Returns the number of changed rows.
async fn write(to: &mut Conn, write: &PeopleWrite) -> Result<u64, sqlx::Error> {
    Ok(match write {
        PeopleWrite::Create(user) => insert(to, user).await?,
        PeopleWrite::CreateFirstOwner(user) => {
            if to.dialect() == Dialect::Postgres {
                // Another node may be creating another first owner.
                to.run_batch("LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE").await?;
            }
            let found: Option<(String,)> = sql::query_as(OWNER).fetch_optional(&mut *to).await?;
            if found.is_some() || insert(to, user).await? == 0 {
                return Ok(0);
            }
            let delete = "DELETE FROM invitations WHERE user_id NOT IN (SELECT user_id FROM users)";
            sql::query(delete).execute(&mut *to).await?;
            1
        }
        PeopleWrite::Change(scope, id, change) => update(to, scope, *id, change).await?,
        PeopleWrite::Delete(scope, id) => {
            lock_owners(to).await?;
            let mut delete = QueryBuilder::new("DELETE FROM users WHERE in_file = 0 AND ");
            delete.push(LEAVES_AN_OWNER).push(" AND ");
            push_scope(&mut delete, scope);
            delete.push(" AND user_id = ").push_bind(id.to_string());
            let rows = delete.build().execute(&mut *to).await?.rows_affected();
            if rows > 0 {
                delete_user_data(to, &id.to_string()).await?;
            }
            rows
        }
        PeopleWrite::SyncConfigured(users) => sync_configured(to, users).await?,
        PeopleWrite::BeginSession { session, password } => {
            let mut insert = QueryBuilder::new(
                "INSERT INTO sessions (digest, user_id, begun_us, seen_us) SELECT ",
            );
            insert.push_bind(&session.digest).push(", user_id, ");
            insert.push_bind(session.begun.micros()).push(", ");
            insert.push_bind(session.seen.micros()).push(" FROM users WHERE user_id = ");
            insert.push_bind(session.user.to_string());
            if let Some(password) = password {
                insert.push(" AND password = ").push_bind(password);
            }
            insert.build().execute(to).await?.rows_affected()
        }
        PeopleWrite::Touch(digest, at) => {
            let update =
                sql::query("UPDATE sessions SET seen_us = $2 WHERE digest = $1 AND seen_us < $2");
            update.bind(digest).bind(at.micros()).execute(to).await?.rows_affected()
        }
        PeopleWrite::EndSession(digest) => {
            let delete = sql::query("DELETE FROM sessions WHERE digest = $1").bind(digest);
            delete.execute(to).await?.rows_affected()
        }
        PeopleWrite::EndAllSessions(user) => end_all(to, &user.to_string()).await?,
        PeopleWrite::Invite(invitation) => {
            let user = invitation.user.to_string();
            sql::query("DELETE FROM invitations WHERE user_id = $1")
                .bind(&user)
                .execute(&mut *to)
                .await?;
            unlink(to, &user).await?;
            let insert =
                "INSERT INTO invitations (digest, user_id, expires_us) VALUES ($1, $2, $3)";
            let insert = sql::query(insert).bind(&invitation.digest).bind(&user);
            insert.bind(invitation.expires.micros()).execute(to).await?.rows_affected()
        }
        PeopleWrite::Accept { digest, password, now } => {
            let take =
                "DELETE FROM invitations WHERE digest = $1 AND expires_us > $2 RETURNING user_id";
            let take = sql::query_scalar::<String>(take).bind(digest).bind(now.micros());
            match take.fetch_optional(&mut *to).await? {
                None => 0,
                Some(user) => {
                    end_all(to, &user).await?;
                    let set = sql::query(
                        "UPDATE users SET password = $2 WHERE user_id = $1 AND in_file = 0",
                    );
                    set.bind(user).bind(password).execute(to).await?.rows_affected()
                }
            }
        }
        PeopleWrite::Link(link) => {
            let insert = "INSERT INTO user_links (issuer, subject, user_id, linked_us) VALUES ($1, $2, $3, $4) \
                ON CONFLICT DO NOTHING";
            let user = link.user.to_string();
            let insert = sql::query(insert).bind(&link.issuer).bind(&link.subject).bind(&user);
            let rows = insert.bind(link.at.micros()).execute(&mut *to).await?.rows_affected();
            if rows > 0 {
                sql::query("DELETE FROM invitations WHERE user_id = $1")
                    .bind(&user)
                    .execute(to)
                    .await?;
            }
            rows
        }
        PeopleWrite::CreateKey(key) => {
            let insert = "INSERT INTO api_keys (key_id, auth_id, main_auth_id, name, ending, digest, role, wa_id, \
                created_us) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING";
            let insert = sql::query(insert)
                .bind(key.id.to_string())
                .bind(key.account.as_str())
                .bind(key.main_account.as_str())
                .bind(&key.name)
                .bind(&key.ending);
            let insert = insert
                .bind(&key.digest)
                .bind(key.role.as_str())
                .bind(&key.wa_id)
                .bind(key.created.micros());
            insert.execute(to).await?.rows_affected()
        }
        PeopleWrite::ChangeKey { scope, id, name, role: wanted } => {
            let mut update = QueryBuilder::new("UPDATE api_keys SET key_id = key_id");
            if let Some(name) = name {
                update.push(", name = ").push_bind(name);
            }
            if let Some(wanted) = wanted {
                update.push(", role = ").push_bind(wanted.as_str());
            }
            update.push(" WHERE ");
            push_scope(&mut update, scope);
            update.push(" AND key_id = ").push_bind(id.to_string());
            update.build().execute(to).await?.rows_affected()
        }
        PeopleWrite::DeleteKey(scope, id) => {
            let mut delete = QueryBuilder::new("DELETE FROM api_keys WHERE ");
            push_scope(&mut delete, scope);
            delete.push(" AND key_id = ").push_bind(id.to_string());
            delete.build().execute(to).await?.rows_affected()
        }
        PeopleWrite::PutFilter { user, name, query } => {
            let insert = "INSERT INTO saved_filters (user_id, name, query) SELECT $1, $2, $3 WHERE \
                (SELECT count(*) FROM saved_filters WHERE user_id = $1 AND name <> $2) < $4 \
                ON CONFLICT (user_id, name) DO UPDATE SET query = excluded.query";
            let insert = sql::query(insert).bind(user.to_string()).bind(name).bind(query);
            insert.bind(i64::from(SavedFilters::MAX)).execute(to).await?.rows_affected()
        }
        PeopleWrite::DeleteFilter(user, name) => {
            let delete = "DELETE FROM saved_filters WHERE user_id = $1 AND name = $2";
            sql::query(delete).bind(user.to_string()).bind(name).execute(to).await?.rows_affected()
        }
        PeopleWrite::DeleteExpired { begun_before, seen_before, now } => {
            let delete = "DELETE FROM sessions WHERE begun_us < $1 OR seen_us < $2";
            let delete = sql::query(delete).bind(begun_before.micros()).bind(seen_before.micros());
            let rows = delete.execute(&mut *to).await?.rows_affected();
            let over =
                sql::query("DELETE FROM invitations WHERE expires_us < $1").bind(now.micros());
            rows + over.execute(to).await?.rows_affected()
        }
    })
}

async fn insert(to: &mut Conn, user: &User) -> Result<u64, sqlx::Error> {
    let insert = "INSERT INTO users (user_id, auth_id, main_auth_id, name, full_name, role, password, wa_id, in_file, \
        created_us) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING";
    let insert = sql::query(insert)
        .bind(user.id.to_string())
        .bind(user.account.as_str())
        .bind(user.main_account.as_str())
        .bind(&user.name)
        .bind(&user.full_name);
    let insert = insert
        .bind(user.role.as_str())
        .bind(&user.password)
        .bind(&user.wa_id)
        .bind(i64::from(user.in_file));
    Ok(insert.bind(user.created.micros()).execute(to).await?.rows_affected())
}

async fn update(
    to: &mut Conn,
    scope: &Scope,
    id: Uuid,
    change: &UserChange,
) -> Result<u64, sqlx::Error> {
    let needs_other_owner =
        change.keeps_an_owner && change.role.is_some_and(|role| role != Role::Owner);
    if needs_other_owner {
        lock_owners(to).await?;
    }
    let mut update = QueryBuilder::new("UPDATE users SET user_id = user_id");
    if let Some(full_name) = &change.full_name {
        update.push(", full_name = ").push_bind(full_name);
    }
    if let Some(to) = change.role {
        update.push(", role = ").push_bind(to.as_str());
    }
    if let Some(password) = &change.password {
        update.push(", password = ").push_bind(password);
    }
    if let Some(wa_id) = &change.wa_id {
        update.push(", wa_id = ").push_bind(wa_id);
    }
    update.push(" WHERE ");
    push_scope(&mut update, scope);
    update.push(" AND user_id = ").push_bind(id.to_string());
    if let Some(seen) = &change.seen {
        update.push(" AND full_name = ").push_bind(&seen.full_name);
        update.push(" AND role = ").push_bind(seen.role.as_str());
        update
            .push(" AND coalesce(wa_id, '') = ")
            .push_bind(seen.wa_id.as_deref().unwrap_or_default());
        update.push(if seen.password.is_none() {
            " AND password IS NULL"
        } else {
            " AND password IS NOT NULL"
        });
    }
    if needs_other_owner {
        update.push(" AND ").push(LEAVES_AN_OWNER);
    }
    // Role and password of listed users are set by the configuration file only.
    if change.role.is_some() || change.password.is_some() {
        update.push(" AND in_file = 0");
    }
    let rows = update.build().execute(&mut *to).await?.rows_affected();
    if rows > 0 && change.password.is_some() {
        end_access(to, &id.to_string()).await?;
    }
    Ok(rows)
}

/// SQL: whether the main account has an owner without this row of `users`.
const LEAVES_AN_OWNER: &str = "(role <> 'owner' OR auth_id <> main_auth_id OR EXISTS (SELECT 1 FROM users o \
    WHERE o.main_auth_id = users.main_auth_id AND o.auth_id = o.main_auth_id AND o.role = 'owner' \
    AND o.user_id <> users.user_id))";

/// Has nodes end ownerships one after the other. SQLite has one writer.
async fn lock_owners(to: &mut Conn) -> Result<(), sqlx::Error> {
    if to.dialect() == Dialect::Postgres {
        let lock =
            "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ' owners', 0))";
        sql::query(lock).execute(to).await?;
    }
    Ok(())
}

async fn end_all(to: &mut Conn, user: &str) -> Result<u64, sqlx::Error> {
    let delete = sql::query("DELETE FROM sessions WHERE user_id = $1").bind(user);
    Ok(delete.execute(to).await?.rows_affected())
}

/// Deletes the user's links to sign-in providers.
async fn unlink(to: &mut Conn, user: &str) -> Result<(), sqlx::Error> {
    sql::query("DELETE FROM user_links WHERE user_id = $1").bind(user).execute(to).await.map(drop)
}

/// Deletes everything that belongs to a deleted user.
async fn delete_user_data(to: &mut Conn, user: &str) -> Result<(), sqlx::Error> {
    end_access(to, user).await?;
    let unassign = "UPDATE conversations SET assignee = NULL WHERE assignee = $1";
    sql::query(unassign).bind(user).execute(&mut *to).await?;
    let filters = sql::query("DELETE FROM saved_filters WHERE user_id = $1").bind(user);
    filters.execute(&mut *to).await?;
    unlink(to, user).await
}

/// Deletes what a new password invalidates: sessions and invitations.
async fn end_access(to: &mut Conn, user: &str) -> Result<(), sqlx::Error> {
    end_all(to, user).await?;
    sql::query("DELETE FROM invitations WHERE user_id = $1").bind(user).execute(to).await.map(drop)
}

/// `users.in_file` of a user that the configuration file created, and of one that existed before the
/// file listed it.
const CREATED_BY_FILE: i64 = 1;
const LISTED_LATER: i64 = 2;

/// Updates the users to those listed in the configuration file. Existing users keep their id, and
/// their sessions unless the password has changed. Users that are no longer listed are deleted if
/// the file had created them; the others keep the role and the password of the file.
async fn sync_configured(to: &mut Conn, users: &[User]) -> Result<u64, sqlx::Error> {
    let mut rows = 0;
    let listed: Vec<(String, String, String, i64)> =
        sql::query_as("SELECT user_id, main_auth_id, name, in_file FROM users WHERE in_file <> 0")
            .fetch_all(&mut *to)
            .await?;
    for (id, main_account, name, in_file) in listed {
        let is_same = |user: &User| user.name == name && user.main_account.as_str() == main_account;
        if users.iter().any(is_same) {
            continue;
        }
        let change = if in_file == CREATED_BY_FILE {
            delete_user_data(to, &id).await?;
            "DELETE FROM users WHERE user_id = $1"
        } else {
            "UPDATE users SET in_file = 0 WHERE user_id = $1"
        };
        rows += sql::query(change).bind(&id).execute(&mut *to).await?.rows_affected();
    }
    for user in users {
        let known = "SELECT user_id, password FROM users WHERE name = $1 AND main_auth_id = $2";
        let known: Option<(String, Option<String>)> = sql::query_as(known)
            .bind(&user.name)
            .bind(user.main_account.as_str())
            .fetch_optional(&mut *to)
            .await?;
        let Some((id, password)) = known else {
            rows += insert(to, user).await?;
            continue;
        };
        if password != user.password {
            end_access(to, &id).await?;
        }
        let update = "UPDATE users SET auth_id = $2, role = $3, password = $4, \
            in_file = CASE WHEN in_file = 0 THEN $5 ELSE in_file END WHERE user_id = $1";
        let update = sql::query(update).bind(&id).bind(user.account.as_str());
        rows += update
            .bind(user.role.as_str())
            .bind(&user.password)
            .bind(LISTED_LATER)
            .execute(&mut *to)
            .await?
            .rows_affected();
    }
    Ok(rows)
}

/// Returns a user of the scope.
pub(crate) async fn one(pool: &Pool, scope: &Scope, id: Uuid) -> Result<Option<User>, StoreError> {
    let mut select = QueryBuilder::new(format!("SELECT {USER} FROM users WHERE "));
    push_scope(&mut select, scope);
    select.push(" AND user_id = ").push_bind(id.to_string());
    let row = select.build().fetch_optional(pool).await.map_err(failed("read a user"))?;
    row.as_ref().map(user).transpose()
}

/// Returns the users with this sign-in name, of `account` or of any account, oldest first.
pub(crate) async fn named(
    pool: &Pool,
    account: Option<&AuthId>,
    name: &str,
) -> Result<Vec<User>, StoreError> {
    let mut select = QueryBuilder::new(format!("SELECT {USER} FROM users WHERE name = "));
    select.push_bind(name.to_owned());
    if let Some(account) = account {
        select.push(" AND (main_auth_id = ").push_bind(account.to_string());
        select.push(" OR auth_id = ").push_bind(account.to_string()).push(")");
    }
    select.push(" ORDER BY created_us, user_id LIMIT ").push_bind(u32::from(SAME_NAME_MAX));
    let rows = select.build().fetch_all(pool).await.map_err(failed("read a user"))?;
    rows.iter().map(user).collect()
}

/// Returns the full names of users of the scope by their sign-in names.
pub(crate) async fn full_names(
    pool: &Pool,
    scope: &Scope,
    names: &BTreeSet<&str>,
) -> Result<HashMap<String, String>, StoreError> {
    if names.is_empty() {
        return Ok(HashMap::new());
    }
    let mut select = QueryBuilder::new("SELECT name, full_name FROM users WHERE ");
    push_scope(&mut select, scope);
    select.push(" AND name").push_in(names.iter().copied());
    let rows: Vec<(String, String)> =
        select.build_query_as().fetch_all(pool).await.map_err(failed("read users' names"))?;
    Ok(rows.into_iter().collect())
}

/// Returns the user linked to a subject of a sign-in provider.
pub(crate) async fn linked(
    pool: &Pool,
    issuer: &str,
    subject: &str,
) -> Result<Option<User>, StoreError> {
    let mut select = QueryBuilder::new(format!("SELECT {USER} FROM users WHERE user_id = "));
    select.push("(SELECT user_id FROM user_links WHERE issuer = ").push_bind(issuer.to_owned());
    select.push(" AND subject = ").push_bind(subject.to_owned()).push(")");
    let row = select.build().fetch_optional(pool).await.map_err(failed("read a user"))?;
    row.as_ref().map(user).transpose()
}

/// Returns up to two users of a main account with this sign-in name, ignoring case. Two are enough
/// to detect that the name is ambiguous.
pub(crate) async fn named_like(
    pool: &Pool,
    main_account: &AuthId,
    name: &str,
) -> Result<Vec<User>, StoreError> {
    let mut select = QueryBuilder::new(format!("SELECT {USER} FROM users WHERE lower(name) = "));
    select.push_bind(name.to_ascii_lowercase());
    select.push(" AND main_auth_id = ").push_bind(main_account.to_string());
    select.push(" ORDER BY user_id LIMIT 2");
    let rows = select.build().fetch_all(pool).await.map_err(failed("read a user"))?;
    rows.iter().map(user).collect()
}

/// Returns a session and its user.
pub(crate) async fn session(
    pool: &Pool,
    digest: &str,
) -> Result<Option<(Session, User)>, StoreError> {
    const WHAT: &str = "read a session";
    let mut select = QueryBuilder::new(format!("SELECT digest, begun_us, seen_us, {USER}"));
    select.push(" FROM sessions JOIN users ON users.user_id = sessions.user_id WHERE digest = ");
    select.push_bind(digest.to_owned());
    let Some(row) = select.build().fetch_optional(pool).await.map_err(failed(WHAT))? else {
        return Ok(None);
    };
    let user = user(&row)?;
    let at = |column: &str| row.try_get(column).map(Timestamp::from_micros).map_err(failed(WHAT));
    let (begun, seen) = (at("begun_us")?, at("seen_us")?);
    Ok(Some((Session { digest: digest.to_owned(), user: user.id, begun, seen }, user)))
}

/// Returns the user of an invitation that is valid at `now`.
pub(crate) async fn invited(
    pool: &Pool,
    digest: &str,
    now: Timestamp,
) -> Result<Option<User>, StoreError> {
    let mut select = QueryBuilder::new(format!("SELECT {USER} FROM users WHERE user_id = "));
    select.push("(SELECT user_id FROM invitations WHERE digest = ").push_bind(digest.to_owned());
    select.push(" AND expires_us > ").push_bind(now.micros()).push(")");
    let row = select.build().fetch_optional(pool).await.map_err(failed("read an invitation"))?;
    row.as_ref().map(user).transpose()
}

/// Returns users of the scope, newest first, after `before`.
pub(crate) async fn list(
    pool: &Pool,
    scope: &Scope,
    before: Option<(Timestamp, Uuid)>,
    limit: u32,
) -> Result<Vec<User>, StoreError> {
    let mut select = QueryBuilder::new(format!("SELECT {USER} FROM users WHERE "));
    push_scope(&mut select, scope);
    NewestFirst { time: "created_us", id: "user_id" }.push(&mut select, before, limit);
    let rows = select.build().fetch_all(pool).await.map_err(failed("list the users"))?;
    rows.iter().map(user).collect()
}

/// Returns API keys of the scope, newest first, after `before`.
pub(crate) async fn keys(
    pool: &Pool,
    scope: &Scope,
    before: Option<(Timestamp, Uuid)>,
    limit: u32,
) -> Result<Vec<ApiKeyRow>, StoreError> {
    let mut select = QueryBuilder::new(format!("SELECT {KEY} FROM api_keys WHERE "));
    push_scope(&mut select, scope);
    NewestFirst { time: "created_us", id: "key_id" }.push(&mut select, before, limit);
    let rows = select.build().fetch_all(pool).await.map_err(failed("list the API keys"))?;
    rows.iter().map(key).collect()
}

/// Returns an API key of the scope.
pub(crate) async fn one_key(
    pool: &Pool,
    scope: &Scope,
    id: Uuid,
) -> Result<Option<ApiKeyRow>, StoreError> {
    let mut select = QueryBuilder::new(format!("SELECT {KEY} FROM api_keys WHERE "));
    push_scope(&mut select, scope);
    select.push(" AND key_id = ").push_bind(id.to_string());
    let row = select.build().fetch_optional(pool).await.map_err(failed("read an API key"))?;
    row.as_ref().map(key).transpose()
}

/// Returns all API keys.
pub(crate) async fn all_keys(pool: &Pool) -> Result<Vec<ApiKeyRow>, StoreError> {
    let mut select = QueryBuilder::new(format!("SELECT {KEY} FROM api_keys"));
    let rows = select.build().fetch_all(pool).await.map_err(failed("read the API keys"))?;
    rows.iter().map(key).collect()
}

/// Readers of the columns that users and keys share.
struct Columns<'a> {
    row: &'a Row,
    what: &'static str,
}

impl Columns<'_> {
    fn text(&self, column: &str) -> Result<String, StoreError> {
        self.row.try_get(column).map_err(failed(self.what))
    }

    fn optional_text(&self, column: &str) -> Result<Option<String>, StoreError> {
        self.row.try_get(column).map_err(failed(self.what))
    }

    fn id(&self, column: &str) -> Result<Uuid, StoreError> {
        self.text(column)?.parse().map_err(|e: uuid::Error| self.unreadable(e.to_string()))
    }

    fn role(&self) -> Result<Role, StoreError> {
        let word = self.text("role")?;
        let found = [Role::Agent, Role::Admin, Role::Owner]
            .into_iter()
            .find(|known| known.as_str() == word);
        found.ok_or_else(|| self.unreadable(format!("role {word}")))
    }

    fn at(&self, column: &str) -> Result<Timestamp, StoreError> {
        self.row.try_get(column).map(Timestamp::from_micros).map_err(failed(self.what))
    }

    fn unreadable(&self, detail: String) -> StoreError {
        StoreError::Unreadable { what: self.what, detail }
    }
}

fn user(row: &Row) -> Result<User, StoreError> {
    let c = Columns { row, what: "read a user" };
    Ok(User {
        id: c.id("user_id")?,
        account: c.text("auth_id")?.into(),
        main_account: c.text("main_auth_id")?.into(),
        name: c.text("name")?,
        full_name: c.text("full_name")?,
        role: c.role()?,
        password: c.optional_text("password")?,
        wa_id: c.optional_text("wa_id")?,
        in_file: row.try_get::<i64, _>("in_file").map_err(failed(c.what))? != 0,
        is_linked: row.try_get::<i64, _>("links").map_err(failed(c.what))? != 0,
        created: c.at("created_us")?,
    })
}

fn key(row: &Row) -> Result<ApiKeyRow, StoreError> {
    let c = Columns { row, what: "read an API key" };
    Ok(ApiKeyRow {
        id: c.id("key_id")?,
        account: c.text("auth_id")?.into(),
        main_account: c.text("main_auth_id")?.into(),
        name: c.text("name")?,
        ending: c.text("ending")?,
        digest: c.text("digest")?,
        role: c.role()?,
        wa_id: c.optional_text("wa_id")?,
        created: c.at("created_us")?,
    })
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use crate::store::Store;
    use model::Health;

    /// A flood of requests with made-up sessions takes only some of the connections.
    #[tokio::test]
    async fn lookups_for_strangers_wait_for_each_other_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        let turns = &store.people().0.unauthenticated;
        let busy = turns.acquire_many(turns.available_permits().try_into().unwrap()).await;
        let mut lookup = std::pin::pin!(store.sessions().get("made up"));
        assert!(poll!(lookup.as_mut()).is_pending());
        assert_eq!(store.api_keys().all().await.unwrap(), []);
        drop(busy);
        assert_eq!(lookup.await.unwrap(), None);
        store.close().await;
    }
}
