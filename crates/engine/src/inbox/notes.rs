//! Private notes of conversations, for the people of the account.

use serde_json::json;
use uuid::Uuid;

use super::{Inbox, words};
use model::{Direction, MessageStatus};
use store::{NOTE, NewMessage, Pair, StoreError};

impl Inbox {
    /// Adds a private note to a conversation. The note is never sent. Returns `None` if the
    /// conversation no longer exists or has the maximum number of notes.
    ///
    /// # Errors
    /// Fails if the store fails.
    pub async fn add_note(
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
            at: self.parts().clock.wall(),
        };
        let is_added = self.parts().store.messages().add_note(pair, note.clone()).await?;
        if is_added {
            self.publish_message(pair.into(), pair.conversation, note.id);
        }
        Ok(is_added.then_some(note))
    }

    /// Deletes a private note. Returns `false` if the conversation has no such note.
    ///
    /// # Errors
    /// Fails if the store fails.
    pub async fn delete_note(&self, pair: &Pair, note: Uuid) -> Result<bool, StoreError> {
        let is_deleted = self.parts().store.messages().delete_note(pair.conversation, note).await?;
        if is_deleted {
            self.publish_message(pair.into(), pair.conversation, note);
        }
        Ok(is_deleted)
    }
}
