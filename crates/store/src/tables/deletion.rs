//! Deletion of a user's rows in small batches, so that the writes of calls don't have to wait.
//!
//! SQLite overwrites deleted rows (`secure_delete`, set in `sql::connect`). Copies in its
//! write-ahead log are removed by [`Erasures::scrub`](crate::Erasures::scrub). PostgreSQL does not
//! overwrite deleted rows.

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

    /// Deletes the event log, transcript, callbacks and events of a call.
    pub(crate) async fn delete_telling_of(&self, call: &str) -> Result<(), StoreError> {
        self.delete_all(|| Few::Lines(call.to_owned())).await?;
        self.delete_all(|| Few::Said(call.to_owned())).await?;
        // A waiting callback that is delivered during this step is deleted by the next one.
        self.delete_all(|| Few::Waiting(call.to_owned())).await?;
        self.delete_all(|| Few::Done(call.to_owned())).await?;
        self.delete_all(|| Few::Events(call.to_owned(), Timestamp::MAX)).await
    }

    /// Deletes the messages and events of a conversation, but not its row.
    pub(crate) async fn delete_within(&self, conversation: Uuid) -> Result<(), StoreError> {
        self.delete_messages(conversation, Timestamp::MAX).await?;
        self.delete_events(conversation, Timestamp::MAX).await
    }

    /// Deletes the messages of a conversation that came up to `until`.
    pub(crate) async fn delete_messages(
        &self,
        conversation: Uuid,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        self.delete_all(|| Few::Messages(conversation.to_string(), until)).await
    }

    /// Deletes the webhook events about a conversation that were created up to `until`.
    pub(crate) async fn delete_events(
        &self,
        conversation: Uuid,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        self.delete_all(|| Few::Events(conversation.to_string(), until)).await
    }

    /// Deletes the event logs, transcripts, callbacks and events of a call and of the calls in
    /// `calls`.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects a write. Some rows may be
    /// deleted then.
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

/// Number of rows deleted in one write.
const AT_ONCE: u32 = 500;

/// A limited number of rows of a call or conversation.
enum Few {
    Lines(String),
    /// Transcript of a call.
    Said(String),
    /// Waiting and finished callbacks of a call. Each kind has its own index.
    Waiting(String),
    Done(String),
    /// Webhook events about a conversation or call, created up to a time.
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
