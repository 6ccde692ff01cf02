//! The store as its owner reads it on the machine itself: every account's calls, nothing written.
//!
//! For the commands that look at a data folder, beside a running node or without one. No API reaches it: a tenant's
//! questions go through [`super::Store`], with a [`super::Scope`].

use super::open::beside_a_node;
use super::sql::Pool;
use super::{CallRecord, CallbackView, Callbacks, StoreError, callbacks, calls};
use crate::config::Database;
use crate::model::CallUuid;

/// A store, open for reading.
#[derive(Clone, Debug)]
pub struct Archive {
    pool: Pool,
}

impl Archive {
    /// Opens a store.
    ///
    /// # Errors
    /// It is not there, or none of ours.
    pub async fn open(at: &Database) -> Result<Self, StoreError> {
        Ok(Self { pool: beside_a_node(at, true).await? })
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

    /// A call's event log, line by line; none where there is no such call.
    ///
    /// # Errors
    /// The store's.
    pub async fn events(&self, call: CallUuid) -> Result<Option<Vec<String>>, StoreError> {
        calls::whole_log(&self.pool, call).await
    }
}
