//! The outbox: callbacks that wait, and what became of them (R4).
//!
//! A row waits while it has a due time. Of the rows of one call and URL only the oldest is ever handed out, so that
//! they go out in order. Handing out changes nothing in the row: who delivers remembers what it holds, and what a
//! crash interrupts is simply due again.

use std::collections::BTreeMap;

use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection, SqlitePool};
use uuid::Uuid;

use super::{StoreError, Unread, failed, word};
use crate::call::machine::{Notice, NoticeKind, Param, Params};
use crate::model::{AuthId, CallUuid, Timestamp};
use crate::xml::ast::DocUrl;

/// A callback as it is put into the outbox.
#[derive(Clone, Debug, PartialEq)]
pub struct NewCallback {
    /// `X-Offhook-Event-Id`.
    pub event_id: Uuid,
    pub call: CallUuid,
    /// Whose tokens sign it, and its main account.
    pub account: AuthId,
    pub main_account: AuthId,
    pub node_id: String,
    /// Scheme, host and port of the URL: whose queue it stands in.
    pub origin: String,
    pub notice: Notice,
    pub created: Timestamp,
}

/// A callback that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Callback {
    pub id: i64,
    pub new: NewCallback,
    /// Since when its 24 hours run.
    pub since: Timestamp,
    /// Attempts made so far.
    pub attempts: u32,
    /// Retries of the schedule begun.
    pub retries: u32,
}

/// A callback that was just put into the outbox.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    pub callback: Callback,
    /// Whether it may go out now; else another one of its call and URL waits before it.
    pub first: bool,
}

/// How attempts at a callback ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    pub id: i64,
    pub attempts: u32,
    pub at: Timestamp,
    pub outcome: Settled,
    /// For people: the status, or what went wrong.
    pub last: String,
}

/// What is to become of the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    Delivered,
    /// Once more then; counts as a retry of the schedule.
    Again {
        due: Timestamp,
    },
    Failed,
}

/// Where a callback stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallbackState {
    Waiting { due: Timestamp },
    Delivered { at: Timestamp },
    Failed { at: Timestamp },
}

impl CallbackState {
    /// The word that people and `--json` get.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Delivered { .. } => "delivered",
            Self::Failed { .. } => "failed",
        }
    }
}

/// A callback as an operator sees it: all but its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct CallbackView {
    pub id: i64,
    pub event_id: String,
    pub call: String,
    pub account: String,
    pub kind: String,
    pub method: String,
    pub url: String,
    pub created: Timestamp,
    pub attempts: u32,
    pub state: CallbackState,
    pub last: String,
}

const COLUMNS: &str = "id, event_id, call_uuid, auth_id, main_auth_id, node_id, kind, origin, url, method, params, \
    secret_params, created_us, since_us, attempts, retries";

/// Puts a callback in; due at once.
pub(super) async fn insert(to: &mut SqliteConnection, new: &NewCallback) -> Result<Written, sqlx::Error> {
    let (plain, secret) = parts(&new.notice.params);
    let before = "SELECT 1 FROM callbacks WHERE call_uuid = $1 AND next_us IS NOT NULL AND url = $2 LIMIT 1";
    let before: Option<(i64,)> =
        sqlx::query_as(before).bind(new.call.to_string()).bind(&*new.notice.url.0).fetch_optional(&mut *to).await?;
    let insert = "INSERT INTO callbacks (event_id, call_uuid, auth_id, main_auth_id, node_id, kind, origin, url, \
        method, params, secret_params, created_us, since_us, next_us) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12, $12) RETURNING id";
    let id = sqlx::query_scalar(insert)
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
        .bind((!secret.is_empty()).then_some(sqlx::types::Json(&secret)))
        .bind(new.created.micros())
        .fetch_one(to)
        .await?;
    let callback = Callback { id, new: new.clone(), since: new.created, attempts: 0, retries: 0 };
    Ok(Written { callback, first: before.is_none() })
}

/// Writes down what became of one; tells whether others of its call wait. One that was done meanwhile stays so.
pub(super) async fn settle(to: &mut SqliteConnection, s: &Settlement) -> Result<bool, sqlx::Error> {
    let (due, done, delivered) = match s.outcome {
        Settled::Again { due } => (Some(due), None, false),
        Settled::Delivered => (None, Some(s.at), true),
        Settled::Failed => (None, Some(s.at), false),
    };
    let update = "UPDATE callbacks SET attempts = $2, next_us = $3, done_us = $4, delivered = $5, last = $6, \
        retries = retries + $7, secret_params = CASE WHEN $5 THEN NULL ELSE secret_params END WHERE id = $1 AND next_us IS NOT NULL RETURNING call_uuid";
    let call: Option<(String,)> = sqlx::query_as(update)
        .bind(s.id)
        .bind(i64::from(s.attempts))
        .bind(due.map(Timestamp::micros))
        .bind(done.map(Timestamp::micros))
        .bind(delivered)
        .bind(&s.last)
        .bind(i64::from(due.is_some()))
        .fetch_optional(&mut *to)
        .await?;
    let Some((call,)) = call.filter(|_| due.is_none()) else { return Ok(false) };
    let more = "SELECT 1 FROM callbacks WHERE call_uuid = $1 AND next_us IS NOT NULL LIMIT 1";
    let more: Option<(i64,)> = sqlx::query_as(more).bind(call).fetch_optional(to).await?;
    Ok(more.is_some())
}

