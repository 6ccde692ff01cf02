//! Counts of outbound requests and of refused calls from all nodes by minute, for metrics that
//! survive a restart. Counts are added to existing rows, and rows expire.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::error::{StoreError, failed};
use crate::seal::Seal;
use crate::shared::Shared;
use crate::sql::{self, Conn, Row};
use crate::write::WriteTask;
use model::Timestamp;

const MINUTE_US: i64 = 60_000_000;
const WHAT: &str = "read numbers of requests";

/// Handle to the request counts. See [`Store::request_counts`](crate::Store::request_counts).
#[derive(Clone, Copy, Debug)]
pub struct RequestCounts<'a>(pub(crate) &'a Shared);

impl RequestCounts<'_> {
    /// Adds requests to the counts of the minute that contains `at`.
    ///
    /// # Errors
    /// Fails if the database rejects the write. Then nothing was added.
    pub async fn add(self, at: Timestamp, counts: Vec<RequestCount>) -> Result<(), StoreError> {
        let minute = at.micros().div_euclid(MINUTE_US).saturating_mul(MINUTE_US);
        self.0.queue.run(AddCounts { minute, counts }).await.map(drop)
    }

    /// Returns the request counts from `from` to `to`, by kind and outcome.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn sums(
        self,
        (from, to): (Timestamp, Timestamp),
    ) -> Result<Vec<RequestCount>, StoreError> {
        let select = "SELECT target, kind, outcome, failed, CAST(sum(requests) AS BIGINT) AS requests \
            FROM request_counts WHERE at_us >= $1 AND at_us < $2 \
            GROUP BY target, kind, outcome, failed ORDER BY target, kind, outcome";
        let select = sql::query(select).bind(from.micros()).bind(to.micros());
        let rows = select.fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
        rows.iter().map(count).collect::<Result<_, _>>().map_err(failed(WHAT))
    }

    /// Returns the number of requests of a kind since the minute that contains `from`.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn since(
        self,
        target: RequestTarget,
        kind: &str,
        from: Timestamp,
    ) -> Result<u64, StoreError> {
        let select = "SELECT CAST(coalesce(sum(requests), 0) AS BIGINT) FROM request_counts \
            WHERE target = $1 AND kind = $2 AND at_us > $3";
        let select = sql::query_scalar::<i64>(select).bind(target.as_str()).bind(kind.to_owned());
        let select = select.bind(from.micros().saturating_sub(MINUTE_US));
        let sum = select.fetch_one(&self.0.read).await.map_err(failed(WHAT))?;
        Ok(u64::try_from(sum).unwrap_or_default())
    }

    /// Returns the minutes from `from` to `to` with failed requests, with the number of failures in
    /// each.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn failures(
        self,
        target: RequestTarget,
        (from, to): (Timestamp, Timestamp),
    ) -> Result<Vec<(Timestamp, u64)>, StoreError> {
        let select = "SELECT at_us, CAST(sum(requests) AS BIGINT) FROM request_counts \
            WHERE target = $1 AND failed = 1 AND at_us >= $2 AND at_us < $3 GROUP BY at_us ORDER BY at_us";
        let select = sql::query_as(select).bind(target.as_str());
        let select = select.bind(from.micros()).bind(to.micros());
        let rows: Vec<(i64, i64)> = select.fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
        let minute = |(at, requests): (i64, i64)| {
            (Timestamp::from_micros(at), u64::try_from(requests).unwrap_or_default())
        };
        Ok(rows.into_iter().map(minute).collect())
    }

    /// Deletes the counts of minutes before `before`.
    ///
    /// # Errors
    /// Fails if the database rejects the write.
    pub async fn delete_older(self, before: Timestamp) -> Result<(), StoreError> {
        self.0.queue.run(DeleteCounts(before)).await.map(drop)
    }
}

/// The kind of server that a request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestTarget {
    /// URLs of customers.
    Customer,
    /// Meta's Graph API.
    Graph,
    /// The operator's language model. The kind is the main account that used it.
    Model,
    /// The node itself: calls that it refused. The kind is the direction and the business number,
    /// with a space between them, and the outcome is the reason.
    Admission,
}

impl RequestTarget {
    fn as_str(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Graph => "graph",
            Self::Model => "model",
            Self::Admission => "admission",
        }
    }
}

/// The number of requests of one kind with one outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestCount {
    pub target: RequestTarget,
    pub kind: String,
    pub outcome: String,
    /// Whether the outcome is a failure.
    pub failed: bool,
    pub requests: u64,
}

struct AddCounts {
    minute: i64,
    counts: Vec<RequestCount>,
}

impl WriteTask for AddCounts {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        async move {
            let mut changed = 0;
            for count in &self.counts {
                let insert = "INSERT INTO request_counts (at_us, target, kind, outcome, failed, requests) \
                    VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (at_us, target, kind, outcome) \
                    DO UPDATE SET requests = request_counts.requests + excluded.requests";
                let insert = sql::query(insert)
                    .bind(self.minute)
                    .bind(count.target.as_str())
                    .bind(&count.kind)
                    .bind(&count.outcome)
                    .bind(i64::from(count.failed))
                    .bind(i64::try_from(count.requests).unwrap_or(i64::MAX));
                changed += insert.execute(&mut *to).await?.rows_affected();
            }
            Ok(changed)
        }
        .boxed()
    }
}

struct DeleteCounts(Timestamp);

impl WriteTask for DeleteCounts {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        async move {
            let delete = sql::query("DELETE FROM request_counts WHERE at_us < $1");
            Ok(delete.bind(self.0.micros()).execute(to).await?.rows_affected())
        }
        .boxed()
    }
}

fn count(row: &Row) -> Result<RequestCount, sqlx::Error> {
    let target: String = row.try_get("target")?;
    Ok(RequestCount {
        target: match target.as_str() {
            "graph" => RequestTarget::Graph,
            "model" => RequestTarget::Model,
            "admission" => RequestTarget::Admission,
            _ => RequestTarget::Customer,
        },
        kind: row.try_get("kind")?,
        outcome: row.try_get("outcome")?,
        failed: row.try_get::<i64, _>("failed")? != 0,
        requests: u64::try_from(row.try_get::<i64, _>("requests")?).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use model::Health;

    #[tokio::test]
    async fn adds_requests_to_those_of_their_minute() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        let count = |target, outcome: &str, requests| RequestCount {
            target,
            kind: "accept".to_owned(),
            outcome: outcome.to_owned(),
            failed: outcome != "200",
            requests,
        };
        let (graph, counts) = (RequestTarget::Graph, store.request_counts());
        let at = Timestamp::from_secs;
        counts.add(at(61), vec![count(graph, "200", 3), count(graph, "500", 1)]).await.unwrap();
        counts.add(at(119), vec![count(graph, "500", 1)]).await.unwrap();
        let customer = count(RequestTarget::Customer, "timeout", 7);
        counts.add(at(120), vec![customer.clone(), count(graph, "500", 4)]).await.unwrap();
        let all = (at(0), at(1_000));
        assert_eq!(
            counts.sums(all).await.unwrap(),
            [customer, count(graph, "200", 3), count(graph, "500", 6)]
        );
        assert_eq!(counts.failures(graph, all).await.unwrap(), [(at(60), 2), (at(120), 4)]);
        counts.delete_older(at(120)).await.unwrap();
        assert_eq!(counts.failures(graph, all).await.unwrap(), [(at(120), 4)]);
    }
}
