//! Messages that AI agents must answer. A row is written in the transaction of the user's message
//! and deleted in that of the reply. So no reply gets lost in a restart or a full mailbox, and none
//! is sent twice.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use model::AuthId;
use uuid::Uuid;

use crate::error::{RowError, StoreError, failed};
use crate::owner::run_of_owner;
use crate::rows::conversation::{Pair, RoutingState};
use crate::rows::message::{AfterReply, AnsweredMessage, Message, TimelineEntry};
use crate::seal::Seal;
use crate::shared::Shared;
use crate::sql::{self, Conn, QueryBuilder, Row};
use crate::tables::readers::{MESSAGE, message, pair};
use crate::write::WriteTask;

/// Handle to the messages that AI agents must answer. See [`Store::turns`](crate::Store::turns).
#[derive(Clone, Copy, Debug)]
pub struct Turns<'a>(pub(crate) &'a Shared);

impl Turns<'_> {
    /// Removes the pending reply to a message.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. The reply is still
    /// pending then.
    pub async fn finish(self, message: Uuid) -> Result<(), StoreError> {
        self.0.queue.run(Finish(message)).await.map(drop)
    }

    /// Returns the run that owns the pending reply to a message. `None` if there is none.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn owner(self, message: Uuid) -> Result<Option<Uuid>, StoreError> {
        const WHAT: &str = "read the owner of a pending reply";
        let select = sql::query("SELECT node_id FROM turns WHERE message_id = $1");
        let row = select.bind(message.to_string()).fetch_optional(&self.0.read).await;
        let Some(row) = row.map_err(failed(WHAT))? else { return Ok(None) };
        let owner: String = row.try_get("node_id").map_err(failed(WHAT))?;
        Ok(run_of_owner(&owner))
    }

    /// Returns the pending replies of a node's agents after the position `after`, oldest first,
    /// except those of the main accounts `without`.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn pending(
        self,
        node: &str,
        after: (i64, Uuid),
        without: &[AuthId],
        limit: u32,
    ) -> Result<Vec<PendingReply>, StoreError> {
        const WHAT: &str = "read pending replies";
        let mut select = QueryBuilder::new(format!(
            "SELECT {MESSAGE}, c.auth_id, c.main_auth_id, c.number, c.phone_number_id, c.user_id, c.bsuid, c.name, \
             t.agent AS agent, t.epoch AS epoch, t.then_do AS then_do \
             FROM turns t JOIN messages m ON m.message_id = t.message_id \
             JOIN conversations c ON c.conversation_id = t.conversation_id \
             WHERE t.node_id = "
        ));
        select.push_bind(node).push(" AND (t.came_us, t.message_id) > (").push_bind(after.0);
        select.push(", ").push_bind(after.1.to_string()).push(")");
        if !without.is_empty() {
            select.push(" AND c.main_auth_id NOT").push_in(without.iter().map(AuthId::as_str));
        }
        select.push(" ORDER BY t.came_us, t.message_id LIMIT ").push_bind(i64::from(limit));
        let rows = select.build().fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
        let unreadable = |e: RowError| StoreError::Unreadable { what: WHAT, detail: e.to_string() };
        rows.iter().map(|row| pending_reply(row).map_err(unreadable)).collect()
    }
}

/// A message that an AI agent must answer.
#[derive(Clone, Debug, PartialEq)]
pub struct PendingReply {
    pub pair: Pair,
    pub message: Message,
    pub agent: Uuid,
    pub epoch: u64,
    /// The remaining step, if the reply is already stored.
    pub then: Option<AfterReply>,
}

/// Stores that the message must be answered, if an AI agent answers the conversation.
pub(crate) async fn insert_pending(
    to: &mut Conn,
    entry: &TimelineEntry,
    standing: &RoutingState,
) -> Result<(), sqlx::Error> {
    let (true, Some(agent), Some(node_id)) =
        (standing.ai_enabled, standing.routing.agent(), &entry.turn)
    else {
        return Ok(());
    };
    // The conversation's row is locked. In a fleet, the member that has pending replies of the
    // conversation gets this one, too, so that they are sent in order.
    let owner = match run_of_owner(node_id) {
        None => "$5",
        Some(_) => {
            "COALESCE((SELECT t.node_id FROM turns t JOIN runs r ON t.node_id = r.node_id || '/' || r.run::text \
             WHERE t.conversation_id = $2 AND r.state IN ('up', 'draining') ORDER BY t.came_us, t.message_id LIMIT 1), $5)"
        }
    };
    let insert = format!(
        "INSERT INTO turns (message_id, conversation_id, agent, epoch, node_id, came_us) \
         VALUES ($1, $2, $3, $4, {owner}, $6) ON CONFLICT (message_id) DO NOTHING"
    );
    let insert = sql::query(insert)
        .bind(entry.message.id.to_string())
        .bind(entry.pair.conversation.to_string());
    let insert =
        insert.bind(agent.to_string()).bind(i64::try_from(standing.epoch).unwrap_or(i64::MAX));
    insert.bind(node_id).bind(entry.message.at.micros()).execute(to).await.map(drop)
}

/// Records the reply. Returns `false` if the message was already answered, or if no reply is
/// pending.
pub(crate) async fn record_reply(
    to: &mut Conn,
    answers: &AnsweredMessage,
) -> Result<bool, sqlx::Error> {
    let done = match answers.then {
        None => {
            sql::query("DELETE FROM turns WHERE message_id = $1 AND then_do IS NULL")
                .bind(answers.message.to_string())
                .execute(to)
                .await?
        }
        Some(then) => {
            sql::query("UPDATE turns SET then_do = $2 WHERE message_id = $1 AND then_do IS NULL")
                .bind(answers.message.to_string())
                .bind(then.as_str())
                .execute(to)
                .await?
        }
    };
    Ok(done.rows_affected() > 0)
}

/// Removes the pending reply to a message.
struct Finish(Uuid);

impl WriteTask for Finish {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        async move {
            let delete =
                sql::query("DELETE FROM turns WHERE message_id = $1").bind(self.0.to_string());
            Ok(delete.execute(to).await?.rows_affected())
        }
        .boxed()
    }
}

fn pending_reply(row: &Row) -> Result<PendingReply, RowError> {
    let message = message(row)?;
    Ok(PendingReply {
        pair: pair(message.conversation, row)?,
        agent: row.try_get::<String, _>("agent")?.parse()?,
        epoch: u64::try_from(row.try_get::<i64, _>("epoch")?).unwrap_or_default(),
        then: row.try_get::<Option<String>, _>("then_do")?.map(|word| AfterReply::parse(&word)),
        message,
    })
}
