//! The outbox: callbacks to be delivered, and the results of their delivery.
//!
//! A row is waiting as long as it has a due time. Of the rows with the same call and URL, only the
//! oldest is handed out, so these are delivered in order. The hangup callback of a call follows the
//! call's other callbacks, and the end of a multi-party call follows the callbacks of all its
//! members. Handing out a row does not change it: the process that delivers it remembers it, and
//! after a crash the row is still due.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use uuid::Uuid;

use crate::database::Database;
use crate::error::{RowError, StoreError, failed, parse_word};
use crate::rows::callback::{
    Callback, CallbackRow, CallbackState, CallbackView, DeliveryOutcome, NewCallback, NumberEvent,
    QueuedCallback, Settlement, is_secret,
};
use crate::rows::message;
use crate::scope::{self, Scope};
use crate::seal::Seal;
use crate::shared::Shared;
use crate::sql::connect::open_store_beside_node;
use crate::sql::{self, Conn, Dialect, Outcome, Pool, Query, Row, TupleRow};
use crate::tables::bring_forward::BringForward;
use crate::tables::deliveries::{OF_NUMBER, Receiver};
use crate::write::Write;
use machine::{CallbackKind, CallbackRequest, EVENT_TYPE, MPC_END, Param, Params};
use model::{AuthId, CallUuid, Timestamp};
use xml::ast::DocUrl;

/// Handle to the outbox. See [`Store::outbox`](crate::Store::outbox).
#[derive(Clone, Copy, Debug)]
pub struct Outbox<'a>(pub(crate) &'a Shared);

