//! Call records: their rows and the queries over them.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::error::{RowError, StoreError, failed, parse_word};
use crate::rows::call::{
    CallEnd, CallRecord, CallStart, Conclusion, ConclusionResult, FarewellDue, Orphan,
};
use crate::scope::{Scope, push_scope};
use crate::shared::Shared;
use crate::sql::{self, Conn, Dialect, Pool, Query, QueryBuilder, Row};
use crate::tables::call_logs;
use crate::write::Write;
use machine::{CallSetup, GraphAction};
use model::{CallUuid, Direction, Timestamp, Wacid};

/// Handle to the call records. See [`Store::calls`](crate::Store::calls).
#[derive(Clone, Copy, Debug)]
pub struct Calls<'a>(pub(crate) &'a Shared);

impl Calls<'_> {
    /// Records an admitted call and its set-up, which a later process needs to report the end of
    /// the call if this one dies. A queued outbound call is recorded again when it is placed. `born`
    /// is monotonic time. Does not wait for the write. Returns
    /// `false` if the queue is full; the call must not start then. If the record is lost anyway,
    /// [`Calls::conclude`] restores it.
    #[must_use]
    pub fn begin(self, start: CallStart, setup: &CallSetup, born: Timestamp) -> bool {
        self.0.queue.begin_call(start, setup, born)
    }

    /// Records Meta's id of an outbound call. Does not wait for the write. If the call has ended
    /// already, Graph must be asked to end it: the request is due at `farewell`, unless the call's
    /// end is confirmed earlier.
    pub fn set_wacid(self, call: CallUuid, wacid: Wacid, farewell: Timestamp) {
        self.0.queue.bind_call(call, wacid, farewell);
    }

    /// Records that an open call was answered. Does not wait for the write.
    pub fn set_answered(self, call: CallUuid, at: Timestamp) {
        self.0.queue.post(Write::CallAnswered(call, at));
    }

    /// Records a node's heartbeat, in monotonic time. Calls of a crashed node lasted at least until
    /// its last heartbeat. Does not wait for the write.
    pub fn heartbeat(self, node_id: &str, at: Timestamp) {
        self.0.queue.post(Write::Heartbeat(node_id.to_owned(), at));
    }

    /// Closes the record of a call and adds the callbacks that report its end to the outbox, in one
    /// synced transaction. If the call has already ended, nothing is written.
    ///
    /// The write is queued when this returns. If it goes to the journal, the callbacks are sent
    /// once the database has them. The future waits while neither the database nor the journal
    /// accepts it.
    ///
    /// # Errors
    /// Fails with [`StoreError::Closed`] if the store was closed first.
    pub fn conclude(
        self,
        conclusion: Conclusion,
    ) -> impl Future<Output = Result<ConclusionResult, StoreError>> + Send + 'static + use<> {
        self.0.queue.request(|sender| Write::CallEnded(Box::new(conclusion), sender))
    }

    /// Returns ended calls for which the request to end them at Graph is due.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn due_farewells(
        self,
        node_id: &str,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<FarewellDue>, StoreError> {
        farewells(&self.0.read, node_id, now, limit).await
    }

    /// Records that Graph has confirmed the end of a call, or sets the time of the next attempt.
    /// Does not wait for the write.
    pub fn settle_farewell(self, call: CallUuid, again: Option<Timestamp>) {
        self.0.queue.post(Write::SettleFarewell(call, again));
    }

    /// Makes requests to Graph that an earlier process of this node left behind due now. Does not
    /// wait for the write.
    pub fn take_over_farewells(self, node_id: &str) {
        self.0.queue.post(Write::TakeOverFarewells(node_id.to_owned()));
    }

    /// Returns a call, ended or not.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn get(
        self,
        scope: &Scope,
        call: CallUuid,
    ) -> Result<Option<CallRecord>, StoreError> {
        one(&self.0.read, scope, call).await
    }

    /// Returns up to two calls whose UUIDs are in a range, ended or not.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn in_range(
        self,
        scope: &Scope,
        range: &RangeInclusive<CallUuid>,
    ) -> Result<Vec<CallRecord>, StoreError> {
        const WHAT: &str = "find a call";
        let mut query = select(COLUMNS, scope);
        query.push(" AND call_uuid >= ").push_bind(range.start().to_string());
        query.push(" AND call_uuid <= ").push_bind(range.end().to_string()).push(" LIMIT 2");
        let rows = query.build().fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
        rows.iter().map(|row| record(WHAT, row)).collect()
    }

    /// Returns lines of a call's event log with their numbers, after the number `after` or from the
    /// start. Returns no lines if the scope has no such call.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn events(
        self,
        scope: &Scope,
        call: CallUuid,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<(u64, String)>, StoreError> {
        if after.is_none() {
            // The latest lines may still be in the queue.
            self.0.queue.flush().await;
        }
        if one(&self.0.read, scope, call).await?.is_none() {
            return Ok(Vec::new());
        }
        call_logs::read(&self.0.read, call, after, usize::try_from(limit).unwrap_or(usize::MAX))
            .await
    }

    /// Returns the open calls of a node that a crash left behind.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn orphans(self, node_id: &str) -> Result<Vec<Orphan>, StoreError> {
        orphans(&self.0.read, node_id).await
    }

    /// Returns a call in the form of an orphan, whether or not it has ended.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn as_orphan(self, call: CallUuid) -> Result<Option<Orphan>, StoreError> {
        const WHAT: &str = "read the call of a participant";
        let mut query = orphan_select();
        query.push("call_uuid = ").push_bind(call.to_string());
        let row = query.build().fetch_optional(&self.0.read).await.map_err(failed(WHAT))?;
        row.map(|row| orphan(WHAT, &row)).transpose()
    }
}

