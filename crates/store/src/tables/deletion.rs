//! How a person's rows go: some at a time, so that no call's write waits for them, and so that nothing of them is left in the file.
//! SQLite overwrites what is deleted (`secure_delete`, set in `open`); what its write-ahead log still has goes by
//! [`Store::scrub`]. PostgreSQL has no such thing (docs/operations.md).

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::error::StoreError;
use crate::seal::Seal;
use crate::shared::Shared;
use crate::sql::{self, Conn};
use crate::write::Deed;
use model::{CallUuid, Timestamp};

impl Shared {
    async fn delete_all(&self, some: impl Fn() -> Few) -> Result<(), StoreError> {
        while self.queue.run(some()).await? >= u64::from(AT_ONCE) {}
        Ok(())
    }

    /// What tells of a call: its log and callbacks.
    pub(crate) async fn delete_telling_of(&self, call: &str) -> Result<(), StoreError> {
        self.delete_all(|| Few::Lines(call.to_owned())).await?;
        self.delete_all(|| Few::Said(call.to_owned())).await?;
        // One that goes out meanwhile is among those that are done then.
        self.delete_all(|| Few::Waiting(call.to_owned())).await?;
        self.delete_all(|| Few::Done(call.to_owned())).await?;
        self.delete_all(|| Few::Events(call.to_owned(), Timestamp::MAX)).await
    }

    /// What a conversation holds, but for its own row.
    pub(crate) async fn delete_within(&self, conversation: Uuid) -> Result<(), StoreError> {
        self.delete_messages(conversation, Timestamp::MAX).await?;
        self.delete_events(conversation, Timestamp::MAX).await
    }

    /// A conversation's messages that came until then.
    pub(crate) async fn delete_messages(
        &self,
        conversation: Uuid,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        self.delete_all(|| Few::Messages(conversation.to_string(), until)).await
    }

    /// What webhooks were or are to be told of a conversation, and was noted until then.
    pub(crate) async fn delete_events(
        &self,
        conversation: Uuid,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        self.delete_all(|| Few::Events(conversation.to_string(), until)).await
    }

    /// The lines of a call's log that wait are written, and what tells of the call is gone.
    ///
    /// # Errors
    /// The store takes nothing now; some may be gone.
    pub(crate) async fn delete_calls(
        &self,
        calls: &[String],
        call: CallUuid,
    ) -> Result<(), StoreError> {
        for one in calls {
            self.delete_telling_of(one).await?;
        }
        self.delete_telling_of(&call.to_string()).await
    }
}

/// Rows in one write.
const AT_ONCE: u32 = 500;

/// Some rows of a call, or of a conversation.
enum Few {
    Lines(String),
    /// What was said in a call that is up, or was.
    Said(String),
    /// Of a call, by the index of those that wait, and of those that are done.
    Waiting(String),
    Done(String),
    /// Of a conversation, or a call's; until then.
    Events(String, Timestamp),
    Messages(String, Timestamp),
}

impl Few {
    fn delete(&self) -> (&'static str, &str) {
        match self {
            Self::Lines(call) => (
                "DELETE FROM call_events WHERE call_uuid = $1 AND seq IN \
                 (SELECT seq FROM call_events WHERE call_uuid = $1 ORDER BY seq LIMIT $2)",
                call,
            ),
            Self::Said(call) => (
                "DELETE FROM call_said WHERE call_uuid = $1 AND seq IN \
                 (SELECT seq FROM call_said WHERE call_uuid = $1 ORDER BY seq LIMIT $2)",
                call,
            ),
            Self::Waiting(call) => (
                "DELETE FROM callbacks WHERE id IN \
                 (SELECT id FROM callbacks WHERE call_uuid = $1 AND next_us IS NOT NULL LIMIT $2)",
                call,
            ),
            Self::Done(call) => (
                "DELETE FROM callbacks WHERE id IN (SELECT id FROM callbacks WHERE call_uuid = $1 \
                 AND done_us IS NOT NULL AND event IS NULL LIMIT $2)",
                call,
            ),
            Self::Events(of, _) => (
                "DELETE FROM callbacks WHERE id IN \
                 (SELECT id FROM callbacks WHERE call_uuid = $1 AND event IS NOT NULL AND created_us <= $3 LIMIT $2)",
                of,
            ),
            Self::Messages(conversation, _) => (
                "DELETE FROM messages WHERE message_id IN \
                 (SELECT message_id FROM messages WHERE conversation_id = $1 AND came_us <= $3 LIMIT $2)",
                conversation,
            ),
        }
    }

    fn until(&self) -> Option<Timestamp> {
        match self {
            Self::Lines(_) | Self::Said(_) | Self::Waiting(_) | Self::Done(_) => None,
            Self::Events(_, until) | Self::Messages(_, until) => Some(*until),
        }
    }
}

impl Deed for Few {
    fn carry_out<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        let (delete, of) = self.delete();
        let mut delete = sql::query(delete).bind(of).bind(AT_ONCE);
        if let Some(until) = self.until() {
            delete = delete.bind(until.micros());
        }
        async move { Ok(delete.execute(to).await?.rows_affected()) }.boxed()
    }
}
