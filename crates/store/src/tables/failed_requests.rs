//! Requests to URLs of customers that failed. Rows are added and expire; nothing changes them.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::error::{StoreError, failed};
use crate::page::NewestFirst;
use crate::scope::{Scope, push_scope};
use crate::seal::Seal;
use crate::shared::Shared;
use crate::sql::{self, Conn, QueryBuilder, Row};
use crate::tables::expiry::ExpiringTable;
use crate::write::WriteTask;
use model::{AuthId, CallUuid, Timestamp};

/// Handle to failed requests. See [`Store::failed_requests`](crate::Store::failed_requests).
#[derive(Clone, Copy, Debug)]
pub struct FailedRequests<'a>(pub(crate) &'a Shared);

impl FailedRequests<'_> {
    /// Adds a request. It is written soon, or lost if the store's queue is full. The event log of
    /// the call contains it in any case.
    pub fn insert(self, request: FailedRequest) {
        let _ = self.0.queue.try_run(AddRequest(request));
    }

    /// Deletes requests from before `before`, and the oldest ones of accounts that have too many.
    ///
    /// # Errors
    /// Fails if a query fails or the database rejects a write. Some requests may be deleted then.
    pub async fn delete_older(self, before: Timestamp) -> Result<(), StoreError> {
        TABLE.delete(self.0, before).await
    }

    /// Groups the requests of the scope since a time by URL and kind, the group with the latest
    /// request first. Counts only the latest 10,000 requests.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn groups(
        self,
        scope: &Scope,
        since: Timestamp,
    ) -> Result<Vec<FailedRequestGroup>, StoreError> {
        let mut select = QueryBuilder::new(
            "SELECT kind, url, count(*) AS requests, count(DISTINCT call_uuid) AS calls, \
             max(at_us) AS last_us FROM (SELECT kind, url, call_uuid, at_us \
             FROM failed_requests WHERE ",
        );
        push_scope(&mut select, scope);
        select.push(" AND at_us >= ").push_bind(since.micros());
        select.push(" ORDER BY at_us DESC LIMIT ").push_bind(i64::from(GROUPED));
        select.push(") AS latest GROUP BY kind, url ORDER BY last_us DESC, url, kind LIMIT ");
        select.push_bind(i64::from(GROUPS_MAX));
        let rows = select.build().fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
        let group = |row: &Row| -> Result<FailedRequestGroup, sqlx::Error> {
            let count = |column| row.try_get::<i64, _>(column).map(i64::unsigned_abs);
            Ok(FailedRequestGroup {
                kind: row.try_get("kind")?,
                url: row.try_get("url")?,
                requests: count("requests")?,
                calls: count("calls")?,
                last: Timestamp::from_micros(row.try_get("last_us")?),
            })
        };
        rows.iter().map(group).collect::<Result<_, _>>().map_err(failed(WHAT))
    }

    /// Returns the times of the latest requests of the scope from `from` to `to`, newest first.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn times(
        self,
        scope: &Scope,
        (from, to): (Timestamp, Timestamp),
        limit: u32,
    ) -> Result<Vec<Timestamp>, StoreError> {
        let mut select = QueryBuilder::new("SELECT at_us FROM failed_requests WHERE ");
        push_scope(&mut select, scope);
        select.push(" AND at_us >= ").push_bind(from.micros());
        select.push(" AND at_us < ").push_bind(to.micros());
        select.push(" ORDER BY at_us DESC LIMIT ").push_bind(i64::from(limit));
        let times = select.build_query_scalar().fetch_all(&self.0.read).await;
        let times: Vec<i64> = times.map_err(failed(WHAT))?;
        Ok(times.into_iter().map(Timestamp::from_micros).collect())
    }

    /// Returns requests of the scope, newest first.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn list(
        self,
        scope: &Scope,
        filter: &FailedRequestFilter,
        limit: u32,
    ) -> Result<Vec<FailedRequest>, StoreError> {
        let mut select = QueryBuilder::new(format!("SELECT {COLUMNS} FROM failed_requests WHERE "));
        push_scope(&mut select, scope);
        for (column, value) in [("kind", &filter.kind), ("url", &filter.url)] {
            if let Some(value) = value {
                select.push(format!(" AND {column} = ")).push_bind(value.clone());
            }
        }
        if let Some(since) = filter.since {
            select.push(" AND at_us >= ").push_bind(since.micros());
        }
        ORDER.push(&mut select, filter.before, limit);
        let rows = select.build().fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
        rows.iter().map(request).collect()
    }
}

/// A request to a URL of a customer that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedRequest {
    pub id: Uuid,
    /// The account and its main account, which may be the same.
    pub account: AuthId,
    pub main_account: AuthId,
    pub at: Timestamp,
    pub call: CallUuid,
    /// The request's label in the waterfall of the call.
    pub kind: String,
    pub method: String,
    /// The URL without query and credentials.
    pub url: String,
    /// The outcome, in words.
    pub outcome: String,
    pub attempts: u32,
    /// The beginning of the response, if it is text, and has an error status or is a refused
    /// document.
    pub response: Option<String>,
}

/// Failed requests with the same URL and kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedRequestGroup {
    pub kind: String,
    pub url: String,
    pub requests: u64,
    pub calls: u64,
    /// Time of the latest failure.
    pub last: Timestamp,
}

