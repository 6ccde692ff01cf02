//! The store as its owner reads it on the machine itself: every account's calls, nothing written.
//!
//! For the commands that look at a data folder, beside a running node or without one. No API reaches it: a tenant's
//! questions go through [`super::Store`], with a [`super::Scope`].

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{ConnectOptions as _, SqlitePool};

use uuid::Uuid;

use super::{
    CallRecord, CallbackView, Callbacks, Conversation, Message, Scope, StoreError, callbacks, calls, conversations,
};
use crate::model::CallUuid;

/// How long a read waits for a writer's lock.
const BUSY: Duration = Duration::from_secs(5);

/// A store's file, open for reading.
#[derive(Clone, Debug)]
pub struct Archive {
    pool: SqlitePool,
}

impl Archive {
    /// Opens a store's file.
    ///
    /// # Errors
    /// It is not there, or no SQLite file.
    pub async fn open(file: &Path) -> Result<Self, StoreError> {
        std::fs::File::open(file).map_err(|source| StoreError::Open { file: file.to_owned(), source })?;
        let options =
            SqliteConnectOptions::new().filename(file).read_only(true).busy_timeout(BUSY).disable_statement_logging();
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await;
        let pool = pool.map_err(|source| StoreError::Connect { file: file.to_owned(), source })?;
        Ok(Self { pool })
    }

    /// The latest calls of all accounts, newest first, those included that go on.
    ///
    /// # Errors
    /// The store's.
    pub async fn latest(&self, limit: u32) -> Result<Vec<CallRecord>, StoreError> {
        calls::latest(&self.pool, limit).await
    }

    /// The latest callbacks of all accounts, newest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn callbacks(&self, which: Callbacks, limit: u32) -> Result<Vec<CallbackView>, StoreError> {
        callbacks::latest(&self.pool, which, limit).await
    }

    /// Conversations of all accounts behind that one, in the order of their ids.
    ///
    /// # Errors
    /// The store's.
    pub async fn conversations(&self, after: Uuid, limit: u32) -> Result<Vec<Conversation>, StoreError> {
        conversations::after(&self.pool, after, limit).await
    }

    /// A conversation's messages and calls behind `before`, the latest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn messages(
        &self,
        scope: &Scope,
        conversation: Uuid,
        before: Option<(i64, Uuid)>,
        limit: u32,
    ) -> Result<Vec<Message>, StoreError> {
        conversations::messages(&self.pool, scope, conversation, before, limit).await
    }

    /// A call's event log, line by line; none where there is no such call.
    ///
    /// # Errors
    /// The store's.
    pub async fn events(&self, call: CallUuid) -> Result<Option<Vec<String>>, StoreError> {
        calls::whole_log(&self.pool, call).await
    }
}