pub(crate) const COLUMNS: &str = "call_uuid, auth_id, main_auth_id, direction, call_type, from_number, to_number, caller_name, \
    wacid, phone_number_id, parent_call_uuid, node_id, started_us, ended_us, answered_us, duration_secs, bill_secs, \
    meta_duration_secs, hangup_code, hangup_name, hangup_source, hangup_word, cause, remarks, findings, quality, \
    conference_uuid, answer_ms, agent_id";

fn select(columns: &str, scope: &Scope) -> QueryBuilder {
    let mut query = QueryBuilder::new(format!("SELECT {columns} FROM calls WHERE "));
    push_scope(&mut query, scope);
    query
}

pub(crate) async fn one(
    pool: &Pool,
    scope: &Scope,
    call: CallUuid,
) -> Result<Option<CallRecord>, StoreError> {
    const WHAT: &str = "read a call";
    let mut query = select(COLUMNS, scope);
    query.push(" AND call_uuid = ").push_bind(call.to_string());
    let row = query.build().fetch_optional(pool).await.map_err(failed(WHAT))?;
    row.map(|row| record(WHAT, &row)).transpose()
}

/// Returns the latest calls of all accounts, ended or not, newest first. For the command-line
/// tools.
pub(crate) async fn latest(pool: &Pool, limit: u32) -> Result<Vec<CallRecord>, StoreError> {
    const WHAT: &str = "list calls";
    let mut query = QueryBuilder::new(format!(
        "SELECT {COLUMNS} FROM calls ORDER BY started_us DESC, call_uuid LIMIT "
    ));
    query.push_bind(i64::from(limit));
    let rows = query.build().fetch_all(pool).await.map_err(failed(WHAT))?;
    rows.iter().map(|row| record(WHAT, row)).collect()
}

/// Returns the event log of a call of any account, or `None` if the call does not exist. For the
/// command-line tools.
pub(crate) async fn whole_log(
    pool: &Pool,
    call: CallUuid,
) -> Result<Option<Vec<String>>, StoreError> {
    const WHAT: &str = "read an event log";
    let known = sql::query("SELECT 1 FROM calls WHERE call_uuid = $1").bind(call.to_string());
    if known.fetch_optional(pool).await.map_err(failed(WHAT))?.is_none() {
        return Ok(None);
    }
    let lines = call_logs::read(pool, call, None, usize::MAX).await?;
    Ok(Some(lines.into_iter().map(|(_, line)| line).collect()))
}

pub(crate) async fn orphans(pool: &Pool, node_id: &str) -> Result<Vec<Orphan>, StoreError> {
    const WHAT: &str = "find calls left open";
    let mut query = orphan_select();
    query.push("ended_us IS NULL AND node_id = ").push_bind(node_id).push(" ORDER BY started_us");
    let rows = query.build().fetch_all(pool).await.map_err(failed(WHAT))?;
    rows.iter().map(|row| orphan(WHAT, row)).collect()
}

fn orphan_select() -> QueryBuilder {
    QueryBuilder::new(format!(
        "SELECT {COLUMNS}, setup, born_us, (SELECT alive_us FROM nodes n WHERE n.node_id = calls.node_id) AS alive_us \
        FROM calls WHERE "
    ))
}

