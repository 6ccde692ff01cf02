//! Outbound calls of a fleet that wait because of their account's calls per second.
//!
//! The owner of a row is the process that has the call in its queue. Before it places the call, it
//! deletes the row ([`WaitingCalls::take`]), so the call is placed at most once. If the process
//! dies, a survivor becomes the owner of the remaining rows.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::Serialize;
use uuid::Uuid;

use crate::error::{RowError, StoreError, failed};
use crate::rows::call::CallStart;
use crate::seal::Seal;
use crate::shared::Shared;
use crate::sql::{self, Conn, Row};
use crate::write::WriteTask;
use machine::CallSetup;
use model::{CallUuid, Timestamp};

/// Maximum number of rows that one statement adopts.
const PAGE: u32 = 500;

/// Handle to the waiting calls. See [`Store::waiting_calls`](crate::Store::waiting_calls).
#[derive(Clone, Copy, Debug)]
pub struct WaitingCalls<'a>(pub(crate) &'a Shared);

/// An outbound call to be queued.
#[derive(Clone, Debug)]
pub struct NewWaitingCall {
    pub setup: CallSetup,
    /// Minimum time before the call is placed.
    pub delay: Duration,
    /// The id of the engagement of the called user.
    pub engagement: Option<Uuid>,
}

/// A waiting call of another process that this one has adopted.
#[derive(Clone, Debug, PartialEq)]
pub struct AdoptedCall {
    pub setup: CallSetup,
    /// Time that the call has waited so far.
    pub waited: Duration,
    /// The rest of its delay.
    pub delay: Duration,
    pub engagement: Option<Uuid>,
}