impl Outbox<'_> {
    /// Adds a callback. It may be sent once the future completes. The write is queued when this
    /// returns.
    ///
    /// # Errors
    /// Fails with [`StoreError::Closed`] if the store was closed first, and with
    /// [`StoreError::Journalled`] if the write went to the journal. The callback is sent later
    /// then.
    pub fn insert(
        self,
        callback: NewCallback,
    ) -> impl Future<Output = Result<QueuedCallback, StoreError>> + Send + 'static + use<> {
        let queued = self.0.queue.request(|sender| Write::Callback(Box::new(callback), sender));
        async move { queued.await?.ok_or(StoreError::Journalled) }
    }

    /// Stores the result of attempts to deliver a callback. Returns whether other callbacks of the
    /// same call are waiting. Unless [`Outbox::settle_now`] is called, the write may take half a
    /// second.
    ///
    /// # Errors
    /// Fails with [`StoreError::Closed`] if the store was closed first.
    pub fn settle(
        self,
        settlement: Settlement,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send + 'static + use<> {
        self.0.queue.request_lazily(|sender| Write::SettleCallback(Box::new(settlement), sender))
    }

    /// Makes the writer store the results that were passed to [`Outbox::settle`] without further
    /// delay, because other callbacks wait for them.
    pub fn settle_now(self) {
        self.0.queue.wake();
    }

    /// Returns the origins that have due callbacks, and the time when the next other one becomes
    /// due.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn due_origins(
        self,
        node_id: &str,
        now: Timestamp,
    ) -> Result<(Vec<String>, Option<Timestamp>), StoreError> {
        origins_due(&self.0.read, node_id, now).await
    }

    /// Makes callbacks of a node due `now` that are due after `latest`, and returns their number.
    /// They were written while the system's clock was ahead.
    ///
    /// # Errors
    /// Fails if the database rejects the write or the store was closed first.
    pub async fn bring_forward(
        self,
        node_id: &str,
        latest: Timestamp,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let (of_node, of_no_node) = (BRING_FORWARD, &[][..]);
        let node_id = node_id.to_owned();
        self.0.queue.run(BringForward { of_node, of_no_node, node_id, latest, now }).await
    }

    /// Counts the waiting callbacks of a main account, up to `most`.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn count_waiting(
        self,
        node_id: &str,
        main_account: &AuthId,
        most: u32,
    ) -> Result<u32, StoreError> {
        let count = "SELECT count(*) FROM (SELECT 1 FROM callbacks WHERE node_id = $1 AND main_auth_id = $2 \
            AND next_us IS NOT NULL LIMIT $3) AS waiting";
        let count = sql::query_scalar::<i64>(count)
            .bind(node_id)
            .bind(main_account.as_str())
            .bind(i64::from(most));
        let counted = count.fetch_one(&self.0.read).await.map_err(failed("count callbacks"))?;
        Ok(u32::try_from(counted).unwrap_or(most))
    }

    /// Returns due callbacks of an origin, the longest due first, and only the oldest of each call
    /// and URL. An unreadable row is logged and marked as failed, so that it does not block the
    /// rows after it.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn due(
        self,
        node_id: &str,
        origin: &str,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Callback>, StoreError> {
        let (due, unreadable_rows) =
            due(&self.0.read, &self.0.seal, node_id, origin, now, limit).await?;
        for UnreadableRow { id, detail } in unreadable_rows {
            tracing::error!(id, detail, "unreadable callback given up");
            let last = format!("unreadable row: {detail}");
            self.settle(Settlement {
                row: CallbackRow::Id(id),
                attempts: 0,
                at: now,
                outcome: DeliveryOutcome::Failed,
                last,
            })
            .await?;
        }
        Ok(due)
    }

    /// Returns the next due callback of a call to a URL, if no other one must be delivered before it.
    /// An unreadable row is left to [`Outbox::due`].
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn next_of_call(
        self,
        node_id: &str,
        call: CallUuid,
        url: &DocUrl,
        now: Timestamp,
    ) -> Result<Option<Callback>, StoreError> {
        // The index of open callbacks has them in the order of their ids.
        static SELECT: LazyLock<String> = LazyLock::new(|| {
            format!(
                "SELECT {COLUMNS} FROM callbacks c WHERE call_uuid = $1 AND next_us IS NOT NULL AND node_id = $2 \
                AND url = $3 AND next_us <= $4 AND NOT {} ORDER BY id LIMIT 1",
                must_wait("c")
            )
        });
        let select = sql::query(SELECT.as_str()).bind(call.to_string()).bind(node_id);
        let select = select.bind(&*url.0).bind(now.micros());
        let row = select.fetch_optional(&self.0.read).await;
        let row = row.map_err(failed("read the next callback of a call"))?;
        Ok(row.and_then(|row| read(&row, &self.0.seal).ok()))
    }

    /// Returns the content of a call's callbacks by event id, without secret parameters. Empty if
    /// the scope has no such call.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn of_call(
        self,
        scope: &Scope,
        call: CallUuid,
    ) -> Result<BTreeMap<Uuid, CallbackRequest>, StoreError> {
        of_call(&self.0.read, scope, call).await
    }

    /// Adds an event that is not about a message, and waits until it is stored. Returns `None` if
    /// it went to the journal.
    ///
    /// # Errors
    /// Fails with [`StoreError::Closed`] if the store was closed first.
    pub async fn add_event(self, event: NewCallback) -> Result<Option<QueuedCallback>, StoreError> {
        match self.insert(event).await {
            Ok(written) => Ok(Some(written)),
            Err(StoreError::Journalled) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

const COLUMNS: &str = "id, event_id, call_uuid, auth_id, main_auth_id, node_id, kind, origin, url, method, params, \
    secret_params, sealed_params, created_us, since_us, attempts, retries, webhook, event";

/// SQL condition: another row must be delivered before `row`.
fn must_wait(row: &str) -> String {
    let (of_call, of_room) = (is_before(row), room_end_must_wait(row));
    format!(
        "(EXISTS (SELECT 1 FROM callbacks e WHERE e.call_uuid = {row}.call_uuid AND e.id < {row}.id AND {of_call}) OR ({of_room}))"
    )
}

/// SQL condition: `row` reports the end of a multi-party call, and an earlier callback to the same
/// URL about any multi-party call has not been attempted yet.
///
/// It considers callbacks written within some minutes before, which the index of due times finds
/// quickly even if many rows wait for an unreachable host.
fn room_end_must_wait(row: &str) -> String {
    let kind = CallbackKind::MultiParty.as_str();
    format!(
        "{row}.kind = '{kind}' AND {row}.params LIKE '%\"EventName\":\"{MPC_END}\"%' AND EXISTS (SELECT 1 FROM callbacks e WHERE \
        e.node_id = {row}.node_id AND e.origin = {row}.origin AND e.next_us >= {row}.created_us - {LOOK_BACK_US} \
        AND e.next_us <= {row}.created_us AND e.id < {row}.id AND e.url = {row}.url AND e.kind = '{kind}' AND {NOT_ATTEMPTED})"
    )
}

/// SQL condition: `e` has not been attempted yet, and is not behind a retry of the same call and
/// URL.
const NOT_ATTEMPTED: &str = "e.retries = 0 AND NOT EXISTS (SELECT 1 FROM callbacks f WHERE f.call_uuid = e.call_uuid AND f.url = e.url \
    AND f.id < e.id AND f.next_us IS NOT NULL AND f.retries > 0)";

/// How far back to look for older callbacks of the same call and URL, in microseconds. A new
/// callback waits less than this, unless its host is unreachable.
const LOOK_BACK_US: i64 = 600_000_000;

/// SQL condition: the older row `e` of the same call must be delivered before `row`. This is so if
/// both have the same URL. A hangup callback also follows every callback that has not been
/// attempted yet, except those of recordings and transcriptions. Retries delay no other URL.
fn is_before(row: &str) -> String {
    format!(
        "e.next_us IS NOT NULL AND (e.url = {row}.url OR ({row}.kind = 'hangup' \
        AND e.event IS NULL AND e.kind NOT IN ('recording', 'transcription') AND {NOT_ATTEMPTED}))"
    )
}

/// Makes callbacks of a node due. See [`BringForward`].
const BRING_FORWARD: &[&str] = &["UPDATE callbacks SET next_us = $1, \
    since_us = CASE WHEN since_us > $1 THEN $1 ELSE since_us END, \
    created_us = CASE WHEN created_us > $1 THEN $1 ELSE created_us END \
    WHERE next_us > $2 AND node_id = $3"];

/// Inserts a callback that is due immediately.
pub(crate) async fn insert(
    to: &mut Conn,
    seal: &Seal,
    new: NewCallback,
) -> Result<QueuedCallback, sqlx::Error> {
    insert_all(to, seal, vec![new]).await?.pop().ok_or(sqlx::Error::RowNotFound)
}

/// Inserts those callbacks, in order, that are not in the outbox yet.
pub(crate) async fn insert_new(
    to: &mut Conn,
    seal: &Seal,
    all: Vec<NewCallback>,
) -> Result<(), sqlx::Error> {
    let asked: Vec<_> = all.iter().map(exists_query).collect();
    let there = sql::execute_each(to, asked).await?;
    let is_new = |outcome: &Outcome<(bool,)>| !outcome.rows.iter().any(|(there,)| *there);
    let new: Vec<_> = all
        .into_iter()
        .zip(&there)
        .filter(|(_, there)| is_new(there))
        .map(|(new, _)| new)
        .collect();
    drop(there);
    insert_all(to, seal, new).await.map(drop)
}

/// The query has two halves, because a call's waiting and finished callbacks have separate indexes.
fn exists_query(new: &NewCallback) -> Query<TupleRow<(bool,)>> {
    let there = "SELECT EXISTS (SELECT 1 FROM callbacks WHERE call_uuid = $1 AND next_us IS NOT NULL AND event_id = $2) \
        OR EXISTS (SELECT 1 FROM callbacks WHERE call_uuid = $1 AND done_us IS NOT NULL AND event IS NULL AND event_id = $2)";
    sql::query_as(there).bind(new.call.to_string()).bind(new.event_id.to_string())
}

/// Inserts callbacks in order.
pub(crate) async fn insert_all(
    to: &mut Conn,
    seal: &Seal,
    all: Vec<NewCallback>,
) -> Result<Vec<QueuedCallback>, sqlx::Error> {
    insert_settled(to, seal, all.into_iter().map(|new| (new, None)).collect()).await
}

/// Inserts callbacks in order. Those with a settlement have already been sent; their rows get its
/// result.
pub(crate) async fn insert_settled(
    to: &mut Conn,
    seal: &Seal,
    all: Vec<(NewCallback, Option<&Settlement>)>,
) -> Result<Vec<QueuedCallback>, sqlx::Error> {
    let inserts: Vec<_> =
        all.iter().map(|(new, settled)| insert_query(seal, new, *settled)).collect();
    let outcomes = sql::execute_each(to, inserts).await?;
    let written = |((new, _), outcome): ((NewCallback, _), Outcome<(i64, bool)>)| {
        let (id, behind) = outcome.rows.into_iter().next().ok_or(sqlx::Error::RowNotFound)?;
        let (row, since) = (CallbackRow::Id(id), new.created);
        Ok(QueuedCallback {
            callback: Callback { row, new, since, attempts: 0, retries: 0 },
            first: !behind,
        })
    };
    all.into_iter().zip(outcomes).map(written).collect()
}

fn insert_query(
    seal: &Seal,
    new: &NewCallback,
    settled: Option<&Settlement>,
) -> Query<TupleRow<(i64, bool)>> {
    static INSERT: LazyLock<String> = LazyLock::new(|| {
        let insert = "INSERT INTO callbacks (event_id, call_uuid, auth_id, main_auth_id, node_id, kind, origin, url, \
            method, params, sealed_params, created_us, since_us, webhook, event, next_us, done_us, delivered, attempts, \
            retries, last) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12, $13, $14, $15, $16, $17, $18, \
            $19, $20) RETURNING id, ";
        format!("{insert}{}", must_wait("callbacks"))
    });
    let plain = plain_params(&new.notice.params);
    let is_delivered = settled.is_some_and(Settlement::is_delivered);
    let due = settled.map_or(Some(new.created), Settlement::due);
    sql::query_as(INSERT.as_str())
        .bind(new.event_id.to_string())
        .bind(new.call.to_string())
        .bind(new.account.as_str())
        .bind(new.main_account.as_str())
        .bind(&new.node_id)
        .bind(new.notice.kind.as_str())
        .bind(&new.origin)
        .bind(&*new.notice.url.0)
        .bind(new.notice.method.as_str())
        .bind(sqlx::types::Json(&plain))
        .bind(if is_delivered { None } else { new.sealed(seal) })
        .bind(new.created.micros())
        .bind(receiver_of(new).map(|receiver| receiver.column()))
        .bind(match new.notice.kind {
            CallbackKind::Message => {
                Some(new.number_event.as_ref().map_or("message", |about| about.event.as_str()))
            }
            CallbackKind::Event => new.notice.params.get(EVENT_TYPE).map(Param::reveal),
            _ => None,
        })
        .bind(due.map(Timestamp::micros))
        .bind(settled.and_then(Settlement::done).map(Timestamp::micros))
        .bind(is_delivered)
        .bind(i64::from(settled.map_or(0, |settled| settled.attempts)))
        .bind(i64::from(settled.is_some() && due.is_some()))
        .bind(settled.map_or("", |settled| &settled.last))
}

/// Returns the receiver whose delivery log lists the callback, if there is one.
fn receiver_of(new: &NewCallback) -> Option<Receiver> {
    let webhook = new.notice.url.0.strip_prefix(message::WEBHOOK);
    let webhook = webhook.and_then(|id| id.parse().ok()).map(Receiver::Webhook);
    webhook.or_else(|| Some(Receiver::Number(new.number_event.as_ref()?.number.clone())))
}

/// Stores results of deliveries. The result is whether other callbacks of the same call are
/// waiting. A row that is already finished does not change.
pub(crate) async fn settle(to: &mut Conn, all: &[&Settlement]) -> Result<Vec<bool>, sqlx::Error> {
    let outcomes =
        sql::execute_each(to, all.iter().map(|settlement| settle_query(settlement))).await?;
    let others = |(s, outcome): (&&Settlement, &Outcome<(bool,)>)| {
        s.due().is_none() && outcome.rows.iter().any(|(others,)| *others)
    };
    Ok(all.iter().zip(&outcomes).map(others).collect())
}

fn settle_query(s: &Settlement) -> Query<TupleRow<(bool,)>> {
    macro_rules! update {
        ($row:literal) => {
            concat!(
                "UPDATE callbacks SET attempts = $1, next_us = $2, done_us = $3, delivered = $4, last = $5, ",
                "retries = retries + $6, secret_params = CASE WHEN $4 = 1 THEN NULL ELSE secret_params END, ",
                "sealed_params = CASE WHEN $4 = 1 THEN NULL ELSE sealed_params END WHERE ", $row,
                " AND next_us IS NOT NULL RETURNING EXISTS (SELECT 1 FROM callbacks e WHERE ",
                "e.call_uuid = callbacks.call_uuid AND e.next_us IS NOT NULL AND e.id <> callbacks.id)",
            )
        };
    }
    let update = match s.row {
        CallbackRow::Id(_) => update!("id = $7"),
        CallbackRow::Pending { .. } => update!("call_uuid = $7 AND event_id = $8"),
    };
    let update = sql::query_as(update)
        .bind(i64::from(s.attempts))
        .bind(s.due().map(Timestamp::micros))
        .bind(s.done().map(Timestamp::micros))
        .bind(s.is_delivered())
        .bind(&s.last)
        .bind(i64::from(s.due().is_some()));
    match s.row {
        CallbackRow::Id(id) => update.bind(id),
        CallbackRow::Pending { call, event_id } => {
            update.bind(call.to_string()).bind(event_id.to_string())
        }
    }
}

/// Deletes those of the callbacks that were finished before `done_before`. A callback may have been
/// sent again in the meantime and is kept then. Returns the number of deleted rows.
pub(crate) async fn delete_finished(
    to: &mut Conn,
    ids: &[i64],
    done_before: Timestamp,
) -> Result<u64, sqlx::Error> {
    let mut delete = sql::QueryBuilder::new("DELETE FROM callbacks WHERE done_us < ");
    delete.push_bind(done_before.micros()).push(" AND id").push_in(ids.iter().copied());
    Ok(delete.build().execute(to).await?.rows_affected())
}

/// Returns the origins that have due rows, and the time when the next other row becomes due.
pub(crate) async fn origins_due(
    pool: &Pool,
    node_id: &str,
    now: Timestamp,
) -> Result<(Vec<String>, Option<Timestamp>), StoreError> {
    const WHAT: &str = "find due callbacks";
    // Steps through the index from one origin to the next, regardless of the number of rows.
    let origins = "WITH RECURSIVE walk (origin) AS ( \
            SELECT min(origin) FROM callbacks WHERE node_id = $1 AND next_us IS NOT NULL \
            UNION ALL \
            SELECT (SELECT min(c.origin) FROM callbacks c \
                WHERE c.node_id = $1 AND c.next_us IS NOT NULL AND c.origin > walk.origin) \
            FROM walk WHERE walk.origin IS NOT NULL) \
        SELECT origin, (SELECT min(c.next_us) FROM callbacks c \
            WHERE c.node_id = $1 AND c.origin = walk.origin AND c.next_us IS NOT NULL), \
            (SELECT min(c.next_us) FROM callbacks c \
            WHERE c.node_id = $1 AND c.origin = walk.origin AND c.next_us > $2) \
        FROM walk WHERE origin IS NOT NULL";
    let rows: Vec<(String, Option<i64>, Option<i64>)> = sql::query_as(origins)
        .bind(node_id)
        .bind(now.micros())
        .fetch_all(pool)
        .await
        .map_err(failed(WHAT))?;
    let next = rows.iter().filter_map(|(_, _, later)| *later).min().map(Timestamp::from_micros);
    let due = |first: Option<i64>| first.is_some_and(|first| first <= now.micros());
    Ok((
        rows.into_iter().filter(|(_, first, _)| due(*first)).map(|(origin, _, _)| origin).collect(),
        next,
    ))
}

/// A row that can't be read, because another version or program wrote it.
pub(crate) struct UnreadableRow {
    pub(crate) id: i64,
    pub(crate) detail: String,
}

/// Returns due rows of an origin, the longest due first, and only the oldest of each call and URL.
pub(crate) async fn due(
    pool: &Pool,
    seal: &Seal,
    node_id: &str,
    origin: &str,
    now: Timestamp,
    limit: u32,
) -> Result<(Vec<Callback>, Vec<UnreadableRow>), StoreError> {
    const WHAT: &str = "read due callbacks";
    let select = format!(
        "SELECT {COLUMNS} FROM callbacks c WHERE node_id = $1 AND origin = $2 AND next_us <= $3 AND NOT {} \
        ORDER BY next_us, id LIMIT $4",
        must_wait("c")
    );
    let rows = sql::query(select)
        .bind(node_id)
        .bind(origin)
        .bind(now.micros())
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await
        .map_err(failed(WHAT))?;
    let unreadable = |e: RowError| StoreError::Unreadable { what: WHAT, detail: e.to_string() };
    let (mut due, mut unreadable_rows) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in &rows {
        match read(row, seal) {
            Ok(callback) => due.push(callback),
            // Without its id, the row can't be marked as failed.
            Err(e) => {
                let id = row.try_get("id").map_err(|e| unreadable(e.into()))?;
                unreadable_rows.push(UnreadableRow { id, detail: e.to_string() });
            }
        }
    }
    Ok((due, unreadable_rows))
}

fn read(row: &Row, seal: &Seal) -> Result<Callback, RowError> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let count =
        |column: &str| row.try_get::<i64, _>(column).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    let time = |column: &str| row.try_get(column).map(Timestamp::from_micros);
    let plain: BTreeMap<String, String> = row.try_get::<sqlx::types::Json<_>, _>("params")?.0;
    let secret: Option<sqlx::types::Json<BTreeMap<String, String>>> =
        row.try_get("secret_params")?;
    let plain = plain.into_iter().map(|(name, value)| (name.into(), Param::Plain(value.into())));
    let secret = secret.map(|json| json.0).unwrap_or_default();
    let secret = secret.into_iter().map(|(name, value)| (name.into(), Param::Secret(value)));
    let mut new = NewCallback {
        event_id: text("event_id")?.parse()?,
        call: text("call_uuid")?.parse()?,
        account: text("auth_id")?.into(),
        main_account: text("main_auth_id")?.into(),
        node_id: text("node_id")?,
        origin: text("origin")?,
        notice: CallbackRequest {
            kind: parse_word::<CallbackKind>(&text("kind")?)?,
            url: DocUrl(text("url")?.into()),
            method: parse_word(&text("method")?)?,
            params: plain.chain(secret).collect(),
        },
        number_event: None,
        shut: None,
        created: time("created_us")?,
    };
    let receiver = row.try_get::<Option<String>, _>("webhook")?;
    if let Some(number) = receiver.as_deref().and_then(|column| column.strip_prefix(OF_NUMBER)) {
        let event = row.try_get::<Option<String>, _>("event")?.unwrap_or_default();
        new.number_event = Some(NumberEvent { number: number.into(), event });
    }
    if let Some(sealed) = row.try_get("sealed_params")? {
        new.unseal(seal, sealed);
    }
    Ok(Callback {
        row: CallbackRow::Id(row.try_get("id")?),
        new,
        since: time("since_us")?,
        attempts: count("attempts")?,
        retries: count("retries")?,
    })
}

/// Maximum number of callbacks returned for one call.
const MAX_OF_CALL: i64 = 500;

/// Returns the content of a call's callbacks by event id, without secret parameters, if the call is
/// in the scope.
pub(crate) async fn of_call(
    pool: &Pool,
    scope: &Scope,
    call: CallUuid,
) -> Result<BTreeMap<Uuid, CallbackRequest>, StoreError> {
    const WHAT: &str = "read a call's callbacks";
    let mut query = sql::QueryBuilder::new("");
    // One `SELECT` for each of the indexes of waiting and finished callbacks.
    for (before, which) in [("", "next_us IS NOT NULL"), (" UNION ALL ", "done_us IS NOT NULL")] {
        query.push(format!(
            "{before}SELECT event_id, kind, url, method, params FROM callbacks WHERE "
        ));
        scope::push_scope(&mut query, scope);
        query
            .push(format!(" AND event IS NULL AND {which} AND call_uuid = "))
            .push_bind(call.to_string());
    }
    query.push(" LIMIT ").push_bind(MAX_OF_CALL);
    let rows = query.build().fetch_all(pool).await.map_err(failed(WHAT))?;
    let carried = |row: &Row| -> Result<(Uuid, CallbackRequest), RowError> {
        let text = |column: &str| row.try_get::<String, _>(column);
        let params: BTreeMap<String, String> = row.try_get::<sqlx::types::Json<_>, _>("params")?.0;
        let notice = CallbackRequest {
            kind: parse_word::<CallbackKind>(&text("kind")?)?,
            url: DocUrl(text("url")?.into()),
            method: parse_word(&text("method")?)?,
            params: params
                .into_iter()
                .map(|(name, value)| (name.into(), Param::Plain(value.into())))
                .collect(),
        };
        Ok((text("event_id")?.parse()?, notice))
    };
    // Callbacks written by another version are skipped.
    Ok(rows.iter().filter_map(|row| carried(row).ok()).collect())
}

/// The parameters that are not secret.
fn plain_params(params: &Params) -> BTreeMap<&str, &str> {
    params
        .iter()
        .filter(|(_, v)| !is_secret(v))
        .map(|(name, value)| (name, value.reveal()))
        .collect()
}

/// Selects callbacks by state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callbacks {
    All,
    Waiting,
    Failed,
}