fn orphan(what: &'static str, row: &Row) -> Result<Orphan, StoreError> {
    let record = record(what, row)?;
    let number = |column: &str| row.try_get::<Option<i64>, _>(column).ok().flatten();
    let setup = row.try_get::<Option<String>, _>("setup").ok().flatten();
    let lived =
        number("alive_us").zip(number("born_us")).map(|(alive, born)| alive.saturating_sub(born));
    Ok(Orphan {
        start: record.start,
        setup: setup.and_then(|json| serde_json::from_str(&json).ok()),
        answered: number("answered_us").map(Timestamp::from_micros),
        lived: Duration::from_micros(
            lived.and_then(|micros| u64::try_from(micros).ok()).unwrap_or_default(),
        ),
    })
}

pub(crate) async fn farewells(
    pool: &Pool,
    node_id: &str,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<FarewellDue>, StoreError> {
    const WHAT: &str = "find calls to end at Graph";
    let select = "SELECT call_uuid, wacid, phone_number_id, farewell, ended_us, farewell_tries FROM calls \
        WHERE farewell_us <= $2 AND coalesce(farewell_node, node_id) = $1 AND wacid IS NOT NULL ORDER BY farewell_us LIMIT $3";
    let rows = sql::query(select).bind(node_id).bind(now.micros()).bind(i64::from(limit));
    let rows = rows.fetch_all(pool).await.map_err(failed(WHAT))?;
    let due = |row: &Row| -> Result<FarewellDue, RowError> {
        Ok(FarewellDue {
            call: row.try_get::<String, _>("call_uuid")?.parse()?,
            wacid: row.try_get::<String, _>("wacid")?.into(),
            phone_number_id: row.try_get::<String, _>("phone_number_id")?.into(),
            action: parse_word(&row.try_get::<String, _>("farewell")?)?,
            ended: Timestamp::from_micros(row.try_get("ended_us")?),
            tries: row.try_get::<Option<u32>, _>("farewell_tries")?.unwrap_or_default(),
        })
    };
    rows.iter()
        .map(|row| {
            due(row).map_err(|e| StoreError::Unreadable { what: WHAT, detail: e.to_string() })
        })
        .collect()
}

/// Records that Graph has confirmed the end of a call, or the time of the next attempt.
pub(crate) async fn farewell(
    to: &mut Conn,
    call: CallUuid,
    again: Option<Timestamp>,
) -> Result<(), sqlx::Error> {
    let update = "UPDATE calls SET farewell_us = $2, farewell_tries = coalesce(farewell_tries, 0) + $3 \
        WHERE call_uuid = $1 AND farewell_us IS NOT NULL";
    let again = again.map(Timestamp::micros);
    let update =
        sql::query(update).bind(call.to_string()).bind(again).bind(i64::from(again.is_some()));
    update.execute(to).await.map(drop)
}

/// Makes requests to Graph that an earlier process of this node left behind due now.
pub(crate) async fn farewells_due(to: &mut Conn, node_id: &str) -> Result<(), sqlx::Error> {
    let update = "UPDATE calls SET farewell_us = 0 \
        WHERE farewell_us IS NOT NULL AND coalesce(farewell_node, node_id) = $1";
    sql::query(update).bind(node_id).execute(to).await.map(drop)
}

/// Records a node's heartbeat.
pub(crate) async fn alive(to: &mut Conn, node_id: &str, at: Timestamp) -> Result<(), sqlx::Error> {
    let upsert = "INSERT INTO nodes (node_id, alive_us) VALUES ($1, $2) \
        ON CONFLICT (node_id) DO UPDATE SET alive_us = excluded.alive_us";
    sql::query(upsert).bind(node_id).bind(at.micros()).execute(to).await.map(drop)
}

/// Records when open calls were answered.
pub(crate) async fn record_answered(
    to: &mut Conn,
    calls: &[(CallUuid, Timestamp)],
) -> Result<(), sqlx::Error> {
    let update = "UPDATE calls SET answered_us = $2 WHERE call_uuid = $1 AND ended_us IS NULL";
    let updates =
        calls.iter().map(|(call, at)| sql::query(update).bind(call.to_string()).bind(at.micros()));
    sql::execute_each(to, updates).await.map(drop)
}

/// Records Meta's id of an outbound call.
pub(crate) async fn record_wacid(
    to: &mut Conn,
    call: CallUuid,
    wacid: &Wacid,
    farewell: Timestamp,
) -> Result<(), sqlx::Error> {
    let update = "UPDATE calls SET wacid = $2, \
        farewell = CASE WHEN ended_us IS NULL THEN farewell ELSE $3 END, \
        farewell_us = CASE WHEN ended_us IS NULL THEN farewell_us ELSE $4 END WHERE call_uuid = $1";
    let update = sql::query(update).bind(call.to_string()).bind(wacid.as_str());
    let update = update.bind(GraphAction::Terminate.as_str()).bind(farewell.micros());
    update.execute(to).await.map(drop)
}

/// The columns of an open call from which its end is derived after a crash.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OpenCall<'a> {
    /// JSON of the set-up.
    pub(crate) setup: &'a str,
    /// Monotonic time.
    pub(crate) born: Timestamp,
}