/// Selects failed requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailedRequestFilter {
    pub kind: Option<String>,
    pub url: Option<String>,
    /// Only requests from this time on.
    pub since: Option<Timestamp>,
    /// Only requests after this one in the list, which are older.
    pub before: Option<(Timestamp, Uuid)>,
}

const ORDER: NewestFirst = NewestFirst { time: "at_us", id: "request_id" };

/// Number of requests that are grouped.
const GROUPED: u32 = 10_000;
const GROUPS_MAX: u32 = 200;
const TABLE: ExpiringTable = ExpiringTable {
    name: "failed_requests",
    id: "request_id",
    time: "at_us",
    rows: "TRUE",
    group: &["main_auth_id"],
    max: 100_000,
};

const COLUMNS: &str = "request_id, auth_id, main_auth_id, at_us, call_uuid, kind, method, url, outcome, attempts, \
     response";

const WHAT: &str = "read failed requests";

/// Adds a request.
struct AddRequest(FailedRequest);

impl WriteTask for AddRequest {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        add(to, &self.0).boxed()
    }
}

async fn add(to: &mut Conn, request: &FailedRequest) -> Result<u64, sqlx::Error> {
    let insert = format!(
        "INSERT INTO failed_requests ({COLUMNS}) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING"
    );
    let insert = sql::query(insert)
        .bind(request.id.to_string())
        .bind(request.account.as_str())
        .bind(request.main_account.as_str())
        .bind(request.at.micros())
        .bind(request.call.to_string());
    let insert = insert
        .bind(&request.kind)
        .bind(&request.method)
        .bind(&request.url)
        .bind(&request.outcome)
        .bind(i64::from(request.attempts))
        .bind(&request.response);
    Ok(insert.execute(to).await?.rows_affected())
}

fn request(row: &Row) -> Result<FailedRequest, StoreError> {
    let text = |column: &str| row.try_get::<String, _>(column).map_err(failed(WHAT));
    let unreadable = |e: uuid::Error| StoreError::Unreadable { what: WHAT, detail: e.to_string() };
    let attempts: i64 = row.try_get("attempts").map_err(failed(WHAT))?;
    Ok(FailedRequest {
        id: text("request_id")?.parse().map_err(unreadable)?,
        account: text("auth_id")?.into(),
        main_account: text("main_auth_id")?.into(),
        at: Timestamp::from_micros(row.try_get("at_us").map_err(failed(WHAT))?),
        call: text("call_uuid")?.parse().map_err(unreadable)?,
        kind: text("kind")?,
        method: text("method")?,
        url: text("url")?,
        outcome: text("outcome")?,
        attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
        response: row.try_get("response").map_err(failed(WHAT))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use model::Health;

    #[tokio::test]
    async fn failed_requests_are_grouped_and_listed_within_their_account_and_expire() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        let secs = Timestamp::from_secs;
        for (n, account, main, url) in [
            (1_u8, "MA1", "MA1", "https://a.test/answer"),
            (2, "SA1", "MA1", "https://a.test/answer"),
            (3, "MA1", "MA1", "https://b.test/answer"),
            (4, "MA2", "MA2", "https://a.test/answer"),
        ] {
            let call = Uuid::from_u128(u128::from(n % 2)).to_string().parse().unwrap();
            store.failed_requests().insert(FailedRequest {
                id: Uuid::from_u128(n.into()),
                account: account.into(),
                main_account: main.into(),
                at: secs(n.into()),
                call,
                kind: "fetch answer".to_owned(),
                method: "POST".to_owned(),
                url: url.to_owned(),
                outcome: "503".to_owned(),
                attempts: 2,
                response: Some("down".to_owned()),
            });
        }
        store.flush().await;
        let groups = async |scope: &str, since| {
            let groups = store.failed_requests().groups(&Scope::of(scope.into()), since).await;
            let groups = groups.unwrap().into_iter();
            groups.map(|g| (g.url, g.requests, g.calls, g.last.secs())).collect::<Vec<_>>()
        };
        let (a, b) = ("https://a.test/answer".to_owned(), "https://b.test/answer".to_owned());
        assert_eq!(groups("MA1", secs(0)).await, [(b.clone(), 1, 1, 3), (a.clone(), 2, 2, 2)]);
        assert_eq!(groups("MA1", secs(3)).await, [(b, 1, 1, 3)]);
        assert_eq!(groups("SA1", secs(0)).await, [(a.clone(), 1, 1, 2)]);
        let ids = async |scope: &str, filter: FailedRequestFilter| {
            let list = store.failed_requests().list(&Scope::of(scope.into()), &filter, 9).await;
            list.unwrap().iter().map(|request| request.id.as_u128()).collect::<Vec<_>>()
        };
        let of_a = FailedRequestFilter { url: Some(a), ..Default::default() };
        assert_eq!(ids("MA1", of_a.clone()).await, [2, 1]);
        let before = Some((secs(2), Uuid::from_u128(2)));
        assert_eq!(ids("MA1", FailedRequestFilter { before, ..of_a }).await, [1]);
        assert_eq!(ids("MA2", FailedRequestFilter::default()).await, [4]);
        // Requests of an erased call are deleted with it.
        let erased = Uuid::from_u128(1).to_string().parse().unwrap();
        store.shared.delete_calls(&[], erased).await.unwrap();
        assert_eq!(ids("MA1", FailedRequestFilter::default()).await, [2]);
        store.failed_requests().delete_older(secs(3)).await.unwrap();
        assert_eq!(ids("MA1", FailedRequestFilter::default()).await, [0_u128; 0]);
        store.close().await;
    }
}