/// Selects callbacks to be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rearm<'a> {
    /// The waiting or failed callback with this event id or row id.
    One(&'a str),
    AllFailed,
}

/// Returns the latest callbacks, newest first.
pub(crate) async fn latest(
    pool: &Pool,
    which: Callbacks,
    limit: u32,
) -> Result<Vec<CallbackView>, StoreError> {
    const WHAT: &str = "list callbacks";
    let which = match which {
        Callbacks::All => "",
        Callbacks::Waiting => "WHERE next_us IS NOT NULL",
        Callbacks::Failed => "WHERE done_us IS NOT NULL AND delivered = 0",
    };
    let select = format!(
        "SELECT id, event_id, call_uuid, auth_id, kind, method, url, created_us, attempts, next_us, done_us, delivered, \
        last FROM callbacks {which} ORDER BY id DESC LIMIT $1"
    );
    let rows = sql::query(select).bind(limit).fetch_all(pool).await.map_err(failed(WHAT))?;
    rows.iter()
        .map(|row| {
            view(row).map_err(|e| StoreError::Unreadable { what: WHAT, detail: e.to_string() })
        })
        .collect()
}

fn view(row: &Row) -> Result<CallbackView, RowError> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let time = |column: &str| {
        row.try_get::<Option<i64>, _>(column).map(|at| at.map(Timestamp::from_micros))
    };
    let done = time("done_us")?.unwrap_or_default();
    let state = match (time("next_us")?, row.try_get::<bool, _>("delivered")?) {
        (Some(due), _) => CallbackState::Waiting { due },
        (None, true) => CallbackState::Delivered { at: done },
        (None, false) => CallbackState::Failed { at: done },
    };
    Ok(CallbackView {
        id: row.try_get("id")?,
        event_id: text("event_id")?,
        call: text("call_uuid")?,
        account: text("auth_id")?,
        kind: text("kind")?,
        method: text("method")?,
        url: text("url")?,
        created: time("created_us")?.unwrap_or_default(),
        attempts: row.try_get::<u32, _>("attempts")?,
        state,
        last: text("last")?,
    })
}

