//! Private notes of conversations, for the people of the account.

use serde_json::json;
use uuid::Uuid;

use super::words;
use crate::feed::{Feed, FeedChange};
use model::{Clock, Direction, MessageStatus};
use store::{NOTE, NewMessage, Pair, Store, StoreError};

/// The notes of all conversations.
pub struct Notes {
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) feed: Feed,
}

impl Notes {
    /// Adds a private note to a conversation. The note is never sent. Returns `None` if the
    /// conversation no longer exists or has the maximum number of notes.
    ///
    /// # Errors
    /// Fails if the store fails.
    pub async fn add(
        &self,
        pair: &Pair,
        text: &str,
        author: &str,
    ) -> Result<Option<NewMessage>, StoreError> {
        let content = json!({"note": {"text": text}});
        let note = NewMessage {
            id: Uuid::new_v4(),
            wamid: None,
            direction: Direction::Outbound,
            kind: NOTE.to_owned(),
            text: words::short(NOTE, &content),
            content,
            status: MessageStatus::Received,
            sender: Some(author.to_owned()),
            at: self.clock.wall(),
        };
        let is_added = self.store.messages().add_note(pair, note.clone()).await?;
        if is_added {
            self.publish(pair, note.id);
        }
        Ok(is_added.then_some(note))
    }

    /// Deletes a private note. Returns `false` if the conversation has no such note.
    ///
    /// # Errors
    /// Fails if the store fails.
    pub async fn delete(&self, pair: &Pair, note: Uuid) -> Result<bool, StoreError> {
        let is_deleted = self.store.messages().delete_note(pair.conversation, note).await?;
        if is_deleted {
            self.publish(pair, note);
        }
        Ok(is_deleted)
    }

    fn publish(&self, pair: &Pair, note: Uuid) {
        let change = FeedChange::Message { conversation: pair.conversation, message: note };
        self.feed.publish(pair.into(), change);
    }
}
