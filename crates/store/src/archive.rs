//! Read-only access to all accounts' data, for the command-line tools.
//!
//! These tools read a data folder, with or without a node running on it. APIs must not use this
//! module: their queries go through [`super::Store`] with a [`super::Scope`].

use std::path::Path;
use std::time::Duration;

use uuid::Uuid;

use crate::database::Database;
use crate::error::{StoreError, failed};
use crate::rows::call::CallRecord;
use crate::rows::callback::CallbackView;
use crate::rows::conversation::Conversation;
use crate::rows::message::Message;
use crate::rows::setting::Setting;
use crate::scope::Scope;
use crate::seal::Seal;
use crate::sealed_values::{self, SealedValues};
use crate::sql::connect::open_store_beside_node;
use crate::sql::{self, Pool};
use crate::tables::agents::{self, AgentSpec};
use crate::tables::outbox::{self, Callbacks};
use crate::tables::webhooks::{self, WebhookUse};
use crate::tables::{calls, conversations, messages, settings};
use model::{CallUuid, Secret};

/// A store opened read-only.
#[derive(Clone, Debug)]
pub struct Archive {
    pool: Pool,
}

impl Archive {
    /// Opens an existing store.
    ///
    /// # Errors
    /// Fails if there is no store, or if the database is not an Offhook store.
    pub async fn open(at: &Database) -> Result<Self, StoreError> {
        Ok(Self { pool: open_store_beside_node(at, true).await? })
    }

    /// Returns the latest calls of all accounts, including those in progress, newest first.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn latest(&self, limit: u32) -> Result<Vec<CallRecord>, StoreError> {
        calls::latest(&self.pool, limit).await
    }

    /// Returns the latest callbacks of all accounts, newest first.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn callbacks(
        &self,
        which: Callbacks,
        limit: u32,
    ) -> Result<Vec<CallbackView>, StoreError> {
        outbox::latest(&self.pool, which, limit).await
    }

    /// Returns the settings made at run time. Their secrets are decrypted with `secret`, or with
    /// the key file in `folder` if it is `None`.
    ///
    /// # Errors
    /// Fails if the database query fails or the key file can't be read.
    pub async fn settings(
        &self,
        secret: Option<&Secret>,
        folder: &Path,
    ) -> Result<Vec<Setting>, StoreError> {
        let key = Seal::read_only(secret, folder)
            .map_err(|source| StoreError::Key { folder: folder.to_owned(), source })?;
        Ok(settings::all(&self.pool, &key).await?.1)
    }

    /// Counts the sealed values of each kind that can and can't be opened with `secret`, or with the
    /// key file in `folder` if it is `None`.
    ///
    /// # Errors
    /// Fails if the database query fails or the key file can't be read.
    pub async fn sealed_values(
        &self,
        secret: Option<&Secret>,
        folder: &Path,
    ) -> Result<Vec<SealedValues>, StoreError> {
        let key = Seal::read_only(secret, folder)
            .map_err(|source| StoreError::Key { folder: folder.to_owned(), source })?;
        sealed_values::count(&self.pool, &key).await
    }

    /// Looks for damage of a SQLite file, for at most `within`. `None` if none was found in this
    /// time, or if the database is PostgreSQL.
    ///
    /// # Errors
    /// Fails if the file can't be read.
    pub async fn damage(&self, within: Duration) -> Result<Option<String>, StoreError> {
        match &self.pool {
            Pool::Sqlite(pool) => pool.damage(within).await.map_err(failed("check the store")),
            Pool::Postgres(_) => Ok(None),
        }
    }

    /// Returns the uses of webhooks that are neither in `known`, those of the configuration, nor
    /// were created at run time.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn unknown_webhook_uses(
        &self,
        known: &[Uuid],
    ) -> Result<Vec<WebhookUse>, StoreError> {
        let made = webhooks::ids(&self.pool).await?;
        let mut uses = webhooks::uses(&self.pool).await?;
        uses.retain(|used| !known.contains(&used.webhook) && !made.contains(&used.webhook));
        Ok(uses)
    }

    /// Returns the enabled agents that answer calls.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn voice_agents(&self) -> Result<Vec<AgentSpec>, StoreError> {
        agents::voice_agents(&self.pool).await
    }

    /// Returns conversations of all accounts with an id greater than `after`, ordered by id.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn conversations(
        &self,
        after: Uuid,
        limit: u32,
    ) -> Result<Vec<Conversation>, StoreError> {
        conversations::after(&self.pool, after, limit).await
    }

    /// Returns the messages and calls of a conversation that are older than `before`, newest first.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn messages(
        &self,
        scope: &Scope,
        conversation: Uuid,
        before: Option<(i64, Uuid)>,
        limit: u32,
    ) -> Result<Vec<Message>, StoreError> {
        messages::list(&self.pool, scope, conversation, before, limit).await
    }

    /// Returns the owner of a call, and whether the call has ended. `None` if there is no such call.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn owner(&self, call: CallUuid) -> Result<Option<(String, bool)>, StoreError> {
        let select = "SELECT node_id, CAST(CASE WHEN ended_us IS NULL THEN 0 ELSE 1 END AS BIGINT) FROM calls WHERE call_uuid = $1";
        let select = sql::query_as(select).bind(call.to_string());
        let found: Option<(String, i64)> =
            select.fetch_optional(&self.pool).await.map_err(failed("find a call"))?;
        Ok(found.map(|(owner, ended)| (owner, ended != 0)))
    }

    /// Returns the lines of a call's event log, or `None` if there is no such call.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn events(&self, call: CallUuid) -> Result<Option<Vec<String>>, StoreError> {
        calls::whole_log(&self.pool, call).await
    }
}
