//! The store as its owner reads it on the machine itself: every account's calls, nothing written.
//!
//! For the commands that look at a data folder, beside a running node or without one. No API reaches it: a tenant's
//! questions go through [`super::Store`], with a [`super::Scope`].

use std::path::Path;

use uuid::Uuid;

use crate::database::Database;
use crate::error::StoreError;
use crate::rows::call::CallRecord;
use crate::rows::callback::CallbackView;
use crate::rows::conversation::Conversation;
use crate::rows::message::Message;
use crate::rows::setting::Setting;
use crate::scope::Scope;
use crate::seal::Seal;
use crate::sql::Pool;
use crate::sql::connect::beside_a_node;
use crate::tables::outbox::{self, Callbacks};
use crate::tables::webhooks::{self, WebhookUse};
use crate::tables::{calls, conversations, messages, settings};
use model::{CallUuid, Secret};

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
    pub async fn callbacks(
        &self,
        which: Callbacks,
        limit: u32,
    ) -> Result<Vec<CallbackView>, StoreError> {
        outbox::latest(&self.pool, which, limit).await
    }

    /// What was set while a node ran; sealed with this key, or that of the folder's key file.
    ///
    /// # Errors
    /// The store's, or the key file's.
    pub async fn settings(
        &self,
        secret: Option<&Secret>,
        folder: &Path,
    ) -> Result<Vec<Setting>, StoreError> {
        let key = Seal::to_read(secret, folder)
            .map_err(|source| StoreError::Key { folder: folder.to_owned(), source })?;
        settings::all(&self.pool, &key).await
    }

    /// What goes to webhooks that are neither among these nor made while a node ran.
    ///
    /// # Errors
    /// The store's.
    pub async fn webhooks_missed(&self, known: &[Uuid]) -> Result<Vec<WebhookUse>, StoreError> {
        let made = webhooks::ids(&self.pool).await?;
        let mut uses = webhooks::uses(&self.pool).await?;
        uses.retain(|used| !known.contains(&used.webhook) && !made.contains(&used.webhook));
        Ok(uses)
    }

    /// Conversations of all accounts behind that one, in the order of their ids.
    ///
    /// # Errors
    /// The store's.
    pub async fn conversations(
        &self,
        after: Uuid,
        limit: u32,
    ) -> Result<Vec<Conversation>, StoreError> {
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
        messages::messages(&self.pool, scope, conversation, before, limit).await
    }

    /// A call's event log, line by line; none where there is no such call.
    ///
    /// # Errors
    /// The store's.
    pub async fn events(&self, call: CallUuid) -> Result<Option<Vec<String>>, StoreError> {
        calls::whole_log(&self.pool, call).await
    }
}
