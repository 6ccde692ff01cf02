//! Rows whose due time was set while the system's clock was ahead of today's time. At a start, they
//! are made due, since they would otherwise wait for that time.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::seal::Seal;
use crate::sql::{self, Conn};
use crate::write::WriteTask;
use model::Timestamp;

/// Makes rows due `now` that are due after `latest`.
pub(crate) struct BringForward {
    /// Statements about the rows of a node, with the parameters `now`, `latest` and the node.
    pub(crate) of_node: &'static [&'static str],
    /// Statements about rows that belong to no node, with the parameters `now` and `latest`.
    pub(crate) of_no_node: &'static [&'static str],
    pub(crate) node_id: String,
    pub(crate) latest: Timestamp,
    pub(crate) now: Timestamp,
}

impl WriteTask for BringForward {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        let times = |update: &&'static str| {
            sql::query(*update).bind(self.now.micros()).bind(self.latest.micros())
        };
        let of_node = self.of_node.iter().map(times).map(|update| update.bind(&self.node_id));
        let updates: Vec<_> = of_node.chain(self.of_no_node.iter().map(times)).collect();
        async move {
            let outcomes = sql::execute_each(to, updates).await?;
            Ok(outcomes.iter().map(|outcome| outcome.changed).sum())
        }
        .boxed()
    }
}