/// Inserts the row of a call unless it exists. See [`insert_all`].
pub(crate) async fn insert(
    to: &mut Conn,
    start: &CallStart,
    open: Option<OpenCall<'_>>,
) -> Result<(), sqlx::Error> {
    insert_all(to, &[(start, open)]).await.map(drop)
}

/// Inserts the rows of several calls. A call that has a row as a queued one starts now. Returns the
/// calls that have no row because another node of a fleet has a call with the same id at Meta.
pub(crate) async fn insert_all(
    to: &mut Conn,
    starts: &[(&CallStart, Option<OpenCall<'_>>)],
) -> Result<Vec<CallUuid>, sqlx::Error> {
    const INSERT: (&str, usize, &str) = (
        "INSERT INTO calls (call_uuid, auth_id, main_auth_id, direction, call_type, from_number, to_number, \
        caller_name, wacid, phone_number_id, parent_call_uuid, node_id, started_us, setup, born_us) ",
        15,
        " ON CONFLICT DO NOTHING",
    );
    let row = |mut row: sql::Values<'_>, (s, open): &(&CallStart, Option<OpenCall<'_>>)| {
        row.push_bind(s.call.to_string())
            .push_bind(s.account.as_str())
            .push_bind(s.main_account.as_str())
            .push_bind(s.direction.as_str())
            .push_bind(s.call_type.as_str())
            .push_bind(&s.from)
            .push_bind(&s.to)
            .push_bind(&s.caller_name)
            .push_bind(s.wacid.as_ref().map(Wacid::as_str))
            .push_bind(s.phone_number_id.as_str())
            .push_bind(s.parent_call.map(|c| c.to_string()))
            .push_bind(&s.node_id)
            .push_bind(s.started.micros())
            .push_bind(open.as_ref().map(|b| b.setup))
            .push_bind(open.as_ref().map(|b| b.born.micros()));
    };
    let mut inserted = 0;
    for insert in sql::insert_statements(INSERT, starts, row) {
        inserted += insert.execute(&mut *to).await?.rows_affected();
    }
    if usize::try_from(inserted).is_ok_and(|inserted| inserted == starts.len()) {
        return Ok(Vec::new());
    }
    place_queued(to, starts).await?;
    if to.dialect() == Dialect::Sqlite {
        return Ok(Vec::new());
    }
    let missing = "SELECT s.id FROM unnest(string_to_array($1, ' ')) AS s (id) \
        WHERE NOT EXISTS (SELECT 1 FROM calls c WHERE c.call_uuid = s.id)";
    let ids: Vec<String> = starts.iter().map(|(start, _)| start.call.to_string()).collect();
    let missing: Vec<String> = sql::query_scalar(missing).bind(ids.join(" ")).fetch_all(to).await?;
    Ok(missing.iter().filter_map(|id| id.parse().ok()).collect())
}

/// Updates the rows of outbound calls that have waited in a queue: they start when they are placed.
async fn place_queued(
    to: &mut Conn,
    starts: &[(&CallStart, Option<OpenCall<'_>>)],
) -> Result<(), sqlx::Error> {
    let update = "UPDATE calls SET started_us = $2, setup = $3, born_us = $4 \
        WHERE call_uuid = $1 AND direction = 'outbound' AND ended_us IS NULL AND started_us < $2";
    let updates = starts.iter().filter_map(|(start, open)| {
        let open = open.as_ref().filter(|_| start.direction == Direction::Outbound)?;
        let update = sql::query(update).bind(start.call.to_string()).bind(start.started.micros());
        Some(update.bind(open.setup).bind(open.born.micros()))
    });
    sql::execute_each(to, updates).await.map(drop)
}

/// Closes the rows of calls that have not ended. The result is `false` for a call that had already
/// ended. Callbacks that report an end must be inserted in the same transaction, and only if the
/// result is `true`.
pub(crate) async fn close(
    to: &mut Conn,
    ends: impl IntoIterator<Item = &Conclusion>,
) -> Result<Vec<bool>, sqlx::Error> {
    let updates = ends.into_iter().map(closing);
    Ok(sql::execute_each(to, updates).await?.iter().map(|done| done.changed > 0).collect())
}

fn closing(conclusion: &Conclusion) -> Query<Row> {
    let Conclusion { start, end: e, farewell, .. } = conclusion;
    let update = "UPDATE calls SET ended_us = $2, answered_us = $3, duration_secs = $4, bill_secs = $5, \
        meta_duration_secs = $6, hangup_code = $7, hangup_name = $8, hangup_source = $9, hangup_word = $10, \
        cause = $11, remarks = $12, findings = $13, farewell = $14, farewell_us = $15, quality = $16, \
        conference_uuid = $17, answer_ms = $18, agent_id = $19, mos_hundredths = $20, \
        wacid = coalesce(wacid, $21), setup = NULL, born_us = NULL WHERE call_uuid = $1 AND ended_us IS NULL";
    sql::query(update)
        .bind(start.call.to_string())
        .bind(e.ended.micros())
        .bind(e.answered.map(Timestamp::micros))
        .bind(signed(e.duration_secs))
        .bind(signed(e.bill_secs))
        .bind(e.meta_duration_secs.map(signed))
        .bind(i64::from(e.hangup_code))
        .bind(&e.hangup_name)
        .bind(&e.hangup_source)
        .bind(&e.hangup_word)
        .bind(&e.cause)
        .bind(sqlx::types::Json(&e.remarks))
        .bind(sqlx::types::Json(&e.findings))
        .bind(farewell.map(|f| f.action.as_str()))
        .bind(farewell.map(|f| f.due.micros()))
        .bind(e.quality.as_ref().map(sqlx::types::Json))
        .bind(e.conference.map(|conference| conference.to_string()))
        .bind(e.answer_ms.map(signed))
        .bind(e.agent.map(|agent| agent.to_string()))
        .bind(e.mos_hundredths())
        // The write of an outbound call's id may have been lost.
        .bind(start.wacid.as_ref().map(Wacid::as_str))
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(crate) fn record(what: &'static str, row: &Row) -> Result<CallRecord, StoreError> {
    read(row).map_err(|e| StoreError::Unreadable { what, detail: e.to_string() })
}

fn read(row: &Row) -> Result<CallRecord, RowError> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let maybe_text = |column: &str| row.try_get::<Option<String>, _>(column);
    let number = |column: &str| row.try_get::<Option<i64>, _>(column);
    let unsigned = |column: &str| number(column).map(|n| n.and_then(|n| u64::try_from(n).ok()));
    let start = CallStart {
        call: text("call_uuid")?.parse()?,
        account: text("auth_id")?.into(),
        main_account: text("main_auth_id")?.into(),
        direction: parse_word(&text("direction")?)?,
        call_type: parse_word(&text("call_type")?)?,
        from: text("from_number")?,
        to: text("to_number")?,
        caller_name: text("caller_name")?,
        wacid: maybe_text("wacid")?.map(Wacid::from),
        phone_number_id: text("phone_number_id")?.into(),
        parent_call: maybe_text("parent_call_uuid")?.map(|c| c.parse()).transpose()?,
        node_id: text("node_id")?,
        started: Timestamp::from_micros(row.try_get("started_us")?),
    };
    let Some(ended) = number("ended_us")?.map(Timestamp::from_micros) else {
        return Ok(CallRecord { start, end: None });
    };
    let end = CallEnd {
        ended,
        answered: number("answered_us")?.map(Timestamp::from_micros),
        duration_secs: unsigned("duration_secs")?.unwrap_or_default(),
        bill_secs: unsigned("bill_secs")?.unwrap_or_default(),
        meta_duration_secs: unsigned("meta_duration_secs")?,
        hangup_code: u16::try_from(number("hangup_code")?.unwrap_or_default())?,
        hangup_name: text("hangup_name")?,
        hangup_source: text("hangup_source")?,
        hangup_word: text("hangup_word")?,
        cause: text("cause")?,
        remarks: row.try_get::<sqlx::types::Json<_>, _>("remarks")?.0,
        findings: row.try_get::<sqlx::types::Json<_>, _>("findings")?.0,
        quality: row
            .try_get::<Option<sqlx::types::Json<_>>, _>("quality")?
            .map(|quality| quality.0),
        conference: maybe_text("conference_uuid")?.map(|id| id.parse()).transpose()?,
        answer_ms: unsigned("answer_ms")?,
        agent: maybe_text("agent_id")?.map(|id| id.parse()).transpose()?,
    };
    Ok(CallRecord { start, end: Some(end) })
}
