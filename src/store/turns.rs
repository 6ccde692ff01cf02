//! Agents' turns that are owed: a user's message that an agent is to answer stands here from the transaction that stored it
//! until it was answered, or will not be. What is left of a process that ended is taken up by the next one.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::deed::Deed;
use super::seal::Seal;
use super::sql::{self, Conn, Pool};
use super::{Store, StoreError, failed};
use crate::model::Timestamp;

/// A turn that is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwedTurn {
    /// The user's message.
    pub message: Uuid,
    pub agent: Uuid,
    /// The conversation's when the message came.
    pub epoch: u64,
    pub came: Timestamp,
}

/// Who owes what: whose row it is, and the node that answers.
pub(super) async fn owe(to: &mut Conn, turn: &OwedTurn, conversation: Uuid, node_id: &str) -> Result<(), sqlx::Error> {
    let insert = "INSERT INTO agent_turns (message_id, conversation_id, agent, epoch, node_id, came_us) \
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (message_id) DO NOTHING";
    let insert = sql::query(insert)
        .bind(turn.message.to_string())
        .bind(conversation.to_string())
        .bind(turn.agent.to_string())
        .bind(i64::try_from(turn.epoch).unwrap_or(i64::MAX))
        .bind(node_id)
        .bind(turn.came.micros());
    insert.execute(to).await.map(drop)
}

/// It is owed no more; `false`: it was not.
pub(super) async fn settle(to: &mut Conn, message: Uuid) -> Result<bool, sqlx::Error> {
    let delete = sql::query("DELETE FROM agent_turns WHERE message_id = $1").bind(message.to_string());
    Ok(delete.execute(to).await?.rows_affected() > 0)
}

/// A conversation's are owed no more.
pub(super) async fn forget(to: &mut Conn, conversation: Uuid) -> Result<(), sqlx::Error> {
    let delete = sql::query("DELETE FROM agent_turns WHERE conversation_id = $1").bind(conversation.to_string());
    delete.execute(to).await.map(drop)
}

/// A node's, the oldest first.
async fn owed(pool: &Pool, node_id: &str, limit: u32) -> Result<Vec<OwedTurn>, StoreError> {
    const WHAT: &str = "read the turns that agents owe";
    let select =
        "SELECT message_id, agent, epoch, came_us FROM agent_turns WHERE node_id = $1 ORDER BY came_us LIMIT $2";
    let select = sql::query_as(select).bind(node_id).bind(i64::from(limit));
    let rows: Vec<(String, String, i64, i64)> = select.fetch_all(pool).await.map_err(failed(WHAT))?;
    let turn = |(message, agent, epoch, came): (String, String, i64, i64)| {
        Some(OwedTurn {
            message: message.parse().ok()?,
            agent: agent.parse().ok()?,
            epoch: u64::try_from(epoch).ok()?,
            came: Timestamp::from_micros(came),
        })
    };
    Ok(rows.into_iter().filter_map(turn).collect())
}

/// A turn that is owed no more.
struct Settled(Uuid);

impl Deed for Settled {
    fn carry_out<'a>(&'a self, to: &'a mut Conn, _: &'a Seal) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        async move { settle(to, self.0).await.map(u64::from) }.boxed()
    }
}

impl Store {
    /// Turns that this node's agents owe since an earlier process, the oldest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn owed_turns(&self, node_id: &str, limit: u32) -> Result<Vec<OwedTurn>, StoreError> {
        owed(&self.read, node_id, limit).await
    }

    /// A turn is owed no more: it was answered, or will not be.
    ///
    /// # Errors
    /// The store's; then it is taken up once more by the next process.
    pub async fn turn_settled(&self, message: Uuid) -> Result<(), StoreError> {
        self.log.deed(Settled(message)).await.map(drop)
    }
}