/// SQL for PostgreSQL: whether the owner of a row of `callbacks` is a member of the fleet.
pub(crate) const IS_OWNED: &str = "EXISTS (SELECT 1 FROM runs r WHERE r.node_id || '/' || r.run::text = \
    callbacks.node_id AND r.state IN ('up', 'draining'))";

/// SQL for PostgreSQL: who sends a row of `callbacks` that becomes due again. That is its owner if
/// `keeps`, or else the one who sends the other callbacks of its call, or else `otherwise`.
pub(crate) fn owner_of_due(keeps: &str, otherwise: &str) -> String {
    format!(
        "CASE WHEN {keeps} THEN callbacks.node_id ELSE COALESCE((SELECT w.node_id FROM callbacks w \
         WHERE w.call_uuid = callbacks.call_uuid AND w.next_us IS NOT NULL LIMIT 1), {otherwise}) END"
    )
}

/// Makes callbacks due now and returns their number. Failed ones get another 24 hours to be
/// delivered. Older ones that still wait and must be sent before are due, too. A running node finds
/// them within a second.
///
/// # Errors
/// Fails if the store does not exist, or if the database query fails.
pub async fn rearm(at: &Database, which: Rearm<'_>, now: Timestamp) -> Result<u64, StoreError> {
    let store = open_store_beside_node(at, false).await?;
    let owner = match store.dialect() {
        Dialect::Sqlite => "node_id".to_owned(),
        Dialect::Postgres => owner_of_due(
            &format!("position('/' in node_id) = 0 OR {IS_OWNED}"),
            "(SELECT r.node_id || '/' || r.run::text FROM runs r WHERE r.state = 'up' LIMIT 1), node_id",
        ),
    };
    // A waiting callback keeps its place in the retry schedule.
    let update = format!(
        "UPDATE callbacks SET next_us = $1, done_us = NULL, node_id = {owner}, \
         since_us = CASE WHEN done_us IS NULL THEN since_us ELSE $1 END, \
         retries = CASE WHEN done_us IS NULL THEN retries ELSE 0 END WHERE delivered = 0 AND "
    );
    let done = match which {
        Rearm::One(id) => {
            let number = id.parse::<i64>().ok();
            let event_id = id.parse::<Uuid>().map(|id| id.to_string()).unwrap_or_default();
            // In one statement, so that the older ones are found by their state before it.
            let which = "(event_id = $2 OR id = $3 OR done_us IS NULL AND EXISTS (SELECT 1 FROM callbacks f \
                WHERE (f.event_id = $2 OR f.id = $3) AND f.delivered = 0 AND f.call_uuid = callbacks.call_uuid \
                AND f.url = callbacks.url AND f.id > callbacks.id))";
            let update = sql::query(format!("{update} {which}")).bind(now.micros());
            update.bind(event_id).bind(number).execute(&store).await
        }
        Rearm::AllFailed => {
            sql::query(format!("{update} done_us IS NOT NULL"))
                .bind(now.micros())
                .execute(&store)
                .await
        }
    };
    let done = done.map_err(failed("make callbacks due"))?.rows_affected();
    store.close().await;
    Ok(done)
}