/// Forgets done ones.
pub(super) async fn forget(to: &mut SqliteConnection, done_before: Timestamp) -> Result<(), sqlx::Error> {
    let delete = "DELETE FROM callbacks WHERE done_us < $1";
    sqlx::query(delete).bind(done_before.micros()).execute(to).await.map(drop)
}

/// The origins with rows that are due, and when the next row is due that isn't yet.
pub(super) async fn origins_due(
    pool: &SqlitePool,
    node_id: &str,
    now: Timestamp,
) -> Result<(Vec<String>, Option<Timestamp>), StoreError> {
    const WHAT: &str = "look for callbacks that are due";
    // From one origin to the next by the index, however many rows each has.
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
    let rows: Vec<(String, Option<i64>, Option<i64>)> =
        sqlx::query_as(origins).bind(node_id).bind(now.micros()).fetch_all(pool).await.map_err(failed(WHAT))?;
    let next = rows.iter().filter_map(|(_, _, later)| *later).min().map(Timestamp::from_micros);
    let due = |first: Option<i64>| first.is_some_and(|first| first <= now.micros());
    Ok((rows.into_iter().filter(|(_, first, _)| due(*first)).map(|(origin, _, _)| origin).collect(), next))
}

/// Rows of an origin that are due, the longest due first; of each call and URL the oldest only.
pub(super) async fn due(
    pool: &SqlitePool,
    node_id: &str,
    origin: &str,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<Callback>, StoreError> {
    const WHAT: &str = "read callbacks that are due";
    let select = format!(
        "SELECT {COLUMNS} FROM callbacks c WHERE node_id = $1 AND origin = $2 AND next_us <= $3 AND NOT EXISTS \
        (SELECT 1 FROM callbacks e WHERE e.call_uuid = c.call_uuid AND e.next_us IS NOT NULL AND e.url = c.url \
        AND e.id < c.id) ORDER BY next_us, id LIMIT $4"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(select))
        .bind(node_id)
        .bind(origin)
        .bind(now.micros())
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await
        .map_err(failed(WHAT))?;
    rows.iter().map(|row| read(row).map_err(|e| StoreError::Unreadable { what: WHAT, detail: e.to_string() })).collect()
}

fn read(row: &SqliteRow) -> Result<Callback, Unread> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let count = |column: &str| row.try_get::<i64, _>(column).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    let time = |column: &str| row.try_get(column).map(Timestamp::from_micros);
    let plain: BTreeMap<String, String> = row.try_get::<sqlx::types::Json<_>, _>("params")?.0;
    let secret: Option<sqlx::types::Json<BTreeMap<String, String>>> = row.try_get("secret_params")?;
    let plain = plain.into_iter().map(|(name, value)| (name, Param::Plain(value)));
    let secret = secret.map(|json| json.0).unwrap_or_default();
    let secret = secret.into_iter().map(|(name, value)| (name, Param::Secret(value)));
    Ok(Callback {
        id: row.try_get("id")?,
        new: NewCallback {
            event_id: text("event_id")?.parse()?,
            call: text("call_uuid")?.parse()?,
            account: text("auth_id")?.into(),
            main_account: text("main_auth_id")?.into(),
            node_id: text("node_id")?,
            origin: text("origin")?,
            notice: Notice {
                kind: word::<NoticeKind>(&text("kind")?)?,
                url: DocUrl(text("url")?.into()),
                method: word(&text("method")?)?,
                params: plain.chain(secret).collect(),
            },
            created: time("created_us")?,
        },
        since: time("since_us")?,
        attempts: count("attempts")?,
        retries: count("retries")?,
    })
}

/// Parameters by whether their values may be shown.
fn parts(params: &Params) -> (BTreeMap<&str, &str>, BTreeMap<&str, &str>) {
    let (mut plain, mut secret) = (BTreeMap::new(), BTreeMap::new());
    for (name, value) in params {
        let part = match value {
            Param::Plain(_) => &mut plain,
            Param::Secret(_) => &mut secret,
        };
        part.insert(name.as_str(), value.reveal());
    }
    (plain, secret)
}
