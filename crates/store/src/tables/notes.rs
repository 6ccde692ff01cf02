//! Private notes of conversations. They are rows of `messages` with the kind [`NOTE`], so that the
//! timeline, retention and erasures cover them. They are never sent.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::error::StoreError;
use crate::rows::conversation::Pair;
use crate::rows::message::{NOTE, NewMessage};
use crate::seal::Seal;
use crate::sql::{self, Conn};
use crate::tables::messages::Messages;
use crate::write::WriteTask;

/// Maximum number of notes in a conversation.
const NOTES_MAX: i64 = 1_000;

impl Messages<'_> {
    /// Adds a private note to a conversation. Returns `false` if the conversation no longer exists
    /// or has the maximum number of notes.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn add_note(self, pair: &Pair, note: NewMessage) -> Result<bool, StoreError> {
        Ok(self.0.queue.run(NoteWrite::Add(pair.clone(), note)).await? > 0)
    }

    /// Deletes a private note. Returns `false` if the conversation has no such note.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn delete_note(self, conversation: Uuid, note: Uuid) -> Result<bool, StoreError> {
        Ok(self.0.queue.run(NoteWrite::Delete(conversation, note)).await? > 0)
    }
}

enum NoteWrite {
    Add(Pair, NewMessage),
    Delete(Uuid, Uuid),
}

impl WriteTask for NoteWrite {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        let query = match self {
            Self::Add(pair, note) => {
                // The literal kind selects the partial index.
                let insert = "INSERT INTO messages (message_id, conversation_id, phone_number_id, direction, kind, body, \
                    content, status, sender, came_us, changed_us) \
                    SELECT $1, conversation_id, phone_number_id, $2, $3, $4, $5, $6, $7, $8, $8 FROM conversations \
                    WHERE conversation_id = $9 AND \
                    (SELECT count(*) FROM messages m WHERE m.conversation_id = $9 AND m.kind = 'note') < $10";
                sql::query(insert)
                    .bind(note.id.to_string())
                    .bind(note.direction.as_str())
                    .bind(NOTE)
                    .bind(&note.text)
                    .bind(note.content.to_string())
                    .bind(note.status.as_str())
                    .bind(&note.sender)
                    .bind(note.at.micros())
                    .bind(pair.conversation.to_string())
                    .bind(NOTES_MAX)
            }
            Self::Delete(conversation, note) => {
                let delete = "DELETE FROM messages WHERE message_id = $1 AND conversation_id = $2 AND kind = 'note'";
                sql::query(delete).bind(note.to_string()).bind(conversation.to_string())
            }
        };
        async move { Ok(query.execute(to).await?.rows_affected()) }.boxed()
    }
}
