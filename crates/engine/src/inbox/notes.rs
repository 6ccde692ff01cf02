//! Private notes of conversations, for the people of the account.

use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;

use super::words;
use crate::disk_space::DiskSpace;
use crate::feed::{Feed, FeedChange};
use model::{Clock, Direction, MessageStatus};
use store::{NOTE, NewMessage, Pair, Store, StoreError};

/// The notes of all conversations.
pub struct Notes {
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) feed: Feed,
    pub(super) space: Arc<DiskSpace>,
}

/// Why a note was not added.
#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    /// The conversation no longer exists, or has the maximum number of notes.
    #[error("the conversation has the maximum number of notes")]
    TooMany,
    #[error("{0}")]
    NoSpace(&'static str),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Notes {
    /// Adds a private note to a conversation. The note is never sent.
    ///
    /// # Errors
    /// Returns the reason if the note was not added.
    pub async fn add(
        &self,
        pair: &Pair,
        text: &str,
        author: &str,
    ) -> Result<NewMessage, NoteError> {
        self.space.take_change(&pair.main_account, text.len()).map_err(NoteError::NoSpace)?;
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
        if !self.store.messages().add_note(pair, note.clone()).await? {
            return Err(NoteError::TooMany);
        }
        self.publish(pair, note.id);
        Ok(note)
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
