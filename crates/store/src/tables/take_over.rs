//! The work of a node whose name has changed.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::seal::Seal;
use crate::sql::{self, Conn};
use crate::write::WriteTask;

/// The statements, with the name of the node as their parameter. The last sign of life of the others
/// becomes its own, because their calls are taken to have ended then.
const STATEMENTS: &[&str] = &[
    "INSERT INTO nodes (node_id, alive_us) SELECT $1, max(alive_us) FROM nodes HAVING count(*) > 0 \
        ON CONFLICT (node_id) DO UPDATE SET alive_us = max(nodes.alive_us, excluded.alive_us)",
    "DELETE FROM nodes WHERE node_id <> $1",
    "UPDATE calls SET node_id = $1 WHERE ended_us IS NULL AND node_id <> $1",
    "UPDATE calls SET farewell_node = $1 WHERE farewell_us IS NOT NULL AND coalesce(farewell_node, node_id) <> $1",
    "UPDATE multi_party_calls_open SET node_id = $1 WHERE node_id <> $1",
    "UPDATE recordings SET node_id = $1 WHERE node_id <> $1",
    "UPDATE callbacks SET node_id = $1 WHERE next_us IS NOT NULL AND node_id <> $1",
    "UPDATE messages SET node_id = $1 WHERE status = 'queued' AND wamid IS NULL AND node_id <> $1",
    "UPDATE turns SET node_id = $1 WHERE node_id <> $1",
];

/// Gives the unfinished work and the recordings of all other nodes in a SQLite file to this one.
pub(crate) struct TakeOver {
    pub(crate) node_id: String,
}

impl WriteTask for TakeOver {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        let statements = STATEMENTS.iter().map(|text| sql::query(*text).bind(&self.node_id));
        let statements: Vec<_> = statements.collect();
        async move {
            let outcomes = sql::execute_each(to, statements).await?;
            Ok(outcomes.iter().map(|outcome| outcome.changed).sum())
        }
        .boxed()
    }
}
