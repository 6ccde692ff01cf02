//! Changes and deletes whole conversations.

use std::sync::Arc;

use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::agent_locks::AgentLocks;
use super::events::message_event_ids;
use super::numbers::ServedNumbers;
use super::user_files::UserFiles;
use crate::feed::{Feed, FeedChange};
use crate::meta::Graph;
use model::{Direction, Timestamp};
use store::{Conversation, ConversationChange, ErasureCutoff, Pair, Scope, Store, StoreError};

/// Number of recent messages searched for the user's last one.
const READ_PAGE: u32 = 50;
/// The number of messages that are deleted in one write.
const DELETE_PAGE: u32 = 1_000;

/// The conversations of all numbers.
pub struct Conversations {
    pub(super) store: Store,
    pub(super) graph: Arc<Graph>,
    pub(super) feed: Feed,
    pub(super) tasks: TaskTracker,
    pub(super) numbers: Arc<ServedNumbers>,
    pub(super) agent_locks: Arc<AgentLocks>,
    pub(super) files: Arc<UserFiles>,
}

impl Conversations {
    /// Changes a conversation's state or routing. Returns `false` if its state does not allow the
    /// change.
    ///
    /// # Errors
    /// Returns an error if the store rejects the write. Nothing has changed then.
    pub async fn change(
        &self,
        scope: &Scope,
        pair: &Pair,
        change: ConversationChange,
    ) -> Result<bool, StoreError> {
        let silenced = change.ai_enabled == Some(false) || change.routing.is_some();
        let (done, _) =
            self.store.conversations().change(scope, pair.conversation, change, Vec::new()).await?;
        if done {
            self.feed.publish(pair.into(), FeedChange::Conversation(pair.conversation));
        }
        if silenced {
            self.agent_locks.wait(&pair.phone_number_id).await;
        }
        Ok(done)
    }

    /// Marks the user's last message as read at Meta, in the background.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub async fn mark_last_read(
        &self,
        scope: &Scope,
        conversation: &Conversation,
    ) -> Result<(), StoreError> {
        let page = self
            .store
            .messages()
            .list(scope, conversation.pair.conversation, None, READ_PAGE)
            .await?;
        let last = page
            .into_iter()
            .find(|m| m.message.direction == Direction::Inbound && m.message.wamid.is_some());
        let (Some(wamid), Some(number)) =
            (last.and_then(|m| m.message.wamid), self.numbers.number_of(&conversation.pair))
        else {
            return Ok(());
        };
        let graph = self.graph.clone();
        self.tasks.spawn(async move {
            let spec = &number.spec;
            let messages = graph.messages(&spec.phone_number_id, spec.access_token.as_ref());
            if let Err(outcome) = messages.mark_read(&wamid).await {
                tracing::debug!(%outcome, "read receipt failed");
            }
        });
        Ok(())
    }

    /// Deletes a conversation with its messages and files. Returns `false` if it does not exist.
    ///
    /// # Errors
    /// Returns an error if the store rejects the write. Some of it may be deleted then.
    pub async fn delete(&self, scope: &Scope, pair: &Pair) -> Result<bool, StoreError> {
        // The files go first: without the rows, their names would be unknown.
        let (files, _) =
            self.files.of_conversation(scope, pair.conversation, Timestamp::MAX).await?;
        self.files.remove(files).await?;
        let done = self.store.conversations().delete(scope, pair.conversation).await?;
        if done {
            self.feed.publish(pair.into(), FeedChange::Conversation(pair.conversation));
        }
        Ok(done)
    }

    /// Deletes the content of a conversation until `until`, including its files. Deletes the whole
    /// conversation if it has no newer content.
    ///
    /// # Errors
    /// Returns an error if the store rejects the write. Some of it may be deleted then.
    pub async fn delete_until(
        &self,
        scope: &Scope,
        pair: &Pair,
        until: ErasureCutoff,
    ) -> Result<(), StoreError> {
        let (files, late) =
            self.files.of_conversation(scope, pair.conversation, until.wall).await?;
        self.files.remove(files).await?;
        let event_ids: Vec<Uuid> = late
            .into_iter()
            .flat_map(|message| message_event_ids(&pair.phone_number_id, message))
            .collect();
        self.store.erasures().erase_events_by_id(pair.conversation, &event_ids).await?;
        self.store.erasures().erase_conversation(scope, pair.conversation, until).await?;
        self.feed.publish(pair.into(), FeedChange::Conversation(pair.conversation));
        Ok(())
    }

    /// Deletes messages older than `before`, and their files.
    ///
    /// # Errors
    /// Returns an error if the store rejects the write.
    pub async fn forget(&self, before: Timestamp) -> Result<(), StoreError> {
        while self.store.messages().delete_older(before, DELETE_PAGE).await? {}
        self.files.forget(before).await;
        Ok(())
    }
}