impl WaitingCalls<'_> {
    /// Writes the waiting rows and open records of the calls of one request, which belong to one
    /// account. Returns `false` and writes nothing if more than `max` calls of the account would
    /// wait in the fleet. `born` is monotonic time.
    ///
    /// # Errors
    /// Fails if the database query fails. The calls may be written nevertheless.
    pub async fn insert(
        self,
        owner: &str,
        calls: &[NewWaitingCall],
        born: Timestamp,
        max: usize,
    ) -> Result<bool, StoreError> {
        let Some(account) = calls.first().map(|call| &call.setup.account) else { return Ok(true) };
        let rows: Vec<WaitingRow> = calls.iter().map(|call| WaitingRow::of(call, owner)).collect();
        // One statement: it holds the account's lock for one round trip.
        let insert = sql::query_scalar("SELECT oh1_enqueue($1, $2, $3, $4, $5::jsonb)")
            .bind(owner)
            .bind(account.as_str())
            .bind(i64::try_from(max).unwrap_or(i64::MAX))
            .bind(born.micros())
            .bind(sqlx::types::Json(&rows));
        insert.fetch_one(&self.0.read).await.map_err(failed("write waiting calls"))
    }

    /// Removes a call from its owner's queue, in order to place it. Returns `false` if the call is
    /// not in that queue.
    ///
    /// # Errors
    /// Fails if the database query fails. The call may be taken nevertheless.
    pub async fn take(self, owner: &str, call: CallUuid) -> Result<bool, StoreError> {
        let delete = "DELETE FROM waiting_calls WHERE call_uuid = $1 AND node_id = $2";
        let delete = sql::query(delete).bind(call.to_string()).bind(owner);
        let done = delete.execute(&self.0.read).await.map_err(failed("take a waiting call"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Deletes the row of a call that has ended. Does not wait for the write: a row of an ended call
    /// has no effect.
    pub fn remove(self, call: CallUuid) {
        drop(self.0.queue.run(RemoveWaiting(call)));
    }

    /// Transfers waiting calls from one owner to another, which is the run `run`, and returns them.
    /// Call it until it returns none. `born` is the time of the new owner's monotonic clock.
    ///
    /// # Errors
    /// Fails if the database query fails. The calls may be adopted nevertheless.
    pub async fn adopt(
        self,
        theirs: &str,
        mine: &str,
        run: Option<Uuid>,
        born: Timestamp,
    ) -> Result<Vec<AdoptedCall>, StoreError> {
        const WHAT: &str = "adopt waiting calls";
        // The first part locks the rows, so that each call has one new owner.
        let adopt = format!(
            "WITH mine AS (UPDATE waiting_calls SET node_id = $2 WHERE call_uuid IN (\
                SELECT w.call_uuid FROM waiting_calls w JOIN calls o ON o.call_uuid = w.call_uuid \
                WHERE w.node_id = $1 AND o.ended_us IS NULL ORDER BY w.seq LIMIT {PAGE} FOR UPDATE OF w SKIP LOCKED) \
                RETURNING call_uuid, seq, engagement, due), \
            adopted AS (UPDATE calls SET node_id = $2, born_us = $4 FROM mine \
                WHERE calls.call_uuid = mine.call_uuid AND ended_us IS NULL RETURNING calls.call_uuid, setup), \
            engaged AS (UPDATE engagements e SET run = $3::uuid FROM mine \
                WHERE e.engagement = mine.engagement AND $3 IS NOT NULL) \
            SELECT {ADOPTED} FROM mine JOIN adopted a ON a.call_uuid = mine.call_uuid ORDER BY seq"
        );
        let query = sql::query(adopt)
            .bind(theirs)
            .bind(mine)
            .bind(run.map(|run| run.to_string()))
            .bind(born.micros());
        let rows = query.fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
        rows.iter().map(|row| adopted_call(row).map_err(unreadable(WHAT))).collect()
    }

    /// Returns the waiting calls of an owner.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn of(self, owner: &str) -> Result<Vec<AdoptedCall>, StoreError> {
        const WHAT: &str = "read waiting calls";
        let select = format!(
            "SELECT {ADOPTED} FROM waiting_calls w JOIN calls a ON a.call_uuid = w.call_uuid \
            WHERE w.node_id = $1 AND ended_us IS NULL ORDER BY seq"
        );
        let rows = sql::query(select).bind(owner).fetch_all(&self.0.read).await;
        let rows = rows.map_err(failed(WHAT))?;
        rows.iter().map(|row| adopted_call(row).map_err(unreadable(WHAT))).collect()
    }
}

/// Columns of an [`AdoptedCall`].
const ADOPTED: &str = "setup, engagement::text AS engagement, \
    (extract(epoch FROM clock_timestamp() - due) * 1000)::bigint AS waited_ms";

fn unreadable(what: &'static str) -> impl Fn(RowError) -> StoreError {
    move |error| StoreError::Unreadable { what, detail: error.to_string() }
}

fn adopted_call(row: &Row) -> Result<AdoptedCall, RowError> {
    let setup: String = row.try_get("setup")?;
    let engagement: Option<String> = row.try_get("engagement")?;
    let since: i64 = row.try_get("waited_ms")?;
    let millis = |millis| Duration::from_millis(u64::try_from(millis).unwrap_or_default());
    Ok(AdoptedCall {
        setup: serde_json::from_str(&setup)?,
        engagement: engagement.map(|id| id.parse()).transpose()?,
        waited: millis(since),
        delay: millis(since.saturating_neg()),
    })
}

/// The row of a waiting call and its record, as the SQL function `oh1_enqueue` reads them.
#[derive(Serialize)]
struct WaitingRow {
    call_uuid: String,
    main_auth_id: String,
    call_type: &'static str,
    from_number: String,
    to_number: String,
    caller_name: String,
    phone_number_id: String,
    parent_call_uuid: Option<String>,
    started_us: i64,
    setup: String,
    engagement: Option<String>,
    delay_ms: i64,
}

impl WaitingRow {
    fn of(call: &NewWaitingCall, owner: &str) -> Self {
        let start = CallStart::of(&call.setup, owner);
        Self {
            call_uuid: start.call.to_string(),
            main_auth_id: start.main_account.as_str().to_owned(),
            call_type: start.call_type.as_str(),
            from_number: start.from,
            to_number: start.to,
            caller_name: start.caller_name,
            phone_number_id: start.phone_number_id.as_str().to_owned(),
            parent_call_uuid: start.parent_call.map(|call| call.to_string()),
            started_us: start.started.micros(),
            setup: serde_json::to_string(&call.setup).unwrap_or_default(),
            engagement: call.engagement.map(|id| id.to_string()),
            delay_ms: i64::try_from(call.delay.as_millis()).unwrap_or(i64::MAX),
        }
    }
}

struct RemoveWaiting(CallUuid);

impl WriteTask for RemoveWaiting {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        let delete = sql::query("DELETE FROM waiting_calls WHERE call_uuid = $1");
        let delete = delete.bind(self.0.to_string());
        async move { Ok(delete.execute(to).await?.rows_affected()) }.boxed()
    }

    fn is_synced(&self) -> bool {
        false
    }
}
