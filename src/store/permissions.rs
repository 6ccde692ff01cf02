//! What users allow business numbers (`admission::permission`), and their replies as they came.

use serde::{Deserialize, Serialize};
use sqlx::{SqliteConnection, SqlitePool};

use super::{StoreError, failed};
use crate::model::{PhoneNumberId, Timestamp};

/// A (business number, user), and what is kept of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionRow {
    pub number: PhoneNumberId,
    /// Digits, or a business-scoped id.
    pub user: String,
    /// The state's word, for people.
    pub state: String,
    /// JSON, as `admission::permission` reads it.
    pub pair: String,
    pub updated: Timestamp,
}

/// A user's reply to a request.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionReply {
    pub message: String,
    /// JSON.
    pub reply: String,
    /// Whether it changed the row.
    pub applied: bool,
}

/// Without the user's number (R22).
impl std::fmt::Debug for PermissionRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PermissionRow({} {})", self.number, self.state)
    }
}

/// Without the reply itself (R22).
impl std::fmt::Debug for PermissionReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PermissionReply({})", self.message)
    }
}

/// Puts the row in place of the older one, and the reply beside it. Of a copy nothing is written.
pub(super) async fn put(
    to: &mut SqliteConnection,
    row: &PermissionRow,
    reply: Option<&PermissionReply>,
) -> Result<(), sqlx::Error> {
    let put = "INSERT INTO permissions (phone_number_id, user, state, pair, updated_us) VALUES ($1, $2, $3, $4, $5) \
        ON CONFLICT (phone_number_id, user) DO UPDATE \
        SET state = excluded.state, pair = excluded.pair, updated_us = excluded.updated_us";
    let put = sqlx::query(put).bind(row.number.as_str()).bind(&row.user).bind(&row.state).bind(&row.pair);
    put.bind(row.updated.micros()).execute(&mut *to).await?;
    let Some(reply) = reply else { return Ok(()) };
    let insert = "INSERT INTO permission_replies (phone_number_id, message_id, user, reply, applied, came_us) \
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (phone_number_id, message_id) DO NOTHING";
    let insert = sqlx::query(insert).bind(row.number.as_str()).bind(&reply.message).bind(&row.user).bind(&reply.reply);
    insert.bind(reply.applied).bind(row.updated.micros()).execute(&mut *to).await.map(drop)
}

/// Forgets a row that has not been written since `before`.
pub(super) async fn delete(
    to: &mut SqliteConnection,
    number: &PhoneNumberId,
    user: &str,
    before: Timestamp,
) -> Result<(), sqlx::Error> {
    let delete = "DELETE FROM permissions WHERE phone_number_id = $1 AND user = $2 AND updated_us < $3";
    sqlx::query(delete).bind(number.as_str()).bind(user).bind(before.micros()).execute(to).await.map(drop)
}

/// Forgets replies that came before then.
pub(super) async fn forget_replies(to: &mut SqliteConnection, before: Timestamp) -> Result<(), sqlx::Error> {
    let delete = sqlx::query("DELETE FROM permission_replies WHERE came_us < $1").bind(before.micros());
    delete.execute(to).await.map(drop)
}

/// Rows behind `after` (none: from the first), in the order of their keys.
pub(super) async fn page(
    pool: &SqlitePool,
    after: Option<(&str, &str)>,
    limit: u32,
) -> Result<Vec<PermissionRow>, StoreError> {
    let select = "SELECT phone_number_id, user, state, pair, updated_us FROM permissions \
        WHERE (phone_number_id, user) > ($1, $2) ORDER BY phone_number_id, user LIMIT $3";
    let (number, user) = after.unwrap_or(("", ""));
    let rows: Vec<(String, String, String, String, i64)> = sqlx::query_as(select)
        .bind(number)
        .bind(user)
        .bind(limit)
        .fetch_all(pool)
        .await
        .map_err(failed("read what users allow"))?;
    let row = |(number, user, state, pair, updated): (String, String, String, String, i64)| PermissionRow {
        number: number.into(),
        user,
        state,
        pair,
        updated: Timestamp::from_micros(updated),
    };
    Ok(rows.into_iter().map(row).collect())
}
