//! Changes of a conversation as a whole: its state, its read mark, and its deletion.

use std::time::Duration;

use uuid::Uuid;

use super::Inbox;
use super::events::message_event_ids;
use super::user_files::PAGE;
use crate::feed::{Audience, FeedChange};
use model::{Direction, Timestamp};
use store::{Conversation, ConversationChange, ErasureCutoff, Pair, Scope, StoreError};

/// Number of recent messages searched for the user's last one.
const READ_PAGE: u32 = 50;

impl Inbox {
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
        let _held = if silenced { self.pause_agents(&pair.phone_number_id).await } else { None };
        let (done, _) = self
            .parts()
            .store
            .conversations()
            .change(scope, pair.conversation, change, Vec::new())
            .await?;
        if done {
            self.publish_conversation(pair.into(), pair.conversation);
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
            .parts()
            .store
            .messages()
            .list(scope, conversation.pair.conversation, None, READ_PAGE)
            .await?;
        let last = page
            .into_iter()
            .find(|m| m.message.direction == Direction::Inbound && m.message.wamid.is_some());
        let (Some(wamid), Some(number)) =
            (last.and_then(|m| m.message.wamid), self.number_of(&conversation.pair))
        else {
            return Ok(());
        };
        let graph = self.parts().graph.clone();
        self.parts().tasks.spawn(async move {
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
        let (files, _) = self.files_of(scope, pair.conversation, Timestamp::MAX).await?;
        self.remove_files(files).await?;
        let done = self.parts().store.conversations().delete(scope, pair.conversation).await?;
        if done {
            self.publish_conversation(pair.into(), pair.conversation);
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
        let (files, late) = self.files_of(scope, pair.conversation, until.wall).await?;
        self.remove_files(files).await?;
        let told: Vec<Uuid> = late
            .into_iter()
            .flat_map(|message| message_event_ids(&pair.phone_number_id, message))
            .collect();
        self.parts().store.erasures().erase_events_by_id(pair.conversation, &told).await?;
        self.parts().store.erasures().erase_conversation(scope, pair.conversation, until).await?;
        self.publish_conversation(pair.into(), pair.conversation);
        Ok(())
    }

    /// Deletes messages older than `before`, and their files.
    ///
    /// # Errors
    /// Returns an error if the store rejects the write.
    pub async fn forget(&self, before: Timestamp) -> Result<(), StoreError> {
        while self.parts().store.messages().delete_older(before, PAGE).await? {}
        let oldest = std::time::UNIX_EPOCH
            + Duration::from_secs(u64::try_from(before.secs()).unwrap_or_default());
        self.0.media_cache.sweep(Some(oldest)).await;
        Ok(())
    }

    /// Publishes a change of a conversation to the console's feed.
    pub(super) fn publish_conversation(&self, to: Audience<'_>, conversation: Uuid) {
        self.parts().feed.publish(to, FeedChange::Conversation(conversation));
    }
}
