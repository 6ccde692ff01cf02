//! How a person's rows go: some at a time, so that no call's write waits for them, and so that nothing of them is left in the file.
//! SQLite overwrites what is deleted (`secure_delete`, set in `open`); what its write-ahead log still has goes by
//! [`Store::scrub`]. PostgreSQL has no such thing (docs/operations.md).

use crate::database::Database;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::error::{StoreError, failed};
use crate::seal::Seal;
use crate::sql::connect::beside_a_node;
use crate::sql::{self, Conn};
use crate::store::Store;
use crate::write::Deed;
use model::{CallUuid, Timestamp};

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

impl Store {
    async fn all_of(&self, some: impl Fn() -> Few) -> Result<(), StoreError> {
        while self.log.deed(some()).await? >= u64::from(AT_ONCE) {}
        Ok(())
    }

    /// What tells of a call: its log and callbacks.
    pub(crate) async fn erase_telling_of(&self, call: &str) -> Result<(), StoreError> {
        self.all_of(|| Few::Lines(call.to_owned())).await?;
        self.all_of(|| Few::Said(call.to_owned())).await?;
        // One that goes out meanwhile is among those that are done then.
        self.all_of(|| Few::Waiting(call.to_owned())).await?;
        self.all_of(|| Few::Done(call.to_owned())).await?;
        self.all_of(|| Few::Events(call.to_owned(), Timestamp::MAX)).await
    }

    /// What a conversation holds, but for its own row.
    pub(crate) async fn erase_within(&self, conversation: Uuid) -> Result<(), StoreError> {
        self.erase_messages(conversation, Timestamp::MAX).await?;
        self.erase_events(conversation, Timestamp::MAX).await
    }

    /// A conversation's messages that came until then.
    pub(crate) async fn erase_messages(
        &self,
        conversation: Uuid,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        self.all_of(|| Few::Messages(conversation.to_string(), until)).await
    }

    /// What webhooks were or are to be told of a conversation, also of one that is not there, and was noted until then
    /// by the steady clock.
    ///
    /// # Errors
    /// The store takes nothing now; some may be gone.
    pub async fn erase_events(
        &self,
        conversation: Uuid,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        self.all_of(|| Few::Events(conversation.to_string(), until)).await
    }

    /// The lines of a call's log that wait are written, and what tells of the call is gone.
    ///
    /// # Errors
    /// The store takes nothing now; some may be gone.
    pub(crate) async fn erase_calls(
        &self,
        calls: &[String],
        call: CallUuid,
    ) -> Result<(), StoreError> {
        for one in calls {
            self.erase_telling_of(one).await?;
        }
        self.erase_telling_of(&call.to_string()).await
    }

    /// Empties the file of calls that begin, and SQLite's write-ahead log into its file: what was overwritten there is nowhere any
    /// more. `false`: a call began, or somebody read meanwhile, and it is to be tried again.
    ///
    /// # Errors
    /// The store's.
    pub async fn scrub(&self) -> Result<bool, StoreError> {
        const WHAT: &str = "empty the store's logs";
        let emptied = self.log.births_emptied().map_err(|e| failed(WHAT)(sqlx::Error::Io(e)))?;
        let Database::File(_) = &*self.at else { return Ok(emptied) };
        let pool = beside_a_node(&self.at, false).await?;
        let done: Result<(i64, i64, i64), _> =
            sql::query_as("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&pool).await;
        pool.close().await;
        let (busy, ..) = done.map_err(failed(WHAT))?;
        Ok(emptied && busy == 0)
    }
}
