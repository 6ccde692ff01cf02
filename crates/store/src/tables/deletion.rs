//! Deletion of a user's rows in small batches, so that writes of calls need not wait.
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
use crate::write::WriteTask;
use model::{CallUuid, Timestamp};

impl Shared {
    async fn delete_all(&self, some: impl Fn() -> DeleteRows) -> Result<(), StoreError> {
        while self.queue.run(some()).await? >= u64::from(BATCH) {}
        Ok(())
    }

    /// Deletes the event log, transcript, failed requests, callbacks and events of a call.
    pub(crate) async fn delete_call_data(&self, call: &str) -> Result<(), StoreError> {
        self.delete_all(|| DeleteRows::Lines(call.to_owned())).await?;
        self.delete_all(|| DeleteRows::Transcript(call.to_owned())).await?;
        self.delete_all(|| DeleteRows::FailedRequests(call.to_owned())).await?;
        // A waiting callback that is delivered during this step is deleted by the next one.
        self.delete_all(|| DeleteRows::Waiting(call.to_owned())).await?;
        self.delete_all(|| DeleteRows::Done(call.to_owned())).await?;
        self.delete_all(|| DeleteRows::Events(call.to_owned(), Timestamp::MAX)).await
    }

    /// Deletes the messages and events of a conversation, but not its row.
    pub(crate) async fn delete_conversation_data(
        &self,
        conversation: Uuid,
    ) -> Result<(), StoreError> {
        self.delete_messages(conversation, Timestamp::MAX).await?;
        self.delete_events(conversation, Timestamp::MAX).await
    }

    /// Deletes the messages of a conversation that were received or sent up to `until`.
    pub(crate) async fn delete_messages(
        &self,
        conversation: Uuid,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        self.delete_all(|| DeleteRows::Messages(conversation.to_string(), until)).await
    }

    /// Deletes the webhook events about a conversation that were created up to `until`.
    pub(crate) async fn delete_events(
        &self,
        conversation: Uuid,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        self.delete_all(|| DeleteRows::Events(conversation.to_string(), until)).await
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
            self.delete_call_data(one).await?;
        }
        self.delete_call_data(&call.to_string()).await
    }
}

/// Number of rows deleted in one write.
const BATCH: u32 = 500;

/// A limited number of rows of a call or conversation.
enum DeleteRows {
    Lines(String),
    /// Transcript of a call.
    Transcript(String),
    /// Failed requests of a call. They may quote documents and responses.
    FailedRequests(String),
    /// Waiting and finished callbacks of a call. Each kind has its own index.
    Waiting(String),
    Done(String),
    /// Webhook events about a conversation or call, created up to a time.
    Events(String, Timestamp),
    Messages(String, Timestamp),
}

impl DeleteRows {
    fn delete(&self) -> (&'static str, &str) {
        match self {
            Self::Lines(call) => (
                "DELETE FROM call_logs WHERE call_uuid = $1 AND seq IN \
                 (SELECT seq FROM call_logs WHERE call_uuid = $1 ORDER BY seq LIMIT $2)",
                call,
            ),
            Self::Transcript(call) => (
                "DELETE FROM call_said WHERE call_uuid = $1 AND seq IN \
                 (SELECT seq FROM call_said WHERE call_uuid = $1 ORDER BY seq LIMIT $2)",
                call,
            ),
            Self::FailedRequests(call) => (
                "DELETE FROM failed_requests WHERE request_id IN \
                 (SELECT request_id FROM failed_requests WHERE call_uuid = $1 LIMIT $2)",
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
            Self::Lines(_)
            | Self::Transcript(_)
            | Self::FailedRequests(_)
            | Self::Waiting(_)
            | Self::Done(_) => None,
            Self::Events(_, until) | Self::Messages(_, until) => Some(*until),
        }
    }
}

impl WriteTask for DeleteRows {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        let (delete, of) = self.delete();
        let mut delete = sql::query(delete).bind(of).bind(BATCH);
        if let Some(until) = self.until() {
            delete = delete.bind(until.micros());
        }
        async move { Ok(delete.execute(to).await?.rows_affected()) }.boxed()
    }
}
